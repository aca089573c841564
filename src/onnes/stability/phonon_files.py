"""Files of a phonon calculation: a figure of bands and densities of states, and their numbers as csv."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.formula import reduced_formula
from onnes.data.files import atomic_text, atomic_write
from onnes.stability.phonon_bands import Bands
from onnes.stability.phonon_report import PhononReport
from onnes.units import TO_KELVIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

COLOURS = ("#1d5b8f", "#c05a1c", "#3a7d44", "#7a4a9e", "#8a6d00", "#2a8c8c")
GREY, PALE_RED = "#8a919b", "#f7e3e0"
#: Gaussian width of the densities of states: this part of the highest frequency, within these limits in meV.
SMEAR, LEAST_SMEAR_MEV, MOST_SMEAR_MEV = 0.008, 0.25, 2.0
#: Part of the axis below zero that the word in it needs.
LEAST_ROOM = 0.04
MEV_TO_CM1 = TO_KELVIN["meV"] / TO_KELVIN["cm-1"]


def density(report: PhononReport) -> tuple[FloatArray, FloatArray]:
    """Densities of states of the atoms.

    Returns
    -------
    omega_meV : ndarray, shape (m,)
    dos : ndarray, shape (N, m)
        Modes per meV of each atom, widened by a Gaussian; each integrates to 3.
    """
    top = report.spectra.highest_meV
    smear = float(np.clip(SMEAR * top, LEAST_SMEAR_MEV, MOST_SMEAR_MEV))
    bottom = float(report.spectra.edges_meV[:-1][report.spectra.weight.sum(0) > 0][0])
    step = smear / 2.0
    # Five deviations beyond the ends hold all of every mode.
    first, last = (
        np.floor((min(bottom, 0.0) - 5.0 * smear) / step),
        np.ceil((top + 5.0 * smear) / step),
    )
    edges = step * np.arange(first, last + 1.0)
    return (edges[1:] + edges[:-1]) / 2.0, report.spectra.on(edges, smear) / step


def write_files(report: PhononReport, folder: Path, name: str) -> list[Path]:
    """Write figure, densities of states, bands, heat capacity and the crystal, each complete or not at all.

    Parameters
    ----------
    report : PhononReport
    folder : Path
        Made if missing.
    name : str
        Start of the files' names.

    Raises
    ------
    DataError
        ``cannot-write``.
    """
    from pymatgen.io.cif import CifWriter

    texts = {
        "dos.csv": _csv(*_dos_table(report)),
        "bands.csv": _csv(*_bands_table(report.bands)),
        "cif": str(CifWriter(report.structure, significant_figures=6)),
    }
    if len(report.temperature_K):
        columns = np.stack([report.temperature_K, report.heat_capacity_J_mol_K], axis=1)
        texts["heat-capacity.csv"] = _csv(["temperature_K", "heat_capacity_J_mol_K"], columns)
    written = []
    for ending, text in texts.items():
        written.append(folder / f"{name}.{ending}")
        with atomic_text(written[-1]) as handle:
            handle.write(text)
    picture = io.BytesIO()
    figure(report).savefig(picture, dpi=130, format="png")
    written.append(folder / f"{name}.png")
    with atomic_write(written[-1]) as stream:
        stream.write(picture.getvalue())
    return written


def figure(report: PhononReport) -> Figure:
    """Bands on the left, densities of states on the right, imaginary frequencies below zero."""
    # The object interface: no global state, no display, safe in threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8.0, 4.4), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(3.0, 1.0))
    top = 1.05 * max(report.top_cm1 / MEV_TO_CM1, 1.0)
    lowest = report.verdict.worst_cm1 / MEV_TO_CM1
    bottom = 1.15 * lowest if lowest < -0.01 * top else 0.0
    _draw_bands(left, report.bands)
    _draw_dos(right, report)
    for axes in (left, right):
        axes.set_ylim(bottom, top)
        axes.spines[["top"]].set_visible(False)
        if bottom < 0.0:
            axes.axhspan(bottom, 0.0, color=PALE_RED, zorder=0)
            axes.axhline(0.0, color=GREY, linewidth=0.8)
    if bottom < -LEAST_ROOM * top:
        left.text(0.01, 0.01, "imaginary", transform=left.transAxes, fontsize=8, color="#9c2c1c")
    left.set_ylabel("ω (meV)")
    scale: Any = right.secondary_yaxis("right", functions=(_to_cm1, _from_cm1))
    scale.set_ylabel("ω (cm$^{-1}$)")
    seen = report.verdict
    left.set_title(
        f"{reduced_formula(report.structure)}   {report.potential}   {seen.verdict}"
        f" (lowest {seen.worst_cm1:.1f} cm$^{{-1}}$, tolerance {seen.tolerance_cm1:g})",
        loc="left",
        fontsize=10,
    )
    return drawn


def _draw_bands(axes: Any, bands: Bands) -> None:
    x = bands.path.x
    for first, last in bands.path.legs:
        axes.plot(x[first : last + 1], bands.omega_meV[first : last + 1], color=COLOURS[0], linewidth=1.0)
    ticks = bands.path.ticks()
    for place, _ in ticks:
        axes.axvline(place, color=GREY, linewidth=0.5)
    axes.set_xticks([place for place, _ in ticks], [_pretty(name) for _, name in ticks])
    axes.set_xlim(x[0], x[-1] if x[-1] > x[0] else x[0] + 1.0)


def _draw_dos(axes: Any, report: PhononReport) -> None:
    omega, dos = density(report)
    axes.fill_betweenx(omega, dos.sum(0), color=GREY, alpha=0.25, linewidth=0.0)
    axes.plot(dos.sum(0), omega, color=GREY, linewidth=1.0, label="total")
    species = report.species
    for k, element in enumerate(dict.fromkeys(species)):
        mine = dos[[i for i, name in enumerate(species) if name == element]].sum(0)
        axes.plot(mine, omega, color=COLOURS[k % len(COLOURS)], linewidth=1.0, label=element)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("modes/meV")
    if len(set(species)) > 1:
        axes.legend(frameon=False, fontsize=8)


def _dos_table(report: PhononReport) -> tuple[list[str], FloatArray]:
    omega, dos = density(report)
    names = [f"{element}{k}" for k, element in enumerate(report.species)]
    table = np.concatenate([omega[:, None], dos.sum(0)[:, None], dos.T], axis=1)
    return ["omega_meV", "total_per_meV", *(f"{n}_per_meV" for n in names)], table


def _bands_table(bands: Bands) -> tuple[list[str], Iterable[Iterable[Any]]]:
    path = bands.path
    head = ["x_per_A", "label", "q1", "q2", "q3"]
    rows = (
        [x, label, *q, *omega]
        for x, label, q, omega in zip(path.x, path.label, path.q, bands.omega_meV, strict=True)
    )
    return [*head, *(f"omega{k + 1}_meV" for k in range(bands.omega_meV.shape[1]))], rows


def _csv(head: list[str], rows: Any) -> str:
    lines = [",".join(head)]
    lines += [",".join(x if isinstance(x, str) else f"{x:.6g}" for x in row) for row in rows]
    return "\n".join(lines) + "\n"


def _pretty(label: str) -> str:
    """Digits of a point's name as indices: X1 -> X with a small 1."""
    parts = [name.rstrip("0123456789") for name in label.split("|")]
    digits = [name[len(part) :] for name, part in zip(label.split("|"), parts, strict=True)]
    return "|".join(p + (f"$_{{{d}}}$" if d else "") for p, d in zip(parts, digits, strict=True))


def _to_cm1(omega: Any) -> Any:
    return np.asarray(omega) * MEV_TO_CM1


def _from_cm1(omega: Any) -> Any:
    return np.asarray(omega) / MEV_TO_CM1
