"""The three sentences that a study comes to, made of its numbers, each with its uncertainty."""

from __future__ import annotations

import collections

from .. import v1
from .across import AGREEMENTS
from .numbers import (
    JOINED,
    Sentence,
    count,
    decimal,
    field,
    in_words,
    interval,
    p_value,
    percent,
    plain,
    points,
)
from .subjects import SHARE, along, knob, measure, studied

_INTRINSIC, _PROMPTED = v1.STUDY_DIRECTION_INTRINSIC, v1.STUDY_DIRECTION_PROMPTED
# What the paper says of each quantity, in a few words.
_CLAIMS = {
    "questionnaire_prompted_over_intrinsic": "the prompted vector moves the questionnaire more",
    "diversity_intrinsic_over_prompted": "the intrinsic vector keeps answers more diverse",
    "retained_norm_fraction": "either vector keeps only part of its norm beside the other",
    "mean_delta_explained_variance": "what prompting adds lies largely along one direction",
    "cross_value_cosine": "prompting adds much the same for different values",
    "circumplex_r_squared": "values lie on the circle more than random directions do",
    "shared_neurons_over_unique": "shared neurons move the questionnaire more",
    "refusals_prompted_over_intrinsic": "answers along the prompted vector refuse less",
}


def findings(results: v1.ValueStudyResult) -> list[str]:
    """The three main findings as plain text, to print at the end of a study."""
    return [plain(sentence) for sentence in sentences(results)]


def sentences(results: v1.ValueStudyResult) -> list[Sentence]:
    """What steering does, what the two vectors share, how it stands beside the paper."""
    values = list(studied(results))
    if not values:
        failed: Sentence = [
            "No value has vectors: too few answers express one under either condition."
        ]
        return [
            failed,
            [f"{value.value}: {value.failure}" for value in results.values],
            _paper(results),
        ]
    lead = max(values, key=_effect)
    return [_steering(results, values, lead), _sharing(results, lead), _paper(results)]


def _effect(value: v1.StudiedValue) -> float:
    """The larger difference of the two vectors, of those that keep the guard."""
    found = [along(value, direction) for direction in (_INTRINSIC, _PROMPTED)]
    kept = [measure(one, SHARE) for one in found if one and one.keeps_guard]
    return max((one.difference for one in kept if one), default=float("-inf"))


def _steering(
    results: v1.ValueStudyResult, values: list[v1.StudiedValue], lead: v1.StudiedValue
) -> Sentence:
    plain_answers = next((o for o in lead.outcomes if o.name == "baseline"), None)
    unsteered = measure(plain_answers, SHARE) if plain_answers else None
    begin: Sentence = [lead.value.capitalize()]
    if len(values) > 1:
        begin += [f", of {in_words(len(values))} values the one that moves most,"]
    begin += [" is in ", percent(unsteered.value if unsteered else None)]
    begin += [" of the answers to ", count(results.num_test_queries), " unseen queries, "]
    return [
        *begin,
        *_along(lead, _INTRINSIC, "the intrinsic vector", with_layer=True),
        ", and ",
        *_along(lead, _PROMPTED, "the prompted one", with_layer=False),
        ".",
    ]


def _along(value: v1.StudiedValue, direction: int, name: str, *, with_layer: bool) -> Sentence:
    outcome = along(value, direction)
    one = measure(outcome, SHARE) if outcome else None
    if outcome is None or one is None:
        return [f"cannot be steered along {name} within the guard"]
    sentence: Sentence = ["in ", percent(one.value), f" when steered along {name}"]
    if with_layer:
        sentence += [" (", *knob(outcome), ")"]
    if one.HasField("difference"):
        sentence += [": ", points(one.difference), " points"]
    if one.HasField("difference_interval"):
        sentence += [f", 95{JOINED}% ", *interval(one.difference_interval, points)]
    for name_of_p, told in (
        ("adjusted_p_value", "over all comparisons"),
        ("random_p_value", "against random directions"),
    ):
        if one.HasField(name_of_p):
            sentence += [", p ", p_value(field(one, name_of_p)), f" {told}"]
    return sentence if outcome.keeps_guard else [*sentence, ", though the guard breaks there"]


def _sharing(results: v1.ValueStudyResult, value: v1.StudiedValue) -> Sentence:
    outcome = along(value, _INTRINSIC) or along(value, _PROMPTED)
    steered = [layer.layer for layer in results.layers if layer.steered]
    layer = outcome.layers[0] if outcome and outcome.layers else steered[-1] if steered else 0
    found = [one for one in value.decomposition.layers if one.layer == layer]
    if not found:
        return ["What the two vectors share is not known in the layers that were steered."]
    sentence: Sentence = [
        "In layer ",
        count(layer),
        " the two vectors have a cosine of ",
        decimal(found[0].cosine),
    ]
    if found[0].HasField("disattenuated_cosine"):
        sentence += [" (", decimal(found[0].disattenuated_cosine), " without the noise in them)"]
    sentence += [", so that ", percent(found[0].retained_norm_fraction)]
    sentence += [
        " of either's norm is left after orthogonalising; steering along what is left gives "
    ]
    sentence += _left(value, v1.STUDY_DIRECTION_INTRINSIC_ORTHOGONAL, "intrinsic")
    sentence += [" and "]
    sentence += _left(value, v1.STUDY_DIRECTION_PROMPTED_ORTHOGONAL, "prompted")
    return [*sentence, "."]


def _left(value: v1.StudiedValue, direction: int, name: str) -> Sentence:
    outcome = along(value, direction)
    one = measure(outcome, SHARE) if outcome else None
    if outcome is None or one is None or not one.HasField("difference"):
        return [f"nothing within the guard ({name})"]
    sentence: Sentence = [points(one.difference), f" points ({name}"]
    if one.HasField("difference_interval"):
        sentence += [f", 95{JOINED}% ", *interval(one.difference_interval, points)]
    return [*sentence, ")" if outcome.keeps_guard else ", guard broken)"]


def _paper(results: v1.ValueStudyResult) -> Sentence:
    by_agreement = collections.defaultdict(list)
    for one in results.paper:
        by_agreement[AGREEMENTS.get(one.agreement, "not told")].append(one)
    if not by_agreement:
        return ["Nothing was compared with the paper."]
    told = [f"{in_words(len(by_agreement[name]))} {name}" for name in AGREEMENTS.values()]
    sentence = f"Of {in_words(len(results.paper))} comparisons with the paper: {', '.join(told)}."
    for name, begin in (
        ("supported", "Found here too"),
        ("contradicted", "The other way round here"),
    ):
        if by_agreement[name]:
            claims = dict.fromkeys(_claim(one) for one in by_agreement[name])
            sentence += f" {begin}: {'; '.join(claims)}."
    return [sentence]


def _claim(one: v1.PaperQuantity) -> str:
    claim = _CLAIMS.get(one.name, one.description.rstrip("."))
    return f"{claim} ({one.value})" if one.value else claim
