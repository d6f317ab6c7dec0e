"""Generation through the real server: steered requests of many users in one batch, equal to each alone."""

import json

import numpy as np
import pytest
import valuescope as vs
from conftest import MODEL, ROOT

HIDDEN, LAYERS = 576, 30
QUERIES = [
    "How do bees find flowers?",
    "Name a colour.",
    "What should I cook tonight?",
    "Why is the sky blue?",
    "Tell me about the sea.",
    "How do I tie a knot?",
    "What is a good hobby?",
    "Where do penguins live?",
    "How does bread rise?",
    "What makes a good friend?",
    "Describe a forest.",
    "How far is the moon?",
    "What is music for?",
    "Who invented paper?",
    "How do I learn to swim?",
    "What is a river?",
]


def steering(index):
    """A different vector, layer, coefficient and scope for each of sixteen users."""
    row = np.random.default_rng(index).standard_normal(HIDDEN)
    scope = ("from_last_prompt", "generated", "all", "prompt")[index % 4]
    return vs.Steer(row / np.linalg.norm(row), 3.0 + index, (index * 7) % LAYERS, tokens=scope)


def test_sixteen_steered_requests_at_once_each_equal_their_own_run_alone(client):
    prompts = [vs.chat(q, system="") for q in QUERIES]
    alone = [
        client.generate(MODEL, p, steer=[steering(i)], max_tokens=24, temperature=0.0)
        for i, p in enumerate(prompts)
    ]
    together = client.generate(
        MODEL, prompts, steer=[[steering(i)] for i in range(16)], max_tokens=24, temperature=0.0
    )
    for one, many in zip(alone, together, strict=True):
        assert many.token_ids == one.token_ids
        assert [r.positions for r in many.receipts] == [r.positions for r in one.receipts]
    assert len({tuple(g.token_ids) for g in together}) == 16


def test_the_same_seed_draws_the_same_tokens_in_any_company(client):
    prompt = vs.chat("Tell me a story.", system="")
    alone = client.generate(MODEL, prompt, max_tokens=24, temperature=1.0, top_p=0.9, seed=7)
    together = client.generate(
        MODEL, [prompt] * 8, max_tokens=24, temperature=1.0, top_p=0.9, seed=list(range(8))
    )
    assert together[7].token_ids == alone.token_ids
    assert together[3].token_ids != alone.token_ids
    assert alone.response.seed == 7


def test_a_stream_joins_to_what_generate_returns(client):
    prompt = vs.chat("Count in French 🙂.", system="")
    whole = client.generate(MODEL, prompt, max_tokens=32, temperature=0.0)
    events = list(client.stream(MODEL, prompt, max_tokens=32, temperature=0.0))
    deltas = [e.delta for e in events if e.HasField("delta")]
    assert "".join(d.text for d in deltas) == whole.text
    assert [i for d in deltas for i in d.token_ids] == whole.token_ids
    assert events[-1].HasField("summary")


def test_greedy_tokens_and_scores_equal_transformers(client):
    golden = json.loads((ROOT / "tests" / "golden" / "smollm2" / "served.json").read_text())
    for case in golden["cases"]:
        prompt = case["prompt_ids"]
        generation = client.generate(
            MODEL, prompt, max_tokens=len(case["greedy_ids"]), temperature=0.0, ignore_eos=True
        )
        assert generation.token_ids == case["greedy_ids"]
        (score,) = client.score(MODEL, prompt, [case["greedy_ids"]])
        np.testing.assert_allclose(score.token_logprobs, case["greedy_logprobs"], atol=2e-4)


def test_steered_greedy_tokens_equal_transformers_with_a_hook(client):
    golden = json.loads((ROOT / "tests" / "golden" / "smollm2" / "served.json").read_text())
    row = np.array(golden["steering"]["vector"], np.float32)
    for case in golden["steering"]["cases"]:
        steer = vs.Steer(row, golden["steering"]["coefficient"], golden["steering"]["layer"])
        generation = client.generate(
            MODEL,
            case["prompt_ids"],
            steer=[steer],
            max_tokens=len(case["greedy_ids"]),
            temperature=0.0,
            ignore_eos=True,
        )
        assert generation.token_ids == case["greedy_ids"]
        assert generation.receipts[0].positions == len(case["greedy_ids"])


def test_captures_of_a_response_equal_transformers(client):
    golden = json.loads((ROOT / "tests" / "golden" / "smollm2" / "served.json").read_text())
    case = golden["cases"][0]
    taps = [
        vs.tap("residual_post", golden["capture_layers"], "response", "mean"),
        vs.tap("mlp_neurons", golden["capture_layers"], "response", "mean"),
    ]
    (captured,) = client.capture(MODEL, [(case["prompt_ids"], case["greedy_ids"])], taps)
    for tap, name in enumerate(["residual_post_mean", "mlp_neurons_mean"]):
        expected = np.array(case[name], np.float32)
        error = np.linalg.norm(captured[tap][:, 0, :] - expected) / np.linalg.norm(expected)
        assert error < 1e-5


def test_a_capture_while_generating_equals_the_capture_of_the_returned_tokens(client):
    prompt = vs.chat("What is a river?", system="")
    taps = [vs.tap("residual_post", [3, 20], "response", "mean")]
    generation = client.generate(MODEL, prompt, taps=taps, max_tokens=12, temperature=0.0)
    (captured,) = client.capture(MODEL, [(prompt, generation.token_ids)], taps)
    np.testing.assert_array_equal(generation.captures[0][0], captured[0])


@pytest.mark.parametrize(
    ("change", "code", "field", "says"),
    [
        (
            {"steer": [vs.Steer(np.ones(HIDDEN), 1, 30)]},
            "INVALID_ARGUMENT",
            "interventions[0].layers",
            "0 to 29",
        ),
        (
            {"steer": [vs.Steer(np.ones(HIDDEN - 1), 1, 3)]},
            "INVALID_ARGUMENT",
            "interventions[0].add.tensor",
            "576",
        ),
        (
            {"steer": [vs.Steer(np.full(HIDDEN, np.nan), 1, 3)]},
            "INVALID_ARGUMENT",
            "interventions[0].add.tensor",
            "finite",
        ),
        ({"steer": [vs.Steer("vectors/none", 1, 3)]}, "NOT_FOUND", "", "vectors/none"),
        (
            {"steer": [vs.Steer(np.ones(HIDDEN), 1, 3, tokens="generated")], "max_tokens": 1},
            "INVALID_ARGUMENT",
            "interventions[0]",
            "",
        ),
        ({"model": "models/unknown"}, "NOT_FOUND", "", "models/unknown"),
        ({"model": "models/../../etc"}, "INVALID_ARGUMENT", "model", ""),
        ({"prompt": [5] * 9000}, "INVALID_ARGUMENT", "prompt", "8191"),
        ({"prompt": [49152]}, "INVALID_ARGUMENT", "prompt", "49151"),
        ({"prompt": [-1]}, "INVALID_ARGUMENT", "prompt", "49151"),
        ({"temperature": -1.0}, "INVALID_ARGUMENT", "sampling.temperature", ""),
        ({"top_p": 0.0}, "INVALID_ARGUMENT", "sampling.top_p", "1"),
        ({"max_tokens": 0}, "INVALID_ARGUMENT", "sampling.max_tokens", "1"),
        ({"n": 65}, "INVALID_ARGUMENT", "n", "64"),
    ],
)
def test_a_bad_request_is_told_the_field_and_the_range_and_the_next_one_works(
    client, change, code, field, says
):
    arguments = {
        "model": MODEL,
        "prompt": "The sea is",
        "max_tokens": 2,
        "temperature": 0.0,
    } | change
    with pytest.raises(vs.ValuescopeError) as caught:
        client.generate(arguments.pop("model"), arguments.pop("prompt"), **arguments)
    error = caught.value
    assert error.code.name == code
    assert error.reason
    assert says in str(error)
    if field:
        assert error.violations and error.violations[0].field.startswith(field)
    assert client.generate(MODEL, "The sea is", max_tokens=2, temperature=0.0).text
