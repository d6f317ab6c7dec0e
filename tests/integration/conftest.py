"""A real server on SmolLM2-135M-Instruct, started from the build and reached through real gRPC on loopback."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(
    os.environ.get("VALUESCOPE_CACHE", pathlib.Path.home() / ".cache" / "valuescope")
)
BUILD = pathlib.Path(os.environ.get("VALUESCOPE_BUILD", ROOT / "build"))
PROGRAM = BUILD / "server" / "valuescope-server"
MODEL = "models/SmolLM2-135M-Instruct"

sys.path.insert(0, str(ROOT / "client" / "python"))
subprocess.run([sys.executable, str(ROOT / "client" / "python" / "generate_stubs.py")], check=True)

import valuescope as vs  # noqa: E402

# More flags for every server, such as --device=cuda:0: how tests/gpu runs these tests elsewhere.
MORE_FLAGS = os.environ.get("VALUESCOPE_SERVER_FLAGS", "").split()

# For projects that are built against the installed client; tests/run needs no make either.
BUILDING = os.environ | ({"CMAKE_GENERATOR": "Ninja"} if shutil.which("ninja") else {})

MODELS = [f"--model_root={CACHE / 'models'}", "--models=SmolLM2-135M-Instruct"]


def given(default, flag):
    return flag.split("=")[0] == default.split("=")[0]


def run(*command, **options):
    """What a program that has to succeed prints."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def exported(server, vector, file):
    """`file`, into which a vector was exported."""
    program = BUILD / "client" / "cpp" / "valuescope"
    run(program, "--server", server.address, "vectors", "export", vector, "--out", file)
    return file


def job_of_the_readme():
    """The job of a pipeline that lets a steering through: its variables, and the commands of its script."""
    readme = (ROOT / "README.md").read_text()
    (text,) = re.findall(r"```yaml\n(alignment-gate:.*?)```", readme, re.DOTALL)
    return yaml.safe_load(text)["alignment-gate"]


def await_true(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.02)


class Server:
    """One server process over a store in `directory`; a second one over the same directory continues its work."""

    def __init__(self, directory, *flags, environment=None, program=PROGRAM):
        """`environment`: variables of its own beside those of the tests; `program`: its own path, or within the build."""
        self.log = directory / "server.log"
        self._process = subprocess.Popen(
            [
                str(BUILD / program),
                "--listen=127.0.0.1:0",
                "--metrics_listen=127.0.0.1:0",
                f"--store=sqlite:{directory / 'store.db'}",
                *(default for default in MODELS if not any(given(default, flag) for flag in flags)),
                *MORE_FLAGS,
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=self.log.open("ab"),
            text=True,
            env=os.environ | (environment or {}),
        )
        line = self._process.stdout.readline()
        match = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", line)
        assert match, f"announced {line!r}; log: {self.log.read_text()}"
        self.address = match.group(1)
        # Whatever else it prints would be a second line on a stream that promises one.
        self.rest = []
        threading.Thread(target=lambda: self.rest.extend(self._process.stdout), daemon=True).start()

    def client(self, model=MODEL):
        client = vs.Client(self.address, timeout=120)
        client.wait_until_ready(model)
        return client

    def metrics(self):
        address = re.findall(r'"metrics_address":\s*"([^"]+)"', self.log.read_text())[-1]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
            return response.read().decode()

    def kill(self):
        """As a power cut would: no handler runs."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def running(self):
        return self._process.poll() is None


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    if server.running():
        assert server.stop() == 0
    assert server.rest == []


@pytest.fixture(scope="session")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def prefix(tmp_path_factory):
    """Where the package of the C++ client ended up: not where it was installed to."""
    installed = tmp_path_factory.mktemp("installed") / "first"
    run("cmake", "--install", BUILD, "--component", "client", "--prefix", installed)
    moved = installed.parent / "second"
    shutil.move(installed, moved)
    return moved


@pytest.fixture(scope="session")
def gate_program(tmp_path_factory, prefix):
    """The alignment gate, built by the README's commands in a folder as a pipeline has it, two above the program."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "client").symlink_to(ROOT / "client")
    commands = [line for line in job_of_the_readme()["script"] if line.startswith("cmake")]
    assert len(commands) == 2
    run("bash", "-euc", "\n".join(commands), cwd=folder, env=BUILDING | {"PREFIX": str(prefix)})
    return folder / "gate" / "alignment_gate"


@pytest.fixture
def start_server(tmp_path):
    servers = []

    def start(directory=tmp_path, *flags):
        directory.mkdir(exist_ok=True)
        servers.append(Server(directory, *flags))
        return servers[-1]

    yield start
    for server in servers:
        if server.running():
            server.kill()
