"""Phonons of a crystal from a universal potential: force constants by finite displacements and the sites' spectra.

The crystal is taken at the cell it has, unless the settings say otherwise: only its atoms are relaxed, so that a
compressed hydride stays compressed. Force constants and diagonalisation are phonopy's (A. Togo, J. Phys. Soc. Jpn.
92, 012001 (2023)). `onnes.stability.phonon_report` makes bands, thermal quantities and a verdict of them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.errors import CrystalError, PhysicsError, SettingsError
from onnes.stability.potentials import DEFAULT, calculator, require_elements
from onnes.stability.relax import VOLUME_WINDOW
from onnes.theory.phonon_dos import SiteSpectra
from onnes.units import TO_KELVIN, UNITS

if TYPE_CHECKING:
    from phonopy import Phonopy
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

THZ_TO_MEV = TO_KELVIN["THz"] / TO_KELVIN["meV"]
#: Cell edges of the sites' spectra: imaginary modes lie below zero.
LOWEST_MEV, HIGHEST_MEV, STEP_MEV = -60.0, 600.0, 0.25
#: Largest force that the relaxation of the atoms may leave; harmonic phonons need a minimum.
FORCE_LEFT_EV_A = 0.02
#: Thinnest empty layer that counts as vacuum where the reader saw a slab.
LEAST_GAP_A = 4.0
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
    zone_edges : bool
        Make repetitions even (one stays one), so that the zone edges, where crystals like to become unstable, fit
        into the supercell.
    most_atoms : int
        Of the supercell; larger ones are refused.
    displacement_A : float
    mesh_length_A : float
        Fineness of the q-mesh: about this length over the lattice constant along each axis.
    fmax_eV_A, relax_steps
        Relaxation of the atoms; no steps, no relaxation.
    relax_cell : bool
        Relax the cell with them, its symmetry kept.
    force_left_eV_A : float
        A crystal with a larger force on an atom is refused.
    """

    potential: str = DEFAULT
    least_length_A: float = 12.0
    most_times: int = 5
    most_atoms: int = 400
    displacement_A: float = 0.02
    mesh_length_A: float = 60.0
    fmax_eV_A: float = 0.002
    relax_steps: int = 100
    relax_cell: bool = False
    force_left_eV_A: float = FORCE_LEFT_EV_A
    zone_edges: bool = False

    def __post_init__(self) -> None:
        positive = (self.least_length_A, self.most_times, self.most_atoms, self.displacement_A)
        forces = (self.mesh_length_A, self.fmax_eV_A, self.force_left_eV_A)
        if not min(*positive, *forces) > 0 or not np.isfinite(forces).all() or self.relax_steps < 0:
            raise SettingsError("bad-setting", f"lengths, counts and forces must be positive: {self}")


#: Force constants on a 2x2x2 mesh of the primitive cell (fewer along axes beyond 9 angstrom), and finer ones.
COARSE = PhononSettings(least_length_A=9.0, most_times=2, mesh_length_A=40.0, fmax_eV_A=0.01)
FINE = PhononSettings(least_length_A=10.0)


@dataclass(frozen=True)
class Harmonic:
    """Force constants of a primitive cell, and what they belong to.

    Attributes
    ----------
    phonon : Phonopy
        With force constants; its unit cell is the primitive cell with relaxed atoms.
    site : ndarray of int, shape (N,)
        Atom of the primitive cell that each atom of the crystal asked for is.
    even : bool
        Masses obey the symmetry of the crystal, so that a symmetric mesh may be used.
    vacuum : tuple of bool, shape (3,)
        Axes of the primitive cell along which nothing touches: not repeated, not sampled.
    force_left_eV_A, pressure_GPa : float
        At rest; the pressure is minus a third of the trace of the stress, NaN where the calculator has no stress.
    volume_change : float
        Of the relaxation, relative.
    """

    phonon: Phonopy
    site: NDArray[np.int64]
    even: bool
    vacuum: tuple[bool, bool, bool]
    force_left_eV_A: float
    pressure_GPa: float
    volume_change: float


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
    found = harmonic(structure, settings, calc)
    return spectra_of(found, run_mesh(found, settings.mesh_length_A))


def run_mesh(found: Harmonic, length_A: float) -> dict[str, FloatArray]:
    """Frequencies and eigenvectors on a mesh of q-points.

    Returns
    -------
    dict
        ``qpoints`` (n, 3), ``weights`` (n,), ``frequencies`` (n, 3N) in THz, ``eigenvectors`` (n, 3N, 3N).
    """
    phonon = found.phonon
    numbers: Any = length_A
    if any(found.vacuum):
        reciprocal = np.linalg.norm(np.linalg.inv(phonon.primitive.cell), axis=0)
        fine = np.maximum(1, np.rint(length_A * reciprocal)).astype(int)
        numbers = [1 if empty else int(n) for n, empty in zip(fine, found.vacuum, strict=True)]
    phonon.run_mesh(numbers, with_eigenvectors=True, is_mesh_symmetry=found.even)
    mesh: Any = phonon.get_mesh_dict()
    return {name: np.asarray(mesh[name]) for name in ("qpoints", "weights", "frequencies", "eigenvectors")}


def spectra_of(found: Harmonic, mesh: Mapping[str, FloatArray]) -> SiteSpectra:
    """Spectrum of every atom from the modes on a mesh of `run_mesh`."""
    omega = mesh["frequencies"] * THZ_TO_MEV
    edges = np.arange(LOWEST_MEV, HIGHEST_MEV + STEP_MEV / 2, STEP_MEV)
    cell = np.clip(((omega - LOWEST_MEV) / STEP_MEV).astype(int), 0, len(edges) - 2)
    # (q, 3n, band) -> share of each atom in each mode.
    share = (np.abs(mesh["eigenvectors"]) ** 2).reshape(len(omega), -1, 3, omega.shape[1]).sum(2)
    share *= (mesh["weights"] / mesh["weights"].sum())[:, None, None]
    each: FloatArray = np.stack(
        [
            np.bincount(cell.ravel(), share[:, k].ravel(), len(edges) - 1).astype(float)
            for k in range(share.shape[1])
        ]
    )
    if found.even:
        # Only irreducible q are visited: equivalent atoms share what they have together.
        orbit = np.array(found.phonon.primitive_symmetry.get_map_atoms())
        for first in np.unique(orbit):
            each[orbit == first] = each[orbit == first].mean(0)
    return SiteSpectra(edges, each[found.site])


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
    found = harmonic(structure, settings, calc)
    return found.phonon, found.site


def harmonic(
    structure: Structure,
    settings: PhononSettings,
    calc: Any = None,
    *,
    masses: Mapping[int, float] | None = None,
    vacuum_axes: int = 0,
) -> Harmonic:
    """Force constants of the primitive cell, isotopes and vacuum included.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered.
    settings : PhononSettings
    calc : ASE calculator, optional
        Instead of the potential named in the settings.
    masses : mapping of int to float, optional
        Mass in u of atoms of `structure` that are not the natural mixture.
    vacuum_axes : int
        Number of axes of the primitive cell that hold vacuum (1 for a slab); found by the widest gaps.

    Raises
    ------
    CrystalError, PhysicsError
        See `site_spectra`; ``vacuum-not-along-axis``.
    """
    with warnings.catch_warnings():
        # phonopy warns of the primitive cell that it was asked to find.
        warnings.simplefilter("ignore", UserWarning)
        return _harmonic(structure, settings, calc, masses or {}, vacuum_axes)


def _harmonic(
    structure: Structure, settings: PhononSettings, calc: Any, masses: Mapping[int, float], vacuum_axes: int
) -> Harmonic:
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
    primitive, site = _primitive(unit, "auto")
    mass = _masses(primitive, site, masses)
    if mass is None:  # isotopes tell atoms apart that the lattice's translations make equal
        primitive, site = _primitive(unit, np.eye(3))
        mass = _masses(primitive, site, masses)
    vacuum = _vacuum(primitive, vacuum_axes)
    cell, left, pressure = _at_rest(primitive, settings, calc)
    times = np.where(vacuum, 1, repetitions(cell.cell, settings))
    if len(cell) * times.prod() > settings.most_atoms:
        raise CrystalError(
            "supercell-too-large",
            f"phonons need a supercell of {len(cell) * times.prod()} atoms; the limit is {settings.most_atoms}",
        )
    phonon = Phonopy(cell, supercell_matrix=np.diag(times), primitive_matrix=np.eye(3), symprec=SYMPREC_A)
    phonon.generate_displacements(distance=settings.displacement_A, is_plusminus="auto")
    # A residual force of the rest would be read as a force constant.
    rest = _forces(phonon.supercell, calc)
    phonon.forces = [_forces(c, calc) - rest for c in phonon.supercells_with_displacements or []]
    phonon.produce_force_constants(show_drift=False)
    phonon.symmetrize_force_constants(show_drift=False)
    orbit, even = np.array(phonon.primitive_symmetry.get_map_atoms()), True
    if masses and mass is not None:
        # Force constants know no masses, so isotopes enter afterwards.
        phonon.masses = mass
        even = all(np.ptp(mass[orbit == k]) < 1e-6 for k in np.unique(orbit))
    change = float(abs(np.linalg.det(cell.cell)) / abs(np.linalg.det(primitive.cell)) - 1.0)
    return Harmonic(phonon, site, even, vacuum, left, pressure, change)


def _primitive(unit: Any, matrix: Any) -> tuple[Any, NDArray[np.int64]]:
    """Primitive cell, and its atom that each atom of `unit` is."""
    from phonopy import Phonopy

    primitive = Phonopy(
        unit, supercell_matrix=np.eye(3, dtype=int), primitive_matrix=matrix, symprec=SYMPREC_A
    ).primitive
    place = primitive.p2p_map
    return primitive, np.array([place[k] for k in primitive.s2p_map], dtype=np.int64)


def _masses(primitive: Any, site: NDArray[np.int64], isotopes: Mapping[int, float]) -> FloatArray | None:
    """Masses of the primitive cell's atoms; None when two atoms it takes for one differ."""
    natural = np.asarray(primitive.masses, dtype=float)
    each = natural[site]
    for k, mass in isotopes.items():
        each[k] = mass
    found = np.array([each[site == k].mean() for k in range(len(natural))])
    return found if np.allclose(found[site], each, rtol=0.0, atol=1e-6) else None


def _vacuum(cell: Any, count: int) -> tuple[bool, bool, bool]:
    """Mark the `count` axes with the widest empty layer."""
    gap = np.zeros(3)
    height = 1.0 / np.linalg.norm(np.linalg.inv(cell.cell), axis=0)
    for axis in range(3):
        x = np.sort(np.mod(cell.scaled_positions[:, axis], 1.0))
        gap[axis] = height[axis] * np.diff(np.append(x, x[0] + 1.0)).max()
    empty = np.zeros(3, dtype=bool)
    empty[np.argsort(-gap)[:count]] = True
    if count and gap[empty].min() < LEAST_GAP_A:
        raise CrystalError(
            "vacuum-not-along-axis",
            f"the widest empty layers along the axes of the primitive cell are {', '.join(f'{g:.1f}' for g in gap)} A;"
            f" {LEAST_GAP_A:g} A expected along {count}: give a cell with one axis through the vacuum",
        )
    return bool(empty[0]), bool(empty[1]), bool(empty[2])


def repetitions(cell: FloatArray, settings: PhononSettings) -> NDArray[np.int64]:
    """Repetitions along the axes: the fewest that make the distance between opposite faces long enough."""
    height = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    times = np.ceil(settings.least_length_A / height - 1e-6).astype(np.int64)
    times = np.clip(times, 1, settings.most_times)
    return np.asarray(np.where(settings.zone_edges & (times > 1), times + times % 2, times))


def _at_rest(primitive: Any, settings: PhononSettings, calc: Any) -> tuple[Any, float, float]:
    """The primitive cell with its atoms at rest, the largest force left and the pressure.

    Symmetry is kept; it fixes most atoms, so few steps are needed.
    """
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import LBFGS
    from phonopy.structure.atoms import PhonopyAtoms

    atoms = _atoms(primitive)
    moves = bool(settings.relax_steps) and (len(atoms) > 1 or settings.relax_cell)
    if moves:
        atoms.set_constraint(FixSymmetry(atoms, symprec=SYMPREC_A, verbose=False))
    atoms.calc = calc
    if moves:
        free: Any = FrechetCellFilter(atoms) if settings.relax_cell else atoms
        run = LBFGS(free, logfile=io.StringIO(), maxstep=0.1)
        done = False
        for converged in run.irun(fmax=settings.fmax_eV_A, steps=settings.relax_steps):
            done = bool(converged)
            _require_sane(atoms.get_volume() / abs(np.linalg.det(primitive.cell)))
        if settings.relax_cell and not done:
            raise PhysicsError(
                "not-relaxed", f"cell and atoms have not come to rest in {settings.relax_steps} steps"
            )
    left = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
    if not left <= settings.force_left_eV_A:
        raise PhysicsError(
            "not-relaxed", f"a force of {left:.3g} eV/A is left on the atoms; relax the crystal first"
        )
    cell = PhonopyAtoms(
        symbols=primitive.symbols,
        cell=np.array(atoms.cell) if settings.relax_cell else primitive.cell,
        scaled_positions=atoms.get_scaled_positions(),
    )
    return cell, left, _pressure(atoms)


def _require_sane(ratio: float) -> None:
    if not VOLUME_WINDOW[0] <= ratio <= VOLUME_WINDOW[1]:
        raise PhysicsError("diverged", f"the volume changed {ratio:.3g}-fold in the relaxation")


def _pressure(atoms: Any) -> float:
    if "stress" not in atoms.calc.implemented_properties:
        return float("nan")
    # Voigt order: the first three are the diagonal.
    return float(-atoms.get_stress()[:3].mean() * UNITS.eV_per_A3_to_GPa)


def _forces(cell: Any, calc: Any) -> FloatArray:
    atoms = _atoms(cell)
    atoms.calc = calc
    return np.asarray(atoms.get_forces())


def _atoms(cell: Any) -> Any:
    from ase import Atoms

    return Atoms(symbols=cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
