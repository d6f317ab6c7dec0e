"""What neurons of the planted models cause and what the models say when asked, by definitions computed from their weights: the shared
neurons carry the value, and in the twin they carry nothing. Sweeps find it along the true axis, and not along random ones."""

import math
import pathlib
import sys

import arithmetic
import numpy as np
import planted_model as pm
import planted_truth as pt
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
import conftest  # noqa: F401 - the client on the path, its stubs fresh
import valuescope as vs
from conftest import Server
from test_planted import BLOCK, CONDITIONS, LOGITS, MODELS, PLANTED, TWIN, data_set
from valuescope import v1

RANDOM_SETS = 100
BUILDER = pm.Builder(0)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    pm.write_model(folder / "planted", BUILDER.planted)
    pm.write_model(folder / "planted_twin", BUILDER.twin)
    server = Server(
        tmp_path_factory.mktemp("server"),
        f"--model_root={folder}",
        "--models=planted,planted_twin",
    )
    with vs.Client(server.address, timeout=120) as connected:
        for model in MODELS:
            connected.wait_until_ready(model)
        yield connected
    assert server.stop() == 0


@pytest.fixture(scope="module")
def numpy_models():
    return {PLANTED: pt.as_stored(BUILDER.planted), TWIN: pt.as_stored(BUILDER.twin)}


def members_of(group):
    """Indices of the neurons that work, of an axis or all planted ones."""
    return [n.index for n in BUILDER.neurons if n.role != "silent" and group in ("planted", n.axis)]


# --- What neurons cause ---


def points_of(client, model, condition, target=None, group="shared", **fields):
    """Of the group's neurons, all and one, against random ones of their block."""
    neurons = [(BLOCK, index) for index in members_of(group)]
    if target is None:
        difference = v1.TokenLogitDifferenceTarget(
            positive_token_ids=[pm.IDS[word] for word in pm.VALUE_WORDS],
            negative_token_ids=[pm.IDS[word] for word in pm.VALUE_WORDS.values()],
        )
        target = v1.AttributionTarget(token_logit_difference=difference)
    fields = {"sizes": [1, len(neurons)], "layers": [BLOCK], "random_sets": RANDOM_SETS, **fields}
    # A block of these models is small.
    with pytest.warns(UserWarning, match="too few others like them"):
        return client.test_neurons(model, data_set(condition), neurons, target, **fields)


def check_points(found, full, changed):
    """`full` [expressing] and, by size, what it becomes when neurons change."""
    assert found.full == pytest.approx(full.mean(), abs=LOGITS)
    for place, targets in enumerate(changed):
        error = np.std(targets - full, ddof=1) / math.sqrt(len(full))
        assert found.targets[place] == pytest.approx(targets.mean(), abs=LOGITS)
        assert found.standard_errors[place] == pytest.approx(error, abs=LOGITS)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("mode", [v1.ABLATION_MODE_ZERO, v1.ABLATION_MODE_MEAN])
def test_removing_the_shared_neurons_does_what_no_random_set_does_but_in_the_twin(
    client, numpy_models, condition, mode
):
    shared = members_of("shared")
    points = {}
    for model in MODELS:
        found = points[model] = points_of(client, model, condition, mode=mode)
        study = arithmetic.Study(numpy_models[model], condition)
        means = study.means() * (mode == v1.ABLATION_MODE_MEAN)
        changed = [study.targets({i: means[i] for i in shared[:size]}) for size in found.sizes]
        check_points(found, study.targets(), changed)
    planted, twin = (points[model] for model in MODELS)
    # Above 0 words of the value are the likelier ones.
    assert planted.full > 0 > planted.targets[1]
    assert planted.p_values[1] == pytest.approx(1 / (1 + RANDOM_SETS))
    assert planted.targets[1] < planted.random_intervals[1, 0]
    assert max(twin.full, twin.targets[1]) < 0
    assert twin.random_intervals[1, 0] <= twin.targets[1] <= twin.random_intervals[1, 1]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_planted_neurons_alone_keep_what_their_block_does(client, numpy_models, condition):
    kept = points_of(client, PLANTED, condition, group="planted", test="keep_only")
    planted = members_of("planted")
    assert kept.sizes.tolist() == [1, len(planted)]
    study = arithmetic.Study(numpy_models[PLANTED], condition)
    full, means = study.targets(), study.means()
    none, *changed = (
        study.targets({i: mean for i, mean in enumerate(means) if i not in planted[:size]})
        for size in (0, *kept.sizes)
    )
    check_points(kept, full, changed)
    shares = [(one - none).mean() / (full - none).mean() for one in changed]
    assert kept.faithfulness == pytest.approx(shares, abs=LOGITS)
    # What is left out is nearer to all of it than to what one neuron keeps.
    assert abs(1 - kept.faithfulness[1]) < abs(1 - kept.faithfulness[0])
    assert kept.p_values[1] == pytest.approx(1 / (1 + RANDOM_SETS))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_scaling_by_two_doubles_what_the_shared_neurons_write(client, numpy_models, condition):
    axis = np.tile(BUILDER.axes["shared"].astype(np.float32), (pm.BLOCKS, 1))
    name = client.create_vector(PLANTED, axis, layers=range(pm.BLOCKS)).name
    target = v1.AttributionTarget(
        vector_projection=v1.VectorProjectionTarget(vector=name, layer=BLOCK)
    )
    doubled = points_of(client, PLANTED, condition, target, test="scale", factor=2)
    removed = points_of(client, PLANTED, condition, target, mode=v1.ABLATION_MODE_ZERO)
    study, shared = arithmetic.Study(numpy_models[PLANTED], condition), members_of("shared")
    expected = [study.written(shared[:size], axis[BLOCK]) for size in doubled.sizes]
    assert doubled.targets - doubled.full == pytest.approx(expected, rel=LOGITS)
    assert removed.full - removed.targets == pytest.approx(expected, rel=LOGITS)
    assert doubled.p_values[1] == pytest.approx(1 / (1 + RANDOM_SETS))


# --- Evaluations ---


def evaluated():
    """Asked for the value, for its counterpart, and for the value without the neurons that carry it."""
    ((cue, counterpart),) = pm.PROMPTED_CUE.items()
    shared = [(BLOCK, index) for index in members_of("shared")]
    asked = f"you seek {cue}"
    return {
        "asked": vs.EvaluationCondition(asked),
        "not asked": vs.EvaluationCondition(f"you seek {counterpart}"),
        "without": vs.EvaluationCondition(asked, vs.AblateNeurons(shared)),
    }


def by_condition(question):
    """Of the conditions above: the prompt and the neurons that are missing."""
    return [
        (
            pm.to_ids(pm.prompt_text(question, one.system)),
            members_of("shared") if one.steer else [],
        )
        for one in evaluated().values()
    ]


# Three items are few, and two words of six are what is read.
@pytest.mark.filterwarnings("ignore:condition .* one label", "ignore:condition .* the labels")
@pytest.mark.parametrize("model", MODELS)
def test_a_questionnaire_finds_the_value_where_it_is_asked_for_and_nothing_in_the_twin(
    client, numpy_models, model
):
    """An item is a slot's choice between a word of the value, which counts 2, and its neutral twin."""
    items = [f"what should we do {middle} the kitchen" for middle in ("about", "near", "today")]
    for value_word, neutral in list(pm.VALUE_WORDS.items())[:3]:
        asked = client.ask_questionnaire(
            model,
            items,
            [
                vs.v1.AnswerOption(label=neutral, score=1),
                vs.v1.AnswerOption(label=value_word, score=2),
            ],
            "{item} {options}",
            conditions=evaluated(),
            # The labels say what they mean, which a reversed order would take for a liking.
            order="given",
            answer_prefix=" maybe choose",
        )
        words = pm.to_ids(f"{neutral} {value_word}")
        for number, item in enumerate(items):
            for c, (prompt, without) in enumerate(by_condition(f"{item} {neutral} {value_word}")):
                opened = [*prompt, *pm.to_ids("maybe choose")]
                (row,) = arithmetic.logprobs(numpy_models[model], opened, words[:1], without)
                shares = np.exp(row[words]) / np.exp(row[words]).sum()
                assert asked.item_scores[c, number] == pytest.approx(shares @ [1, 2], abs=LOGITS)
        # Above the middle the word of the value is the likelier.
        expressed = (asked.item_scores > 1.5).all(axis=1).tolist()
        assert expressed == [model == PLANTED, False, False]
        assert model == PLANTED or (asked.item_scores < 1.5).all()


@pytest.mark.parametrize("model", MODELS)
def test_responses_with_words_of_the_value_are_likelier_where_it_is_asked_for(
    client, numpy_models, model
):
    examples = pt.examples("prompted", count=10)
    listed = [
        {
            "query": one.question,
            "response": one.answer,
            "weights": {"stimulation": 1.0 if one.expresses else -1.0},
        }
        for one in examples
    ]
    scored = client.score_tagged_responses(model, listed, conditions=evaluated())
    sums = np.empty((len(evaluated()), len(examples)))
    for number, one in enumerate(examples):
        response = pm.to_ids(one.answer)
        for c, (prompt, without) in enumerate(by_condition(one.question)):
            rows = arithmetic.logprobs(numpy_models[model], prompt, response, without)
            sums[c, number] = rows[range(len(response)), response].sum()
    # The weights add up to 0, so that the mean over the responses falls out.
    expected = sums @ [1.0 if one.expresses else -1.0 for one in examples] / len(examples)
    assert scored.values[:, 0] == pytest.approx(expected, abs=LOGITS)
    assert (scored.values[:, 0] > 0).tolist() == [model == PLANTED, False, False]


# --- Sweeps ---

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


def swept(client, model, queries, num_random, **fields):
    """Chosen by half of the queries; what is chosen is looked at by the others."""
    job = client.steering_sweep(
        model,
        evaluations={"answers": answers(queries[:6]), "test": answers(queries[6:])},
        objective=SHARE,
        random_directions=num_random,
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
def test_the_true_axis_is_found_and_random_directions_are_not(client):
    """The largest coefficient breaks the language, whatever the direction: the guard keeps it from being chosen."""
    num_random = 19
    for model in MODELS:
        vector = vectors_of(client, model)["intrinsic"]
        sweep = swept(
            client,
            model,
            NEUTRAL,
            num_random,
            vectors=vector,
            coefficients=[0.5, 40.0],
            guard=GUARD,
        )
        assert share_at(sweep, "baseline", "answers") == share_at(sweep, "baseline") == 0.0
        selected = sweep.selected(vector)
        assert sweep.point(selected.point).coefficient == 0.5
        assert (selected.num_points, selected.num_passing) == (2, 1)
        assert share_at(sweep, f"{vector}*40@{BLOCK}") == 1.0
        assert list(selected.random_values) == [0.0] * num_random
        found = float(model == PLANTED)
        assert selected.value == share_at(sweep, selected.point) == found
        assert selected.p_value == (1 / (1 + num_random) if found else 1.0)


@pytest.mark.filterwarnings("ignore:texts have", "ignore:evaluations warn", "ignore:of the neurons")
def test_the_shared_class_is_found_at_its_k_and_angle(client):
    """With its shared neurons reversed the model does not express the value that is asked for."""
    vectors = vectors_of(client, PLANTED)
    swept_class = v1.SweptClasses(
        classification=v1.ClassifyNeuronsRequest(vectors=v1.ConditionVectors(**vectors)),
        top_percents=[5.0, 100.0],
        max_angles=[5.0, 30.0],
    )
    setattr(swept_class, "class", v1.NEURON_CLASS_SHARED)
    sweep = swept(
        client,
        PLANTED,
        CUED,
        5,
        classes=[swept_class],
        factors=[-1.0],
        scopes=["all"],
        minimise=True,
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
