"""Connections with TLS: whom clients and the server trust, callers by their certificates, and files that are renewed under load."""

import asyncio
import ssl
import subprocess
import threading

import grpc
import numpy as np
import pytest
import valuescope as vs
from callers import ONE, TINY, Tokens, code_of
from certificates import Authority, Mounted
from conftest import BUILD, Server, await_true

ONCE = vs.Retry(attempts=1)
LIST_MODELS = "/valuescope.v1.ModelService/ListModels"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger") / "ca")


@pytest.fixture(scope="module")
def served(tmp_path_factory, authority):
    """A server that wants to see a certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate, key = authority.server()
    server = Server(
        folder,
        *TINY,
        f"--tls_certificate={certificate}",
        f"--tls_key={key}",
        f"--tls_client_ca={authority.root}",
    )
    yield server
    if server.running():
        assert server.stop() == 0


@pytest.fixture(scope="module")
def renewable(tmp_path_factory, authority):
    """A server that takes a token or a certificate, and whose files can be renewed."""
    folder = tmp_path_factory.mktemp("renewable")
    mounted = Mounted(folder / "mounted")
    mounted.put(*authority.server("old"), authority.root)
    tokens = Tokens(folder)
    token = tokens.create("a", "reader")
    server = Server(
        folder,
        *TINY,
        f"--tokens={tokens.file}",
        f"--tls_certificate={mounted.certificate}",
        f"--tls_key={mounted.key}",
        f"--tls_client_ca={mounted.root}",
    )
    server.mounted, server.token = mounted, token
    yield server
    assert server.stop() == 0


def as_caller(server, authority, tenant, role, **how):
    certificate, key = authority.caller(tenant, role)
    tls = vs.Tls(ca=authority.root, certificate=certificate, key=key)
    return vs.Client(server.address, tls=tls, retry=ONCE, timeout=30, **how)


def test_a_certificate_tells_tenant_and_role(served, authority):
    with (
        as_caller(served, authority, "a", "user") as a,
        as_caller(served, authority, "b", "user") as b,
    ):
        a.wait_until_ready(ONE)
        rows = np.ones((3, a.model(ONE).hidden_size))
        vector = a.create_vector(ONE, rows, layers=range(3)).name
        assert [found.name for found in a.vectors()] == [vector]
        assert b.vectors() == []
        with pytest.raises(vs.NotFound):
            b.vector(vector)
        with as_caller(served, authority, "a", "reader") as reader:
            assert reader.vector(vector).name == vector
            with pytest.raises(vs.AccessDenied, match="needs the role user"):
                reader.delete_vector(vector)


def test_whom_the_server_does_not_trust_gets_no_connection(served, authority, stranger):
    certificate, key = stranger.caller("a", "admin")
    for tls in (
        vs.Tls(ca=authority.root),
        vs.Tls(ca=authority.root, certificate=certificate, key=key),
    ):
        with vs.Client(served.address, tls=tls, retry=ONCE, timeout=20) as client:
            with pytest.raises(vs.Unavailable):
                client.models()
    with vs.Client(served.address, retry=ONCE, timeout=20) as client:  # in the clear
        with pytest.raises(vs.Unavailable):
            client.models()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "DNS:lab.example",
        "URI:spiffe://lab.example/tenant/a",
        "URI:https://lab.example/tenant/a/role/user",
        "URI:spiffe://lab.example/tenant/a/role/user,URI:spiffe://lab.example/tenant/b/role/user",
    ],
)
def test_a_certificate_that_names_nobody_is_refused(served, authority, name):
    certificate, key = authority.sign("nobody", name)
    tls = vs.Tls(ca=authority.root, certificate=certificate, key=key)
    with vs.Client(served.address, tls=tls, retry=ONCE, timeout=20) as client:
        with pytest.raises(vs.AccessDenied, match="spiffe://DOMAIN/tenant/TENANT/role/ROLE"):
            client.models()


def test_clients_check_the_server(served, authority, stranger):
    certificate, key = authority.caller("a", "reader")
    tls = vs.Tls(ca=stranger.root, certificate=certificate, key=key)

    async def models():
        async with vs.AsyncClient(served.address, tls=tls, retry=ONCE, timeout=20) as client:
            return await client.models()

    with pytest.raises(vs.Unavailable):
        asyncio.run(models())
    program = [
        BUILD / "client" / "cpp" / "valuescope",
        "--server",
        served.address,
        "--timeout",
        "5",
    ]
    shown = ["--tls_certificate", certificate, "--tls_key", key]
    for root, code in [(authority.root, 0), (stranger.root, 1)]:
        done = subprocess.run([*program, *shown, "--tls_ca", root, "models"], capture_output=True)
        assert done.returncode == code, done.stderr
    done = subprocess.run([*program, "models"], capture_output=True, env={
        "VALUESCOPE_TLS_CA": str(authority.root),
        "VALUESCOPE_TLS_CERTIFICATE": str(certificate),
        "VALUESCOPE_TLS_KEY": str(key),
    })  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_token_or_a_certificate_is_enough_where_both_are_known(renewable, authority):
    server, token = renewable, renewable.token
    with vs.Client(server.address, tls=vs.Tls(ca=authority.root), token=token) as client:
        client.wait_until_ready(ONE)
        with pytest.raises(vs.AccessDenied, match="have the role reader"):
            client.unload_model(ONE)
    with as_caller(server, authority, "b", "admin") as client:
        assert client.models() != []
    with as_caller(server, authority, "b", "admin", token=token) as client:  # who the token says
        with pytest.raises(vs.AccessDenied, match="have the role reader"):
            client.unload_model(ONE)
    with vs.Client(server.address, tls=vs.Tls(ca=authority.root), retry=ONCE) as client:
        with pytest.raises(vs.AccessDenied, match="wants to know who calls"):
            client.models()


def test_certificates_and_roots_are_renewed_under_load_without_a_failed_call(
    renewable, tmp_path, authority, stranger
):
    """The server moves from one authority to another, with clients that trust both, and by a token or a certificate of either."""
    server, token = renewable, renewable.token
    both = tmp_path / "both"
    both.write_bytes(authority.root.read_bytes() + stranger.root.read_bytes())
    stop, failures, calls = threading.Event(), [], {"open": 0, "new": 0}

    def client():
        return vs.Client(server.address, tls=vs.Tls(ca=both), token=token, retry=ONCE, timeout=30)

    def attempt(one, kind):
        try:
            one.models()
            calls[kind] += 1
        except vs.ValuescopeError as error:
            failures.append((kind, error))

    def call_on():
        with client() as one:
            while not stop.is_set():
                attempt(one, "open")

    def call_anew():
        while not stop.is_set():
            with client() as one:
                attempt(one, "new")

    def shown():
        host, port = server.address.split(":")
        return ssl.get_server_certificate((host, int(port)), timeout=10)

    def trusts(root):
        certificate, key = root.caller("a", "reader")
        credentials = vs.Tls(ca=both, certificate=certificate, key=key).credentials()
        with grpc.secure_channel(server.address, credentials) as channel:
            return code_of(channel, LIST_MODELS) is None

    threads = [threading.Thread(target=work) for work in (call_on, call_anew)]
    try:
        before = shown()
        assert trusts(authority) and not trusts(stranger)
        for thread in threads:
            thread.start()
        server.mounted.put(*stranger.server("new"), stranger.root)
        await_true(lambda: shown() != before, 5)
        await_true(lambda: trusts(stranger), 5)
        assert not trusts(authority)
        seen = dict(calls)
        await_true(lambda: all(calls[kind] > seen[kind] + 5 for kind in calls), 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
