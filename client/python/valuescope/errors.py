"""Errors that show what the server said: the code, the field, the allowed range, and when to try again.

Every class is also a `ValuescopeError`. Catch `InvalidRequest` for what the caller must change, `Unavailable` for what may
work later.
"""

from __future__ import annotations

import dataclasses

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclasses.dataclass(frozen=True)
class FieldViolation:
    """One field of a request and what is wrong with it."""

    field: str
    description: str


class ValuescopeError(Exception):
    """A call that failed.

    Attributes:
        code: canonical gRPC code, such as `grpc.StatusCode.NOT_FOUND`.
        reason: stable word in UPPER_SNAKE_CASE to branch on; empty where the server gave none.
        violations: fields that must change, for INVALID_ARGUMENT.
        retry_after: seconds after which to try again, or None.
    """

    def __init__(self, message, code, reason="", violations=(), retry_after=None):
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidRequest(ValuescopeError):
    """The request can never work as it is (INVALID_ARGUMENT)."""


class NotFound(ValuescopeError):
    """A named resource does not exist."""


class FailedPrecondition(ValuescopeError):
    """Right request, wrong state: a model that is not loaded, a vector of another model."""


class Exhausted(ValuescopeError):
    """Too much: try again after `retry_after` seconds, or never where it is None."""


class Unavailable(ValuescopeError):
    """The server cannot be reached or is shutting down."""


class NotServed(ValuescopeError):
    """This server does not offer the RPC or option (UNIMPLEMENTED)."""


class DeadlineExceeded(ValuescopeError):
    """The call took longer than its timeout."""


_CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc_error(error: grpc.RpcError) -> ValuescopeError:
    """The typed error for a failed call, with the details that travelled in its trailing metadata."""
    reason, violations, retry_after = "", [], None
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason = info.reason
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                info = error_details_pb2.RetryInfo.FromString(detail.value)
                retry_after = info.retry_delay.ToTimedelta().total_seconds()
    code = error.code()
    kind = _CLASSES.get(code, ValuescopeError)
    return kind(f"{code.name}: {error.details()}", code, reason, violations, retry_after)
