"""The charts of a report: distributions beside the training set's, and Tc against distance to the hull."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnes.report.story import LedgerLike, Run, Story, read_run
from onnes.report.tables import formula_of
from onnes.report.words import finite, show, subscript_text

RUN, TRAINING, OTHER, INK = "#1d5b8f", "#c9ccd1", "#9aa1ab", "#2b2f36"
_BINS = 24
#: Most candidates that are drawn with error bars; more would cover each other.
_ERROR_BARS = 60
#: Most screened-out crystals that are drawn; more hide each other and make the page heavy.
_MOST_REFUSED = 1500


@dataclass(frozen=True)
class Chart:
    """A plotly figure as plain data, its title, and a caption that says the same in words."""

    key: str
    title: str
    spec: dict[str, Any]
    caption: str


#: Histograms: number in the ledger, title, axis label, digits of the median in the caption, unit.
HISTOGRAMS = (
    ("tc_K", "Critical temperature", "predicted T<sub>c</sub> (K)", 1, "K"),
    ("density_g_cm3", "Density", "density (g/cm³)", 1, "g/cm³"),
    ("packing_fraction", "Packing fraction", "packing fraction", 2, ""),
)


@cache
def training_distributions() -> dict[str, Any]:
    """Read the shipped histograms of the training set; empty when this installation has none."""
    path = files("onnes.pretrained").joinpath("training_distributions.json")
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def charts(ledger: LedgerLike | Run, training: dict[str, Any] | None = None) -> list[Chart]:
    """All charts of a run.

    Parameters
    ----------
    ledger : Ledger
        Ledger of the run.
    training : dict, optional
        Histograms of the training set; by default the shipped ones.
    """
    run = read_run(ledger)
    reference = training_distributions() if training is None else training
    drawn = []
    for key, title, axis, digits, unit in HISTOGRAMS:
        values = [v for s in run.stories if (v := finite(s.numbers.get(key))) is not None]
        drawn.append(histogram(key, title, axis, values, reference.get(key), digits=digits, unit=unit))
    drawn.append(pareto(run))
    return drawn


def histogram(
    key: str,
    title: str,
    axis: str,
    values: Sequence[float],
    reference: dict[str, Any] | None,
    *,
    digits: int,
    unit: str,
) -> Chart:
    """Histogram of the run's values over the training set's, both as shares of their own total."""
    data = np.asarray(values, dtype=float)
    known = _reference(reference)
    edges, counts = _bins(data, known)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    traces: list[dict[str, Any]] = []
    words = []
    shares = np.histogram(data, edges)[0] / max(len(data), 1)
    if len(data):
        beyond = len(data) - round(float(shares.sum()) * len(data))
        hidden = f" ({beyond:,} of them outside the range shown)" if beyond else ""
        middle_words = show(float(np.median(data)), digits, unit)
        words.append(
            f"Run: {len(data):,} crystal{'' if len(data) == 1 else 's'}{hidden}, median {middle_words}."
        )
    else:
        words.append("No crystal of this run got as far as this number.")
    if counts is not None and known is not None:
        # What lies beyond the last bin drawn still counts towards the total and the median.
        total = known[1].sum()
        traces.append(_bars("training set", middle, width, counts / total, TRAINING))
        words.append(
            f"Training set: {int(total):,} crystals, median {show(_binned_median(*known), digits, unit)}."
        )
    else:
        words.append("The distribution of the training set is not part of this installation.")
    if len(data):
        traces.append(_steps("this run", edges, shares))
    layout = _layout(axis, "share of crystals")
    layout["yaxis"].update(tickformat=",.0%", rangemode="tozero")
    if not traces:
        layout = {}
    return Chart(key, title, {"data": traces, "layout": layout}, " ".join(words))


def pareto(ledger: LedgerLike | Run) -> Chart:
    """Predicted Tc against energy above the hull; the front joins crystals that no other one beats in both."""
    run = read_run(ledger)
    final = {s.id for s in run.final}
    placed = [s for s in run.stories if _pair(s) is not None]
    chosen = [s for s in placed if s.id in final]
    trusted = [s for s in chosen if s.numbers.get("in_domain") is not False]
    doubtful = [s for s in chosen if s.numbers.get("in_domain") is False]
    refused = [s for s in placed if s.id not in final]
    stride = -(-len(refused) // _MOST_REFUSED) or 1
    traces = []
    if refused:
        refused = refused[::stride]
        traces.append(_points("screened out", refused, {"color": OTHER, "size": 6, "opacity": 0.55}))
    if len(chosen) > 1:
        traces.append(_front(chosen))
    if doubtful:
        mark = {"color": "#ffffff", "size": 9, "line": {"color": RUN, "width": 1.6}}
        traces.append(_points("outside domain", doubtful, mark))
    if trusted:
        traces.append(_points("candidate", trusted, {"color": RUN, "size": 9}))
    layout = _layout("energy above the hull (eV/atom)", "predicted T<sub>c</sub> (K)")
    layout["yaxis"]["rangemode"] = "tozero"
    layout["hovermode"] = "closest"
    missing = len(final) - len(chosen)
    words = "Best is top left: a high critical temperature and little or no energy above the hull."
    if not placed:
        words = (
            "No crystal of this run has both a predicted critical temperature and an energy above the hull."
        )
    if stride > 1:
        words += f" Of the crystals screened out one in {stride:,} is drawn."
    if missing:
        words += f" {missing:,} candidate{'' if missing == 1 else 's'} with unknown energy above the hull not shown."
    return Chart(
        "pareto",
        "Critical temperature against stability",
        {"data": traces, "layout": layout if traces else {}},
        words,
    )


def _pair(story: Story) -> tuple[float, float] | None:
    hull, tc = finite(story.numbers.get("e_hull_eV_atom")), finite(story.numbers.get("tc_K"))
    return None if hull is None or tc is None else (hull, tc)


def _points(name: str, stories: list[Story], marker: dict[str, Any]) -> dict[str, Any]:
    pairs = np.asarray([_pair(s) for s in stories], dtype=float)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": _list(pairs[:, 0]),
        "y": _list(pairs[:, 1]),
        "marker": marker,
        "text": [html.escape(subscript_text(formula_of(s))) for s in stories],
        "customdata": [s.id for s in stories],
        "hovertemplate": "<b>%{text}</b><br>T<sub>c</sub> %{y:.1f} K<br>%{x:.3f} eV/atom<extra></extra>",
    }
    ends = [(finite(s.numbers.get("tc_low_K")), finite(s.numbers.get("tc_high_K"))) for s in stories]
    if marker["size"] > 6 and len(stories) <= _ERROR_BARS:
        up = [
            0.0 if high is None else max(high - y, 0.0)
            for (_, high), y in zip(ends, pairs[:, 1], strict=True)
        ]
        down = [
            0.0 if low is None else max(y - low, 0.0) for (low, _), y in zip(ends, pairs[:, 1], strict=True)
        ]
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": _list(up),
            "arrayminus": _list(down),
            "color": "rgba(29,91,143,0.35)",
            "thickness": 1.2,
            "width": 0,
        }
    return trace


def _front(stories: list[Story]) -> dict[str, Any]:
    """Line through the crystals for which no other has both a higher Tc and a lower hull energy."""
    pairs = sorted((p for s in stories if (p := _pair(s)) is not None), key=lambda p: (p[0], -p[1]))
    front: list[tuple[float, float]] = []
    for hull, tc in pairs:
        if not front or tc > front[-1][1]:
            front.append((hull, tc))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best compromise",
        "x": _list([p[0] for p in front]),
        "y": _list([p[1] for p in front]),
        "line": {"color": "#b45309", "width": 1.5, "dash": "dot", "shape": "hv"},
        "hoverinfo": "skip",
    }


def _reference(reference: dict[str, Any] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Edges and counts of a usable reference histogram, else None."""
    try:
        edges = np.asarray((reference or {})["edges"], dtype=float)
        counts = np.asarray((reference or {})["counts"], dtype=float)
    except (KeyError, TypeError, ValueError):
        return None
    usable = len(edges) == len(counts) + 1 >= 2 and counts.sum() > 0 and bool(np.all(np.diff(edges) > 0))
    return (edges, counts) if usable else None


def _bins(
    data: NDArray[np.float64], known: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Edges that hold the run's values and nearly all of the training set, about `_BINS` of them.

    Bins of the training set are merged in equal groups, never split: its single values are not shipped.
    """
    if known is None:
        if not len(data):
            return np.array([0.0, 1.0]), None
        low, high = float(data.min()), float(data.max())
        pad = 0.0 if high > low else max(abs(high) * 0.05, 0.5)
        return np.linspace(low - pad, high + pad, min(_BINS, max(6, len(data) // 3)) + 1), None
    edges, counts = known
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, 1e-3))
    last = int(np.searchsorted(share, 0.999)) + 1
    if len(data):
        first = min(first, max(int(np.searchsorted(edges, data.min(), "right")) - 1, 0))
        last = max(last, min(int(np.searchsorted(edges, data.max(), "right")), len(counts)))
    group = max(1, round((last - first) / _BINS))
    picks = np.arange(first, len(edges), group)
    picks = picks[: int(np.searchsorted(picks, last)) + 1]
    merged = np.add.reduceat(counts, picks[:-1])[: len(picks) - 1].astype(float)
    merged[-1] = counts[picks[-2] : picks[-1]].sum()
    chosen = edges[picks]
    width = chosen[-1] - chosen[-2]
    # The reference ends where its own data end; the run may lie outside.
    extra_low = max(0, int(np.ceil((chosen[0] - data.min()) / width))) if len(data) else 0
    extra_high = max(0, int(np.floor((data.max() - chosen[-1]) / width)) + 1) if len(data) else 0
    extra_high = extra_high if len(data) and data.max() > chosen[-1] else 0
    extra_low, extra_high = min(extra_low, 4 * _BINS), min(extra_high, 4 * _BINS)
    below = chosen[0] - width * np.arange(extra_low, 0, -1)
    above = chosen[-1] + width * np.arange(1, extra_high + 1)
    full = np.concatenate([below, chosen, above])
    return full, np.concatenate([np.zeros(extra_low), merged, np.zeros(extra_high)])


def _binned_median(edges: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Median read off a histogram by linear interpolation inside its bin."""
    running = np.concatenate([[0.0], np.cumsum(counts)])
    return float(np.interp(running[-1] / 2, running, edges))


def _bars(
    name: str,
    middle: NDArray[np.float64],
    width: NDArray[np.float64],
    shares: NDArray[np.float64],
    colour: str,
) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": _list(middle),
        "y": _list(shares),
        "width": _list(width),
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": "%{x:.3g}: %{y:.1%}<extra>" + name + "</extra>",
    }


def _steps(name: str, edges: NDArray[np.float64], shares: NDArray[np.float64]) -> dict[str, Any]:
    """Outline of a histogram, so that the bars behind it stay visible."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": _list(np.repeat(edges, 2)),
        "y": _list(np.concatenate([[0.0], np.repeat(shares, 2), [0.0]])),
        "line": {"color": RUN, "width": 2},
        "fill": "tozeroy",
        "fillcolor": "rgba(29,91,143,0.14)",
        "hovertemplate": "%{x:.3g}: %{y:.1%}<extra>" + name + "</extra>",
    }


def _layout(x: str, y: str) -> dict[str, Any]:
    axis = {
        "showline": True,
        "linecolor": "#8a9099",
        "ticks": "outside",
        "tickcolor": "#8a9099",
        "gridcolor": "#eceef1",
        "zeroline": False,
        "fixedrange": True,
        "automargin": True,
    }
    return {
        "margin": {"l": 52, "r": 10, "t": 34, "b": 44},
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "size": 12,
            "color": INK,
        },
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "xaxis": {**axis, "title": {"text": x, "standoff": 8}, "showgrid": False},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False},
        "hovermode": "x",
        "dragmode": False,
        "bargap": 0,
    }


def _list(values: Any) -> list[float]:
    """Plain numbers with six significant digits: enough for a screen, and a smaller page."""
    return [float(f"{float(v):.6g}") for v in values]
