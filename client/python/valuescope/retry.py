"""When a failed call is tried again: never against the server's wish, and never where it could do its work twice."""

from __future__ import annotations

import dataclasses
import random

import grpc

from .errors import ValuescopeError


@dataclasses.dataclass(frozen=True)
class Retry:
    """How often and how patiently calls are tried again.

    Tried again are only calls that can be repeated (they only read or compute, or carry a request_id), after UNAVAILABLE, and
    after RESOURCE_EXHAUSTED where the server says when (RetryInfo, grpc-retry-pushback-ms). The wait doubles from `first` up to
    `longest`, drawn from its upper half so that clients do not come back in step, and is never shorter than the server asks.

    Attributes:
        attempts: calls in all, >= 1; 1 never tries again.
        first: first wait, seconds.
        longest: longest wait of its own, seconds.
        patience: a server that asks for a longer wait than this, seconds, gets none: the error is raised with its `retry_after`.
    """

    attempts: int = 8
    first: float = 0.1
    longest: float = 5.0
    patience: float = 60.0

    def delay(self, error: ValuescopeError, failures: int) -> float | None:
        """Seconds to wait after the `failures`-th failure in a row (1 is the first), None to give up."""
        if failures >= self.attempts or error.retry_refused:
            return None
        if error.code == grpc.StatusCode.UNAVAILABLE:
            wish = error.retry_after or 0.0
        elif error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after is not None:
            wish = error.retry_after
        else:
            return None
        if wish > self.patience:
            return None
        backoff = min(self.longest, self.first * 2.0 ** (failures - 1))
        return max(wish, backoff * random.uniform(0.5, 1.0))
