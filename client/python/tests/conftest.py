"""Puts the package of this checkout on the path, its stubs fresh, and gives the fixtures."""

import concurrent.futures
import pathlib
import subprocess
import sys

import grpc
import pytest

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
subprocess.run([sys.executable, str(PACKAGE / "generate_stubs.py")], check=True)
sys.path.insert(0, str(PACKAGE))

from fake_server import Both, FakeServer  # noqa: E402


@pytest.fixture
def fake():
    handler = FakeServer()
    with concurrent.futures.ThreadPoolExecutor(64) as threads:
        server = grpc.server(threads, options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((handler,))
        handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield handler
        server.stop(0).wait()


@pytest.fixture(params=["blocking", "asyncio"])
def both(request, fake):
    return Both(request.param, fake.address)
