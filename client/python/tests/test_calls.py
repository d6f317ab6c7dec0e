"""What both clients do when calls fail, wait, are cancelled or run side by side, against a server in this process."""

import asyncio
import dataclasses
import datetime
import hashlib
import inspect
import json
import signal
import sys
import threading
import time

import grpc
import numpy as np
import pytest
from fake_server import CLIENT_STREAMS, PATIENT, RPCS, SERVER_STREAMS, await_true
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import valuescope as vs
from valuescope import v1
from valuescope.crc32c import crc32c
from valuescope.routed_model import routed_model
from valuescope.v1 import (
    activations_pb2,
    artifacts_pb2,
    evaluation_pb2,
    generation_pb2,
    jobs_pb2,
    models_pb2,
    neurons_pb2,
    tenants_pb2,
    vectors_pb2,
)

GET_MODEL = "ModelService/GetModel"
GENERATE = "GenerationService/Generate"
MODEL = v1.GetModelResponse(model=v1.Model(name="models/m", num_layers=3))


def refuse(context, code, *details, pushback=None, message="no"):
    """Fails a call as the server does: google.rpc details and pushback in the trailing metadata."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    trailing = [("grpc-status-details-bin", status.SerializeToString())]
    if pushback is not None:
        trailing.append(("grpc-retry-pushback-ms", pushback))
    context.set_trailing_metadata(trailing)
    context.abort(code, message)


def retry_info(seconds):
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def failing(times, code, *details, then=MODEL, **options):
    """An answer that fails so many times."""
    left = [times]

    def answer(request, context):
        if left[0] > 0:
            left[0] -= 1
            refuse(context, code, *details, **options)
        return then

    return answer


# --- The clients themselves ----------------------------------------------------------------------------------------


def test_the_table_of_rpcs_is_the_contract():
    files = [activations_pb2, artifacts_pb2, generation_pb2, jobs_pb2, models_pb2, neurons_pb2]
    found = {}
    for file in [*files, evaluation_pb2, tenants_pb2, vectors_pb2]:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                found[f"{service.name}/{method.name}"] = method
    assert set(RPCS) == set(found)
    for name, method in found.items():
        assert RPCS[name].request.DESCRIPTOR.full_name == method.input_type.full_name
        assert RPCS[name].response.DESCRIPTOR.full_name == method.output_type.full_name
        assert method.client_streaming == (name in CLIENT_STREAMS)
        assert method.server_streaming == (name in SERVER_STREAMS)


def test_both_clients_have_the_same_documented_methods():
    def methods(client):
        return {
            name: inspect.signature(method)
            for name, method in inspect.getmembers(client, callable)
            if not name.startswith("_")
        }

    plain, asynchronous = methods(vs.Client), methods(vs.AsyncClient)
    assert set(plain) == set(asynchronous)
    for name in set(plain) - {"with_timeout", "close"}:
        assert plain[name].parameters == asynchronous[name].parameters, name
        assert getattr(vs.Client, name).__doc__, name
        assert not inspect.iscoroutinefunction(getattr(vs.Client, name)), name


def test_the_blocking_client_works_beside_a_running_loop(fake):
    fake.answers[GET_MODEL] = lambda request, context: MODEL

    async def notebook_cell():
        with vs.Client(fake.address) as client:
            return client.model("models/m")

    assert asyncio.run(notebook_cell()).num_layers == 3


def test_an_asyncio_client_may_be_made_before_its_loop(fake):
    fake.answers[GET_MODEL] = lambda request, context: MODEL
    client = vs.AsyncClient(fake.address)

    async def main():
        async with client:
            return await client.model("models/m")

    assert asyncio.run(main()).num_layers == 3


def test_connect_says_when_nobody_is_there():
    with pytest.raises(vs.Unavailable):
        vs.connect("127.0.0.1:1", wait=0.2)


def test_connect_gives_a_client_that_works(fake):
    fake.answers["ModelService/ListModels"] = lambda request, context: v1.ListModelsResponse()
    with vs.connect(fake.address) as client:
        assert client.models() == []


def test_the_token_and_a_request_id_travel(both, fake):
    fake.answers[GET_MODEL] = lambda request, context: MODEL
    both.run(lambda client: client.model("models/m"), token="secret")
    assert fake.metadata[0]["authorization"] == "Bearer secret"
    assert len(fake.metadata[0]["x-request-id"]) == 36


def test_gateways_are_told_which_model_a_call_is_about(both, fake):
    fake.answers[GET_MODEL] = lambda request, context: MODEL
    both.run(lambda client: client.model("models/m"))
    fake.answers["ModelService/ListModels"] = lambda request, context: v1.ListModelsResponse()
    both.run(lambda client: client.models())
    fake.answers["VectorService/ImportVectors"] = lambda request, context: (
        v1.ImportVectorsResponse()
    )
    both.run(lambda client: client.import_vectors("models/m", b"x"))
    fake.answers["GenerationService/StreamGenerate"] = lambda request, context: iter(())
    both.take(lambda client: client.stream("models/m", "x"))
    told = [metadata.get("x-valuescope-model") for metadata in fake.metadata]
    assert told == ["models/m", None, "models/m", "models/m"]


def test_a_name_that_metadata_cannot_hold_is_left_to_the_server(both, fake):
    fake.answers[GET_MODEL] = lambda request, context: MODEL
    for name in ("models/\n", "models/a b", "models/ü", "models/" + "a" * 2000):
        both.run(lambda client, name=name: client.model(name))
        assert "x-valuescope-model" not in fake.metadata[-1]
        assert fake.requests[GET_MODEL][-1].name == name


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (v1.GenerateRequest(), ""),
        (v1.GenerateRequest(model="models/a"), "models/a"),
        (v1.GetVectorRequest(name="vectors/a"), ""),
        (v1.ListVectorsRequest(model="models/a"), "models/a"),
        (v1.CreateJobRequest(), ""),
        (v1.CreateJobRequest(spec=v1.JobSpec(capture=v1.CaptureRequest(model="models/a"))), "models/a"),
        (
            v1.CreateJobRequest(spec=v1.JobSpec(judge_responses=v1.JudgeResponsesRequest(
                judge=v1.Judge(rubric=v1.RubricJudge(model="models/b"))))),
            "models/b",
        ),
        (v1.WriteArtifactRequest(header=v1.WriteArtifactHeader(display_name="a")), ""),
    ],
)  # fmt: skip
def test_the_model_of_a_request_is_found_wherever_it_names_one(request_, name):
    assert routed_model(request_) == name


def test_a_token_file_is_read_for_every_call(both, fake, tmp_path):
    fake.answers[GET_MODEL] = lambda request, context: MODEL
    file = tmp_path / "token"
    for token in ("first", "second"):
        file.write_text(f" {token}\n")
        both.run(lambda client: client.model("models/m"), token_file=file)
        assert fake.metadata[-1]["authorization"] == f"Bearer {token}"
    for content in ("\n", None):
        file.write_text(content) if content else file.unlink()
        with pytest.raises(ValueError, match="token file"):
            both.run(lambda client: client.model("models/m"), token_file=file)
    assert len(fake.metadata) == 2


def test_what_is_not_said_comes_from_the_environment(both, fake, tmp_path, monkeypatch):
    fake.answers[GET_MODEL] = lambda request, context: MODEL
    file = tmp_path / "token"
    file.write_text("of the file")
    for name, value, sent in [
        ("VALUESCOPE_TOKEN_FILE", str(file), "Bearer of the file"),
        ("VALUESCOPE_TOKEN", "plain", "Bearer plain"),
    ]:
        monkeypatch.setenv(name, value)
        both.run(lambda client: client.model("models/m"))
        assert fake.metadata[-1]["authorization"] == sent
        both.run(lambda client: client.model("models/m"), token="said")
        assert fake.metadata[-1]["authorization"] == "Bearer said"


def test_a_token_does_not_show_where_a_client_is_printed():
    with vs.Client("127.0.0.1:1", token="secret") as client:
        assert "secret" not in repr(client) + repr(client._api._bearer)


def test_tls_says_which_file_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"file of ca.*cannot be read"):
        vs.Client(tls=vs.Tls(ca=tmp_path / "none"))
    monkeypatch.setenv("VALUESCOPE_TLS_CA", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"file of ca.*cannot be read"):
        vs.Client()
    with pytest.raises(ValueError, match="both or neither"):
        vs.Tls(certificate="c.pem")


def test_every_page_is_read(both, fake):
    pages = {
        "": v1.ListModelsResponse(models=[v1.Model(name="a")], next_page_token="2"),
        "2": v1.ListModelsResponse(models=[v1.Model(name="b")]),
    }
    fake.answers["ModelService/ListModels"] = lambda request, context: pages[request.page_token]
    assert [m.name for m in both.run(lambda client: client.models())] == ["a", "b"]


def test_lists_have_ones_own_or_what_is_shared(both, fake):
    for name, response in (
        ("VectorService/ListVectors", v1.ListVectorsResponse()),
        ("NeuronService/ListNeuronSets", v1.ListNeuronSetsResponse()),
        ("ArtifactService/ListArtifacts", v1.ListArtifactsResponse()),
    ):
        fake.answers[name] = lambda request, context, response=response: response
        method = {"Vectors": "vectors", "NeuronSets": "neuron_sets", "Artifacts": "artifacts"}[
            name.split("List")[1]
        ]
        both.run(lambda client, method=method: getattr(client, method)())
        both.run(lambda client, method=method: getattr(client, method)(shared=True))
        assert [request.shared for request in fake.requests[name]] == [False, True]


def test_usage_is_asked_for_in_utc_and_becomes_rows(both, fake):
    hour = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.timezone.utc)
    usage = v1.TenantUsage(
        tenant="lab", calls=3, prompt_tokens=40, generated_tokens=5, job_seconds=1.5
    )
    usage.start_time.FromDatetime(hour)
    usage.end_time.FromDatetime(hour + datetime.timedelta(hours=1))
    fake.answers["TenantService/QueryUsage"] = lambda request, context: v1.QueryUsageResponse(
        usage=[usage]
    )
    zone = datetime.timezone(datetime.timedelta(hours=2))
    start = datetime.datetime(2026, 11, 29, 14, tzinfo=zone)
    told = both.run(lambda client: client.usage(tenant="*", start=start, by_hour=True))
    (request,) = fake.requests["TenantService/QueryUsage"]
    assert request.tenant == "*" and request.by_hour and not request.HasField("end_time")
    assert request.start_time.ToDatetime(datetime.timezone.utc) == hour
    assert told.records() == [
        {
            "tenant": "lab",
            "start": hour,
            "end": hour + datetime.timedelta(hours=1),
            "calls": 3,
            "prompt_tokens": 40,
            "generated_tokens": 5,
            "job_seconds": 1.5,
        }
    ]
    assert "<td" in told._repr_html_() and "2026-11-29 12:00" in told._repr_html_()


def test_a_call_that_a_server_took_back_as_it_ended_is_made_again(both, fake):
    def taken_back(then):
        left = [1]

        def answer(request, context):
            if left.pop() == 1:
                left.append(0)
                context.abort(grpc.StatusCode.CANCELLED, "")  # without a word of the server's own
            return then

        return answer

    fake.answers["ModelService/GetModel"] = taken_back(MODEL)
    both.run(lambda client: client.model("models/m"))
    assert fake.count("ModelService/GetModel") == 2
    fake.answers["TenantService/WithdrawResource"] = taken_back(v1.WithdrawResourceResponse())
    with pytest.raises(vs.Unavailable, match="ended before"):
        both.run(lambda client: client.withdraw("vectors/v"))


def test_publishing_is_repeated_and_withdrawing_is_not(both, fake):
    lost = failing(1, grpc.StatusCode.UNAVAILABLE, then=v1.PublishResourceResponse())
    fake.answers["TenantService/PublishResource"] = lost
    both.run(lambda client: client.publish("vectors/v"))
    assert fake.count("TenantService/PublishResource") == 2
    lost = failing(1, grpc.StatusCode.UNAVAILABLE, then=v1.WithdrawResourceResponse())
    fake.answers["TenantService/WithdrawResource"] = lost
    with pytest.raises(vs.Unavailable):
        both.run(lambda client: client.withdraw("vectors/v"))
    assert fake.count("TenantService/WithdrawResource") == 1


# --- Errors --------------------------------------------------------------------------------------------------------


def test_an_error_shows_all_that_the_server_said(both, fake):
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="sampling.top_p", description="must lie in (0, 1]")
    info = error_details_pb2.ErrorInfo(reason="OUT_OF_RANGE", metadata={"field": "sampling.top_p"})

    def answer(request, context):
        refuse(context, grpc.StatusCode.INVALID_ARGUMENT, info, bad, message="the request is wrong")

    fake.answers[GENERATE] = answer
    with pytest.raises(vs.InvalidRequest) as caught:
        both.run(lambda client: client.generate("models/m", "x", top_p=2.0))
    error = caught.value
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.reason == "OUT_OF_RANGE"
    assert error.metadata == {"field": "sampling.top_p"}
    assert error.violations == (vs.FieldViolation("sampling.top_p", "must lie in (0, 1]"),)
    assert error.retry_after is None
    assert error.request_id == fake.metadata[0]["x-request-id"]
    for part in ["the request is wrong", "OUT_OF_RANGE", "must lie in (0, 1]", error.request_id]:
        assert part in str(error)


def test_the_servers_request_id_comes_before_ours(both, fake):
    def answer(request, context):
        context.set_trailing_metadata([("x-request-id", "theirs")])
        context.abort(grpc.StatusCode.INTERNAL, "quote x-request-id")

    fake.answers[GET_MODEL] = answer
    with pytest.raises(vs.ServerFault) as caught:
        both.run(lambda client: client.model("models/m"))
    assert caught.value.request_id == "theirs"


def test_details_that_are_no_status_do_not_hide_the_error(both, fake):
    def answer(request, context):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\xff\xff\xff")])
        context.abort(grpc.StatusCode.NOT_FOUND, "models/none")

    fake.answers[GET_MODEL] = answer
    with pytest.raises(vs.NotFound, match="models/none"):
        both.run(lambda client: client.model("models/none"))


# --- Trying again --------------------------------------------------------------------------------------------------


def test_a_read_is_tried_again_while_the_server_is_away(both, fake):
    fake.answers[GET_MODEL] = failing(2, grpc.StatusCode.UNAVAILABLE)
    assert both.run(lambda client: client.model("models/m")).num_layers == 3
    assert fake.count(GET_MODEL) == 3


def test_the_attempts_are_bounded(both, fake):
    fake.answers[GET_MODEL] = failing(100, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(vs.Unavailable):
        both.run(lambda client: client.model("models/m"))
    assert fake.count(GET_MODEL) == PATIENT.attempts


def test_what_could_happen_twice_is_not_tried_again(both, fake):
    fake.answers["VectorService/DeleteVector"] = failing(1, grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(vs.Unavailable):
        both.run(lambda client: client.delete_vector("vectors/v"))
    assert fake.count("VectorService/DeleteVector") == 1


def test_a_request_id_makes_a_creation_safe_to_repeat(both, fake):
    created = v1.CreateVectorResponse(vector=v1.Vector(name="vectors/v"))
    fake.answers["VectorService/CreateVector"] = failing(
        2, grpc.StatusCode.UNAVAILABLE, then=created
    )
    made = both.run(lambda client: client.create_vector("models/m", [1.0, 2.0], layers=3))
    assert made.name == "vectors/v"
    ids = [request.request_id for request in fake.requests["VectorService/CreateVector"]]
    assert len(ids) == 3 and len(set(ids)) == 1


@pytest.mark.parametrize("way", ["RetryInfo", "pushback"])
def test_a_full_server_is_left_alone_for_as_long_as_it_asks(both, fake, way):
    details = [retry_info(0.3)] if way == "RetryInfo" else []
    pushback = None if details else "300"
    fake.answers[GET_MODEL] = failing(
        1, grpc.StatusCode.RESOURCE_EXHAUSTED, *details, pushback=pushback
    )
    started = time.monotonic()
    both.run(lambda client: client.model("models/m"))
    assert time.monotonic() - started >= 0.3
    assert fake.count(GET_MODEL) == 2


@pytest.mark.parametrize(
    ("details", "pushback"),
    [([], None), ([retry_info(0.01)], "-1"), ([retry_info(3600)], None)],
    ids=["never fits", "refused", "beyond patience"],
)
def test_a_full_server_that_gives_no_hope_is_not_asked_again(both, fake, details, pushback):
    fake.answers[GET_MODEL] = failing(
        1, grpc.StatusCode.RESOURCE_EXHAUSTED, *details, pushback=pushback
    )
    with pytest.raises(vs.Exhausted):
        both.run(lambda client: client.model("models/m"))
    assert fake.count(GET_MODEL) == 1


def test_waits_grow_and_stay_bounded():
    away = vs.Unavailable("away", grpc.StatusCode.UNAVAILABLE)
    retry = vs.Retry(attempts=20, first=0.1, longest=2.0)
    waits = [retry.delay(away, failures) for failures in range(1, 20)]
    assert all(0.05 * 2**i <= wait <= 0.1 * 2**i for i, wait in enumerate(waits[:4]))
    assert all(1.0 <= wait <= 2.0 for wait in waits[6:])
    assert retry.delay(away, 20) is None


def test_the_timeout_covers_the_call_and_its_repetitions(both, fake):
    fake.answers[GET_MODEL] = failing(100, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_info(0.2))
    started = time.monotonic()
    with pytest.raises((vs.Exhausted, vs.DeadlineExceeded)):
        both.run(lambda client: client.model("models/m"), timeout=0.5)
    assert time.monotonic() - started < 2
    assert fake.count(GET_MODEL) in (2, 3)


def test_a_slow_call_ends_at_its_timeout(both, fake):
    free = threading.Event()
    fake.answers[GET_MODEL] = lambda request, context: free.wait(20) and MODEL
    with pytest.raises(vs.DeadlineExceeded):
        both.run(lambda client: client.with_timeout(0.2).model("models/m"))
    free.set()


# --- Batches -------------------------------------------------------------------------------------------------------


def answer_text(request):
    return v1.GenerateResponse(completions=[v1.Completion(text=request.prompt.text)])


def test_scores_and_tokens_of_many_prompts_keep_their_order(both, fake):
    last_came = threading.Event()

    def score(request, context):
        first = request.prompt.token_ids.ids[0]
        if first == 3:
            last_came.set()
        assert last_came.wait(10)  # all are under way at once
        scores = [v1.ContinuationScore(sum=-first - len(c.text)) for c in request.continuations]
        return v1.ScoreResponse(scores=scores)

    def tokenize(request, context):
        return v1.TokenizeResponse(
            token_ids=[len(request.prompt.text)] * request.add_special_tokens
        )

    fake.answers["GenerationService/Score"] = score
    fake.answers["ModelService/Tokenize"] = tokenize
    pairs = [([1], ["a", "bb"]), ([2], "ccc"), ([3], ["d"])]
    scores = both.run(lambda client: client.score_all("models/m", pairs, top_logprobs=2))
    assert [one.sums.tolist() for one in scores] == [[-2, -3], [-5], [-4]]
    assert {r.top_logprobs for r in fake.requests["GenerationService/Score"]} == {2}
    (alone,) = both.run(lambda client: client.score("models/m", [2], "ccc"))
    assert alone.sum == -5
    texts = ["a", "bbb", "cc"]
    tokens = both.run(lambda client: client.tokenize_all("models/m", texts))
    assert [list(one.token_ids) for one in tokens] == [[1], [3], [2]]
    bare = both.run(lambda client: client.tokenize("models/m", "a", add_special_tokens=False))
    assert not bare.token_ids


def test_a_batch_keeps_its_order_and_its_bound(both, fake):
    lock, running, most = threading.Lock(), [0], [0]

    def answer(request, context):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        # The first of each eight takes longest, so answers arrive out of order.
        time.sleep(0.03 if int(request.prompt.text) % 8 == 0 else 0.005)
        with lock:
            running[0] -= 1
        return answer_text(request)

    fake.answers[GENERATE] = answer
    prompts = [str(index) for index in range(40)]
    results = both.run(lambda client: client.generate("models/m", prompts, in_flight=6))
    assert [g.text for g in results] == prompts
    assert 2 <= most[0] <= 6


def test_a_batch_without_room_for_a_call_is_refused(both, fake):
    for in_flight in (0, -1):
        with pytest.raises(ValueError, match="it must be at least 1"):
            both.run(lambda client, n=in_flight: client.generate("m", ["a"], in_flight=n))
    assert fake.count(GENERATE) == 0


def test_prompts_may_come_from_a_generator(both, fake):
    fake.answers[GENERATE] = lambda request, context: answer_text(request)
    results = both.run(lambda client: client.generate("models/m", (c for c in "abc")))
    assert [g.text for g in results] == ["a", "b", "c"]


def test_a_stop_string_is_one_and_not_its_characters(both, fake):
    seen = []

    def answer(request, context):
        seen.append(list(request.sampling.stop))
        return answer_text(request)

    fake.answers[GENERATE] = answer
    for stop in ("END", ["END", "."], ()):
        both.run(lambda client, s=stop: client.generate("models/m", "a", stop=s))
    both.run(lambda client: client.generate("models/m", "a"))
    assert seen == [["END"], ["END", "."], [], []]


def test_stop_tokens_are_one_id_or_several(both, fake):
    seen = []

    def answer(request, context):
        seen.append(list(request.sampling.stop_token_ids))
        return answer_text(request)

    fake.answers[GENERATE] = answer
    for ids in (7, np.int64(7), [7, 9], np.array([7, 9]), range(2)):
        both.run(lambda client, i=ids: client.generate("models/m", "a", stop_token_ids=i))
    assert seen == [[7], [7], [7, 9], [7, 9], [0, 1]]
    for wrong in ("7", 7.5, ["7"], [7.5]):
        with pytest.raises(TypeError):
            both.run(lambda client, w=wrong: client.generate("models/m", "a", stop_token_ids=w))


def test_an_empty_batch_asks_nobody(both, fake):
    assert both.run(lambda client: client.generate("models/m", [])) == []


def test_each_prompt_gets_its_own_seed_and_steering(both, fake):
    fake.answers[GENERATE] = lambda request, context: answer_text(request)
    steer = [[vs.Steer("vectors/a")], [], None]
    both.run(
        lambda client: client.generate("models/m", ["0", "1", "2"], seed=[5, 6, 7], steer=steer)
    )
    sent = sorted(fake.requests[GENERATE], key=lambda request: request.prompt.text)
    assert [request.sampling.seed for request in sent] == [5, 6, 7]
    assert [len(request.interventions) for request in sent] == [1, 0, 0]


def test_the_requests_of_a_list_are_made_when_they_are_sent(both, fake, monkeypatch):
    made, seen = [], []
    convert = vs.api.to_interventions

    def counted(steer):
        made.append(steer)
        return convert(steer)

    def answer(request, context):
        seen.append(len(made))
        return answer_text(request)

    monkeypatch.setattr(vs.api, "to_interventions", counted)
    fake.answers[GENERATE] = answer
    steers = [[vs.Steer([float(i), 0.0])] for i in range(20)]
    found = both.run(
        lambda client: client.generate("models/m", ["a"] * 20, steer=steers, in_flight=1)
    )
    assert len(found) == 20
    # Each is looked at before the first is sent, and made when it is sent.
    assert seen == [20 + i for i in range(1, 21)]
    sent = [vs.to_numpy(r.interventions[0].add.tensor)[0] for r in fake.requests[GENERATE]]
    assert sent == [float(i) for i in range(20)]


def test_bad_steering_of_the_last_prompt_is_said_before_the_first_runs(both, fake):
    fake.answers[GENERATE] = lambda request, context: answer_text(request)
    steers = [[vs.Steer("vectors/x")], [vs.Steer("vectors/x", tokens="everywhere")]]
    with pytest.raises(ValueError, match="everywhere"):
        both.run(lambda client: client.generate("models/m", ["a", "b"], steer=steers))
    assert fake.count(GENERATE) == 0


def test_a_long_request_is_the_servers_to_judge(both, fake):
    fake.answers[GENERATE] = lambda request, context: v1.GenerateResponse(
        completions=[v1.Completion(text=str(len(request.prompt.text)))]
    )
    answer = both.run(lambda client: client.generate("models/m", "x" * (20 << 20)))
    assert answer.text == str(20 << 20)


def test_lists_are_filtered_and_jobs_have_a_priority(both, fake):
    fake.answers["JobService/ListJobs"] = lambda request, context: v1.ListJobsResponse()
    fake.answers["ArtifactService/ListArtifacts"] = lambda request, context: (
        v1.ListArtifactsResponse()
    )
    fake.answers["JobService/CreateJob"] = lambda request, context: v1.CreateJobResponse()
    both.run(lambda client: client.jobs(state="failed", kind="attribute_neurons"))
    both.run(lambda client: client.artifacts(job="jobs/j"))
    both.run(lambda client: client.create_job(v1.JobSpec(), priority=-3))
    listed = fake.requests["JobService/ListJobs"][0]
    assert (listed.state, listed.kind) == (v1.JOB_STATE_FAILED, "attribute_neurons")
    assert fake.requests["ArtifactService/ListArtifacts"][0].job == "jobs/j"
    assert fake.requests["JobService/CreateJob"][0].priority == -3
    with pytest.raises(ValueError, match="queued, running"):
        both.run(lambda client: client.jobs(state="waiting"))


def test_one_name_is_not_a_list_of_letters(both, fake):
    fake.answers["VectorService/CompareVectors"] = lambda request, context: (
        v1.CompareVectorsResponse()
    )
    both.run(lambda client: client.compare_vectors("vectors/a"))
    assert list(fake.requests["VectorService/CompareVectors"][0].vectors) == ["vectors/a"]
    with pytest.raises(TypeError, match=r"data is a string: write data\.encode"):
        both.run(lambda client: client.write_artifact("text"))


def test_a_list_of_another_length_is_refused_here(both):
    with pytest.raises(ValueError, match="2 prompts, 3 seeds"):
        both.run(lambda client: client.generate("models/m", ["a", "b"], seed=[1, 2, 3]))


def test_the_first_failure_of_a_batch_cancels_the_rest(both, fake):
    free, cancelled, started = threading.Event(), threading.Event(), threading.Event()

    def answer(request, context):
        if request.prompt.text == "bad":
            started.wait(10)
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT)
        context.add_callback(lambda: context.is_active() or cancelled.set())
        started.set()
        free.wait(20)
        return answer_text(request)

    fake.answers[GENERATE] = answer
    with pytest.raises(vs.InvalidRequest, match="item of the list: 1") as raised:
        both.run(lambda client: client.generate("models/m", ["slow", "bad"]))
    assert raised.value.index == 1
    assert cancelled.wait(10)
    free.set()


def test_a_batch_may_keep_its_errors(both, fake):
    def answer(request, context):
        if request.prompt.text == "bad":
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT)
        return answer_text(request)

    fake.answers[GENERATE] = answer
    results = both.run(
        lambda client: client.generate("models/m", ["a", "bad", "c"], on_error="return")
    )
    assert [results[0].text, results[2].text] == ["a", "c"]
    assert isinstance(results[1], vs.InvalidRequest)


def test_a_batch_outlasts_a_full_queue(both, fake):
    lock, running = threading.Lock(), [0]

    def answer(request, context):
        with lock:
            running[0] += 1
            full = running[0] > 3
        try:
            if full:
                refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_info(0.02))
            time.sleep(0.01)
            return answer_text(request)
        finally:
            with lock:
                running[0] -= 1

    fake.answers[GENERATE] = answer
    prompts = [str(index) for index in range(30)]
    results = both.run(lambda client: client.generate("models/m", prompts, in_flight=8))
    assert [g.text for g in results] == prompts
    assert fake.count(GENERATE) > 30


def test_a_bar_counts_the_prompts(both, fake, capsys):
    fake.answers[GENERATE] = lambda request, context: answer_text(request)
    both.run(lambda client: client.generate("models/m", ["a", "b"], progress="answers"))
    shown = capsys.readouterr().err
    assert "answers" in shown and "2/2" in shown


# --- Cancellation --------------------------------------------------------------------------------------------------


class Slow:
    """An answer that waits until its call ends, and tells."""

    def __init__(self):
        self.started, self.ended = threading.Event(), threading.Event()
        self.cut_off = True

    def __call__(self, request, context):
        context.add_callback(self.ended.set)
        self.started.set()
        self.cut_off = self.ended.wait(20)
        return v1.GenerateResponse()


def test_cancelling_a_task_cancels_the_call(fake):
    slow = fake.answers[GENERATE] = Slow()

    async def main():
        async with vs.AsyncClient(fake.address) as client:
            task = asyncio.create_task(client.generate("models/m", "x"))
            await asyncio.to_thread(slow.started.wait, 10)
            assert not slow.ended.is_set()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(slow.ended.wait, 10)

    asyncio.run(main())
    assert slow.cut_off


@pytest.fixture
def interruptible():
    """SIGINT as a program in the foreground has it: one that a shell put in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_cancels_the_call(interruptible, fake):
    slow = fake.answers[GENERATE] = Slow()

    def interrupt():
        slow.started.wait(10)
        main = threading.main_thread().ident
        await_true(lambda: sys._current_frames()[main].f_code.co_name == "get")
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with vs.Client(fake.address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.generate("models/m", "x")
        assert slow.ended.wait(10)
        assert slow.cut_off


def test_closing_the_client_ends_its_calls(fake):
    slow = fake.answers[GENERATE] = Slow()

    async def main():
        client = vs.AsyncClient(fake.address)
        task = asyncio.create_task(client.generate("models/m", "x"))
        await asyncio.to_thread(slow.started.wait, 10)
        await client.close()
        with pytest.raises(vs.Cancelled):
            await task

    asyncio.run(main())


def test_closing_a_blocking_client_ends_its_calls(fake):
    slow = fake.answers[GENERATE] = Slow()
    client = vs.Client(fake.address)
    failures = []

    def call():
        try:
            client.generate("models/m", "x")
        except vs.ValuescopeError as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert slow.started.wait(10)
    client.close()
    thread.join(10)
    assert isinstance(failures[0], vs.Cancelled)


def test_leaving_a_stream_stops_it_on_the_server(both, fake):
    ended = threading.Event()

    def answer(request, context):
        context.add_callback(ended.set)
        while context.is_active():
            yield v1.StreamGenerateResponse(delta=v1.CompletionDelta(text="x"))
            time.sleep(0.001)

    fake.answers["GenerationService/StreamGenerate"] = answer
    taken = both.take(lambda client: client.stream("models/m", "x", max_tokens=9), 3)
    assert [event.delta.text for event in taken] == ["x"] * 3
    assert ended.wait(10)


# --- Streams -------------------------------------------------------------------------------------------------------


def test_a_stream_is_tried_again_only_before_it_began(both, fake):
    times = [0]

    def answer(request, context):
        times[0] += 1
        if times[0] == 1:
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        yield v1.StreamGenerateResponse(delta=v1.CompletionDelta(text="x"))
        refuse(context, grpc.StatusCode.UNAVAILABLE)

    fake.answers["GenerationService/StreamGenerate"] = answer
    with pytest.raises(vs.Unavailable):
        both.take(lambda client: client.stream("models/m", "x"))
    assert times[0] == 2


def job(done, state=v1.JOB_STATE_RUNNING, **fields):
    progress = v1.JobProgress(done=done, total=4, unit="responses")
    return v1.WatchJobResponse(job=v1.Job(name="jobs/j", state=state, progress=progress, **fields))


def test_watching_goes_on_after_a_lost_connection(both, fake):
    def answer(request, context):
        if fake.count("JobService/WatchJob") == 1:
            yield job(1)
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        yield job(2)
        yield job(4, v1.JOB_STATE_SUCCEEDED)

    fake.answers["JobService/WatchJob"] = answer
    states = both.take(lambda client: client.watch_job("jobs/j"))
    assert [state.progress.done for state in states] == [1, 2, 4]


def test_watching_goes_on_behind_what_was_seen(both, fake):
    """Over two lost connections and a server that is away: each call names the last revision that arrived."""

    def change(revision, done, state=v1.JOB_STATE_RUNNING):
        response = job(done, state, revision=revision)
        response.transitions.add(revision=revision, state=state)
        return response

    def answer(request, context):
        if request.last_revision == 0:
            yield change(3, 1)
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        if fake.count("JobService/WatchJob") < 5:
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        if request.last_revision == 3:
            yield change(7, 2)
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        yield change(9, 4, v1.JOB_STATE_SUCCEEDED)

    fake.answers["JobService/WatchJob"] = answer
    lost = []
    changes = both.take(lambda client: client.follow_job("jobs/j", on_lost=lost.append))
    assert [change.job.revision for change in changes] == [3, 7, 9]
    assert [request.last_revision for request in fake.requests["JobService/WatchJob"]] == [
        0,
        3,
        3,
        3,
        3,
        7,
    ]
    assert [type(error) for error in lost] == [vs.Unavailable] * 2
    fake.requests.clear()
    (last,) = both.take(lambda client: client.follow_job("jobs/j", last_revision=7))
    assert last.transitions[0].state == v1.JOB_STATE_SUCCEEDED


def test_a_quiet_job_is_watched_for_as_long_as_it_takes(both, fake, monkeypatch):
    monkeypatch.setattr(vs.rpcs, "WATCH_JOB", dataclasses.replace(vs.rpcs.WATCH_JOB, timeout=0.2))

    def answer(request, context):
        if request.last_revision == 0:
            yield job(1, revision=5)
        if fake.count("JobService/WatchJob") < 4:
            while context.is_active():  # nothing changes
                time.sleep(0.01)
            return
        yield job(4, v1.JOB_STATE_SUCCEEDED, revision=6)

    fake.answers["JobService/WatchJob"] = answer
    states = both.take(lambda client: client.watch_job("jobs/j"))
    assert [state.progress.done for state in states] == [1, 4]
    assert fake.count("JobService/WatchJob") == 4


def test_a_handle_waits_says_that_the_server_is_away_and_reads_the_result(both, fake, capsys):
    pandas = pytest.importorskip("pandas")

    def answer(request, context):
        if request.last_revision == 0:
            yield job(1, revision=2)
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        yield job(4, v1.JOB_STATE_SUCCEEDED, revision=3)

    summary = json.dumps({"points": [{"size": 8, "target": 0.5}, {"size": 64, "p_value": 0.25}]})
    fake.answers["JobService/WatchJob"] = answer
    done = v1.Job(name="jobs/j", kind="test_neurons", state=v1.JOB_STATE_SUCCEEDED)
    done.result.artifacts.add(role="summary", artifact="artifacts/a")
    fake.answers["JobService/GetJob"] = lambda request, context: v1.GetJobResponse(job=done)
    artifact_server(fake, summary.encode())

    def wait_and_read(client):
        handle = client.job_handle(v1.Job(name="jobs/j"))

        async def asynchronous():
            assert (await handle.wait(progress="j")).name == "jobs/j"
            return await handle.result()

        if both.kind == "blocking":
            assert handle.wait(progress="j").name == "jobs/j"
            return handle.result()
        return asynchronous()

    result = both.run(wait_and_read)
    assert "the server is away" in capsys.readouterr().err
    assert result.summary["points"][0]["target"] == 0.5
    table = result["summary"]
    assert table["size"].tolist() == [8, 64]
    assert pandas.api.types.is_integer_dtype(table["size"])
    assert table["target"].tolist() == [0.5, 0.0]
    assert table["p_value"].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="has summary, not scores"):
        both.run(lambda client: client.job_result("jobs/j", roles=["scores"]))
    done.state = v1.JOB_STATE_RUNNING
    with pytest.raises(RuntimeError, match="not finished"):
        both.run(lambda client: client.job_result("jobs/j"))


def test_jobs_are_listed_by_what_they_are(both, fake):
    import datetime

    fake.answers["JobService/ListJobs"] = lambda request, context: v1.ListJobsResponse()
    since = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.timezone.utc)
    both.run(
        lambda client: client.jobs(
            state=["failed", "cancelled"],
            kind="k",
            model="models/m",
            display_name="n",
            created_after=since,
        )
    )
    (request,) = fake.requests["JobService/ListJobs"]
    assert list(request.states) == [v1.JOB_STATE_FAILED, v1.JOB_STATE_CANCELLED]
    assert request.created_after.ToDatetime() == since.replace(tzinfo=None)
    assert not request.HasField("created_before")
    with pytest.raises(ValueError, match="choose one of queued"):
        both.run(lambda client: client.jobs(state="waiting"))


def test_a_job_may_take_longer_than_the_clients_timeout(both, fake, capsys):
    def answer(request, context):
        yield job(1)
        time.sleep(0.4)
        yield job(4, v1.JOB_STATE_SUCCEEDED)

    fake.answers["JobService/WatchJob"] = answer
    fake.answers["JobService/GetJob"] = lambda request, context: v1.GetJobResponse(
        job=v1.Job(name="jobs/j")
    )
    done = both.run(lambda client: client.wait_for_job("jobs/j", progress=True), timeout=0.2)
    assert done.name == "jobs/j"
    shown = capsys.readouterr().err
    assert "jobs/j" in shown and "4/4" in shown
    with pytest.raises(vs.DeadlineExceeded):
        both.run(lambda client: client.wait_for_job("jobs/j", timeout=0.1))


def test_a_watcher_calls_again_where_it_hears_nothing_for_long(both, fake, monkeypatch):
    monkeypatch.setattr(vs.rpcs, "WATCH_JOB", dataclasses.replace(vs.rpcs.WATCH_JOB, timeout=0.3))

    def answer(request, context):
        yield job(1)
        if fake.count("JobService/WatchJob") == 1:
            while context.is_active():  # a connection that lost its other end
                time.sleep(0.01)
        yield job(4, v1.JOB_STATE_SUCCEEDED)

    fake.answers["JobService/WatchJob"] = answer
    states = both.take(lambda client: client.watch_job("jobs/j"))
    assert [state.progress.done for state in states] == [1, 4]
    assert fake.count("JobService/WatchJob") == 2


def test_heartbeats_are_skipped(both, fake):
    beat = v1.Heartbeat()

    def watch(request, context):
        yield job(1)
        yield v1.WatchJobResponse(job=job(1).job, heartbeat=beat)
        yield job(4, v1.JOB_STATE_SUCCEEDED)

    def stream(request, context):
        yield v1.StreamGenerateResponse(heartbeat=beat)
        yield v1.StreamGenerateResponse(delta=v1.CompletionDelta(text="sea"))
        yield v1.StreamGenerateResponse(heartbeat=beat)

    def capture(request, context):
        yield v1.CaptureResponse(heartbeat=beat)
        yield v1.CaptureResponse(receipts=v1.InputReceipts(input_index=0, prompt_tokens=2))

    fake.answers["JobService/WatchJob"] = watch
    fake.answers["GenerationService/StreamGenerate"] = stream
    fake.answers["ActivationService/Capture"] = capture
    states = both.take(lambda client: client.watch_job("jobs/j"))
    assert [state.progress.done for state in states] == [1, 4]
    events = both.take(lambda client: client.stream("models/m", "x"))
    assert [event.WhichOneof("event") for event in events] == ["delta"]
    assert len(both.run(lambda client: client.capture("models/m", ["x"], [vs.tap()]))) == 1


def test_a_stream_that_only_sent_a_heartbeat_is_opened_again(both, fake):
    def answer(request, context):
        yield v1.StreamGenerateResponse(heartbeat=v1.Heartbeat())
        if fake.count("GenerationService/StreamGenerate") == 1:
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        yield v1.StreamGenerateResponse(summary=v1.GenerationSummary())

    fake.answers["GenerationService/StreamGenerate"] = answer
    events = both.take(lambda client: client.stream("models/m", "x"))
    assert [event.WhichOneof("event") for event in events] == ["summary"]
    assert fake.count("GenerationService/StreamGenerate") == 2


def test_every_call_ends_sometime_unless_it_is_asked_not_to(both, fake):
    left = []

    def answering(response):
        def answer(request, context):
            left.append(context.time_remaining())
            return response

        return answer

    fake.answers[GET_MODEL] = answering(MODEL)
    fake.answers[GENERATE] = answering(v1.GenerateResponse(completions=[v1.Completion()]))
    fake.answers["GenerationService/StreamGenerate"] = answering(iter([]))
    both.run(lambda client: client.model("models/m"), timeout=None)
    both.run(lambda client: client.generate("models/m", "x"), timeout=None)
    both.take(lambda client: client.stream("models/m", "x"), timeout=None)
    # On the wire timeouts are rounded up.
    assert 60 < left[0] <= 130
    assert 600 < left[1] <= 3700
    assert 3700 < left[2] <= 25 * 3600
    both.run(lambda client: client.model("models/m"), timeout=float("inf"))
    assert left[3] is None or left[3] > 1e6


def test_waiting_for_a_server_gives_up_a_call_that_hangs(both, fake, monkeypatch):
    monkeypatch.setattr(vs.api, "_PROBE", 0.2)

    def answer(request, context):
        if fake.count(GET_MODEL) == 1:
            while context.is_active():
                time.sleep(0.01)
        return v1.GetModelResponse(model=v1.Model(state=v1.MODEL_STATE_READY))

    fake.answers[GET_MODEL] = answer
    both.run(lambda client: client.wait_until_ready("models/m", timeout=20))
    assert fake.count(GET_MODEL) == 2


def test_a_failed_job_raises_with_its_reason(both, fake):
    error = v1.JobError(code=9, reason="MODEL_NOT_READY", message="the model was unloaded")
    fake.answers["JobService/WatchJob"] = lambda request, context: iter(
        [job(1, v1.JOB_STATE_FAILED, error=error)]
    )
    with pytest.raises(vs.JobFailed, match="jobs/j failed: the model was unloaded") as caught:
        both.run(lambda client: client.wait_for_job("jobs/j"))
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.reason == "MODEL_NOT_READY"
    assert isinstance(caught.value, RuntimeError)


def artifact_server(fake, content, *, damage=False, break_at=None):
    artifact = v1.Artifact(
        name="artifacts/a", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )

    def read(request, context):
        for offset in range(request.offset, len(content), 10):
            if break_at is not None and offset == break_at and request.offset == 0:
                refuse(context, grpc.StatusCode.UNAVAILABLE)
            data = content[offset : offset + 10]
            chunk = v1.ArtifactChunk(offset=offset, data=data, crc32c=crc32c(data) ^ damage)
            yield v1.ReadArtifactResponse(chunk=chunk)

    fake.answers["ArtifactService/GetArtifact"] = lambda request, context: v1.GetArtifactResponse(
        artifact=artifact
    )
    fake.answers["ArtifactService/ReadArtifact"] = read


def test_a_read_goes_on_where_it_broke_off(both, fake):
    content = bytes(range(95))
    artifact_server(fake, content, break_at=40)
    assert both.run(lambda client: client.read_artifact("artifacts/a")) == content
    assert [r.offset for r in fake.requests["ArtifactService/ReadArtifact"]] == [0, 40]


def test_damaged_bytes_are_refused(both, fake):
    artifact_server(fake, bytes(30), damage=True)
    with pytest.raises(vs.Damaged, match="damaged") as caught:
        both.run(lambda client: client.read_artifact("artifacts/a"))
    assert isinstance(caught.value, OSError)


def test_a_table_goes_on_where_it_broke_off_and_has_an_end(both, fake):
    content = bytes(range(95))
    whole = v1.TableEnd(rows=3, size_bytes=95, sha256=hashlib.sha256(content).hexdigest())

    def read(request, context):
        for offset in range(request.offset, len(content), 10):
            if offset == 40 and request.offset == 0:
                refuse(context, grpc.StatusCode.UNAVAILABLE)
            data = content[offset : offset + 10]
            chunk = v1.ArtifactChunk(offset=offset, data=data, crc32c=crc32c(data))
            yield v1.ReadTableResponse(chunk=chunk)
        if request.artifact == "artifacts/whole":
            yield v1.ReadTableResponse(end=whole)

    fake.answers["ArtifactService/ReadTable"] = read
    table = both.run(lambda client: client.read_table("artifacts/whole", lines="response_pair"))
    assert (table.data, table.num_rows) == (content, 3)
    first, second = fake.requests["ArtifactService/ReadTable"]
    assert (first.offset, second.offset) == (0, 40)
    assert second.line_type == v1.LINE_TYPE_RESPONSE_PAIR
    with pytest.raises(vs.Damaged):
        both.run(lambda client: client.read_table("artifacts/cut"))


def test_an_upload_starts_again_from_its_header(both, fake):
    name = "ArtifactService/WriteArtifact"
    written = v1.WriteArtifactResponse(artifact=v1.Artifact(name="artifacts/a"))
    fake.answers[name] = failing(1, grpc.StatusCode.UNAVAILABLE, then=written)
    content = bytes(range(256)) * 8192  # two chunks
    assert both.run(lambda client: client.write_artifact(content)).name == "artifacts/a"
    first, second = fake.requests[name]
    assert first == second
    assert b"".join(part.chunk.data for part in second) == content


def test_a_file_of_vectors_comes_whole_or_not_at_all(both, fake):
    content = bytes(range(50))

    def answer(request, context):
        end = 50 if request.vectors[0] == "vectors/whole" else 40
        for offset in range(0, end, 10):
            data = content[offset : offset + 10]
            yield v1.ExportVectorsResponse(
                offset=offset, data=data, crc32c=crc32c(data), total_bytes=50
            )

    fake.answers["VectorService/ExportVectors"] = answer
    assert both.run(lambda client: client.export_vectors(["vectors/whole"])) == content
    with pytest.raises(vs.Damaged, match="40 of"):
        both.run(lambda client: client.export_vectors(["vectors/cut"]))


def test_a_file_of_vectors_is_announced_by_its_digest(both, fake, tmp_path):
    name = "VectorService/ImportVectors"
    fake.answers[name] = lambda request, context: v1.ImportVectorsResponse(
        vectors=[v1.Vector(name="vectors/v")]
    )
    file = tmp_path / "vectors.gguf"
    file.write_bytes(b"GGUF")
    how = {"file_format": "gguf", "convention": "repeng"}
    made = both.run(lambda client: client.import_vectors("models/m", file, **how))
    assert [vector.name for vector in made] == ["vectors/v"]
    header, data = fake.requests[name][0]
    assert header.header.format == v1.VECTOR_FORMAT_GGUF and data.data == b"GGUF"
    assert header.header.convention == v1.GGUF_CONVENTION_REPENG
    assert header.header.sha256 == hashlib.sha256(b"GGUF").hexdigest()


def test_a_capture_tells_its_inputs_apart(both, fake):
    def answer(request, context):
        for index, one in enumerate(request.inputs):
            receipts = v1.InputReceipts(input_index=index, prompt_tokens=2)
            yield v1.CaptureResponse(receipts=receipts)
            tensor = vs.from_numpy([[[float(one.prompt.text)]] * 1])
            yield v1.CaptureResponse(
                chunk=v1.CaptureChunk(
                    input_index=index, layers=[3], positions=[0, 1], tensor=tensor
                )
            )

    fake.answers["ActivationService/Capture"] = answer
    found = both.run(
        lambda client: client.capture("models/m", ["7", "8"], [vs.tap(reduction="mean")])
    )
    assert [float(one[0][0, 0, 0]) for one in found] == [7.0, 8.0]
    assert found[1].num_prompt_tokens == 2 and found[1].positions[0] == [0, 1]


def test_calls_of_one_loop_run_at_once(fake):
    meeting = threading.Barrier(3, timeout=10)

    def answer(request, context):
        meeting.wait()
        return MODEL

    fake.answers[GET_MODEL] = answer

    async def main():
        async with vs.AsyncClient(fake.address) as client:
            return await asyncio.gather(*(client.model("models/m") for _ in range(3)))

    assert len(asyncio.run(main())) == 3


def test_nothing_is_left_waiting_when_a_batch_is_done(fake):
    fake.answers[GENERATE] = lambda request, context: answer_text(request)

    async def main():
        async with vs.AsyncClient(fake.address) as client:
            await client.generate("models/m", ["a"] * 10)
            await asyncio.sleep(0)
            return [t for t in asyncio.all_tasks() if "finish" in repr(t)]

    assert asyncio.run(main()) == []
    await_true(lambda: fake.count(GENERATE) == 10)
