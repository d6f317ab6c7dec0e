"""How a value study ends otherwise than whole: refused before anything runs, cancelled and retried, without responses to make vectors of."""

import grpc
import pytest
import valuescope as vs
from conftest import await_true
from test_generated_responses import MODEL, SYSTEM, flags
from test_value_study import (  # noqa: F401
    LABELS,
    SCORES,
    TEST,
    TRAINING,
    client,
    connected,
    root,
    server,
    spec_of,
    value_of,
)
from valuescope import v1

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_cancelled_study_stops_its_parts_and_goes_on_when_retried(client):  # noqa: F811
    handle = client.value_study(spec_of(seed=6))
    await_true(lambda: len(handle.get().children) > 3)
    handle.cancel()
    await_true(lambda: handle.get().state == v1.JOB_STATE_CANCELLED)
    states = {child.state for child in handle.get().children}
    assert states <= {v1.JOB_STATE_SUCCEEDED, v1.JOB_STATE_CANCELLED}
    handle.retry()
    assert handle.wait().state == v1.JOB_STATE_SUCCEEDED
    handle.delete()


def test_a_tenant_that_may_queue_and_run_one_thing_finishes_its_study(
    root,  # noqa: F811
    start_server,
    tmp_path,
):
    small = start_server(tmp_path, *flags(root), "--tenants=*:queued=1:running=1")
    fields = {"random_directions": 0, "questionnaire": None, "neurons": None}
    with connected(small) as connection:
        handle = connection.value_study(spec_of(values=[value_of("care")], **fields))
        assert handle.wait().state == v1.JOB_STATE_SUCCEEDED
    assert small.stop() == 0


def test_values_without_enough_responses_end_alone_or_end_the_study(client):  # noqa: F811
    # Their names are no other part's: those of the random directions and of the intrinsic responses.
    named, rare = value_of("random"), value_of("intrinsic", ["w9999"])
    fields = {"random_directions": 1, "questionnaire": None, "neurons": None}
    handle = client.value_study(spec_of(values=[named, rare], **fields))
    handle.wait()
    phases = {child.phase for child in handle.get().children}
    assert {"sweep/random", "sweep_random", "generate/intrinsic", "generate_intrinsic"} <= phases
    some = handle.result().study
    assert not some.values[0].failure and some.values[0].outcomes
    assert "0 of 32 intrinsic responses express the value" in some.values[1].failure
    assert not some.values[1].vectors
    with pytest.raises(vs.JobFailed) as failed:
        client.value_study(spec_of(values=[rare])).wait()
    assert failed.value.job.error.reason == "TOO_FEW_RESPONSES"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": "models/none"}, None),
        ({"values": []}, "values"),
        ({"values": [value_of("care"), value_of("care")]}, "values[1].value"),
        ({"values": [value_of("care", LABELS, [*SCORES, LABELS[0]])]}, "values[0].score_judge.word_list.words[12]"),
        ({"values": [value_of("care", [*LABELS, "w52"])]}, "values[0].system_messages[1]"),
        ({"values": [v1.ValueDefinition(value="care", system_messages=SYSTEM)]}, "values[0].judge"),
        ({"queries": []}, "queries"),
        ({"development_queries": []}, "development_queries"),
        ({"test_queries": TEST[:1]}, "test_queries"),
        ({"test_queries": [*TEST, TRAINING[0]]}, "test_queries[6]"),
        ({"sampling": v1.SamplingParams(temperature=-1)}, "sampling.temperature"),
        ({"coefficients": [0.0]}, "coefficients[0]"),
        ({"steered_layers": v1.Layers(list=v1.LayerList(layers=[99]))}, "steered_layers.list.layers[0]"),
        ({"random_directions": 51}, "random_directions"),
        ({"guard": [v1.SweepBound(evaluation="responses", measure="beauty", at_least=1)]}, "guard[0].measure"),
        ({"tokens": v1.TokenSelection(positions=[0, 0])}, "tokens"),
        ({"circumplex": v1.CircumplexOptions()}, "values"),
        ({"circumplex": v1.CircumplexOptions(), "values": [value_of(f"v{i}") for i in range(4)]}, "values[0].value"),
        ({"circumplex": v1.CircumplexOptions(null_samples=1)}, "circumplex.null_samples"),
        ({"measures": v1.MeasureTextsRequest(ngrams=[3])}, "measures.ngrams"),
        ({"measures": v1.MeasureTextsRequest(ngrams=[2, 99])}, "measures.ngrams[1]"),
        ({"directions": [1, 1]}, "directions[1]"),
        ({"neurons": v1.StudyNeurons(factors=[1.0])}, "neurons.factors[0]"),
        ({"neurons": v1.StudyNeurons(max_angles=[60.0])}, "neurons.max_angles[0]"),
        ({"neurons": v1.StudyNeurons(removed=[4, 1])}, "neurons.removed[1]"),
        ({"neurons": v1.StudyNeurons(removed=[4], attribute=False)}, "neurons.removed"),
        ({"neurons": v1.StudyNeurons(removed=[100000])}, "neurons.removed[0]"),
        ({"guard": [v1.SweepBound(evaluation="responses", measure="distinct_2")]}, "guard[0]"),
        ({"guard": [v1.SweepBound(evaluation="answers", measure="distinct_2", at_least=1)]}, "guard[0].evaluation"),
    ],
)  # fmt: skip
def test_bad_input_names_its_field(client, changes, field):  # noqa: F811
    with pytest.raises(vs.ValuescopeError) as refused:
        client.estimate_job(v1.JobSpec(value_study=spec_of(**changes)))
    if field is None:
        assert refused.value.code == grpc.StatusCode.NOT_FOUND
        return
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"spec.value_study.{field}" in str(refused.value)


def test_drawn_system_messages_are_for_responses_alone(client):  # noqa: F811
    drawn = v1.EvaluationCondition(system_messages=SYSTEM)
    both = v1.EvaluationCondition(system_messages=SYSTEM, system_message="")
    asked = v1.AskQuestionnaireRequest(model=MODEL, conditions=[drawn])
    asked.MergeFrom(spec_of().questionnaire)
    generated = v1.GenerateResponsesSpec(model=MODEL, queries=TEST, conditions=[both])
    for spec in (v1.JobSpec(ask_questionnaire=asked), v1.JobSpec(generate_responses=generated)):
        with pytest.raises(vs.InvalidRequest) as refused:
            client.estimate_job(spec)
        assert "conditions[0].system_messages" in str(refused.value)
