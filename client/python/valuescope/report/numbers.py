"""Numbers of a result as a reader meets them: rounded in one way, each with its unrounded value beside it.

On a page a number is `<data value="0.41372">41 %</data>`, so that whoever doubts one finds it in the machine-readable results, and a test
finds all of them. A sentence is a list of texts and numbers that becomes plain text for a console or HTML for a page.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

from .. import html, v1

# Numbers above it are counts that one reads in groups of three.
_GROUPED = 10_000
ROUNDING = (
    "Numbers are rounded: shares to whole per cent, p-values to two digits, all others to about three. The unrounded number is "
    "in the page's source beside each, and in the machine-readable results."
)
_MISSING = "–"
# A space at which no line breaks.
JOINED = "\u00a0"
_SMALL = (
    "none one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
).split()
_TENS = "none ten twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclasses.dataclass(frozen=True)
class Number:
    """A number and how it is written."""

    value: float
    write: Callable[[float], str]

    def __str__(self) -> str:
        return self.write(self.value)

    @property
    def html(self) -> html.Markup:
        return html.Markup(f'<data value="{self.value!r}">{self}</data>')


Part = str | Number
Sentence = list[Part]


def plain(sentence: Iterable[Part]) -> str:
    """A sentence for a console."""
    return "".join(str(part) for part in sentence).replace(JOINED, " ")


def marked_up(sentence: Part | Iterable[Part]) -> html.Markup:
    """A sentence, text or number for a page; texts are escaped."""
    if isinstance(sentence, Number):
        return sentence.html
    if isinstance(sentence, html.Markup):
        return sentence
    if isinstance(sentence, str):
        return html.Markup(html.escape(sentence))
    return html.Markup("".join(marked_up(part) for part in sentence))


def count(value: float) -> Number:
    """A whole number."""
    return Number(value, lambda v: f"{v:,.0f}".replace(",", "\u202f" if v >= _GROUPED else ""))


def decimal(value: float | None) -> Part:
    """About three digits."""
    return _number(value, _decimal)


def signed(value: float | None) -> Part:
    """A difference."""
    return _number(value, lambda v: _with_sign(v, _decimal(abs(v))))


def percent(value: float | None) -> Part:
    """A share."""
    return _number(value, lambda v: f"{_hundredth(v)}{JOINED}%")


def points(value: float | None) -> Part:
    """A difference of shares, in percentage points."""
    return _number(value, lambda v: _with_sign(v, _hundredth(abs(v))))


def p_value(value: float | None) -> Part:
    """A probability, two digits."""
    return _number(value, lambda v: f"{v:.1g}" if v < 0.001 else f"{v:.2g}")


def interval(bounds: v1.Interval, write: Callable[[float], Part]) -> Sentence:
    """ "a to b"."""
    return [write(bounds.lower), f"{JOINED}to{JOINED}", write(bounds.upper)]


def field(message: Any, name: str) -> float | None:
    """A field's number; None where it is unset."""
    return float(getattr(message, name)) if message.HasField(name) else None


def in_words(number: int) -> str:
    """A number below a hundred that counts what the page itself shows, in words."""
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    if tens >= 10:
        return "a hundred or more"
    return _TENS[tens] + (f"-{_SMALL[ones]}" if ones else "")


def _number(value: float | None, write: Callable[[float], str]) -> Part:
    return _MISSING if value is None or not math.isfinite(value) else Number(value, write)


def _decimal(value: float) -> str:
    size = abs(value)
    if value == round(value):
        text = f"{value:.0f}"
    elif size < 0.0005:
        text = f"{value:.1e}"
    else:
        text = f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return text.replace("-", "−")


def _hundredth(share: float) -> str:
    hundred = 100 * share
    text = f"{hundred:.1f}" if 0 < abs(hundred) < 1 else f"{hundred:.0f}"
    return text.replace("-", "−")


def _with_sign(value: float, size: str) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + size
