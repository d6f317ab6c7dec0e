"""Holds llama.py and the tokenizer of the planted models against transformers: every hidden state, the logits, the rendered chats.

    python check_transformers.py

Run with torch 2.11.0 and transformers 5.17.0 on a CPU, beside every change of the models' files; the tests need neither.
"""

import pathlib
import tempfile

import numpy as np
import planted_model as pm
import planted_truth as pt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROUNDING = 2e-5


def relative(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@torch.no_grad()
def check(folder, ours):
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    blocks = []
    for block in model.model.layers:
        block.register_forward_hook(
            lambda _module, _inputs, out: blocks.append(out[0] if isinstance(out, tuple) else out)
        )
    worst = 0.0
    for one in pt.examples("intrinsic") + pt.examples("prompted"):
        ids, start = one.sequence()
        chat = [
            {"role": "system", "content": one.system},
            {"role": "user", "content": one.question},
        ]
        rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == ids[:start]
        without = tokenizer.apply_chat_template(
            chat[1:], add_generation_prompt=True, tokenize=False
        )
        defaulted = pm.to_ids(pm.prompt_text(one.question, None))
        assert tokenizer(without, add_special_tokens=False)["input_ids"] == defaulted
        blocks.clear()
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        run = ours.run(ids)
        worst = max(worst, relative(logits, run.logits))
        for found, expected in zip(blocks, run.residual_post, strict=True):
            worst = max(worst, relative(found.reshape(expected.shape).numpy(), expected))
    assert worst < ROUNDING, worst
    return worst


def main():
    builder = pm.Builder(0)
    with tempfile.TemporaryDirectory() as temporary:
        for name, weights in (("planted", builder.planted), ("planted_twin", builder.twin)):
            folder = pathlib.Path(temporary) / name
            pm.write_model(folder, weights)
            print(f"{name}: largest relative difference {check(folder, pt.as_stored(weights)):.2g}")


if __name__ == "__main__":
    main()
