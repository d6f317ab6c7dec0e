"""Holds files of control vectors against the programs that share the format: what the server exports, llama.cpp steers by at the layers
that the server says, and what repeng writes steers here as it does there. The model is the planted one, in float32.

    python check_control_vectors.py --llama_cpp FOLDER [--repeng_python PYTHON]

FOLDER has llama.cpp's shared libraries, such as bins/linux-x64 of the npm package @node-llama-cpp/linux-x64 3.22.1; PYTHON has repeng
0.4, torch and transformers. VALUESCOPE_BUILD is the build. llama.cpp keeps keys and values in float16, so its logits agree to about
1e-5; the check says beside each difference how far the same vector one layer off would be.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import planted_model as pm
import planted_truth as pt

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import conftest  # noqa: E402, F401
import valuescope as vs  # noqa: E402
from check_extraction import planted_responses  # noqa: E402
from conftest import Server  # noqa: E402

MODEL = "models/planted"
COEFFICIENT = 1.5
ROUNDING = 1e-4


def interleaved(weight, heads):
    """Rows of queries or keys as llama.cpp rotates them: elements that turn together stand together."""
    halves = weight.reshape(heads, 2, pm.HEAD_DIM // 2, pm.HIDDEN)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write_model(path, weights):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(pm.HIDDEN)
    writer.add_block_count(pm.BLOCKS)
    writer.add_feed_forward_length(pm.INTERMEDIATE)
    writer.add_head_count(pm.HEADS)
    writer.add_head_count_kv(pm.KV_HEADS)
    writer.add_key_length(pm.HEAD_DIM)
    writer.add_value_length(pm.HEAD_DIM)
    writer.add_rope_dimension_count(pm.HEAD_DIM)
    writer.add_rope_freq_base(pm.THETA)
    writer.add_layer_norm_rms_eps(pm.EPSILON)
    writer.add_vocab_size(pm.VOCABULARY)
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, pm.BLOCKS)
    for name, weight in weights.items():
        if "q_proj" in name or "k_proj" in name:
            weight = interleaved(weight, pm.HEADS if "q_proj" in name else pm.KV_HEADS)
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight",)), weight.astype(np.float32)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    def __init__(self, libraries, folder):
        self._libraries, self._folder = libraries, folder
        self._program = folder / "llama_cpp_peer"
        shared = sorted(libraries.glob("libllama*.so")) + sorted(libraries.glob("libggml[.-]*.so"))
        shared = [path for path in shared if "ggml-cpu" not in path.name]
        link = [*shared, f"-Wl,-rpath,{libraries}", "-Wl,--allow-shlib-undefined"]
        source = HERE / "llama_cpp_peer.cc"
        subprocess.run(["g++", "-std=c++20", "-o", self._program, source, *link], check=True)

    def logits(self, model, tokens, vector=None):
        """[tokens, vocabulary] with the file `vector` at COEFFICIENT, or without; None where llama.cpp refuses it."""
        out = self._folder / "logits.f32"
        how = f"{COEFFICIENT}" if vector is None else f"{COEFFICIENT},{vector}"
        ran = subprocess.run(
            [self._program, self._libraries, model, out, how, *map(str, tokens)],
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            print(ran.stderr[-400:], file=sys.stderr)
            return None
        return np.fromfile(out, np.float32).reshape(len(tokens), -1)


def relative(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def logits_here(client, tokens, name, layers):
    """With the stored vector's own rows at these layers."""
    steer = [vs.Steer(name, COEFFICIENT, layers=layer, tokens="all") for layer in layers]
    (seen,) = client.capture(MODEL, [tokens], vs.tap("logits"), steer=steer)
    return seen[0][0]


def check_llama_cpp(client, llama_cpp, folder, tokens):
    model = folder / "model.gguf"
    write_model(model, pm.Builder(0).planted)
    plain = logits_here(client, tokens, None, [])
    rounding = relative(llama_cpp.logits(model, tokens), plain)
    print(f"llama.cpp, not steered: {rounding:.2g}")
    assert rounding < ROUNDING
    random = np.random.RandomState(3)
    rows = random.standard_normal((pm.BLOCKS - 1, pm.HIDDEN)).astype(np.float32)
    every = range(1, pm.BLOCKS)
    whole = client.create_vector(MODEL, rows, layers=every).name
    for layers in [[layer] for layer in every] + [list(every)]:
        path = folder / "vector.gguf"
        path.write_bytes(client.export_vectors([whole], file_format="gguf", layers=layers))
        found = llama_cpp.logits(model, tokens, path)
        expected = logits_here(client, tokens, whole, layers)
        difference = relative(found, expected)
        beside = relative(plain, expected)
        line = f"llama.cpp, exported layers {layers}: {difference:.2g} (not steered would be {beside:.2g}"
        if len(layers) == 1:
            row = rows[layers[0] - 1]
            others = {
                layer: client.create_vector(MODEL, row, layers=layer).name
                for layer in (layers[0] - 1, layers[0] + 1)
                if layer < pm.BLOCKS
            }
            off = [
                relative(found, logits_here(client, tokens, name, [layer]))
                for layer, name in others.items()
            ]
            line += f", a layer off {min(off):.2g}"
            assert min(off) > 20 * ROUNDING
        print(line + ")")
        assert difference < ROUNDING and beside > 20 * ROUNDING


def check_repeng(client, python, folder, model_folder, tokens):
    path, steered, directions = (folder / f"repeng.{end}" for end in ("gguf", "npy", "npz"))
    words = [model_folder, path, steered, directions, COEFFICIENT, *tokens]
    subprocess.run(
        [python, "-B", HERE / "repeng_peer.py", *map(str, words)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    (vector,) = client.import_vectors(MODEL, path, file_format="gguf")
    assert list(vector.layers) == list(range(pm.BLOCKS)), vector.layers
    found = logits_here(client, tokens, vector.name, list(vector.layers))
    difference = relative(found, np.load(steered))
    beside = relative(logits_here(client, tokens, None, []), found)
    print(f"repeng, imported: {difference:.2g} (not steered would be {beside:.2g})")
    assert difference < ROUNDING < 100 * ROUNDING < beside
    check_repeng_extraction(client, np.load(directions))


def last_token_differences(client, responses):
    """[blocks, pairs, hidden] float64: expressing less its counterpart, of one query."""
    seen = client.capture(
        MODEL,
        [(one.prompt, one.response) for one in responses],
        vs.tap("residual_post", "all", "last"),
    )
    rows = np.stack([one[0][:, 0] for one in seen], axis=1).astype(np.float64)
    return rows[:, ::2] - rows[:, 1::2]


def check_repeng_extraction(client, directions):
    """Its methods by their names here. Both read the last token; a sign is a vote over pairs there. Not of the last block, of which
    transformers hands out what is behind the final norm."""
    responses = planted_responses()
    assert all(one.expresses == (place % 2 == 0) for place, one in enumerate(responses))
    differences = last_token_differences(client, responses)
    for method, theirs, centre in [("pca", "pca_center", 0), ("pca_centered", "pca_diff", 1)]:
        made = client.extract_vectors(MODEL, responses, method=method, pooling="last_token")
        rows = client.vector_data(made.vector.name)
        for block in range(pm.BLOCKS - 1):
            data = differences[block] - centre * differences[block].mean(axis=0)
            here, there = rows[block], directions[f"{theirs}.{block}"]
            explained = [np.linalg.norm(data @ v) / np.linalg.norm(data) for v in (here, there)]
            print(
                f"{method} beside repeng's {theirs}, block {block}: 1 - |cosine| {1 - abs(here @ there):.2g}, explained "
                f"{explained[0] ** 2:.7f} and {explained[1] ** 2:.7f}"
            )
            assert abs(here @ there) > 1 - ROUNDING


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llama_cpp", type=pathlib.Path)
    parser.add_argument("--repeng_python")
    options = parser.parse_args()
    tokens = pm.to_ids(pm.prompt_text(f"{pt.QUESTION} kitchen", "")) + pm.to_ids("maybe want rest")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        pm.write_model(folder / "models" / "planted", pm.Builder(0).planted)
        server = Server(folder, f"--model_root={folder / 'models'}", "--models=planted")
        with server.client(MODEL) as client:
            if options.llama_cpp:
                llama_cpp = LlamaCpp(options.llama_cpp.resolve(), folder)
                check_llama_cpp(client, llama_cpp, folder, tokens)
            if options.repeng_python:
                models = folder / "models" / "planted"
                check_repeng(client, options.repeng_python, folder, models, tokens)
        assert server.stop() == 0


if __name__ == "__main__":
    main()
