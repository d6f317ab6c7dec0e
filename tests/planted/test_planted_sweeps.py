"""Steering sweeps over the planted models: along the true axis the value is found and random directions tuned over the same grid do not
find it, and in the twin there is nothing to find."""

import pathlib
import sys

import numpy as np
import planted_model as pm
import planted_truth as pt
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import conftest  # noqa: F401 - the client on the path, its stubs fresh
import valuescope as vs
from test_planted import BLOCK, MODELS, PLANTED
from test_planted_effects import BUILDER, client, members_of  # noqa: F401 - a fixture
from valuescope import v1

RANDOM = 19
SHARE = ("answers", "expressing_share")
EXAMPLES = pt.examples("intrinsic", count=12)
# Of which none asks for the value, and all do.
NEUTRAL = [one.question for one in EXAMPLES if not one.expresses]
CUED = [one.question for one in EXAMPLES if one.expresses]
GUARD = [v1.SweepBound(evaluation="answers", measure="perplexity", ratio_at_most=2.0)]


def answers(queries):
    return vs.swept_responses(
        queries,
        judge=vs.WordList(list(pm.VALUE_WORDS)),
        measures={"perplexity": True},
        temperature=0,
        max_tokens=8,
    )


def swept(client, model, queries, **fields):
    """Chosen by half of the queries; what is chosen is looked at by the others."""
    job = client.steering_sweep(
        model,
        evaluations={"answers": answers(queries[:6]), "test": answers(queries[6:])},
        objective=SHARE,
        random_directions=RANDOM,
        layers=[BLOCK],
        **fields,
    )
    return client.sweep_result(job.name)


def share_at(sweep, point, evaluation="test"):
    names = [p.name for p in sweep.points]
    return sweep.values(evaluation, "expressing_share")[names.index(point)]


def vectors_of(client, model):
    """What responses that express the value have more, by condition."""
    return {
        condition: client.create_vector(model, np.float32(row)[None], layers=[BLOCK]).name
        for condition, row in BUILDER.vectors().items()
    }


@pytest.mark.filterwarnings("ignore:texts have", "ignore:evaluations warn")
def test_the_true_axis_is_found_and_random_directions_are_not(client):  # noqa: F811
    """The largest coefficient breaks the language, whatever the direction: the guard keeps it from being chosen."""
    for model in MODELS:
        vector = vectors_of(client, model)["intrinsic"]
        sweep = swept(client, model, NEUTRAL, vectors=vector, coefficients=[0.5, 40.0], guard=GUARD)
        assert share_at(sweep, "baseline", "answers") == share_at(sweep, "baseline") == 0.0
        selected = sweep.selected(vector)
        assert sweep.point(selected.point).coefficient == 0.5
        assert (selected.num_points, selected.num_passing) == (2, 1)
        assert share_at(sweep, f"{vector}*40@{BLOCK}") == 1.0
        assert list(selected.random_values) == [0.0] * RANDOM
        found = float(model == PLANTED)
        assert selected.value == share_at(sweep, selected.point) == found
        assert selected.p_value == (1 / (1 + RANDOM) if found else 1.0)


@pytest.mark.filterwarnings("ignore:texts have", "ignore:evaluations warn", "ignore:of the neurons")
def test_the_shared_class_is_found_at_its_k_and_angle(client):  # noqa: F811
    """With its shared neurons reversed the model does not express the value that is asked for."""
    vectors = vectors_of(client, PLANTED)
    swept_class = v1.SweptClasses(
        classification=v1.ClassifyNeuronsRequest(vectors=v1.ConditionVectors(**vectors)),
        top_percents=[5.0, 100.0],
        max_angles=[5.0, 30.0],
    )
    setattr(swept_class, "class", v1.NEURON_CLASS_SHARED)
    sweep = swept(
        client, PLANTED, CUED, classes=[swept_class], factors=[-1.0], scopes=["all"], minimise=True
    )
    assert share_at(sweep, "baseline", "answers") == share_at(sweep, "baseline") == 1.0
    selected = sweep.selected("classes[0]")
    chosen = sweep.point(selected.point)
    # The best of few is not enough.
    assert chosen.top_percent == 100.0 and chosen.num_neurons >= len(members_of("shared")) - 1
    assert selected.value == share_at(sweep, selected.point) == 0.0
    fewer = [p.name for p in sweep.points if p.top_percent == 5.0 and not p.HasField("random")]
    assert {share_at(sweep, name) for name in fewer} == {1.0}
    # The block is small, and the sweep says so: half of it reversed does much too.
    assert selected.num_unmatched > 0
    assert any("too few others like them" in warning for warning in sweep.result.warnings)
    assert selected.random_mean > selected.value
