"""Who may call a server and what, by tokens: through the real server, on a tiny model."""

import asyncio
import contextlib
import json
import queue
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
import valuescope as vs
from callers import (
    HEALTH,
    ONE,
    OTHERS,
    TINY,
    Tokens,
    code_of,
    contract_methods,
    health_address,
    refusal,
)
from conftest import BUILD, Server, await_true
from valuescope import v1

CODE = grpc.StatusCode
LOOKS = (
    "Get",
    "List",
    "Read",
    "Watch",
    "Export",
    "Tokenize",
    "Detokenize",
    "Check",
    "QueryUsage",
    "ServerReflection",
)
LOOKS += ("CompareVectors", "CompareNeuronSets")
ADMINS = ("LoadModel", "UnloadModel")
# In force within this, as is promised.
SOON = 5


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server with two tenants."""
    folder = tmp_path_factory.mktemp("lab")
    tokens = Tokens(folder)
    for tenant, role in [("a", "reader"), ("a", "user"), ("a", "admin"), ("b", "user")]:
        tokens.create(tenant, role)
    audit = folder / "audit.jsonl"
    flags = (f"--tokens={tokens.file}", f"--audit_log={audit}", "--health_listen=127.0.0.1:0")
    server = Server(folder, *TINY, *flags)
    server.tokens, server.audit = tokens, audit
    with vs.Client(server.address, token=tokens.token["a", "reader"]) as client:
        client.wait_until_ready(ONE)
    yield server
    if server.running():
        assert server.stop() == 0


@pytest.fixture(scope="module")
def channel(lab):
    with grpc.insecure_channel(lab.address) as channel:
        yield channel


@contextlib.contextmanager
def calling(lab, tenant, role):
    with vs.Client(lab.address, token=lab.tokens.token[tenant, role], timeout=60) as client:
        yield client


def test_every_rpc_asks_who_calls(channel):
    methods = contract_methods() + OTHERS
    assert len(methods) > 50
    for method in methods:
        error = refusal(channel, method)
        assert error.code() == CODE.UNAUTHENTICATED, method
        assert "authorization: Bearer" in error.details()
        assert code_of(channel, method, token="vs_made_up") == CODE.UNAUTHENTICATED, method


def test_a_role_that_is_too_low_is_told_which_it_takes(lab, channel):
    roles = ["reader", "user", "admin"]
    for method in contract_methods() + OTHERS:
        name = method.split("/")[-1]
        least = "reader" if name.startswith(LOOKS) else "admin" if name in ADMINS else "user"
        for role in roles:
            error = refusal(channel, method, token=lab.tokens.token["a", role])
            denied = error is not None and error.code() == CODE.PERMISSION_DENIED
            assert denied == (roles.index(role) < roles.index(least)), (method, role)
            assert not denied or f"needs the role {least}" in error.details()


def test_refusals_tell_what_to_do(lab):
    with vs.Client(lab.address, token="vs_made_up") as client:
        with pytest.raises(vs.AccessDenied, match="does not know the token"):
            client.models()
    with calling(lab, "a", "reader") as client:
        with pytest.raises(vs.AccessDenied, match=r"needs the role user.*have the role reader"):
            client.generate(ONE, [1, 2, 3], max_tokens=1)


def names_of(client):
    """What a tenant made, one of each kind."""
    rows = np.ones((3, client.model(ONE).hidden_size))
    vector = client.create_vector(ONE, rows, layers=range(3)).name
    responses = [vs.labelled([1, 2, 3], [4, i], bool(i % 2), f"q{i}") for i in range(4)]
    artifact = client.write_artifact(responses).name
    request = vs.attribution_request(ONE, artifact, vector)
    neurons = client.attribute_neurons(ONE, responses, vector).neuron_set.name
    job = client.create_job(v1.JobSpec(attribute_neurons=request)).name
    client.wait_for_job(job)
    return {"vectors": vector, "artifacts": artifact, "neuronSets": neurons, "jobs": job}


def naming(kind, name):
    """Requests that name something of a kind, by method."""
    edit = v1.Intervention(
        site=v1.SITE_RESIDUAL_POST,
        layers=v1.Layers(all=True),
        add=v1.AddVector(vector=name, coefficient=1),
    )
    prompt = v1.Prompt(token_ids=v1.TokenIds(ids=[1]))
    sharing = {
        "TenantService/PublishResource": v1.PublishResourceRequest(name=name),
        "TenantService/WithdrawResource": v1.WithdrawResourceRequest(name=name),
    }
    return {
        "vectors": {
            **sharing,
            "VectorService/GetVector": v1.GetVectorRequest(name=name),
            "VectorService/DeleteVector": v1.DeleteVectorRequest(name=name),
            "VectorService/ExportVectors": v1.ExportVectorsRequest(
                vectors=[name], format=v1.VECTOR_FORMAT_SAFETENSORS
            ),
            "VectorService/CompareVectors": v1.CompareVectorsRequest(vectors=[name, name]),
            "GenerationService/Generate": v1.GenerateRequest(
                model=ONE, prompt=prompt, interventions=[edit]
            ),
        },
        "artifacts": {
            **sharing,
            "ArtifactService/GetArtifact": v1.GetArtifactRequest(name=name),
            "ArtifactService/ReadArtifact": v1.ReadArtifactRequest(name=name),
            "ArtifactService/ReadTable": v1.ReadTableRequest(artifact=name),
            "ArtifactService/DeleteArtifact": v1.DeleteArtifactRequest(name=name),
        },
        "neuronSets": {
            **sharing,
            "NeuronService/GetNeuronSet": v1.GetNeuronSetRequest(name=name),
            "NeuronService/DeleteNeuronSet": v1.DeleteNeuronSetRequest(name=name),
        },
        "jobs": {
            "JobService/GetJob": v1.GetJobRequest(name=name),
            "JobService/WatchJob": v1.WatchJobRequest(name=name),
            "JobService/CancelJob": v1.CancelJobRequest(name=name),
            "JobService/RetryJob": v1.RetryJobRequest(name=name),
            "JobService/DeleteJob": v1.DeleteJobRequest(name=name),
        },
    }[kind]


def test_another_tenants_names_are_refused_with_the_bytes_of_unknown_ones(lab, channel):
    with calling(lab, "a", "user") as client:
        names = names_of(client)
    token = lab.tokens.token["b", "user"]

    def told(method, request, name):
        error = refusal(
            channel, f"/valuescope.v1.{method}", request.SerializeToString(), token, "one"
        )
        assert error.code() == CODE.NOT_FOUND, (method, error)
        everything = [(error.details() or "").encode()]
        everything += [f"{key}=".encode() + (value.encode() if isinstance(value, str) else value)
                       for key, value in error.trailing_metadata()]  # fmt: skip
        assert any(name.encode() in part for part in everything), (method, everything)
        return [part.replace(name.encode(), b"NAME") for part in everything]

    for kind, name in names.items():
        swapped = name[:-6] + ("000000" if name[-6:] != "000000" else "111111")
        for method, request in naming(kind, name).items():
            assert told(method, request, name) == told(
                method, naming(kind, swapped)[method], swapped
            )
    with calling(lab, "b", "user") as client:
        assert client.vectors() == client.artifacts() == client.neuron_sets() == client.jobs() == []
    with calling(lab, "a", "reader") as client:  # the same tenant, and nothing was deleted
        assert client.vector(names["vectors"]).name == names["vectors"]
        assert client.artifact(names["artifacts"]).name == names["artifacts"]
        assert client.neuron_set(names["neuronSets"]).name == names["neuronSets"]
        assert client.job(names["jobs"]).owner == "a"


def test_health_is_told_in_the_clear_on_its_own_port_and_to_callers_on_the_other(lab, channel):
    with grpc.insecure_channel(health_address(lab)) as plain:
        check = plain.unary_unary(HEALTH, request_serializer=None, response_deserializer=None)
        for part in (b"", b"\x0a\x09readiness", b"\x0a\x08liveness"):
            assert check(part, timeout=10) == b"\x08\x01"  # SERVING
        for method in contract_methods() + OTHERS[2:]:
            assert code_of(plain, method) == CODE.UNIMPLEMENTED, method
    token = lab.tokens.token["a", "reader"]
    check = channel.unary_unary(HEALTH, request_serializer=None, response_deserializer=None)
    headers = [("authorization", f"Bearer {token}")]
    assert check(b"\x0a\x09readiness", metadata=headers, timeout=10) == b"\x08\x01"
    assert code_of(channel, HEALTH, b"\x0a\x05other", token) == CODE.NOT_FOUND
    watch = channel.unary_stream(OTHERS[1], request_serializer=None, response_deserializer=None)
    call = watch(b"\x0a\x05other", metadata=headers, timeout=10)
    assert next(call) == b"\x08\x03"  # SERVICE_UNKNOWN
    call.cancel()


def test_reflection_describes_the_services_to_whoever_may_call(lab, channel):
    headers = [("authorization", f"Bearer {lab.tokens.token['a', 'reader']}")]
    ask = channel.stream_stream(OTHERS[2], request_serializer=None, response_deserializer=None)
    symbol = b"valuescope.v1.VectorService"
    questions = [
        b"\x3a\x00",
        b"\x22" + bytes([len(symbol)]) + symbol,
    ]  # list_services, file_containing_symbol
    services, files = ask(iter(questions), metadata=headers, timeout=10)
    for method in contract_methods() + OTHERS:
        assert method.split("/")[1].encode() in services
    assert b"valuescope/v1/vectors.proto" in files


def test_the_access_log_names_the_caller_and_never_a_token(lab):
    with calling(lab, "a", "user") as client:
        client.models()
    log = lab.log.read_text()
    calls = [json.loads(line) for line in log.splitlines() if '"ModelService.ListModels"' in line]
    assert any(call.get("tenant") == "a" and call.get("caller") == "a's user" for call in calls)
    assert "vs_" not in log


def test_the_audit_log_says_who_did_what_to_which_resource(lab, channel):
    with calling(lab, "a", "user") as client:
        vector = client.create_vector(
            ONE, np.ones((1, client.model(ONE).hidden_size)), layers=[0]
        ).name
    service = "/valuescope.v1.VectorService/"
    attempts = [
        ("DeleteVector", v1.DeleteVectorRequest(name=vector), ("a", "reader")),
        ("GetVector", v1.GetVectorRequest(name=vector), ("b", "user")),
        ("GetVector", v1.GetVectorRequest(name=vector), ("a", "reader")),
        ("DeleteVector", v1.DeleteVectorRequest(name=vector), ("a", "user")),
    ]
    codes = [
        code_of(channel, service + method, request.SerializeToString(), lab.tokens.token[who])
        for method, request, who in attempts
    ]
    assert codes == [CODE.PERMISSION_DENIED, CODE.NOT_FOUND, None, None]
    assert code_of(channel, service + "GetVector", token="stranger") == CODE.UNAUTHENTICATED
    lines = [json.loads(line) for line in lab.audit.read_text().splitlines()]
    about = [line for line in lines if vector in line.get("resources", "").split(",")]
    keys = ("tenant", "role", "caller", "method", "code")
    assert [tuple(line[key] for key in keys) for line in about] == [
        ("a", "user", "a's user", "VectorService.CreateVector", "OK"),
        ("b", "user", "b's user", "VectorService.GetVector", "NOT_FOUND"),
        ("a", "reader", "a's reader", "VectorService.GetVector", "OK"),
        ("a", "user", "a's user", "VectorService.DeleteVector", "OK"),
    ]
    assert all(line["request_id"] and line["time"].endswith("Z") for line in about)
    # Whoever is refused for who calls is written down too: of the message nothing was read.
    refused = {(line.get("tenant"), line["method"], line.get("reason")) for line in lines[-6:]}
    assert ("a", "VectorService.DeleteVector", "ROLE_TOO_LOW") in refused
    assert (None, "VectorService.GetVector", "TOKEN_UNKNOWN") in refused
    assert "vs_" not in lab.audit.read_text()


def test_tokens_come_and_go_under_load_without_a_failed_call(tmp_path):
    tokens = Tokens(tmp_path)
    tokens.create("a", "reader")
    shown = tmp_path / "token"
    shown.write_text(tokens.token["a", "reader"] + "\n")
    server = Server(tmp_path, *TINY, f"--tokens={tokens.file}")
    stop, failures, calls = threading.Event(), [], [0, 0]

    def call(index):
        with vs.Client(server.address, token_file=shown, retry=vs.Retry(attempts=1)) as client:
            while not stop.is_set():
                try:
                    client.models()
                    calls[index] += 1
                except vs.ValuescopeError as error:
                    failures.append(error)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            list_models = "/valuescope.v1.ModelService/ListModels"
            old = tokens.token["a", "reader"]
            new = tokens.create("b", "reader")
            await_true(lambda: code_of(channel, list_models, token=new) is None, SOON)
            (tmp_path / "next").write_text(new)
            (tmp_path / "next").replace(shown)
            after = list(calls)
            await_true(
                lambda: all(now > then + 5 for now, then in zip(calls, after, strict=True)), 20
            )
            tokens.forget("a", "reader")
            await_true(
                lambda: code_of(channel, list_models, token=old) == CODE.UNAUTHENTICATED, SOON
            )
            # A mistake changes nothing but the log and a number.
            tokens.write('{"sha256": "abc"}\n')
            refused = 'valuescope_files_reread_total{file="tokens",outcome="refused"} 1'
            await_true(lambda: refused in server.metrics(), SOON)
            assert "line 3" in server.log.read_text() or "line 2" in server.log.read_text()
            assert code_of(channel, list_models, token=new) is None
            assert code_of(channel, list_models, token=old) == CODE.UNAUTHENTICATED
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(calls) > 10
    assert server.stop() == 0


def test_both_clients_and_the_command_line_read_the_token_from_where_it_is(
    lab, tmp_path, monkeypatch
):
    shown = tmp_path / "token"
    shown.write_text(f"  {lab.tokens.token['a', 'reader']}\n")

    async def models(**how):
        async with vs.AsyncClient(lab.address, **how) as client:
            return await client.models()

    def command_line(*flags, **environment):
        program = [
            BUILD / "client" / "cpp" / "valuescope",
            "--server",
            lab.address,
            *flags,
            "models",
        ]
        return subprocess.run(program, capture_output=True, text=True, env=environment)

    assert [m.name for m in asyncio.run(models(token_file=shown))] != []
    assert command_line("--token_file", shown).returncode == 0
    assert command_line(VALUESCOPE_TOKEN_FILE=str(shown)).returncode == 0
    refused = command_line()
    assert refused.returncode == 3 and "VALUESCOPE_TOKEN_FILE" in refused.stderr
    missing = command_line("--token_file", tmp_path / "none")
    assert missing.returncode == 3 and "cannot be read" in missing.stderr
    monkeypatch.setenv("VALUESCOPE_TOKEN_FILE", str(shown))
    with vs.connect(lab.address) as client:
        assert client.models() != []
        shown.write_text("vs_another")
        with pytest.raises(vs.AccessDenied):
            client.models()
        shown.unlink()
        with pytest.raises(ValueError, match="cannot be read"):
            client.models()
    with pytest.raises(ValueError, match="not both"):
        vs.Client(lab.address, token="t", token_file=shown)


def test_a_server_without_a_right_file_of_tokens_does_not_start(tmp_path):
    program = [BUILD / "server" / "valuescope-server", "--listen=127.0.0.1:0", "--metrics_listen="]
    program += [f"--store=sqlite:{tmp_path / 's.db'}"]
    wrong = tmp_path / "wrong"
    wrong.write_text("vs_secret\n")
    done = subprocess.run(
        [*program, f"--tokens={wrong}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "--tokens: line 1" in done.stderr
    assert "vs_secret" not in done.stderr


def test_a_drain_waits_neither_for_who_watches_health_nor_for_reflection(lab, channel):
    """The last of them: the server is gone afterwards."""
    headers = [("authorization", f"Bearer {lab.tokens.token['a', 'reader']}")]
    watch = channel.unary_stream(OTHERS[1], request_serializer=None, response_deserializer=None)
    states = watch(b"", metadata=headers, timeout=60)
    assert next(states) == b"\x08\x01"  # SERVING
    ask = channel.stream_stream(OTHERS[2], request_serializer=None, response_deserializer=None)
    questions = queue.SimpleQueue()
    questions.put(b"\x3a\x00")
    answers = ask(iter(questions.get, None), metadata=headers, timeout=60)
    next(answers)  # and more may be asked
    started = time.monotonic()
    lab._process.terminate()
    with pytest.raises(grpc.RpcError) as ended:
        for state in states:  # it may hear of the drain before it is ended by it
            assert state == b"\x08\x02"  # NOT_SERVING
    assert ended.value.code() == CODE.UNAVAILABLE
    with pytest.raises(grpc.RpcError):
        next(answers)
    assert lab._process.wait(30) == 0
    assert time.monotonic() - started < 15  # of --drain_timeout's 30 s
    questions.put(None)
