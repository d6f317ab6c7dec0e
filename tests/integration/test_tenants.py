"""What tenants have of a server that they share: their parts of a model, and bounds that change while it runs. Through the real server, on a
tiny model; what is compared are tokens and answers, not seconds.
"""

import contextlib
import os
import re
import threading
import time

import grpc
import pytest
import valuescope as vs
from callers import ONE, TINY, Tokens
from conftest import Server, await_true
from valuescope import errors, v1
from valuescope.v1 import generation_pb2_grpc, neurons_pb2_grpc

CODE = grpc.StatusCode
# In force within this, as is promised.
SOON = 5
ROWS = 4
LONG = 100  # tokens of an answer


class Lab:
    """A server with tenants a, b and guest, and a file of what they may have."""

    def __init__(self, folder, *flags):
        self.tokens = Tokens(folder)
        for tenant in ("a", "b", "guest"):
            self.tokens.create(tenant, "user")
        self.file = folder / "tenants.txt"
        self.allow("b:weight=3")
        given = (f"--tokens={self.tokens.file}", f"--tenants_file={self.file}")
        self.server = Server(folder, *TINY, f"--max_batch_rows={ROWS}", *given, *flags)
        with self.client("a") as client:
            client.wait_until_ready(ONE)

    def allow(self, *lines):
        """In place of the file before, at once."""
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        os.replace(new, self.file)

    def put(self, outcome, *lines):
        """The same, and waits until the server has read it: "in_force" or "refused", as soon as is promised."""
        before = self.read_again(outcome)
        self.allow(*lines)
        await_true(lambda: self.read_again(outcome) > before, SOON + 5)

    def client(self, tenant):
        token = self.tokens.token[tenant, "user"]
        return vs.Client(self.server.address, token=token, timeout=60)

    def read_again(self, outcome):
        sample = (
            rf'^valuescope_files_reread_total{{file="tenants_file",outcome="{outcome}"}} (\S+)$'
        )
        match = re.search(sample, self.server.metrics(), re.MULTILINE)
        return float(match[1]) if match else 0.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    assert lab.server.stop() == 0, lab.server.log.read_text()[-4000:]


@pytest.fixture
def channel(lab):
    with grpc.insecure_channel(lab.server.address) as channel:
        yield channel


def request(tokens=LONG, prompt=4, stream=False):
    kind = v1.StreamGenerateRequest if stream else v1.GenerateRequest
    return kind(
        model=ONE,
        prompt=v1.Prompt(token_ids=v1.TokenIds(ids=range(3, 3 + prompt))),
        sampling=v1.SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0),
    )


class Calls:
    """Calls of tenants, begun without waiting; `ended` has whose ended, in order."""

    def __init__(self, lab, channel):
        self._lab, self._stub = lab, generation_pb2_grpc.GenerationServiceStub(channel)
        self._changed = threading.Condition()
        self.ended, self.failures = [], []

    def _metadata(self, tenant):
        return [("authorization", f"Bearer {self._lab.tokens.token[tenant, 'user']}")]

    def begin(self, tenant, count=1, **what):
        for _ in range(count):
            call = self._stub.Generate.future(
                request(**what), metadata=self._metadata(tenant), timeout=120
            )
            call.add_done_callback(lambda done: self._end(tenant, done))

    def _end(self, tenant, call):
        with self._changed:
            self.ended.append(tenant)
            if call.code() is not CODE.OK:
                self.failures.append(call.code())
            self._changed.notify_all()

    def await_ended(self, count, tenant=None):
        with self._changed:
            enough = lambda: sum(tenant in (None, t) for t in self.ended) >= count  # noqa: E731
            assert self._changed.wait_for(enough, 120)
            return list(self.ended)

    def refused(self, tenant, **what):
        """Reason and retry delay, in seconds, of a call; None where it was answered."""
        try:
            self._stub.Generate(request(**what), metadata=self._metadata(tenant), timeout=60)
        except grpc.RpcError as error:
            assert error.code() is CODE.RESOURCE_EXHAUSTED, error
            return details_of(error)
        return None

    @contextlib.contextmanager
    def streaming(self, tenant):
        """A call that goes on until the block ends, which sees that it still does."""
        call = self._stub.StreamGenerate(
            request(stream=True, tokens=LONG), metadata=self._metadata(tenant), timeout=60
        )
        next(call)
        yield
        assert sum(event.HasField("completion") for event in call) == 1
        assert call.code() is CODE.OK


def details_of(error):
    told = errors.from_status(error.code(), error.details(), error.trailing_metadata(), "")
    return told.reason, told.retry_after


def test_tenants_that_flood_a_model_get_it_by_their_weights(lab, channel):
    calls = Calls(lab, channel)
    for _ in range(30):
        calls.begin("a")
        calls.begin("b", count=2)
    # While both still wait.
    first = calls.await_ended(40)[:40]
    assert 7 <= first.count("a") <= 13, first
    calls.await_ended(90)
    assert calls.failures == []


def test_who_asks_now_and_then_passes_those_who_wait(lab, channel):
    calls = Calls(lab, channel)
    for tenant in ("a", "b"):
        calls.begin(tenant, count=40)
    before = len(calls.await_ended(8))
    for asked in range(1, 4):
        calls.begin("guest", tokens=4)
        calls.await_ended(asked, "guest")
    passed = len(calls.ended) - before
    assert passed < 40, "it waited for half of those who had come before"
    calls.await_ended(83)
    assert calls.failures == []


def test_a_tenant_has_as_many_calls_at_a_time_as_the_file_says_now(lab, channel):
    calls = Calls(lab, channel)
    lab.allow("a:calls=1")
    # The answers of a tiny model are short, so many make it likely that one meets another.
    refusals = []

    def meets_another():
        before = len(calls.ended)
        calls.begin("a", count=8)
        with contextlib.suppress(IndexError):
            refusals.append(calls.refused("a"))
        calls.await_ended(before + 8)
        return len(calls.failures) > 0

    await_true(meets_another, SOON + 5)
    assert set(calls.failures) == {CODE.RESOURCE_EXHAUSTED}
    told = {refusal for refusal in refusals if refusal}
    assert told <= {("CALL_QUOTA", 1.0)}
    # One after the other all are answered, however soon they come.
    for _ in range(20):
        assert calls.refused("a", tokens=2) is None
    # Nobody else is bounded.
    assert calls.refused("b", tokens=2) is None
    lab.put("in_force", "a:calls=100")
    calls.failures.clear()
    before = len(calls.ended)
    calls.begin("a", count=16)
    calls.await_ended(before + 16)
    assert calls.failures == []


def test_tokens_run_out_and_are_there_again_when_the_server_says_so(lab, channel):
    calls = Calls(lab, channel)
    lab.put("in_force", "a:tokens_per_minute=600")
    answered, refusal = 0, None
    while refusal is None:
        refusal = calls.refused("a", tokens=90, prompt=10)
        answered += refusal is None
    assert answered in (6, 7, 8)  # what comes back in the meantime may be enough to begin more
    reason, seconds = refusal
    assert reason == "TOKEN_QUOTA"
    assert 0 < seconds <= 10.2  # one token, at 10 a second, and what the last call owes
    assert calls.refused("b", tokens=90) is None
    time.sleep(seconds)  # as the server asked
    assert calls.refused("a", tokens=2, prompt=10) is None
    lab.put("in_force", "a:weight=1")
    assert [calls.refused("a", tokens=90, prompt=10) for _ in range(8)] == [None] * 8


def test_tokens_of_attributions_and_of_many_answers_are_owed_and_no_call_waits_inside(lab, channel):
    responses = [vs.labelled([1, 2, 3] * 10, [4] * 20, bool(i % 2), f"q{i}") for i in range(4)]
    attribution = v1.AttributeNeuronsRequest(
        model=ONE,
        responses=responses,
        target=v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget()),
        attribution_patching=v1.AttributionPatching(),
    )
    generation = request(tokens=1, prompt=10)
    generation.n = 20
    attribute = neurons_pb2_grpc.NeuronServiceStub(channel).AttributeNeurons
    generate = generation_pb2_grpc.GenerationServiceStub(channel).Generate
    metadata = [("authorization", f"Bearer {lab.tokens.token['a', 'user']}")]
    # Of the responses those that express the value run.
    for call, asked, tokens in ((attribute, attribution, 100), (generate, generation, 220)):
        lab.put("in_force", "b:weight=3")
        assert Calls(lab, channel).refused("a", tokens=2) is None  # and nothing is owed any more
        lab.put("in_force", "a:tokens_per_minute=60")
        began = time.monotonic()
        call(asked, metadata=metadata, timeout=60)
        with pytest.raises(grpc.RpcError) as refused:
            call(asked, metadata=metadata, timeout=60)
        reason, seconds = details_of(refused.value)
        assert reason == "TOKEN_QUOTA"
        owed = tokens - 60 + 1  # one a second, the next one included
        assert owed - (time.monotonic() - began) - 1 < seconds <= owed
    lab.put("in_force", "b:weight=3")
    assert Calls(lab, channel).refused("a", tokens=2) is None


def test_a_wrong_file_leaves_what_was_in_force_and_says_so(lab, channel):
    calls = Calls(lab, channel)
    lab.put("in_force", "a:tokens_per_minute=60", "b:weight=3")
    lab.put("refused", "a:weight=1", "b:weight=often")
    assert 'line 2 has for b \\"weight=often\\"' in lab.server.log.read_text()
    assert calls.refused("a", tokens=90) is None
    assert calls.refused("a", tokens=90)[0] == "TOKEN_QUOTA"
    lab.put("in_force", "b:weight=3")
    assert calls.refused("a", tokens=2) is None


def test_no_call_that_runs_is_ended_by_a_change(lab, channel):
    calls = Calls(lab, channel)
    stop = threading.Event()

    def call_on():
        while not stop.is_set():
            before = len(calls.ended)
            calls.begin("b", count=4)
            calls.await_ended(before + 4)

    thread = threading.Thread(target=call_on)
    thread.start()
    try:
        for weight in (1, 5, 3):
            with calls.streaming("guest"):
                lab.put("in_force", f"b:weight={weight}:calls=8:queued={weight}")
    finally:
        stop.set()
        thread.join()
    assert calls.ended and calls.failures == []


def test_a_tenant_has_no_more_of_the_queue_than_its_share(lab, channel):
    calls = Calls(lab, channel)
    lab.put("in_force", "a:queue_share=0.001")  # one of all places, as of so few there is no part
    before = len(calls.ended)
    while not calls.failures:
        calls.begin("a", count=8)
        before += 8
        calls.await_ended(before)
    assert set(calls.failures) == {CODE.RESOURCE_EXHAUSTED}
    assert calls.refused("a", tokens=2) is None  # one is always let in
    assert calls.refused("b", tokens=2) is None
    lab.put("in_force", "a:queue_share=1:cache_share=0.001")
    calls.failures.clear()
    calls.begin("a", count=8)  # one after the other
    calls.await_ended(before + 8, "a")
    assert calls.failures == []
