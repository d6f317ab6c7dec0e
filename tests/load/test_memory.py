"""What the flags allow requests, captures and tables of interventions to hold is what they hold, however many of the largest
requests come at once: who finds something full is told what it is and whether to come back, and others go on.

The server and its clients are real and on loopback; the model is one of the small golden ones, and the flags are as small.
"""

import dataclasses
import os
import pathlib
import re
import struct
import time

import grpc
import pytest
from golden_server import await_true, golden_server
from meanwhile import Meanwhile, OtherClient
from offered_load import details_of
from raw_calls import in_threads
from valuescope import v1
from valuescope.v1 import (
    activations_pb2_grpc,
    generation_pb2_grpc,
    neurons_pb2_grpc,
    vectors_pb2_grpc,
)

ID = "llama_tied"
MODEL = f"models/{ID}"
LAYERS, HIDDEN, INTERMEDIATE, CONTEXT = 3, 36, 38, 128
MIB = 1 << 20
AT_ONCE = 64
MESSAGE, REQUESTS, CAPTURES, TABLES = 8 * MIB, 64 * MIB, 64 * MIB, 4 * MIB
ALLOWED = 8 * MESSAGE + REQUESTS + CAPTURES + TABLES
# What tells a client that something is full, and whether it may come back.
FULL = {
    "REQUEST_MEMORY_FULL": True,
    "CAPTURE_MEMORY_FULL": True,
    "QUEUE_FULL": True,
    "INTERVENTIONS_TOO_LARGE": False,
    "REQUEST_TOO_LARGE": False,
    "CAPTURE_TOO_LARGE": False,
    "CAPTURE_TOO_LARGE_FOR_MESSAGE": False,
    "REPLY_TOO_LARGE": False,
}


FLAGS = [
    "--max_batch_rows=16",
    "--kv_cache_bytes=2MiB",
    f"--max_message_bytes={MESSAGE}",
    f"--request_memory_bytes={REQUESTS}",
    f"--capture_memory_bytes={CAPTURES}",
    f"--intervention_memory_bytes={TABLES}",
]


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


def prompt(seed, length=12):
    return v1.Prompt(token_ids=v1.TokenIds(ids=[3 + (7 * seed + i) % 90 for i in range(length)]))


def tensor(shape, seed):
    count = 1
    for extent in shape:
        count *= extent
    # Whatever the seed, directions that are not one another's.
    numbers = [((seed + 1) * (i * i % 101) + i) % 17 - 8 + 0.5 for i in range(count)]
    return v1.Tensor(
        dtype=v1.DATA_TYPE_FLOAT32, shape=shape, data=struct.pack(f"<{count}f", *numbers)
    )


ALL = v1.Layers(all=True)


def steering(seed):
    """64 interventions of 64 directions each on every layer, but for those that a message of this size has no room for."""
    directions = tensor([LAYERS, 24, HIDDEN], seed)
    return [
        v1.Intervention(layers=ALL, project_out=v1.ProjectOut(tensor=directions)) for _ in range(20)
    ] + [
        v1.Intervention(
            site=v1.SITE_MLP_NEURONS,
            layers=ALL,
            scale_neurons=v1.ScaleNeurons(
                factor=1.5,
                neurons=[
                    v1.NeuronId(layer=layer, index=index)
                    for layer in range(LAYERS)
                    for index in range(INTERMEDIATE)
                ],
            ),
        )
        for _ in range(44)
    ]


def named(vector, count=64):
    """A small message that declares gigabytes for a large model: every intervention names one vector 64 times."""
    operation = v1.ProjectOut(vectors=[vector] * 64)
    return [v1.Intervention(layers=ALL, project_out=operation)] * count


def taps(reduction=v1.REDUCTION_NONE):
    sites = (
        v1.SITE_RESIDUAL_POST,
        v1.SITE_MLP_NEURONS,
        v1.SITE_ATTENTION_HEADS,
        v1.SITE_MLP_OUTPUT,
    )
    tokens = v1.TokenSelection(kind=v1.TOKEN_KIND_ALL)
    return [
        v1.Tap(site=sites[i % 4], layers=ALL, tokens=tokens, reduction=reduction) for i in range(16)
    ]


STOPS = ["\x00" * 4000 + str(i) for i in range(16)]


def worst_generate(seed, request=v1.GenerateRequest, **more):
    sampling = v1.SamplingParams(max_tokens=CONTEXT - 12, ignore_eos=True, seed=seed, stop=STOPS)
    return request(model=MODEL, prompt=prompt(seed), sampling=sampling, n=64, logprobs=20, **more)


def worst_score(seed):
    continuation = v1.Response(token_ids=v1.TokenIds(ids=[5] * 60))
    return v1.ScoreRequest(
        model=MODEL,
        prompt=prompt(seed),
        continuations=[continuation] * 400,
        top_logprobs=4,
        interventions=steering(seed)[:10],
    )


def worst_capture(seed):
    inputs = [v1.CaptureInput(prompt=prompt(seed + i, CONTEXT)) for i in range(1500)]
    return v1.CaptureRequest(model=MODEL, inputs=inputs, taps=taps())


def labelled(seed, count):
    return [
        v1.LabelledResponse(
            prompt=prompt(seed + i),
            response=v1.Response(token_ids=v1.TokenIds(ids=[5 + i % 80] * 40)),
            expresses=i % 2 == 1,
            query_id=str(i // 2),
        )
        for i in range(count)
    ]


def worst_extract(seed):
    return v1.ExtractVectorsRequest(
        model=MODEL,
        responses=labelled(seed, 200),
        site=v1.SITE_MLP_NEURONS,
        interventions=steering(seed)[:10],
        bootstrap_samples=10,
    )


def worst_attribute(seed, vector):
    return v1.AttributeNeuronsRequest(
        model=MODEL,
        responses=labelled(seed, 1000),
        vector=vector,
        direct_contribution=v1.DirectContribution(),
    )


def worst_vector(seed):
    return v1.Vector(
        model=MODEL,
        site=v1.SITE_MLP_NEURONS,
        layers=range(LAYERS),
        data=tensor([LAYERS, INTERMEDIATE], seed),
        display_name=str(seed) * 128,
    )


def decomposition(seed, vectors):
    """The pairs have names that no other decomposition has, and so have the four vectors that each leaves behind."""
    pairs = [
        v1.VectorPair(
            value=f"{seed} {i} ".ljust(128, "v"),
            intrinsic=vectors[i % 8],
            prompted=vectors[(i + 1 + i // 8 % 7) % 8],
        )
        for i in range(64)
    ]
    return v1.DecomposeVectorsRequest(pairs=pairs)


class Stubs:
    def __init__(self, channel):
        self.generation = generation_pb2_grpc.GenerationServiceStub(channel)
        self.activations = activations_pb2_grpc.ActivationServiceStub(channel)
        self.vectors = vectors_pb2_grpc.VectorServiceStub(channel)
        self.neurons = neurons_pb2_grpc.NeuronServiceStub(channel)


def outcome(call):
    """(code, reason) of a call whose answer is read to its end; refusals say whether to come back, as they should."""
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            for _ in answer:
                pass
        return grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        reason, delay = details_of(error)
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert reason in FULL, error
            assert (delay is not None) == FULL[reason], error
        return error.code(), reason


@dataclasses.dataclass
class Stored:
    """Names of what requests read, and where a server has it."""

    directory: pathlib.Path
    vectors: list[str]


PAGE = 1000


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """More vectors than a page has, by a server that is gone with what it held."""
    directory = tmp_path_factory.mktemp("memory")
    with (
        golden_server(directory, ID, *FLAGS) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stubs = Stubs(channel)
        vectors = []
        for seed in range(8):
            data = tensor([LAYERS, HIDDEN], seed)
            vector = v1.Vector(model=MODEL, layers=range(LAYERS), data=data)
            answer = stubs.vectors.CreateVector(v1.CreateVectorRequest(vector=vector))
            vectors.append(answer.vector.name)
        for seed in range(PAGE // 256 + 1):
            stubs.vectors.DecomposeVectors(decomposition(seed, vectors))
    return Stored(directory, vectors)


@pytest.fixture(scope="module")
def server(stored):
    with golden_server(stored.directory, ID, *FLAGS) as server:
        yield server


@pytest.fixture(scope="module")
def stubs(server):
    with grpc.insecure_channel(server.address) as channel:
        yield Stubs(channel)


SECONDS = 2.0


def kinds(stubs, stored):
    """The largest legal request of each kind, by the number of the call."""
    vector = stored.vectors[1]

    def classify(seed):
        axes = v1.ConditionVectors(intrinsic=vector, prompted=stored.vectors[2])
        return v1.ClassifyNeuronsRequest(
            model=MODEL, vectors=axes, top_percent=100, top_k=200 + seed
        )

    neuron_set = stubs.neurons.ClassifyNeurons(classify(0)).neuron_set.name
    generation, vectors, neurons = stubs.generation, stubs.vectors, stubs.neurons
    calls = {
        "Generate": (
            generation.Generate,
            lambda seed: worst_generate(seed, interventions=steering(seed)),
        ),
        "Generate with captures": (
            generation.Generate,
            lambda seed: worst_generate(seed, taps=taps(v1.REDUCTION_MEAN)[:12]),
        ),
        "Generate that names a vector 4,096 times": (
            generation.Generate,
            lambda seed: worst_generate(seed, interventions=named(vector)),
        ),
        "StreamGenerate": (
            generation.StreamGenerate,
            lambda seed: worst_generate(
                seed, v1.StreamGenerateRequest, taps=taps(), interventions=steering(seed)
            ),
        ),
        "Score": (generation.Score, worst_score),
        "Capture": (stubs.activations.Capture, worst_capture),
        "ExtractVectors": (vectors.ExtractVectors, worst_extract),
        "AttributeNeurons": (neurons.AttributeNeurons, lambda seed: worst_attribute(seed, vector)),
        "CreateVector": (
            vectors.CreateVector,
            lambda seed: v1.CreateVectorRequest(vector=worst_vector(seed)),
        ),
        "GetVector": (vectors.GetVector, lambda _: v1.GetVectorRequest(name=vector)),
        "ListVectors": (vectors.ListVectors, lambda _: v1.ListVectorsRequest(page_size=PAGE)),
        "ClassifyNeurons": (neurons.ClassifyNeurons, classify),
        "GetNeuronSet": (neurons.GetNeuronSet, lambda _: v1.GetNeuronSetRequest(name=neuron_set)),
        "ListNeuronSets": (
            neurons.ListNeuronSets,
            lambda _: v1.ListNeuronSetsRequest(page_size=PAGE),
        ),
    }
    return {
        kind: lambda seed, call=call, request=request: call(request(seed), timeout=SECONDS)
        for kind, (call, request) in calls.items()
    }


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


def all_at_once(call):
    outcomes = []
    in_threads(AT_ONCE, lambda index: outcomes.append(outcome(lambda: call(index))))
    return outcomes


def warm(stubs):
    """Threads, their stacks and heaps, and the cache are there once as many small requests came at once."""

    def small(index):
        sampling = v1.SamplingParams(max_tokens=60, ignore_eos=True)
        request = v1.GenerateRequest(model=MODEL, prompt=prompt(index, 60), sampling=sampling)
        stubs.generation.Generate(request)
        inputs = [v1.CaptureInput(prompt=prompt(index))]
        for _ in stubs.activations.Capture(
            v1.CaptureRequest(model=MODEL, inputs=inputs, taps=taps()[:1])
        ):
            pass

    for _ in range(2):
        in_threads(AT_ONCE, small)


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer keeps what was freed")
def test_the_largest_requests_at_once_hold_what_the_flags_allow(server, stubs, stored):
    warm(stubs)
    report = []
    idle = anonymous(server)
    for kind, call in kinds(stubs, stored).items():
        began = time.monotonic()
        with Others(server.address) as others, Peak(server) as peak:
            outcomes = all_at_once(call)
            await_true(lambda others=others: others.answered > 0, 30)
        codes = sorted({f"{code.name} {reason}".strip() for code, reason in outcomes})
        report.append(
            f"{kind}: {(peak.bytes - idle) / MIB:.1f} MiB in {time.monotonic() - began:.1f} s, "
            f"{others.answered} others; {', '.join(codes)}"
        )
        assert others.failures == []
        assert {code for code, _ in outcomes} <= {
            grpc.StatusCode.OK,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        }, report[-1]
        assert peak.bytes - idle <= 1.1 * ALLOWED, "\n".join(report)
    print(f"\nallowed {ALLOWED / MIB:.0f} MiB, idle {idle / MIB:.0f} MiB\n" + "\n".join(report))


def test_what_could_never_fit_is_refused_without_being_read(stubs, stored):
    request = worst_generate(1, interventions=named(stored.vectors[1]))
    code, reason = outcome(lambda: stubs.generation.Generate(request))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "INTERVENTIONS_TOO_LARGE")


def test_completions_of_one_call_find_their_rows(stubs):
    """64 completions with three edits of neurons on all layers, on an idle server."""
    request = worst_generate(1, interventions=steering(1)[-3:])
    request.sampling.max_tokens = 4
    request.logprobs = 0
    assert len(stubs.generation.Generate(request).completions) == 64
