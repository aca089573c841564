"""Figures of a run: phonon bands beside their density of states, lambda(sigma) with its plateau, alpha2F."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnes.dft.inputs import PREFIX, band_corners
from onnes.dft.matdyn_files import parse_bands, parse_phdos
from onnes.dft.outcome import Outcome
from onnes.dft.step_checks import text_of
from onnes.theory.plots import BLUE, GREY, ORANGE, alpha2f_figure, save_figure
from onnes.units import UNITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pymatgen.core import Structure

_MEV = UNITS.cm1_to_K * UNITS.kB_meV


def draw_run(structure: Structure, outcome: Outcome, folder: Path) -> list[Path]:
    """Draw what a run has: ``figures/phonons``, ``lambda_sigma``, ``alpha2F``; png and svg each.

    Parameters
    ----------
    structure : pymatgen Structure
        The computed cell, which decides the path of the bands.
    outcome : Outcome
    folder : Path
        Of the run.

    Raises
    ------
    InputError
        ``cannot-write``.
    """
    figures = {}
    phonons = phonon_figure(structure, folder)
    if phonons is not None:
        figures["phonons"] = phonons
    if outcome.results is not None and any(r.lam is not None for r in outcome.results.rows):
        figures["lambda_sigma"] = lambda_figure(outcome)
    if outcome.spectrum is not None:
        figures["alpha2F"] = alpha2f_figure(outcome.spectrum)
    written = []
    for name, figure in figures.items():
        written += save_figure(figure, folder / "figures", name)
    return written


def phonon_figure(structure: Structure, folder: Path) -> Figure | None:
    """Bands along the standard path beside the DOS, meV; imaginary modes below zero; None without files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    place = folder / "bands"
    bands = parse_bands(text_of(place / f"{PREFIX}.freq.gp"))
    dos = parse_phdos(text_of(place / f"{PREFIX}.phdos"))
    if bands.failure is not None or bands.omega_cm1 is None or bands.x is None:
        return None
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3.2, 1.0))
    corners = band_corners(structure)
    names, where = [name for name, _ in corners], [at for _, at in corners]
    x, breaks = _path(bands.x, where)
    energy = _MEV * bands.omega_cm1
    for start, end in breaks:
        left.plot(x[start:end], energy[start:end], color=BLUE, linewidth=1.2)
    for at in where:
        left.axvline(x[at], color=GREY, linewidth=0.6)
    left.set_xticks(*_ticks(names, where, x))
    left.set_xlim(x[0], x[-1])
    left.axhline(0.0, color=GREY, linewidth=0.6)
    left.set_ylabel("ω (meV)")
    if dos.failure is None and dos.omega_cm1 is not None and dos.dos is not None:
        right.fill_betweenx(_MEV * dos.omega_cm1, dos.dos / _MEV, color=BLUE, alpha=0.18, linewidth=0)
        right.plot(dos.dos / _MEV, _MEV * dos.omega_cm1, color=BLUE, linewidth=1.2)
    right.set_xlim(left=0.0)
    right.set_xlabel("states/(meV cell)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def lambda_figure(outcome: Outcome) -> Figure:
    """Lambda against broadening, with the plateau that was found."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = outcome.results.rows if outcome.results else ()
    curve = [(r.sigma_Ry, r.lam) for r in rows if r.lam is not None]
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    if outcome.plateau is not None:
        p = outcome.plateau
        label = f"plateau: λ = {p.lam:.3f} ({p.low:.3f} to {p.high:.3f})"
        axes.fill_between(
            [p.sigma_Ry, p.to_sigma_Ry], p.low, p.high, color=ORANGE, alpha=0.25, linewidth=0, label=label
        )
        axes.plot([p.sigma_Ry], [p.lam], "o", color=ORANGE, markersize=8)
    axes.plot(*zip(*curve, strict=True), ".-", color=BLUE)
    axes.set_ylim(0.0, 1.15 * max(lam for _, lam in curve))
    axes.set_xlim(left=0.0)
    axes.set_xlabel("σ (Ry)")
    axes.set_ylabel("λ")
    if outcome.plateau is not None:
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    else:
        axes.set_title("no plateau", loc="left", fontsize=10)
    return figure


def _path(along: np.ndarray, where: list[int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Abscissa without the steps at which the path jumps, and the stretches to be drawn in one line."""
    x = np.array(along, dtype=float)
    jumps = sorted(b for a, b in pairwise(where) if b == a + 1)
    for at in jumps:
        x[at:] -= x[at] - x[at - 1]
    return x, list(pairwise([0, *jumps, len(x)]))


def _ticks(names: list[str], where: list[int], x: np.ndarray) -> tuple[list[float], list[str]]:
    """Positions and names, two names in one where the path jumps."""
    places: list[float] = []
    texts: list[str] = []
    for name, at in zip(names, where, strict=True):
        shown = "Γ" if name == "G" else name
        if places and x[at] == places[-1]:
            texts[-1] += f"|{shown}"
        else:
            places.append(float(x[at]))
            texts.append(shown)
    return places, texts
