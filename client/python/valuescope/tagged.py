"""Responses that speak for or against values, scored by how likely a model finds them.

responses = [{"query": "How was the trip?", "response": "Thrilling!", "weights": {"ST": 0.8, "SE": -0.3}}, ...]
scored = client.score_tagged_responses(model, responses, conditions={"plain": None, "steered": vs.Steer(...)})
scored.values                                  # numpy [conditions, values]; scored.plot()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import given, html, v1
from .figures import COLOURS, new_axes, optional, shown
from .questionnaires import Conditions, from_summary, to_conditions
from .tensors import Array


def to_tagged(responses: Any) -> list[v1.TaggedResponse]:
    """Tagged responses as messages, or mappings of fields: query, response, id, and weights, a mapping of values to numbers."""
    messages = []
    for place, one in enumerate(given.items(responses, "responses")):
        if isinstance(one, v1.TaggedResponse):
            messages.append(one)
            continue
        if not isinstance(one, Mapping):
            raise TypeError(
                f"item {place} of responses is {given.shown(one)}; it must be a mapping or a "
                "TaggedResponse"
            )
        fields = dict(one)
        weights = fields.pop("weights", {})
        messages.append(
            v1.TaggedResponse(
                weights=[v1.ValueWeight(value=v, weight=w) for v, w in weights.items()], **fields
            )
        )
    return messages


def tagged_request(
    model: str, responses: Any, *, conditions: Conditions = None, **fields: Any
) -> v1.ScoreTaggedResponsesRequest:
    """The request of `Client.score_tagged_responses`, and of a job that does the same.

    Args:
        model: "models/ID".
        responses: mappings of the fields of `TaggedResponse` (query, response, id, weights: {value: weight}), messages, or the
            name of an artifact that holds them, one a line of JSON.
        conditions: `EvaluationCondition`s or edits by name, or a list of them; default one with nothing.
        fields: further fields of `ScoreTaggedResponsesRequest`: templates, min_weight, display_name.
    """
    request = v1.ScoreTaggedResponsesRequest(
        model=model, conditions=to_conditions(conditions), **fields
    )
    if isinstance(responses, str):
        request.artifact = responses
    else:
        request.responses.extend(to_tagged(responses))
    return request


@dataclasses.dataclass(frozen=True, repr=False)
class TaggedScores:
    """How likely a model finds responses that speak for values.

    Attributes:
        response: the whole message (receipts, usage, digests, provenance, warnings).
    """

    response: v1.ScoreTaggedResponsesResponse

    @classmethod
    def from_summary(cls, summary: bytes) -> TaggedScores:
        """Of the artifact "summary" that a job leaves."""
        return cls(from_summary(summary, v1.ScoreTaggedResponsesResponse()))

    @property
    def conditions(self) -> list[str]:
        """Their names."""
        return [result.condition for result in self.response.results]

    @property
    def value_names(self) -> list[str]:
        """In the order in which they first occur."""
        return [value.value for value in self.response.results[0].values]

    @property
    def values(self) -> Array:
        """Scores of the values [conditions, values], float64, nats."""
        return np.array([[value.score for value in r.values] for r in self.response.results])

    @property
    def centred(self) -> Array:
        """The same less the mean over the values [conditions, values]."""
        return np.array([[value.centred for value in r.values] for r in self.response.results])

    @property
    def logprobs(self) -> Array:
        """Of each response [conditions, responses], natural, summed over its tokens."""
        return np.array([[one.logprob for one in r.responses] for r in self.response.results])

    def records(self) -> list[dict[str, Any]]:
        """One row a condition and value; `pandas.DataFrame(scored.records())` makes a table."""
        return [
            {
                "condition": result.condition,
                "value": value.value,
                "score": value.score,
                "centred": value.centred,
                "num_responses": value.num_items,
            }
            for result in self.response.results
            for value in result.values
        ]

    def response_records(self) -> list[dict[str, Any]]:
        """One row a condition and response; NaN for the spread of a single wording."""
        return [
            {
                "condition": result.condition,
                "response": one.response,
                "logprob": one.logprob,
                "template_spread": optional(one, "template_spread"),
                "num_tokens": one.num_tokens,
            }
            for result in self.response.results
            for one in result.responses
        ]

    def plot(self, axes: Any = None) -> Any:
        """The values' scores under each condition, less their mean; returns matplotlib's axes."""
        names = self.value_names
        axes = axes or new_axes(max(4.0, 0.7 * len(names)), 3.4)
        for place, condition in enumerate(self.conditions):
            axes.plot(
                np.arange(len(names)),
                self.centred[place],
                "o-",
                markersize=3,
                color=COLOURS[place % len(COLOURS)],
                label=condition,
            )
        axes.set_xticks(np.arange(len(names)), names)
        axes.set_ylabel("score less the mean of all values, nats")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def __repr__(self) -> str:
        return (
            f"TaggedScores({self.logprobs.shape[1]} responses, {len(self.value_names)} values, "
            f"conditions {', '.join(self.conditions)})"
        )

    def _repr_html_(self) -> str:
        headings = ["condition", "value", "score", "centred", "responses"]
        rows = [[shown(cell) for cell in record.values()] for record in self.records()]
        return html.table(headings, rows, repr(self))
