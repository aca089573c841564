"""Elastic tensor of a crystal as a user wants it: relaxed first, symmetric, with moduli, Born verdict and theta_D."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.formula import reduced_formula
from onnes.crystal.geometry import geometry
from onnes.crystal.read import Crystal, Refused
from onnes.errors import CrystalError, OnnesError, PhysicsError
from onnes.stability.elastic import PAIRS, stiffness
from onnes.stability.potentials import DEFAULT
from onnes.stability.relax import RelaxSettings, relax
from onnes.theory.debye import Moduli, debye_temperature, moduli_from_stiffness

if TYPE_CHECKING:
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

SYMPREC_A = 0.01
FMAX_EV_A, STEPS = 0.005, 500
#: Least eigenvalue of the stiffness, GPa, below which a crystal is mechanically unstable; the strains' noise is less.
BORN_GPA = 0.1
NAMES = tuple(f"c{i + 1}{j + 1}_GPa" for i in range(6) for j in range(i, 6))
COLUMNS = (
    "id",
    "formula",
    "space_group",
    "born",
    "least_eigenvalue_GPa",
    "bulk_voigt_GPa",
    "bulk_reuss_GPa",
    "bulk_GPa",
    "shear_voigt_GPa",
    "shear_reuss_GPa",
    "shear_GPa",
    "young_GPa",
    "poisson",
    "pugh",
    "anisotropy",
    "debye_K",
    "asymmetry_GPa",
    *NAMES,
    "potential",
    "status",
    "reason",
)


@dataclass(frozen=True)
class Elastic:
    """Elastic tensor of a relaxed crystal.

    Attributes
    ----------
    structure : pymatgen Structure
        Relaxed.
    space_group : str
    stiffness_GPa : ndarray, shape (6, 6)
        Voigt order xx, yy, zz, yz, xz, xy, in the Cartesian frame of spglib's standardised cell, averaged over the
        rotations of the crystal.
    asymmetry_GPa : float
        Largest component that the averaging took out: the noise of the strains.
    """

    structure: Structure
    space_group: str
    stiffness_GPa: FloatArray
    asymmetry_GPa: float

    @property
    def least_eigenvalue_GPa(self) -> float:
        """Positive for a mechanically stable crystal (Born; Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014))."""
        return float(np.linalg.eigvalsh(self.stiffness_GPa)[0])

    @property
    def stable(self) -> bool:
        """Whether every strain costs energy."""
        return self.least_eigenvalue_GPa > BORN_GPA

    def moduli(self, average: str = "hill") -> Moduli:
        """Bulk and shear modulus by Voigt, Reuss or Hill.

        Raises
        ------
        PhysicsError
            ``unstable-moduli``.
        """
        return moduli_from_stiffness(self.stiffness_GPa, average=average)

    def numbers(self) -> dict[str, Any]:
        """What a table or a ledger keeps; moduli only of a stable crystal."""
        c = self.stiffness_GPa
        found: dict[str, Any] = {
            "space_group": self.space_group,
            "born": "stable" if self.stable else "unstable",
            "least_eigenvalue_GPa": self.least_eigenvalue_GPa,
            "asymmetry_GPa": self.asymmetry_GPa,
            **{f"c{i + 1}{j + 1}_GPa": float(c[i, j]) for i in range(6) for j in range(i, 6)},
        }
        if not self.stable:
            return found
        voigt, reuss, hill = (self.moduli(name) for name in ("voigt", "reuss", "hill"))
        k, g = hill
        shape = geometry(self.structure)
        return found | {
            "bulk_voigt_GPa": voigt.bulk_GPa,
            "bulk_reuss_GPa": reuss.bulk_GPa,
            "bulk_GPa": k,
            "shear_voigt_GPa": voigt.shear_GPa,
            "shear_reuss_GPa": reuss.shear_GPa,
            "shear_GPa": g,
            "young_GPa": 9.0 * k * g / (3.0 * k + g),
            "poisson": (3.0 * k - 2.0 * g) / (2.0 * (3.0 * k + g)),
            "pugh": k / g,
            # Ranganathan and Ostoja-Starzewski, Phys. Rev. Lett. 101, 055504 (2008).
            "anisotropy": 5.0 * voigt.shear_GPa / reuss.shear_GPa + voigt.bulk_GPa / reuss.bulk_GPa - 6.0,
            "debye_K": float(debye_temperature(k, g, shape["density_g_cm3"], shape["volume_per_atom_A3"])),
        }


def elastic(structure: Structure, potential: str = DEFAULT, calc: Any = None) -> Elastic:
    """Relax a crystal and compute its elastic tensor.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered; its primitive cell is what is strained.
    potential : str
    calc : ASE calculator, optional
        Instead of the potential.

    Raises
    ------
    PhysicsError
        ``not-relaxed``.
    CrystalError
        ``potential-unknown-element``, ``not-bulk`` (vacuum: a stiffness in GPa means nothing there).
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    from onnes.crystal.check import flags
    from onnes.crystal.symmetry import standardise

    flat = [f for f in flags(structure) if f in ("slab", "molecule", "chain")]
    if flat:
        raise CrystalError("not-bulk", f"a {flat[0]} in vacuum has no bulk elastic tensor")
    small = standardise(structure, SYMPREC_A)
    done = relax(small, RelaxSettings(potential, fmax_eV_A=FMAX_EV_A, max_steps=STEPS), calc)
    if not done.converged:
        raise PhysicsError("not-relaxed", done.reason)
    found = SpacegroupAnalyzer(done.structure, SYMPREC_A).get_symmetry_dataset()
    c = stiffness(done.structure, potential, calc)
    turn = np.asarray(found.std_rotation_matrix)
    lattice = np.array(done.structure.lattice.matrix)
    turned = rotated(c, turn)
    # Fractional rotations act on columns of coordinates; the lattice has vectors as rows.
    back = np.linalg.inv(lattice.T)
    rotations = [turn @ lattice.T @ w @ back @ turn.T for w in found.rotations]
    mean = np.mean([rotated(turned, r) for r in rotations], axis=0)
    return Elastic(done.structure, found.international, mean, float(np.abs(turned - mean).max()))


def rotated(stiffness_GPa: FloatArray, rotation: FloatArray) -> FloatArray:
    """Stiffness in Voigt notation after an orthogonal transformation of the crystal.

    Parameters
    ----------
    stiffness_GPa : ndarray, shape (6, 6)
    rotation : ndarray, shape (3, 3)
        x' = rotation @ x.
    """
    full = np.empty((3, 3, 3, 3))
    for a, (i, j) in enumerate(PAIRS):
        for b, (k, m) in enumerate(PAIRS):
            for p, q in ((i, j), (j, i)):
                full[p, q, k, m] = full[p, q, m, k] = stiffness_GPa[a, b]
    r = np.asarray(rotation, dtype=float)
    turned = np.einsum("ia,jb,kc,ld,abcd->ijkl", r, r, r, r, full, optimize=True)
    out = np.array([[turned[i, j, k, m] for k, m in PAIRS] for i, j in PAIRS])
    return np.asarray((out + out.T) / 2.0)


def elastic_all(
    items: Iterable[Crystal | Refused], potential: str = DEFAULT
) -> Iterator[tuple[dict[str, Any], Elastic | None]]:
    """Elastic tensors of crystals; refused and failed ones keep their row."""
    for item in items:
        row: dict[str, Any] = {"id": item.id, "potential": potential, "status": "refused"}
        if isinstance(item, Refused):
            yield row | {"formula": item.formula, "reason": item.code}, None
            continue
        row["formula"] = reduced_formula(item.structure)
        try:
            found = elastic(item.structure, potential)
        except OnnesError as error:
            failed = "failed" if isinstance(error, PhysicsError) else "refused"
            yield row | {"status": failed, "reason": f"{error.code}: {error.message}"}, None
            continue
        reason = "" if found.stable else f"born-unstable: eigenvalue {found.least_eigenvalue_GPa:.3g} GPa"
        yield row | found.numbers() | {"status": "ok", "reason": reason}, found
