"""What a study says of a value's neurons: their classes beside chance, what they contribute, what they cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import v1
from .layout import data_table, figure, legend, section, warnings
from .numbers import count, decimal, field, interval, p_value, percent
from .subjects import CLASSES, CONDITIONS
from .svg import Axis, Panel, Rows


def neurons_section(value: v1.StudiedValue, identity: str) -> str:
    """Classes, contributions and causal curves."""
    notes = [*value.classification.warnings]
    for found in (*value.attributions, *value.causal_controls):
        notes += found.warnings
    return section(
        "Neurons", identity, _classes(value), _contributions(value), _causes(value), warnings(notes)
    )


def _class_name(message: Any) -> str:
    return CLASSES[getattr(message, "class")]


def _classes(value: v1.StudiedValue) -> str:
    found = value.classification
    if not found.classes:
        return ""
    names = [_class_name(one) for one in found.classes]
    kept = sum(one.count for one in found.classes)
    chance = [one.expected_count / kept if kept else None for one in found.classes]
    tops = [one.share_interval.upper for one in found.classes]
    shares = Rows(
        "Share of the kept neurons in each class",
        "One row a class: a dot with its interval, and a bar where chance puts it.",
        Axis.around([*tops, *chance], "share", zero=True, is_share=True),
        names,
    )
    for row, (one, expected) in enumerate(zip(found.classes, chance, strict=True)):
        if expected is not None:
            shares.segment((expected, row - 0.38), (expected, row + 0.38), "plain level")
        shares.interval(row, one.share_interval.lower, one.share_interval.upper, names[row])
        shares.dot(one.share, row, names[row])
    table = data_table(
        ["class", "neurons", "by chance", "share", "95 % interval"],
        [
            [
                name,
                count(one.count),
                decimal(one.expected_count),
                percent(one.share),
                interval(one.share_interval, percent),
            ]
            for name, one in zip(names, found.classes, strict=True)
        ],
    )
    keys = legend(
        [("dot", name, name) for name in names] + [("level", "plain", "random directions")]
    )
    caption = (
        "Neurons by the axis that their write directions lie nearest to, within the plane of the two vectors; the marks are what "
        "directions without any preference would give. Intervals take neurons for independent, which they are not quite."
    )
    return figure(
        caption, [shares, _by_layer(found.layers)], table + _layer_table(found.layers), keys
    )


def _by_layer(layers: Sequence[v1.NeuronSetLayer]) -> Panel:
    totals = [sum(one.count for one in entry.classes) for entry in layers]
    panel = Panel(
        "Classes by layer",
        "One bar a layer, made of the classes.",
        Axis.around([entry.layer for entry in layers], "layer (block)", whole=True),
        Axis(0.0, 1.05 * max([*totals, 1]), "neurons", whole=True),
    )
    for entry in layers:
        bottom = 0
        for one in entry.classes:
            panel.bar(entry.layer, bottom + one.count, 0.8, _class_name(one), bottom)
            bottom += one.count
    return panel


def _layer_table(layers: Sequence[v1.NeuronSetLayer]) -> str:
    names = [_class_name(one) for one in layers[0].classes] if layers else []
    return data_table(
        ["layer", *names],
        [[count(e.layer), *(count(one.count) for one in e.classes)] for e in layers],
    )


def _contributions(value: v1.StudiedValue) -> str:
    scored = value.attributions
    if not scored:
        return ""
    entries = [entry for one in scored for entry in one.layers]
    panel = Panel(
        "Share of the vector by block",
        "Lines over the layers, one a vector: the sum of the direct contributions of the block's neurons.",
        Axis.around([entry.layer for entry in entries], "layer (block)", whole=True),
        Axis.around([entry.score_sum for entry in entries], "share", zero=True, is_share=True),
    )
    panel.segment((panel.x.low, 0), (panel.x.high, 0), "plain thin")
    for one in scored:
        colour = CONDITIONS[one.condition]
        panel.line([(entry.layer, entry.score_sum) for entry in one.layers], colour)
    sums = data_table(
        ["vector", "layer", "sum of contributions"],
        [
            [CONDITIONS[one.condition], count(entry.layer), decimal(entry.score_sum)]
            for one in scored
            for entry in one.layers
        ],
    )
    top = data_table(
        ["vector", "neuron (layer, index)", "contribution"],
        [
            [CONDITIONS[one.condition], [count(n.layer), ", ", count(n.index)], decimal(n.score)]
            for one in scored
            for n in one.top
        ],
    )
    keys = legend(
        [("line", c, f"{c} vector") for c in (CONDITIONS[one.condition] for one in scored)]
    )
    overlaps = [_overlap_panel(one) for one in scored if one.class_overlaps]
    caption = (
        "What neurons contribute to each vector by what they write, and how many of the most contributing ones are in each class "
        "of the geometry: the dots; marks are what chance gives."
    )
    return figure(caption, [panel, *overlaps], sums + top + _overlap_table(value), keys)


def _overlap_panel(scored: v1.StudyAttribution) -> Panel:
    overlaps, condition = scored.class_overlaps, CONDITIONS[scored.condition]
    names = [_class_name(one) for one in overlaps]
    panel = Rows(
        f"Strongest neurons, {condition}",
        "One row a class: a dot for the most contributing neurons that are in it, and a bar where chance puts it.",
        Axis.around(
            [n for one in overlaps for n in (one.intersection, one.expected_intersection)],
            "neurons in both",
            zero=True,
            whole=True,
        ),
        names,
    )
    for row, one in enumerate(overlaps):
        expected = one.expected_intersection
        panel.segment((expected, row - 0.38), (expected, row + 0.38), "plain level")
        panel.dot(one.intersection, row, names[row])
    return panel


def _overlap_table(value: v1.StudiedValue) -> str:
    rows = [
        [
            CONDITIONS[scored.condition],
            _class_name(one),
            count(one.intersection),
            decimal(one.expected_intersection),
            decimal(field(one, "jaccard")),
        ]
        for scored in value.attributions
        for one in scored.class_overlaps
    ]
    return data_table(["vector", "class", "in both", "by chance", "Jaccard"], rows) if rows else ""


def _causes(value: v1.StudiedValue) -> str:
    controls = [control for control in value.causal_controls if control.points]
    if not controls:
        return ""
    table = data_table(
        ["vector", "removed", "projection", "standard error", "random sets", "95 % of them", "p"],
        [
            [
                CONDITIONS[control.condition],
                count(point.size),
                decimal(point.target),
                decimal(field(point, "standard_error")),
                decimal(field(point, "random_mean")),
                [decimal(point.random_lower), " to ", decimal(point.random_upper)]
                if point.HasField("random_lower")
                else "–",
                p_value(field(point, "p_value")),
            ]
            for control in controls
            for point in control.points
        ],
    )
    keys = legend(
        [
            ("dot", "plain", "the most contributing neurons removed, two standard errors"),
            ("band", "random", "random neurons like them removed"),
            ("dashed", "plain", "nothing removed"),
            ("dotted", "plain", "all removed"),
        ]
    )
    caption = (
        "What the most contributing neurons cause: the projection of the residual stream on the vector while the first of the "
        "ranking are set to nothing, beside random sets of as many neurons of the same layers and sizes."
    )
    return figure(caption, [_cause(control) for control in controls], table, keys)


def _cause(control: v1.StudyCausalControl) -> Panel:
    colour, points = CONDITIONS[control.condition], control.points
    errors = [2 * (field(p, "standard_error") or 0.0) for p in points]
    levels = [control.full, field(control, "empty")]
    reach = [p.target + sign * e for p, e in zip(points, errors, strict=True) for sign in (-1, 1)]
    randoms = [n for p in points for n in (field(p, "random_lower"), field(p, "random_upper"))]
    sizes = [p.size for p in points]
    panel = Panel(
        f"{colour.capitalize()} vector, read in layer {control.layer}",
        "Dots with intervals over the number of neurons removed, a band of random sets, and two levels: nothing and all removed.",
        Axis(0.8 * min(sizes), 1.25 * max(sizes), "neurons removed", logarithmic=True),
        Axis.around([*reach, *randoms, *levels], "projection"),
    )
    panel.band(
        [(p.size, field(p, "random_lower"), field(p, "random_upper")) for p in points], "random"
    )
    for level, form in zip(levels, ("dashed", "dotted"), strict=True):
        if level is not None:
            panel.segment((panel.x.low, level), (panel.x.high, level), f"plain thin {form}")
    panel.line([(p.size, p.target) for p in points], colour)
    for p, error in zip(points, errors, strict=True):
        panel.segment((p.size, p.target - error), (p.size, p.target + error), colour)
        panel.dot(p.size, p.target, colour)
    return panel
