#!/usr/bin/env bash
# transformers 5.17.0: a folder whose tokenizer_class is LlamaTokenizer does not get the ids of its own tokenizer.json.
#
# Guess: AutoTokenizer runs the pipeline that tokenizer.json describes, as the tokenizers library does with the same file.
# Seen with tokenizers 0.23.3: the vocabulary and merges are taken, normalizer and pre-tokenizer are built anew from the class. Where
# the file holds Llama 2's `Prepend "▁"`, "hello world" is the same, but a leading space loses a token (" hello": "▁", "▁hello" by
# the file, "▁hello" by transformers) and text behind a special token has no "▁" in front ("hello</s>world": "▁world" by the file,
# pieces without "▁" by transformers). With tokenizer_class PreTrainedTokenizerFast both agree.
# So: ids are compared through AutoTokenizer and not only through the file, and a server that follows the file says so.
#
# Exits 0 while that is so, 1 when it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check transformers==5.17.0 tokenizers==0.23.3
cat >"$folder/probe.py" <<'PYTHON'
import json
import pathlib
import sys

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = ["hello world", " hello", "hello</s>world"]


def write_folder(folder, tokenizer_class):
    folder.mkdir()
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=SPECIAL + BYTES, show_progress=False)
    made.train_from_iterator(["hello world", "a hello", "world a b"] * 4, trainer)
    text = json.loads(made.to_str())
    text["added_tokens"] = [token for token in text["added_tokens"] if token["content"] in SPECIAL]
    (folder / "tokenizer.json").write_text(json.dumps(text))
    named = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def differences(folder):
    by_file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    by_class = transformers.AutoTokenizer.from_pretrained(str(folder))
    found = []
    for text in TEXTS:
        file_pieces = by_file.encode(text, add_special_tokens=False).tokens
        class_pieces = by_class.tokenize(text)
        print(f"  {text!r}: file {file_pieces}, transformers {class_pieces}")
        found.append(file_pieces != class_pieces)
    return found


root = pathlib.Path(sys.argv[1])
expected = {"LlamaTokenizer": [False, True, True], "PreTrainedTokenizerFast": [False, False, False]}
seen = {}
for name in expected:
    write_folder(root / name, name)
    print(f"transformers {transformers.__version__}, {name}")
    seen[name] = differences(root / name)
sys.exit(0 if seen == expected else 1)
PYTHON
mkdir "$folder/models"
"$folder/venv/bin/python" "$folder/probe.py" "$folder/models" 2>"$folder/log" ||
  { cat "$folder/log" >&2; echo 'transformers no longer does what this file says' >&2; exit 1; }
