"""Loading and unloading over gRPC: a load that takes long and is cancelled, and calls that are sent twice."""

import json
import shutil
import struct
import time
import uuid

import grpc
import pytest
from conftest import ROOT, vs
from valuescope import v1
from valuescope.v1 import models_pb2_grpc

LARGE = "models/large"
SOURCE = ROOT / "tests" / "golden" / "families" / "llama_tied"
LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY, HEADS = 12, 1024, 8192, 97, 16


def shapes():
    """Of every weight, in the order in which they lie in the file."""
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        yield block + "input_layernorm.weight", [HIDDEN]
        for name in "qkvo":
            yield f"{block}self_attn.{name}_proj.weight", [HIDDEN, HIDDEN]
        yield block + "post_attention_layernorm.weight", [HIDDEN]
        for name in ("gate", "up"):
            yield f"{block}mlp.{name}_proj.weight", [INTERMEDIATE, HIDDEN]
        yield block + "mlp.down_proj.weight", [HIDDEN, INTERMEDIATE]
    yield "model.norm.weight", [HIDDEN]


def write_large_model(folder):
    """1.4 GB of zeros, which the file system does not have to keep: a load reads and digests them like any others."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((SOURCE / name).read_bytes())
    config = json.loads((SOURCE / "config.json").read_text())
    config |= {
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "head_dim": HIDDEN // HEADS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCABULARY, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in shapes():
        begin, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def model_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_large_model(root / "large")
    return root


def await_loading(stub):
    """Until some of the weights were read; the model that is then still loading."""
    until = time.monotonic() + 60
    while True:
        model = stub.GetModel(v1.GetModelRequest(name=LARGE)).model
        assert model.state == v1.MODEL_STATE_LOADING, "the load ended before the test could see it"
        if model.load_progress > 0.02:
            return model
        assert time.monotonic() < until
        time.sleep(0.01)


def messages(server):
    return [json.loads(line)["event"] for line in server.log.read_text().splitlines()]


def test_sigterm_cancels_a_load(start_server, tmp_path, model_root):
    server = start_server(
        tmp_path, f"--model_root={model_root}", "--models=large", "--drain_timeout=5s"
    )
    with grpc.insecure_channel(server.address) as channel:
        await_loading(models_pb2_grpc.ModelServiceStub(channel))
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 5
    assert "model load cancelled" in messages(server)
    assert "model loaded" not in messages(server)


def test_a_load_is_cancelled_by_unloading_and_begins_again(start_server, tmp_path, model_root):
    server = start_server(tmp_path, f"--model_root={model_root}", "--models=")
    with grpc.insecure_channel(server.address) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        stub.LoadModel(v1.LoadModelRequest(name=LARGE))
        progress = await_loading(stub).load_progress
        unloaded = stub.UnloadModel(v1.UnloadModelRequest(name=LARGE)).model
        assert unloaded.state == v1.MODEL_STATE_AVAILABLE
        again = stub.LoadModel(v1.LoadModelRequest(name=LARGE)).model
        assert again.state == v1.MODEL_STATE_LOADING
        assert again.load_progress < progress
        await_loading(stub)
    assert server.stop() == 0


def await_state(stub, name, state):
    until = time.monotonic() + 60
    while stub.GetModel(v1.GetModelRequest(name=name)).model.state != state:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def small(start_server, tmp_path):
    """A stub of a server with models/small, which is not loaded, and the model's folder."""
    folder = tmp_path / "models" / "small"
    shutil.copytree(SOURCE, folder)
    server = start_server(tmp_path, f"--model_root={folder.parent}", "--models=")
    with grpc.insecure_channel(server.address) as channel:
        yield models_pb2_grpc.ModelServiceStub(channel), folder


def test_a_request_to_load_is_sent_twice(small):
    stub, _ = small
    with pytest.raises(grpc.RpcError) as error:
        stub.LoadModel(v1.LoadModelRequest(name="models/small", request_id="twice"))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "`request_id`" in error.value.details()

    once = v1.LoadModelRequest(name="models/small", request_id=str(uuid.uuid4()))
    stub.LoadModel(once)
    await_state(stub, "models/small", v1.MODEL_STATE_READY)
    assert stub.LoadModel(once).model.state == v1.MODEL_STATE_READY
    other = v1.LoadModelRequest(
        name="models/small", request_id=once.request_id, dtype=v1.DATA_TYPE_FLOAT32
    )
    with pytest.raises(grpc.RpcError) as error:
        stub.LoadModel(other)
    assert error.value.code() == grpc.StatusCode.ALREADY_EXISTS

    stub.UnloadModel(v1.UnloadModelRequest(name="models/small"))
    assert stub.LoadModel(once).model.state == v1.MODEL_STATE_AVAILABLE


def test_a_model_whose_folder_was_deleted_is_unloaded(small):
    stub, folder = small
    stub.LoadModel(v1.LoadModelRequest(name="models/small"))
    await_state(stub, "models/small", v1.MODEL_STATE_READY)
    shutil.rmtree(folder)
    unloaded = stub.UnloadModel(v1.UnloadModelRequest(name="models/small")).model
    assert (unloaded.name, unloaded.state) == ("models/small", v1.MODEL_STATE_AVAILABLE)
    with pytest.raises(grpc.RpcError) as error:
        stub.GetModel(v1.GetModelRequest(name="models/small"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def read_weights(folder):
    """The header and the data of a folder's one weight file."""
    file = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def write_weights(folder, header, data, name="model.safetensors"):
    text = json.dumps(header).encode()
    (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


def older_shards(folder):
    """An index with a shard of other weights, from the model that was in the folder before."""
    header, data = read_weights(folder)
    write_weights(folder, header, bytes(len(data)), "model-00001-of-00001.safetensors")
    index = {name: "model-00001-of-00001.safetensors" for name in header if name[:2] != "__"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def shards_that_are_gone(folder):
    older_shards(folder)
    (folder / "model-00001-of-00001.safetensors").unlink()


def renamed(new_name):
    def change(folder):
        header, data = read_weights(folder)
        write_weights(folder, {new_name(name): entry for name, entry in header.items()}, data)

    return change


def reward_head(folder):
    header, data = read_weights(folder)
    range_of_it = [len(data), len(data) + 8]
    header["v_head.summary.weight"] = {"dtype": "F32", "shape": [2], "data_offsets": range_of_it}
    write_weights(folder, header, data + bytes(8))


def doubled_keys(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        '{"num_hidden_layers": 7, "x": [NaN, -Infinity],' + text[1:]
    )


def fewer_rows_than_tokens(folder):
    config = {"pad_token": "<beyond>", "bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


SAME_MODEL = {
    "older shards": older_shards,
    "shards gone": shards_that_are_gone,
    "prefix missing": renamed(lambda name: name.removeprefix("model.")),
    "prefix doubled": renamed(lambda name: "model." + name if name[:2] != "__" else name),
    "tied by the head": renamed(lambda name: name.replace("model.embed_tokens", "lm_head")),
    "reward head": reward_head,
    "doubled keys": doubled_keys,
    "token beyond": fewer_rows_than_tokens,
}


def test_folders_that_say_the_same_in_other_ways_are_the_same_model(start_server, tmp_path):
    names = {change: f"m{i}" for i, change in enumerate(SAME_MODEL)}
    for change, name in {"": "plain", **names}.items():
        shutil.copytree(SOURCE, tmp_path / "models" / name)
        SAME_MODEL.get(change, lambda folder: None)(tmp_path / "models" / name)
    server = start_server(
        tmp_path,
        f"--model_root={tmp_path / 'models'}",
        f"--models=plain,{','.join(names.values())}",
    )
    with vs.Client(server.address, timeout=60) as client:
        rows = {}
        for change, name in {"": "plain", **names}.items():
            client.wait_until_ready(f"models/{name}")
            rows[change] = client.capture(f"models/{name}", [[1, 7, 9, 30]], [vs.tap("logits")])[0][
                0
            ]
        for change in SAME_MODEL:
            assert (rows[change] == rows[""]).all(), change
        with pytest.raises(vs.InvalidRequest, match="holds the token 97"):
            client.tokenize(f"models/{names['token beyond']}", "w1 <beyond>")
    assert server.stop() == 0
    ignored = [
        line
        for line in map(json.loads, server.log.read_text().splitlines())
        if "ignored" in line["event"]
    ]
    assert {line["model"] for line in ignored} == {
        names["older shards"], names["shards gone"], names["reward head"],
    }  # fmt: skip
