"""Several servers on one PostgreSQL database, which crashes and whose connections are cut; and requests that are sent many times."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import time
import uuid

import valuescope as vs
from conftest import await_true
from cutting_proxy import CuttingProxy
from job_sites import Site, committed, connected
from job_sweeps import artifacts_of
from killed_jobs import undisturbed
from valuescope import v1

CUT_SHARE = 0.01  # of the pieces that pass


def assert_each_once(servers, job):
    """Every shard of a finished job, and its merge, was committed by one server, once."""
    wanted = {(job.name.split("/")[1], s) for s in range(-1, job.progress.shards_total)}
    # Who asks may hear of a commit before the server that made it writes its line.
    await_true(lambda: wanted <= set(committed(servers, job.name)))
    counts = committed(servers, job.name)
    assert dict(counts) == dict.fromkeys(wanted, 1), counts


@dataclasses.dataclass
class Replicas:
    """Two servers on one database, ready, with a client each; the second one reaches it through the socket in `socket`."""

    site: Site
    socket: object = None

    def __enter__(self):
        self.servers = [
            self.site.start(name="first"),
            self.site.start(name="second", socket=self.socket),
        ]
        self.clients = [connected(server) for server in self.servers]
        return self

    def __exit__(self, kind, *_):
        for client in self.clients:
            client.close()
        codes = [server.stop() for server in self.servers]
        assert kind or codes == [0, 0]


def run_among_crashes(two, database, proxy, sweep, plain, crashes, cuts):
    """Jobs, one after the other, until the database crashed and connections were cut as often as that; returns how often."""
    spec, done, before = sweep.spec(two.clients[0], plain.units), 0, proxy.cuts
    while done < crashes or proxy.cuts - before < cuts:
        job, seen = two.clients[0].create_job(spec).name, 0
        for state in two.clients[1].watch_job(job):
            assert state.progress.done >= seen, "progress fell"
            seen = state.progress.done
            if done < crashes and seen > plain.units * (done % 3 + 1) / 5:
                database.crash()
                done += 1
        made = two.clients[0].job(job)
        assert made.state == v1.JOB_STATE_SUCCEEDED, made
        assert_each_once(two.servers, made)
        assert artifacts_of(two.clients[1], job) == plain.artifacts, "other bytes"
    return done, proxy.cuts - before


def check_database(report, folder, sweep, database, crashes, units):
    """The database crashes now and then, and connections of one of two servers are cut all the time."""
    plain = undisturbed(folder / "plain", sweep, units)
    with (
        Site(folder / "crashes", database) as site,
        CuttingProxy(folder / "cut", database.folder, CUT_SHARE) as proxy,
        Replicas(site, proxy.folder) as two,
    ):
        crashed, cut = run_among_crashes(two, database, proxy, sweep, plain, crashes, 20 * crashes)
    report.row(
        "database",
        sweep.name,
        f"{crashed} crashes of the database and {cut} cut connections: every step committed once, bytes equal",
        crashed >= crashes,
    )


def check_replicas(report, folder, sweep, database, jobs, units):
    with Site(folder / "replicas", database) as site, Replicas(site) as two:
        spec = sweep.spec(two.clients[0], units)
        began = time.monotonic()
        names = [client.create_job(spec).name for client, _ in zip(itertools.cycle(two.clients), range(jobs), strict=False)]  # fmt: skip
        made = [two.clients[0].wait_for_job(name) for name in names]
        seconds = time.monotonic() - began
        for job in made:
            assert_each_once(two.servers, job)
        assert len({tuple(artifacts_of(two.clients[1], name).values()) for name in names}) == 1
        shares = [sum(committed([server]).values()) for server in two.servers]
    report.row(
        "replicas",
        f"{jobs} jobs of {units} units",
        f"all succeeded, {sum(shares)} steps committed once each, {shares[0]} by one server and {shares[1]} by the other; "
        f"{sum(shares) / seconds:.0f} steps/s",
        min(shares) > 0,
    )


def created(clients, spec, request_id, count, threads):
    """The names of the jobs that so many requests of one id were told."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

        def create(index):
            client = clients[index % len(clients)]
            return client.create_job(spec, request_id=request_id).name

        return set(pool.map(create, range(count)))


def check_once(report, folder, sweep, databases, count):
    for name, database in databases.items():
        with contextlib.ExitStack() as stack:
            site = stack.enter_context(Site(folder / f"once-{name}", database))
            names = ["first", "second"] if database else ["server"]
            servers = [site.start(name=each) for each in names]
            clients = [stack.enter_context(connected(server)) for server in servers]
            spec, request_id = sweep.spec(clients[0], 16), str(uuid.uuid4())
            before = {job.name for job in clients[0].jobs()}
            told = created(clients, spec, request_id, count, threads=16)
            there = {job.name for job in clients[0].jobs()} - before
            assert told == there, f"{len(there)} jobs"
            assert len(told) == 1
            try:
                clients[-1].create_job(sweep.spec(clients[0], 17), request_id=request_id)
                code = "none"
            except vs.ValuescopeError as error:
                code = error.code.name
            clients[0].wait_for_job(told.pop())
        report.row(
            "once",
            f"{count} requests of 16 threads, {name}",
            f"one job; another request with the id: {code}",
            code == "ALREADY_EXISTS",
        )
