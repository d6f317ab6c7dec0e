"""What clients may not do to a server: hold its memory, break its lists, take away what jobs need; and what it does then."""

import itertools
import json
import re
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, CACHE, MODEL, await_true
from valuescope import v1
from valuescope.v1 import (
    activations_pb2_grpc,
    artifacts_pb2_grpc,
    generation_pb2_grpc,
    models_pb2_grpc,
)

MIB = 1 << 20


@pytest.fixture
def channel(server, client):
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def metric(server, name):
    pattern = rf"^{re.escape(name)} (\S+)$"
    match = re.search(pattern, server.metrics(), re.MULTILINE)
    return float(match[1]) if match else 0.0


def totals(server):
    """Every counter that the scrape reads, by name and labels."""
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
        for line in server.metrics().splitlines()
        if re.match(r"valuescope_\w+_total\b", line)
    }


def grown(before, after, name):
    return after[name] - before[name]


TOKENS = 128
SITES = {
    v1.SITE_RESIDUAL_MID: 576,
    v1.SITE_RESIDUAL_POST: 576,
    v1.SITE_ATTENTION_OUTPUT: 576,
    v1.SITE_MLP_OUTPUT: 576,
    v1.SITE_MLP_NEURONS: 1536,
}
INPUT_BYTES = 30 * TOKENS * sum(SITES.values()) * 4  # 56 MiB


def large_capture(inputs):
    prompt = v1.Prompt(token_ids=v1.TokenIds(ids=[400] * TOKENS))
    return v1.CaptureRequest(
        model=MODEL,
        inputs=[v1.CaptureInput(prompt=prompt)] * inputs,
        taps=[
            v1.Tap(
                site=site,
                layers=v1.Layers(all=True),
                tokens=v1.TokenSelection(kind=v1.TOKEN_KIND_ALL),
            )
            for site in SITES
        ],
    )


def resident(server):
    text = open(f"/proc/{server._process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


def test_captures_that_nobody_reads_are_bounded_and_given_back(server, channel, client):
    stub = activations_pb2_grpc.ActivationServiceStub(channel)
    client.generate(MODEL, "warm", max_tokens=1, temperature=0)
    before = resident(server)
    held = 'valuescope_device_memory_bytes{kind="captures"}'
    # Each would hold eight results at once, as captured and as copied: together 3.5 GiB.
    streams = [stub.Capture(large_capture(12)) for _ in range(4)]
    await_true(lambda: metric(server, held) > 700 * MIB)
    assert metric(server, held) <= 1024 * MIB
    assert resident(server) - before < 1600 * MIB
    # Others go on.
    assert client.generate(MODEL, "The sea is", max_tokens=2, temperature=0).text
    for stream in streams:
        stream.cancel()
    await_true(lambda: metric(server, held) == 0)


def test_captures_that_are_read_leave_nothing_behind(server, channel):
    stub = activations_pb2_grpc.ActivationServiceStub(channel)

    def read():
        return sum(len(part.chunk.tensor.data) for part in stub.Capture(large_capture(4)))

    assert read() == 4 * INPUT_BYTES
    first = resident(server)
    for _ in range(4):
        read()
    # Four times 225 MiB went through.
    assert resident(server) - first < 300 * MIB
    assert metric(server, 'valuescope_device_memory_bytes{kind="captures"}') == 0


def test_a_capture_too_large_for_one_message_is_refused_before_it_runs(channel):
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    tap = v1.Tap(site=v1.SITE_LOGITS, tokens=v1.TokenSelection(kind=v1.TOKEN_KIND_ALL))
    request = v1.GenerateRequest(
        model=MODEL,
        prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[400] * 2000)),
        sampling=v1.SamplingParams(max_tokens=200, ignore_eos=True),
        taps=[tap],
    )
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        stub.Generate(request)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "StreamGenerate" in error.value.details()
    assert time.monotonic() - started < 2  # the prompt alone takes longer


def test_steering_beyond_what_numbers_hold_is_an_error(client):
    huge = np.full(576, 3e38, np.float32)
    with pytest.raises(vs.ValuescopeError, match="finite"):
        client.generate(
            MODEL,
            "The sea is",
            max_tokens=3,
            steer=[vs.Steer(huge, layers=5), vs.Steer(huge, layers=5)],
        )


def test_unknown_enum_values_and_page_tokens_are_named(channel):
    capture = activations_pb2_grpc.ActivationServiceStub(channel)
    request = large_capture(1)
    request.taps[0].dtype = 999
    with pytest.raises(grpc.RpcError) as error:
        list(capture.Capture(request))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "taps[0].dtype" in error.value.details()
    models = models_pb2_grpc.ModelServiceStub(channel)
    for token in ("AAAA", "x" * 100_000, "!"):
        with pytest.raises(grpc.RpcError) as error:
            models.ListModels(v1.ListModelsRequest(page_token=token))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_media_type_cannot_grow_the_list_of_artifacts(channel):
    stub = artifacts_pb2_grpc.ArtifactServiceStub(channel)
    header = v1.WriteArtifactHeader(size_bytes=0, sha256="0" * 64, media_type="x" * 128)
    with pytest.raises(grpc.RpcError) as error:
        stub.WriteArtifact(iter([v1.WriteArtifactRequest(header=header)]))
    assert "header.media_type" in error.value.details()


def test_an_overlong_continuation_is_named_and_not_its_prompt(channel):
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    long = v1.Response(token_ids=v1.TokenIds(ids=[400] * 8200))
    short = v1.Response(token_ids=v1.TokenIds(ids=[400]))
    with pytest.raises(grpc.RpcError) as error:
        stub.Score(
            v1.ScoreRequest(
                model=MODEL, prompt=v1.Prompt(text="The sea is"), continuations=[short, long]
            )
        )
    assert "`continuations[1]`" in error.value.details()
    assert "8189" in error.value.details() or "at most" in error.value.details()


def test_a_text_that_cannot_fit_the_context_is_refused_before_it_is_tokenised(channel):
    """Tokenising it would take a second a megabyte, and nobody could stop that."""
    text = "the sea is calm " * (3 * MIB // 16)
    calls = {
        "prompt.text": lambda stubs: stubs[0].Generate(
            v1.GenerateRequest(model=MODEL, prompt=v1.Prompt(text=text))
        ),
        "prompt.chat.messages": lambda stubs: stubs[0].Generate(
            v1.GenerateRequest(
                model=MODEL,
                prompt=v1.Prompt(chat=v1.Chat(messages=[v1.Message(role="user", content=text)])),
            )
        ),
        "continuations[0].text": lambda stubs: stubs[0].Score(
            v1.ScoreRequest(
                model=MODEL, prompt=v1.Prompt(text="The"), continuations=[v1.Response(text=text)]
            )
        ),
        "inputs[0].prompt.text": lambda stubs: list(
            stubs[1].Capture(
                v1.CaptureRequest(
                    model=MODEL,
                    inputs=[v1.CaptureInput(prompt=v1.Prompt(text=text))] * 15,
                    taps=[v1.Tap(site=v1.SITE_RESIDUAL_POST)],
                )
            )
        ),
    }
    stubs = (
        generation_pb2_grpc.GenerationServiceStub(channel),
        activations_pb2_grpc.ActivationServiceStub(channel),
    )
    for field, call in calls.items():
        with pytest.raises(grpc.RpcError) as error:
            call(stubs)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"`{field}`: has " in error.value.details(), error.value.details()
        assert "allowed are at most 8192" in error.value.details()


def test_a_bad_input_is_refused_before_any_other_runs(server, channel):
    stub = activations_pb2_grpc.ActivationServiceStub(channel)
    good = v1.CaptureInput(
        prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[400] * 30)),
        response=v1.Response(token_ids=v1.TokenIds(ids=[401] * 30)),
    )
    response = v1.Tap(tokens=v1.TokenSelection(kind=v1.TOKEN_KIND_RESPONSE))
    for says, bad in {
        "inputs[50].prompt": v1.CaptureInput(
            prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[400] * 8193))
        ),
        "inputs[50].response": v1.CaptureInput(
            prompt=good.prompt, response=v1.Response(token_ids=v1.TokenIds(ids=[400] * 8192))
        ),
        "(for `inputs[50]`)": v1.CaptureInput(prompt=good.prompt),
    }.items():
        request = v1.CaptureRequest(model=MODEL, inputs=[good] * 50 + [bad], taps=[response])
        before = metric(server, "valuescope_prompt_tokens_total")
        received = []
        with pytest.raises(grpc.RpcError) as error:
            received.extend(stub.Capture(request))
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert says in error.value.details()
        assert not received
        assert metric(server, "valuescope_prompt_tokens_total") == before


def test_the_data_set_of_a_job_stays_until_the_job_is_done(client, channel):
    vector = client.create_vector(
        MODEL, np.random.default_rng(5).standard_normal((30, 576)), layers=range(30)
    )
    responses = [
        vs.labelled(vs.chat("Hello?", system=""), [400 + i] * 24, bool(i % 2), f"q{i // 2}")
        for i in range(64)
    ]
    artifact = client.write_artifact(responses)
    spec = v1.JobSpec(attribute_neurons=vs.attribution_request(MODEL, artifact.name, vector.name))
    job = client.create_job(spec)
    artifacts = artifacts_pb2_grpc.ArtifactServiceStub(channel)
    with pytest.raises(grpc.RpcError) as error:
        artifacts.DeleteArtifact(v1.DeleteArtifactRequest(name=artifact.name))
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    client.cancel_job(job.name)
    await_true(lambda: client.job(job.name).state == v1.JOB_STATE_CANCELLED)
    artifacts.DeleteArtifact(v1.DeleteArtifactRequest(name=artifact.name))


def test_a_model_is_unloaded_and_loaded_again(start_server):
    server = start_server()
    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        models = models_pb2_grpc.ModelServiceStub(channel)
        loaded = models.GetModel(v1.GetModelRequest(name=MODEL)).model
        assert loaded.num_parameters == 134_515_008
        assert loaded.weight_bytes == 4 * loaded.num_parameters
        assert loaded.load_time.seconds > 1_700_000_000
        before = client.generate(MODEL, "The sea is", max_tokens=8, temperature=0).token_ids
        running = threading.Thread(
            target=client.generate, args=(MODEL, "Once"), kwargs={"max_tokens": 40}
        )
        running.start()
        await_true(lambda: metric(server, "valuescope_requests_running") > 0)
        unloaded = models.UnloadModel(v1.UnloadModelRequest(name=MODEL)).model
        assert unloaded.state == v1.MODEL_STATE_AVAILABLE
        running.join()
        with pytest.raises(vs.ValuescopeError, match="not loaded"):
            client.generate(MODEL, "The sea is", max_tokens=1)
        assert metric(server, 'valuescope_device_memory_bytes{kind="weights"}') == 0
        counted = totals(server)
        assert counted["valuescope_generated_tokens_total"] > len(before)
        models.LoadModel(v1.LoadModelRequest(name=MODEL))
        client.wait_until_ready(MODEL)
        after = client.generate(MODEL, "The sea is", max_tokens=8, temperature=0).token_ids
        assert list(after) == list(before)
        counted_again = totals(server)
        assert all(counted_again[name] >= was for name, was in counted.items())
        assert grown(counted, counted_again, "valuescope_generated_tokens_total") >= len(after)


def test_counters_count_what_ran_whatever_became_of_it(server, client):
    prompt = list(range(1000, 1200))
    before = totals(server)
    received = 0
    for event in client.stream(MODEL, prompt, max_tokens=400, ignore_eos=True):
        received += len(event.delta.token_ids)
        if received >= 20:
            break
    await_true(lambda: metric(server, "valuescope_requests_running") == 0)
    after = totals(server)
    assert grown(before, after, "valuescope_prompt_tokens_total") == 200
    assert grown(before, after, "valuescope_generated_tokens_total") >= received
    cached = client.generate(MODEL, prompt, max_tokens=1).response.usage.cached_prompt_tokens
    assert cached > 100
    again = totals(server)
    assert grown(after, again, "valuescope_prompt_tokens_total") == 200 - cached
    assert grown(after, again, "valuescope_prefix_hit_tokens_total") == cached


def test_an_unload_that_outlasts_its_call_goes_on_and_ends_nobodys_request(start_server):
    server = start_server()
    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        models = models_pb2_grpc.ModelServiceStub(channel)
        results = []
        running = threading.Thread(
            target=lambda: results.append(
                client.generate(MODEL, "Once", max_tokens=300, ignore_eos=True)
            )
        )
        running.start()
        await_true(lambda: metric(server, "valuescope_requests_running") > 0)
        with pytest.raises(grpc.RpcError) as error:
            models.UnloadModel(v1.UnloadModelRequest(name=MODEL), timeout=0.2)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        unloading = models.GetModel(v1.GetModelRequest(name=MODEL)).model
        assert unloading.state == v1.MODEL_STATE_UNLOADING
        assert [
            listed.state
            for listed in models.ListModels(v1.ListModelsRequest()).models
            if listed.name == MODEL
        ] == [v1.MODEL_STATE_UNLOADING]
        with pytest.raises(grpc.RpcError) as error:
            models.LoadModel(v1.LoadModelRequest(name=MODEL))
        assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(vs.ValuescopeError, match="unloading"):
            client.generate(MODEL, "The sea is", max_tokens=1)
        unloaded = models.UnloadModel(v1.UnloadModelRequest(name=MODEL)).model
        assert unloaded.state == v1.MODEL_STATE_AVAILABLE
        running.join()
        assert len(results[0].token_ids) == 300


def test_an_unload_lets_a_call_of_many_inputs_run_to_its_end(start_server):
    """Most of them have not been given to the engine when the unload begins."""
    server = start_server()
    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        models = models_pb2_grpc.ModelServiceStub(channel)
        prompts = [[400 + i] * 40 for i in range(120)]
        results = {}

        def capture():
            results["captures"] = client.capture(MODEL, prompts, [vs.tap(reduction="mean")])

        def score():
            stub = generation_pb2_grpc.GenerationServiceStub(channel)
            continuations = [
                v1.Response(token_ids=v1.TokenIds(ids=[400 + i] * 20)) for i in range(120)
            ]
            prompt = v1.Prompt(text="The sea is")
            request = v1.ScoreRequest(model=MODEL, prompt=prompt, continuations=continuations)
            results["scores"] = stub.Score(request).scores

        calls = [threading.Thread(target=call) for call in (capture, score)]
        for call in calls:
            call.start()
        await_true(lambda: metric(server, "valuescope_requests_running") > 32)
        unloaded = models.UnloadModel(v1.UnloadModelRequest(name=MODEL)).model
        assert unloaded.state == v1.MODEL_STATE_AVAILABLE
        for call in calls:
            call.join()
        assert len(results["captures"]) == len(results["scores"]) == 120


def test_a_server_whose_model_cannot_be_loaded_ends_with_one_line(tmp_path, start_server):
    root = tmp_path / "models"
    (root / "broken").mkdir(parents=True)
    source = CACHE / "models" / "SmolLM2-135M-Instruct"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (root / "broken" / name).write_bytes((source / name).read_bytes())
    (root / "broken" / "model.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"{}")
    server = start_server(tmp_path / "run", f"--model_root={root}", "--models=broken")
    assert server._process.wait(30) == 2
    lines = server.log.read_text().splitlines()
    plain = [line for line in lines if not line.startswith("{")]
    assert len(plain) == 1 and "model.safetensors" in plain[0]
    assert all(json.loads(line) for line in lines if line.startswith("{"))


def test_sigterm_under_two_hundred_open_streams_ends_in_time(start_server, tmp_path):
    server = start_server(tmp_path, "--drain_timeout=6s")
    server.client().close()
    with grpc.insecure_channel(server.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        health = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=None, response_deserializer=None
        )
        request = v1.StreamGenerateRequest(
            model=MODEL,
            prompt=v1.Prompt(text="Once upon a time"),
            sampling=v1.SamplingParams(max_tokens=4000, ignore_eos=True),
        )
        ends = []

        def follow(stream):
            try:
                for _ in stream:
                    pass
                ends.append("end")
            except grpc.RpcError as error:
                ends.append(error.code())

        followers = [
            threading.Thread(target=follow, args=(stub.StreamGenerate(request),), daemon=True)
            for _ in range(200)
        ]
        for follower in followers:
            follower.start()
        await_true(
            lambda: (
                metric(server, "valuescope_requests_running")
                + metric(server, "valuescope_requests_waiting")
                == 200
            )
        )
        started = time.monotonic()
        server._process.terminate()

        def not_ready():
            try:
                return health(b"\x0a\x09readiness") == b"\x08\x02"  # NOT_SERVING
            except grpc.RpcError:
                return False

        await_true(not_ready, 2)
        with pytest.raises(grpc.RpcError) as refused:
            next(iter(stub.StreamGenerate(request)))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server._process.wait(30) == 0
        assert time.monotonic() - started < 7
        for follower in followers:
            follower.join(10)
        assert len(ends) == 200
        assert set(ends) == {grpc.StatusCode.UNAVAILABLE}


def test_a_step_that_takes_too_long_shows_in_the_liveness_and_the_log_until_it_ends(
    start_server, tmp_path
):
    server = start_server(tmp_path, "--step_timeout=20ms", "--max_step_tokens=2048")
    client = server.client()
    with grpc.insecure_channel(server.address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch", request_serializer=None, response_deserializer=None
        )
        # A state may be told again when it did not change.
        told = watch(b"\x0a\x08liveness", timeout=60)
        states = (state for state, _ in itertools.groupby(told))
        assert next(states) == b"\x08\x01"  # SERVING
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        prompt = v1.Prompt(token_ids=v1.TokenIds(ids=[400 + i % 90 for i in range(600)]))
        answer = stub.Generate.future(
            v1.GenerateRequest(model=MODEL, prompt=prompt, sampling=v1.SamplingParams(max_tokens=1))
        )
        assert next(states) == b"\x08\x02"  # NOT_SERVING
        assert next(states) == b"\x08\x01"
        assert len(answer.result(60).completions) == 1
    client.close()
    assert metric(server, "valuescope_step_running_seconds") == 0
    events = [json.loads(line) for line in server.log.read_text().splitlines()]
    stuck = [event for event in events if event["event"] == "a step is stuck"]
    assert [event["model"] for event in stuck] == [MODEL.removeprefix("models/")]
    assert stuck[0]["seconds"] > 0.02
    assert any(event["event"] == "a step that was stuck has ended" for event in events)


def test_a_second_signal_ends_at_once(start_server, tmp_path):
    server = start_server(tmp_path, "--drain_timeout=60s")
    client = server.client()
    stream = client.stream(MODEL, "Once", max_tokens=4000, ignore_eos=True)
    next(iter(stream))
    server._process.terminate()
    await_true(lambda: '"draining"' in server.log.read_text())
    started = time.monotonic()
    server._process.terminate()
    assert server._process.wait(10) == 128 + 15
    assert time.monotonic() - started < 2


def seen(server):
    """Requests that the engine has."""
    return metric(server, "valuescope_requests_running") + metric(
        server, "valuescope_requests_waiting"
    )


def test_requests_that_wait_hold_a_bounded_amount_of_memory(start_server, tmp_path):
    """One runs and many wait: what they sent is counted, not only how many they are."""
    server = start_server(tmp_path, "--max_batch_rows=1", "--max_message_bytes=1048576")
    with grpc.insecure_channel(server.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        rows = np.full((25, 576), 0.01, np.float32)
        steering = v1.Intervention(
            layers=v1.Layers(list=v1.LayerList(layers=range(25))),
            add=v1.AddVector(tensor=vs.from_numpy(rows)),
        )
        request = v1.GenerateRequest(
            model=MODEL,
            prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[400] * 8)),
            sampling=v1.SamplingParams(max_tokens=2000, temperature=0, ignore_eos=True),
            interventions=[steering] * 15,
        )
        fit = 8 * MIB // request.ByteSize()
        with server.client() as client:
            client.generate(MODEL, "ready", max_tokens=1)
        calls = []
        while len(calls) < fit + 3:  # one by one: a transport takes few large messages at once
            calls.append(stub.Generate.future(request))
            await_true(lambda: seen(server) == len(calls) or calls[-1].done())
        refused = [call for call in calls if call.done()]
        # What a request takes is a little more than its message, and for a moment both are there.
        assert 3 <= len(refused) <= 5
        for call in refused:
            assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "the memory for calls is full" in call.details()
            assert "grpc-retry-pushback-ms" in dict(call.trailing_metadata())
        for call in calls:
            call.cancel()
        del request.interventions[:]
        request.sampling.max_tokens = 1
        await_true(lambda: stub.Generate(request, timeout=60).completions)


@pytest.mark.parametrize(
    "message",
    [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"],
    ids=["no message", "cut off", "not UTF-8"],
)
def test_a_message_that_cannot_be_decoded_is_an_invalid_argument(server, channel, message):
    for shape in (
        channel.unary_unary("/valuescope.v1.GenerationService/Generate"),
        channel.unary_stream("/valuescope.v1.GenerationService/StreamGenerate"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            answer = shape(message)
            list(answer if hasattr(answer, "__next__") else [])
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "UTF-8" in raised.value.details()
    # What is not offered is still that.
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/valuescope.v1.GenerationService/Invent")(message)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_compressed_messages_are_refused_unread(server, channel):
    """What a few bytes become is only known once it is there."""
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = v1.GenerateRequest(model=MODEL, prompt=v1.Prompt(text="a" * 50 * MIB))
    before = resident(server)
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        with pytest.raises(grpc.RpcError, match="disabled") as raised:
            stub.Generate(request, compression=compression)
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert resident(server) - before < 10 * MIB
    assert stub.Generate(
        v1.GenerateRequest(
            model=MODEL,
            prompt=v1.Prompt(text="The sea"),
            sampling=v1.SamplingParams(max_tokens=1),
        ),
        timeout=60,
    ).completions


def test_a_list_longer_than_the_queue_waits_for_itself(start_server, tmp_path):
    server = start_server(tmp_path, "--max_batch_rows=1", "--max_waiting=2")
    with server.client() as client, grpc.insecure_channel(server.address) as channel:
        scores = client.score(MODEL, "The sea", [" is blue", " is wide"] * 6)
        assert len({score.sum for score in scores}) == 2
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = {
            "model": MODEL,
            "prompt": v1.Prompt(text="The sea is"),
            "sampling": v1.SamplingParams(max_tokens=3, seed=1, ignore_eos=True),
            "n": 12,
        }
        whole = stub.Generate(v1.GenerateRequest(**request), timeout=60)
        assert len({completion.seed for completion in whole.completions}) == 12
        ends = {
            event.completion.index: event.completion.seed
            for event in stub.StreamGenerate(v1.StreamGenerateRequest(**request), timeout=60)
            if event.HasField("completion")
        }
        assert [ends[index] for index in range(12)] == [c.seed for c in whole.completions]


def test_scores_that_fit_no_message_are_refused_before_they_run(channel):
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    long = v1.Response(token_ids=v1.TokenIds(ids=[400] * 1000))
    request = v1.ScoreRequest(
        model=MODEL,
        prompt=v1.Prompt(text="The sea is"),
        continuations=[long] * 64,
        top_logprobs=20,
    )
    started = time.monotonic()
    with pytest.raises(grpc.RpcError, match="fewer `continuations` at once") as error:
        stub.Score(request, timeout=60)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.monotonic() - started < 2  # one continuation alone takes longer


def test_more_positions_than_a_sequence_has_are_refused_before_they_are_copied(server, channel):
    stub = activations_pb2_grpc.ActivationServiceStub(channel)
    tap = v1.Tap(site=v1.SITE_RESIDUAL_POST, layers=v1.Layers(all=True))
    tap.tokens.positions.extend([0] * 1_000_000)
    one = v1.CaptureInput(prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[400])))
    before = resident(server)
    with pytest.raises(grpc.RpcError, match=r"taps\[0\].tokens.positions.*at most the 8192"):
        list(stub.Capture(v1.CaptureRequest(model=MODEL, inputs=[one] * 400, taps=[tap])))
    assert resident(server) - before < 100 * MIB


def test_a_choice_of_layers_without_a_choice_is_refused(channel):
    stub = activations_pb2_grpc.ActivationServiceStub(channel)
    one = v1.CaptureInput(prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[400])))
    tap = v1.Tap(site=v1.SITE_RESIDUAL_POST, layers=v1.Layers())
    with pytest.raises(grpc.RpcError, match=r"taps\[0\].layers.*chooses nothing"):
        list(stub.Capture(v1.CaptureRequest(model=MODEL, inputs=[one], taps=[tap])))


def test_all_memory_of_the_host_is_one_account(start_server, tmp_path):
    limit = 'valuescope_memory_limit_bytes{place="host"}'
    held = 'valuescope_memory_held_bytes{place="host"}'
    server = start_server(tmp_path, "--host_memory_bytes=2GiB", "--kv_cache_bytes=64MiB")
    with server.client(), grpc.insecure_channel(server.address) as channel:
        assert metric(server, limit) == 2048 * MIB
        at_rest = metric(server, held)
        weights = metric(server, 'valuescope_device_memory_bytes{kind="weights"}')
        assert at_rest > weights + 64 * MIB
        stub = activations_pb2_grpc.ActivationServiceStub(channel)
        stream = stub.Capture(large_capture(12))
        await_true(lambda: metric(server, held) > at_rest + 300 * MIB)
        assert metric(server, held) <= 2048 * MIB
        stream.cancel()
        await_true(lambda: metric(server, held) == at_rest)


def test_a_model_that_does_not_fit_the_hosts_account_ends_the_server_with_a_line(tmp_path):
    ended = subprocess.run(
        [
            str(BUILD / "server" / "valuescope-server"),
            "--listen=127.0.0.1:0",
            "--metrics_listen=",
            f"--model_root={CACHE}/models",
            f"--models={MODEL.removeprefix('models/')}",
            f"--store=sqlite:{tmp_path}/vs.db",
            "--host_memory_bytes=256MiB",
            "--kv_cache_bytes=64MiB",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "the host's memory" in ended.stderr
    assert "268435456" in ended.stderr
