"""PostgreSQL as it is reached in earnest: over TLS with a password, on several hosts of which one can be written."""

import os
import shutil
import socket
import subprocess

import pytest
from conftest import BUILD, Server
from test_shared_store import LOAD, MODEL, Database

PASSWORD = "correct-horse:battery"
# Only with a password over TLS; through its socket, whoever runs the tests.
ACCESS = "local all all trust\nhostssl all all all scram-sha-256\n"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def certificate(folder, name):
    """A key and a certificate that it signed itself, for `localhost`."""
    key, made = folder / f"{name}.key", folder / f"{name}.crt"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", made], check=True, capture_output=True)
    key.chmod(0o600)
    if os.getuid() == 0:
        shutil.chown(key, "postgres")
    return key, made


class GuardedDatabase(Database):
    """One that is also reached at a port."""

    def __init__(self, folder, certificates):
        self.port = free_port()
        self.access = folder / "access"
        self.access.write_text(ACCESS)
        key, made = certificates
        self.options = [
            "listen_addresses=localhost,127.0.0.1",
            f"port={self.port}",
            "ssl=on",
            f"ssl_key_file={key}",
            f"ssl_cert_file={made}",
            f"hba_file={self.access}",
        ]
        super().__init__(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")  # the path of a socket must be short
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def certificates(folder):
    return certificate(folder, "server")


@pytest.fixture(scope="module")
def primary(folder, certificates):
    (folder / "one").mkdir()
    database = GuardedDatabase(folder / "one", certificates)
    database.script(f"CREATE ROLE lab LOGIN PASSWORD '{PASSWORD}'")
    database.script("CREATE DATABASE store OWNER lab")
    yield database
    database.stop()


@pytest.fixture(scope="module")
def standby(folder, certificates):
    """A copy that waits for what a primary would send."""
    (folder / "two").mkdir()
    database = GuardedDatabase(folder / "two", certificates)
    database.script(f"CREATE ROLE lab LOGIN PASSWORD '{PASSWORD}'")
    database.script("CREATE DATABASE store OWNER lab")
    database.stop()
    (folder / "two" / "data" / "standby.signal").touch()
    database.start()
    yield database
    database.stop()


def flags(url, folder):
    return [*LOAD, f"--store={url}", f"--artifacts={folder / 'blobs'}"]


def password_file(folder, password):
    file = folder / "pgpass"
    file.write_text(f"*:*:store:lab:{password.replace(':', chr(92) + ':')}\n")
    file.chmod(0o600)
    return file


def test_a_server_finds_the_host_that_can_be_written_and_trusts_its_certificate_alone(
    primary, standby, certificates, tmp_path
):
    hosts = ",".join(f"localhost:{port}" for port in (free_port(), standby.port, primary.port))
    url = f"postgresql://lab@{hosts}/store?target_session_attrs=read-write&sslmode=verify-full&sslrootcert={certificates[1]}"
    environment = {"PGPASSFILE": str(password_file(tmp_path, PASSWORD))}
    server = Server(tmp_path, *flags(url, tmp_path), environment=environment)
    with server.client(MODEL) as client:
        made = client.create_vector(MODEL, [float(i) for i in range(36)], layers=[1])
        (encrypted,) = primary.script(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'lab'"
        )
        assert encrypted == "t"
        assert [vector.name for vector in client.vectors()] == [made.name]
        # What fails over: connections end, and the next ones find whoever can be written.
        primary.crash()
        assert [vector.name for vector in client.vectors()] == [made.name]
    assert server.stop() == 0
    assert PASSWORD not in server.log.read_text()


@pytest.mark.parametrize(
    ("password", "trusted", "of_standby", "words"),
    [
        ("wrong-password", "server", False, "password authentication failed"),
        (PASSWORD, "other", False, "certificate verify failed"),
        (PASSWORD, "server", True, "read-write mode during recovery"),
    ],
)
def test_what_is_wrong_is_said_at_the_start_without_the_password(
    primary, standby, folder, tmp_path, password, trusted, of_standby, words
):
    root = folder / f"{trusted}.crt"
    if not root.exists():
        certificate(folder, trusted)
    port = (standby if of_standby else primary).port
    url = f"postgresql://lab@localhost:{port}/store?sslmode=verify-full&sslrootcert={root}"
    program = [BUILD / "server" / "valuescope-server", "--listen=127.0.0.1:0"]
    ended = subprocess.run(
        [*program, *flags(url, tmp_path)],
        env=os.environ | {"PGPASSFILE": str(password_file(tmp_path, password))},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert "--store" in ended.stderr
    assert words in ended.stderr
    assert password not in ended.stderr + ended.stdout
