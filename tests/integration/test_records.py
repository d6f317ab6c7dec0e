"""What is stored about a result is true of it: where it comes from, how good it is, what was left out."""

import json
import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, MODEL
from valuescope import v1

LAYERS = range(30)
WIDTH = 576
SOURCE = 5


@pytest.fixture(scope="module")
def responses():
    """Few and short: what they say does not matter here."""
    generator = np.random.default_rng(5)
    return [
        vs.labelled(
            [int(i) for i in generator.integers(1000, 40000, 6)],
            [int(i) for i in generator.integers(1000, 40000, 5 + index)],
            bool(index % 2),
            f"q{index // 2}",
        )
        for index in range(8)
    ]


@pytest.fixture(scope="module")
def extracted(client, responses):
    return client.extract_vectors(
        MODEL, responses, layers=[SOURCE], judge="a coin", seed=7, bootstrap_samples=20
    )


def inputs(record):
    return {entry.name: entry.digest for entry in record.inputs}


def test_what_writes_a_source_layer_adds_up_to_it(client, responses, extracted):
    attributed = client.attribute_neurons(
        MODEL, responses, extracted.vector.name, source_layer=SOURCE
    )
    assert "only 4 expressing" in attributed.warnings[0]
    assert list(attributed.neuron_set.warnings) == list(attributed.warnings)
    layers = attributed.neuron_set.layers
    assert [layer.layer for layer in layers] == list(range(SOURCE + 1))
    row = client.vector_data(extracted.vector.name)[SOURCE].astype(np.float64)
    taps = [
        vs.tap("embedding", tokens="response", reduction="mean"),
        vs.tap("attention_output", range(SOURCE + 1), tokens="response", reduction="mean"),
    ]
    written = client.capture(MODEL, [(r.prompt, r.response) for r in responses], taps)
    expresses = np.array([r.expresses for r in responses])
    others = 0.0
    for tap in range(2):
        means = np.array([one[tap].sum(axis=(0, 1)) for one in written], np.float64)
        others += (means[expresses].mean(axis=0) - means[~expresses].mean(axis=0)) @ row
    total = sum(layer.score_sum for layer in layers) + others / (row @ row)
    assert total == pytest.approx(1, rel=1e-4)
    # Each part matters, so that none could be missing unseen.
    assert abs(others / (row @ row)) > 0.01
    assert all(abs(layer.score_sum) > 1e-4 for layer in layers[1:])


def test_blocks_behind_a_source_layer_are_refused(client, responses, extracted):
    request = vs.attribution_request(
        MODEL, responses, extracted.vector.name, layers=[0, SOURCE + 1], source_layer=SOURCE
    )
    reason = rf"layer {SOURCE + 1}, allowed are 0 to {SOURCE}"
    with pytest.raises(vs.InvalidRequest, match=reason):
        client.attribute_neurons(
            MODEL,
            responses,
            extracted.vector.name,
            layers=[0, SOURCE + 1],
            source_layer=SOURCE,
        )
    with pytest.raises(vs.InvalidRequest, match=reason):
        client.create_job(v1.JobSpec(attribute_neurons=request))


def test_an_extraction_of_known_rows_has_its_own_statistics(client, responses, extracted):
    again = client.extract_vectors(
        MODEL, responses, layers=[SOURCE], judge="a coin", seed=7, bootstrap_samples=20
    )
    assert again.vector.name == extracted.vector.name
    alone = [
        vs.labelled(list(r.prompt.token_ids.ids), list(r.response.token_ids.ids), r.expresses)
        for r in responses
    ]
    other = client.extract_vectors(MODEL, alone, layers=[SOURCE], seed=8, bootstrap_samples=0)
    assert other.vector.data == extracted.vector.data
    assert other.vector.name != extracted.vector.name
    for one, interval, judge in ((extracted, True, "a coin"), (other, False, "caller")):
        kept = client.vector(one.vector.name)
        assert list(kept.statistics) == list(one.statistics)
        assert kept.statistics[0].HasField("norm_interval") == interval
        assert kept.provenance.judge == judge


def test_an_extraction_records_what_it_was_made_of(client, responses, extracted):
    record = client.vector(extracted.vector.name).provenance
    assert record.judge == "a coin"
    assert list(record.seeds) == []  # nothing is drawn
    assert record.template_digest == ""  # no chat was rendered
    assert record.determinism == "bitwise on cpu float32"
    assert json.loads(record.options)["bootstrap_samples"] == 20
    digest = inputs(record)["responses"]
    assert {d.name: d.digest for d in extracted.digests}["responses"] == digest

    # The same ones as a file are the same responses; a chat is rendered by a template; steering is told.
    artifact = client.write_artifact(responses)
    uploaded = client.extract_vectors(MODEL, artifact.name, layers=[SOURCE]).vector.provenance
    assert inputs(uploaded)["responses"] == digest
    assert inputs(uploaded)["data set"] == artifact.sha256
    chats = [
        vs.labelled(vs.chat("Why?", system=""), [int(i) + 40 for i in range(5)], label)
        for label in (True, False)
    ]
    steer = v1.Intervention(
        layers=v1.Layers(list=v1.LayerList(layers=[2])),
        tokens=v1.TokenSelection(kind=v1.TOKEN_KIND_ALL),
        add=v1.AddVector(tensor=vs.from_numpy(np.ones(WIDTH, np.float32)), coefficient=0.5),
    )
    steered = client.extract_vectors(
        MODEL, chats, layers=[SOURCE], interventions=[steer]
    ).vector.provenance
    assert steered.template_digest == client.model(MODEL).template_digest
    assert inputs(steered)["responses"] != digest
    (told,) = json.loads(steered.options)["interventions"]
    assert told["add"]["coefficient"] == 0.5
    assert len(told["add"]["tensor"]["sha256"]) == 64

    attributed = client.attribute_neurons(
        MODEL, responses, extracted.vector.name, judge="two people"
    ).neuron_set.provenance
    assert attributed.judge == "two people"
    assert inputs(attributed)["responses"] == digest


def test_every_pooling_and_pca_equal_numpy_on_captures(client, responses):
    def tap(tokens):
        return vs.tap("residual_post", [SOURCE], tokens=tokens, reduction="mean")

    taps = {"response": 0, "last": 1, "last_prompt": 2}
    captured = client.capture(
        MODEL, [(r.prompt, r.response) for r in responses], [tap(name) for name in taps]
    )
    rows = {
        name: np.array([one[index].reshape(WIDTH) for one in captured], np.float64)
        for name, index in taps.items()
    }
    expresses = np.array([r.expresses for r in responses])
    tokens = np.array([len(r.response.token_ids.ids) for r in responses])

    def difference(name, weights=None):
        means = [
            np.average(rows[name][side], axis=0, weights=None if weights is None else weights[side])
            for side in (expresses, ~expresses)
        ]
        return means[0] - means[1]

    def extracted(**fields):
        made = client.extract_vectors(MODEL, responses, layers=[SOURCE], **fields)
        assert (
            made.vector.provenance.pooling == made_pooling[fields.get("pooling", "response_mean")]
        )
        return client.vector_data(made.vector.name)[SOURCE], made.statistics[0]

    made_pooling = {
        "response_mean": v1.POOLING_RESPONSE_MEAN,
        "token_mean": v1.POOLING_TOKEN_MEAN,
        "last_token": v1.POOLING_LAST_TOKEN,
        "last_prompt_token": v1.POOLING_LAST_PROMPT_TOKEN,
    }
    for pooling, wanted in {
        "response_mean": difference("response"),
        "token_mean": difference("response", tokens),
        "last_token": difference("last"),
        "last_prompt_token": difference("last_prompt"),
    }.items():
        row, _ = extracted(pooling=pooling)
        np.testing.assert_allclose(row, wanted, atol=1e-5 * np.abs(wanted).max(), err_msg=pooling)
    pairs = rows["last"][1::2] - rows["last"][::2]
    _, s, vt = np.linalg.svd(pairs, full_matrices=False)
    row, statistics = extracted(method="pca", pooling="last_token")
    np.testing.assert_allclose(row, vt[0] * np.sign(vt[0] @ pairs.sum(axis=0)), atol=1e-5)
    assert statistics.explained_variance == pytest.approx(s[0] ** 2 / (s**2).sum(), rel=1e-5)
    assert statistics.num_pairs == 4
    assert {m.field for m in statistics.missing} >= {"norm_interval", "debiased_squared_norm"}


def test_each_part_of_a_decomposition_records_its_own_pair(client, responses, extracted):
    few = client.extract_vectors(MODEL, responses[:4], layers=[SOURCE], seed=9)
    rows = np.random.default_rng(2).standard_normal((2, WIDTH))
    given = [client.create_vector(MODEL, row, layers=SOURCE).name for row in rows]
    names = {"a": (extracted.vector.name, few.vector.name), "b": tuple(given)}
    response = client.decompose_pairs(names)
    a, b = (one.shared.provenance for one in response.decompositions)
    assert set(inputs(a)) == set(names["a"])
    assert a.judge == "a coin; caller"
    assert list(a.seeds) == []
    (pair,) = json.loads(a.options)["pairs"]
    assert pair == {"value": "a", "intrinsic": names["a"][0], "prompted": names["a"][1]}
    assert (a.num_expressing, a.num_non_expressing) == (6, 6)
    assert a.determinism == "bitwise on cpu float32"
    assert set(inputs(b)) == set(names["b"])
    assert (b.judge, b.determinism, b.hardware_class, list(b.seeds)) == ("", "", "", [])
    assert b.compute_dtype == v1.DATA_TYPE_UNSPECIFIED
    assert set(inputs(response.mean_delta.provenance)) == {*names["a"], *names["b"]}


def test_layers_left_out_of_a_classification_are_told_everywhere(server, client):
    rows = np.random.default_rng(3).standard_normal((2, 2, WIDTH))
    rows[1] += rows[0]
    rows[1][0] = 2 * rows[0][0]  # collinear at the first layer
    intrinsic, prompted = (client.create_vector(MODEL, row, layers=[3, 4]).name for row in rows)
    with pytest.warns(UserWarning, match="layer 3"):
        neuron_set = client.classify_neurons(MODEL, intrinsic, prompted, layers=[3, 4])
    assert [layer.layer for layer in neuron_set.layers] == [4]
    assert "layer 3" in client.neuron_set(neuron_set.name).warnings[0]
    shown = subprocess.run(
        [
            str(BUILD / "client" / "cpp" / "valuescope"),
            "--server",
            server.address,
            "neurons",
            "classify",
            "--model",
            MODEL,
            "--intrinsic",
            intrinsic,
            "--prompted",
            prompted,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.startswith("warning: layer 3: ")


def test_too_many_responses_are_refused_unread(client):
    artifact = client.write_artifact(b"not a response\n" * 2001, media_type="application/x-ndjson")
    with pytest.raises(vs.Exhausted) as refused:
        client.extract_vectors(MODEL, artifact.name, layers=[SOURCE])
    assert refused.value.reason == "USE_A_JOB"
    few = client.write_artifact(b"not a response\n" * 2000, media_type="application/x-ndjson")
    with pytest.raises(vs.InvalidRequest, match="line 1"):
        client.extract_vectors(MODEL, few.name, layers=[SOURCE])


def test_usage_tells_what_the_cache_spared(client):
    prompt = list(range(2000, 2048))
    pair = [vs.labelled(prompt, [3000 + i, 4000 + i], bool(i)) for i in range(2)]
    client.extract_vectors(MODEL, pair, layers=[SOURCE])
    again = client.extract_vectors(MODEL, pair, layers=[SOURCE], seed=1)
    assert again.usage.prompt_tokens == 100
    assert again.usage.cached_prompt_tokens == 96
    attributed = client.attribute_neurons(MODEL, pair, again.vector.name, layers=[SOURCE])
    assert attributed.usage.cached_prompt_tokens == 96
