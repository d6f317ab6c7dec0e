"""The image's recipe, checked without an engine: lint, and that every path it copies is there to be copied."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def test_the_linter_has_nothing_to_say():
    hadolint = pathlib.Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def copied_from_the_context() -> set[str]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    sources = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        sources |= set(line.split()[:-1])
    return sources


def test_what_it_copies_exists_and_is_let_through():
    copied = copied_from_the_context()
    assert len(copied) >= 7
    for source in copied:
        tracked = subprocess.run(
            ["git", "ls-files", source], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert tracked.stdout, f"{source} is not part of the project"
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


def test_it_runs_as_a_user_without_rights_and_stops_on_sigterm():
    text = DOCKERFILE.read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last_stage, re.MULTILINE)
    assert "STOPSIGNAL SIGTERM" in last_stage
