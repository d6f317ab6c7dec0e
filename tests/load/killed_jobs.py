"""kill -9 at moments drawn at random while jobs run, and servers that stand still longer than their leases."""

import dataclasses
import os
import signal
import time

from job_sites import Site, committed, connected, steps
from job_sweeps import ID, MODEL, artifacts_of, counted
from valuescope import v1

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
    """A job and the lives of the server that works on it; each life begins without the model, so that what is stored can be read."""

    def __init__(self, site, sweep, plain, draws):
        self.site, self.sweep, self.plain, self.draws = site, sweep, plain, draws
        self.redone, self.finished, self.idle = [], 0, 0
        server = site.start()
        with connected(server) as client:
            self.spec = sweep.spec(client, plain.units)
            self.job = client.create_job(self.spec).name
        server.stop()

    def done(self, client):
        return client.job(self.job).progress.done

    def live(self):
        """One life, which ends by kill -9, or where the job succeeds before that."""
        server = self.site.start(models="")
        with connected(server, ready=False) as client:
            found = self.done(client)
            client.load_model(ID)
            self.await_moment(client, found)
            ended = client.job(self.job).state == v1.JOB_STATE_SUCCEEDED
            if not ended:
                computed = counted(server, self.sweep.counter) / self.plain.tokens
                server.kill()
        if ended:
            self.finish(server)
        else:
            self.count(found, computed)

    def await_moment(self, client, found):
        """Some time within two chunks behind a commit; now and then any time, but not twice in a row, since a step that three workers
        die of without getting on fails its job."""
        if self.idle == 0 and self.draws.random() < 0.3:
            self.idle = 1
            time.sleep(self.draws.uniform(0, 0.3))
            return
        self.idle = 0
        for state in client.watch_job(self.job):
            if state.progress.done > found:
                break
        time.sleep(
            self.draws.uniform(0, 2 * self.plain.seconds * self.plain.shard / self.plain.units)
        )

    def count(self, found, computed):
        """What of a life's work is not stored."""
        self.site.leases_end()
        server = self.site.start(models="")
        with connected(server, ready=False) as client:
            self.redone.append(computed - (self.done(client) - found))
        server.stop()

    def finish(self, server):
        """The job succeeded: its bytes are looked at, and another one begins."""
        with connected(server) as client:
            made = client.wait_for_job(self.job)
            assert artifacts_of(client, self.job) == self.plain.artifacts, "other bytes"
            assert made.rescues <= len(self.redone)
            self.finished += 1
            self.job = client.create_job(self.spec).name
        assert server.stop() == 0


def check_kills(report, folder, sweeps, databases, kills, units, commit_seconds, draws):
    """Kills are shared out among kinds and stores."""
    each = -(-kills // (len(sweeps) * len(databases)))
    for sweep in sweeps:
        plain = undisturbed(folder / f"plain-{sweep.name}", sweep, units)
        most = min(plain.shard, max(plain.units * commit_seconds / plain.seconds, 16)) + MARGIN
        for name, database in databases.items():
            with Site(folder / f"killed-{sweep.name}-{name}", database) as site:
                victim = Victim(site, sweep, plain, draws)
                while len(victim.redone) < each:
                    victim.live()
                server = site.start()
                victim.finish(server)
            worst = max(victim.redone)
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


def await_step(server, job, count, seconds=90):
    """Until a server has committed so many steps of a job."""
    until = time.monotonic() + seconds
    while sum(s["code"] == "OK" for s in steps(server, job)) < count:
        assert time.monotonic() < until, "nobody took over"
        time.sleep(0.02)


def stop_beyond_the_lease(site, first, second, spec, wait):
    """The job's name, which the first server works on until it stands still, and the steps that it then was refused."""
    with connected(first) as client, connected(second, ready=False) as other:
        job = client.create_job(spec).name
        for state in client.watch_job(job):
            if state.progress.done > 0:
                break
        with Standstill(first):
            stopped = len(steps(first, job))
            other.load_model(ID)
            other.wait_until_ready(MODEL)
            wait()
            await_step(second, job, 1)
        other.wait_for_job(job)
    later = [s for s in steps(first, job)[stopped:] if s["code"] != "OK"]
    return job, later


def check_standstill(report, folder, sweep, database, rounds, units):
    """The first round waits for the lease itself; in the others the database's clock is moved."""
    plain = undisturbed(folder / "plain", sweep, units)
    rescued = refused = 0
    with Site(folder / "still", database) as site:
        first = site.start(name="first")
        with connected(first) as client:
            spec = sweep.spec(client, units)
        for number in range(rounds):
            second = site.start(name="second", models="")
            wait = (lambda: None) if number == 0 and rounds > 2 else site.leases_end
            job, later = stop_beyond_the_lease(site, first, second, spec, wait)
            with connected(second) as client:
                made = client.job(job)
                assert artifacts_of(client, job) == plain.artifacts, "other bytes"
            counts = committed([first, second], job)
            assert set(counts.values()) == {1}, counts
            rescued += made.rescues
            refused += sum(s["reason"] == "LEASE_LOST" for s in later)
            assert second.stop() == 0
        assert first.stop() == 0
    report.row(
        "standstill",
        f"{sweep.name}, {rounds} times",
        f"{rescued} shards taken over; the one that slept was refused {refused} times; every step committed once, bytes equal",
        rescued > 0 and refused > 0,
    )
