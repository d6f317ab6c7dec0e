"""Steering sweeps: what a job goes over and measures by, and its points as a table, arrays and curves.

What the server leaves unset is NaN in arrays. `records` gives rows for `pandas.DataFrame`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from google.protobuf import json_format

from . import given, html, v1
from .conditions import generation_spec
from .evaluations import from_summary
from .figures import COLOURS, GREY, new_axes, optional, shown
from .generated import Judge
from .prompts import Layers, Tokens, to_layers, to_set_filters, to_tokens
from .tensors import Array
from .texts import measurement_request

Evaluated: TypeAlias = "v1.SweptResponses | v1.AskQuestionnaireRequest | v1.AnswerChoicesRequest | v1.ScoreTaggedResponsesRequest"
_FIELDS: dict[type, str] = {
    v1.SweptResponses: "responses",
    v1.AskQuestionnaireRequest: "questionnaire",
    v1.AnswerChoicesRequest: "choices",
    v1.ScoreTaggedResponsesRequest: "tagged_responses",
}


def swept_responses(
    queries: str | Iterable[str],
    *,
    judge: Judge | None = None,
    samples_per_query: int | None = None,
    measures: Mapping[str, Any] | None = None,
    **sampling: Any,
) -> v1.SweptResponses:
    """An evaluation of `sweep_spec`: answers to queries, judged and measured.

    Args:
        queries: what is asked, one or several, or the name of an artifact that holds them.
        judge: a `WordList` or a `Rubric`; None: nobody judges.
        samples_per_query: responses a query, 1 .. 64, drawn with the same seeds at every point. Default 1.
        measures: arguments of `measurement_request` (ngrams, refusal_phrases, instructions, perplexity, ...).
        sampling: fields of `SamplingParams`.
    """
    return v1.SweptResponses(
        generation=generation_spec(
            "", queries, judge=judge, samples_per_query=samples_per_query, **sampling
        ),
        measures=measurement_request("", (), **(measures or {})),
    )


def sweep_spec(
    model: str,
    *,
    evaluations: Mapping[str, Evaluated],
    objective: tuple[str, str],
    minimise: bool = False,
    vectors: str | Iterable[str] = (),
    neuron_sets: Any = (),
    classes: Iterable[v1.SweptClasses] = (),
    layers: Layers | None = None,
    layers_together: bool = False,
    coefficients: Iterable[float] = (),
    factors: Iterable[float] = (),
    scopes: Iterable[Tokens] = (),
    guard: Iterable[v1.SweepBound] = (),
    random_directions: int = 0,
    seed: int = 0,
    system: str | None = None,
) -> v1.SteeringSweepSpec:
    """What `Client.steering_sweep` has a job do.

    Args:
        model: "models/ID".
        evaluations: by name what is measured at every point: `swept_responses`, or the request of `questionnaire_request`,
            `choices_request` or `tagged_request` of the same model without conditions.
        objective: (evaluation, measure) that the best point is chosen by, such as ("answers", "expressing_share").
        minimise: whether the smallest is best.
        vectors: "vectors/ID", one or several, added with each of `coefficients`.
        neuron_sets: "neuronSets/ID", "neuronSets/ID=shared" or filters, multiplied by each of `factors`.
        classes: `v1.SweptClasses`, multiplied likewise at each k and angle.
        layers: one at a time, or with `layers_together` at once. Default all that there are vectors for.
        coefficients: of vectors; 0 is the baseline, which is run anyway.
        factors: of neurons; 1 is the baseline.
        scopes: which tokens are changed, as an edit's `tokens`. Default from_last_prompt alone.
        guard: bounds that a point must keep to be chosen, such as
            `v1.SweepBound(evaluation="arithmetic", measure="accuracy", drop_at_most=0.05)`.
        random_directions: random directions or sets beside each subject, 0 .. 100, tuned over the same grid.
        seed: of these.
        system: the system message of every prompt. Default: each evaluation's own.
    """
    if not isinstance(evaluations, Mapping):
        raise TypeError(f"evaluations is {given.shown(evaluations)}; it must be a dict by name")
    chosen_by = given.strings(objective, "objective")
    if len(chosen_by) != 2:
        raise ValueError(f"objective is {given.shown(objective)}; it must be (evaluation, measure)")
    spec = v1.SteeringSweepSpec(
        model=model,
        vectors=given.strings(vectors, "vectors"),
        neuron_sets=to_set_filters(neuron_sets),
        classes=given.items(classes, "classes"),
        layers_together=layers_together,
        coefficients=given.items(coefficients, "coefficients"),
        factors=given.items(factors, "factors"),
        scopes=[to_tokens(scope) for scope in given.items(scopes, "scopes")],
        guard=given.items(guard, "guard"),
        objective=v1.SweepObjective(
            evaluation=chosen_by[0], measure=chosen_by[1], minimise=minimise
        ),
        random_directions=random_directions,
        seed=seed,
    )
    if layers is not None:
        spec.layers.CopyFrom(to_layers(layers))
    if system is not None:
        spec.system_message = system
    for name, one in evaluations.items():
        if type(one) not in _FIELDS:
            raise TypeError(
                f"evaluation {name!r} is {given.shown(one)}; make it by swept_responses or the "
                "request of an evaluation"
            )
        evaluation = spec.evaluations.add(name=name)
        request = getattr(evaluation, _FIELDS[type(one)])
        request.CopyFrom(one)
        # The sweep's own, which makers of requests ask for.
        if not isinstance(one, v1.SweptResponses) and one.model in ("", model):
            request.ClearField("model")
    return spec


@dataclasses.dataclass(frozen=True, repr=False)
class SteeringSweep:
    """What a sweep came to.

    Attributes:
        points: the baseline, then every point in the order of the grid, those of random directions among them.
        result: selections, warnings and provenance.
    """

    points: list[v1.SweepPoint]
    result: v1.SteeringSweepResult

    @classmethod
    def from_artifacts(cls, points: bytes, summary: bytes) -> SteeringSweep:
        """Of the artifacts "points" and "summary" that a job leaves."""
        lines = [json_format.Parse(line, v1.SweepPoint()) for line in points.splitlines()]
        return cls(lines, from_summary(summary, v1.SteeringSweepResult()))

    def point(self, name: str) -> v1.SweepPoint:
        """The point of that name; "baseline" is one."""
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(f"{name} is no point of the sweep")

    def selected(self, subject: str) -> v1.SweepSelection:
        """The best point of a subject, such as "vectors/ID", beside those of random directions."""
        for one in self.result.selected:
            if one.subject == subject:
                return one
        subjects = ", ".join(one.subject for one in self.result.selected)
        raise KeyError(f"{subject} was not swept; subjects are {subjects}")

    def values(self, evaluation: str, measure: str) -> Array:
        """A measure at every point [points], float64."""
        return np.array([_value(point, evaluation, measure) for point in self.points])

    def records(self) -> list[dict[str, Any]]:
        """One row a point, every column in every row: where it stands, "EVALUATION.MEASURE" with "_lower" and "_upper" where it
        has an interval, and the guard's verdict."""
        rows = []
        for point in self.points:
            row: dict[str, Any] = {
                "name": point.name,
                "subject": point.subject,
                "random": point.random if point.HasField("random") else None,
                "layers": list(point.layers),
                "coefficient": optional(point, "coefficient"),
                "factor": optional(point, "factor"),
                "scope": point.scope,
                "top_percent": optional(point, "top_percent"),
                "max_angle": optional(point, "max_angle"),
                "num_neurons": point.num_neurons,
            }
            for one in point.measures:
                name = f"{one.evaluation}.{one.measure}"
                row[name] = optional(one, "value")
                row[f"{name}_lower"] = optional(one, "lower")
                row[f"{name}_upper"] = optional(one, "upper")
            row |= {"passes": point.passes, "failed_bounds": ", ".join(point.failed_bounds)}
            rows.append(row)
        return rows

    def plot(self, evaluation: str, measure: str, axes: Any = None) -> Any:
        """A measure against coefficients or factors, a curve a subject, layer, scope, k and angle; hollow points break the guard, the
        grey band is that of all random directions and the dashed line the baseline. Returns matplotlib's axes."""
        axes = axes or new_axes(6.0, 3.4)
        own: dict[str, list[v1.SweepPoint]] = {}
        random: dict[float, list[float]] = {}
        for point in self.points[1:]:
            if point.HasField("random"):
                random.setdefault(_strength(point), []).append(_value(point, evaluation, measure))
            else:
                own.setdefault(_curve(point), []).append(point)
        if random:
            at = sorted(random)
            lower, upper = ([pick(random[x]) for x in at] for pick in (np.nanmin, np.nanmax))
            axes.fill_between(at, lower, upper, color=GREY, alpha=0.3, label="random directions")
        for number, (name, points) in enumerate(own.items()):
            points.sort(key=_strength)
            colour = COLOURS[number % len(COLOURS)]
            at = [_strength(point) for point in points]
            values = [_value(point, evaluation, measure) for point in points]
            axes.plot(at, values, color=colour, label=name)
            for x, y, point in zip(at, values, points, strict=True):
                axes.plot(
                    [x],
                    [y],
                    "o",
                    markersize=4,
                    color=colour,
                    mfc=colour if point.passes else "white",
                )
        baseline = _value(self.points[0], evaluation, measure)
        axes.axhline(baseline, color=COLOURS[2], linestyle="--", label="baseline")
        axes.set_xlabel("coefficient or factor")
        axes.set_ylabel(f"{evaluation}: {measure}")
        axes.legend(fontsize=8, frameon=False)
        return axes

    def __repr__(self) -> str:
        return (
            f"SteeringSweep({self.result.num_points} points, {self.result.num_passing} pass the guard, "
            f"{len(self.result.selected)} subjects)"
        )

    def _repr_html_(self) -> str:
        headings = ["subject", "best point", "value", "passing", "random mean", "p"]
        rows = [
            [
                one.subject,
                one.point,
                shown(optional(one, "value")),
                f"{one.num_passing} of {one.num_points}",
                shown(optional(one, "random_mean")),
                shown(optional(one, "p_value")),
            ]
            for one in self.result.selected
        ]
        return html.table(headings, rows, repr(self))


def _value(point: v1.SweepPoint, evaluation: str, measure: str) -> float:
    for one in point.measures:
        if (one.evaluation, one.measure) == (evaluation, measure):
            return optional(one, "value")
    raise KeyError(f"{evaluation}: {measure} is not measured")


def _strength(point: v1.SweepPoint) -> float:
    return point.coefficient if point.HasField("coefficient") else point.factor


def _curve(point: v1.SweepPoint) -> str:
    """What points on one curve have in common, which is all but the number that they are drawn against."""
    layers = list(point.layers)
    name = f"{point.subject} @{layers[0] if len(layers) == 1 else 'all'}"
    if point.HasField("top_percent"):
        name += f", k {point.top_percent:g}, {point.max_angle:g}°"
    return f"{name}, scope {point.scope}" if point.scope else name
