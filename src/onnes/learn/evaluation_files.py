"""An evaluation as JSON values, csv files and figures."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.data.files import atomic_text
from onnes.learn.evaluate import Evaluation
from onnes.learn.marks import CLEAN
from onnes.learn.retrieval import Curve
from onnes.theory.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1d5b8f", "#c05a1c", "#8a919b"
#: Recalls at which the precision is listed.
RECALLS = (0.15, 0.43, 0.5, 0.8)


def to_dict(found: Evaluation) -> dict[str, Any]:
    """As JSON values (NaN and infinities as null), without the rows: those are in the csv."""
    out: dict[str, Any] = {
        "model": found.model,
        "words": found.words,
        "target": found.target,
        "unit": found.unit,
        "split": found.split,
        "data_hash": found.data_hash,
        "options": asdict(found.options),
        "notes": found.notes,
        "headline": found.headline,
        "lines": [
            {"rows": line.rows, **line.score.to_dict(), "constant": line.constant} for line in found.lines
        ],
        "precision_recall": None if found.curve is None else _curve(found.curve),
        "elements": [asdict(e) for e in found.elements],
        "coverage_by_prediction": [asdict(c) for c in found.coverage],
        "coverage_by_truth": [asdict(c) for c in found.coverage_by_truth],
        "learning_curve": [{**point, "score": point["score"].to_dict()} for point in found.learning],
    }
    return _plain(out)


def _curve(curve: Curve) -> dict[str, Any]:
    precision, recall = curve.at_cut(curve.threshold)
    return {
        "threshold": curve.threshold,
        "average_precision": curve.average_precision,
        "random": curve.random,
        "n": curve.n,
        "positives": curve.positives,
        "missing": curve.missing,
        "precision_at_recall": {f"{r:g}": curve.precision_at(r) for r in RECALLS},
        "predicted_above_threshold": {"precision": precision, "recall": recall},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(found: Evaluation, folder: str | os.PathLike[str]) -> list[Path]:
    """Write everything into a folder, made when missing.

    ``evaluation.json``, ``predictions.csv``, ``elements.csv``, figures ``parity``, ``elements`` and, where they
    exist, ``precision_recall`` and ``learning_curve`` (png and svg).

    Raises
    ------
    InputError
        ``cannot-write``.
    DataError
        ``cannot-write``.
    """
    import json

    place = Path(folder)
    with atomic_text(place / "evaluation.json") as handle:
        handle.write(json.dumps(to_dict(found), indent=1, allow_nan=False) + "\n")
    written = [place / "evaluation.json"]
    written.append(_table(place / "predictions.csv", found.rows))
    written.append(_table(place / "elements.csv", [asdict(e) for e in found.elements]))
    figures = {"parity": parity_figure(found), "elements": element_figure(found)}
    if found.curve is not None and found.curve.positives and len(found.curve.cut):
        figures["precision_recall"] = curve_figure(found.curve, found.unit)
    if found.learning:
        figures["learning_curve"] = learning_figure(found)
    for name, figure in figures.items():
        written += save_figure(figure, place, name)
    return written


def _table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with atomic_text(path) as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: _cell(v) for k, v in row.items()})
    return path


def _cell(value: Any) -> Any:
    """Nine digits: more than any label has. A missing number is an empty cell."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value


def parity_figure(found: Evaluation) -> Figure:
    """Prediction against truth, first repeat; crystals that leak or that the model knows are marked."""
    figure, axes = _axes(_label("calculated", found), _label("predicted", found))
    rows = [row for row in found.rows if row["repeat"] == 0 and math.isfinite(row["predicted"])]
    leaked = [row for row in rows if row["leaked"]]
    known = [row for row in rows if row["known"] not in CLEAN]
    parts = ((rows, BLUE, ""), (leaked, ORANGE, "twin in train"), (known, GREY, "known to the model"))
    for part, color, words in parts:
        if part:
            small = len(part) > 300
            axes.plot(
                [row["truth"] for row in part],
                [row["predicted"] for row in part],
                "o",
                color=color,
                markersize=2.0 if small else 4.0,
                alpha=0.35 if small else 0.8,
                markeredgewidth=0,
                label=words or None,
                rasterized=small,
            )
    ends = _ends([row[k] for row in rows for k in ("truth", "predicted")])
    axes.plot(ends, ends, color=GREY, linewidth=0.8)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    if leaked or known:
        axes.legend(frameon=False, fontsize=9)
    mae = next(line.score for line in found.lines if line.score.name == "mae")
    axes.set_title(
        f"{found.words}\nMAE {mae.value:.3g} {found.unit}, n {mae.n}{_of(found)}", loc="left", fontsize=9
    )
    return figure


def _of(found: Evaluation) -> str:
    """Which rows the first figures are of, where that needs saying."""
    return f" ({found.headline})" if found.headline else ""


def _ends(values: Iterable[float]) -> tuple[float, float]:
    low, high = (float(f(list(values) or [0.0])) for f in (np.min, np.max))
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def curve_figure(curve: Curve, unit: str) -> Figure:
    """Precision against recall, with the share of positives."""
    figure, axes = _axes("recall", "precision")
    axes.step(np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision), color=BLUE)
    axes.axhline(curve.random, color=GREY, linewidth=0.8, linestyle="--", label="random order")
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.02)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(
        f"above {curve.threshold:g} {unit}: average precision {curve.average_precision:.3f}\n"
        f"n {curve.n}, {curve.positives} positive",
        loc="left",
        fontsize=9,
    )
    return figure


def learning_figure(found: Evaluation) -> Figure:
    """Error against the number of training rows, with 95 % intervals."""
    figure, axes = _axes("training rows", _unit("MAE", found))
    x = [point["n_train"] for point in found.learning]
    scores = [point["score"] for point in found.learning]
    y = np.array([score.value for score in scores])
    bars = np.abs(np.array([[score.low, score.high] for score in scores]).T - y)
    axes.errorbar(x, y, bars, fmt="o-", color=BLUE, capsize=2, linewidth=1.2, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"{found.words}: {found.target}", loc="left", fontsize=9)
    return figure


def element_figure(found: Evaluation) -> Figure:
    """Periodic table of the mean absolute error of the crystals that hold each element, with their number."""
    from matplotlib.colors import Normalize
    from pymatgen.core import Element

    figure, axes = _axes("", "", size=(9.0, 4.6))
    scored = [e for e in found.elements if e.n]
    # The rarest elements are noise: a colour scale that ends at the largest error would show little else.
    top = float(np.percentile([e.mae for e in scored], 95)) if scored else 1.0
    colours = _axes_colours(figure, axes, Normalize(0.0, top or 1.0), _unit("MAE", found))
    for e in scored:
        element = Element(e.element)
        x, y = float(element.group), float(element.row)
        if element.is_lanthanoid or element.is_actinoid:
            # Below the table, from the third group on; pymatgen puts all of them into the third.
            x, y = element.Z - (57 if element.is_lanthanoid else 89) + 3, y + 2.4
        shade = colours.to_rgba(e.mae)
        axes.add_patch(_square(x, y, shade))
        ink = "white" if sum(shade[:3]) < 1.5 else "black"
        axes.text(x, y - 0.14, e.element, ha="center", va="center", fontsize=8, color=ink)
        axes.text(x, y + 0.27, str(e.n), ha="center", va="center", fontsize=5, color=ink)
    axes.set_xlim(0.4, 18.6)
    axes.set_ylim(10.0, 0.4)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_title(
        f"{found.words}: {found.target}{_of(found)}; small: crystals with the element", loc="left", fontsize=9
    )
    return figure


def _axes_colours(figure: Figure, axes: Any, norm: Any, label: str) -> Any:
    from matplotlib.cm import ScalarMappable

    colours = ScalarMappable(norm, "viridis_r")
    figure.colorbar(colours, ax=axes, label=label, shrink=0.7, extend="max")
    return colours


def _square(x: float, y: float, shade: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=shade, linewidth=0)


def _unit(word: str, found: Evaluation) -> str:
    return f"{word} ({found.unit})" if found.unit else word


def _label(word: str, found: Evaluation) -> str:
    return _unit(f"{found.target}, {word}", found)


def _axes(x: str, y: str, size: tuple[float, float] = (4.6, 4.4)) -> tuple[Figure, Any]:
    # The object interface: no global state, no display, safe in threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
