"""Questionnaires: what a model says is like it, under one steering or several, as arrays, a table and a plot.

items = vs.sample_questionnaire("en")          # or a file of your own: text, value, reverse, language
asked = client.ask_questionnaire(model, **items, conditions={"plain": None, "steered": vs.Steer("vectors/ID", 4.0)})
asked.centred                                  # numpy [conditions, values]; asked.plot() shows the profiles
"""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import numpy as np

from . import given, v1
from .conditions import Conditions, to_conditions
from .evaluations import ValueProfiles, plot_profiles, to_messages
from .figures import optional, shown
from .tensors import Array

ORDERS = {
    "both": v1.OPTION_ORDER_BOTH,
    "given": v1.OPTION_ORDER_GIVEN,
    "reversed": v1.OPTION_ORDER_REVERSED,
}
KEYS = {"pvq_40": v1.QUESTIONNAIRE_KEY_PVQ_40, "pvq_rr": v1.QUESTIONNAIRE_KEY_PVQ_RR}


def to_items(items: Any) -> list[v1.QuestionnaireItem]:
    """Items as messages, texts, or mappings of fields such as {"text": ..., "value": "HE", "reverse": False}."""
    return to_messages(
        items,
        "items",
        v1.QuestionnaireItem,
        from_text=lambda text: v1.QuestionnaireItem(text=text),
    )


def to_options(options: Any) -> list[v1.AnswerOption]:
    """Options as messages, or texts from the least to the most like, which get the labels and scores 1, 2, ..."""
    messages = []
    for number, one in enumerate(given.items(options, "options"), start=1):
        if isinstance(one, str):
            one = v1.AnswerOption(label=str(number), text=one, score=number)
        if not isinstance(one, v1.AnswerOption):
            raise TypeError(
                f"item {number - 1} of options is {given.shown(one)}; it must be a text or an "
                "AnswerOption"
            )
        messages.append(one)
    return messages


def questionnaire_request(
    model: str,
    items: Any,
    options: Any,
    template: str,
    *,
    conditions: Conditions = None,
    order: str = "both",
    key: str | None = None,
    **fields: Any,
) -> v1.AskQuestionnaireRequest:
    """The request of `Client.ask_questionnaire`, and of a job that does the same.

    Args:
        model: "models/ID".
        items: texts, mappings of the fields of `QuestionnaireItem` (text, id, value, reverse, language), messages, or the name
            of an artifact that holds them, one a line of JSON.
        options: 2 .. 16 from the least to the most like: texts, which are called 1, 2, ... and count as much, or
            `AnswerOption` messages.
        template: the user's turn; holds "{item}" and "{options}".
        conditions: `EvaluationCondition`s or edits by name, or a list of them; default one with nothing.
        order: in which the options are listed: "both", "given" or "reversed".
        key: "pvq_40" or "pvq_rr", which tell the items' values by their ids.
        fields: further fields of `AskQuestionnaireRequest`: language, answer_prefix, max_answer_tokens, display_name.
    """
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; choose one of {', '.join(ORDERS)}")
    if key is not None and key not in KEYS:
        raise ValueError(f"key is {key!r}; choose one of {', '.join(KEYS)}")
    request = v1.AskQuestionnaireRequest(
        model=model,
        options=to_options(options),
        template=template,
        order=ORDERS[order],
        conditions=to_conditions(conditions),
        **fields,
    )
    if key is not None:
        request.key = KEYS[key]
    if isinstance(items, str):
        request.artifact = items
    else:
        request.items.extend(to_items(items))
    return request


class Questionnaire(ValueProfiles[v1.AskQuestionnaireResponse]):
    """What a model answered to a questionnaire: `values` are means of the values' items, `centred` the same less the mean over
    all items."""

    _kind = v1.AskQuestionnaireResponse

    @property
    def standard_errors(self) -> Array:
        """Standard errors of the values over their items [conditions, values]; NaN with one item."""
        return self._of_values(lambda value: optional(value, "standard_error"))

    @property
    def text_values(self) -> Array:
        """The values by answers in words [conditions, values]; NaN where no item has any."""
        return self._of_values(lambda value: optional(value, "text_score"))

    @property
    def label_masses(self) -> Array:
        """Mean probability of all labels together [conditions]: where it is small the model says something else."""
        return np.array([result.label_mass for result in self.response.results])

    @property
    def items(self) -> list[str]:
        """The items' ids."""
        return [item.item for item in self.response.results[0].items]

    @property
    def item_scores(self) -> Array:
        """[conditions, items], float64."""
        return np.array([[item.score for item in r.items] for r in self.response.results])

    def records(self) -> list[dict[str, Any]]:
        """One row a condition and value, every column in every row; `pandas.DataFrame(asked.records())` makes a table."""
        return [
            {
                "condition": result.condition,
                "value": value.value,
                "score": value.score,
                "centred": value.centred,
                "standard_error": optional(value, "standard_error"),
                "num_items": value.num_items,
                "text_score": optional(value, "text_score"),
                "num_text_items": value.num_text_items,
            }
            for result in self.response.results
            for value in result.values
        ]

    def item_records(self) -> list[dict[str, Any]]:
        """One row a condition and item."""
        return [
            {
                "condition": result.condition,
                "item": item.item,
                "value": item.value,
                "score": item.score,
                "order_spread": optional(item, "order_spread"),
                "text_score": optional(item, "text_score"),
                "label_mass": float(np.mean([answer.label_mass for answer in item.answers])),
            }
            for result in self.response.results
            for item in result.items
        ]

    def plot(self, axes: Any = None, *, centred: bool = True) -> Any:
        """The profile of values under each condition, with intervals of 95 % over the items; returns matplotlib's axes."""
        return plot_profiles(
            self.conditions,
            self.value_names,
            self.centred if centred else self.values,
            self.standard_errors,
            "score less the mean of all items" if centred else "score",
            axes,
        )

    def __repr__(self) -> str:
        masses = ", ".join(shown(float(mass)) for mass in self.label_masses)
        return (
            f"Questionnaire({len(self.items)} items, {len(self.value_names)} values, conditions "
            f"{', '.join(self.conditions)}, label mass {masses})"
        )


def sample_languages() -> list[str]:
    """Languages of `sample_questionnaire`."""
    return sorted(wordings())


def sample_questionnaire(language: str = "en") -> dict[str, Any]:
    """A short questionnaire to try things with: ten statements, one for each of Schwartz's values, with options and a template, as
    `Client.ask_questionnaire` takes them. It is no instrument: nobody has validated it.

    Args:
        language: one of `sample_languages`.
    """
    samples = wordings()
    if language not in samples:
        raise ValueError(f"language is {language!r}; choose one of {', '.join(sorted(samples))}")
    wording = samples[language]
    file = importlib.resources.files(__package__) / "samples" / "questionnaire.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return {
        "items": [line for line in lines if line["language"] == language],
        "options": wording["options"],
        "template": wording["template"],
    }


def wordings() -> dict[str, dict[str, Any]]:
    """Options and template of questionnaires by language."""
    file = importlib.resources.files(__package__) / "samples" / "wordings.json"
    by_language: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return by_language
