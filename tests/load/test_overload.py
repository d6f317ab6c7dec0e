"""More requests than a server with a small queue can take: each is answered, by its result or by "retry later", and those who
retry get theirs. How fast that is, tests/bench/overload measures.
"""

import time

import grpc
import pytest
from golden_server import golden_server
from offered_load import HealthProbe, Offer
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc

ID = "llama_tied"
REQUESTS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("overload")
    with golden_server(directory, ID, "--max_batch_rows=2", "--max_waiting=4") as server:
        yield server


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
