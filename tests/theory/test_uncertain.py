"""Error propagation against what can be derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnes.errors import SettingsError
from onnes.theory.spectral import Spectrum
from onnes.theory.tc import tc
from onnes.theory.uncertain import propagate


@pytest.fixture(scope="module")
def spectrum():
    x = np.linspace(0.0, 40.0, 401)
    return Spectrum.from_arrays(x, 0.6 * np.exp(-(((x - 20) / 8) ** 2)) * np.minimum(x / 5, 1), "meV")


def test_no_error_gives_the_plain_numbers(spectrum):
    found = propagate(spectrum, 0.0, n=5)
    assert found["lambda"].mean == pytest.approx(spectrum.lam) and found["lambda"].std < 1e-12
    assert found["omega_log_K"].mean == pytest.approx(spectrum.omega_log_K)
    assert found["omega_2_K"].mean == pytest.approx(spectrum.omega_2_K)
    assert found["tc_K"].mean == pytest.approx(tc(spectrum).tc_K)


def test_error_of_scale_moves_lambda_and_not_the_frequencies(spectrum):
    found = propagate(spectrum, 0.1, n=4000)
    assert found["lambda"].std == pytest.approx(0.1 * spectrum.lam, rel=0.05)
    assert found["omega_log_K"].std < 1e-9 * spectrum.omega_log_K
    assert found["tc_K"].low < tc(spectrum).tc_K < found["tc_K"].high


def test_short_correlations_average_out(spectrum):
    """std(lambda)^2 = sigma^2 int int a a' exp(-(w-w')^2/2c^2), with a = 2 alpha2F/omega."""
    length, sigma = 3.0, 0.2
    found = propagate(spectrum, sigma, correlation_meV=length, n=4000)
    x = np.linspace(0.05, 40.0, 800)
    a = 2 * np.interp(x, spectrum.omega_meV, spectrum.alpha2F) / x
    kernel = np.exp(-((x[:, None] - x[None, :]) ** 2) / (2 * length**2))
    expected = sigma * np.sqrt(a @ kernel @ a) * (x[1] - x[0])
    assert found["lambda"].std == pytest.approx(expected, rel=0.05)
    assert found["lambda"].std < 0.8 * sigma * spectrum.lam and found["omega_log_K"].std > 0


def test_mu_star_adds_to_tc_only(spectrum):
    found = propagate(spectrum, 0.0, mu_star_std=0.02, n=500)
    assert found["lambda"].std < 1e-12 and found["tc_K"].std > 0.3


def test_same_seed_same_answer(spectrum):
    assert propagate(spectrum, 0.1, seed=3, n=50) == propagate(spectrum, 0.1, seed=3, n=50)
    assert propagate(spectrum, 0.1, seed=3, n=50) != propagate(spectrum, 0.1, seed=4, n=50)


@pytest.mark.parametrize("bad", [{"sigma": -0.1}, {"sigma": np.nan}, {"sigma": 0.1, "correlation_meV": 0.0}])
def test_bad_settings(spectrum, bad):
    with pytest.raises(SettingsError, match="bad-sigma"):
        propagate(spectrum, bad.pop("sigma"), **bad)
