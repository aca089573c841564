"""Periodic tables of a run: how often an element was tried and got through, and what Tc its crystals are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from onnes.report.story import Run
from onnes.report.words import finite, show

#: Size of a cell in the units of the drawing.
_CELL = 36
#: Palest and darkest colour of a scale (red, green, blue).
_PALE, _BLUE, _RUST = (238, 242, 247), (13, 61, 105), (122, 40, 8)
#: Fewer crystals than this do not make a mean.
LEAST_FOR_MEAN = 2


class Count(NamedTuple):
    """Crystals of a run that hold an element."""

    entered: int
    hits: int
    predicted: int
    mean_tc_K: float | None


@dataclass(frozen=True)
class _Map:
    """One coloured table: title, words, value and small print of a cell, colour."""

    title: str
    caption: str
    values: dict[str, float]
    small: dict[str, str]
    dark: tuple[int, int, int]
    unit: str


def element_counts(run: Run) -> dict[str, Count]:
    """Count the crystals with each element: entered, candidates at the end, with a predicted Tc, and its mean."""
    final = {s.id for s in run.final}
    entered: dict[str, int] = {}
    hits: dict[str, int] = {}
    tc: dict[str, list[float]] = {}
    for story in run.stories:
        value = finite(story.numbers.get("tc_K"))
        for symbol in {str(s) for s in story.structure.get("species") or []}:
            entered[symbol] = entered.get(symbol, 0) + 1
            hits[symbol] = hits.get(symbol, 0) + (story.id in final)
            if value is not None:
                tc.setdefault(symbol, []).append(value)
    return {
        s: Count(n, hits[s], len(tc.get(s, ())), sum(tc[s]) / len(tc[s]) if s in tc else None)
        for s, n in entered.items()
    }


def maps(run: Run) -> str:
    """HTML of the two periodic tables; empty for a run without crystals."""
    counts = element_counts(run)
    if not counts:
        return ""
    drawn = "".join(f"<figure>{_draw(one)}</figure>" for one in (_hits(counts), _mean(counts)))
    return (
        '<section id="elements">\n<h2>Elements</h2>\n<p>Where this run looked and what it found there. '
        f'White cells were not met.</p>\n<div class="charts">{drawn}</div>\n</section>'
    )


def _hits(counts: dict[str, Count]) -> _Map:
    best = sorted((s for s in counts if counts[s].hits), key=lambda s: (-counts[s].hits, s))[:5]
    told = ", ".join(f"{s} {counts[s].hits:,} of {counts[s].entered:,}" for s in best)
    return _Map(
        "Candidates by element",
        f"Candidates of crystals that entered, each crystal counted once for every element. Most: {told or 'none'}.",
        {s: float(c.hits) for s, c in counts.items()},
        {
            s: f"{c.hits}/{c.entered}" if max(c.hits, c.entered) < 1000 else f"{c.hits}"
            for s, c in counts.items()
        },
        _BLUE,
        "candidates",
    )


def _mean(counts: dict[str, Count]) -> _Map:
    known = {
        s: c.mean_tc_K for s, c in counts.items() if c.predicted >= LEAST_FOR_MEAN and c.mean_tc_K is not None
    }
    best = sorted(known, key=lambda s: (-known[s], s))[:5]
    told = ", ".join(f"{s} {show(known[s], 1, 'K')} ({counts[s].predicted:,})" for s in best)
    return _Map(
        "Mean predicted Tc by element",
        f"Over all crystals that got as far as a prediction, refused ones included; elements with fewer than "
        f"{LEAST_FOR_MEAN} are left out. Highest: {told or 'none'}.",
        known,
        {s: f"{v:.1f}" for s, v in known.items()},
        _RUST,
        "K",
    )


def _draw(one: _Map) -> str:
    high = max(one.values.values(), default=0.0)
    cells = "".join(_cell(symbol, x, y, one, high) for symbol, x, y in _places())
    legend = "".join(
        f'<rect x="{4 * _CELL + 14 * k}" y="8" width="14" height="12" fill="{_colour(k / 9, one.dark)}"/>'
        for k in range(10)
    )
    ends = (
        f'<text class="key" x="{4 * _CELL - 5}" y="18" text-anchor="end">0</text>'
        f'<text class="key" x="{4 * _CELL + 145}" y="18">{escape(f"{high:.3g} {one.unit}")}</text>'
    )
    words = escape(f"{one.title}. {one.caption}")
    title = escape(one.title)
    return (
        f'<h3>{title}</h3><div class="scroll plain" tabindex="0" role="region" aria-label="{title}">'
        f'<svg class="elements" viewBox="0 0 {18 * _CELL} {int(9.5 * _CELL)}" role="img" aria-label="{words}">'
        f"{legend}{ends}{cells}</svg></div><figcaption>{escape(one.caption)}</figcaption>"
    )


def _cell(symbol: str, x: int, y: float, one: _Map, high: float) -> str:
    value = one.values.get(symbol)
    share = 0.0 if value is None or high <= 0 else max(value, 0.0) / high
    fill = "#fff" if value is None else _colour(share, one.dark)
    ink = "#fff" if share > 0.45 else "#22262c" if value is not None else "#9aa1ab"
    small = one.small.get(symbol, "")
    left, top = x * _CELL, y * _CELL
    middle = left + _CELL / 2
    return (
        f'<g fill="{ink}"><rect x="{left + 1}" y="{top + 1:g}" width="{_CELL - 2}" height="{_CELL - 2}" rx="2" '
        f'fill="{fill}" stroke="#dfe2e6"/>'
        f'<text class="symbol" x="{middle:g}" y="{top + 16:g}">{symbol}</text>'
        f'<text class="count" x="{middle:g}" y="{top + 29:g}">{escape(small)}</text></g>'
    )


def _colour(share: float, dark: Sequence[int]) -> str:
    """Mix of the palest and a dark colour; the root lets small counts show."""
    weight = min(max(share, 0.0), 1.0) ** 0.6
    mixed = (round(p + weight * (d - p)) for p, d in zip(_PALE, dark, strict=True))
    return "#" + "".join(f"{c:02x}" for c in mixed)


def _places() -> list[tuple[str, int, float]]:
    """Symbol, column and row of every element of the usual table; the f block stands below."""
    from ase.data import chemical_symbols

    found = []
    for z in range(1, 119):
        if 57 <= z <= 71 or 89 <= z <= 103:
            first, row = (57, 7.4) if z < 80 else (89, 8.4)
            found.append((chemical_symbols[z], 2 + z - first, row))
            continue
        starts = (1, 3, 11, 19, 37, 55, 87)
        row = max(k for k, start in enumerate(starts) if z >= start)
        place = z - starts[row]
        if row == 0:
            column = 17 * place
        elif row <= 2:
            column = place if place < 2 else place + 10
        elif row <= 4:
            column = place
        else:
            column = place if place < 2 else place - 14
        found.append((chemical_symbols[z], column, float(row)))
    return found
