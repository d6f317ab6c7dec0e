"""Holds valuescope.lm_eval against the harness's own Hugging Face backend, on the same folders in float32: every log-probability, every
greedy flag and every generated text of the tasks in lm_eval_tasks, as they are, behind a chat template, and steered, where the other
side is a model with a hook. Then the command line of README.md is run.

    python check_lm_eval.py [--model FOLDER ...]

Run with lm_eval 0.4.13, torch 2.11.0 and transformers 5.17.0 on a CPU; VALUESCOPE_BUILD is the build. The planted model, the
same without a bos_token and one whose tokenizer begins texts with a token are always checked, folders of --model beside them.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "integration"))

import conftest  # noqa: E402, F401
import lm_eval  # noqa: E402
import numpy as np  # noqa: E402
import planted_model as pm  # noqa: E402
import torch  # noqa: E402
import valuescope as vs  # noqa: E402
from conftest import Server  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from valuescope.lm_eval import Steered  # noqa: E402

TASKS = ["planted_choices", "planted_answers", "planted_texts"]
TASK_FOLDER = HERE / "lm_eval_tasks"
FAMILIES = ROOT / "tests" / "golden" / "families"
BEGINS_TEXTS = "mistral"
# Of natural log-probabilities.
TOLERANCE = 1e-4
COEFFICIENT = 3.0


def evaluate(model, **options):
    """Task -> the responses to its documents; and task -> its metrics."""
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=TASKS,
        task_manager=TaskManager(include_path=str(TASK_FOLDER), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        **options,
    )
    responses = {
        task: [[answer for (answer,) in one["resps"]] for one in samples]
        for task, samples in results["samples"].items()
    }
    return responses, results["results"]


def logprobs(responses):
    choices = [logprob for one in responses["planted_choices"] for logprob, _ in one]
    return np.array(choices + [logprob for (logprob,) in responses["planted_texts"]])


def with_context(answers):
    """Those of documents that have one."""
    lines = (TASK_FOLDER / "planted_choices.jsonl").read_text().splitlines()
    asked = [json.loads(line)["question"].strip() for line in lines]
    return [answer for answer, question in zip(answers, asked, strict=True) if question]


def check_equal(what, here, there, texts_of=list):
    (found, found_metrics), (expected, expected_metrics) = here, there
    differences = np.abs(logprobs(found) - logprobs(expected))
    flags = [[greedy for _, greedy in one] for one in expected["planted_choices"]]
    print(
        f"{what}: {logprobs(expected).size} log-probabilities of {logprobs(expected).min():.1f} to {logprobs(expected).max():.1f}, "
        f"largest difference {differences.max():.2g}; {sum(map(sum, flags))} choices are greedy; texts {expected['planted_answers'][:2]}"
    )
    assert differences.max() < TOLERANCE
    assert [[greedy for _, greedy in one] for one in found["planted_choices"]] == flags
    assert texts_of(found["planted_answers"]) == texts_of(expected["planted_answers"])
    check_metrics(found_metrics, expected_metrics)
    return sum(map(sum, flags))


def check_metrics(found_metrics, expected_metrics):
    for task, metrics in expected_metrics.items():
        for name, value in metrics.items():
            if isinstance(value, float):
                assert abs(found_metrics[task][name] - value) <= TOLERANCE * max(1, value), name


def hooked(model, block, row):
    """Adds to what a block writes, at every token."""
    return model.model.layers[block].register_forward_hook(
        lambda _module, _inputs, out: (
            (out[0] + row, *out[1:]) if isinstance(out, tuple) else out + row
        )
    )


def check_folder(client, folder):
    torch_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    name = f"models/{folder.name}"
    # The server counts a text's last token, too, which is not fed.
    length = client.model(name).context_length - 1
    options = {"max_length": length}
    # In float32 its softmax over 49,152 words puts a text of 480 tokens off by 1.7e-3. Where contexts with all but the last token of
    # their continuations are equal, but the continuations' lengths are not, its cache takes logits from the front of the longest one
    # (lm_eval 0.4.13).
    theirs = HFLM(
        pretrained=torch_model,
        tokenizer=tokenizer,
        max_length=length,
        batch_size=4,
        device="cpu",
        logits_cache=False,
        softmax_dtype="float64",
    )
    # Where the tokenizer has no bos_token the other side generates behind padding alone, and not behind the prefix token that it scores
    # behind.
    texts_of = list if tokenizer.bos_token_id is not None else with_context
    plain = evaluate(theirs)
    greedy = check_equal(
        f"{name}, as it is", evaluate(Steered(client, name, **options)), plain, texts_of
    )
    chats = [{}] if tokenizer.chat_template is None else [{}, {"apply_chat_template": True}]
    block = torch_model.config.num_hidden_layers // 2
    row = np.random.default_rng(5).standard_normal(torch_model.config.hidden_size)
    row = (row / np.linalg.norm(row)).astype(np.float32)
    with torch.no_grad():
        states = torch_model(torch.tensor([[1, 2, 3]]), output_hidden_states=True).hidden_states
    coefficient = COEFFICIENT * float(states[block + 1].norm(dim=-1).mean()) / 4
    steer = vs.Steer(row, coefficient, layers=block, tokens="all")
    for chat in chats:
        if chat:
            ours = evaluate(Steered(client, name, **options), **chat)
            greedy += check_equal(f"{name}, behind its template", ours, evaluate(theirs, **chat))
        handle = hooked(torch_model, block, coefficient * torch.tensor(row))
        expected = evaluate(theirs, **chat)
        handle.remove()
        ours = evaluate(Steered(client, name, steer=steer, **options), **chat)
        check_equal(
            f"{name}, steered{' behind its template' if chat else ''}", ours, expected, texts_of
        )
        moved = np.abs(logprobs(expected[0]) - logprobs(plain[0])).max()
        print(f"    the steering moves them by up to {moved:.2g}")
        assert moved > 100 * TOLERANCE
    return greedy


def check_open_message(client, folder):
    """A last message that is left open is rendered as transformers does."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Steered(client, f"models/{folder.name}")
    for content in ("maybe choose", "maybe choose ", " maybe "):
        chat = [*vs.chat("what should we do"), {"role": "assistant", "content": content}]
        expected = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
        assert model.apply_chat_template(chat, add_generation_prompt=False) == expected


def check_command_line(server, client, temporary):
    """The command of README.md, with a vector of the store."""
    vector = client.create_vector("models/planted", np.ones(pm.HIDDEN), layers=[1]).name
    arguments = f"address={server.address},model=planted,steer={vector}:1.5@1"
    command = [sys.executable, "-m", "valuescope.lm_eval", "run", "--model", "valuescope"]
    command += ["--model_args", arguments, "--tasks", ",".join(TASKS)]
    command += ["--include_path", str(TASK_FOLDER.relative_to(ROOT))]
    out = temporary / "results"
    subprocess.run(
        [*command, "--output_path", out],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "client" / "python")},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (written,) = out.rglob("results*.json")
    results = json.loads(written.read_text())
    steer = vs.Steer(vector, 1.5, layers=1)
    _, expected = evaluate(Steered(client, "models/planted", steer=steer))
    for task in TASKS:
        for name, value in expected[task].items():
            # Standard errors are drawn, and not by `evaluate`.
            assert "stderr" in name or results["results"][task][name] == value, (task, name)
    assert results["config"]["model_sha"] == client.model("models/planted").weights_digest
    print(f"the command line writes the same numbers: {results['results']['planted_choices']}")


def check_all(server, root, temporary):
    with vs.Client(server.address) as client:
        for folder in sorted(root.iterdir()):
            client.wait_until_ready(f"models/{folder.name}", timeout=600)
            greedy = check_folder(client, folder)
            assert greedy or folder.name != "planted", (
                "no choice is greedy, so the flags say nothing"
            )
        check_open_message(client, root / "planted")
        check_command_line(server, client, temporary)


def write_without_bos(folder):
    """The planted model with a tokenizer that names no bos_token, nor a template, which would write it."""
    pm.write_model(folder, pm.Builder(0).planted)
    config = pm.TOKENIZER_CONFIG.keys() - {"bos_token", "chat_template"}
    pm.write_json(
        folder / "tokenizer_config.json", {name: pm.TOKENIZER_CONFIG[name] for name in config}
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, action="append", default=[])
    more = parser.parse_args().model
    os.chdir(ROOT)
    torch.set_num_threads(1)  # the models are small, and threads that wait for each other are slow
    with tempfile.TemporaryDirectory() as name:
        temporary = pathlib.Path(name)
        os.environ["HF_HOME"] = str(temporary / "hub")
        root = temporary / "models"
        pm.write_model(root / "planted", pm.Builder(0).planted)
        write_without_bos(root / "planted_without_bos")
        for folder in [FAMILIES / BEGINS_TEXTS, *more]:
            (root / folder.name).mkdir()
            for file in folder.iterdir():
                (root / folder.name / file.name).hardlink_to(file.resolve())
        names = [folder.name for folder in root.iterdir()]
        server = Server(temporary, f"--model_root={root}", f"--models={','.join(names)}")
        try:
            check_all(server, root, temporary)
            assert server.stop() == 0
        finally:
            if server.running():
                server.kill()


if __name__ == "__main__":
    main()
