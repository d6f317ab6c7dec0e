"""The pieces that a page is put together from: figures with what stands in for them, tables, legends, notes.

Everything that comes from a result is text or a `Number` and is escaped here; pieces are `Markup`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import html
from .numbers import Part, marked_up
from .svg import Panel

Cell = Part | Iterable[Part]


def data_table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> html.Markup:
    """A table that scrolls sideways where it is wider than the page."""
    cells = [[marked_up(cell) for cell in row] for row in rows]
    made = html.table(headings, cells, cell_style="")
    return html.Markup(
        f'<div class="wide" tabindex="0" role="region" aria-label="Table">{made}</div>'
    )


def verbatim(text: str) -> html.Markup:
    """Text of a machine, letter for letter."""
    return html.Markup(f"<code>{html.escape(text)}</code>")


def folded(summary: str, content: str) -> html.Markup:
    """What is shown on demand."""
    return html.Markup(f"<details><summary>{html.escape(summary)}</summary>{content}</details>")


def legend(entries: Iterable[tuple[str, str, Cell]]) -> html.Markup:
    """What marks mean: form ("line", "band", "dot", ...), colour, name."""
    keys = "".join(
        f'<li><i class="key-{form} {colour}"></i>{marked_up(name)}</li>'
        for form, colour, name in entries
    )
    return html.Markup(f'<ul class="legend">{keys}</ul>')


def figure(
    caption: Cell,
    panels: Iterable[Panel],
    table: str,
    keys: str = "",
) -> html.Markup:
    """Panels side by side under one caption, with the numbers in a table."""
    drawn = "".join(
        f'<div class="panel"><h4>{html.escape(panel.title)}</h4>{panel.svg()}</div>'
        for panel in panels
    )
    return html.Markup(
        f'<figure>{keys}<div class="panels">{drawn}</div><figcaption>{marked_up(caption)}</figcaption>'
        f"{folded('The numbers', table)}</figure>"
    )


def paragraph(sentence: Cell, kind: str = "") -> html.Markup:
    css = f' class="{kind}"' if kind else ""
    return html.Markup(f"<p{css}>{marked_up(sentence)}</p>")


def warnings(sentences: Iterable[str]) -> html.Markup:
    """Sentences that a reader of the numbers should know; nothing where there are none."""
    items = "".join(f"<li><q>{html.escape(one)}</q></li>" for one in sentences)
    return html.Markup(f'<ul class="warnings">{items}</ul>' if items else "")


def section(title: str, identity: str, *pieces: str) -> html.Markup:
    """A part of the page; nothing where it has no pieces."""
    content = "".join(pieces)
    if not content:
        return html.Markup("")
    return html.Markup(f'<section id="{identity}"><h3>{html.escape(title)}</h3>{content}</section>')
