"""lm-evaluation-harness over a real server: what it is told of the planted model is what the weights say, steered or not."""

import pathlib
import sys
import types

import numpy as np
import planted_model as pm
import planted_truth as pt
import pytest
from llama import Edits

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "client" / "python" / "tests"))
import conftest  # noqa: F401 - the client on the path, its stubs fresh
import harness_stand_in
import valuescope as vs
from conftest import Server

harness_stand_in.install()
from valuescope.lm_eval import Steered  # noqa: E402

MODEL = "models/planted"
# float32 against float64, of the log-probability of a few tokens.
ROUNDING = 1e-4
BOS = pm.IDS["<bos>"]
BLOCK, COEFFICIENT = 1, 4.0
CHOICES = [" maybe choose thrill and adventure", " surely want rest plus quiet", " maybe"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    pm.write_model(folder / "planted", pm.Builder(0).planted)
    server = Server(tmp_path_factory.mktemp("server"), f"--model_root={folder}", "--models=planted")
    with server.client(MODEL) as client:
        yield client
    assert server.stop() == 0


@pytest.fixture(scope="module")
def planted():
    """The model in numpy, and its planted direction."""
    builder = pm.Builder(0)
    return pt.as_stored(builder.planted), builder.axes["shared"]


def asked(*arguments):
    return [types.SimpleNamespace(args=one) for one in arguments]


def scored(model, context, continuation, edits=None):
    """Log-probability and greedy flag by the definition, from logits [tokens, vocabulary] in float64."""
    logits = model.run(context + continuation, edits).logits[len(context) - 1 : -1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    rows = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    likeliest = rows.argmax(axis=1).tolist()
    return rows[range(len(continuation)), continuation].sum(), likeliest == continuation


def contexts():
    asking = pm.prompt_text(f"{pt.QUESTION} mountain", "")
    return [asking, pm.prompt_text(f"{pt.QUESTION} kitchen", "") + "  ", ""]


@pytest.mark.parametrize("steered", [False, True])
def test_log_probabilities_are_those_of_the_weights(client, planted, steered):
    numpy_model, row = planted
    steer = vs.Steer(row, COEFFICIENT, layers=BLOCK, tokens="all") if steered else None
    edits = Edits(add={BLOCK: (COEFFICIENT * row, 0)}) if steered else None
    pairs = [(context, choice) for context in contexts() for choice in CHOICES]
    model = Steered(client, MODEL, steer=steer)
    found = model.loglikelihood(asked(*pairs))
    flags = []
    for (context, choice), (logprob, greedy) in zip(pairs, found, strict=True):
        ids = pm.to_ids(context) or [BOS]
        expected, flag = scored(numpy_model, ids, pm.to_ids(choice), edits)
        assert abs(logprob - expected) < ROUNDING
        assert greedy == flag
        flags.append(flag)
    assert len(set(flags)) == 2


def test_a_steering_from_the_last_prompt_token_begins_at_the_contexts_end(client, planted):
    numpy_model, row = planted
    model = Steered(client, MODEL, steer=vs.Steer(row, COEFFICIENT, layers=BLOCK))
    context, choice = contexts()[0], CHOICES[0]
    ((logprob, _),) = model.loglikelihood(asked((context, choice)))
    ids = pm.to_ids(context)
    edits = Edits(add={BLOCK: (COEFFICIENT * row, len(ids) - 1)})
    assert abs(logprob - scored(numpy_model, ids, pm.to_ids(choice), edits)[0]) < ROUNDING


def test_a_long_text_is_scored_in_windows(client, planted):
    """The context is 128 tokens: the second window has what fits before its tokens."""
    numpy_model, _ = planted
    text = " ".join([*pm.QUESTION_WORDS, *pm.VALUE_WORDS] * 10)
    ids = pm.to_ids(text)
    assert 127 < len(ids) < 2 * 127
    model = Steered(client, MODEL)
    (found,) = model.loglikelihood_rolling(asked((text,)))
    first, _ = scored(numpy_model, [BOS], ids[:127])
    rest = len(ids) - 127
    second, _ = scored(numpy_model, ids[-128:-rest], ids[-rest:])
    assert abs(found - first - second) < len(ids) * ROUNDING / 10


def test_generations_are_the_models_answers_up_to_the_stop_string(client, planted):
    numpy_model, _ = planted
    texts = contexts()[:2]
    arguments = {"until": [" and", " plus"], "max_gen_toks": 12}
    model = Steered(client, MODEL)
    found = model.generate_until(asked(*((text, arguments) for text in texts)))
    for text, answer in zip(texts, found, strict=True):
        whole = pt.answer_of(numpy_model, pm.to_ids(text))
        assert answer.split() == whole.replace(" and", " plus").split(" plus")[0].split()


def test_chats_are_rendered_by_the_models_template(client):
    model = Steered(client, MODEL)
    text = model.apply_chat_template(vs.chat("what should we do", system=""))
    assert pm.to_ids(text) == pm.to_ids(pm.prompt_text("what should we do"))
    opened = [*vs.chat("what"), {"role": "assistant", "content": "maybe choose"}]
    rendered = model.apply_chat_template(opened, add_generation_prompt=False)
    assert rendered.endswith("assistant maybe choose")
