"""TestNeurons through the real server on the golden families: every point is what Capture and Score say under the interventions spelled
out one by one, and a job comes to the numbers of a call."""

import json
import subprocess

import numpy as np
import pandas
import pytest
import valuescope as vs
from conftest import BUILD, ROOT, Server
from test_families import FAMILIES, read_safetensors
from valuescope import v1

ATTRIBUTIONS = ROOT / "tests" / "golden" / "attributions"
NAMES = sorted(file.stem for file in ATTRIBUTIONS.glob("*.safetensors"))
TARGETS = ["projection", "logit_difference", "logprob"]
POSITIVE, NEGATIVE = [11, 12], [13, 11]
ZERO = v1.ABLATION_MODE_ZERO

# These models are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*of the first", "ignore:the target with all", "ignore:.*neurons stand in blocks behind"
)


class Case:
    def __init__(self, name, client):
        self.client = client
        self.model = f"models/{name}"
        about = json.loads((FAMILIES / name / "expected.json").read_text())
        _, short, middle, long = about["sequences"]
        self.expressing = [
            (short[:4], short[4:]),
            (middle[:8], middle[8:]),
            (long[:30], long[30:50]),
        ]
        self.others = [(long[40:50], long[50:]), (middle[2:9], middle[9:12])]
        self.responses = [
            vs.labelled(*one, label)
            for label, listed in ((True, self.expressing), (False, self.others))
            for one in listed
        ]
        client.load_model(self.model, dtype="float32")
        client.wait_until_ready(self.model)
        details = client.model(self.model)
        self.blocks, self.width = details.num_layers, details.intermediate_size
        self.vector = np.random.default_rng(5).normal(size=(self.blocks, details.hidden_size))
        self.vector = self.vector.astype(np.float32)
        self.vector_name = client.create_vector(
            self.model, self.vector, layers=range(self.blocks)
        ).name
        random = np.random.default_rng(6)
        pairs = [(b, i) for b in range(self.blocks) for i in range(self.width)]
        self.ranking = [pairs[at] for at in random.permutation(len(pairs))[:12]]
        self.all = pairs
        self.layer = self.blocks - 1  # where the projection is read
        self.looked_at_tokens = sum(len(p) + len(r) for p, r in self.expressing + self.others)

    def target(self, name, **fields):
        if name == "projection":
            projection = v1.VectorProjectionTarget(
                vector=self.vector_name, layer=self.layer, **fields
            )
            return v1.AttributionTarget(vector_projection=projection)
        if name == "logit_difference":
            difference = v1.TokenLogitDifferenceTarget(
                positive_token_ids=POSITIVE, negative_token_ids=NEGATIVE
            )
            return v1.AttributionTarget(token_logit_difference=difference)
        return v1.AttributionTarget(continuation_logprob=v1.ContinuationLogprobTarget())

    def test(self, target="projection", responses=None, neurons=None, **fields):
        fields.setdefault("random_sets", 0)
        with pytest.warns(UserWarning, match="responses: the effects are noisy"):
            return self.client.test_neurons(
                self.model,
                responses or self.responses,
                neurons or self.ranking,
                target if isinstance(target, v1.AttributionTarget) else self.target(target),
                **fields,
            )

    def measured(self, target, edit=None):
        """M of each expressing response [responses], under `edit`, a function of the positions it acts at."""
        values = []
        for prompt, response in self.expressing:
            # A sequence that is scored does not run its last token.
            last = len(prompt) + len(response) - (1 if target == "logprob" else 0)
            steer = None if edit is None else edit(range(1, last))
            if target == "logprob":
                values += [
                    s.sum for s in self.client.score(self.model, prompt, [response], steer=steer)
                ]
                continue
            if target == "projection":
                tap = vs.tap("residual_post", self.layer, "response", reduction="mean")
            else:
                tap = vs.tap("logits", tokens="last_prompt")
            (seen,) = self.client.capture(self.model, [(prompt, response)], tap, steer=steer)
            row = seen[0][0, 0].astype(np.float64)
            if target == "projection":
                values.append(row @ self.vector[self.layer].astype(np.float64))
            else:
                values.append(row[POSITIVE].mean() - row[NEGATIVE].mean())
        return np.array(values)

    def means(self, listed):
        """vectors/ID of the mean activations over all but the first token of these responses."""
        rows = []
        for prompt, response in listed:
            tap = vs.tap(
                "mlp_neurons", "all", range(1, len(prompt) + len(response)), reduction="mean"
            )
            (seen,) = self.client.capture(self.model, [(prompt, response)], tap)
            rows.append(seen[0][:, 0].astype(np.float64))
        means = np.mean(rows, axis=0).astype(np.float32)
        return self.client.create_vector(
            self.model, means, layers=range(self.blocks), site="mlp_neurons"
        ).name

    def ablated(self, target, neurons, reference=None):
        return self.measured(
            target,
            lambda positions: vs.AblateNeurons(neurons, reference, "all", positions),
        )

    def but(self, neurons):
        return sorted(set(self.all) - set(neurons))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("neuron_tests"), f"--model_root={FAMILIES}", "--models="
    )
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with vs.Client(server.address, timeout=120) as client:
        yield client


@pytest.fixture(scope="module", params=NAMES)
def case(request, client):
    return Case(request.param, client)


@pytest.fixture(scope="module")
def one(client):
    return Case("qwen2", client)


def agree(found, expected):
    """M of a point against its values by response; where terms cancel, by their size."""
    return found == pytest.approx(np.mean(expected), rel=1e-5, abs=1e-5 * np.abs(expected).max())


def check_points(test, full, expected):
    """`expected`: for each size M by response."""
    assert agree(test.full, full)
    for point, values in zip(test.response.points, expected, strict=True):
        assert agree(point.target, values), point.size
        differences = values - full
        error = differences.std(ddof=1) / np.sqrt(len(full))
        assert point.standard_error == pytest.approx(error, rel=1e-3, abs=1e-5 * np.abs(full).max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_removing_is_ablating_the_first_of_the_ranking(case, target, mode):
    test = case.test(
        target, sizes=[1, 5, 12], mode=v1.AblationMode.Value(f"ABLATION_MODE_{mode.upper()}")
    )
    reference = case.means(case.others) if mode == "mean" else None
    expected = [case.ablated(target, case.ranking[:k], reference) for k in (1, 5, 12)]
    check_points(test, case.measured(target), expected)
    assert agree(test.empty, case.ablated(target, case.all, reference))
    assert np.isnan(test.faithfulness).all() and np.isnan(test.p_values).all()
    assert test.response.num_responses == 3


@pytest.mark.parametrize("target", TARGETS)
def test_keeping_is_ablating_all_others_and_faithful_where_all_are_kept(case, target):
    neurons = case.ranking + [n for n in case.all if n not in case.ranking]
    sizes = [2, 12, len(neurons)]
    test = case.test(target, neurons=neurons, test="keep_only", sizes=sizes)
    reference = case.means(case.others)
    full = case.measured(target)
    expected = [case.ablated(target, case.but(neurons[:k]), reference) for k in sizes[:2]]
    check_points(test, full, [*expected, full])
    assert test.targets[2] == test.full
    empty = case.ablated(target, case.all, reference)
    difference = full - empty
    noise = 1.96 * difference.std(ddof=1) / np.sqrt(len(full))
    if abs(difference.mean()) > 1.001 * noise:
        faithful = [(m.mean() - empty.mean()) / difference.mean() for m in expected]
        np.testing.assert_allclose(test.faithfulness, [*faithful, 1], rtol=1e-3, atol=1e-3)
    elif abs(difference.mean()) < 0.999 * noise:
        assert np.isnan(test.faithfulness).all()


@pytest.mark.parametrize("target", TARGETS)
def test_scaling_multiplies_the_first_and_by_one_changes_no_bit(case, target):
    test = case.test(target, test="scale", factor=2.5, sizes=[3])
    scaled = case.measured(
        target, lambda positions: vs.ScaleNeurons(case.ranking[:3], 2.5, "all", positions)
    )
    check_points(test, case.measured(target), [scaled])
    assert np.isnan(test.empty)
    same = case.test(target, test="scale", factor=1, sizes=[1, 12], random_sets=3)
    assert np.all(same.targets == same.full) and np.all(same.random_means == same.full)
    assert np.all(same.p_values == 1) and np.all(same.standard_errors == 0)


def test_removing_all_neurons_of_a_block_by_zero_skips_its_mlp(case):
    """Identity 5: what is behind the block is what was between its attention and its MLP, and the MLP's bias where it has one."""
    block = case.layer
    neurons = [(block, i) for i in range(case.width)]
    test = case.test(neurons=neurons, layers=[block], tokens="all", mode=ZERO, sizes=[case.width])
    tap = vs.tap("residual_mid", block, "response", reduction="mean")
    v = case.vector[block].astype(np.float64)
    between = [
        case.client.capture(case.model, [one], tap)[0][0][0, 0].astype(np.float64) @ v
        for one in case.expressing
    ]
    folder = FAMILIES / case.model.removeprefix("models/")
    name = f"model.layers.{block}.mlp.down_proj.bias"
    files = [read_safetensors(file) for file in folder.glob("model*.safetensors")]
    bias = next((weights[name] for weights in files if name in weights), None)
    skipped = between if bias is None else between + bias.astype(np.float64) @ v
    assert agree(test.targets[0], skipped)
    assert test.empty == test.targets[0]


def test_of_its_own_block_doubling_does_what_removing_undoes(case):
    """Where no norm is behind the MLP a projection there is linear in its neurons."""
    if case.model == "models/gemma2":
        return
    block = case.layer
    neurons = [(block, i) for i in range(0, case.width, 2)]
    common = {"neurons": neurons, "layers": [block], "sizes": [len(neurons)]}
    doubled = case.test(test="scale", factor=2, **common)
    removed = case.test(mode=ZERO, **common)
    gain, loss = doubled.targets[0] - doubled.full, removed.full - removed.targets[0]
    assert gain == pytest.approx(loss, rel=1e-4)


def test_a_given_reference_takes_the_place_of_the_mean(case):
    reference = case.means(case.expressing)
    test = case.test("logprob", sizes=[12], reference=reference)
    expected = case.ablated("logprob", case.ranking, reference)
    check_points(test, case.measured("logprob"), [expected])
    # Without others the mean is that of the responses themselves.
    alone = case.test("logprob", responses=case.responses[:3], sizes=[12])
    assert agree(alone.targets[0], expected)


def test_tokens_choose_where_neurons_are_changed(one):
    test = one.test("logit_difference", tokens="last_prompt", mode=ZERO, sizes=[12])
    values = []
    for prompt, response in one.expressing:
        edit = vs.AblateNeurons(one.ranking, layers="all", tokens="last_prompt")
        tap = vs.tap("logits", tokens="last_prompt")
        (seen,) = one.client.capture(one.model, [(prompt, response)], tap, steer=edit)
        row = seen[0][0, 0].astype(np.float64)
        values.append(row[POSITIVE].mean() - row[NEGATIVE].mean())
    assert agree(test.targets[0], values)
    behind = one.test("logit_difference", tokens="response", mode=ZERO, sizes=[12])
    assert behind.targets[0] == behind.full


def test_a_continuation_takes_the_place_of_the_response(one):
    continuation = one.others[0][1][:6]
    target = v1.AttributionTarget(
        continuation_logprob=v1.ContinuationLogprobTarget(
            continuation=v1.Response(token_ids=v1.TokenIds(ids=continuation))
        )
    )
    replaced = [vs.labelled(prompt, continuation, True) for prompt, _ in one.expressing]
    replaced += one.responses[3:]
    test = one.test(target, sizes=[12], random_sets=20)
    same = one.test("logprob", responses=replaced, sizes=[12], random_sets=20)
    np.testing.assert_array_equal(test.targets, same.targets)
    np.testing.assert_array_equal(test.random_intervals, same.random_intervals)


def scored(one):
    how = v1.AttributionPatching()
    return one.client.attribute_neurons(
        one.model, one.responses, attribution_patching=how, target=one.target("logprob"), top_k=5
    ).neuron_set


def test_a_set_ranks_all_of_its_neurons_by_score(one):
    neuron_set = scored(one)
    data = one.client.read_artifact(neuron_set.artifact)
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    scores = []
    for layer in range(one.blocks):
        begin, end = (8 + size + o for o in head[f"layer.{layer}.score"]["data_offsets"])
        scores.append(np.frombuffer(data[begin:end], np.float64))
    flat = np.concatenate(scores)
    for signed in (False, True):
        order = np.argsort(-flat if signed else -np.abs(flat), kind="stable")
        ranking = [divmod(int(at), one.width) for at in order]
        assert len(ranking) > neuron_set.top_k
        by_set = one.test("logprob", neurons=neuron_set.name, sizes=[7], signed_scores=signed)
        by_pairs = one.test("logprob", neurons=ranking[:7], sizes=[7])
        np.testing.assert_array_equal(by_set.targets, by_pairs.targets)
        some = [(b, i) for b, i in ranking if b in (0, 2)][:7]
        np.testing.assert_array_equal(
            one.test(
                "logprob", neurons=neuron_set.name, sizes=[7], layers=[0, 2], signed_scores=signed
            ).targets,
            one.test("logprob", neurons=some, sizes=[7], layers=[0, 2]).targets,
        )
    # By default 1, 2, 4, ... and all.
    sizes = one.test("logprob", neurons=neuron_set.name, layers=[0]).sizes.tolist()
    assert sizes == [2**k for k in range(20) if 2**k < one.width] + [one.width]


def test_a_class_ranks_its_neurons_alone(one):
    other = one.client.create_vector(
        one.model, one.vector[:, ::-1].copy(), layers=range(one.blocks)
    ).name
    neuron_set = one.client.classify_neurons(
        one.model, one.vector_name, other, top_percent=100, max_angle=45
    )
    shared = [n for n in neuron_set.top if getattr(n, "class") == v1.NEURON_CLASS_SHARED]
    ranking = [(n.layer, n.index) for n in shared[:4]]
    by_class = one.test(neurons=neuron_set.name, neuron_class="shared", sizes=[4])
    np.testing.assert_array_equal(by_class.targets, one.test(neurons=ranking, sizes=[4]).targets)
    with pytest.raises(vs.InvalidRequest, match="assigns no classes"):
        one.client.test_neurons(
            one.model,
            one.responses,
            scored(one).name,
            one.target("logprob"),
            neuron_class="shared",
        )


def test_random_sets_depend_on_the_seed_alone(one):
    tests = [one.test("logprob", sizes=[2, 6], random_sets=25, seed=seed) for seed in (3, 3, 4)]
    first, again, other = (test.response.points for test in tests)
    assert list(first) == list(again)
    for point, another in zip(first, other, strict=True):
        assert point.target == another.target
        assert point.random_mean != another.random_mean
        assert point.random_lower <= point.random_mean <= point.random_upper
        assert (point.p_value * 26) == pytest.approx(round(point.p_value * 26))
    few = one.test("logprob", sizes=[2], random_sets=19).response.points[0]
    assert few.HasField("random_mean") and not few.HasField("random_lower")


def test_all_neurons_of_the_layers_have_no_others_to_be_held_against(one):
    everything = [(0, i) for i in range(one.width)]
    test = one.test(neurons=everything, layers=[0], sizes=[one.width], random_sets=20)
    assert test.p_values.tolist() == [1]
    assert test.random_means[0] == pytest.approx(test.targets[0])


def test_what_it_cost_and_where_it_comes_from_is_told(one):
    test = one.test("projection", sizes=[2, 6], random_sets=20).response
    lengths = [len(p) + len(r) for p, r in one.expressing]
    others = [len(p) + len(r) for p, r in one.others]
    conditions = 2 + 2 * 21
    assert test.usage.prompt_tokens == (conditions + 1) * sum(lengths) + sum(others)
    assert {d.name for d in test.digests} >= {one.model, one.vector_name}
    assert list(test.provenance.seeds) == [0]
    assert (test.provenance.num_expressing, test.provenance.num_non_expressing) == (3, 2)
    options = json.loads(test.provenance.options)
    assert options["sizes"] == [2, 6] and options["random_sets"] == 20


def test_one_response_has_no_error_and_no_faithfulness(one):
    test = one.test("logprob", responses=one.responses[:1], test="keep_only", sizes=[3])
    assert np.isnan(test.standard_errors[0]) and np.isnan(test.faithfulness[0])
    assert any("faithfulness is unset" in warning for warning in test.response.warnings)


def summary_of(client, job):
    (artifact,) = client.job(job.name).result.artifacts
    assert artifact.role == "summary"
    return client.read_artifact(artifact.artifact)


@pytest.mark.parametrize("test", ["remove", "keep_only", "scale"])
def test_a_job_comes_to_the_numbers_of_a_call(one, test):
    fields = {"test": test, "sizes": [1, 5, 12], "random_sets": 30, "seed": 9}
    if test == "scale":
        fields["factor"] = 0.5
    call = one.test("logprob", **fields).response
    request = vs.neuron_test_request(
        one.model, one.responses, one.ranking, one.target("logprob"), **fields
    )
    spec = v1.JobSpec(test_neurons=request)
    estimate = one.client.estimate_job(spec)
    job = one.client.wait_for_job(one.client.create_job(spec).name)
    conditions = (1 if test == "scale" else 2) + 3 * 31
    looks = 3 if test == "scale" else 5
    assert job.progress.total == job.progress.done == 3 * conditions + looks
    assert (job.progress.unit, job.progress.shards_total) == ("passes", 2)
    assert estimate.forwards == job.progress.total
    assert estimate.tokens == call.usage.prompt_tokens
    summary = json.loads(summary_of(one.client, job))
    assert summary["method"] == test
    assert summary["full"] == call.full and summary["num_responses"] == 3
    assert summary.get("empty") == (None if test == "scale" else call.empty)
    for row, point in zip(summary["points"], call.points, strict=True):
        for field, value in row.items():
            assert value == getattr(point, field), field
        assert ("faithfulness" in row) == point.HasField("faithfulness")
    assert summary["provenance"]["seeds"] == [9]
    head = one.client.job(job.name).result.summary
    assert head["points"][2]["target"] == call.points[2].target


@pytest.mark.parametrize("test", ["remove", "keep_only"])
def test_several_rankings_say_what_each_says_alone(one, test):
    fields = {"test": test, "random_sets": 20, "seed": 9}
    rankings = {"best first": one.ranking, "worst first": one.ranking[::-1], "few": one.all[:3]}
    together = one.test("logprob", neurons=rankings, **fields)
    assert list(together) == list(rankings)
    alone = {
        label: one.test("logprob", neurons=ranked, **fields) for label, ranked in rankings.items()
    }
    for label, test_alone in alone.items():
        assert together[label].sizes.tolist() == test_alone.sizes.tolist()
        assert list(together[label].response.points) == list(test_alone.response.points)
        assert (together[label].full, together[label].empty) == (test_alone.full, test_alone.empty)
    # The responses are looked at once, and nothing and everything is changed once, for all of them.
    tokens = sum(len(p) + len(r) for p, r in one.expressing)
    saved = 2 * (2 * tokens + one.looked_at_tokens)
    each = sum(test_alone.response.usage.prompt_tokens for test_alone in alone.values())
    assert together.response.usage.prompt_tokens == each - saved
    request = vs.neuron_test_request(
        one.model, one.responses, rankings, one.target("logprob"), **fields
    )
    job = one.client.create_job(v1.JobSpec(test_neurons=request))
    result = one.client.wait_for_job(job.name)
    made = one.client.job_result(result.name)["summary"]
    pandas.testing.assert_frame_equal(made, pandas.DataFrame(together.records()))


def test_kill_9_in_the_middle_gives_the_same_bytes(start_server, tmp_path):
    flags = [f"--model_root={FAMILIES}", "--models=qwen2"]

    def submit(client):
        case = Case("qwen2", client)
        request = vs.neuron_test_request(
            case.model,
            case.responses,
            case.ranking,
            case.target("logprob"),
            random_sets=1000,
            sizes=[2, 12],
        )
        return client.create_job(v1.JobSpec(test_neurons=request))

    whole = start_server(tmp_path / "whole", *flags)
    with whole.client("models/qwen2") as client:
        undisturbed = summary_of(client, client.wait_for_job(submit(client).name))
    first = start_server(tmp_path / "killed", *flags)
    with first.client("models/qwen2") as client:
        job = submit(client)
        for state in client.watch_job(job.name):
            if state.progress.shards_done >= 2:
                break
        assert client.job(job.name).progress.shards_done < state.progress.shards_total
    first.kill()
    second = start_server(tmp_path / "killed", *flags)
    with second.client("models/qwen2") as client:
        client.wait_for_job(job.name)
        assert summary_of(client, job) == undisturbed
    assert second.stop() == 0


REFUSED = [
    ({"sizes": [0]}, r"sizes\[0\]"),
    ({"sizes": [3, 3]}, r"sizes\[1\]"),
    ({"sizes": [2, 13]}, r"sizes\[1\]"),
    ({"factor": 2.0}, "factor"),
    ({"test": "scale"}, "factor"),
    ({"test": "scale", "factor": float("inf")}, "factor"),
    ({"test": "scale", "factor": 2.0, "mode": ZERO}, "mode"),
    ({"mode": ZERO, "reference": "vectors/x"}, "reference"),
    ({"random_sets": 1001}, "random_sets"),
    ({"layers": [0]}, r"neurons\[\d+\].layer"),
    ({"neurons": [(0, 1), (99, 0)]}, r"neurons\[1\].layer"),
    ({"neurons": [(0, 100_000)]}, r"neurons\[0\].index"),
    ({"neurons": [(0, 1), (1, 1), (0, 1)]}, r"neurons\[2\]"),
    ({"neurons": []}, "neurons"),
    ({"neuron_class": "shared"}, "class"),
    ({"signed_scores": True}, "signed_scores"),
    ({"tokens": [500]}, r"tokens.positions\[0\]"),
    ({"target": v1.AttributionTarget()}, "target"),
    ({"neurons": {"a": [(0, 1)], "": [(0, 2)]}}, r"rankings\[1\].label"),
    ({"neurons": {"a": [(0, 1)], "b": []}}, r"rankings\[1\].neurons"),
    ({"neurons": {"a": [(0, 1)], "b": [(0, 100_000)]}}, r"rankings\[1\].neurons\[0\].index"),
    ({"neurons": {"a": [(0, 1)], "b": [(0, 1), (1, 1)]}, "sizes": [2]}, r"sizes\[0\]"),
    ({"neurons": {"a": [(0, 1)]}, "signed_scores": True}, "rankings"),
    ({"neurons": {str(i): [(0, i)] for i in range(17)}}, "rankings"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_a_mistake_is_refused_by_the_name_of_its_field(one, fields, field):
    fields = {"neurons": one.ranking, "target": one.target("logprob"), **fields}
    with pytest.raises(vs.InvalidRequest, match=f"`{field}`"):
        one.client.test_neurons(one.model, one.responses, **fields)
    request = vs.neuron_test_request(one.model, one.responses, **fields)
    with pytest.raises(vs.InvalidRequest, match=f"`spec.test_neurons.{field}`"):
        one.client.create_job(v1.JobSpec(test_neurons=request))


def test_targets_that_cannot_be_are_refused_by_name(one):
    def refused(target):
        with pytest.raises(vs.InvalidRequest) as info:
            one.client.test_neurons(one.model, one.responses, one.ranking, target)
        return str(info.value)

    projection = one.target("projection", tokens=v1.TokenSelection(positions=[200]))
    assert "`target.vector_projection.tokens.positions[0]`" in refused(projection)
    projection.vector_projection.layer = one.blocks
    assert "`target.vector_projection.vector`" in refused(projection)
    projection.vector_projection.ClearField("layer")
    assert "`target.vector_projection.layer`" in refused(projection)
    difference = one.target("logit_difference")
    difference.token_logit_difference.negative_token_ids[:] = [10_000]
    assert "`target.token_logit_difference.negative_token_ids[0]`" in refused(difference)


def test_too_many_passes_want_a_job_and_the_server_goes_on(one):
    with pytest.raises(vs.Exhausted, match="20000; create a job") as info:
        one.client.test_neurons(
            one.model,
            one.responses * 5,
            one.ranking,
            one.target("logprob"),
            random_sets=1000,
            sizes=[1, 2],
        )
    assert info.value.reason == "USE_A_JOB"
    assert one.test("logprob", sizes=[1]).sizes.tolist() == [1]


def test_a_call_that_is_cancelled_leaves_the_server_usable(one):
    with (
        vs.Client(one.client._target, timeout=0.2) as impatient,
        pytest.raises(vs.DeadlineExceeded),
    ):
        impatient.test_neurons(
            one.model,
            one.responses,
            one.ranking,
            one.target("logprob"),
            random_sets=1000,
            sizes=[1, 4, 8, 12],
        )
    before = one.test("logprob", sizes=[5])
    assert before.targets[0] == one.test("logprob", sizes=[5]).targets[0]


def test_the_command_line_shows_the_points_of_a_call(server, one, tmp_path):
    data_set = tmp_path / "responses.jsonl"
    data_set.write_bytes(vs.to_json_lines(one.responses))
    neurons = "+".join(f"{layer}/{index}" for layer, index in one.ranking)

    def run(*flags, ranked=neurons):
        program = [BUILD / "client" / "cpp" / "valuescope", "--server", server.address, *flags]
        what = ["neurons", "test", "--model", "qwen2", ranked, data_set, "--sizes", "2,12"]
        how = ["--test", "keep_only", "--random_sets", "20", "--seed", "4", "--mode", "zero"]
        done = subprocess.run(
            [*program, *what, *how], capture_output=True, text=True, timeout=120, check=True
        )
        assert "only 3 responses" in done.stderr or "--json" in flags
        return done.stdout

    fields = {"test": "keep_only", "random_sets": 20, "seed": 4, "mode": ZERO}
    call = one.test("logprob", sizes=[2, 12], **fields).response
    table = run().splitlines()
    assert table[1].split()[:2] == ["NEURONS", "TARGET"]
    assert [row.split()[0] for row in table[2:]] == ["2", "12"]
    assert float(table[2].split()[1]) == pytest.approx(call.points[0].target, rel=1e-3)
    told = json.loads(run("--json"))
    assert [point["target"] for point in told["points"]] == [p.target for p in call.points]
    several = run(ranked=f"one:{neurons},same:{neurons}").splitlines()
    assert several[1:6] == ["", "one", *table[1:4]] and several[6:] == ["", "same", *table[1:4]]


def test_neurons_behind_the_target_are_named(one):
    target = v1.VectorProjectionTarget(vector=one.vector_name, layer=0)
    behind = [(block, index) for block, index in one.ranking if block > 0]
    test = one.test(v1.AttributionTarget(vector_projection=target), sizes=[len(one.ranking)])
    assert any(
        warning.startswith(f"{len(behind)} of the neurons stand in blocks behind")
        for warning in test.response.warnings
    )
