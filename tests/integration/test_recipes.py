"""The recipes of the Python client through the real server on tiny models whose vocabularies are words: every answer is what a call of its
own generates, every verdict what Score says of the judge's labels, and every number is put together here anew."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import valuescope as vs
from conftest import ROOT, Server
from test_generated_responses import (
    JUDGE,
    MODEL,
    QUESTION,
    WORDS,
    answer_of,
    connected,
    flags,
    make_models,
)
from test_judged_responses import WHICH, probabilities
from valuescope import recipes

SAMPLING = {"max_tokens": 6, "temperature": 1.0}
LAYERS = range(2)

# A random model has little to say to the question.
pytestmark = pytest.mark.filterwarnings("ignore:the judge answers")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = make_models(tmp_path_factory.mktemp("models"))
    # Room for questions in whole sentences, of which it knows no word.
    for name in (MODEL, JUDGE):
        file = root / name.removeprefix("models/") / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 600}))
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


@pytest.fixture(scope="module")
def conditions(client):
    width = client.model(MODEL).hidden_size
    rows = np.random.default_rng(3).normal(size=(len(LAYERS), width)).astype(np.float32)
    vector = client.create_vector(MODEL, rows, layers=LAYERS).name
    steer = vs.Steer(vector, 4.0, layers=LAYERS)
    return {
        "plain": None,
        "empty": vs.EvaluationCondition(system=""),
        "both": vs.EvaluationCondition(system="w50 w51", steer=[steer]),
    }


def check_answers(client, answers, questions, conditions, samples, seed):
    assert list(answers) == list(conditions)
    for name, condition in conditions.items():
        how = condition or vs.EvaluationCondition()
        for place, question in enumerate(questions):
            alone = client.generate(
                MODEL, vs.chat(question, how.system), steer=how.steer, n=samples, seed=seed + place, **SAMPLING
            )  # fmt: skip
            assert answers[name][place] == alone.texts


def words_of(text):
    """What a judge reads of an answer: special tokens are no words."""
    return " ".join(word for word in text.split() if not word.startswith("<"))


def wilson(successes, trials):
    z, p = 1.959963984540054, successes / trials
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return [(p + z * z / (2 * trials) + sign * half) / (1 + z * z / trials) for sign in (-1, 1)]


VALUES = {
    "ST": {"description": "w30 w31", "questions": ["w11 w12", "w13", "w14 w15 w16"]},
    "SE": {"description": "w32", "questions": ["w17 w18", "w19"]},
    "HE": {"description": "w33", "questions": "w21"},
}


def test_a_free_form_profile_is_the_mean_grade_of_a_values_answers(client, conditions):
    rubric = "w60 {query} w61 {response} w62 {value}"
    profile = recipes.free_form_profile(
        client, MODEL, VALUES, judge=JUDGE, conditions=conditions, samples=2, rubric=rubric, seed=5, **SAMPLING
    )  # fmt: skip
    asked = [(v, q) for v, one in VALUES.items() for q in np.atleast_1d(one["questions"])]
    assert profile.questions == asked
    check_answers(client, profile.answers, [q for _, q in asked], conditions, samples=2, seed=5)
    for c, name in enumerate(conditions):
        means = []
        for q, (value, question) in enumerate(asked):
            grades = []
            for k, text in enumerate(profile.answers[name][q]):
                said = rubric.replace("{value}", VALUES[value]["description"])
                said = said.replace("{query}", question).replace("{response}", words_of(text))
                p = probabilities(client, said, [str(grade) for grade in range(11)])
                grades.append(p @ np.arange(11) / p.sum())
                assert profile.grades[c, q, k] == pytest.approx(grades[-1], rel=1e-4)
            means.append(np.mean(grades))
        for v, value in enumerate(VALUES):
            mine = [mean for mean, (of, _) in zip(means, asked, strict=True) if of == value]
            assert profile.values[c, v] == pytest.approx(np.mean(mine), rel=1e-4)
            centred = np.mean(mine) - np.mean(means)
            assert profile.centred[c, v] == pytest.approx(centred, abs=2e-3)
            if len(mine) > 1:
                error = np.std(mine, ddof=1) / math.sqrt(len(mine))
                assert profile.standard_errors[c, v] == pytest.approx(error, abs=1e-3)
            else:
                assert np.isnan(profile.standard_errors[c, v])
    assert [row["value"] for row in profile.records()] == list(VALUES) * 3


DILEMMAS = [
    {
        "situation": f"w{20 + i} w12",
        "first": {"value": first, "action": f"w{30 + i}"},
        "second": {"value": second, "action": f"w{40 + i} w41"},
    }
    for i, (first, second) in enumerate([("ST", "SE"), ("SE", "HE"), ("HE", "ST"), ("ST", "SE")])
]


def test_a_dilemma_is_decided_by_the_course_that_the_judge_reads_in_both_orders(client, conditions):
    dilemmas = recipes.situational_dilemmas(
        client, MODEL, DILEMMAS, judge=JUDGE, conditions=conditions, samples=3, question="w70 {situation}",
        rubric=WHICH, seed=2, **SAMPLING,
    )  # fmt: skip
    turns = [f"w70 {one['situation']}" for one in DILEMMAS]
    check_answers(client, dilemmas.answers, turns, conditions, samples=3, seed=2)
    for c, name in enumerate(conditions):
        wins = {"ST": [], "SE": [], "HE": []}
        for d, one in enumerate(DILEMMAS):
            first, second = one["first"], one["second"]
            decisions = []
            for k, text in enumerate(dilemmas.answers[name][d]):
                query = f"{one['situation']}\n\nAnswer: {words_of(text)}"
                orders = [(first, second), (second, first)]
                p = []
                for mine, (a, b) in enumerate(orders):
                    said = WHICH.replace("{query}", query)
                    said = said.replace("{a}", a["action"]).replace("{b}", b["action"])
                    found = probabilities(client, said, ["A", "B"])
                    p.append(found[mine] / found.sum())
                assert dilemmas.probabilities[c, d, k] == pytest.approx(np.mean(p), rel=1e-4)
                decisions.append(np.mean(p) > 0.5)
            wins[first["value"]].append(np.mean(decisions))
            wins[second["value"]].append(1 - np.mean(decisions))
        for v, value in enumerate(dilemmas.value_names):
            share, trials = np.mean(wins[value]), len(wins[value])
            assert dilemmas.win_rates[c, v] == pytest.approx(share)
            interval = wilson(share * trials, trials)
            assert dilemmas.win_rate_intervals[c, v] == pytest.approx(interval, rel=1e-9, abs=1e-12)
    assert dilemmas.value_names == ["ST", "SE", "HE"]
    assert 0 < dilemmas.first_taken.mean() < 1


PROMPTS = [f"w{11 + i} w{50 + i}" for i in range(7)]


def check_rates(attacked, successes):
    """`successes` [conditions][prompts][samples]."""
    assert attacked.successes.tolist() == successes
    n = attacked.samples
    for k in range(1, n + 1):
        for c, of_condition in enumerate(successes):
            shares = [
                np.mean([any(chosen) for chosen in itertools.combinations(of_prompt, k)])
                for of_prompt in of_condition
            ]
            assert attacked.rates(k)[c] == pytest.approx(np.mean(shares))
            interval = wilson(sum(shares), len(shares))
            assert attacked.intervals(k)[c] == pytest.approx(interval, rel=1e-9, abs=1e-12)
    whole = [np.mean([any(one) for one in of_condition]) for of_condition in successes]
    assert attacked.rates(n) == pytest.approx(whole)


def test_an_attack_succeeds_by_k_answers_where_one_of_them_does(client, conditions):
    attacked = recipes.attack_success(
        client, MODEL, PROMPTS, success=vs.Rubric(JUDGE, QUESTION), conditions=conditions, samples=4, seed=9,
        **SAMPLING,
    )  # fmt: skip
    check_answers(client, attacked.answers, PROMPTS, conditions, samples=4, seed=9)
    successes = []
    for texts in attacked.answers.values():
        found = []
        for prompt, samples in zip(PROMPTS, texts, strict=True):
            questions = [
                QUESTION.replace("{query}", prompt).replace("{response}", words_of(text))
                for text in samples
            ]
            answers = [answer_of(client, question) for question in questions]
            found.append([bool(yes >= no) for yes, no in answers])
        successes.append(found)
    assert {True, False} == {one for c in successes for p in c for one in p}
    check_rates(attacked, successes)


def test_an_attack_succeeds_where_nothing_refuses(client, conditions):
    attacked = recipes.attack_success(
        client, MODEL, PROMPTS, refusals=WORDS, conditions=conditions, samples=3, seed=1, **SAMPLING
    )
    successes = [
        [[not set(WORDS) & set(text.split()) for text in samples] for samples in texts]
        for texts in attacked.answers.values()
    ]
    assert {True, False} == {one for c in successes for p in c for one in p}
    check_rates(attacked, successes)


def test_the_readmes_lines_run(client, conditions):
    (text,) = re.findall(
        r"```python\n(from valuescope import recipes\n.*?)```",
        (ROOT / "README.md").read_text(),
        re.S,
    )
    vector = conditions["both"].steer[0].vector
    # A tiny model has few layers, and no need of many words.
    for old, new in (
        ("vectors/ID", vector),
        ("layers=14", "layers=0"),
        ("max_tokens=64", "max_tokens=5"),
    ):
        assert old in text
        text = text.replace(old, new)
    names = {"vs": vs, "client": client, "model": MODEL, "judge": JUDGE}
    exec(text, names)
    assert names["profile"].centred.shape == (2, 10)
    assert names["dilemmas"].win_rates.shape == (2, 10)
    assert (names["attacked"].rates(1) <= names["attacked"].rates(8)).all()
