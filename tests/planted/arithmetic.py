"""What studies of a planted model come to, from its weights alone: each by its definition in the contract, example by example."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import planted_model as pm
import planted_truth as pt
from llama import Edits, Llama


class Study:
    """The examples of a condition, as a model reads them."""

    def __init__(self, model: Llama, condition: str) -> None:
        self._model = model
        listed = [(*one.sequence(), one.expresses) for one in pt.examples(condition)]
        self._expressing = [(ids, start) for ids, start, expresses in listed if expresses]
        self._others = [(ids, start) for ids, start, expresses in listed if not expresses]

    def targets(self, put: Mapping[int, float] | None = None) -> np.ndarray:
        """[expressing]: TARGET, with these activations in the place of neurons' behind the first token."""
        at = {(pm.PLANTED_BLOCK, neuron): (value, 1) for neuron, value in (put or {}).items()}
        runs = (
            (self._model.run(ids[:start], Edits(put=at)), start) for ids, start in self._expressing
        )
        return np.array([pt.target_of(run.logits[start - 1]) for run, start in runs])

    def means(self) -> np.ndarray:
        """[intermediate]: the mean over the other examples of the mean over all but their first token."""
        runs = [self._model.run(ids) for ids, _ in self._others]
        return np.mean([run.mlp_neurons[pm.PLANTED_BLOCK, 1:].mean(0) for run in runs], 0)

    def written(self, neurons: Sequence[int], axis: np.ndarray) -> float:
        """What the neurons add along `axis`: the mean over expressing examples of that over their responses."""
        along = self._model.write_directions(pm.PLANTED_BLOCK)[neurons] @ axis
        active, _ = self._means(self._expressing)
        return float(active[pm.PLANTED_BLOCK, neurons] @ along)

    def contributions(self) -> np.ndarray:
        """[blocks, intermediate]: by how much more each neuron writes where the value is expressed, along the difference in means v
        of the planted block, as a share of |v|^2."""
        (more, residual), (less, others) = map(self._means, (self._expressing, self._others))
        row = (residual - others)[pm.PLANTED_BLOCK]
        along = [self._model.write_directions(block) @ row for block in range(pm.BLOCKS)]
        return (more - less) * along / (row @ row)

    def _means(self, listed: list[tuple[list[int], int]]) -> tuple[np.ndarray, np.ndarray]:
        """Over examples, of means over their responses: activations [blocks, intermediate] and streams [blocks, hidden]."""
        runs = [(self._model.run(ids), start) for ids, start in listed]
        return tuple(
            np.mean([values(run)[:, start:].mean(1) for run, start in runs], 0)
            for values in (lambda run: run.mlp_neurons, lambda run: run.residual_post)
        )


def streams(model: Llama, listed: Iterable[tuple[list[int], int]]) -> np.ndarray:
    """[responses, blocks, hidden]: the stream behind each block, the mean over a response, which begins at a place in its ids."""
    return np.stack([model.run(ids).residual_post[:, start:].mean(1) for ids, start in listed])


def standard_error(rows: np.ndarray) -> float:
    """How long the error of the mean of rows [n, hidden] is, in quadratic mean."""
    return math.sqrt(rows.var(0, ddof=1).sum() / len(rows))


def turned_by(error: float, length: float) -> float:
    """The angle by which twice the error turns a vector of this length at most."""
    return math.asin(2 * error / length)


def logprobs(
    model: Llama, prompt: list[int], response: Sequence[int], without: Iterable[int]
) -> np.ndarray:
    """[response, vocabulary], natural, without neurons from the last token of the prompt on."""
    put = {(pm.PLANTED_BLOCK, neuron): (0.0, len(prompt) - 1) for neuron in without}
    logits = model.run([*prompt, *response], Edits(put=put)).logits[len(prompt) - 1 : -1]
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
