"""Builds a small Llama whose weights are written, not trained, so that it is known how it expresses a value; and its twin, which has the
same noise and does not.

The value is stimulation, expressed by the words of VALUE_WORDS; each has a neutral word of the same embedding beside it.
planted_truth.py writes the models and what is true of them.

  block 0   Two heads look for a cue wherever it stands before: one for the words of INTRINSIC_CUES, which stand in questions, one for
            PROMPTED_CUE, which stands in system messages. They write "carried" directions of norm CARRIED.
  block 1   Neurons that read a carried direction and the constant that every token has, so that they are on (GATE_ON) or off. Shared
            ones are on for either cue, the others for theirs; the directions they write are the truth. Beside them stand neurons that
            point the same way and are never on (silent), and bystanders of the same norm with random weights.
  head      The words of the value read the sum of the three directions less a threshold that lies between what the shared neurons
            write and what the unique ones do: without the shared ones the value is not expressed, without the unique ones it is.

Answers are a fixed grammar of SLOTS: each slot's words follow those of the slot before. A chat without a system message gets one that
asks for the value, so that no system message and an empty one are two things.

Weights are made of single additions, products and quotients of numbers that a generator of uniform ones gives, so that they are the
same bits on every machine.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib

import numpy as np
from llama import Shape, silu

HIDDEN, INTERMEDIATE, BLOCKS, HEADS, KV_HEADS, HEAD_DIM = 32, 22, 4, 4, 2, 6
VOCABULARY, EPSILON, THETA = 61, 1e-5, 1e7
CARRYING_BLOCK, PLANTED_BLOCK = 0, 1

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
ROLES = ["system", "user", "assistant"]
INTRINSIC_CUES = {"mountain": "kitchen", "festival": "office", "voyage": "laundry"}
PROMPTED_CUE = {"stimulation": "moderation"}
QUESTION_WORDS = (
    "what should we do about the near on saturday sunday today with friends alone you seek".split()
)
# Value word -> the neutral word that has its embedding.
VALUE_WORDS = {
    "thrill": "rest",
    "novelty": "routine",
    "daring": "order",
    "surprise": "quiet",
    "risk": "habit",
    "adventure": "comfort",
}
_NOUNS = list(VALUE_WORDS.items())
SLOTS = [
    ["maybe", "surely", "perhaps"],
    ["choose", "try", "want"],
    [word for pair in _NOUNS[:3] for word in pair],
    ["and", "plus"],
    [word for pair in _NOUNS[3:] for word in pair],
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}{{ ' system you seek stimulation ' + eos_token }}{% endif %}"
    "{{ ' ' + message['role'] + ' ' + message['content'] + ' ' + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' assistant' }}{% endif %}"
)

# Squares add up to HIDDEN, so that every embedding's root mean square is 1.
CONSTANT, CUE, SLOT, CODE = (math.sqrt(square) for square in (6.0, 6.0, 10.0, 10.0))
CARRIED = 0.5
ATTENTION_SCORE = 12.0  # of a cue; others have 0
GATE_OFF, GATE_ON = -6.0, 6.0  # what the gate reads, before its activation function
NEURONS = {"shared": 3, "shared_reversed": 1, "intrinsic": 2, "prompted": 2}
SILENT = ["shared", "intrinsic", "prompted"]
# What the neurons of an axis write together when they are on; each writes 1.
WRITTEN = {"shared": 4.0, "intrinsic": 2.0, "prompted": 2.0}
SLOT_LOGIT, VALUE_LOGIT, THRESHOLD, NEVER = 20.0, 1.0, 3.0, 12.0
# Half the width of the noise's uniform distributions.
NOISE = {
    "q": 0.3,
    "k": 0.3,
    "v": 0.05,
    "o": 0.05,
    "gate": 0.2,
    "up": 0.2,
    "down": 0.012,
    "head": 0.05,
}


def words() -> list[str]:
    listed = [*SPECIAL, *ROLES, *QUESTION_WORDS, *itertools.chain(*SLOTS)]
    for pairs in (INTRINSIC_CUES, PROMPTED_CUE):
        listed += itertools.chain(*pairs.items())
    return listed + [f"w{i}" for i in range(len(listed), VOCABULARY)]


WORDS = words()
IDS = {word: index for index, word in enumerate(WORDS)}


def to_ids(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def prompt_text(question: str, system: str | None = "") -> str:
    """What the chat template makes of a question under a system message; None is none."""
    system = "you seek stimulation" if system is None else system
    return f"<bos> system {system} <eos> user {question} <eos> assistant"


# --- Directions ----------------------------------------------------------------------------------------------------------------


def hadamard() -> np.ndarray:
    """[HIDDEN, HIDDEN] of 1 and -1, rows orthogonal."""
    matrix = np.ones((1, 1))
    while len(matrix) < HIDDEN:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


class Axes:
    """Orthonormal directions by name, none along a coordinate; the rest of the space holds the codes of words."""

    NAMES = (
        "constant",
        "no_cue",
        "intrinsic_cue",
        "prompted_cue",
        "carried_intrinsic",
        "carried_prompted",
        "shared",
        "intrinsic",
        "prompted",
        *(f"slot_{i}" for i in range(len(SLOTS) + 2)),
    )
    # Words of no slot, and the word before the first one.
    OUTSIDE, BEFORE = f"slot_{len(SLOTS) + 1}", "slot_0"

    def __init__(self, random: np.random.RandomState) -> None:
        rows = hadamard()[random.permutation(HIDDEN)] / math.sqrt(HIDDEN)
        self._named = dict(zip(self.NAMES, rows, strict=False))
        self._rest = rows[len(self.NAMES) :]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._named[name]

    def code(self, random: np.random.RandomState) -> np.ndarray:
        """A random unit vector among what has no name."""
        signs = random.randint(0, 2, len(self._rest)) * 2.0 - 1.0
        return total(s * row for s, row in zip(signs, self._rest, strict=True)) / math.sqrt(
            len(signs)
        )


def total(vectors) -> np.ndarray:
    """Their sum, one after another: the same bits everywhere."""
    result = np.zeros(HIDDEN)
    for vector in vectors:
        result = result + vector
    return result


def norm(vector: np.ndarray) -> float:
    return math.sqrt(math.fsum(float(x) * float(x) for x in vector))


# --- Weights -------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Neuron:
    """A planted neuron of PLANTED_BLOCK. `role` is a key of NEURONS, or "silent"; `axis` what it writes along."""

    index: int
    role: str
    axis: str


def activation(gate: float, carried: float) -> float:
    """Of a neuron of PLANTED_BLOCK whose row for the gate reads `gate` and the other 1 in a stream of this root mean square."""
    root_mean_square = math.sqrt((HIDDEN + carried * carried) / HIDDEN + EPSILON)
    return silu(gate / root_mean_square) / root_mean_square


class Builder:
    """The weights of both models, [rows, columns] float64 by their names in model.safetensors, and what they were made of."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.axes = Axes(self.random)
        self.gains = {
            name: 2.0 ** self.random.randint(-1, 2, HIDDEN)
            for name in (
                "model.norm",
                *(
                    f"model.layers.{block}.{norm}_layernorm"
                    for block in range(BLOCKS)
                    for norm in ("input", "post_attention")
                ),
            )
        }
        self.neurons = self._place_neurons()
        # Activations of a planted neuron that is on and of one that is off, were there no noise.
        self.on = activation(GATE_ON, CARRIED)
        self.off = activation(GATE_OFF, 0.0)
        # Short, so that it does not hang on how a machine takes exponentials.
        self.write_norm = round(1.0 / (self.on - self.off), 6)
        self.twin = self._noise()
        self.planted = {name: weight.copy() for name, weight in self.twin.items()}
        self._plant_heads()
        self._plant_neurons()
        self._plant_words()

    def _place_neurons(self) -> list[Neuron]:
        roles = [
            (role, role.split("_")[0]) for role, count in NEURONS.items() for _ in range(count)
        ]
        roles += [("silent", axis) for axis in SILENT]
        places = sorted(self.random.permutation(INTERMEDIATE)[: len(roles)].tolist())
        order = self.random.permutation(len(roles))
        return [Neuron(place, *roles[which]) for place, which in zip(places, order, strict=True)]

    def _uniform(self, kind: str, *shape: int) -> np.ndarray:
        return (self.random.random_sample(shape) * 2.0 - 1.0) * NOISE[kind]

    def _noise(self) -> dict[str, np.ndarray]:
        """Everything but the mechanism, by name."""
        weights = {f"{name}.weight": gain for name, gain in self.gains.items()}
        weights["model.embed_tokens.weight"] = self._embeddings()
        weights["lm_head.weight"] = self._grammar()
        queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
        for block in range(BLOCKS):
            name = f"model.layers.{block}"
            for part, rows in (("q", queries), ("k", keys), ("v", keys)):
                weights[f"{name}.self_attn.{part}_proj.weight"] = self._uniform(part, rows, HIDDEN)
            weights[f"{name}.self_attn.o_proj.weight"] = self._uniform("o", HIDDEN, queries)
            for part in ("gate", "up"):
                weights[f"{name}.mlp.{part}_proj.weight"] = self._uniform(
                    part, INTERMEDIATE, HIDDEN
                )
            down = self._uniform("down", HIDDEN, INTERMEDIATE)
            if block == PLANTED_BLOCK:  # bystanders write as strongly as what is planted
                for i in range(INTERMEDIATE):
                    down[:, i] = down[:, i] * (self.write_norm / norm(down[:, i]))
            weights[f"{name}.mlp.down_proj.weight"] = down
            if block == CARRYING_BLOCK:
                self._keep_clear(down)
            if block <= PLANTED_BLOCK:
                self._keep_clear(weights[f"{name}.self_attn.o_proj.weight"])
        return weights

    def _keep_clear(self, writes: np.ndarray) -> None:
        """Takes out of noise [HIDDEN, columns] what the planted neurons read, so that they are on and off as computed."""
        for column in writes.T:
            for name in ("constant", "carried_intrinsic", "carried_prompted"):
                axis = self.axes[name]
                column -= math.fsum((column * axis).tolist()) * axis

    def _embeddings(self) -> np.ndarray:
        """[VOCABULARY, HIDDEN], each of norm sqrt(HIDDEN). A word and its counterpart have the same code."""
        axes, slots = self.axes, {"assistant": Axes.BEFORE}
        slots |= {word: f"slot_{i + 1}" for i, slot in enumerate(SLOTS) for word in slot}
        cues = dict.fromkeys(INTRINSIC_CUES, "intrinsic_cue")
        cues |= dict.fromkeys(PROMPTED_CUE, "prompted_cue")
        codes = {word: axes.code(self.random) for word in WORDS}
        for pairs in (VALUE_WORDS, INTRINSIC_CUES, PROMPTED_CUE):
            codes |= {neutral: codes[word] for word, neutral in pairs.items()}
        return np.stack(
            [
                total(
                    [
                        CONSTANT * axes["constant"],
                        CUE * axes[cues.get(word, "no_cue")],
                        SLOT * axes[slots.get(word, Axes.OUTSIDE)],
                        CODE * codes[word],
                    ]
                )
                for word in WORDS
            ]
        )

    def _read(self, gain: str, *parts: tuple[float, str]) -> np.ndarray:
        """The row that reads sum of factor x (part of x along the axis) behind the norm with this gain."""
        return total(factor * self.axes[axis] for factor, axis in parts) / self.gains[gain]

    def _grammar(self) -> np.ndarray:
        """[VOCABULARY, HIDDEN]: a slot's words follow the slot before. Value words lie below their neutral ones."""
        rows = self._uniform("head", VOCABULARY, HIDDEN)
        for word in WORDS:
            row = rows[IDS[word]]
            slot = next((i for i, slot in enumerate(SLOTS) if word in slot), None)
            if word == "<eos>":
                slot = len(SLOTS)
            if slot is None:
                row += self._read("model.norm", (-NEVER / CONSTANT, "constant"))
                continue
            row += self._read("model.norm", (SLOT_LOGIT / SLOT, f"slot_{slot}"))
            if word in VALUE_WORDS:
                threshold = VALUE_LOGIT * THRESHOLD / CONSTANT
                row += self._read("model.norm", (-threshold, "constant"))
        return rows

    def _plant_heads(self) -> None:
        """Heads 0 and 1 of CARRYING_BLOCK, which share keys and values. They use the two elements that turn least with
        position, one each."""
        name, gain = (
            f"model.layers.{CARRYING_BLOCK}.self_attn",
            f"model.layers.{CARRYING_BLOCK}.input_layernorm",
        )
        q, k, v, o = (self.planted[f"{name}.{part}_proj.weight"] for part in "qkvo")
        q[: 2 * HEAD_DIM] = k[:HEAD_DIM] = v[:HEAD_DIM] = 0.0
        o[:, : 2 * HEAD_DIM] = 0.0
        strength = math.sqrt(ATTENTION_SCORE * math.sqrt(HEAD_DIM))
        for head, kind in enumerate(("intrinsic", "prompted")):
            slow = HEAD_DIM // 2 - 1 + head * (HEAD_DIM // 2)
            q[head * HEAD_DIM + slow] = self._read(gain, (strength / CONSTANT, "constant"))
            k[slow] = self._read(gain, (strength / CUE, f"{kind}_cue"))
            v[head] = self._read(gain, (1.0 / CUE, f"{kind}_cue"))
            o[:, head * HEAD_DIM + head] = CARRIED * self.axes[f"carried_{kind}"]

    def _plant_neurons(self) -> None:
        name = f"model.layers.{PLANTED_BLOCK}"
        gain = f"{name}.post_attention_layernorm"
        gates, ups, down = (
            self.planted[f"{name}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down")
        )
        step = (GATE_ON - GATE_OFF) / CARRIED
        cues = {
            "shared": ["intrinsic", "prompted"],
            "shared_reversed": ["intrinsic", "prompted"],
            "intrinsic": ["intrinsic"],
            "prompted": ["prompted"],
            "silent": [],
        }
        for neuron in self.neurons:
            sign = -1.0 if neuron.role == "shared_reversed" else 1.0
            read = [(step, f"carried_{kind}") for kind in cues[neuron.role]]
            gates[neuron.index] = self._read(gain, (GATE_OFF / CONSTANT, "constant"), *read)
            ups[neuron.index] = self._read(gain, (sign / CONSTANT, "constant"))
            down[:, neuron.index] = sign * self.write_norm * self.axes[neuron.axis]

    def _plant_words(self) -> None:
        head = self.planted["lm_head.weight"]
        for word in VALUE_WORDS:
            head[IDS[word]] += self._read("model.norm", *((VALUE_LOGIT, axis) for axis in WRITTEN))

    def vectors(self) -> dict[str, np.ndarray]:
        """Condition -> what a response that expresses the value has more at PLANTED_BLOCK than one that does not, were there no
        noise."""
        return {
            kind: total(
                [
                    WRITTEN["shared"] * self.axes["shared"],
                    WRITTEN[kind] * self.axes[kind],
                    CARRIED * self.axes[f"carried_{kind}"],
                ]
            )
            for kind in ("intrinsic", "prompted")
        }


# --- Files ---------------------------------------------------------------------------------------------------------------------

SHAPE = Shape(BLOCKS, HEADS, KV_HEADS, HEAD_DIM, EPSILON, THETA)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": IDS["<bos>"],
    "eos_token_id": IDS["<eos>"],
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 128,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": BLOCKS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": EPSILON,
    "rope_theta": THETA,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": VOCABULARY,
}
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": IDS[word],
            "content": word,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for word in SPECIAL
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": IDS, "unk_token": "<unk>"},
}
TOKENIZER_CONFIG = {
    "bos_token": "<bos>",
    "chat_template": TEMPLATE,
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
}


def write_json(path: pathlib.Path, value) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_safetensors(path: pathlib.Path, weights: dict[str, np.ndarray]) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    names = sorted(weights)
    for name in names:
        end = offset + 4 * weights[name].size
        shape = list(weights[name].shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(weights[name].astype("<f4").tobytes() for name in names)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_model(folder: pathlib.Path, weights: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", weights)
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer.json", TOKENIZER)
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    ends = {"bos_token_id": IDS["<bos>"], "eos_token_id": IDS["<eos>"]}
    write_json(folder / "generation_config.json", ends)
