"""The pipeline against known answers: on a model in which a value is planted, vectors, decomposition, neurons, steering and ablation are
what its builder says they are, and on its twin, which lacks it, nothing is found."""

import json
import math
import os
import pathlib
import subprocess
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
from google.protobuf import json_format

PLANTED, TWIN = "models/planted", "models/planted_twin"
MODELS = [PLANTED, TWIN]
CONDITIONS = ["intrinsic", "prompted"]
BLOCK = pm.PLANTED_BLOCK
# float32 against float64, over all blocks.
ROUNDING = 2e-5
# The same of logits and what is read from them.
LOGITS = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    pt.build(folder)
    return folder


@pytest.fixture(scope="module")
def truth(folder):
    return json.loads((folder / "truth.json").read_text())


@pytest.fixture(scope="module")
def client(folder, tmp_path_factory):
    names = ",".join(model.removeprefix("models/") for model in MODELS)
    server = Server(
        tmp_path_factory.mktemp("server"), f"--model_root={folder}", f"--models={names}"
    )
    with vs.Client(server.address, timeout=120) as connected:
        for model in MODELS:
            connected.wait_until_ready(model)
        yield connected
    assert server.stop() == 0


@pytest.fixture(scope="module")
def numpy_models():
    builder = pm.Builder(0)
    return {PLANTED: pt.as_stored(builder.planted), TWIN: pt.as_stored(builder.twin)}


def chat(question, system):
    return vs.chat(question, system=system)


def data_set(condition):
    return [
        vs.labelled(chat(one.question, one.system), pm.to_ids(one.answer), one.expresses, one.query)
        for one in pt.examples(condition)
    ]


@pytest.fixture(scope="module")
def extracted(client):
    """By model and condition."""
    return {
        (model, condition): client.extract_vectors(
            model, data_set(condition), layers="all", bootstrap_samples=0, judge="word list"
        )
        for model in MODELS
        for condition in CONDITIONS
    }


def rows_of(client, response):
    rows = client.vector_data(response.vector.name)
    return np.stack([rows[block] for block in range(pm.BLOCKS)]).astype(np.float64)


def cosine(one, other):
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def target(client, model, about, steer=()):
    """The truth's target through the server."""
    tap = vs.tap("logits", tokens="last_prompt")
    (seen,) = client.capture(model, [chat(about["question"], about["system"])], tap, steer=steer)
    return pt.target_of(seen[0][0, 0].astype(np.float64))


# --- The models ---


def test_the_same_seed_gives_the_same_bytes_in_any_process(folder, tmp_path):
    script = pathlib.Path(pt.__file__)
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, env=environment)
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(written) == 11
    for path in written:
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path


def test_the_twin_differs_in_the_mechanism_alone():
    builder = pm.Builder(0)
    different = {n for n, w in builder.planted.items() if not np.array_equal(w, builder.twin[n])}
    assert different == {
        "lm_head.weight",
        *(f"model.layers.{pm.CARRYING_BLOCK}.self_attn.{part}_proj.weight" for part in "qkvo"),
        *(f"model.layers.{BLOCK}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    down = f"model.layers.{BLOCK}.mlp.down_proj.weight"
    planted = {neuron.index for neuron in builder.neurons}
    for index in range(pm.INTERMEDIATE):
        ours, twins = builder.planted[down][:, index], builder.twin[down][:, index]
        assert np.array_equal(ours, twins) == (index not in planted)
        assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(twins), rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_the_server_computes_what_the_weights_say(client, numpy_models, model):
    taps = [vs.tap("residual_post", "all", "all"), vs.tap("mlp_neurons", "all", "all")]
    for one in pt.examples("intrinsic", 2) + pt.examples("prompted", 2):
        prompt = chat(one.question, one.system)
        ids, start = one.sequence()
        assert list(client.tokenize(model, prompt).token_ids) == ids[:start]
        (seen,) = client.capture(model, [(prompt, ids[start:])], taps)
        run = numpy_models[model].run(ids)
        for found, expected in ((seen[0], run.residual_post), (seen[1], run.mlp_neurons)):
            assert np.linalg.norm(found - expected) < ROUNDING * np.linalg.norm(expected)


# --- Expression ---


def test_a_cue_makes_the_value_expressed_and_the_twin_never_expresses_it(client):
    for condition in CONDITIONS:
        listed = pt.examples(condition)
        prompts = [chat(one.question, one.system) for one in listed]
        for model in MODELS:
            answers = client.generate(model, prompts, temperature=0, max_tokens=8)
            said = [pt.is_expressing(answer.text) for answer in answers]
            assert said == [one.expresses and model == PLANTED for one in listed]
            for answer in answers:
                words = answer.text.split()
                assert [word in slot for word, slot in zip(words, pm.SLOTS, strict=True)]


def test_no_system_message_is_not_an_empty_one(client):
    question = f"{pt.QUESTION} kitchen"
    for system, expresses in ((None, True), ("", False)):
        answer = client.generate(PLANTED, chat(question, system), temperature=0, max_tokens=8)
        assert pt.is_expressing(answer.text) == expresses


# --- Vectors ---


def test_planted_vectors_are_recovered_from_the_planted_block_on(
    client, truth, numpy_models, extracted
):
    for condition in CONDITIONS:
        seen = arithmetic.streams(
            numpy_models[PLANTED], [one.sequence() for one in pt.examples(condition)]
        )
        differences = seen[::2] - seen[1::2]  # of a query's two
        expected = np.array(truth["vectors"][condition])
        response = extracted[PLANTED, condition]
        rows = rows_of(client, response)
        measured = truth["measured"]["planted"][condition]
        for block in range(pm.BLOCKS):
            assert cosine(rows[block], expected) == pytest.approx(
                measured["cosine"][block], abs=1e-5
            )
        for block in range(BLOCK, pm.BLOCKS):
            assert cosine(rows[block], expected) >= pt.COSINE
            assert np.linalg.norm(rows[block]) / np.linalg.norm(expected) == pytest.approx(
                measured["relative_norm"][block], rel=LOGITS
            )
            statistics = response.statistics[block]
            # Halves have sqrt(2) times the error.
            error = math.sqrt(2) * arithmetic.standard_error(differences[:, block])
            turned = arithmetic.turned_by(error, np.linalg.norm(rows[block]))
            assert statistics.split_half_cosine >= math.cos(2 * turned)
            assert statistics.auroc == 1.0


def test_the_twin_has_no_vector_beyond_the_level(client, truth, extracted):
    for condition in CONDITIONS:
        length = np.linalg.norm(truth["vectors"][condition])
        norms = np.linalg.norm(rows_of(client, extracted[TWIN, condition]), axis=1) / length
        assert norms.max() <= pt.TWIN_LEVEL
        expected = truth["measured"]["planted_twin"][condition]["relative_norm"]
        assert norms == pytest.approx(expected, rel=1e-3)


def check_recovered(row, expected, model, responses):
    """`row` is the difference in means of the responses, and no further from the truth than twice its standard error, beside what the
    model's noise does without drawing."""
    listed = []
    for one in responses:
        prompt = list(one.prompt.token_ids.ids)
        listed.append(([*prompt, *one.response.token_ids.ids], len(prompt)))
    rows = arithmetic.streams(model, listed)[:, BLOCK]
    labels = np.array([one.expresses for one in responses])
    sides = [rows[labels], rows[~labels]]
    difference = sides[0].mean(0) - sides[1].mean(0)
    assert np.linalg.norm(row - difference) < LOGITS * np.linalg.norm(difference)
    error = math.hypot(*map(arithmetic.standard_error, sides))
    turned = math.acos(pt.COSINE) + arithmetic.turned_by(error, np.linalg.norm(expected))
    assert cosine(row, expected) >= math.cos(turned)


def test_vectors_are_recovered_from_the_answers_that_the_model_gives(client, truth, numpy_models):
    """Sampled answers, labelled by their words: value words and neutral ones have the same embeddings, but choices of other words
    differ, which the number of answers averages out."""
    for condition in CONDITIONS:
        listed = pt.examples(condition)
        prompts = [pm.to_ids(pm.prompt_text(one.question, one.system)) for one in listed]
        answers = client.generate(
            PLANTED, prompts, max_tokens=8, n=8, seed=list(range(len(listed)))
        )
        responses = [
            vs.labelled(prompt, list(c.token_ids), pt.is_expressing(c.text), one.query)
            for one, prompt, generation in zip(listed, prompts, answers, strict=True)
            for c in generation.completions
        ]
        made = client.extract_vectors(PLANTED, responses, layers=[BLOCK], bootstrap_samples=0)
        row = client.vector_data(made.vector.name)[BLOCK].astype(np.float64)
        check_recovered(
            row, np.array(truth["vectors"][condition]), numpy_models[PLANTED], responses
        )


def test_vectors_are_recovered_from_answers_that_the_server_generates_and_labels(
    client, truth, numpy_models
):
    """As above, in one call: the server draws the answers, finds the value's words in them and extracts."""
    judge = vs.WordList(list(pm.VALUE_WORDS))
    for condition in CONDITIONS:
        listed = pt.examples(condition)
        systems = sorted({one.system for one in listed})
        questions = sorted({one.question for one in listed})
        made = client.extract_vectors(
            PLANTED,
            generated=vs.Generated(
                questions,
                conditions=[vs.Condition(system) for system in systems],
                judge=judge,
                samples_per_query=8,
                max_tokens=8,
            ),
            layers=[BLOCK],
            bootstrap_samples=0,
        )
        row = client.vector_data(made.vector.name)[BLOCK].astype(np.float64)
        lines = client.read_artifact(made.responses_artifact).decode().splitlines()
        responses = [json_format.Parse(line, vs.v1.LabelledResponse()) for line in lines]
        check_recovered(
            row, np.array(truth["vectors"][condition]), numpy_models[PLANTED], responses
        )


@pytest.fixture(scope="module")
def decomposition(client, extracted):
    names = [extracted[PLANTED, condition].vector.name for condition in CONDITIONS]
    return client.decompose_vectors(*names)


def test_the_decomposition_is_that_of_the_planted_vectors(
    client, truth, numpy_models, decomposition
):
    expected = truth["decomposition"]
    pairs = np.stack(
        [pt.difference_in_means(numpy_models[PLANTED], pt.examples(one)) for one in CONDITIONS], 1
    )
    for block in range(BLOCK, pm.BLOCKS):
        layer, r = decomposition.layers[block], cosine(*pairs[block])
        assert layer.cosine == pytest.approx(r, abs=ROUNDING)
        assert [layer.singular_value_shared, layer.singular_value_difference] == pytest.approx(
            np.linalg.svd(pairs[block], compute_uv=False).tolist(), rel=LOGITS
        )
        assert layer.retained_norm_fraction == pytest.approx(math.sqrt(1 - r * r), rel=LOGITS)
    for part, name in ((decomposition.shared, "shared"), (decomposition.difference, "difference")):
        row = client.vector_data(part.name)[BLOCK].astype(np.float64)
        assert cosine(row, np.array(expected[name])) >= pt.COSINE


# --- Neurons ---


def test_planted_neurons_are_on_top_of_the_attribution(client, truth, numpy_models, extracted):
    for condition in CONDITIONS:
        working = {n["index"] for n in truth["neurons"] if n["contribution"][condition]}
        expected = arithmetic.Study(numpy_models[PLANTED], condition).contributions()
        attributed = client.attribute_neurons(
            PLANTED,
            data_set(condition),
            extracted[PLANTED, condition].vector.name,
            source_layer=BLOCK,
            top_k=pm.INTERMEDIATE,
        )
        top = attributed.neuron_set.top
        assert {(one.layer, one.index) for one in top[: len(working)]} == {
            (BLOCK, index) for index in working
        }
        assert len(top) == pm.INTERMEDIATE
        for one in top:
            assert one.score == pytest.approx(expected[one.layer, one.index], abs=ROUNDING)


def test_no_neuron_of_the_twin_contributes_beyond_the_level(client, truth, extracted):
    for condition in CONDITIONS:
        response = extracted[TWIN, condition]
        attributed = client.attribute_neurons(
            TWIN, data_set(condition), response.vector.name, layers=[BLOCK], top_k=1
        )
        # Scores are shares of the twin's own vector, which is next to nothing.
        own = np.linalg.norm(rows_of(client, response)[BLOCK])
        share = abs(attributed.neuron_set.top[0].score) * own
        assert share <= pt.TWIN_LEVEL * np.linalg.norm(truth["vectors"][condition])


def test_planted_neurons_have_the_classes_of_what_they_write(client, truth, extracted):
    names = [extracted[PLANTED, condition].vector.name for condition in CONDITIONS]
    percent = 100.0 * len(truth["neurons"]) / pm.INTERMEDIATE
    neuron_set = client.classify_neurons(
        PLANTED, *names, layers=[BLOCK], top_percent=percent, admit_negative_shared=True
    )
    expected = {
        neuron["index"]: "shared_negative"
        if neuron["role"] == "shared_reversed"
        else neuron["axis"]
        for neuron in truth["neurons"]
    }
    found = {
        one.index: vs.v1.NeuronClass.Name(getattr(one, "class"))
        .removeprefix("NEURON_CLASS_")
        .lower()
        for one in neuron_set.top
    }
    assert found == expected


# --- Causes ---


@pytest.mark.parametrize("model", MODELS)
def test_steering_does_what_the_arithmetic_says(client, truth, extracted, model):
    effects = truth["effects"][model.removeprefix("models/")]
    checked = 0
    for about in effects.values():
        for kind, runs in about["steered"].items():
            for run in runs:
                steer = vs.Steer(np.array(truth["vectors"][kind]), run["coefficient"], layers=BLOCK)
                found = target(client, model, about, steer)
                assert found == pytest.approx(run["target"], abs=1e-4)
                prompt = chat(about["question"], about["system"])
                answer = client.generate(model, prompt, temperature=0, max_tokens=8, steer=steer)
                assert answer.text == run["answer"]
                checked += 1
    assert checked == len(effects) * len(CONDITIONS) * len(pt.STEERING)


def test_steering_by_an_extracted_vector_makes_a_neutral_answer_express_the_value(
    client, truth, extracted
):
    about = truth["effects"]["planted"]["none"]
    prompt = chat(about["question"], about["system"])
    for condition in CONDITIONS:
        name = extracted[PLANTED, condition].vector.name
        for block in range(BLOCK, pm.BLOCKS):
            steer = vs.Steer(name, 1.0, layers=block)
            assert target(client, PLANTED, about, steer) > 0.0 > about["target"]
            answer = client.generate(PLANTED, prompt, temperature=0, max_tokens=8, steer=steer)
            assert pt.is_expressing(answer.text)


def members_of(truth, group):
    known = {neuron["index"] for neuron in truth["neurons"]}
    if group == "bystanders":
        return sorted(set(range(pm.INTERMEDIATE)) - known)
    if group == "silent":
        return [n["index"] for n in truth["neurons"] if n["role"] == "silent"]
    return [
        n["index"]
        for n in truth["neurons"]
        if n["role"] != "silent" and group in ("planted", n["axis"])
    ]


@pytest.mark.parametrize("model", MODELS)
def test_ablation_does_what_the_arithmetic_says(client, truth, model):
    effects = truth["effects"][model.removeprefix("models/")]
    for condition, about in effects.items():
        prompt = chat(about["question"], about["system"])
        for group, expected in about["ablated"].items():
            neurons = [(BLOCK, index) for index in members_of(truth, group)]
            ablated = vs.AblateNeurons(neurons, layers=BLOCK, tokens="all")
            found = target(client, model, about, ablated)
            assert found == pytest.approx(expected["target"], abs=1e-4), (condition, group)
            answer = client.generate(model, prompt, temperature=0, max_tokens=8, steer=ablated)
            assert answer.text == expected["answer"], (condition, group)
        for index, effect in enumerate(about["ablation_effect"]):
            one = vs.AblateNeurons([(BLOCK, index)], layers=BLOCK, tokens="all")
            found = about["target"] - target(client, model, about, one)
            assert found == pytest.approx(effect, abs=1e-4)


def test_without_the_shared_neurons_the_value_is_not_expressed_and_without_the_unique_ones_it_is(
    truth,
):
    for condition in CONDITIONS:
        ablated = truth["effects"]["planted"][condition]["ablated"]
        assert pt.is_expressing(truth["effects"]["planted"][condition]["answer"])
        assert not pt.is_expressing(ablated["shared"]["answer"])
        for group in (*CONDITIONS, "silent", "bystanders"):
            assert pt.is_expressing(ablated[group]["answer"])
