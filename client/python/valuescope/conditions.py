"""Conditions that a model is run under, and what a job generates under them for other work to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from . import given, v1
from .generated import Judge
from .prompts import Steering, to_interventions
from .sampling import to_sampling


@dataclasses.dataclass(frozen=True)
class EvaluationCondition:
    """A way to run a model while it is evaluated.

    Attributes:
        system: the system message; None: there is none, which is not the same as an empty one.
        steer: edits, as `Client.generate` takes them.
    """

    system: str | None = None
    steer: Steering = None


Conditions: TypeAlias = (
    "Mapping[str, EvaluationCondition | Steering] | Iterable[EvaluationCondition | Steering] | None"
)


def named_conditions(conditions: Conditions) -> dict[str, EvaluationCondition]:
    """Conditions by name, those of a list by their numbers; edits alone stand for one without a system message, None for one
    with nothing, and None altogether for that one alone."""
    if conditions is None:
        conditions = [None]
    if not isinstance(conditions, Mapping):
        listed = given.items(conditions, "conditions")
        conditions = {str(number): one for number, one in enumerate(listed)}
    return {
        name: one if isinstance(one, EvaluationCondition) else EvaluationCondition(steer=one)
        for name, one in conditions.items()
    }


def to_conditions(conditions: Conditions) -> list[v1.EvaluationCondition]:
    """The same as messages, those of a list without names, as the server counts them too; of None altogether none, for which it
    takes one."""
    if conditions is None:
        return []
    named = isinstance(conditions, Mapping)
    messages = []
    for name, one in named_conditions(conditions).items():
        message = v1.EvaluationCondition(
            name=name if named else "", interventions=to_interventions(one.steer)
        )
        if one.system is not None:
            message.system_message = one.system
        messages.append(message)
    return messages


def generation_spec(
    model: str,
    queries: str | Iterable[str],
    conditions: Conditions = None,
    *,
    judge: Judge | None = None,
    samples_per_query: int | None = None,
    **sampling: Any,
) -> v1.GenerateResponsesSpec:
    """What `Client.generate_responses` has a job do.

    Args:
        model: "models/ID".
        queries: what is asked, one or several, or the name of an artifact that holds them ("artifacts/ID", JSON Lines of
            `LabelledResponse`, of which prompt.text and query_id are used).
        conditions: `EvaluationCondition`s or edits by name, or a list of them; default one with an empty system message.
        judge: a `WordList` or a `Rubric` that labels the responses; None leaves them without labels.
        samples_per_query: responses a query and condition, 1 .. 64. Default 1.
        sampling: fields of `SamplingParams`, as `Client.generate` takes them: max_tokens, temperature, seed (default 0), ...
    """
    spec = v1.GenerateResponsesSpec(
        model=model, conditions=to_conditions(conditions), sampling=to_sampling(**sampling)
    )
    if isinstance(queries, str) and queries.startswith("artifacts/"):
        spec.queries_artifact = queries
    else:
        spec.queries.extend(given.strings(queries, "queries"))
    if judge is not None:
        spec.judge.CopyFrom(judge if isinstance(judge, v1.Judge) else judge.to_message())
    if samples_per_query is not None:
        spec.samples_per_query = given.whole(samples_per_query, "samples_per_query")
    return spec
