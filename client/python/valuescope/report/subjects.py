"""What is compared in a study, under the names and in the colours that a page has for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from .. import v1
from .numbers import Part, Sentence, count, decimal


class _Names(dict[int, str]):
    """Names by the numbers of an enum, which a later server may have more of."""

    def __missing__(self, number: int) -> str:
        return "other"


CONDITIONS = _Names(
    {
        v1.STUDY_CONDITION_INTRINSIC: "intrinsic",
        v1.STUDY_CONDITION_PROMPTED: "prompted",
    }
)
# Names short enough for a row of a plot, and colours.
_DIRECTIONS = {
    v1.STUDY_DIRECTION_INTRINSIC: ("intrinsic vector", "intrinsic"),
    v1.STUDY_DIRECTION_PROMPTED: ("prompted vector", "prompted"),
    v1.STUDY_DIRECTION_INTRINSIC_ORTHOGONAL: ("intrinsic orthog.", "intrinsic"),
    v1.STUDY_DIRECTION_PROMPTED_ORTHOGONAL: ("prompted orthog.", "prompted"),
    v1.STUDY_DIRECTION_SHARED: ("shared axis", "shared"),
    v1.STUDY_DIRECTION_INTRINSIC_UNIQUE: ("intrinsic unique", "intrinsic"),
    v1.STUDY_DIRECTION_PROMPTED_UNIQUE: ("prompted unique", "prompted"),
    v1.STUDY_DIRECTION_MEAN_DELTA: ("mean delta", "delta"),
}
CLASSES = _Names(
    {
        v1.NEURON_CLASS_SHARED: "shared",
        v1.NEURON_CLASS_INTRINSIC: "intrinsic",
        v1.NEURON_CLASS_PROMPTED: "prompted",
        v1.NEURON_CLASS_UNCLASSIFIED: "unclassified",
    }
)
RANDOM = "random directions"
# The measure that a study chooses and reports by.
SHARE = "expressing_share"


@dataclasses.dataclass(frozen=True)
class Look:
    """A name and a colour, a class of the page's style."""

    name: str
    colour: str


def look(subject: v1.StudySubject) -> Look:
    """Of what is steered."""
    kind = subject.WhichOneof("subject")
    if kind == "direction":
        return Look(*_DIRECTIONS.get(subject.direction, ("other", "other")))
    if kind == "neurons":
        name = CLASSES[subject.neurons]
        return Look(f"{name} neurons", name)
    return Look(RANDOM, "random")


def look_of_outcome(outcome: v1.StudyOutcome) -> Look:
    """Of a way to answer, steered or not."""
    if outcome.HasField("subject") and outcome.subject.WhichOneof("subject"):
        return look(outcome.subject)
    if outcome.name == "baseline":
        return Look("no steering", "plain")
    return Look("system messages", "prompted")


def is_random(outcome: v1.StudyOutcome) -> bool:
    return bool(outcome.subject.WhichOneof("subject") == "random_direction")


def compared(value: v1.StudiedValue) -> list[v1.StudyOutcome]:
    """Every way to answer but the random directions."""
    return [outcome for outcome in value.outcomes if not is_random(outcome)]


def along(value: v1.StudiedValue, direction: int) -> v1.StudyOutcome | None:
    """The outcome of steering along a direction, where it was tested."""
    for outcome in value.outcomes:
        subject = outcome.subject
        if subject.WhichOneof("subject") == "direction" and subject.direction == direction:
            return outcome
    return None


def measure(outcome: v1.StudyOutcome, name: str) -> v1.StudyMeasure | None:
    """A measure that has a value."""
    for one in outcome.measures:
        if one.name == name and one.HasField("value"):
            return one
    return None


def random_values(value: v1.StudiedValue, name: str) -> list[float]:
    """A measure of every random direction."""
    found = (measure(outcome, name) for outcome in value.outcomes if is_random(outcome))
    return [one.value for one in found if one]


def knob(outcome: v1.StudyOutcome) -> Sentence:
    """Where and how strongly an outcome was steered: "block 14, coefficient 2.00"."""
    if not outcome.layers:
        return []
    blocks: Sentence = ["block " if len(outcome.layers) == 1 else "blocks "]
    blocks += _listed(count(layer) for layer in outcome.layers)
    for field, name in (("coefficient", "coefficient"), ("factor", "factor")):
        if outcome.HasField(field):
            blocks += [f", {name} ", decimal(getattr(outcome, field))]
    if outcome.HasField("top_percent"):
        blocks += [", ", decimal(outcome.top_percent), " % of neurons"]
    return blocks


def studied(results: v1.ValueStudyResult) -> Iterator[v1.StudiedValue]:
    """Values that have vectors."""
    return (value for value in results.values if not value.failure)


def _listed(parts: Iterable[Part]) -> Sentence:
    sentence: Sentence = []
    for part in parts:
        sentence += [", ", part] if sentence else [part]
    return sentence
