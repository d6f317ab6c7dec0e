"""Generated messages and stubs of the package valuescope.v1, all under one name: `valuescope.v1.GenerateRequest`."""

from .activations_pb2 import *  # noqa: F403
from .activations_pb2_grpc import ActivationServiceStub
from .artifacts_pb2 import *  # noqa: F403
from .artifacts_pb2_grpc import ArtifactServiceStub
from .common_pb2 import *  # noqa: F403
from .generation_pb2 import *  # noqa: F403
from .generation_pb2_grpc import GenerationServiceStub
from .jobs_pb2 import *  # noqa: F403
from .jobs_pb2_grpc import JobServiceStub
from .models_pb2 import *  # noqa: F403
from .models_pb2_grpc import ModelServiceStub
from .neurons_pb2 import *  # noqa: F403
from .neurons_pb2_grpc import NeuronServiceStub
from .vectors_pb2 import *  # noqa: F403
from .vectors_pb2_grpc import VectorServiceStub

SERVICE_STUBS = (
    ActivationServiceStub,
    ArtifactServiceStub,
    GenerationServiceStub,
    JobServiceStub,
    ModelServiceStub,
    NeuronServiceStub,
    VectorServiceStub,
)
