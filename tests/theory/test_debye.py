import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnes.errors import InputError, OnnesError, PhysicsError
from onnes.theory.debye import (
    debye_from_dos,
    debye_of_cell,
    debye_temperature,
    moduli_from_stiffness,
    sound_velocities,
)
from onnes.units import UNITS

# Handbook values at low temperature: c11, c12, c44 (GPa), mass (u), fcc lattice constant (A), theta_D (K).
METALS = {
    "Al": (114.3, 61.9, 31.6, 26.98, 4.032, 428.0),
    "Cu": (176.2, 124.9, 81.8, 63.55, 3.603, 343.0),
    "Pb": (55.5, 45.4, 19.4, 207.2, 4.914, 105.0),
}


def cubic(c11, c12, c44):
    stiffness = np.diag([c11] * 3 + [c44] * 3).astype(float)
    stiffness[:3, :3] += c12 * (1 - np.eye(3))
    return stiffness


@pytest.mark.parametrize("metal", METALS)
def test_metals_meet_their_calorimetric_debye_temperature(metal):
    c11, c12, c44, mass, a, theta = METALS[metal]
    moduli = moduli_from_stiffness(cubic(c11, c12, c44))
    got = debye_of_cell(*moduli, cell_mass_u=4 * mass, cell_volume_A3=a**3, n_atoms=4)
    # Isotropic averaging of anisotropic crystals: 5 %.
    assert got == pytest.approx(theta, rel=0.05)


def test_velocities_by_hand():
    # K = 80 GPa, G = 30 GPa, rho = 2 g/cm3: v_l^2 = 120e9/2000, v_s^2 = 30e9/2000.
    v_l, v_s, v_m = sound_velocities(80.0, 30.0, 2.0)
    assert v_l == pytest.approx(np.sqrt(6e7)) and v_s == pytest.approx(np.sqrt(1.5e7))
    assert v_m == pytest.approx(((2 / 1.5e7**1.5 + 1 / 6e7**1.5) / 3) ** (-1 / 3))


def test_debye_temperature_is_the_textbook_expression():
    # (h/kB) [3 n N_A rho/(4 pi M)]^(1/3) v_m for n atoms of total molar mass M.
    bulk, shear, rho, n, molar = 150.0, 70.0, 6.0, 3, 120.0
    volume = molar / (rho * 0.602214076) / n
    v_m = sound_velocities(bulk, shear, rho)[2]
    textbook = (
        (UNITS.h_Js / UNITS.kB_JK)
        * (3 * n * 6.02214076e23 * rho * 1e6 / (4 * np.pi * molar)) ** (1 / 3)
        * v_m
    )
    assert debye_temperature(bulk, shear, rho, volume) == pytest.approx(textbook, rel=1e-8)


positive = st.floats(0.5, 500.0)


@given(positive, positive, st.floats(0.5, 25.0), st.floats(5.0, 60.0), st.floats(1.1, 5.0))
def test_stiffer_lighter_and_denser_packed_is_higher(bulk, shear, rho, volume, factor):
    one = debye_temperature(bulk, shear, rho, volume)
    assert debye_temperature(factor * bulk, factor * shear, rho, volume) == pytest.approx(one * factor**0.5)
    assert debye_temperature(bulk, shear, factor * rho, volume) == pytest.approx(one / factor**0.5)
    assert debye_temperature(bulk, shear, rho, factor * volume) == pytest.approx(one / np.cbrt(factor))


def test_broadcasting():
    assert debye_temperature([100.0, 200.0], 50.0, 5.0, [[10.0], [20.0], [30.0]]).shape == (3, 2)


def test_supercell_has_the_same_debye_temperature():
    one, eight = (
        debye_of_cell(100.0, 50.0, cell_mass_u=60.0 * n, cell_volume_A3=20.0 * n, n_atoms=2 * n)
        for n in (1, 8)
    )
    assert one == pytest.approx(eight, rel=1e-12)


def test_debye_spectrum_returns_its_cut_off():
    omega = np.linspace(-10.0, 300.0, 3101)
    dos = np.where((omega > 0) & (omega <= 300.0), omega**2, 0.0)
    assert debye_from_dos(omega, dos) == pytest.approx(300.0, rel=1e-4)


def test_averages_of_a_cubic_crystal_by_hand():
    c11, c12, c44 = 176.2, 124.9, 81.8
    voigt, reuss, hill = (
        moduli_from_stiffness(cubic(c11, c12, c44), average=a) for a in ("voigt", "reuss", "hill")
    )
    assert [voigt.bulk_GPa, reuss.bulk_GPa] == pytest.approx([(c11 + 2 * c12) / 3] * 2)
    assert voigt.shear_GPa == pytest.approx((c11 - c12 + 3 * c44) / 5)
    assert reuss.shear_GPa == pytest.approx(5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12)))
    assert hill.shear_GPa == pytest.approx((voigt.shear_GPa + reuss.shear_GPa) / 2)


def test_isotropic_crystal_has_one_average():
    lame, shear = 60.0, 40.0
    for average in ("voigt", "reuss", "hill"):
        got = moduli_from_stiffness(cubic(lame + 2 * shear, lame, shear), average=average)
        assert got == pytest.approx((lame + 2 * shear / 3, shear))


@given(st.lists(st.floats(-1.0, 1.0), min_size=36, max_size=36))
def test_reuss_is_never_above_voigt(numbers):
    a = np.array(numbers).reshape(6, 6)
    stiffness = 50.0 * (a @ a.T) + 10.0 * np.eye(6)
    upper, lower = (moduli_from_stiffness(stiffness, average=name) for name in ("voigt", "reuss"))
    assert lower.bulk_GPa <= upper.bulk_GPa * (1 + 1e-9) and lower.shear_GPa <= upper.shear_GPa * (1 + 1e-9)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: debye_temperature(-1.0, 50.0, 5.0, 10.0), "unstable-moduli"),
        (lambda: debye_temperature(100.0, 0.0, 5.0, 10.0), "unstable-moduli"),
        (lambda: debye_temperature(100.0, 50.0, 0.0, 10.0), "bad-density"),
        (lambda: debye_temperature(100.0, 50.0, 5.0, -3.0), "bad-volume"),
        (lambda: debye_temperature(np.nan, 50.0, 5.0, 10.0), "not-finite"),
        (lambda: debye_of_cell(1.0, 1.0, cell_mass_u=1.0, cell_volume_A3=1.0, n_atoms=0), "no-atoms"),
        (lambda: moduli_from_stiffness(np.eye(3)), "shape"),
        (lambda: moduli_from_stiffness(np.full((6, 6), np.inf)), "not-finite"),
        (lambda: moduli_from_stiffness(cubic(100.0, 120.0, 50.0)), "unstable-moduli"),
        (lambda: moduli_from_stiffness(np.eye(6), average="mean"), "unknown-average"),
        (lambda: debye_from_dos([1.0, 2.0], [0.0, 0.0]), "empty-dos"),
        (lambda: debye_from_dos([1.0, 2.0], [0.0, np.nan]), "not-finite"),
        (lambda: debye_from_dos([1.0], [1.0]), "shape"),
        (lambda: debye_from_dos([-2.0, -1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]), "imaginary-modes"),
        (lambda: debye_from_dos([2.0, 1.0, 3.0], [1.0, 1.0, 1.0]), "grid-not-increasing"),
    ],
)
def test_impossible_input_is_a_typed_error(call, code):
    with pytest.raises(OnnesError) as caught:
        call()
    assert caught.value.code == code
    assert isinstance(caught.value, InputError | PhysicsError)
