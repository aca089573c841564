import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnes.errors import PhysicsError, SettingsError
from onnes.theory.spectral import Spectrum
from onnes.theory.spectral_grid import SpectralGrid


@pytest.fixture(scope="module")
def grid():
    return SpectralGrid.quadratic()


def box(low, high, height=0.4):
    omega = np.linspace(low, high, 200)
    return Spectrum(omega, np.full(200, height))


def test_sums_are_the_moments_of_the_curve(grid):
    values = np.random.default_rng(0).uniform(0.0, 1.0, grid.omega_meV.size)
    s = grid.spectrum(values, "random")
    lam = float(grid.coupling @ values)
    shares = grid.coupling * values / lam
    assert lam == pytest.approx(s.lam, rel=1e-9)
    assert np.exp(shares @ grid.log_omega) == pytest.approx(s.omega_log_meV, rel=1e-9)
    assert np.sqrt(shares @ grid.square_omega) == pytest.approx(s.omega_2_meV, rel=1e-9)
    assert grid.width_meV @ values == pytest.approx(s.quadrature()[1].sum(), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(low=st.floats(2.0, 100.0), width=st.floats(1.2, 2.4))
def test_a_curve_brought_onto_the_grid_keeps_its_lambda_and_nearly_its_frequencies(low, width):
    grid = SpectralGrid.quadratic()
    s = box(low, low * width)
    back = grid.spectrum(grid.values(grid.shares(s), s.lam), "back")
    assert back.lam == pytest.approx(s.lam, rel=1e-9)
    assert back.omega_log_meV == pytest.approx(s.omega_log_meV, rel=1e-6)
    assert back.omega_2_meV == pytest.approx(s.omega_2_meV, rel=0.03)


def test_case_17_a_curve_beyond_the_grid_is_refused_not_cut(grid):
    with pytest.raises(PhysicsError, match="beyond-grid"):
        SpectralGrid.linear().shares(box(140.0, 160.0))
    assert grid.shares(box(140.0, 160.0)).sum() == pytest.approx(1.0)
    with pytest.raises(PhysicsError, match="beyond-grid"):
        grid.shares(box(240.0, 400.0))
    with pytest.raises(PhysicsError, match="beyond-grid"):
        SpectralGrid.linear().smoothed(box(140.0, 160.0))


def test_the_published_preparation_leaves_a_smooth_curve_alone():
    grid = SpectralGrid.linear()
    omega = np.arange(0.1, 90.0, 0.1)
    s = Spectrum(omega, np.exp(-((omega - 40.0) ** 2) / 200.0))
    found = grid.smoothed(s)
    assert grid.omega_meV[[0, -1]].tolist() == [0.25, 100.25]
    assert np.abs(found - np.interp(grid.omega_meV, omega, s.alpha2F, right=0.0)).max() < 0.005


def test_zero_curves_and_bad_grids_are_refused(grid):
    with pytest.raises(PhysicsError, match="no-coupling"):
        grid.shares(Spectrum(np.array([1.0, 2.0]), np.zeros(2)))
    for omega in ([1.0], [0.0, 1.0], [2.0, 1.0]):
        with pytest.raises(SettingsError, match="bad-grid"):
            SpectralGrid(np.array(omega))
