"""Answers to every question under every condition, and what judges say of them: what the recipes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..client import Client
from ..conditions import Conditions, named_conditions
from ..prompts import chat
from ..tensors import Array

# What one call of a judge takes.
_PART = 2000
_One = TypeVar("_One")

# Texts by condition, question and sample.
Answers = dict[str, list[list[str]]]


def answer(
    client: Client,
    model: str,
    questions: Sequence[str],
    conditions: Conditions,
    *,
    samples: int = 1,
    seed: int = 0,
    **sampling: Any,
) -> Answers:
    """Answers every question under every condition. Question i draws with the seed `seed` + i under each of them, so that
    conditions differ by nothing else.

    Args:
        samples: answers a question, 1 .. 64.
        sampling: as `Client.generate` takes it: max_tokens, temperature, ...
    """
    seeds = [seed + place for place in range(len(questions))]
    answers = {}
    for name, condition in named_conditions(conditions).items():
        prompts = [chat(question, condition.system) for question in questions]
        made = client.generate(
            model, prompts, steer=condition.steer, n=samples, seed=seeds, **sampling
        )
        answers[name] = [one.texts for one in made]
    return answers


def judge_each(
    answers: Answers, judge: Callable[[list[tuple[int, str]]], Iterable[float]]
) -> Array:
    """What a judge says of every answer [conditions, questions, samples], float64; NaN where it says nothing.

    Args:
        judge: from pairs (place of the question, answer), at most 2000 and none of them empty, to a number each.
    """
    listed = list(answers.values())
    verdicts = np.full((len(listed), len(listed[0]), len(listed[0][0])), np.nan)
    # Nobody is asked about nothing: an empty answer has no number.
    said = [place for place in np.ndindex(verdicts.shape) if _at(listed, place).strip()]
    for start in range(0, len(said), _PART):
        part = said[start : start + _PART]
        found = judge([(place[1], _at(listed, place)) for place in part])
        for place, verdict in zip(part, found, strict=True):
            verdicts[place] = verdict
    return verdicts


def _at(texts: list[list[list[str]]], place: tuple[int, ...]) -> str:
    condition, question, sample = place
    return texts[condition][question][sample]


def mean_of_said(verdicts: Array) -> Array:
    """Means over the last axis, of what is not NaN; NaN where all is."""
    said = ~np.isnan(verdicts)
    sums = np.where(said, verdicts, 0.0).sum(axis=-1)
    counts = said.sum(axis=-1)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def wilson_intervals(shares: Array, trials: Array | int) -> Array:
    """Wilson's 95 % intervals [..., 2] of shares [...] of so many trials; NaN without trials.

    Where a trial is itself a share, as that of several samples, the interval is too wide rather than too narrow: such trials
    vary less than those that succeed or fail.
    """
    z = 1.959963984540054
    trials = np.where(np.asarray(trials) > 0, trials, np.nan)
    middle = (shares + z * z / (2 * trials)) / (1 + z * z / trials)
    half = np.sqrt(shares * (1 - shares) / trials + (z / (2 * trials)) ** 2) * z
    half /= 1 + z * z / trials
    return np.stack([middle - half, middle + half], axis=-1)
