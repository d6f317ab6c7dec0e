"""Every intervention operation at every site in every scope through the real server: tokens, activations, logits and receipts are those of
hooks on transformers (tests/golden/make_interventions.py)."""

import json

import numpy as np
import pytest
import valuescope as vs
from conftest import Server
from test_families import FAMILIES, error, read_safetensors
from valuescope import v1

NAMES = ["llama3_rope", "gemma2"]
TOLERANCE = 1e-5  # float32, over all blocks
ONCE = {"embedding", "final_norm", "logits"}
NUM_CASES = 282


def numbers(seed, *shape):
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


class Golden:
    def __init__(self, name):
        self.model = f"models/{name}"
        self.config = json.loads((FAMILIES / name / "config.json").read_text())
        about = json.loads((FAMILIES / name / "interventions.json").read_text())
        self.positions, self.cases = about["positions"], about["cases"]
        self.values = read_safetensors(FAMILIES / name / "interventions.safetensors")

    def width(self, site):
        return {
            "attention_heads": self.config["num_attention_heads"] * self.config["head_dim"],
            "mlp_neurons": self.config["intermediate_size"],
            "logits": self.config["vocab_size"],
        }.get(site, self.config["hidden_size"])


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interventions")
    server = Server(folder, f"--model_root={FAMILIES}", "--models=" + ",".join(NAMES))
    with vs.Client(server.address, timeout=120) as connected:
        for name in NAMES:
            connected.wait_until_ready(f"models/{name}")
        yield connected
    assert server.stop() == 0


@pytest.fixture(params=NAMES)
def golden(request):
    return Golden(request.param)


def stored(client, golden, rows, site, layers):
    return client.create_vector(golden.model, rows, layers=layers, site=site).name


def directions_of(client, golden, one):
    """Inline, or, for every other one that a stored vector can hold, by name."""
    rows = numbers(one["seed"], len(one["layers"]), one["directions"], golden.width(one["site"]))
    if one["site"] in ONCE or one["seed"] % 2000:
        return rows
    return [
        stored(client, golden, rows[:, k], one["site"], one["layers"])
        for k in range(one["directions"])
    ]


def edit(client, golden, one, length=None):
    """The client's form of a golden intervention; positions from the end of `length` tokens made absolute where it is given."""
    tokens = one["tokens"]
    if isinstance(tokens, list) and length is not None:
        tokens = [p + length if p < 0 else p for p in tokens]
    where = {key: one[key] for key in ("layers", "site", "preserve_norm")} | {"tokens": tokens}
    width = golden.width(one["site"])
    rows = (one["seed"], len(one["layers"]), width)
    match one["op"]:
        case "add":
            return vs.Steer(numbers(*rows), one["coefficient"], **where)
        case "project_out":
            return vs.ProjectOut(directions_of(client, golden, one), one["strength"], **where)
        case "clamp":
            return vs.Clamp(numbers(*rows), one["value"], **where)
        case "scale_neurons":
            return vs.ScaleNeurons(one["neurons"], one["factor"], **where)
        case "ablate_neurons":
            reference = None
            if one["mean"]:
                blocks = golden.config["num_hidden_layers"]
                means = numbers(one["seed"], blocks, width)
                reference = stored(client, golden, means, one["site"], range(blocks))
            return vs.AblateNeurons(one["neurons"], reference, **where)
        case "replace":
            shape = {
                "one": (width,),
                "layers": (len(one["layers"]), width),
                "positions": (len(one["layers"]), len(tokens), width),
            }[one["shape"]]
            return vs.Replace(numbers(one["seed"], *shape), **where)


def expected_receipt(one, prompt, fed):
    scope = one["tokens"]
    layers = [] if one["site"] in ONCE else one["layers"]
    if "neurons" in one:
        layers = sorted({layer for layer, _ in one["neurons"]} & set(layers))
    counts = {
        "all": fed,
        "prompt": prompt,
        "generated": fed - prompt,
        "last_prompt": 1,
        "from_last_prompt": fed - prompt + 1,
    }
    return layers, len(scope) if isinstance(scope, list) else counts[scope]


def test_all_operations_sites_and_scopes_are_there(golden):
    seen = {
        (one["op"], one["site"], str(one["tokens"]))
        for case in golden.cases
        for one in case["interventions"]
    }
    assert len(golden.cases) == NUM_CASES
    for op in ("add", "project_out", "clamp", "replace"):
        assert len({s[1:] for s in seen if s[0] == op}) >= 10 * 6
    for op in ("scale_neurons", "ablate_neurons"):
        assert len({s[1:] for s in seen if s[0] == op}) >= 2 * 6


def test_greedy_tokens_and_receipts_are_those_of_transformers(client, golden):
    prompts = [case["prompt"] for case in golden.cases]
    edits = [[edit(client, golden, one) for one in case["interventions"]] for case in golden.cases]
    count = len(golden.cases[0]["tokens"])
    results = client.generate(
        golden.model, prompts, steer=edits, max_tokens=count, temperature=0, ignore_eos=True
    )
    for k, (case, result) in enumerate(zip(golden.cases, results, strict=True)):
        about = (k, case["interventions"])
        assert list(result.token_ids) == case["tokens"], about
        fed = len(case["prompt"]) + count - 1
        for one, receipt in zip(case["interventions"], result.receipts, strict=True):
            told = (list(receipt.layers), receipt.positions)
            assert told == expected_receipt(one, len(case["prompt"]), fed), about


def test_activations_and_logits_are_those_of_transformers(client, golden):
    last = golden.config["num_hidden_layers"] - 1
    taps = [
        vs.tap("residual_post", 0, golden.positions),
        vs.tap("residual_post", last, golden.positions),
        vs.tap("logits", None, golden.positions),
    ]
    worst = 0.0
    for k, case in enumerate(golden.cases):
        prompt = case["prompt"]
        edits = [edit(client, golden, one, len(prompt)) for one in case["interventions"]]
        (seen,) = client.capture(golden.model, [(prompt, case["tokens"])], taps, steer=edits)
        for t, part in enumerate(("first", "last", "logits")):
            off = error(seen[t][0], golden.values[part][k])
            worst = max(worst, off)
            assert off < TOLERANCE, (k, part, case["interventions"])
    print(f"{golden.model}: largest relative error {worst:.1e}")


def test_what_changes_nothing_changes_no_bit_and_has_a_receipt(client, golden):
    prompt, response = golden.cases[0]["prompt"], golden.cases[0]["tokens"]
    taps = [vs.tap(site) for site in ("residual_post", "mlp_neurons", "logits")]
    (plain,) = client.capture(golden.model, [(prompt, response)], taps)
    v = numbers(1, golden.width("residual_post"))
    for nothing in (
        vs.Steer(v, 0.0, tokens="all", preserve_norm=True),
        vs.ProjectOut(v, 0.0, tokens="all", preserve_norm=True),
        vs.ScaleNeurons([(0, 1), (1, 3)], 1.0, tokens="all", preserve_norm=True),
    ):
        (seen,) = client.capture(golden.model, [(prompt, response)], taps, steer=nothing)
        for one, other in zip(seen.values(), plain.values(), strict=True):
            assert np.array_equal(one.view(np.uint32), other.view(np.uint32))
        (receipt,) = seen.receipts
        assert receipt.positions == len(prompt) + len(response)
        assert len(receipt.layers) >= 2


def test_the_members_of_a_stored_set_are_the_neurons_it_lists(client):
    golden = Golden("llama3_rope")
    width, blocks = golden.width("residual_post"), golden.config["num_hidden_layers"]
    value = [
        stored(client, golden, numbers(seed, blocks, width), "residual_post", range(blocks))
        for seed in (1, 2)
    ]
    # Lists three of its members, has more.
    neuron_set = client.classify_neurons(golden.model, *value, top_percent=40, top_k=3)
    whole = client.classify_neurons(golden.model, *value, top_percent=40, top_k=1000)
    assert len(neuron_set.top) == 3 < len(whole.top)
    classes = {getattr(n, "class") for n in whole.top}
    assert v1.NEURON_CLASS_UNCLASSIFIED in classes
    prompt, tokens = golden.cases[0]["prompt"], golden.cases[0]["tokens"]
    taps = [vs.tap("residual_post", "all", "all")]

    def scaled(chosen, **more):
        steer = vs.ScaleNeurons(chosen, 3.0, tokens="all", **more)
        return client.capture(golden.model, [(prompt, tokens)], taps, steer=steer)[0][0]

    everyone = [(n.layer, n.index) for n in whole.top]
    assert np.array_equal(scaled(neuron_set.name), scaled(everyone))
    some = [
        (n.layer, n.index) for n in whole.top if getattr(n, "class") == v1.NEURON_CLASS_UNCLASSIFIED
    ]
    of_class = scaled(neuron_set.name, neuron_class="unclassified")
    assert np.array_equal(of_class, scaled(some))
    assert not np.array_equal(of_class, scaled(everyone))
    with pytest.raises(vs.FailedPrecondition, match="other weights"):
        client.generate("models/gemma2", prompt, steer=vs.AblateNeurons(neuron_set.name))


def test_a_vector_of_another_model_or_site_is_refused(client):
    llama, gemma = Golden("llama3_rope"), Golden("gemma2")
    v = stored(client, llama, numbers(3, llama.width("residual_post")), "residual_post", [1])
    for steer in (vs.ProjectOut(v, layers=1), vs.Clamp(v, 1.0, layers=1)):
        with pytest.raises(vs.FailedPrecondition, match="other weights"):
            client.generate(gemma.model, gemma.cases[0]["prompt"], steer=steer, max_tokens=2)
    elsewhere = vs.Clamp(v, 1.0, layers=1, site="mlp_output")
    with pytest.raises(vs.InvalidRequest, match="must be a vector of site MLP_OUTPUT"):
        client.generate(llama.model, llama.cases[0]["prompt"], steer=elsewhere, max_tokens=2)


@pytest.mark.parametrize(
    ("steer", "field"),
    [
        (vs.ProjectOut(np.zeros(28), layers=0), "interventions[0].project_out"),
        (vs.ProjectOut(np.ones(28), 1.1, layers=0), "interventions[0].project_out.strength"),
        (vs.Clamp(np.zeros(28), 1.0, layers=0), "interventions[0].clamp"),
        (vs.Clamp(np.ones(28), float("nan"), layers=0), "interventions[0].clamp.value"),
        (vs.Clamp(np.ones(27), 1.0, layers=0), "interventions[0].clamp.tensor.shape"),
        (vs.ScaleNeurons([(0, 45)], 2.0), "interventions[0].scale_neurons.neurons[0].index"),
        (vs.ScaleNeurons([(0, 1)], 2.0, layers=1), "interventions[0].scale_neurons.neurons"),
        (vs.AblateNeurons([(0, 1), (0, 1)]), "interventions[0].ablate_neurons.neurons[1]"),
        (
            vs.Replace(np.ones((1, 2, 28)), layers=0, tokens=[1]),
            "interventions[0].replace.tensor.shape",
        ),
        (vs.Replace(np.full(28, np.inf), layers=0), "interventions[0].replace.tensor"),
    ],
)
def test_a_mistake_is_refused_by_the_name_of_its_field(client, steer, field):
    with pytest.raises(vs.InvalidRequest) as refused:
        client.generate("models/llama3_rope", [11] * 8, steer=steer, max_tokens=2)
    assert [violation.field for violation in refused.value.violations] == [field]
