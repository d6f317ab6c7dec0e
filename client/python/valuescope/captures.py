"""Activations that a job of the kind "capture" left, read input by input: `AsyncCapturedSet` is for asyncio, `CapturedSet` blocks.

job = client.capture_job(model, texts, vs.tap("residual_post", reduction="mean"))
captured = client.captured(job.name)      # waits for the job, and reads its index
captured[17][0]                           # input 17, tap 0: numpy [layers, 1, width], as `client.capture` gives it
captured.stacked(0)                       # of a reduced tap, all inputs: numpy [inputs, layers, width]

Only what is asked for is read. `client.download_job(job.name, "folder")` brings the files themselves, which the `safetensors`
package reads.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np

from . import given, v1
from .blocking import blocking, blocking_iterator, run
from .prompts import Steering, to_capture_inputs, to_interventions, to_taps
from .results import Activations
from .tensors import Array

# Of tensors that are read at once.
_BATCH_BYTES = 8 << 20
_LENGTH_BYTES = 8
_DATA_TYPES = {
    "F64": v1.DATA_TYPE_FLOAT64,
    "F32": v1.DATA_TYPE_FLOAT32,
    "F16": v1.DATA_TYPE_FLOAT16,
    "BF16": v1.DATA_TYPE_BFLOAT16,
}

# Bytes [offset, offset + size) of an artifact.
ReadRange = Callable[[str, int, int], Awaitable[bytes]]


def capture_spec(
    model: str,
    inputs: Any = None,
    *,
    taps: v1.Tap | Iterable[v1.Tap],
    artifact: str = "",
    steer: Steering = None,
    max_file_bytes: int | None = None,
) -> v1.CaptureRequest:
    """The spec of a job that captures; arguments as in `Client.capture_job`."""
    request = v1.CaptureRequest(
        model=model, artifact=artifact, taps=to_taps(taps), interventions=to_interventions(steer)
    )
    if inputs is not None:
        request.inputs.extend(to_capture_inputs(inputs))
    if max_file_bytes is not None:
        request.max_file_bytes = given.whole(max_file_bytes, "max_file_bytes")
    return request


@dataclasses.dataclass(frozen=True)
class _TensorFile:
    """A file of the set, as its head tells it: where each tensor stands."""

    artifact: str
    entries: Mapping[str, Any]
    start: int

    def range_of(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """The bytes of these tensors, those side by side together."""
        offsets = sorted(self.entries[name]["data_offsets"] for name in names)
        ranges: list[tuple[int, int]] = []
        for begin, end in offsets:
            if ranges and ranges[-1][1] == begin:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((begin, end))
        return ranges


class AsyncCapturedSet:
    """The captures of a job's inputs. It reads from the server that it came from.

    Attributes:
        job: the job, with the names of its artifacts in `job.result`.
        index: the whole index, as `JobSpec.capture` tells it: "metadata", "weight_map" and "inputs".
        taps: of each tap a dictionary: its site, layers, tokens, reduction and dtype, and neurons where it has them.
    """

    def __init__(self, job: v1.Job, index: bytes, read: ReadRange) -> None:
        self.job = job
        self.index: dict[str, Any] = json.loads(index)
        self.taps: list[dict[str, Any]] = self.index["metadata"]["taps"]
        self._read = read
        self._artifacts = {
            one.display_name: one.artifact for one in job.result.artifacts if one.role == "capture"
        }
        self._file: _TensorFile | None = None

    def __len__(self) -> int:
        """Inputs."""
        return int(self.index["metadata"]["num_inputs"])

    async def input(self, index: int) -> Activations:
        """What the taps saw of one input, as `Client.capture` gives it; negative indices count from the end.

        Raises:
            IndexError: there is no such input.
            Damaged: a checksum differs.
        """
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"input {index} of {len(self)}")
        (activations,) = await self._inputs(range(place, place + 1))
        return activations

    async def inputs(self) -> AsyncGenerator[Activations, None]:
        """All inputs, in order, some megabytes of them read at a time."""
        first = 0
        while first < len(self):
            batch = await self._batch(first)
            for activations in await self._inputs(batch):
                yield activations
            first = batch.stop

    async def stacked(self, tap: int = 0) -> Array:
        """What a reduced tap saw of all inputs, [inputs, layers, width]; of one with neurons [inputs, 1, neurons].

        Raises:
            ValueError: the tap is not reduced, so that inputs differ in their tokens.
        """
        if self.taps[tap]["reduction"] == "REDUCTION_NONE":
            raise ValueError(f"tap {tap} keeps every token; read its inputs one by one")
        return np.stack([activations[tap][:, 0] async for activations in self.inputs()])

    def __repr__(self) -> str:
        sites = ", ".join(tap["site"].removeprefix("SITE_").lower() for tap in self.taps)
        return f"{type(self).__name__}({self.job.name}, {len(self)} inputs, taps: {sites})"

    # --- Reading ---

    def _names(self, tap: int, index: int) -> list[tuple[list[int], list[int], str]]:
        """Of each tensor of a tap its layers, their neurons where it has some alone, and its name."""
        told, name = self.taps[tap], f"tap.{tap}.input.{index}"
        if "neurons" not in told:
            return [(told["layers"], [], name)]
        return [
            ([layer], neurons, f"{name}.layer.{layer}")
            for layer, neurons in zip(told["layers"], told["neurons"], strict=True)
        ]

    def _all_names(self, index: int) -> Iterator[str]:
        for tap in range(len(self.taps)):
            yield from (name for _, _, name in self._names(tap, index))
            yield f"tap.{tap}.input.{index}.positions"

    async def _file_of(self, index: int) -> _TensorFile:
        artifact = self._artifacts[self.index["weight_map"][f"tap.0.input.{index}.positions"]]
        if self._file is None or self._file.artifact != artifact:
            size = int.from_bytes(await self._read(artifact, 0, _LENGTH_BYTES), "little")
            entries = json.loads(await self._read(artifact, _LENGTH_BYTES, size))
            self._file = _TensorFile(artifact, entries, _LENGTH_BYTES + size)
        return self._file

    async def _batch(self, first: int) -> range:
        """Inputs from `first` on that are in one file and small enough to be read at once."""
        file, size, end = await self._file_of(first), 0, first
        while end < len(self) and f"tap.0.input.{end}.positions" in file.entries:
            size += sum(end - begin for begin, end in file.range_of(self._all_names(end)))
            if end > first and size > _BATCH_BYTES:
                break
            end += 1
        return range(first, end)

    async def _inputs(self, indices: range) -> list[Activations]:
        file = await self._file_of(indices.start)
        names = [name for index in indices for name in self._all_names(index)]
        data: dict[str, bytes] = {}
        pieces = [
            (begin, await self._read(file.artifact, file.start + begin, end - begin))
            for begin, end in file.range_of(names)
        ]
        for name in names:
            begin, end = file.entries[name]["data_offsets"]
            for start, piece in pieces:
                if start <= begin and end <= start + len(piece):
                    data[name] = piece[begin - start : end - start]
                    break
        return [self._activations(index, file, data) for index in indices]

    def _activations(self, index: int, file: _TensorFile, data: Mapping[str, bytes]) -> Activations:
        chunks = []
        for tap in range(len(self.taps)):
            positions = np.frombuffer(data[f"tap.{tap}.input.{index}.positions"], "<i4")
            for layers, neurons, name in self._names(tap, index):
                entry = file.entries[name]
                tensor = v1.Tensor(
                    dtype=_DATA_TYPES[entry["dtype"]], shape=entry["shape"], data=data[name]
                )
                chunk = v1.CaptureChunk(
                    input_index=index, tap_index=tap, layers=layers, tensor=tensor
                )
                chunk.positions.extend(positions.tolist())
                for neuron in neurons:
                    chunk.neurons.add(layer=layers[0], index=neuron)
                chunks.append(chunk)
        return Activations(chunks, self._receipts(index))

    def _receipts(self, index: int) -> v1.InputReceipts:
        inputs = self.index["inputs"]
        receipts = v1.InputReceipts(
            input_index=index,
            prompt_tokens=inputs["prompt_tokens"][index],
            response_tokens=inputs["response_tokens"][index],
        )
        interventions = self.index["metadata"]["interventions"]
        for place, positions in enumerate(inputs["touched"][index]):
            layers = interventions[place]["layers"] if positions > 0 else []
            receipts.receipts.add(intervention_index=place, layers=layers, positions=positions)
        return receipts


class CapturedSet:
    """The captures of a job's inputs: a sequence of `Activations`, read from the server when they are asked for.

    Attributes:
        job: the job, with the names of its artifacts in `job.result`.
        index: the whole index, as `JobSpec.capture` tells it: "metadata", "weight_map" and "inputs".
        taps: of each tap a dictionary: its site, layers, tokens, reduction and dtype, and neurons where it has them.
    """

    def __init__(self, api: AsyncCapturedSet) -> None:
        self._api = api
        self.job, self.index, self.taps = api.job, api.index, api.taps

    stacked = blocking(AsyncCapturedSet.stacked)
    inputs = blocking_iterator(AsyncCapturedSet.inputs)

    def __len__(self) -> int:
        """Inputs."""
        return len(self._api)

    def __getitem__(self, index: int) -> Activations:
        return run(self._api.input(index))

    def __iter__(self) -> Iterator[Activations]:
        return cast("Iterator[Activations]", self.inputs())

    def __repr__(self) -> str:
        return repr(self._api).removeprefix("Async")
