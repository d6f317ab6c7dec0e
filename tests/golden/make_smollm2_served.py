"""Makes smollm2/served.json: what transformers says of SmolLM2-135M-Instruct, for tests that go through a server.

    python make_smollm2_served.py MODEL_FOLDER

Run once with torch 2.11.0 and transformers 5.17.0 on a CPU in float32; the tests need neither.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
CAPTURE_LAYERS = [0, 14, 29]
STEERED_LAYER, COEFFICIENT = 14, 4.0
CHATS = [
    [("system", ""), ("user", "How should I spend a free Saturday?")],
    [("user", "Name three rivers in Africa and say where they end.")],
    [("system", "You answer in one sentence."), ("user", "Warum ist der Himmel blau? 🙂")],
]
TEXTS = ["The sea is", "def fibonacci(n):\n    ", "1 2 3 5 8 13 " * 12]


@torch.no_grad()
def greedy(model, ids, count):
    """Greedy tokens and their log-probabilities, without the cache: the plainest reading of the model."""
    ids, chosen, logprobs = list(ids), [], []
    for _ in range(count):
        logits = model(torch.tensor([ids])).logits[0, -1]
        token = int(logits.argmax())
        logprobs.append(float(torch.log_softmax(logits.double(), -1)[token]))
        chosen.append(token)
        ids.append(token)
    return chosen, logprobs


@torch.no_grad()
def response_means(model, prompt, response):
    """Means over response tokens of each captured block's output and of down_proj's input."""
    residual, neurons, handles = {}, {}, []
    for layer in CAPTURE_LAYERS:
        block = model.model.layers[layer]
        handles.append(
            block.register_forward_hook(
                lambda _m, _i, out, at=layer: residual.__setitem__(
                    at, out[0] if isinstance(out, tuple) else out
                )
            )
        )
        handles.append(
            block.mlp.down_proj.register_forward_pre_hook(
                lambda _m, i, at=layer: neurons.__setitem__(at, i[0])
            )
        )
    model(torch.tensor([prompt + response]))
    for handle in handles:
        handle.remove()

    def mean(by_layer):
        rows = [by_layer[at][0, len(prompt) :].double().mean(0) for at in CAPTURE_LAYERS]
        return torch.stack(rows).float().numpy().round(7).tolist()

    return mean(residual), mean(neurons)


def steer(model, vector, prompt_length):
    """Adds COEFFICIENT * vector to the block's output from the last prompt token on."""

    def hook(_module, _inputs, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, prompt_length - 1 :] += COEFFICIENT * vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return model.model.layers[STEERED_LAYER].register_forward_hook(hook)


def main():
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": r, "content": c} for r, c in chat],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        for chat in CHATS
    ]
    prompts += [tokenizer(text)["input_ids"] for text in TEXTS]
    cases = []
    for index, prompt in enumerate(prompts):
        ids, logprobs = greedy(model, prompt, 32)
        case = {"prompt_ids": prompt, "greedy_ids": ids, "greedy_logprobs": logprobs}
        if index == 0:
            case["residual_post_mean"], case["mlp_neurons_mean"] = response_means(
                model, prompt, ids
            )
        cases.append(case)
    vector = (
        np.random.default_rng(11)
        .standard_normal(model.config.hidden_size)
        .astype(np.float32)
        .round(4)
    )
    steered = []
    for prompt in prompts[:4]:
        handle = steer(model, torch.from_numpy(vector), len(prompt))
        ids, _ = greedy(model, prompt, 24)
        handle.remove()
        steered.append({"prompt_ids": prompt, "greedy_ids": ids})
    result = {
        "capture_layers": CAPTURE_LAYERS,
        "cases": cases,
        "steering": {
            "layer": STEERED_LAYER,
            "coefficient": COEFFICIENT,
            "vector": vector.tolist(),
            "cases": steered,
        },
    }
    (HERE / "smollm2").mkdir(exist_ok=True)
    (HERE / "smollm2" / "served.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
