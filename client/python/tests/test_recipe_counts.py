"""What recipes ask and count, on a stand-in for a client that says what each test writes."""

import math

import numpy as np
import pytest

import valuescope as vs
from valuescope import recipes, v1
from valuescope.recipes.answers import wilson_intervals

MODEL, JUDGE = "models/m", "models/judge"


class Client:
    """Says `says(prompt, condition's edits, place of the sample)`; judges by numbers that answers are made of."""

    def __init__(self, says):
        self.says = says
        self.generations = []
        self.judged = []

    def generate(self, model, prompts, *, steer, n, seed, **sampling):
        self.generations.append((model, prompts, steer, n, seed, sampling))
        return [
            vs.Generation(
                v1.GenerateResponse(
                    completions=[v1.Completion(text=self.says(one, steer, k)) for k in range(n)]
                )
            )
            for one in prompts
        ]

    def judge_responses(self, responses, judge):
        texts = [one.response.text for one in responses]
        self.judged.append((judge, texts))
        if isinstance(judge, vs.Grade):
            verdicts = [v1.Judgement(grade=float(text)) for text in texts]
        else:
            verdicts = [v1.Judgement(expresses=text == "yes") for text in texts]
        return vs.Judgements(v1.JudgeResponsesResponse(judgements=verdicts))

    def compare_responses(self, model, pairs, question):
        self.judged.append((question, pairs))
        said = [query.rsplit("Answer: ")[-1] for query, _, _ in pairs]
        verdicts = [v1.PairPreference(probability=float(one)) for one in said]
        return vs.Preferences(v1.CompareResponsesResponse(preferences=verdicts))


VALUES = {
    "ST": {"description": "thrills", "questions": ["a", "b"]},
    "SE": {"description": "calm", "questions": ["c"]},
}


def test_conditions_differ_by_nothing_but_themselves():
    client = Client(lambda *_: "5")
    steer = vs.Steer("vectors/v", 1.0, layers=1)
    conditions = {"plain": None, "steered": steer, "said": vs.EvaluationCondition(system="")}
    recipes.free_form_profile(
        client, MODEL, VALUES, judge=JUDGE, conditions=conditions, samples=2, seed=7, max_tokens=3
    )
    for model, _, _, n, seed, sampling in client.generations:
        assert (model, n, seed, sampling) == (MODEL, 2, [7, 8, 9], {"max_tokens": 3})
    plain, steered, said = client.generations
    assert (plain[2], steered[2], said[2]) == (None, steer, None)
    assert plain[1] == steered[1] == [vs.chat(question) for question in "abc"]
    assert said[1] == [vs.chat(question, system="") for question in "abc"]


def test_each_value_is_graded_by_its_own_description():
    client = Client(lambda *_: "5")
    recipes.free_form_profile(client, MODEL, VALUES, judge=JUDGE)
    thrills, calm = (judge.question for judge, _ in client.judged)
    assert "thrills" in thrills and "calm" in calm
    assert all("{query}" in one and "{response}" in one for one in (thrills, calm))


def test_empty_answers_have_no_grade_and_no_part_in_means():
    grades = {"a": ["2", ""], "b": [" ", ""], "c": ["6", "8"]}
    client = Client(lambda prompt, _, k: grades[prompt[-1]["content"]][k])
    profile = recipes.free_form_profile(client, MODEL, VALUES, judge=JUDGE, samples=2)
    np.testing.assert_array_equal(profile.grades, [[[2, np.nan], [np.nan, np.nan], [6, 8]]])
    assert [texts for _, texts in client.judged] == [["2"], ["6", "8"]]
    np.testing.assert_array_equal(profile.values, [[2, 7]])
    np.testing.assert_array_equal(profile.centred, [[2 - 4.5, 7 - 4.5]])
    assert np.isnan(profile.standard_errors).all()
    silent = Client(lambda *_: "")
    profile = recipes.free_form_profile(silent, MODEL, VALUES, judge=JUDGE)
    assert silent.judged == [] and np.isnan(profile.values).all()


def test_a_judge_is_asked_no_more_at_once_than_a_call_takes():
    client = Client(lambda prompt, _, k: "yes" if k % 3 == 0 else "no")
    prompts = [str(number) for number in range(70)]
    attacked = recipes.attack_success(
        client, MODEL, prompts, success=vs.WordList("yes"), samples=64
    )
    assert [len(texts) for _, texts in client.judged] == [2000, 2000, 480]
    assert attacked.rates(1) == pytest.approx([22 / 64])


def test_refusals_are_no_successes_and_neither_is_nothing():
    client = Client(lambda prompt, _, k: ["yes", "no", ""][k])
    refused = recipes.attack_success(client, MODEL, ["p"], refusals="yes", samples=3)
    assert refused.successes.tolist() == [[[False, True, False]]]
    assert client.judged[0][0] == vs.WordList("yes")
    succeeded = recipes.attack_success(client, MODEL, ["p"], success=vs.WordList("w"), samples=3)
    assert succeeded.successes.tolist() == [[[True, False, False]]]


def test_a_success_rate_grows_with_k_and_has_its_interval():
    # Prompt 0 always succeeds, prompt 1 once in four, the others never.
    hits = {"0": 4, "1": 1}
    client = Client(lambda prompt, _, k: "yes" if k < hits.get(prompt[-1]["content"], 0) else "no")
    attacked = recipes.attack_success(
        client, MODEL, list("01234"), success=vs.WordList("yes"), samples=4
    )
    rates = [attacked.rates(k)[0] for k in range(1, 5)]
    assert rates == pytest.approx([(1 + k / 4) / 5 for k in range(1, 5)])
    # 2 of 5 by Wilson's formula, worked out by hand.
    assert attacked.intervals(4)[0] == pytest.approx([0.117621, 0.769276], abs=1e-6)
    assert [row["k"] for row in attacked.records()] == [1, 2, 3, 4]
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k is {k}; there are 4 samples"):
            attacked.rates(k)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.2, 0.8), (0.5, 4.5), (2, 2), (1e6, 1e6)])
def test_intervals_hold_the_truth_however_prompts_differ(a, b):
    """Prompts whose chances are drawn from a beta distribution, some always and some never successful."""
    random = np.random.default_rng(1)
    chances = random.beta(a, b, (5000, 30))
    for samples, least in ((1, 0.93), (8, 0.95)):
        rates = (random.binomial(samples, chances) / samples).mean(axis=1)
        lower, upper = wilson_intervals(rates, 30).T
        assert np.mean((lower <= a / (a + b)) & (a / (a + b) <= upper)) >= least


def test_a_dilemma_counts_for_both_of_its_values():
    dilemmas = [
        {"situation": "s", "first": {"value": "A", "action": "go"}, "second": {"value": "B", "action": "stay"}},
        {"situation": "t", "first": {"value": "B", "action": "say"}, "second": {"value": "C", "action": "hush"}},
    ]  # fmt: skip
    said = {"s": ["0.9", "0.5", "0.2"], "t": ["", "0.1", "0.1"]}
    client = Client(lambda prompt, _, k: said[prompt[-1]["content"].split("\n")[0]][k])
    decided = recipes.situational_dilemmas(client, MODEL, dilemmas, judge=JUDGE, samples=3)
    ((_, pairs),) = client.judged
    assert pairs[0] == ("s\n\nAnswer: 0.9", "go", "stay") and len(pairs) == 5
    assert decided.value_names == ["A", "B", "C"]
    np.testing.assert_array_equal(decided.first_taken, [[0.5, 0.0]])
    np.testing.assert_array_equal(decided.win_rates, [[0.5, 0.25, 1.0]])
    assert [row["num_dilemmas"] for row in decided.records()] == [1, 2, 1]
    lower, upper = decided.win_rate_intervals[0, 1]
    assert 0 < lower < 0.25 < upper < 1
    silent = recipes.situational_dilemmas(Client(lambda *_: ""), MODEL, dilemmas, judge=JUDGE)
    assert np.isnan(silent.win_rates).all() and np.isnan(silent.win_rate_intervals).all()


@pytest.mark.parametrize(
    ("call", "error", "why"),
    [
        (lambda c: recipes.free_form_profile(c, MODEL, {}, judge=JUDGE), ValueError, "no questions"),
        (lambda c: recipes.free_form_profile(c, MODEL, VALUES, judge=JUDGE, rubric="{query}"), ValueError, "{value}"),
        (lambda c: recipes.situational_dilemmas(c, MODEL, [], judge=JUDGE), ValueError, "no dilemmas"),
        (lambda c: recipes.situational_dilemmas(c, MODEL, [{}], judge=JUDGE), KeyError, "first"),
        (lambda c: recipes.situational_dilemmas(c, MODEL, [{}], judge=JUDGE, question="?"), ValueError, "{situation}"),
        (lambda c: recipes.attack_success(c, MODEL, ["p"]), TypeError, "one of the two"),
        (lambda c: recipes.attack_success(c, MODEL, [], refusals="no"), ValueError, "no prompts"),
        (lambda c: recipes.attack_success(c, MODEL, [1], refusals="no"), TypeError, "item 0 of prompts"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_told_before_anything_is_generated(call, error, why):
    client = Client(lambda *_: "5")
    with pytest.raises(error, match=why):
        call(client)
    assert client.generations == []


def test_samples_are_what_the_recipes_take():
    client = Client(lambda *_: "1")
    profile = recipes.free_form_profile(client, MODEL, recipes.sample_values(), judge=JUDGE)
    assert sorted(profile.value_names) == sorted("SD ST HE AC PO SE CO TR BE UN".split())
    assert len(profile.questions) == 20
    decided = recipes.situational_dilemmas(client, MODEL, recipes.sample_dilemmas(), judge=JUDGE)
    assert {row["num_dilemmas"] for row in decided.records()} == {2}
    # Neither place is the better one for a value.
    firsts = [first for (first, _), _ in decided.courses]
    assert len(set(firsts)) == len(firsts) == 10
    assert len(set(recipes.sample_requests())) == 6


def test_results_are_drawn_and_shown():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    client = Client(lambda prompt, _, k: "1" if k else "0")
    how = {"conditions": {"plain": None, "<b>": vs.EvaluationCondition("s")}, "samples": 2}
    shown = [
        recipes.free_form_profile(client, MODEL, recipes.sample_values(), judge=JUDGE, **how),
        recipes.situational_dilemmas(client, MODEL, recipes.sample_dilemmas(), judge=JUDGE, **how),
        recipes.attack_success(client, MODEL, ["p", "q"], refusals="no", **how),
    ]
    for one in shown:
        legend = one.plot().get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["plain", "<b>"]
        assert "&lt;b&gt;" in one._repr_html_() and "<b>" not in one._repr_html_()
        assert len({tuple(row) for row in one.records()}) == 1
    assert not math.isnan(shown[0].records()[0]["standard_error"])
