"""A value study as one HTML file: no script, nothing from elsewhere, light and dark, from a telephone to a wide screen."""

from __future__ import annotations

import importlib.resources
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from .. import html, v1
from .across import across_section, paper_section
from .answers import answers_section
from .choosing import choosing_section
from .findings import sentences
from .layout import Cell, data_table, folded, paragraph, section, verbatim, warnings
from .neurons import neurons_section
from .numbers import ROUNDING, Part, count, marked_up
from .steering import costs_section, languages_section, outcomes_section
from .vectors import failed_section, responses_section, vectors_section

Results = v1.ValueStudyResult | Mapping[str, Any] | str | bytes


def study_report(results: Results, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report of a value study, whole or not at all; returns where it is.

    Args:
        results: the artifact of role "results" of a job of kind value_study: its bytes or text (JSON), what that parses to, or the
            message.
        path: of the HTML file, whose folder exists.
    """
    place = pathlib.Path(path)
    partial = place.with_name(f".{place.name}.partial")
    partial.write_text(study_page(results), "utf-8")
    os.replace(partial, place)
    return place


def study_page(results: Results) -> str:
    """The same as text."""
    found = to_results(results)
    named = ", ".join(value.value for value in found.values)
    bodies = [_value(found, value, number) for number, value in enumerate(found.values, start=1)]
    style = (importlib.resources.files(__package__) / "style.css").read_text("utf-8")
    title = f"{named}: a value study"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>"
        f"{_header(found)}<main>{''.join(bodies)}{_together(found)}</main>{_footer()}</body></html>\n"
    )


def to_results(results: Results) -> v1.ValueStudyResult:
    """The message, of whatever holds it."""
    if isinstance(results, v1.ValueStudyResult):
        return results
    fields = json.loads(results) if isinstance(results, (str, bytes)) else results
    # A later server may tell more than this page shows.
    return json_format.ParseDict(fields, v1.ValueStudyResult(), ignore_unknown_fields=True)


def _header(results: v1.ValueStudyResult) -> str:
    names = [value.value for value in results.values]
    listed = (
        ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + (names[-1] if names else "")
    )
    cards = "".join(f"<li>{marked_up(sentence)}</li>" for sentence in sentences(results))
    links = "".join(
        f'<a href="#{identity}">{html.escape(name)}</a>' for identity, name in _places(results)
    )
    model = results.provenance.model.removeprefix("models/")
    return (
        f'<header><p class="eyebrow">Value study · {html.escape(model)}</p>'
        f"<h1>{html.escape(listed[:1].upper() + listed[1:])}, intrinsic and prompted</h1>"
        f'<ol class="findings">{cards}</ol><nav aria-label="Parts">{links}</nav></header>'
    )


def _places(results: v1.ValueStudyResult) -> list[tuple[str, str]]:
    values = [
        (f"value-{number}", value.value) for number, value in enumerate(results.values, start=1)
    ]
    several = [("across", "Across values")] if results.mean_deltas else []
    paper = [("paper", "Against the paper")] if results.paper else []
    return [*values, *several, *paper, ("limits", "What it can say"), ("provenance", "Provenance")]


def _value(results: v1.ValueStudyResult, value: v1.StudiedValue, number: int) -> str:
    identity = f"value-{number}"
    steered = {layer.layer for layer in results.layers if layer.steered}
    if value.failure:
        parts = [
            failed_section(value, f"{identity}-failure"),
            responses_section(value, f"{identity}-answers"),
        ]
    else:
        parts = [
            outcomes_section(value, f"{identity}-steering"),
            answers_section(value, f"{identity}-texts"),
            costs_section(value, f"{identity}-costs"),
            languages_section(value, f"{identity}-languages"),
            choosing_section(value, f"{identity}-choosing"),
            responses_section(value, f"{identity}-answers"),
            vectors_section(value, steered, f"{identity}-vectors"),
            neurons_section(value, f"{identity}-neurons"),
        ]
    name = html.escape(value.value.capitalize())
    return f'<div class="value" id="{identity}"><h2>{name}</h2>{warnings(value.warnings)}{"".join(parts)}</div>'


def _together(results: v1.ValueStudyResult) -> str:
    return "".join(
        [
            across_section(results, "across"),
            paper_section(results, "paper"),
            _limits(results),
            _provenance(results),
        ]
    )


def _limits(results: v1.ValueStudyResult) -> str:
    said: list[Cell] = [
        [
            "Results are on ",
            count(results.num_test_queries),
            " queries that nothing was chosen on; layers and strengths were chosen on ",
            count(results.num_development_queries),
            " others, so that a chosen point is not flattered by its own luck.",
        ],
        [
            "Intervals speak of other queries like these. Of other system messages, seeds, word lists and models they say nothing.",
        ],
        [
            "Adjusted p-values are held against ",
            count(results.num_comparisons),
            " comparisons. Those against random directions cannot be below one in one more than their number, ",
            count(results.num_random_directions),
            ".",
        ],
        [
            "A judge that is a word list finds words. An answer may hold a value without a word of the list, or a word without the "
            "value; the answers side by side are there to be read.",
        ],
        [
            "Where the guard breaks, answers are no longer those of the model that one set out to study, and whatever is measured on "
            "them says little.",
        ],
    ]
    return section(
        "What this sample can say, and what it cannot",
        "limits",
        warnings(results.warnings),
        *(paragraph(sentence) for sentence in said),
    )


def _provenance(results: v1.ValueStudyResult) -> str:
    told = results.provenance
    dtype = v1.DataType.Name(told.compute_dtype).removeprefix("DATA_TYPE_").lower()
    site = v1.Site.Name(told.site).removeprefix("SITE_").lower().replace("_", " ")
    texts = {
        "model": told.model,
        "weights": told.model_digest,
        "tokenizer": told.tokenizer_digest,
        "chat template": told.template_digest,
        "activations": site if told.site else "",
        "a layer's number": told.layer_convention,
        "sign": told.sign_rule,
        "judge": told.judge,
        "computed in": f"{dtype} on {told.hardware_class}",
        "repeats": told.determinism,
        "seeds": ", ".join(str(seed) for seed in told.seeds),
    }
    rows: list[list[Part | html.Markup]] = [
        [name, verbatim(text)] for name, text in texts.items() if text
    ]
    rows += [
        ["queries in all", count(results.num_queries)],
        ["format of the results", count(results.format_version)],
    ]
    inputs = [[one.name, verbatim(one.digest)] for one in told.inputs]
    options = f"<pre>{verbatim(_indented(told.options))}</pre>"
    return section(
        "Where the numbers come from",
        "provenance",
        data_table(["of", "is"], rows),
        folded("Inputs by digest", data_table(["input", "SHA-256"], inputs)) if inputs else "",
        folded("What was asked for", options) if told.options else "",
    )


def _indented(options: str) -> str:
    try:
        return json.dumps(json.loads(options), indent=2, ensure_ascii=False)
    except json.JSONDecodeError:
        return options


def _footer() -> str:
    return (
        f"<footer>{paragraph(ROUNDING)}<p>The method is that of Han, Lim, Kong and Jo, "
        "<cite>Dual Mechanisms of Value Expression: Intrinsic vs. Prompted Values in Large Language Models</cite>, "
        "<code>arXiv 2509.24319</code>.</p></footer>"
    )
