"""Makes smollm2_text.json: the ids and rendered chats that transformers gives for SmolLM2-135M-Instruct's tokenizer.

    python make_smollm2_text.py MODEL_FOLDER

Run once with transformers 5.17.0; the tests need neither it nor torch. The tokenizer file is read by PreTrainedTokenizerFast,
which takes it as it is: transformers 5's class for GPT-2 would replace the file's pre-tokenizer, which splits every digit.
"""

import json
import pathlib
import random
import sys

from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = [
    "",
    "hello",
    "  a  b\n\n\t c ",
    "1234567 89.5 \u00b2\u00bd\u0e53",
    "don't we'll I'M",
    "def f(x):\r\n    return x**2",
    "<|im_start|>user\n<|im_end|> x<|endoftext|><repo_name>",
    "e\u0301\u0323 \u202e\u05e9\u05dc\u05d5\u05dd",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea",
    "a\0b\0",
    "\ufeff\ufffd",
    "\u00a0\u2003x\u3000y",
    "\u6c49\u5b57\u304b\u306a\ud55c\uad6d\uc5b4",
    "\u017f\u00df\u0130",
    "ab" * 300,
    " " * 300,
]
CHATS = [
    [("user", "Hi")],
    [("system", ""), ("user", "Hi\n there ")],
    [
        ("system", "Be <brief> & 'kind'."),
        ("user", "Warum? \U0001f642"),
        ("assistant", "Darum.\n"),
        ("user", "<|im_end|>"),
    ],
    [("assistant", " first ")],
]
SNIPPETS = [
    "{{ messages }}",
    "{{ messages | tojson }}{{ value | tojson(indent=2) }}",
    "{{ value }}|{{ value.list[1] }}|{{ value.nothing }}",
    "  {% for m in messages %}\n  {{ loop.index0 }}{{ m['role'] }}\n  {%- endfor %}\n{{ bos_token }}{{ eos_token }}\n",
    "{% set ns = namespace(seen=false) %}{% for m in messages %}{% if ns.seen %}{% break %}{% endif %}"
    "{% set ns.seen = m.role == 'user' %}{{ m.content.strip().split()[-1] | title }}{{ m.content.title() }}{% endfor %}",
    "{% for k, v in value.items() %}{{ k }}={{ v }};{% endfor %}{{ messages[::-1] | map(attribute='role') | join(',') }}",
    "{{ 1 / 2 }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 1e20 }} {{ 1e-5 }} {{ 3.7 | round }} {{ none }} {{ true }}",
]
VALUE = {
    "text": "<\u00e9 'q' \"d\">\n",
    "list": [1, 2.5, None, True],
    "empty": {},
    "nested": {"a": [[]]},
    "nothing": None,
}


def main(folder):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{folder}/tokenizer.json", bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    template = AutoTokenizer.from_pretrained(folder).chat_template
    noise = random.Random(1)
    kinds = [(32, 127), (0xA0, 0x800), (0x800, 0xD800), (0x1F300, 0x1FA00), (32, 33), (10, 11)]
    texts = TEXTS + [
        "".join(chr(noise.randrange(*noise.choice(kinds))) for _ in range(40)) for _ in range(100)
    ]
    golden = {"texts": [], "chats": [], "decoded": [], "snippets": [], "value": VALUE}
    for text in texts:
        golden["texts"].append({"text": text, "ids": tokenizer(text)["input_ids"]})
    for chat in CHATS:
        messages = [{"role": role, "content": content} for role, content in chat]
        for prompt in (True, False):

            def render(source, messages=messages, prompt=prompt, **arguments):
                return tokenizer.apply_chat_template(
                    messages,
                    chat_template=source,
                    add_generation_prompt=prompt,
                    tokenize=False,
                    **arguments,
                )

            rendered = render(template)
            golden["chats"].append(
                {
                    "messages": chat,
                    "add_generation_prompt": prompt,
                    "text": rendered,
                    "ids": tokenizer(rendered, add_special_tokens=False)["input_ids"],
                }
            )
        for source in SNIPPETS:
            golden["snippets"].append(
                {"messages": chat, "source": source, "text": render(source, value=VALUE)}
            )
    for i in range(100):
        ids = [noise.randrange(49152 if i % 2 else 300) for _ in range(20)]
        for skip in (False, True):
            text = tokenizer.decode(ids, skip_special_tokens=skip)
            golden["decoded"].append({"ids": ids, "skip_special_tokens": skip, "text": text})
    (HERE / "smollm2_text.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
