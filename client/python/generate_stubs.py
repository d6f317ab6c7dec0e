"""Writes valuescope/v1/*_pb2*.py from proto/valuescope/v1/*.proto; does nothing where they are newer than their sources.

python generate_stubs.py [OUTPUT_DIRECTORY]
"""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"


def fresh(sources, output):
    stubs = [output / "valuescope" / "v1" / f"{s.stem}_pb2_grpc.py" for s in sources]
    newest = max(s.stat().st_mtime for s in sources)
    return all(stub.exists() and stub.stat().st_mtime >= newest for stub in stubs)


def main():
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    sources = sorted((PROTO / "valuescope" / "v1").glob("*.proto"))
    if not sources:
        sys.exit(f"generate_stubs: no .proto files under {PROTO}")
    if fresh(sources, output):
        return
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={output}"]
    arguments += [f"--pyi_out={output}", f"--grpc_python_out={output}"]
    if protoc.main(arguments + [str(s) for s in sources]) != 0:
        sys.exit("generate_stubs: protoc failed")


if __name__ == "__main__":
    main()
