"""What a study says of its values together, and beside the paper: mean delta, cosines of different values, the circle."""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Callable, Iterable

from .. import html, v1
from .layout import Cell, data_table, figure, legend, paragraph, section
from .numbers import Part, Sentence, count, decimal, field, interval, p_value, percent
from .subjects import CONDITIONS
from .svg import Axis, Panel

AGREEMENTS = {
    v1.PAPER_AGREEMENT_SUPPORTED: "supported",
    v1.PAPER_AGREEMENT_CONTRADICTED: "contradicted",
    v1.PAPER_AGREEMENT_UNDECIDED: "undecided",
    v1.PAPER_AGREEMENT_NOT_MEASURED: "not measured",
}
# Of a value's name, on the circle: Schwartz's differ in them.
_LETTERS = 4


def across_section(results: v1.ValueStudyResult, identity: str) -> str:
    """Mean delta, cosines between values and the circumplex, where there are several values."""
    return section(
        "Across values",
        identity,
        _deltas(results),
        _circumplex(results),
    )


def _layer_axis(layers: Iterable[int]) -> Axis:
    return Axis.around(layers, "layer (block)", whole=True)


def _deltas(results: v1.ValueStudyResult) -> str:
    deltas = results.mean_deltas
    if not deltas:
        return ""
    layers = [one.layer for one in deltas]
    variance = Panel(
        "Variance of the deltas along their mean",
        "Two lines over the layers: the share of the deltas' squares along their mean, and the mean cosine of two of them.",
        _layer_axis(layers),
        Axis.around([0.0, 1.0, *(one.mean_pairwise_cosine for one in deltas)], "share"),
    )
    variance.line([(one.layer, one.explained_variance) for one in deltas], "delta")
    variance.line([(one.layer, one.mean_pairwise_cosine) for one in deltas], "delta dashed")
    cosines = _cross_panel(results, layers)
    table = data_table(
        [
            "layer",
            "norm of the mean delta",
            "variance explained",
            "95 %",
            "mean cosine of two deltas",
            "95 %",
        ],
        [
            [
                count(one.layer),
                decimal(one.norm),
                percent(one.explained_variance),
                _over_values(results, one.layer, "explained_variance", percent),
                decimal(one.mean_pairwise_cosine),
                _over_values(results, one.layer, "mean_pairwise_cosine", decimal),
            ]
            for one in deltas
        ],
    )
    crossed = data_table(
        ["values", "condition", "layer", "cosine", "without noise"],
        [
            [
                f"{one.first} and {one.second}",
                CONDITIONS[one.condition],
                count(one.layer),
                decimal(field(one, "cosine")),
                decimal(field(one, "disattenuated_cosine")),
            ]
            for one in results.cross_cosines
        ],
    )
    keys = legend(
        [
            ("line", "delta", "variance along the mean delta"),
            ("dashed", "delta", "mean cosine of two deltas"),
            ("line", "intrinsic", "two values, intrinsic: median and range"),
            ("line", "prompted", "two values, prompted: median and range"),
        ]
    )
    caption = (
        "A delta is a value's prompted vector less its intrinsic one. What all deltas share is a channel of following instructions, "
        "whatever the value; intervals are over the values, as a sample of more. Right: how alike the vectors of different values are."
    )
    return figure(caption, [variance, cosines], table + crossed, keys)


def _over_values(
    results: v1.ValueStudyResult, layer: int, name: str, write: Callable[[float], Part]
) -> Cell:
    """The interval of a number that is over the values, were these a sample of more."""
    for one in results.value_intervals:
        if one.layer == layer and one.HasField(name):
            return interval(getattr(one, name), write)
    return "–"


def _cross_panel(results: v1.ValueStudyResult, layers: list[int]) -> Panel:
    crossed = results.cross_cosines
    panel = Panel(
        "Cosines of different values",
        "Of each condition a line over the layers, the median cosine of two values' vectors, and a band from the least to the most.",
        _layer_axis(layers),
        Axis.around([field(one, "cosine") for one in crossed], "cosine", zero=True),
    )
    panel.segment((panel.x.low, 0), (panel.x.high, 0), "plain thin")
    for condition, colour in CONDITIONS.items():
        by_layer: dict[int, list[float]] = collections.defaultdict(list)
        for one in crossed:
            if one.condition == condition and one.HasField("cosine"):
                by_layer[one.layer].append(one.cosine)
        run = sorted(by_layer.items())
        panel.band([(layer, min(cosines), max(cosines)) for layer, cosines in run], colour)
        panel.line([(layer, statistics.median_low(cosines)) for layer, cosines in run], colour)
    return panel


def _circumplex(results: v1.ValueStudyResult) -> str:
    fits = results.circumplexes
    if not fits:
        return ""
    fit = Panel(
        "Fit to the circle",
        "A line of the fit over the layers, beside a band from the mean of the null to its upper end.",
        _layer_axis([one.layer for one in fits]),
        Axis(0.0, 1.0, "R²"),
    )
    fit.band([(one.layer, one.null_mean, one.null_95th_percentile) for one in fits], "random")
    fit.line([(one.layer, one.r_squared) for one in fits], "shared")
    best = max(fits, key=lambda one: one.r_squared)
    points = _circle(best)
    table = data_table(
        [
            "layer",
            "R²",
            "mean of the null",
            "its upper end",
            "p, permutations",
            "p, random directions",
        ],
        [
            [
                count(one.layer),
                decimal(one.r_squared),
                decimal(one.null_mean),
                decimal(one.null_95th_percentile),
                p_value(one.permutation_p_value),
                p_value(field(one, "null_p_value")),
            ]
            for one in fits
        ],
    )
    placed = data_table(
        ["value", "x", "y", "expected angle"],
        [
            [one.value, decimal(one.x), decimal(one.y), decimal(one.expected_angle)]
            for one in best.points
        ],
    )
    keys = legend(
        [
            ("line", "shared", "R² of the values' shared axes"),
            ("band", "random", "random directions, mean to 95th percentile"),
            ("dot", "shared", "a value"),
            ("hollow", "plain", "where theory puts it"),
        ]
    )
    caption = (
        "The values' shared axes, reduced to a plane and turned onto Schwartz's circle. Read the fit only beside what random "
        "directions reach: few points fit any circle."
    )
    return figure(caption, [fit, points], table + placed, keys)


def _circle(fit: v1.Circumplex) -> Panel:
    reach = max([1.75, *(1.1 * abs(n) for point in fit.points for n in (point.x, point.y))])
    # As wide as high on the paper, which is wider than high.
    panel = Panel(
        f"Values at layer {fit.layer}, the best fit",
        "Dots for the values, each joined to its place on the circle, where the first letters of its name stand.",
        Axis(-1.24 * reach, 1.24 * reach, "first axis"),
        Axis(-reach, reach, "second axis"),
        height=280,
    )
    ring = [(math.cos(math.tau * k / 60), math.sin(math.tau * k / 60)) for k in range(61)]
    panel.line(ring, "plain thin")
    outward: collections.Counter[float] = collections.Counter()
    for point in fit.points:
        angle = math.radians(point.expected_angle)
        x, y = math.cos(angle), math.sin(angle)
        panel.segment((x, y), (point.x, point.y), "shared thin")
        panel.dot(x, y, "plain", hollow=True)
        panel.dot(point.x, point.y, "shared")
        # Values that share a place stand behind each other.
        away = 1.24 + 0.3 * outward[point.expected_angle]
        outward[point.expected_angle] += 1
        panel.name((away + 0.14) * x, away * y, point.value[:_LETTERS])
    return panel


def _verdict(agreement: v1.PaperAgreement) -> html.Markup:
    name = AGREEMENTS.get(agreement, "–")
    return html.Markup(f'<b class="verdict {name.split()[0]}">{name}</b>')


def paper_section(results: v1.ValueStudyResult, identity: str) -> str:
    """The paper's quantities beside what was found here."""
    if not results.paper:
        return ""
    rows: list[list[Cell]] = []
    for one in results.paper:
        found = field(one, "found")
        side: Sentence = ["below " if one.paper_below else "above ", decimal(one.boundary)]
        rows.append(
            [
                one.description,
                one.value or "all",
                one.paper,
                side,
                decimal(found),
                interval(one.interval, decimal) if one.HasField("interval") else "–",
                _verdict(one.agreement),
                one.note,
            ]
        )
    headings = ["quantity", "value", "the paper", "its side", "here", "95 %", "verdict", "to know"]
    note = (
        "A finding counts as supported where the whole interval lies on the paper's side, as contradicted where it lies on the "
        "other. The paper's models have one and a half to thirty-two billion parameters; what a much smaller one does not show "
        "says little of them."
    )
    return section(
        "Against the paper", identity, data_table(headings, rows), paragraph(note, "note")
    )
