"""What responses are: what a judge says of each, and by condition how varied they are, how often they refuse, what instructions they
follow, how likely a model finds them.

What the server leaves unset is NaN. `records` gives rows for `pandas.DataFrame`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import given, html, v1
from .figures import COLOURS, new_axes, optional, shown
from .generated import Judge
from .prompts import Responses, fill_data_set
from .tensors import Array


def measurement_request(
    model: str,
    texts: Responses | Mapping[str, Iterable[str]],
    *,
    refusal_phrases: str | Iterable[str] = (),
    instructions: v1.Instruction | Iterable[v1.Instruction] = (),
    **fields: Any,
) -> v1.MeasureTextsRequest:
    """The request of `Client.measure_texts`, and of a job that does the same.

    Args:
        model: "models/ID", whose tokenizer measures count in.
        texts: responses made by `labelled` or `unlabelled`, the name of an artifact that holds them, or lists of texts by the
            names of their conditions, which have no prompts and so no perplexity.
        refusal_phrases: words or phrases that mark a refusal, one or several; one that ends in "*" stands for every word that
            begins so.
        instructions: what each text is checked for, such as v1.Instruction(max_words=50).
        fields: further fields of `MeasureTextsRequest`: ngrams (default 1, 2 and 3), vocabulary, self_bleu_texts (default 500),
            perplexity (default False), seed.
    """
    request = v1.MeasureTextsRequest(
        model=model,
        refusal_phrases=given.strings(refusal_phrases, "refusal_phrases"),
        instructions=[instructions]
        if isinstance(instructions, v1.Instruction)
        else given.items(instructions, "instructions"),
        **fields,
    )
    if isinstance(texts, Mapping):
        for condition, of_condition in texts.items():
            for text in given.strings(of_condition, f"texts of {given.shown(condition)}"):
                request.responses.add(response=v1.Response(text=text), condition=condition)
    else:
        fill_data_set(request, texts)
    return request


@dataclasses.dataclass(frozen=True, repr=False)
class TextMeasures:
    """Measures of the texts of each condition; `measures["name"]` is the contract's message of one.

    Attributes:
        response: the whole message (usage, digests, warnings).
    """

    response: v1.MeasureTextsResponse

    @property
    def conditions(self) -> list[str]:
        """Names, in the order in which they first occur; "" is that of texts that name none."""
        return [one.condition for one in self.response.measures]

    def __getitem__(self, condition: str) -> v1.TextMeasures:
        for one in self.response.measures:
            if one.condition == condition:
                return one
        raise KeyError(f"{condition!r}; there are {', '.join(map(repr, self.conditions))}")

    def records(self) -> list[dict[str, Any]]:
        """One row a condition, every column in every row; `pandas.DataFrame(measures.records())` makes a table.

        Columns of n-grams end in n, such as distinct_2; instruction_i is the share of texts that follow instruction i.
        """
        return [_record(one) for one in self.response.measures]

    def plot(self, column: str = "expectation_adjusted_distinct_2", axes: Any = None) -> Any:
        """One column of `records` as a bar a condition; returns matplotlib's axes."""
        records = self.records()
        if records and column not in records[0]:
            raise ValueError(f"column is {column!r}; choose one of {', '.join(records[0])}")
        axes = axes or new_axes(6.0, 0.4 * len(records) + 1.0)
        names = [record["condition"] or "no condition" for record in records]
        axes.barh(names, [record[column] for record in records], color=COLOURS[0])
        axes.invert_yaxis()
        axes.set_xlabel(column.replace("_", " "))
        return axes

    def __repr__(self) -> str:
        texts = sum(one.num_texts for one in self.response.measures)
        return f"TextMeasures({texts} texts, conditions {', '.join(map(repr, self.conditions))})"

    def _repr_html_(self) -> str:
        records = self.records()
        headings = [name.replace("_", " ") for name in records[0]] if records else []
        rows = [[shown(cell) for cell in record.values()] for record in records]
        return html.table(headings, rows, repr(self))


def judging_request(
    responses: Responses, judge: Judge, *, model: str = ""
) -> v1.JudgeResponsesRequest:
    """The request of `Client.judge_responses`, and of a job that does the same.

    Args:
        responses: made by `labelled` or `unlabelled`, or the name of an artifact that holds them.
        judge: a `WordList` or a `Rubric`.
        model: "models/ID" whose tokenizer reads responses that are token ids; needed where there are such.
    """
    request = v1.JudgeResponsesRequest(
        model=model, judge=judge if isinstance(judge, v1.Judge) else judge.to_message()
    )
    fill_data_set(request, responses)
    return request


@dataclasses.dataclass(frozen=True, repr=False)
class Judgements:
    """What a judge says of responses, one entry a response; NaN where it has nothing to say.

    Attributes:
        response: the whole message (usage, digests, warnings).
    """

    response: v1.JudgeResponsesResponse

    @property
    def expresses(self) -> npt.NDArray[np.bool_]:
        """Whether each expresses the value [responses]."""
        return np.array([one.expresses for one in self.response.judgements], bool)

    @property
    def probabilities(self) -> Array:
        """p(yes) / (p(yes) + p(no)) of a rubric [responses], float64; NaN of words, and of empty responses."""
        return self._optional("probability")

    @property
    def label_masses(self) -> Array:
        """Probability of all labels together [responses], float64; NaN of words, and of empty responses."""
        return self._optional("label_mass")

    def records(self) -> list[dict[str, Any]]:
        """One row a response, every column in every row; `pandas.DataFrame(judgements.records())` makes a table."""
        return [
            {
                "expresses": one.expresses,
                "probability": optional(one, "probability"),
                "label_mass": optional(one, "label_mass"),
            }
            for one in self.response.judgements
        ]

    def __len__(self) -> int:
        return len(self.response.judgements)

    def __repr__(self) -> str:
        share = optional(self.response, "expressing_share")
        return f"Judgements({len(self)} responses, {shown(share) or 'none'} express)"

    def _repr_html_(self) -> str:
        headings = ["expresses", "probability", "label mass"]
        rows = [[shown(cell) for cell in record.values()] for record in self.records()]
        return html.table(headings, rows, repr(self))

    def _optional(self, field: str) -> Array:
        return np.array([optional(one, field) for one in self.response.judgements])


def _record(one: v1.TextMeasures) -> dict[str, Any]:
    record: dict[str, Any] = {
        "condition": one.condition,
        "num_texts": one.num_texts,
        "num_empty": one.num_empty,
    }
    for field in ("mean_tokens", "coherent_share", "refusal_rate", "perplexity", "self_bleu"):
        record[field] = optional(one, field)
    record["self_bleu_texts"] = one.self_bleu_texts
    for diversity in one.diversity:
        for field in ("distinct", "expectation_adjusted_distinct", "entropy"):
            record[f"{field}_{diversity.n}"] = optional(diversity, field)
    for rate in one.instructions:
        record[f"instruction_{rate.instruction}"] = optional(rate, "rate")
    return record
