"""Errors that show what the server said: the code, the reason, the fields to change, when to try again, and the request's id.

Every class is also a `ValuescopeError`. Catch `InvalidRequest` for what the caller must change, `Unavailable` and `Exhausted`
for what may work later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from . import v1

_DETAILS = "grpc-status-details-bin"
_PUSHBACK = "grpc-retry-pushback-ms"
REQUEST_ID = "x-request-id"


@dataclasses.dataclass(frozen=True)
class FieldViolation:
    """One field of a request and what is wrong with it.

    Attributes:
        field: path, such as "interventions[0].layers.list.layers[1]".
        description: the allowed range, in words.
    """

    field: str
    description: str


class ValuescopeError(Exception):
    """A call that failed. `str()` shows all of it.

    Attributes:
        code: canonical gRPC code, such as `grpc.StatusCode.NOT_FOUND`.
        details: the server's sentence.
        reason: stable word in UPPER_SNAKE_CASE to branch on; empty where the server gave none.
        metadata: what the server added to the reason.
        violations: fields that must change, for INVALID_ARGUMENT.
        retry_after: seconds after which to try again; None where trying again does not help or nothing is known.
        retry_refused: whether the server asked not to be tried again.
        request_id: id of the request in the server's log; quote it when reporting a fault.
        index: which item of a list (of prompts, say) failed, from 0; None where there was one only.
    """

    index: int | None = None

    def __init__(
        self,
        details: str,
        code: grpc.StatusCode,
        reason: str = "",
        violations: Iterable[FieldViolation] = (),
        retry_after: float | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_refused: bool = False,
        request_id: str = "",
    ) -> None:
        super().__init__(details)
        self.details = details
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.retry_refused = retry_refused
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are made again from their args alone, which are not what these constructors take.
        return _restored, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        lines = [f"{self.code.name}: {self.details}"]
        if self.index is not None:
            lines.append(f"  item of the list: {self.index}")
        if self.reason and self.reason != self.code.name:
            lines.append(f"  reason: {self.reason}")
        lines += [
            f"  {violation.field}: {violation.description}"
            for violation in self.violations
            if violation.field not in self.details or violation.description not in self.details
        ]
        if self.retry_after is not None:
            lines.append(f"  try again after {self.retry_after:g} s")
        if self.request_id:
            lines.append(f"  request id: {self.request_id}")
        return "\n".join(lines)


class InvalidRequest(ValuescopeError):
    """The request can never work as it is (INVALID_ARGUMENT, OUT_OF_RANGE); see `violations`."""


class NotFound(ValuescopeError):
    """A named resource does not exist."""


class AlreadyExists(ValuescopeError):
    """A request_id was used before with another body."""


class FailedPrecondition(ValuescopeError):
    """Right request, wrong state: a model that is not loaded, a vector of another model."""


class Exhausted(ValuescopeError):
    """Too much: try again after `retry_after` seconds, or never where it is None (`reason` tells what it exceeds)."""


class Unavailable(ValuescopeError):
    """The server cannot be reached or is shutting down."""


class NotServed(ValuescopeError):
    """This server does not offer the RPC or option (UNIMPLEMENTED)."""


class DeadlineExceeded(ValuescopeError):
    """The call took longer than its timeout."""


class Cancelled(ValuescopeError):
    """The call was cancelled, or its client was closed."""


class AccessDenied(ValuescopeError):
    """No credentials, or not the right ones (UNAUTHENTICATED, PERMISSION_DENIED)."""


class ServerFault(ValuescopeError):
    """A fault of the server (INTERNAL, UNKNOWN, DATA_LOSS); quote `request_id` when reporting it."""


class Damaged(ValuescopeError, OSError):
    """Bytes arrived whose checksum differs."""

    def __init__(self, details: str) -> None:
        super().__init__(details, grpc.StatusCode.DATA_LOSS)


class JobFailed(ValuescopeError, RuntimeError):
    """A job ended without a result.

    Attributes:
        job: the job as it ended, with `error` where it failed.
    """

    def __init__(self, job: v1.Job, state: str) -> None:
        code = _CODES.get(job.error.code, grpc.StatusCode.CANCELLED)
        message = f"{job.name} {state}"
        if job.error.message:
            message += f": {job.error.message}"
        super().__init__(message, code, job.error.reason)
        self.job = job


def _restored(
    kind: type[ValuescopeError], args: tuple[Any, ...], state: Mapping[str, Any]
) -> ValuescopeError:
    """An error from another process, or a copy."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


_CODES = {code.value[0]: code for code in grpc.StatusCode if code != grpc.StatusCode.OK}
_CLASSES: dict[grpc.StatusCode, type[ValuescopeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: NotServed,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNKNOWN: ServerFault,
    grpc.StatusCode.DATA_LOSS: ServerFault,
}


def from_status(
    code: grpc.StatusCode, details: str | None, trailing: Iterable[Any] | None, request_id: str
) -> ValuescopeError:
    """The typed error for a failed call.

    Args:
        code: its code.
        details: its message.
        trailing: its trailing metadata, pairs of key and value, where the server's details travel.
        request_id: the id that the call was sent with; the server's echo comes first.
    """
    told: dict[str, Any] = {"request_id": request_id}
    for key, value in trailing or ():
        if key == REQUEST_ID:
            told["request_id"] = value
        elif key == _PUSHBACK:
            told.update(_pushback(value))
        elif key == _DETAILS:
            told.update(_status_details(value))
    return _CLASSES.get(code, ValuescopeError)(details or "", code, **told)


def _pushback(value: str) -> dict[str, Any]:
    """gRPC's retry pushback: milliseconds, and anything that is not a number >= 0 means not to try again."""
    if value.isascii() and value.isdigit():
        return {"retry_after": int(value) / 1000}
    return {"retry_refused": True}


def _status_details(value: bytes) -> dict[str, Any]:
    told: dict[str, Any] = {}
    try:
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                told.update(reason=info.reason, metadata=dict(info.metadata))
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                told["violations"] = [
                    FieldViolation(v.field, v.description) for v in bad.field_violations
                ]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo.FromString(detail.value)
                told["retry_after"] = retry.retry_delay.ToTimedelta().total_seconds()
    except DecodeError:  # a proxy's own details; the code and the message still stand
        pass
    return told
