"""valuescope: value mechanisms of language models, captured, attributed and steered through a shared server.

`Client` is the way in; `chat`, `labelled`, `tap` and `Steer` make what its methods take. The generated messages and stubs are
in `valuescope.v1`.
"""

from .client import Client, Generation, attribution_request, to_json_lines
from .errors import (
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    FieldViolation,
    InvalidRequest,
    NotFound,
    NotServed,
    Unavailable,
    ValuescopeError,
)
from .prompts import Steer, chat, labelled, tap
from .tensors import from_numpy, to_numpy

__all__ = [
    "Client",
    "DeadlineExceeded",
    "Exhausted",
    "FailedPrecondition",
    "FieldViolation",
    "Generation",
    "InvalidRequest",
    "NotFound",
    "NotServed",
    "Steer",
    "Unavailable",
    "ValuescopeError",
    "attribution_request",
    "chat",
    "from_numpy",
    "labelled",
    "tap",
    "to_json_lines",
    "to_numpy",
]
