"""Phonons of a crystal from a universal potential: force constants by finite displacements and the sites' spectra.

The crystal is taken at the cell it has: only its atoms are relaxed, so that a compressed hydride stays compressed.
Force constants and diagonalisation are phonopy's (A. Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import CrystalError, PhysicsError, SettingsError
from onnes.stability.potentials import DEFAULT, calculator, require_elements
from onnes.units import TO_KELVIN

if TYPE_CHECKING:
    from phonopy import Phonopy
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

THZ_TO_MEV = TO_KELVIN["THz"] / TO_KELVIN["meV"]
#: Cell edges of the sites' spectra: imaginary modes lie below zero.
LOWEST_MEV, HIGHEST_MEV, STEP_MEV = -60.0, 600.0, 0.25
#: Largest force that the relaxation of the atoms may leave; harmonic phonons need a minimum.
FORCE_LEFT_EV_A = 0.02
#: Distances of symmetry searches, angstrom.
SYMPREC_A = 1e-3


@dataclass(frozen=True)
class PhononSettings:
    """How force constants are computed.

    Attributes
    ----------
    potential : str
        Name in `onnes.stability.potentials.POTENTIALS`.
    least_length_A : float
        Every axis of the supercell is at least this long.
    most_times : int
        Repetitions along an axis are no more than this, whatever the length.
    most_atoms : int
        Of the supercell; larger ones are refused.
    displacement_A : float
    mesh_length_A : float
        Fineness of the q-mesh: about this length over the lattice constant along each axis.
    fmax_eV_A, relax_steps
        Relaxation of the atoms at fixed cell.
    """

    potential: str = DEFAULT
    least_length_A: float = 12.0
    most_times: int = 5
    most_atoms: int = 400
    displacement_A: float = 0.02
    mesh_length_A: float = 60.0
    fmax_eV_A: float = 0.002
    relax_steps: int = 100

    def __post_init__(self) -> None:
        positive = (self.least_length_A, self.most_times, self.most_atoms, self.displacement_A)
        if min(*positive, self.mesh_length_A, self.fmax_eV_A) <= 0 or self.relax_steps < 0:
            raise SettingsError("bad-setting", f"lengths, counts and forces must be positive: {self}")


#: Force constants on a 2x2x2 mesh of the primitive cell (fewer along axes beyond 9 angstrom), and finer ones.
COARSE = PhononSettings(least_length_A=9.0, most_times=2, mesh_length_A=40.0, fmax_eV_A=0.01)
FINE = PhononSettings(least_length_A=10.0)


@dataclass(frozen=True)
class SiteSpectra:
    """Vibrational spectrum of every atom.

    Attributes
    ----------
    edges_meV : ndarray, shape (m + 1,)
        Edges of equal cells; imaginary modes lie below zero.
    weight : ndarray, shape (N, m)
        Modes of each atom in each cell; a row sums to 3.
    """

    edges_meV: FloatArray
    weight: FloatArray

    @property
    def omega_meV(self) -> FloatArray:
        """Middles of the cells, shape (m,)."""
        return (self.edges_meV[1:] + self.edges_meV[:-1]) / 2.0

    @property
    def total(self) -> FloatArray:
        """Modes of the cell per meV, shape (m,)."""
        return np.asarray(self.weight.sum(0) / np.diff(self.edges_meV))

    @property
    def imaginary(self) -> float:
        """Share of the modes below -0.5 meV."""
        low = self.edges_meV[1:] <= -0.5
        return float(self.weight[:, low].sum() / self.weight.sum())

    @property
    def highest_meV(self) -> float:
        """Upper edge of the spectrum."""
        return float(self.edges_meV[1:][self.weight.sum(0) > 0][-1])

    def on(self, edges_meV: FloatArray, smear_meV: float = 0.0) -> FloatArray:
        """Modes of each atom in other cells, shape (N, len(edges) - 1).

        Parameters
        ----------
        edges_meV : ndarray
            Increasing; what lies outside is left out.
        smear_meV : float
            Deviation of a Gaussian that widens every mode first.
        """
        if smear_meV > 0.0:
            from scipy.special import ndtr

            share = ndtr((edges_meV[:, None] - self.omega_meV) / smear_meV)
            return np.asarray(self.weight @ np.diff(share, axis=0).T)
        below = np.concatenate([np.zeros((len(self.weight), 1)), np.cumsum(self.weight, axis=1)], axis=1)
        return np.diff(np.stack([np.interp(edges_meV, self.edges_meV, row) for row in below]), axis=1)


def site_spectra(structure: Structure, settings: PhononSettings = COARSE, calc: Any = None) -> SiteSpectra:
    """Vibrational spectrum of every atom of a crystal.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered; any cell of the crystal gives the same spectra.
    settings : PhononSettings
        `COARSE` and `FINE` are ready.
    calc : ASE calculator, optional
        Instead of the potential named in the settings.

    Returns
    -------
    SiteSpectra

    Raises
    ------
    CrystalError
        ``potential-unknown-element``, ``supercell-too-large``.
    PhysicsError
        ``not-relaxed``: the atoms do not come to rest at this cell.
    """
    phonon, site = force_constants(structure, settings, calc)
    phonon.run_mesh(settings.mesh_length_A, with_eigenvectors=True, is_mesh_symmetry=True)
    mesh = phonon.get_mesh_dict()
    omega = mesh["frequencies"] * THZ_TO_MEV
    edges = np.arange(LOWEST_MEV, HIGHEST_MEV + STEP_MEV / 2, STEP_MEV)
    cell = np.clip(((omega - LOWEST_MEV) / STEP_MEV).astype(int), 0, len(edges) - 2)
    # (q, 3n, band) -> share of each atom in each mode.
    share = (np.abs(mesh["eigenvectors"]) ** 2).reshape(len(omega), -1, 3, omega.shape[1]).sum(2)
    share *= (mesh["weights"] / mesh["weights"].sum())[:, None, None]
    each = np.stack(
        [np.bincount(cell.ravel(), share[:, k].ravel(), len(edges) - 1) for k in range(share.shape[1])]
    )
    # Only irreducible q are visited: equivalent atoms share what they have together.
    orbit = np.array(phonon.primitive_symmetry.get_map_atoms())
    for first in np.unique(orbit):
        each[orbit == first] = each[orbit == first].mean(0)
    return SiteSpectra(edges, each[site])


def force_constants(
    structure: Structure, settings: PhononSettings, calc: Any = None
) -> tuple[Phonopy, NDArray[np.int64]]:
    """Force constants of the primitive cell.

    Returns
    -------
    Phonopy
        With force constants; its unit cell is the primitive cell with relaxed atoms.
    ndarray of int, shape (N,)
        Atom of the primitive cell that each atom of `structure` is.

    Raises
    ------
    CrystalError, PhysicsError
        See `site_spectra`.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    if calc is None:
        calc = calculator(settings.potential)
        require_elements(structure, settings.potential)
    unit = PhonopyAtoms(
        symbols=[site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
    )
    primitive = Phonopy(
        unit, supercell_matrix=np.eye(3, dtype=int), primitive_matrix="auto", symprec=SYMPREC_A
    ).primitive
    place = primitive.p2p_map
    site = np.array([place[k] for k in primitive.s2p_map], dtype=np.int64)
    cell = _at_rest(primitive, settings, calc)
    times = repetitions(cell.cell, settings)
    if len(cell) * times.prod() > settings.most_atoms:
        raise CrystalError(
            "supercell-too-large",
            f"phonons need a supercell of {len(cell) * times.prod()} atoms; the limit is {settings.most_atoms}",
        )
    phonon = Phonopy(
        cell, supercell_matrix=np.diag(times), primitive_matrix=np.eye(3), symprec=SYMPREC_A
    )
    phonon.generate_displacements(distance=settings.displacement_A, is_plusminus="auto")
    # A residual force of the rest would be read as a force constant.
    rest = _forces(phonon.supercell, calc)
    phonon.forces = [_forces(c, calc) - rest for c in phonon.supercells_with_displacements]
    phonon.produce_force_constants(show_drift=False)
    phonon.symmetrize_force_constants(show_drift=False)
    return phonon, site


def repetitions(cell: FloatArray, settings: PhononSettings) -> NDArray[np.int64]:
    """Repetitions along the axes: the fewest that make the distance between opposite faces long enough."""
    height = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    times = np.ceil(settings.least_length_A / height - 1e-6).astype(np.int64)
    return np.asarray(np.clip(times, 1, settings.most_times))


def _at_rest(primitive: Any, settings: PhononSettings, calc: Any) -> Any:
    """The primitive cell with its atoms at rest; symmetry fixes most of them, so few steps are needed."""
    from ase.constraints import FixSymmetry
    from ase.optimize import LBFGS
    from phonopy.structure.atoms import PhonopyAtoms

    atoms = _atoms(primitive)
    if len(atoms) > 1 and settings.relax_steps:
        atoms.set_constraint(FixSymmetry(atoms, symprec=SYMPREC_A, verbose=False))
    atoms.calc = calc
    if len(atoms) > 1 and settings.relax_steps:
        LBFGS(atoms, logfile=io.StringIO(), maxstep=0.1).run(
            fmax=settings.fmax_eV_A, steps=settings.relax_steps
        )
    left = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if not left <= FORCE_LEFT_EV_A:
        raise PhysicsError(
            "not-relaxed", f"a force of {left:.3g} eV/A is left on the atoms; relax the crystal first"
        )
    return PhonopyAtoms(
        symbols=primitive.symbols, cell=primitive.cell, scaled_positions=atoms.get_scaled_positions()
    )


def _forces(cell: Any, calc: Any) -> FloatArray:
    atoms = _atoms(cell)
    atoms.calc = calc
    return np.asarray(atoms.get_forces())


def _atoms(cell: Any) -> Any:
    from ase import Atoms

    return Atoms(symbols=cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
