"""Eliashberg equations against limits, an independent dense solver, and other codes' results."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.errors import PhysicsError, SettingsError
from onnes.theory.eliashberg import Eliashberg
from onnes.theory.matsubara import Kernel, convert_mu_star, mesh
from onnes.theory.pade import pade
from onnes.theory.spectral import Spectrum
from onnes.theory.superconductor import eliashberg, free_energy
from onnes.theory.tc import tc
from onnes.units import UNITS


def einstein(omega: float = 20.0, lam: float = 1.0, width: float = 0.01) -> Spectrum:
    x = np.linspace(omega * (1 - 3 * width), omega * (1 + 3 * width), 61)
    s = Spectrum.from_arrays(x, np.exp(-(((x - omega) / (omega * width)) ** 2) / 2), "meV")
    return s.scaled(coupling=lam / s.lam)


def debye(top: float = 30.0, lam: float = 0.8) -> Spectrum:
    x = np.linspace(0.0, top, 301)
    s = Spectrum.from_arrays(x, x**2, "meV")
    return s.scaled(coupling=lam / s.lam)


# -- sums and kernel ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 104, 105, 300, 5000, 400_000])
def test_mesh_sums_smooth_functions(size):
    points = mesh(size)
    assert points.size == size and points.weight.sum() == pytest.approx(size, rel=1e-12)
    m = np.arange(size, dtype=float)
    for f in (lambda x: 1 / (2 * x + 1), lambda x: 1 / (1 + (x / 50) ** 2), lambda x: x**3 / size**3):
        exact = f(m).sum()
        assert np.sum(points.weight * f(points.index.astype(float))) == pytest.approx(exact, rel=1e-6)


def test_mesh_weights_are_positive_whatever_the_size():
    sizes = [
        *range(97, 1200, 7),
        *range(1200, 4000, 97),
        *np.random.default_rng(0).integers(3000, 10**8, 12).tolist(),
    ]
    for size in sizes:
        points = mesh(int(size))
        assert points.weight.min() > 0.3, size
        assert points.weight.sum() == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize("mu_star", [0.2, 0.22, 0.25, 0.3, 0.5, 0.9])
def test_strong_repulsion_never_turns_into_attraction(mu_star):
    for lam in np.linspace(0.25, 3.0, 12):
        spectrum = einstein(lam=float(lam))
        found = Eliashberg(spectrum, mu_star).tc()
        assert 0.0 <= found <= Eliashberg(spectrum, 0.1).tc()


@pytest.mark.parametrize("mu_star", [0.10, 0.13])
def test_ordinary_spectra_always_settle(mu_star):
    for lam in np.linspace(0.27, 1.0, 40):
        assert Eliashberg(debye(lam=float(lam)), mu_star).tc() > 0.0


def test_mesh_grows_with_the_logarithm():
    assert len(mesh(10**7).index) < 3 * len(mesh(10**4).index) < 1000


@pytest.mark.parametrize("spectrum", [einstein(), debye()], ids=["einstein", "debye"])
def test_kernel_interpolation(spectrum):
    kernel = Kernel(spectrum)
    nu = np.concatenate(([0.0], np.geomspace(1e-4, 1e5, 300)))
    np.testing.assert_allclose(kernel(nu), kernel.exact(nu), rtol=1e-6)
    assert kernel(np.zeros(1))[0] == pytest.approx(spectrum.lam)


def test_converting_mu_star_there_and_back():
    assert convert_mu_star(convert_mu_star(0.13, 300.0, 5000.0), 5000.0, 300.0) == pytest.approx(0.13)
    assert convert_mu_star(0.1, 100.0, 1000.0) > 0.1 and convert_mu_star(0.0, 1.0, 2.0) == 0.0


# -- an independent solver -----------------------------------------------------------------------------


def dense_eigenvalue(spectrum: Spectrum, mu_star: float, temperature: float, cutoff: float) -> float:
    """Naive: every frequency of both signs, trapezoid kernel, general eigenvalues."""
    kT = temperature * UNITS.kB_meV
    x = np.linspace(spectrum.omega_meV[0], spectrum.omega_meV[-1], 20_001)
    a2f = np.interp(x, spectrum.omega_meV, spectrum.alpha2F)
    count = max(128, round(cutoff / (2 * np.pi * kT)))
    n = np.arange(-count, count)
    omega = (2 * n + 1) * np.pi * kT
    differences = np.arange(0, 8 * count)
    table = np.array(
        [np.trapezoid(2 * x * a2f / (x**2 + (2 * np.pi * kT * k) ** 2), x) for k in differences[: 2 * count]]
    )
    kernel = table[np.abs(n[:, None] - n[None, :])]
    # The sum over all frequencies of lambda(n - m) sgn(omega_m) telescopes to lambda(0) + 2 sum_{l=1}^n lambda(l).
    sums = np.cumsum(table) * 2 - table[0]
    z = 1 + np.pi * kT / np.abs(omega) * sums[np.where(n >= 0, n, -n - 1)]
    edge = round(cutoff / (2 * np.pi * kT))
    mu = convert_mu_star(mu_star, cutoff, 2 * np.pi * kT * edge) if mu_star else 0.0
    inside = (n >= -edge) & (n < edge)
    matrix = np.pi * kT * (kernel - mu * inside[None, :]) / np.abs(omega)[None, :] / z[:, None]
    return float(np.linalg.eigvals(matrix).real.max())


@pytest.mark.parametrize(
    ("spectrum", "mu_star"),
    [
        (einstein(), 0.1),
        (einstein(lam=3.0), 0.12),
        (debye(), 0.0),
        (debye(lam=0.5), 0.1),
        (debye(lam=2.0), 0.2),
    ],
    ids=["einstein", "strong", "no-repulsion", "weak", "repulsive"],
)
def test_tc_agrees_with_a_dense_solver(spectrum, mu_star):
    solver = Eliashberg(spectrum, mu_star)
    found = solver.tc()
    assert found > 0
    # Where the dense eigenvalue is 1: one Newton step from our Tc tells how far its root is away.
    here = dense_eigenvalue(spectrum, mu_star, found, solver.cutoff)
    slope = (dense_eigenvalue(spectrum, mu_star, 1.02 * found, solver.cutoff) - here) / np.log(1.02)
    assert abs((here - 1) / slope) < 1e-4


# -- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spectrum", [einstein(lam=1000.0), debye(lam=1000.0)], ids=["einstein", "debye"])
def test_strong_coupling_asymptote(spectrum):
    found = Eliashberg(spectrum, 0.0).tc()
    assert found / (spectrum.omega_2_K * np.sqrt(spectrum.lam)) == pytest.approx(0.1827, rel=0.01)


def test_weak_coupling_is_bcs():
    result = eliashberg(einstein(lam=0.25), mu_star=0.0)
    assert result.gap_ratio == pytest.approx(3.528, rel=5e-3)
    assert result.jump_ratio == pytest.approx(1.426, rel=0.02)
    assert result.condensation_ratio == pytest.approx(0.168, rel=3e-3)
    assert result.z == pytest.approx(1.25, rel=2e-3)


def test_ratios_rise_with_coupling():
    weak, middle, strong = (eliashberg(einstein(lam=lam)) for lam in (0.5, 1.0, 2.0))
    assert 3.5 < weak.gap_ratio < middle.gap_ratio < strong.gap_ratio < 5.5
    assert weak.jump_ratio < middle.jump_ratio < strong.jump_ratio
    assert weak.condensation_ratio > middle.condensation_ratio > strong.condensation_ratio


def test_gap_closes_at_tc_like_a_square_root():
    solver = Eliashberg(einstein())
    found = solver.tc()
    gaps = [solver.gap(t * found, sizes=solver.tc_sizes).delta_meV[0] for t in (0.98, 0.99, 0.995)]
    squares = np.array(gaps) ** 2
    assert squares[0] / squares[1] == pytest.approx(2.0, rel=0.05)
    assert squares[1] / squares[2] == pytest.approx(2.0, rel=0.05)
    assert solver.gap(1.02 * found).delta_meV.max() == 0.0


def test_bcs_condensation_energy():
    solver = Eliashberg(einstein(lam=0.25), 0.0)
    cold = solver.gap(0.05 * solver.tc())
    # -N(0) Delta^2/2 with the mass-renormalised density of states.
    assert free_energy(cold) == pytest.approx(-0.5 * 1.25 * cold.delta_meV[0] ** 2, rel=0.02)


# -- Tc 0.05 K and 200 K ----------------------------------------------------------------------------------


def test_low_tc_needs_no_larger_matrix():
    low, high = einstein(20.0, 0.26), einstein(200.0, 4.0)
    cold, hot = Eliashberg(low, 0.1), Eliashberg(high, 0.1)
    assert 0.0 < cold.tc() < 0.1 and hot.tc() > 150.0
    assert len(mesh(cold.tc_sizes[0]).index) < 600


def test_no_superconductivity_is_zero_with_a_reason():
    result = eliashberg(einstein(lam=0.1), mu_star=0.2)
    assert result.tc_K == 0.0 and "mu*" in result.reason and np.isnan(result.gap_meV)


# -- user errors and properties ----------------------------------------------------------------------------


def test_bad_input_is_typed():
    with pytest.raises(SettingsError, match="bad-mu-star"):
        eliashberg(einstein(), mu_star=1.5)
    with pytest.raises(PhysicsError, match="bad-cutoff"):
        eliashberg(einstein(), cutoff_meV=10.0)
    for cutoff in (np.inf, np.nan, 1e300):
        with pytest.raises(PhysicsError, match="bad-cutoff"):
            eliashberg(einstein(), cutoff_meV=cutoff)
    with pytest.raises(PhysicsError, match="bad-cutoff"):
        convert_mu_star(0.3, 100.0, 10_000.0)
    with pytest.raises(PhysicsError, match="empty-spectrum"):
        eliashberg(Spectrum.from_arrays([1.0, 2.0], [0.0, 0.0], "meV"))


def test_changed_cutoff_with_converted_mu_star_gives_the_same_tc():
    spectrum = einstein()
    top = spectrum.omega_max_meV
    reference = Eliashberg(spectrum, 0.1, 10 * top).tc()
    for factor in (6, 20, 40):
        mu = convert_mu_star(0.1, 10 * top, factor * top)
        assert Eliashberg(spectrum, mu, factor * top).tc() == pytest.approx(reference, rel=5e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0.0, 5.0), min_size=4, max_size=30).filter(lambda v: max(v) > 0.05),
    st.floats(5.0, 200.0),
    st.floats(0.0, 0.25),
)
def test_any_spectrum_gives_a_finite_tc_that_falls_with_mu_star(values, top, mu):
    omega = np.linspace(0.0, top, len(values) + 1)
    spectrum = Spectrum.from_arrays(omega, [0.0, *values], "meV")
    spectrum = spectrum.scaled(coupling=min(1.0, 50.0 / spectrum.lam))
    here, less = Eliashberg(spectrum, mu).tc(), Eliashberg(spectrum, 0.8 * mu).tc()
    assert np.isfinite(here) and 0.0 <= here <= less * (1 + 1e-4)
    assert here < 0.2 * spectrum.omega_2_K * np.sqrt(spectrum.lam) + 1e-6


def test_tc_scales_with_frequency():
    assert Eliashberg(debye(60.0), 0.1).tc() == pytest.approx(2 * Eliashberg(debye(30.0), 0.1).tc(), rel=1e-4)


def test_pade_reproduces_a_rational_function():
    z = 1j * np.arange(1, 12)
    f = lambda x: (x + 2) / (x**2 + 3 * x + 5)  # noqa: E731
    x = np.array([0.3 + 0.01j, 2.0, -1.5 + 0.5j])
    np.testing.assert_allclose(pade(z, f(z), x), f(x), rtol=1e-8)


# -- other codes --------------------------------------------------------------------------------------------


def curves(shared):
    folder = shared / "data"
    for entry in json.loads((folder / "a2f" / "manifest.json").read_text())["curves"]:
        with open(folder / entry["file"]) as handle:
            rows = list(csv.reader(handle))[1:]
        omega, values = np.array([[float(x) for x in row[:2]] for row in rows]).T
        yield entry, Spectrum.from_arrays(omega, values, "meV", source=entry["name"])


#: Reference curves whose stated Tc belongs to another smoothing (see the manifest's note).
OTHER_SMOOTHING = {"LaYH20_180GPa"}


def test_curves_reproduce_other_codes_eliashberg_tc(shared):
    """The reference code keeps a fixed number of Matsubara frequencies, whatever the temperature.

    That is what the ratio to our Tc says, which falls with Tc: its mu* belongs to a cut-off of about 27
    frequencies. With mu* at that cut-off all agree within 2 %; with mu* at ours, 10 omega_max, within 3 % except
    where 27 frequencies are far below it (ThH9 at 150 and 200 GPa: 4.6 and 5.8 %).
    """
    checked = 0
    for entry, spectrum in curves(shared):
        reference = entry["reference"].get("Tc_Eliashberg_K")
        if reference is None or entry["name"] in OTHER_SMOOTHING:
            continue
        checked += 1
        mu = entry["reference"]["mu"]
        allowed = 0.06 if entry["name"] in ("ThH9_150GPa", "ThH9_200GPa") else 0.03
        assert Eliashberg(spectrum, mu).tc() == pytest.approx(reference, rel=allowed), entry["name"]
        theirs = 2 * np.pi * 27 * reference * UNITS.kB_meV
        same = convert_mu_star(mu, theirs, 10 * spectrum.omega_max_meV)
        assert Eliashberg(spectrum, same).tc() == pytest.approx(reference, rel=0.02), entry["name"]
    assert checked == 11


def test_niobium_lies_in_the_window_of_another_code(shared):
    """The window 9-10 K is for mu* = 0.12 (that code's default) given at the phonon cut-off."""
    (spectrum,) = [s for e, s in curves(shared) if e["name"].startswith("Nb_")]
    mu = convert_mu_star(0.12, spectrum.omega_max_meV, 10 * spectrum.omega_max_meV)
    assert 9.0 <= Eliashberg(spectrum, mu).tc() <= 10.0


def test_all_curves_have_a_gap_between_bcs_and_strong_coupling(shared):
    for entry, spectrum in curves(shared):
        result = eliashberg(spectrum)
        assert 3.5 < result.gap_ratio < 6.5, entry["name"]
        assert 0.10 < result.condensation_ratio < 0.172, entry["name"]
        assert result.tc_K > 0.9 * tc(spectrum).tc_K, entry["name"]
