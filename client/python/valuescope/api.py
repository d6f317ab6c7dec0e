"""Every method of both clients, written once: which request it sends, and what it makes of the answer.

`AsyncClient` is this over asyncio; `Client` runs the same methods over a transport that blocks.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import datetime
import functools
import hashlib
import heapq
import pathlib
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from . import given, rpcs, v1
from .callers import warn
from .captures import AsyncCapturedSet, capture_spec
from .causal_curves import NeuronTest, NeuronTests
from .choices import Choices, choices_request
from .comparisons import Comparison, ValueComparison
from .conditions import Conditions, generation_spec
from .crc32c import crc32c
from .credentials import NO_TOKEN, Bearer
from .errors import (
    REQUEST_ID,
    Damaged,
    DeadlineExceeded,
    JobFailed,
    Unavailable,
    ValuescopeError,
)
from .generated import Generated, Judge
from .job_results import JobResult
from .neurons import Contexts, NeuronColumns, NeuronSetComparison, Selectivity
from .progress import progress as progress_bar
from .prompts import (
    Layers,
    Neurons,
    Prompt,
    Response,
    Responses,
    Steering,
    Tokens,
    ValueVectors,
    attribution_request,
    extraction_request,
    fill_data_set,
    neuron_test_request,
    to_capture_inputs,
    to_interventions,
    to_json_lines,
    to_layers,
    to_neurons,
    to_prompt,
    to_prompts,
    to_responses,
    to_set_filters,
    to_site,
    to_taps,
    to_tokens,
)
from .questionnaires import Questionnaire, questionnaire_request
from .results import Activations, Generation, Jobs, Models, Replicas, Scores, Usage
from .retry import Retry
from .routed_model import MODEL, routed_model
from .rpcs import RequestT, ResponseT, Rpc
from .sampling import to_sampling
from .sweeps import SteeringSweep, sweep_spec
from .tables import Table, line_type, table_format
from .tagged import TaggedScores, tagged_request
from .tensors import Array, data_type, from_numpy, read_tensor_file, to_numpy
from .texts import (
    Grade,
    Judgements,
    Preferences,
    TextMeasures,
    comparison_request,
    judging_request,
    measurement_request,
)
from .transport import Call, Metadata, Transport

T = TypeVar("T")

_CHUNK = 1 << 20
# Calls in flight of one batch: enough to fill the server's batch, few enough not to fill its queue.
IN_FLIGHT = 32
# Seconds that one attempt to reach a server may take while others follow.
_PROBE = 5.0
_FINISHED = (v1.JOB_STATE_SUCCEEDED, v1.JOB_STATE_FAILED, v1.JOB_STATE_CANCELLED)


class Api:
    """The methods. All raise a `ValuescopeError` that shows what the server said; `timeout` is the client's, None each RPC's own."""

    def __init__(
        self,
        transport: Transport,
        bearer: Bearer = NO_TOKEN,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._retry = retry or Retry()
        self._bearer = bearer

    def _limited(self: T, timeout: float | None) -> T:
        """The same over the same connection with another timeout."""
        other = copy.copy(self)
        other._timeout = timeout  # type: ignore[attr-defined]
        return other

    async def wait_until_ready(self, model: str | None = None, timeout: float = 60.0) -> None:
        """Waits until the server answers and, if given, `model` is READY.

        Args:
            model: "models/ID", or None for the server alone.
            timeout: seconds to wait.

        Raises:
            RuntimeError: the model failed to load.
            TimeoutError: it still loads.
            Unavailable, DeadlineExceeded: the server still cannot be reached, or does not answer.
        """
        deadline = time.monotonic() + timeout
        while True:
            # A call that hangs is given up for the next one.
            once = self._limited(min(_PROBE, max(0.1, deadline - time.monotonic())))
            once._retry = Retry(attempts=1)
            try:
                if model is None:
                    await once.models()
                    return
                found = await once.model(model)
                if found.state == v1.MODEL_STATE_READY:
                    return
                if found.state == v1.MODEL_STATE_FAILED:
                    raise RuntimeError(f"{model} failed to load: {found.state_message}")
            except (Unavailable, DeadlineExceeded):
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"{model} is not ready after {timeout:.0f} s")
            await self._transport.sleep(0.1)

    # --- Models ----------------------------------------------------------------------------------------------------

    async def models(self, *, all_replicas: bool = False) -> Models:
        """All models of the server, loaded or not, by name.

        Args:
            all_replicas: also models that only other servers on the same store have loaded; of these name and
                replicas are set and nothing else.
        """
        request = v1.ListModelsRequest(all_replicas=all_replicas)
        return Models(await self._list(rpcs.LIST_MODELS, request, "models"))

    async def replicas(self) -> Replicas:
        """The servers that share the server's store, itself among them, with the models that each has loaded."""
        answer = await self._call(rpcs.LIST_REPLICAS, v1.ListReplicasRequest())
        return Replicas(answer.replicas)

    async def model(self, name: str) -> v1.Model:
        """One model: state, sizes, dtype, device, digests, sites with their widths."""
        return (await self._call(rpcs.GET_MODEL, v1.GetModelRequest(name=name))).model

    async def load_model(self, name: str, *, dtype: str | None = None) -> v1.Model:
        """Starts to load a model and returns at once; `wait_until_ready` waits for it.

        Args:
            name: "models/ID".
            dtype: "float32", "bfloat16" or "float16"; default the server's.

        Raises:
            FailedPrecondition: it is loaded already with other options.
            Exhausted: it does not fit the device.
        """
        request = v1.LoadModelRequest(
            name=name, dtype=None if dtype is None else data_type(dtype), request_id=_new_id()
        )
        return (await self._call(rpcs.LOAD_MODEL, request)).model

    async def unload_model(self, name: str, *, force: bool = False) -> v1.Model:
        """Unloads a model after its running requests; `force` although jobs run on it."""
        request = v1.UnloadModelRequest(name=name, force=force)
        return (await self._call(rpcs.UNLOAD_MODEL, request)).model

    async def tokenize(
        self, model: str, prompt: Prompt, *, add_special_tokens: bool = True
    ) -> v1.TokenizeResponse:
        """Token ids, pieces and the rendered text of a prompt, exactly as generation sees it.

        Args:
            model: "models/ID".
            prompt: text, chat or token ids.
            add_special_tokens: whether plain text gets the tokenizer's own special tokens, as it does where it is generated from.
        """
        (response,) = await self.tokenize_all(
            model, [prompt], add_special_tokens=add_special_tokens
        )
        return response

    async def tokenize_all(
        self,
        model: str,
        prompts: Iterable[Prompt],
        *,
        add_special_tokens: bool = True,
        in_flight: int = IN_FLIGHT,
    ) -> list[v1.TokenizeResponse]:
        """`tokenize` of several prompts side by side, in their order.

        Args:
            model: "models/ID".
            prompts: texts, chats or lists of token ids.
            add_special_tokens: as in `tokenize`.
            in_flight: prompts under way at once.
        """
        requests = [
            v1.TokenizeRequest(
                model=model, prompt=to_prompt(prompt), add_special_tokens=add_special_tokens
            )
            for prompt in prompts
        ]
        return await self._all(rpcs.TOKENIZE, requests, in_flight=in_flight)

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        request = v1.DetokenizeRequest(model=model, token_ids=given.wholes(token_ids, "token_ids"))
        return (await self._call(rpcs.DETOKENIZE, request)).text

    # --- Generation ------------------------------------------------------------------------------------------------

    @overload
    async def generate(
        self,
        /,
        model: str,
        prompt: Prompt,
        *,
        steer: Steering = None,
        taps: v1.Tap | Iterable[v1.Tap] = (),
        n: int | None = None,
        logprobs: int | None = None,
        progress: str | bool | None = None,
        seed: int | None = None,
        **sampling: Any,
    ) -> Generation: ...

    @overload
    async def generate(
        self,
        /,
        model: str,
        prompt: Sequence[Prompt],
        *,
        steer: Steering | Sequence[Steering] = None,
        taps: v1.Tap | Iterable[v1.Tap] = (),
        n: int | None = None,
        logprobs: int | None = None,
        progress: str | bool | None = None,
        in_flight: int = IN_FLIGHT,
        on_error: Literal["raise", "return"] = "raise",
        seed: int | Sequence[int] | None = None,
        **sampling: Any,
    ) -> list[Generation]: ...

    async def generate(
        self,
        /,
        model: str,
        prompt: Any,
        *,
        steer: Any = None,
        taps: v1.Tap | Iterable[v1.Tap] = (),
        n: int | None = None,
        logprobs: int | None = None,
        progress: str | bool | None = None,
        in_flight: int = IN_FLIGHT,
        on_error: Literal["raise", "return"] = "raise",
        seed: Any = None,
        **sampling: Any,
    ) -> Any:
        """Generates. With a list of prompts, runs them side by side and returns a list in the same order.

        Args:
            model: "models/ID".
            prompt: text, chat (list of {"role", "content"}) or token ids; or a list, a pandas column or an array of those.
            steer: one or several `Steer`; for a list of prompts the same for all, or a list of lists.
            taps: one or several read-outs made by `tap`.
            n: completions a prompt, 1 .. 64. Default 1.
            logprobs: likeliest tokens to return at each position, 0 .. 20; None returns no log-probabilities.
            progress: title of a progress bar over the prompts of a list; True for a default title.
            in_flight: prompts of a list under way at once.
            on_error: "raise" ends a list at its first failure and cancels the rest; "return" puts the `ValuescopeError` in
                the prompt's place and goes on.
            seed: of the draw; default a random one, which the result tells. For a list of prompts it may be a list.
            sampling: further fields of `SamplingParams`: max_tokens (default 256), temperature (default 1; 0 is greedy),
                top_p, top_k, min_p, repetition_penalty, stop (a string or several), stop_token_ids (an id or several),
                ignore_eos.

        Returns:
            A `Generation`, or a list of them.

        Raises:
            InvalidRequest: a range, an overlong prompt, an intervention that can touch nothing.
            FailedPrecondition: the model is not READY; a vector of another model.
            Exhausted: the queue stayed full, or the captures do not fit one message (then use `stream`).
        """
        prompts, many = to_prompts(prompt)
        seeds = _for_each(len(prompts), "seeds", seed, many and _is_list(seed))
        seeds = [_whole_or_none(one, f"seed {place}") for place, one in enumerate(seeds)]
        each_its_own = many and _is_list_of_lists(steer)
        steers = _for_each(len(prompts), "lists of steering", steer, each_its_own)
        shared = v1.GenerateRequest(
            model=model,
            sampling=to_sampling(**sampling),
            n=_whole_or_none(n, "n"),
            logprobs=_whole_or_none(logprobs, "logprobs"),
            interventions=None if each_its_own else to_interventions(steer),
            taps=to_taps(taps),
        )
        if each_its_own:  # what is wrong with the last one is said before the first one runs
            for its_steer in steers:
                to_interventions(its_steer)

        def request_of(index: int) -> v1.GenerateRequest:
            request = v1.GenerateRequest()
            request.CopyFrom(shared)
            request.prompt.CopyFrom(prompts[index])
            if seeds[index] is not None:
                request.sampling.seed = seeds[index]
            if each_its_own:
                request.interventions.extend(to_interventions(steers[index]))
            return request

        requests = _Made(len(prompts), request_of)
        with progress_bar(progress, "prompts", len(requests), "prompts") as bar:
            outcomes = await self._all(
                rpcs.GENERATE,
                requests,
                in_flight=in_flight,
                keep_errors=on_error == "return",
                on_done=bar.show,
            )
        results = [o if isinstance(o, ValuescopeError) else Generation(o) for o in outcomes]
        return results if many else results[0]

    async def stream(
        self,
        /,
        model: str,
        prompt: Prompt,
        *,
        steer: Steering = None,
        taps: v1.Tap | Iterable[v1.Tap] = (),
        n: int | None = None,
        logprobs: int | None = None,
        **sampling: Any,
    ) -> AsyncGenerator[v1.StreamGenerateResponse, None]:
        """Streams a generation: deltas of text and ids, captures, each completion's end with its receipts, one summary.

        Leaving the loop early, or closing the iterator, stops the generation on the server. Arguments and errors as in
        `generate`.
        """
        request = v1.StreamGenerateRequest(
            model=model,
            prompt=to_prompt(prompt),
            sampling=to_sampling(**sampling),
            interventions=to_interventions(steer),
            taps=to_taps(taps),
            n=_whole_or_none(n, "n"),
            logprobs=_whole_or_none(logprobs, "logprobs"),
        )
        async with contextlib.aclosing(self._stream(rpcs.STREAM_GENERATE, request)) as events:
            async for event in events:
                yield event

    async def score(
        self,
        model: str,
        prompt: Prompt,
        continuations: Response | Iterable[Response],
        *,
        steer: Steering = None,
        top_logprobs: int = 0,
    ) -> Scores:
        """Natural log-probabilities of given continuations of a prompt, at temperature 1.

        Args:
            model: "models/ID".
            prompt: what comes before.
            continuations: 1 .. 1024 texts or lists of token ids, scored independently; or one of these.
            steer: changes during the forward pass.
            top_logprobs: likeliest tokens to return at each position, 0 .. 20.

        Returns:
            A list of the contract's `ContinuationScore`, one a continuation, with `sums` and `means` as arrays.
        """
        (scores,) = await self.score_all(
            model, [(prompt, continuations)], steer=steer, top_logprobs=top_logprobs
        )
        return scores

    async def score_all(
        self,
        model: str,
        pairs: Iterable[tuple[Prompt, Response | Iterable[Response]]],
        *,
        steer: Steering = None,
        top_logprobs: int = 0,
        in_flight: int = IN_FLIGHT,
    ) -> list[Scores]:
        """`score` of several prompts side by side, in their order.

        Args:
            model: "models/ID".
            pairs: prompts, each with its continuations.
            steer: changes during the forward pass, the same for all.
            top_logprobs: likeliest tokens to return at each position, 0 .. 20.
            in_flight: prompts under way at once.
        """
        shared = v1.ScoreRequest(
            model=model, interventions=to_interventions(steer), top_logprobs=top_logprobs
        )
        given_pairs = list(pairs)

        def request_of(index: int) -> v1.ScoreRequest:
            prompt, continuations = given_pairs[index]
            request = v1.ScoreRequest(
                prompt=to_prompt(prompt), continuations=to_responses(continuations)
            )
            request.MergeFrom(shared)
            return request

        requests = _Made(len(given_pairs), request_of)
        responses = await self._all(rpcs.SCORE, requests, in_flight=in_flight)
        return [Scores(response.scores) for response in responses]

    # --- Activations -----------------------------------------------------------------------------------------------

    async def capture(
        self,
        model: str,
        inputs: Prompt | Iterable[Prompt | tuple[Prompt, Response]],
        taps: v1.Tap | Iterable[v1.Tap],
        *,
        steer: Steering = None,
        progress: str | bool | None = None,
    ) -> list[Activations]:
        """Activations of given texts.

        Args:
            model: "models/ID".
            inputs: prompts, or pairs (prompt, response); or one prompt.
            taps: 1 .. 16 read-outs made by `tap`, or one.
            steer: changes during the forward pass; taps see the values after them.
            progress: title of a progress bar over the inputs; True for a default title.

        Returns:
            For each input `Activations`: a dictionary from tap index to an array [layers, tokens, width], with the
            interventions' receipts.
        """
        request = v1.CaptureRequest(
            model=model,
            inputs=to_capture_inputs(inputs),
            taps=to_taps(taps),
            interventions=to_interventions(steer),
        )
        chunks: dict[int, list[v1.CaptureChunk]] = collections.defaultdict(list)
        receipts: dict[int, v1.InputReceipts] = {}
        with progress_bar(progress, "inputs", len(request.inputs), "inputs") as bar:
            async with contextlib.aclosing(self._stream(rpcs.CAPTURE, request)) as events:
                async for event in events:
                    if event.HasField("chunk"):
                        chunks[event.chunk.input_index].append(event.chunk)
                    elif event.HasField("receipts"):
                        receipts[event.receipts.input_index] = event.receipts
                        bar.show(len(receipts))
        return [Activations(chunks[i], receipts.get(i)) for i in range(len(request.inputs))]

    async def capture_job(
        self,
        /,
        model: str,
        inputs: Any = None,
        *,
        taps: v1.Tap | Iterable[v1.Tap],
        artifact: str = "",
        steer: Steering = None,
        max_file_bytes: int | None = None,
        display_name: str = "",
    ) -> v1.Job:
        """Starts a job that captures activations into files; `captured` reads them, `download_job` brings the files.

        Args:
            model: "models/ID".
            inputs: as in `capture`, at most 65536; either these or artifact.
            taps, steer: as in `capture`.
            artifact: "artifacts/ID" of labelled responses, of which prompt and response are run.
            max_file_bytes: most bytes of tensors in a file, default 1 GiB.
            display_name: of the job, for people.
        """
        spec = capture_spec(
            model,
            inputs,
            taps=taps,
            artifact=artifact,
            steer=steer,
            max_file_bytes=max_file_bytes,
        )
        return await self.create_job(v1.JobSpec(capture=spec), display_name=display_name)

    async def captured(self, /, job: str) -> AsyncCapturedSet:
        """What a job that captures left, once it has succeeded: `Activations` of each input, read when they are asked for.

        Args:
            job: "jobs/ID", which is waited for.

        Raises:
            JobFailed: it did not succeed.
        """
        finished = await self.wait_for_job(job)
        if finished.kind != "capture":
            raise ValueError(f"{job} is of the kind {finished.kind}, not capture")
        index = next(one.artifact for one in finished.result.artifacts if one.role == "index")
        return AsyncCapturedSet(finished, await self.read_artifact(index), self._read_range)

    # --- Vectors ---------------------------------------------------------------------------------------------------

    async def extract_vectors(
        self,
        /,
        model: str,
        responses: str | v1.LabelledResponse | Iterable[v1.LabelledResponse] | None = None,
        *,
        generated: Generated | v1.GeneratedResponses | None = None,
        vectors: ValueVectors | None = None,
        labels: Mapping[str, Any] | None = None,
        layers: Layers = "all",
        site: str | v1.Site = "residual_post",
        method: str | v1.ExtractionMethod | None = None,
        pooling: str | v1.Pooling | None = None,
        request_id: str | None = None,
        **fields: Any,
    ) -> v1.ExtractVectorsResponse:
        """A vector from labelled responses, given or generated first, by default their difference-in-means; stores it.

        With `vectors` or `labels` several, of many values and conditions, of one pass over the responses: `vectors` of the
        response has one entry each, in order.

        Arguments as in `extraction_request`, and request_id, a UUID, by default a new one. Raises Exhausted, reason
        USE_A_JOB, where there are too many responses for one call.
        """
        request = extraction_request(
            model,
            responses,
            generated=generated,
            vectors=vectors,
            labels=labels,
            layers=layers,
            site=site,
            method=method,
            pooling=pooling,
            **fields,
        )
        request.request_id = request_id or _new_id()
        return await self._call(rpcs.EXTRACT_VECTORS, request)

    async def decompose_vectors(
        self, /, intrinsic: str, prompted: str, **fields: Any
    ) -> v1.PairDecomposition:
        """Shared and unique parts of one value's two vectors ("vectors/ID"); `fields` as in `DecomposeVectorsRequest`."""
        pair = v1.VectorPair(intrinsic=intrinsic, prompted=prompted)
        request = v1.DecomposeVectorsRequest(pairs=[pair], request_id=_new_id(), **fields)
        return (await self._call(rpcs.DECOMPOSE_VECTORS, request)).decompositions[0]

    async def decompose_pairs(
        self, /, pairs: Mapping[str, tuple[str, str]], **fields: Any
    ) -> v1.DecomposeVectorsResponse:
        """Decomposes several values at once and compares them.

        Args:
            pairs: value -> (intrinsic, prompted), each "vectors/ID".
            fields: further fields of `DecomposeVectorsRequest`, such as circumplex.
        """
        request = v1.DecomposeVectorsRequest(
            pairs=[
                v1.VectorPair(value=value, intrinsic=intrinsic, prompted=prompted)
                for value, (intrinsic, prompted) in pairs.items()
            ],
            request_id=_new_id(),
            **fields,
        )
        return await self._call(rpcs.DECOMPOSE_VECTORS, request)

    async def compare_values(
        self,
        /,
        pairs: Mapping[str, tuple[str, str]],
        *,
        angles: Literal["ten", "nine", "four_domains"] | None = "ten",
        null_samples: int = 1000,
        seed: int = 0,
        layers: Layers | None = None,
        **fields: Any,
    ) -> ValueComparison:
        """Decomposes several values at once and compares them by their mean delta and on the circumplex.

        Args:
            pairs: value -> (intrinsic, prompted), each "vectors/ID"; four or more of Schwartz's ten values for the circumplex.
            angles: where the circumplex expects the values; None leaves it out.
            null_samples: draws of its null, 100 .. 100000.
            seed: of the null.
            layers: default all that every vector has.
            fields: further fields of `DecomposeVectorsRequest`, such as unit_deltas.
        """
        if angles is not None:
            fields["circumplex"] = v1.CircumplexOptions(
                angles=cast(
                    "v1.CircumplexAngles",
                    v1.CircumplexAngles.Value(f"CIRCUMPLEX_ANGLES_{angles.upper()}"),
                ),
                null_samples=null_samples,
                seed=seed,
            )
        if layers is not None:
            fields["layers"] = to_layers(layers)
        return ValueComparison(await self.decompose_pairs(pairs, **fields))

    async def compare_vectors(
        self, names: Iterable[str], *, layers: Layers | None = None, top_tokens: int = 0
    ) -> Comparison:
        """Cosines of vectors by layer, with noise floors, and the tokens that each speaks for and against.

        Args:
            names: "vectors/ID" of 1 .. 64 vectors of one model and site.
            layers: default all that every vector has.
            top_tokens: tokens at either end of the unembedding, 0 .. 100; more than 0 needs the model READY.
        """
        compared = given.strings(names, "names")
        request = v1.CompareVectorsRequest(vectors=compared, top_tokens=top_tokens)
        if layers is not None:
            request.layers.CopyFrom(to_layers(layers))
        return Comparison(await self._call(rpcs.COMPARE_VECTORS, request), compared)

    async def create_vector(
        self,
        model: str,
        data: npt.ArrayLike,
        *,
        layers: int | Iterable[int],
        site: str | v1.Site = "residual_post",
        display_name: str = "",
    ) -> v1.Vector:
        """Stores an array [layers, width] (or [width] for one layer) as float32; `layers` are its rows' blocks."""
        vector = v1.Vector(
            model=model,
            site=to_site(site),
            layers=given.wholes(layers, "layers"),
            data=from_numpy(np.atleast_2d(given.array(data, np.float32))),
            display_name=display_name,
        )
        request = v1.CreateVectorRequest(vector=vector, request_id=_new_id())
        return (await self._call(rpcs.CREATE_VECTOR, request)).vector

    async def vector(self, name: str) -> v1.Vector:
        """A stored vector; `vector_data` gives its rows."""
        return (await self._call(rpcs.GET_VECTOR, v1.GetVectorRequest(name=name))).vector

    async def vector_data(self, name: str) -> dict[int, Array]:
        """The rows of a stored vector by absolute layer, each [width] float32, not normalised.

        A vector of a site without layers has its one row under 0.
        """
        vector = await self.vector(name)
        return dict(zip(list(vector.layers) or [0], to_numpy(vector.data), strict=True))

    async def vectors(self, *, model: str = "", shared: bool = False) -> list[v1.Vector]:
        """Stored vectors, newest first, without data: all, or those of this "models/ID"; `shared`: what tenants published in
        place of one's own."""
        request = v1.ListVectorsRequest(model=model, shared=shared)
        return await self._list(rpcs.LIST_VECTORS, request, "vectors")

    async def export_vectors(
        self,
        names: Iterable[str],
        *,
        file_format: Literal["safetensors", "gguf"] = "safetensors",
        layers: Layers | None = None,
    ) -> bytes:
        """Vectors as the bytes of one file, checked by CRC32C.

        Args:
            names: "vectors/ID" of one model; exactly one for "gguf" (a llama.cpp control vector).
            file_format: of the file.
            layers: rows to write; default all.

        Raises:
            Damaged: a checksum differs, or the end is missing.
        """
        request = v1.ExportVectorsRequest(
            vectors=given.strings(names, "names"), format=_vector_format(file_format)
        )
        if layers is not None:
            request.layers.CopyFrom(to_layers(layers))
        data, total = bytearray(), 0
        async with contextlib.aclosing(self._stream(rpcs.EXPORT_VECTORS, request)) as parts:
            async for part in parts:
                if part.offset != len(data) or crc32c(part.data) != part.crc32c:
                    raise Damaged(f"the file's part at {part.offset} is damaged")
                data += part.data
                total = part.total_bytes
        if len(data) != total:
            raise Damaged(f"{len(data)} of the file's {total} bytes arrived")
        return bytes(data)

    async def import_vectors(
        self,
        model: str,
        data: bytes | pathlib.Path,
        *,
        file_format: Literal["safetensors", "gguf"] = "safetensors",
        site: str | v1.Site = "residual_post",
        convention: Literal["llama_cpp", "cvector_generator", "repeng"] | None = None,
        display_name: str = "",
    ) -> list[v1.Vector]:
        """Stores the vectors of a file; `layers` of each are the blocks that its rows went to.

        Args:
            model: "models/ID" that they belong to.
            data: the file or its bytes.
            file_format: of the file.
            site: where the file does not tell.
            convention: of "gguf", how direction.N counts blocks: "llama_cpp" and "repeng" N, "cvector_generator" N - 1; default
                by the file, where it tells.
            display_name: name for people.

        Raises:
            InvalidRequest: the file's fault, with its place; reason CONVENTION_NEEDED where blocks can be counted in two ways.
            FailedPrecondition: a vector of other weights; a model that is not READY.
        """
        if isinstance(data, (str, int)):
            raise TypeError("data must be bytes, or pathlib.Path for a file's name")
        content = data.read_bytes() if isinstance(data, pathlib.Path) else bytes(data)
        header = v1.ImportVectorsHeader(
            model=model,
            format=_vector_format(file_format),
            site=to_site(site),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            display_name=display_name,
            convention=_convention(convention),
            request_id=_new_id(),
        )

        def requests() -> Iterable[v1.ImportVectorsRequest]:
            yield v1.ImportVectorsRequest(header=header)
            for offset in range(0, len(content), _CHUNK):
                yield v1.ImportVectorsRequest(data=content[offset : offset + _CHUNK])

        # The header's request_id makes a second upload harmless.
        responses = await self._all(rpcs.IMPORT_VECTORS, [requests], repeatable=True)
        return list(cast("v1.ImportVectorsResponse", responses[0]).vectors)

    async def delete_vector(self, name: str) -> None:
        """Deletes a vector; FailedPrecondition while an unfinished job uses it."""
        await self._call(rpcs.DELETE_VECTOR, v1.DeleteVectorRequest(name=name))

    # --- Neurons ---------------------------------------------------------------------------------------------------

    async def classify_neurons(
        self, /, model: str, intrinsic: str, prompted: str, *, layers: Layers = "all", **fields: Any
    ) -> v1.NeuronSet:
        """Classes of neurons by their write directions against the axes of two vectors ("vectors/ID").

        Args:
            model: "models/ID".
            intrinsic, prompted: the value's vectors.
            layers: blocks.
            fields: further fields of `ClassifyNeuronsRequest`: top_percent (default 1), max_angle (degrees, default 30),
                admit_negative_shared, strict, top_k.

        Warns (UserWarning) of layers that were left out because the vectors give no axes there; `warnings` of the set
        keeps them.
        """
        request = v1.ClassifyNeuronsRequest(
            model=model,
            vectors=v1.ConditionVectors(intrinsic=intrinsic, prompted=prompted),
            layers=to_layers(layers),
            request_id=_new_id(),
            **fields,
        )
        response = await self._call(rpcs.CLASSIFY_NEURONS, request)
        for warning in response.warnings:
            warn(warning)
        return response.neuron_set

    async def attribute_neurons(
        self,
        /,
        model: str,
        responses: str | Sequence[v1.LabelledResponse],
        vector: str = "",
        *,
        layers: Layers = "all",
        **fields: Any,
    ) -> v1.AttributeNeuronsResponse:
        """Scores every neuron by one method, direct contribution by default, at once.

        For large data sets use `create_job`.

        Arguments as in `attribution_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = attribution_request(model, responses, vector, layers=layers, **fields)
        request.request_id = _new_id()
        return await self._call(rpcs.ATTRIBUTE_NEURONS, request)

    async def test_neurons(
        self,
        /,
        model: str,
        responses: str | Sequence[v1.LabelledResponse],
        neurons: Neurons | Mapping[str, Neurons],
        target: v1.AttributionTarget,
        *,
        test: str | v1.NeuronTest = "remove",
        neuron_class: str | None = None,
        layers: Layers = "all",
        tokens: Tokens | None = None,
        **fields: Any,
    ) -> NeuronTest | NeuronTests:
        """Measures what neurons cause: `target` while the first k of a ranking are removed, kept alone or scaled, beside random
        sets like them, at once.

        For many responses, sizes or random sets use `create_job`, whose "summary" holds the same. Of several rankings the
        answer has one test by each label.

        Arguments as in `neuron_test_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = neuron_test_request(
            model,
            responses,
            neurons,
            target,
            test=test,
            neuron_class=neuron_class,
            layers=layers,
            tokens=tokens,
            **fields,
        )
        response = await self._call(rpcs.TEST_NEURONS, request)
        for warning in response.warnings:
            warn(warning)
        return NeuronTests(response) if response.rankings else NeuronTest(response)

    async def neuron_set(self, name: str) -> v1.NeuronSet:
        """A stored set: counts by layer and class, and its top members."""
        request = v1.GetNeuronSetRequest(name=name)
        return (await self._call(rpcs.GET_NEURON_SET, request)).neuron_set

    async def neuron_sets(self, *, model: str = "", shared: bool = False) -> list[v1.NeuronSet]:
        """Stored sets, newest first, without members: all, or those of this "models/ID"; `shared`: what tenants published in
        place of one's own."""
        request = v1.ListNeuronSetsRequest(model=model, shared=shared)
        return await self._list(rpcs.LIST_NEURON_SETS, request, "neuron_sets")

    async def neuron_columns(self, name: str) -> NeuronColumns:
        """Every neuron of a stored set ("neuronSets/ID"), as arrays and plots."""
        neuron_set = await self.neuron_set(name)
        data = await self.read_artifact(neuron_set.artifact)
        return NeuronColumns(neuron_set, read_tensor_file(data))

    async def score_selectivity(
        self, /, neuron_sets: Mapping[str, str] | Iterable[str], **fields: Any
    ) -> Selectivity:
        """Neurons that are active for some values and not for others: the entropy of P(active | value) over the values
        (LAPE, Tang et al.), stored as a set.

        Args:
            neuron_sets: 2 .. 64 "neuronSets/ID" of activation_probability_difference, one a value, by the values' names or
                in a list.
            fields: further fields of `ScoreSelectivityRequest`: activity_percentile (default 95), top_percent (default 1),
                top_k (default 100), display_name.
        """
        if isinstance(neuron_sets, Mapping):
            values, names = list(neuron_sets), list(neuron_sets.values())
        else:
            values = names = given.strings(neuron_sets, "neuron_sets")
        request = v1.ScoreSelectivityRequest(neuron_sets=names, request_id=_new_id(), **fields)
        return Selectivity(await self._call(rpcs.SCORE_SELECTIVITY, request), values)

    async def compare_neuron_sets(
        self, sets: Iterable[str | v1.NeuronSetFilter], *, top_per_layer: int = 0
    ) -> NeuronSetComparison:
        """Overlaps of 2 .. 64 sets of one model, beside what random sets of these sizes would give.

        Args:
            sets: "neuronSets/ID", one class of it as "neuronSets/ID=shared", or filters.
            top_per_layer: of every set given by its name, instead of its members this many neurons of each layer by |score|.
        """
        filters = to_set_filters(sets, top_per_layer)
        request = v1.CompareNeuronSetsRequest(sets=filters)
        return NeuronSetComparison(await self._call(rpcs.COMPARE_NEURON_SETS, request), filters)

    async def top_contexts(
        self,
        model: str,
        neurons: Iterable[tuple[int, int]],
        responses: str | Sequence[v1.LabelledResponse],
        *,
        tokens: Tokens = "response",
        top_k: int | None = None,
        window: int | None = None,
    ) -> Contexts:
        """Texts in which neurons are most active, largest activation first.

        Args:
            model: "models/ID".
            neurons: 1 .. 256 pairs (layer, index).
            responses: texts made by `labelled`, whose labels do not matter, or the name of an artifact that holds them; at
                most 20,000.
            tokens: tokens searched.
            top_k: contexts a neuron, 1 .. 100. Default 10.
            window: tokens shown before and after, 0 .. 64. Default 10.
        """
        request = v1.TopContextsRequest(
            model=model,
            neurons=to_neurons(neurons),
            tokens=to_tokens(tokens),
            top_k=top_k,
            window=window,
        )
        fill_data_set(request, responses)
        return Contexts(await self._call(rpcs.TOP_CONTEXTS, request))

    async def delete_neuron_set(self, name: str) -> None:
        """Deletes a set and its artifact."""
        await self._call(rpcs.DELETE_NEURON_SET, v1.DeleteNeuronSetRequest(name=name))

    # --- Evaluations -----------------------------------------------------------------------------------------------

    async def ask_questionnaire(
        self,
        /,
        model: str,
        items: Any,
        options: Any,
        template: str,
        *,
        conditions: Conditions = None,
        order: str = "both",
        key: str | None = None,
        **fields: Any,
    ) -> Questionnaire:
        """Asks a questionnaire, one item a turn, under every condition, at once.

        For many items or conditions use `create_job`, whose "summary" holds the same (`Questionnaire.from_summary`).

        Arguments as in `questionnaire_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = questionnaire_request(
            model,
            items,
            options,
            template,
            conditions=conditions,
            order=order,
            key=key,
            **fields,
        )
        response = await self._call(rpcs.ASK_QUESTIONNAIRE, request)
        for warning in response.warnings:
            warn(warning)
        return Questionnaire(response)

    async def answer_choices(
        self,
        /,
        model: str,
        questions: Any,
        *,
        conditions: Conditions = None,
        reading: str = "letters",
        **fields: Any,
    ) -> Choices:
        """Answers multiple-choice questions under every condition, at once: accuracy and calibration.

        For many questions use `create_job`, whose "summary" holds the same (`Choices.from_summary`).

        Arguments as in `choices_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = choices_request(
            model, questions, conditions=conditions, reading=reading, **fields
        )
        response = await self._call(rpcs.ANSWER_CHOICES, request)
        for warning in response.warnings:
            warn(warning)
        return Choices(response)

    async def score_tagged_responses(
        self, /, model: str, responses: Any, *, conditions: Conditions = None, **fields: Any
    ) -> TaggedScores:
        """Scores responses that speak for or against values by how likely the model finds them, under every condition, at once.

        For many responses use `create_job`, whose "summary" holds the same (`TaggedScores.from_summary`).

        Arguments as in `tagged_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = tagged_request(model, responses, conditions=conditions, **fields)
        response = await self._call(rpcs.SCORE_TAGGED_RESPONSES, request)
        for warning in response.warnings:
            warn(warning)
        return TaggedScores(response)

    async def measure_texts(
        self,
        /,
        model: str,
        texts: Responses | Mapping[str, Iterable[str]],
        *,
        refusal_phrases: str | Iterable[str] = (),
        instructions: v1.Instruction | Iterable[v1.Instruction] = (),
        **fields: Any,
    ) -> TextMeasures:
        """Measures texts by condition, at once: diversity, refusals, instructions and perplexity.

        For more than 2000 texts use `create_job`, whose "summary" holds the same.

        Arguments as in `measurement_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = measurement_request(
            model, texts, refusal_phrases=refusal_phrases, instructions=instructions, **fields
        )
        response = await self._call(rpcs.MEASURE_TEXTS, request)
        for warning in response.warnings:
            warn(warning)
        return TextMeasures(response)

    async def judge_responses(
        self, /, responses: Responses, judge: Judge | Grade, *, model: str = ""
    ) -> Judgements:
        """Labels responses by words or by a served model, or grades them by one, at once.

        For more than 2000 responses use `create_job`: its "responses" are the data set with its labels, its "summary" has the
        judgements. Arguments as in `judging_request`. Raises Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = judging_request(responses, judge, model=model)
        response = await self._call(rpcs.JUDGE_RESPONSES, request)
        for warning in response.warnings:
            warn(warning)
        return Judgements(response)

    async def compare_responses(
        self,
        /,
        model: str,
        pairs: str | Iterable[v1.ResponsePair | tuple[str, str, str]],
        question: str,
        **fields: Any,
    ) -> Preferences:
        """Asks a served model which of two responses it prefers, in both orders, at once.

        For more than 2000 pairs use `create_job`, whose "summary" holds the same. Arguments as in `comparison_request`. Raises
        Exhausted, reason USE_A_JOB, where it is too much for one call.
        """
        request = comparison_request(model, pairs, question, **fields)
        response = await self._call(rpcs.COMPARE_RESPONSES, request)
        for warning in response.warnings:
            warn(warning)
        return Preferences(response)

    async def generate_responses(
        self,
        /,
        model: str,
        queries: str | Iterable[str],
        conditions: Conditions = None,
        *,
        judge: Judge | None = None,
        samples_per_query: int | None = None,
        display_name: str = "",
        **sampling: Any,
    ) -> v1.Job:
        """Starts a job that answers every query under every condition, steered or not; `wait_for_job` waits for it.

        Its artifact of role "responses" is a data set for `measure_texts` and the like, by the conditions' names.

        Args:
            display_name: of the job, for people.

        The other arguments as in `generation_spec`.
        """
        spec = generation_spec(
            model,
            queries,
            conditions,
            judge=judge,
            samples_per_query=samples_per_query,
            **sampling,
        )
        return await self.create_job(v1.JobSpec(generate_responses=spec), display_name=display_name)

    async def steering_sweep(
        self, /, model: str, *, display_name: str = "", **fields: Any
    ) -> v1.Job:
        """Starts a job that steers over a grid and measures at every point; `sweep_result` reads what it came to.

        Args:
            display_name: of the job, for people.

        The other arguments as in `sweep_spec`.
        """
        spec = v1.JobSpec(steering_sweep=sweep_spec(model, **fields))
        return await self.create_job(spec, display_name=display_name)

    async def sweep_result(self, /, job: str) -> SteeringSweep:
        """What a steering sweep came to, once its job has succeeded.

        Args:
            job: "jobs/ID", which is waited for.

        Raises:
            JobFailed: it did not succeed.
        """
        finished = await self.wait_for_job(job)
        artifacts = {one.role: one.artifact for one in finished.result.artifacts}
        points = await self.read_artifact(artifacts["points"])
        result = SteeringSweep.from_artifacts(
            points, await self.read_artifact(artifacts["summary"])
        )
        for warning in result.result.warnings:
            warn(warning)
        return result

    async def start_value_study(
        self, spec: v1.ValueStudySpec, /, *, display_name: str = ""
    ) -> v1.Job:
        """Starts a value study, a job that is made of other jobs; `Client.value_study` gives it as an object.

        Args:
            spec: what to study; what is left out has the contract's defaults.
            display_name: of the job, for people.
        """
        return await self.create_job(v1.JobSpec(value_study=spec), display_name=display_name)

    # --- Jobs ------------------------------------------------------------------------------------------------------

    async def create_job(
        self,
        spec: v1.JobSpec,
        *,
        display_name: str = "",
        priority: int = 0,
        request_id: str | None = None,
    ) -> v1.Job:
        """Queues long work; the job survives the server and this process.

        Args:
            spec: what to do.
            display_name: name for people.
            priority: -100 .. 100; among your own jobs the higher one runs first.
            request_id: a UUID; the same one gives the same job. Default a new one.
        """
        request = v1.CreateJobRequest(
            spec=spec,
            display_name=display_name,
            priority=given.whole(priority, "priority"),
            request_id=request_id or _new_id(),
        )
        return (await self._call(rpcs.CREATE_JOB, request)).job

    async def estimate_job(self, spec: v1.JobSpec) -> v1.JobEstimate:
        """What a job would cost, without running it."""
        request = v1.CreateJobRequest(spec=spec, validate_only=True)
        return (await self._call(rpcs.CREATE_JOB, request)).estimate

    async def job(self, name: str) -> v1.Job:
        """A job as it is now."""
        return (await self._call(rpcs.GET_JOB, v1.GetJobRequest(name=name))).job

    async def jobs(
        self,
        *,
        state: str | Iterable[str] | None = None,
        kind: str = "",
        model: str = "",
        display_name: str = "",
        created_after: datetime.datetime | None = None,
        created_before: datetime.datetime | None = None,
        parent: str = "",
    ) -> Jobs:
        """Jobs, newest first, without their specs. What is left out lets all through, but for jobs that are parts of others.

        Args:
            state: only those in this state, such as "running" or "failed", or in one of several.
            kind: only those of this kind, such as "attribute_neurons".
            model: only those that run on this "models/ID".
            display_name: only those whose name begins so.
            created_after: only those created at this time or later; a time without a time zone is local.
            created_before: only those created before this time.
            parent: only those that this "jobs/ID" is made of.
        """
        request = v1.ListJobsRequest(
            kind=kind, model=model, display_name_prefix=display_name, parent=parent
        )
        if isinstance(state, str):
            request.state = _job_state(state)
        elif state is not None:
            request.states.extend(_job_state(one) for one in state)
        if created_after is not None:
            _set_time(request.created_after, created_after)
        if created_before is not None:
            _set_time(request.created_before, created_before)
        return Jobs(await self._list(rpcs.LIST_JOBS, request, "jobs"))

    async def cancel_job(self, name: str) -> v1.Job:
        """Asks a job to stop; no effect on a finished one."""
        return (await self._call(rpcs.CANCEL_JOB, v1.CancelJobRequest(name=name))).job

    async def retry_job(self, name: str) -> v1.Job:
        """Queues a failed or cancelled job again; the shards that are done are kept."""
        request = v1.RetryJobRequest(name=name, request_id=_new_id())
        return (await self._call(rpcs.RETRY_JOB, request)).job

    async def delete_job(self, name: str) -> None:
        """Deletes a finished job and its artifacts; vectors and neuron sets stay."""
        await self._call(rpcs.DELETE_JOB, v1.DeleteJobRequest(name=name))

    async def follow_job(
        self,
        name: str,
        *,
        last_revision: int = 0,
        timeout: float | None = None,
        on_lost: Callable[[ValuescopeError], None] = lambda error: None,
    ) -> AsyncGenerator[v1.WatchJobResponse, None]:
        """What the server tells of a job until it is finished: the job, and every change of its state since the response before.

        Goes on after a lost connection, over a restart of the server and on another one of the same store, where it was: nothing
        comes twice and no change of state is missed. A server that is away is waited for with four times the attempts of other
        calls; one that was silent for minutes is called again.

        Args:
            name: "jobs/ID".
            last_revision: `job.revision` of the last response that was seen; 0 begins with the job as it is now.
            timeout: seconds to watch; default as long as it takes, whatever the client's timeout is.
            on_lost: called with the error when a stream is lost that will be opened again.
        """
        request = v1.WatchJobRequest(name=name, last_revision=last_revision)
        deadline = None if timeout is None else time.monotonic() + timeout
        last: v1.Job | None = None
        while True:
            left = float("inf") if deadline is None else deadline - time.monotonic()
            watcher = self._limited(min(left, rpcs.WATCH_JOB.timeout))
            watcher._retry = dataclasses.replace(self._retry, attempts=4 * self._retry.attempts)
            begun = False
            try:
                async with contextlib.aclosing(watcher._stream(rpcs.WATCH_JOB, request)) as changes:
                    async for change in changes:
                        begun = True
                        if change.job != last:
                            last = change.job
                            request.last_revision = last.revision
                            yield change
                        if change.job.state in _FINISHED:
                            return
                return
            except DeadlineExceeded:
                if last is None or left <= rpcs.WATCH_JOB.timeout:
                    raise
            except ValuescopeError as error:
                if not begun:
                    raise
                on_lost(error)
                await self._pause_or_raise(error, 1, deadline)

    async def watch_job(
        self, name: str, *, timeout: float | None = None
    ) -> AsyncGenerator[v1.Job, None]:
        """The job now and at every change until it is finished, as `follow_job` tells it."""
        following = self.follow_job(name, timeout=timeout)
        async with contextlib.aclosing(following) as changes:
            async for change in changes:
                yield change.job

    async def wait_for_job(
        self, name: str, *, progress: str | bool | None = None, timeout: float | None = None
    ) -> v1.Job:
        """Waits until the job is finished, however often the connection is lost.

        Args:
            name: "jobs/ID".
            progress: title of a progress bar; True for the job's name.
            timeout: seconds to wait; default as long as it takes.

        Raises:
            JobFailed: it did not succeed.
            DeadlineExceeded: it is not finished in time; the job itself goes on.
        """
        with progress_bar(progress, name) as bar:

            def show(progress: v1.JobProgress, note: str) -> None:
                bar.show(progress.done, progress.total, progress.unit, note=note)

            job = v1.Job()
            following = self.follow_job(
                name,
                timeout=timeout,
                on_lost=lambda error: show(job.progress, "the server is away; waiting for it"),
            )
            async with contextlib.aclosing(following) as changes:
                async for change in changes:
                    job = change.job
                    if job.progress.total:
                        show(job.progress, job.waiting_for)
        if job.state != v1.JOB_STATE_SUCCEEDED:
            state = v1.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
            raise JobFailed(job, state)
        return await self.job(name)

    async def job_result(self, name: str, *, roles: Iterable[str] | None = None) -> JobResult:
        """What a job that succeeded left, its artifacts as tables of pandas.

        Args:
            name: "jobs/ID".
            roles: which artifacts to read, such as ["summary"]; default all but "capture", which `captured` reads.

        Raises:
            JobFailed: it did not succeed.
            RuntimeError: it is not finished.
            ImportError: there is no pandas, or no pyarrow for the roles "responses" and "points" (`pip install 'valuescope[arrow]'`).
        """
        job = await self._finished(name)
        wanted = None if roles is None else set(given.strings(roles, "roles"))
        artifacts = {a.role: a.artifact for a in job.result.artifacts if a.role != "capture"}
        unknown = (wanted or set()) - set(artifacts)
        if unknown:
            raise ValueError(f"{name} has {', '.join(artifacts)}, not {', '.join(sorted(unknown))}")
        contents: dict[str, bytes | Table] = {}
        for role, artifact in artifacts.items():
            if wanted is not None and role not in wanted:
                continue
            lines = {"responses": "labelled_response", "points": "sweep_point"}.get(role)
            contents[role] = (
                await self.read_artifact(artifact)
                if lines is None
                else await self.read_table(artifact, lines=lines)
            )
        return JobResult(job, contents)

    async def download_job(
        self, name: str, folder: str | pathlib.Path, *, progress: str | bool | None = None
    ) -> list[pathlib.Path]:
        """Brings all artifacts of a job that succeeded into a folder, under their file names; those of a capture are then read
        by the `safetensors` package.

        A file appears once it is whole and checked. One that is there already with the same bytes is kept, and one that was cut
        short goes on where it broke off, in this process or a later one.

        Args:
            name: "jobs/ID".
            folder: is made where it does not exist.

        Raises:
            JobFailed: the job did not succeed.
            RuntimeError: it is not finished.
            Damaged: a checksum differs.
        """
        job = await self._finished(name)
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        total = sum(artifact.size_bytes for artifact in job.result.artifacts)
        with progress_bar(progress, name, total, "bytes") as bar:
            done = 0
            for artifact in job.result.artifacts:
                path = folder / pathlib.PurePath(artifact.display_name).name
                await self._download(artifact, path, functools.partial(_show, bar, done))
                done += artifact.size_bytes
                bar.show(done)
                paths.append(path)
        return paths

    # --- Artifacts -------------------------------------------------------------------------------------------------

    async def write_artifact(
        self,
        data: bytes | pathlib.Path | v1.LabelledResponse | Iterable[v1.LabelledResponse],
        *,
        display_name: str = "",
        media_type: str = "",
    ) -> v1.Artifact:
        """Stores bytes, a file, or labelled responses (as JSON Lines), checked by CRC32C and SHA-256 on the way.

        Args:
            data: what to store.
            display_name: name for people; a file's own name by default.
            media_type: default "application/octet-stream", for labelled responses "application/x-ndjson".
        """
        if isinstance(data, pathlib.Path):
            display_name = display_name or data.name
            content = data.read_bytes()
        elif isinstance(data, (bytes, bytearray, memoryview)):
            content = bytes(data)
        elif isinstance(data, str):
            raise TypeError(
                "data is a string: write data.encode(), or pathlib.Path for a file's name"
            )
        else:
            content, media_type = to_json_lines(data), "application/x-ndjson"
        header = v1.WriteArtifactHeader(
            display_name=display_name,
            media_type=media_type,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            request_id=_new_id(),
        )

        def requests() -> Iterable[v1.WriteArtifactRequest]:
            yield v1.WriteArtifactRequest(header=header)
            for offset in range(0, len(content), _CHUNK):
                part = content[offset : offset + _CHUNK]
                chunk = v1.ArtifactChunk(offset=offset, data=part, crc32c=crc32c(part))
                yield v1.WriteArtifactRequest(chunk=chunk)

        # The header's request_id makes a second upload harmless.
        responses = await self._all(rpcs.WRITE_ARTIFACT, [requests], repeatable=True)
        return cast("v1.WriteArtifactResponse", responses[0]).artifact

    async def artifact(self, name: str) -> v1.Artifact:
        """Size, digest and provenance of an artifact."""
        return (await self._call(rpcs.GET_ARTIFACT, v1.GetArtifactRequest(name=name))).artifact

    async def artifacts(
        self, *, job: str = "", model: str = "", shared: bool = False
    ) -> list[v1.Artifact]:
        """Artifacts, newest first; with `job` ("jobs/ID") only those that it made, with `model` ("models/ID") only those whose
        provenance names it; `shared`: what tenants published in place of one's own."""
        request = v1.ListArtifactsRequest(job=job, model=model, shared=shared)
        return await self._list(rpcs.LIST_ARTIFACTS, request, "artifacts")

    async def read_artifact(self, name: str, *, progress: str | bool | None = None) -> bytes:
        """An artifact's bytes, checked; goes on where a lost connection broke off.

        Raises:
            Damaged: a checksum differs.
        """
        artifact = await self.artifact(name)
        data = bytearray()
        with progress_bar(progress, name, artifact.size_bytes, "bytes") as bar:

            def take(part: bytes) -> None:
                data.extend(part)
                bar.show(len(data))

            await self._read(name, 0, artifact.size_bytes, take)
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise Damaged(f"{name}: SHA-256 of the bytes read differs")
        return bytes(data)

    async def _read_range(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes of an artifact from `offset` on."""
        data = bytearray()
        await self._read(name, offset, offset + size, data.extend)
        return bytes(data)

    async def _read(self, name: str, offset: int, end: int, take: Callable[[bytes], None]) -> None:
        """Hands the bytes of an artifact from `offset` to `end` to `take`, in order; goes on where a connection was lost."""
        while offset < end:
            begun = offset
            request = v1.ReadArtifactRequest(name=name, offset=offset, limit=end - offset)
            try:
                async with contextlib.aclosing(self._stream(rpcs.READ_ARTIFACT, request)) as parts:
                    async for part in parts:
                        _check(offset, part.chunk, name)
                        take(part.chunk.data)
                        offset += len(part.chunk.data)
            except Unavailable as error:
                if offset == begun:
                    raise
                await self._pause_or_raise(error, 1, None)
                continue
            if offset == begun:
                raise Damaged(f"{name} ends at {offset}, before {end}")

    async def _download(
        self, artifact: v1.JobArtifact, path: pathlib.Path, show: Callable[[int], None]
    ) -> None:
        if path.exists() and _sha256_of(path).hexdigest() == artifact.sha256:
            return
        partial = path.with_name(f"{path.name}.part")
        digest = _sha256_of(partial) if partial.exists() else hashlib.sha256()
        offset = partial.stat().st_size if partial.exists() else 0
        with partial.open("ab") as file:

            def take(part: bytes) -> None:
                file.write(part)
                digest.update(part)
                show(file.tell())

            await self._read(artifact.artifact, offset, artifact.size_bytes, take)
        if digest.hexdigest() != artifact.sha256:
            partial.unlink()
            raise Damaged(f"{artifact.artifact}: SHA-256 of the bytes read differs")
        partial.replace(path)

    async def _finished(self, name: str) -> v1.Job:
        """A job that succeeded."""
        job = await self.job(name)
        if job.state not in _FINISHED:
            raise RuntimeError(f"{name} is not finished; wait for it")
        if job.state != v1.JOB_STATE_SUCCEEDED:
            state = v1.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
            raise JobFailed(job, state)
        return job

    async def read_table(
        self,
        name: str,
        *,
        lines: str | v1.LineType = "labelled_response",
        file_format: Literal["arrow", "arrow_stream"] = "arrow",
    ) -> Table:
        """A data set as a table: a row a line, columns by the contract's message (`ReadTableRequest` tells their types).

        Args:
            name: "artifacts/ID" of JSON Lines, such as what a job leaves in the role "responses".
            lines: what a line is: "labelled_response", "questionnaire_item", "choice_question", "tagged_response",
                "response_pair" or "sweep_point".
            file_format: of the table's bytes: a file that is read by position, or a stream.

        Raises:
            InvalidRequest: a line is no such message; the error tells its number.
            Damaged: a checksum differs, or the end is missing.
        """
        request = v1.ReadTableRequest(
            artifact=name,
            format=table_format(file_format),
            line_type=line_type(lines),
        )
        data, end = bytearray(), v1.TableEnd()
        while True:
            request.offset = len(data)
            try:
                async with contextlib.aclosing(self._stream(rpcs.READ_TABLE, request)) as parts:
                    async for part in parts:
                        if part.HasField("end"):
                            end = part.end
                            continue
                        _append(data, part.chunk, name)
            except Unavailable as error:
                if len(data) == request.offset:
                    raise
                await self._pause_or_raise(error, 1, None)
            else:
                break
        if len(data) != end.size_bytes or hashlib.sha256(data).hexdigest() != end.sha256:
            raise Damaged(f"{name}: size or SHA-256 of the table read differs")
        return Table(bytes(data), end.rows, file_format)

    async def delete_artifact(self, name: str) -> None:
        """Deletes an artifact; FailedPrecondition while an unfinished job uses it."""
        await self._call(rpcs.DELETE_ARTIFACT, v1.DeleteArtifactRequest(name=name))

    # --- Tenants ---------------------------------------------------------------------------------------------------

    async def publish(self, name: str) -> v1.SharedResource:
        """Lets every tenant read a vector, a neuron set or an artifact of one's own under its name, until it is withdrawn,
        whatever becomes of one's own. What is published already stays its `publisher`'s, who may be another tenant.

        Args:
            name: "vectors/ID", "neuronSets/ID" or "artifacts/ID".

        Raises:
            Exhausted: all tenants together may not publish as much.
            AlreadyExists: other content is published under this name.
        """
        request = v1.PublishResourceRequest(name=name)
        return (await self._call(rpcs.PUBLISH_RESOURCE, request)).resource

    async def withdraw(self, name: str, *, force: bool = False) -> None:
        """Ends what `publish` began; FailedPrecondition while an unfinished job uses it, unless an admin says `force`: such jobs fail
        where they come to read it."""
        request = v1.WithdrawResourceRequest(name=name, force=force)
        await self._call(rpcs.WITHDRAW_RESOURCE, request)

    async def usage(
        self,
        *,
        tenant: str = "",
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        by_hour: bool = False,
    ) -> Usage:
        """What tenants used of the servers that share the store: calls, tokens, time of jobs.

        Args:
            tenant: whose; default one's own. Admins may name another, or "*" for all.
            start: from the hour of this time; default 24 hours before `end`. A time without a time zone is local.
            end: to the hour of this time; default now.
            by_hour: a row an hour instead of one sum.
        """
        request = v1.QueryUsageRequest(tenant=tenant, by_hour=by_hour)
        if start is not None:
            _set_time(request.start_time, start)
        if end is not None:
            _set_time(request.end_time, end)
        return Usage((await self._call(rpcs.QUERY_USAGE, request)).usage)

    # --- Calls -----------------------------------------------------------------------------------------------------

    async def _call(self, rpc: Rpc[RequestT, ResponseT], request: RequestT) -> ResponseT:
        return cast("ResponseT", (await self._all(rpc, [request]))[0])

    async def _list(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT, field: str
    ) -> list[Any]:
        """The items of every page."""
        items: list[Any] = []
        while True:
            response: Any = await self._call(rpc, request)
            items += getattr(response, field)
            if not response.next_page_token:
                return items
            request.page_token = response.next_page_token  # type: ignore[attr-defined]

    async def _all(
        self,
        rpc: Rpc[RequestT, ResponseT],
        requests: Sequence[RequestT | Callable[[], Iterable[RequestT]]],
        *,
        in_flight: int = IN_FLIGHT,
        repeatable: bool | None = None,
        keep_errors: bool = False,
        on_done: Callable[[int], None] = lambda done: None,
    ) -> list[Any]:
        """Runs calls side by side, at most `in_flight` >= 1 at once; responses in the requests' order.

        A call that may be tried again waits for its time, and no other starts meanwhile: a server that is full is left alone.
        Whatever ends this early cancels the calls in flight.
        """
        if in_flight < 1:
            raise ValueError(f"in_flight is {in_flight}; it must be at least 1")
        outcomes: list[Any] = [None] * len(requests)
        waiting = collections.deque(range(len(requests)))
        again: list[tuple[float, int]] = []
        failures: collections.Counter[int] = collections.Counter()
        deadlines: dict[int, float] = {}
        running: dict[int, Call] = {}
        inbox = self._transport.inbox()
        done = 0

        def start(index: int) -> None:
            timeout = self._timeout_of(rpc)
            if timeout is not None:
                now = time.monotonic()
                timeout = deadlines.setdefault(index, now + timeout) - now
            deliver = functools.partial(_put, inbox.put, index)
            request = requests[index]
            metadata = self._metadata(request)
            running[index] = self._transport.start(rpc, request, timeout, metadata, deliver)

        try:
            while done < len(requests):
                while again and again[0][0] <= time.monotonic() and len(running) < in_flight:
                    start(heapq.heappop(again)[1])
                while waiting and not again and len(running) < in_flight:
                    start(waiting.popleft())
                pause = None
                if again and len(running) < in_flight:
                    pause = max(0.0, again[0][0] - time.monotonic())
                item = await inbox.get(pause)
                if item is None:
                    continue
                index, outcome = item
                del running[index]
                if isinstance(outcome, ValuescopeError):
                    failures[index] += 1
                    may_repeat = (
                        _repeatable(rpc, requests[index]) if repeatable is None else repeatable
                    )
                    delay = self._retry.delay(outcome, failures[index]) if may_repeat else None
                    due = time.monotonic() + (delay or 0.0)
                    if delay is not None and due < deadlines.get(index, float("inf")):
                        heapq.heappush(again, (due, index))
                        continue
                    outcome.index = index if len(requests) > 1 else None
                    if not keep_errors:
                        raise outcome
                else:
                    failures.clear()  # the server gets on with the batch, so the others' patience starts anew
                outcomes[index] = outcome
                done += 1
                on_done(done)
        finally:
            for call in running.values():
                call.cancel()
        return outcomes

    async def _stream(
        self, rpc: Rpc[RequestT, ResponseT], request: RequestT
    ) -> AsyncGenerator[ResponseT, None]:
        """A stream of responses without its heartbeats; tried again only while nothing of it has arrived."""
        timeout = self._timeout_of(rpc)
        deadline = None if timeout is None else time.monotonic() + timeout
        failures = 0
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            begun = False
            stream = self._transport.stream(rpc, request, left, self._metadata(request))
            try:
                async with contextlib.aclosing(stream) as responses:
                    async for response in responses:
                        if rpc.is_heartbeat(response):
                            continue
                        begun = True
                        yield response
                return
            except ValuescopeError as error:
                if begun or not _repeatable(rpc, request):
                    raise
                failures += 1
                await self._pause_or_raise(error, failures, deadline)

    async def _pause_or_raise(
        self, error: ValuescopeError, failures: int, deadline: float | None
    ) -> None:
        """Waits before the next attempt, or raises where there is none."""
        delay = self._retry.delay(error, failures)
        if delay is None:
            raise error
        if deadline is not None and time.monotonic() + delay >= deadline:
            raise error
        await self._transport.sleep(delay)

    def _timeout_of(self, rpc: Rpc[Any, Any]) -> float | None:
        """Seconds that a call may take, or None for no limit."""
        timeout = rpc.timeout if self._timeout is None else self._timeout
        return None if timeout == float("inf") else timeout

    def _metadata(self, request: Message | Callable[[], Iterable[Message]]) -> Metadata:
        # Of a stream its first message says what it is about.
        first = next(iter(request())) if callable(request) else request
        model = routed_model(first)
        about = ((MODEL, model),) if model else ()
        return (*self._bearer.authorization(), (REQUEST_ID, _new_id()), *about)


def _put(put: Callable[[tuple[int, Any]], None], index: int, outcome: Any) -> None:
    put((index, outcome))


def _repeatable(rpc: Rpc[Any, Any], request: object) -> bool:
    return rpc.repeatable or bool(getattr(request, "request_id", ""))


def _check(offset: int, chunk: v1.ArtifactChunk, name: str) -> None:
    """Of the next part of a file that is read, which begins at `offset`."""
    if chunk.offset != offset or crc32c(chunk.data) != chunk.crc32c:
        raise Damaged(f"{name}: chunk at {chunk.offset} is damaged")


def _append(data: bytearray, chunk: v1.ArtifactChunk, name: str) -> None:
    """Adds the next part of a file that is read."""
    _check(len(data), chunk, name)
    data += chunk.data


def _sha256_of(path: pathlib.Path) -> hashlib._Hash:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest


def _show(bar: Any, before: int, done: int) -> None:
    bar.show(before + done)


def _vector_format(name: str) -> v1.VectorFormat:
    return cast("v1.VectorFormat", v1.VectorFormat.Value(f"VECTOR_FORMAT_{name.upper()}"))


def _convention(name: str | None) -> v1.GgufConvention:
    full = f"GGUF_CONVENTION_{(name or 'unspecified').upper()}"
    return cast("v1.GgufConvention", v1.GgufConvention.Value(full))


def _new_id() -> str:
    return str(uuid.uuid4())


def _set_time(field: Any, time: datetime.datetime) -> None:
    """A time without a time zone is local."""
    field.FromDatetime(time.astimezone(datetime.timezone.utc))


def _job_state(name: str) -> v1.JobState:
    full = f"JOB_STATE_{name.upper()}"
    if full not in v1.JobState.keys()[1:]:
        names = [n.removeprefix("JOB_STATE_").lower() for n in v1.JobState.keys()[1:]]
        raise ValueError(f"state is {name!r}; choose one of {', '.join(names)}")
    return cast("v1.JobState", v1.JobState.Value(full))


def _whole_or_none(value: Any, what: str) -> int | None:
    return None if value is None else given.whole(value, what)


def _for_each(count: int, what: str, value: Any, is_list: bool) -> list[Any]:
    """One value for each of `count` prompts: its own, or the same for all."""
    values = given.items(value, what) if is_list else [value] * count
    if len(values) != count:
        raise ValueError(f"{count} prompts, {len(values)} {what}")
    return values


def _is_list(value: Any) -> bool:
    return isinstance(given.plain(value), Iterable) and not isinstance(value, str)


def _is_list_of_lists(steer: Any) -> bool:
    """A list with a list (or nothing) for each prompt, as opposed to one list of edits for all."""
    listed = given.plain(steer)
    return isinstance(listed, (list, tuple)) and any(
        s is None or isinstance(s, (list, tuple)) for s in listed
    )


class _Made(Sequence[RequestT]):
    """Requests that are made when they are sent: each holds a copy of its steering, which may be megabytes."""

    def __init__(self, count: int, make: Callable[[int], RequestT]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._make(index)
