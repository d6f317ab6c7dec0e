"""Makes text/decoders.json: what Hugging Face transformers decodes with every decoder that its tokenizers have, and where its
StopStringCriteria ends a generation.

All decoders share one vocabulary of awkward pieces, so that ids alone tell what is decoded. Run with torch and transformers:

    python tests/golden/make_decoders.py
"""

import json
import pathlib
import random
import tempfile

import torch
from transformers import PreTrainedTokenizerFast
from transformers.generation import StopStringCriteria

HERE = pathlib.Path(__file__).parent
NUM_TEXTS = 12  # of each decoder
NUM_STOPS = 60
SPECIAL = ["<s>", "</s>", "<|im_end|>", "[SEP]"]
ADDED = ["<tool call>", "<\u4f60>"]
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": True,
}
BYTES = {"type": "ByteFallback"}
FUSE = {"type": "Fuse"}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def strip(start, stop):
    return {"type": "Strip", "content": " ", "start": start, "stop": stop}


def metaspace(scheme):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": True}


def sequence(*decoders):
    return {"type": "Sequence", "decoders": list(decoders)}


def word_piece(cleanup):
    return {"type": "WordPiece", "prefix": "##", "cleanup": cleanup}


def ctc(cleanup):
    return {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": cleanup}


MARKS = replace("\u2581", " ")
WORD_ENDS = {"type": "BPEDecoder", "suffix": "</w>"}
DECODERS = {
    "none": None,
    "byte level": BYTE_LEVEL,
    "byte level in a sequence": sequence(BYTE_LEVEL),
    "byte level two sequences deep": sequence(sequence(BYTE_LEVEL)),
    "byte level, then stripped": sequence(BYTE_LEVEL, strip(2, 2)),
    "byte level, then replaced": sequence(BYTE_LEVEL, replace("abab", "-"), replace("a b", "")),
    "marks, then byte level": sequence(MARKS, BYTE_LEVEL),
    "fused, then byte level": sequence(FUSE, BYTE_LEVEL),
    "byte level, then bytes": sequence(BYTE_LEVEL, BYTES),
    "bytes": BYTES,
    "bytes, then byte level": sequence(BYTES, BYTE_LEVEL),
    "llama": sequence(MARKS, BYTES, FUSE, strip(1, 0)),
    "gemma": sequence(MARKS, BYTES, FUSE),
    "fused, then bytes": sequence(MARKS, FUSE, BYTES),
    "stripped at both sides": sequence(MARKS, FUSE, strip(1, 1)),
    "bytes, fused, marks": sequence(BYTES, FUSE, metaspace("always")),
    "metaspace always": metaspace("always"),
    "metaspace first": metaspace("first"),
    "metaspace never": sequence(metaspace("never")),
    "word pieces": word_piece(True),
    "word pieces as they are": word_piece(False),
    "fused word pieces": sequence(FUSE, word_piece(True)),
    "bytes, then word pieces": sequence(BYTES, word_piece(True), FUSE, strip(1, 0)),
    "ctc": ctc(True),
    "ctc as it is": ctc(False),
    "fused, then ctc": sequence(FUSE, ctc(True)),
    "word ends": WORD_ENDS,
    "word ends, then word pieces": sequence(WORD_ENDS, word_piece(False)),
    "fused word ends": sequence(FUSE, WORD_ENDS),
    "expression": replace("[ab]+|$", "<>", kind="Regex"),
    "fused, then expression": sequence(MARKS, FUSE, replace("b +a", "+", kind="Regex")),
    "nothing": replace("", "."),
}
# Where transformers' way of looking at tokens one by one is the same as looking at their text.
STOPPING = ["byte level", "byte level in a sequence", "llama", "gemma", "metaspace never"]
CLEANED_UP = ["none", "gemma", "metaspace always", "word pieces as they are"]
STOPS = [
    ["<|im_end|>"],
    ["ab<|im_end|>"],
    ["\n"],
    ["\n\n", "bb"],
    ["ab"],
    ["\u20ac"],
    ["a\u20ac"],
    ["im_end|>a", "\u4f60"],
    ["</s>", "ba"],
]


def byte_alphabet():
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def vocabulary():
    pieces = [*SPECIAL, *ADDED]
    pieces += [
        "a",
        "b",
        "ab",
        "ba",
        "abcdef",
        "aab",
        "\u2581",
        "\u2581\u2581",
        "\u2581a",
        "\u2581ab",
        "b\u2581",
        "\u0120",
        "\u0120ab",
    ]
    pieces += [
        "##",
        "##a",
        "##ab",
        "#",
        "a</w>",
        "b</w>",
        "</w>",
        "</",
        "w>",
        "</w>a</w>",
        "|",
        "<pad>",
        "a|b",
        "<pad>a",
    ]
    pieces += [
        " ",
        "  ",
        " a",
        "b ",
        " .",
        ".",
        "?",
        " !",
        ",",
        "'",
        " '",
        "n't",
        " n't",
        "'m",
        " 'm",
        "s",
        "do",
        " do",
        "not",
        " not",
    ]
    pieces += [
        "\u00e9",
        "\u4f60",
        "\U0001f600",
        "\ufffd",
        "\u20ac",
        "<0x+f>",
        "<0x\u00e9>",
        "<0x",
        "<0x41",
        "41>",
        ">",
        "",
        "\u00e2\u0124",
        "\u00ac",
    ]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    return list(dict.fromkeys([*pieces, *byte_alphabet().values()]))


def added(content, index, special):
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    return {"id": index, "content": content, **flags, "special": special}


def tokenizer_file(pieces, decoder):
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(c, pieces.index(c), c in SPECIAL) for c in [*SPECIAL, *ADDED]],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "WordLevel",
            "vocab": {p: i for i, p in enumerate(pieces)},
            "unk_token": "b",
        },
    }


def load(pieces, decoder, clean_up=False):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(tokenizer_file(pieces, decoder), file)
        file.flush()
        return PreTrainedTokenizerFast(
            tokenizer_file=file.name, clean_up_tokenization_spaces=clean_up
        )


def draw(generator, pieces, count):
    """Ids of words mostly; runs of bytes of a text now and then, some of them broken."""
    words = pieces.index("<0x00>")
    alphabet = byte_alphabet()
    ids = []
    while len(ids) < count:
        if generator.random() < 0.6:
            ids.append(generator.randrange(words))
            continue
        text = generator.choice(["\u20ac", "\n", "\u4f60a", "\U0001f600", "A\n\u20ac"]).encode()
        if generator.random() < 0.3:
            text = text[: generator.randrange(len(text)) + 1]
        by_byte_tokens = generator.random() < 0.5
        ids += [pieces.index(f"<0x{b:02X}>" if by_byte_tokens else alphabet[b]) for b in text]
    return ids


def texts_of(tokenizer, generator, pieces):
    for count in range(NUM_TEXTS):
        ids = draw(generator, pieces, count)
        try:
            whole = tokenizer.decode(ids)
            without_special = tokenizer.decode(ids, skip_special_tokens=True)
        except BaseException:  # the library panics are no Exception
            continue
        yield {"ids": ids, "text": whole, "without_special": without_special}


def stops_of(tokenizer, generator, pieces):
    for stops in STOPS:
        try:
            criteria = StopStringCriteria(tokenizer, stops)
        except ValueError:  # no token can end it
            continue
        for _ in range(NUM_STOPS // len(STOPS)):
            ids = [pieces.index("b"), *draw(generator, pieces, 16)]
            stopped = [
                bool(criteria(torch.tensor([ids[: i + 1]]), None)[0]) for i in range(len(ids))
            ]
            at = stopped.index(True) if True in stopped else None
            yield {
                "ids": ids[: len(ids) if at is None else at + 1],
                "stop": stops,
                "stopped": at is not None,
            }


def main():
    generator = random.Random(3)
    pieces = vocabulary()
    golden = {"vocabulary": pieces, "special": SPECIAL, "added": ADDED, "decoders": []}
    for name, decoder in DECODERS.items():
        tokenizer = load(pieces, decoder)
        entry = {
            "name": name,
            "decoder": decoder,
            "texts": list(texts_of(tokenizer, generator, pieces)),
        }
        entry["stops"] = list(stops_of(tokenizer, generator, pieces)) if name in STOPPING else []
        golden["decoders"].append({**entry, "clean_up": False})
    for name in CLEANED_UP:
        tokenizer = load(pieces, DECODERS[name], clean_up=True)
        texts = list(texts_of(tokenizer, generator, pieces))
        entry = {
            "name": f"{name}, cleaned up",
            "decoder": DECODERS[name],
            "texts": texts,
            "stops": [],
        }
        golden["decoders"].append({**entry, "clean_up": True})
    lines = ",\n".join(json.dumps(entry) for entry in golden.pop("decoders"))
    text = json.dumps(golden)[:-1] + ',\n"decoders": [\n' + lines + "\n]}\n"
    (HERE / "text" / "decoders.json").write_text(text)


if __name__ == "__main__":
    main()
