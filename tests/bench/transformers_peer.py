"""Hugging Face transformers as the peer of forward_bench and the server: commands on standard input, answers as theirs.

transformers_peer.py MODEL_FOLDER THREADS [DEVICE [DTYPE]]

Its own Python (torch, transformers) runs it. It keeps no cache of keys and values in `forward`, which is to its advantage. `generate` takes
{"prompts": [[id, ...], ...], "new_tokens": n} and also answers with the token ids. `contribute`, `integrate` and `choose` take the arguments of
the functions of these names and also answer with what those return. study_peer.py has commands of its own beside them.
"""

import json
import sys
import time

import torch
import transformers


def answer(**fields):
    print(json.dumps(fields), flush=True)


@torch.inference_mode()
def forward(model, sequences, length):
    tokens = torch.randint(model.config.vocab_size, (sequences, length), device=model.device)
    start = time.perf_counter()
    model(tokens, logits_to_keep=1, use_cache=False).logits.cpu()
    return time.perf_counter() - start


@torch.inference_mode()
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


def clean(model, tokens, block):
    """Of a block of Llama's kind: the residual stream behind its attention and what its MLP adds, both [1, tokens, hidden], and its neurons
    [1, tokens, intermediate]."""
    layer, kept = model.model.layers[block], {}
    hooks = [
        layer.post_attention_layernorm.register_forward_pre_hook(
            lambda _, given: kept.update(behind_attention=given[0])
        ),
        layer.mlp.down_proj.register_forward_hook(
            lambda _, given, added: kept.update(neurons=given[0], added=added)
        ),
    ]
    with torch.no_grad():
        model.model(tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    return kept["behind_attention"], kept["added"], kept["neurons"]


def integrate(model, prompt, response, vector, block, steps, at_once):
    """Integrated gradients, by the midpoint rule from zero, of a block's neurons at the response's tokens, for <vector, residual stream
    behind the last block>, the mean over these tokens. Nodes run side by side, so many at once, through the blocks behind alone, and
    gradients stop at what the block's MLP adds, from which those of its neurons follow: [intermediate].
    """
    tokens = torch.tensor([prompt + response], device=model.device)
    direction = torch.tensor(vector, device=model.device, dtype=model.dtype)
    start = time.perf_counter()
    behind_attention, added, neurons = clean(model, tokens, block)
    positions = torch.arange(tokens.shape[1], device=model.device)[None]
    rotation = model.model.rotary_emb(added, position_ids=positions)
    changes = positions[..., None] >= len(prompt)
    nodes = (torch.arange(steps, device=model.device, dtype=model.dtype) + 0.5) / steps
    gradient = torch.zeros_like(added[0])
    for fractions in nodes.split(at_once):
        scaled = torch.where(changes, fractions[:, None, None] * added, added).requires_grad_()
        residual = behind_attention + scaled
        for layer in model.model.layers[block + 1 :]:
            residual = layer(residual, position_embeddings=rotation)
        target = (residual[:, len(prompt) :] @ direction).mean(1).sum()
        gradient += torch.autograd.grad(target, scaled)[0].sum(0) / steps
    by_neuron = gradient @ model.model.layers[block].mlp.down_proj.weight
    scores = (by_neuron * neurons[0])[len(prompt) :].sum(0).tolist()
    return time.perf_counter() - start, scores


@torch.inference_mode()
def contribute(model, responses, at_once, of="neurons"):
    """Mean activations of all neurons, or residual streams behind all blocks, at the tokens of a response, averaged over the responses that
    express and over the others: [2, layers, intermediate or hidden]. `responses` are [prompt, response, expresses]; batches have neighbours
    in length, and each hook leaves a row a response.
    """
    start = time.perf_counter()
    config = model.config
    width = config.intermediate_size if of == "neurons" else config.hidden_size
    sums = torch.zeros(2, len(model.model.layers), width).double()
    batch = {}

    def reduce(which, activations):
        rows = (batch["weights"] @ activations)[:, 0].double().cpu()
        for kind in range(2):
            sums[kind, which] += rows[batch["kinds"] == kind].sum(0)

    def hooked(which, layer):
        if of == "neurons":
            return layer.mlp.down_proj.register_forward_pre_hook(
                lambda _, given: reduce(which, given[0])
            )
        return layer.register_forward_hook(lambda _, _given, output: reduce(which, output))

    hooks = [hooked(which, layer) for which, layer in enumerate(model.model.layers)]
    by_length = sorted(responses, key=lambda one: len(one[0]) + len(one[1]))
    for first in range(0, len(by_length), at_once):
        chosen = by_length[first : first + at_once]
        longest = len(chosen[-1][0]) + len(chosen[-1][1])
        tokens = torch.zeros(len(chosen), longest, dtype=torch.long)
        mask, weights = torch.zeros_like(tokens), torch.zeros(len(chosen), 1, longest)
        for row, (prompt, response, _) in enumerate(chosen):
            end = len(prompt) + len(response)
            tokens[row, :end], mask[row, :end] = torch.tensor(prompt + response), 1
            weights[row, 0, len(prompt) : end] = 1 / len(response)
        batch["weights"] = weights.to(model.device, model.dtype)
        batch["kinds"] = torch.tensor([0 if expresses else 1 for _, _, expresses in chosen])
        model.model(tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    expressing = sum(expresses for _, _, expresses in responses)
    counts = torch.tensor([expressing, len(responses) - expressing])
    return time.perf_counter() - start, (sums / counts[:, None, None]).tolist()


def adding(vector, last_alone):
    """A hook of a block that adds it to every token's residual stream, or to that of the last token of each sequence."""

    def hook(_module, _given, output):
        output[:, -1 if last_alone else 0 :] += vector
        return output

    return hook


def chat(turn, system=None):
    """A user's turn, behind a system message where there is one; an empty one is one."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": turn}]


@torch.inference_mode()
def choose(model, tokenizer, turns, labels, block, vectors, last_alone, at_once, system=None):
    """p(label) / p(all labels) of what the model would say to each turn while a vector is added behind the block, to every token or to the
    last one alone, from one forward of each prompt, so many at once: [vectors, turns, labels]. Labels are single tokens.
    """
    start = time.perf_counter()
    label_ids = [tokenizer.encode(label, add_special_tokens=False) for label in labels]
    chats = [chat(turn, system) for turn in turns]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    tokenizer.padding_side = "left"
    added = torch.tensor(vectors, device=model.device, dtype=model.dtype)
    found = torch.zeros(len(vectors), len(turns), len(labels))

    for which, vector in enumerate(added):
        hook = model.model.layers[block].register_forward_hook(adding(vector, last_alone))
        for first in range(0, len(texts), at_once):
            chosen = by_length[first : first + at_once]
            batch = tokenizer(
                [texts[i] for i in chosen],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
            ).to(model.device)
            logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1]
            labelled = logits[:, [ids[0] for ids in label_ids]]
            found[which, chosen] = labelled.softmax(-1).cpu()
        hook.remove()
    return time.perf_counter() - start, found.tolist()


def serve(commands):
    """Answers each line, a command and its arguments, with what commands[command](model, tokenizer, arguments) returns, until the input ends."""
    folder, threads = sys.argv[1], int(sys.argv[2])
    device, dtype = (sys.argv[3:] + ["cpu", "float32"][len(sys.argv) - 3 :])[:2]
    torch.set_num_threads(threads)
    start = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device).eval().requires_grad_(False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    answer(
        load_seconds=time.perf_counter() - start,
        versions=f"transformers {transformers.__version__}, torch {torch.__version__}",
    )
    for line in sys.stdin:
        command, _, arguments = line.partition(" ")
        if command not in commands:
            sys.exit(f"unknown command: {command}")
        answer(**commands[command](model, tokenizer, arguments))


def told(names, results):
    return dict(zip(names, results, strict=True))


COMMANDS = {
    "forward": lambda model, _, given: {"seconds": forward(model, *map(int, given.split()))},
    "generate": lambda model, _, given: told(
        ("seconds", "token_ids"), generate(model, **json.loads(given))
    ),
    "contribute": lambda model, _, given: told(
        ("seconds", "means"), contribute(model, **json.loads(given))
    ),
    "integrate": lambda model, _, given: told(
        ("seconds", "scores"), integrate(model, **json.loads(given))
    ),
    "choose": lambda model, tokenizer, given: told(
        ("seconds", "probabilities"), choose(model, tokenizer, **json.loads(given))
    ),
}


if __name__ == "__main__":
    serve(COMMANDS)
