"""What evaluations take and give, as arrays, tables and plots, without a server."""

import json
import math

import numpy as np
import pytest
from google.protobuf import json_format

import valuescope as vs
from valuescope import v1

MODEL = "models/m"


def response():
    results = []
    for name, shift in (("plain", 0.0), ("steered", 0.5)):
        values = [
            v1.ValueScore(
                value="ST", score=4 + shift, centred=1 + shift, num_items=2, standard_error=0.5
            ),
            v1.ValueScore(value="SE", score=2, centred=-1, num_items=1, text_score=3),
        ]
        items = [
            v1.ItemScore(item="1", value="ST", score=4.5 + shift, order_spread=0.25),
            v1.ItemScore(item="2", value="SE", score=2),
        ]
        for item in items:
            item.answers.add(label_mass=0.75)
        results.append(
            v1.QuestionnaireResult(condition=name, values=values, items=items, label_mass=0.75)
        )
    return v1.AskQuestionnaireResponse(results=results)


def test_scores_are_arrays_by_condition_and_value():
    asked = vs.Questionnaire(response())
    assert asked.conditions == ["plain", "steered"]
    assert asked.value_names == ["ST", "SE"]
    np.testing.assert_array_equal(asked.values, [[4, 2], [4.5, 2]])
    np.testing.assert_array_equal(asked.centred, [[1, -1], [1.5, -1]])
    np.testing.assert_array_equal(asked.standard_errors, [[0.5, np.nan]] * 2)
    np.testing.assert_array_equal(asked.text_values, [[np.nan, 3]] * 2)
    np.testing.assert_array_equal(asked.item_scores, [[4.5, 2], [5, 2]])
    rows = asked.records()
    assert [row["value"] for row in rows] == ["ST", "SE"] * 2
    assert math.isnan(rows[0]["text_score"])
    assert len({tuple(row) for row in rows}) == 1
    assert asked.item_records()[0]["order_spread"] == 0.25
    assert math.isnan(asked.item_records()[1]["order_spread"])
    assert "steered" in asked._repr_html_()


def test_a_summary_of_a_job_is_read_back():
    fields = json.loads(json_format.MessageToJson(response(), preserving_proto_field_name=True)) | {
        "format_version": 1,
        "provenance": {"model": "m"},
    }
    asked = vs.Questionnaire.from_summary(json.dumps(fields).encode())
    assert asked.response == response()


def test_profiles_are_drawn_with_intervals():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    asked = vs.Questionnaire(response())
    axes = asked.plot()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "steered"]
    (line, *_) = axes.containers[1].lines
    np.testing.assert_array_equal(line.get_ydata(), [1.5, -1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ST", "SE"]


def test_conditions_are_named_numbered_or_edits():
    steer = vs.Steer("vectors/v", 2.0, layers=1)
    request = vs.choices_request(
        MODEL,
        [{"question": "q", "choices": ["a", "b"], "answer": 1}],
        conditions={"plain": None, "empty": vs.EvaluationCondition(""), "steered": steer},
    )
    plain, empty, steered = request.conditions
    assert [plain.name, empty.name, steered.name] == ["plain", "empty", "steered"]
    assert not plain.HasField("system_message")
    assert empty.HasField("system_message") and empty.system_message == ""
    assert steered.interventions[0].add.vector == "vectors/v"
    listed = vs.choices_request(MODEL, "artifacts/a", conditions=[steer]).conditions
    assert [one.name for one in listed] == [""]


def test_options_and_items_are_texts_or_messages():
    request = vs.questionnaire_request(
        MODEL, ["a", {"text": "b", "reverse": True}], ["no", "yes"], "{item}{options}", key="pvq_rr"
    )
    assert [(o.label, o.text, o.score) for o in request.options] == [
        ("1", "no", 1),
        ("2", "yes", 2),
    ]
    assert [(item.text, item.reverse) for item in request.items] == [("a", False), ("b", True)]
    assert request.key == v1.QUESTIONNAIRE_KEY_PVQ_RR
    with pytest.raises(TypeError, match="item 1 of items"):
        vs.questionnaire_request(MODEL, ["a", 3], ["no", "yes"], "")
    with pytest.raises(ValueError, match="order"):
        vs.questionnaire_request(MODEL, ["a"], ["no", "yes"], "", order="random")
    with pytest.raises(TypeError, match="item 0 of questions"):
        vs.choices_request(MODEL, ["a"])


def test_tagged_weights_are_mappings():
    request = vs.tagged_request(MODEL, [{"query": "q", "response": "r", "weights": {"A": -1.0}}])
    assert [(w.value, w.weight) for w in request.responses[0].weights] == [("A", -1.0)]


@pytest.mark.parametrize("language", vs.sample_languages())
def test_samples_have_an_item_for_each_of_the_ten_values(language):
    sample = vs.sample_questionnaire(language)
    values = [item["value"] for item in sample["items"]]
    assert sorted(values) == sorted("SD ST HE AC PO SE CO TR BE UN".split())
    assert len({item["text"] for item in sample["items"]}) == 10
    assert len(set(sample["options"])) == 6
    request = vs.questionnaire_request(MODEL, **sample)
    assert "{item}" in request.template and "{options}" in request.template


def test_samples_exist_in_six_languages():
    assert vs.sample_languages() == ["ar", "de", "en", "es", "ko", "zh"]
    with pytest.raises(ValueError, match="ar, de, en, es, ko, zh"):
        vs.sample_questionnaire("fr")


def test_choices_show_accuracies_with_intervals():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    result = v1.ChoicesResult(
        condition="plain",
        accuracy=0.5,
        accuracy_interval=v1.Interval(lower=0.2, upper=0.8),
        answers=[v1.ChoiceAnswer(correct=True), v1.ChoiceAnswer()],
    )
    asked = vs.Choices(v1.AnswerChoicesResponse(results=[result]))
    np.testing.assert_array_equal(asked.correct, [[True, False]])
    np.testing.assert_array_equal(asked.accuracy_intervals, [[0.2, 0.8]])
    assert math.isnan(asked.records()[0]["label_mass"])
    assert asked.plot().patches[0].get_height() == 0.5
