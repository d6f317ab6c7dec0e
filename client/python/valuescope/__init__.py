"""valuescope: value mechanisms of language models, captured, attributed and steered through a shared server.

`connect` and `Client` are the ways in, `AsyncClient` for asyncio; `chat`, `labelled`, `tap` and the edits (`Steer`,
`ProjectOut`, `Clamp`, `ScaleNeurons`, `AblateNeurons`, `Replace`) make what their methods take. The generated messages are in `valuescope.v1`.
"""

from .client import AsyncClient, Client, connect
from .comparisons import Comparison, ValueComparison
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
from .neuron_tests import NeuronTest
from .prompts import (
    AblateNeurons,
    Clamp,
    Edit,
    ProjectOut,
    Replace,
    ScaleNeurons,
    Steer,
    attribution_request,
    chat,
    chat_prompt,
    extraction_request,
    labelled,
    neuron_test_request,
    tap,
    to_json_lines,
)
from .quality import Quality
from .results import Activations, Generation, Scores
from .retry import Retry
from .tensors import from_numpy, to_bits, to_numpy

__all__ = [
    "AblateNeurons",
    "AccessDenied",
    "Activations",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Clamp",
    "Client",
    "Comparison",
    "Damaged",
    "DeadlineExceeded",
    "Edit",
    "Exhausted",
    "FailedPrecondition",
    "FieldViolation",
    "Generation",
    "InvalidRequest",
    "JobFailed",
    "NeuronTest",
    "NotFound",
    "NotServed",
    "ProjectOut",
    "Quality",
    "Replace",
    "Retry",
    "ScaleNeurons",
    "Scores",
    "ServerFault",
    "Steer",
    "Unavailable",
    "ValueComparison",
    "ValuescopeError",
    "attribution_request",
    "chat",
    "chat_prompt",
    "connect",
    "extraction_request",
    "from_numpy",
    "labelled",
    "neuron_test_request",
    "show_in_notebooks",
    "tap",
    "to_bits",
    "to_json_lines",
    "to_numpy",
]

show_in_notebooks()
