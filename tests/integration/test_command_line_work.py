"""What the command line computes: names that fit together, and jobs that make what the same flags make at once."""

import json
import subprocess

import pytest
import valuescope as vs
from conftest import BUILD, Server
from test_families import FAMILIES
from test_neuron_tests import Case

MODEL = "qwen2"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("work"), f"--model_root={FAMILIES}", "--models=")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def case(server):
    with vs.Client(server.address, timeout=120) as client:
        yield Case(MODEL, client)


@pytest.fixture(scope="module")
def data_set(case, tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "responses.jsonl"
    file.write_bytes(vs.to_json_lines(case.responses))
    return str(file)


@pytest.fixture(scope="module")
def run(server):
    def run(*arguments, code=0):
        program = [str(BUILD / "client" / "cpp" / "valuescope"), "--server", server.address]
        done = subprocess.run(
            [*program, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_neurons_are_printed_as_they_are_typed(run, case, data_set):
    table = run("neurons", "attribute", "--model", MODEL, "--vector", case.vector_name, data_set)
    assert "CLASS" not in table
    header, *rows = table.split("\n\n")[1].splitlines()
    assert header.split() == ["NEURON", "SCORE"]
    best = [row.split()[0] for row in rows[:2]]
    columns = case.client.neuron_set(table.split()[0]).top
    assert best == [f"{one.layer}/{one.index}" for one in columns[:2]]
    names = "+".join(best)
    flags = ["--model", MODEL, data_set]
    assert best[0] in run("neurons", "contexts", "--neurons", names, *flags)
    run("neurons", "test", *flags[:2], names, data_set, "--random_sets", "0")
    run("generate", "--model", MODEL, "--raw", "w11", "--max_tokens", "2", "--edit", f"ablate_neurons:{names}@all")  # fmt: skip


def attribution(case):
    flags = ["--positive", "11", "--positive", "w12", "--negative", "13", "--tokens", "last_prompt"]
    ablation = ["--method", "causal_ablation", "--candidates", "0/1+1/2", "--top_k", "1"]
    return ["neurons", "attribute", "--model", MODEL, *ablation, *flags]


def direct(case):
    flags = ["--vector", case.vector_name, "--source_layer", "1", "--display_name", "mine"]
    return ["neurons", "attribute", "--model", MODEL, *flags]


def extraction(case):
    return ["vectors", "extract", "--model", MODEL, "--display_name", "mine"]


@pytest.mark.parametrize("command", [attribution, direct, extraction], ids=lambda f: f.__name__)
def test_a_job_makes_what_the_same_flags_make_at_once(run, case, data_set, command):
    flags = [*command(case), data_set]
    made = json.loads(run("--json", *flags))
    name = run(*flags, "--job").strip()
    run("jobs", "watch", name)
    result = json.loads(run("--json", "jobs", "get", name))["result"]
    if command is extraction:
        assert result["vectors"] == [made["vector"]["name"]]
        assert made["vector"]["name"] in run("jobs", "get", name)
    else:
        assert result["neuron_sets"] == [made["neuron_set"]["name"]]


def test_a_finished_job_is_deleted_and_not_tried_again(run, case, data_set):
    flags = ["neurons", "test", "--model", MODEL, "0/1+1/2", data_set, "--random_sets", "3"]
    assert "forward passes" in run(*flags, "--job", "--validate_only")
    assert "range -100 to 100" in run(*flags, "--job", "--priority", "101", code=2)
    assert "test_neurons" not in run("jobs", "list")
    table = run(*flags, "--job", "--watch", "--display_name", "mine", "--priority", "7")
    assert "succeeded" in table and "mine" in table
    name = table.split("\n")[1].split()[0]
    assert json.loads(run("--json", "jobs", "get", name))["priority"] == 7
    assert "succeeded" in run("jobs", "retry", name, code=3).lower()
    assert run("jobs", "delete", name) == ""
    assert "RESOURCE_NOT_FOUND" in run("jobs", "get", name, code=3)


def test_what_is_too_much_for_a_call_is_said_to_be_a_job(run, case, data_set, tmp_path):
    file = tmp_path / "many.jsonl"
    file.write_bytes(vs.to_json_lines(case.responses * 5))
    flags = ["0/1+1/2", str(file), "--random_sets", "1000", "--sizes", "1,2"]
    told = run("neurons", "test", "--model", MODEL, *flags, code=3)
    assert "USE_A_JOB" in told and "with --job" in told
    assert "forward passes" in run("neurons", "test", "--model", MODEL, *flags, "--job", "--validate_only")  # fmt: skip


def test_a_text_of_several_tokens_is_no_token(run, case, data_set):
    flags = ["--method", "attribution_patching", "--positive", "w11 w12"]
    told = run("neurons", "attribute", "--model", MODEL, *flags, data_set, code=2)
    assert "'w11 w12' is 2 tokens" in told


def test_a_cancelled_job_is_queued_again(run, case, data_set):
    long = ["--random_sets", "1000", "--sizes", ",".join(str(size) for size in range(1, 13))]
    neurons = "+".join(f"{layer}/{index}" for layer, index in case.ranking)
    name = run("neurons", "test", "--model", MODEL, neurons, data_set, *long, "--job").strip()
    for _ in range(2):
        run("jobs", "cancel", name)
        run("jobs", "watch", name, code=1)
        assert "cancelled" in run("jobs", "get", name)
        state = run("jobs", "retry", name).splitlines()[1].split()[2]
        assert state in ("queued", "running")
    run("jobs", "cancel", name)
    run("jobs", "watch", name, code=1)
