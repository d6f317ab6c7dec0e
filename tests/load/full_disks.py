"""Disks without space, and files that may not grow, while jobs run: what clients are told, whether the store is sound, and whether work goes on."""

import contextlib
import dataclasses
import os
import resource
import shutil
import sqlite3
import subprocess
import time

import valuescope as vs
from job_sites import Site, connected, steps
from job_sweeps import artifacts_of
from killed_jobs import undisturbed
from valuescope import v1

DISK = "64m"
PATIENCE = 90  # seconds: a lease that could not be given back runs out
FULL = "STORAGE_FULL"
GROWN = "STORE_UNREACHABLE"  # as SQLite tells apart


class SmallDisk:
    """A file system of its own in `folder`; mounting one takes privileges."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir()

    def __enter__(self):
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", self.folder]
        subprocess.run(command, check=True, capture_output=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.folder], check=True)

    @contextlib.contextmanager
    def full(self, _server):
        """To the last byte, from entering to leaving."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
        filler.unlink()


@contextlib.contextmanager
def files_may_not_grow(server):
    """Beyond what the log needs; the process is told by a signal, too."""
    process, limit = server._process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(process, limit)
    resource.prlimit(process, limit, (server.log.stat().st_size + (1 << 18), before[1]))
    yield
    resource.prlimit(process, limit, before)


@dataclasses.dataclass(frozen=True)
class Shortage:
    """What is missing: `full(server)` is a scope. `reasons` are what may be told of it."""

    case: str
    full: object
    flags: tuple = ()
    reasons: tuple = (FULL,)


def refusal(server, data):
    """What a client is told that wants to store something, and asks once: a reason, or "" where that goes well."""
    with vs.Client(server.address, timeout=60, retry=vs.Retry(attempts=1)) as client:
        try:
            client.write_artifact(data)
            return ""
        except vs.ValuescopeError as error:
            return error.reason or error.code.name


def await_end(client, job):
    """The job once it is finished, as it ended."""
    with contextlib.suppress(vs.JobFailed):
        client.wait_for_job(job, timeout=PATIENCE)
    return client.job(job)


def assert_sound(site):
    """The store's file, of a server that was killed."""
    copy = site.folder / "copy"
    copy.mkdir()
    for part in ("store.db", "store.db-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(site.folder / part, copy / part)
    with contextlib.closing(sqlite3.connect(copy / "store.db")) as database:
        found = database.execute("PRAGMA integrity_check").fetchall()
        assert found == [("ok",)], found
    shutil.rmtree(copy)


def starve(report, site, sweep, plain, shortage):
    """A job that runs when nothing more can be stored, for as long as it takes to fail once, and how it goes on."""
    server = site.start(*shortage.flags)
    with connected(server) as client:
        client = client.with_timeout(60)
        spec = sweep.spec(client, plain.units)
        job = client.create_job(spec).name
        for state in client.watch_job(job):
            if state.progress.done > 0:
                break
        with shortage.full(server):
            until = time.monotonic() + PATIENCE
            while all(s["code"] == "OK" for s in steps(server, job)):
                assert server.running(), "the server died"
                assert client.job(job).state != v1.JOB_STATE_SUCCEEDED, "there was space enough"
                assert time.monotonic() < until, "nothing failed"
                time.sleep(0.02)
            told = refusal(server, os.urandom(1 << 20))
            failed = [s for s in steps(server, job) if s["code"] != "OK"]
            time.sleep(3)  # in which it may try again
        made = await_end(client, job)
        how = "went on by itself"
        if made.state == v1.JOB_STATE_FAILED:
            assert made.error.reason in shortage.reasons, made.error
            how = f"failed with {made.error.reason} and went on when retried"
            client.retry_job(job)
            made = await_end(client, job)
        assert made.state == v1.JOB_STATE_SUCCEEDED, made
        assert artifacts_of(client, job) == plain.artifacts, "other bytes"
        assert refusal(server, b"more") == ""
    server.kill()
    if (site.folder / "store.db").exists():
        assert_sound(site)
    reasons = sorted({s.get("reason", s["code"]) for s in failed})
    report.row(
        "disks",
        shortage.case,
        f"shards end with {', '.join(reasons)}, uploads with {told}; the job {how}, bytes equal, store sound",
        set(reasons) <= set(shortage.reasons) and told == FULL,
    )


def check_disks(report, folder, sweep, units):
    plain = undisturbed(folder / "plain", sweep, units)
    with contextlib.ExitStack() as stack:
        disk = SmallDisk(folder / "disk")
        try:
            stack.enter_context(disk)
        except subprocess.CalledProcessError:
            report.row(
                "disks", "full", "not tried: no file system can be mounted here", holds=False
            )
        else:
            away = f"--artifacts={folder / 'elsewhere'}"
            with Site(disk.folder / "store") as site:
                starve(report, site, sweep, plain, Shortage("the store's", disk.full, (away,)))
            there = f"--artifacts={disk.folder / 'blobs'}"
            with Site(folder / "near") as site:
                starve(report, site, sweep, plain, Shortage("the artifacts'", disk.full, (there,)))
    with Site(folder / "limited") as site:
        grown = Shortage("files may not grow", files_may_not_grow, reasons=(FULL, GROWN))
        starve(report, site, sweep, plain, grown)
