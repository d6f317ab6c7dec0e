"""Behind nginx, with grpc_pass and what deploy/README.md says to set: a real server on a tiny model, and Debian's nginx."""

import contextlib
import socket
import subprocess

import grpc
import pytest
import valuescope as vs
from callers import ONE, TINY
from conftest import CACHE, await_true
from valuescope import v1
from valuescope.v1 import jobs_pb2_grpc

PATIENCE = 1  # s, for what takes a minute by default
CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  {temporary}
  server {{
    listen 127.0.0.1:{port} http2;
    grpc_read_timeout {patience}s;
    {more}
    location / {{ grpc_pass grpc://{address}; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder, server, more=""):
    """The address of a proxy in front of the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    configuration = folder / f"nginx_{port}.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder, temporary=temporary, port=port, patience=PATIENCE, more=more,
            address=server.address,
        )
    )  # fmt: skip
    process = subprocess.Popen(
        [CACHE / "bin" / "nginx", "-c", configuration, "-p", folder, "-e", "stderr"],
        stderr=subprocess.PIPE,
        text=True,
    )

    def answers():
        assert process.poll() is None, process.stderr.read()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        await_true(answers)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def waiting_job(client):
    """One that another one keeps from beginning."""
    responses = [vs.labelled([1, 2, 3], [4, i % 30], bool(i % 2), f"q{i}") for i in range(8000)]
    artifact = client.write_artifact(responses).name
    spec = v1.JobSpec(extract_vectors=vs.extraction_request(ONE, artifact))
    running, waiting = (client.create_job(spec).name for _ in range(2))
    return running, waiting


def watched(address, job):
    """What a watcher who knows all of a job hears in three times the proxy's patience; its status where the proxy ends it."""
    heard = 0
    with grpc.insecure_channel(address) as channel:
        request = v1.WatchJobRequest(name=job, last_revision=1)
        stream = jobs_pb2_grpc.JobServiceStub(channel).WatchJob(request, timeout=3 * PATIENCE)
        try:
            for event in stream:
                heard += event.HasField("heartbeat")
        except grpc.RpcError as error:
            return heard, error.code()


def test_heartbeats_keep_a_silent_stream_and_without_them_the_proxy_ends_it(start_server, tmp_path):
    for name, heartbeat in (("often", "200ms"), ("seldom", "20s")):
        server = start_server(tmp_path / name, *TINY, f"--heartbeat={heartbeat}")
        with vs.Client(server.address) as client:
            client.wait_until_ready(ONE)
            jobs = waiting_job(client)
            with nginx(tmp_path / name, server) as address:
                heard, code = watched(address, jobs[1])
            for job in jobs:
                client.cancel_job(job)
        if name == "often":
            assert (heard >= 5, code) == (True, grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            assert (heard, code) == (0, grpc.StatusCode.UNAVAILABLE)
        assert server.stop() == 0


def test_errors_and_large_uploads_come_through(start_server, tmp_path):
    server = start_server(tmp_path, *TINY)
    responses = [vs.labelled([1, 2, 3], [4] * 500, True, f"q{i}") for i in range(2000)]
    with vs.Client(server.address) as client:
        client.wait_until_ready(ONE)
    with (
        nginx(tmp_path, server, more="client_max_body_size 0;") as address,
        vs.Client(address) as client,
    ):
        with pytest.raises(vs.ValuescopeError) as error:
            client.vector("vectors/unknown")
        assert error.value.code == grpc.StatusCode.NOT_FOUND
        assert error.value.reason
        assert error.value.request_id
        assert client.write_artifact(responses).size_bytes > 1 << 20
        assert client.generate(ONE, [1, 2], max_tokens=2).completions
    with nginx(tmp_path, server) as address, vs.Client(address) as client:
        with pytest.raises(vs.ValuescopeError):
            client.write_artifact(responses)
        assert client.models()
    assert server.stop() == 0
