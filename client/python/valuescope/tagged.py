"""Responses that speak for or against values, scored by how likely a model finds them.

responses = [{"query": "How was the trip?", "response": "Thrilling!", "weights": {"ST": 0.8, "SE": -0.3}}, ...]
scored = client.score_tagged_responses(model, responses, conditions={"plain": None, "steered": vs.Steer(...)})
scored.values                                  # numpy [conditions, values]; scored.plot()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import v1
from .conditions import Conditions, to_conditions
from .evaluations import ValueProfiles, plot_profiles, to_messages
from .figures import optional
from .tensors import Array


def to_tagged(responses: Any) -> list[v1.TaggedResponse]:
    """Tagged responses as messages, or mappings of fields: query, response, id, and weights, a mapping of values to numbers."""
    return to_messages(responses, "responses", v1.TaggedResponse, from_fields=_from_fields)


def _from_fields(weights: Mapping[str, float] | None = None, **fields: Any) -> v1.TaggedResponse:
    listed = [v1.ValueWeight(value=v, weight=w) for v, w in (weights or {}).items()]
    return v1.TaggedResponse(weights=listed, **fields)


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


class TaggedScores(ValueProfiles[v1.ScoreTaggedResponsesResponse]):
    """How likely a model finds responses that speak for values: `values` are in nats, `centred` the same less the mean over the
    values."""

    _kind = v1.ScoreTaggedResponsesResponse

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
        return plot_profiles(
            self.conditions,
            self.value_names,
            self.centred,
            None,
            "score less the mean of all values, nats",
            axes,
        )

    def __repr__(self) -> str:
        return (
            f"TaggedScores({self.logprobs.shape[1]} responses, {len(self.value_names)} values, "
            f"conditions {', '.join(self.conditions)})"
        )
