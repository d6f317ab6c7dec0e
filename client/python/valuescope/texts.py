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
        return html.of_records(self.records(), repr(self))


@dataclasses.dataclass(frozen=True)
class Grade:
    """Grades a response from 0 to 10 by a served model's answer to a question, read from its logits.

    Attributes:
        model: "models/ID" of the judge.
        question: holds "{query}" and "{response}", in whose place they are put; a number from 0 to 10 answers it.
    """

    model: str
    question: str

    def to_message(self) -> v1.GradeJudge:
        return v1.GradeJudge(model=self.model, rubric=self.question)


def judging_request(
    responses: Responses, judge: Judge | Grade, *, model: str = "", value: str = ""
) -> v1.JudgeResponsesRequest:
    """The request of `Client.judge_responses`, and of a job that does the same.

    Args:
        responses: made by `labelled` or `unlabelled`, or the name of an artifact that holds them.
        judge: a `WordList` or a `Rubric`, which label, or a `Grade`.
        model: "models/ID" whose tokenizer reads responses that are token ids; needed where there are such.
        value: value whose label a job writes, beside those of others; default the one without a name, `expresses`.
    """
    request = v1.JudgeResponsesRequest(model=model, value=value)
    if isinstance(judge, Grade):
        request.grade.CopyFrom(judge.to_message())
    else:
        request.judge.CopyFrom(judge if isinstance(judge, v1.Judge) else judge.to_message())
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
        """Whether each expresses the value [responses]; False of grades."""
        return np.array([one.expresses for one in self.response.judgements], bool)

    @property
    def probabilities(self) -> Array:
        """p(yes) / (p(yes) + p(no)) of a rubric [responses], float64; NaN of words, and of empty responses."""
        return self._optional("probability")

    @property
    def grades(self) -> Array:
        """Expected grades [responses], float64, 0 .. 10; NaN of labels, and of empty responses."""
        return self._optional("grade")

    @property
    def label_masses(self) -> Array:
        """Probability of all labels together [responses], float64; NaN of words, and of empty responses."""
        return self._optional("label_mass")

    def records(self) -> list[dict[str, Any]]:
        """One row a response, every column in every row; `pandas.DataFrame(judgements.records())` makes a table."""
        return [
            {
                "expresses": one.expresses if one.HasField("expresses") else None,
                "probability": optional(one, "probability"),
                "grade": optional(one, "grade"),
                "label_mass": optional(one, "label_mass"),
            }
            for one in self.response.judgements
        ]

    def __len__(self) -> int:
        return len(self.response.judgements)

    def __repr__(self) -> str:
        if self.response.HasField("expressing_share"):
            return (
                f"Judgements({len(self)} responses, {self.response.expressing_share:.3g} express)"
            )
        grade = optional(self.response, "mean_grade")
        return f"Judgements({len(self)} responses, mean grade {shown(grade) or 'unset'})"

    def _repr_html_(self) -> str:
        return html.of_records(self.records(), repr(self))

    def _optional(self, field: str) -> Array:
        return np.array([optional(one, field) for one in self.response.judgements])


def comparison_request(
    model: str,
    pairs: str | Iterable[v1.ResponsePair | tuple[str, str, str]],
    question: str,
    **fields: Any,
) -> v1.CompareResponsesRequest:
    """The request of `Client.compare_responses`, and of a job that does the same.

    Args:
        model: "models/ID" of the judge.
        pairs: triples (query, first, second), or the name of an artifact that holds JSON Lines of `ResponsePair`.
        question: holds "{query}", "{a}" and "{b}", in whose place they are put; "A" or "B" answers it.
        fields: further fields of `CompareResponsesRequest`: display_name.
    """
    request = v1.CompareResponsesRequest(model=model, rubric=question, **fields)
    if isinstance(pairs, str):
        request.artifact = pairs
        return request
    for place, pair in enumerate(given.items(pairs, "pairs")):
        if isinstance(pair, v1.ResponsePair):
            request.pairs.append(pair)
            continue
        texts = given.strings(pair, f"item {place} of pairs")
        if len(texts) != 3:
            raise ValueError(
                f"item {place} of pairs has {len(texts)} texts; it must be (query, first, second)"
            )
        request.pairs.add(query=texts[0], first=texts[1], second=texts[2])
    return request


@dataclasses.dataclass(frozen=True, repr=False)
class Preferences:
    """Which of two responses a judge prefers, asked in both orders, one entry a pair.

    Attributes:
        response: the whole message (usage, digests, warnings).
    """

    response: v1.CompareResponsesResponse

    @property
    def probabilities(self) -> Array:
        """p(first preferred), the mean over both orders [pairs], float64."""
        return np.array([one.probability for one in self.response.preferences])

    @property
    def win_rate(self) -> float:
        """Share of pairs whose first is preferred, ties counting half."""
        return self.response.win_rate

    @property
    def win_rate_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of it."""
        interval = self.response.win_rate_interval
        return interval.lower, interval.upper

    def records(self) -> list[dict[str, Any]]:
        """One row a pair; `pandas.DataFrame(preferences.records())` makes a table."""
        return [
            {
                "probability": one.probability,
                "order_spread": one.order_spread,
                "label_mass": one.label_mass,
            }
            for one in self.response.preferences
        ]

    def __len__(self) -> int:
        return len(self.response.preferences)

    def __repr__(self) -> str:
        lower, upper = self.win_rate_interval
        return (
            f"Preferences({len(self)} pairs, first wins {self.win_rate:.3g} [{lower:.3g}, {upper:.3g}], "
            f"orders agree {self.response.order_agreement:.3g})"
        )

    def _repr_html_(self) -> str:
        rows = [[shown(cell) for cell in record.values()] for record in self.records()]
        return html.table(["p(first)", "order spread", "label mass"], rows, repr(self))


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
