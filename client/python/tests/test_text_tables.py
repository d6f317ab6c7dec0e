"""Requests for evaluations of texts, and their results as tables and plots, without a server."""

import math

import pytest

import valuescope as vs
from valuescope import v1


def response():
    return v1.MeasureTextsResponse(
        measures=[
            v1.TextMeasures(
                condition="steered",
                num_texts=3,
                mean_tokens=5.0,
                coherent_share=1.0,
                self_bleu=0.25,
                self_bleu_texts=3,
                diversity=[v1.NgramDiversity(n=2, distinct=0.5, expectation_adjusted_distinct=0.6)],
                instructions=[v1.InstructionRate(instruction=0, rate=0.75)],
            ),
            v1.TextMeasures(
                num_texts=1,
                num_empty=1,
                diversity=[v1.NgramDiversity(n=2)],
                instructions=[v1.InstructionRate(instruction=0)],
            ),
        ]
    )


def test_a_row_a_condition_has_every_column_and_nan_where_nothing_is_told():
    measures = vs.TextMeasures(response())
    first, second = measures.records()
    assert first.keys() == second.keys()
    assert (first["condition"], first["distinct_2"], first["instruction_0"]) == (
        "steered",
        0.5,
        0.75,
    )
    assert first["self_bleu"] == 0.25 and math.isnan(first["perplexity"])
    for column in ("mean_tokens", "coherent_share", "self_bleu", "distinct_2", "instruction_0"):
        assert math.isnan(second[column])
    assert measures["steered"].num_texts == 3 and measures[""].num_empty == 1
    with pytest.raises(KeyError, match="'nobody'; there are 'steered', ''"):
        measures["nobody"]
    assert repr(measures) == "TextMeasures(4 texts, conditions 'steered', '')"
    assert "<td" in measures._repr_html_()
    assert vs.TextMeasures(v1.MeasureTextsResponse()).records() == []


def test_a_column_is_drawn_as_bars():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    measures = vs.TextMeasures(response())
    axes = measures.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["steered", "no condition"]
    assert axes.patches[0].get_width() == 0.6
    with pytest.raises(ValueError, match="column is 'bleu'; choose one of condition, num_texts"):
        measures.plot("bleu")


def test_texts_come_by_condition_or_as_responses_or_by_name():
    request = vs.measurement_request(
        "models/x",
        {"a": ["b", "c"], "": ["d"]},
        refusal_phrases="no",
        instructions=v1.Instruction(max_words=3),
        perplexity=True,
    )
    assert [(r.condition, r.response.text) for r in request.responses] == [
        ("a", "b"),
        ("a", "c"),
        ("", "d"),
    ]
    assert list(request.refusal_phrases) == ["no"] and request.instructions[0].max_words == 3
    assert request.perplexity and not request.HasField("vocabulary")
    one = vs.unlabelled("p", "r", condition="a", query_id=3)
    assert not one.HasField("expresses") and (one.condition, one.query_id) == ("a", "3")
    assert list(vs.measurement_request("models/x", one).responses) == [one]
    assert vs.measurement_request("models/x", "artifacts/t").artifact == "artifacts/t"
    with pytest.raises(TypeError, match="item 1 of texts of 'a' is 4"):
        vs.measurement_request("models/x", {"a": ["b", 4]})


def test_conditions_have_names_or_numbers():
    steer = vs.Steer("vectors/v", 2.0, layers=3)
    named = vs.generation_spec(
        "models/x", "q", {"plain": None, "said": vs.EvaluationCondition("S"), "steered": steer}
    ).conditions
    assert [c.name for c in named] == ["plain", "said", "steered"]
    assert [c.HasField("system_message") for c in named] == [False, True, False]
    assert [len(c.interventions) for c in named] == [0, 0, 1]
    listed = vs.generation_spec("models/x", ["q"], [vs.EvaluationCondition("")]).conditions
    assert listed[0].name == "" and listed[0].HasField("system_message")
    assert not vs.generation_spec("models/x", "artifacts/q").conditions


def test_what_is_generated_is_said_as_generate_takes_it():
    spec = vs.generation_spec(
        "models/x", ["q", "r"], judge=vs.WordList("w"), samples_per_query=4, max_tokens=9, seed=2
    )
    assert list(spec.queries) == ["q", "r"] and spec.samples_per_query == 4
    assert (spec.sampling.max_tokens, spec.sampling.seed) == (9, 2)
    assert list(spec.judge.word_list.words) == ["w"]
    assert vs.generation_spec("models/x", "artifacts/q").queries_artifact == "artifacts/q"


def test_judgements_are_arrays_with_nan_where_nobody_was_asked():
    judgements = vs.Judgements(
        v1.JudgeResponsesResponse(
            judgements=[
                v1.Judgement(expresses=True, probability=0.75, label_mass=0.5),
                v1.Judgement(expresses=False),
            ],
            expressing_share=0.5,
        )
    )
    assert judgements.expresses.tolist() == [True, False] and len(judgements) == 2
    assert judgements.probabilities[0] == 0.75 and math.isnan(judgements.probabilities[1])
    assert judgements.label_masses[0] == 0.5 and math.isnan(judgements.records()[1]["label_mass"])
    assert repr(judgements) == "Judgements(2 responses, 0.5 express)"
    assert "<td" in judgements._repr_html_()
    request = vs.judging_request("artifacts/r", vs.WordList("w"), model="models/x")
    assert (request.artifact, request.model) == ("artifacts/r", "models/x")
    assert list(request.judge.word_list.words) == ["w"]


def test_grades_and_preferences_are_arrays():
    judged = vs.Judgements(
        v1.JudgeResponsesResponse(
            judgements=[v1.Judgement(grade=7.5, label_mass=0.9), v1.Judgement()], mean_grade=7.5
        )
    )
    assert judged.grades[0] == 7.5 and math.isnan(judged.grades[1])
    assert judged.records()[0]["expresses"] is None
    assert repr(judged) == "Judgements(2 responses, mean grade 7.5)"
    request = vs.judging_request("artifacts/r", vs.Grade("models/j", "{query} {response}?"))
    assert request.grade.model == "models/j" and request.WhichOneof("how") == "grade"
    preferences = vs.Preferences(
        v1.CompareResponsesResponse(
            preferences=[v1.PairPreference(probability=0.75, order_spread=0.1, label_mass=0.5)],
            win_rate=1.0,
            win_rate_interval=v1.Interval(lower=0.25, upper=1.0),
            order_agreement=1.0,
        )
    )
    assert preferences.probabilities.tolist() == [0.75] and len(preferences) == 1
    assert preferences.win_rate_interval == (0.25, 1.0)
    assert repr(preferences) == "Preferences(1 pairs, first wins 1 [0.25, 1], orders agree 1)"
    assert preferences.records()[0]["order_spread"] == 0.1


def test_pairs_are_triples_of_texts_or_an_artifact():
    request = vs.comparison_request("models/j", [("q", "a", "b")], "{query} {a} {b}")
    assert (request.pairs[0].query, request.pairs[0].first, request.pairs[0].second) == (
        "q",
        "a",
        "b",
    )
    assert vs.comparison_request("models/j", "artifacts/p", "?").artifact == "artifacts/p"
    with pytest.raises(ValueError, match="item 0 of pairs has 2 texts"):
        vs.comparison_request("models/j", [("q", "a")], "?")
