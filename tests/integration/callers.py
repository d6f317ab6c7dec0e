"""Tokens as an operator makes them, and every RPC that a server has, for tests of who may call."""

import json
import os
import subprocess

import grpc
from conftest import BUILD, ROOT
from google.protobuf import descriptor_pool
from valuescope import v1

FAMILIES = ROOT / "tests" / "golden" / "families"
TINY = (f"--model_root={FAMILIES}", "--models=llama_tied")
ONE = "models/llama_tied"

HEALTH = "/grpc.health.v1.Health/Check"
# Neither is a service of the contract, and both are told to nobody unknown.
OTHERS = [
    HEALTH,
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


def contract_methods():
    """Every method of the contract's services, as "/package.Service/Method"."""
    pool = descriptor_pool.Default()
    files = {getattr(v1, name).DESCRIPTOR.file.name for name in dir(v1) if name.endswith("Request")}
    services = [
        s for name in sorted(files) for s in pool.FindFileByName(name).services_by_name.values()
    ]
    assert len(services) == 9
    return [f"/{s.full_name}/{m.name}" for s in services for m in s.methods]


def refusal(channel, method, request=b"", token=None, request_id=None):
    """The call that an attempt with one message ended as, whatever the method's shape; None where it went well."""
    metadata = [("authorization", f"Bearer {token}")] if token is not None else []
    metadata += [("x-request-id", request_id)] if request_id else []
    call = channel.stream_stream(method, request_serializer=None, response_deserializer=None)(
        iter([request]), metadata=metadata, timeout=20
    )
    try:
        for _ in call:
            if "Watch" in method:
                call.cancel()
                return None
    except grpc.RpcError as error:
        return error
    return None


def code_of(channel, method, request=b"", token=None):
    error = refusal(channel, method, request, token)
    return None if error is None else error.code()


class Tokens:
    """The file of a server's tokens. Who knows a token's name (tenant and role) has it in `token`."""

    def __init__(self, folder):
        self.file = folder / "tokens.jsonl"
        self.token = {}
        self._lines = {}

    def create(self, tenant, role):
        """Makes one, and its line a part of the file."""
        made = subprocess.run(
            [
                *(BUILD / "client" / "cpp" / "valuescope", "--json", "tokens", "create"),
                *("--tenant", tenant, "--role", role, "--name", f"{tenant}'s {role}"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        answer = json.loads(made.stdout)
        self.token[tenant, role] = answer["token"]
        self._lines[tenant, role] = json.dumps(answer["line"])
        self.write()
        return answer["token"]

    def forget(self, tenant, role):
        del self._lines[tenant, role]
        self.write()

    def write(self, more=""):
        """In place of the file before, at once."""
        new = self.file.with_suffix(".new")
        new.write_text("\n".join(self._lines.values()) + "\n" + more)
        os.replace(new, self.file)


def health_address(server):
    port = json.loads(
        next(line for line in server.log.read_text().splitlines() if "told in the clear" in line)
    )["port"]
    return f"127.0.0.1:{port}"
