"""What a job generates under conditions, for other work to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import given, v1
from .generated import Judge
from .questionnaires import Conditions, to_conditions
from .sampling import to_sampling


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
