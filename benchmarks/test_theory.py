"""Speed of the physics room: pytest benchmarks --benchmark-only. Stated figures are for one core."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")

from onnes.theory.eliashberg import Eliashberg
from onnes.theory.spectral import Spectrum
from onnes.theory.superconductor import eliashberg
from onnes.theory.tc import FORMULAS, tc_array


def spectrum(coupling: float, points: int = 1000) -> Spectrum:
    x = np.linspace(0.0, 50.0, points)
    y = np.exp(-(((x - 15) / 4) ** 2)) + 0.6 * np.exp(-(((x - 35) / 6) ** 2))
    s = Spectrum.from_arrays(x, y * np.minimum(x / 5, 1) ** 2, "meV")
    return s.scaled(coupling=coupling / s.lam)


def fresh(coupling: float) -> tuple[tuple[Spectrum], dict]:
    """A new object each round, so that cached integrals do not flatter."""
    return (spectrum(coupling),), {}


def test_linearised_tc_of_a_typical_spectrum(benchmark):
    found = benchmark.pedantic(lambda s: Eliashberg(s).tc(), setup=lambda: fresh(1.0), rounds=20)
    assert found > 5


def test_linearised_tc_of_a_tenth_of_a_kelvin(benchmark):
    found = benchmark.pedantic(lambda s: Eliashberg(s).tc(), setup=lambda: fresh(0.29), rounds=20)
    assert 0.02 < found < 0.3


def test_full_solution(benchmark):
    assert benchmark.pedantic(eliashberg, setup=lambda: fresh(1.0), rounds=10).gap_ratio > 3.5


def test_thousand_spectra_through_all_closed_formulas(benchmark):
    spectra = [spectrum(lam, 200) for lam in np.linspace(0.2, 2.0, 1000)]

    def run():
        lam, log, rms = (
            np.array([getattr(s, n) for s in spectra]) for n in ("lam", "omega_log_K", "omega_2_K")
        )
        return [tc_array(lam, log, rms, formula=name) for name in FORMULAS]

    assert len(benchmark.pedantic(run, rounds=1)) == 3
