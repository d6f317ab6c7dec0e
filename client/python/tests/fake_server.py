"""A server in this process whose answers each test writes, and both clients to call it with."""

import asyncio
import collections
import contextlib
import inspect
import sys
import threading
import time

import grpc

import valuescope as vs
from valuescope import rpcs

RPCS = {rpc.name: rpc for rpc in vars(rpcs).values() if isinstance(rpc, rpcs.Rpc)}
CLIENT_STREAMS = {"ArtifactService/WriteArtifact", "VectorService/ImportVectors"}
SERVER_STREAMS = {
    "ActivationService/Capture",
    "ArtifactService/ReadArtifact",
    "ArtifactService/ReadTable",
    "GenerationService/StreamGenerate",
    "JobService/WatchJob",
    "VectorService/ExportVectors",
}
PATIENT = vs.Retry(attempts=4, first=0.01, longest=0.05)


def await_true(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.005)


class FakeServer(grpc.GenericRpcHandler):
    """Answers "Service/Method" with `answers[name](request, context)`, and keeps every request that arrived."""

    def __init__(self):
        self.answers = {}
        self.requests = collections.defaultdict(list)
        self.metadata = []
        self._lock = threading.Lock()

    def service(self, details):
        name = details.method.removeprefix("/valuescope.v1.")
        rpc, answer = RPCS[name], self.answers[name]
        with self._lock:
            self.metadata.append(dict(details.invocation_metadata))

        def respond(request, context):
            if name in CLIENT_STREAMS:
                request = list(request)
            with self._lock:
                self.requests[name].append(request)
            return answer(request, context)

        def respond_in_parts(request, context):
            yield from respond(request, context)

        serializers = {
            "request_deserializer": rpc.request.FromString,
            "response_serializer": rpc.response.SerializeToString,
        }
        if name in CLIENT_STREAMS:
            return grpc.stream_unary_rpc_method_handler(respond, **serializers)
        if name in SERVER_STREAMS:
            return grpc.unary_stream_rpc_method_handler(respond_in_parts, **serializers)
        return grpc.unary_unary_rpc_method_handler(respond, **serializers)

    def count(self, name):
        return len(self.requests[name])


class Both:
    """Runs a test's action on a client: `run(lambda client: client.models())` blocks, or awaits what the action returns."""

    def __init__(self, kind, address):
        self.kind = kind
        self._address = address

    def run(self, action, **options):
        options = {"retry": PATIENT, "timeout": 20, **options}
        if self.kind == "blocking":
            with vs.Client(self._address, **options) as client:
                return action(client)

        async def main():
            async with vs.AsyncClient(self._address, **options) as client:
                outcome = action(client)
                return await outcome if inspect.isawaitable(outcome) else outcome

        return asyncio.run(main())

    def take(self, action, number=None, **options):
        """The first `number` items of an iterator; closes it then."""

        def plain(client):
            with contextlib.closing(action(client)) as items:
                return [item for _, item in zip(range(number or sys.maxsize), items)]  # noqa: B905

        async def asynchronous(client):
            taken = []
            async with contextlib.aclosing(action(client)) as items:
                async for item in items:
                    taken.append(item)
                    if len(taken) == number:
                        break
            return taken

        return self.run(plain if self.kind == "blocking" else asynchronous, **options)
