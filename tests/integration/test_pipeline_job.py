"""The job of a pipeline that the README shows: its commands start a server, build the alignment gate and let a vector through."""

import contextlib
import os
import signal
import socket
import subprocess

import numpy as np
from conftest import BUILD, BUILDING, CACHE, MODEL, exported, job_of_the_readme


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_the_job_of_the_readme_lets_a_vector_through(gate_program, prefix, server, tmp_path):
    """A server on a real model is started by the job, and one that runs makes the vector."""
    with server.client() as running:
        noise = np.random.default_rng(5).normal(size=(1, 576)).astype(np.float32) / 24
        name = running.create_vector(MODEL, noise, layers=[14]).name
    job = job_of_the_readme()
    variables = {
        "SERVER": f"127.0.0.1:{free_port()}",
        "MODELS": str(CACHE / "models"),
        "PREFIX": str(prefix),
        "VECTOR": str(exported(server, name, tmp_path / "v.safetensors")),
    }
    assert set(job["variables"]) == set(variables)
    process = subprocess.Popen(
        ["bash", "-euc", "\n".join(job["script"])],
        cwd=gate_program.parents[1],
        env=BUILDING | variables | {"PATH": f"{BUILD / 'server'}:{os.environ['PATH']}"},
        stdout=(tmp_path / "out").open("wb"),
        stderr=(tmp_path / "err").open("wb"),
        start_new_session=True,
    )
    try:
        code = process.wait(120)
    finally:
        # The server that the job left, as a pipeline does it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    said = (tmp_path / "out").read_text()
    assert code == 0, said + (tmp_path / "err").read_text()[-3000:]
    assert said.rstrip().endswith("within all bounds")
