"""Generated messages of the package valuescope.v1, all under one name: `valuescope.v1.GenerateRequest`.

The stubs lie beside them, such as `valuescope.v1.models_pb2_grpc.ModelServiceStub`.
"""

from .activations_pb2 import *
from .artifacts_pb2 import *
from .common_pb2 import *
from .evaluation_pb2 import *
from .generation_pb2 import *
from .jobs_pb2 import *
from .judges_pb2 import *
from .models_pb2 import *
from .neurons_pb2 import *
from .studies_pb2 import *
from .sweeps_pb2 import *
from .tenants_pb2 import *
from .vectors_pb2 import *
