"""Seconds a crystal of `onnes spectrum`, after loading: from the structure alone, and with coarse vibrations.

OMP_NUM_THREADS=1 pytest benchmarks/test_spectrum.py
"""

import pytest
from pymatgen.core import Lattice, Structure

from onnes.crystal.read import as_crystal
from onnes.spectra import predict_spectra

MGB2 = Structure(
    Lattice.hexagonal(3.086, 3.524), ["Mg", "B", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
)
NBC = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.47), ["Nb", "C"], [[0, 0, 0], [0.5, 0.5, 0.5]])
V3SI = Structure.from_spacegroup("Pm-3n", Lattice.cubic(4.72), ["V", "Si"], [[0.25, 0, 0.5], [0, 0, 0]])
CRYSTALS = {"MgB2": MGB2, "NbC": NBC.get_primitive_structure(), "V3Si": V3SI}


@pytest.mark.parametrize("phonons", ["none", "coarse"])
@pytest.mark.parametrize("name", CRYSTALS)
def test_one_crystal(benchmark, name, phonons):
    crystal = as_crystal(CRYSTALS[name])
    (found,) = predict_spectra([crystal], phonons=phonons)  # loads networks and potentials
    assert found.status == "ok"
    benchmark.group = f"alpha2F, phonons {phonons}"
    benchmark.pedantic(lambda: list(predict_spectra([crystal], phonons=phonons)), rounds=3, iterations=1)
