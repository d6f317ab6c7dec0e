"""How tokens are drawn, as people type it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import given, v1


def to_sampling(
    stop: str | Iterable[str] = (), stop_token_ids: int | Iterable[int] = (), **fields: Any
) -> v1.SamplingParams:
    """How tokens are drawn: fields of `SamplingParams`, stop strings and tokens one by itself or several."""
    return v1.SamplingParams(
        stop=given.strings(stop, "stop"),
        stop_token_ids=given.wholes(stop_token_ids, "stop_token_ids"),
        **{name: given.plain(value) for name, value in fields.items()},
    )
