"""kill -9 at every point at which a server lets itself be killed (server/base/failpoint.h): the job ends with the bytes of an undisturbed one, and no life
computes more than one chunk again. Such points are in builds that ask for them, as that of tests/run --thorough does."""

import collections
import re
import sys

import pytest
from conftest import BUILD, ROOT

sys.path.insert(0, str(ROOT / "tests" / "load"))
from job_sites import MovedDatabase, Site, connected
from job_sweeps import EVERY_CHUNK, artifacts_of, attribution

BINARY = BUILD / "server" / "valuescope-server"
NAMES = {
    name
    for source in (ROOT / "server").rglob("*.cc")
    for name in re.findall(r'VS_FAILPOINT\("(\w+)"\)', source.read_text())
}
BUILT_IN = b"VALUESCOPE_FAILPOINT" in BINARY.read_bytes()
UNITS = 1024  # 32 shards of two chunks each

# When each is to come to pass, so that the shard that its life dies of got on before: one that three lives die of fails its job. What
# the sweep reaches comes before any shard.
WORK = {
    "leased": 2,
    "chunk_done": 2,
    "partial_put_aside": 2,
    "blob_synced": 2,
    "partial_is_blob": 3,
    "commit_begins": 2,
    "committed": 1,
    "shard_done": 2,
}
SWEEP = {"scanned": 1, "orphans_taken": 1, "orphan_removed": 1}
MERGE = {"merging": 20, "artifacts_written": 1, "job_succeeded": 1}


def test_a_server_that_was_built_without_them_has_no_trace_of_them():
    cache = (BUILD / "CMakeCache.txt").read_text()
    assert BUILT_IN == ("VALUESCOPE_FAILPOINTS:BOOL=ON" in cache)
    binary = BINARY.read_bytes()
    found = {name for name in NAMES if b"\0" + name.encode() + b"\0" in binary}
    assert found == (NAMES if BUILT_IN else set())
    assert (b"ReachFailpoint" in binary) == BUILT_IN


def lives():
    """Points, each with its count, in the order in which lives end at them."""
    sweep = list(SWEEP.items())
    for index, point in enumerate(WORK.items()):
        yield point
        if index % 2 == 1 and sweep:
            yield sweep.pop(0)
    yield from MERGE.items()


class Trace:
    """The points that servers reached."""

    def __init__(self, folder):
        self._file = folder / "trace"
        self.environment = {"VALUESCOPE_FAILPOINT_TRACE": str(self._file)}

    def counts(self):
        return collections.Counter(self._file.read_text().split())

    def chunks(self):
        counts = self.counts()
        return counts["chunk_done"] + counts["shard_done"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The artifacts of the job, and its chunks."""
    folder = tmp_path_factory.mktemp("undisturbed")
    trace = Trace(folder)
    with Site(folder, flags=EVERY_CHUNK) as site:
        server = site.start(environment=trace.environment)
        with connected(server) as client:
            job = client.wait_for_job(client.create_job(attribution(client, UNITS)).name)
            return artifacts_of(client, job.name), trace.chunks()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path_factory):
    if request.param == "sqlite":
        yield None
        return
    database = MovedDatabase(tmp_path_factory.mktemp("db") / "d")
    yield database
    database.stop()


@pytest.mark.skipif(not BUILT_IN, reason="this server was built without failpoints")
def test_a_job_survives_a_kill_at_every_point(tmp_path, database, undisturbed):
    artifacts, chunks = undisturbed
    trace = Trace(tmp_path)
    with Site(tmp_path, database, EVERY_CHUNK) as site:
        server = site.start()
        with connected(server) as client:
            job = client.create_job(attribution(client, UNITS)).name
            server.kill()
        kills = list(lives())
        assert {name for name, _ in kills} == NAMES
        for name, count in kills:
            site.leases_end()
            at = {"VALUESCOPE_FAILPOINT": f"{name}:{count}"}
            site.start(environment=trace.environment | at)._process.wait(60)
        assert trace.counts().keys() == NAMES
        site.leases_end()
        server = site.start(environment=trace.environment)
        with connected(server) as client:
            made = client.wait_for_job(job)
            assert artifacts_of(client, job) == artifacts
        assert server.stop() == 0
    assert made.rescues <= len(kills)
    assert chunks <= trace.chunks() <= chunks + len(kills)
