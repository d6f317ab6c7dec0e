"""A value study as a transformers script with hooks does it: the parts that study.py asks for, as commands beside transformers_peer.py's.

Prompts and responses are token ids, but for those of `encode`. Everything is batched, `at_once` sequences a batch, neighbours in length
together. A steering is {"block": block, "vector": [hidden]}, added behind that block from the last token of the prompt on, or None.
"""

import contextlib
import itertools
import json
import math
import re
import time

import torch
import transformers_peer as peer


def batches(lengths, at_once):
    """Indices of sequences, by length."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[first : first + at_once] for first in range(0, len(order), at_once)]


def padded(rows, left=False):
    """Token ids and what of them counts, both [rows, longest]."""
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, ids in enumerate(rows):
        place = slice(longest - len(ids), None) if left else slice(len(ids))
        tokens[row, place], mask[row, place] = torch.tensor(ids), 1
    return tokens, mask


@contextlib.contextmanager
def steered(model, steer, where=None):
    """Steers what runs meanwhile: its last token or, with `where`, the tokens where where["is"], [rows, tokens, 1], is 1."""
    if steer is None:
        yield
        return
    vector = torch.tensor(steer["vector"], dtype=model.dtype)

    def add(_module, _given, output):
        return output + where["is"] * vector

    hook = peer.adding(vector, last_alone=True) if where is None else add
    handle = model.model.layers[steer["block"]].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def encode(tokenizer, prompts):
    """Ids of the prompts, each [system message or None, user's turn], as the chat template renders them."""
    chats = [peer.chat(turn, system) for system, turn in prompts]
    texts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def sample(model, prompts, max_tokens, temperature, seed, steer, at_once):
    """An answer to each prompt, without the token that ends it."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends)
    answers = [None] * len(prompts)
    with steered(model, steer):
        for chosen in batches([len(ids) for ids in prompts], at_once):
            tokens, mask = padded([prompts[which] for which in chosen], left=True)
            output = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                pad_token_id=min(ends),
            )[:, tokens.shape[1] :].tolist()
            for which, ids in zip(chosen, output, strict=True):
                end = next((place for place, id in enumerate(ids) if id in ends), len(ids))
                answers[which] = ids[:end]
    return time.perf_counter() - start, answers


@torch.inference_mode()
def logprobs(model, sequences, steer, at_once):
    """Summed log-probability of each continuation of [prompt, continuation]; only what predicts its tokens is unembedded."""
    found, where = [0.0] * len(sequences), {}
    with steered(model, steer, where):
        for chosen in batches([sum(map(len, one)) for one in sequences], at_once):
            rows = [sequences[which] for which in chosen]
            tokens, mask = padded([prompt + continuation for prompt, continuation in rows])
            places = torch.arange(tokens.shape[1])
            first = torch.tensor([len(prompt) - 1 for prompt, _ in rows])[:, None]
            lengths = [len(continuation) for _, continuation in rows]
            where["is"] = (places >= first)[..., None].to(model.dtype)
            predicts = (places >= first) & (places < first + torch.tensor(lengths)[:, None])
            hidden = model.model(tokens, attention_mask=mask, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[predicts])
            targets = torch.tensor([id for _, continuation in rows for id in continuation])
            chances = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
            for which, part in zip(chosen, chances.split(lengths), strict=True):
                found[which] = part.double().sum().item()
    return found


def expressing(tokenizer, responses, words):
    """Whether each response has a word of the list in it."""
    alternatives = (re.escape(word).replace(r"\*", r"\w*") for word in words)
    pattern = re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    return [pattern.search(text) is not None for text in texts]


def measure(model, tokenizer, responses, words, at_once):
    """Of [prompt, response] the share with a word of the list, Distinct-2, and the perplexity of the unsteered model."""
    start = time.perf_counter()
    answers = [answer for _, answer in responses]
    pairs = [pair for ids in answers for pair in itertools.pairwise(ids)]
    some = [one for one in responses if one[1]]
    log_probability = sum(logprobs(model, some, None, at_once))
    measured = {
        "share": sum(expressing(tokenizer, answers, words)) / len(answers),
        "distinct_2": len(set(pairs)) / max(1, len(pairs)),
        "perplexity": math.exp(-log_probability / max(1, sum(map(len, answers)))),
    }
    return time.perf_counter() - start, measured


def label(tokenizer, responses, words):
    start = time.perf_counter()
    labels = expressing(tokenizer, responses, words)
    return time.perf_counter() - start, labels


def answer_choices(model, tokenizer, questions, system, steer, at_once):
    """The likeliest choice a byte of each [question, choices], as its number."""
    start = time.perf_counter()
    prompts = encode(tokenizer, [[system, question] for question, _ in questions])
    listed = [
        (prompt, choice)
        for prompt, (_, choices) in zip(prompts, questions, strict=True)
        for choice in choices
    ]
    continuations = tokenizer([choice for _, choice in listed], add_special_tokens=False)
    sequences = [
        [prompt, ids] for (prompt, _), ids in zip(listed, continuations["input_ids"], strict=True)
    ]
    sums = iter(logprobs(model, sequences, steer, at_once))
    scores = [[next(sums) / len(choice.encode()) for choice in choices] for _, choices in questions]
    return time.perf_counter() - start, [max(range(len(s)), key=s.__getitem__) for s in scores]


@torch.inference_mode()
def attribute(model, responses, vectors, at_once):
    """What each neuron contributes to its block's vector, vectors [layers, hidden]: [layers, intermediate]."""
    seconds, means = peer.contribute(model, responses, at_once)
    start = time.perf_counter()
    expressing_means, others = torch.tensor(means).double()
    scores = []
    for which, layer in enumerate(model.model.layers):
        vector = torch.tensor(vectors[which]).double()
        along = vector @ layer.mlp.down_proj.weight.double() / (vector @ vector)
        scores.append(((expressing_means[which] - others[which]) * along).tolist())
    return seconds + time.perf_counter() - start, scores


@torch.inference_mode()
def classify(model, axes, top_percent, max_angle):
    """Sizes of the classes shared, intrinsic and prompted over all blocks: of the top percent of a block's neurons by their projection on
    its plane, axes [layers, 2, hidden], those within an angle, degrees, of u_shared, u_diff and -u_diff.
    """
    start = time.perf_counter()
    counts = [0, 0, 0]
    for which, layer in enumerate(model.model.layers):
        plane = torch.tensor(axes[which], dtype=model.dtype) @ layer.mlp.down_proj.weight
        kept = plane.norm(dim=0).topk(int(plane.shape[1] * top_percent / 100)).indices
        shared, difference = plane[:, kept] / plane[:, kept].norm(dim=0)
        for place, cosine in enumerate((shared, difference, -difference)):
            counts[place] += (cosine > math.cos(math.radians(max_angle))).sum().item()
    return time.perf_counter() - start, counts


def of_model(name, function):
    """The command of a function of the model, which answers with its seconds and with `name`."""
    return lambda model, _, given: peer.told(
        ("seconds", name), function(model, **json.loads(given))
    )


def of_both(name, function):
    """The same of a function of the model and its tokenizer."""
    return lambda model, tokenizer, given: peer.told(
        ("seconds", name), function(model, tokenizer, **json.loads(given))
    )


COMMANDS = peer.COMMANDS | {
    "encode": lambda _, tokenizer, given: {"ids": encode(tokenizer, json.loads(given))},
    "label": lambda _, tokenizer, given: peer.told(
        ("seconds", "labels"), label(tokenizer, **json.loads(given))
    ),
    "sample": of_model("answers", sample),
    "attribute": of_model("scores", attribute),
    "classify": of_model("counts", classify),
    "measure": of_both("measures", measure),
    "choices": of_both("chosen", answer_choices),
}


if __name__ == "__main__":
    peer.serve(COMMANDS)
