"""What steering_sweep sends, and the tables and curves of what comes back."""

import json

import numpy as np
import pytest
from google.protobuf import json_format

import valuescope as vs
from valuescope import v1


def point(name, value, *, passes=True, random=None, layer=2, coefficient=1.0):
    made = v1.SweepPoint(name=name, subject="vectors/v", layers=[layer], passes=passes)
    made.coefficient = coefficient
    if random is not None:
        made.random = random
    if not passes:
        made.failed_bounds.append("e m at_least")
    measure = made.measures.add(evaluation="e", measure="m")
    if value is not None:
        measure.value = value
        measure.lower = value - 0.5
    return made


def example():
    baseline = v1.SweepPoint(name="baseline", passes=True)
    baseline.measures.add(evaluation="e", measure="m", value=0.25)
    points = [
        baseline,
        point("v*1@2", 0.5),
        point("v*2@2", None, coefficient=2.0, passes=False),
        point("v*1@5", 0.75, layer=5),
        point("r0", 0.1, random=0),
        point("r1", 0.3, random=1),
    ]
    result = v1.SteeringSweepResult(num_points=5, num_passing=4)
    result.selected.add(subject="vectors/v", point="v*1@5", value=0.75, p_value=0.5)
    return vs.SteeringSweep(points, result)


def test_artifacts_come_back_as_they_were():
    sweep = example()
    lines = "".join(json_format.MessageToJson(p, indent=None) + "\n" for p in sweep.points)
    summary = json_format.MessageToDict(sweep.result, preserving_proto_field_name=True)
    summary |= {"format_version": 1, "provenance": {"anything": 1}}
    again = vs.SteeringSweep.from_artifacts(lines.encode(), json.dumps(summary).encode())
    assert again.points == sweep.points and again.result == sweep.result


def test_records_and_values_have_nan_where_nothing_is_known():
    sweep = example()
    records = sweep.records()
    assert len({tuple(record) for record in records}) == 1
    np.testing.assert_array_equal(sweep.values("e", "m"), [0.25, 0.5, np.nan, 0.75, 0.1, 0.3])
    assert records[1]["e.m_lower"] == 0 and np.isnan(records[1]["e.m_upper"])
    assert records[2]["failed_bounds"] == "e m at_least" and not records[2]["passes"]
    assert [record["random"] for record in records] == [None, None, None, None, 0, 1]
    assert np.isnan(records[0]["coefficient"])
    assert sweep.selected("vectors/v").point == "v*1@5"
    assert sweep.point("v*1@5").layers == [5]
    with pytest.raises(KeyError, match="e: x is not measured"):
        sweep.values("e", "x")


def test_what_was_not_swept_is_named():
    with pytest.raises(KeyError, match="vectors/w was not swept; subjects are vectors/v"):
        example().selected("vectors/w")
    with pytest.raises(KeyError, match=r"v\*3@2 is no point"):
        example().point("v*3@2")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": "answers"}, "must be .evaluation, measure."),
        ({"objective": ("answers", "a", "b")}, "must be .evaluation, measure."),
        ({"evaluations": [vs.swept_responses("a")]}, "must be a dict by name"),
    ],
)
def test_a_spec_of_another_shape_says_what_it_must_be(changes, says):
    fields = {
        "evaluations": {"answers": vs.swept_responses("a")},
        "objective": ("answers", "self_bleu"),
    }
    with pytest.raises((TypeError, ValueError), match=says):
        vs.sweep_spec("models/m", **fields | changes)


def test_curves_are_by_layer_with_hollow_points_and_a_band():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = example().plot("e", "m")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["random directions", "vectors/v @2", "vectors/v @5", "baseline"]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False, True, False]


def test_it_is_shown_as_a_table():
    sweep = example()
    assert repr(sweep) == "SteeringSweep(5 points, 4 pass the guard, 1 subjects)"
    assert "v*1@5" in sweep._repr_html_()


def test_a_spec_takes_requests_of_evaluations_without_their_models():
    spec = vs.sweep_spec(
        "models/m",
        vectors="vectors/v",
        layers=range(2, 4),
        coefficients=[1, 2],
        scopes=["all", [0, 1]],
        evaluations={
            "answers": vs.swept_responses("How?", judge=vs.WordList("yes"), max_tokens=4),
            "choices": vs.choices_request(
                "models/m", [{"question": "q", "choices": ["a", "b"], "answer": 0}]
            ),
        },
        objective=("answers", "expressing_share"),
        system="",
    )
    assert (
        not spec.evaluations[1].choices.model and not spec.evaluations[0].responses.generation.model
    )
    assert spec.HasField("system_message") and list(spec.layers.list.layers) == [2, 3]
    assert spec.scopes[1].kind == v1.TOKEN_KIND_POSITIONS
    assert spec.evaluations[0].responses.generation.sampling.max_tokens == 4
    with pytest.raises(TypeError, match="evaluation 'x' is 3"):
        vs.sweep_spec("models/m", evaluations={"x": 3}, objective=("x", "y"))
