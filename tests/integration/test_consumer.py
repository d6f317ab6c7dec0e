"""The C++ client as a package: installed into an empty prefix, moved, and used by a project that sees nothing else."""

import pathlib

from conftest import BUILD, BUILDING, MODEL, ROOT, run


def files(prefix: pathlib.Path):
    return [path for path in prefix.rglob("*") if path.is_file()]


def test_the_package_holds_the_client_and_nothing_of_the_server(prefix):
    names = {str(path.relative_to(prefix)) for path in files(prefix)}
    assert {
        "bin/valuescope",
        "include/valuescope/client.h",
        "include/valuescope/v1/generation.grpc.pb.h",
        "include/valuescope/v1/generation.proto",
        "lib/libvaluescope_client.a",
        "share/bash-completion/completions/valuescope",
        "lib/cmake/valuescope/valuescopeConfig.cmake",
        "lib/cmake/valuescope/valuescopeConfigVersion.cmake",
    } <= names
    for name in names:
        assert not name.startswith("include/") or name.startswith("include/valuescope/"), name
        assert "server" not in name and "torch" not in name, name


def test_the_package_remembers_neither_where_it_was_built_nor_where_it_was_installed(prefix):
    for path in files(prefix):
        content = path.read_bytes()
        # A checkout may lie at a place as short as /src, which other paths end in.
        for place in [BUILD, ROOT / "client", ROOT / "proto", prefix.with_name("first")]:
            assert f"{place}/".encode() not in content, f"{path.name} contains {place}"


def test_a_project_that_sees_only_the_prefix_builds_and_talks_to_a_server(
    prefix, tmp_path, server, client
):
    run(
        "cmake", "-S", ROOT / "tests" / "consumer", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}",
        "-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF", env=BUILDING,
    )  # fmt: skip
    run("cmake", "--build", tmp_path)
    whole, streamed, reason = run(tmp_path / "consumer", server.address, MODEL).rstrip().split("\n")
    assert whole == client.generate(MODEL, "The sea is", max_tokens=5, temperature=0.0).text
    assert streamed == whole
    assert reason == "RESOURCE_NOT_FOUND"
