"""How clients spread over replicas: by addresses, and by connections that end at a certain age. Real servers, on a tiny model."""

import threading
import time

import grpc
import valuescope as vs
from callers import ONE, TINY
from conftest import Server, await_true
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc, models_pb2_grpc

READY = grpc.ChannelConnectivity.READY


def test_connections_are_made_anew_and_no_call_fails(tmp_path):
    server = Server(tmp_path, *TINY, "--connection_age=1s")
    with vs.Client(server.address) as client:
        client.wait_until_ready(ONE)
    connections, streamed, stop = [], [], threading.Event()
    with (
        grpc.insecure_channel(server.address) as channel,
        grpc.insecure_channel(
            server.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other,
    ):
        channel.subscribe(lambda state: connections.append(state) if state == READY else None)
        models = models_pb2_grpc.ModelServiceStub(channel)
        generation = generation_pb2_grpc.GenerationServiceStub(other)

        def stream():
            """One call after the other, each of which is under way when its connection's time comes."""
            while not stop.is_set():
                request = v1.StreamGenerateRequest(model=ONE, prompt=v1.Prompt(text="a"))
                request.sampling.max_tokens = 40
                streamed.append(sum(1 for _ in generation.StreamGenerate(request, timeout=60)))

        streaming = threading.Thread(target=stream)
        streaming.start()
        until = time.monotonic() + 30
        while len(connections) < 4:
            models.ListModels(v1.ListModelsRequest(), timeout=10)
            assert time.monotonic() < until, connections
        stop.set()
        streaming.join()
    assert min(streamed) > 0
    assert server.stop() == 0


def test_without_an_age_a_connection_stays(tmp_path):
    server = Server(tmp_path, *TINY)
    connections = []
    with grpc.insecure_channel(server.address) as channel:
        channel.subscribe(connections.append, try_to_connect=True)
        await_true(lambda: READY in connections)
        models, until = models_pb2_grpc.ModelServiceStub(channel), time.monotonic() + 2
        while time.monotonic() < until:
            models.ListModels(v1.ListModelsRequest(), timeout=10)
    assert connections.count(READY) == 1
    assert server.stop() == 0


def test_clients_call_the_servers_of_one_name_in_turn(tmp_path):
    servers = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        servers.append(Server(tmp_path / name, *TINY))
    with vs.Client("ipv4:" + ",".join(server.address for server in servers)) as client:

        def both_were_called():
            client.models()
            return all("ModelService.ListModels" in server.log.read_text() for server in servers)

        await_true(both_were_called)
        # Of two servers one goes, and calls go on.
        assert servers.pop().stop() == 0
        for _ in range(10):
            client.models()
    assert servers.pop().stop() == 0
