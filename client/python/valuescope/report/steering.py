"""What steering came to on test queries: answers, questionnaire, and what it costs, beside random directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    SHARE,
    Look,
    compared,
    is_random,
    knob,
    look_of_outcome,
    measure,
    random_values,
)
from .svg import Axis, Panel, Rows

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
        figure(caption, [p for p in panels if p], _effects_table(value.outcomes), _row_keys()),
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


def languages_section(value: v1.StudiedValue, identity: str) -> str:
    """What was chosen, tested in other languages."""
    tables = []
    for transfer in value.transfers:
        lead: Sentence = [f"In {transfer.language}, against ", count(transfer.num_comparisons)]
        tables.append(paragraph([*lead, " comparisons:"]) + _effects_table(transfer.outcomes))
    if not tables:
        return ""
    note = (
        "Nothing was chosen in these languages: every way to answer is the one that was chosen above, and its differences are from the "
        "unsteered model in the same language. A guard that is broken above is broken here."
    )
    return section("In other languages", identity, paragraph(note), *tables)


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


def _effects_table(outcomes: Iterable[v1.StudyOutcome]) -> str:
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
    for outcome in outcomes:
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
