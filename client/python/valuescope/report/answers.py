"""Answers of a study side by side, as the model gave them."""

from __future__ import annotations

from .. import html, v1
from .layout import folded, paragraph, section
from .subjects import look_of_outcome


def answers_section(value: v1.StudiedValue, identity: str) -> str:
    """Some test queries, each with the answers of every way to steer that was tested."""
    if not value.answers:
        return ""
    outcomes = {outcome.name: outcome for outcome in value.outcomes}
    blocks = []
    for asked in value.answers:
        first: list[str] = []
        others: list[str] = []
        for one in asked.answers:
            outcome = outcomes.get(one.outcome, v1.StudyOutcome(name=one.outcome))
            (first if _is_main(outcome) else others).append(_card(outcome, one))
        more = folded("Steered in other ways", _cards(others)) if others else ""
        blocks.append(
            f'<div class="query"><h4><q>{html.escape(asked.query)}</q></h4>{_cards(first)}{more}</div>'
        )
    note = (
        "The first sample of each way to answer, unedited. A filled mark: the judge that scores finds the value in it. A dashed "
        "border: the guard breaks for this way to steer."
    )
    return section("Answers side by side", identity, paragraph(note, "note"), *blocks)


def _is_main(outcome: v1.StudyOutcome) -> bool:
    """Whether an outcome is unsteered, or steered along one of the two vectors."""
    mains = (v1.STUDY_DIRECTION_INTRINSIC, v1.STUDY_DIRECTION_PROMPTED)
    return not outcome.HasField("subject") or outcome.subject.direction in mains


def _cards(cards: list[str]) -> str:
    return f'<div class="answers">{"".join(cards)}</div>'


def _card(outcome: v1.StudyOutcome, answer: v1.StudyAnswer) -> str:
    seen = look_of_outcome(outcome)
    mark = "expresses" if answer.expresses else "not"
    told = "expresses the value" if answer.expresses else "does not express the value"
    frame = "" if outcome.keeps_guard else " breaks"
    return (
        f'<article class="{seen.colour}{frame}"><h5><i class="mark {mark}" role="img" aria-label="{told}"></i>'
        f"{html.escape(seen.name)}</h5><blockquote>{html.escape(answer.text)}</blockquote></article>"
    )
