"""Servers whose clock is set forwards and backwards by an hour while jobs run."""

import contextlib
import pathlib
import struct
import subprocess
import time

import valuescope as vs
from full_disks import files_may_not_grow
from job_sites import Site, committed, connected, steps
from job_sweeps import artifacts_of
from killed_jobs import undisturbed
from valuescope import v1

HOUR = 3600
STEPS = (HOUR, -2 * HOUR, HOUR, HOUR)  # one after the other
PATIENCE = 60  # seconds: longer than a lease


class SteppedClock:
    """What a server is given (its `environment`) so that its clock can be set."""

    def __init__(self, folder):
        self._offset, library = folder / "offset", folder / "stepped_clock.so"
        source = pathlib.Path(__file__).with_name("stepped_clock.cc")
        subprocess.run(
            ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"],
            check=True,
        )
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._offset)}
        self.seconds = 0
        self._offset.write_bytes(struct.pack("=q", 0))

    def step(self, seconds):
        self.seconds += seconds
        with self._offset.open("r+b") as file:  # the same file: it is mapped
            file.write(struct.pack("=q", self.seconds))


def seconds_refused(client, job):
    """For how long calls are told that their deadlines, which are times of day, have passed."""
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < PATIENCE:
        with contextlib.suppress(vs.DeadlineExceeded):
            client.job(job)
            return seconds
        time.sleep(0.02)
    raise AssertionError("calls are still refused")


def await_progress(client, job, done):
    until = time.monotonic() + PATIENCE
    while (now := client.job(job)).progress.done <= done:
        if now.state == v1.JOB_STATE_SUCCEEDED:
            return now.progress.done
        assert time.monotonic() < until, "the job stands still"
        time.sleep(0.02)
    return now.progress.done


def seconds_of_job(client, spec):
    began = time.monotonic()
    client.wait_for_job(client.create_job(spec).name, timeout=2 * PATIENCE)
    return time.monotonic() - began


def check_steps(report, name, site, clock, sweep, plain):
    """While a job runs, and while a server waits for one."""
    server = site.start(environment=clock.environment)
    with connected(server) as client:
        spec = sweep.spec(client, plain.units)
        refused, rescues = 0, 0
        before, behind = [], []  # seconds of a job
        for step in STEPS:
            before.append(seconds_of_job(client, spec))
            job = client.create_job(spec).name
            done = await_progress(client, job, 0)
            clock.step(step)
            refused = max(refused, seconds_refused(client, job))
            await_progress(client, job, done)
            rescues += client.wait_for_job(job, timeout=PATIENCE).rescues
            assert artifacts_of(client, job) == plain.artifacts, "other bytes"
            assert set(committed([server], job).values()) == {1}
            clock.step(-step)  # while nothing runs
            refused = max(refused, seconds_refused(client, job))
            behind.append(seconds_of_job(client, spec))
            clock.step(step)
            refused = max(refused, seconds_refused(client, job))
    assert server.stop() == 0
    report.row(
        "clocks",
        f"{name}, {len(STEPS)} times",
        f"jobs go on with equal bytes, {rescues} shards ran again; a job behind a step took {max(behind):.1f} s at most, before "
        f"{max(before):.1f} s; calls were refused for {refused:.1f} s",
        rescues == 0 and max(behind) < 2 * max(before) + 10,
    )


def check_step_before_retry(report, site, clock, sweep, plain, step):
    """While a shard that failed waits to be tried again, or a lease that could not be given back to run out."""
    server = site.start(environment=clock.environment)
    with connected(server) as client:
        job = client.create_job(sweep.spec(client, plain.units)).name
        await_progress(client, job, 0)
        with files_may_not_grow(server):
            while all(s["code"] == "OK" for s in steps(server, job)):
                time.sleep(0.02)
            clock.step(step)
        seconds_refused(client, job)
        began = time.monotonic()
        with contextlib.suppress(vs.DeadlineExceeded):
            client.wait_for_job(job, timeout=PATIENCE)
        goes_on = client.job(job).state == v1.JOB_STATE_SUCCEEDED
    server.kill()
    told = f"goes on in {time.monotonic() - began:.0f} s" if goes_on else "stands still"
    report.row("clocks", f"SQLite, {step} s", f"a shard that is to be tried again {told}", goes_on)


def check_clocks(report, folder, sweep, databases, units):
    plain = undisturbed(folder / "plain", sweep, units)
    clock = SteppedClock(folder)
    for name, database in databases.items():
        with Site(folder / f"clock-{name}", database) as site:
            check_steps(report, name, site, clock, sweep, plain)
    for step in (HOUR, -HOUR):
        with Site(folder / f"retry{step}") as site:
            check_step_before_retry(report, site, clock, sweep, plain, step)
