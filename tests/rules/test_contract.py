"""The contract as a product: lint, no breaking change against the committed image, and every field explained."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BASELINE = pathlib.Path(__file__).with_name("contract_baseline.binpb")
BUF = pathlib.Path(sys.executable).with_name("buf")
FILES = sorted((PROTO / "valuescope" / "v1").glob("*.proto"))


def buf(*arguments, cwd=PROTO):
    return subprocess.run([BUF, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_lint_is_clean_with_nothing_exempt():
    result = buf("lint")
    assert result.returncode == 0, result.stdout + result.stderr
    configuration = (PROTO / "buf.yaml").read_text()
    assert "STANDARD" in configuration
    assert "except" not in configuration and "ignore" not in configuration
    assert not any("buf:lint:ignore" in file.read_text() for file in FILES)


def test_nothing_that_a_client_relies_on_changed():
    result = buf("breaking", "--against", str(BASELINE))
    assert result.returncode == 0, (
        result.stdout
        + result.stderr
        + "\nA deliberate change before a release: tests/rules/renew_contract_baseline"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("optional int32 max_tokens", "optional int64 max_tokens"),
        ("rpc Score(", "rpc Rate("),
    ],
)
def test_a_breaking_change_is_found(tmp_path, old, new):
    for file in [PROTO / "buf.yaml", *FILES]:
        copy = tmp_path / file.relative_to(PROTO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    changed = tmp_path / "valuescope" / "v1" / "generation.proto"
    assert old in changed.read_text()
    changed.write_text(changed.read_text().replace(old, new))
    assert buf("breaking", "--against", str(BASELINE), cwd=tmp_path).returncode != 0


# A declaration, and whatever stands on the line before it or behind it.
DECLARATION = re.compile(
    r"^\s*(message|enum|service|rpc|oneof)\s+\w+|^\s*(optional |repeated |map<)?[\w.<>, ]+ \w+ = \d+"
)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_declaration_is_explained(file):
    unexplained, previous = [], ""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        declares = DECLARATION.match(line) and not line.strip().startswith(
            ("//", "option", "package", "syntax", "import")
        )
        zero = re.search(r"_UNSPECIFIED = 0", line)
        if declares and not zero and not previous.strip().startswith("//") and "//" not in line:
            unexplained.append(f"{file.name}:{number}: {line.strip()}")
        previous = line
    assert not unexplained, "\n".join(unexplained)
