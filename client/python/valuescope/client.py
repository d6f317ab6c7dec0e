"""The two clients: `Client` blocks, `AsyncClient` is for asyncio. Both have the same methods, which `api.py` holds.

import valuescope as vs
client = vs.connect("127.0.0.1:50051")
answer = client.generate("models/SmolLM2-135M-Instruct", vs.chat("Plan my Sunday.", system=""), max_tokens=40)
print(answer.text)

async with vs.AsyncClient("127.0.0.1:50051") as client:
    answer = await client.generate(...)
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import grpc

from . import v1
from .api import IN_FLIGHT, Api
from .blocking import blocking, blocking_iterator, run
from .captures import CapturedSet
from .credentials import Tls, bearer, channel_credentials
from .job_handles import AsyncJobHandle, JobHandle
from .prompts import Prompt, Steering
from .results import Generation
from .retry import Retry
from .transport import AsyncioTransport, BlockingTransport

_DEFAULT_TARGET = "127.0.0.1:50051"
_SelfT = TypeVar("_SelfT", bound="AsyncClient")


class AsyncClient(Api):
    """A connection to a valuescope server for asyncio. Close it, or use it in an `async with`.

    It belongs to the event loop that first uses it. Cancelling a task that waits for a call cancels the call on the server.

    Args:
        target: "HOST:PORT".
        token: bearer token, where the server asks for one; VALUESCOPE_TOKEN by default.
        token_file: file of it, read again for each attempt of a call; VALUESCOPE_TOKEN_FILE by default.
        tls: files for a connection with TLS; those that VALUESCOPE_TLS_CA, VALUESCOPE_TLS_CERTIFICATE and
            VALUESCOPE_TLS_KEY name by default; without any it is in the clear.
        timeout: seconds after which a call fails with `DeadlineExceeded`, repeated attempts included; `math.inf` for no limit.
            Default: two minutes for lookups, an hour for calls that compute, a day for streams.
        credentials: channel credentials of gRPC in place of `tls`.
        retry: how often and how patiently calls are tried again.
    """

    def __init__(
        self,
        target: str = _DEFAULT_TARGET,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls: Tls | None = None,
        timeout: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry: Retry | None = None,
    ) -> None:
        transport = AsyncioTransport(target, channel_credentials(tls, credentials))
        super().__init__(transport, bearer(token, token_file), timeout, retry)
        self._target = target

    def with_timeout(self: _SelfT, timeout: float | None) -> _SelfT:
        """The same connection with another timeout in seconds: `client.with_timeout(5).generate(...)`; None for the default."""
        return self._limited(timeout)

    def job_handle(self, job: str | v1.Job) -> AsyncJobHandle:
        """A job by its name or as `create_job` gave it back, to wait for it and to read its result."""
        return AsyncJobHandle(self, job if isinstance(job, str) else job.name)

    async def value_study(
        self, spec: v1.ValueStudySpec, /, *, display_name: str = ""
    ) -> AsyncJobHandle:
        """Starts a value study; once it is finished, `(await handle.result()).study` is what it came to."""
        return self.job_handle(await self.start_value_study(spec, display_name=display_name))

    async def close(self) -> None:
        """Ends the connection; calls in flight fail with `Cancelled`."""
        await self._transport.close()

    async def __aenter__(self: _SelfT) -> _SelfT:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._target!r})"


class Client:
    """A connection to a valuescope server. Thread-safe; close it, or use it in a `with`.

    It needs no event loop and works beside a running one, so it is at home in notebooks. Interrupting a call (Ctrl-C, the
    notebook's stop button) cancels it on the server.

    Args:
        target: "HOST:PORT".
        token: bearer token, where the server asks for one; VALUESCOPE_TOKEN by default.
        token_file: file of it, read again for each attempt of a call; VALUESCOPE_TOKEN_FILE by default.
        tls: files for a connection with TLS; those that VALUESCOPE_TLS_CA, VALUESCOPE_TLS_CERTIFICATE and
            VALUESCOPE_TLS_KEY name by default; without any it is in the clear.
        timeout: seconds after which a call fails with `DeadlineExceeded`, repeated attempts included; `math.inf` for no limit.
            Default: two minutes for lookups, an hour for calls that compute, a day for streams.
        credentials: channel credentials of gRPC in place of `tls`.
        retry: how often and how patiently calls are tried again.
    """

    def __init__(
        self,
        target: str = _DEFAULT_TARGET,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        tls: Tls | None = None,
        timeout: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        retry: Retry | None = None,
    ) -> None:
        transport = BlockingTransport(target, channel_credentials(tls, credentials))
        self._api = Api(transport, bearer(token, token_file), timeout, retry)
        self._target = target

    def with_timeout(self, timeout: float | None) -> Client:
        """The same connection with another timeout in seconds: `client.with_timeout(5).generate(...)`; None for the default."""
        other = copy.copy(self)
        other._api = self._api._limited(timeout)
        return other

    def close(self) -> None:
        """Ends the connection; calls in flight fail with `Cancelled`."""
        run(self._api._transport.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._target!r})"

    wait_until_ready = blocking(Api.wait_until_ready)

    models = blocking(Api.models)
    replicas = blocking(Api.replicas)
    model = blocking(Api.model)
    load_model = blocking(Api.load_model)
    unload_model = blocking(Api.unload_model)
    tokenize = blocking(Api.tokenize)
    tokenize_all = blocking(Api.tokenize_all)
    detokenize = blocking(Api.detokenize)

    if TYPE_CHECKING:
        # Type checkers do not carry overloads through `blocking`.
        @overload
        def generate(
            self,
            /,
            model: str,
            prompt: Prompt,
            *,
            steer: Steering = None,
            taps: Iterable[v1.Tap] = (),
            n: int | None = None,
            logprobs: int | None = None,
            progress: str | bool | None = None,
            seed: int | None = None,
            **sampling: Any,
        ) -> Generation: ...

        @overload
        def generate(
            self,
            /,
            model: str,
            prompt: Sequence[Prompt],
            *,
            steer: Steering | Sequence[Steering] = None,
            taps: Iterable[v1.Tap] = (),
            n: int | None = None,
            logprobs: int | None = None,
            progress: str | bool | None = None,
            in_flight: int = IN_FLIGHT,
            on_error: Literal["raise", "return"] = "raise",
            seed: int | Sequence[int] | None = None,
            **sampling: Any,
        ) -> list[Generation]: ...

        def generate(self, /, *args: Any, **kwargs: Any) -> Any: ...

    else:
        generate = blocking(Api.generate)

    stream = blocking_iterator(Api.stream)
    score = blocking(Api.score)
    score_all = blocking(Api.score_all)
    capture = blocking(Api.capture)
    capture_job = blocking(Api.capture_job)

    def captured(self, /, job: str) -> CapturedSet:
        """What a job that captures left, once it has succeeded: a sequence of `Activations`, read when they are asked for.

        Args:
            job: "jobs/ID", which is waited for.

        Raises:
            JobFailed: it did not succeed.
        """
        return CapturedSet(run(self._api.captured(job)))

    extract_vectors = blocking(Api.extract_vectors)
    decompose_vectors = blocking(Api.decompose_vectors)
    decompose_pairs = blocking(Api.decompose_pairs)
    compare_values = blocking(Api.compare_values)
    compare_vectors = blocking(Api.compare_vectors)
    create_vector = blocking(Api.create_vector)
    vector = blocking(Api.vector)
    vector_data = blocking(Api.vector_data)
    vectors = blocking(Api.vectors)
    export_vectors = blocking(Api.export_vectors)
    import_vectors = blocking(Api.import_vectors)
    delete_vector = blocking(Api.delete_vector)

    classify_neurons = blocking(Api.classify_neurons)
    attribute_neurons = blocking(Api.attribute_neurons)
    test_neurons = blocking(Api.test_neurons)
    neuron_set = blocking(Api.neuron_set)
    neuron_sets = blocking(Api.neuron_sets)
    neuron_columns = blocking(Api.neuron_columns)
    score_selectivity = blocking(Api.score_selectivity)
    compare_neuron_sets = blocking(Api.compare_neuron_sets)
    top_contexts = blocking(Api.top_contexts)
    delete_neuron_set = blocking(Api.delete_neuron_set)

    ask_questionnaire = blocking(Api.ask_questionnaire)
    answer_choices = blocking(Api.answer_choices)
    score_tagged_responses = blocking(Api.score_tagged_responses)
    measure_texts = blocking(Api.measure_texts)
    generate_responses = blocking(Api.generate_responses)
    steering_sweep = blocking(Api.steering_sweep)
    sweep_result = blocking(Api.sweep_result)
    judge_responses = blocking(Api.judge_responses)
    compare_responses = blocking(Api.compare_responses)

    create_job = blocking(Api.create_job)
    estimate_job = blocking(Api.estimate_job)
    job = blocking(Api.job)
    jobs = blocking(Api.jobs)
    cancel_job = blocking(Api.cancel_job)
    retry_job = blocking(Api.retry_job)
    delete_job = blocking(Api.delete_job)
    watch_job = blocking_iterator(Api.watch_job)
    follow_job = blocking_iterator(Api.follow_job)
    wait_for_job = blocking(Api.wait_for_job)
    job_result = blocking(Api.job_result)
    download_job = blocking(Api.download_job)

    def job_handle(self, job: str | v1.Job) -> JobHandle:
        """A job by its name or as `create_job` gave it back, to wait for it and to read its result."""
        return JobHandle(self._api, job if isinstance(job, str) else job.name)

    start_value_study = blocking(Api.start_value_study)

    def value_study(self, spec: v1.ValueStudySpec, /, *, display_name: str = "") -> JobHandle:
        """Starts a value study; once it is finished, `handle.result().study` is what it came to."""
        return self.job_handle(self.start_value_study(spec, display_name=display_name))

    write_artifact = blocking(Api.write_artifact)
    artifact = blocking(Api.artifact)
    artifacts = blocking(Api.artifacts)
    read_artifact = blocking(Api.read_artifact)
    read_table = blocking(Api.read_table)
    delete_artifact = blocking(Api.delete_artifact)

    publish = blocking(Api.publish)
    withdraw = blocking(Api.withdraw)
    usage = blocking(Api.usage)


def connect(
    target: str = _DEFAULT_TARGET,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    tls: Tls | None = None,
    timeout: float | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    retry: Retry | None = None,
    wait: float = 10.0,
) -> Client:
    """A `Client` of a server that answers.

    Args:
        target: "HOST:PORT".
        token, token_file, tls, timeout, credentials, retry: as in `Client`.
        wait: seconds that the server may take to answer.

    Raises:
        Unavailable: nobody answered.
    """
    client = Client(
        target,
        token=token,
        token_file=token_file,
        tls=tls,
        timeout=timeout,
        credentials=credentials,
        retry=retry,
    )
    try:
        client.wait_until_ready(timeout=wait)
    except BaseException:
        client.close()
        raise
    return client
