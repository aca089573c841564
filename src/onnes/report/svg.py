"""Small charts as inline SVG: sharp in print, readable on a phone, drawn without JavaScript.

A chart is about as wide as a phone's column, so that its letters keep their size there. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

#: Width and height in the units of the drawing, and room for labels: left, right, top, bottom.
WIDTH, HEIGHT = 340.0, 220.0
MARGINS = (46.0, 10.0, 12.0, 38.0)
#: Letters of a word below the axis; more would run into its neighbours.
LONGEST_TICK = 10


@dataclass(frozen=True)
class Axis:
    """Range and label of an axis; `ticks` are places with their words."""

    low: float
    high: float
    label: str
    ticks: tuple[tuple[float, str], ...] = ()

    @classmethod
    def over(cls, low: float, high: float, label: str, count: int = 5) -> Axis:
        """Axis that holds a range, with round numbers at its ticks."""
        if not high > low:
            high = low + (abs(low) or 1.0)
        step = round_step((high - low) / count)
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        ticks = tuple((k * step, f"{k * step:.{digits}f}".replace("-", "−")) for k in range(first, last + 1))
        return cls(low, high, label, ticks)


def round_step(rough: float) -> float:
    """The number 1, 2 or 5 times a power of ten next above a positive one."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))


@dataclass
class Plot:
    """A chart under construction; `svg` gives its text.

    Parameters
    ----------
    x, y : Axis
    label : str
        What a reader who sees no picture is told.
    width, height : float
    """

    x: Axis
    y: Axis
    label: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = MARGINS[0]
    parts: list[str] = field(default_factory=list)

    @property
    def _box(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the area of the data."""
        return self.left, self.width - MARGINS[1], MARGINS[2], self.height - MARGINS[3]

    def at_x(self, value: float) -> float:
        """Horizontal place of a value."""
        left, right, _, _ = self._box
        return left + (right - left) * (value - self.x.low) / (self.x.high - self.x.low)

    def at_y(self, value: float) -> float:
        """Vertical place of a value."""
        _, _, top, bottom = self._box
        return bottom - (bottom - top) * (value - self.y.low) / (self.y.high - self.y.low)

    def line(self, xs: Sequence[float | None], ys: Sequence[float | None], style: str) -> None:
        """A line; it breaks where a value is missing."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if x is None or y is None:
                pen = "M"
                continue
            path.append(f"{pen}{self.at_x(x):.1f} {self.at_y(y):.1f}")
            pen = "L"
        if path:
            self.parts.append(f'<path class="{style}" d="{"".join(path)}"/>')

    def area(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], style: str) -> None:
        """The area between two lines."""
        there = [f"{self.at_x(x):.1f} {self.at_y(y):.1f}" for x, y in zip(xs, high, strict=True)]
        back = [f"{self.at_x(x):.1f} {self.at_y(y):.1f}" for x, y in zip(xs, low, strict=True)]
        self.parts.append(f'<path class="{style}" d="M{"L".join(there + back[::-1])}Z"/>')

    def upright(self, x: float, style: str = "rule") -> None:
        """A vertical line through the area of the data."""
        _, _, top, bottom = self._box
        at = self.at_x(x)
        self.parts.append(f'<path class="{style}" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>')

    def level(self, y: float, style: str = "rule") -> None:
        """A horizontal line through the area of the data."""
        left, right, _, _ = self._box
        at = self.at_y(y)
        self.parts.append(f'<path class="{style}" d="M{left:.1f} {at:.1f}H{right:.1f}"/>')

    def mark(self, x: float, y: float, style: str) -> None:
        """A dot."""
        self.parts.append(f'<circle class="{style}" cx="{self.at_x(x):.1f}" cy="{self.at_y(y):.1f}" r="4"/>')

    def word(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        """A text at a place of the data."""
        self.parts.append(_text(self.at_x(x), self.at_y(y), text, style, anchor))

    def svg(self, style: str = "") -> str:
        """The chart with its axes."""
        left, right, top, bottom = self._box
        axes = [f'<path class="axis" d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}"/>']
        for value, name in self.x.ticks:
            words = _cut(name)
            axes.append(_text(self.at_x(value), bottom + 14, words, "tick", "middle"))
        for value, name in self.y.ticks:
            words = _cut(name)
            axes.append(_text(left - 5, self.at_y(value) + 4, words, "tick", "end"))
            axes.append(f'<path class="axis" d="M{left - 3:.1f} {self.at_y(value):.1f}h3"/>')
        axes.append(_text((left + right) / 2, self.height - 6, self.x.label, "name", "middle"))
        if self.y.label:
            middle = (top + bottom) / 2
            turned = f' transform="rotate(-90 11 {middle:.1f})"'
            axes.append(_text(11, middle, self.y.label, "name", "middle", turned))
        kind = f"plot {style}".strip()
        return (
            f'<svg class="{kind}" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{escape(self.label)}">{"".join(self.parts)}{"".join(axes)}</svg>'
        )


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_TICK else name[: LONGEST_TICK - 1] + "…"


def _text(x: float, y: float, words: str, style: str, anchor: str, more: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
