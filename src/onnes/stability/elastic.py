"""Elastic tensor of a relaxed crystal from the potential: stresses of small strains, atoms relaxed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import PhysicsError
from onnes.stability.potentials import DEFAULT, calculator, require_elements
from onnes.units import UNITS

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Strains of each of the six Voigt components.
STRAIN = 0.006
FMAX_EV_A, STEPS = 0.005, 100
#: Indices of the tensor for the six components of Voigt.
PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def stiffness(structure: Structure, potential: str = DEFAULT, calc: Any = None) -> NDArray[Any]:
    """Compute the 6x6 stiffness of a relaxed crystal.

    C_ij = d sigma_i/d e_j by central differences, atoms relaxed at every strain, symmetrised.

    Parameters
    ----------
    structure : pymatgen Structure
        Relaxed with the same potential.
    potential : str
        Name of the potential.
    calc : ASE calculator, optional
        Instead of the potential.

    Returns
    -------
    ndarray, shape (6, 6)
        GPa, Voigt order xx, yy, zz, yz, xz, xy, in the Cartesian frame of the structure.

    Raises
    ------
    PhysicsError
        ``not-relaxed`` when the unstrained stress exceeds 1 GPa, or the atoms of a strained cell do not come to rest.
    CrystalError
        ``potential-unknown-element``.
    """
    from pymatgen.io.ase import AseAtomsAdaptor

    if calc is None:
        calc = calculator(potential)
        require_elements(structure, potential)
    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.calc = calc
    rest = float(np.abs(atoms.get_stress()).max()) * UNITS.eV_per_A3_to_GPa
    if rest > 1.0:
        raise PhysicsError("not-relaxed", f"a stress of {rest:.2f} GPa is left; relax the crystal first")
    columns = []
    for k in range(6):
        up, down = (_stress(atoms, k, sign * STRAIN) for sign in (1.0, -1.0))
        columns.append((up - down) / (2.0 * STRAIN) * UNITS.eV_per_A3_to_GPa)
    c = np.array(columns).T
    return (c + c.T) / 2.0


def _stress(atoms: Any, k: int, size: float) -> NDArray[Any]:
    """Stress (eV/A^3, Voigt) with Voigt strain `size` in component k, atoms relaxed."""
    from ase.optimize import LBFGS

    strain = np.zeros((3, 3))
    i, j = PAIRS[k]
    # Engineering shear: e_4 = 2 e_yz.
    strain[i, j] = strain[j, i] = size if i == j else size / 2.0
    strained = atoms.copy()
    strained.calc = atoms.calc
    strained.set_cell(np.array(atoms.cell) @ (np.eye(3) + strain), scale_atoms=True)
    if len(atoms) > 1:
        at_rest = LBFGS(strained, logfile=io.StringIO(), maxstep=0.05).run(fmax=FMAX_EV_A, steps=STEPS)
        if not at_rest:
            raise PhysicsError(
                "not-relaxed",
                f"the atoms do not come to rest under a strain of {100 * size:g} % in {VOIGT[k]}",
            )
    return np.asarray(strained.get_stress())
