"""kill -9 at the points that the server's sources mark (server/base/failpoint.h), each in the midst of a job of the real server."""

import collections
import contextlib
import dataclasses
import re
import time

import valuescope as vs
from conftest import BUILD, CACHE, ROOT
from conftest import MODEL as LANGUAGE_MODEL
from job_sites import Site, connected
from job_sweeps import EVERY_CHUNK, FAMILIES, MODEL, SWEEPS, artifacts_of, attribution

PROGRAM = BUILD / "tests" / "jobs" / "valuescope-server-with-failpoints"
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


@dataclasses.dataclass(frozen=True)
class Kind:
    """Jobs of a kind, of so many units, on a model beneath a root."""

    name: str
    spec: object  # of client and units
    units: int
    root: object = FAMILIES
    model: str = MODEL

    def create(self, client):
        return client.create_job(self.spec(client, self.units)).name


KINDS = [Kind(sweep.name, sweep.spec, units=400) for sweep in SWEEPS]
# Sums over neurons that are too large for a row.
KINDS.append(
    Kind(
        "attribute_neurons of a larger model",
        lambda client, units: attribution(client, units, LANGUAGE_MODEL),
        units=64,
        root=CACHE / "models",
        model=LANGUAGE_MODEL,
    )
)


class Lives:
    """Servers of one store after the other, and what they note of the points that they reach."""

    def __init__(self, site, kind):
        self.site, self.kind, self.trace = site, kind, site.folder / "trace"

    def start(self, failpoint=None):
        environment = {"VALUESCOPE_FAILPOINT_TRACE": str(self.trace)}
        if failpoint:
            environment["VALUESCOPE_FAILPOINT"] = failpoint
        return self.site.start(
            root=self.kind.root,
            models=self.kind.model.split("/")[1],
            environment=environment,
            program=PROGRAM,
        )

    def connected(self, server):
        return connected(server, model=self.kind.model)

    def reached(self):
        return collections.Counter(self.trace.read_text().split() if self.trace.exists() else [])


def undisturbed(folder, kind, database):
    with Site(folder, database, FLAGS) as site:
        lives = Lives(site, kind)
        server = lives.start()
        with lives.connected(server) as client:
            made = client.wait_for_job(kind.create(client))
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


def die_at(folder, kind, database, plain, point):
    """How many chunks ran again of a job whose server died at the point, in the middle of how often it is reached."""
    count = (plain.reached[point] + 1) // 2
    with Site(folder, database, FLAGS) as site:
        lives = Lives(site, kind)
        first = lives.start(f"{point}:{count}")
        job = None
        # Some points come before anybody can ask for a job.
        with contextlib.suppress(vs.Unavailable), lives.connected(first) as client:
            job = kind.create(client)
        await_death(first)
        site.leases_end()
        second = lives.start()
        with lives.connected(second) as client:
            job = job or kind.create(client)
            made = client.wait_for_job(job)
            assert artifacts_of(client, job) == plain.artifacts, f"{point}: other bytes"
            assert made.rescues <= 1, f"{point}: {made.rescues} rescues"
        assert second.stop() == 0
        return lives.reached()[CHUNK] - plain.reached[CHUNK]


def check_failpoints(report, folder, databases, small):
    """`small`: of one kind alone, which does not reach all points."""
    if not PROGRAM.exists():
        built = f"ninja -C {BUILD.name} {PROGRAM.name}"
        report.row("failpoints", "", f"{PROGRAM.name} is not built: {built}", holds=False)
        return
    names = names_in_sources()
    for store, database in databases.items():
        died_at = set()
        for kind in KINDS[:1] if small else KINDS:
            plain = undisturbed(folder / f"{store}-{kind.name}", kind, database)
            points = sorted(names & set(plain.reached))
            again = {
                point: die_at(folder / f"{store}-{kind.name}-{point}", kind, database, plain, point)
                for point in points
            }
            died_at |= set(points)
            worst = max(again, key=again.get)
            report.row(
                "failpoints",
                f"{kind.name}, {store}",
                f"died at {len(points)} points, the bytes of the undisturbed job each time; most chunks run again {again[worst]} "
                f"(at {worst})",
                again[worst] <= 1,
            )
        missed = names - died_at
        if not small:
            told = f"{len(died_at)} of {len(names)}; not reached: {', '.join(sorted(missed)) or 'none'}"
            report.row("failpoints", f"all points, {store}", told, not missed)
