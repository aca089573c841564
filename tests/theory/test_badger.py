import numpy as np
import pytest

from onnes.theory.badger import stretch_meV


@pytest.mark.parametrize(
    ("pair", "length", "cm1"),
    # Harmonic frequencies and bond lengths of diatomic molecules (Huber and Herzberg, Constants of Diatomic Molecules).
    [
        ((1, 1), 0.741, 4401),
        ((7, 7), 1.098, 2359),
        ((6, 8), 1.128, 2170),
        ((1, 17), 1.275, 2991),
        ((1, 9), 0.917, 4138),
    ],
)
def test_diatomic_molecules_within_a_tenth(pair, length, cm1):
    assert stretch_meV(*pair, length) == pytest.approx(cm1 * 0.1239842, rel=0.12)


def test_heavier_and_noble_atoms_have_no_rule_and_close_ones_no_infinity():
    assert stretch_meV([1, 41, 2], [57, 41, 1], [2.0, 2.8, 1.0]).tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(stretch_meV(1, 1, 0.01))
    assert stretch_meV(1, 1, 0.8) > stretch_meV(1, 1, 0.9)
    assert stretch_meV(1, 6, 1.1) == stretch_meV(6, 1, 1.1)
