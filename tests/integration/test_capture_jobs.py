"""Captures as jobs: files of tensors with an index hold the bytes that the call streams, whatever happens while they are made."""

import asyncio
import collections
import hashlib
import json
import pathlib
import re

import grpc
import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server, await_true, run
from google.protobuf import json_format
from safetensors import deserialize, safe_open
from valuescope import v1
from valuescope.v1 import activations_pb2_grpc

FAMILIES = ROOT / "tests" / "golden" / "families"
MODEL = "models/qwen2"
LAYERS, WIDTH = 3, 30
FLAGS = [f"--model_root={FAMILIES}", "--models=qwen2", "--threads=1"]
INPUTS = [
    ([5, 6, 7], [8, 9]),
    ("w11 w12 w13 w14", "w15"),
    ([3] * 40, [4] * 9),
    (vs.chat("w20 w21", system="w22"), [10, 11, 12]),
    ([99], "w30 w31 w32"),
]
# Every reduction and every type, sites with layers and without, neurons, tokens that differ by input.
TAPS = [
    vs.tap("residual_post"),
    vs.tap("mlp_neurons", [0, 2], "response", "mean", dtype="bfloat16"),
    vs.tap("attention_heads", [1], "all", "sum", dtype="float64"),
    vs.tap("mlp_output", "all", "prompt", "max", dtype="float16"),
    vs.tap("residual_mid", [2], "all", "last"),
    vs.tap("mlp_neurons", neurons=[(0, 3), (0, 40), (2, 7), (2, 8), (2, 9)], dtype="bfloat16"),
    vs.tap("final_norm", None, [0, -1]),
    vs.tap("logits", None, "last_prompt", dtype="bfloat16"),
]
STEERED = [
    vs.Steer(np.linspace(-1, 1, WIDTH, dtype=np.float32), 2.0, layers=1),
    vs.AblateNeurons([(0, 3), (1, 4)], tokens="response"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("captures"), *FLAGS)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with server.client(MODEL) as client:
        yield client


def streamed(server, spec):
    """What the call gives: of each tensor's name in a job the type, the shape and the bytes; and the receipts."""
    request = v1.CaptureRequest.FromString(spec.SerializeToString())
    request.ClearField("max_file_bytes")
    tensors, positions, receipts = {}, {}, []
    with grpc.insecure_channel(server.address) as channel:
        for event in activations_pb2_grpc.ActivationServiceStub(channel).Capture(request):
            if event.HasField("receipts"):
                receipts.append(event.receipts)
            if not event.HasField("chunk"):
                continue
            chunk = event.chunk
            name = f"tap.{chunk.tap_index}.input.{chunk.input_index}"
            positions[f"{name}.positions"] = list(chunk.positions)
            if chunk.neurons:
                name += f".layer.{chunk.layers[0]}"
            # Tensors here are smaller than a chunk.
            assert name not in tensors
            dtype = v1.DataType.Name(chunk.tensor.dtype).removeprefix("DATA_TYPE_")
            tensors[name] = (dtype, list(chunk.tensor.shape), chunk.tensor.data)
    for name, numbers in positions.items():
        tensors[name] = ("INT32", [len(numbers)], np.array(numbers, "<i4").tobytes())
    return tensors, receipts


SHORT = {"F64": "FLOAT64", "F32": "FLOAT32", "F16": "FLOAT16", "BF16": "BFLOAT16", "I32": "INT32"}


def in_files(folder):
    """The same of the files in a folder, read by the safetensors package, and in which file each stands."""
    tensors, files = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, told in deserialize(path.read_bytes()):
            assert name not in tensors
            tensors[name] = (SHORT[told["dtype"]], list(told["shape"]), bytes(told["data"]))
            files[name] = path.name
    return tensors, files


def finished(client, spec):
    return client.wait_for_job(client.create_job(v1.JobSpec(capture=spec)).name)


def artifacts_of(client, job):
    return {a.display_name: a.sha256 for a in client.job(job).result.artifacts}


@pytest.mark.parametrize("steer", [None, STEERED], ids=["plain", "steered"])
def test_a_job_leaves_the_bytes_of_the_call(server, client, tmp_path, steer):
    spec = vs.capture_spec(MODEL, INPUTS, taps=TAPS, steer=steer, max_file_bytes=20_000)
    job = finished(client, spec)
    assert (job.progress.total, job.progress.unit) == (len(INPUTS), "inputs")
    client.download_job(job.name, tmp_path)
    expected, receipts = streamed(server, spec)
    tensors, files = in_files(tmp_path)
    assert tensors == expected
    index = json.loads((tmp_path / "capture.safetensors.index.json").read_text())
    assert index["weight_map"] == files
    assert len(set(files.values())) > 1
    metadata, inputs = index["metadata"], index["inputs"]
    assert metadata["total_size"] == sum(len(data) for _, _, data in expected.values())
    for name, told in metadata["files"].items():
        data = (tmp_path / name).read_bytes()
        assert told == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert [r.prompt_tokens for r in receipts] == inputs["prompt_tokens"]
    assert [r.response_tokens for r in receipts] == inputs["response_tokens"]
    assert [[i.positions for i in r.receipts] for r in receipts] == inputs["touched"]
    assert metadata["taps"][5]["neurons"] == [[3, 40], [7, 8, 9]]
    assert metadata["provenance"]["model"] == MODEL


def test_what_clients_read_input_by_input_is_what_the_call_gives(client):
    spec = vs.capture_spec(MODEL, INPUTS, taps=TAPS, steer=STEERED, max_file_bytes=20_000)
    captured = client.captured(finished(client, spec).name)
    called = client.capture(MODEL, INPUTS, TAPS, steer=STEERED)
    assert len(captured) == len(called)
    for one, other in zip([*captured, captured[-1]], [*called, called[-1]], strict=True):
        assert list(one) == list(other)
        for tap in one:
            np.testing.assert_array_equal(one[tap], other[tap])
        assert (one.layers, one.positions, one.neurons) == (
            other.layers,
            other.positions,
            other.neurons,
        )
        assert one.receipts == other.receipts
        assert one.num_response_tokens == other.num_response_tokens
    means = captured.stacked(1)
    assert means.shape == (len(INPUTS), 2, 44)
    np.testing.assert_array_equal(means[3], called[3][1][:, 0])
    with pytest.raises(ValueError, match="keeps every token"):
        captured.stacked(0)
    with pytest.raises(IndexError):
        captured[len(INPUTS)]


def test_asyncio_reads_the_same(server, client):
    job = finished(client, vs.capture_spec(MODEL, INPUTS, taps=TAPS, max_file_bytes=1))

    async def read():
        async with vs.AsyncClient(server.address) as other:
            captured = await other.captured(job.name)
            one = await captured.input(-2)
            return one, [activations async for activations in captured.inputs()]

    one, every = asyncio.run(read())
    np.testing.assert_array_equal(one[0], every[3][0])
    for activations, other in zip(every, client.captured(job.name), strict=True):
        for tap in range(len(TAPS)):
            np.testing.assert_array_equal(activations[tap], other[tap])


def test_files_are_as_large_as_asked_for_and_whole_inputs_stand_in_them(client):
    inputs = [[1 + i % 90] * (1 + i % 7) for i in range(60)]
    per_token = LAYERS * WIDTH * 4 + 4
    most = 20 * per_token
    spec = vs.capture_spec(MODEL, inputs, taps=vs.tap("residual_post"), max_file_bytes=most)
    estimate = client.estimate_job(v1.JobSpec(capture=spec))
    job = finished(client, spec)
    captured = client.captured(job.name)
    tokens = collections.Counter()
    file_of = captured.index["weight_map"]
    for i, ids in enumerate(inputs):
        name = f"tap.0.input.{i}"
        assert file_of[name] == file_of[f"{name}.positions"]
        tokens[file_of[name]] += len(ids)
    assert list(file_of.values()) == sorted(file_of.values())
    assert max(tokens.values()) * per_token <= most
    files = [a for a in job.result.artifacts if a.role == "capture"]
    assert [a.display_name for a in files] == sorted(tokens)
    assert files[0].display_name == f"capture-00001-of-{len(files):05}.safetensors"
    assert files[0].artifact == f"artifacts/{job.name.removeprefix('jobs/')}.capture-00001"
    total = sum(map(len, inputs))
    assert captured.index["metadata"]["total_size"] == total * per_token
    assert (estimate.tokens, estimate.forwards) == (total, len(inputs))
    assert estimate.scratch_bytes == total * per_token
    left = sum(a.size_bytes for a in job.result.artifacts)
    assert total * per_token < left <= estimate.bytes
    # One file for all by default.
    spec.ClearField("max_file_bytes")
    one = finished(client, spec)
    assert [a.display_name for a in one.result.artifacts if a.role == "capture"] == [
        "capture-00001-of-00001.safetensors"
    ]


def test_tensors_are_aligned_to_their_elements(client, tmp_path):
    taps = [
        vs.tap("mlp_neurons", neurons=[(0, 3)], dtype="bfloat16"),
        vs.tap("residual_post", [0], "all", "mean", dtype="float64"),
    ]
    job = finished(client, vs.capture_spec(MODEL, [[1] * 3, [2] * 5, [3]], taps=taps))
    client.download_job(job.name, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = header.pop("__metadata__")
    assert about["model"] == MODEL
    assert [tap["site"] for tap in json.loads(about["taps"])] == [
        "SITE_MLP_NEURONS",
        "SITE_RESIDUAL_POST",
    ]
    for entry in header.values():
        item = {"F64": 8, "I32": 4, "BF16": 2}[entry["dtype"]]
        assert (8 + size + entry["data_offsets"][0]) % item == 0
    with safe_open(path, framework="np") as file:
        read = file.get_tensor("tap.1.input.1")
    np.testing.assert_array_equal(
        read, client.capture(MODEL, [[2] * 5], taps)[0][1].astype(np.float64)
    )


def test_a_data_set_gives_what_its_lines_give_inline(client):
    lines = b"""
{"prompt": {"token_ids": {"ids": [5, 6, 7]}}, "response": {"token_ids": {"ids": [8, 9]}}}

{"prompt": {"text": "w11 w12 w13 w14"}, "response": {"text": "w15"}, "expresses": true}
{"prompt": {"token_ids": {"ids": [1, 2]}}}
"""
    artifact = client.write_artifact(lines, media_type="application/x-ndjson").name
    taps = [vs.tap("residual_post"), vs.tap("mlp_neurons", [1], "all", "mean")]
    inline = finished(client, vs.capture_spec(MODEL, [*INPUTS[:2], [1, 2]], taps=taps))
    job = client.capture_job(MODEL, artifact=artifact, taps=taps, display_name="lines")
    of_lines = client.wait_for_job(job.name)
    sums = [
        {a.display_name: a.sha256 for a in one.result.artifacts if a.role == "capture"}
        for one in (inline, of_lines)
    ]
    assert sums[0] == sums[1]
    client.delete_job(job.name)
    with pytest.raises(vs.NotFound):
        client.artifact(of_lines.result.artifacts[-1].artifact)


def test_kill_9_in_the_middle_gives_the_same_bytes(start_server, tmp_path):
    generator = np.random.default_rng(7)
    inputs = [[int(i) for i in generator.integers(1, 100, n)] for n in [3, 40, 90, 120] * 60]
    taps = [vs.tap("residual_post"), vs.tap("mlp_neurons", "all", "all", "mean", dtype="bfloat16")]
    spec = vs.capture_spec(MODEL, inputs, taps=taps, steer=STEERED[0], max_file_bytes=800_000)
    often = [*FLAGS, "--job_commit_interval=0s"]
    whole = start_server(tmp_path / "whole", *often)
    with whole.client(MODEL) as client:
        undisturbed = artifacts_of(client, finished(client, spec).name)
    assert len(undisturbed) > 6
    first = start_server(tmp_path / "killed", *often)
    with first.client(MODEL) as client:
        job = client.create_job(v1.JobSpec(capture=spec))
        for state in client.watch_job(job.name):
            if state.progress.shards_done >= 3 and state.progress.done % 16:
                break
            if state.progress.done > 160:
                break
        assert client.job(job.name).progress.done < len(inputs)
    first.kill()
    second = start_server(tmp_path / "killed", *often)
    with second.client(MODEL) as client:
        client.wait_for_job(job.name)
        assert artifacts_of(client, job.name) == undisturbed
        assert client.job(job.name).progress.done == len(inputs)
    assert second.stop() == 0


def digests(directory):
    """Of the blobs that are stored there."""
    return {path.name for path in directory.rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name)}


TAP = vs.tap("residual_post")
REFUSED = [
    ({"inputs": []}, r"spec\.capture\.inputs"),
    ({"inputs": [[1]], "artifact": "artifacts/x"}, r"spec\.capture\.inputs"),
    ({"inputs": [[1]] * 65537}, r"spec\.capture\.inputs"),
    ({"inputs": [[1], [103]]}, r"spec\.capture\.inputs\[1\]\.prompt\.token_ids\.ids\[0\]"),
    ({"inputs": [[1], ([2], [103])]}, r"spec\.capture\.inputs\[1\]\.response\.token_ids\.ids\[0\]"),
    ({"inputs": [[1], [2] * 201]}, r"spec\.capture\.inputs\[1\]\.prompt"),
    ({"taps": []}, r"spec\.capture\.taps"),
    ({"taps": [TAP] * 17}, r"spec\.capture\.taps"),
    ({"taps": [vs.tap("residual_post", [3])]}, r"spec\.capture\.taps\[0\]\.layers"),
    ({"taps": [vs.tap("residual_post", [0], "response")]}, r"taps\[0\]\.tokens\.kind.*inputs\[0\]"),
    ({"taps": [vs.tap("residual_post", [0], [7])]}, r"taps\[0\]\.tokens\.positions\[0\]"),
    ({"taps": [vs.tap("residual_post", dtype="int32")]}, r"spec\.capture\.taps\[0\]\.dtype"),
    ({"steer": vs.Steer("vectors/none", 1.0, layers=1)}, r"vectors/none"),
    ({"max_file_bytes": 0}, r"spec\.capture\.max_file_bytes"),
    ({"max_file_bytes": (1 << 40) + 1}, r"spec\.capture\.max_file_bytes"),
    ({"inputs": [[1]] * 4097, "max_file_bytes": 1}, r"spec\.capture\.max_file_bytes.*4096"),
    ({"artifact": "artifacts/none", "inputs": None}, r"artifacts/none"),
    ({"artifact": "nonsense", "inputs": None}, r"spec\.capture\.artifact"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_a_mistake_is_refused_by_the_name_of_its_field(client, fields, message):
    spec = vs.capture_spec(MODEL, **{"inputs": [[1, 2, 3]], "taps": [TAP], **fields})
    with pytest.raises(vs.ValuescopeError) as refused:
        client.create_job(v1.JobSpec(capture=spec))
    assert refused.value.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert re.search(message, str(refused.value), re.DOTALL), refused.value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"response": {"text": "w1"}}', "line 2 has no `prompt`"),
        (b'{"prompt": {"token_ids": {"ids": [103]}}}', r"line 2: .*prompt\.token_ids\.ids\[0\]"),
        (b'{"prompt": {"token_ids": {"ids": [1]}}, "response": {}}', "line 2: .*response"),
        (b"nonsense", "line 2 is not the JSON mapping of LabelledResponse"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(client, line, message):
    lines = b'{"prompt": {"token_ids": {"ids": [1]}}}\n' + line + b"\n"
    artifact = client.write_artifact(lines, media_type="application/x-ndjson").name
    with pytest.raises(vs.InvalidRequest, match=message):
        client.capture_job(MODEL, artifact=artifact, taps=TAP)


def test_a_tap_that_reads_nothing_of_a_line_is_named_with_it(client):
    lines = b'{"prompt": {"text": "w1"}, "response": {"text": "w2"}}\n{"prompt": {"text": "w1"}}\n'
    artifact = client.write_artifact(lines, media_type="application/x-ndjson").name
    with pytest.raises(vs.InvalidRequest, match=r"taps\[0\]\.tokens\.kind.*line 2 of `artifact`"):
        client.capture_job(MODEL, artifact=artifact, taps=vs.tap("residual_post", [0], "response"))


def test_more_tensors_than_a_job_leaves_are_refused_at_once(client):
    neurons = vs.tap("mlp_neurons", neurons=[(layer, 0) for layer in range(LAYERS)])
    with pytest.raises(vs.Exhausted, match="taps") as refused:
        client.capture_job(MODEL, [[1]] * 65536, taps=[neurons] * 16)
    assert refused.value.reason == "CAPTURE_TOO_LARGE"


def test_a_tenant_hears_before_that_it_may_not_store_as_much(start_server, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"tenants": ["*:stored=1MiB"]}))
    server = start_server(tmp_path / "small", *FLAGS, f"--config={settings}")
    with server.client(MODEL) as client:
        with pytest.raises(vs.Exhausted) as refused:
            client.capture_job(MODEL, [[1] * 100] * 50, taps=TAP)
        assert refused.value.reason == "STORAGE_QUOTA"
        small = client.wait_for_job(client.capture_job(MODEL, [[1] * 100] * 5, taps=TAP).name)
        assert small.state == v1.JOB_STATE_SUCCEEDED


def test_parts_of_files_go_once_the_files_are_whole(start_server, tmp_path):
    folder = tmp_path / "swept"
    flags = ["--job_commit_interval=0s", "--keep_orphaned_blobs=1s"]
    server = start_server(folder, *FLAGS, *flags)
    with server.client(MODEL) as client:
        spec = vs.capture_spec(MODEL, [[1 + i % 90] * 20 for i in range(100)], taps=TAP)
        job = finished(client, spec)
        left = set(artifacts_of(client, job.name).values())
        # And the job's own copy of its inputs, and the last part, which no commit named: that is found within a minute.
        await_true(lambda: left <= digests(folder) and len(digests(folder)) <= len(left) + 2)
        client.delete_job(job.name)
        await_true(lambda: len(digests(folder)) <= 1)


# --- The README and the command line -----------------------------------------------------------------------------------


def test_what_the_readme_says_of_captures_runs(client, tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text()
    (section,) = re.findall(r"### Captures as files\n(.*?)\n### ", readme, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    # The words of a tiny model's vocabulary.
    for text in ("A prompt.", "Its response.", "Another one.", "And more."):
        code = code.replace(text, "w11 w12")
    monkeypatch.chdir(tmp_path)
    names = {"vs": vs, "client": client, "model": MODEL, "json": json, "pathlib": pathlib}
    exec(code, names)
    assert names["means"].shape == (2, LAYERS, WIDTH)
    np.testing.assert_array_equal(names["mean"][:, 0], names["means"][1])


def test_the_command_line_submits_and_downloads(server, client, tmp_path):
    spec = v1.JobSpec(capture=vs.capture_spec(MODEL, INPUTS, taps=TAPS, max_file_bytes=20_000))
    (tmp_path / "capture.json").write_text(json_format.MessageToJson(spec))
    program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]
    run(*program, "jobs", "submit", tmp_path / "capture.json", "--watch")
    job = client.jobs(kind="capture")[0]
    told = run(*program, "jobs", "download", job.name, tmp_path / "there" / "files")
    files = artifacts_of(client, job.name)
    assert [line.rsplit("/")[-1] for line in told.splitlines()] == sorted(files)
    for name, digest in files.items():
        data = (tmp_path / "there" / "files" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest


def test_a_download_goes_on_where_it_broke_off(client, tmp_path):
    job = finished(client, vs.capture_spec(MODEL, INPUTS, taps=TAPS))
    paths = client.download_job(job.name, tmp_path)
    whole = {path.name: path.read_bytes() for path in paths}
    file = next(path for path in paths if path.suffix == ".safetensors")
    partial = file.with_name(f"{file.name}.part")
    file.unlink()
    partial.write_bytes(whole[file.name][:1000])
    client.download_job(job.name, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    file.unlink()
    partial.write_bytes(b"wrong" * 200)
    with pytest.raises(vs.Damaged):
        client.download_job(job.name, tmp_path)
    assert not partial.exists()
