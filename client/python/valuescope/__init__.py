"""valuescope: value mechanisms of language models, captured, attributed and steered through a shared server.

`connect` and `Client` are the ways in, `AsyncClient` for asyncio; `chat`, `labelled`, `tap` and `Steer` make what their methods
take. The generated messages are in `valuescope.v1`.
"""

from .client import AsyncClient, Client, connect
from .errors import (
    AccessDenied,
    AlreadyExists,
    Cancelled,
    Damaged,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    InvalidRequest,
    JobFailed,
    NotFound,
    NotServed,
    ServerFault,
    Unavailable,
    ValuescopeError,
)
from .html import show_in_notebooks
from .prompts import Steer, attribution_request, chat, labelled, tap, to_json_lines
from .results import Activations, Generation
from .retry import Retry
from .tensors import from_numpy, to_bits, to_numpy

__all__ = [
    "AccessDenied",
    "Activations",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "Damaged",
    "DeadlineExceeded",
    "Exhausted",
    "FailedPrecondition",
    "FieldViolation",
    "Generation",
    "InvalidRequest",
    "JobFailed",
    "NotFound",
    "NotServed",
    "Retry",
    "ServerFault",
    "Steer",
    "Unavailable",
    "ValuescopeError",
    "attribution_request",
    "chat",
    "connect",
    "from_numpy",
    "labelled",
    "show_in_notebooks",
    "tap",
    "to_bits",
    "to_json_lines",
    "to_numpy",
]

show_in_notebooks()
