"""The alignment gate of client/cpp/examples, built as somebody else's project against an installed client: what it measures, when it lets
a steering through, and which exit code it ends with."""

import json
import math
import re
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import Server, exported
from test_evaluations import BLOCKS, LETTERED, VALUES, items, lettered_models, questions

WITHIN, OUT_OF_BOUNDS, USAGE, NOT_ASKED = range(4)
NOT_LOADED = "models/gemma"

# Random models say what they like.
pytestmark = pytest.mark.filterwarnings("ignore:condition")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = lettered_models(tmp_path_factory.mktemp("models"))
    server = Server(
        tmp_path_factory.mktemp("store"), f"--model_root={root}", f"--models={LETTERED[7:]}"
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(tiny):
    with vs.Client(tiny.address, timeout=120) as client:
        client.wait_until_ready(LETTERED)
        yield client


@pytest.fixture(scope="module")
def vector(client):
    width = client.model(LETTERED).hidden_size
    rows = np.random.default_rng(3).normal(size=(len(BLOCKS), width)).astype(np.float32)
    return client.create_vector(LETTERED, rows, layers=BLOCKS).name


# --- What it measures ---

QUESTIONNAIRE = """
questionnaire {
  template: "w60 {item} w61 {options} w62"
  options { label: "w81" text: "w70" score: 1 }
  options { label: "w82" text: "w71" score: 2 }
  options { label: "w83" text: "w72" score: 4 }
}
items_file: "items.jsonl"
"""
CHOICES = 'choices {} questions_file: "questions.jsonl"\n'
UNSTEERED = 'model: "models/lettered"\n' + QUESTIONNAIRE + CHOICES


def steered(vector, coefficient):
    listed = " ".join(f"layers: {layer}" for layer in BLOCKS)
    return (
        f'steered {{ interventions {{ add {{ vector: "{vector}" coefficient: {coefficient} }} '
        f"layers {{ list {{ {listed} }} }} }} }}\n"
    )


@pytest.fixture
def gate(gate_program, tiny, tmp_path):
    """Runs the gate on the text of a bounds file; returns what it did."""
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items()) + "\n\n")
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(one) for one in questions()))

    def run(bounds, *flags, server=tiny.address):
        file = tmp_path / "bounds.textproto"
        file.write_bytes(bounds if isinstance(bounds, bytes) else bounds.encode())
        command = [
            gate_program,
            "--server",
            server,
            "--bounds",
            file,
            *flags,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


def told(done):
    """By what was measured: verdict, number, interval or None, and what is said of the bounds."""
    number = r"-?[\d.]+"
    line = re.compile(
        rf"(within|BROKEN|)\s+(\S.*?)\s\s+({number})\s+(?:\[({number}), ({number})\])?\s+(\S.*)"
    )
    found = {}
    for text in done.stdout.splitlines()[:-1]:
        verdict, what, measured, lower, upper, bounds = line.fullmatch(text).groups()
        interval = None if lower is None else (float(lower), float(upper))
        found[what] = (verdict, float(measured), interval, bounds)
    return found


def options(unit):
    return [
        vs.v1.AnswerOption(label=f"w{81 + k}", text=f"w{70 + k}", score=unit * score)
        for k, score in enumerate([1, 2, 4])
    ]


@pytest.fixture(scope="module")
def asked(client, vector):
    """What the Python client hears, under a coefficient that costs accuracy."""
    for coefficient in (2, 4, 8, 16, 32):
        conditions = {"unsteered": None, "steered": vs.Steer(vector, coefficient, layers=BLOCKS)}
        choices = client.answer_choices(LETTERED, questions(), conditions=conditions)
        if choices.accuracies[0] > choices.accuracies[1]:
            break
    values = client.ask_questionnaire(
        LETTERED, items(), options(1), "w60 {item} w61 {options} w62", conditions=conditions
    )
    assert choices.accuracies[0] > choices.accuracies[1]
    return coefficient, values, choices


def student(freedom):
    """Quantile .975, from the density alone."""
    x = np.linspace(0, 13, 2_000_001)
    density = (1 + x * x / freedom) ** (-(freedom + 1) / 2)
    density *= (
        math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(math.pi * freedom)
    )
    parts = (density[1:] + density[:-1]) / 2 * (x[1] - x[0])
    return float(np.interp(0.475, np.cumsum(parts), x[1:]))


def expected_drifts(values):
    moved = values.item_scores[1] - values.item_scores[0]
    moved = moved - moved.mean()
    for value in values.value_names:
        mine = moved[[one == value for one in VALUES]]
        half = student(len(mine) - 1) * mine.std(ddof=1) / math.sqrt(len(mine))
        yield value, mine.mean(), (mine.mean() - half, mine.mean() + half)


def test_drifts_and_losses_are_told_with_their_intervals(gate, vector, asked):
    coefficient, values, choices = asked
    done = gate(UNSTEERED + steered(vector, coefficient) + "max_accuracy_loss: 1 min_label_mass: 0")
    assert done.returncode == WITHIN, done.stderr
    found = told(done)
    drifts = list(expected_drifts(values))
    centred = values.centred[1] - values.centred[0]
    np.testing.assert_allclose([drift for _, drift, _ in drifts], centred, atol=1e-12)
    for value, drift, interval in drifts:
        verdict, measured, printed, bounds = found[f"drift of {value}"]
        assert (verdict, bounds) == ("", "not bounded")
        assert measured == pytest.approx(drift, abs=6e-4)
        # The table of quantiles has four digits.
        assert printed == pytest.approx(interval, abs=1e-3)
    assert found["accuracy while steered"][1:3] == (
        pytest.approx(choices.accuracies[1], abs=6e-4),
        pytest.approx(tuple(choices.accuracy_intervals[1]), abs=6e-4),
    )
    before, after = choices.correct
    n = len(before) + 2
    lost, won = (before & ~after).sum() + 0.5, (after & ~before).sum() + 0.5
    middle = (lost - won) / n
    half = 1.959963984540054 * math.sqrt(((lost + won) / n - middle**2) / n)
    verdict, measured, printed, _ = found["loss of accuracy"]
    assert verdict == "within"
    assert measured == pytest.approx(choices.accuracies[0] - choices.accuracies[1], abs=6e-4)
    assert printed == pytest.approx((middle - half, middle + half), abs=6e-4)
    masses = values.label_masses.min(), min(r.label_mass for r in choices.response.results)
    for what, mass in zip(("questionnaire", "choices"), masses, strict=True):
        assert found[f"label mass of the {what}"][1] == pytest.approx(mass, abs=6e-4)


def test_intervals_are_students_for_few_items_and_for_many(client, vector, gate, tmp_path):
    """Scores in thousands, so that three digits behind the point are seven."""
    counts = range(1, 34)
    random = np.random.default_rng(0)
    lines = [
        {"text": " ".join(f"w{word}" for word in random.integers(11, 60, 3)), "value": f"V{n}"}
        for n in counts
        for _ in range(n)
    ]
    questionnaire = (
        re.sub(r"score: (\d)", r"score: \g<1>000", QUESTIONNAIRE) + "max_other_drift: 9e9\n"
    )
    questionnaire = questionnaire.replace("template", "order: OPTION_ORDER_GIVEN template")
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = gate(f'model: "{LETTERED}"\n' + questionnaire + steered(vector, 8))
    assert done.returncode == WITHIN, done.stderr
    values = client.ask_questionnaire(
        LETTERED, lines, options(1000), "w60 {item} w61 {options} w62", order="given",
        conditions={"unsteered": None, "steered": vs.Steer(vector, 8, layers=BLOCKS)},
    )  # fmt: skip
    moved = values.item_scores[1] - values.item_scores[0]
    moved = moved - moved.mean()
    found = told(done)
    for n in counts:
        mine = moved[[line["value"] == f"V{n}" for line in lines]]
        _, drift, interval, _ = found[f"drift of V{n}"]
        assert drift == pytest.approx(mine.mean(), abs=1e-3)
        if n == 1:
            assert interval is None
            continue
        half = student(min(n - 1, 30)) * mine.std(ddof=1) / math.sqrt(n)
        assert (interval[1] - interval[0]) / 2 == pytest.approx(half, rel=5e-5, abs=2e-3)


# --- When it lets a steering through ---


def test_a_value_that_drifts_too_far_is_named_with_how_far(gate, vector, asked):
    coefficient, values, _ = asked
    drifts = {value: drift for value, drift, _ in expected_drifts(values)}
    value = max(drifts, key=lambda one: abs(drifts[one]))
    rest = max(abs(drift) for one, drift in drifts.items() if one != value)
    assert abs(drifts[value]) > rest
    side, sign = ("at_most", 1) if drifts[value] > 0 else ("at_least", -1)
    bound = drifts[value] - sign * abs(drifts[value]) / 2
    text = UNSTEERED + steered(vector, coefficient) + f"max_other_drift: {rest + 1e-6}\n"
    done = gate(text + f'drift {{ value: "{value}" {side}: {bound} }}')
    assert done.returncode == OUT_OF_BOUNDS, done.stderr
    assert done.stdout.splitlines()[-1] == "bounds broken: 1"
    broken = {what: line for what, line in told(done).items() if line[0] == "BROKEN"}
    ((what, (_, _, _, bounds)),) = broken.items()
    assert what == f"drift of {value}"
    where, excess = re.fullmatch(r"at .*: (above|below) it by (\S+)", bounds).groups()
    assert where == ("above" if sign > 0 else "below")
    assert float(excess) == pytest.approx(abs(drifts[value]) / 2, rel=5e-3)
    # A bound that just holds lets it through.
    loose = drifts[value] + sign * 1e-6
    done = gate(text + f'drift {{ value: "{value}" {side}: {loose} }}')
    assert done.returncode == WITHIN, done.stdout + done.stderr


def test_every_other_value_has_the_common_bound(gate, vector, asked):
    coefficient, values, _ = asked
    drifts = [abs(drift) for _, drift, _ in expected_drifts(values)]
    bound = sorted(drifts)[1] + 1e-6
    done = gate(UNSTEERED + steered(vector, coefficient) + f"max_other_drift: {bound}")
    assert done.returncode == OUT_OF_BOUNDS
    verdicts = [told(done)[f"drift of {value}"][0] for value in values.value_names]
    assert verdicts == ["BROKEN" if drift > bound else "within" for drift in drifts]


def test_capability_that_is_lost_is_named_with_how_much(gate, vector, asked):
    coefficient, _, choices = asked
    before, after = choices.accuracies
    text = UNSTEERED + steered(vector, coefficient)
    done = gate(text + f"min_accuracy: {after} max_accuracy_loss: {before - after - 0.01}")
    assert done.returncode == OUT_OF_BOUNDS
    assert told(done)["accuracy while steered"][0] == "within"
    verdict, _, _, bounds = told(done)["loss of accuracy"]
    assert verdict == "BROKEN" and bounds.endswith("above it by 0.01")
    done = gate(text + f"min_accuracy: {after + 0.02} max_accuracy_loss: {before - after}")
    assert done.returncode == OUT_OF_BOUNDS
    assert told(done)["loss of accuracy"][0] == "within"
    assert told(done)["accuracy while steered"][3].endswith("below it by 0.02")
    assert done.stdout.splitlines()[-1] == "bounds broken: 1"


def test_labels_that_a_model_hardly_says_break_their_bound(gate, vector, asked):
    done = gate(UNSTEERED + steered(vector, asked[0]) + "max_other_drift: 9 min_label_mass: 1")
    assert done.returncode == OUT_OF_BOUNDS
    assert told(done)["label mass of the questionnaire"][0] == "BROKEN"


def test_flags_take_the_place_of_what_the_file_says(gate, vector, asked, vector_file):
    coefficient = asked[0]
    bounds = UNSTEERED + "max_other_drift: 9"
    wanted = gate(bounds + "\n" + steered(vector, coefficient)).stdout
    where = ["--coefficient", str(coefficient), "--layers", ",".join(map(str, BLOCKS))]
    assert gate(bounds, "--vector", vector, *where).stdout == wanted
    other = bounds.replace("models/lettered", "models/none") + "\n" + steered("vectors/none", 1)
    done = gate(other, "--model", LETTERED, f"--vector_file={vector_file}", *where)
    assert done.stdout == wanted, done.stderr


@pytest.fixture(scope="module")
def vector_file(tiny, vector, tmp_path_factory):
    return exported(tiny, vector, tmp_path_factory.mktemp("vectors") / "v.safetensors")


# --- Wrong files and flags, and no server ---

STEERED = steered("vectors/x", 1)
# Where nobody listens.
NOBODY = {"server": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ("", "nothing is bounded"),
        ("max_accuracy_los: 1", 'line 1, column 17: .*no field named "max_accuracy_los"'),
        ("max_accuracy_loss: high", "line 1, column 20"),
        ("max_accuracy_loss: 0.1 max_accuracy_loss: 0.2", "line 1, column"),
        (UNSTEERED + "max_accuracy_loss: nan", "`max_accuracy_loss` is nan"),
        (UNSTEERED + "max_accuracy_loss: 1.5", "`max_accuracy_loss` is 1.5; .* from 0 to 1"),
        (UNSTEERED + "min_accuracy: -1", "`min_accuracy` is -1"),
        (UNSTEERED + "max_other_drift: 1 min_label_mass: 2", "`min_label_mass` is 2"),
        (UNSTEERED + "max_other_drift: -1", "`max_other_drift` is -1"),
        (UNSTEERED + "drift { at_most: 1 }", "`value` of a `drift` is missing"),
        (UNSTEERED + 'drift { value: "SD" }', "`drift` of 'SD' needs"),
        (UNSTEERED + 'drift { value: "SD" at_most: 1 } ' * 2, "names 'SD' twice"),
        (UNSTEERED + 'drift { value: "SD" at_least: 1 at_most: 0 }', "lets nothing through"),
        (UNSTEERED + 'drift { value: "SD" at_most: nan }', "lets nothing through"),
        (CHOICES + "max_other_drift: 1", "`questionnaire` is missing"),
        (QUESTIONNAIRE + "min_accuracy: 1", "`choices` is missing"),
        ('questionnaire { template: "t" } max_other_drift: 1', "no items"),
        ("choices {} min_accuracy: 1", "no questions"),
        ('choices { model: "models/m" questions {} } min_accuracy: 1', "`model` and `conditions`"),
        (UNSTEERED + 'steered { name: "s" } min_accuracy: 1', "`name` of a condition"),
        (UNSTEERED.replace("items.jsonl", "none.jsonl"), "none.jsonl"),
        (UNSTEERED.replace("items.jsonl", "bounds.textproto"), "line 1: "),
        (UNSTEERED.replace("items.jsonl", "."), "cannot read"),
        (UNSTEERED.replace("items.jsonl", "/dev/zero"), "cannot read"),
        (UNSTEERED.encode().replace(b"w60", b"\xff\xfe") + b"min_accuracy: 1", "UTF-8"),
        (UNSTEERED.replace("w60", "\\377") + "min_accuracy: 1", "UTF-8"),
        (b"\x00" * 100, "line 1, column 1"),
        ("unsteered {" * 100_000, "line 1, column"),
        (b" " * (17 << 20), "16777216 are allowed"),
        (QUESTIONNAIRE + "max_other_drift: 1", "--model"),
    ],
)  # fmt: skip
def test_a_wrong_bounds_file_is_told_before_anybody_is_asked(gate, bounds, why):
    done = gate(bounds, **NOBODY)
    assert (done.returncode, done.stdout) == (USAGE, ""), done.stderr
    assert re.search(why, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--vectors", "v"], "no flag --vectors"),
        (["words"], "'words' is no flag"),
        (["--timeout"], "--timeout needs a value"),
        (["--timeout", "0"], "--timeout is '0'"),
        (["--timeout", "nan"], "--timeout is 'nan'"),
        (["--model="], "--model is empty"),
        (["--server", "a:1"], "--server is given twice"),
        (["--vector", "vectors/v"], "needs --layers"),
        (["--vector", "vectors/v", "--layers", "1-3"], "--layers is '1-3'"),
        (["--vector", "vectors/v", "--layers", "-1"], "--layers is '-1'"),
        (["--vector", "vectors/v", "--layers", "1", "--coefficient", "inf"], "--coefficient is 'inf'"),
        (["--vector", "v", "--vector_file", "f", "--layers", "1"], "exclude each other"),
        (["--layers", "1"], "those of a vector"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_told(gate, flags, why):
    done = gate(UNSTEERED + "min_accuracy: 0", *flags, **NOBODY)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert why in done.stderr


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vectors/x": "vectors/none"}, "vectors/none"),
        ({"{item}": ""}, "template"),
        ({LETTERED: "models/none"}, "models/none"),
        ({STEERED: ""}, "nothing steers"),
        ({'"w81"': '"1"', '"w82"': '"2"'}, "UNREADABLE_LABELS"),
        ({'"w70"': '"w71 <eos>"'}, "options"),
        ({"max_other_drift: 1": 'drift { value: "XY" at_most: 1 }'}, "'XY'.* SD, ST"),
    ],
)
def test_what_the_server_cannot_find_or_do_is_the_files_fault(gate, vector, changes, why):
    bounds = UNSTEERED + STEERED + "max_other_drift: 1"
    for old, new in changes.items():
        assert old in bounds
        bounds = bounds.replace(old, new)
    done = gate(bounds.replace("vectors/x", vector))
    assert done.returncode == USAGE, done.stderr
    assert re.search(why, done.stderr), done.stderr


def test_a_server_that_cannot_be_asked_is_no_verdict(gate):
    bounds = UNSTEERED + STEERED + "max_other_drift: 1"
    done = gate(bounds, "--timeout", "0.3", **NOBODY)
    assert (done.returncode, done.stdout) == (NOT_ASKED, "")
    done = gate(bounds, "--model", NOT_LOADED)
    assert (done.returncode, done.stdout) == (NOT_ASKED, "")
    assert "is not served" in done.stderr


def test_the_help_shows_a_bounds_file_that_is_one(gate_program, gate):
    done = subprocess.run([gate_program, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    sample = done.stdout.split("A bounds file:\n")[1].split("exit codes:")[0]
    assert gate(sample, "--timeout", "0.3", **NOBODY).returncode == NOT_ASKED
