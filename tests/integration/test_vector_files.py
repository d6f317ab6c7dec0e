"""Vectors leave the server as files and come back: to the bit, with all that is known of them, and in llama.cpp's format at the blocks
that they came from. Files that were changed on their way leave nothing behind."""

import hashlib
import json
import subprocess
import uuid

import gguf
import grpc
import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, MODEL, Server
from test_families import FAMILIES
from valuescope import v1
from valuescope.v1 import vectors_pb2_grpc

TINY, OTHER = "models/llama3_rope", "models/llama_tied"
LAYERS, WIDTH, NEURONS = 3, 28, 45
NUM_MUTATIONS = 300


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory):
    names = ",".join(model.removeprefix("models/") for model in (TINY, OTHER))
    server = Server(
        tmp_path_factory.mktemp("files"), f"--model_root={FAMILIES}", f"--models={names}"
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def tiny(tiny_server):
    with tiny_server.client(TINY) as client:
        client.wait_until_ready(OTHER)
        yield client


def numbers(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def extracted(tiny):
    """With statistics and a whole provenance."""
    random = np.random.RandomState(4)
    responses = [
        vs.labelled(
            random.randint(7, 90, 5).tolist(),
            random.randint(7, 90, 6).tolist(),
            bool(index % 2),
            f"q{index // 2}",
        )
        for index in range(8)
    ]
    made = tiny.extract_vectors(
        TINY,
        responses,
        seed=2**64 - 1,
        bootstrap_samples=20,
        judge='"two" people',
        display_name="ü",
    )
    return made.vector.name


def known(tiny, name):
    """All that is told of a vector but when it was stored."""
    vector = tiny.vector(name)
    vector.ClearField("create_time")
    return vector


def stored(tiny):
    return sorted(vector.name for vector in tiny.vectors())


def read_gguf(content, tmp_path):
    path = tmp_path / "read.gguf"
    path.write_bytes(content)
    return gguf.GGUFReader(path)


def write_gguf(path, rows, count="uint32"):
    """As repeng writes it, or, with an int32 count, as llama.cpp's cvector-generator does."""
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    if count == "uint32":
        writer.add_uint32("controlvector.layer_count", len(rows))
    else:
        writer.add_int32("controlvector.layer_count", len(rows))
    for number, row in rows.items():
        writer.add_tensor(f"direction.{number}", row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- There and back ---


@pytest.mark.parametrize("file_format", ["safetensors", "gguf"])
def test_an_exported_vector_comes_back_as_what_it_was(tiny, extracted, file_format):
    layers = None if file_format == "safetensors" else range(1, LAYERS)
    content = tiny.export_vectors([extracted], file_format=file_format, layers=layers)
    assert tiny.export_vectors([extracted], file_format=file_format, layers=layers) == content
    (name,) = (v.name for v in tiny.import_vectors(TINY, content, file_format=file_format))
    first = known(tiny, name)
    # Once it is forgotten, the file alone gives it back under its name.
    if name != extracted:
        tiny.delete_vector(name)
        (again,) = tiny.import_vectors(TINY, content, file_format=file_format)
        assert known(tiny, again.name) == first
    original = known(tiny, extracted)
    rows = vs.to_numpy(original.data)[list(first.layers)]
    assert first.data.data == rows.tobytes()
    assert list(first.statistics) == [original.statistics[layer] for layer in first.layers]
    assert first.provenance == original.provenance
    assert first.display_name == original.display_name
    if file_format == "safetensors":
        assert first == original
    assert tiny.export_vectors([name], file_format=file_format) == content
    if name != extracted:
        tiny.delete_vector(name)


def test_a_file_of_several_vectors_of_several_sites_comes_back(tiny, extracted):
    names = [
        extracted,
        tiny.create_vector(TINY, numbers(1, NEURONS), layers=1, site="mlp_neurons").name,
        tiny.create_vector(TINY, numbers(2, 2, WIDTH), layers=[0, 2], site="residual_mid").name,
    ]
    before = {name: known(tiny, name) for name in names}
    content = tiny.export_vectors(names)
    for name in names[1:]:
        tiny.delete_vector(name)
    imported = tiny.import_vectors(TINY, content)
    assert sorted(vector.name for vector in imported) == sorted(names)
    assert {name: known(tiny, name) for name in names} == before


def test_large_files_come_in_parts(client):
    names = [
        client.create_vector(
            MODEL, numbers(seed, 30, 1536), layers=range(30), site="mlp_neurons"
        ).name
        for seed in range(8)
    ]
    content = client.export_vectors(names)
    assert len(content) > 1 << 20
    for name in names:
        client.delete_vector(name)
    assert sorted(vector.name for vector in client.import_vectors(MODEL, content)) == sorted(names)


def test_a_control_vector_is_what_llama_cpp_reads(tiny, extracted, tmp_path):
    content = tiny.export_vectors([extracted], file_format="gguf", layers=[1, 2])
    reader = read_gguf(content, tmp_path)
    rows = tiny.vector_data(extracted)
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2"]
    for tensor, layer in zip(reader.tensors, (1, 2), strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert list(tensor.shape) == [WIDTH]
        assert tensor.data.tobytes() == rows[layer].tobytes()
    assert reader.get_field("general.architecture").contents() == "controlvector"
    told = json.loads(reader.get_field("valuescope.vector").contents())
    assert told["layers"] == [1, 2]


def test_what_a_control_vector_cannot_hold_is_refused_in_words(tiny, extracted):
    with pytest.raises(vs.InvalidRequest, match="layer 0") as refused:
        tiny.export_vectors([extracted], file_format="gguf")
    assert refused.value.reason == "NO_LAYER_0"
    for site in ("residual_mid", "mlp_output"):
        name = tiny.create_vector(TINY, numbers(3, WIDTH), layers=1, site=site).name
        with pytest.raises(vs.InvalidRequest, match="RESIDUAL_POST") as refused:
            tiny.export_vectors([name], file_format="gguf")
        assert refused.value.reason == "WRONG_SITE"
    with pytest.raises(vs.InvalidRequest, match=r"vectors.*1 to 1"):
        tiny.export_vectors([extracted] * 2, file_format="gguf")
    with pytest.raises(vs.InvalidRequest, match=r"vectors\[1\].*already"):
        tiny.export_vectors([extracted] * 2)
    other = tiny.create_vector(OTHER, numbers(3, 36), layers=1).name
    with pytest.raises(vs.InvalidRequest, match=r"vectors\[1\].*another model"):
        tiny.export_vectors([extracted, other])
    with pytest.raises(vs.InvalidRequest, match="layers"):
        tiny.export_vectors([other], layers=[1, 2])


# --- Files of others ---


def logits(tiny, name, layer):
    steer = vs.Steer(name, 2.0, layers=layer, tokens="all")
    (seen,) = tiny.capture(TINY, [[9, 30, 31, 32]], vs.tap("logits"), steer=steer)
    return seen[0]


@pytest.mark.parametrize(
    ("convention", "count", "numbered_from"),
    [
        (None, "uint32", 0),
        ("repeng", "int32", 0),
        ("llama_cpp", "int32", 1),
        ("cvector_generator", "int32", 1),
    ],
)
def test_a_file_of_others_acts_at_the_blocks_that_its_convention_says(
    tiny, tmp_path, convention, count, numbered_from
):
    rows = numbers(6, 2, WIDTH)
    by_number = {numbered_from + i: row for i, row in enumerate(rows)}
    path = write_gguf(tmp_path / "v.gguf", by_number, count)
    (vector,) = tiny.import_vectors(TINY, path, file_format="gguf", convention=convention)
    shift = 1 if convention == "cvector_generator" else 0
    assert list(vector.layers) == [number - shift for number in by_number]
    same = tiny.create_vector(TINY, rows, layers=list(vector.layers)).name
    for layer in vector.layers:
        assert np.array_equal(logits(tiny, vector.name, layer), logits(tiny, same, layer))
    told = json.loads(tiny.vector(vector.name).provenance.options)
    assert told["convention"] == f"GGUF_CONVENTION_{(convention or 'repeng').upper()}"
    tiny.delete_vector(vector.name)


def test_a_file_that_may_be_read_in_two_ways_asks_whose_it_is(tiny, tmp_path):
    path = write_gguf(tmp_path / "v.gguf", {1: numbers(7, WIDTH)}, "int32")
    with pytest.raises(vs.InvalidRequest, match=r"header\.convention.*block N - 1") as refused:
        tiny.import_vectors(TINY, path, file_format="gguf")
    assert refused.value.reason == "CONVENTION_NEEDED"


def test_a_vector_of_other_weights_is_refused(tiny, extracted):
    content = tiny.export_vectors([extracted])
    with pytest.raises(vs.FailedPrecondition) as refused:
        tiny.import_vectors(OTHER, content)
    assert refused.value.reason == "WRONG_MODEL"


# --- Uploads ---


@pytest.fixture
def stub(tiny_server):
    with grpc.insecure_channel(tiny_server.address) as channel:
        yield vectors_pb2_grpc.VectorServiceStub(channel)


def header_of(content, **fields):
    return v1.ImportVectorsHeader(
        **{
            "model": TINY,
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            **fields,
        }
    )


def upload(stub, content, **fields):
    header = v1.ImportVectorsRequest(header=header_of(content, **fields))
    parts = [content[i : i + 1000] for i in range(0, len(content), 1000)]
    return stub.ImportVectors(
        iter([header, *(v1.ImportVectorsRequest(data=part) for part in parts)])
    )


def test_the_answer_says_where_each_row_went(stub, tmp_path):
    rows = {number: numbers(number, WIDTH) for number in (1, 3)}
    content = write_gguf(tmp_path / "v.gguf", rows).read_bytes()
    convention = v1.GGUF_CONVENTION_CVECTOR_GENERATOR
    fields = {"format": v1.VECTOR_FORMAT_GGUF, "convention": convention}
    response = upload(stub, content, **fields)
    assert response.convention == convention
    (vector,) = response.vectors
    assert [(row.vector, row.layer, row.tensor) for row in response.rows] == [
        (vector.name, 0, "direction.1"),
        (vector.name, 2, "direction.3"),
    ]
    stub.DeleteVector(v1.DeleteVectorRequest(name=vector.name))


def test_an_upload_that_is_repeated_is_stored_once(stub, tiny, extracted):
    content = tiny.export_vectors([extracted], layers=[1])
    fields = {"request_id": str(uuid.uuid4()), "display_name": "once"}
    first = upload(stub, content, **fields)
    assert first.vectors[0].display_name == "once"
    assert list(upload(stub, content, **fields).vectors) == list(first.vectors)
    with pytest.raises(grpc.RpcError) as refused:
        upload(stub, content, **{**fields, "display_name": "twice"})
    assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS
    tiny.delete_vector(first.vectors[0].name)


def test_an_upload_is_what_it_announces_or_nothing(stub, tiny, extracted):
    content = tiny.export_vectors([extracted], layers=[2])
    before = stored(tiny)
    data = v1.ImportVectorsRequest(data=content)
    announced = v1.ImportVectorsRequest(header=header_of(content))
    longer = v1.ImportVectorsRequest(header=header_of(content, size_bytes=len(content) + 1))
    shorter = v1.ImportVectorsRequest(header=header_of(content, size_bytes=len(content) - 1))
    huge = v1.ImportVectorsRequest(header=header_of(content, size_bytes=(1 << 30) + 1))
    digest = v1.ImportVectorsRequest(header=header_of(content, sha256="0" * 64))
    convention = v1.ImportVectorsRequest(
        header=header_of(content, convention=v1.GGUF_CONVENTION_REPENG)
    )
    site = header_of(content, format=v1.VECTOR_FORMAT_GGUF, site=v1.SITE_MLP_NEURONS)
    for messages, where in [
        ([], "header"),
        ([data], "header"),
        ([announced, announced], "data"),
        ([announced], "header.size_bytes"),
        ([longer, data], "header.size_bytes"),
        ([shorter, data], "data"),
        ([huge], "header.size_bytes"),
        ([digest, data], "header.sha256"),
        ([convention, data], "header.convention"),
        ([v1.ImportVectorsRequest(header=site), data], "header.site"),
        ([v1.ImportVectorsRequest(header=header_of(b""))], "header.size_bytes"),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            stub.ImportVectors(iter(messages))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith(f"`{where}`"), refused.value.details()
    assert stored(tiny) == before


def mutated(content, random):
    content = bytearray(content)
    for _ in range(1 + random.randint(3)):
        span = min(len(content), 64) if random.randint(2) else len(content)
        place = random.randint(span)
        length = 1 + random.randint(16)
        match random.randint(5):
            case 0:
                content[place] = random.randint(256)
            case 1:
                content[place] ^= 1 << random.randint(8)
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = content[place : place + length]
            case 4:
                del content[max(1, place) :]
        content = content or bytearray(b"x")
    return bytes(content)


@pytest.mark.parametrize("file_format", ["safetensors", "gguf"])
def test_a_mutated_file_is_refused_or_gives_what_was_exported(tiny, extracted, file_format):
    content = tiny.export_vectors([extracted], file_format=file_format, layers=[1, 2])
    (whole,) = tiny.import_vectors(TINY, content, file_format=file_format)
    before = stored(tiny)
    random = np.random.RandomState(8)
    refused = 0
    for _ in range(NUM_MUTATIONS):
        try:
            (found,) = tiny.import_vectors(TINY, mutated(content, random), file_format=file_format)
            assert found.digest == whole.digest
        except vs.InvalidRequest as error:
            refused += 1
            (violation,) = error.violations
            assert violation.field in ("data", "header.convention")
        except vs.FailedPrecondition as error:
            refused += 1
            assert error.reason == "WRONG_MODEL"
    assert refused > NUM_MUTATIONS / 2
    assert stored(tiny) == before
    tiny.delete_vector(whole.name)


# --- The command line ---


def command(server, *words):
    return subprocess.run(
        [str(BUILD / "client" / "cpp" / "valuescope"), "--server", server.address, *words],
        capture_output=True,
        timeout=60,
    )


@pytest.mark.parametrize("file_format", ["safetensors", "gguf"])
def test_the_command_line_exports_and_imports(tiny_server, tiny, extracted, tmp_path, file_format):
    path = tmp_path / "file"
    how = ("--format", file_format)
    asked = ("vectors", "export", extracted, *how, "--layers", "1-2")
    written = command(tiny_server, *asked, "--out", str(path))
    assert (written.returncode, written.stderr) == (0, b"")
    assert path.read_bytes() == command(tiny_server, *asked).stdout
    assert path.read_bytes() == tiny.export_vectors(
        [extracted], file_format=file_format, layers=[1, 2]
    )
    assert list(tmp_path.iterdir()) == [path]
    read = command(tiny_server, "vectors", "import", "--model", "llama3_rope", *how, str(path))
    assert read.returncode == 0, read.stderr
    lines = [line.split() for line in read.stdout.decode().splitlines()]
    assert lines[0] == ["VECTOR", "LAYER", "TENSOR"]
    assert [line[1] for line in lines[1:]] == ["1", "2"]
    tiny.delete_vector(lines[1][0])
    refused = command(
        tiny_server, "vectors", "export", extracted, "--format", "gguf", "--out", str(path)
    )
    assert refused.returncode == 3 and b"layer 0" in refused.stderr
    assert list(tmp_path.iterdir()) == [path]
    told = command(
        tiny_server,
        "vectors",
        "import",
        "--model",
        "llama3_rope",
        *how,
        "--convention",
        "x",
        str(path),
    )
    assert told.returncode == 2
