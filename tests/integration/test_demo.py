"""The demo's study in small, by the program that the demo runs: from a folder of data to a report, over Ctrl-C and a server that dies."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import valuescope as vs
from conftest import BUILD, ROOT, await_true
from test_generated_responses import make_models
from valuescope import v1

LOCAL = ROOT / "deploy" / "local"
sys.path.insert(0, str(LOCAL))
import study  # noqa: E402

# Every token of the model `judge` is a word, or a digit for the questionnaire; about half of what it says holds one of the first lists.
LISTS = {"care": {"label": range(20, 22), "score": range(32, 35)}, "power": {"label": range(85, 90), "score": range(90, 95)}}  # fmt: skip
SPLITS = {"train": 14, "development": 2, "test": 3}


def words(*numbers):
    return " ".join(f"w{number}" for number in numbers)


def data_files():
    """Lines of the files that take the place of the samples, by name."""
    pairs = itertools.product(range(11, 20), range(44, 50))
    queries = [split for split, count in SPLITS.items() for _ in range(count)]
    return {
        "values.jsonl": [{"value": value, "definition": value} for value in LISTS],
        "words.jsonl": [
            {"value": value, "list": kind, "word": words(number)}
            for value, lists in LISTS.items()
            for kind, numbers in lists.items()
            for number in numbers
        ],
        "descriptions.jsonl": [{"value": value, "text": words(51)} for value in LISTS],
        "templates.jsonl": [
            {"id": f"t{number}", "text": f"{words(number)} {{description}}"} for number in (52, 53)
        ],
        "queries.jsonl": [
            {"id": f"q{i}", "topic": "none", "split": split, "text": words(*pair)}
            for i, (split, pair) in enumerate(zip(queries, pairs, strict=False))
        ],
        "questionnaire.jsonl": [
            {"id": f"i{i}", "text": words(60 + i), "value": value, "language": "en"}
            for i, value in enumerate([*LISTS, *LISTS])
        ],
        "wordings.jsonl": [
            {"language": "en", "options": [words(65), words(66)], "template": "{item} {options}"}
        ],
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, lines in data_files().items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


class Started:
    """The program, as somebody starts it."""

    def __init__(self, folder, data, models, *options, program=None):
        program = program or BUILD / "server" / "valuescope-server"
        given = {"program": program, "state": folder / "state", "report": folder / "report", "data": data, "models": models, "model": "judge", "value": "care"}  # fmt: skip
        self._said = (folder / "said").open("a+")
        self._before = (folder / "said").stat().st_size
        self.process = subprocess.Popen(
            [sys.executable, LOCAL / "study.py", *(f"--{key}={value}" for key, value in given.items()), *options],
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "client" / "python")},
        )  # fmt: skip

    def said(self):
        return pathlib.Path(self._said.name).read_text()[self._before :]

    def server(self):
        """Its only child."""
        identity = self.process.pid
        return int(pathlib.Path(f"/proc/{identity}/task/{identity}/children").read_text())

    def await_said(self, text):
        await_true(lambda: text in self.said() or self.process.poll() is not None)
        assert text in self.said()

    def finish(self):
        """Exit code and what it printed."""
        printed, _ = self.process.communicate(timeout=120)
        return self.process.returncode, printed


def runs(identity):
    """One that has ended and that nobody has asked about does not run."""
    stat = pathlib.Path(f"/proc/{identity}/stat")
    return stat.exists() and " Z " not in stat.read_text()


def test_a_study_goes_on_after_ctrl_c_and_is_told_again_when_it_is_done(tmp_path, data, models):
    stopped = Started(tmp_path, data, models)
    stopped.await_said("  generate/care")
    server = stopped.server()
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.finish() == (130, "")
    assert "the same command goes on from here" in stopped.said()
    assert "Traceback" not in stopped.said() and not runs(server)
    assert not (tmp_path / "report").exists()

    resumed = Started(tmp_path, data, models)
    code, told = resumed.finish()
    assert code == 0, resumed.said()
    assert "goes on where it was" in resumed.said()
    for phase in ("generate_intrinsic", "sweep_random", "score/care"):
        assert f"  {phase}" in resumed.said()

    report = tmp_path / "report"
    results = (report / "results.json").read_bytes()
    for number, finding in enumerate(vs.study_findings(results), start=1):
        assert f"{number}. {finding}".split() == told.split()[: len(finding.split()) + 1]
        told = told.split(maxsplit=len(finding.split()) + 1)[-1]
    assert told == f"report: {report / 'index.html'}\n"
    assert (report / "index.html").read_text() == vs.study_page(results)

    again = Started(tmp_path, data, models)
    assert again.finish()[0] == 0
    assert "care: done before" in again.said() and "  generate" not in again.said()
    assert (report / "results.json").read_bytes() == results

    fresh = Started(tmp_path, data, models, "--fresh")
    fresh.await_said("tokens to read and to generate")
    second = Started(tmp_path, data, models)
    assert second.finish()[0] == 1
    assert "it runs already" in second.said()
    server = fresh.server()
    fresh.process.kill()
    await_true(lambda: not runs(server))


def test_a_server_that_dies_ends_it_with_the_end_of_its_log(tmp_path, data, models):
    started = Started(tmp_path, data, models)
    started.await_said("  generate/care")
    os.kill(started.server(), signal.SIGKILL)
    assert started.finish() == (1, "")
    assert "the server ended with exit code -9" in started.said()
    assert started.said().endswith((tmp_path / "state" / "server.log").read_text()[-200:])


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path, data, models):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho no memory >&2\nexit 1\n")
    program.chmod(0o755)
    started = Started(tmp_path, data, models, program=program)
    assert started.finish() == (1, "")
    assert "the server did not start" in started.said() and "no memory" in started.said()


def most_generated_tokens(spec):
    """Of a study that names its directions and steers no neurons, where no answer ends early."""
    values = len(spec.values)
    grid = len(spec.steered_layers.list.layers) * len(spec.coefficients)
    trained = (1 + values) * len(spec.queries) * spec.samples_per_query * spec.sampling.max_tokens
    steered = values * len(spec.directions) + spec.random_directions
    tried = (values + 1 + steered * grid) * len(spec.development_queries)
    tested = values * (2 + len(spec.directions) + spec.random_directions) * len(spec.test_queries)
    return trained + (tried + tested) * spec.steered_sampling.max_tokens


def test_the_study_of_one_value_generates_at_most_100000_tokens():
    model = v1.Model(name="models/any", num_layers=30)
    spec = study.study_spec(vs.study_data(), model, [study.VALUE], study.SMALL)
    assert 50_000 < most_generated_tokens(spec) <= 100_000
    assert len(spec.test_queries) >= 60 and spec.random_directions >= 20


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--help"], 0, "--fresh"),
        (["--nonsense"], 2, "--nonsense"),
        (["--value", "fame"], 2, "stimulation"),
        (["--value"], 2, "stimulation"),
    ],
)
def test_the_demo_explains_itself_before_it_installs_anything(options, code, said, tmp_path):
    done = subprocess.run(
        [LOCAL / "demo", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"VALUESCOPE_CACHE": str(tmp_path)},
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
