"""Users who ask at random, beside a sweep: how long their first token takes, and what they leave of the sweep's speed."""

import concurrent.futures
import dataclasses
import random
import statistics
import time

import grpc
from conftest import CACHE
from job_sites import Site, connected
from job_sweeps import ID, attribution, counted
from meanwhile import Meanwhile
from offered_load import closed_loop, completed_a_second
from valuescope import v1
from valuescope.v1 import generation_pb2_grpc

LOAD = 0.2  # of what the server can do
LEAST_SPEED = 0.6  # of the sweep's alone
PROMPT, NEW, CLIENTS = 16, 16, 8


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A model; `units` are more responses than a sweep over it gets done in the time."""

    id: str
    flags: tuple
    units: int
    seconds: int  # of each measurement

    @property
    def name(self):
        return f"models/{self.id}"


TINY = Speaker(ID, (), 60_000, 8)
LANGUAGE_MODEL = Speaker("SmolLM2-135M-Instruct", (f"--model_root={CACHE / 'models'}",), 4_000, 40)


class Questions:
    """Prompts that nobody sent before."""

    def __init__(self, model, tokens):
        self._model, self._tokens, self._draws = model, tokens, random.Random(1)

    def __call__(self, _index=0, request=v1.GenerateRequest):
        ids = [self._draws.randrange(3, self._tokens) for _ in range(PROMPT)]
        sampling = v1.SamplingParams(max_tokens=NEW, ignore_eos=True, temperature=0)
        prompt = v1.Prompt(token_ids=v1.TokenIds(ids=ids))
        return request(model=self._model, prompt=prompt, sampling=sampling)


def first_token(stub, request):
    began, first = time.monotonic(), None
    for message in stub.StreamGenerate(request, timeout=120):
        if first is None and message.HasField("delta"):
            first = time.monotonic() - began
    return first


def first_tokens(channel, questions, rate, seconds):
    """Seconds to the first token of each request, `rate` a second, with exponential gaps."""
    stub, draws = generation_pb2_grpc.GenerationServiceStub(channel), random.Random(2)
    end = time.monotonic() + seconds
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        asked = []
        while time.monotonic() < end:
            time.sleep(draws.expovariate(rate))
            question = questions(request=v1.StreamGenerateRequest)
            asked.append(pool.submit(first_token, stub, question))
        return [each.result() for each in asked]


class StepLengths(Meanwhile):
    """Looks at random at how long the step that runs has been running. Who comes at random finds half of its step behind it, so twice the
    mean is the step that who comes at random finds, seconds."""

    def __init__(self, server):
        super().__init__()
        self._server, self._seen, self._draws = server, [], random.Random(3)

    def step(self):
        time.sleep(self._draws.uniform(0, 0.1))
        self._seen.append(counted(self._server, "valuescope_step_running_seconds", float))

    @property
    def seconds(self):
        return 2 * statistics.fmean(seen for seen in self._seen if seen > 0)


class Running:
    """A sweep, from entering to leaving; `speed(seconds)` is what it gets done in so long, units a second."""

    def __init__(self, client, spec):
        self._client, self._spec = client, spec

    def __enter__(self):
        self._job = self._client.create_job(self._spec).name
        while self._done() == 0:
            time.sleep(0.05)
        return self

    def __exit__(self, kind, *_):
        assert kind or self._client.cancel_job(self._job).state != v1.JOB_STATE_SUCCEEDED

    def _done(self):
        return self._client.job(self._job).progress.done

    def speed(self, during):
        """While `during()` goes on, whose result comes second."""
        began, before = time.monotonic(), self._done()
        result = during()
        return (self._done() - before) / (time.monotonic() - began), result


def check_users(report, folder, model):
    seconds = model.seconds
    with Site(folder / "users") as site:
        server = site.start(*model.flags, models=model.id)
        with (
            connected(server, model=model.name) as client,
            grpc.insecure_channel(server.address) as channel,
        ):
            questions = Questions(model.name, client.model(model.name).vocab_size)
            loop = closed_loop(channel, questions, CLIENTS, seconds)
            rate = LOAD * completed_a_second(*loop, seconds, seconds / 4)
            idle = statistics.median(first_tokens(channel, questions, rate, seconds))
            spec = attribution(client, model.units, model.name)
            with Running(client, spec) as running:
                with StepLengths(server) as steps:
                    alone, _ = running.speed(lambda: time.sleep(seconds))
                beside, beside_users = running.speed(
                    lambda: first_tokens(channel, questions, rate, seconds)
                )
            busy = statistics.median(beside_users)
        server.kill()
    report.row(
        "users",
        model.id,
        f"{len(beside_users)} users, {rate:.1f} a second: p50 to the first token {1e3 * busy:.0f} ms, idle {1e3 * idle:.0f} ms and a step of "
        f"{1e3 * steps.seconds:.0f} ms; the sweep keeps {beside / alone:.0%} of {alone:.0f} units/s",
        busy <= idle + steps.seconds and beside >= LEAST_SPEED * alone,
    )
