"""How layers and strengths were chosen: what every point of the grid reached on development queries, beside random directions."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Sequence

from .. import v1
from .layout import Cell, data_table, figure, legend, section
from .numbers import Sentence, count, decimal, percent
from .subjects import RANDOM, SHARE, look
from .svg import Axis, Panel

_Key = Callable[[v1.SweepPoint], float]


def choosing_section(value: v1.StudiedValue, identity: str) -> str:
    """Curves on development queries, from which layer and strength were chosen."""
    panels = [
        panel for selection in value.selections if (panel := _curves(value, selection)) is not None
    ]
    if not panels:
        return ""
    keys = legend(
        [
            ("dot", "plain", "keeps the guard"),
            ("hollow", "plain", "breaks it"),
            ("ring", "plain", "chosen"),
            (
                "line",
                "plain",
                "a layer, or a strength where there are more layers: the palest the lowest",
            ),
            ("band", "random", "random directions, each at its best"),
            ("dashed", "plain", "no steering"),
        ]
    )
    caption = (
        "Share of development answers that express the value, by the list that labels, for every layer and strength that was tried. "
        "Each direction is added with the same norm and chosen by the same rule, the random ones too: the best point among those "
        "that keep the guard."
    )
    return section(
        "Choosing layer and strength", identity, figure(caption, panels, _table(value), keys)
    )


def _expressing(point: v1.SweepPoint) -> float | None:
    for one in point.measures:
        if one.measure == SHARE and one.HasField("value"):
            return float(one.value)
    return None


def _strength(point: v1.SweepPoint) -> float:
    return float(point.coefficient if point.HasField("coefficient") else point.factor)


def _layer(point: v1.SweepPoint) -> float:
    return float(point.layers[0])


def _tried(value: v1.StudiedValue, subject: str) -> list[v1.SweepPoint]:
    return [
        p for p in value.development_points if p.subject == subject and not p.HasField("random")
    ]


def _over(points: Iterable[v1.SweepPoint]) -> _Key:
    """What a plot of these points has along x: whichever of layer and strength takes more values."""
    listed = list(points)
    layers, strengths = {tuple(p.layers) for p in listed}, {_strength(p) for p in listed}
    one_by_one = all(len(layer) == 1 for layer in layers)
    return _layer if one_by_one and len(layers) > len(strengths) + 1 else _strength


def _curves(value: v1.StudiedValue, selection: v1.StudySelection) -> Panel | None:
    tried = _tried(value, selection.selection.subject)
    if not tried:
        return None
    seen, along = look(selection.subject), _over(tried)
    of_vector = tried[0].HasField("coefficient")
    named = "coefficient" if of_vector else "factor"
    panel = Panel(
        seen.name.capitalize(),
        "Lines of the share of expressing answers over strength or layer; hollow dots break the guard, the ring is chosen.",
        Axis.around(map(along, tried), "layer (block)" if along is _layer else named),
        Axis.around(
            map(_expressing, value.development_points), "expressing", zero=True, is_share=True
        ),
    )
    if of_vector:
        panel.band(_best_of_random(value, along), "random")
    for p in value.development_points:
        plain = _expressing(p)
        if p.name == "baseline" and plain is not None:
            panel.segment((panel.x.low, plain), (panel.x.high, plain), "plain thin dashed")
    lines = _lines(tried, along)
    for place, run in enumerate(lines):
        shade = f"{seen.colour} shade{min(4, 1 + 4 * place // len(lines))}"
        panel.line([(along(p), _expressing(p)) for p in run], shade)
        for p in run:
            share = _expressing(p)
            if share is not None:
                chosen = p.name == selection.selection.point
                panel.dot(along(p), share, shade, hollow=not p.passes, ringed=chosen)
    return panel


def _lines(points: Sequence[v1.SweepPoint], along: _Key) -> list[list[v1.SweepPoint]]:
    """Points that differ in what lies along x alone, in order of all else."""
    groups: dict[tuple[float, ...], list[v1.SweepPoint]] = collections.defaultdict(list)
    for p in points:
        other = (_strength(p),) if along is _layer else tuple(p.layers)
        groups[(*other, p.top_percent, p.max_angle)].append(p)
    return [sorted(groups[key], key=along) for key in sorted(groups)]


def _best_of_random(
    value: v1.StudiedValue, along: _Key
) -> list[tuple[float, float | None, float | None]]:
    """Range over the random directions of the best that each reaches, along x."""
    best: dict[float, dict[int, float]] = collections.defaultdict(dict)
    for p in value.development_points:
        share = _expressing(p)
        if p.HasField("random") and p.HasField("coefficient") and share is not None:
            at = best[along(p)]
            at[p.random] = max(share, at.get(p.random, share))
    return [(x, min(of.values()), max(of.values())) for x, of in sorted(best.items())]


def _table(value: v1.StudiedValue) -> str:
    """Every point but those of random directions, of which it has the range by strength: they may be thousands."""
    rows: list[list[Cell]] = []
    for selection in value.selections:
        for p in _tried(value, selection.selection.subject):
            rows.append(
                [
                    look(selection.subject).name,
                    _spaced(p.layers),
                    decimal(_strength(p)),
                    percent(_expressing(p)),
                    "kept" if p.passes else "broken: " + ", ".join(p.failed_bounds),
                    "chosen" if p.name == selection.selection.point else "",
                ]
            )
    for strength, least, most in _best_of_random(value, _strength):
        reached: Sentence = [percent(least), " to ", percent(most)]
        rows.append([f"{RANDOM}, each at its best", "any", decimal(strength), reached, "", ""])
    return data_table(["steered", "layers", "strength", "expressing", "guard", "chosen"], rows)


def _spaced(layers: Sequence[int]) -> Sentence:
    sentence: Sentence = []
    for layer in layers:
        sentence += [" ", count(layer)] if sentence else [count(layer)]
    return sentence
