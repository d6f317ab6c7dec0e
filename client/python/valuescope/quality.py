"""How good an extracted vector is, layer by layer, as arrays, a table and plots.

quality = vs.Quality(client.extract_vectors(model, responses))   # or vs.Quality(client.vector("vectors/ID"))
pandas.DataFrame(quality.records())
quality.plot()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import html, v1
from .figures import COLOURS, GREY, new_axes, optional, shown
from .tensors import Array

# What is 1 at best, in the order of the plot's legend.
_AGREEMENT = {
    "reliability": "reliability (Spearman-Brown)",
    "auroc": "AUROC on responses held out",
    "explained_variance": "explained variance",
}


@dataclasses.dataclass(frozen=True, repr=False)
class Quality:
    """The statistics of an extracted vector by layer. What the server leaves unset is NaN; `missing` of the records tells why.

    Attributes:
        source: what `extract_vectors` gave back, one of its `vectors`, or a stored vector; one that was not extracted has no layers here.
    """

    source: v1.ExtractVectorsResponse | v1.ValueVectorResult | v1.Vector

    @property
    def statistics(self) -> Sequence[v1.VectorStatistics]:
        """The contract's messages, one a layer."""
        return self.source.statistics

    @property
    def layers(self) -> list[int]:
        """Absolute layers, ascending."""
        return [row.layer for row in self.statistics]

    @property
    def norms(self) -> Array:
        """[layers] float64: |v|, which lies above the true vector's norm by the noise in v."""
        return np.array([row.norm for row in self.statistics])

    @property
    def norm_intervals(self) -> Array:
        """[layers, 2] float64: lower and upper bound of the norm of the true vector; NaN where there is none, as of a principal
        component or a probe, and in records of earlier servers, whose interval is of another kind."""
        bounds = [_bounds(row) for row in self.statistics]
        return np.array(bounds, np.float64).reshape(len(bounds), 2)

    @property
    def within_noise(self) -> npt.NDArray[np.bool_]:
        """[layers] bool: whether noise alone gives such a row; False where that is not known."""
        return np.array([row.within_noise for row in self.statistics], np.bool_)

    def records(self) -> list[dict[str, Any]]:
        """One row a layer, every column in every row; `pandas.DataFrame(quality.records())` makes a table.

        `missing` has the reason by the name of each number that the data cannot give; an empty dictionary where all are there.
        """
        return [
            {
                "layer": row.layer,
                "num_expressing": row.num_expressing,
                "num_non_expressing": row.num_non_expressing,
                "norm": row.norm,
                "norm_lower": lower,
                "norm_upper": upper,
                "within_noise": row.within_noise if row.HasField("within_noise") else None,
                **{
                    field: optional(row, field)
                    for field in (
                        "relative_norm",
                        "split_half_cosine",
                        "reliability",
                        "auroc",
                        "debiased_squared_norm",
                        "clustered_squared_norm",
                        "num_pairs",
                        "explained_variance",
                        "intercept",
                    )
                },
                "missing": {one.field: html.absence(one) for one in row.missing},
            }
            for row, (lower, upper) in zip(self.statistics, self.norm_intervals, strict=True)
        ]

    def plot(self, axes: Any = None) -> Any:
        """The norm by layer, and the interval of the norm without noise; both are grey where noise alone gives such a vector. Returns
        matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        layers, norms, noise = np.array(self.layers), self.norms, self.within_noise
        lower, upper = self.norm_intervals.T
        for chosen, colour, label in (
            (~noise, COLOURS[0], "norm, and where it lies without noise"),
            (noise, GREY, "the same, noise alone may give it"),
        ):
            if chosen.any():
                axes.plot(layers[chosen], norms[chosen], "o", color=colour, label=label)
                axes.vlines(layers[chosen], lower[chosen], upper[chosen], color=colour)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("layer (block, 0-based)")
        axes.set_ylabel("norm")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def plot_agreement(self, axes: Any = None) -> Any:
        """Reliability, AUROC and, of principal components, explained variance by layer, each 1 at best; returns matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        for colour, (field, label) in zip(COLOURS, _AGREEMENT.items(), strict=False):
            found = [optional(row, field) for row in self.statistics]
            if not np.all(np.isnan(found)):
                axes.plot(self.layers, found, "o-", color=colour, markersize=3, label=label)
        axes.axhline(0.5, color=GREY, linewidth=0.5)
        axes.set_xlabel("layer (block, 0-based)")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def __repr__(self) -> str:
        return f"Quality({self._vector().name}, {len(self.layers)} layers)"

    def _repr_html_(self) -> str:
        records = self.records()
        headings = [name.replace("_", " ") for name in records[0]] if records else ["layer"]
        return html.table(
            headings, [[_cell(cell) for cell in row.values()] for row in records], repr(self)
        )

    def _vector(self) -> v1.Vector:
        source = self.source
        return source.vector if isinstance(source, v1.ExtractVectorsResponse) else source


def _bounds(row: v1.VectorStatistics) -> tuple[float, float]:
    # Records without it have an interval of another kind.
    if not row.HasField("squared_norm_interval"):
        return np.nan, np.nan
    return row.norm_interval.lower, row.norm_interval.upper


def _cell(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, dict):
        return ", ".join(f"{field}: {reason}" for field, reason in cell.items())
    return shown(cell)
