"""What neurons cause, as arrays and a table: one entry for each number of neurons.

What the server leaves unset is NaN in arrays. `records` gives rows for `pandas.DataFrame`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import html, v1
from .figures import COLOURS, GREY, new_axes, optional, shown
from .tensors import Array


@dataclasses.dataclass(frozen=True, repr=False)
class NeuronTest:
    """A target while the first k neurons of a ranking are changed, for several k, beside random sets like them.

    Attributes:
        response: the whole message (usage, digests, provenance, warnings).
    """

    response: v1.TestNeuronsResponse

    @property
    def full(self) -> float:
        """The target with every neuron as it is."""
        return self.response.full

    @property
    def empty(self) -> float:
        """The target with all neurons of the layers ablated; NaN where neurons are scaled."""
        return optional(self.response, "empty")

    @property
    def sizes(self) -> Array:
        """k [points], int64."""
        return np.array([point.size for point in self.response.points], np.int64)

    @property
    def targets(self) -> Array:
        """The target with the first k changed [points], float64."""
        return np.array([point.target for point in self.response.points])

    @property
    def standard_errors(self) -> Array:
        """Standard errors over the responses of target - full [points]; NaN with one response."""
        return self._optional("standard_error")

    @property
    def faithfulness(self) -> Array:
        """(target - empty) / (full - empty) [points]; NaN where full - empty is within noise, and but for keep_only."""
        return self._optional("faithfulness")

    @property
    def random_means(self) -> Array:
        """Means of the target over the random sets [points]; NaN without any."""
        return self._optional("random_mean")

    @property
    def random_intervals(self) -> Array:
        """2.5th and 97.5th percentile of the target over the random sets [points, 2]; NaN with fewer than 20."""
        return np.stack([self._optional("random_lower"), self._optional("random_upper")], axis=1)

    @property
    def p_values(self) -> Array:
        """Shares of random sets, the first k among them, that do as much, or with keep_only keep as much [points]; NaN without
        random sets."""
        return self._optional("p_value")

    @property
    def num_unmatched(self) -> Array:
        """Of the first k those with too few others like them [points], int64."""
        return np.array([point.num_unmatched for point in self.response.points], np.int64)

    def records(self) -> list[dict[str, Any]]:
        """One row a point, every column in every row; `pandas.DataFrame(test.records())` makes a table."""
        return [
            {
                "size": point.size,
                "target": point.target,
                "standard_error": optional(point, "standard_error"),
                "faithfulness": optional(point, "faithfulness"),
                "random_mean": optional(point, "random_mean"),
                "random_lower": optional(point, "random_lower"),
                "random_upper": optional(point, "random_upper"),
                "p_value": optional(point, "p_value"),
                "num_unmatched": point.num_unmatched,
            }
            for point in self.response.points
        ]

    def plot(self, axes: Any = None) -> Any:
        """The target by size with its standard errors, the random sets' mean and 95 % band, and lines where nothing and where
        everything is changed; returns matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        if not np.all(np.isnan(self.random_intervals)):
            lower, upper = self.random_intervals.T
            axes.fill_between(
                self.sizes, lower, upper, color=GREY, alpha=0.3, label="random sets, 95 %"
            )
        if not np.all(np.isnan(self.random_means)):
            axes.plot(self.sizes, self.random_means, color=GREY, label="random sets, mean")
        _curve(axes, self, COLOURS[0], "first of the ranking")
        axes.axhline(self.full, color=COLOURS[2], linestyle="--", label="nothing changed")
        if self.response.HasField("empty"):
            axes.axhline(self.empty, color=COLOURS[1], linestyle="--", label="all ablated")
        return _labelled(axes)

    def __repr__(self) -> str:
        return (
            f"NeuronTest({len(self.response.points)} sizes, {self.response.num_responses} responses, "
            f"full {shown(self.full)}, empty {shown(self.empty) or 'unset'})"
        )

    def _repr_html_(self) -> str:
        headings = [
            "neurons",
            "target",
            "error",
            "faithfulness",
            "random",
            "",
            "",
            "p",
            "unmatched",
        ]
        rows = [[shown(cell) for cell in record.values()] for record in self.records()]
        return html.table(headings, rows, repr(self))

    def _optional(self, field: str) -> Array:
        return np.array([optional(point, field) for point in self.response.points])


class NeuronTests(Mapping[str, NeuronTest]):
    """Tests of several rankings over the same responses, by their labels.

    Attributes:
        response: the whole message (usage, digests, provenance, warnings).
    """

    def __init__(self, response: v1.TestNeuronsResponse) -> None:
        self.response = response
        self._tests = {ranking.label: _test_of(response, ranking) for ranking in response.rankings}

    def __getitem__(self, label: str) -> NeuronTest:
        return self._tests[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tests)

    def __len__(self) -> int:
        return len(self._tests)

    def records(self) -> list[dict[str, Any]]:
        """One row a point with its ranking's label, as `NeuronTest.records` has them."""
        return [{"ranking": label, **row} for label, test in self.items() for row in test.records()]

    def plot(self, axes: Any = None) -> Any:
        """The target by size with its standard errors, a line a ranking, beside nothing and everything changed; returns
        matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        for number, (label, test) in enumerate(self.items()):
            _curve(axes, test, COLOURS[number % len(COLOURS)], label)
        axes.axhline(self.response.full, color=GREY, linestyle="--", label="nothing changed")
        if self.response.HasField("empty"):
            axes.axhline(self.response.empty, color=GREY, linestyle=":", label="all ablated")
        return _labelled(axes)

    def __repr__(self) -> str:
        return f"NeuronTests({', '.join(self)}; {self.response.num_responses} responses)"

    def _repr_html_(self) -> str:
        rows = self.records()
        return html.table(
            list(rows[0]), [[shown(cell) for cell in row.values()] for row in rows], repr(self)
        )


def _test_of(response: v1.TestNeuronsResponse, ranking: v1.RankingTest) -> NeuronTest:
    alone = v1.TestNeuronsResponse()
    alone.CopyFrom(response)
    alone.ClearField("rankings")
    alone.points.extend(ranking.points)
    return NeuronTest(alone)


def _curve(axes: Any, test: NeuronTest, colour: str, label: str) -> None:
    """The targets of a ranking by size, with their standard errors."""
    axes.errorbar(
        test.sizes,
        test.targets,
        yerr=np.nan_to_num(test.standard_errors),
        fmt="o-",
        markersize=3,
        color=colour,
        label=label,
    )


def _labelled(axes: Any) -> Any:
    axes.set_xscale("log", base=2)
    axes.set_xlabel("neurons")
    axes.set_ylabel("target")
    axes.legend(fontsize=8, frameon=False)
    return axes
