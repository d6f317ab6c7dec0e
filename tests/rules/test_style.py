"""Formatting and lint, so that no review has to speak of either."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(sys.executable).parent


def tracked(*patterns: str) -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listing.stdout.split("\n") if name and (ROOT / name).is_file()]


def run(tool: str, *arguments: str) -> None:
    result = subprocess.run(
        [TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


def test_cpp_is_formatted():
    run("clang-format", "--dry-run", "-Werror", *tracked("*.cc", "*.h"))


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check", "--diff")], ids=" ".join)
def test_python_is_clean(arguments):
    run("ruff", *arguments, "--no-cache", *tracked("*.py", "*.ipynb"))


def test_shell_scripts_parse_and_stop_at_the_first_error():
    scripts = [
        name for name in tracked() if (ROOT / name).read_bytes()[:19] == b"#!/usr/bin/env bash"
    ]
    assert len(scripts) >= 4
    for name in scripts:
        subprocess.run(["bash", "-n", name], cwd=ROOT, check=True)
        assert "set -euo pipefail" in (ROOT / name).read_text(), name


def test_the_top_level_stays_what_it_is():
    names = {name.split("/")[0] for name in tracked()}
    names = {name for name in names if not name.startswith(".")}
    assert names == {
        "proto", "server", "client", "deploy", "docker", "tests", "findings", "CMakeLists.txt", "README.md",
    }  # fmt: skip
