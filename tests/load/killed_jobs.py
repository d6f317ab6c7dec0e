"""kill -9 at moments drawn at random while jobs run, and servers that stand still longer than their leases."""

import contextlib
import dataclasses
import os
import signal
import time

from job_sites import Site, committed, connected, steps
from job_sweeps import EVERY_CHUNK, MODEL, artifacts_of, counted
from valuescope import v1

PATIENCE = 30  # seconds
MARGIN = 2  # units, of tokens a unit that are a mean


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """What a sweep comes to when nobody touches it."""

    artifacts: dict
    units: int
    shard: int  # units of one
    seconds: float
    tokens: float  # a unit


def undisturbed(folder, sweep, units):
    with Site(folder) as site:
        server = site.start()
        with connected(server) as client:
            spec = sweep.spec(client, units)
            before, began = counted(server, sweep.counter), time.monotonic()
            job = client.wait_for_job(client.create_job(spec).name)
            seconds = time.monotonic() - began
            tokens = (counted(server, sweep.counter) - before) / units
            shard = -(-job.progress.total // job.progress.shards_total)
            return Undisturbed(artifacts_of(client, job.name), units, shard, seconds, tokens)


class Victim:
    """A job, and the lives of the server that works on it. Each begins without the model, so that what is stored can be read first."""

    def __init__(self, site, sweep, plain, draws):
        self.site, self.sweep, self.plain, self.draws = site, sweep, plain, draws
        self.redone, self.finished, self.kills_of_job, self.idle = [], 0, 1, False
        self.computed = None  # units of the life before, and how many were stored at its beginning
        self.server = site.start()
        with connected(self.server) as client:
            self.spec = sweep.spec(client, plain.units)
            self.job = client.create_job(self.spec).name
            self.server.kill()

    @contextlib.contextmanager
    def life(self):
        """The client of a new server, which then is ready."""
        self.site.leases_end()
        self.server = self.site.start(models="")
        with connected(self.server, ready=False) as client:
            if self.computed:
                units, found = self.computed
                self.redone.append(units - (self.done(client) - found))
                self.computed = None
            client.load_model(MODEL)
            client.wait_until_ready(MODEL)
            yield client

    def done(self, client):
        return client.job(self.job).progress.done

    def work_until_killed(self):
        """One life; where a job succeeds before its end, the next one begins."""
        with self.life() as client:
            while True:
                found, before = self.done(client), counted(self.server, self.sweep.counter)
                self.await_moment(client, found)
                if client.job(self.job).state != v1.JOB_STATE_SUCCEEDED:
                    break
                self.finish(client)
                self.job = client.create_job(self.spec).name
            tokens = counted(self.server, self.sweep.counter) - before
            self.server.kill()
        self.computed = tokens / self.plain.tokens, found
        self.kills_of_job += 1

    def await_moment(self, client, found):
        """Some time within some chunks behind a commit; now and then any time, but not twice in a row, since a step that three workers
        die of without getting on fails its job."""
        self.idle = not self.idle and self.draws.random() < 0.3
        some = min(self.plain.shard, 4 * self.sweep.chunk)
        most = self.plain.seconds * some / self.plain.units
        if self.idle:
            time.sleep(self.draws.uniform(0, 4 * most))
            return
        for state in client.watch_job(self.job):
            if state.progress.done > found:
                break
        time.sleep(self.draws.uniform(0, most))

    def finish(self, client):
        made = client.wait_for_job(self.job)
        assert artifacts_of(client, self.job) == self.plain.artifacts, "other bytes"
        assert made.rescues <= self.kills_of_job, f"{made.rescues} shards ran again"
        self.finished += 1
        self.kills_of_job = 0


def check_kills(report, folder, sweeps, databases, kills, units, commit_seconds, draws):
    """Kills are shared out among kinds and stores."""
    each = -(-kills // (len(sweeps) * len(databases)))
    for sweep in sweeps:
        plain = undisturbed(folder / f"plain-{sweep.name}", sweep, units)
        most = (
            min(plain.shard, max(plain.units * commit_seconds / plain.seconds, sweep.chunk))
            + MARGIN
        )
        for name, database in databases.items():
            flags = [f"--job_commit_interval={commit_seconds}s"]
            with Site(folder / f"killed-{sweep.name}-{name}", database, flags) as site:
                victim = Victim(site, sweep, plain, draws)
                for _ in range(each):
                    victim.work_until_killed()
                with victim.life() as client:
                    victim.finish(client)
                assert victim.server.stop() == 0
            worst = max(0, *victim.redone)
            report.row(
                "kills",
                f"{sweep.name}, {name}",
                f"{each} kills, {victim.finished} jobs with the bytes of the undisturbed one; most units run again {worst:.0f} "
                f"(a shard has {plain.shard})",
                worst <= most,
            )


class Standstill:
    """SIGSTOP from entering to leaving."""

    def __init__(self, server):
        self._pid = server._process.pid

    def __enter__(self):
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGCONT)


def is_rescued(client, job, seconds=90):
    """Whether a lease of a job was taken back before it ended."""
    until = time.monotonic() + seconds
    while (now := client.job(job)).rescues == 0:
        assert time.monotonic() < until, "nobody took over"
        if now.state == v1.JOB_STATE_SUCCEEDED:
            return False
        time.sleep(0.02)
    return True


def stop_in_a_shard(first, client, other, spec, wait):
    """The job's name and the steps that the server had ended when it was stopped; None where it held no lease just then."""
    job = client.create_job(spec).name
    for state in client.watch_job(job):
        if state.progress.done > 0:
            break
    with Standstill(first):
        stopped = len(steps(first, job))
        other.load_model(MODEL)
        other.wait_until_ready(MODEL)
        wait()
        return (job, stopped) if is_rescued(other, job) else None


def stop_beyond_the_lease(site, first, second, spec, wait):
    """The job's name, which the first server works on until it stands still; the steps that it then was refused; and how long it took until
    another one took over and `wait` had waited for that."""
    with connected(first) as client, connected(second, ready=False) as other:
        for _ in range(10):
            began = time.monotonic()
            if found := stop_in_a_shard(first, client, other, spec, wait):
                break
            other.unload_model(MODEL, force=True)
        job, stopped = found
        seconds = time.monotonic() - began
        other.wait_for_job(job)
        until = time.monotonic() + PATIENCE
        while not (refused := [s for s in steps(first, job)[stopped:] if s["code"] != "OK"]):
            assert time.monotonic() < until, "it was not refused"
            time.sleep(0.02)
    return job, refused, seconds


def check_standstill(report, folder, sweep, database, rounds, units):
    """The first round waits for the lease itself; in the others the database's clock is moved."""
    plain = undisturbed(folder / "plain", sweep, units)
    rescued, refused, longest = 0, 0, 0.0
    with Site(folder / "still", database, EVERY_CHUNK) as site:
        first = site.start(name="first")
        with connected(first) as client:
            spec = sweep.spec(client, units)
        for number in range(rounds):
            second = site.start(name="second", models="")
            wait = (lambda: None) if number == 0 and rounds > 2 else site.leases_end
            job, late, seconds = stop_beyond_the_lease(site, first, second, spec, wait)
            with connected(second) as client:
                made = client.job(job)
                assert artifacts_of(client, job) == plain.artifacts, "other bytes"
            counts = committed([first, second], job)
            assert set(counts.values()) == {1}, counts
            rescued += made.rescues
            refused += len(late)
            longest = max(longest, seconds)
            assert second.stop() == 0
        assert first.stop() == 0
    report.row(
        "standstill",
        f"{sweep.name}, {rounds} times",
        f"{rescued} shards taken over, within {longest:.0f} s; the one that slept was refused {refused} times; every step committed once, "
        "bytes equal",
        rescued > 0 and refused > 0,
    )
