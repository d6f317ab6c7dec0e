"""What a study says of steering: how strength and layer were chosen on development queries, and what came of it on test queries."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

from .. import v1
from .layout import data_table, figure, legend, paragraph, section
from .numbers import (
    Part,
    Sentence,
    count,
    decimal,
    field,
    interval,
    p_value,
    percent,
    points,
    signed,
)
from .subjects import (
    RANDOM,
    Look,
    compared,
    is_random,
    knob,
    look,
    look_of_outcome,
    measure,
    random_values,
)
from .svg import Axis, Panel, Rows

SHARE = "expressing_share"
_Writer = Callable[[float], Part]
# Measures that are drawn, with their names, how they are written, and what they are a share of.
_COSTS = [
    ("distinct_2", "Distinct-2", decimal, ""),
    ("expectation_adjusted_distinct_2", "EAD, pairs", decimal, ""),
    ("perplexity", "Perplexity, unsteered model", decimal, ""),
    ("choices_accuracy", "Multiple choice, accuracy", percent, "share of questions"),
    ("refusal_rate", "Refusals", percent, "share of coherent answers"),
    ("coherent_share", "Coherent answers", percent, "share of answers"),
]


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
            ("line", "plain", "a layer, the palest the lowest"),
            ("band", "random", "random directions, the best layer of each"),
            ("dashed", "plain", "no steering"),
        ]
    )
    caption = (
        "Share of development answers that express the value, by the list that labels, for every layer and strength that was tried. "
        "Each direction is added with the same norm and chosen by the same rule, the random ones too: the best point among those "
        "that keep the guard."
    )
    return section(
        "Choosing layer and strength", identity, figure(caption, panels, _choice_table(value), keys)
    )


def _expressing(point: v1.SweepPoint) -> float | None:
    for one in point.measures:
        if one.measure == SHARE and one.HasField("value"):
            return float(one.value)
    return None


def _strength(point: v1.SweepPoint) -> float:
    return float(point.coefficient if point.HasField("coefficient") else point.factor)


def _baseline(value: v1.StudiedValue) -> float | None:
    plain = (p for p in value.development_points if p.name == "baseline")
    return next((_expressing(p) for p in plain), None)


def _curves(value: v1.StudiedValue, selection: v1.StudySelection) -> Panel | None:
    tried = [
        p
        for p in value.development_points
        if p.subject == selection.selection.subject and not p.HasField("random")
    ]
    if not tried:
        return None
    seen = look(selection.subject)
    on_coefficients = tried[0].HasField("coefficient")
    randoms = _best_of_random(value) if on_coefficients else []
    shares = [_expressing(p) for p in value.development_points]
    panel = Panel(
        seen.name.capitalize(),
        "Lines of the share of expressing answers over the strength, one a layer; hollow dots break the guard, the ring is chosen.",
        Axis.around([_strength(p) for p in tried], "coefficient" if on_coefficients else "factor"),
        Axis.around(shares, "expressing", zero=True, is_share=True),
    )
    panel.band(randoms, "random")
    plain = _baseline(value)
    if plain is not None:
        panel.segment((panel.x.low, plain), (panel.x.high, plain), "plain thin dashed")
    by_layers: dict[tuple[int, ...], list[v1.SweepPoint]] = collections.defaultdict(list)
    for p in tried:
        by_layers[tuple(p.layers)].append(p)
    for place, layers in enumerate(sorted(by_layers)):
        shade = f"{seen.colour} shade{min(4, 1 + 4 * place // len(by_layers))}"
        run = sorted(by_layers[layers], key=_strength)
        panel.line([(_strength(p), _expressing(p)) for p in run], shade)
        for p in run:
            share = _expressing(p)
            if share is not None:
                chosen = p.name == selection.selection.point
                panel.dot(_strength(p), share, shade, hollow=not p.passes, ringed=chosen)
    return panel


def _best_of_random(value: v1.StudiedValue) -> list[tuple[float, float | None, float | None]]:
    """Range over the random directions of what the best layer of each reaches, by strength."""
    best: dict[float, dict[int, float]] = collections.defaultdict(dict)
    for p in value.development_points:
        share = _expressing(p)
        if p.HasField("random") and p.HasField("coefficient") and share is not None:
            at = best[_strength(p)]
            at[p.random] = max(share, at.get(p.random, share))
    return [(c, min(of.values()), max(of.values())) for c, of in sorted(best.items())]


def _choice_table(value: v1.StudiedValue) -> str:
    names = {s.selection.subject: look(s.subject).name for s in value.selections}
    chosen = {s.selection.point for s in value.selections if s.selection.HasField("point")}
    return data_table(
        ["steered", "layers", "strength", "expressing", "guard", "chosen"],
        [
            [
                [RANDOM.removesuffix("s") + " ", count(p.random)]
                if p.HasField("random")
                else names.get(p.subject, p.name),
                _spaced(p.layers),
                decimal(_strength(p)) if p.subject else "–",
                percent(_expressing(p)),
                "kept" if p.passes else "broken: " + ", ".join(p.failed_bounds),
                "chosen" if p.name in chosen else "",
            ]
            for p in value.development_points
        ],
    )


def _spaced(layers: Sequence[int]) -> Sentence:
    sentence: Sentence = []
    for layer in layers:
        sentence += [" ", count(layer)] if sentence else [count(layer)]
    return sentence or ["–"]


# --- Test queries ------------------------------------------------------------------------------------------------------


def outcomes_section(value: v1.StudiedValue, identity: str) -> str:
    """What was measured on test queries, beside random directions."""
    outcomes = compared(value)
    if not outcomes:
        return ""
    panels = [
        _rows(value, SHARE, "Answers that express the value", "share of answers"),
        _rows(value, "questionnaire", "Questionnaire, less the mean of all items", ""),
    ]
    caption = (
        "What steering does to unseen queries, by the list that scores and that nothing was chosen by, with 95 % intervals. Hollow: the guard, "
        "held on development queries, breaks on these; read nothing from such a row but that."
    )
    return section(
        "Steering unseen queries",
        identity,
        figure(caption, [p for p in panels if p], _effects_table(value), _row_keys()),
        _untested(value),
    )


def costs_section(value: v1.StudiedValue, identity: str) -> str:
    """Diversity, fluency, capability and refusals."""
    drawn = [_rows(value, name, title, share) for name, title, _, share in _COSTS]
    panels = [panel for panel in drawn if panel]
    if not panels:
        return ""
    caption = (
        "What steering costs: how varied answers stay, how likely the unsteered model finds them, what is left of capability, how "
        "often they refuse. Distinct-2 falls with the length of texts, which its expectation-adjusted form (EAD) takes out."
    )
    figures = figure(caption, panels, _costs_table(value), _row_keys())
    return section("Diversity and controls", identity, figures)


def _row_keys() -> str:
    return legend(
        [
            ("dot", "plain", "keeps the guard"),
            ("hollow", "plain", "breaks it"),
            ("band", "random", "range of the random directions"),
            ("dashed", "plain", "no steering"),
        ]
    )


def _rows(value: v1.StudiedValue, name: str, title: str, share_of: str) -> Panel | None:
    found = [(outcome, one) for outcome in compared(value) if (one := measure(outcome, name))]
    if not found:
        return None
    randoms = random_values(value, name)
    ends = [
        n
        for _, one in found
        if one.HasField("interval")
        for n in (one.interval.lower, one.interval.upper)
    ]
    numbers = [*(one.value for _, one in found), *ends, *randoms]
    panel = Rows(
        title,
        "One row a way to answer: a dot with its interval, hollow where the guard breaks; a band for the random directions.",
        Axis.around(numbers, share_of, is_share=bool(share_of)),
        [look_of_outcome(outcome).name for outcome, _ in found],
    )
    if randoms:
        panel.stripe(min(randoms), max(randoms), "random")
    for outcome, one in found:
        if outcome.name == "baseline":
            panel.segment((one.value, -0.5), (one.value, len(found) - 0.5), "plain thin dashed")
    for row, (outcome, one) in enumerate(found):
        colour = look_of_outcome(outcome).colour
        if one.HasField("interval"):
            panel.interval(row, one.interval.lower, one.interval.upper, colour)
        panel.dot(one.value, row, colour, hollow=not outcome.keeps_guard)
    return panel


def _named(outcome: v1.StudyOutcome, seen: Look) -> Sentence:
    if is_random(outcome):
        return ["random direction ", count(outcome.subject.random_direction)]
    return [seen.name]


def _effects_table(value: v1.StudiedValue) -> str:
    headings = [
        "",
        "steered at",
        "express it",
        "95 %",
        "difference",
        "95 %",
        "p",
        "p, all comparisons",
        "p, random",
    ]
    rows = []
    for outcome in value.outcomes:
        one = measure(outcome, SHARE)
        asked = measure(outcome, "questionnaire")
        rows.append(
            [
                _named(outcome, look_of_outcome(outcome)),
                knob(outcome) or ["–"],
                *_effect(one, percent, points),
                p_value(field(one, "adjusted_p_value")) if one else "–",
                p_value(field(one, "random_p_value")) if one else "–",
                *_effect(asked, decimal, signed)[:-1],
                "kept" if outcome.keeps_guard else "broken: " + ", ".join(outcome.failed_bounds),
            ]
        )
    return data_table([*headings, "questionnaire", "95 %", "difference", "95 %", "guard"], rows)


def _effect(
    one: v1.StudyMeasure | None, write: _Writer, difference: _Writer
) -> list[Part | Sentence]:
    """A measure, its interval, its difference to the baseline, that's interval and p."""
    if one is None:
        return ["–"] * 5
    return [
        write(one.value),
        interval(one.interval, write) if one.HasField("interval") else "–",
        difference(one.difference) if one.HasField("difference") else "–",
        interval(one.difference_interval, difference)
        if one.HasField("difference_interval")
        else "–",
        p_value(field(one, "p_value")),
    ]


def _costs_table(value: v1.StudiedValue) -> str:
    """Every measure of every outcome but those of the table of effects."""
    writers = {name: write for name, _, write, _ in _COSTS}
    names = list(
        dict.fromkeys(
            one.name
            for outcome in value.outcomes
            for one in outcome.measures
            if one.name not in (SHARE, "questionnaire")
        )
    )
    rows = []
    for outcome in value.outcomes:
        cells: list[Part | Sentence] = [_named(outcome, look_of_outcome(outcome))]
        for name in names:
            one, write = measure(outcome, name), writers.get(name, decimal)
            cells.append(write(one.value) if one else "–")
            cells.append(interval(one.interval, write) if one and one.HasField("interval") else "–")
        rows.append(cells)
    return data_table(["", *(h for name in names for h in (name.replace("_", " "), "95 %"))], rows)


def _untested(value: v1.StudiedValue) -> str:
    if not value.untested:
        return ""
    return paragraph("Not tested:") + data_table(
        ["what", "why"], [[one.name.replace("_", " "), one.reason] for one in value.untested]
    )
