"""Generated messages and stubs of the package valuescope.v1, all under one name: `valuescope.v1.GenerateRequest`."""

from .activations_pb2 import *
from .activations_pb2_grpc import ActivationServiceStub
from .artifacts_pb2 import *
from .artifacts_pb2_grpc import ArtifactServiceStub
from .common_pb2 import *
from .generation_pb2 import *
from .generation_pb2_grpc import GenerationServiceStub
from .jobs_pb2 import *
from .jobs_pb2_grpc import JobServiceStub
from .models_pb2 import *
from .models_pb2_grpc import ModelServiceStub
from .neurons_pb2 import *
from .neurons_pb2_grpc import NeuronServiceStub
from .vectors_pb2 import *
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
