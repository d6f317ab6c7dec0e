"""kill -9 at the points that the server's sources mark (server/base/failpoint.h), each in the midst of a job of the real server."""

import collections
import contextlib
import dataclasses
import re
import time

import valuescope as vs
from conftest import BUILD, ROOT
from job_sites import Site, connected
from job_sweeps import EVERY_CHUNK, artifacts_of

PROGRAM = BUILD / "tests" / "jobs" / "valuescope-server-with-failpoints"
UNITS = 800
PATIENCE = 120  # seconds
# So that what lost its name is looked for while the job runs.
FLAGS = [*EVERY_CHUNK, "--keep_orphaned_blobs=1s"]
CHUNK = "chunk_done"


def names_in_sources():
    return {
        name
        for source in (ROOT / "server").rglob("*.cc")
        for name in re.findall(r'VS_FAILPOINT\("(\w+)"\)', source.read_text())
    }


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    artifacts: dict
    reached: collections.Counter  # how often each point was


class Lives:
    """Servers of one store after the other, and what they note of the points that they reach."""

    def __init__(self, site):
        self.site, self.trace = site, site.folder / "trace"

    def start(self, failpoint=None):
        environment = {"VALUESCOPE_FAILPOINT_TRACE": str(self.trace)}
        if failpoint:
            environment["VALUESCOPE_FAILPOINT"] = failpoint
        return self.site.start(environment=environment, program=PROGRAM)

    def reached(self):
        return collections.Counter(self.trace.read_text().split() if self.trace.exists() else [])


def undisturbed(folder, sweep, database):
    with Site(folder, database, FLAGS) as site:
        lives = Lives(site)
        server = lives.start()
        with connected(server) as client:
            job = client.create_job(sweep.spec(client, UNITS))
            made = client.wait_for_job(job.name)
            artifacts = artifacts_of(client, made.name)
            # What the job let go of is removed behind it.
            until = time.monotonic() + 10
            while "orphan_removed" not in lives.reached() and time.monotonic() < until:
                time.sleep(0.1)
        assert server.stop() == 0
        return Undisturbed(artifacts, lives.reached())


def await_death(server):
    until = time.monotonic() + PATIENCE
    while server.running():
        assert time.monotonic() < until, "the point was not reached"
        time.sleep(0.02)


def die_at(folder, sweep, database, plain, point):
    """How many chunks ran again of a job whose server died at the point, in the middle of how often it is reached."""
    count = (plain.reached[point] + 1) // 2
    with Site(folder, database, FLAGS) as site:
        lives = Lives(site)
        first = lives.start(f"{point}:{count}")
        job = None
        # Some points come before anybody can ask for a job.
        with contextlib.suppress(vs.Unavailable), connected(first) as client:
            job = client.create_job(sweep.spec(client, UNITS)).name
        await_death(first)
        site.leases_end()
        second = lives.start()
        with connected(second) as client:
            job = job or client.create_job(sweep.spec(client, UNITS)).name
            made = client.wait_for_job(job)
            assert artifacts_of(client, job) == plain.artifacts, f"{point}: other bytes"
            assert made.rescues <= 1, f"{point}: {made.rescues} rescues"
        assert second.stop() == 0
        return lives.reached()[CHUNK] - plain.reached[CHUNK]


def check_failpoints(report, folder, sweeps, databases, every):
    """`every`: whether all points are reached by these kinds."""
    if not PROGRAM.exists():
        built = f"ninja -C {BUILD.name} {PROGRAM.name}"
        report.row("failpoints", "", f"{PROGRAM.name} is not built: {built}", holds=False)
        return
    names = names_in_sources()
    for store, database in databases.items():
        died_at = set()
        for sweep in sweeps:
            plain = undisturbed(folder / f"{store}-{sweep.name}", sweep, database)
            points = sorted(names & set(plain.reached))
            again = {
                point: die_at(
                    folder / f"{store}-{sweep.name}-{point}", sweep, database, plain, point
                )
                for point in points
            }
            died_at |= set(points)
            worst = max(again, key=again.get)
            report.row(
                "failpoints",
                f"{sweep.name}, {store}",
                f"died at {len(points)} points, the bytes of the undisturbed job each time; most chunks run again {again[worst]} "
                f"(at {worst})",
                again[worst] <= 1,
            )
        missed = names - died_at
        if every:
            told = f"{len(died_at)} of {len(names)}; not reached: {', '.join(sorted(missed)) or 'none'}"
            report.row("failpoints", f"all points, {store}", told, not missed)
