"""What tests/load/check_jobs.py shows at length, in brief: servers that share a store and lose its connections, sleep beyond a lease or are asked the same
many times, and files that may not grow."""

import datetime
import itertools
import sys
import uuid

import pytest
import valuescope as vs
from conftest import ROOT
from valuescope import v1

sys.path.insert(0, str(ROOT / "tests" / "load"))
from cutting_proxy import CuttingProxy
from full_disks import FULL, files_may_not_grow, refusal
from golden_server import golden_server
from job_sites import MovedDatabase, Site, connected, steps
from job_sweeps import EVERY_CHUNK, ID, MODEL, SWEEPS, artifacts_of, attribution
from killed_jobs import stop_beyond_the_lease, undisturbed
from shared_jobs import CUT_SHARE, Replicas, assert_each_once, created, run_among_crashes

UNITS = 1280
SWEEP = SWEEPS[0]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    # The path of a socket must be short.
    database = MovedDatabase(tmp_path_factory.mktemp("db") / "d")
    yield database
    database.stop()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, database):
    with CuttingProxy(tmp_path_factory.mktemp("cut") / "s", database.folder, CUT_SHARE) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("plain"), SWEEP, UNITS)


@pytest.fixture(scope="module")
def two(tmp_path_factory, database, proxy):
    with Site(tmp_path_factory.mktemp("two"), database, EVERY_CHUNK) as site:
        with Replicas(site, proxy.folder) as two:
            yield two


def test_cut_connections_lose_and_double_nothing(two, database, proxy, plain):
    run_among_crashes(two, database, proxy, SWEEP, plain, crashes=0, cuts=10)


def test_requests_of_one_id_make_one_job_on_two_servers(two):
    spec, request_id = attribution(two.clients[0], 16), str(uuid.uuid4())
    names = created(two.clients, spec, request_id, count=64, threads=16)
    assert len(names) == 1
    with pytest.raises(vs.ValuescopeError) as refused:
        two.clients[1].create_job(attribution(two.clients[1], 17), request_id=request_id)
    assert refused.value.code.name == "ALREADY_EXISTS"
    two.clients[0].wait_for_job(names.pop())


def test_who_slept_beyond_its_lease_is_refused_and_another_one_ends_the_job(two, plain):
    first, second = two.servers
    two.clients[1].unload_model(MODEL, force=True)
    spec = SWEEP.spec(two.clients[0], UNITS)
    job, refused, _ = stop_beyond_the_lease(two.site, first, second, spec, two.site.leases_end)
    assert refused
    made = two.clients[1].job(job)
    assert made.state == v1.JOB_STATE_SUCCEEDED
    assert made.rescues > 0
    assert artifacts_of(two.clients[1], job) == plain.artifacts
    assert_each_once(two.servers, made)


def test_several_workers_of_a_server_run_shards_at_a_time_and_come_to_the_same_bytes(
    tmp_path, plain
):
    with Site(tmp_path, flags=["--job_workers=3"]) as site:
        server = site.start()
        with connected(server) as client:
            job = client.wait_for_job(client.create_job(SWEEP.spec(client, UNITS)).name)
            assert artifacts_of(client, job.name) == plain.artifacts
        assert server.stop() == 0
        assert_each_once([server], job)
        spans = []
        for step in steps(server, job.name):
            end = datetime.datetime.fromisoformat(step["time"]).timestamp()
            spans.append((end - step["seconds"], end))
        spans.sort()
        assert any(begin < end for (_, end), (begin, _) in itertools.pairwise(spans))


def test_files_that_may_not_grow_are_told_and_the_server_goes_on(tmp_path):
    with golden_server(tmp_path, ID) as server, connected(server) as client:
        with files_may_not_grow(server):
            assert refusal(server, bytes(1 << 20)) == FULL
        assert refusal(server, bytes(1 << 20)) == ""
        client.wait_for_job(client.create_job(attribution(client, 16)).name)
