"""Requests that are nearly right, and bytes that are no requests: each gets an answer that says why, nothing of another tenant comes back,
and whoever asks next gets what they always got, to the bit.

VALUESCOPE_MUTATIONS is how many requests each RPC gets (default 300), VALUESCOPE_MUTATION_SEED which they are (default 1): a failure names
its method, seed and number, which make it again.
"""

import contextlib
import os
import random
import socket
import ssl

import grpc
import numpy as np
import pytest
from golden_server import ROOT, Server  # which knows where the client is

# isort: split
import valuescope as vs
from callers import Tokens, contract_methods
from certificates import Authority
from google.rpc import error_details_pb2, status_pb2
from mutations import Mutator
from raw_calls import EMPTY_SETTINGS, PREFACE, in_threads
from test_generated_responses import make_models
from valid_requests import calls, edits, make

MUTATIONS = int(os.environ.get("VALUESCOPE_MUTATIONS", "300"))
SEED = int(os.environ.get("VALUESCOPE_MUTATION_SEED", "1"))
THREADS = 3
PATIENCE = 10  # seconds that a call may take; some ask for hours of work, and are taken back
MOST_MESSAGES = 50  # of a stream that are looked at
# Their vocabularies are words, of which one knows letters too.
MODEL, SPARE = "models/judge", "models/gemma"
CANARY = "canary 61803"
CODE = grpc.StatusCode
TAKEN_BACK = {CODE.DEADLINE_EXCEEDED, CODE.CANCELLED}
REFUSED = {
    CODE.INVALID_ARGUMENT, CODE.NOT_FOUND, CODE.ALREADY_EXISTS, CODE.FAILED_PRECONDITION, CODE.RESOURCE_EXHAUSTED, CODE.OUT_OF_RANGE,
    CODE.PERMISSION_DENIED,
}  # fmt: skip
# What is not there to be done again: the job has succeeded.
REFUSED_AS_IT_IS = {"JobService/RetryJob"}
METHODS = [method.removeprefix("/valuescope.v1.") for method in contract_methods()]


class Lab:
    """A server, what two tenants have on it, and the valid calls of the first one."""

    def __init__(self, folder, *flags):
        tokens = Tokens(folder)
        for tenant, role in [("a", "admin"), ("b", "user")]:
            tokens.create(tenant, role)
        models = f"{MODEL.split('/')[1]},{SPARE.split('/')[1]}"
        root = make_models(folder / "models")
        tiny = (f"--model_root={root}", f"--models={models}", "--threads=1")
        self.server = Server(folder, *tiny, f"--tokens={tokens.file}", *flags)
        self.token = tokens.token
        with self.client("b", "user") as client:
            for model in (MODEL, SPARE):
                client.wait_until_ready(model)
            self.others = make(client, MODEL, CANARY, first_seed=11).names()[1:]
        with self.client("a", "admin") as client:
            self.made = make(client, MODEL)
            file = client.export_vectors(self.made.vectors)
        self.calls = calls(self.made, SPARE, file)
        self.channel = grpc.insecure_channel(self.server.address)
        self.witness = self.ask()

    def client(self, tenant, role):
        return vs.Client(self.server.address, token=self.token[tenant, role], timeout=120)

    def ask(self):
        """What somebody gets who behaves: tokens and activations, as bytes."""
        sampling = {"max_tokens": 6, "temperature": 1.0, "seed": 7}
        with self.client("a", "admin") as client:
            made = client.generate(MODEL, [5, 9, 17], steer=edits(self.made), **sampling)
            (seen,) = client.capture(MODEL, [([5, 9], [17, 4])], vs.tap("residual_post", "all"))
        return list(made.completions[0].token_ids), np.asarray(seen[0]).tobytes()

    def names_for(self, method):
        """Names that a mutation may put in a request: of what others have, and, where nothing is deleted, of its own."""
        name = method.split("/")[1]
        foreign = [*self.others, "models/speaker", "vectors/0", "jobs/0"]
        spares = name.startswith(("Delete", "Load", "Unload"))
        return foreign + ([SPARE] if spares else [*self.made.names(), *self.made.vectors])

    def send(self, method, parts, timeout=PATIENCE):
        """(code, whatever came back as bytes, reason)."""
        call = self.channel.stream_stream(
            f"/valuescope.v1.{method}", request_serializer=None, response_deserializer=None
        )(
            iter(parts),
            metadata=[("authorization", f"Bearer {self.token['a', 'admin']}")],
            timeout=timeout,
        )
        seen = []
        try:
            for message in call:
                seen.append(message)
                if len(seen) == MOST_MESSAGES:
                    call.cancel()
                    return CODE.OK, seen, ""
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            details = trailers.get("grpc-status-details-bin", b"")
            return error.code(), [*seen, (error.details() or "").encode(), details], reason(details)
        return CODE.OK, seen, ""


def reason(details):
    for packed in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            return info.reason
    return ""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.channel.close()
    assert lab.server.stop() == 0, lab.server.log.read_text()[-4000:]


@pytest.fixture(autouse=True)
def unharmed(request):
    """Whatever a test sent, the server goes on and the next request gets what it always got."""
    lab = request.getfixturevalue("lab")
    yield
    assert lab.server.running(), lab.server.log.read_text()[-8000:]
    assert lab.ask() == lab.witness


def test_every_rpc_has_a_valid_call(lab):
    assert sorted(lab.calls) == sorted(METHODS)
    for method in METHODS:
        for messages in lab.calls[method]:
            code, seen, _ = lab.send(method, [one.SerializeToString() for one in messages], 60)
            allowed = {CODE.FAILED_PRECONDITION} if method in REFUSED_AS_IT_IS else {CODE.OK}
            assert code in allowed, (method, seen)


def check(lab, method, number):
    draws = random.Random(f"{method} {SEED} {number}")
    messages = draws.choice(lab.calls[method])
    parts = Mutator(draws, lab.names_for(method)).mutate(messages)
    code, seen, why = lab.send(method, parts)
    told = (method, SEED, number, code, [part[:300] for part in seen[-2:]])
    assert code == CODE.OK or code in TAKEN_BACK | REFUSED, told
    assert why or code in TAKEN_BACK | {CODE.OK}, told
    assert not any(CANARY.encode() in part for part in seen), told


@pytest.mark.parametrize("method", METHODS)
def test_what_is_nearly_right_is_answered(lab, method):
    def send_some(first):
        for number in range(first, MUTATIONS, THREADS):
            check(lab, method, number)

    in_threads(THREADS, send_some)
    if method == "JobService/CreateJob":
        with lab.client("a", "admin") as client:
            for job in client.jobs():
                client.cancel_job(job.name)
    if method.startswith("ModelService/"):
        with lab.client("a", "admin") as client:
            client.load_model(SPARE)
            client.wait_until_ready(SPARE)


# --- Bytes that are no requests ---


def frame(kind, flags, stream, payload):
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def garbage(draws):
    """What might come out of a socket: noise, another protocol, and HTTP/2 that is wrong in its frames."""
    noise = draws.randbytes(draws.choice([1, 9, 100, 20_000]))
    frames = b"".join(
        frame(draws.randrange(16), draws.randrange(256), draws.choice([0, 1, 2, 3, 2**31 - 1]), draws.randbytes(draws.randrange(60)))
        for _ in range(draws.randrange(1, 40))
    )  # fmt: skip
    begun = PREFACE + EMPTY_SETTINGS
    return draws.choice(
        [
            noise,
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" + noise,
            PREFACE[: draws.randrange(len(PREFACE))],
            begun + frames,
            begun + frame(1, 4, 1, noise[:100]) + frames,
            begun + frame(4, 0, 0, b"\0\4\xff\xff\xff\xff" * draws.randrange(1, 50)),
            begun + frame(6, 0, 0, bytes(8)) * draws.randrange(1, 300),
            begun + b"\xff\xff\xff" + noise,
        ]
    )


def throw(address, data):
    """Sends it, takes whatever is answered within moments, and goes."""
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as thrown:
        thrown.sendall(data)
        thrown.settimeout(0.02)
        thrown.recv(1 << 16)


def test_bytes_that_are_no_http2_harm_nobody(lab):
    draws = random.Random(SEED)
    for _ in range(MUTATIONS):
        throw(lab.server.address, garbage(draws))


def test_bytes_that_are_no_tls_harm_nobody(tmp_path, lab):
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.server()
    folder = tmp_path / "tls"
    folder.mkdir()
    flags = (f"--tls_certificate={certificate}", f"--tls_key={key}", "--insecure")
    server = Server(
        folder, f"--model_root={ROOT / 'tests' / 'golden' / 'families'}", "--models=", *flags
    )
    draws = random.Random(SEED)
    hello = client_hello()
    for _ in range(MUTATIONS):
        changed = bytearray(hello)
        for _ in range(draws.choice([0, 1, 5, 50])):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        throw(server.address, draws.choice([garbage(draws), bytes(changed), hello[: draws.randrange(len(hello))]]))  # fmt: skip
    assert server.running(), server.log.read_text()[-8000:]
    with vs.Client(server.address, tls=vs.Tls(ca=authority.root)) as client:
        assert [model.name for model in client.models()]
    assert server.stop() == 0


def client_hello():
    """The first bytes of a client that means it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
