"""What evaluations share: data sets as people hold them, results by condition, and values' scores as arrays and a plot."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from . import given, html
from .figures import COLOURS, new_axes
from .tensors import Array

# Standard errors to each side of a score, for an interval of 95 %.
_WIDTH = 1.96
_Message = TypeVar("_Message", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_Evaluation = TypeVar("_Evaluation", bound="Evaluation[Any]")


def to_messages(
    listed: Any,
    what: str,
    kind: type[_Message],
    *,
    from_fields: Callable[..., _Message] | None = None,
    from_text: Callable[[str], _Message] | None = None,
) -> list[_Message]:
    """Messages of a kind, given as such, as mappings of their fields or, where `from_text` says how, as texts.

    Args:
        what: names the list in an error.
        from_fields: makes a message of a mapping's fields; default the kind itself.
    """
    messages = []
    for place, one in enumerate(given.items(listed, what)):
        if isinstance(one, Mapping):
            messages.append((from_fields or kind)(**one))
        elif isinstance(one, str) and from_text:
            messages.append(from_text(one))
        elif isinstance(one, kind):
            messages.append(one)
        else:
            texts = "a text, " if from_text else ""
            raise TypeError(
                f"item {place} of {what} is {given.shown(one)}; it must be {texts}a mapping or a "
                f"{kind.__name__}"
            )
    return messages


def from_summary(summary: bytes, response: _Response) -> _Response:
    """Fills a response from the artifact "summary" that a job of an evaluation leaves."""
    fields = json.loads(summary)
    # In other words than the message's.
    for name in ("format_version", "provenance"):
        fields.pop(name, None)
    return json_format.ParseDict(fields, response)


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation(Generic[_Response]):
    """What a model did under conditions.

    Attributes:
        response: the whole message (every answer, receipts, usage, digests, provenance, warnings).
    """

    response: _Response
    _kind: ClassVar[type[Message]]

    @classmethod
    def from_summary(cls: type[_Evaluation], summary: bytes) -> _Evaluation:
        """Of the artifact "summary" that a job leaves."""
        return cls(from_summary(summary, cls._kind()))

    @property
    def conditions(self) -> list[str]:
        """Their names."""
        return [result.condition for result in self.response.results]

    def records(self) -> list[dict[str, Any]]:
        """Rows for `pandas.DataFrame`, every column in every row."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html.of_records(self.records(), repr(self))


class ValueProfiles(Evaluation[_Response]):
    """Scores of values under conditions."""

    @property
    def value_names(self) -> list[str]:
        """In the order in which they first occur."""
        return [value.value for value in self.response.results[0].values]

    @property
    def values(self) -> Array:
        """Scores of the values [conditions, values], float64."""
        return self._of_values(lambda value: value.score)

    @property
    def centred(self) -> Array:
        """The same less their mean under the condition [conditions, values]."""
        return self._of_values(lambda value: value.centred)

    def _of_values(self, number: Callable[[Any], float]) -> Array:
        return np.array([[number(value) for value in r.values] for r in self.response.results])


def plot_profiles(
    conditions: Sequence[str],
    values: Sequence[str],
    scores: Array,
    errors: Array | None,
    label: str,
    axes: Any = None,
) -> Any:
    """Draws the values' scores under each condition beside one another; returns matplotlib's axes.

    Args:
        scores: [conditions, values].
        errors: standard errors [conditions, values], NaN where there is none, drawn as intervals of 95 %; None for none.
        label: of the scores.
        axes: to draw on; default those of a new figure.
    """
    places = np.arange(len(values))
    axes = axes or new_axes(max(4.0, 0.7 * len(values)), 3.4)
    for number, condition in enumerate(conditions):
        # Beside one another, so that intervals can be told apart.
        shift = 0.12 * (number - (len(conditions) - 1) / 2)
        axes.errorbar(
            places + shift,
            scores[number],
            yerr=None if errors is None else _WIDTH * np.nan_to_num(errors[number]),
            fmt="o-",
            markersize=3,
            color=COLOURS[number % len(COLOURS)],
            label=condition,
        )
    axes.set_xticks(places, values)
    axes.set_ylabel(label)
    axes.legend(fontsize=8, frameon=False)
    return axes
