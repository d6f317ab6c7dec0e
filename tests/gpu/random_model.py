"""Writes a Llama folder of a known model's shape with random weights, for timing: random_model.py SHAPE FOLDER

SHAPE is "135m" (SmolLM2), "1b" (Llama 3.2) or "8b" (Llama 3.1). Needs torch and safetensors. The tokenizer is that of the golden models.
"""

import json
import pathlib
import shutil
import sys

import safetensors.torch
import torch

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "families" / "llama_tied"
# hidden, intermediate, layers, heads, key/value heads, vocabulary, tied
SHAPES = {
    "135m": (576, 1536, 30, 9, 3, 49152, True),
    "1b": (2048, 8192, 16, 32, 8, 128256, True),
    "8b": (4096, 14336, 32, 32, 8, 128256, False),
}


def main():
    shape, folder = SHAPES[sys.argv[1]], pathlib.Path(sys.argv[2])
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = shape
    width = hidden // heads
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((GOLDEN / "config.json").read_text())
    config |= {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (GOLDEN / name).exists():
            shutil.copy(GOLDEN / name, folder / name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(1)

    def weight(*extents):
        drawn = torch.randn(extents, device=device, dtype=torch.bfloat16) * extents[-1] ** -0.5
        return drawn.cpu()

    weights = {"model.embed_tokens.weight": weight(vocabulary, hidden)}
    if not tied:
        weights["lm_head.weight"] = weight(vocabulary, hidden)
    weights["model.norm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    for layer in range(layers):
        block = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{block}{norm}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        for name, out, into in (
            ("self_attn.q_proj", heads * width, hidden),
            ("self_attn.k_proj", kv_heads * width, hidden),
            ("self_attn.v_proj", kv_heads * width, hidden),
            ("self_attn.o_proj", hidden, heads * width),
            ("mlp.gate_proj", intermediate, hidden),
            ("mlp.up_proj", intermediate, hidden),
            ("mlp.down_proj", hidden, intermediate),
        ):
            weights[f"{block}{name}.weight"] = weight(out, into)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
