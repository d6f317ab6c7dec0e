"""A newcomer's first five minutes: the command line, grpcurl, Python, metrics and a clean end, against the running server."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, CACHE, MODEL, ROOT

NAME = MODEL.removeprefix("models/")
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def vector(client):
    row = np.random.default_rng(3).standard_normal((30, 576))
    return client.create_vector(MODEL, row, layers=range(30), display_name="random").name


@pytest.fixture(scope="module")
def expected(client, vector):
    """What Python's client gets; the others must get the same."""
    steer = vs.Steer(vector, 0.5, 14)
    generation = client.generate(
        MODEL, vs.chat("Name a colour.", system=""), steer=[steer], max_tokens=8, temperature=0.0
    )
    assert generation.receipts[0].layers == [14]
    return generation.token_ids


def run(server, *arguments, code=0):
    done = subprocess.run(
        [str(BUILD / "client" / "cpp" / "valuescope"), "--server", server.address, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stderr
    return done


def test_the_command_line_generates_steered(server, vector, expected):
    steer = ["--vector", f"{vector}:0.5@14"]
    flags = [
        "--model",
        NAME,
        "--system",
        "",
        "--max_tokens",
        "8",
        "--temperature",
        "0",
        *steer,
        "Name a colour.",
    ]
    response = json.loads(run(server, "--json", "generate", *flags).stdout)
    assert response["completions"][0]["token_ids"] == expected
    streamed = run(server, "generate", *flags)
    assert streamed.stdout.strip() == response["completions"][0]["text"].strip()
    assert "touched 8 positions of layers 14" in streamed.stderr


def run_grpcurl(*arguments):
    """What it prints. It has no .proto files at hand, so it asks by reflection."""
    program = shutil.which("grpcurl") or CACHE / "bin" / "grpcurl"
    if not os.path.exists(program):
        pytest.skip("grpcurl is not installed")
    done = subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def grpcurl(server, method, request):
    return json.loads(run_grpcurl("-plaintext", "-d", json.dumps(request), server.address, method))


def test_grpcurl_asks_for_health(server, client):
    for part in ["", "readiness", "liveness"]:
        answer = grpcurl(server, "grpc.health.v1.Health/Check", {"service": part})
        assert answer == {"status": "SERVING"}


def test_grpcurl_works_as_the_readme_has_it(server, client):
    block = re.search(r"^```\n(grpcurl .*?)^```$", README, re.MULTILINE | re.DOTALL).group(1)
    commands = re.split(r"\n(?=grpcurl )", block.replace("\\\n", " "))
    said = [
        run_grpcurl(*shlex.split(command.replace("localhost:50051", server.address))[1:])
        for command in commands
    ]
    assert "rpc StreamGenerate" in said[0]
    assert json.loads(said[1])["completions"][0]["token_ids"]


def test_grpcurl_generates_steered(server, vector, expected):
    request = {
        "model": MODEL,
        "prompt": {
            "chat": {
                "messages": [
                    {"role": "system", "content": ""},
                    {"role": "user", "content": "Name a colour."},
                ]
            }
        },
        "sampling": {"max_tokens": 8, "temperature": 0},
        "interventions": [
            {
                "site": "SITE_RESIDUAL_POST",
                "layers": {"list": {"layers": [14]}},
                "add": {"vector": vector, "coefficient": 0.5},
            }
        ],
    }
    answer = grpcurl(server, "valuescope.v1.GenerationService/Generate", request)
    assert answer["completions"][0]["token_ids"] == expected


def test_the_command_line_lists_models_and_captures(server):
    assert NAME in run(server, "models").stdout
    table = run(
        server, "capture", "--model", NAME, "--layers", "3,5", "--reduction", "mean", "A prompt."
    ).stdout
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["3", "5"]


def test_exit_codes_say_whose_turn_it_is(server):
    run(server, "generate", "--model", NAME, code=2)
    assert "models/none" in run(server, "generate", "--model", "none", "x", code=3).stderr
    done = subprocess.run(
        [
            str(BUILD / "client" / "cpp" / "valuescope"),
            "--server",
            "127.0.0.1:1",
            "--timeout",
            "1",
            "models",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "--server" in done.stderr


def test_metrics_tell_what_was_done(server, client, expected):
    text = server.metrics()
    for name in [
        "valuescope_rpc_duration_seconds_count",
        "valuescope_requests_running",
        "valuescope_requests_waiting",
        "valuescope_generated_tokens_total",
        "valuescope_prompt_tokens_total",
        "valuescope_kv_cache_used_ratio",
        "valuescope_interventions_applied_total",
        "valuescope_build_info",
    ]:
        assert name in text


def test_sigterm_finishes_and_exits_zero(start_server):
    server = start_server()
    with server.client() as client:
        stream = client.stream(
            MODEL, "Once upon a time", max_tokens=40, temperature=0.0, ignore_eos=True
        )
        next(stream)
        assert server.stop() == 0
    assert server.rest == []


def test_every_log_line_is_json(server, client):
    for line in server.log.read_text().splitlines():
        entry = json.loads(line)
        assert entry["event"]
        assert "Name a colour" not in line  # prompts are nobody's business


def test_the_server_explains_itself_and_refuses_nonsense(tmp_path):
    binary = str(BUILD / "server" / "valuescope-server")
    text = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=30)
    assert text.returncode == 0
    for flag in [
        "--listen",
        "--metrics_listen",
        "--model_root",
        "--models",
        "--store",
        "--device",
        "--dtype",
        "--threads",
    ]:
        assert flag in text.stdout
    assert "unverified" in text.stdout.lower()
    for bad in [
        ["--listen=nowhere"],
        ["--store=mysql://x"],
        ["--device=tpu"],
        ["--nonsense=1"],
        ["--listen=0.0.0.0:0"],
    ]:
        done = subprocess.run(
            [binary, f"--model_root={tmp_path}", *bad], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 2, bad
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_readme_names_commands_that_exist():
    readme = (ROOT / "README.md").read_text()
    for command in ["tests/run", "deploy/local/demo"]:
        assert command in readme
        assert os.access(ROOT / command, os.X_OK)


def test_the_command_line_extracts_in_the_way_that_is_chosen(server, client, tmp_path):
    responses = [
        vs.labelled(
            [7000 + i, 900 + i // 2], [800 + 3 * i, 5000 - 7 * i], bool(i % 2), f"q{i // 2}"
        )
        for i in range(8)
    ]
    file = tmp_path / "responses.jsonl"
    file.write_bytes(vs.to_json_lines(responses))
    extract = ["vectors", "extract", "--model", NAME, "--layers", "3,14", str(file)]
    chosen = ["--method", "linear_probe", "--inverse_regularization", "0.5"]
    made = json.loads(run(server, "--json", *extract, *chosen, "--pooling", "last_token").stdout)
    wanted = client.extract_vectors(
        MODEL,
        responses,
        layers=[3, 14],
        method="linear_probe",
        inverse_regularization=0.5,
        pooling="last_token",
    )
    assert made["vector"]["data"]["data"] == base64.b64encode(wanted.vector.data.data).decode()
    assert made["statistics"][0]["intercept"] == wanted.statistics[0].intercept
    table = run(server, *extract, "--method", "pca_centered").stdout
    assert len(table.splitlines()) == 4
    refused = run(server, *extract, "--method", "lda", code=2)
    assert "pca_centered" in refused.stderr
