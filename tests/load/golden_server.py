"""A server of its own with one of the small golden models, from its readiness to its exit code."""

import contextlib
import pathlib
import sys
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from conftest import ROOT, Server
from offered_load import HEALTH, READINESS, SERVING


def await_true(condition, seconds):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.01)


@contextlib.contextmanager
def golden_server(directory, model, *flags):
    """One thread of computation: two would wait for each other beside a busy client."""
    folders = ROOT / "tests" / "golden" / "families"
    server = Server(
        directory, f"--model_root={folders}", f"--models={model}", "--threads=1", *flags
    )
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(HEALTH)
        await_true(lambda: check(READINESS) == SERVING, 60)
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
