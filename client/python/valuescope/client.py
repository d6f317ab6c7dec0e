"""The synchronous client: one method a task, numpy in and out, progress bars on long work.

    import valuescope as vs
    client = vs.Client("127.0.0.1:50051")
    answer = client.generate("models/SmolLM2-135M-Instruct", vs.chat("Plan my Sunday.", system=""), max_tokens=40)
    print(answer.text)

Every method raises a `ValuescopeError` that shows what the server said. Methods return the contract's messages where those are
what one wants to look at, and small dataclasses with arrays where they are not.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import pathlib
import time
import uuid
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
from tqdm.auto import tqdm

from . import v1
from .crc32c import crc32c
from .errors import Unavailable, from_rpc_error
from .prompts import to_interventions, to_layers, to_prompt, to_response, to_site
from .tensors import from_numpy, to_numpy

_MESSAGE_LIMIT = 16 << 20
_CHUNK = 1 << 20
# Calls in flight of one batch: enough to fill the server's batch, few enough not to fill its queue.
_IN_FLIGHT = 32
_RETRIES = 5


@dataclasses.dataclass(frozen=True)
class Generation:
    """The completions of one prompt.

    Attributes:
        text, token_ids, finish_reason, receipts: of the first completion.
        completions: all of them.
        captures: for each completion, for each tap, an array [layers, tokens, width].
        response: the whole message (usage, seed, digests).
    """

    response: v1.GenerateResponse

    @property
    def completions(self):
        return list(self.response.completions)

    @property
    def text(self) -> str:
        return self.response.completions[0].text

    @property
    def token_ids(self) -> list[int]:
        return list(self.response.completions[0].token_ids)

    @property
    def finish_reason(self) -> str:
        name = v1.FinishReason.Name(self.response.completions[0].finish_reason)
        return name.removeprefix("FINISH_REASON_").lower()

    @property
    def receipts(self):
        return list(self.response.completions[0].receipts)

    @property
    def captures(self) -> list[dict[int, np.ndarray]]:
        return [_assemble(c.captures) for c in self.response.completions]


class Client:
    """A connection to a valuescope server. Thread-safe; close it, or use it in a `with`.

    Args:
        target: "HOST:PORT".
        token: bearer token, where the server asks for one.
        timeout: seconds after which a call fails, None for no limit.
        credentials: channel credentials for TLS; None connects in the clear.
    """

    def __init__(self, target="127.0.0.1:50051", *, token=None, timeout=None, credentials=None):
        options = [
            ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
            ("grpc.max_send_message_length", _MESSAGE_LIMIT),
        ]
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options)
        self._timeout = timeout
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        for stub in v1.SERVICE_STUBS:
            name = stub.__name__.removesuffix("ServiceStub").lower()
            setattr(self, f"_{name}", stub(self._channel))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self._channel.close()

    def wait_until_ready(self, model: str | None = None, timeout: float = 60.0):
        """Blocks until the server answers and, if given, `model` is READY. Raises what stood in the way at the end."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                if model is None:
                    self.models()
                    return
                found = self.model(model)
                if found.state == v1.MODEL_STATE_READY:
                    return
                if found.state == v1.MODEL_STATE_FAILED:
                    raise RuntimeError(f"{model} failed to load: {found.state_message}")
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"{model} is not ready after {timeout:.0f} s")
            time.sleep(0.1)

    # --- Models ----------------------------------------------------------------------------------------------------

    def models(self) -> list[v1.Model]:
        """All models of the server, loaded or not."""
        return list(self._pages(self._model.ListModels, v1.ListModelsRequest(), "models"))

    def model(self, name: str) -> v1.Model:
        """One model: sizes, dtype, device, digests, sites."""
        return self._call(self._model.GetModel, v1.GetModelRequest(name=name)).model

    def tokenize(self, model: str, prompt) -> v1.TokenizeResponse:
        """Token ids, pieces and the rendered text of a prompt."""
        return self._call(
            self._model.Tokenize, v1.TokenizeRequest(model=model, prompt=to_prompt(prompt))
        )

    def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        request = v1.DetokenizeRequest(model=model, token_ids=[int(i) for i in token_ids])
        return self._call(self._model.Detokenize, request).text

    # --- Generation ------------------------------------------------------------------------------------------------

    def generate(
        self,
        model,
        prompt,
        *,
        steer=None,
        taps=(),
        n=None,
        logprobs=None,
        progress=None,
        **sampling,
    ):
        """Generates. With a list of prompts, runs them side by side and returns a list in the same order.

        Args:
            prompt: text, chat (list of {"role", "content"}) or token ids; or a list of those.
            steer: one or several `Steer`; for a list of prompts the same for all, or a list of lists.
            taps: read-outs made by `tap`.
            n: completions a prompt.
            logprobs: likeliest tokens to return at each position; None returns no log-probabilities.
            progress: title of a progress bar over the prompts of a list.
            sampling: fields of `SamplingParams`: max_tokens, temperature, top_p, top_k, min_p, repetition_penalty, seed, stop,
                ignore_eos. For a list of prompts, `seed` may be a list.
        """
        many = isinstance(prompt, Sequence) and not _is_one_prompt(prompt)
        prompts = list(prompt) if many else [prompt]
        seeds = sampling.pop("seed", None)
        per_prompt_steer = (
            many and isinstance(steer, list) and steer and isinstance(steer[0], (list, tuple))
        )
        requests = []
        for index, one in enumerate(prompts):
            params = v1.SamplingParams(**sampling)
            seed = seeds[index] if isinstance(seeds, (list, tuple)) else seeds
            if seed is not None:
                params.seed = seed
            requests.append(
                v1.GenerateRequest(
                    model=model,
                    prompt=to_prompt(one),
                    sampling=params,
                    n=n,
                    logprobs=logprobs,
                    interventions=to_interventions(steer[index] if per_prompt_steer else steer),
                    taps=taps,
                )
            )
        results = [Generation(r) for r in self._many(self._generation.Generate, requests, progress)]
        return results if many else results[0]

    def stream(
        self, model, prompt, *, steer=None, **sampling
    ) -> Iterator[v1.StreamGenerateResponse]:
        """Streams one generation; leaving the loop early stops it on the server."""
        request = v1.StreamGenerateRequest(
            model=model,
            prompt=to_prompt(prompt),
            sampling=v1.SamplingParams(**sampling),
            interventions=to_interventions(steer),
        )
        return self._stream(self._generation.StreamGenerate, request)

    def score(self, model, prompt, continuations, *, steer=None, top_logprobs=0) -> list:
        """Log-probabilities of given continuations (strings or token ids) of a prompt."""
        request = v1.ScoreRequest(
            model=model,
            prompt=to_prompt(prompt),
            continuations=[to_response(c) for c in continuations],
            interventions=to_interventions(steer),
            top_logprobs=top_logprobs,
        )
        return list(self._call(self._generation.Score, request).scores)

    # --- Activations -----------------------------------------------------------------------------------------------

    def capture(self, model, inputs, taps, *, steer=None) -> list[dict[int, np.ndarray]]:
        """Activations of inputs: for each input a dictionary from tap index to an array [layers, tokens, width].

        Args:
            inputs: prompts, or pairs (prompt, response).
            taps: read-outs made by `tap`.
        """
        request = v1.CaptureRequest(model=model, taps=taps, interventions=to_interventions(steer))
        for one in inputs:
            added = request.inputs.add()
            if isinstance(one, tuple):
                added.prompt.CopyFrom(to_prompt(one[0]))
                added.response.CopyFrom(to_response(one[1]))
            else:
                added.prompt.CopyFrom(to_prompt(one))
        chunks = collections.defaultdict(list)
        for event in self._stream(self._activation.Capture, request):
            if event.HasField("chunk"):
                chunks[event.chunk.input_index].append(event.chunk)
        return [_assemble(chunks[index]) for index in range(len(request.inputs))]

    # --- Vectors ---------------------------------------------------------------------------------------------------

    def extract_vectors(
        self, model, responses, *, layers="all", site="residual_post", request_id=None, **fields
    ) -> v1.ExtractVectorsResponse:
        """Difference-in-means from labelled responses: a list made by `labelled`, or the name of an artifact."""
        request = v1.ExtractVectorsRequest(
            model=model,
            layers=to_layers(layers),
            site=to_site(site),
            request_id=request_id or str(uuid.uuid4()),
            **fields,
        )
        if isinstance(responses, str):
            request.artifact = responses
        else:
            request.responses.extend(responses)
        return self._call(self._vector.ExtractVectors, request)

    def decompose_vectors(self, intrinsic: str, prompted: str, **fields) -> v1.PairDecomposition:
        """Shared and unique parts of one value's two vectors."""
        pair = v1.VectorPair(intrinsic=intrinsic, prompted=prompted)
        request = v1.DecomposeVectorsRequest(pairs=[pair], request_id=str(uuid.uuid4()), **fields)
        return self._call(self._vector.DecomposeVectors, request).decompositions[0]

    def create_vector(
        self, model, data, *, layers, site="residual_post", display_name=""
    ) -> v1.Vector:
        """Stores an array [layers, width] (or [width] for one layer); `layers` are its rows' blocks."""
        data = np.atleast_2d(np.asarray(data, np.float32))
        layers = [layers] if isinstance(layers, int) else list(layers)
        vector = v1.Vector(
            model=model,
            site=to_site(site),
            layers=layers,
            data=from_numpy(data),
            display_name=display_name,
        )
        request = v1.CreateVectorRequest(vector=vector, request_id=str(uuid.uuid4()))
        return self._call(self._vector.CreateVector, request).vector

    def vector(self, name: str) -> v1.Vector:
        """A stored vector; `vector_data` gives its rows."""
        return self._call(self._vector.GetVector, v1.GetVectorRequest(name=name)).vector

    def vector_data(self, name: str) -> dict[int, np.ndarray]:
        """The rows of a stored vector by absolute layer, each [width]."""
        vector = self.vector(name)
        return dict(zip(vector.layers, to_numpy(vector.data), strict=True))

    def vectors(self) -> list[v1.Vector]:
        """All stored vectors, newest first, without data."""
        return list(self._pages(self._vector.ListVectors, v1.ListVectorsRequest(), "vectors"))

    # --- Neurons ---------------------------------------------------------------------------------------------------

    def classify_neurons(
        self, model, intrinsic: str, prompted: str, *, layers="all", **fields
    ) -> v1.NeuronSet:
        """Classes of neurons by their write directions against the axes of two vectors."""
        request = v1.ClassifyNeuronsRequest(
            model=model,
            vectors=v1.ConditionVectors(intrinsic=intrinsic, prompted=prompted),
            layers=to_layers(layers),
            request_id=str(uuid.uuid4()),
            **fields,
        )
        return self._call(self._neuron.ClassifyNeurons, request).neuron_set

    def attribute_neurons(
        self, model, responses, vector: str, *, layers="all", **fields
    ) -> v1.AttributeNeuronsResponse:
        """Direct contribution of every neuron to a vector, at once. For large data sets use `create_job`."""
        request = attribution_request(model, responses, vector, layers=layers, **fields)
        request.request_id = str(uuid.uuid4())
        return self._call(self._neuron.AttributeNeurons, request)

    # --- Jobs ------------------------------------------------------------------------------------------------------

    def create_job(self, spec: v1.JobSpec, *, display_name="", request_id=None) -> v1.Job:
        """Queues long work; the job survives the server."""
        request = v1.CreateJobRequest(
            spec=spec, display_name=display_name, request_id=request_id or str(uuid.uuid4())
        )
        return self._call(self._job.CreateJob, request).job

    def estimate_job(self, spec: v1.JobSpec) -> v1.JobEstimate:
        """What a job would cost, without running it."""
        request = v1.CreateJobRequest(spec=spec, validate_only=True)
        return self._call(self._job.CreateJob, request).estimate

    def job(self, name: str) -> v1.Job:
        """A job as it is now."""
        return self._call(self._job.GetJob, v1.GetJobRequest(name=name)).job

    def jobs(self) -> list[v1.Job]:
        """All jobs, newest first, without their specs."""
        return list(self._pages(self._job.ListJobs, v1.ListJobsRequest(), "jobs"))

    def cancel_job(self, name: str) -> v1.Job:
        """Asks a job to stop."""
        return self._call(self._job.CancelJob, v1.CancelJobRequest(name=name)).job

    def watch_job(self, name: str) -> Iterator[v1.Job]:
        """The job now and at every change until it is finished; goes on after a lost connection."""
        failures = 0
        while True:
            try:
                for response in self._stream(self._job.WatchJob, v1.WatchJobRequest(name=name)):
                    failures = 0
                    yield response.job
                    if response.job.state in _FINISHED:
                        return
            except Unavailable:
                failures += 1
                if failures > _RETRIES:
                    raise
                time.sleep(0.2 * 2**failures)

    def wait_for_job(self, name: str, *, progress: str | None = None) -> v1.Job:
        """Blocks until the job is finished, with a progress bar titled `progress`. Raises where it did not succeed."""
        job = None
        with tqdm(desc=progress, disable=progress is None, total=None, unit="") as bar:
            for job in self.watch_job(name):
                if job.progress.total:
                    bar.total, bar.unit = job.progress.total, f" {job.progress.unit}"
                bar.n = job.progress.done
                bar.refresh()
        if job.state != v1.JOB_STATE_SUCCEEDED:
            state = v1.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
            raise RuntimeError(f"{name} {state}: {job.error.message}")
        return self.job(name)

    # --- Artifacts -------------------------------------------------------------------------------------------------

    def write_artifact(self, data, *, display_name="", media_type="") -> v1.Artifact:
        """Stores bytes, a path, or labelled responses (as JSON Lines)."""
        if isinstance(data, (list, tuple)):
            data, media_type = to_json_lines(data), "application/x-ndjson"
        elif isinstance(data, pathlib.Path):
            display_name = display_name or data.name
            data = data.read_bytes()
        header = v1.WriteArtifactHeader(
            display_name=display_name,
            media_type=media_type,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            request_id=str(uuid.uuid4()),
        )

        def requests():
            yield v1.WriteArtifactRequest(header=header)
            for offset in range(0, len(data), _CHUNK):
                part = data[offset : offset + _CHUNK]
                chunk = v1.ArtifactChunk(offset=offset, data=part, crc32c=crc32c(part))
                yield v1.WriteArtifactRequest(chunk=chunk)

        try:
            return self._artifact.WriteArtifact(
                requests(), timeout=self._timeout, metadata=self._metadata
            ).artifact
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def artifact(self, name: str) -> v1.Artifact:
        """Size, digest and provenance of an artifact."""
        return self._call(self._artifact.GetArtifact, v1.GetArtifactRequest(name=name)).artifact

    def read_artifact(self, name: str, *, progress: str | None = None) -> bytes:
        """An artifact's bytes, checked; goes on where a lost connection broke off."""
        artifact = self.artifact(name)
        data = bytearray()
        failures = 0
        with tqdm(
            desc=progress,
            disable=progress is None,
            total=artifact.size_bytes,
            unit="B",
            unit_scale=True,
        ) as bar:
            while len(data) < artifact.size_bytes:
                request = v1.ReadArtifactRequest(name=name, offset=len(data))
                try:
                    for response in self._stream(self._artifact.ReadArtifact, request):
                        chunk = response.chunk
                        if chunk.offset != len(data) or crc32c(chunk.data) != chunk.crc32c:
                            raise OSError(f"{name}: chunk at {chunk.offset} is damaged")
                        data += chunk.data
                        bar.update(len(chunk.data))
                except Unavailable:
                    failures += 1
                    if failures > _RETRIES:
                        raise
                    time.sleep(0.2 * 2**failures)
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise OSError(f"{name}: SHA-256 of the bytes read differs")
        return bytes(data)

    # --- Calls -----------------------------------------------------------------------------------------------------

    def _call(self, method, request):
        for attempt in range(_RETRIES + 1):
            try:
                return method(request, timeout=self._timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                typed = from_rpc_error(error)
                if typed.retry_after is None or attempt == _RETRIES:
                    raise typed from None
                time.sleep(typed.retry_after)

    def _many(self, method, requests, progress):
        """Runs unary calls side by side; results in order. The first failure cancels the rest."""
        results, running = [None] * len(requests), collections.deque()
        with tqdm(total=len(requests), desc=progress, disable=progress is None) as bar:
            try:
                for index, request in enumerate(requests):
                    if len(running) == _IN_FLIGHT:
                        self._collect(running, results, method, requests, bar)
                    future = method.future(request, timeout=self._timeout, metadata=self._metadata)
                    running.append((index, future))
                while running:
                    self._collect(running, results, method, requests, bar)
            finally:
                for _, future in running:
                    future.cancel()
        return results

    def _collect(self, running, results, method, requests, bar):
        index, future = running.popleft()
        try:
            results[index] = future.result()
        except grpc.RpcError as error:
            typed = from_rpc_error(error)
            if typed.retry_after is None:
                raise typed from None
            time.sleep(typed.retry_after)
            results[index] = self._call(method, requests[index])
        bar.update(1)

    def _stream(self, method, request):
        call = method(request, timeout=self._timeout, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    def _pages(self, method, request, field):
        while True:
            response = self._call(method, request)
            yield from getattr(response, field)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token


_FINISHED = (v1.JOB_STATE_SUCCEEDED, v1.JOB_STATE_FAILED, v1.JOB_STATE_CANCELLED)


def attribution_request(
    model, responses, vector, *, layers="all", **fields
) -> v1.AttributeNeuronsRequest:
    """The request of `attribute_neurons`, and of a job that does the same: responses are a list or an artifact's name."""
    request = v1.AttributeNeuronsRequest(
        model=model,
        vector=vector,
        layers=to_layers(layers),
        direct_contribution=v1.DirectContribution(),
        **fields,
    )
    if isinstance(responses, str):
        request.artifact = responses
    else:
        request.responses.extend(responses)
    return request


def to_json_lines(responses) -> bytes:
    """A data set as the server reads it: one labelled response a line."""
    from google.protobuf import json_format

    lines = [
        json_format.MessageToJson(r, indent=None, preserving_proto_field_name=True)
        for r in responses
    ]
    return ("\n".join(lines) + "\n").encode()


def _is_one_prompt(prompt) -> bool:
    """A string, token ids or one conversation, as opposed to a list of prompts."""
    if isinstance(prompt, str):
        return True
    return len(prompt) > 0 and (
        isinstance(prompt[0], (int, np.integer))
        or (isinstance(prompt[0], dict) and "role" in prompt[0])
    )


def _assemble(chunks) -> dict[int, np.ndarray]:
    """Chunks of one sequence -> tap index -> [layers, tokens, width]. Chunks split the layers, the tokens, or both."""
    by_tap = collections.defaultdict(lambda: collections.defaultdict(list))
    for chunk in chunks:
        by_tap[chunk.tap_index][tuple(chunk.layers)].append(to_numpy(chunk.tensor))
    return {
        tap: np.concatenate([np.concatenate(parts, axis=1) for parts in layers.values()], axis=0)
        for tap, layers in by_tap.items()
    }
