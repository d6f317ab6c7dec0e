"""Plots as inline SVG: axes and marks of one panel, in the page's colours, with a title and a description for those who do not see them.

A panel is as wide as a telephone and several stand beside each other on a wide page, so that letters have one size everywhere. Colours
are classes that the page's style gives a light and a dark shade. Names and numbers stand in tables beside the plot, axes carry ticks alone,
so that no text can lie on another.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

from .. import html

WIDTH = 340.0
HEIGHT = 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 10.0, 40.0
_ROW_HEIGHT = 24.0
_ROW_NAMES = 142.0

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of numbers and where it lies on the paper."""

    low: float
    high: float
    label: str
    is_share: bool = False
    whole: bool = False
    logarithmic: bool = False

    @staticmethod
    def around(
        numbers: Iterable[float | None], label: str, *, zero: bool = False, **more: bool
    ) -> Axis:
        """An axis that holds all numbers, with some air, and 0 where asked for."""
        known = [n for n in numbers if n is not None and math.isfinite(n)] + ([0.0] if zero else [])
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        air = 0.06 * (high - low) or max(0.5, 0.1 * abs(high))
        below = low if zero and low == 0 else low - air
        return Axis(below, high if zero and high == 0 else high + air, label, **more)

    def place(self, number: float) -> float:
        """0 at the low end, 1 at the high one; beyond it at the end."""
        low, high, at = self.low, self.high, number
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(at, self.low))
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def ticks(self, most: int) -> list[float]:
        """Round numbers, at most so many."""
        if self.logarithmic:
            powers = [2.0**k for k in range(math.ceil(math.log2(self.low)), 40)]
            inside = [p for p in powers if p <= self.high]
            return inside[:: max(1, math.ceil(len(inside) / most))]
        step = _step((self.high - self.low) / most, self.whole)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)][: most + 1]

    def written(self, tick: float) -> str:
        if self.is_share:
            return f"{100 * tick:.0f} %".replace("-", "−")
        return f"{tick:.4g}".replace("-", "−")


def _step(least: float, whole: bool) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= least - 1e-12)
    return max(1.0, math.ceil(step)) if whole else step


class Panel:
    """One plot: marks are added, `svg` gives it."""

    def __init__(
        self, title: str, description: str, x: Axis, y: Axis, height: float = HEIGHT
    ) -> None:
        self.title, self.description, self.x, self.y = title, description, x, y
        self._marks: list[str] = []
        self._height, self._left = height, _LEFT

    def at(self, x: float, y: float) -> Point:
        """Where numbers lie on the paper."""
        width = WIDTH - self._left - _RIGHT
        height = self._height - _TOP - _BOTTOM
        return self._left + width * self.x.place(x), _TOP + height * (1 - self.y.place(y))

    def line(self, points: Iterable[tuple[float, float | None]], kind: str) -> None:
        """A line that breaks where a number is missing."""
        for known, run in itertools.groupby(points, key=lambda p: _known(p[1])):
            if known:
                path = " ".join(_pair(self.at(x, y or 0.0)) for x, y in run)
                self._marks.append(f'<polyline class="line {kind}" points="{path}"/>')

    def band(self, bounds: Iterable[tuple[float, float | None, float | None]], kind: str) -> None:
        """The area between two lines."""
        for known, group in itertools.groupby(bounds, key=lambda b: _known(b[1], b[2])):
            if known:
                run = list(group)
                edge = [self.at(x, high or 0.0) for x, _, high in run]
                edge += [self.at(x, low or 0.0) for x, low, _ in reversed(run)]
                path = " ".join(_pair(place) for place in edge)
                self._marks.append(f'<polygon class="band {kind}" points="{path}"/>')

    def stripe(self, low: float, high: float, kind: str) -> None:
        """A range of x over the whole height."""
        left, top = self.at(low, self.y.high)
        right, bottom = self.at(high, self.y.low)
        width = max(1.0, right - left)
        self._marks.append(
            f'<rect class="band {kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}"/>'
        )

    def dot(
        self, x: float, y: float, kind: str, *, hollow: bool = False, ringed: bool = False
    ) -> None:
        """A point; hollow where it breaks the guard, ringed where it was chosen."""
        left, top = self.at(x, y)
        if ringed:
            self._marks.append(
                f'<circle class="ring {kind}" cx="{left:.1f}" cy="{top:.1f}" r="7.5"/>'
            )
        form = "hollow" if hollow else "dot"
        self._marks.append(
            f'<circle class="{form} {kind}" cx="{left:.1f}" cy="{top:.1f}" r="3.6"/>'
        )

    def bar(self, x: float, top: float, share: float, kind: str, bottom: float = 0.0) -> None:
        """A bar about x, `share` of a unit of x wide."""
        left, upper = self.at(x - share / 2, top)
        right, lower = self.at(x + share / 2, bottom)
        self._marks.append(
            f'<rect class="bar {kind}" x="{left:.1f}" y="{upper:.1f}" width="{right - left:.1f}" height="{max(0.0, lower - upper):.1f}"/>'
        )

    def segment(self, start: Point, end: Point, kind: str) -> None:
        """A straight line between two points, such as an interval or a level."""
        (x1, y1), (x2, y2) = self.at(*start), self.at(*end)
        self._marks.append(
            f'<line class="segment {kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )

    def arrow(self, x: float, y: float, kind: str) -> None:
        """An arrow from the origin."""
        (x1, y1), (x2, y2) = self.at(0, 0), self.at(x, y)
        self.segment((0, 0), (x, y), f"{kind} strong")
        turn = math.atan2(y2 - y1, x2 - x1)
        wings = [(x2 - 9 * math.cos(turn + a), y2 - 9 * math.sin(turn + a)) for a in (0.4, -0.4)]
        path = " ".join(_pair(place) for place in [(x2, y2), *wings])
        self._marks.append(f'<polygon class="head {kind}" points="{path}"/>')

    def name(self, x: float, y: float, text: str) -> None:
        """A short name about a place."""
        left, top = self.at(x, y)
        self._marks.append(_text(left, top + 3.5, text, "middle", "row"))

    def svg(self) -> html.Markup:
        """The whole, with its axes."""
        return _svg(
            self.title, self.description, self._height, "".join([*self._frame(), *self._marks])
        )

    def _frame(self) -> list[str]:
        right, bottom = WIDTH - _RIGHT, self._height - _BOTTOM
        parts = ['<g class="ticks">']
        for tick in self.y.ticks(5):
            _, y = self.at(self.x.low, tick)
            parts.append(f'<line x1="{self._left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_text(self._left - 6, y + 3.5, self.y.written(tick), "end"))
        parts += self._x_ticks(bottom)
        parts.append("</g>")
        middle = (self._left + right) / 2
        parts.append(_text(middle, self._height - 5, self.x.label, "middle", "label"))
        return parts

    def _x_ticks(self, bottom: float) -> list[str]:
        parts = []
        for tick in self.x.ticks(5):
            x, _ = self.at(tick, self.y.low)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(_text(x, bottom + 16, self.x.written(tick), "middle"))
        return parts


class Rows(Panel):
    """A plot of one row a thing: its name at the left, marks along x. Row k lies at y = k, from the top."""

    def __init__(self, title: str, description: str, x: Axis, names: Sequence[str]) -> None:
        y = Axis(len(names) - 0.5, -0.5, "")
        height = _TOP + _BOTTOM + _ROW_HEIGHT * len(names)
        super().__init__(title, description, x, y, height)
        self._names, self._left = names, _ROW_NAMES

    def interval(self, row: int, low: float, high: float, kind: str) -> None:
        """A line along a row."""
        self.segment((low, row), (high, row), kind)

    def _frame(self) -> list[str]:
        right, bottom = WIDTH - _RIGHT, self._height - _BOTTOM
        parts = ['<g class="ticks">']
        for tick in self.x.ticks(4):
            x, _ = self.at(tick, 0)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(_text(x, bottom + 16, self.x.written(tick), "middle"))
        parts.append("</g>")
        for row, name in enumerate(self._names):
            _, y = self.at(self.x.low, row)
            parts.append(_text(_ROW_NAMES - 12, y + 3.5, name, "end", "row"))
        parts.append(
            _text((self._left + right) / 2, self._height - 5, self.x.label, "middle", "label")
        )
        return parts


def _svg(title: str, description: str, height: float, content: str) -> html.Markup:
    return html.Markup(
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img"><title>{html.escape(title)}</title>'
        f"<desc>{html.escape(description)}</desc>{content}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    shown = html.escape(text)
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown}</text>'


def _pair(place: Point) -> str:
    return f"{place[0]:.1f},{place[1]:.1f}"


def _known(*numbers: float | None) -> bool:
    return all(n is not None and math.isfinite(n) for n in numbers)
