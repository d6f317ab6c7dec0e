"""AttributeNeurons through the real server on the golden families: every method equals what autograd and closed forms say."""

import json

import numpy as np
import pytest
import valuescope as vs
from conftest import ROOT, Server
from test_families import FAMILIES, error, read_safetensors
from valuescope import v1

ATTRIBUTIONS = ROOT / "tests" / "golden" / "attributions"
NAMES = sorted(file.stem for file in ATTRIBUTIONS.glob("*.safetensors"))


def columns(client, neuron_set, column="score"):
    """Of each layer of a set, [intermediate]."""
    data = client.read_artifact(neuron_set.artifact)
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    found = {}
    for layer in neuron_set.layers:
        entry = head[f"layer.{layer.layer}.{column}"]
        assert entry["dtype"] == "F64"
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        found[layer.layer] = np.frombuffer(data[begin:end], np.float64)
    return found


def ids_of(given):
    return list(given.token_ids.ids)


class Case:
    def __init__(self, name, client):
        self.client = client
        self.model = f"models/{name}"
        self.values = read_safetensors(ATTRIBUTIONS / f"{name}.safetensors")
        about = json.loads((FAMILIES / name / "expected.json").read_text())
        _, short, middle, long = about["sequences"]
        given = [
            (short[:4], short[4:], True),
            (middle[:8], middle[8:], False),
            (long[:30], long[30:50], True),
            (long[40:50], long[50:], False),
        ]
        self.responses = [vs.labelled(*one) for one in given]
        client.load_model(self.model, dtype="float32")
        client.wait_until_ready(self.model)
        vector = self.values["vector"]
        self.blocks = len(vector)
        self.vector = client.create_vector(self.model, vector, layers=range(self.blocks)).name

    def attribute(self, vector="", responses=None, layers="all", **fields):
        return self.client.attribute_neurons(
            self.model, responses or self.responses, vector, layers=layers, **fields
        )

    def target(self, name):
        """Of make_attributions.py."""
        if name == "projection":
            layer = self.blocks - 2
            return v1.AttributionTarget(
                vector_projection=v1.VectorProjectionTarget(vector=self.vector, layer=layer)
            )
        if name == "logit_difference":
            return v1.AttributionTarget(
                token_logit_difference=v1.TokenLogitDifferenceTarget(
                    positive_token_ids=[11, 12], negative_token_ids=[13]
                )
            )
        return v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())

    def patch(self, target, baseline="zero", **fields):
        how = v1.AttributionPatching(
            baseline=v1.PatchingBaseline.Value(f"PATCHING_BASELINE_{baseline.upper()}")
        )
        return self.attribute(
            attribution_patching=how, target=self.target(target), **fields
        ).neuron_set

    def integrate(self, target, **fields):
        responses = fields.pop("responses", None)
        return self.attribute(
            integrated_gradients=v1.IntegratedGradients(**fields),
            target=self.target(target),
            responses=responses,
        ).neuron_set

    def check(self, neuron_set, expected, tolerance):
        """`expected` has {layer} in it."""
        found = columns(self.client, neuron_set)
        assert found
        for layer, scores in found.items():
            wanted = self.values[expected.format(layer=layer)]
            assert error(scores, wanted) < tolerance, (expected, layer)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("attributions"), f"--model_root={FAMILIES}", "--models="
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module", params=NAMES)
def case(request, server):
    with vs.Client(server.address, timeout=120) as client:
        yield Case(request.param, client)


def test_all_float32_families_have_attributions():
    kinds = {
        json.loads((FAMILIES / name / "config.json").read_text())["model_type"] for name in NAMES
    }
    assert kinds == {"llama", "qwen2", "qwen3", "mistral", "gemma2"}


def test_direct_contribution_equals_the_closed_form(case):
    response = case.attribute(case.vector)
    assert response.neuron_set.method == "direct_contribution"
    case.check(response.neuron_set, "direct_contribution.{layer}", 1e-5)


def test_the_contributions_of_a_block_are_what_its_mlp_adds_along_the_vector(case):
    """So r_t a_i and D w_i, where a norm is behind the MLP."""
    tap = vs.tap("mlp_output", "all", "response", reduction="mean")
    written = [
        case.client.capture(case.model, [(ids_of(one.prompt), ids_of(one.response))], [tap])[0][0]
        for one in case.responses
    ]
    labels = np.array([one.expresses for one in case.responses])
    stacked = np.stack(written).astype(np.float64)[:, :, 0]
    difference = stacked[labels].mean(0) - stacked[~labels].mean(0)
    neuron_set = case.attribute(case.vector).neuron_set
    for layer in neuron_set.layers:
        v = case.values["vector"][layer.layer].astype(np.float64)
        share = difference[layer.layer] @ v / (v @ v)
        assert layer.score_sum == pytest.approx(share, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("definition", ["product", "gate"])
def test_activation_probabilities_equal_counts(case, definition):
    kind = v1.ActivationDefinition.Value(f"ACTIVATION_DEFINITION_{definition.upper()}")
    how = v1.ActivationProbabilityDifference(definition=kind)
    neuron_set = case.attribute(activation_probability_difference=how).neuron_set
    assert neuron_set.method == "activation_probability_difference"
    found = case.check(neuron_set, f"activation_{definition}.{{layer}}", 1e-6)
    expressing = columns(case.client, neuron_set, "mean_expressing")
    others = columns(case.client, neuron_set, "mean_non_expressing")
    for layer, scores in found.items():
        np.testing.assert_array_equal(scores, expressing[layer] - others[layer])
        assert expressing[layer].min() >= 0 and expressing[layer].max() <= 1


def test_a_job_makes_the_set_of_the_call(case):
    how = {"activation_probability_difference": v1.ActivationProbabilityDifference()}
    call = case.attribute(**how).neuron_set
    spec = v1.JobSpec(attribute_neurons=vs.attribution_request(case.model, case.responses, **how))
    job = case.client.wait_for_job(case.client.create_job(spec).name)
    assert list(job.result.neuron_sets) == [call.name]


def test_what_a_method_has_no_use_for_is_refused(case):
    how = {"activation_probability_difference": v1.ActivationProbabilityDifference()}
    with pytest.raises(vs.InvalidRequest, match="`vector`: has no meaning"):
        case.attribute(case.vector, **how)
    with pytest.raises(vs.InvalidRequest, match="`source_layer`: has no meaning"):
        case.attribute(source_layer=0, **how)
    with pytest.raises(vs.InvalidRequest, match="`target`: has no meaning"):
        case.attribute(
            target=v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget()), **how
        )


TARGETS = ["projection", "logit_difference", "logprob"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_patching_equals_autograd(case, target, baseline):
    neuron_set = case.patch(target, baseline)
    assert neuron_set.method == "attribution_patching"
    found = case.check(neuron_set, f"patching.{target}.{baseline}.{{layer}}", 1e-4)
    # The blocks that can have an effect, and no others.
    assert list(found) == list(range(case.blocks - 1 if target == "projection" else case.blocks))


@pytest.mark.parametrize("target", TARGETS)
def test_integrated_gradients_of_given_steps_equal_the_midpoint_rule(case, target):
    neuron_set = case.integrate(target, steps=7)
    assert neuron_set.method == "integrated_gradients"
    found = case.check(neuron_set, f"integrated.{target}.7.{{layer}}", 1e-4)
    gaps = np.array([layer.completeness_gap for layer in neuron_set.layers])
    sizes = np.array([np.abs(scores).sum() for scores in found.values()])
    assert np.all(np.abs(gaps - case.values[f"integrated.{target}.gap"]) < 1e-4 * sizes)


def test_the_path_is_complete_as_its_steps_grow(case):
    """The error of the midpoint rule falls with the square of the steps: identity 4."""
    gaps = {
        steps: np.array(
            [layer.completeness_gap for layer in case.integrate("logprob", steps=steps).layers]
        )
        for steps in (8, 64)
    }
    whole = np.abs([layer.score_sum for layer in case.integrate("logprob", steps=64).layers])
    assert np.linalg.norm(gaps[64]) < np.linalg.norm(gaps[8]) / 20 + 1e-5 * np.linalg.norm(whole)


def test_of_its_own_block_a_projection_is_linear(case):
    """Identity 3: a_i <w_i, v> is gradient x activation and the integral with any number of steps."""
    top = case.blocks - 2
    patched = columns(case.client, case.patch("projection"))[top]
    integrated = columns(case.client, case.integrate("projection", steps=1))[top]
    assert error(integrated, patched) < 1e-5
    # All of one response expressing and none of its twin's neurons: direct contribution times |v|^2.
    (_, other, _, _), (one, *_) = case.responses, case.responses
    pair = [one, vs.labelled(ids_of(other.prompt), ids_of(other.response), False)]
    swapped = [
        vs.labelled(ids_of(other.prompt), ids_of(other.response), True),
        vs.labelled(ids_of(one.prompt), ids_of(one.response), False),
    ]
    v = case.values["vector"][top].astype(np.float64)
    contributions = case.attribute(case.vector, responses=pair, layers=[top]).neuron_set
    direct = columns(case.client, contributions)[top] * (v @ v)
    of_one, of_other = (
        columns(case.client, case.patch("projection", responses=each, layers=[top]))[top]
        for each in (pair, swapped)
    )
    assert error(of_one - of_other, direct) < 1e-5


def test_steps_that_are_left_out_go_on_until_the_scores_are_stable(case):
    exact = columns(case.client, case.integrate("logprob", steps=324))
    for tolerance in (1e-2, 1e-4):
        found = columns(case.client, case.integrate("logprob", tolerance=tolerance, max_steps=324))
        for layer, scores in found.items():
            assert error(scores, exact[layer]) < tolerance


def test_a_path_with_too_few_nodes_is_warned_of(case):
    neuron_set = case.integrate("logit_difference", steps=1)
    for layer in neuron_set.layers:
        whole = layer.score_sum + layer.completeness_gap
        warned = any(f"layer {layer.layer}:" in warning for warning in neuron_set.warnings)
        assert warned == (layer.mean_absolute_gap > 0.05 * abs(whole))


def test_gaps_of_responses_do_not_cancel(case):
    expressing = [one for one in case.responses if one.expresses]
    alone = np.array(
        [
            [
                layer.completeness_gap
                for layer in case.integrate("logprob", steps=2, responses=[one]).layers
            ]
            for one in expressing
        ]
    )
    together = case.integrate("logprob", steps=2).layers
    found = [layer.mean_absolute_gap for layer in together]
    np.testing.assert_allclose(found, np.abs(alone).mean(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        [layer.completeness_gap for layer in together], alone.mean(0), rtol=1e-3, atol=1e-6
    )


def test_labels_are_of_all_or_of_none_where_no_mean_needs_them(case):
    expressing = [one for one in case.responses if one.expresses]
    for one in (
        bare := [v1.LabelledResponse.FromString(o.SerializeToString()) for o in expressing]
    ):
        one.ClearField("expresses")
    labelled, plain = (
        columns(case.client, case.patch("logprob", responses=given)) for given in (expressing, bare)
    )
    for layer, scores in labelled.items():
        np.testing.assert_array_equal(plain[layer], scores)
    with pytest.raises(vs.InvalidRequest, match="of all responses or of none"):
        case.patch("logprob", responses=[bare[0], expressing[1]])
    with pytest.raises(vs.InvalidRequest, match="expresses"):
        case.patch("logprob", "mean", responses=bare)


def test_the_first_token_is_left_out_unless_it_is_named(case):
    def scores(**tokens):
        how = v1.AttributionPatching(tokens=v1.TokenSelection(**tokens))
        response = case.attribute(attribution_patching=how, target=case.target("logit_difference"))
        return columns(case.client, response.neuron_set)[0]

    whole = scores(kind=v1.TOKEN_KIND_PROMPT)
    np.testing.assert_array_equal(scores(), whole)
    # The second expressing response has the longer prompt; positions must fit both.
    first, rest = scores(positions=[0]), scores(positions=[1])
    assert error(scores(positions=[0, 1]), first + rest) < 1e-5
    assert np.abs(first).max() > 0


def test_a_continuation_takes_the_place_of_the_response(case):
    other = case.responses[1].response
    target = v1.AttributionTarget(
        continuation_logprob=v1.ContinuationLogprobTarget(continuation=other)
    )
    expressing = [one for one in case.responses if one.expresses]
    replaced = [vs.labelled(ids_of(one.prompt), ids_of(other), True) for one in expressing]
    how = {"attribution_patching": v1.AttributionPatching()}
    given = case.attribute(responses=expressing, target=target, **how).neuron_set
    same = case.patch("logprob", responses=replaced)
    for layer, scores in columns(case.client, same).items():
        np.testing.assert_array_equal(columns(case.client, given)[layer], scores)


@pytest.mark.parametrize(
    "how",
    [
        {"attribution_patching": v1.AttributionPatching(baseline="PATCHING_BASELINE_MEAN")},
        {"integrated_gradients": v1.IntegratedGradients(steps=3)},
    ],
    ids=["patching", "integrated"],
)
def test_a_job_by_gradients_makes_the_set_of_the_call(case, how):
    how = {**how, "target": case.target("projection")}
    call = case.attribute(**how).neuron_set
    spec = v1.JobSpec(attribute_neurons=vs.attribution_request(case.model, case.responses, **how))
    job = case.client.wait_for_job(case.client.create_job(spec).name)
    assert list(job.result.neuron_sets) == [call.name]


def test_targets_that_cannot_be_are_refused(case):
    how = {"attribution_patching": v1.AttributionPatching()}
    with pytest.raises(vs.InvalidRequest, match="`target`: must be set"):
        case.attribute(**how)
    target = case.target("projection")
    with pytest.raises(vs.InvalidRequest, match="layers"):
        case.attribute(target=target, layers=[case.blocks - 1], **how)
    target.vector_projection.layer = case.blocks
    with pytest.raises(vs.InvalidRequest, match="has no row for layer"):
        case.attribute(target=target, **how)
    behind = v1.AttributionPatching(tokens=v1.TokenSelection(kind=v1.TOKEN_KIND_RESPONSE))
    with pytest.raises(vs.InvalidRequest, match="must hold a token at or before"):
        case.attribute(attribution_patching=behind, target=case.target("logit_difference"))
    target = case.target("logit_difference")
    target.token_logit_difference.positive_token_ids[:] = [11, 10_000]
    named = r"`target.token_logit_difference.positive_token_ids\[1\]`"
    with pytest.raises(vs.InvalidRequest, match=named):
        case.attribute(target=target, **how)
    with pytest.raises(vs.InvalidRequest, match="steps"):
        case.integrate("logprob", steps=2000)


@pytest.mark.parametrize(
    "how",
    [
        {"attribution_patching": v1.AttributionPatching()},
        {"integrated_gradients": v1.IntegratedGradients(steps=3)},
        {"causal_ablation": v1.CausalAblation()},
    ],
    ids=["patching", "integrated", "ablation"],
)
def test_a_target_that_overflows_is_told(case, how):
    rows = np.full((case.blocks, len(case.values["vector"][0])), 3e38, np.float32)
    huge = case.client.create_vector(case.model, rows, layers=range(case.blocks)).name
    target = v1.AttributionTarget(
        vector_projection=v1.VectorProjectionTarget(vector=huge, layer=case.blocks - 2)
    )
    with pytest.raises(vs.ValuescopeError, match="not a finite number") as told:
        case.attribute(target=target, **how)
    assert told.value.reason == "TARGET_NOT_FINITE"
