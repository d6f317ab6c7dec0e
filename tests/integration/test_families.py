"""Every family through the real server: what Capture, Score and Generate say of the golden models is what transformers said."""

import json
import struct

import grpc
import ml_dtypes
import numpy as np
import pytest
import valuescope as vs
from conftest import MORE_FLAGS, ROOT, Server
from valuescope import v1
from valuescope.v1 import activations_pb2_grpc

FAMILIES = ROOT / "tests" / "golden" / "families"
NAMES = sorted(folder.name for folder in FAMILIES.iterdir())
TOLERANCE = {"float32": 1e-5, "float16": 2.5e-3, "bfloat16": 2e-2}
DTYPE = {
    "float32": v1.DATA_TYPE_FLOAT32,
    "float16": v1.DATA_TYPE_FLOAT16,
    "bfloat16": v1.DATA_TYPE_BFLOAT16,
}
PER_LAYER = [
    "attention_heads",
    "attention_output",
    "residual_mid",
    "mlp_neurons",
    "mlp_output",
    "residual_post",
]


def read_safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        kind = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
        tensors[name] = np.frombuffer(data[begin:end], kind).reshape(entry["shape"])
    return tensors


def error(actual, expected):
    expected = np.asarray(expected, np.float64)
    return np.linalg.norm(np.asarray(actual, np.float64) - expected) / np.linalg.norm(expected)


class Golden:
    def __init__(self, name):
        self.model = f"models/{name}"
        self.about = json.loads((FAMILIES / name / "expected.json").read_text())
        self.values = read_safetensors(FAMILIES / name / "expected.safetensors")
        self.dtype = self.about["dtype"]
        self.tolerance = TOLERANCE[self.dtype]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("families"), f"--model_root={FAMILIES}", "--models=")
    with vs.Client(server.address, timeout=120) as client:
        yield client
    assert server.stop() == 0


@pytest.fixture(scope="module")
def activations(families):
    with grpc.insecure_channel(families._target) as channel:
        yield activations_pb2_grpc.ActivationServiceStub(channel)


@pytest.fixture(params=NAMES)
def golden(request, families):
    golden = Golden(request.param)
    families.load_model(golden.model, dtype=golden.dtype)
    families.wait_until_ready(golden.model)
    return golden


def test_float32_on_a_cpu_is_batch_invariant_and_a_model_says_so(tmp_path):
    if MORE_FLAGS:
        pytest.skip("of a server with its own defaults")
    server = Server(tmp_path, f"--model_root={FAMILIES}", "--models=llama3_rope,qwen2")
    with vs.Client(server.address, timeout=120) as client:
        for name in ("llama3_rope", "qwen2"):
            client.wait_until_ready(f"models/{name}")
            assert client.model(f"models/{name}").batch_invariant
        client.load_model("models/llama3_bf16", dtype="bfloat16")
        client.wait_until_ready("models/llama3_bf16")
        assert not client.model("models/llama3_bf16").batch_invariant
    assert server.stop() == 0


def test_all_families_are_there():
    configs = [json.loads((FAMILIES / name / "config.json").read_text()) for name in NAMES]
    for dtype in ("float32", "bfloat16"):
        kinds = {config["model_type"] for config in configs if config["dtype"] == dtype}
        assert kinds == {"llama", "qwen2", "qwen3", "mistral", "gemma2"}


def test_capture_equals_transformers_at_every_site(families, golden):
    sequences = golden.about["sequences"]
    taps = [vs.tap(site, "all", "all") for site in PER_LAYER]
    singles = ["embedding", "final_norm", "logits"]
    taps += [vs.tap(site, v1.Layers(), "all") for site in singles]
    for tap in taps[len(PER_LAYER) :]:
        tap.ClearField("layers")  # they have none
    alone = [families.capture(golden.model, [ids], taps) for ids in sequences]
    together = families.capture(golden.model, sequences, taps)
    for k in range(len(sequences)):
        kept = golden.about["site_positions"][k]
        for t, site in enumerate(PER_LAYER):
            for way in (alone[k][0][t], together[k][t]):
                for layer in range(way.shape[0]):
                    expected = golden.values[f"{k}.{site}.{layer}"]
                    assert error(way[layer][kept], expected) < golden.tolerance, (k, site, layer)
        for t, site in enumerate(singles, len(PER_LAYER)):
            expected = golden.values[f"{k}.{site}"]
            for way in (alone[k][0][t], together[k][t]):
                rows = way[0] if site == "logits" else way[0][kept]
                assert error(rows, expected) < golden.tolerance, (k, site)
        if families.model(golden.model).batch_invariant:
            for one, other in zip(alone[k][0], together[k], strict=True):
                assert np.array_equal(one, other)


def test_scores_equal_transformers(families, golden):
    for k, ids in enumerate(golden.about["sequences"]):
        if len(ids) < 4:
            continue
        (score,) = families.score(golden.model, ids[:3], [ids[3:]])
        # A half type's are compared with the same weights in float32, too.
        for name in {f"{k}.logits", f"{k}.logits_float32"} & golden.values.keys():
            logits = golden.values[name].astype(np.float64)
            logits -= logits.max(-1, keepdims=True)
            logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            expected = [logprobs[p - 1, ids[p]] for p in range(3, len(ids))]
            assert error(score.token_logprobs, expected) < golden.tolerance, name


def test_greedy_tokens_equal_transformers(families, golden):
    prompt = golden.about["sequences"][golden.about["greedy_prompt"]]
    generation = families.generate(
        golden.model, prompt, max_tokens=64, temperature=0, ignore_eos=True
    )
    assert list(generation.token_ids) == golden.values["greedy"].tolist()


def test_a_chat_becomes_the_ids_of_transformers(families, golden):
    chat = golden.about["chat"]
    tokenized = families.tokenize(golden.model, chat)
    assert tokenized.rendered_text == golden.about["chat_text"]
    assert list(tokenized.token_ids) == golden.about["chat_ids"]
    assert (
        list(families.tokenize(golden.model, golden.about["text"]).token_ids)
        == (golden.about["text_ids"])
    )


def test_a_model_tells_the_tokens_that_its_tokenizer_names_first_and_last(families, golden):
    folder = FAMILIES / golden.model.removeprefix("models/")
    named = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    model = families.model(golden.model)
    for field, name in (("bos_token_id", "bos_token"), ("eos_token_id", "eos_token")):
        assert model.HasField(field) == (name in named)
        if name in named:
            assert getattr(model, field) == ids[named[name]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_captures_come_in_the_type_that_was_asked_for(families, dtype):
    golden = Golden("llama3_rope")
    families.load_model(golden.model)
    families.wait_until_ready(golden.model)
    ids = golden.about["sequences"][1]
    tap = vs.tap("residual_post", "all", "all", "mean")
    (plain,) = families.capture(golden.model, [ids], [tap])
    tap.dtype = {**DTYPE, "float64": v1.DATA_TYPE_FLOAT64}[dtype]
    (other,) = families.capture(golden.model, [ids], [tap])
    if dtype == "float64":
        assert other[0].dtype == np.float64
        assert np.array_equal(other[0].astype(np.float32), plain[0])
    else:
        kind = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
        assert np.array_equal(
            np.asarray(other[0], np.float32), plain[0].astype(kind).astype(np.float32)
        )


def test_a_tap_of_some_neurons_reads_those(families, activations):
    golden = Golden("llama3_rope")
    families.load_model(golden.model)
    families.wait_until_ready(golden.model)
    ids = golden.about["sequences"][1]
    whole = vs.tap("mlp_neurons", "all", "all")
    some = vs.tap("mlp_neurons", "all", "all")
    chosen = [(2, 7), (0, 44), (0, 3)]
    some.neurons.extend(v1.NeuronId(layer=layer, index=index) for layer, index in chosen)
    request = v1.CaptureRequest(
        model=golden.model,
        inputs=[v1.CaptureInput(prompt=v1.Prompt(token_ids=v1.TokenIds(ids=ids)))],
        taps=[some],
    )
    (full,) = families.capture(golden.model, [ids], [whole])
    seen = {}
    for chunk in (part.chunk for part in activations.Capture(request) if part.HasField("chunk")):
        assert len(chunk.layers) == 1
        values = np.frombuffer(chunk.tensor.data, np.float32).reshape(chunk.tensor.shape)
        for column, neuron in enumerate(chunk.neurons):
            seen[neuron.layer, neuron.index] = values[0, :, column]
    assert sorted(seen) == sorted(chosen)
    for layer, index in chosen:
        assert np.array_equal(seen[layer, index], full[0][layer][:, index])
    request.taps[0].neurons[0].index = 45
    with pytest.raises(grpc.RpcError, match=r"taps\[0\].neurons\[0\].index"):
        list(activations.Capture(request))
