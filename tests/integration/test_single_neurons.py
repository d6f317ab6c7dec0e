"""Causal ablation and log-probability increase through the real server: every neuron's score is what a brute force says."""

import subprocess

import numpy as np
import pytest
import valuescope as vs
from conftest import BUILD, Server
from test_attributions import NAMES, TARGETS, Case, columns, ids_of
from test_families import FAMILIES, error
from valuescope import v1

RESPONSE = v1.TokenSelection(kind=v1.TOKEN_KIND_RESPONSE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("single_neurons"), f"--model_root={FAMILIES}", "--models="
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module", params=NAMES)
def case(request, server):
    with vs.Client(server.address, timeout=120) as client:
        yield SingleNeurons(request.param, client)


class SingleNeurons(Case):
    def __init__(self, name, client):
        super().__init__(name, client)
        means = self.values["mean"]
        self.neurons = means.shape[1]
        self.means = client.create_vector(
            self.model, means, layers=range(self.blocks), site="mlp_neurons"
        ).name
        self.has_post_norm = name == "gemma2"

    def ablation(self, mode="zero", **fields):
        if mode == "mean":
            fields.update(mode=v1.ABLATION_MODE_MEAN, reference=self.means)
        return v1.CausalAblation(hold_norm_factor=mode == "held", **fields)

    def ablate(self, target, mode="zero", how=None, **fields):
        target = self.target(target) if isinstance(target, str) else target
        how = how or self.ablation(mode)
        return self.attribute(causal_ablation=how, target=target, **fields).neuron_set

    def increase(self, recompute=False, **fields):
        how = v1.LogProbabilityIncrease(recompute_norm_scale=recompute)
        fields.setdefault("target", self.target("logprob"))
        return self.attribute(log_probability_increase=how, **fields).neuron_set


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["zero", "mean", "held"])
def test_ablation_equals_a_pass_with_each_neuron_alone(case, target, mode):
    neuron_set = case.ablate(target, mode)
    assert neuron_set.method == "causal_ablation"
    # Where nothing is behind the MLP, nothing is held.
    way = "zero" if mode == "held" and not case.has_post_norm else mode
    found = case.check(neuron_set, f"ablation.{target}.{way}.{{layer}}", 1e-5)
    assert list(found) == list(range(case.blocks - 1 if target == "projection" else case.blocks))


@pytest.mark.parametrize("scale", ["held", "recomputed"])
def test_log_probability_increase_equals_reading_each_neuron_alone(case, scale):
    neuron_set = case.increase(scale == "recomputed")
    assert neuron_set.method == "log_probability_increase"
    case.check(neuron_set, f"logprob_increase.{scale}.{{layer}}", 1e-5)


def test_of_its_own_block_an_ablation_is_gradient_times_activation(case):
    """Identity 3, with a norm behind the MLP held; what that norm does alive is no small correction."""
    top = case.blocks - 2
    patched = columns(case.client, case.patch("projection", layers=[top]))[top]
    held = columns(case.client, case.ablate("projection", "held", layers=[top]))[top]
    live = columns(case.client, case.ablate("projection", layers=[top]))[top]
    assert error(held, patched) < 1e-5
    if case.has_post_norm:
        assert error(live, patched) > 0.01
    else:
        np.testing.assert_array_equal(live, held)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_an_ablation_is_what_an_intervention_does(case, mode):
    """Of the log-probability that Score reads, and of the projection that Capture reads."""
    (one, *_) = case.responses
    prompt, response = ids_of(one.prompt), ids_of(one.response)
    layer = case.blocks - 2
    v = case.values["vector"][layer].astype(np.float64)

    def read(steer):
        (score,) = case.client.score(case.model, prompt, [response], steer=steer)
        tap = vs.tap("residual_post", [layer], "response", reduction="mean")
        (captured,) = case.client.capture(case.model, [(prompt, response)], [tap], steer=steer)
        return score.sum, captured[0][0, 0].astype(np.float64) @ v

    clean = read([])
    for target, place in (("logprob", 0), ("projection", 1)):
        found = columns(case.client, case.ablate(target, mode, responses=[one]))
        size = max(np.abs(scores).max() for scores in found.values())
        for at in (0, 1):
            for neuron in (0, case.neurons - 1):
                edit = vs.AblateNeurons(
                    [(at, neuron)], case.means if mode == "mean" else None, tokens="response"
                )
                assert found[at][neuron] == pytest.approx(
                    clean[place] - read([edit])[place], abs=2e-5 * max(size, abs(clean[place]))
                )


def test_tokens_that_are_not_named_keep_their_neurons(case):
    """Positions apart, before and behind a block of the cache, and those behind what is read."""
    one = case.responses[2]
    length = len(ids_of(one.prompt)) + len(ids_of(one.response))

    def scores(*positions, target="logit_difference"):
        how = case.ablation(tokens=v1.TokenSelection(positions=positions))
        return columns(case.client, case.ablate(target, how=how, responses=[one]))

    last = len(ids_of(one.prompt)) - 1
    alone, with_later = scores(3, last), scores(3, last, last + 1, length - 1)
    for layer, found in alone.items():
        np.testing.assert_array_equal(found, with_later[layer])
        assert np.abs(found).max() > 0
    # Of its own block the effects of two tokens on a projection add up.
    top = case.blocks - 2
    first, second = last + 2, length - 1
    if not case.has_post_norm:
        both = scores(first, second, target="projection")[top]
        apart = scores(first, target="projection")[top] + scores(second, target="projection")[top]
        assert error(apart, both) < 1e-5


def test_candidates_are_the_only_ones_that_run(case):
    named = [(0, 3), (1, 0), (0, case.neurons - 1)]
    candidates = [v1.NeuronId(layer=layer, index=index) for layer, index in named]
    every = columns(case.client, case.ablate("logprob"))
    neuron_set = case.ablate("logprob", how=case.ablation(candidates=candidates))
    found = columns(case.client, neuron_set)
    assert list(found) == list(every)
    for layer, scores in found.items():
        expected = np.zeros(case.neurons)
        for own, index in named:
            if own == layer:
                expected[index] = every[layer][index]
        np.testing.assert_array_equal(scores, expected)
    assert sorted((one.layer, one.index) for one in neuron_set.top) == sorted(named)
    assert [layer.num_members for layer in neuron_set.layers][:2] == [2, 1]
    assert neuron_set.top_k == 3
    # An intervention that names the set acts on its members: on the candidates, and on no others.
    steer = [vs.AblateNeurons(neuron_set.name, tokens="response")]
    (prompt, response) = ids_of(case.responses[0].prompt), ids_of(case.responses[0].response)
    by_set, by_name = (
        case.client.score(case.model, prompt, [response], steer=one).sums
        for one in (steer, [vs.AblateNeurons(named, tokens="response")])
    )
    np.testing.assert_array_equal(by_set, by_name)


@pytest.mark.parametrize("method", ["ablation", "mean", "increase"])
def test_a_job_makes_the_set_of_the_call(case, method):
    how = {
        "ablation": {"causal_ablation": case.ablation(tokens=RESPONSE)},
        "mean": {"causal_ablation": case.ablation("mean")},
        "increase": {"log_probability_increase": v1.LogProbabilityIncrease()},
    }[method]
    how = {**how, "target": case.target("logprob")}
    call = case.attribute(**how).neuron_set
    spec = v1.JobSpec(attribute_neurons=vs.attribution_request(case.model, case.responses, **how))
    assert case.client.estimate_job(spec).forwards > len(case.responses)
    job = case.client.wait_for_job(case.client.create_job(spec).name)
    assert list(job.result.neuron_sets) == [call.name]


def test_a_continuation_takes_the_place_of_the_response(case):
    other = case.responses[1].response
    target = v1.AttributionTarget(
        continuation_logprob=v1.ContinuationLogprobTarget(continuation=other)
    )
    expressing = [one for one in case.responses if one.expresses]
    replaced = [vs.labelled(ids_of(one.prompt), ids_of(other), True) for one in expressing]
    for run in (case.increase, lambda **fields: case.ablate(fields.pop("target"), **fields)):
        given = columns(case.client, run(target=target, responses=expressing))
        same = columns(case.client, run(target=case.target("logprob"), responses=replaced))
        for layer, scores in same.items():
            np.testing.assert_array_equal(given[layer], scores)


@pytest.mark.parametrize("method", ["causal_ablation", "log_probability_increase"])
def test_the_command_line_makes_the_set_of_the_call(case, method, server, tmp_path):
    ablates = method == "causal_ablation"
    data_set = tmp_path / "responses.jsonl"
    data_set.write_bytes(vs.to_json_lines(case.responses))
    flags = ["--reference", case.means] if ablates else ["--recompute_norm_scale"]
    command = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address, "neurons"]
    command += ["attribute", "--model", case.model, "--method", method, *flags, data_set]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    call = case.ablate("logprob", "mean") if ablates else case.increase(recompute=True)
    (made,) = {word for word in done.stdout.split() if word.startswith("neuronSets/")}
    by_command = columns(case.client, case.client.neuron_set(made))
    for layer, scores in columns(case.client, call).items():
        np.testing.assert_array_equal(by_command[layer], scores)


def test_what_cannot_be_is_refused(case):
    def refused(match, target="logprob", **how):
        with pytest.raises(vs.InvalidRequest, match=match):
            case.ablate(target, how=v1.CausalAblation(**how))

    refused("`causal_ablation.reference`: is required with MEAN", mode=v1.ABLATION_MODE_MEAN)
    refused("`causal_ablation.reference`: goes only with", reference=case.means)
    refused(
        "`causal_ablation.reference`", mode=v1.ABLATION_MODE_MEAN, reference=case.vector
    )  # of another site
    refused("`causal_ablation.mode`", mode=7)
    refused(
        r"`causal_ablation.candidates\[1\].index`",
        candidates=[v1.NeuronId(), v1.NeuronId(index=case.neurons)],
    )
    refused(
        r"`causal_ablation.candidates\[0\].layer`",
        "projection",
        candidates=[v1.NeuronId(layer=case.blocks - 1)],
    )
    refused(r"`causal_ablation.candidates\[1\]`: is there twice", candidates=[v1.NeuronId()] * 2)
    refused("`causal_ablation.candidates`", candidates=[v1.NeuronId()] * 4097)
    refused("`causal_ablation.tokens`: must hold a token", "logit_difference", tokens=RESPONSE)
    some = case.client.create_vector(
        case.model, case.values["mean"][:1], layers=[0], site="mlp_neurons"
    )
    refused("has no row for layer 1", mode=v1.ABLATION_MODE_MEAN, reference=some.name)
    with pytest.raises(vs.InvalidRequest, match="`target`: must be set"):
        case.attribute(causal_ablation=v1.CausalAblation())
    with pytest.raises(vs.InvalidRequest, match="`target`: must be continuation_logprob"):
        case.increase(target=case.target("projection"))
    with pytest.raises(vs.InvalidRequest, match="`vector`: has no meaning"):
        case.increase(vector=case.vector)


@pytest.mark.parametrize("method", ["ablate", "increase"])
def test_too_many_neurons_and_responses_are_for_a_job(case, method):
    at_once = 100_000 // (case.neurons * case.blocks)
    many = [vs.labelled([5, 6], [7, 8], True)] * (at_once + 1)
    with pytest.raises(vs.Exhausted) as refused:
        if method == "ablate":
            case.ablate("logprob", responses=many)
        else:
            case.increase(responses=many)
    assert refused.value.reason == "USE_A_JOB"
