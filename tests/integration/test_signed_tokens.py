"""Tokens that an issuer signs, such as those of a cluster's service accounts: through the real server, on a tiny model."""

import json
import os
import subprocess

import grpc
import pytest
import valuescope as vs
from callers import ONE, TINY
from conftest import BUILD, Server, await_true
from issuer import AUDIENCE, ISSUER, Issuer

GATE = "system:serviceaccount:lab:gate"
LINES = [
    {"sub": GATE, "tenant": "lab", "role": "user", "name": "gate"},
    {"sub": "system:serviceaccount:lab:*", "tenant": "lab", "role": "reader"},
]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def server(issuer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    tokens = folder / "tokens.jsonl"
    tokens.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    flags = (f"--tokens={tokens}", f"--jwt_keys={issuer.keys}", f"--jwt_issuer={ISSUER}")
    server = Server(folder, *TINY, *flags)
    with vs.Client(server.address, token=issuer.token(GATE)) as client:
        client.wait_until_ready(ONE)
    yield server
    assert server.stop() == 0


def refused(server, token):
    """The status and reason that a call with it ends with, and the words."""
    with (
        vs.Client(server.address, token=token) as client,
        pytest.raises(vs.ValuescopeError) as error,
    ):
        client.models()
    return error.value.code, error.value.reason, str(error.value)


def test_a_service_account_is_the_tenant_and_role_that_its_line_says(server, issuer):
    with vs.Client(server.address, token=issuer.token(GATE)) as gate:
        gate.generate(ONE, "a", max_tokens=1)
    with vs.Client(server.address, token=issuer.token(GATE + "keeper")) as reader:
        assert reader.models()
        with pytest.raises(vs.ValuescopeError) as error:
            reader.generate(ONE, "a", max_tokens=1)
        assert error.value.code == grpc.StatusCode.PERMISSION_DENIED
    log = server.log.read_text()
    assert '"gate"' in log
    assert f'"{GATE}keeper"' in log
    assert issuer.token(GATE).split(".")[2][:20] not in log


@pytest.mark.parametrize(
    "claims, reason, told",
    [
        ({"exp": 1}, "TOKEN_EXPIRED", "get a new one"),
        ({"nbf": 1 << 40, "exp": 1 << 41}, "TOKEN_EXPIRED", "later time"),
        ({"iss": "https://other.example"}, "TOKEN_UNKNOWN", "`iss`"),
        ({"aud": ["api"]}, "TOKEN_UNKNOWN", "`aud`"),
        ({"sub": None}, "TOKEN_UNKNOWN", "`sub`"),
        ({"sub": "system:serviceaccount:other:gate"}, "SUBJECT_UNKNOWN", "--tokens"),
    ],
)
def test_a_token_that_is_not_for_here_is_told_what_it_lacks(server, issuer, claims, reason, told):
    code, refused_as, words = refused(server, issuer.token(GATE, **claims))
    assert (code, refused_as) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert told in words


def test_a_token_of_another_key_is_unknown(server, issuer, tmp_path):
    stranger = Issuer(tmp_path)
    assert refused(server, stranger.token(GATE))[:2] == (
        grpc.StatusCode.UNAUTHENTICATED,
        "TOKEN_UNKNOWN",
    )
    head, _, signature = issuer.token(GATE).split(".")
    for token in (f"{head}..{signature}", f"{head}.{head}.{signature}", "a.b.c", ".."):
        assert refused(server, token)[1] == "TOKEN_UNKNOWN"


def test_a_client_follows_its_token_file_and_the_server_the_keys(server, issuer, tmp_path):
    """As a kubelet renews a projected token, and a cluster its keys."""
    held = tmp_path / "token"
    held.write_text(issuer.token(GATE))
    with vs.Client(server.address, token_file=str(held)) as client:
        assert client.models()
        before = issuer.token(GATE)
        issuer.change_key()
        await_true(lambda: not _may(server, before), 5)
        new = held.with_suffix(".new")
        new.write_text(issuer.token(GATE))
        os.replace(new, held)
        assert client.models()


def _may(server, token):
    try:
        with vs.Client(server.address, token=token) as client:
            client.models()
    except vs.ValuescopeError as error:
        assert error.code == grpc.StatusCode.UNAUTHENTICATED
        return False
    return True


def test_a_server_without_right_keys_does_not_start(tmp_path, issuer):
    tokens = tmp_path / "tokens.jsonl"
    tokens.write_text(json.dumps(LINES[0]))
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]}))
    flags = (f"--tokens={tokens}", f"--jwt_keys={keys}", f"--jwt_issuer={ISSUER}")
    program = [BUILD / "server" / "valuescope-server", "--listen=127.0.0.1:0", "--metrics_listen="]
    program += [f"--store=sqlite:{tmp_path / 's.db'}", f"--jwt_audience={AUDIENCE}"]
    done = subprocess.run([*program, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--jwt_keys: keys[0] is a secret key" in done.stderr
