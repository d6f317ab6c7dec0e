"""Neurons as arrays, tables and plots: the columns of a set, overlaps of several, selectivity and contexts.

`records` gives rows for `pandas.DataFrame`; the plots ask for matplotlib. What the server leaves unset is NaN.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import html, v1
from .figures import COLOURS, GREY, new_axes, optional, shown
from .tensors import Array

# Where the classes stand in the legend, and in which colour.
_CLASS_COLOURS = {
    "shared": COLOURS[0],
    "intrinsic": COLOURS[1],
    "prompted": COLOURS[2],
    "shared_negative": COLOURS[3],
    "unclassified": GREY,
}


@dataclasses.dataclass(frozen=True, repr=False)
class NeuronColumns:
    """Every neuron of a set, members or not.

    Attributes:
        neuron_set: the set, with its members at the top.
        tensors: the set's file; `NeuronSet.artifact` of the contract says what each method has.
    """

    neuron_set: v1.NeuronSet
    tensors: Mapping[str, Array]

    @property
    def layers(self) -> list[int]:
        """Absolute layers, ascending."""
        return [layer.layer for layer in self.neuron_set.layers]

    def column(self, name: str) -> Array:
        """[layers, intermediate] of "score", "class", "angle", "mean_expressing", "mean_non_expressing", "member" or "values".

        Raises:
            KeyError: the set's method does not have it.
        """
        return np.array([self.tensors[f"layer.{layer}.{name}"] for layer in self.layers])

    @property
    def scores(self) -> Array:
        """[layers, intermediate] float64."""
        return self.column("score")

    def plot(self, axes: Any = None) -> Any:
        """Scores by layer: from the smallest to the largest, from the 1st to the 99th percentile, and those of the set's top
        members as dots; returns matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        scores = self.scores
        lower, upper = np.percentile(scores, [1, 99], axis=1)
        axes.fill_between(
            self.layers,
            scores.min(axis=1),
            scores.max(axis=1),
            color=GREY,
            alpha=0.3,
            label="all neurons",
        )
        axes.fill_between(
            self.layers, lower, upper, color=COLOURS[0], alpha=0.4, label="1st to 99th percentile"
        )
        top = self.neuron_set.top
        axes.plot(
            [neuron.layer for neuron in top],
            [neuron.score for neuron in top],
            ".",
            color=COLOURS[1],
            label="top members",
        )
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.set_xlabel("layer (block, 0-based)")
        axes.set_ylabel(f"score ({self.neuron_set.method})")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def plot_plane(self, layer: int, axes: Any = None) -> Any:
        """The neurons that were kept of one layer in the plane of the axes, each beside the axis nearest to it: how far it
        reaches along the axis, and across. On which side of the axis it lies is not stored. Returns matplotlib's axes.

        Raises:
            KeyError: the set assigns no classes.
        """
        axes = axes or new_axes(4.8, 3.6)
        score, kind, angle = (
            self.tensors[f"layer.{layer}.{name}"] for name in ("score", "class", "angle")
        )
        turn = np.radians(angle)
        along, across = score * np.cos(turn), score * np.sin(turn)
        for name, colour in _CLASS_COLOURS.items():
            chosen = kind == v1.NeuronClass.Value(f"NEURON_CLASS_{name.upper()}")
            if chosen.any():
                label = f"{name.replace('_', ' ')}, {chosen.sum()}"
                axes.plot(
                    along[chosen], across[chosen], "o", color=colour, markersize=3, label=label
                )
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.axvline(0, color=GREY, linewidth=0.5)
        axes.set_aspect("equal")
        axes.set_xlabel("along the nearest axis")
        axes.set_ylabel("across it")
        axes.set_title(f"layer {layer}", fontsize=9)
        axes.legend(fontsize=8, frameon=False)
        return axes

    def __repr__(self) -> str:
        return f"NeuronColumns({self.neuron_set.name}, {self.neuron_set.method}, {len(self.layers)} layers)"


@dataclasses.dataclass(frozen=True, repr=False)
class NeuronSetComparison:
    """Overlaps of neuron sets.

    Attributes:
        response: the whole message (digests of the sets compared).
        filters: what was compared, in the order of the request.
    """

    response: v1.CompareNeuronSetsResponse
    filters: Sequence[v1.NeuronSetFilter]

    @functools.cached_property
    def names(self) -> list[str]:
        """What was compared, such as "neuronSets/ID=shared"."""
        return [_filter_name(one) for one in self.filters]

    @functools.cached_property
    def layers(self) -> list[int]:
        """Absolute layers that any set has, ascending."""
        return sorted({one.layer for one in self.response.overlaps if one.HasField("layer")})

    def jaccard(self, layer: int | None = None) -> Array:
        """[sets, sets] float64 of one layer, or of all together: intersection over union, 1 on the diagonal, NaN where both sets
        are empty."""
        return self._matrix("jaccard", layer, diagonal=1.0)

    def intersections(self, layer: int | None = None) -> Array:
        """[sets, sets] float64 of one layer, or of all together: neurons in both; NaN on the diagonal."""
        return self._matrix("intersection", layer, diagonal=np.nan)

    def expected_intersections(self, layer: int | None = None) -> Array:
        """The same of random sets of these sizes within each layer."""
        return self._matrix("expected_intersection", layer, diagonal=np.nan)

    def records(self) -> list[dict[str, Any]]:
        """One row a pair for all layers together (layer None) and for each; `pandas.DataFrame(comparison.records())`."""
        return [
            {
                "first": self.names[one.first],
                "second": self.names[one.second],
                "layer": one.layer if one.HasField("layer") else None,
                "intersection": one.intersection,
                "union": one.union_size,
                "jaccard": optional(one, "jaccard"),
                "expected_intersection": one.expected_intersection,
            }
            for one in self.response.overlaps
        ]

    def plot(self, layer: int | None = None, axes: Any = None) -> Any:
        """Jaccard indices as a matrix, in each cell how many neurons both have and how many by chance; returns matplotlib's axes."""
        axes = axes or new_axes(4.8, 4.2)
        jaccard, both = self.jaccard(layer), self.intersections(layer)
        chance = self.expected_intersections(layer)
        axes.imshow(jaccard, vmin=0, vmax=1, cmap="Blues")
        for row, column in zip(*np.nonzero(~np.isnan(both)), strict=True):
            text = f"{both[row, column]:.0f}\n({chance[row, column]:.1f})"
            dark = jaccard[row, column] > 0.5
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
        places = range(len(self.names))
        axes.set_xticks(places, self.names, rotation=45, ha="right", fontsize=7)
        axes.set_yticks(places, self.names, fontsize=7)
        where = "all layers" if layer is None else f"layer {layer}"
        axes.set_title(f"{where}: Jaccard, neurons of both (by chance)", fontsize=9)
        return axes

    def __repr__(self) -> str:
        return f"NeuronSetComparison({len(self.names)} sets, {len(self.layers)} layers)"

    def _repr_html_(self) -> str:
        rows = [record for record in self.records() if record["layer"] is None]
        headings = ["first", "second", "intersection", "union", "jaccard", "by chance"]
        cells = [
            [shown(cell) for name, cell in record.items() if name != "layer"] for record in rows
        ]
        return html.table(headings, cells, repr(self))

    def _matrix(self, field: str, layer: int | None, diagonal: float) -> Array:
        count = len(self.names)
        matrix = np.full((count, count), np.nan)
        np.fill_diagonal(matrix, diagonal)
        for one in self.response.overlaps:
            if (one.layer if one.HasField("layer") else None) != layer:
                continue
            number = optional(one, field) if field == "jaccard" else float(getattr(one, field))
            matrix[one.first, one.second] = matrix[one.second, one.first] = number
        return matrix


@dataclasses.dataclass(frozen=True, repr=False)
class Selectivity:
    """Neurons by how selective they are among values.

    Attributes:
        response: the whole message (threshold, digests, warnings).
        values: names of the values, in the order of the request.
    """

    response: v1.ScoreSelectivityResponse
    values: Sequence[str]

    @property
    def neuron_set(self) -> v1.NeuronSet:
        """The stored set."""
        return self.response.neuron_set

    @property
    def members_of_value(self) -> dict[str, int]:
        """How many members are active for each value."""
        return dict(zip(self.values, self.response.members_of_value, strict=True))

    def records(self) -> list[dict[str, Any]]:
        """One row a neuron, lowest entropy first: layer, index, entropy (nats) and whether it is active for each value; for
        `pandas.DataFrame`."""
        return [
            {
                "layer": neuron.layer,
                "index": neuron.index,
                "entropy": neuron.entropy,
                **{value: k in neuron.values for k, value in enumerate(self.values)},
            }
            for neuron in self.response.top
        ]

    def __repr__(self) -> str:
        members = sum(layer.num_members for layer in self.neuron_set.layers)
        return f"Selectivity({self.neuron_set.name}, {len(self.values)} values, {members} members)"

    def _repr_html_(self) -> str:
        rows = [
            [n.layer, n.index, shown(n.entropy), ", ".join(self.values[k] for k in n.values)]
            for n in self.response.top
        ]
        return html.table(["layer", "index", "entropy", "values"], rows, repr(self))


@dataclasses.dataclass(frozen=True, repr=False)
class Contexts:
    """Texts in which neurons are most active.

    Attributes:
        response: the whole message.
    """

    response: v1.TopContextsResponse

    @property
    def neurons(self) -> list[tuple[int, int]]:
        """Pairs (layer, index), in the order of the request."""
        return [(one.neuron.layer, one.neuron.index) for one in self.response.neurons]

    def of(self, layer: int, index: int) -> list[v1.NeuronContext]:
        """The contexts of one neuron, largest activation first.

        Raises:
            KeyError: it was not asked for.
        """
        for one in self.response.neurons:
            if (one.neuron.layer, one.neuron.index) == (layer, index):
                return list(one.contexts)
        raise KeyError(f"neuron ({layer}, {index}) was not asked for")

    def records(self) -> list[dict[str, Any]]:
        """One row a context; for `pandas.DataFrame`. `activations` are those of the window's tokens, [tokens] float32."""
        return [
            {
                "layer": one.neuron.layer,
                "index": one.neuron.index,
                "rank": rank,
                "input_index": context.input_index,
                "position": context.position,
                "activation": context.activation,
                "text": context.text,
                "token_ids": list(context.token_ids),
                "center": context.center,
                "activations": np.array(context.activations, np.float32),
            }
            for one in self.response.neurons
            for rank, context in enumerate(one.contexts)
        ]

    def __repr__(self) -> str:
        contexts = sum(len(one.contexts) for one in self.response.neurons)
        return f"Contexts({len(self.response.neurons)} neurons, {contexts} contexts)"

    def _repr_html_(self) -> str:
        names = ["layer", "index", "input_index", "position", "activation", "text"]
        rows = [[shown(record[name]) for name in names] for record in self.records()]
        return html.table([name.replace("_", " ") for name in names], rows, repr(self))


def _filter_name(one: v1.NeuronSetFilter) -> str:
    kind = getattr(one, "class")
    name = one.neuron_set
    if kind != v1.NEURON_CLASS_UNSPECIFIED:
        name += f"={v1.NeuronClass.Name(kind).removeprefix('NEURON_CLASS_').lower()}"
    return f"{name}, top {one.top_per_layer}" if one.top_per_layer else name
