"""Servers whose blobs lie in an S3 store: the same bytes as in a directory, through kills and refusals."""

import json
import subprocess
import sys
import time

import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server, await_true
from test_shared_store import LOAD, MODEL, Database, each_once, results
from test_shared_store import submit as submit_some
from valuescope import v1

RESPONSES = 480

SECRET = "secret/+key"
CREDENTIALS = f"[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = {SECRET}\n"


class FakeS3:
    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "store" / "fake_s3.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.endpoint = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self.credentials = folder / "credentials"
        self.credentials.write_text(CREDENTIALS)

    def tell(self, do, **order):
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def flags(self, folder, prefix):
        return [
            f"--artifacts=s3://values/{prefix}",
            f"--s3_endpoint={self.endpoint}",
            f"--s3_credentials_file={self.credentials}",
            f"--scratch={folder / 'scratch'}",
        ]

    def stop(self):
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    fake = FakeS3(tmp_path_factory.mktemp("s3"))
    yield fake
    fake.stop()


@pytest.fixture(autouse=True)
def obedient(s3):
    yield
    s3.tell("rules")


def submit(client):
    return submit_some(client, RESPONSES)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The results of the job on a server whose blobs lie in a directory."""
    server = Server(tmp_path_factory.mktemp("directory"), *LOAD)
    with server.client(MODEL) as client:
        done = results(client, client.wait_for_job(submit(client).name).name)
    assert server.stop() == 0
    return done


def test_a_job_that_was_killed_ends_with_the_bytes_of_a_directory(s3, expected, tmp_path):
    flags = [*LOAD, *s3.flags(tmp_path, "killed")]
    server = Server(tmp_path, *flags)
    with server.client(MODEL) as client:
        job = submit(client).name
        s3.tell("rule", method="PUT", how="hold")
        assert s3.tell("held"), "the job sends its results"
        server.kill()
        s3.tell("release")
    s3.tell("rule", method="*", how="error", status=503, code="SlowDown", times=4)
    server = Server(tmp_path, *flags)
    with server.client(MODEL) as client:
        client.wait_for_job(job)
        finished = client.job(job)
        assert finished.progress.done == RESPONSES
        assert finished.rescues == 1
        assert results(client, job) == expected
        page = server.metrics()
    assert server.stop() == 0
    keys = s3.tell("keys")
    assert all(key.startswith("killed/") for key in keys)
    assert len(keys) >= len(expected)
    assert 'valuescope_s3_request_duration_seconds_count{code="200",operation="put"}' in page
    assert 'valuescope_s3_request_duration_seconds_count{code="503"' in page
    assert 'valuescope_s3_sent_bytes_total{operation="put"}' in page
    assert SECRET not in server.log.read_text()
    assert not any((tmp_path / "scratch").iterdir())


def test_a_job_that_waits_for_s3_is_cancelled_and_drained_at_once(s3, tmp_path):
    server = Server(tmp_path, *LOAD, *s3.flags(tmp_path, "silent"))
    with server.client(MODEL) as client:
        first, second = submit(client).name, submit(client).name
        s3.tell("rule", method="PUT", how="hang", times=1000)
        assert s3.tell("held"), "the first job sends its results"
        began = time.monotonic()
        client.cancel_job(first)
        await_true(lambda: client.job(first).state == v1.JOB_STATE_CANCELLED, seconds=10)
        assert time.monotonic() - began < 4
        assert s3.tell("held", count=2), "and the second does"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 6
    s3.tell("rules")
    s3.tell("release")
    server = Server(tmp_path, *LOAD, *s3.flags(tmp_path, "silent"))
    with server.client(MODEL) as client:
        client.wait_for_job(second)
        assert client.job(second).rescues == 0, "its lease was given back"
    assert server.stop() == 0


def test_what_s3_refuses_has_a_clear_reason_and_is_done_afterwards(s3, expected, tmp_path):
    server = Server(tmp_path, *LOAD, *s3.flags(tmp_path, "refused"))
    with server.client(MODEL) as client:
        for status, code, reason in [
            (403, "AccessDenied", "STORAGE_REFUSED"),
            (507, "XMinioStorageFull", "STORAGE_FULL"),
        ]:
            s3.tell("rules")
            job = submit(client).name
            s3.tell("rule", method="PUT", how="error", status=status, code=code, times=1000)
            with pytest.raises(vs.Unavailable) as refused:
                client.write_artifact([vs.labelled([3, 11], [5], True, "q")])
            assert refused.value.reason == reason
        with pytest.raises(vs.ValuescopeError):
            client.wait_for_job(job)
        failed = client.job(job)
        assert failed.state == v1.JOB_STATE_FAILED
        assert failed.error.reason == "STORAGE_FULL", failed.error
        assert failed.progress.done == RESPONSES, "what is done is kept"
        s3.tell("rules")
        client.retry_job(job)
        client.wait_for_job(job)
        assert results(client, job) == expected
    assert server.stop() == 0


def test_a_prefix_of_another_database_is_refused(s3, tmp_path):
    flags = [LOAD[0], "--models=", *s3.flags(tmp_path, "claimed")]
    (tmp_path / "first").mkdir()
    for _ in range(2):
        assert Server(tmp_path / "first", *flags).stop() == 0
    command = [
        str(BUILD / "server" / "valuescope-server"),
        "--listen=127.0.0.1:0",
        f"--store=sqlite:{tmp_path / 'second.db'}",
        *flags,
    ]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2, refused.stderr
    assert "--artifacts: the bytes there belong to the database" in refused.stderr
    assert "use another directory or prefix" in refused.stderr


def test_two_servers_share_a_bucket(s3, expected, tmp_path_factory):
    folder = tmp_path_factory.mktemp("db")  # the path of a socket must be short
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    database = Database(folder)
    url = f"postgresql://postgres@/postgres?host={folder}"
    servers = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        flags = s3.flags(folder / name, "shared")
        servers.append(Server(folder / name, *LOAD, f"--store={url}", *flags))
    with servers[0].client(MODEL) as first, servers[1].client(MODEL) as second:
        job = submit(first).name
        second.wait_for_job(job)
        assert each_once(list(zip(servers, (first, second), strict=True)), job)
        assert results(first, job) == results(second, job) == expected
    assert [server.stop() for server in servers] == [0, 0]
    database.stop()
