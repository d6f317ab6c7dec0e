"""What a job left, as tables of pandas with the contract's types.

result = client.job_handle("jobs/ID").result()
result["summary"]            # what it found: rows by layer, condition, point or response, as the kind has them
result["responses"]          # a row a response, with Arrow's types
result["scores"]             # a row a neuron: layer, index and the columns of its method
result["points"]             # of a sweep: a row a point of the grid
result.summary               # all of the summary, as JSON
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from . import v1
from .causal_curves import NeuronTest, NeuronTests
from .choices import Choices
from .evaluations import from_summary
from .quality import Quality
from .questionnaires import Questionnaire
from .tables import Table
from .tagged import TaggedScores
from .tensors import read_tensor_file
from .texts import Judgements, Preferences, TextMeasures

if TYPE_CHECKING:
    import pandas

Records = list[dict[str, Any]]


def _quality(summary: bytes) -> Records:
    parsed = json.loads(summary)
    if "values" not in parsed:
        return _layers(parsed)
    return [
        {
            "value": one["value"],
            "conditions": ", ".join(one["conditions"]),
            "vector": one["vector"],
        }
        | layer
        for one in parsed["values"]
        if "vector" in one
        for layer in _layers(one)
    ]


def _layers(extraction: dict[str, Any]) -> Records:
    """Of a vector, or of one of several."""
    statistics = {"statistics": extraction["layers"]}
    return Quality(json_format.ParseDict(statistics, v1.ExtractVectorsResponse())).records()


def _attribution(summary: bytes) -> Records:
    layers = {"layers": json.loads(summary)["layers"]}
    return [_scalars(layer) for layer in json_format.ParseDict(layers, v1.NeuronSet()).layers]


def _selections(summary: bytes) -> Records:
    selected = from_summary(summary, v1.SteeringSweepResult()).selected
    return [_scalars(selection) for selection in selected]


def _scalars(message: Message) -> dict[str, Any]:
    """The fields that are single numbers or words; NaN where one is left out that need not be there."""
    return {
        field.name: math.nan
        if field.has_presence and not message.HasField(field.name)
        else getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if not field.is_repeated and field.message_type is None
    }


def _of_answer(
    name: str, answer: Message, shown: Callable[[Any], Any]
) -> Callable[[bytes], Records]:
    """Of a summary that has one list of what is answered at once."""

    def records(summary: bytes) -> Records:
        rows = {name: json.loads(summary)[name]}
        filled = json_format.ParseDict(rows, type(answer)())
        return list(shown(filled).records())

    return records


def _neuron_test(summary: bytes) -> Records:
    several = "rankings" in json.loads(summary)
    name, shown = ("rankings", NeuronTests) if several else ("points", NeuronTest)
    return _of_answer(name, v1.TestNeuronsResponse(), shown)(summary)


# The rows of a kind's summary.
_SUMMARIES: dict[str, Callable[[bytes], Records]] = {
    "extract_vectors": _quality,
    "attribute_neurons": _attribution,
    "test_neurons": _neuron_test,
    "judge_responses": _of_answer("judgements", v1.JudgeResponsesResponse(), Judgements),
    "compare_responses": _of_answer("preferences", v1.CompareResponsesResponse(), Preferences),
    "measure_texts": _of_answer("measures", v1.MeasureTextsResponse(), TextMeasures),
    "ask_questionnaire": lambda summary: Questionnaire.from_summary(summary).records(),
    "answer_choices": lambda summary: Choices.from_summary(summary).records(),
    "score_tagged_responses": lambda summary: TaggedScores.from_summary(summary).records(),
    "steering_sweep": _selections,
    "generate_responses": lambda summary: list(json.loads(summary)["conditions"]),
}


class JobResult(Mapping[str, "pandas.DataFrame"]):
    """The artifacts of a job that succeeded, by role, each made a table when it is asked for.

    Attributes:
        job: the job, with the names of what it stored in `job.result`.
    """

    def __init__(self, job: v1.Job, contents: Mapping[str, bytes | Table]) -> None:
        self.job = job
        self._contents = contents
        self._tables: dict[str, pandas.DataFrame] = {}

    @property
    def vectors(self) -> list[str]:
        """Vectors that it stored, "vectors/ID"."""
        return list(self.job.result.vectors)

    @property
    def neuron_sets(self) -> list[str]:
        """Neuron sets that it stored, "neuronSets/ID"."""
        return list(self.job.result.neuron_sets)

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The whole summary."""
        return dict(json.loads(self.content("summary")))

    @functools.cached_property
    def study(self) -> v1.ValueStudyResult:
        """What a value study came to."""
        return json_format.Parse(self.content("results"), v1.ValueStudyResult())

    def content(self, role: str) -> bytes:
        """The bytes of an artifact; of "responses" and "points" those of its table in Arrow's file format."""
        content = self._contents[role]
        return content.data if isinstance(content, Table) else content

    def __getitem__(self, role: str) -> pandas.DataFrame:
        if role not in self._tables:
            self._tables[role] = self._table(role)
        return self._tables[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._contents)

    def __len__(self) -> int:
        return len(self._contents)

    def __repr__(self) -> str:
        return f"JobResult({self.job.name}, {self.job.kind}: {', '.join(self)})"

    def _table(self, role: str) -> pandas.DataFrame:
        import pandas

        content = self._contents[role]
        if isinstance(content, Table):
            return content.to_pandas()
        if role == "scores":
            return pandas.DataFrame(_neurons(content))
        if role == "summary":
            return pandas.DataFrame(_SUMMARIES[self.job.kind](content))
        raise KeyError(f"{role} is no table; content({role!r}) has its bytes")


def _neurons(content: bytes) -> dict[str, Any]:
    """The columns of a file of scores: layer, index, and what the method says of every neuron."""
    tensors = read_tensor_file(content)
    by_layer: dict[int, dict[str, Any]] = {}
    for name, values in tensors.items():
        parts = name.split(".")
        if len(parts) == 3 and parts[0] == "layer" and values.ndim == 1:
            by_layer.setdefault(int(parts[1]), {})[parts[2]] = values
    layers = sorted(by_layer)
    columns = {name for columns in by_layer.values() for name in columns}
    sizes = [len(next(iter(by_layer[layer].values()))) for layer in layers]
    table: dict[str, Any] = {
        "layer": np.repeat(np.array(layers, np.int32), sizes),
        "index": np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
    }
    for name in sorted(columns):
        table[name] = np.concatenate([by_layer[layer][name] for layer in layers])
    return table
