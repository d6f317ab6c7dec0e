"""Shows how tenants share one model: their parts of what it generates, and how long one waits that asks now and then beside others that flood it.

    python check_tenants.py [--small] [--seconds 120]

VALUESCOPE_BUILD is the build; the model is SmolLM2-135M-Instruct of VALUESCOPE_CACHE or, --small, a tiny random one. The server has tokens of
three tenants, of which a has weight 1 and b weight 3. Both ask for so many answers at a time that all rows are taken and 64, then 1,024 wait
(some of them in the queue, and some, which were told to come back, with the client that does), of lengths that are drawn, as those of people
are. The third one asks once a second, or where its answer takes longer, as soon as that has ended.

  shares    tokens that b got for each of a, while both flood, as QueryUsage tells them: 3, give or take a tenth
  guest     the third tenant's p95 to its first token: idle, and beside the floods at most two steps more, where a step is the median time
            between two tokens of its answers there

The exit code is 1 where something was not shown.
"""

import argparse
import contextlib
import multiprocessing
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import grpc
from callers import FAMILIES, Tokens
from conftest import CACHE, Server
from offered_load import details_of
from valuescope import Client, v1
from valuescope.v1 import generation_pb2_grpc

ROWS = 64
PROMPT, GUEST = 16, 2  # tokens
WARM_UP = 30  # seconds, in which all rows are taken and many answers end
WEIGHTS = {"a": 1, "b": 3}
STEPS = 2  # that a guest may wait longer than idle
GUESTS = 1 << 30  # of its requests; those of floods begin at 1


class Model:
    def __init__(self, small):
        folder = FAMILIES if small else CACHE / "models"
        self.id = "llama_tied" if small else "SmolLM2-135M-Instruct"
        self.flags = (f"--model_root={folder}", f"--models={self.id}")
        self.answer = 70 if small else 64  # tokens, of a flood: half as many more or fewer
        # Answers of one length that a call of a flood asks for: of a model that makes hundreds a second the client could not begin each.
        self.samples = 4 if small else 1
        self.tokens = 90 if small else 40_000  # ids to draw prompts from

    def request(self, index, tokens, n=1, stream=False):
        kind = v1.StreamGenerateRequest if stream else v1.GenerateRequest
        ids = [3 + (index * 7919 + place * 104_729) % self.tokens for place in range(PROMPT)]
        return kind(
            model=f"models/{self.id}",
            prompt=v1.Prompt(token_ids=v1.TokenIds(ids=ids)),
            sampling=v1.SamplingParams(max_tokens=tokens, ignore_eos=True, seed=index),
            n=n,
        )


class Flood:
    """Calls of one tenant, `calls` at a time: each that ends is followed by another one, after the delay that a refusal asks for."""

    def __init__(self, channel, model, token, calls):
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")]
        self._model, self._stopped, self._index = model, threading.Event(), 0
        for _ in range(calls):
            self._begin()

    def _begin(self):
        if self._stopped.is_set():
            return
        self._index += 1
        half = self._model.answer // 2
        tokens = half + random.Random(self._index).randrange(2 * half)
        request = self._model.request(self._index, tokens, n=self._model.samples)
        call = self._stub.Generate.future(request, metadata=self._metadata, timeout=600)
        call.add_done_callback(self._ended)

    def _ended(self, call):
        if call.code() is grpc.StatusCode.OK:
            return self._begin()
        if call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            threading.Timer(details_of(call)[1] or 1, self._begin).start()
        elif not self._stopped.is_set():
            print(f"a call of a flood ended: {call.code()} {call.details()}", flush=True)

    def stop(self):
        self._stopped.set()


def flood(address, small, tokens, calls, stop):
    """Both floods, in a process of their own, so that the guest's clock does not wait for them."""
    with contextlib.ExitStack() as stack:
        floods = []
        for token in tokens:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(address, options))
            floods.append(Flood(channel, Model(small), token, calls))
        stop.wait()
        for each in floods:
            each.stop()


@contextlib.contextmanager
def flooding(server, small, tokens, waiting):
    """While this is entered, so many answers wait."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    calls = (ROWS + waiting) // (len(WEIGHTS) * Model(small).samples)
    given = [tokens.token[tenant, "user"] for tenant in WEIGHTS]
    process = context.Process(target=flood, args=(server.address, small, given, calls, stop))
    process.start()
    try:
        time.sleep(WARM_UP)
        yield
    finally:
        stop.set()
        process.join(30)
        process.kill()


def ask(stub, metadata, request):
    """Seconds to the first token, and between two tokens after it."""
    began = last = time.monotonic()
    first, between = None, []
    for event in stub.StreamGenerate(request, metadata=metadata, timeout=120):
        if not event.HasField("delta"):
            continue
        now = time.monotonic()
        if first is None:
            first = now - began
        else:
            between.append(now - last)
        last = now
    return first, between


def guest(server, model, tokens, seconds):
    """p95 of the seconds to the first token of who asks once a second, and the length of a step."""
    metadata = [("authorization", f"Bearer {tokens.token['guest', 'user']}")]
    firsts, between = [], []
    with grpc.insecure_channel(server.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        ask(stub, metadata, model.request(0, GUEST, stream=True))  # connects
        began = time.monotonic()
        for index in range(1, seconds + 1):
            time.sleep(max(0.0, began + index - time.monotonic()))
            first, gaps = ask(stub, metadata, model.request(GUESTS + index, GUEST, stream=True))
            firsts.append(first)
            between += gaps
    return statistics.quantiles(firsts, n=20)[-1], statistics.median(between)


def generated(client):
    """Tokens that each tenant got of answers that have ended."""
    return {each.tenant: each.generated_tokens for each in client.usage(tenant="*")}


class Report:
    def __init__(self):
        self.failed = False

    def row(self, case, shown, holds):
        self.failed |= not holds
        print(f"{case:24}  {'shown' if holds else 'NOT shown':9}  {shown}", flush=True)


def check(report, folder, options):
    model, tokens = Model(options.small), Tokens(folder)
    for tenant in (*WEIGHTS, "guest"):
        tokens.create(tenant, "user")
    tokens.create("operator", "admin")
    allowed = ",".join(f"{tenant}:weight={weight}" for tenant, weight in WEIGHTS.items())
    given = (f"--tokens={tokens.file}", f"--tenants={allowed}", f"--max_batch_rows={ROWS}")
    server = Server(folder, *model.flags, *given)
    with contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        client = stack.enter_context(
            Client(server.address, token=tokens.token["operator", "admin"], timeout=120)
        )
        client.wait_until_ready(f"models/{model.id}")
        idle, step = guest(server, model, tokens, options.seconds)
        report.row("guest, idle", f"p95 {1e3 * idle:.0f} ms, a step {1e3 * step:.1f} ms", True)
        for waiting in (64, 1024):
            with flooding(server, options.small, tokens, waiting):
                before = generated(client)
                p95, step = guest(server, model, tokens, options.seconds)
                after = generated(client)
            got = {tenant: after.get(tenant, 0) - before.get(tenant, 0) for tenant in WEIGHTS}
            ratio = got["b"] / max(1, got["a"])
            wanted = WEIGHTS["b"] / WEIGHTS["a"]
            report.row(
                f"shares, {waiting} waiting",
                f"a {got['a']}, b {got['b']} tokens: 1 to {ratio:.2f}",
                abs(ratio / wanted - 1) <= 0.1,
            )
            steps = (p95 - idle) / step
            report.row(
                f"guest, {waiting} waiting",
                f"p95 {1e3 * p95:.0f} ms, {steps:+.1f} steps of {1e3 * step:.1f} ms beside idle",
                steps <= STEPS,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--small", action="store_true", help="a tiny random model")
    parser.add_argument("--seconds", type=int, default=120, help="of each measurement; default 120")
    options, report = parser.parse_args(), Report()
    with tempfile.TemporaryDirectory(prefix="tenants") as folder:
        check(report, pathlib.Path(folder), options)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
