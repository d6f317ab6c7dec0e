"""Makes attributions/: what attribution of the families' neurons comes to by transformers and torch autograd.

    python make_attributions.py [NAME ...]

Run with torch 2.11.0, transformers 5.17.0 and safetensors on a CPU, after make_families.py; the tests need none of
them. NAME.safetensors has, for the float32 folder families/NAME, computed in float64 and kept in float32, for block L:

  vector [layers, hidden], made up
  direct_contribution.L, activation_product.L, activation_gate.L [intermediate] over `responses()`
  patching.TARGET.BASELINE.L [intermediate], BASELINE zero or mean
  integrated.TARGET.STEPS.L [intermediate], and integrated.TARGET.gap [layers]: L(full) - L(zeroed) minus their sum,
    the mean over the expressing responses, of as many steps

TARGET is one of TARGETS; a block's own norm behind its MLP (Gemma 2) keeps its clean factor, the others are live.
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


def written(run, i):
    """a_i, or r_t a_i, [tokens, intermediate]."""
    return run.seen[f"neurons.{i}"][0] * run.seen.get(f"factor.{i}", torch.ones(1))[0]


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
        columns = block.mlp.down_proj.weight
        if hasattr(block, "post_feedforward_layernorm"):
            columns = columns * (1 + block.post_feedforward_layernorm.weight).unsqueeze(1)
        v = vector[i]
        along = (v @ columns) / (v @ v)
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
    for target in TARGETS:
        last = top if target == "projection" else blocks - 1
        gaps = []
        for i in range(last + 1):
            mean = torch.stack(
                [run.seen[f"neurons.{i}"][0, len(run.prompt) :].mean(0) for run in others]
            ).mean(0)
            for baseline, base in (("zero", torch.zeros_like(mean)), ("mean", mean)):
                expected[f"patching.{target}.{baseline}.{i}"] = patching(
                    model, expressing, target, vector, top, i, base.detach()
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
