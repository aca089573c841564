import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnes.errors import InputError
from onnes.theory.infer import TOLERANCE, omega_2_from_tc
from onnes.theory.tc import tc_array


@given(st.floats(0.5, 2.5), st.floats(50.0, 800.0), st.floats(1.001, 1.5), st.floats(0.08, 0.15))
def test_gives_back_the_omega_2_that_made_tc(lam, wlog, ratio, mu):
    tc = tc_array(lam, wlog, ratio * wlog, mu_star=mu)
    assert omega_2_from_tc(lam, wlog, tc, mu_star=mu, tc_step_K=1e-9) == pytest.approx(ratio * wlog, rel=1e-6)


def test_rounded_tc_gives_the_ratio_within_the_tolerance():
    rng = np.random.default_rng(0)
    lam, wlog, ratio = rng.uniform(0.3, 1.5, 500), rng.uniform(80, 400, 500), rng.uniform(1.05, 1.5, 500)
    found = omega_2_from_tc(lam, wlog, np.round(tc_array(lam, wlog, ratio * wlog), 3))
    known = np.isfinite(found)
    assert 100 < known.sum() < 500
    assert np.abs(found / wlog - ratio)[known].max() < 1.1 * TOLERANCE


@pytest.mark.parametrize("tc", [0.0, 0.001, 5.0, 200.0])
def test_impossible_or_undetermined_is_nan(tc):
    """lambda 0.3 at 200 K: Tc 0.03 K with any omega_2."""
    assert np.isnan(omega_2_from_tc(0.3, 200.0, tc))


def test_no_pairing_and_zero_frequency_are_nan():
    assert np.isnan(omega_2_from_tc([0.05, 1.0], [200.0, 0.0], [0.0, 0.0])).all()


def test_bad_step_is_refused():
    with pytest.raises(InputError, match="last digit"):
        omega_2_from_tc(1.0, 200.0, 20.0, tc_step_K=0.0)
