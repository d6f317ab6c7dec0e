"""A Llama's forward pass in numpy, float64 over the stored weights: short enough to be read as a definition.

It is the second opinion that planted models are held against, and what their builder computes effects with. `edits` are the
changes that mechanisms are tested by: adding to the residual stream behind a block, scaling neurons, and setting them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
    """The fields of config.json that the arithmetic needs."""

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float


@dataclasses.dataclass(frozen=True)
class Edits:
    """Changes during the forward pass.

    add: block -> (vector [hidden], first position that gets it).
    scale: (block, neuron) -> factor on the neuron's activation, at every position.
    put: (block, neuron) -> (what takes the activation's place, first position where it does).
    """

    add: Mapping[int, tuple[np.ndarray, int]] = dataclasses.field(default_factory=dict)
    scale: Mapping[tuple[int, int], float] = dataclasses.field(default_factory=dict)
    put: Mapping[tuple[int, int], tuple[float, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """What one sequence was: residual_post [layers, tokens, hidden], mlp_neurons [layers, tokens, intermediate] (after the
    edits), logits [tokens, vocabulary]."""

    residual_post: np.ndarray
    mlp_neurons: np.ndarray
    logits: np.ndarray


def silu(x):
    return x / (1.0 + np.exp(-x))


class Llama:
    """`weights` by their names in model.safetensors."""

    def __init__(self, shape: Shape, weights: Mapping[str, np.ndarray]) -> None:
        self.shape = shape
        self._weights = {name: weight.astype(np.float64) for name, weight in weights.items()}

    def run(self, ids: list[int], edits: Edits | None = None) -> Run:
        edits = edits or Edits()
        x = self._weights["model.embed_tokens.weight"][ids]
        residual, neurons = [], []
        for block in range(self.shape.num_hidden_layers):
            x = x + self._attention(block, self._norm(f"model.layers.{block}.input_layernorm", x))
            active = self._activations(
                block, self._norm(f"model.layers.{block}.post_attention_layernorm", x)
            )
            for (layer, neuron), factor in edits.scale.items():
                if layer == block:
                    active[:, neuron] *= factor
            for (layer, neuron), (value, first) in edits.put.items():
                if layer == block:
                    active[first:, neuron] = value
            x = x + active @ self._of_block(block, "mlp.down_proj").T
            if block in edits.add:
                vector, first = edits.add[block]
                x[first:] += vector
            residual.append(x)
            neurons.append(active)
            x = x.copy()
        logits = self._norm("model.norm", x) @ self._weights["lm_head.weight"].T
        return Run(np.stack(residual), np.stack(neurons), logits)

    def write_directions(self, block: int) -> np.ndarray:
        """[intermediate, hidden]: what each neuron adds to the residual stream for an activation of 1."""
        return self._of_block(block, "mlp.down_proj").T

    def _of_block(self, block, name):
        return self._weights[f"model.layers.{block}.{name}.weight"]

    def _norm(self, name, x):
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.shape.rms_norm_eps)
        return x / scale * self._weights[f"{name}.weight"]

    def _activations(self, block, x):
        gate = x @ self._of_block(block, "mlp.gate_proj").T
        return silu(gate) * (x @ self._of_block(block, "mlp.up_proj").T)

    def _attention(self, block, x):
        tokens, width = len(x), self.shape.head_dim
        parts = {
            name: (x @ self._of_block(block, f"self_attn.{name}_proj").T).reshape(tokens, -1, width)
            for name in "qkv"
        }
        queries, keys = self._rotated(parts["q"]), self._rotated(parts["k"])
        group = self.shape.num_attention_heads // self.shape.num_key_value_heads
        future = np.triu(np.full((tokens, tokens), -np.inf), 1)
        heads = []
        for head in range(self.shape.num_attention_heads):
            scores = queries[:, head] @ keys[:, head // group].T / np.sqrt(width) + future
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            heads.append(shares @ parts["v"][:, head // group])
        return np.concatenate(heads, -1) @ self._of_block(block, "self_attn.o_proj").T

    def _rotated(self, x):
        """Rotary position embedding of x [tokens, heads, head_dim]; element i turns with i + head_dim / 2."""
        half = self.shape.head_dim // 2
        frequencies = self.shape.rope_theta ** (-np.arange(half) / half)
        angles = np.arange(len(x))[:, None, None] * frequencies
        first, second = x[..., :half], x[..., half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
