"""The contract's RPCs with the types of their messages, how long one may take, and whether repeating one is harmless whatever its
request says.
"""

from __future__ import annotations

import dataclasses
from typing import Generic, TypeVar

from google.protobuf.message import Message

from . import v1

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


# Seconds. A call of the first kind answers from memory or disk, one of the second computes, and one of the third streams as long
# as its work is large. A deadline ends what hangs, so it is far above what any of them takes.
LOOKUP = 120.0
WORK = 3600.0
STREAM = 24 * 3600.0
# A watcher calls again: so it finds out before long that nobody answers any more.
WATCH = 600.0


@dataclasses.dataclass(frozen=True)
class Rpc(Generic[RequestT, ResponseT]):
    """One RPC of valuescope.v1.

    Attributes:
        name: "Service/Method".
        request, response: types of its messages.
        repeatable: whether it only reads or computes; others may be repeated where the request carries a request_id.
        timeout: seconds that it may take where the caller does not say.
    """

    name: str
    request: type[RequestT]
    response: type[ResponseT]
    repeatable: bool = False
    timeout: float = LOOKUP

    def is_heartbeat(self, response: ResponseT) -> bool:
        """Whether a response of a stream says nothing but that the stream lives."""
        fields = self.response.DESCRIPTOR.fields_by_name
        return "heartbeat" in fields and response.HasField("heartbeat")

    @property
    def path(self) -> str:
        return f"/valuescope.v1.{self.name}"


CAPTURE = Rpc(
    "ActivationService/Capture", v1.CaptureRequest, v1.CaptureResponse, True, timeout=STREAM
)

WRITE_ARTIFACT = Rpc(
    "ArtifactService/WriteArtifact", v1.WriteArtifactRequest, v1.WriteArtifactResponse, timeout=WORK
)
GET_ARTIFACT = Rpc(
    "ArtifactService/GetArtifact", v1.GetArtifactRequest, v1.GetArtifactResponse, True
)
LIST_ARTIFACTS = Rpc(
    "ArtifactService/ListArtifacts", v1.ListArtifactsRequest, v1.ListArtifactsResponse, True
)
READ_ARTIFACT = Rpc(
    "ArtifactService/ReadArtifact",
    v1.ReadArtifactRequest,
    v1.ReadArtifactResponse,
    True,
    timeout=STREAM,
)
READ_TABLE = Rpc(
    "ArtifactService/ReadTable", v1.ReadTableRequest, v1.ReadTableResponse, True, timeout=STREAM
)
DELETE_ARTIFACT = Rpc(
    "ArtifactService/DeleteArtifact", v1.DeleteArtifactRequest, v1.DeleteArtifactResponse
)

ANSWER_CHOICES = Rpc(
    "EvaluationService/AnswerChoices",
    v1.AnswerChoicesRequest,
    v1.AnswerChoicesResponse,
    True,
    timeout=WORK,
)
ASK_QUESTIONNAIRE = Rpc(
    "EvaluationService/AskQuestionnaire",
    v1.AskQuestionnaireRequest,
    v1.AskQuestionnaireResponse,
    True,
    timeout=WORK,
)
SCORE_TAGGED_RESPONSES = Rpc(
    "EvaluationService/ScoreTaggedResponses",
    v1.ScoreTaggedResponsesRequest,
    v1.ScoreTaggedResponsesResponse,
    True,
    timeout=WORK,
)
COMPARE_RESPONSES = Rpc(
    "EvaluationService/CompareResponses",
    v1.CompareResponsesRequest,
    v1.CompareResponsesResponse,
    True,
    timeout=WORK,
)
JUDGE_RESPONSES = Rpc(
    "EvaluationService/JudgeResponses",
    v1.JudgeResponsesRequest,
    v1.JudgeResponsesResponse,
    True,
    timeout=WORK,
)
MEASURE_TEXTS = Rpc(
    "EvaluationService/MeasureTexts",
    v1.MeasureTextsRequest,
    v1.MeasureTextsResponse,
    True,
    timeout=WORK,
)

GENERATE = Rpc(
    "GenerationService/Generate", v1.GenerateRequest, v1.GenerateResponse, True, timeout=WORK
)
STREAM_GENERATE = Rpc(
    "GenerationService/StreamGenerate",
    v1.StreamGenerateRequest,
    v1.StreamGenerateResponse,
    True,
    timeout=STREAM,
)
SCORE = Rpc("GenerationService/Score", v1.ScoreRequest, v1.ScoreResponse, True, timeout=WORK)

CREATE_JOB = Rpc("JobService/CreateJob", v1.CreateJobRequest, v1.CreateJobResponse, timeout=WORK)
GET_JOB = Rpc("JobService/GetJob", v1.GetJobRequest, v1.GetJobResponse, True)
LIST_JOBS = Rpc("JobService/ListJobs", v1.ListJobsRequest, v1.ListJobsResponse, True)
WATCH_JOB = Rpc("JobService/WatchJob", v1.WatchJobRequest, v1.WatchJobResponse, True, timeout=WATCH)
# Cancelling has no effect on a finished job, so a second time changes nothing.
CANCEL_JOB = Rpc("JobService/CancelJob", v1.CancelJobRequest, v1.CancelJobResponse, True)
RETRY_JOB = Rpc("JobService/RetryJob", v1.RetryJobRequest, v1.RetryJobResponse)
DELETE_JOB = Rpc("JobService/DeleteJob", v1.DeleteJobRequest, v1.DeleteJobResponse)

LIST_MODELS = Rpc("ModelService/ListModels", v1.ListModelsRequest, v1.ListModelsResponse, True)
LIST_REPLICAS = Rpc(
    "ModelService/ListReplicas", v1.ListReplicasRequest, v1.ListReplicasResponse, True
)
GET_MODEL = Rpc("ModelService/GetModel", v1.GetModelRequest, v1.GetModelResponse, True)
LOAD_MODEL = Rpc("ModelService/LoadModel", v1.LoadModelRequest, v1.LoadModelResponse)
UNLOAD_MODEL = Rpc(
    "ModelService/UnloadModel", v1.UnloadModelRequest, v1.UnloadModelResponse, timeout=WORK
)
TOKENIZE = Rpc("ModelService/Tokenize", v1.TokenizeRequest, v1.TokenizeResponse, True, timeout=WORK)
DETOKENIZE = Rpc(
    "ModelService/Detokenize", v1.DetokenizeRequest, v1.DetokenizeResponse, True, timeout=WORK
)

ATTRIBUTE_NEURONS = Rpc(
    "NeuronService/AttributeNeurons",
    v1.AttributeNeuronsRequest,
    v1.AttributeNeuronsResponse,
    timeout=WORK,
)
CLASSIFY_NEURONS = Rpc(
    "NeuronService/ClassifyNeurons",
    v1.ClassifyNeuronsRequest,
    v1.ClassifyNeuronsResponse,
    timeout=WORK,
)
SCORE_SELECTIVITY = Rpc(
    "NeuronService/ScoreSelectivity",
    v1.ScoreSelectivityRequest,
    v1.ScoreSelectivityResponse,
    timeout=WORK,
)
COMPARE_NEURON_SETS = Rpc(
    "NeuronService/CompareNeuronSets",
    v1.CompareNeuronSetsRequest,
    v1.CompareNeuronSetsResponse,
    True,
    timeout=WORK,
)
GET_NEURON_SET = Rpc(
    "NeuronService/GetNeuronSet", v1.GetNeuronSetRequest, v1.GetNeuronSetResponse, True
)
LIST_NEURON_SETS = Rpc(
    "NeuronService/ListNeuronSets", v1.ListNeuronSetsRequest, v1.ListNeuronSetsResponse, True
)
DELETE_NEURON_SET = Rpc(
    "NeuronService/DeleteNeuronSet", v1.DeleteNeuronSetRequest, v1.DeleteNeuronSetResponse
)
TEST_NEURONS = Rpc(
    "NeuronService/TestNeurons", v1.TestNeuronsRequest, v1.TestNeuronsResponse, True, timeout=WORK
)
TOP_CONTEXTS = Rpc(
    "NeuronService/TopContexts", v1.TopContextsRequest, v1.TopContextsResponse, True, timeout=WORK
)

# Publishing what is published changes nothing.
PUBLISH_RESOURCE = Rpc(
    "TenantService/PublishResource", v1.PublishResourceRequest, v1.PublishResourceResponse, True
)
WITHDRAW_RESOURCE = Rpc(
    "TenantService/WithdrawResource", v1.WithdrawResourceRequest, v1.WithdrawResourceResponse
)
QUERY_USAGE = Rpc("TenantService/QueryUsage", v1.QueryUsageRequest, v1.QueryUsageResponse, True)

EXTRACT_VECTORS = Rpc(
    "VectorService/ExtractVectors",
    v1.ExtractVectorsRequest,
    v1.ExtractVectorsResponse,
    timeout=WORK,
)
DECOMPOSE_VECTORS = Rpc(
    "VectorService/DecomposeVectors",
    v1.DecomposeVectorsRequest,
    v1.DecomposeVectorsResponse,
    timeout=WORK,
)
COMPARE_VECTORS = Rpc(
    "VectorService/CompareVectors",
    v1.CompareVectorsRequest,
    v1.CompareVectorsResponse,
    True,
    timeout=WORK,
)
CREATE_VECTOR = Rpc("VectorService/CreateVector", v1.CreateVectorRequest, v1.CreateVectorResponse)
GET_VECTOR = Rpc("VectorService/GetVector", v1.GetVectorRequest, v1.GetVectorResponse, True)
LIST_VECTORS = Rpc("VectorService/ListVectors", v1.ListVectorsRequest, v1.ListVectorsResponse, True)
DELETE_VECTOR = Rpc("VectorService/DeleteVector", v1.DeleteVectorRequest, v1.DeleteVectorResponse)
IMPORT_VECTORS = Rpc(
    "VectorService/ImportVectors", v1.ImportVectorsRequest, v1.ImportVectorsResponse, timeout=WORK
)
EXPORT_VECTORS = Rpc(
    "VectorService/ExportVectors",
    v1.ExportVectorsRequest,
    v1.ExportVectorsResponse,
    True,
    timeout=STREAM,
)
