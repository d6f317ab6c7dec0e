"""A value study through the real server on a tiny model whose vocabulary is words: what it finds is what its parts left, held
against numpy where it is a number, and a kill in the middle changes no byte of it."""

import itertools
import json
import math
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, Server, await_true
from google.protobuf import json_format
from test_generated_responses import MODEL, SYSTEM, flags, lines_of, make_models
from valuescope import v1

pytestmark = pytest.mark.filterwarnings("ignore")
LABELS = [f"w{i}" for i in range(20, 32)]
SCORES = [f"w{i}" for i in range(32, 44)]
TRAINING = [f"w{11 + i} w{12 + 2 * i} w{40 + i}" for i in range(16)]
DEVELOPMENT = [f"w{13 + i} w{60 + i}" for i in range(4)]
TEST = [f"w{14 + i} w{64 + i}" for i in range(6)]
COEFFICIENTS = [2.0, 8.0]
RANDOM = 3
STAGES = ["generate_intrinsic", "generate", "judge", "extract", "attribute", "sweep", "sweep_neurons", "sweep_random", "select", "test", "remove", "score", "measure", "ask", "choose"]  # fmt: skip
NEURONS = {"factors": [0.0, 3.0], "top_percents": [25.0, 50.0], "max_angles": [45.0], "removed": [1, 4], "random_sets": 3}  # fmt: skip


def value_of(name, labels=LABELS, scores=SCORES):
    return v1.ValueDefinition(
        value=name,
        system_messages=SYSTEM,
        judge=v1.Judge(word_list=v1.WordListJudge(words=labels)),
        score_judge=v1.Judge(word_list=v1.WordListJudge(words=scores)),
    )


def spec_of(**changes):
    options = [v1.AnswerOption(label=f"w{70 + i}", score=i) for i in range(3)]
    items = [
        v1.QuestionnaireItem(text=f"w{20 + i}", value=["care", "power"][i % 2]) for i in range(4)
    ]
    questions = [v1.ChoiceQuestion(question=f"w{30 + i}", choices=[f"w{40 + i}", f"w{50 + i}"], answer=i % 2) for i in range(3)]  # fmt: skip
    choices = {"questions": questions, "reading": v1.CHOICE_READING_CONTINUATIONS}
    fields = {
        "model": MODEL,
        "values": [value_of("care"), value_of("power", SCORES, LABELS)],
        "queries": TRAINING,
        "development_queries": DEVELOPMENT,
        "test_queries": TEST,
        "sampling": v1.SamplingParams(max_tokens=9, temperature=1.0, seed=3),
        "samples_per_query": 2,
        "min_responses": 2,
        "coefficients": COEFFICIENTS,
        "steered_layers": v1.Layers(list=v1.LayerList(layers=[1])),
        "random_directions": RANDOM,
        "guard": [v1.SweepBound(evaluation="responses", measure="distinct_2", ratio_at_least=0.3)],
        "development_choices": v1.AnswerChoicesRequest(**choices),
        "questionnaire": v1.AskQuestionnaireRequest(items=items, options=options, template="{item} w60 {options}"),
        "neurons": v1.StudyNeurons(**NEURONS),
        "measures": v1.MeasureTextsRequest(refusal_phrases=["w1*"], perplexity=True),
        "seed": 5,
        "bootstrap_samples": 400,
        "permutations": 400,
        "shown_queries": 2,
    }  # fmt: skip
    return v1.ValueStudySpec(**(fields | changes))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("store"), *flags(root))
    yield server
    assert server.stop() == 0


def connected(server):
    client = vs.Client(server.address, timeout=120)
    client.wait_until_ready(MODEL)
    return client


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


@pytest.fixture(scope="module")
def studied(client):
    """The job, and what it came to."""
    handle = client.value_study(spec_of(), display_name="two values")
    handle.wait()
    return handle.get(), handle.result().study


def part_of(client, job, phase):
    (child,) = [child.job for child in job.children if child.phase == phase]
    return client.job(child)


def artifact_of(job, role):
    (name,) = [one.artifact for one in job.result.artifacts if one.role == role]
    return name


def measure_of(outcome, name):
    (told,) = [one for one in outcome.measures if one.name == name]
    return told


def sha256_of(job):
    return {one.role: one.sha256 for one in job.result.artifacts}


# --- The job and its parts ---


def test_a_study_is_made_of_jobs_that_end_before_it(client, studied):
    job, _ = studied
    assert job.state == v1.JOB_STATE_SUCCEEDED
    assert job.progress.done == job.progress.total
    stages = [child.phase.split("/")[0] for child in job.children]
    assert sorted(set(stages), key=stages.index) == STAGES
    assert all(child.state == v1.JOB_STATE_SUCCEEDED for child in job.children)
    parts = client.jobs(parent=job.name)
    assert sorted(part.phase for part in parts) == sorted(child.phase for child in job.children)
    assert {part.parent for part in parts} == {job.name}
    assert all(not one.parent for one in client.jobs())


def test_the_command_line_shows_the_parts_of_a_job(server, studied):
    job, _ = studied
    program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address]
    shown = subprocess.run([*program, "jobs", "get", job.name], capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
    header, *rows = shown.stdout.split("\n\n")[-1].splitlines()
    assert header.split() == ["PART", "STATE", "DONE", "OF", "JOB"]
    assert [row.split()[0] for row in rows] == [child.phase for child in job.children]
    for row, child in zip(rows, job.children, strict=True):
        done = f"{child.progress.done}/{child.progress.total}"
        assert row.split()[1:3] == ["succeeded", done] and row.split()[-1] == child.job


def test_a_part_is_changed_with_its_study_alone(client, studied):
    part = studied[0].children[0].job
    for change in (client.cancel_job, client.retry_job, client.delete_job):
        with pytest.raises(vs.FailedPrecondition) as refused:
            change(part)
        assert refused.value.reason == "CHILD_JOB"


def test_the_estimate_is_the_most_that_the_parts_come_to(client, studied):
    job, _ = studied
    estimate = client.estimate_job(v1.JobSpec(value_study=spec_of()))
    parts = [client.job(child.job).estimate for child in job.children]
    forwards = sum(part.forwards for part in parts)
    # A value whose vectors have no classes of neurons has no sweep over them.
    assert 0.95 * forwards < estimate.forwards < 2 * forwards
    assert estimate.forwards == pytest.approx(job.progress.total, rel=0.05)


# --- What it finds ---


def test_counts_and_vectors_are_those_of_the_parts(client, studied):
    job, result = studied
    for value in result.values:
        assert not value.failure
        for responses, vector in zip(value.responses, value.vectors, strict=True):
            condition = v1.StudyCondition.Name(vector.condition).split("_")[-1].lower()
            judged = part_of(client, job, f"judge/{value.value}/{condition}")
            lines = lines_of(client, artifact_of(judged, "responses"))
            assert responses.num_responses == len(lines) == 2 * len(TRAINING)
            assert responses.num_expressing == sum(line.expresses for line in lines)
            # One pass makes all vectors, each as its data set alone does.
            assert vector.vector in part_of(client, job, "extract").result.vectors
            alone = client.extract_vectors(MODEL, artifact_of(judged, "responses"))
            assert list(vector.statistics) == list(alone.statistics)
            assert client.vector(vector.vector).data == client.vector(alone.vector.name).data


def test_the_training_responses_have_the_labels_of_the_values_that_they_are_for(client, studied):
    job, result = studied
    lines = lines_of(client, artifact_of(job, "responses"))
    labels = {"intrinsic": [], "prompted": []}
    for line in lines:
        assert not line.HasField("expresses")
        labels[line.condition].append({label.value: label.expresses for label in line.labels})
    # Each runs once, whatever number of vectors it counts in.
    (extraction,) = [child for child in job.children if child.kind == "extract_vectors"]
    assert extraction.progress.total == sum(bool(line.response.token_ids.ids) for line in lines)
    names = [value.value for value in result.values]
    assert all(list(of) == names for of in labels["intrinsic"])
    assert [list(of) for of in labels["prompted"]] == [[name] for name in names for _ in range(2 * len(TRAINING))]  # fmt: skip
    for value in result.values:
        for responses, of in zip(value.responses, labels.values(), strict=True):
            told = [one[value.value] for one in of if value.value in one]
            assert (len(told), sum(told)) == (responses.num_responses, responses.num_expressing)


def test_each_query_gets_a_system_message_of_the_pool_by_the_seed(client, studied):
    job, result = studied
    lines = lines_of(client, artifact_of(part_of(client, job, "generate/care"), "responses"))
    messages = [line.prompt.chat.messages[0].content for line in lines]
    assert set(messages) <= set(SYSTEM) and len(set(messages)) > 1
    assert messages[0::2] == messages[1::2]
    rendered = list(result.values[0].prompts)
    assert [prompt.system_message for prompt in rendered] == ["", *SYSTEM]
    assert all(TRAINING[0] in prompt.rendered for prompt in rendered)


def test_the_plane_is_that_of_the_singular_value_decomposition(client, studied):
    _, result = studied
    value = result.values[0]
    rows = [
        np.frombuffer(client.vector(vector.vector).data.data, np.float32).reshape(
            len(result.layers), -1
        )
        for vector in value.vectors
    ]
    for place, plane in enumerate(value.decomposition.planes):
        pair = np.stack([rows[0][place], rows[1][place]], axis=1).astype(np.float64)
        left, _, _ = np.linalg.svd(pair, full_matrices=False)
        shared = left[:, 0] * np.sign(left[:, 0] @ pair.sum(axis=1))
        difference = left[:, 1] * np.sign(left[:, 1] @ (pair[:, 0] - pair[:, 1]))
        expected = [*(pair.T @ shared), *(pair.T @ difference)]
        told = [plane.intrinsic_shared, plane.prompted_shared, plane.intrinsic_difference, plane.prompted_difference]  # fmt: skip
        np.testing.assert_allclose(told, expected, rtol=1e-5, atol=1e-6 * np.linalg.norm(pair))


def test_all_directions_have_the_common_norm(client, studied):
    _, result = studied
    norms = np.mean(
        [
            [s.norm for s in vector.statistics]
            for value in result.values
            for vector in value.vectors
        ],
        axis=0,
    )
    np.testing.assert_allclose([layer.norm for layer in result.layers], norms, rtol=1e-9)
    (steered,) = [layer for layer in result.layers if layer.steered]
    subjects = [s.subject for value in result.values for s in value.selections if s.subject.vector]
    assert {s.direction for s in subjects} == set(range(1, 9))
    subjects += [o.subject for o in result.values[0].outcomes if o.subject.HasField("random_direction")]  # fmt: skip
    for subject in subjects:
        row = np.frombuffer(client.vector(subject.vector).data.data, np.float32)
        assert np.linalg.norm(row) == pytest.approx(steered.norm, rel=1e-5)


def test_points_are_chosen_as_by_hand_and_random_ones_likewise(studied):
    _, result = studied
    for value in result.values:
        best, random = {}, {}
        for point in value.development_points:
            share = next(m.value for m in point.measures if m.measure == "expressing_share")
            if point.name == "baseline" or not point.passes:
                continue
            book, key = (
                (random, point.random) if point.HasField("random") else (best, point.subject)
            )
            if key not in book or share > book[key][0]:
                book[key] = (share, point.name)
        directions = [one for one in value.selections if one.subject.HasField("direction")]
        assert len(directions) == 8
        for one in directions:
            share, name = best[one.subject.vector]
            assert (one.selection.value, one.selection.point) == (share, name)
            assert sorted(one.selection.random_values) == sorted(s for s, _ in random.values())
            better = sum(s >= share for s, _ in random.values())
            assert one.selection.p_value == (1 + better) / (1 + RANDOM)


def test_outcomes_are_what_the_judge_that_scores_says_of_test_queries(client, studied):
    job, result = studied
    for value in result.values:
        score = part_of(client, job, f"score/{value.value}")
        lines = lines_of(client, artifact_of(score, "responses"))
        assert [outcome.name for outcome in value.outcomes][:2] == ["baseline", "system_message"]
        for outcome in value.outcomes:
            own = [line for line in lines if line.condition == outcome.name]
            assert len(own) == len(TEST)
            told = measure_of(outcome, "expressing_share")
            assert told.value == pytest.approx(np.mean([line.expresses for line in own]))
            assert told.interval.lower <= told.value <= told.interval.upper
            assert [a.query for a in value.answers] == TEST[:2]


def differences_of(client, job, value, outcome):
    """Of test queries: whether an answer expresses the value, less the baseline's."""
    lines = lines_of(client, artifact_of(part_of(client, job, f"score/{value}"), "responses"))
    by_query = {}
    for line in lines:
        by_query.setdefault(line.query_id, {})[line.condition] = float(line.expresses)
    return np.array([answers[outcome] - answers["baseline"] for answers in by_query.values()])


def test_p_values_are_those_of_all_sign_flips_and_intervals_those_of_numpy(client, studied):
    job, result = studied
    draw = np.random.default_rng(1)
    for outcome in result.values[0].outcomes[1:]:
        told = measure_of(outcome, "expressing_share")
        d = differences_of(client, job, "care", outcome.name)
        assert told.difference == pytest.approx(d.mean())
        assert told.num_clusters == len(TEST)
        signs = np.array(np.meshgrid(*[[-1, 1]] * len(d))).reshape(len(d), -1)
        exact = np.mean(np.abs(d @ signs) >= abs(d.sum()) - 1e-9)
        # 400 draws: four standard errors.
        assert abs(told.p_value - exact) < 4 * math.sqrt(exact * (1 - exact) / 400) + 1 / 400
        drawn = d[draw.integers(len(d), size=(20000, len(d)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        width = high - low + 1e-9
        assert abs(told.difference_interval.lower - low) < 0.35 * width
        assert abs(told.difference_interval.upper - high) < 0.35 * width


def is_coherent(ids):
    if len(ids) < 8:
        return bool(ids)
    pairs = list(itertools.pairwise(ids))
    return all(2 * max(map(of.count, of)) <= len(of) for of in (ids, pairs))


def test_refusals_differ_by_what_coherent_answers_say(client, studied):
    job, result = studied
    draw = np.random.default_rng(2)
    wide = 0
    for value in result.values:
        score = part_of(client, job, f"score/{value.value}")
        by_query = {}
        for line in lines_of(client, artifact_of(score, "responses")):
            ids = list(line.response.token_ids.ids)
            refuses = any(str(i).startswith("1") for i in ids if i >= 7)  # "w1*"
            of = by_query.setdefault(line.query_id, {})
            of[line.condition] = (float(refuses), 1.0) if is_coherent(ids) else (0.0, 0.0)
        for outcome in value.outcomes[1:]:
            told = measure_of(outcome, "refusal_rate")
            pairs = np.array([[*of[outcome.name], *of["baseline"]] for of in by_query.values()])
            sums = pairs.sum(axis=0)
            assert told.difference == pytest.approx(sums[0] / sums[1] - sums[2] / sums[3])
            drawn = pairs[draw.integers(len(pairs), size=(20000, len(pairs)))].sum(axis=1)
            drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
            low, high = np.quantile(drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3], [0.025, 0.975])  # fmt: skip
            width = high - low + 1e-9
            wide += width > 0.1
            assert abs(told.difference_interval.lower - low) < 0.35 * width
            assert abs(told.difference_interval.upper - high) < 0.35 * width
            assert told.num_clusters == len(TEST) and not told.HasField("p_value")
        (paper,) = [p for p in result.paper if p.value == value.value and p.name.startswith("refusals")]  # fmt: skip
        assert paper.HasField("interval") or paper.agreement == v1.PAPER_AGREEMENT_NOT_MEASURED
    assert wide > 0


def test_adjusted_p_values_are_holms_over_all_values(studied):
    _, result = studied
    told = [
        measure_of(outcome, "expressing_share")
        for value in result.values
        for outcome in value.outcomes
        if outcome.subject.HasField("direction") or outcome.subject.HasField("neurons")
    ]
    assert result.num_comparisons == len(told) > 0
    p = np.array([one.p_value for one in told])
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(np.minimum(1, p[order] * (len(p) - np.arange(len(p)))))
    np.testing.assert_allclose([told[i].adjusted_p_value for i in order], adjusted, rtol=1e-12)


def test_classes_of_neurons_are_counted_chosen_and_scaled(client, studied):
    job, result = studied
    # Vectors that share no direction have no classes.
    classified = [value for value in result.values if value.classification.classes]
    swept = [value for value in classified if any(s.subject.HasField("neurons") for s in value.selections)]  # fmt: skip
    assert swept
    for value in classified:
        layers = value.classification.layers
        for told in value.classification.classes:
            counts = [c.count for layer in layers for c in layer.classes if getattr(c, "class") == getattr(told, "class")]  # fmt: skip
            assert told.count == sum(counts)
        kept = sum(layer.num_members for layer in layers)
        assert sum(told.count for told in value.classification.classes) == kept
    for value in swept:
        sweep = client.sweep_result(part_of(client, job, f"sweep_neurons/{value.value}").name)
        neurons = [one for one in value.selections if one.subject.HasField("neurons")]
        for one, selected in zip(neurons, sweep.result.selected, strict=True):
            assert one.selection.value == selected.value
            assert one.selection.p_value == selected.p_value
        for outcome in value.outcomes:
            if not outcome.subject.HasField("neurons"):
                continue
            assert outcome.factor in NEURONS["factors"]
            assert client.neuron_set(outcome.subject.neuron_set).model == MODEL
            assert list(outcome.layers) == [1]


def test_causal_controls_are_those_of_the_attributed_neurons(client, studied):
    job, result = studied
    for value in result.values:
        assert len(value.causal_controls) == len(value.attributions) == 2
        for told, attribution in zip(value.causal_controls, value.attributions, strict=True):
            assert [point.size for point in told.points] == NEURONS["removed"]
            assert attribution.condition == told.condition
            assert len(attribution.class_overlaps) == len(value.classification.classes)
            condition = v1.StudyCondition.Name(told.condition).split("_")[-1].lower()
            part = part_of(client, job, f"remove/{value.value}/{condition}")
            tested = part.spec.test_neurons
            assert tested.neuron_set == attribution.neuron_set
            assert tested.target.vector_projection.layer == told.layer


def test_thin_data_and_missing_guards_are_told_and_the_paper_is_held_against(studied):
    _, result = studied
    assert any("6 test queries are too few" in warning for warning in result.warnings)
    assert any("3 random directions are too few" in warning for warning in result.warnings)
    assert any("the same multiple choice" in warning for warning in result.warnings)
    names = {quantity.name for quantity in result.paper}
    assert {"retained_norm_fraction", "mean_delta_explained_variance", "cross_value_cosine", "circumplex_r_squared"} <= names  # fmt: skip
    assert all(quantity.paper and quantity.agreement for quantity in result.paper)
    assert result.cross_cosines and result.mean_deltas


# --- Crashes, and the file ---


def test_kill_9_in_the_middle_gives_the_same_bytes(studied, start_server, root, tmp_path):
    first = start_server(tmp_path / "killed", *flags(root))
    with connected(first) as connection:
        handle = connection.value_study(spec_of())
        await_true(lambda: any(c.phase.startswith("sweep") for c in handle.get().children))
    first.kill()
    second = start_server(tmp_path / "killed", *flags(root))
    with connected(second) as connection:
        again = connection.wait_for_job(handle.name)
        assert sha256_of(again) == sha256_of(studied[0])
        phases = [child.phase for child in connection.job(handle.name).children]
        assert sorted(phases) == sorted(child.phase for child in studied[0].children)
        # Nothing of a deleted study stays but vectors and sets.
        connection.delete_job(handle.name)
        assert not connection.jobs() and not connection.jobs(parent=handle.name)
        assert not connection.artifacts()
    assert second.stop() == 0


def test_the_file_is_the_messages_json(client, studied):
    job, result = studied
    text = client.read_artifact(artifact_of(job, "results"))
    assert json_format.Parse(text, v1.ValueStudyResult()) == result
    told = json.loads(text)
    assert job.name.split("/")[1] not in text.decode()
    assert told["provenance"]["model"] == MODEL and told["format_version"] == 1
    assert told["provenance"]["site"] == "SITE_RESIDUAL_POST"
    assert int(told["num_queries"]) == len(TRAINING) + len(DEVELOPMENT) + len(TEST)
