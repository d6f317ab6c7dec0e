"""What calls give back where the contract's bare messages are not what one wants to look at."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import html, v1
from .tensors import Array, to_numpy


class Activations(dict[int, Array]):
    """What the taps saw of one sequence: tap index -> array [layers, tokens, width]. Reduced taps have one token.

    The arrays are float32 unless the tap asked for another type (bfloat16 is widened to float32). A tap with neurons gives
    [1, tokens, neurons].

    Attributes:
        layers: tap index -> absolute layers of the first axis; empty at sites without layers.
        positions: tap index -> positions of the second axis (0 is the prompt's first token); of a reduced tap, those that
            entered the reduction.
        neurons: tap index -> pairs (layer, index) of the last axis, for taps with neurons.
        receipts: what each intervention did to the sequence.
        num_prompt_tokens, num_response_tokens: its length; 0 in generations.
    """

    def __init__(
        self, chunks: Iterable[v1.CaptureChunk], receipts: v1.InputReceipts | None = None
    ) -> None:
        super().__init__()
        self.layers: dict[int, list[int]] = {}
        self.positions: dict[int, list[int]] = {}
        self.neurons: dict[int, list[tuple[int, int]]] = {}
        self.receipts = list(receipts.receipts) if receipts else []
        self.num_prompt_tokens = receipts.prompt_tokens if receipts else 0
        self.num_response_tokens = receipts.response_tokens if receipts else 0
        by_tap: dict[int, list[v1.CaptureChunk]] = collections.defaultdict(list)
        for chunk in chunks:
            by_tap[chunk.tap_index].append(chunk)
        for tap, of_tap in by_tap.items():
            self._assemble(tap, of_tap)

    def _assemble(self, tap: int, chunks: list[v1.CaptureChunk]) -> None:
        """Joins chunks that split the layers, the tokens, or both; neurons come one layer a chunk, side by side."""
        by_layers: dict[tuple[int, ...], list[v1.CaptureChunk]] = collections.defaultdict(list)
        for chunk in chunks:
            by_layers[tuple(chunk.layers)].append(chunk)
        rows = [
            np.concatenate([to_numpy(chunk.tensor) for chunk in parts], axis=1)
            for parts in by_layers.values()
        ]
        first = next(iter(by_layers.values()))
        self.layers[tap] = [layer for layers in by_layers for layer in layers]
        # A reduced tap's parts all name the positions that entered.
        parts = first if sum(c.tensor.shape[1] for c in first) > 1 else first[:1]
        self.positions[tap] = [position for chunk in parts for position in chunk.positions]
        if first[0].neurons:
            self.neurons[tap] = [
                (n.layer, n.index) for parts in by_layers.values() for n in parts[0].neurons
            ]
        self[tap] = np.concatenate(rows, axis=2 if first[0].neurons else 0)

    def __repr__(self) -> str:
        arrays = ", ".join(
            f"{tap}: {array.dtype}[{', '.join(map(str, array.shape))}]"
            for tap, array in self.items()
        )
        return f"Activations({{{arrays}}}{_receipts(self.receipts)})"


@dataclasses.dataclass(frozen=True, repr=False)
class Generation:
    """The completions of one prompt.

    Attributes:
        response: the whole message (usage, seed, digests of the model and vectors used).
    """

    response: v1.GenerateResponse

    @property
    def completions(self) -> list[v1.Completion]:
        """All completions, by index."""
        return list(self.response.completions)

    @property
    def text(self) -> str:
        """Text of the first completion."""
        return self.response.completions[0].text

    @property
    def texts(self) -> list[str]:
        """Texts of all completions."""
        return [completion.text for completion in self.response.completions]

    @property
    def token_ids(self) -> list[int]:
        """Token ids of the first completion, without the stop token."""
        return list(self.response.completions[0].token_ids)

    @property
    def finish_reason(self) -> str:
        """Why the first completion ended: "stop", "length" or "cancelled"."""
        return finish_reason(self.response.completions[0])

    @property
    def receipts(self) -> list[v1.InterventionReceipt]:
        """What each intervention did to the first completion."""
        return list(self.response.completions[0].receipts)

    @property
    def logprobs(self) -> Array | None:
        """Natural log-probabilities of the first completion's tokens [tokens], float32; None unless asked for."""
        completion = self.response.completions[0]
        if not completion.HasField("logprobs"):
            return None
        return np.array(completion.logprobs.token_logprobs, np.float32)

    @functools.cached_property
    def captures(self) -> list[Activations]:
        """What the taps saw, for each completion."""
        return [Activations(c.captures) for c in self.response.completions]

    @property
    def seed(self) -> int:
        """The request's seed, or the one drawn for it: the same call with it gives the same tokens."""
        return self.response.seed

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        shown = "; ".join(
            f"{textwrap.shorten(repr(c.text), 120)} {len(c.token_ids)} tokens, {finish_reason(c)}"
            + _receipts(c.receipts)
            for c in self.response.completions
        )
        return f"Generation({shown}; seed {self.seed})"

    def _repr_html_(self) -> str:
        return html.table(
            ["", "text", "tokens", "ended by", "interventions"],
            [
                [c.index, c.text, len(c.token_ids), finish_reason(c), _receipts(c.receipts)[2:]]
                for c in self.response.completions
            ],
            caption=f"seed {self.seed}",
        )


class Scores(list[v1.ContinuationScore]):
    """Scores of continuations in the order of the request, natural logarithms."""

    @property
    def sums(self) -> Array:
        """Log-probability of each whole continuation [continuations], float64."""
        return np.array([score.sum for score in self])

    @property
    def means(self) -> Array:
        """Mean log-probability a token of each continuation [continuations], float64."""
        return np.array([score.mean for score in self])

    @property
    def token_logprobs(self) -> list[Array]:
        """Log-probabilities of each continuation's tokens, each [tokens] float32."""
        return [np.array(score.token_logprobs, np.float32) for score in self]


class Models(list[v1.Model]):
    """Models, with a table in notebooks."""

    def _repr_html_(self) -> str:
        return html.models(self)


class Replicas(list[v1.Replica]):
    """Servers on one store, with a table in notebooks."""

    def _repr_html_(self) -> str:
        return html.replicas(self)


class Jobs(list[v1.Job]):
    """Jobs, with a table in notebooks."""

    def _repr_html_(self) -> str:
        return html.jobs(self)


class Usage(list[v1.TenantUsage]):
    """What tenants used, by time and tenant, with a table in notebooks."""

    def records(self) -> list[dict[str, Any]]:
        """One row a sum, times in UTC; `pandas.DataFrame(usage.records())` makes a table."""
        return [
            {
                "tenant": each.tenant,
                "start": each.start_time.ToDatetime(datetime.timezone.utc),
                "end": each.end_time.ToDatetime(datetime.timezone.utc),
                "calls": each.calls,
                "prompt_tokens": each.prompt_tokens,
                "generated_tokens": each.generated_tokens,
                "job_seconds": each.job_seconds,
            }
            for each in self
        ]

    def _repr_html_(self) -> str:
        return html.usage(self)


def finish_reason(completion: v1.Completion) -> str:
    """Why a completion ended, in lower case."""
    name = v1.FinishReason.Name(completion.finish_reason)
    return name.removeprefix("FINISH_REASON_").lower()


def _receipts(receipts: Iterable[v1.InterventionReceipt]) -> str:
    """What interventions did, such as ", #0 touched 8 positions of layers 14"."""
    return "".join(
        f", #{r.intervention_index} touched {r.positions} positions"
        + (f" of layers {_ranges(r.layers)}" if r.layers else "")
        for r in receipts
    )


def _ranges(layers: Iterable[int]) -> str:
    """Ascending numbers with runs joined: 0-3, 7."""
    runs: list[list[Any]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
