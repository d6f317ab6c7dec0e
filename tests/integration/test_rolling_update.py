"""Servers that share a store are replaced one by one by those of a next version, and nobody notices.

The next version (tests/next_version) has a kind of jobs, fields in its records and a format of the store that this version's servers do not know.
"""

import contextlib
import hashlib
import sys
import threading

import pytest
import valuescope as vs
from conftest import ROOT, Server, await_true
from test_shared_store import own_database
from valuescope import v1

sys.path.insert(0, str(ROOT / "tests" / "load"))
from job_sites import committed, steps
from job_sweeps import FAMILIES, MODEL, artifacts_of, texts, vector
from shared_jobs import assert_each_once

NEXT = "tests/valuescope-server-next"
EXTRA, EXTRA_MODEL = "count_letters", "models/mistral"  # what the next version's jobs are and need
FLAGS = [f"--model_root={FAMILIES}", f"--models={MODEL.split('/')[1]}", "--threads=1", "--job_commit_interval=0s"]  # fmt: skip
POINTS = 96  # of the sweep, beside the baseline; and twice as many of random directions

pytestmark = pytest.mark.filterwarnings("ignore:.*")


def sweep(client):
    answers = vs.swept_responses(
        texts(32), judge=vs.WordList(["w1*", "w2*"]), samples_per_query=2, max_tokens=24, temperature=1.0, seed=3
    )  # fmt: skip
    spec = vs.sweep_spec(
        MODEL,
        vectors=vector(client),
        layers=[0, 1, 2],
        coefficients=[(i + 1) / 2 for i in range(POINTS // 3)],
        evaluations={"answers": answers},
        objective=("answers", "expressing_share"),
        random_directions=2,
    )
    return v1.JobSpec(steering_sweep=spec)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The artifacts of the sweep where nobody is replaced."""
    server = Server(tmp_path_factory.mktemp("undisturbed"), *FLAGS)
    with server.client(MODEL) as client:
        job = client.wait_for_job(client.create_job(sweep(client)).name)
        made = artifacts_of(client, job.name)
    assert server.stop() == 0
    return made


class Pool:
    """Servers over one store, and those of them whose addresses a name would tell: who is ready, and not yet told to stop."""

    def __init__(self, folder, database):
        self._folder = folder
        self._store = [
            f"--store=postgresql://postgres@/postgres?host={database.folder}",
            f"--artifacts={folder / 'blobs'}",
        ]
        self._lock = threading.Lock()
        self.servers, self.told = [], []

    def start(self, program="server/valuescope-server", environment=None):
        place = self._folder / str(len(self.servers))
        place.mkdir()
        server = Server(place, *FLAGS, *self._store, program=program, environment=environment)
        self.servers.append(server)
        server.client(MODEL).close()
        with self._lock:
            self.told = [*self.told, server]
        return server

    def replace(self, server, **started):
        """Starts another one, and then stops this one."""
        new = self.start(**started)
        with self._lock:
            self.told = [one for one in self.told if one is not server]
        assert server.stop() == 0
        return new

    def address(self):
        with self._lock:
            return "ipv4:" + ",".join(server.address for server in self.told)


class Users:
    """Threads that call whoever the pool's name tells, one call after the other, with the client's own retries and no others."""

    def __init__(self, pool, count=3):
        self._pool = pool
        self._stop = threading.Event()
        self.answers, self.errors = [], []
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]

    def _call(self):
        address, client = None, None
        with contextlib.ExitStack() as stack:
            while not self._stop.is_set():
                if address != self._pool.address():
                    address = self._pool.address()
                    client = stack.enter_context(vs.Client(address, timeout=60))
                try:
                    self.answers.append(self._answer(client))
                except Exception as error:
                    self.errors.append(error)

    def _answer(self, client):
        made = client.generate(MODEL, "w3 w11 w40", max_tokens=8, temperature=0.0)
        events = list(client.stream("models/qwen2", "w3 w11 w40", max_tokens=8, temperature=0.0))
        return (tuple(made.token_ids), len(events) > 0, client.model(MODEL).weights_digest)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def extra_job(client):
    (job,) = client.jobs(kind=EXTRA)
    return client.job(job.name)


def check_that_it_waits(old, new):
    """The next version's job, as servers of both versions tell it."""
    job = extra_job(old)
    assert job.state == extra_job(new).state == v1.JOB_STATE_QUEUED
    assert f"this version of the server has no jobs of kind {EXTRA}" in job.waiting_for
    assert "none of the servers that share the store (2) can run it" in job.waiting_for
    assert f"`{EXTRA_MODEL}`" in extra_job(new).waiting_for
    assert job.name in [one.name for one in old.jobs()]
    return job.name


def records(database, job):
    """Digests of what is stored of a job and its artifacts."""
    number = job.split("/")[1]
    kept = database.script(
        "SELECT md5(p.request) || md5(p.metadata) FROM job_payloads p JOIN jobs ON sequence = job"
        f" WHERE id = '{number}'"
    )
    return kept + database.script(
        f"SELECT md5(metadata) || id FROM resources WHERE job_id = '{number}'"
    )


def use_as_this_version_does(client, job):
    """Every look at a job of the next version, and at what it left, that this version has."""
    assert client.wait_for_job(job).state == v1.JOB_STATE_SUCCEEDED
    (made,) = client.job(job).result.artifacts
    assert client.read_artifact(made.artifact) == b"7"
    assert client.artifact(made.artifact).sha256 == hashlib.sha256(b"7").hexdigest()
    assert made.artifact in [one.name for one in client.artifacts(job=job)]
    assert [change.job.name for change in client.follow_job(job)][-1] == job


def test_servers_are_replaced_by_those_of_the_next_version_and_nobody_notices(
    tmp_path_factory, undisturbed
):
    with own_database(tmp_path_factory) as database:
        pool = Pool(tmp_path_factory.mktemp("pool"), database)
        first, second = pool.start(), pool.start()
        known, compatible = [
            database.script(f"SELECT {column} FROM store_format")[0]
            for column in ("version", "compatible_from")
        ]
        with Users(pool) as users, vs.Client(second.address) as second_client:
            job = second_client.create_job(sweep(second_client)).name
            await_true(lambda: second_client.job(job).progress.shards_done > 0)

            third = pool.replace(first, program=NEXT, environment={"VALUESCOPE_NEXT_JOB": "1"})
            assert database.script("SELECT version, compatible_from FROM store_format") == [
                f"{int(known) + 1}|{compatible}"
            ]
            with vs.Client(third.address) as third_client:
                extra = check_that_it_waits(second_client, third_client)
                # This version's servers may come too: a machine is lost, or the update is taken back.
                fourth = pool.replace(second)
                with vs.Client(fourth.address) as fourth_client:
                    assert check_that_it_waits(fourth_client, third_client) == extra
                    before = records(database, extra)
                    third_client.load_model(EXTRA_MODEL)
                    use_as_this_version_does(fourth_client, extra)
                    assert records(database, extra)[:1] == before
                    kept = records(database, extra)
                    assert len(kept) == 2
                    fourth_client.jobs(), fourth_client.artifacts()
                    assert records(database, extra) == kept
                    fourth_client.delete_job(extra)
                    assert database.script("SELECT count(*) FROM job_remarks") == ["0"]
            pool.replace(fourth, program=NEXT)
            with vs.Client(third.address) as client:
                finished = client.wait_for_job(job)
                assert artifacts_of(client, job) == undisturbed
        assert not users.errors, users.errors[:3]
        assert len(users.answers) > 50
        assert len(set(users.answers)) == 1
        assert_each_once(pool.servers, finished)
        shares = [sum(committed([server], job).values()) for server in pool.servers]
        assert sum(shares[:2]) > 0 and shares[2] > 0, f"{shares}: both versions work on the sweep"
        ran = [bool(steps(server, extra)) for server in pool.servers]
        assert ran == [False, False, True, False, False]
        assert [server.stop() for server in pool.told] == [0, 0]
