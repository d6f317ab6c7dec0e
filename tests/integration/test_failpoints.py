"""The points at which a process lets itself be killed (server/base/failpoint.h) are in the test that kills a worker at each
(tests/jobs/failpoint_test.cc), and in no server."""

import re

from conftest import BUILD, ROOT

NAMES = {
    name
    for source in (ROOT / "server").rglob("*.cc")
    for name in re.findall(r'VS_FAILPOINT\("(\w+)"\)', source.read_text())
}


def test_a_server_has_no_trace_of_them():
    binary = (BUILD / "server" / "valuescope-server").read_bytes()
    assert NAMES
    assert not [name for name in NAMES if b"\0" + name.encode() + b"\0" in binary]
    assert b"ReachFailpoint" not in binary
    assert b"VALUESCOPE_FAILPOINT" not in binary
