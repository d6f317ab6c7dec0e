"""valuescope: value mechanisms of language models, captured, attributed and steered through a shared server.

`connect` and `Client` are the ways in, `AsyncClient` for asyncio; `chat`, `labelled`, `tap` and the edits (`Steer`,
`ProjectOut`, `Clamp`, `ScaleNeurons`, `AblateNeurons`, `Replace`) make what their methods take, `Generated` with `Condition`, `WordList`
and `Rubric` responses that the server makes and labels, `EvaluationCondition` what a model is evaluated under. `valuescope.recipes` has whole
evaluations to copy. The generated messages are in `valuescope.v1`.
"""

from .captures import AsyncCapturedSet, CapturedSet, capture_spec
from .causal_curves import NeuronTest, NeuronTests
from .choices import Choices, choices_request
from .client import AsyncClient, Client, connect
from .comparisons import Comparison, ValueComparison
from .conditions import EvaluationCondition, generation_spec
from .credentials import Tls
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
from .generated import Condition, Generated, Rubric, WordList
from .html import show_in_notebooks
from .job_handles import AsyncJobHandle, JobHandle
from .job_results import JobResult
from .neurons import Contexts, NeuronColumns, NeuronSetComparison, Selectivity
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
    unlabelled,
    with_labels,
)
from .quality import Quality
from .questionnaires import (
    Questionnaire,
    questionnaire_request,
    sample_languages,
    sample_questionnaire,
)
from .report import study_findings, study_page, study_report
from .results import Activations, Generation, Scores
from .retry import Retry
from .study_data import StudyData, StudyQuery, StudyValue, study_data
from .study_files import StudyDataError
from .sweeps import SteeringSweep, sweep_spec, swept_responses
from .tables import Table
from .tagged import TaggedScores, tagged_request
from .tensors import from_numpy, to_bits, to_numpy
from .texts import (
    Grade,
    Judgements,
    Preferences,
    TextMeasures,
    comparison_request,
    judging_request,
    measurement_request,
)

__all__ = [
    "AblateNeurons",
    "AccessDenied",
    "Activations",
    "AlreadyExists",
    "AsyncCapturedSet",
    "AsyncClient",
    "AsyncJobHandle",
    "Cancelled",
    "CapturedSet",
    "Choices",
    "Clamp",
    "Client",
    "Comparison",
    "Condition",
    "Contexts",
    "Damaged",
    "DeadlineExceeded",
    "Edit",
    "EvaluationCondition",
    "Exhausted",
    "FailedPrecondition",
    "FieldViolation",
    "Generated",
    "Generation",
    "Grade",
    "InvalidRequest",
    "JobFailed",
    "JobHandle",
    "JobResult",
    "Judgements",
    "NeuronColumns",
    "NeuronSetComparison",
    "NeuronTest",
    "NeuronTests",
    "NotFound",
    "NotServed",
    "Preferences",
    "ProjectOut",
    "Quality",
    "Questionnaire",
    "Replace",
    "Retry",
    "Rubric",
    "ScaleNeurons",
    "Scores",
    "Selectivity",
    "ServerFault",
    "Steer",
    "SteeringSweep",
    "StudyData",
    "StudyDataError",
    "StudyQuery",
    "StudyValue",
    "Table",
    "TaggedScores",
    "TextMeasures",
    "Tls",
    "Unavailable",
    "ValueComparison",
    "ValuescopeError",
    "WordList",
    "attribution_request",
    "capture_spec",
    "chat",
    "chat_prompt",
    "choices_request",
    "comparison_request",
    "connect",
    "extraction_request",
    "from_numpy",
    "generation_spec",
    "judging_request",
    "labelled",
    "measurement_request",
    "neuron_test_request",
    "questionnaire_request",
    "sample_languages",
    "sample_questionnaire",
    "show_in_notebooks",
    "study_data",
    "study_findings",
    "study_page",
    "study_report",
    "sweep_spec",
    "swept_responses",
    "tagged_request",
    "tap",
    "to_bits",
    "to_json_lines",
    "to_numpy",
    "unlabelled",
    "with_labels",
]

show_in_notebooks()
