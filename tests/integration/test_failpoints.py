"""The points at which a server lets itself be killed (server/base/failpoint.h) are in builds that ask for them, and only there;
tests/jobs/failpoint_test.cc kills a worker at each."""

import re

from conftest import BUILD, ROOT

BINARY = BUILD / "server" / "valuescope-server"
NAMES = {
    name
    for source in (ROOT / "server").rglob("*.cc")
    for name in re.findall(r'VS_FAILPOINT\("(\w+)"\)', source.read_text())
}


def test_a_server_that_was_built_without_them_has_no_trace_of_them():
    built_in = "VALUESCOPE_FAILPOINTS:BOOL=ON" in (BUILD / "CMakeCache.txt").read_text()
    binary = BINARY.read_bytes()
    found = {name for name in NAMES if b"\0" + name.encode() + b"\0" in binary}
    assert found == (NAMES if built_in else set())
    assert (b"ReachFailpoint" in binary) == built_in
    assert (b"VALUESCOPE_FAILPOINT" in binary) == built_in
