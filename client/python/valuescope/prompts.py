"""Prompts, responses, layers, scopes and steering as people type them, turned into the contract's messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from . import v1
from .tensors import from_numpy

SCOPES = {
    "all": v1.TOKEN_KIND_ALL,
    "prompt": v1.TOKEN_KIND_PROMPT,
    "response": v1.TOKEN_KIND_RESPONSE,
    "generated": v1.TOKEN_KIND_GENERATED,
    "last_prompt": v1.TOKEN_KIND_LAST_PROMPT,
    "last": v1.TOKEN_KIND_LAST,
    "from_last_prompt": v1.TOKEN_KIND_FROM_LAST_PROMPT,
}
SITES = {
    name.removeprefix("SITE_").lower(): number
    for name, number in v1.Site.items()
    if number != v1.SITE_UNSPECIFIED
}
REDUCTIONS = {
    name.removeprefix("REDUCTION_").lower(): number
    for name, number in v1.Reduction.items()
    if number != v1.REDUCTION_UNSPECIFIED
}


def chat(user: str, system: str | None = None) -> list[dict]:
    """A conversation of one user message. `system=""` is an explicitly empty system message, which is not the same as none:
    several templates insert a default system prompt when there is none."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    return messages + [{"role": "user", "content": user}]


def to_prompt(prompt) -> v1.Prompt:
    """A `Prompt` from a string (plain text), a list of {"role", "content"} (a chat), or a sequence of token ids."""
    if isinstance(prompt, v1.Prompt):
        return prompt
    if isinstance(prompt, str):
        return v1.Prompt(text=prompt)
    if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], dict):
        messages = [v1.Message(role=m["role"], content=m["content"]) for m in prompt]
        return v1.Prompt(chat=v1.Chat(messages=messages))
    return v1.Prompt(token_ids=v1.TokenIds(ids=_ids(prompt)))


def to_response(response) -> v1.Response:
    """A `Response` from a string or a sequence of token ids. Prefer the ids of generated responses."""
    if isinstance(response, v1.Response):
        return response
    if isinstance(response, str):
        return v1.Response(text=response)
    return v1.Response(token_ids=v1.TokenIds(ids=_ids(response)))


def to_layers(layers) -> v1.Layers:
    """`Layers` from "all", one block, a `range`, or any sequence of blocks (0-based)."""
    if isinstance(layers, v1.Layers):
        return layers
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f'layers is {layers!r}; write "all", an int or a sequence of ints')
        return v1.Layers(all=True)
    if isinstance(layers, (int, np.integer)):
        layers = [layers]
    return v1.Layers(list=v1.LayerList(layers=[int(layer) for layer in layers]))


def to_tokens(tokens) -> v1.TokenSelection:
    """A `TokenSelection` from a name ("all", "prompt", "response", "generated", "last_prompt", "last", "from_last_prompt")
    or a sequence of positions (negative ones count from the end)."""
    if isinstance(tokens, v1.TokenSelection):
        return tokens
    if isinstance(tokens, str):
        return v1.TokenSelection(kind=_named(SCOPES, tokens, "tokens"))
    return v1.TokenSelection(kind=v1.TOKEN_KIND_POSITIONS, positions=[int(p) for p in tokens])


def to_site(site) -> int:
    """A `Site` from its lower-case name, such as "residual_post" or "mlp_neurons"."""
    return site if isinstance(site, int) else _named(SITES, site, "site")


@dataclasses.dataclass(frozen=True)
class Steer:
    """Adds `coefficient` times a vector to the residual stream (or another site) at some layers.

    Attributes:
        vector: "vectors/ID", or an array [width] or [layers, width].
        coefficient: multiple that is added; 0 is a valid baseline.
        layers: blocks, as `to_layers` takes them.
        tokens: scope, as `to_tokens` takes it; "from_last_prompt" steers a whole answer.
        site: lower-case name of a site.
        source_layer: use this layer's row of a stored vector at every layer.
    """

    vector: object
    coefficient: float = 1.0
    layers: object = "all"
    tokens: object = "from_last_prompt"
    site: str = "residual_post"
    source_layer: int | None = None

    def to_intervention(self) -> v1.Intervention:
        add = v1.AddVector(coefficient=self.coefficient)
        if isinstance(self.vector, str):
            add.vector = self.vector
        else:
            add.tensor.CopyFrom(from_numpy(np.asarray(self.vector, np.float32)))
        if self.source_layer is not None:
            add.source_layer = self.source_layer
        return v1.Intervention(
            site=to_site(self.site),
            layers=to_layers(self.layers),
            tokens=to_tokens(self.tokens),
            add=add,
        )


def to_interventions(steer) -> list[v1.Intervention]:
    """Interventions from None, one `Steer` or `Intervention`, or a sequence of them."""
    if steer is None:
        return []
    if isinstance(steer, (Steer, v1.Intervention)):
        steer = [steer]
    return [s.to_intervention() if isinstance(s, Steer) else s for s in steer]


def tap(site="residual_post", layers="all", tokens="all", reduction="none") -> v1.Tap:
    """A read-out of activations: where, of which tokens, reduced how ("none", "mean", "sum", "max", "last")."""
    return v1.Tap(
        site=to_site(site),
        layers=to_layers(layers),
        tokens=to_tokens(tokens),
        reduction=_named(REDUCTIONS, reduction, "reduction"),
    )


def labelled(prompt, response, expresses: bool, query_id: str = "") -> v1.LabelledResponse:
    """One labelled response of a data set."""
    return v1.LabelledResponse(
        prompt=to_prompt(prompt),
        response=to_response(response),
        expresses=expresses,
        query_id=query_id,
    )


def _ids(ids: Iterable) -> list[int]:
    return [int(i) for i in ids]


def _named(table, name, what):
    if name not in table:
        raise ValueError(f"{what} is {name!r}; choose one of {', '.join(table)}")
    return table[name]
