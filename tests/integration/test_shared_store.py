"""Two servers on one PostgreSQL database: they share the shards of a job, also while the database crashes under them."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
import valuescope as vs
from conftest import ROOT, Server
from valuescope import v1

FAMILIES = ROOT / "tests" / "golden" / "families"
MODEL = "models/llama_tied"
LOAD = [f"--model_root={FAMILIES}", f"--models={MODEL.split('/')[1]}"]
RESPONSES = 1600


class Database:
    """PostgreSQL of these tests' own."""

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [ROOT / "tests" / "store" / "run_postgres", self.folder], start_new_session=True
        )
        deadline = time.monotonic() + 30
        while subprocess.run(["pg_isready", "-q", "-h", self.folder], check=False).returncode != 0:
            assert self._process.poll() is None, "the database did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self):
        """As a crash would: no process of it says goodbye, and what was not committed is gone."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def crash(self):
        self.stop()
        self.start()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    # The path of a socket must be short.
    folder = tmp_path_factory.mktemp("db")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    database = Database(folder)
    yield database
    database.stop()


@pytest.fixture(scope="module")
def replicas(database, tmp_path_factory):
    """Two servers with a client each."""
    folder = tmp_path_factory.mktemp("replicas")
    servers = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        url = f"postgresql://postgres@/postgres?host={database.folder}"
        servers.append(
            Server(folder / name, *LOAD, f"--store={url}", f"--artifacts={folder / 'blobs'}")
        )
    with servers[0].client(MODEL) as first, servers[1].client(MODEL) as second:
        yield list(zip(servers, (first, second), strict=True))
    assert [server.stop() for server in servers] == [0, 0]


def submit(client, count=RESPONSES):
    generator = np.random.default_rng(0)
    responses = [
        vs.labelled([3, 11], generator.integers(3, 90, 60).tolist(), index % 2 == 0, f"q{index}")
        for index in range(count)
    ]
    vector = client.create_vector(MODEL, [float(i) for i in range(36)], layers=[1])
    request = vs.attribution_request(MODEL, client.write_artifact(responses).name, vector.name)
    return client.create_job(v1.JobSpec(attribute_neurons=request))


def results(client, job):
    made = client.job(job).result.artifacts
    return {artifact.role: client.read_artifact(artifact.artifact) for artifact in made}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The results of the job on a server of its own with SQLite."""
    server = Server(tmp_path_factory.mktemp("embedded"), *LOAD)
    with server.client(MODEL) as client:
        done = results(client, client.wait_for_job(submit(client).name).name)
    assert server.stop() == 0
    return done


def steps(server, job):
    """The steps of a job that a server committed: shards, and -1 for the merge."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [
        line["shard"]
        for line in lines
        if line["event"] == "shard" and line["code"] == "OK" and line["job"] == job.split("/")[1]
    ]


def each_once(replicas, job):
    """Whether every step of the job was committed by one server, once."""
    steps_of_all = sorted(step for server, _ in replicas for step in steps(server, job))
    return steps_of_all == list(range(-1, replicas[0][1].job(job).progress.shards_total))


def test_two_servers_share_the_shards_of_a_job(replicas, embedded):
    (_, first), (_, second) = replicas
    job = submit(first).name
    done = [state.progress.done for state in second.watch_job(job)]
    assert done == sorted(done)
    assert done[-1] == RESPONSES
    assert len(set(done)) > 3, "the other server's progress is watched while it goes on"
    assert all(steps(server, job) for server, _ in replicas)
    assert each_once(replicas, job)
    assert results(second, job) == embedded


def test_a_crash_of_the_database_in_the_middle_loses_nothing(replicas, database, embedded):
    (_, first), (_, second) = replicas
    job = submit(first).name
    for state in second.watch_job(job):
        if state.progress.shards_done >= 3:
            break
    before = second.job(job).progress.shards_done
    database.crash()
    after = second.job(job)
    assert before <= after.progress.shards_done
    assert after.state == v1.JOB_STATE_RUNNING, "the crash came too late"
    second.wait_for_job(job)
    finished = second.job(job)
    assert finished.progress.done == RESPONSES
    assert finished.rescues == 0
    assert each_once(replicas, job)
    assert results(first, job) == embedded
