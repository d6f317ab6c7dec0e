"""Multiple-choice questions, answered by logits: the guard of capability beside a steering.

asked = client.answer_choices(model, [{"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}, ...], conditions=...)
asked.accuracies                               # numpy [conditions]; asked.plot() shows them with their intervals
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import v1
from .conditions import Conditions, to_conditions
from .evaluations import Evaluation, to_messages
from .figures import COLOURS, new_axes, optional, shown
from .tensors import Array

READINGS = {
    "letters": v1.CHOICE_READING_LETTERS,
    "continuations": v1.CHOICE_READING_CONTINUATIONS,
}


def to_questions(questions: Any) -> list[v1.ChoiceQuestion]:
    """Questions as messages, or mappings of fields: question, choices, answer (the right one's index), id."""
    return to_messages(questions, "questions", v1.ChoiceQuestion)


def choices_request(
    model: str,
    questions: Any,
    *,
    conditions: Conditions = None,
    reading: str = "letters",
    **fields: Any,
) -> v1.AnswerChoicesRequest:
    """The request of `Client.answer_choices`, and of a job that does the same.

    Args:
        model: "models/ID".
        questions: mappings of the fields of `ChoiceQuestion` (question, choices, answer, id), messages, or the name of an
            artifact that holds them, one a line of JSON.
        conditions: `EvaluationCondition`s or edits by name, or a list of them; default one with nothing.
        reading: "letters", which are listed and read, or "continuations": the likeliest choice a byte, not listed.
        fields: further fields of `AnswerChoicesRequest`: template, answer_prefix, calibration_bins, display_name.
    """
    if reading not in READINGS:
        raise ValueError(f"reading is {reading!r}; choose one of {', '.join(READINGS)}")
    request = v1.AnswerChoicesRequest(
        model=model, conditions=to_conditions(conditions), reading=READINGS[reading], **fields
    )
    if isinstance(questions, str):
        request.artifact = questions
    else:
        request.questions.extend(to_questions(questions))
    return request


class Choices(Evaluation[v1.AnswerChoicesResponse]):
    """What a model answered to multiple-choice questions."""

    _kind = v1.AnswerChoicesResponse

    @property
    def accuracies(self) -> Array:
        """Shares of right answers [conditions], float64."""
        return np.array([result.accuracy for result in self.response.results])

    @property
    def accuracy_intervals(self) -> Array:
        """Wilson's 95 % intervals [conditions, 2]."""
        intervals = [result.accuracy_interval for result in self.response.results]
        return np.array([[one.lower, one.upper] for one in intervals])

    @property
    def correct(self) -> Array:
        """Whether each question was answered right [conditions, questions], bool."""
        return np.array([[a.correct for a in r.answers] for r in self.response.results])

    def records(self) -> list[dict[str, Any]]:
        """One row a condition; `pandas.DataFrame(asked.records())` makes a table. No label mass with continuations: NaN."""
        return [
            {
                "condition": result.condition,
                "accuracy": result.accuracy,
                "lower": result.accuracy_interval.lower,
                "upper": result.accuracy_interval.upper,
                "mean_probability": result.mean_probability,
                "brier_score": result.brier_score,
                "calibration_error": result.calibration_error,
                "label_mass": optional(result, "label_mass"),
            }
            for result in self.response.results
        ]

    def plot(self, axes: Any = None) -> Any:
        """Accuracy under each condition with its interval; returns matplotlib's axes."""
        axes = axes or new_axes(max(3.0, 0.9 * len(self.conditions)), 3.0)
        places = np.arange(len(self.conditions))
        below = self.accuracies - self.accuracy_intervals[:, 0]
        above = self.accuracy_intervals[:, 1] - self.accuracies
        axes.bar(
            places, self.accuracies, yerr=np.stack([below, above]), color=COLOURS[0], width=0.6
        )
        axes.set_xticks(places, self.conditions)
        axes.set_ylim(0, 1)
        axes.set_ylabel("accuracy")
        return axes

    def __repr__(self) -> str:
        found = ", ".join(
            f"{name} {shown(float(accuracy))}"
            for name, accuracy in zip(self.conditions, self.accuracies, strict=True)
        )
        return f"Choices({self.correct.shape[1]} questions, accuracy {found})"
