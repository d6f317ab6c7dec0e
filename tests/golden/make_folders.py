"""Makes folders.json: what transformers reads from the small files of a model's folder, where several say something.

    python make_folders.py

Run with transformers 5.17.0; neither torch nor the tests' server is needed. Every case holds its files as text:

  tokens: with the tokenizer.json of "tokenizer", the ids of texts without special tokens around, what these ids decode to
    without special tokens, the special tokens by name, and the chat template for plain chats (null: none).
  ropes: keys beside those of "rope_config", and the rope_theta and, where frequencies are scaled, the four numbers of
    llama3; null where transformers does not read the file.
  ends: the ids at which generate stops.
"""

import itertools
import json
import pathlib
import tempfile

from make_text_corpus import PLAIN, word_tokenizer
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

HERE = pathlib.Path(__file__).resolve().parent
MAX_BYTES = 250_000

TEXTS = ["<s>a </s> b<pad>c", "<x>a <y> b <z>", "x<t>y <img> <vid>d", "<n> a  <n>b e"]
TOKEN = {**PLAIN, "special": False, "normalized": True}
CONFIG = json.dumps({"model_type": "llama", "vocab_size": 64})

# What tokenizer_config.json, special_tokens_map.json and added_tokens.json may say: each with each.
CONFIGURATIONS = [
    None,
    {"eos_token": "</s>", "pad_token": "<pad>"},
    {"added_tokens_decoder": {}, "eos_token": "e"},
    {"added_tokens_decoder": {"9": {**TOKEN, "content": "<x>"}}, "pad_token": "<x>"},
    {"extra_special_tokens": ["<x>", "b", "<n>"], "bos_token": "<s>"},
    {"additional_special_tokens": ["<y>"], "vid_token": "<vid>", "img_token": "<img>"},
    {"extra_special_tokens": {"vid_token": "<vid>", "img_token": "<img>"}, "unk_token": None},
    {"pad_token": {"__type": "AddedToken", **TOKEN, "content": "<pad>", "lstrip": True}},
]
MAPS = [
    None,
    {"eos_token": "<x>", "pad_token": {**PLAIN, "content": "<pad>", "rstrip": True}},
    {"eos_token": None, "additional_special_tokens": ["<y>", "a"]},
    {"extra_special_tokens": ["<z>", "<x>"], "t_token": "<t>", "bos_token": "<n>"},
]
ADDED = [None, {"<y>": 10, "<x>": 9}, {"<x>": 3, "<t>": 8, "c": 7, "<n>": 6}]

# The rest one by one: the further files of a folder, and what becomes of them.
SINGLE = [
    {"tokenizer_config.json": '{"split_special_tokens": true, "bos_token": "<s>"}'},
    {"tokenizer_config.json": '{"split_special_tokens": true, "extra_special_tokens": ["<x>"]}'},
    {"tokenizer_config.json": '{"split_special_tokens": false}'},
    {"tokenizer_config.json": '{"pad_token": "<x>", "pad_token": "<y>"}'},
    {"tokenizer_config.json": '{"model_max_length": NaN, "x_token": Infinity, "y_token": "<y>"}'},
    {"tokenizer_config.json": '{"model_max_length": 1000000000000000019884624838656}'},
    {"tokenizer_config.json": '{"model_max_length": 1e999, "pad_token": "<y>"}'},
    {"tokenizer_config.json": '{"add_bos_token": true, "add_eos_token": true, "bos_token": "<s>"}'},
    {"tokenizer_config.json": '{"add_prefix_space": true, "legacy": false}'},
    {"tokenizer_config.json": '{"chat_template": "one"}'},
    {"tokenizer_config.json": '{"chat_template": "one"}', "chat_template.jinja": "file"},
    {
        "tokenizer_config.json": '{"chat_template": [{"name": "default", "template": "one"}, '
        '{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "two"}]}'
    },
    {"tokenizer_config.json": '{"chat_template": {"default": "one", "rag": "two"}}'},
    {"tokenizer_config.json": '{"chat_template": [{"name": "tool_use", "template": "tools"}]}'},
    {
        "tokenizer_config.json": '{"chat_template": "one"}',
        "additional_chat_templates/tool_use.jinja": "tools",
    },
    {
        "chat_template.jinja": "file",
        "additional_chat_templates/tool_use.jinja": "tools",
        "additional_chat_templates/default.jinja": "more",
    },
    {"additional_chat_templates/default.jinja": "more"},
    {"chat_template.jinja": "file", "additional_chat_templates/rag.jinja": "rag"},
    {"config.json": '{"model_type": "llama", "tokenizer_class": "PreTrainedTokenizerFast"}'},
]


def write(folder, files):
    for name, text in files.items():
        path = pathlib.Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def token_case(tokenizer, files):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, {"config.json": CONFIG, "tokenizer.json": tokenizer, **files})
        loaded = AutoTokenizer.from_pretrained(folder)
    texts = []
    for text in TEXTS:
        ids = loaded.encode(text, add_special_tokens=False)
        texts.append([ids, loaded.decode(ids, skip_special_tokens=True)])
    try:
        template = loaded.get_chat_template()
    except ValueError:
        template = None
    return {
        "files": files,
        "texts": texts,
        "named": loaded.special_tokens_map,
        "chat_template": template,
    }


def token_cases(tokenizer):
    files = []
    names = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    for contents in itertools.product(CONFIGURATIONS, MAPS, ADDED):
        named = zip(names, contents, strict=True)
        files.append({name: json.dumps(value) for name, value in named if value is not None})
    return [token_case(tokenizer, one) for one in files + SINGLE]


SCALED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": 16}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
ROPE_CONFIG = {"model_type": "llama", **SIZES}
OLDER = [
    ...,
    None,
    {},
    {"rope_type": "default"},
    {"type": "default", "rope_theta": 1000.0},
    SCALED,
    {**SCALED, "rope_theta": 700.0},
    {**SCALED, "type": "default"},
    {**SCALED, "rope_type": "default", "type": "llama3"},
]
NEWER = [
    ...,
    None,
    {},
    {"rope_type": "default", "rope_theta": 500000.0},
    {**SCALED, "rope_theta": 500000.0, "factor": 2.0},
    {"type": "llama3", **{key: SCALED[key] for key in SCALED if key != "rope_type"}},
]
THETAS = [..., 30000.0]
ORIGINALS = [..., 128]


def rope_case(keys):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, {"config.json": json.dumps({**ROPE_CONFIG, **keys})})
        try:
            config = AutoConfig.from_pretrained(folder)
        except Exception:  # of whatever kind: it is not read
            return [keys, None]
    rope = config.rope_parameters
    if rope["rope_type"] == "default":
        return [keys, [rope["rope_theta"]]]
    config.standardize_rope_params()  # as the function that computes the frequencies begins
    return [keys, [rope["rope_theta"], *(rope[key] for key in SCALED if key != "rope_type")]]


def rope_cases():
    cases = []
    for older, newer, theta, original in itertools.product(OLDER, NEWER, THETAS, ORIGINALS):
        keys = {"rope_scaling": older, "rope_parameters": newer, "rope_theta": theta}
        keys["original_max_position_embeddings"] = original
        cases.append(rope_case({key: value for key, value in keys.items() if value is not ...}))
    return cases


ENDS = [..., None, 3, [5, 4], [4, 200], 200]


def end_case(files):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, files)
        try:
            config = GenerationConfig.from_pretrained(folder)
        except OSError:  # as from_pretrained of a model does
            config = GenerationConfig.from_pretrained(
                folder, config_file_name="config.json", _from_model_config=True
            )
    ends = config.eos_token_id
    return {
        "files": files,
        "ends": [] if ends is None else ends if isinstance(ends, list) else [ends],
    }


def end_cases():
    cases = []
    for generation, model, token in itertools.product([None, *ENDS], ENDS, (None, "</s>")):
        files = {"config.json": {"model_type": "llama", **SIZES, "vocab_size": 64}}
        if model is not ...:
            files["config.json"]["eos_token_id"] = model
        if generation is not None:
            files["generation_config.json"] = (
                {} if generation is ... else {"eos_token_id": generation}
            )
        if token is not None:
            files["tokenizer_config.json"] = {"eos_token": token}
        cases.append(end_case({name: json.dumps(content) for name, content in files.items()}))
    return cases


def main():
    tokenizer = word_tokenizer().to_str()
    golden = {
        "tokenizer": tokenizer,
        "texts": TEXTS,
        "tokens": token_cases(tokenizer),
        "rope_config": ROPE_CONFIG,
        "ropes": rope_cases(),
        "ends": end_cases(),
    }
    text = json.dumps(golden, separators=(",", ":")) + "\n"
    assert len(text) < MAX_BYTES, len(text)
    (HERE / "folders.json").write_text(text)


if __name__ == "__main__":
    main()
