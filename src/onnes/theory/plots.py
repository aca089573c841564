"""Figures of a spectrum and its superconductivity, as png and svg."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import InputError
from onnes.theory.eliashberg import Eliashberg
from onnes.theory.spectral import Spectrum
from onnes.theory.superconductor import COLD, real_axis
from onnes.theory.tc import FORMULAS, tc_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1d5b8f", "#c05a1c", "#8a919b"
FloatArray = NDArray[np.float64]
#: mu* of the Tc(mu*) figure.
MU_RANGE = np.linspace(0.06, 0.20, 15)


def draw_all(
    spectrum: Spectrum,
    folder: str | os.PathLike[str],
    *,
    mu_star: float = 0.10,
    cutoff_meV: float | None = None,
    solve: bool = True,
) -> list[Path]:
    """Draw every figure of a spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    folder : path
        ``alpha2F``, ``tc_mu``, and, where there is a gap, ``gap_imaginary`` and ``gap_real``; png and svg each.
    mu_star, cutoff_meV : float
        For the gap.
    solve : bool
        Also draw what needs the Eliashberg equations.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        ``cannot-write``.
    """
    figures = {"alpha2F": alpha2f_figure(spectrum), "tc_mu": tc_figure(spectrum, cutoff_meV, solve=solve)}
    solver = Eliashberg(spectrum, mu_star, cutoff_meV) if solve else None
    critical = solver.tc() if solver is not None else 0.0
    if solver is not None and critical > 0.0:
        cold = solver.gap(COLD * critical)
        figures["gap_imaginary"] = _imaginary(cold.omega_meV, cold.delta_meV, cold.z, spectrum)
        x = np.linspace(0.0, 1.5 * spectrum.omega_max_meV + 3.0 * cold.delta_meV[0], 1200)
        figures["gap_real"] = _real(x, real_axis(cold, x, spectrum.omega_max_meV))
    written = []
    for name, figure in figures.items():
        written += save_figure(figure, Path(folder), name)
    return written


def alpha2f_figure(spectrum: Spectrum, band: tuple[FloatArray, FloatArray] | None = None) -> Figure:
    """alpha2F with the cumulative lambda(omega), and a band around it where one is given."""
    figure, axes = _axes("ω (meV)", "α²F(ω)")
    if band is not None:
        axes.fill_between(spectrum.omega_meV, *band, color=GREY, alpha=0.25, linewidth=0, label="68 % band")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.fill_between(spectrum.omega_meV, spectrum.alpha2F, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(spectrum.omega_meV, spectrum.alpha2F, color=BLUE)
    axes.set_xlim(0.0, 1.03 * max(spectrum.omega_max_meV, 1e-12))
    axes.set_ylim(bottom=0.0)
    second = axes.twinx()
    second.plot(spectrum.omega_meV, spectrum.cumulative_lambda(), color=ORANGE)
    second.set_ylabel("λ(ω)", color=ORANGE)
    second.set_ylim(bottom=0.0)
    second.spines["top"].set_visible(False)
    axes.set_title(f"λ = {spectrum.lam:.3f}, ω$_{{log}}$ = {spectrum.omega_log_K:.1f} K", loc="left")
    return figure


def tc_figure(spectrum: Spectrum, cutoff_meV: float | None = None, *, solve: bool = True) -> Figure:
    """Tc against mu* by every formula and (solve=True) by the Eliashberg equations."""
    figure, axes = _axes("μ*", "T$_c$ (K)")
    styles = ("-", "--", ":", "-.")
    for name, style in zip(FORMULAS, styles, strict=False):
        values = tc_array(
            spectrum.lam, spectrum.omega_log_K, spectrum.omega_2_K, mu_star=MU_RANGE, formula=name
        )
        axes.plot(MU_RANGE, values, style, color=GREY, label=str(name))
    if solve:
        solved = [Eliashberg(spectrum, float(mu), cutoff_meV).tc() for mu in MU_RANGE]
        axes.plot(MU_RANGE, solved, color=BLUE, linewidth=2.0, label="Eliashberg")
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _imaginary(omega: Any, delta: Any, z: Any, spectrum: Spectrum) -> Figure:
    figure, axes = _axes("ω$_n$ (meV)", "Δ(iω$_n$) (meV)")
    shown = omega <= 4.0 * spectrum.omega_max_meV
    axes.plot(omega[shown], delta[shown], ".-", color=BLUE, markersize=4)
    axes.axhline(0.0, color=GREY, linewidth=0.7)
    second = axes.twinx()
    second.plot(omega[shown], z[shown], color=ORANGE)
    second.set_ylabel("Z(iω$_n$)", color=ORANGE)
    second.spines["top"].set_visible(False)
    return figure


def _real(omega: Any, delta: Any) -> Figure:
    figure, axes = _axes("ω (meV)", "Δ(ω) (meV)")
    axes.plot(omega, delta.real, color=BLUE, label="real part")
    axes.plot(omega, delta.imag, color=ORANGE, label="imaginary part")
    axes.plot(omega, omega, color=GREY, linewidth=0.7, linestyle=":", label="ω")
    low, high = float(min(delta.real.min(), delta.imag.min())), float(max(delta.real.max(), delta.imag.max()))
    axes.set_ylim(1.1 * low, 1.1 * high)
    axes.set_xlim(0.0, omega[-1])
    axes.legend(frameon=False, fontsize=9)
    return figure


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    # The object interface: no global state, no display, safe in threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as png and svg; equal figures are equal files, and none is ever half written.

    Raises
    ------
    InputError
        ``cannot-write``.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("png", "svg"):
            path = folder / f"{name}.{ending}"
            temporary = path.with_suffix(f".tmp.{ending}")
            # Without dates, and with a fixed salt for ids, equal figures are equal files.
            figure.savefig(temporary, dpi=160, metadata={"Date": None} if ending == "svg" else {})
            os.replace(temporary, path)
            written.append(path)
    except OSError as error:
        raise InputError("cannot-write", f"cannot write figures to {folder}: {error.strerror}") from None
    return written
