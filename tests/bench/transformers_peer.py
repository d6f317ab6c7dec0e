"""Hugging Face transformers as the peer of forward_bench: its commands on standard input, its answers.

transformers_peer.py MODEL_FOLDER THREADS [DEVICE [DTYPE]]

Its own Python (torch, transformers) runs it. It keeps no cache of keys and values in `forward`, which is to its advantage. `generate` takes
{"prompts": [[id, ...], ...], "new_tokens": n} and also answers with the token ids. `integrate` takes {"prompt": [id, ...],
"response": [id, ...], "block": l, "top": l, "vector": [number, ...], "steps": n}, the midpoint rule for <vector, output of block
`top`>, the mean over the response, by the neurons of `block` at the response's tokens, and also answers with their scores.
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


class Clean:
    """What one pass leaves of a block: what enters its MLP's norm, its neurons, and what they write."""

    def __init__(self, model, tokens, block):
        layer, seen = model.model.layers[block], {}
        hooks = [
            layer.post_attention_layernorm.register_forward_pre_hook(
                lambda _, inputs: seen.update(mid=inputs[0])
            ),
            layer.mlp.down_proj.register_forward_pre_hook(
                lambda _, inputs: seen.update(neurons=inputs[0])
            ),
            layer.mlp.register_forward_hook(lambda _, __, output: seen.update(written=output)),
        ]
        with torch.no_grad():
            model(tokens, use_cache=False, logits_to_keep=1)
        for hook in hooks:
            hook.remove()
        self.mid, self.neurons, self.written = seen["mid"], seen["neurons"], seen["written"]


def behind(model, x, block, top):
    """What block `top` gives where `block` gives x [copies, tokens, hidden]."""
    positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    rotations = model.model.rotary_emb(x, positions)
    for layer in model.model.layers[block + 1 : top + 1]:
        x = layer(x, position_embeddings=rotations, position_ids=positions)
        x = x[0] if isinstance(x, tuple) else x
    return x


def integrate(model, prompt, response, block, top, vector, steps):
    """As many nodes side by side as 256 tokens hold."""
    tokens = torch.tensor([prompt + response], device=model.device)
    vector = torch.tensor(vector, device=model.device)
    at = slice(len(prompt), None)
    start = time.perf_counter()
    clean = Clean(model, tokens, block)
    nodes = (torch.arange(steps, device=model.device) + 0.5) / steps
    total = torch.zeros_like(clean.written[0, at])
    for some in nodes.split(max(1, 256 // tokens.shape[1])):
        fractions = torch.ones(len(some), tokens.shape[1], 1, device=model.device)
        fractions[:, at] = some.view(-1, 1, 1)
        x = (clean.mid + fractions * clean.written).requires_grad_()
        target = (behind(model, x, block, top)[:, at] @ vector).mean(1).sum()
        total += torch.autograd.grad(target, x)[0][:, at].sum(0)
    by_neurons = total / steps @ model.model.layers[block].mlp.down_proj.weight.detach()
    scores = (clean.neurons[0, at] * by_neurons).sum(0)
    return time.perf_counter() - start, scores.tolist()


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
    model.requires_grad_(False)
    for line in sys.stdin:
        command, *arguments = line.split()
        with torch.inference_mode(command != "integrate"):
            if command == "forward":
                answer(seconds=forward(model, *map(int, arguments)))
            elif command == "generate":
                seconds, token_ids = generate(model, **json.loads(line.partition(" ")[2]))
                answer(seconds=seconds, token_ids=token_ids)
            elif command == "integrate":
                seconds, scores = integrate(model, **json.loads(line.partition(" ")[2]))
                answer(seconds=seconds, scores=scores)
            else:
                sys.exit(f"unknown command: {command}")


if __name__ == "__main__":
    main()
