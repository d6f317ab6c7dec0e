"""Clients that cancel, run out of time, vanish or never read, many at once: afterwards nothing is held, and those who behaved
got, bit for bit, what they get on a quiet server.

The server and its clients are real and on loopback; the model is one of the small golden ones. VALUESCOPE_STORM (default 1)
scales the numbers, for servers under a sanitizer.
"""

import os
import random
import re
import time

import grpc
import pytest
from golden_server import await_true, golden_server
from meanwhile import OtherClient
from raw_calls import RawCall, in_threads, record
from valuescope import v1
from valuescope.v1 import activations_pb2_grpc, generation_pb2_grpc

SCALE = float(os.environ.get("VALUESCOPE_STORM", "1"))
CANCELS, DEADLINES, VANISHED = (max(10, int(SCALE * n)) for n in (2000, 500, 200))
NEVER_READ = max(4, int(SCALE * 32))
THREADS = 6
MIB = 1 << 20
ID = "llama_tied"
MODEL = f"models/{ID}"
STREAM_GENERATE = "/valuescope.v1.GenerationService/StreamGenerate"
CAPTURE = "/valuescope.v1.ActivationService/Capture"
CAPTURES = 'valuescope_device_memory_bytes{kind="captures"}'
HELD = (
    "valuescope_requests_running",
    "valuescope_requests_waiting",
    "valuescope_kv_cache_used_ratio",
    CAPTURES,
)


def prompt(generator):
    return v1.Prompt(token_ids=v1.TokenIds(ids=[generator.randrange(3, 90) for _ in range(12)]))


def generation(generator, request=v1.GenerateRequest):
    sampling = v1.SamplingParams(
        max_tokens=generator.randrange(1, 100), ignore_eos=True, seed=generator.randrange(1 << 30)
    )
    return request(model=MODEL, prompt=prompt(generator), sampling=sampling)


def large_capture(inputs):
    """About 190 KB for every input."""
    tap = {"layers": v1.Layers(all=True), "tokens": v1.TokenSelection(kind=v1.TOKEN_KIND_ALL)}
    sites = (v1.SITE_RESIDUAL_POST, v1.SITE_RESIDUAL_MID, v1.SITE_MLP_NEURONS, v1.SITE_MLP_OUTPUT)
    ids = v1.TokenIds(ids=[5 + i % 80 for i in range(110)])
    return v1.CaptureRequest(
        model=MODEL,
        inputs=[v1.CaptureInput(prompt=v1.Prompt(token_ids=ids))] * inputs,
        taps=[v1.Tap(site=site, **tap) for site in sites],
    )


class Stubs:
    def __init__(self, channel):
        self.generation = generation_pb2_grpc.GenerationServiceStub(channel)
        self.activations = activations_pb2_grpc.ActivationServiceStub(channel)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("storm")
    with golden_server(directory, ID, "--max_batch_rows=16") as server:
        yield server


@pytest.fixture
def stubs(server):
    with grpc.insecure_channel(server.address) as channel:
        yield Stubs(channel)


def held(server):
    """What the server still holds for requests, by metric; empty when it holds nothing."""
    page = server.metrics()
    values = {
        name: float(re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)[1])
        for name in HELD
    }
    return {name: value for name, value in values.items() if value != 0}


def resident(server):
    text = open(f"/proc/{server._process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


def witness(stubs):
    """What well-behaved requests get, as bytes: a sampled generation with its captures, and a capture."""
    generator = random.Random(99)
    request = generation(generator)
    request.sampling.max_tokens = 40
    request.taps.add(
        site=v1.SITE_RESIDUAL_POST, layers=v1.Layers(all=True)
    ).tokens.kind = v1.TOKEN_KIND_RESPONSE
    answer = stubs.generation.Generate(request)
    capture = [part.SerializeToString(True) for part in stubs.activations.Capture(large_capture(1))]
    return [each.SerializeToString(True) for each in answer.completions], capture


class Witnesses(OtherClient):
    """Asks the same all the time; at the end, the number of answers, all of them equal to `expected`."""

    def __init__(self, address, expected):
        super().__init__(address)
        self._stubs, self._expected = Stubs(self.channel), expected
        self.count = self.differing = 0

    def step(self):
        self.differing += witness(self._stubs) != self._expected
        self.count += 1


def cancel_some(stubs, seed, count):
    """Streams, unary calls and captures, each cancelled at once, after a moment or after some messages."""
    generator = random.Random(seed)
    for _ in range(count):
        kind = generator.randrange(3)
        if kind == 0:
            call = stubs.generation.StreamGenerate(generation(generator, v1.StreamGenerateRequest))
        elif kind == 1:
            call = stubs.activations.Capture(large_capture(generator.randrange(1, 4)))
        else:
            call = stubs.generation.Generate.future(generation(generator))
        moment = generator.randrange(3)
        if moment == 1:
            time.sleep(generator.random() * 0.01)  # the storm's own timing, nothing is waited for
        elif moment == 2 and kind != 2:
            for _, _ in zip(range(generator.randrange(1, 10)), call, strict=False):
                pass
        call.cancel()


def run_out_of_time(stubs, seed, count):
    generator = random.Random(seed)
    for _ in range(count):
        try:
            stubs.generation.Generate(
                generation(generator), timeout=generator.randrange(1, 51) / 1000
            )
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def vanish(address, recorded, seed, count):
    generator = random.Random(seed)
    for _ in range(count):
        call = RawCall(address, recorded[generator.randrange(len(recorded))])
        if generator.randrange(4):
            call.read_some(generator.randrange(1, 400))
        call.vanish()


def storm(server, stubs):
    """All of it at once; returns while those who never read are still there, as a list of them."""
    generator = random.Random(5)
    recorded = [
        record(STREAM_GENERATE, generation(generator, v1.StreamGenerateRequest)),
        record(CAPTURE, large_capture(20)),
    ]
    never_read = [
        RawCall(server.address, record(CAPTURE, large_capture(150)), receive_buffer=4096)
        for _ in range(NEVER_READ)
    ]

    def each(index):
        def share(count):
            return count // THREADS + 1

        cancel_some(stubs, 100 + index, share(CANCELS))
        run_out_of_time(stubs, 200 + index, share(DEADLINES))
        vanish(server.address, recorded, 300 + index, share(VANISHED))

    in_threads(THREADS, each)
    return never_read


def test_a_storm_leaves_nothing_behind(server, stubs):
    expected = witness(stubs)
    assert witness(stubs) == expected
    for call in storm(server, stubs):  # warms threads, pools and kernels
        call.vanish()
    await_true(lambda: not held(server), 20)
    before = resident(server)

    with Witnesses(server.address, expected) as witnesses:
        never_read = storm(server, stubs)
    during = resident(server)
    assert CAPTURES in held(server)  # which those who never read still hold
    assert witnesses.count > 0
    assert witnesses.differing == 0
    for call in never_read:
        call.vanish()
    await_true(lambda: not held(server), 2)
    after = resident(server)
    print(
        f"\n{THREADS} threads, {len(never_read)} that never read, {witnesses.count} witnesses; resident memory "
        f"{before / MIB:.0f} MiB before, {during / MIB:.0f} at its end, {after / MIB:.0f} after; "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    if SCALE == 1:  # a sanitizer keeps what was freed
        assert after - before < 48 * MIB
    assert witness(stubs) == expected
    assert not held(server)
