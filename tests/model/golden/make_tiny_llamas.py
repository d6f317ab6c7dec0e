"""Makes tiny Llamas of random weights and what transformers says of them, for the tests of the model room.

    python make_tiny_llamas.py

Run once with torch 2.11.0, transformers 5.17.0 and safetensors on a CPU in float32; the tests need none of them.
Every folder holds config.json, its weights, and expected.safetensors: the token ids, greedy_ids, and the value at
every site of every block, one row a token.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
NUM_TOKENS, NUM_GREEDY = 37, 16

# The sizes share no factor by accident: a swapped axis or a wrong stride cannot go unnoticed.
MODELS = {
    # Explicit head_dim, groups of three query heads, untied, the layout of nearly all published folders.
    "grouped": {
        "hidden_size": 18,
        "intermediate_size": 28,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "vocab_size": 97,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    },
    # head_dim left out, every head its own keys, tied, in two shards, the newer layout.
    "tied_sharded": {
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 61,
        "max_position_embeddings": 96,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
}


def record(model):
    """Hooks that fill a dictionary site name -> [num_tokens, width]."""
    seen = {}

    def output(name):
        def hook(_module, _inputs, out):
            seen[name] = (out[0] if isinstance(out, tuple) else out)[0].clone()

        return hook

    def value_in(name):
        def hook(_module, inputs):
            seen[name] = inputs[0][0].clone()

        return hook

    model.model.embed_tokens.register_forward_hook(output("EMBEDDING"))
    model.model.norm.register_forward_hook(output("FINAL_NORM"))
    model.lm_head.register_forward_hook(output("LOGITS"))
    for i, block in enumerate(model.model.layers):
        block.register_forward_hook(output(f"RESIDUAL_POST.{i}"))
        block.post_attention_layernorm.register_forward_pre_hook(value_in(f"RESIDUAL_MID.{i}"))
        block.self_attn.o_proj.register_forward_pre_hook(value_in(f"ATTENTION_HEADS.{i}"))
        block.self_attn.register_forward_hook(output(f"ATTENTION_OUTPUT.{i}"))
        block.mlp.down_proj.register_forward_pre_hook(value_in(f"MLP_NEURONS.{i}"))
        block.mlp.register_forward_hook(output(f"MLP_OUTPUT.{i}"))
    return seen


@torch.no_grad()
def make(name, settings, seed):
    generator = torch.Generator().manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**settings, attn_implementation="eager")).float().eval()
    for key, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        # Wide enough that attention is far from uniform and the activation far from linear.
        weight.copy_(1 + 0.3 * noise if "norm" in key else noise * 1.5 / weight.shape[-1] ** 0.5)
    seen = record(model)
    ids = torch.randint(0, settings["vocab_size"], (NUM_TOKENS,), generator=generator)
    model(ids[None])
    expected = {key: value.contiguous() for key, value in seen.items()}
    expected["ids"] = ids
    continued = ids.tolist()
    for _ in range(NUM_GREEDY):
        continued.append(int(model(torch.tensor([continued])).logits[0, -1].argmax()))
    expected["greedy_ids"] = torch.tensor(continued[NUM_TOKENS:])

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        **settings,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    weights = {
        k: w.detach().contiguous()
        for k, w in model.named_parameters()
        if k != "lm_head.weight" or not settings["tie_word_embeddings"]
    }
    if "sharded" in name:
        names = sorted(weights)
        half = len(names) // 2
        shards = {
            "model-00001-of-00002.safetensors": names[:half],
            "model-00002-of-00002.safetensors": names[half:],
        }
        for file, keys in shards.items():
            save_file({k: weights[k] for k in keys}, folder / file)
        index = {
            "metadata": {},
            "weight_map": {k: file for file, keys in shards.items() for k in keys},
        }
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=1, sort_keys=True) + "\n"
        )
    else:
        save_file(weights, folder / "model.safetensors")
    save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    for seed, (name, settings) in enumerate(MODELS.items(), start=20):
        make(name, settings, seed)
