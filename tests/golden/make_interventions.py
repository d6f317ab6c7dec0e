"""Makes families/NAME/interventions.{json,safetensors}: what interventions do to the golden models, by hooks on Hugging Face transformers.

Every operation at every site in every scope, a few of each with its options, and several together. Run after make_families.py, with
torch and transformers:

    python tests/golden/make_interventions.py

A case is a list of interventions, each with the seed of its numbers (`numbers`), a prompt, the greedy tokens behind it, and what a
pass over prompt and tokens gives: the last block's output and the logits at `positions`, and the output of block 0.
"""

import itertools
import json

import numpy as np
import torch
from make_families import HERE, load
from safetensors.torch import save_file

FAMILIES = ["llama3_rope", "gemma2"]
NUM_TOKENS = 4
LEAST_GAP = 0.01  # a greedy token must be ahead by more than rounding
SCOPES = ["all", "prompt", "generated", "last_prompt", "from_last_prompt", [0, 3, -1, 7]]
RESIDUAL = [
    "embedding",
    "residual_pre",
    "residual_mid",
    "residual_post",
    "attention_output",
    "mlp_output",
]
SITES = [*RESIDUAL, "attention_heads", "mlp_neurons", "final_norm", "logits"]
ONCE = {"embedding", "final_norm", "logits"}
PROMPT_LENGTH = 6
POSITIONS = [0, PROMPT_LENGTH - 1, PROMPT_LENGTH + NUM_TOKENS - 1]


def numbers(seed, *shape):
    """The numbers of an intervention: float32, of unit size; the legacy generator of numpy never changes."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def width_of(config, site):
    return {
        "attention_heads": config.num_attention_heads * config.head_dim,
        "mlp_neurons": config.intermediate_size,
        "logits": config.vocab_size,
    }.get(site, config.hidden_size)


def positions_of(scope, prompt, length):
    """Where a scope acts in a sequence that has `length` tokens so far."""
    if isinstance(scope, list):
        return {p + prompt if p < 0 else p for p in scope}
    first, last = {
        "all": (0, length),
        "prompt": (0, prompt),
        "generated": (prompt, length),
        "last_prompt": (prompt - 1, prompt),
        "from_last_prompt": (prompt - 1, length),
    }[scope]
    return set(range(first, last))


def edit(one, x, row, place, config):
    """One intervention on one activation x [width], float32; `row` counts its layers, `place` its positions."""
    kind, width = one["op"], x.shape[-1]
    if kind == "add":
        v = torch.tensor(numbers(one["seed"], len(one["layers"]), width)[row])
        y = x + one["coefficient"] * v
    elif kind == "project_out":
        directions = numbers(one["seed"], len(one["layers"]), one["directions"], width)[row]
        basis = np.linalg.svd(directions.astype(np.float64), full_matrices=False)[2]
        inside = torch.tensor(basis.T @ (basis @ x.double().numpy())).float()
        y = x - one["strength"] * inside
    elif kind == "clamp":
        v = torch.tensor(numbers(one["seed"], len(one["layers"]), width)[row]).double()
        v = (v / v.norm()).float()
        y = x + (one["value"] - x @ v) * v
    elif kind == "replace":
        shape = {"one": (1, 1, width), "layers": (len(one["layers"]), 1, width)}.get(
            one["shape"], (len(one["layers"]), len(place[1]), width)
        )
        rows = numbers(one["seed"], *shape)
        y = torch.tensor(rows[min(row, shape[0] - 1), place[0] if shape[1] > 1 else 0])
    else:
        y = x.clone()
        size = config.head_dim if one["site"] == "attention_heads" else 1
        for layer, index in one["neurons"]:
            if layer != one["layers"][row]:
                continue
            chosen = slice(index * size, (index + 1) * size)
            if kind == "scale_neurons":
                y[chosen] *= one["factor"]
            elif one["mean"]:
                y[chosen] = torch.tensor(
                    numbers(one["seed"], config.num_hidden_layers, width)[layer, chosen]
                )
            else:
                y[chosen] = 0
    if one["preserve_norm"] and y.norm() > 0:
        y = y * (x.norm() / y.norm())
    return y


class Edited:
    """A model whose activations are edited on the way."""

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.interventions, self.prompt = [], 0
        gemma = model.config.model_type == "gemma2"
        self.block_inputs = {}
        blocks = model.model.layers
        for i, block in enumerate(blocks):
            block.register_forward_pre_hook(self.on_input(i), with_kwargs=True)
            block.register_forward_hook(self.on_output("residual_post", i))
            block.self_attn.o_proj.register_forward_pre_hook(self.on_value("attention_heads", i))
            block.mlp.down_proj.register_forward_pre_hook(self.on_value("mlp_neurons", i))
            attention = block.post_attention_layernorm if gemma else block.self_attn
            attention.register_forward_hook(self.on_attention(i))
            mlp = block.post_feedforward_layernorm if gemma else block.mlp
            mlp.register_forward_hook(self.on_output("mlp_output", i))
        model.model.norm.register_forward_hook(self.on_output("final_norm", 0))

    def at(self, wires, x):
        """x [1, length, width] after what the interventions do, in their order, at a wire known by these names."""
        x = x.clone()
        for one in self.interventions:
            for site, layer in wires:
                if one["site"] != site or layer not in one["layers"]:
                    continue
                scope = one["tokens"]
                for p in sorted(positions_of(scope, self.prompt, x.shape[1])):
                    if p >= x.shape[1]:
                        continue
                    places = (
                        [q + self.prompt if q < 0 else q for q in scope]
                        if isinstance(scope, list)
                        else [p]
                    )
                    x[0, p] = edit(
                        one,
                        x[0, p],
                        one["layers"].index(layer),
                        (places.index(p), places),
                        self.config,
                    )
        return x

    def on_input(self, layer):
        def hook(_module, args, kwargs):
            # The output of the block before was edited at its own hook, under both its names.
            x = self.at([("embedding", 0), ("residual_pre", 0)], args[0]) if layer == 0 else args[0]
            self.block_inputs[layer] = x
            return (x, *args[1:]), kwargs

        return hook

    def on_value(self, site, layer):
        return lambda _module, args: (self.at([(site, layer)], args[0]), *args[1:])

    def on_output(self, site, layer):
        wires = [(site, layer)]
        if site == "residual_post":
            wires.append(("residual_pre", layer + 1))

        def hook(_module, _args, out):
            if isinstance(out, tuple):
                return (self.at(wires, out[0]), *out[1:])
            return self.at(wires, out)

        return hook

    def on_attention(self, layer):
        def hook(_module, _args, out):
            written = self.at(
                [("attention_output", layer)], out[0] if isinstance(out, tuple) else out
            )
            before = self.block_inputs[layer]
            middle = before + written
            edited = self.at([("residual_mid", layer)], middle)
            # What is added to the stream so that it becomes what was wanted.
            written = torch.where(edited == middle, written, edited - before)
            return (written, *out[1:]) if isinstance(out, tuple) else written

        return hook

    @torch.no_grad()
    def run(self, ids):
        seen = {}
        handles = [
            self.model.model.layers[i].register_forward_hook(
                lambda _m, _a, out, i=i: seen.update({i: out[0] if isinstance(out, tuple) else out})
            )
            for i in (0, self.config.num_hidden_layers - 1)
        ]
        logits = self.model(torch.tensor([ids]), use_cache=False).logits.float()
        for handle in handles:
            handle.remove()
        first, last = (seen[i][0].reshape(len(ids), -1) for i in sorted(seen))
        return first, last, self.at([("logits", 0)], logits)[0]

    def case(self, interventions, prompt):
        """Greedy tokens and the pass over all; None where a token is not clearly ahead."""
        self.interventions, self.prompt = interventions, len(prompt)
        ids = list(prompt)
        for _ in range(NUM_TOKENS):
            top = self.run(ids)[2][-1].topk(2)
            if top.values[0] - top.values[1] < LEAST_GAP or not torch.isfinite(top.values).all():
                return None
            ids.append(int(top.indices[0]))
        first, last, logits = self.run(ids)
        return ids[len(prompt) :], first[POSITIONS], last[POSITIONS], logits[POSITIONS]


def one(op, site, tokens, layers, preserve_norm=False, **numbers_of_it):
    layers = [0] if site in ONCE else sorted(layers)
    return {
        "op": op,
        "site": site,
        "tokens": tokens,
        "layers": layers,
        "preserve_norm": preserve_norm,
        **numbers_of_it,
    }


def neurons_of(config, site, seed):
    generator = np.random.RandomState(seed)
    count = config.num_attention_heads if site == "attention_heads" else config.intermediate_size
    size = 2 if site == "attention_heads" else 12
    return [
        [layer, int(index)]
        for layer in (0, config.num_hidden_layers - 1)
        for index in sorted(generator.permutation(count)[:size])
    ]


def operations(config, site, tokens, index):
    """Every operation once at this site and scope, with options that vary with `index`."""
    blocks = config.num_hidden_layers
    layers = [[1], [0, blocks - 1], list(range(blocks))][index % 3]
    keep = index % 2 == 1
    size = 40.0 if site == "logits" else 3.0
    yield one("add", site, tokens, layers, keep, coefficient=[0.7, -1.3, 0.0][index % 3] * size)
    yield one(
        "project_out",
        site,
        tokens,
        layers,
        keep,
        directions=1 + index % 3,
        strength=[1.0, 0.5, 0.9][index % 3],
    )
    yield one("clamp", site, tokens, layers, not keep, value=[0.0, 2.5, -4.0][index % 3])
    shape = "positions" if isinstance(tokens, list) else ["one", "layers"][index % 2]
    yield one("replace", site, tokens, layers, keep, shape=shape)
    if site in ("mlp_neurons", "attention_heads"):
        everywhere = list(range(blocks))
        chosen = neurons_of(config, site, index)
        yield one(
            "scale_neurons",
            site,
            tokens,
            everywhere,
            keep,
            neurons=chosen,
            factor=[2.5, -1.0, 0.0][index % 3],
        )
        for mean in (False, True):
            yield one(
                "ablate_neurons", site, tokens, everywhere, keep and mean, neurons=chosen, mean=mean
            )


def together(config):
    """Several at a time: one wire under two names, orders that matter, scopes that overlap."""
    add = one("add", "residual_post", "all", [1], coefficient=2.0)
    clamp = one("clamp", "residual_pre", "generated", [2], value=3.0)
    project = one(
        "project_out", "residual_post", "from_last_prompt", [0, 1], directions=2, strength=1.0
    )
    scale = one(
        "scale_neurons",
        "mlp_neurons",
        "all",
        [0, 1],
        True,
        neurons=[[0, 1], [1, 5], [1, 6]],
        factor=5.0,
    )
    patch = one("replace", "residual_pre", [2, 4], [2], shape="positions")
    yield [add, clamp, project]
    yield [project, clamp, add]
    yield [clamp, add]
    yield [add, clamp]
    yield [patch, add, project, scale]
    yield [add, add, {**add, "preserve_norm": True}]


def cases(config):
    for index, (site, tokens) in enumerate(itertools.product(SITES, SCOPES)):
        for operation in operations(config, site, tokens, index):
            yield [operation]
    yield from together(config)


def make(name):
    model = load(HERE / name)
    edited = Edited(model)
    vocabulary = model.config.vocab_size
    made, tensors, seed = [], {}, 0
    for interventions in cases(model.config):
        found = None
        while found is None:
            seed += 1
            interventions = [
                {**each, "seed": 1000 * seed + i} for i, each in enumerate(interventions)
            ]
            prompt = np.random.RandomState(seed).randint(7, vocabulary, PROMPT_LENGTH).tolist()
            found = edited.case(interventions, prompt)
        tokens, first, last, logits = found
        k = len(made)
        made.append({"interventions": interventions, "prompt": prompt, "tokens": tokens})
        tensors |= {f"{k}.first": first, f"{k}.last": last, f"{k}.logits": logits}
    packed = {
        part: torch.stack([tensors[f"{k}.{part}"] for k in range(len(made))]).contiguous()
        for part in ("first", "last", "logits")
    }
    save_file(packed, HERE / name / "interventions.safetensors")
    about = {"positions": POSITIONS, "cases": made}
    path = HERE / name / "interventions.json"
    path.write_text(json.dumps(about, separators=(",", ":")) + "\n")
    sizes = [f.stat().st_size // 1000 for f in (path, HERE / name / "interventions.safetensors")]
    print(f"{name}: {len(made)} cases of {seed} tried, {sizes} kB")


def main():
    for name in FAMILIES:
        make(name)


if __name__ == "__main__":
    main()
