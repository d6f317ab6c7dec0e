"""Two servers on one PostgreSQL database: they share the shards of a job, also while the database crashes under them."""

import contextlib
import json
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server, await_true
from valuescope import v1

FAMILIES = ROOT / "tests" / "golden" / "families"
MODEL = "models/llama_tied"
LOAD = [f"--model_root={FAMILIES}", f"--models={MODEL.split('/')[1]}"]
RESPONSES = 1600


class Database:
    """PostgreSQL of these tests' own."""

    port = 5432
    options = ()  # of the server

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [
                ROOT / "tests" / "store" / "run_postgres",
                self.folder,
                *(word for option in self.options for word in ("-c", option)),
            ],
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        ready = ["pg_isready", "-q", "-h", self.folder, "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
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

    def script(self, sql):
        """The rows that a statement gives, as text."""
        where = ["-h", self.folder, "-p", str(self.port), "-U", "postgres", "postgres"]
        told = subprocess.check_output(["psql", "-qAt", *where, "-c", sql], text=True)
        return told.splitlines()


@contextlib.contextmanager
def own_database(tmp_path_factory):
    # Of a short path, which a socket wants, and open to PostgreSQL's own user.
    folder = tmp_path_factory.mktemp("db")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    database = Database(folder)
    yield database
    database.stop()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with own_database(tmp_path_factory) as database:
        yield database


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


def test_a_watcher_goes_on_at_the_other_server_where_it_was(replicas):
    (_, first), (_, second) = replicas
    job = submit(first).name
    changes = []
    for change in first.follow_job(job):
        changes.append(change)
        if change.job.progress.done > 0:
            break
    changes += second.follow_job(job, last_revision=changes[-1].job.revision)
    revisions = [change.job.revision for change in changes]
    assert revisions == sorted(set(revisions))
    assert [t.state for change in changes for t in change.transitions] == [
        v1.JOB_STATE_QUEUED,
        v1.JOB_STATE_RUNNING,
        v1.JOB_STATE_SUCCEEDED,
    ]
    statistics = {one.name: one.value for one in changes[-1].job.progress.statistics}
    assert statistics["num_expressing"] == RESPONSES / 2
    assert first.job(job).revision == second.job(job).revision == revisions[-1]


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


def test_who_asks_a_server_for_a_model_that_another_has_is_told_which(replicas):
    (first_server, first), (second_server, second) = replicas
    await_true(lambda: all(known.models for known in first.replicas()))
    first.unload_model(MODEL)
    try:
        for ask in (
            lambda: first.generate(MODEL, [3, 11], max_tokens=1),
            lambda: submit(first, count=4),
        ):
            with pytest.raises(vs.ValuescopeError) as refused:
                ask()
            assert refused.value.reason == "MODEL_NOT_LOADED"
            assert named(second_server) in str(refused.value)
            assert named(first_server) not in str(refused.value)
        assert second.generate(MODEL, [3, 11], max_tokens=1).completions
    finally:
        first.load_model(MODEL)
    await_true(lambda: all(known.models for known in second.replicas()))


def named(server):
    """The server's name among those that share its store: the host's and the port."""
    return f"{socket.gethostname()}:{server.address.rsplit(':', 1)[1]}"


def test_each_server_knows_what_the_others_have_loaded(replicas):
    (first_server, first), (second_server, second) = replicas
    names = sorted([named(first_server), named(second_server)])
    for client in (first, second):
        # What a server has just loaded is told within a moment.
        await_true(lambda client=client: all(known.models for known in client.replicas()))
        known = client.replicas()
        assert [replica.name for replica in known] == names
        for replica in known:
            assert "attribute_neurons" in replica.kinds
            (loaded,) = replica.models
            assert (loaded.model, loaded.replica) == (MODEL, replica.name)
            assert loaded.state == v1.MODEL_STATE_READY
            assert loaded.weights_digest == client.model(MODEL).weights_digest
            assert loaded.determinism == "bitwise on cpu float32"
        assert sorted(has.replica for has in client.model(MODEL).replicas) == names
        assert names[0] in known._repr_html_()
    program = [BUILD / "client" / "cpp" / "valuescope", "--server", first_server.address]
    table = subprocess.check_output([*program, "replicas"], text=True).splitlines()
    assert [line.split()[0] for line in table[1:]] == names
    assert all(MODEL in line and "float32" in line for line in table[1:])
    models = subprocess.check_output([*program, "models", "list", "--all_replicas"], text=True)
    (row,) = [line.split() for line in models.splitlines() if line.startswith(MODEL + " ")]
    assert row[-1] == ",".join(names)


def test_a_job_waits_for_a_server_that_computes_as_the_one_it_was_created_on(
    replicas, database, tmp_path
):
    (_, first), _ = replicas
    url = f"postgresql://postgres@/postgres?host={database.folder}"
    blobs = replicas[0][0].log.parent.parent / "blobs"
    flags = [*LOAD, f"--store={url}", f"--artifacts={blobs}", "--dtype=bfloat16"]
    flags += ["--replica_name=halves"]
    halves = Server(tmp_path, *flags)
    with halves.client(MODEL) as client:
        assert "halves" in [replica.name for replica in first.replicas()]
        job = submit(client).name
    assert halves.stop() == 0
    waiting = next(state for state in first.watch_job(job) if state.waiting_for)
    assert waiting.state in (v1.JOB_STATE_QUEUED, v1.JOB_STATE_RUNNING)
    assert "computes in another way (FLOAT32" in waiting.waiting_for
    assert "none of the servers that share the store (2) can run it" in waiting.waiting_for
    assert "halves" not in [replica.name for replica in first.replicas()]
    again = Server(tmp_path, *flags)
    assert first.wait_for_job(job).state == v1.JOB_STATE_SUCCEEDED
    assert again.stop() == 0
    assert not any(steps(server, job) for server, _ in replicas)
