"""Where generation ends, through the real server: stop strings and stop tokens, over tokenizers that hold text back."""

import json
import shutil

import numpy as np
import pytest
import valuescope as vs
from conftest import MODEL, ROOT, Server
from valuescope import v1

FOLDER = ROOT / "tests" / "golden" / "families" / "mistral"
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_end|>"]
PROMPT = [1, 5, 6]
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": True,
}
LLAMA = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}
DECODERS = {
    "llama": LLAMA,
    "byte_level": BYTE_LEVEL,
    "nested": {"type": "Sequence", "decoders": [{"type": "Sequence", "decoders": [BYTE_LEVEL]}]},
}
# The answer, then decoder, stop strings, stop tokens, text that is left and how many tokens.
CASES = [
    ("llama", "\u2581ab <0xE2> <0x82> <0xAC> END \u2581zz", ["END"], [], "ab\u20ac", 4),
    ("llama", "\u2581ff <0x0D> \u2581gg", ["\r"], [], "ff", 1),
    ("llama", "\u2581jj <0x09> yUIz \u2581kk", ["UI"], [], "jj\ty", 3),
    ("llama", "\u2581a </s> \u2581b", ["</s>", "b"], [], "a", 1),
    ("llama", "\u2581a <0xE2> <0x82> \u2581b \u2581c", ["c"], [], "a\ufffd\ufffd b ", 5),
    ("llama", "\u2581a <0xE2> <0x82> \u2581b \u2581c", [], ["\u2581b"], "a\ufffd\ufffd", 3),
    ("byte_level", "Hi \u0120there <|im_end|> \u0120user", ["<|im_end|>"], [], "Hi there", 2),
    ("byte_level", "Hi <|im_end|> \u0120user x", ["<|im_end|> us"], [], "Hi", 1),
    ("byte_level", "Hi <|im_end|> \u0120user x", ["Hi us"], [], "Hi userx", 4),
    ("byte_level", "Hi <|im_end|> \u0120user x", [], ["<|im_end|>"], "Hi", 1),
    ("byte_level", "Hi \u0120there \u0120user", [], ["\u0120user", "x", "x"], "Hi there", 2),
    ("nested", "Hi \u0120 \u00f0 \u0141 \u013a \u0122 \u0120how \u0120are", [], [], "Hi \U0001f600 how are", 8),
    ("nested", "Hi \u00f0 \u0141 \u013a \u0122 \u0120how \u0120are", [" are"], [], "Hi\U0001f600 how", 6),
    ("nested", "Hi \u0120there", ["H"], [], "", 0),
]  # fmt: skip


def vocabulary():
    pieces = [piece for case in CASES for piece in case[1].split()]
    return list(dict.fromkeys([*SPECIAL, "</s>", *pieces]))


def write_model(folder, decoder):
    shutil.copytree(FOLDER, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    pieces = vocabulary()
    assert len(pieces) <= len(tokenizer["model"]["vocab"])
    plain = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] = [
        {**plain, "id": i, "content": p} for i, p in enumerate([*SPECIAL, "</s>"])
    ]
    tokenizer["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    tokenizer["model"]["unk_token"] = "<pad>"
    tokenizer["post_processor"] = None
    tokenizer["decoder"] = decoder
    path.write_text(json.dumps(tokenizer))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, decoder in DECODERS.items():
        write_model(root / name, decoder)
    directory = tmp_path_factory.mktemp("server")
    server = Server(directory, f"--model_root={root}", f"--models={','.join(DECODERS)}")
    with vs.connect(server.address) as client:
        for name in DECODERS:
            client.wait_until_ready(f"models/{name}")
        yield client
    server.stop()


def saying(client, model, ids):
    """Edits of the logits that make the model say these tokens."""
    rows = np.eye(client.model(model).vocab_size, dtype=np.float32)[ids] * 1e4
    last = len(PROMPT) - 1
    return [vs.Steer(row, 1, (), tokens=[last + i], site="logits") for i, row in enumerate(rows)]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_what_a_stop_trims_is_nowhere(models, case):
    name, answer, stop, stop_tokens, text, count = case
    pieces, model = vocabulary(), f"models/{name}"
    ids = [pieces.index(piece) for piece in answer.split()]
    arguments = {
        "steer": saying(models, model, ids),
        "n": 2,
        "logprobs": 0,
        "max_tokens": len(ids),
        "temperature": 0,
        "ignore_eos": True,
        "stop": stop,
        "stop_token_ids": [pieces.index(piece) for piece in stop_tokens],
    }
    tap = vs.tap("residual_post", "all", "response")
    whole = models.generate(model, PROMPT, taps=[tap], **arguments)
    plain = models.generate(model, PROMPT, **arguments)
    (captured,) = models.capture(model, [(PROMPT, ids[: max(1, count)])], [tap])
    events = list(models.stream(model, PROMPT, **arguments))
    usual = models.generate(model, PROMPT, **{**arguments, "stop": [], "stop_token_ids": []})
    stopped = usual.text != text
    ends = v1.FINISH_REASON_STOP if stopped else v1.FINISH_REASON_LENGTH
    for index, completion in enumerate(whole.completions):
        assert completion.text == text
        assert completion.token_ids == ids[:count]
        assert len(completion.logprobs.token_logprobs) == count
        np.testing.assert_array_equal(whole.captures[index][0], captured[0][:, :count])
        deltas = [e.delta for e in events if e.HasField("delta") and e.delta.index == index]
        assert "".join(delta.text for delta in deltas) == text
        assert [one for delta in deltas for one in delta.token_ids] == ids[:count]
        assert sum(len(delta.logprobs.token_logprobs) for delta in deltas) == count
        # The edit at a token's place acts where that token is fed.
        fed = [1 if i <= count else 0 for i in range(len(ids))]
        assert [receipt.positions for receipt in completion.receipts] == fed
        assert completion.finish_reason == ends
    for completion in plain.completions:
        assert sum(r.positions for r in completion.receipts) <= count + 1
        assert (completion.text, completion.token_ids) == (text, ids[:count])


def test_a_special_token_that_ends_a_turn_ends_it_as_a_string_and_as_an_id_too(client):
    (end,) = client.model(MODEL).stop_token_ids
    prompt = vs.chat("Name a colour.", system="")
    usual = client.generate(MODEL, prompt, max_tokens=200, temperature=0)
    assert usual.finish_reason == "stop"
    for how in ({"stop": "<|im_end|>"}, {"stop_token_ids": end}, {"stop_token_ids": [end, end]}):
        other = client.generate(
            MODEL, prompt, max_tokens=200, temperature=0, ignore_eos=True, **how
        )
        assert (other.text, other.token_ids) == (usual.text, usual.token_ids)
        assert other.finish_reason == "stop"
    some = usual.token_ids[3]
    before = usual.token_ids[: usual.token_ids.index(some)]
    cut = client.generate(MODEL, prompt, max_tokens=200, temperature=0, stop_token_ids=some)
    assert cut.token_ids == before


def test_a_prompt_is_no_part_of_a_stop_string(client):
    prompt = "Once upon a time, there was a"
    usual = client.generate(MODEL, prompt, max_tokens=12, temperature=0)
    stop = "was a" + usual.text[:2]
    same = client.generate(MODEL, prompt, max_tokens=12, temperature=0, stop=stop)
    assert (same.text, same.finish_reason) == (usual.text, "length")


@pytest.mark.parametrize("ids", [[-1], [49152], list(range(257))])
def test_stop_tokens_outside_the_vocabulary_or_too_many_are_refused(client, ids):
    with pytest.raises(vs.InvalidRequest) as refused:
        client.generate(MODEL, "Hi", stop_token_ids=ids, max_tokens=2)
    assert [v.field for v in refused.value.violations] == ["sampling.stop_token_ids"]
