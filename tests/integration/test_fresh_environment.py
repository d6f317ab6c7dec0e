"""What a newcomer has after `pip install client/python` in an environment of their own: nothing of the checkout is on its path."""

import json
import shutil
import subprocess
import venv
import zipfile

import pytest
from conftest import MODEL, ROOT

# What a researcher types first; prints one line of JSON.
PROGRAM = """
import asyncio, importlib.metadata, json, sys
import numpy as np
import valuescope as vs
from valuescope import recipes

address, model = sys.argv[1:]

async def awaited():
    async with vs.AsyncClient(address, timeout=120) as client:
        return (await client.generate(model, "The sea is", max_tokens=2, temperature=0.0)).token_ids

with vs.connect(address, timeout=120, wait=60) as client:
    client.wait_until_ready(model)
    steer = vs.Steer(np.ones(576), 0.5, layers=14)
    batch = client.generate(
        model, ["The sea is", "Red is"], max_tokens=2, temperature=0.0, progress="prompts"
    )
    steered = client.generate(model, "The sea is", steer=steer, max_tokens=2, temperature=0.0)
    activations = client.capture(model, ["Hello"], [vs.tap(layers=[3, 14], reduction="mean")])
    try:
        client.model("models/none")
    except vs.NotFound as error:
        refused = error.request_id
try:
    vs.to_numpy(vs.from_numpy([1.0], dtype="bfloat16"), widen_bfloat16=False)
except ImportError as error:
    hint = str(error)
print(json.dumps({
    "file": vs.__file__,
    "tokens": [g.token_ids for g in batch],
    "awaited": asyncio.run(awaited()),
    "receipts": repr(steered),
    "shape": activations[0][0].shape,
    "refused": refused,
    "hint": hint,
    "values": len(recipes.sample_values()),
    "installed": sorted(d.name.lower() for d in importlib.metadata.distributions()),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as pip builds it from a clone: a copy of what git tracks of it, so that nothing generated comes along."""
    clone = tmp_path_factory.mktemp("clone")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "client/python", "proto"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    environment = tmp_path_factory.mktemp("fresh") / "environment"
    venv.create(environment, with_pip=True)
    pip = [environment / "bin" / "python", "-m", "pip", "-q", "--disable-pip-version-check"]
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", built, clone / "client" / "python"], check=True
    )
    (wheel,) = built.glob("*.whl")
    subprocess.run([*pip, "install", wheel], check=True)
    return wheel, environment / "bin" / "python"


def test_the_wheel_holds_the_package_its_types_and_its_messages(wheel):
    names = zipfile.ZipFile(wheel[0]).namelist()
    for name in ["py.typed", "client.py", "v1/__init__.py", "v1/jobs_pb2.py", "v1/jobs_pb2.pyi"]:
        assert f"valuescope/{name}" in names
    assert not [name for name in names if "test" in name or name.endswith("conftest.py")]


def test_with_only_the_package_one_can_talk_to_the_server(wheel, server, client, tmp_path):
    done = subprocess.run(
        [wheel[1], "-I", "-c", PROGRAM, server.address, MODEL],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["file"].startswith(str(ROOT))
    assert "tqdm" not in said["installed"] and "prompts: 2/2" in done.stderr
    here = client.generate(MODEL, "The sea is", max_tokens=2, temperature=0.0)
    assert said["tokens"][0] == said["awaited"] == here.token_ids
    assert "touched 2 positions of layers 14" in said["receipts"]
    assert said["shape"] == [2, 1, 576]
    assert len(said["refused"]) == 36
    assert "valuescope[bfloat16]" in said["hint"]
    assert said["values"] == 10
