"""Hugging Face transformers as the peer of forward_bench: its commands on standard input, its answers.

transformers_peer.py MODEL_FOLDER THREADS [DEVICE [DTYPE]]

Its own Python (torch, transformers) runs it. It keeps no cache of keys and values in `forward`, which is to its advantage. `generate` takes
{"prompts": [[id, ...], ...], "new_tokens": n} and also answers with the token ids.
"""

import json
import sys
import time

import torch
import transformers


def answer(**fields):
    print(json.dumps(fields), flush=True)


def forward(model, sequences, length):
    tokens = torch.randint(model.config.vocab_size, (sequences, length), device=model.device)
    start = time.perf_counter()
    model(tokens, logits_to_keep=1, use_cache=False).logits.cpu()
    return time.perf_counter() - start


def generate(model, prompts, new_tokens):
    """Greedy, one batch of prompts of equal length."""
    tokens = torch.tensor(prompts, device=model.device)
    start = time.perf_counter()
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
    )
    ids = output[:, tokens.shape[1] :].tolist()
    return time.perf_counter() - start, ids


def main():
    folder, threads = sys.argv[1], int(sys.argv[2])
    device, dtype = (sys.argv[3:] + ["cpu", "float32"][len(sys.argv) - 3 :])[:2]
    torch.set_num_threads(threads)
    start = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device).eval()
    answer(
        load_seconds=time.perf_counter() - start,
        versions=f"transformers {transformers.__version__}, torch {torch.__version__}",
    )
    with torch.inference_mode():
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "forward":
                answer(seconds=forward(model, *map(int, arguments)))
            elif command == "generate":
                seconds, token_ids = generate(model, **json.loads(line.partition(" ")[2]))
                answer(seconds=seconds, token_ids=token_ids)
            else:
                sys.exit(f"unknown command: {command}")


if __name__ == "__main__":
    main()
