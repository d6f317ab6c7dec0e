"""What the flags allow requests, captures and tables of interventions to hold is what they hold, however many of the largest
requests come at once and however slowly: who finds something full is told what it is and whether to come back, and others go on.

The server and its clients are real and on loopback; the model is one of the small golden ones, and the flags are as small.
"""

import collections
import contextlib
import os
import re
import threading
import time

import grpc
import pytest
from golden_server import await_true, golden_server
from meanwhile import Meanwhile, OtherClient
from memory_kinds import (
    ALLOWED,
    AT_ONCE,
    FLAGS,
    HIDDEN,
    ID,
    KEPT_RESPONSES,
    LAYERS,
    MANY_RESPONSES,
    MESSAGE,
    MIB,
    MODEL,
    OTHER,
    PAGE,
    RPCS,
    Call,
    Stored,
    classification,
    decomposition,
    job,
    kinds,
    probabilities,
    prompt,
    steering,
    taps,
    tensor,
    upload,
    worst_generate,
    worst_vector,
)
from offered_load import details_of
from raw_calls import RawCall, in_threads, record
from valuescope import Client, v1
from valuescope.v1 import (
    activations_pb2_grpc,
    artifacts_pb2_grpc,
    generation_pb2_grpc,
    jobs_pb2_grpc,
    neurons_pb2_grpc,
    vectors_pb2_grpc,
)

# What tells a client that something is full, and whether it may come back.
FULL = {
    "REQUEST_MEMORY_FULL": True,
    "CAPTURE_MEMORY_FULL": True,
    "QUEUE_FULL": True,
    "INTERVENTIONS_TOO_LARGE": False,
    "REQUEST_TOO_LARGE": False,
    "CAPTURE_TOO_LARGE": False,
    "CAPTURE_TOO_LARGE_FOR_MESSAGE": False,
    "RESPONSE_TOO_LARGE": False,
}
OK, EXHAUSTED, LATE = (
    grpc.StatusCode.OK,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
SECONDS = 2.0
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
CONNECTIONS = 8


def anonymous(server):
    """Bytes that the server holds of its own, whatever it has open or mapped."""
    text = open(f"/proc/{server._process.pid}/status").read()
    return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) * 1024


class Peak(Meanwhile):
    """The most that `anonymous` says while this is entered."""

    pause = 0.005

    def __init__(self, server):
        super().__init__()
        self._server, self.bytes = server, 0

    def step(self):
        self.bytes = max(self.bytes, anonymous(self._server))


class Stubs:
    def __init__(self, channel):
        self.generation = generation_pb2_grpc.GenerationServiceStub(channel)
        self.activations = activations_pb2_grpc.ActivationServiceStub(channel)
        self.vectors = vectors_pb2_grpc.VectorServiceStub(channel)
        self.neurons = neurons_pb2_grpc.NeuronServiceStub(channel)
        self.artifacts = artifacts_pb2_grpc.ArtifactServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)


def outcome(answer):
    """(code, reason, whether it may come back) of a call, whose answer or answers come when `answer` is called."""
    try:
        answer()
        return OK, "", False
    except grpc.RpcError as error:
        reason, delay = details_of(error)
        return error.code(), reason, delay is not None


def says_what_to_do(code, reason, may_come_back):
    """Whether an outcome is an answer, a deadline or a refusal that tells what is full and whether to come back."""
    if code is EXHAUSTED:
        return FULL.get(reason) == may_come_back
    return code in (OK, LATE)


def read_all(answer):
    for _ in answer:
        pass


def read_one(answer):
    next(answer)
    answer.cancel()


def read_one_and_stay(answer):
    """Until its time is over, which is then raised."""
    next(answer)
    answer.code()
    read_all(answer)


# --- What requests read ---


def store_waiting_jobs(client, stubs):
    """Jobs with a large spec, which wait for a model that the next server does not load; the name of one."""
    name = f"models/{OTHER}"
    client.load_model(name)
    client.wait_until_ready(name)
    model = client.model(name)
    data = tensor([model.num_layers, model.hidden_size], 0)
    vector = v1.Vector(model=name, layers=range(model.num_layers), data=data)
    vector = stubs.vectors.CreateVector(v1.CreateVectorRequest(vector=vector)).vector
    large = job(name, vector.name, KEPT_RESPONSES)
    for _ in range(16):
        created = stubs.jobs.CreateJob(large).job
        assert created.spec.ByteSize() > 0.8 * MIB
        assert not created.spec.omitted
    client.unload_model(name, force=True)
    return created.name


def store_page_of_artifacts(stubs):
    parts = upload(1, b"a", display_name="a" * 256, media_type="a" * 127)

    def write(_):
        for _ in range(PAGE // 8):
            stubs.artifacts.WriteArtifact(iter(parts))

    in_threads(8, write)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A page of whatever is listed in pages and the largest of what is read, by a server that is gone with what it held."""
    directory = tmp_path_factory.mktemp("memory")
    with (
        golden_server(directory, ID, *FLAGS) as server,
        Client(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        stubs = Stubs(channel)
        vectors = []
        for seed in range(8):
            vector = v1.Vector(
                model=MODEL, layers=range(LAYERS), data=tensor([LAYERS, HIDDEN], seed)
            )
            answer = stubs.vectors.CreateVector(v1.CreateVectorRequest(vector=vector))
            vectors.append(answer.vector.name)
        for seed in range(PAGE // 256 + 1):
            stubs.vectors.DecomposeVectors(decomposition(seed, vectors))
        neuron_set = stubs.neurons.ClassifyNeurons(classification(0, vectors)).neuron_set.name
        probable = [
            stubs.neurons.AttributeNeurons(probabilities(seed)).neuron_set.name for seed in range(8)
        ]
        artifact = stubs.artifacts.WriteArtifact(iter(upload(24))).artifact.name
        store_page_of_artifacts(stubs)
        waiting = store_waiting_jobs(client, stubs)
    return Stored(directory, vectors, neuron_set, probable, artifact, waiting)


@pytest.fixture(scope="module")
def server(stored):
    with golden_server(stored.directory, ID, *FLAGS) as server:
        yield server


@pytest.fixture(scope="module")
def channels(server):
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(grpc.insecure_channel(server.address, OWN_CONNECTION))
            for _ in range(CONNECTIONS)
        ]


@pytest.fixture(scope="module")
def stubs(channels):
    return Stubs(channels[0])


@pytest.fixture(scope="module")
def table(stored):
    """(kind, its calls) by what it is."""
    return {what: (kind, kind.calls()) for what, kind in kinds(stored).items()}


# --- Those who call ---


class Others(OtherClient):
    """Somebody with small requests meanwhile, who comes back when told to; how many were answered."""

    def __init__(self, address):
        super().__init__(address)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.answered, self.failures = 0, []

    def step(self):
        sampling = v1.SamplingParams(max_tokens=2, ignore_eos=True)
        request = v1.GenerateRequest(model=MODEL, prompt=prompt(3), sampling=sampling)
        try:
            self._stub.Generate(request, timeout=60)
            self.answered += 1
        except grpc.RpcError as error:
            if details_of(error)[1] is None:
                self.failures.append(error)
            self._stop.wait(0.05)


def answer_of(call, channel, seconds, read):
    answer = call.begin(channel, seconds)
    if call.rpc.server_streaming:
        read(answer)


def all_at_once(calls, read, channels):
    outcomes = []

    def work(index):
        call, channel = calls[index % len(calls)], channels[index % len(channels)]
        outcomes.append(outcome(lambda: answer_of(call, channel, SECONDS, read)))

    in_threads(AT_ONCE, work)
    return outcomes


def undisturbed(call, channel, read=read_one):
    """Its outcome once nothing of others is in its way any more."""
    outcomes = []

    def settled():
        outcomes.append(outcome(lambda: answer_of(call, channel, 60, read)))
        return not outcomes[-1][2]

    await_true(settled, 180)
    return outcomes[-1]


def cancel_jobs(stubs):
    """Those that do not wait for a model: calls have made them, and what comes next should not wait for them."""
    for state in (v1.JOB_STATE_QUEUED, v1.JOB_STATE_RUNNING):
        for each in stubs.jobs.ListJobs(v1.ListJobsRequest(page_size=PAGE, state=state)).jobs:
            if not each.waiting_for:
                stubs.jobs.CancelJob(v1.CancelJobRequest(name=each.name))


def warm(channels):
    """Threads, their stacks and heaps, and the cache are there once as many small requests came at once."""

    def small(index):
        sampling = v1.SamplingParams(max_tokens=60, ignore_eos=True)
        generation = v1.GenerateRequest(model=MODEL, prompt=prompt(index, 60), sampling=sampling)
        inputs = [v1.CaptureInput(prompt=prompt(index))]
        capture = v1.CaptureRequest(model=MODEL, inputs=inputs, taps=taps()[:1])
        for request in (generation, capture):
            assert undisturbed(Call.of(request), channels[index % CONNECTIONS], read_all)[0] is OK

    for _ in range(2):
        in_threads(AT_ONCE, small)


def faults(kind, outcomes, by_itself, others, held):
    """What is wrong with how calls of a kind were answered, and with what the server held of them."""
    if held > 1.1 * ALLOWED:
        yield f"holds more than {1.1 * ALLOWED / MIB:.0f} MiB"
    if others.failures:
        yield f"others failed: {others.failures[0]}"
    for each in {*outcomes, *by_itself}:
        refusals = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
        meant = kind.code is each[0] and kind.code in refusals
        if not meant and not says_what_to_do(*each):
            yield f"answered {each}"
    for code, reason, _ in by_itself:
        if (code, kind.reason and reason) != (kind.code, kind.reason):
            yield f"alone: {code.name} {reason}"


# --- Tests ---


def test_every_rpc_has_its_largest_request(table):
    asked = {call.rpc.name for _, calls in table.values() for call in calls}
    assert asked == {rpc.name for rpc in RPCS.values()}


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer keeps what was freed")
def test_the_largest_requests_at_once_hold_what_the_flags_allow(server, channels, stubs, table):
    warm(channels)
    report, wrong = [], []
    idle = anonymous(server)
    for what, (kind, calls) in table.items():
        began, before = time.monotonic(), anonymous(server)
        with Peak(server) as peak:  # also of what goes on after its caller has left
            with Others(server.address) as others:
                outcomes = all_at_once(
                    calls, read_all if kind.read else read_one_and_stay, channels
                )
                await_true(lambda others=others: others.answered > 0, 30)
            seconds = time.monotonic() - began
            one_of_each = {call.rpc.name: call for call in calls}.values()
            by_itself = [undisturbed(call, channels[0]) for call in one_of_each]
        cancel_jobs(stubs)
        codes = collections.Counter(f"{code.name} {reason}".strip() for code, reason, _ in outcomes)
        report.append(
            f"{what}: {(peak.bytes - idle) / MIB:.1f} MiB ({(before - idle) / MIB:.1f} before) in "
            f"{seconds:.1f} + {time.monotonic() - began - seconds:.1f} s, {others.answered} others; "
            + ", ".join(f"{count} {code}" for code, count in codes.items())
        )
        found = faults(kind, outcomes, by_itself, others, peak.bytes - idle)
        wrong += [f"{what}: {fault}" for fault in found]
    print(f"\nallowed {ALLOWED / MIB:.0f} MiB, idle {idle / MIB:.0f} MiB", *report, sep="\n")
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="each call takes seconds there")
def test_those_who_come_back_when_told_are_answered(channels, stored, table):
    """Each needs so much that few fit at a time, and none leaves work behind that holds what it needs."""
    large = job(MODEL, stored.vectors[1], MANY_RESPONSES)
    large.validate_only = True
    calls = {what: table[what][1][0] for what in ("Tokenize", "Detokenize")}
    for what, call in {**calls, "CreateJob": Call.of(large)}.items():
        outcomes = []

        def come(index, call=call, outcomes=outcomes):
            outcomes.append(undisturbed(call, channels[index]))

        # Who comes back sooner than told, as here, keeps others from what the request of a job takes bit by bit.
        in_threads(CONNECTIONS // 2 if what == "CreateJob" else CONNECTIONS, come)
        assert {code for code, *_ in outcomes} == {OK}, what


def test_completions_of_one_call_find_their_rows(stubs):
    """64 completions with three edits of neurons on all layers, on an idle server."""
    request = worst_generate(1, interventions=steering(1)[-3:])
    request.sampling.max_tokens = 4
    request.logprobs = 0
    assert len(stubs.generation.Generate(request).completions) == 64


SLOW = 16


class SlowSenders(Meanwhile):
    """Requests that come a byte at a time, each over a connection of its own; every second says that it is as long as may be."""

    pause = 0.02
    REST = 20_000  # bytes, for longer than any test takes

    def __init__(self, address):
        super().__init__()
        vector = worst_vector(0)
        vector.display_name = "x" * 60_000  # which a sender may send before the server says more
        request = v1.CreateVectorRequest(vector=vector)
        recorded = record("/valuescope.v1.VectorService/CreateVector", request)
        length = request.ByteSize().to_bytes(4, "big")
        assert recorded.count(length) == 1
        largest = recorded.replace(length, MESSAGE.to_bytes(4, "big"))
        self._rest = recorded[-self.REST :]
        self._calls = [
            RawCall(address, sent[: -self.REST]) for sent in (recorded, largest) * (SLOW // 2)
        ]
        self.sent = 0

    def step(self):
        for call in self._calls:
            call.send(self._rest[self.sent : self.sent + 1])
        self.sent += 1

    def are_open(self):
        return [call.is_open() for call in self._calls]

    def __exit__(self, *raised):
        super().__exit__(*raised)
        for call in self._calls:
            call.vanish()


def test_requests_that_come_slowly_keep_nobody_waiting(server):
    with SlowSenders(server.address) as slow, Others(server.address) as others:
        await_true(lambda: slow.sent >= 20 and others.answered >= 20, 120)
        assert all(slow.are_open())
    assert others.failures == []


def test_uploads_that_come_slowly_keep_nobody_waiting(server, stubs):
    parts, begun, go_on = upload(2), threading.Semaphore(0), threading.Event()

    def slowly():
        yield from parts[:-1]
        begun.release()
        go_on.wait(60)
        yield parts[-1]

    uploads = [stubs.artifacts.WriteArtifact.future(slowly(), timeout=120) for _ in range(SLOW)]
    for _ in uploads:
        assert begun.acquire(timeout=60)
    with Others(server.address) as others:
        await_true(lambda: others.answered >= 20, 120)
    go_on.set()
    outcomes = [outcome(call.result) for call in uploads]
    assert others.failures == []
    assert all(says_what_to_do(*each) for each in outcomes), outcomes
    assert OK in {code for code, *_ in outcomes}
