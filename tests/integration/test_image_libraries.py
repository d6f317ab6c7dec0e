"""The image's runtime stage holds every library that the built server loads."""

import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["VALUESCOPE_BUILD"])
SERVER = BUILD / "server" / "valuescope-server"


def output(*command) -> str:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True
    ).stdout


def loaded_libraries() -> list[pathlib.Path]:
    return [pathlib.Path(path) for path in re.findall(r"=> (/\S+)", output("ldd", SERVER))]


def with_dependencies(packages: set[str]) -> set[str]:
    """The packages and all that they depend on, as the package database of this machine says."""
    listing = output("dpkg-query", "-W", "-f", "${Package}\t${Depends}\n")
    depends = dict(line.split("\t", 1) for line in listing.splitlines())
    known, pending = set(), set(packages)
    while pending:
        name = pending.pop()
        known.add(name)
        names = re.findall(r"(?:^|[,|]\s*)([a-z0-9][a-z0-9+.-]*)", depends.get(name, ""))
        pending |= set(names) - known
    return known


def test_packages_of_the_runtime_stage_hold_the_system_libraries():
    setup = (ROOT / "docker" / "setup").read_text()
    listed = re.search(r"runtime_packages=\(\n(.*?)\n\)", setup, re.DOTALL)
    assert listed is not None
    packages = with_dependencies(set(listed[1].split()))
    # The database names files by their real place or by the link /lib -> /usr/lib.
    libraries = {
        path.name for path in loaded_libraries() if not re.search("torch|nvidia", str(path))
    }
    owners: dict[str, set[str]] = {}
    for line in output("dpkg", "-S", *libraries).splitlines():
        package, file = line.split(": ")
        owners.setdefault(pathlib.Path(file).name, set()).add(package.split(":")[0])
    for library in libraries:
        assert owners[library] & packages, f"{library} comes from {owners[library]}"


def test_the_collected_libraries_are_those_the_server_finds_in_the_wheels(tmp_path):
    from_wheels = [p for p in loaded_libraries() if "torch" in str(p) or "nvidia" in str(p)]
    assert len(from_wheels) == 5
    wheels = next(p for p in from_wheels if p.name == "libtorch_cpu.so").parents[2]
    output(ROOT / "docker" / "collect-libraries", wheels, "cpu", tmp_path)
    for library in from_wheels:
        place = pathlib.Path(os.path.normpath(library))
        assert (tmp_path / place.relative_to("/")).is_file(), place
