"""What a study says of a value's two vectors: how many responses they are of, their norms with intervals, how far they agree."""

from __future__ import annotations

from typing import Any

from .. import v1
from .layout import Cell, data_table, figure, folded, legend, paragraph, section, verbatim, warnings
from .numbers import Sentence, count, decimal, field, interval, percent
from .subjects import CONDITIONS, along
from .svg import Axis, Panel

# Planes that are drawn; the table has all.
_MOST_PLANES = 3


def responses_section(value: v1.StudiedValue, identity: str) -> str:
    """Answers that the vectors are made of, and the prompts that they are answers to."""
    rows = [
        [
            CONDITIONS[one.condition],
            count(one.num_responses),
            count(one.num_expressing),
            percent(one.expressing_share),
            interval(one.expressing_interval, percent),
            decimal(one.mean_tokens),
            count(one.num_empty),
            decimal(field(one, "label_mass")),
        ]
        for one in value.responses
    ]
    headings = [
        "condition",
        "answers",
        "expressing",
        "share",
        "95 % interval",
        "mean tokens",
        "empty",
    ]
    prompts: list[list[Cell]] = [
        [CONDITIONS[one.condition], one.system_message or "(empty)", verbatim(one.rendered)]
        for one in value.prompts
    ]
    return section(
        "Answers that the vectors are made of",
        identity,
        data_table([*headings, "label mass"], rows),
        folded(
            "Prompts as the model reads them",
            data_table(["condition", "system message", "prompt"], prompts),
        ),
    )


def vectors_section(value: v1.StudiedValue, layers: set[int], identity: str) -> str:
    """Norms, reliability and the agreement of the two vectors by layer.

    Args:
        layers: those that are steered.
    """
    if not value.vectors:
        return ""
    notes = [
        f"{CONDITIONS[vector.condition]}: {warning}"
        for vector in value.vectors
        for warning in vector.warnings
    ]
    return section(
        "The two vectors, layer by layer",
        identity,
        _norms(value),
        _cosines(value),
        _planes(value, layers),
        warnings([*notes, *value.decomposition.warnings]),
    )


def _layer_axis(entries: Any) -> Axis:
    return Axis.around([one.layer for one in entries], "layer (block)", whole=True)


def _norms(value: v1.StudiedValue) -> str:
    rows = [(CONDITIONS[v.condition], s) for v in value.vectors for s in v.statistics]
    statistics = [s for _, s in rows]
    tops = [s.norm_interval.upper for s in statistics if s.HasField("squared_norm_interval")]
    norms = Panel(
        "Norm",
        "Two lines over the layers, the norm of each vector, each with a band, the interval of the norm of the true vector.",
        _layer_axis(statistics),
        Axis.around([*(s.norm for s in statistics), *tops], "norm", zero=True),
    )
    agreement = Panel(
        "Reliability and AUROC",
        "Four lines over the layers: of each vector the reliability, solid, and the area under the ROC curve, dashed.",
        _layer_axis(statistics),
        Axis(0.0, 1.0, "reliability"),
    )
    for vector in value.vectors:
        colour = CONDITIONS[vector.condition]
        norms.band(
            [
                (s.layer, s.norm_interval.lower, s.norm_interval.upper)
                if s.HasField("squared_norm_interval")
                else (s.layer, None, None)
                for s in vector.statistics
            ],
            colour,
        )
        norms.line([(s.layer, s.norm) for s in vector.statistics], colour)
        for name, form in (("reliability", ""), ("auroc", " dashed")):
            agreement.line([(s.layer, field(s, name)) for s in vector.statistics], colour + form)
    table = data_table(
        [
            "vector",
            "layer",
            "norm",
            "true norm, 95 %",
            "norm / |x|",
            "reliability",
            "AUROC",
            "noise alone",
        ],
        [
            [
                name,
                count(s.layer),
                decimal(s.norm),
                interval(s.norm_interval, decimal) if s.HasField("squared_norm_interval") else "–",
                decimal(field(s, "relative_norm")),
                decimal(field(s, "reliability")),
                decimal(field(s, "auroc")),
                ("yes" if s.within_noise else "no") if s.HasField("within_noise") else "–",
            ]
            for name, s in rows
        ],
    )
    keys = legend(
        [
            ("line", "intrinsic", "intrinsic"),
            ("line", "prompted", "prompted"),
            ("band", "plain", "95 % interval of the true norm"),
            ("dashed", "plain", "AUROC on held-out answers"),
        ]
    )
    caption = (
        "A vector is the mean of the residual stream over answers that express the value, less that over the others. The line of "
        "the norm lies above its band where noise adds to it; where the band reaches zero, noise alone gives such a vector."
    )
    return figure(caption, [norms, agreement], table, keys)


def _cosines(value: v1.StudiedValue) -> str:
    layers = value.decomposition.layers
    if not layers:
        return ""
    floors = {one.layer: field(one, "noise_floor") for one in value.decomposition.cosines}
    cosine = Panel(
        "Cosine of the two vectors",
        "Two lines over the layers: the cosine of intrinsic and prompted vector, and the same with the noise in both taken out.",
        _layer_axis(layers),
        Axis.around(
            [
                *(one.cosine for one in layers),
                *(field(one, "disattenuated_cosine") for one in layers),
            ],
            "cosine",
            zero=True,
        ),
    )
    cosine.line([(one.layer, one.cosine) for one in layers], "shared")
    cosine.line(
        [(one.layer, field(one, "disattenuated_cosine")) for one in layers], "shared dashed"
    )
    kept = Panel(
        "Norm left after orthogonalising",
        "Two lines over the layers: the share of either norm that is left, and the share that noise alone would leave.",
        _layer_axis(layers),
        Axis(0.0, 1.0, "share", is_share=True),
    )
    kept.line([(one.layer, one.retained_norm_fraction) for one in layers], "delta")
    kept.line([(one.layer, floors.get(one.layer)) for one in layers], "random dashed")
    table = data_table(
        ["layer", "cosine", "without noise", "norm left", "noise alone leaves"],
        [
            [
                count(one.layer),
                decimal(one.cosine),
                decimal(field(one, "disattenuated_cosine")),
                percent(one.retained_norm_fraction),
                percent(floors.get(one.layer)),
            ]
            for one in layers
        ],
    )
    keys = legend(
        [
            ("line", "shared", "cosine"),
            ("dashed", "shared", "without the noise in both"),
            ("line", "delta", "norm left"),
            ("dashed", "random", "what noise alone leaves"),
        ]
    )
    caption = (
        "How much the two vectors share. What a vector keeps after orthogonalising on the other is its own only as far as it lies "
        "above what noise alone leaves."
    )
    return figure(caption, [cosine, kept], table, keys)


def _planes(value: v1.StudiedValue, layers: set[int]) -> str:
    planes = value.decomposition.planes
    chosen = _chosen_layers(value)
    first = sorted(layers, key=lambda layer: (layer not in chosen, layer))[:_MOST_PLANES]
    panels = [_plane(one) for one in planes if one.layer in first]
    if not panels:
        return ""
    table = data_table(
        ["layer", "intrinsic, shared", "intrinsic, unique", "prompted, shared", "prompted, unique"],
        [
            [
                count(p.layer),
                decimal(p.intrinsic_shared),
                decimal(p.intrinsic_difference),
                decimal(p.prompted_shared),
                decimal(p.prompted_difference),
            ]
            for p in planes
        ],
    )
    keys = legend(
        [
            ("line", "intrinsic", "intrinsic vector"),
            ("line", "prompted", "prompted vector"),
        ]
    )
    caption: Sentence = [
        "Both vectors in the plane that they span: to the right what they share, up and down what they do not. Drawn for some of "
        "the layers that were steered, those where the two steer best before others; the table has all."
    ]
    return figure(caption, panels, table, keys)


def _chosen_layers(value: v1.StudiedValue) -> set[int]:
    outcomes = [
        along(value, v1.STUDY_DIRECTION_INTRINSIC),
        along(value, v1.STUDY_DIRECTION_PROMPTED),
    ]
    return {layer for outcome in outcomes if outcome for layer in outcome.layers}


def _plane(plane: v1.StudyPlane) -> Panel:
    across = [plane.intrinsic_shared, plane.prompted_shared]
    along_difference = [plane.intrinsic_difference, plane.prompted_difference]
    reach = max(*(abs(n) for n in along_difference), 0.4 * max(abs(n) for n in across), 1e-9)
    panel = Panel(
        f"Layer {plane.layer}",
        "Two arrows from the origin: the intrinsic vector and the prompted one.",
        Axis.around(across, "along the shared axis", zero=True),
        Axis(-1.15 * reach, 1.15 * reach, "along the difference"),
    )
    panel.segment((panel.x.low, 0), (panel.x.high, 0), "plain thin")
    panel.segment((0, panel.y.low), (0, panel.y.high), "plain thin")
    panel.arrow(plane.intrinsic_shared, plane.intrinsic_difference, "intrinsic")
    panel.arrow(plane.prompted_shared, plane.prompted_difference, "prompted")
    return panel


def failed_section(value: v1.StudiedValue, identity: str) -> str:
    """Of a value without vectors, why."""
    return section(
        "No vectors",
        identity,
        paragraph("This value was not studied further."),
        warnings([value.failure]),
    )
