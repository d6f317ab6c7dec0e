"""Makes attributions/: what attribution of the families' neurons comes to by transformers and torch autograd.

    python make_attributions.py [NAME ...]

Run with torch 2.11.0, transformers 5.17.0 and safetensors on a CPU, after make_families.py; the tests need none of
them. NAME.safetensors has, for the float32 folder families/NAME, computed in float64 and kept in float32, for block L:

  vector [layers, hidden], made up
  direct_contribution.L, activation_product.L, activation_gate.L [intermediate] over `responses()`
  patching.TARGET.BASELINE.L [intermediate], BASELINE zero or mean
  integrated.TARGET.STEPS.L [intermediate], and integrated.TARGET.gap [layers]: L(full) - L(zeroed) minus their sum,
    the mean over the expressing responses, of as many steps
  mean [layers, intermediate], of the non-expressing responses: what ablation with MODE mean puts in
  ablation.TARGET.MODE.L [intermediate], MODE zero or mean, every neuron alone; and MODE held, which is zero with the block's
    own norm behind its MLP held, where there is one
  logprob_increase.SCALE.L [intermediate], SCALE held or recomputed: what reading a_i w_i at once adds to the log-probability

TARGET is one of TARGETS; in patching and integration a block's own norm behind its MLP (Gemma 2) keeps its clean factor, the others
are live.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
NAMES = ["gemma2", "llama3_rope", "llama_tied", "mistral", "qwen2", "qwen2_tied", "qwen3"]
STEPS = 7
POSITIVE, NEGATIVE = [11, 12], [13]


def responses(about):
    """(prompt, response, expresses) of four responses, from the sequences of a folder's expected.json."""
    _, short, middle, long = about["sequences"]
    return [
        (short[:4], short[4:], True),
        (middle[:8], middle[8:], False),
        (long[:30], long[30:50], True),
        (long[40:50], long[50:], False),
    ]


def projection(run, vector, layer):
    first = len(run.prompt)
    return (run.seen[f"post.{layer}"][first:] @ vector[layer]).mean()


def logit_difference(run, vector, layer):
    at = run.logits[len(run.prompt) - 1]
    return at[POSITIVE].mean() - at[NEGATIVE].mean()


def logprob(run, vector, layer):
    first = len(run.prompt)
    logs = run.logits.log_softmax(-1)[first - 1 : -1]
    return logs.gather(1, torch.tensor(run.response).unsqueeze(1)).sum()


# Name: the scalar, and the tokens whose neurons are attributed: those of the response, or of the prompt but the first.
TARGETS = {
    "projection": (projection, "response"),
    "logit_difference": (logit_difference, "prompt"),
    "logprob": (logprob, "response"),
}


class Run:
    """One pass. What the neurons of `scaled` blocks are is replaced by what `edit` makes of them."""

    def __init__(self, model, prompt, response, edit=None, held=None):
        self.prompt, self.response = prompt, response
        self.seen = {}
        hooks = []
        for i, block in enumerate(model.model.layers):
            hooks += [
                block.mlp.down_proj.register_forward_pre_hook(self._neurons(i, edit)),
                block.mlp.gate_proj.register_forward_hook(self._keep(f"gate.{i}")),
                block.register_forward_hook(self._keep(f"post.{i}")),
            ]
            before = getattr(block, "pre_feedforward_layernorm", block.post_attention_layernorm)
            hooks.append(before.register_forward_pre_hook(self._keep_input(f"mid.{i}")))
            if hasattr(block, "post_feedforward_layernorm"):
                norm = block.post_feedforward_layernorm
                hooks.append(norm.register_forward_hook(self._norm(i, norm, (held or {}).get(i))))
        self.logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0]
        for hook in hooks:
            hook.remove()

    def _keep(self, name):
        def hook(_module, _inputs, output):
            self.seen[name] = (output[0] if isinstance(output, tuple) else output)[0]

        return hook

    def _keep_input(self, name):
        def hook(_module, inputs):
            self.seen[name] = inputs[0][0]

        return hook

    def _neurons(self, i, edit):
        def hook(_module, inputs):
            value = inputs[0] if edit is None else edit(i, inputs[0])
            self.seen[f"neurons.{i}"] = value
            return (value,)

        return hook

    def _norm(self, i, norm, held):
        def hook(_module, inputs, output):
            x = inputs[0]
            self.seen[f"factor.{i}"] = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps)
            return None if held is None else x * held * (1.0 + norm.weight)

        return hook


def factors(run):
    return {
        int(name.split(".")[1]): value.detach()
        for name, value in run.seen.items()
        if name.startswith("factor.")
    }


def attributed(run, tokens):
    """Positions."""
    first = len(run.prompt)
    return range(first, first + len(run.response)) if tokens == "response" else range(1, first)


def gradient(model, run, target, vector, layer, block, edit=None, held=None):
    """dL / d the block's neurons, [tokens, intermediate], and L; `held` keeps the factor of that block alone."""
    own = None if held is None or block not in held else {block: held[block]}
    again = Run(model, run.prompt, run.response, edit, own)
    scalar = TARGETS[target][0](again, vector, layer)
    (found,) = torch.autograd.grad(scalar, [again.seen[f"neurons.{block}"]])
    return found[0], scalar.detach()


def patching(model, runs, target, vector, layer, block, base):
    total = 0
    for run in runs:
        found, _ = gradient(model, run, target, vector, layer, block, held=factors(run))
        at = list(attributed(run, TARGETS[target][1]))
        total = total + ((run.seen[f"neurons.{block}"][0].detach() - base) * found)[at].sum(0)
    return total / len(runs)


def integrated(model, runs, target, vector, layer, block, steps):
    total, gap = 0, 0
    for run in runs:
        at = list(attributed(run, TARGETS[target][1]))
        clean = run.seen[f"neurons.{block}"].detach()

        def scaled(alpha, at=at, clean=clean):
            def edit(i, value):
                if i != block:
                    return value
                changed = clean.clone()
                changed[0, at] *= alpha
                return changed.requires_grad_()

            return edit

        def of(alpha, run=run, scaled=scaled):
            return gradient(
                model, run, target, vector, layer, block, scaled(alpha), held=factors(run)
            )

        mean = sum(of((k + 0.5) / steps)[0] for k in range(steps)) / steps
        own = (clean[0] * mean)[at].sum(0)
        total = total + own
        gap = gap + of(1.0)[1] - of(0.0)[1] - own.sum()
    return total / len(runs), gap / len(runs)


@torch.no_grad()
def ablation(model, runs, target, vector, layer, block, base, held=False):
    """Every neuron alone at `base` [intermediate], a pass each; `held` keeps the factor of the block's own norm."""
    read, tokens = TARGETS[target]
    total = torch.zeros_like(base)
    for run in runs:
        at = list(attributed(run, tokens))
        own = {block: factors(run)[block]} if held else None
        clean = read(run, vector, layer)
        for neuron in range(len(base)):

            def edit(i, value, neuron=neuron, at=at):
                if i != block:
                    return value
                changed = value.clone()
                changed[0, at, neuron] = base[neuron]
                return changed

            again = Run(model, run.prompt, run.response, edit, own)
            total[neuron] += clean - read(again, vector, layer)
    return total / len(runs)


@torch.no_grad()
def logprob_increase(model, runs, block, recomputed):
    """What x + a_i w_i says of the response beside what x says, x the stream in front of the MLP."""
    norm, cap = model.model.norm, getattr(model.config, "final_logit_softcapping", None)
    gain = norm.weight + (1 if model.config.model_type == "gemma2" else 0)

    def factor(x):
        return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps)

    def logs(x, scale, response):
        logits = (x * scale * gain) @ model.lm_head.weight.T
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return logits.log_softmax(-1).gather(-1, response).sum()

    columns = effective_columns(model.model.layers[block])
    total = torch.zeros(columns.shape[1], dtype=columns.dtype)
    for run in runs:
        first, response = len(run.prompt), torch.tensor(run.response).unsqueeze(1)
        at = slice(first - 1, first - 1 + len(run.response))
        x, a = run.seen[f"mid.{block}"][at], written(run, block)[at]
        clean = logs(x, factor(x), response)
        for neuron in range(len(total)):
            more = x + a[:, neuron : neuron + 1] * columns[:, neuron]
            total[neuron] += logs(more, factor(more if recomputed else x), response) - clean
    return total / len(runs)


def written(run, i):
    """a_i, or r_t a_i, [tokens, intermediate]."""
    return run.seen[f"neurons.{i}"][0] * run.seen.get(f"factor.{i}", torch.ones(1))[0]


def effective_columns(block):
    """[hidden, intermediate]; what the neurons write, but for the factor of a norm behind the MLP."""
    columns = block.mlp.down_proj.weight
    if hasattr(block, "post_feedforward_layernorm"):
        columns = columns * (1 + block.post_feedforward_layernorm.weight).unsqueeze(1)
    return columns


def forward_only(model, given, vector):
    expected = {}
    runs = [(Run(model, prompt, response), expresses) for prompt, response, expresses in given]

    def difference(of):
        means = {
            label: torch.stack(
                [
                    of(run)[len(run.prompt) :].mean(0)
                    for run, expresses in runs
                    if expresses == label
                ]
            ).mean(0)
            for label in (True, False)
        }
        return means[True] - means[False]

    for i, block in enumerate(model.model.layers):
        v = vector[i]
        along = (v @ effective_columns(block)) / (v @ v)
        expected[f"direct_contribution.{i}"] = difference(lambda run, i=i: written(run, i)) * along
        expected[f"activation_product.{i}"] = difference(
            lambda run, i=i: (run.seen[f"neurons.{i}"][0] > 0).double()
        )
        act = block.mlp.act_fn
        expected[f"activation_gate.{i}"] = difference(
            lambda run, i=i, act=act: (act(run.seen[f"gate.{i}"]) > 0).double()
        )
    return expected


def make(name):
    folder = HERE / "families" / name
    about = json.loads((folder / "expected.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    model = model.double().eval()
    blocks = len(model.model.layers)
    generator = torch.Generator().manual_seed(5)
    vector = torch.randn(blocks, model.config.hidden_size, generator=generator).float().double()
    given = responses(about)
    expected = {"vector": vector, **forward_only(model, given, vector)}
    expressing = [Run(model, p, r) for p, r, expresses in given if expresses]
    others = [Run(model, p, r) for p, r, expresses in given if not expresses]
    top = blocks - 2
    means = torch.stack(
        [
            torch.stack(
                [run.seen[f"neurons.{i}"][0, len(run.prompt) :].mean(0) for run in others]
            ).mean(0)
            for i in range(blocks)
        ]
    ).detach()
    # As a reference vector keeps them.
    expected["mean"] = means.float().double()
    for i in range(blocks):
        for scale in ("held", "recomputed"):
            expected[f"logprob_increase.{scale}.{i}"] = logprob_increase(
                model, expressing, i, scale == "recomputed"
            )
    for target in TARGETS:
        last = top if target == "projection" else blocks - 1
        gaps = []
        for i in range(last + 1):
            mean, zero = means[i], torch.zeros_like(means[i])
            for baseline, base in (("zero", zero), ("mean", mean)):
                expected[f"patching.{target}.{baseline}.{i}"] = patching(
                    model, expressing, target, vector, top, i, base
                )
            ways = {"zero": (zero,), "mean": (expected["mean"][i],)}
            if factors(expressing[0]):
                ways["held"] = (zero, True)
            for way, how in ways.items():
                expected[f"ablation.{target}.{way}.{i}"] = ablation(
                    model, expressing, target, vector, top, i, *how
                )
            scores, gap = integrated(model, expressing, target, vector, top, i, STEPS)
            expected[f"integrated.{target}.{STEPS}.{i}"] = scores
            gaps.append(gap)
        expected[f"integrated.{target}.gap"] = torch.stack(gaps)
    expected = {key: value.detach().float().contiguous() for key, value in expected.items()}
    save_file(expected, HERE / "attributions" / f"{name}.safetensors")
    print(name, {key: float(value.abs().max()) for key, value in list(expected.items())[:4]})


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
