"""What is true of a planted model and its twin, from their construction and from llama.py.

    python planted_truth.py FOLDER [SEED]

makes FOLDER/planted and FOLDER/planted_twin, each as Hugging Face publishes models, and FOLDER/truth.json:

  directions      unit directions of the residual stream that the mechanism writes
  vectors         by condition: difference in means behind planted_block, were there no noise
  decomposition   of these two
  neurons         of planted_block: role, axis, activations on and off, share of |v|^2 that each writes by condition
  measured        by model, condition and block, of the examples: cosine with the vectors, and norm relative to theirs
  effects         by condition, of TARGET: its value, the same with neurons ablated, neuron by neuron the effect of ablation, gradient x
                  activation and integrated gradients, and what the model answers

TARGET is the mean logit of the value words minus that of the neutral ones at the last token of the prompt. Numbers have nine digits.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import sys

import numpy as np
import planted_model as pm
from llama import Edits, Llama

# How near the planted vectors those of the examples must be, in every block from the planted one on; and what the twin's may have
# of the planted ones' norm there.
COSINE = 0.999
TWIN_LEVEL = 0.01
NUM_PAIRS = 24
# Of the midpoint rule, all neurons of the block on one path; it takes time, so only where the mechanism works.
INTEGRATION_STEPS = 16
INTEGRATED = ["intrinsic", "prompted"]
STEERING = [-2.0, -1.0, 0.5, 1.0, 2.0]
QUESTION = "what should we do on saturday near the"
CONDITIONS = {
    "none": ("", "kitchen"),
    "intrinsic": ("", "mountain"),
    "prompted": ("you seek stimulation", "kitchen"),
    "both": ("you seek stimulation", "mountain"),
}
TARGET = "mean logit of value words - mean logit of neutral words, last token of the prompt"


@dataclasses.dataclass(frozen=True)
class Example:
    """A labelled response. Its label is that of its words: an answer expresses the value or says the neutral words instead."""

    query: str
    system: str
    question: str
    answer: str
    expresses: bool

    def sequence(self) -> tuple[list[int], int]:
        """Token ids of prompt and answer, and the place where the answer begins."""
        prompt = pm.to_ids(pm.prompt_text(self.question, self.system))
        return prompt + pm.to_ids(self.answer), len(prompt)


def examples(condition: str, count: int = NUM_PAIRS, seed: int = 0) -> list[Example]:
    """`count` pairs of one query each. Their prompts differ in the cue and its counterpart (under "intrinsic" in the question, under
    "prompted" in the system message), their answers in value words and neutral ones."""
    random = np.random.RandomState(seed)

    def pick(listed):
        return listed[random.randint(len(listed))]

    ((prompted_cue, prompted_counterpart),) = pm.PROMPTED_CUE.items()
    result = []
    for number in range(count):
        middle = " ".join(pick(pm.QUESTION_WORDS[7:14]) for _ in range(1 + random.randint(4)))
        cue, counterpart = pick(list(pm.INTRINSIC_CUES.items()))
        answer = [pick(slot) for slot in pm.SLOTS]
        for expresses in (True, False):
            if condition == "intrinsic":
                system, last = "", cue if expresses else counterpart
            else:
                system = f"you seek {prompted_cue if expresses else prompted_counterpart}"
                last = counterpart
            result.append(
                Example(
                    query=f"{condition}-{number}",
                    system=system,
                    question=f"what should we do {middle} the {last}",
                    answer=" ".join(as_expressing(word, expresses) for word in answer),
                    expresses=expresses,
                )
            )
    return result


def as_expressing(word: str, expresses: bool) -> str:
    for value, neutral in pm.VALUE_WORDS.items():
        if word in (value, neutral):
            return value if expresses else neutral
    return word


def is_expressing(answer: str) -> bool:
    """The judge of these models: whether a word of the value is in it."""
    return not set(answer.split()).isdisjoint(pm.VALUE_WORDS)


# --- What a model does ---------------------------------------------------------------------------------------------------------


def difference_in_means(model: Llama, listed: list[Example]) -> np.ndarray:
    """[blocks, hidden]: mean over expressing responses of their tokens' mean, minus that over the others."""
    means = {True: [], False: []}
    for example in listed:
        ids, start = example.sequence()
        means[example.expresses].append(model.run(ids).residual_post[:, start:].mean(1))
    return np.mean(means[True], 0) - np.mean(means[False], 0)


def target_of(logits: np.ndarray) -> float:
    """TARGET of logits [vocabulary]."""
    value = [logits[pm.IDS[word]] for word in pm.VALUE_WORDS]
    neutral = [logits[pm.IDS[word]] for word in pm.VALUE_WORDS.values()]
    return float(np.mean(value) - np.mean(neutral))


def answer_of(model: Llama, prompt: list[int], edits: Edits | None = None) -> str:
    """The likeliest answer, word after word, to its end or eight words."""
    ids = list(prompt)
    for _ in range(8):
        word = int(model.run(ids, edits).logits[-1].argmax())
        if pm.WORDS[word] == "<eos>":
            break
        ids.append(word)
    return " ".join(pm.WORDS[i] for i in ids[len(prompt) :])


class Effects:
    """What changes of the planted block's neurons and of its output do to TARGET in one condition."""

    def __init__(self, model: Llama, prompt: list[int]) -> None:
        self._model = model
        self._prompt = prompt

    def target(self, scale: dict[int, float] | None = None, added: np.ndarray | None = None):
        """With neurons' activations scaled everywhere, and `added` at the last token of the prompt."""
        return target_of(self._model.run(self._prompt, self._edits(scale, added)).logits[-1])

    def answer(self, scale: dict[int, float] | None = None, added: np.ndarray | None = None):
        """With `added` from the last token of the prompt on."""
        return answer_of(self._model, self._prompt, self._edits(scale, added))

    def derivative(self, neuron: int, scale: dict[int, float]) -> float:
        """Of TARGET by the factor on a neuron's activation, at `scale`: sum over tokens of activation x gradient."""
        step = 1e-4
        up, down = ({**scale, neuron: scale[neuron] + s} for s in (step, -step))
        return (self.target(up) - self.target(down)) / (2 * step)

    def _edits(self, scale, added) -> Edits:
        block = pm.PLANTED_BLOCK
        return Edits(
            add={} if added is None else {block: (added, len(self._prompt) - 1)},
            scale={(block, neuron): factor for neuron, factor in (scale or {}).items()},
        )


def effects_of(
    model: Llama,
    neurons: list[pm.Neuron],
    vectors: dict[str, np.ndarray],
    integrated: list[str],
) -> dict:
    """By condition, of a model that has these neurons, or of its twin; integrated gradients under some."""
    groups = {"planted": [n.index for n in neurons if n.role != "silent"]}
    for axis in pm.WRITTEN:
        groups[axis] = [n.index for n in neurons if n.axis == axis and n.role != "silent"]
    groups["silent"] = [n.index for n in neurons if n.role == "silent"]
    known = {n.index for n in neurons}
    groups["bystanders"] = [i for i in range(pm.INTERMEDIATE) if i not in known]
    everywhere = range(pm.INTERMEDIATE)
    found = {}
    for condition, (system, word) in CONDITIONS.items():
        one = Effects(model, pm.to_ids(pm.prompt_text(f"{QUESTION} {word}", system)))
        clean = one.target()
        found[condition] = {
            "system": system,
            "question": f"{QUESTION} {word}",
            "target": clean,
            "target_without_block": one.target(dict.fromkeys(everywhere, 0.0)),
            "answer": one.answer(),
            "ablated": {
                group: {
                    "target": one.target(dict.fromkeys(members, 0.0)),
                    "answer": one.answer(dict.fromkeys(members, 0.0)),
                }
                for group, members in groups.items()
            },
            "ablation_effect": [clean - one.target({i: 0.0}) for i in everywhere],
            "gradient_times_activation": [
                one.derivative(i, dict.fromkeys(everywhere, 1.0)) for i in everywhere
            ],
            "steered": {
                kind: [
                    {
                        "coefficient": coefficient,
                        "target": one.target(added=coefficient * vector),
                        "answer": one.answer(added=coefficient * vector),
                    }
                    for coefficient in STEERING
                ]
                for kind, vector in vectors.items()
            },
        }
        if condition in integrated:
            steps = [(k + 0.5) / INTEGRATION_STEPS for k in range(INTEGRATION_STEPS)]
            found[condition]["integrated_gradients"] = [
                math.fsum(one.derivative(i, dict.fromkeys(everywhere, at)) for at in steps)
                / INTEGRATION_STEPS
                for i in everywhere
            ]
    return found


# --- Truth ---------------------------------------------------------------------------------------------------------------------


def decomposition_of(intrinsic: np.ndarray, prompted: np.ndarray) -> dict:
    """The singular value decomposition of [intrinsic, prompted] in closed form; both have one norm here."""
    square, product = float(intrinsic @ intrinsic), float(intrinsic @ prompted)
    assert abs(square - float(prompted @ prompted)) < 1e-12 * square
    both, difference = intrinsic + prompted, intrinsic - prompted
    return {
        "cosine": product / square,
        "singular_values": [math.sqrt(square + product), math.sqrt(square - product)],
        "retained_norm_fraction": math.sqrt(1.0 - (product / square) ** 2),
        "shared": both / np.linalg.norm(both),
        "difference": difference / np.linalg.norm(difference),
    }


def neuron_record(neuron: pm.Neuron, builder: pm.Builder, vectors: dict[str, np.ndarray]) -> dict:
    reversed_sign = -1.0 if neuron.role == "shared_reversed" else 1.0
    direction = reversed_sign * builder.write_norm * builder.axes[neuron.axis]
    change = reversed_sign * (builder.on - builder.off)
    on_under = {
        kind: neuron.role != "silent" and neuron.axis in ("shared", kind) for kind in vectors
    }
    return {
        "layer": pm.PLANTED_BLOCK,
        **dataclasses.asdict(neuron),
        "write_direction": direction,
        "on": reversed_sign * builder.on,
        "off": reversed_sign * builder.off,
        "contribution": {
            kind: change * float(direction @ v) / float(v @ v) if on_under[kind] else 0.0
            for kind, v in vectors.items()
        },
    }


def measure(model: Llama, vectors: dict[str, np.ndarray]) -> dict:
    found = {}
    for kind, expected in vectors.items():
        length = np.linalg.norm(expected)
        rows = difference_in_means(model, examples(kind))
        found[kind] = {
            "cosine": [float(row @ expected / (np.linalg.norm(row) * length)) for row in rows],
            "relative_norm": [float(np.linalg.norm(row) / length) for row in rows],
        }
    return found


def rounded(value):
    """JSON with nine digits: what is left does not hang on the order in which a machine adds."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        digits = float(f"{value:.9g}")
        return 0.0 if abs(digits) < 1e-9 else digits
    return value


def as_stored(weights: dict[str, np.ndarray]) -> Llama:
    stored = {name: weight.astype(np.float32) for name, weight in weights.items()}
    return Llama(pm.SHAPE, stored)


def truth_of(builder: pm.Builder, seed: int) -> dict:
    vectors = builder.vectors()
    planted, twin = as_stored(builder.planted), as_stored(builder.twin)
    measured = {
        "planted": measure(planted, vectors),
        "planted_twin": measure(twin, vectors),
    }
    for kind in vectors:
        for block in range(pm.PLANTED_BLOCK, pm.BLOCKS):
            assert measured["planted"][kind]["cosine"][block] >= COSINE, (kind, block, measured)
            assert measured["planted_twin"][kind]["relative_norm"][block] <= TWIN_LEVEL, measured
    axes = [*pm.WRITTEN, "carried_intrinsic", "carried_prompted"]
    return rounded(
        {
            "seed": seed,
            "value": "stimulation",
            "carrying_block": pm.CARRYING_BLOCK,
            "planted_block": pm.PLANTED_BLOCK,
            "levels": {"cosine": COSINE, "twin": TWIN_LEVEL},
            "words": {"value": list(pm.VALUE_WORDS), "neutral": list(pm.VALUE_WORDS.values())},
            "cues": {"intrinsic": list(pm.INTRINSIC_CUES), "prompted": list(pm.PROMPTED_CUE)},
            "heads": {"intrinsic": 0, "prompted": 1},
            "directions": {axis: builder.axes[axis] for axis in axes},
            "vectors": vectors,
            "decomposition": decomposition_of(**vectors),
            "neurons": [neuron_record(n, builder, vectors) for n in builder.neurons],
            "measured": measured,
            "target": TARGET,
            "effects": {
                "planted": effects_of(planted, builder.neurons, vectors, INTEGRATED),
                "planted_twin": effects_of(twin, builder.neurons, vectors, []),
            },
        }
    )


def build(folder: pathlib.Path, seed: int = 0) -> dict:
    """Writes both models and truth.json, and returns the truth."""
    builder = pm.Builder(seed)
    pm.write_model(folder / "planted", builder.planted)
    pm.write_model(folder / "planted_twin", builder.twin)
    truth = truth_of(builder, seed)
    (folder / "truth.json").write_text(json.dumps(truth, indent=1, sort_keys=True) + "\n")
    return truth


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]), *(int(seed) for seed in sys.argv[2:3]))
