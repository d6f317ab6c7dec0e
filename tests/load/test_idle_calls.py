"""Calls that wait, between clients and servers that are far apart: watchers by the hundred take nothing from those who work,
proxies that drop what is idle end no stream, and a full queue has a place for everybody's first request.
"""

import threading

import grpc
import numpy as np
import pytest
from golden_server import golden_server
from idle_proxy import IdleProxy
from offered_load import details_of
from valuescope import Client, DeadlineExceeded, attribution_request, labelled, v1
from valuescope.v1 import generation_pb2_grpc, jobs_pb2_grpc

ID, OTHER = "llama_tied", "qwen2"
MODEL = f"models/{ID}"
PATIENCE = 1.0  # of the proxy, s: many heartbeats
WATCHERS = 300  # more than the threads of any lane
ROWS, WAITING = 2, 32  # a quarter of these is for first requests of the same tenant


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("idle_calls")
    flags = ("--heartbeat=100ms", f"--max_batch_rows={ROWS}", f"--max_waiting={WAITING}")
    with golden_server(directory, ID, *flags) as server:
        yield server


@pytest.fixture(scope="module")
def idle_job(server):
    """A job that waits for its model, for as long as nobody loads it again."""
    name = f"models/{OTHER}"
    with Client(server.address) as client:
        client.load_model(name)
        client.wait_until_ready(name)
        model = client.model(name)
        rows = np.ones((model.num_layers, model.hidden_size), np.float32)
        vector = client.create_vector(name, rows, layers=range(model.num_layers))
        responses = [labelled([3, 4], [5, 6, 7], bool(i % 2), f"q{i // 2}") for i in range(4000)]
        spec = attribution_request(name, client.write_artifact(responses).name, vector.name)
        job = client.create_job(v1.JobSpec(attribute_neurons=spec))
        client.unload_model(name, force=True)
        yield job.name
        client.cancel_job(job.name)


def request(index=0, n=1, tokens=4):
    return v1.GenerateRequest(
        model=MODEL,
        prompt=v1.Prompt(token_ids=v1.TokenIds(ids=[3 + index % 50, 4])),
        sampling=v1.SamplingParams(max_tokens=tokens, ignore_eos=True, seed=index),
        n=n,
    )


def test_hundreds_of_watchers_leave_every_thread_to_those_who_work(server, idle_job):
    with grpc.insecure_channel(server.address) as channel:
        watch = jobs_pb2_grpc.JobServiceStub(channel).WatchJob
        calls = [watch(v1.WatchJobRequest(name=idle_job)) for _ in range(WATCHERS)]
        for call in calls:
            assert next(call).job.name == idle_job
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        assert len(stub.Generate(request(), timeout=60).completions) == 1
        for call in calls:
            beat = next(call)
            while not beat.HasField("heartbeat"):
                beat = next(call)
            assert beat.job.name == idle_job
        for call in calls:
            call.cancel()


def test_a_proxy_that_drops_idle_connections_ends_no_stream(server, idle_job):
    with IdleProxy(server.address, PATIENCE) as proxy, Client(proxy.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.wait_for_job(idle_job, timeout=3 * PATIENCE)
        assert proxy.dropped == 0
        assert client.model(MODEL).name == MODEL


def test_large_calls_leave_a_place_for_everybodys_first_request(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        large = [stub.Generate.future(request(i, n=64, tokens=120)) for i in range(4)]
        try:
            with grpc.insecure_channel(
                server.address, [("grpc.use_local_subchannel_pool", 1)]
            ) as other:
                theirs = generation_pb2_grpc.GenerationServiceStub(other)
                answers, failures = [], []

                def ask(index):
                    try:
                        answers.append(theirs.Generate(request(100 + index), timeout=120))
                    except grpc.RpcError as error:
                        failures.append(details_of(error))

                threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert failures == []
                assert len(answers) == 4
            assert not any(call.done() for call in large), "nothing was in anybody's way"
        finally:
            for call in large:
                call.cancel()
