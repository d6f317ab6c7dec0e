"""Identities of the method in every family through the real server, numpy beside it: what neurons write is the MLP's output, what blocks
write adds up to the vector, edits add up and projections end, and a vector depends on the data in the ways that its definition says.

All models compute in float32, those of half types with their weights widened. Tolerances are multiples of float32's rounding, and where
numbers cancel, of the size of what cancels."""

import json

import numpy as np
import pytest
import valuescope as vs
from conftest import Server
from test_comparisons import read_tensor
from test_families import FAMILIES, NAMES, error
from valuescope import v1

ROUNDING = 16 * float(np.finfo(np.float32).eps)
QUERIES = 24
FIRST_WORD = 7  # what lies before is special
ALPHA = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("identities"), f"--model_root={FAMILIES}", "--models=")
    with vs.Client(server.address, timeout=120) as client:
        yield client
    assert server.stop() == 0


class Family:
    """One golden model on the server, with labelled responses and what is extracted from them."""

    def __init__(self, client, name):
        self.client, self.model, self.folder = client, f"models/{name}", FAMILIES / name
        client.load_model(self.model, dtype="float32")
        client.wait_until_ready(self.model)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.blocks, self.hidden = self.config["num_hidden_layers"], self.config["hidden_size"]
        self.normed = self.config["model_type"] == "gemma2"
        self.responses = self._data_set()
        self.extracted = self.extract(self.responses)
        self.vector = self.rows(self.extracted.vector.name)

    def _data_set(self):
        """Every query is answered with words of either half of the vocabulary, which is what the labels tell apart."""
        random = np.random.default_rng(17)
        words = np.array_split(np.arange(FIRST_WORD, self.config["vocab_size"]), 2)

        def some(among):
            return [int(i) for i in random.choice(among, random.integers(3, 9))]

        return [
            vs.labelled(some(words[query % 2]), some(words[side]), bool(side), f"q{query}")
            for query in range(QUERIES)
            for side in (0, 1)
        ]

    def extract(self, responses):
        return self.client.extract_vectors(self.model, responses)

    def rows(self, name):
        """[layers, hidden] float64 of a stored vector."""
        rows = self.client.vector_data(name)
        return np.stack([rows[layer] for layer in sorted(rows)]).astype(np.float64)

    def stored(self, rows):
        return self.client.create_vector(self.model, rows, layers=range(len(rows))).name

    def captured(self, taps, steer=()):
        """Of the first response: [layers, tokens, width] for each tap."""
        one = self.responses[0]
        inputs = [(one.prompt, one.response)]
        return self.client.capture(self.model, inputs, taps, steer=steer)[0]

    def tensor(self, block, name):
        return read_tensor(self.folder, f"model.layers.{block}.{name}.weight")

    def written(self, block, activations):
        """[..., hidden, neurons] float64: what each neuron adds to the residual stream with these activations [..., neurons]."""
        down = self.tensor(block, "mlp.down_proj")
        activations = np.asarray(activations, np.float64)
        if not self.normed:
            return down * activations[..., None, :]
        # Behind the norm after the MLP: r_t a_i D w_i.
        together = activations @ down.T
        root = np.sqrt((together**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        gain = 1 + self.tensor(block, "post_feedforward_layernorm")
        return gain[:, None] * down * (activations / root)[..., None, :]

    def written_by_none(self, block):
        """[hidden] or 0: what the MLP adds beside its neurons, which differences of means do not see."""
        return (
            read_tensor(self.folder, f"model.layers.{block}.mlp.down_proj.bias")
            if self.config.get("mlp_bias")
            else 0.0
        )


@pytest.fixture(scope="module", params=NAMES)
def family(request, server):
    return Family(server, request.param)


def norms(rows):
    return np.linalg.norm(rows, axis=-1)


# --- What is written ---


def test_what_neurons_write_is_the_output_of_their_mlp(family):
    neurons, output = family.captured(
        [vs.tap(site, "all", "all") for site in ("mlp_neurons", "mlp_output")]
    ).values()
    for block in range(family.blocks):
        added = family.written(block, neurons[block]).sum(-1) + family.written_by_none(block)
        assert error(output[block], added) < ROUNDING, block


class Written:
    """What is added to the residual stream: means over responses of their tokens' means, expressing minus the others."""

    def __init__(self, family):
        sites = ("embedding", "attention_output", "mlp_neurons")
        embedding, attention, neurons = range(3)
        seen = family.client.capture(
            family.model,
            [(one.prompt, one.response) for one in family.responses],
            [vs.tap(site, "all", "response") for site in sites],
        )
        self._expresses = np.array([one.expresses for one in family.responses])
        self._sizes = []
        self.embedding = self._difference([one[embedding][0] for one in seen])
        self.attention = [
            self._difference([one[attention][block] for one in seen])
            for block in range(family.blocks)
        ]
        self.neurons = [
            self._difference([family.written(block, one[neurons][block]) for one in seen])
            for block in range(family.blocks)
        ]
        # How large what cancels in the differences is, beside which rounding is small.
        self.size = sum(self._sizes)

    def _difference(self, of_tokens):
        """Of arrays [tokens, hidden] or [tokens, hidden, neurons], one a response."""
        means = np.array([tokens.mean(0, dtype=np.float64) for tokens in of_tokens])
        self._sizes.append(norms(means.reshape(len(means), -1)).mean())
        return means[self._expresses].mean(0) - means[~self._expresses].mean(0)


@pytest.fixture(scope="module")
def written(family):
    return Written(family)


def test_what_embedding_attention_and_neurons_write_adds_up_to_the_vector(family, written):
    """<v, d embedding> + sum_l <v, d attention_l> + sum_{l, i} d a_i <w_i, v> = |v|^2, d of the labels' means, at every layer."""
    for layer, v in enumerate(family.vector):
        parts = [written.embedding @ v]
        parts += [attention @ v for attention in written.attention[: layer + 1]]
        parts += [(v @ neurons).sum() for neurons in written.neurons[: layer + 1]]
        tolerance = ROUNDING * written.size * np.linalg.norm(v)
        assert sum(parts) == pytest.approx(v @ v, abs=tolerance), layer


def test_the_server_shares_the_vector_out_among_the_neurons_that_wrote_it(family, written):
    if family.normed:
        pytest.skip("direct contribution is not served where what the MLP writes is normed")
    for layer, v in enumerate(family.vector):
        attributed = family.client.attribute_neurons(
            family.model, family.responses, family.extracted.vector.name, source_layer=layer
        ).neuron_set
        shares = [v @ neurons / (v @ v) for neurons in written.neurons[: layer + 1]]
        tolerance = ROUNDING * written.size / np.linalg.norm(v)
        assert [entry.layer for entry in attributed.layers] == list(range(layer + 1))
        for entry, of_block in zip(attributed.layers, shares, strict=True):
            assert entry.score_sum == pytest.approx(of_block.sum(), abs=tolerance)
        assert len(attributed.top) == min(100, sum(len(of_block) for of_block in shares))
        for one in attributed.top:
            assert one.score == pytest.approx(shares[one.layer][one.index], abs=tolerance)


# --- Edits ---


def test_adding_shifts_its_layer_and_none_before_and_adds_up(family):
    taps = [vs.tap(site, "all", "all") for site in ("residual_mid", "residual_post")]
    name = family.extracted.vector.name
    plain = family.captured(taps)

    def added(layer, *coefficients):
        steer = [vs.Steer(name, one, layers=layer, tokens="all") for one in coefficients]
        return family.captured(taps, steer)

    for layer in range(family.blocks):
        steered = added(layer, ALPHA)
        assert np.array_equal(steered[0][: layer + 1], plain[0][: layer + 1])
        assert np.array_equal(steered[1][:layer], plain[1][:layer])
        shifted = plain[1][layer] + ALPHA * family.vector[layer]
        assert error(steered[1][layer], shifted) < ROUNDING
        in_parts = added(layer, ALPHA / 4, ALPHA * 3 / 4)
        assert error(in_parts[1][layer], shifted) < ROUNDING
        back = added(layer, ALPHA, -ALPHA)
        lost = np.linalg.norm(back[1][layer] - plain[1][layer])
        assert lost < ROUNDING * np.linalg.norm(shifted)


def test_projecting_out_twice_is_once_and_leaves_nothing_of_the_span(family):
    other = np.random.default_rng(3).standard_normal((family.blocks, family.hidden))
    span = [family.extracted.vector.name, family.stored(other)]
    tap = vs.tap("residual_post", "all", "all")
    for layer in range(family.blocks):
        once, twice = (
            family.captured([tap], [vs.ProjectOut(span, layers=layer, tokens="all")] * times)[0]
            for times in (1, 2)
        )
        plain = family.captured([tap])[0][layer]
        assert error(twice[layer], once[layer]) < ROUNDING
        for v in (family.vector[layer], other[layer]):
            along = np.abs(once[layer] @ v) / np.linalg.norm(v)
            assert (along < ROUNDING * norms(plain)).all()
        assert error(once[layer], plain) > 1000 * ROUNDING


# --- Data ---


def negated(responses):
    for one in responses:
        other = v1.LabelledResponse()
        other.CopyFrom(one)
        other.expresses = not one.expresses
        yield other


def test_swapped_labels_negate_the_vector_and_keep_its_quality(family):
    swapped = family.extract(list(negated(family.responses)))
    assert np.array_equal(family.rows(swapped.vector.name), -family.vector)
    for one, other in zip(family.extracted.statistics, swapped.statistics, strict=True):
        assert (other.norm, other.auroc) == (one.norm, one.auroc)
        assert other.split_half_cosine == pytest.approx(one.split_half_cosine, rel=1e-9)


def test_the_order_of_the_data_leaves_the_vector(family):
    order = np.random.default_rng(4).permutation(len(family.responses))
    permuted = family.extract([family.responses[place] for place in order])
    assert error(family.rows(permuted.vector.name), family.vector) < ROUNDING


def test_a_job_in_shards_leaves_the_vector(family):
    request = vs.extraction_request(family.model, family.responses)
    job = family.client.create_job(v1.JobSpec(extract_vectors=request))
    finished = family.client.wait_for_job(job.name)
    assert finished.progress.shards_total > 1
    assert list(finished.result.vectors) == [family.extracted.vector.name]


def test_duplicated_data_leave_the_vector_and_not_its_statistics(family):
    doubled = family.extract(family.responses * 2)
    assert error(family.rows(doubled.vector.name), family.vector) < ROUNDING
    for once, twice in zip(family.extracted.statistics, doubled.statistics, strict=True):
        assert (twice.num_expressing, twice.num_non_expressing) == (2 * QUERIES, 2 * QUERIES)
        # Twice the responses, for which a covariance takes one degree of freedom less than twice.
        noise, less = (one.norm**2 - one.debiased_squared_norm for one in (once, twice))
        assert less == pytest.approx(noise * (QUERIES - 1) / (2 * QUERIES - 1), rel=1e-5)
        # Queries are what varies: the same answers once more are no new ones.
        for bound in ("lower", "upper"):
            before, after = (getattr(one.squared_norm_interval, bound) for one in (once, twice))
            assert after == pytest.approx(before, rel=1e-5, abs=1e-5 * once.norm**2)


# --- Geometry ---


@pytest.fixture(scope="module")
def pair(family):
    """The vector as the intrinsic one, and a prompted one that has something of it."""
    random = np.random.default_rng(5).standard_normal(family.vector.shape)
    random *= (norms(family.vector) / norms(random))[:, None]
    return family.vector, (family.vector + 0.7 * random).astype(np.float32).astype(np.float64)


def test_orthogonalised_vectors_are_orthogonal_and_stay_so(family, pair):
    names = [family.stored(rows) for rows in pair]
    once = family.client.decompose_vectors(*names)
    parts = [once.intrinsic_orthogonal.name, once.prompted_orthogonal.name]
    for part, whole, other in zip(parts, pair, reversed(pair), strict=True):
        rows = family.rows(part)
        left = np.abs((rows * other).sum(-1)) / norms(other)
        assert (left < ROUNDING * norms(whole)).all()
        again = family.client.decompose_vectors(part, names[1 if whole is pair[0] else 0])
        assert error(family.rows(again.intrinsic_orthogonal.name), rows) < ROUNDING


def test_a_rotation_leaves_cosines_and_singular_values(family, pair):
    random = np.random.default_rng(6).standard_normal((family.hidden, family.hidden))
    rotation = np.linalg.qr(random)[0]
    names = [
        [family.stored(rows @ turn) for rows in pair] for turn in (np.eye(family.hidden), rotation)
    ]
    straight, turned = (family.client.decompose_vectors(*of) for of in names)
    for one, other in zip(straight.layers, turned.layers, strict=True):
        for field in (
            "cosine",
            "intrinsic_norm",
            "prompted_norm",
            "singular_value_shared",
            "singular_value_difference",
            "retained_norm_fraction",
        ):
            assert getattr(other, field) == pytest.approx(getattr(one, field), rel=ROUNDING), field
    shared = family.rows(straight.shared.name) @ rotation
    assert error(family.rows(turned.shared.name), shared) < ROUNDING
    straight, turned = (family.client.compare_vectors(of) for of in names)
    np.testing.assert_allclose(turned.cosines, straight.cosines, rtol=ROUNDING)
