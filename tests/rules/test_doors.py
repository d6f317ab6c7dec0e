"""One-way doors: which room may include what, read from the sources themselves.

A wrong dependency usually fails to link, but a header-only one, or a torch type in a header that the services see, would
not. So the includes are checked, directly and through everything that a header includes in turn.
"""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER = ROOT / "server"
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.MULTILINE)

# Every room may also use base and observability; observability itself stands on base alone.
ROOMS = {
    "base": set(),
    "observability": {"base"},
    "config": set(),
    "text": set(),
    "model": {"text"},
    "engine": {"text", "model"},
    "analysis": {"text", "model", "engine"},
    "store": set(),
    "jobs": {"store"},
    "studies": {"text", "model", "engine", "analysis", "store", "jobs"},
    "cuda": {"model", "engine"},
    "rpc": set(),
    "services": {"text", "model", "engine", "analysis", "store", "jobs", "studies", "rpc"},
    "kinds": {"text", "model", "engine", "analysis", "store", "jobs", "studies", "rpc", "services"},
    "bindings": {"rpc", "services"},
}
TORCH = ("torch/", "ATen/", "c10/", "caffe2/")
TORCH_ROOMS = {"model", "engine", "cuda"}
GRPC = ("grpc/", "grpcpp/", "grpc++/")
GRPC_ROOMS = {"rpc", "bindings"}
PROTOBUF = ("google/",)
PROTOBUF_ROOMS = {"rpc", "services", "studies", "kinds"}
CONTRACT = ("valuescope/v1/",)
CONTRACT_ROOMS = {"services", "studies", "kinds", "bindings"}


BEHIND_GRPC = ("rpc", "services", "kinds", "bindings")


def includes(source: pathlib.Path) -> list[str]:
    return [match[1] for match in INCLUDE.findall(source.read_text())]


def sources(suffixes=(".h", ".cc")) -> list[pathlib.Path]:
    return sorted(p for p in SERVER.rglob("*") if p.suffix in suffixes)


def room_of(source: pathlib.Path) -> str | None:
    parts = source.relative_to(SERVER).parts
    return parts[0] if len(parts) > 1 else None


def reachable(source: pathlib.Path) -> dict[str, list[str]]:
    """Every include reachable from `source`, each with the chain of our own headers that leads to it."""
    found, pending = {}, [(source, [])]
    while pending:
        current, chain = pending.pop()
        for name in includes(current):
            if name in found:
                continue
            found[name] = [*chain, name]
            header = SERVER / name
            if header.is_file():
                pending.append((header, found[name]))
    return found


def violations(source: pathlib.Path, room: str | None, direct: list[str]) -> list[str]:
    """What is wrong with a file of `room` (None: the program's main file) that includes `direct`."""
    wrong = []
    for name in direct:
        first = name.split("/")[0]
        if name.startswith(TORCH) and room not in TORCH_ROOMS:
            wrong.append(f"{source}: torch outside its rooms ({name})")
        if name.startswith(GRPC) and room is not None and room not in GRPC_ROOMS:
            wrong.append(f"{source}: gRPC outside rpc, the bindings and main ({name})")
        if name.startswith(PROTOBUF) and room is not None and room not in PROTOBUF_ROOMS:
            wrong.append(f"{source}: protobuf outside its rooms ({name})")
        if name.startswith(CONTRACT) and room is not None and room not in CONTRACT_ROOMS:
            wrong.append(f"{source}: a message of the contract outside its rooms ({name})")
        if name.endswith(".grpc.pb.h") and room is not None and room != "bindings":
            wrong.append(f"{source}: gRPC's stubs outside the bindings ({name})")
        if first in ROOMS and room is not None:
            allowed = (
                ROOMS[room] | {room, "base"} | (set() if room == "base" else {"observability"})
            )
            if first not in allowed:
                wrong.append(f"{source}: {room} reaches {first}, which is not below it ({name})")
    return wrong


def test_every_room_is_listed_and_none_has_a_name_that_says_nothing():
    rooms = {p.name for p in SERVER.iterdir() if p.is_dir() and any(p.rglob("*.*"))}
    assert rooms <= set(ROOMS), f"rooms without a rule: {rooms - set(ROOMS)}"
    for source in sources():
        assert not re.search(r"(^|_)(utils?|helpers?|common|manager|misc)(_|\.|$)", source.name), (
            source
        )


def test_no_room_reaches_up_and_grpc_and_torch_stay_where_they_belong():
    wrong = []
    for source in sources():
        wrong += violations(source.relative_to(ROOT), room_of(source), includes(source))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["studies", "services", "kinds"])
def test_who_knows_the_contract_sees_no_grpc(room):
    wrong = []
    for source in sorted((SERVER / room).rglob("*.*")):
        if source.suffix not in (".h", ".cc"):
            continue
        for name, chain in reachable(source).items():
            if name.startswith(GRPC):
                wrong.append(f"{source.relative_to(ROOT)} -> {' -> '.join(chain)}")
    assert not wrong, "\n".join(wrong)


def test_no_header_that_the_services_see_leads_to_torch():
    wrong = []
    behind = [path for room in BEHIND_GRPC for path in sorted((SERVER / room).rglob("*.*"))]
    for source in [*behind, SERVER / "main.cc"]:
        if source.suffix not in (".h", ".cc"):
            continue
        for name, chain in reachable(source).items():
            if name.startswith(TORCH):
                wrong.append(f"{source.relative_to(ROOT)} -> {' -> '.join(chain)}")
    assert not wrong, "\n".join(wrong)


def test_the_clients_know_nothing_of_the_server():
    for source in (ROOT / "client" / "cpp").rglob("*"):
        if source.suffix not in (".h", ".cc"):
            continue
        for name in includes(source):
            assert not name.startswith(TORCH), f"{source}: {name}"
            assert not (SERVER / name).is_file(), f"{source}: {name}"


@pytest.mark.parametrize(
    ("room", "include"),
    [
        ("base", "engine/engine.h"),
        ("text", "model/weights.h"),
        ("store", "jobs/worker.h"),
        ("engine", "grpcpp/grpcpp.h"),
        ("rpc", "torch/torch.h"),
        (None, "ATen/ATen.h"),
        ("base", "observability/log.h"),
        ("rpc", "valuescope/v1/jobs.pb.h"),
        ("services", "grpcpp/grpcpp.h"),
        ("services", "valuescope/v1/jobs.grpc.pb.h"),
        ("studies", "valuescope/v1/vectors.grpc.pb.h"),
        ("studies", "grpcpp/grpcpp.h"),
        ("studies", "ATen/ATen.h"),
        ("analysis", "google/protobuf/message.h"),
        ("analysis", "torch/torch.h"),
        ("jobs", "valuescope/v1/jobs.pb.h"),
        ("rpc", "services/request_codec.h"),
    ],
)
def test_a_wrong_include_is_found(room, include):
    assert violations(pathlib.Path("probe.cc"), room, [include])
