"""Overlaps, selectivity and contexts of neurons through the real server: numpy on columns and captures, and transformers, say the same."""

import itertools
import json
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, MODEL, Server
from test_families import FAMILIES, Golden, error
from valuescope import v1

WIDE = 1536  # neurons of a block of MODEL
GATE = v1.ActivationProbabilityDifference(definition="ACTIVATION_DEFINITION_GATE")
PRODUCT = v1.ActivationProbabilityDifference()


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("families"), f"--model_root={FAMILIES}", "--models=")
    with vs.Client(server.address, timeout=120) as client:
        client.server = server
        yield client
    assert server.stop() == 0


def texts(count, seed, longest=30, vocabulary=90):
    generator = np.random.default_rng(seed)
    made = []
    for i in range(count):
        prompt = generator.integers(6, vocabulary, 1 + i % 5).tolist()
        response = generator.integers(6, vocabulary, 1 + int(generator.integers(longest))).tolist()
        made.append(vs.labelled(prompt, response, bool(i % 2)))
    return made


class Case:
    """A golden family with a set of every kind: three values by how often neurons are active, contributions, classes."""

    def __init__(self, name, client):
        self.client = client
        self.model = f"models/{name}"
        client.load_model(self.model, dtype="float32")
        client.wait_until_ready(self.model)
        about = client.model(self.model)
        self.layers, self.width = about.num_layers, about.intermediate_size
        self.sets = {
            value: self.probabilities(texts(24, seed)) for seed, value in enumerate(("a", "b", "c"))
        }
        generator = np.random.default_rng(9)
        rows = generator.standard_normal((2, self.layers, about.hidden_size)).astype(np.float32)
        rows[1] += rows[0]
        pair = [
            client.create_vector(self.model, one, layers=range(self.layers)).name for one in rows
        ]
        self.contributions = client.attribute_neurons(
            self.model, texts(12, 7), pair[0], top_k=25
        ).neuron_set
        self.classes = client.classify_neurons(self.model, *pair, top_percent=40)

    def probabilities(self, responses, how=PRODUCT, **fields):
        return self.client.attribute_neurons(
            self.model, responses, activation_probability_difference=how, **fields
        ).neuron_set.name

    def members(self, neuron_set, count):
        """The `count` first by |score| over all layers, ties by layer, then index."""
        scores = self.client.neuron_columns(neuron_set).scores
        order = np.argsort(-np.abs(scores).ravel(), kind="stable")[:count]
        return {divmod(int(place), self.width) for place in order}

    def of_classes(self, *names):
        kinds = self.client.neuron_columns(self.classes.name).column("class")
        numbers = [v1.NeuronClass.Value(f"NEURON_CLASS_{name.upper()}") for name in names]
        return {(int(layer), int(i)) for layer, i in np.argwhere(np.isin(kinds, numbers))}


@pytest.fixture(scope="module", params=["llama_tied", "gemma2"])
def case(request, families):
    return Case(request.param, families)


# --- CompareNeuronSets ---


def test_overlaps_are_those_of_sets_in_python(case):
    scores = np.abs(case.client.neuron_columns(case.sets["a"]).scores)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    a = v1.NeuronSetFilter(neuron_set=case.sets["a"], top_per_layer=5)
    classes = case.classes.name
    comparison = case.client.compare_neuron_sets(
        [case.contributions.name, case.sets["b"], classes, f"{classes}=shared", a]
    )
    kept = ("shared", "intrinsic", "prompted", "unclassified")
    expected = [
        case.members(case.contributions.name, 25),
        case.members(case.sets["b"], 100),
        case.of_classes(*kept),
        case.of_classes("shared"),
        {(layer, int(i)) for layer in range(case.layers) for i in top[layer]},
    ]
    assert all(expected)
    assert comparison.layers == list(range(case.layers))
    for layer in (None, *comparison.layers):
        parts = [{neuron for neuron in one if layer in (None, neuron[0])} for one in expected]
        jaccard, both = comparison.jaccard(layer), comparison.intersections(layer)
        chance = comparison.expected_intersections(layer)
        for i, j in itertools.combinations(range(5), 2):
            one, other = parts[i], parts[j]
            assert both[i, j] == len(one & other)
            if one | other:
                assert jaccard[i, j] == len(one & other) / len(one | other)
            else:
                assert np.isnan(jaccard[i, j])
            sizes = [
                [sum(neuron[0] == block for neuron in part) for block in range(case.layers)]
                for part in (one, other)
            ]
            assert chance[i, j] == pytest.approx(np.dot(*sizes) / case.width, rel=1e-12)
    assert {digest.name for digest in comparison.response.digests} == {
        case.contributions.name, case.sets["a"], case.sets["b"], classes
    }  # fmt: skip


def test_sets_of_two_models_are_not_compared(families, case):
    name = "qwen3"
    families.load_model(f"models/{name}", dtype="float32")
    families.wait_until_ready(f"models/{name}")
    other = families.attribute_neurons(
        f"models/{name}", texts(4, 1), activation_probability_difference=PRODUCT
    ).neuron_set.name
    with pytest.raises(vs.FailedPrecondition, match=r"sets\[1\]") as refused:
        families.compare_neuron_sets([case.sets["a"], other])
    assert refused.value.reason == "WRONG_MODEL"
    with pytest.raises(vs.FailedPrecondition, match=r"neuron_sets\[1\]") as refused:
        families.score_selectivity([case.sets["a"], other])
    assert refused.value.reason == "WRONG_MODEL"
    with pytest.raises(vs.InvalidRequest, match=r"sets\[1\].class"):
        families.compare_neuron_sets([case.classes.name, f"{case.contributions.name}=shared"])
    with pytest.raises(vs.NotFound):
        families.compare_neuron_sets([case.classes.name, "neuronSets/0123456789abcdef"])


# --- ScoreSelectivity ---


def lape(probabilities, percentile, percent):
    """Tang et al.: of [values, layers, neurons] the entropy, the members as pairs by entropy, the threshold, who is active."""
    with np.errstate(invalid="ignore"):
        shares = probabilities / probabilities.sum(0)
        entropy = -np.nansum(np.where(shares > 0, shares * np.log(shares), 0.0), axis=0)
    threshold = np.percentile(probabilities, percentile)
    active = (probabilities > 0) & (probabilities >= threshold)
    candidates = np.where(active.any(0), entropy, np.inf).ravel()
    count = min(max(1, int(candidates.size * percent / 100)), int(np.isfinite(candidates).sum()))
    # Entropies that differ by rounding alone are ties.
    order = np.argsort(np.round(candidates, 12), kind="stable")[:count]
    return entropy, [divmod(int(i), entropy.shape[1]) for i in order], threshold, active


@pytest.mark.parametrize(("percentile", "percent"), [(None, None), (50, 20), (0, 100), (100, 7.5)])
def test_selectivity_is_the_entropy_of_lape(case, percentile, percent):
    fields = {"activity_percentile": percentile, "top_percent": percent, "top_k": 10000}
    found = case.client.score_selectivity(case.sets, **fields)
    probabilities = np.array(
        [case.client.neuron_columns(one).column("mean_expressing") for one in case.sets.values()]
    )
    entropy, members, threshold, active = lape(
        probabilities, 95 if percentile is None else percentile, percent or 1
    )
    response = found.response
    assert response.activity_threshold == pytest.approx(threshold, rel=1e-12)
    assert [(n.layer, n.index) for n in response.top] == members
    for neuron in response.top:
        at = neuron.layer, neuron.index
        assert neuron.entropy == pytest.approx(entropy[at], abs=1e-12)
        assert list(neuron.values) == np.flatnonzero(active[:, *at]).tolist()
    columns = case.client.neuron_columns(found.neuron_set.name)
    never = probabilities.sum(0) == 0
    expected = np.where(never, 0, np.log(3) - entropy)
    np.testing.assert_allclose(columns.scores, expected, atol=1e-12)
    assert {tuple(map(int, at)) for at in np.argwhere(columns.column("member"))} == set(members)
    bits = sum(active[k].astype(np.int64) << k for k in range(3))
    np.testing.assert_array_equal(columns.column("values"), bits)
    mask = columns.column("member") == 1
    assert list(found.members_of_value.values()) == [int((one & mask).sum()) for one in active]
    assert [layer.num_members for layer in found.neuron_set.layers] == mask.sum(1).tolist()
    assert found.neuron_set.method == "selectivity"
    again = case.client.neuron_set(found.neuron_set.name)
    assert list(again.top) == list(found.neuron_set.top)


def test_an_edit_with_a_set_of_selectivity_acts_on_all_its_members(case):
    found = case.client.score_selectivity(
        case.sets, top_percent=30, activity_percentile=20, top_k=1
    )
    member = case.client.neuron_columns(found.neuron_set.name).column("member")
    pairs = [tuple(map(int, at)) for at in np.argwhere(member)]
    assert len(pairs) > len(found.response.top) == 1
    tap = vs.tap("residual_post", "all", "all")

    def captured(neurons):
        edit = vs.ScaleNeurons(neurons, 0.0, tokens="all")
        return case.client.capture(case.model, [list(range(10, 30))], [tap], steer=edit)[0][0]

    by_set, by_pairs = captured(found.neuron_set.name), captured(pairs)
    np.testing.assert_array_equal(by_set, by_pairs)
    assert not np.array_equal(by_set, captured(pairs[:1]))


def test_sets_that_do_not_go_together_are_refused_by_name(case):
    a = case.sets["a"]
    by_gate = case.probabilities(texts(24, 1), GATE)
    fewer = case.probabilities(texts(24, 1), layers=[0])
    for other, reason in (
        (case.contributions.name, "WRONG_METHOD"),
        (case.classes.name, "WRONG_METHOD"),
        (by_gate, "WRONG_DEFINITION"),
        (fewer, "WRONG_LAYERS"),
        (a, "INVALID_FIELD"),
    ):
        with pytest.raises(vs.InvalidRequest, match=r"neuron_sets\[1\]") as refused:
            case.client.score_selectivity([a, other])
        assert refused.value.reason == reason
    for fields in ({"activity_percentile": 101}, {"top_percent": 0.0}, {"top_k": -1}):
        with pytest.raises(vs.InvalidRequest, match=next(iter(fields))):
            case.client.score_selectivity(case.sets, **fields)


# --- TopContexts ---


def expected_contexts(captures, texts, neuron, searched, top_k, window):
    """From whole captures [layers, tokens, neurons] of texts, lists of ids; `searched` are positions of each."""
    best = []
    for number, (capture, ids) in enumerate(zip(captures, texts, strict=True)):
        values = capture[neuron[0], :, neuron[1]]
        if len(searched[number]) == 0:
            continue
        position = searched[number][int(np.argmax(values[searched[number]]))]
        first, end = max(0, position - window), min(len(ids), position + window + 1)
        best.append((number, position, values[position], ids[first:end], values[first:end]))
    return sorted(best, key=lambda one: (-one[2], one[0]))[:top_k]


@pytest.mark.parametrize("tokens", ["response", "prompt", "all", "last_prompt"])
def test_contexts_are_those_of_captures(case, tokens):
    responses = texts(45, 21)
    responses[3].response.token_ids.ids[:] = []
    inputs = [(list(r.prompt.token_ids.ids), list(r.response.token_ids.ids)) for r in responses]
    tap = vs.tap("mlp_neurons", "all", "all")
    captures = [one[0] for one in case.client.capture(case.model, inputs, [tap])]
    ids = [prompt + response for prompt, response in inputs]
    searched = [
        np.arange(len(prompt) + len(response))[
            {
                "response": slice(len(prompt), None),
                "prompt": slice(len(prompt)),
                "all": slice(None),
                "last_prompt": slice(len(prompt) - 1, len(prompt)),
            }[tokens]
        ]
        for prompt, response in inputs
    ]
    neurons = [(1, 5), (0, case.width - 1), (1, 0)]
    found = case.client.top_contexts(
        case.model, neurons, responses, tokens=tokens, top_k=6, window=3
    )
    assert found.neurons == neurons
    ran = sum(len(one) for one, places in zip(ids, searched, strict=True) if len(places))
    assert found.response.usage.prompt_tokens == ran
    for neuron in neurons:
        expected = expected_contexts(captures, ids, neuron, searched, 6, 3)
        contexts = found.of(*neuron)
        assert [(c.input_index, c.position) for c in contexts] == [one[:2] for one in expected]
        for context, (_, position, value, window, values) in zip(contexts, expected, strict=True):
            # Prompts that begin alike may have come from the cache, in a capture or here.
            assert context.activation == pytest.approx(value, rel=1e-5, abs=1e-6)
            assert list(context.token_ids) == window
            assert context.token_ids[context.center] == ids[context.input_index][position]
            np.testing.assert_allclose(context.activations, values, rtol=1e-5, atol=1e-6)
            assert context.activations[context.center] == np.float32(context.activation)


def test_activations_of_contexts_are_those_of_transformers(case):
    golden = Golden(case.model.removeprefix("models/"))
    whole = [
        k
        for k, ids in enumerate(golden.about["sequences"])
        if golden.about["site_positions"][k] == list(range(len(ids)))
    ]
    sequences = [golden.about["sequences"][k] for k in whole]
    assert sum(len(ids) for ids in sequences) >= 9
    given = [vs.labelled(ids, [], True) for ids in sequences]
    neurons = [(0, 2), (1, 7)]
    found = case.client.top_contexts(case.model, neurons, given, tokens="all", window=64)
    for layer, index in neurons:
        peaks = [golden.values[f"{k}.mlp_neurons.{layer}"][:, index] for k in whole]
        contexts = {context.input_index: context for context in found.of(layer, index)}
        assert len(contexts) == len(whole)
        for number, values in enumerate(peaks):
            context = contexts[number]
            assert context.position == int(np.argmax(values))
            assert error(context.activations, values) < golden.tolerance


def test_a_file_of_texts_gives_the_contexts_of_the_same_texts_inline(case):
    responses = texts(60, 5)
    artifact = case.client.write_artifact(responses)
    for_both = {"tokens": "response", "top_k": 50, "window": 0}
    inline = case.client.top_contexts(case.model, [(0, 1)], responses, **for_both)
    file = case.client.top_contexts(case.model, [(0, 1)], artifact.name, **for_both)
    assert list(file.response.neurons) == list(inline.response.neurons)
    broken = vs.to_json_lines(responses[:2]) + b'{"prompt": {"text": "x"}}\n'
    damaged = case.client.write_artifact(broken, media_type="application/x-ndjson")
    with pytest.raises(vs.InvalidRequest, match="line 3"):
        case.client.top_contexts(case.model, [(0, 1)], damaged.name)
    with pytest.raises(vs.InvalidRequest, match=r"`tokens.positions\[0\]`.*of text 0"):
        case.client.top_contexts(case.model, [(0, 1)], responses, tokens=[100])


def test_windows_show_whole_characters_and_where_the_neuron_is(client):
    """Byte-level tokens: an emoji is several of them, and a window may begin or end within it."""
    given = [
        vs.labelled("Say it.", text, True)
        for text in ("Tea ☕ and 😀😀 fun 🇩🇰!", "你好，世界 — 🤷🏽‍♀️", "naïve café, plainly")
    ]
    whole = [
        client.detokenize(MODEL, [*client.tokenize(MODEL, "Say it.").token_ids, *ids])
        for ids in (client.tokenize(MODEL, g.response.text).token_ids for g in given)
    ]
    neurons = [(layer, index) for layer in (0, 15, 29) for index in range(12)]
    for window in (0, 1, 3):
        found = client.top_contexts(MODEL, neurons, given, tokens="all", top_k=3, window=window)
        for record in found.records():
            assert "\ufffd" not in record["text"] and record["text"]
            assert record["text"] in whole[record["input_index"]]
            assert len(record["token_ids"]) <= 2 * window + 1
    everything = client.top_contexts(MODEL, [(3, 3)], given, top_k=3, window=64).of(3, 3)
    assert {context.text for context in everything} == set(whole)


def test_windows_that_fit_no_message_are_refused_before_anything_runs(client):
    neurons = [(0, index) for index in range(256)]
    given = [vs.labelled("a", "b", True)] * 10
    with pytest.raises(vs.Exhausted, match="smaller `window`") as refused:
        client.top_contexts(MODEL, neurons, given, window=64, top_k=10)
    assert refused.value.reason == "RESPONSE_TOO_LARGE"
    found = client.top_contexts(MODEL, neurons, given, window=64, top_k=9)
    assert len(found.neurons) == 256 and len(found.records()) == 9 * 256
    for neurons, field in (
        ([(30, 0)], r"neurons\[0\].layer"),
        ([(0, 0), (0, WIDE)], r"neurons\[1\].index"),
        ([(0, 0), (0, 0)], r"neurons\[1\]"),
    ):
        with pytest.raises(vs.InvalidRequest, match=field):
            client.top_contexts(MODEL, neurons, given)


# --- Command line ---


def valuescope(server, *arguments):
    done = subprocess.run(
        [str(BUILD / "client" / "cpp" / "valuescope"), "--server", server.address, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_compares_selects_and_shows_contexts(families, case, tmp_path):
    server = families.server
    a, b = case.sets["a"], case.sets["b"]
    code, table, told = valuescope(
        server, "neurons", "compare", a, b, f"{case.classes.name}=shared"
    )
    assert code == 0, told
    assert table.splitlines()[0].split()[:4] == ["FIRST", "SECOND", "LAYER", "BOTH"]
    assert len(table.splitlines()) == 4
    code, table, told = valuescope(
        server, "neurons", "compare", a, b, "--by_layer", "--top_per_layer", "5"
    )
    assert code == 0, told
    assert len(table.splitlines()) == 2 + case.layers
    code, line, told = valuescope(server, "--json", "neurons", "compare", a, b)
    assert code == 0, told
    assert len(json.loads(line)["overlaps"]) == 1 + case.layers
    code, _, told = valuescope(server, "neurons", "compare", a, f"{b}=grand")
    assert code == 2 and "shared" in told
    code, table, told = valuescope(server, "neurons", "selectivity", a, b, "--top_percent", "20")
    assert code == 0, told
    assert "ENTROPY" in table and b in table
    code, _, told = valuescope(server, "neurons", "selectivity", a, case.classes.name)
    assert code == 3 and "neuron_sets[1]" in told
    file = tmp_path / "texts.jsonl"
    file.write_bytes(vs.to_json_lines(texts(5, 2)))
    given = ["--model", case.model, "--neurons", "1/5+0/2", str(file), "--top_k", "3"]
    code, table, told = valuescope(server, "neurons", "contexts", *given)
    assert code == 0, told
    rows = table.splitlines()
    assert len(rows) == 7 and [row.split()[0] for row in rows[1::3]] == ["1/5", "0/2"]
    code, _, told = valuescope(
        server, "neurons", "contexts", "--model", case.model, "--neurons", "5", str(file)
    )
    assert code == 2 and "LAYER/INDEX" in told
