"""Generations offered to a server: by clients that wait for each answer, or at a rate whatever the answers are."""

import dataclasses
import threading
import time

import grpc
from google.rpc import error_details_pb2, status_pb2
from meanwhile import OtherClient
from valuescope.v1 import generation_pb2_grpc

HEALTH = "/grpc.health.v1.Health/Check"
READINESS = b"\x0a\x09readiness"
SERVING = b"\x08\x01"


@dataclasses.dataclass
class Outcome:
    code: grpc.StatusCode
    started: float
    seconds: float
    reason: str = ""
    retry_seconds: float | None = None  # RetryInfo, where there is one
    answer: object = None

    @property
    def ended(self):
        return self.started + self.seconds


def details_of(error):
    """Reason and retry delay of a failed call."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    delay = None
    for detail in status.details:
        if detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
            delay = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return info.reason, delay


def outcome(call, started):
    seconds = time.monotonic() - started
    if call.code() is grpc.StatusCode.OK:
        return Outcome(call.code(), started, seconds, answer=call.result())
    reason, delay = details_of(call)
    return Outcome(call.code(), started, seconds, reason, delay)


class Offer:
    """Calls begun without waiting for their answers; `outcomes` waits for all of them."""

    def __init__(self, channel):
        self._stub = generation_pb2_grpc.GenerationServiceStub(channel)
        self._changed = threading.Condition()
        self._begun, self._outcomes = 0, []

    def begin(self, request):
        self._begun += 1
        started = time.monotonic()
        call = self._stub.Generate.future(request, timeout=120)

        def done(finished):
            with self._changed:
                self._outcomes.append(outcome(finished, started))
                self._changed.notify()

        call.add_done_callback(done)

    def outcomes(self):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._outcomes) == self._begun, 150)
            return self._outcomes


def at_rate(channel, request, rate, seconds):
    """Offers `rate` requests a second; the outcomes of all of them."""
    offer = Offer(channel)
    began = time.monotonic()
    for index in range(int(rate * seconds)):
        time.sleep(max(0.0, began + index / rate - time.monotonic()))
        offer.begin(request(index))
    return began, offer.outcomes()


def closed_loop(channel, request, clients, seconds):
    """`clients` that ask again as soon as they are answered; outcomes of what they asked."""
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    outcomes, began = [], time.monotonic()

    def ask(client):
        index = client
        while time.monotonic() < began + seconds:
            started = time.monotonic()
            _, call = stub.Generate.with_call(request(index), timeout=120)
            outcomes.append(Outcome(call.code(), started, time.monotonic() - started))
            index += clients

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return began, outcomes


def completed_a_second(began, outcomes, seconds, warm_up):
    """Answers that came between `warm_up` and `seconds` after the beginning, a second."""
    within = [
        each
        for each in outcomes
        if each.code is grpc.StatusCode.OK and warm_up <= each.ended - began < seconds
    ]
    return len(within) / (seconds - warm_up)


class HealthProbe(OtherClient):
    """Asks for readiness on a connection of its own, all the time; `seconds` of each answer."""

    def __init__(self, address, pause=0.02):
        super().__init__(address)
        self.pause, self.seconds, self.failures = pause, [], []
        self._check = self.channel.unary_unary(HEALTH)

    def __enter__(self):
        self._check(READINESS, timeout=30)  # connects
        return super().__enter__()

    def step(self):
        started = time.monotonic()
        try:
            if self._check(READINESS, timeout=30) != SERVING:
                self.failures.append("not serving")
        except grpc.RpcError as error:
            self.failures.append(error.code())
        self.seconds.append(time.monotonic() - started)
