"""The notebooks of the Python client as files, and the one for users of other tools run against a real server on a golden model: what the server
captures is what transformers gave."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, Server
from test_families import FAMILIES

NOTEBOOKS = ROOT / "client" / "python" / "notebooks"
MOVE = "from_transformer_lens_and_nnsight.ipynb"
NAME = "llama3_rope"
# Runs a notebook's cells in one namespace, as a kernel does; behind the cell of parameters those that are given. Its last line is the value of
# an expression that is asked for.
PROGRAM = """
import json, sys
notebook, parameters, asked = sys.argv[1:]
names = {}
for cell in json.load(open(notebook))["cells"]:
    if cell["cell_type"] != "code":
        continue
    exec(compile("".join(cell["source"]), f"<cell {cell['id']}>", "exec"), names)
    if "parameters" in cell["metadata"].get("tags", []):
        names |= json.loads(parameters)
print(json.dumps(eval(asked, names)))
"""


def execute(notebook, address, model, folder, parameters, asked):
    """How a notebook ended, with its output; the last line is the value of the expression `asked`."""
    environment = os.environ | {
        "VALUESCOPE_SERVER": address,
        "VALUESCOPE_MODEL": model,
        "VALUESCOPE_MODEL_FOLDER": str(folder),
        "PYTHONPATH": str(ROOT / "client" / "python"),
        "MPLBACKEND": "Agg",
    }
    given = json.dumps(parameters)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(NOTEBOOKS / notebook), given, asked],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def found(*arguments):
    """The value of what is asked for at a notebook's end."""
    done = execute(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("notebook", sorted(path.name for path in NOTEBOOKS.iterdir()))
def test_a_notebook_is_kept_without_outputs_and_with_names_for_its_cells(notebook):
    book = json.loads((NOTEBOOKS / notebook).read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,63}", one) for one in ids)
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    server = Server(folder, f"--model_root={FAMILIES}", f"--models={NAME}")
    server.client(f"models/{NAME}").close()
    yield server.address
    assert server.stop() == 0


def parameters():
    about = json.loads((FAMILIES / NAME / "expected.json").read_text())
    return {"tokens": about["sequences"][1], "sequence": 1, "tolerance": 1e-5}


def test_values_by_the_names_of_other_tools_are_those_by_ours(address):
    asked = """{
        "sites": [list(key) for key in differences if isinstance(key, tuple)],
        "others": [key for key in differences if isinstance(key, str)],
        "largest": max(differences.values()),
        "names": list(NAMES),
    }"""
    told = found(MOVE, address, f"models/{NAME}", FAMILIES / NAME, parameters(), asked)
    assert len(told["names"]) == 7
    assert sorted(told["sites"]) == sorted([b, name] for b in range(3) for name in told["names"])
    assert told["others"][:3] == ["logits", "mean", "steered"]
    assert 0 < told["largest"] < 1e-5


def test_values_that_are_not_those_of_the_model_end_the_comparison(address, tmp_path):
    folder = tmp_path / NAME
    shutil.copytree(FAMILIES / NAME, folder)
    file = folder / "expected.safetensors"
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin, _ = json.loads(data[8 : 8 + size])["1.mlp_output.2"]["data_offsets"]
    at = 8 + size + begin
    data[at : at + 4] = np.float32(9).tobytes()
    file.write_bytes(data)
    done = execute(MOVE, address, f"models/{NAME}", folder, parameters(), "0")
    assert done.returncode != 0
    assert "AssertionError" in done.stderr and "<cell ours>" in done.stderr
