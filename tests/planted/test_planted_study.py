"""A value study of the planted model through the public API alone: it finds the axes, the classes of neurons and what they cause, and in
the twin, which lacks the mechanism, it finds nothing."""

import itertools

import numpy as np
import planted_model as pm
import pytest
from test_planted import BLOCK, CONDITIONS, PLANTED, TWIN, client, cosine, folder, truth, vs  # noqa: F401

v1 = vs.v1
pytestmark = pytest.mark.filterwarnings("ignore")
LABELS = ["thrill", "novelty", "daring"]
SCORES = ["surprise", "risk", "adventure"]
# Half of the answers do not express the value, so that a direction can be made of those that do.
SYSTEM = ["you seek stimulation", "you seek moderation"]
RANDOM = 20


def questions(places):
    return [
        f"what should {middle} on {day} with {whom} near the {place}"
        for middle, day, whom, place in itertools.product(
            ["we do", "you seek"], ["saturday", "sunday", "today"], ["friends", "you"], places
        )
    ]


CUED, NEUTRAL = questions(pm.INTRINSIC_CUES), questions(pm.INTRINSIC_CUES.values())


def spec_of(model, **changes):
    words = [v1.Judge(word_list=v1.WordListJudge(words=half)) for half in (LABELS, SCORES)]
    value = v1.ValueDefinition(
        value="stimulation", system_messages=SYSTEM, judge=words[0], score_judge=words[1]
    )
    fields = {
        "model": model,
        "values": [value],
        "queries": [*CUED[:10], *NEUTRAL[:14]],
        "development_queries": NEUTRAL[14:18],
        "test_queries": NEUTRAL[20:32],
        "sampling": v1.SamplingParams(max_tokens=6, temperature=0.5, seed=1),
        "samples_per_query": 4,
        "steered_sampling": v1.SamplingParams(max_tokens=6, temperature=0),
        "min_responses": 4,
        "steered_layers": v1.Layers(list=v1.LayerList(layers=[BLOCK])),
        "coefficients": [0.4, 0.65],
        "random_directions": RANDOM,
        # The grammar says little, in whichever way: what the guard holds is that it is one.
        "guard": [v1.SweepBound(evaluation="responses", measure="mean_tokens", at_least=4)],
        "neurons": v1.StudyNeurons(top_percents=[50], max_angles=[45], removed=[4], random_sets=24),
        "permutations": 4000,
        "bootstrap_samples": 400,
    }  # fmt: skip
    return v1.ValueStudySpec(**(fields | changes))


@pytest.fixture(scope="module")
def value(client):  # noqa: F811
    handle = client.value_study(spec_of(PLANTED))
    handle.wait()
    (value,) = handle.result().study.values
    assert not value.failure
    return value


def row_of(client, vector, block=BLOCK):  # noqa: F811
    return client.vector_data(vector)[block].astype(np.float64)


def share_of(value, name):
    (outcome,) = [one for one in value.outcomes if one.name == name]
    return next(m for m in outcome.measures if m.name == "expressing_share")


def test_the_axes_are_those_that_were_planted(client, truth, value):  # noqa: F811
    axes = {name: np.array(row) for name, row in truth["directions"].items()}
    plane = np.stack([axes[name] for name in ("shared", "intrinsic", "prompted")])
    for vector, condition in zip(value.vectors, CONDITIONS, strict=True):
        row = row_of(client, vector.vector)
        # The answers' other words differ by chance.
        assert np.linalg.norm(plane @ row) > 0.99 * np.linalg.norm(row), condition
        told = vector.statistics[BLOCK]
        assert told.auroc > 0.9 and not told.within_noise
    intrinsic = np.array(truth["vectors"]["intrinsic"])
    assert cosine(row_of(client, value.vectors[0].vector), intrinsic) > 0.99
    shared = row_of(client, value.decomposition.shared)
    assert shared @ axes["shared"] > max(shared @ axes["intrinsic"], shared @ axes["prompted"])


def test_neurons_have_the_classes_of_what_they_write(client, truth, value):  # noqa: F811
    told = {(one.layer, one.index): getattr(one, "class") for one in value.classification.top}
    for neuron in truth["neurons"]:
        if neuron["role"] == "shared":
            assert told[(BLOCK, neuron["index"])] == v1.NEURON_CLASS_SHARED
    (planted,) = [layer for layer in value.classification.layers if layer.layer == BLOCK]
    (shared,) = [c for c in planted.classes if getattr(c, "class") == v1.NEURON_CLASS_SHARED]
    assert shared.count > shared.expected_count


def test_what_the_planted_neurons_cause_no_random_set_does(value):
    for told in value.causal_controls:
        last = told.points[-1]
        assert abs(last.target - told.full) > 0.2 * abs(told.full)
        assert last.p_value < 0.05


def test_steering_along_the_axes_is_found_and_along_random_directions_is_not(value):
    assert share_of(value, "baseline").value == 0
    found = {}
    for name in ("intrinsic", "prompted", "shared"):
        told = share_of(value, name)
        found[name] = told
        assert told.value == 1 and told.difference_interval.lower > 0.5, name
        assert told.adjusted_p_value < 0.05 and told.random_p_value < 0.05, name
    # Without the shared axis the value is not expressed.
    for name in ("intrinsic_unique", "prompted_unique"):
        assert share_of(value, name).value < 0.5, name
    random = [one for one in value.outcomes if one.subject.HasField("random_direction")]
    assert len(random) == RANDOM
    assert np.mean([share_of(value, one.name).value for one in random]) < 0.1


def test_in_the_twin_nothing_is_found(client):  # noqa: F811
    handle = client.value_study(spec_of(TWIN, min_responses=1, neurons=v1.StudyNeurons()))
    try:
        handle.wait()
    except vs.JobFailed as failed:
        assert failed.job.error.reason == "TOO_FEW_RESPONSES"
        return
    study = handle.result().study
    assert study.num_comparisons > 0
    (value,) = study.values
    for outcome in value.outcomes:
        if outcome.subject.HasField("direction"):
            told = share_of(value, outcome.name)
            assert told.adjusted_p_value > 0.05, outcome.name
    assert all(vector.statistics[BLOCK].within_noise for vector in value.vectors)
