"""More requests than a server with a small queue can take: each is answered, by its result or by "retry later", and those who
retry get theirs. How fast that is, tests/bench/overload measures.
"""

import pathlib
import sys
import time

import grpc
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from conftest import ROOT, Server
from offered_load import HEALTH, READINESS, SERVING, HealthProbe, Offer
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc

ID = "llama_tied"
REQUESTS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("overload"),
        f"--model_root={ROOT / 'tests' / 'golden' / 'families'}",
        f"--models={ID}",
        "--threads=1",  # two would wait for each other beside a busy client
        "--max_batch_rows=2",
        "--max_waiting=4",
    )
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(HEALTH)
        until = time.monotonic() + 60
        while check(READINESS) != SERVING:
            assert time.monotonic() < until
            time.sleep(0.01)
    yield server
    assert server.stop() == 0


def request(index):
    ids = [3 + (7 * index + place) % 90 for place in range(10)]
    return v1.GenerateRequest(
        model=f"models/{ID}",
        prompt=v1.Prompt(token_ids=v1.TokenIds(ids=ids)),
        sampling=v1.SamplingParams(max_tokens=100, ignore_eos=True, seed=index),
    )


def tokens(answer):
    return [list(completion.token_ids) for completion in answer.completions]


def test_an_overloaded_server_refuses_politely_and_loses_nothing(server):
    with grpc.insecure_channel(server.address) as channel, HealthProbe(server.address) as health:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        expected = [tokens(stub.Generate(request(index))) for index in range(REQUESTS)]
        open_indices, answered, rejected = list(range(REQUESTS)), {}, 0
        until = time.monotonic() + 120
        while open_indices:
            assert time.monotonic() < until, f"{len(open_indices)} requests never got their turn"
            offers = {index: Offer(channel) for index in open_indices}
            for index, offer in offers.items():
                offer.begin(request(index))
            outcomes = {index: offer.outcomes()[0] for index, offer in offers.items()}
            delays = []
            for index, outcome in outcomes.items():
                if outcome.code is grpc.StatusCode.OK:
                    answered[index] = tokens(outcome.answer)
                    continue
                assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert outcome.reason == "QUEUE_FULL"
                assert outcome.retry_seconds > 0
                delays.append(outcome.retry_seconds)
            open_indices = [index for index in open_indices if index not in answered]
            rejected += len(delays)
            if delays:
                time.sleep(min(delays))  # as the server asked
    assert rejected > 0
    assert [answered[index] for index in range(REQUESTS)] == expected
    assert health.seconds
    assert health.failures == []
