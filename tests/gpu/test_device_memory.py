"""A GPU whose memory ends in a step: the step's requests are told so, and the server goes on."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

from conftest import Server, vs  # noqa: E402

DEVICE = os.environ.get("VALUESCOPE_TEST_DEVICE", "cuda:0")
MODEL = "models/135m"
# Of the device's memory, for weights, the driver's own and small steps.
LEFT_FREE = 2 << 30


def free_bytes():
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    shown = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    return int(shown.splitlines()[int(DEVICE.partition(":")[2] or 0)]) << 20


@pytest.fixture(scope="module")
def model_root(tmp_path_factory):
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("models")
    script = [sys.executable, str(HERE / "random_model.py"), "135m", str(root / "135m")]
    subprocess.run(script, check=True)
    return root


def test_a_step_without_memory_ends_its_requests_and_the_next_ones_run(model_root, tmp_path):
    server = Server(
        tmp_path,
        f"--device={DEVICE}",
        "--dtype=bfloat16",
        f"--model_root={model_root}",
        "--models=135m",
        "--max_step_tokens=16384",
        f"--kv_cache_bytes={free_bytes() - LEFT_FREE}",
    )
    with vs.Client(server.address, timeout=120) as client:
        client.wait_until_ready(MODEL)
        before = client.generate(MODEL, [5, 6, 7], max_tokens=8, temperature=0)
        # Logits of every token: over 4 GB in one step.
        long = [[7 + (i * k) % 40000 for i in range(2000)] for k in range(1, 9)]
        with pytest.raises(vs.Exhausted) as refused:
            client.score(MODEL, [5], long)
        assert refused.value.reason == "DEVICE_OUT_OF_MEMORY"
        after = client.generate(MODEL, [5, 6, 7], max_tokens=8, temperature=0)
        assert after.token_ids == before.token_ids
    assert server.stop() == 0
