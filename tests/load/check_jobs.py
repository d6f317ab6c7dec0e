"""Shows that jobs survive what a sweep of days meets: kill -9, servers that stand still, a database that crashes, full disks, clocks that jump.

    python check_jobs.py [--small] [--parts PART,...] [--kills 50] [--units 6000] [--commit_seconds 0] [--seed 1]

VALUESCOPE_BUILD is the build; models are tiny random ones, but for the users of the last part, who ask SmolLM2-135M-Instruct of
VALUESCOPE_CACHE or, --small, a tiny one too. Servers are processes, over SQLite and over a PostgreSQL of the check's own whose clock it moves.

  kills       so many kill -9, shared out among four kinds of jobs and both stores, at moments drawn with the seed: artifacts have the bytes of
              the undisturbed job's, and of what a life did at most a shard, or what a server does between two commits, runs again
  failpoints  one kill -9 at every point that the sources mark (VS_FAILPOINT), for each kind that reaches it and both stores: the same bytes, and
              at most one chunk runs again. Needs ninja -C BUILD valuescope-server-with-failpoints, which nothing else builds
  standstill  a server that is stopped for longer than its lease while another one takes over: its late writes are refused
  database    PostgreSQL crashes five times during sweeps of two servers, and connections of one of them are cut all the time
  replicas    300 jobs on two servers: every step is committed once
  once        1,000 requests of one id from 16 threads make one job, and the id with another request is refused
  disks       the store's disk is full, the artifacts' is, and files may not grow: reasons are told, and work goes on once there is space
  clocks      a server's clock jumps by an hour, forwards and backwards
  users       time to the first token of users at a fifth of what the server can do, beside a sweep, and the sweep's speed beside them

The exit code is 1 where something was not shown.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import conftest  # noqa: F401  which knows where the client is
from failpoint_lives import check_failpoints
from full_disks import check_disks
from job_sites import MovedDatabase
from job_sweeps import SWEEPS
from killed_jobs import check_kills, check_standstill
from shared_jobs import check_database, check_once, check_replicas
from stepped_clocks import check_clocks
from users_beside_jobs import LANGUAGE_MODEL, TINY, check_users


class Report:
    """Rows of what was shown, printed as they come and together at the end."""

    def __init__(self):
        self.rows, self.failed = [], False

    def row(self, part, case, shown, holds):
        self.rows.append((part, case, shown, "shown" if holds else "NOT shown"))
        self.failed |= not holds
        print(f"{part}: {case}: {shown}{'' if holds else ': NOT shown'}", flush=True)

    def print_table(self):
        widths = [max(len(row[column]) for row in self.rows) for column in range(2)]
        for part, case, shown, verdict in self.rows:
            print(f"{part:{widths[0]}}  {case:{widths[1]}}  {verdict:9}  {shown}")


def kills(options, report, folder, databases):
    draws = random.Random(options.seed)
    check_kills(
        report, folder, SWEEPS, databases, options.kills, options.units, options.commit_seconds, draws
    )  # fmt: skip


def failpoints(options, report, folder, databases):
    check_failpoints(report, folder, databases, options.small)


def standstill(options, report, folder, databases):
    rounds = 2 if options.small else 6
    check_standstill(report, folder, SWEEPS[0], databases["PostgreSQL"], rounds, options.units)


def database(options, report, folder, databases):
    sweeps = SWEEPS[:1] if options.small else SWEEPS[:2]
    for sweep in sweeps:
        place = folder / sweep.name
        place.mkdir()
        check_database(report, place, sweep, databases["PostgreSQL"], 5, options.units)


def replicas(options, report, folder, databases):
    jobs = 40 if options.small else 300
    check_replicas(report, folder, SWEEPS[0], databases["PostgreSQL"], jobs, units=48)


def once(options, report, folder, databases):
    check_once(report, folder, SWEEPS[0], databases, 200 if options.small else 1000)


def disks(options, report, folder, _databases):
    check_disks(report, folder, SWEEPS[0], options.units)


def clocks(options, report, folder, databases):
    check_clocks(report, folder, SWEEPS[0], databases, options.units)


def users(options, report, folder, _databases):
    check_users(report, folder, TINY if options.small else LANGUAGE_MODEL)


PARTS = {
    part.__name__: part
    for part in (kills, failpoints, standstill, database, replicas, once, disks, clocks, users)
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--small", action="store_true", help="fewer and smaller: some minutes")
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), default=list(PARTS), help="default all"
    )
    parser.add_argument("--kills", type=int, help="default 50, --small 16")
    parser.add_argument("--units", type=int, help="of a sweep; default 6000, --small 1600")
    parser.add_argument(
        "--commit_seconds", type=float, default=0,
        help="between two commits of a shard that is killed; default 0, every chunk is committed",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of moments; default 1")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"--parts has {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    options.kills = options.kills or (16 if options.small else 50)
    options.units = options.units or (1600 if options.small else 6000)
    return options


def main():
    options, report = parse_arguments(), Report()
    for part in options.parts:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="jobs") as name:
            folder = pathlib.Path(name)
            database = MovedDatabase(folder / "database")
            try:
                PARTS[part](options, report, folder, {"SQLite": None, "PostgreSQL": database})
            except Exception as error:
                traceback.print_exc()
                told = f"{type(error).__name__}: {error}".splitlines()[0]
                report.row(part, "", told, holds=False)
            finally:
                database.stop()
        print(f"  ({part}: {time.monotonic() - began:.0f} s)", flush=True)
    report.print_table()
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
