"""Steering sweeps through the real server on tiny models whose vocabularies are words: a point's numbers are those of the calls that
measure the same by hand, and the rest is worked out here from the points."""

import json
import math
import re

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server, run
from google.protobuf import json_format
from test_generated_responses import (
    DRAWS,
    JUDGE,
    MODEL,
    QUERIES,
    QUESTION,
    WORDS,
    artifact_of,
    flags,
    lines_of,
    make_models,
    seed_of,
)
from valuescope import v1

SMALL = pytest.mark.filterwarnings(
    "ignore:texts have", "ignore:.*labels have a probability", "ignore:baseline", "ignore:evaluations warn",
    "ignore:.*answers yes or no", "ignore:condition", "ignore:no point", "ignore:nothing is measured", "ignore:of the neurons",
)  # fmt: skip
pytestmark = SMALL
COEFFICIENTS = [-4.0, 0.0, 4.0]
LAYERS = [0, 2]
RANDOM = 3
ITEMS = [{"text": f"w{20 + i}", "value": ["power", "care"][i % 2]} for i in range(6)]
QUESTIONS = [
    {"question": f"w{30 + i}", "choices": [f"w{40 + i}", f"w{50 + i}"], "answer": i % 2}
    for i in range(5)
]
TAGGED = [
    {"query": f"w{12 + i}", "response": f"w{22 + i} w{23 + i}", "weights": {"power": 1.0 - i}}
    for i in range(3)
]
OPTIONS = [v1.AnswerOption(label=f"w{70 + i}", score=i) for i in range(3)]
TEMPLATE = "{item} w60 {options}"
MEASURES = {
    "perplexity": True,
    "refusal_phrases": ["w1*"],
    "instructions": [v1.Instruction(max_words=5)],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


def connected(server):
    client = vs.Client(server.address, timeout=120)
    for model in (MODEL, JUDGE):
        client.wait_until_ready(model)
    return client


def vector_of(client, seed=5):
    details = client.model(MODEL)
    rows = np.random.default_rng(seed).normal(size=(details.num_layers, details.hidden_size))
    rows = rows.astype(np.float32)
    return rows, client.create_vector(MODEL, rows, layers=range(details.num_layers)).name


def pair_of(client):
    """Names of two vectors that have much in common, as those of a value have."""
    first, name = vector_of(client, 8)
    other, _ = vector_of(client, 9)
    rows = (first + 0.7 * other).astype(np.float32)
    return [name, client.create_vector(MODEL, rows, layers=range(len(rows))).name]


def evaluations():
    return {
        "answers": vs.swept_responses(
            QUERIES[:5], judge=vs.WordList(WORDS), samples_per_query=2, measures=MEASURES, seed=7, **DRAWS
        ),
        "values": vs.questionnaire_request(MODEL, ITEMS, OPTIONS, TEMPLATE),
        "choices": vs.choices_request(MODEL, QUESTIONS, reading="continuations"),
        "tagged": vs.tagged_request(MODEL, TAGGED),
    }  # fmt: skip


BOUNDS = [
    v1.SweepBound(evaluation="answers", measure="perplexity", ratio_at_most=2.5),
    v1.SweepBound(evaluation="choices", measure="accuracy", drop_at_most=0.1, at_least=0.1),
    v1.SweepBound(evaluation="answers", measure="distinct_2", ratio_at_least=0.8),
]


def fields_of(vector, **changes):
    fields = {
        "vectors": [vector],
        "layers": LAYERS,
        "coefficients": COEFFICIENTS,
        "evaluations": evaluations(),
        "objective": ("answers", "expressing_share"),
        "guard": BOUNDS,
        "random_directions": RANDOM,
        "seed": 11,
    }
    return fields | changes


@pytest.fixture(scope="module")
def swept(client):
    """Rows, the vector's name, the job and what it came to."""
    rows, vector = vector_of(client)
    job = client.steering_sweep(MODEL, **fields_of(vector))
    return rows, vector, job.name, client.sweep_result(job.name)


# --- The grid ---


def direction(width, norm, seed):
    """As the contract says: Box and Muller over SplitMix64."""

    def mixed(number):
        return (seed_of(seed, number) >> 11) * 2.0**-53

    elements = []
    for i in range(0, width + width % 2, 2):
        length = math.sqrt(-2 * math.log(1 - mixed(i)))
        angle = 2 * math.pi * mixed(i + 1)
        elements += [length * math.cos(angle), length * math.sin(angle)]
    drawn = np.array(elements[:width])
    return (drawn * norm / np.linalg.norm(drawn)).astype(np.float32)


def test_points_are_the_grid_and_the_baseline_runs_once(client, swept):
    _, vector, job, sweep = swept
    used = [c for c in COEFFICIENTS if c != 0]
    expected = [
        (vector, random, [layer], c)
        for random in (None, *range(RANDOM))
        for layer in LAYERS
        for c in used
    ]
    found = [
        (p.subject, p.random if p.HasField("random") else None, list(p.layers), p.coefficient)
        for p in sweep.points[1:]
    ]
    assert found == expected
    assert sweep.points[0].name == "baseline" and not sweep.points[0].subject
    assert sweep.result.num_points == len(expected)
    assert sweep.result.baseline == sweep.points[0]
    progress = client.job(job).progress
    per_point = 2 * 2 * 5 + len(ITEMS) + len(QUESTIONS) + len(TAGGED)
    assert (progress.unit, progress.total) == ("measurements", per_point * (1 + len(expected)))
    assert progress.shards_total == 1 + len(expected)
    assert len({p.name for p in sweep.points}) == len(sweep.points)


def measured_by_hand(client, steer):
    """Numbers of one condition, by the calls and jobs that exist for each."""
    how = {"point": vs.EvaluationCondition("", steer)}
    job = client.generate_responses(
        MODEL, QUERIES[:5], how, judge=vs.WordList(WORDS), samples_per_query=2, seed=7, **DRAWS
    )
    responses = artifact_of(client.wait_for_job(job.name).result, "responses")
    judged = client.judge_responses(responses, vs.WordList(WORDS), model=MODEL)
    texts = client.measure_texts(MODEL, responses, **MEASURES)["point"]
    numbers = {
        "answers.expressing_share": judged.response.expressing_share,
        "answers.self_bleu": texts.self_bleu,
        "answers.mean_tokens": texts.mean_tokens,
        "answers.coherent_share": texts.coherent_share,
        "answers.refusal_rate": texts.refusal_rate,
        "answers.instruction_0": texts.instructions[0].rate,
        "answers.perplexity": texts.perplexity,
        "answers.empty_share": texts.num_empty / texts.num_texts,
    }
    for one in texts.diversity:
        numbers[f"answers.distinct_{one.n}"] = one.distinct
        numbers[f"answers.expectation_adjusted_distinct_{one.n}"] = (
            one.expectation_adjusted_distinct
        )
    asked = client.ask_questionnaire(MODEL, ITEMS, OPTIONS, TEMPLATE, conditions={"point": steer})
    profile = asked.response.results[0]
    for value in profile.values:
        numbers[f"values.score.{value.value}"] = value.score
        numbers[f"values.centred.{value.value}"] = value.centred
    for name in ("mean", "label_mass", "most_frequent_share"):
        numbers[f"values.{name}"] = getattr(profile, name)
    chosen = client.answer_choices(
        MODEL, QUESTIONS, reading="continuations", conditions={"point": steer}
    ).response.results[0]
    for name in ("accuracy", "mean_probability", "brier_score", "calibration_error"):
        numbers[f"choices.{name}"] = getattr(chosen, name)
    tagged = client.score_tagged_responses(MODEL, TAGGED, conditions={"point": steer})
    for value in tagged.response.results[0].values:
        numbers[f"tagged.score.{value.value}"] = value.score
        numbers[f"tagged.centred.{value.value}"] = value.centred
    return numbers, lines_of(client, responses)


def numbers_of(point):
    return {f"{m.evaluation}.{m.measure}": m.value for m in point.measures}


@pytest.mark.parametrize("which", ["baseline", "vector", "random"])
def test_a_points_numbers_are_those_of_the_single_calls(client, swept, which):
    rows, vector, job, sweep = swept
    if which == "baseline":
        point, steer = sweep.points[0], None
    elif which == "vector":
        point = sweep.points[4]
        steer = vs.Steer(vector, point.coefficient, layers=list(point.layers))
    else:
        point = sweep.points[-1]
        (layer,) = point.layers
        norm = np.linalg.norm(rows[layer].astype(np.float64))
        row = direction(rows.shape[1], norm, seed_of(11, 0, point.random, layer))
        steer = vs.Steer(row, point.coefficient, layers=[layer])
    numbers, lines = measured_by_hand(client, steer)
    found = numbers_of(point)
    assert set(found) == set(numbers)
    if which == "random":
        # Its last bits are those of another machine's cosines.
        assert found == pytest.approx(numbers, rel=1e-4, abs=1e-6)
    else:
        assert found == numbers
    swept_lines = [
        line
        for line in lines_of(client, artifact_of(client.job(job).result, "responses"))
        if line.condition == point.name
    ]
    assert len(swept_lines) == len(lines) == 10
    for line in [*swept_lines, *lines]:
        line.condition = ""
    assert swept_lines == lines


def test_shares_have_wilsons_interval(swept):
    z, n = 1.959963984540054, 10
    for point in swept[3].points:
        (share,) = (m for m in point.measures if m.measure == "expressing_share")
        p = share.value
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert (share.lower, share.upper) == pytest.approx((middle - half, middle + half))


# --- Guard, selection and null ---


def fails(bound, value, base):
    checks = {
        "at_least": lambda b: value >= b,
        "at_most": lambda b: value <= b,
        "ratio_at_least": lambda b: value >= b * base,
        "ratio_at_most": lambda b: value <= b * base,
        "drop_at_most": lambda b: base - value <= b,
        "rise_at_most": lambda b: value - base <= b,
    }
    return [
        f"{bound.evaluation} {bound.measure} {name}"
        for name, kept in checks.items()
        if bound.HasField(name) and not kept(getattr(bound, name))
    ]


def test_guard_selection_and_null_follow_from_the_points(swept):
    _, vector, _, sweep = swept
    base = numbers_of(sweep.points[0])
    passing = {}
    for point in sweep.points:
        numbers = numbers_of(point)
        failed = []
        for bound in BOUNDS:
            name = f"{bound.evaluation}.{bound.measure}"
            failed += fails(bound, numbers[name], base[name])
        assert list(point.failed_bounds) == failed
        assert point.passes == (not failed)
        if not failed and point.subject:
            passing.setdefault(point.random if point.HasField("random") else None, []).append(point)
    assert {p.passes for p in sweep.points[1:]} == {True, False}
    assert sweep.result.num_passing == sum(map(len, passing.values()))

    def best(points):
        return max(numbers_of(p)["answers.expressing_share"] for p in points)

    (selected,) = sweep.result.selected
    assert selected.subject == vector and selected.num_points == 4
    bests = [best(passing[r]) for r in range(RANDOM) if r in passing]
    assert list(selected.random_values) == bests
    assert (selected.num_random, selected.num_random_passing) == (RANDOM, len(bests))
    own = passing.get(None, [])
    assert selected.num_passing == len(own)
    assert own, "the guard lets a point through"
    assert selected.value == best(own)
    chosen = sweep.point(selected.point)
    assert chosen.passes and numbers_of(chosen)["answers.expressing_share"] == selected.value
    assert selected.p_value == (1 + sum(b >= selected.value for b in bests)) / (1 + RANDOM)


def test_a_subject_of_which_no_point_passes_has_none_and_is_named(client, swept):
    _, vector, _, _ = swept
    guard = [v1.SweepBound(evaluation="choices", measure="accuracy", at_least=2.0)]
    job = client.steering_sweep(
        MODEL,
        **fields_of(
            vector, guard=guard, objective=("choices", "brier_score"), minimise=True,
            evaluations={"choices": evaluations()["choices"]},
        ),
    )  # fmt: skip
    sweep = client.sweep_result(job.name)
    (selected,) = sweep.result.selected
    assert not selected.HasField("point") and not selected.HasField("value")
    assert not selected.HasField("p_value") and selected.num_random_passing == 0
    assert f"no point of `{vector}` passes the guard" in sweep.result.warnings
    assert {a.role for a in client.job(job.name).result.artifacts} == {"points", "summary"}


# --- What is left ---


def test_points_read_as_a_table_and_the_summary_as_the_message(client, swept):
    pytest.importorskip("pyarrow")
    _, _, job, sweep = swept
    result = client.job(job).result
    frame = client.read_table(artifact_of(result, "points"), lines="sweep_point").to_pandas()
    assert list(frame["name"]) == [p.name for p in sweep.points]
    read = client.job_handle(job).result(roles=["points", "summary"])
    assert read["points"].equals(frame)
    assert read["summary"]["subject"].tolist() == [one.subject for one in sweep.result.selected]
    assert frame["coefficient"].dtype == "float[pyarrow]"
    assert list(frame["passes"]) == [p.passes for p in sweep.points]
    assert list(frame["measures"][1][0]) == ["evaluation", "measure", "value", "lower", "upper"]
    summary = json.loads(client.read_artifact(artifact_of(result, "summary")))
    assert summary["provenance"]["model"] == MODEL
    told = json_format.MessageToDict(result.summary)
    assert told["selected"][0]["subject"] == sweep.result.selected[0].subject
    provenance = summary["provenance"]
    names = {one["name"] for one in provenance["inputs"]}
    assert swept[1] in names and {"values: items", "choices: questions"} <= names
    assert json.loads(provenance["options"])["guard"]
    rows = sweep.records()
    assert len(rows) == len(sweep.points) and "answers.distinct_2" in rows[0]


def test_kill_9_in_the_middle_gives_the_same_bytes(client, swept, start_server, root, tmp_path):
    result = client.job(swept[2]).result
    undisturbed = {a.role: a.sha256 for a in result.artifacts}
    first = start_server(tmp_path / "killed", *flags(root))
    with connected(first) as connection:
        _, vector = vector_of(connection)
        job = connection.steering_sweep(MODEL, **fields_of(vector))
        for state in connection.watch_job(job.name):
            if state.progress.shards_done >= 3:
                break
        assert connection.job(job.name).progress.shards_done < state.progress.shards_total
    first.kill()
    second = start_server(tmp_path / "killed", *flags(root))
    with connected(second) as connection:
        again = connection.wait_for_job(job.name).result
        assert {a.role: a.sha256 for a in again.artifacts} == undisturbed
    assert second.stop() == 0


def test_queries_may_lie_in_an_artifact_and_go_by_their_content(client, swept):
    _, vector, _, sweep = swept
    lines = [json.dumps({"prompt": {"text": query}}) for query in QUERIES[:5]]
    uploaded = client.write_artifact(
        "\n".join(lines).encode(), media_type="application/x-ndjson"
    ).name
    answers = vs.swept_responses(
        uploaded, judge=vs.WordList(WORDS), samples_per_query=2, measures=MEASURES, seed=7, **DRAWS
    )
    fields = fields_of(vector, evaluations={"answers": answers}, guard=[], random_directions=0)
    again = client.sweep_result(client.steering_sweep(MODEL, **fields).name)
    expected = [
        {name: value for name, value in numbers_of(p).items() if name.startswith("answers.")}
        for p in sweep.points
        if not p.HasField("random")
    ]
    assert [numbers_of(p) for p in again.points] == expected
    inputs = {one.name for one in again.result.provenance.inputs}
    assert not any(name.startswith("artifacts/") for name in inputs)


def test_a_judge_that_is_asked_is_needed_too(client, swept):
    evaluations = {
        "answers": vs.swept_responses(
            QUERIES[:2], judge=vs.Rubric(JUDGE, QUESTION), measures={"ngrams": [1]}, **DRAWS
        )
    }
    fields = {"vectors": swept[1], "coefficients": [1.0], "layers": [1], "evaluations": evaluations}
    job = client.steering_sweep(MODEL, objective=("answers", "answer_mass"), **fields)
    sweep = client.sweep_result(job.name)
    how = vs.EvaluationCondition("", vs.Steer(swept[1], 1.0, layers=[1]))
    generated = client.generate_responses(
        MODEL, QUERIES[:2], {"p": how}, judge=vs.Rubric(JUDGE, QUESTION), **DRAWS
    )
    summary = client.wait_for_job(generated.name).result.summary["conditions"][0]
    assert sweep.values("answers", "answer_mass")[1] == summary["mean_answer_mass"]
    digests = {one.name for one in client.job(job.name).result.digests}
    assert {MODEL, JUDGE} <= digests


# --- Neurons ---


@pytest.fixture(scope="module")
def classified(client):
    """Names of two vectors, and the set that classifies neurons by them at k = 20 and 40 degrees."""
    names = pair_of(client)
    axes = v1.ConditionVectors(intrinsic=names[0], prompted=names[1])
    return axes, client.classify_neurons(MODEL, *names, top_percent=20, max_angle=40)


def neuron_fields(classified, **changes):
    axes, neuron_set = classified
    swept = v1.SweptClasses(
        classification=v1.ClassifyNeuronsRequest(vectors=axes),
        top_percents=[5, 20],
        max_angles=[20, 40],
    )
    setattr(swept, "class", v1.NEURON_CLASS_INTRINSIC)
    fields = {
        "neuron_sets": [f"{neuron_set.name}=intrinsic", neuron_set.name],
        "classes": [swept],
        "layers": LAYERS,
        "factors": [1.0, 6.0],
        "scopes": ["all", "generated"],
        "evaluations": {name: evaluations()[name] for name in ("answers",)},
        "objective": ("answers", "distinct_1"),
        "random_directions": 1,
        "system": "w50 w51",
    }
    return fields | changes


@pytest.fixture(scope="module")
def swept_neurons(client, classified):
    job = client.steering_sweep(MODEL, **neuron_fields(classified))
    return job.name, client.sweep_result(job.name)


def members(client, neuron_set, neuron_class=None):
    """How many by layer."""
    (layers,) = [client.neuron_set(neuron_set.name).layers]
    return {
        one.layer: one.num_members
        if neuron_class is None
        else sum(c.count for c in one.classes if getattr(c, "class") == neuron_class)
        for one in layers
    }


def test_neuron_sets_and_classes_are_scaled_at_every_k_and_angle(client, classified, swept_neurons):
    _, neuron_set = classified
    _, sweep = swept_neurons
    of_class = members(client, neuron_set, v1.NEURON_CLASS_INTRINSIC)
    own = [p for p in sweep.points[1:] if not p.HasField("random")]
    name = f"{neuron_set.name}=intrinsic"
    places = [(p.layers[0], p.scope, p.factor) for p in own if p.subject == name]
    assert places == [
        (layer, scope, factor)
        for layer in LAYERS
        if of_class[layer]
        for scope in (0, 1)
        for factor in (6.0,)
    ]
    for point in own:
        (layer,) = point.layers
        if point.subject == name:
            assert point.num_neurons == of_class[layer]
        elif point.subject == neuron_set.name:
            assert point.num_neurons == members(client, neuron_set)[layer]
    grown = [p for p in own if p.subject == "classes[0]"]
    assert {(p.top_percent, p.max_angle) for p in grown} <= {
        (k, a) for k in (5, 20) for a in (20, 40)
    }
    # At the k and angle of the set they are its neurons.
    same = [p for p in grown if (p.top_percent, p.max_angle) == (20, 40)]
    assert [p.num_neurons for p in same] == [p.num_neurons for p in own if p.subject == name]
    for one, other in zip(same, [p for p in own if p.subject == name], strict=True):
        assert numbers_of(one) == numbers_of(other)
    # A random set has as many in the same layers.
    for point in sweep.points[1:]:
        if point.HasField("random"):
            twin = point.name.replace(f"~random{point.random}", "")
            assert point.num_neurons == sweep.point(twin).num_neurons
    assert {s.num_random for s in sweep.result.selected} == {1}
    assert len(sweep.result.selected) == 3


def test_a_point_of_neurons_is_the_single_call_with_the_set(client, classified, swept_neurons):
    _, neuron_set = classified
    _, sweep = swept_neurons
    point = next(
        p
        for p in sweep.points[1:]
        if p.subject == neuron_set.name and p.factor == 6 and p.scope == 0 and list(p.layers) == [2]
    )
    edit = vs.ScaleNeurons(neuron_set.name, 6.0, layers=[2], tokens="all")
    how = {"point": vs.EvaluationCondition("w50 w51", edit)}
    job = client.generate_responses(
        MODEL, QUERIES[:5], how, judge=vs.WordList(WORDS), samples_per_query=2, seed=7, **DRAWS
    )
    result = client.wait_for_job(job.name).result
    texts = client.measure_texts(MODEL, artifact_of(result, "responses"), **MEASURES)["point"]
    found = numbers_of(point)
    assert found["answers.distinct_1"] == texts.diversity[0].distinct
    assert found["answers.perplexity"] == texts.perplexity
    assert found != numbers_of(sweep.points[0])


def test_random_sets_do_not_depend_on_who_runs_them(
    client, classified, swept_neurons, start_server, root, tmp_path
):
    """Killed after the first shard, on whose looks at neurons all sets depend."""
    undisturbed = {a.role: a.sha256 for a in client.job(swept_neurons[0]).result.artifacts}
    first = start_server(tmp_path / "killed", *flags(root))
    with connected(first) as connection:
        names = pair_of(connection)
        made = connection.classify_neurons(MODEL, *names, top_percent=20, max_angle=40)
        assert made.name == classified[1].name
        job = connection.steering_sweep(MODEL, **neuron_fields(classified))
        for state in connection.watch_job(job.name):
            if state.progress.shards_done >= 2:
                break
    first.kill()
    second = start_server(tmp_path / "killed", *flags(root))
    with connected(second) as connection:
        again = connection.wait_for_job(job.name).result
        assert {a.role: a.sha256 for a in again.artifacts} == undisturbed
    assert second.stop() == 0


# --- Bad specs ---

RESPONSES = {"answers": vs.swept_responses(QUERIES[:2], max_tokens=4, temperature=0)}
SET = v1.NeuronSetFilter(neuron_set="neuronSets/" + "0" * 32)


def scopes(*kinds):
    return [v1.TokenSelection(kind=f"TOKEN_KIND_{kind}") for kind in kinds]


def swept_class(**fields):
    made = v1.SweptClasses(classification=v1.ClassifyNeuronsRequest(**fields.pop("of", {})))
    setattr(made, "class", fields.pop("of_class", v1.NEURON_CLASS_SHARED))
    made.MergeFrom(v1.SweptClasses(**fields))
    return made


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"prompts": [v1.Prompt(text="w11")]}, "prompts", "`evaluations`"),
        ({"artifact": "artifacts/x"}, "artifact", "`evaluations`"),
        ({"sampling": v1.SamplingParams()}, "sampling", "`evaluations`"),
        ({"samples_per_prompt": 2}, "samples_per_prompt", "`evaluations`"),
        ({"judge": v1.Judge()}, "judge", "`evaluations`"),
        ({"vectors": None, "coefficients": None}, "vectors", "must be given"),
        ({"vectors": ["vectors/x"] * 65}, "vectors", "1 .. 64"),
        ({"vectors": ["VECTOR", "VECTOR"]}, "vectors[1]", "another subject"),
        ({"vectors": ["v"]}, "vectors[0]", "vectors/ID"),
        ({"coefficients": None}, "coefficients", "other than 0"),
        ({"coefficients": [0.0]}, "coefficients", "other than 0"),
        ({"coefficients": [math.inf]}, "coefficients[0]", "finite"),
        ({"coefficients": [1.0, 2.0, 1.0]}, "coefficients[2]", "twice"),
        ({"coefficients": list(range(65))}, "coefficients", "1 to 64"),
        ({"factors": [2.0]}, "factors", "unset without"),
        ({"neuron_sets": [SET]}, "factors", "other than 1"),
        ({"random_directions": 101}, "random_directions", "0 to 100"),
        ({"random_directions": -1}, "random_directions", "0 to 100"),
        ({"layers": v1.Layers(list=v1.LayerList(layers=[99]))}, "layers.list.layers[0]", "99"),
        ({"scopes": [v1.TokenSelection()] * 9}, "scopes", "1 to 8"),
        ({"scopes": [v1.TokenSelection()], "tokens": v1.TokenSelection(kind="TOKEN_KIND_ALL")}, "tokens", "`scopes`"),
        ({"scopes": scopes("ALL", "GENERATED", "ALL")}, "scopes[2]", "it is `scopes[0]`"),
        ({"scopes": scopes("UNSPECIFIED", "FROM_LAST_PROMPT")}, "scopes[1]", "it is `scopes[0]`"),
        ({"scopes": scopes("RESPONSE", "GENERATED")}, "scopes[1]", "it is `scopes[0]`"),
        ({"scopes": [v1.TokenSelection(positions=[1, 0]), v1.TokenSelection(positions=[0, 1])]}, "scopes[1]", "it is `scopes[0]`"),
        ({"classes": [swept_class()] * 2, "factors": [2.0]}, "classes[1]", "it is `classes[0]`"),
        ({"factors": [2.0, 0.5, 0.5], "neuron_sets": [SET]}, "factors[2]", "it is `factors[1]`"),
        ({"classes": [swept_class(top_percents=[1, 1])], "factors": [2.0]}, "classes[0].top_percents[1]", "it is"),
        ({"classes": [swept_class(max_angles=[9, 5, 9])], "factors": [2.0]}, "classes[0].max_angles[2]", "it is"),
        ({"tokens": v1.TokenSelection(positions=[5000])}, "tokens", ""),
        ({"tokens": v1.TokenSelection(kind=99)}, "tokens.kind", ""),
        ({"scopes": [v1.TokenSelection(), v1.TokenSelection(kind="TOKEN_KIND_ALL", positions=[1])]}, "scopes[1]", ""),
        ({"evaluations": None}, "evaluations", "1 to 16"),
        ({"evaluations": [v1.SweepEvaluation(name="a b", choices={})]}, "evaluations[0].name", "white space"),
        ({"evaluations": [v1.SweepEvaluation(name="a")]}, "evaluations[0]", "must have responses"),
        ({"evaluations": [v1.SweepEvaluation(name="a", choices={"model": MODEL})]}, "evaluations[0].choices.model", "unset"),
        ({"evaluations": [v1.SweepEvaluation(name="a", choices={"conditions": [{}]})]}, "evaluations[0].choices.conditions", "unset"),
        ({"evaluations": [v1.SweepEvaluation(name="a", choices={"display_name": "x"})]}, "evaluations[0].choices.display_name", "unset"),
        ({"evaluations": [v1.SweepEvaluation(name="answers", choices={})]}, "evaluations[0].choices.questions", "inline or"),
        ({"evaluations": [v1.SweepEvaluation(name="answers", responses={})]}, "evaluations[0].responses.generation.queries", "inline or"),
        ({"evaluations": [v1.SweepEvaluation(name="answers", responses={"measures": {"artifact": "artifacts/x"}})]},
         "evaluations[0].responses.measures.artifact", "generated"),
        ({"evaluations": [v1.SweepEvaluation(name="answers", responses={"generation": {"queries": ["w11"]}, "measures": {"ngrams": [9]}})]},
         "evaluations[0].responses.measures.ngrams[0]", "8"),
        ({"guard": [v1.SweepBound(evaluation="nobody", measure="x", at_least=1)]}, "guard[0].evaluation", "one of"),
        ({"guard": [v1.SweepBound(evaluation="answers", measure="x", at_least=1)]}, "guard[0].measure", "distinct_2"),
        ({"guard": [v1.SweepBound(evaluation="answers", measure="distinct_1")]}, "guard[0]", "at least one"),
        ({"guard": [v1.SweepBound(evaluation="answers", measure="distinct_1", at_most=math.nan)]}, "guard[0].at_most", "finite"),
        ({"guard": [v1.SweepBound(evaluation="answers", measure="distinct_1", ratio_at_most=-1)]}, "guard[0].ratio_at_most", "at least 0"),
        ({"guard": [v1.SweepBound(evaluation="answers", measure="distinct_1", at_most=1)] * 65}, "guard", "0 to 64"),
        ({"objective": None}, "objective.evaluation", "one of"),
        ({"objective": v1.SweepObjective(evaluation="answers", measure="expressing_share")}, "objective.measure", "distinct_1"),
        ({"classes": [swept_class(of={"model": MODEL})], "factors": [2]}, "classes[0].classification.model", "unset"),
        ({"classes": [swept_class(of={"top_k": 1})], "factors": [2]}, "classes[0].classification.top_k", "unset"),
        ({"classes": [swept_class(of_class=v1.NEURON_CLASS_NONE)], "factors": [2]}, "classes[0].class", "SHARED"),
        ({"classes": [swept_class(top_percents=[1, 1])], "factors": [2]}, "classes[0].top_percents[1]", "twice"),
        ({"classes": [swept_class(top_percents=range(1, 6), max_angles=[10, 20, 30, 40])], "factors": [2]}, "classes[0].top_percents", "16"),
        ({"classes": [swept_class()], "factors": [2]}, "classes[0].classification.vectors", "must be given"),
        ({"classes": [swept_class(of={"axes": {"shared": "VECTOR", "difference": "VECTOR"}}, top_percents=[101])], "factors": [2]},
         "classes[0].top_percents", "up to 100"),
        ({"neuron_sets": [v1.NeuronSetFilter(neuron_set="x")], "factors": [2]}, "neuron_sets[0].neuron_set", "neuronSets/ID"),
        ({"system_message": "<bos>"}, "system_message", ""),
        ({"coefficients": [1, 3e38]}, "coefficients[1]", "beyond float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_names_its_field(client, swept, changes, field, says):
    spec = vs.sweep_spec(
        MODEL,
        vectors=swept[1],
        coefficients=[1.0],
        layers=LAYERS,
        evaluations=RESPONSES,
        objective=("answers", "distinct_1"),
    )
    for name, value in changes.items():
        spec.ClearField(name)
        if value is not None:
            spec.MergeFrom(v1.SteeringSweepSpec(**{name: value}))
    spec.vectors[:] = [swept[1] if name == "VECTOR" else name for name in spec.vectors]
    for one in spec.classes:
        axes = one.classification.axes
        if axes.shared == "VECTOR":
            axes.shared = axes.difference = swept[1]
    with pytest.raises(vs.InvalidRequest) as error:
        client.create_job(v1.JobSpec(steering_sweep=spec))
    assert error.value.violations[0].field == f"spec.steering_sweep.{field}"
    assert says in str(error.value)


def test_names_that_are_not_there_are_not_found(client, swept):
    fields = {"evaluations": RESPONSES, "objective": ("answers", "distinct_1"), "layers": LAYERS}
    with pytest.raises(vs.NotFound, match="vectors/none"):
        client.steering_sweep(MODEL, vectors="vectors/none", coefficients=[1], **fields)
    with pytest.raises(vs.NotFound, match="neuronSets/none"):
        client.steering_sweep(MODEL, neuron_sets="neuronSets/none", factors=[2], **fields)
    with pytest.raises(vs.InvalidRequest, match="random_directions"):
        client.steering_sweep(
            MODEL,
            neuron_sets="neuronSets/none",
            factors=[2],
            random_directions=1,
            **fields | {"evaluations": {"choices": evaluations()["choices"]}},
        )


def test_a_grid_that_is_too_large_is_told_before_anything_is_read(client):
    """The vector does not exist."""
    fields = {
        "vectors": "vectors/none",
        "coefficients": range(1, 65),
        "random_directions": 100,
        "evaluations": RESPONSES,
        "objective": ("answers", "distinct_1"),
    }
    scopes = ["all", "generated", "from_last_prompt"]
    with pytest.raises(vs.Exhausted, match="allowed are at most 20000") as error:
        client.steering_sweep(MODEL, layers="all", scopes=scopes, **fields)
    assert error.value.reason == "SWEEP_TOO_LARGE"
    many = {"answers": vs.swept_responses(["w11"] * 10_000, samples_per_query=64, max_tokens=1)}
    with pytest.raises(vs.Exhausted, match="1280000 measurements at each of"):
        client.steering_sweep(MODEL, layers=[0], **fields | {"evaluations": many})


def test_the_estimate_counts_what_every_point_takes(client, swept):
    spec = vs.sweep_spec(MODEL, **fields_of(swept[1]))
    estimate = client.estimate_job(v1.JobSpec(steering_sweep=spec))
    points = 1 + len(swept[3].points) - 1
    assert estimate.shards == points
    one = client.estimate_job(
        v1.JobSpec(
            generate_responses=vs.generation_spec(
                MODEL, QUERIES[:5], judge=vs.WordList(WORDS), samples_per_query=2, **DRAWS
            )
        )
    )
    assert estimate.tokens >= points * 2 * one.tokens
    assert estimate.duration.ToTimedelta().total_seconds() > 0


def test_a_point_that_goes_too_far_has_no_measures_and_the_others_have_theirs(client, swept):
    job = client.create_job(v1.JobSpec(attribute_neurons=vs.attribution_request(MODEL, [
        vs.labelled([11, 12], [20 + i, 30 + i], i % 2 == 0, f"q{i}") for i in range(6)
    ], swept[1])))  # fmt: skip
    (neurons,) = client.wait_for_job(job.name).result.neuron_sets
    fields = fields_of(swept[1], vectors=[], neuron_sets=[neurons], coefficients=[], layers=[2])
    job = client.steering_sweep(
        MODEL, **fields | {"factors": [2.0, 3e38], "guard": BOUNDS[2:], "random_directions": 1}
    )
    sweep = client.sweep_result(job.name)
    broken = [p for p in sweep.points if p.factor == np.float32(3e38)]
    assert len(broken) == 2, "that of the set, and that of the random one"
    told = [[m.HasField("value") for m in p.measures] for p in sweep.points]
    assert [any(of) for of in told] == [p not in broken for p in sweep.points]
    assert {tuple(m.measure for m in p.measures) for p in sweep.points} == {
        tuple(m.measure for m in sweep.points[0].measures)
    }
    assert all(list(p.failed_bounds) == ["answers distinct_2 ratio_at_least"] for p in broken)
    (warning,) = [w for w in sweep.result.warnings if "not finite" in w]
    assert warning.startswith(f"nothing is measured at 2 of 4 points, the first of which is `{broken[0].name}`")  # fmt: skip
    responses = lines_of(client, artifact_of(client.job(job.name).result, "responses"))
    assert len(responses) == 10 * 3


# --- What people see ---


def test_the_command_line_submits_the_sweep_of_the_readme(client, swept, server, tmp_path):
    readme = (ROOT / "README.md").read_text()
    (text,) = re.findall(r"```json\n(\{\n  \"steering_sweep\".*?)```", readme, re.DOTALL)
    spec = json.loads(text)
    sweep = spec["steering_sweep"]
    # Of a model whose words are others.
    sweep |= {"model": MODEL, "vectors": [swept[1]]}
    sweep["evaluations"][0]["responses"]["generation"]["queries"] = QUERIES[:2]
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(spec))
    program = BUILD / "client" / "cpp" / "valuescope"
    told = run(program, "--server", server.address, "jobs", "submit", file, "--watch")
    assert "succeeded" in told.lower()
    (name,) = set(re.findall(r"jobs/[0-9a-f-]{36}", told))
    result = client.sweep_result(name)
    assert result.result.num_points == 2 * 2 * (1 + 9)


def test_curves_show_the_guard_and_the_random_band(swept):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    sweep = swept[3]
    axes = sweep.plot("answers", "perplexity")
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    own = [p for p in sweep.points[1:] if not p.HasField("random")]
    hollow = [line for line in marks if line.get_markerfacecolor() == "white"]
    assert len(marks) == len(own)
    assert len(hollow) == sum(not p.passes for p in own)
    assert len(axes.collections) == 1
    with pytest.raises(KeyError, match="nothing"):
        sweep.plot("answers", "nothing")
    assert "pass the guard" in repr(sweep) and "<table" in sweep._repr_html_()
