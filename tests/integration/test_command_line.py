"""The command line as shells and scripts meet it: completion, pipes, Ctrl-C, standard input, JSON."""

import json
import os
import signal
import subprocess
import time

import pytest
from conftest import BUILD, MODEL
from valuescope import v1

PROGRAM = BUILD / "client" / "cpp" / "valuescope"
NAME = MODEL.removeprefix("models/")
ENDLESS = ["--model", NAME, "--max_tokens", "4000", "--ignore_eos", "Once upon a time"]


def run(*arguments, **options):
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([str(PROGRAM), *arguments], **options)


def complete(*words):
    """What bash offers for the last word."""
    script = """
        source <("$1" completion bash) || exit 1
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _valuescope
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-uc", script, "bash", str(PROGRAM), "valuescope", *words],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_and_flags():
    assert complete("gen") == ["generate"]
    assert complete("jobs", "w") == ["watch"]
    assert complete("neurons", "attribute", "--val") == ["--validate_only"]
    assert complete("jobs", "re") == ["retry"]
    assert complete("--server", "127.0.0.1:1", "generate", "--vec") == ["--vector"]
    assert complete("generate", "--top") == ["--top_p", "--top_k"]
    assert complete("generate", "--logp") == ["--logprobs"]
    assert complete("capture", "--js") == ["--json"]
    assert complete("models", "--vec") == []
    assert set(complete("completion", "")) >= {"bash", "zsh", "fish"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_of_the_help_is_completed(shell):
    script = run("completion", shell).stdout
    listed = run("--help").stdout.split("Subcommands:")[1].split("\n\n")[0]
    commands = [line.split()[0] for line in listed.strip().splitlines() if line[2:3].strip()]
    assert {"models", "generate", "completion"} <= set(commands)
    for command in commands:
        assert command in script, command


def test_help_teaches_exit_codes_and_examples():
    text = run("--help").stdout
    for phrase in ["exit codes:", "130 interrupted", "examples:", "--json"]:
        assert phrase in text


@pytest.mark.parametrize("command", ["generate", "capture"])
def test_help_names_the_sites_and_those_without_layers(command):
    text = run(command, "--help").stdout
    assert "residual_mid" in text
    assert "sites without layers, where all stands for none: embedding, final_norm, logits" in text


def test_help_of_capture_tells_of_the_chat_template_and_how_to_do_without():
    text = " ".join(run("capture", "--help").stdout.split())
    assert "often puts a default system message before it; --raw captures the text alone" in text


@pytest.mark.parametrize("site", ["embedding", "final_norm", "logits"])
@pytest.mark.parametrize("layers", ["all", ""])
def test_sites_without_layers_are_changed_and_captured(server, client, tmp_path, site, layers):
    widths = {v1.Site.Name(shape.site): shape.width for shape in client.model(MODEL).sites}
    rows = tmp_path / "rows.f32"
    rows.write_bytes(bytes(4 * widths[f"SITE_{site.upper()}"]))
    edit = f"--edit=add:file:{rows}@{layers}/{site}"
    call = ["--server", server.address, "capture", "--model", NAME, "--scope", "all", edit]
    done = run(*call, "--site", site, "Hi")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("LAYER")


def test_a_file_as_wide_as_the_site_is_one_row_for_all_layers(server, client, tmp_path):
    width = client.model(MODEL).hidden_size
    rows = tmp_path / "rows.f32"
    call = ["--server", server.address, "generate", "--model", NAME, "--max_tokens", "2"]
    call += ["--vector", f"file:{rows}:1@3-5", "Hi"]
    assert width % 3 == 0
    for elements, code in [(width, 0), (3 * width, 0), (2 * width, 2)]:
        rows.write_bytes(bytes(4 * elements))
        done = run(*call)
        assert done.returncode == code, done.stderr
    assert (
        f"holds {2 * width} numbers; here it needs {width} (one row) or {3 * width}" in done.stderr
    )


def test_a_refused_generation_leaves_standard_output_empty(server, client):
    done = run("--server", server.address, "generate", "--model", NAME, "--max_tokens", "0", "Hi")
    assert (done.returncode, done.stdout) == (3, "")


def test_completions_come_whole_each_under_its_number(server, client):
    flags = ["--model", NAME, "--max_tokens", "12", "--n", "3", "--seed", "1", "Hi"]
    call = ["--server", server.address, "generate", *flags]
    texts = [one["text"] for one in json.loads(run(*call, "--json").stdout)["completions"]]
    assert run(*call).stdout == "".join(f"[{i}]\n{text}\n" for i, text in enumerate(texts))


def test_log_probabilities_are_a_table_behind_the_text(server, client):
    flags = ["--model", NAME, "--max_tokens", "4", "--temperature", "0", "--logprobs", "2", "Hi"]
    call = ["--server", server.address, "generate", *flags]
    completion = json.loads(run(*call, "--json").stdout)["completions"][0]
    text, header, *rows = run(*call).stdout.splitlines()
    assert text == completion["text"]
    assert header.split() == ["LOGPROB", "ID", "TOKEN", "LIKELIEST"]
    assert [int(row.split()[1]) for row in rows] == completion["token_ids"]


def test_stop_tokens_are_listed_or_repeated(server, client):
    flags = ["--model", NAME, "--max_tokens", "8", "--temperature", "0", "--json", "Hi"]
    call = ["--server", server.address, "generate", *flags]
    ids = json.loads(run(*call).stdout)["completions"][0]["token_ids"]
    before = ids[: min(ids.index(ids[3]), ids.index(ids[5]))]
    for stops in (
        [f"--stop_token_ids={ids[3]},{ids[5]}"],
        ["--stop_token_ids", str(ids[5]), "--stop_token_ids", str(ids[3])],
    ):
        completion = json.loads(run(*call, *stops).stdout)["completions"][0]
        assert completion.get("token_ids", []) == before
    assert run(*call, "--stop_token_ids=-1").returncode == 3


@pytest.mark.parametrize(
    "flag",
    [
        "--top_k=1.5",
        "--min_p=x",
        "--repetition_penalty=much",
        "--logprobs=many",
        "--stop_token_ids=x",
    ],
)
def test_what_is_no_number_is_a_wrong_command_line(flag):
    done = run("--server", "127.0.0.1:1", "generate", "--model", NAME, flag, "x")
    assert done.returncode == 2
    assert f"Could not convert: {flag.split('=')[0]}" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(server, client):
    with subprocess.Popen(
        [str(PROGRAM), "--server", server.address, "generate", *ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(60) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["stream", "unary"])
def test_ctrl_c_cancels_the_call_and_exits_130(server, client, json_flag):
    def running():
        lines = server.metrics().splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("valuescope_requests_running")
        )

    def wait_until(condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    wait_until(lambda: running() == 0)
    with subprocess.Popen(
        [str(PROGRAM), "--server", server.address, *json_flag, "generate", *ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until(lambda: running() > 0)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    wait_until(lambda: running() == 0)


def test_ctrl_c_ends_it_while_standard_input_is_read(server):
    with subprocess.Popen(
        [str(PROGRAM), "--server", server.address, "generate", "--model", NAME, "-"],
        stdin=subprocess.PIPE,
    ) as process:
        # Its threads block the signal before anything is read.
        end = time.monotonic() + 30
        while not int(blocked_signals(process.pid), 16) & (1 << (signal.SIGINT - 1)):
            assert time.monotonic() < end
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def blocked_signals(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(line.split()[1] for line in status if line.startswith("SigBlk"))


def test_a_prompt_comes_from_standard_input(server, client):
    flags = ["--json", "generate", "--model", NAME, "--max_tokens", "4", "--temperature", "0"]
    typed = run("--server", server.address, *flags, "Name a colour.")
    piped = run("--server", server.address, *flags, "-", input="Name a colour.")
    ids = [json.loads(done.stdout)["completions"][0]["token_ids"] for done in (typed, piped)]
    assert ids[0] == ids[1] != []


@pytest.mark.parametrize(
    "arguments",
    [["models"], ["vectors", "list"], ["jobs", "list"], ["artifacts", "list"]],
    ids=" ".join,
)
def test_lists_are_json_lines(server, client, arguments):
    done = run("--server", server.address, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert json.loads(line)["name"]


def test_errors_leave_standard_output_to_results_and_carry_no_colours(server, client):
    done = run("--server", server.address, "--json", "models", "get", "none", env=os.environ)
    assert (done.returncode, done.stdout) == (3, "")
    assert "RESOURCE_NOT_FOUND" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("seed", ["-1", "18446744073709551616", "1e3", ""])
@pytest.mark.parametrize(
    "command",
    [
        ["generate", "--model", NAME, "x"],
        ["vectors", "extract", "--model", NAME, "--queries", "x", "--words", "y"],
        ["vectors", "values", "power:a:b", "security:c:d"],
        ["neurons", "test", "--model", NAME, "0/1", "artifacts/d"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_seed_that_is_none_is_a_wrong_command_line(command, seed):
    done = run("--server", "127.0.0.1:1", *command, f"--seed={seed}")
    assert done.returncode == 2
    assert "--seed" in done.stderr


ATTRIBUTE = ["neurons", "attribute", "--model", NAME, "artifacts/d"]
PATCHING = [*ATTRIBUTE, "--method", "attribution_patching"]
EXTRACT = ["vectors", "extract", "--model", NAME]
TEST = ["neurons", "test", "--model", NAME, "0/1", "artifacts/d"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ([*PATCHING, "--target_layer", "1"], "--target_layer goes with --vector"),
        ([*PATCHING, "--vector", "v"], "needs --target_layer"),
        ([*ATTRIBUTE, "--vector", "v", "--steps", "3"], "goes with --method integrated_gradients"),
        ([*ATTRIBUTE, "--vector", "v", "--baseline", "zero"], "goes with --method attribution_"),
        (ATTRIBUTE, "direct_contribution needs --vector"),
        ([*ATTRIBUTE, "--watch"], "--watch requires --job"),
        ([*TEST, "--target_layer", "1"], "--target_layer goes with --vector"),
        ([*TEST, "--factor", "2"], "--factor goes with --test scale"),
        ([*TEST, "--display_name", "mine"], "--display_name requires --job"),
        ([*EXTRACT, "artifacts/d", "--temperature", "0"], "--temperature requires --queries"),
        ([*EXTRACT, "artifacts/d", "--words", "x"], "--words requires --queries"),
        ([*EXTRACT, "--queries", "artifacts/q", "--words", "x", "--threshold", ".1"], "--rubric"),
        (["generate", "--model", NAME, "x", "--preserve_norm"], "go with --vector or --edit"),
        (["capture", "--model", NAME, "x", "--scope", "all"], "go with --vector or --edit"),
        (["vectors", "values", "a:b:c", "d:e:f", "--angles", "none", "--seed", "1"], "--seed go"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_flag_that_would_change_nothing_is_a_wrong_command_line(command, told):
    done = run("--server", "127.0.0.1:1", *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ([*ATTRIBUTE, "--vector", "v", "--layers", "x"], "3,5,7-9"),
        ([*ATTRIBUTE, "--method", "magic"], "choose one of direct_contribution"),
        ([*ATTRIBUTE, "--method", "causal_ablation", "--candidates", "1.12"], "LAYER/INDEX"),
        ([*PATCHING, "--tokens", "some"], "choose one of all"),
        ([*TEST, "--test", "y"], "keep_only"),
        ([*TEST, "--mode", "y"], "mean"),
        ([*TEST, "--tokens", "y"], "last_prompt"),
        ([*TEST[:-2], "1.12", "artifacts/d"], "LAYER/INDEX"),
        ([*ATTRIBUTE[:-1], "/nowhere", "--vector", "v"], "cannot read '/nowhere'"),
        ([*TEST[:-1], "/nowhere"], "cannot read '/nowhere'"),
        ([*EXTRACT, "/nowhere"], "cannot read '/nowhere'"),
        (["artifacts", "write", "/nowhere"], "cannot read '/nowhere'"),
        (["vectors", "import", "--model", NAME, "/nowhere"], "cannot read '/nowhere'"),
        (["vectors", "export", "v", "--out", "/nowhere/v"], "cannot write '/nowhere/v'"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_is_mistyped_is_a_wrong_command_line(command, told):
    done = run("--server", "127.0.0.1:1", *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_output_that_cannot_be_written_is_a_failure(server, client):
    with open("/dev/full", "w") as full:
        done = run(
            "--server",
            server.address,
            "models",
            stdout=full,
            capture_output=False,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    assert "standard output cannot be written" in done.stderr


def test_a_device_is_no_file_of_vectors():
    done = run(
        "--server",
        "127.0.0.1:1",
        "generate",
        "--model",
        NAME,
        "--vector",
        "file:/dev/zero:1@3",
        "x",
    )
    assert done.returncode == 2
    assert "is a device" in done.stderr
