"""Vectors beside one another and values on the circle, as arrays, tables and plots.

What the server leaves unset is NaN in arrays. `records` gives rows for `pandas.DataFrame`; `plot` asks for matplotlib.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import html, v1
from .figures import COLOURS, GREY, new_axes, optional, shown
from .tensors import Array


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Cosines of vectors by layer, and the tokens that each speaks for.

    Attributes:
        response: the whole message (digests of the vectors compared).
        names: the vectors, in the order of the request.
        layers: absolute layers, ascending.
    """

    response: v1.CompareVectorsResponse
    names: Sequence[str]

    @functools.cached_property
    def layers(self) -> list[int]:
        """Absolute layers, ascending."""
        entries = list(self.response.cosines) or list(self.response.tokens)
        return sorted({entry.layer for entry in entries})

    @property
    def cosines(self) -> Array:
        """[layers, vectors, vectors] float64, 1 on the diagonal; NaN for a zero row."""
        return self._matrix("cosine", diagonal=1.0)

    @property
    def disattenuated_cosines(self) -> Array:
        """The same over the root of both reliabilities; NaN where one is unknown or not positive, and on the diagonal."""
        return self._matrix("disattenuated_cosine", diagonal=np.nan)

    @property
    def noise_floors(self) -> Array:
        """[layers, vectors] float64: the relative norm of what noise alone leaves of a vector's halves orthogonalised; NaN where
        the halves are unknown, and for the last vector, which is `first` of no pair."""
        count = len(self.names)
        floors = np.full((len(self.layers), count), np.nan)
        for (first, second), cosines in self._pairs():
            if second == first + 1:
                for row, entry in enumerate(cosines):
                    if entry.HasField("noise_floor"):
                        floors[row, first] = entry.noise_floor
        return floors

    def tokens(self, name: str, layer: int) -> v1.VectorTokens:
        """Tokens at either end of one row, where they were asked for.

        Raises:
            KeyError: there are none of it.
        """
        for entry in self.response.tokens:
            if entry.vector == name and entry.layer == layer:
                return entry
        raise KeyError(f"no tokens of {name} at layer {layer}; ask with top_tokens")

    def records(self) -> list[dict[str, Any]]:
        """One row a pair and layer, every column in every row; `pandas.DataFrame(comparison.records())` makes a table."""
        return [
            {
                "first": entry.first,
                "second": entry.second,
                "layer": entry.layer,
                "cosine": optional(entry, "cosine"),
                "disattenuated_cosine": optional(entry, "disattenuated_cosine"),
                "noise_floor": optional(entry, "noise_floor"),
            }
            for entry in self.response.cosines
        ]

    def plot(self, axes: Any = None) -> Any:
        """Every pair's cosine by layer, dashed where it is disattenuated; returns matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        for number, ((first, second), cosines) in enumerate(self._pairs()):
            colour = COLOURS[number % len(COLOURS)]
            layers = [entry.layer for entry in cosines]
            label = f"{self.names[first]}, {self.names[second]}"
            axes.plot(layers, [optional(e, "cosine") for e in cosines], color=colour, label=label)
            corrected = [optional(entry, "disattenuated_cosine") for entry in cosines]
            if not np.all(np.isnan(corrected)):
                axes.plot(layers, corrected, "--", color=colour)
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.set_xlabel("layer (block, 0-based)")
        axes.set_ylabel("cosine")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def __repr__(self) -> str:
        tokens = f", {len(self.response.tokens)} rows of tokens" if self.response.tokens else ""
        return f"Comparison({len(self.names)} vectors, {len(self.layers)} layers{tokens})"

    def _repr_html_(self) -> str:
        rows = [[shown(cell) for cell in record.values()] for record in self.records()]
        headings = ["first", "second", "layer", "cosine", "disattenuated", "noise floor"]
        cosines = html.table(headings, rows, repr(self))
        if not self.response.tokens:
            return cosines
        return cosines + html.table(
            ["vector", "layer", "for", "against"],
            [
                [entry.vector, entry.layer, _pieces(entry.top), _pieces(entry.bottom)]
                for entry in self.response.tokens
            ],
        )

    def _pairs(self) -> list[tuple[tuple[int, int], list[v1.VectorCosine]]]:
        """Places of both vectors among `names`, and their cosines by layer: the order in which the server gives them."""
        count, layers = len(self.names), len(self.layers)
        places = [(i, j) for i in range(count) for j in range(i + 1, count)]
        entries = list(self.response.cosines)
        return [
            (pair, entries[number * layers : (number + 1) * layers])
            for number, pair in enumerate(places)
        ]

    def _matrix(self, field: str, diagonal: float) -> Array:
        count = len(self.names)
        matrix = np.full((len(self.layers), count, count), np.nan)
        matrix[:, np.arange(count), np.arange(count)] = diagonal
        for (first, second), cosines in self._pairs():
            for row, entry in enumerate(cosines):
                matrix[row, first, second] = matrix[row, second, first] = optional(entry, field)
        return matrix


@dataclasses.dataclass(frozen=True, repr=False)
class ValueComparison:
    """Values compared by layer: what each one's prompting adds in common (mean delta), and their place on the circle.

    Attributes:
        response: the whole message (decompositions of the pairs, the stored mean delta, warnings, digests).
    """

    response: v1.DecomposeVectorsResponse

    @property
    def layers(self) -> list[int]:
        """Absolute layers that have a circumplex, ascending."""
        return [entry.layer for entry in self.response.circumplexes]

    @property
    def values(self) -> list[str]:
        """The points' values, or domains."""
        return (
            [point.value for point in self.response.circumplexes[0].points] if self.layers else []
        )

    @property
    def r_squared(self) -> Array:
        """[layers] float64; read it beside `null_mean` and `null_95th_percentile` only."""
        return np.array([entry.r_squared for entry in self.response.circumplexes])

    @property
    def points(self) -> Array:
        """[layers, values, 2] float64, laid on the unit circle."""
        return np.array(
            [[(point.x, point.y) for point in entry.points] for entry in self.response.circumplexes]
        )

    @property
    def expected_angles(self) -> Array:
        """[values] degrees, as theory has them."""
        entries = self.response.circumplexes
        return np.array([point.expected_angle for point in entries[0].points] if entries else [])

    def records(self) -> list[dict[str, Any]]:
        """One row a layer with all numbers of the circumplex and the mean delta; for `pandas.DataFrame`."""
        circles = {entry.layer: entry for entry in self.response.circumplexes}
        none = v1.Circumplex()
        rows = []
        for delta in self.response.mean_deltas:
            circle = circles.get(delta.layer, none)
            there = delta.layer in circles
            rows.append(
                {
                    "layer": delta.layer,
                    "mean_delta_norm": delta.norm,
                    "mean_delta_explained_variance": delta.explained_variance,
                    "mean_pairwise_cosine": delta.mean_pairwise_cosine,
                    "r_squared": circle.r_squared if there else np.nan,
                    "null_mean": circle.null_mean if there else np.nan,
                    "null_95th_percentile": circle.null_95th_percentile if there else np.nan,
                    "null_p_value": optional(circle, "null_p_value"),
                    "permutation_p_value": circle.permutation_p_value if there else np.nan,
                    "distinct_permutations": circle.distinct_permutations,
                    "plane_variance_share": optional(circle, "plane_variance_share"),
                }
            )
        return rows

    def plot(self, axes: Any = None) -> Any:
        """R squared by layer beside its null of random directions; returns matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        entries = self.response.circumplexes
        axes.plot(self.layers, self.r_squared, color=COLOURS[0], label="fit to the circle, R²")
        axes.fill_between(
            self.layers,
            [entry.null_mean for entry in entries],
            [entry.null_95th_percentile for entry in entries],
            color=GREY,
            alpha=0.3,
            label="random directions, mean to 95th percentile",
        )
        axes.set_ylim(0, 1)
        axes.set_xlabel("layer (block, 0-based)")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def plot_circle(self, layer: int, axes: Any = None) -> Any:
        """The values' points of one layer, each joined to its place on the circle; returns matplotlib's axes."""
        entry = self.response.circumplexes[self.layers.index(layer)]
        axes = axes or new_axes(4.2, 4.2)
        turn = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=0.5)
        for number, point in enumerate(entry.points):
            colour = COLOURS[number % len(COLOURS)]
            angle = np.radians(point.expected_angle)
            axes.plot([point.x, np.cos(angle)], [point.y, np.sin(angle)], color=colour, alpha=0.4)
            axes.plot([point.x], [point.y], "o", color=colour)
            axes.annotate(point.value, (1.1 * np.cos(angle), 1.1 * np.sin(angle)), ha="center")
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(
            f"layer {layer}: R² {entry.r_squared:.2f}, random {entry.null_mean:.2f} to "
            f"{entry.null_95th_percentile:.2f}, p {entry.permutation_p_value:.3g}",
            fontsize=9,
        )
        return axes

    def __repr__(self) -> str:
        circle = f", {len(self.values)} points on the circle" if self.layers else ""
        pairs, layers = len(self.response.decompositions), len(self.response.mean_deltas)
        return f"ValueComparison({pairs} values, {layers} layers{circle})"

    def _repr_html_(self) -> str:
        records = self.records()
        headings = [name.replace("_", " ") for name in records[0]] if records else ["layer"]
        return html.table(
            headings, [[shown(cell) for cell in row.values()] for row in records], repr(self)
        )


def _pieces(tokens: Any) -> str:
    return " ".join(token.piece for token in tokens)
