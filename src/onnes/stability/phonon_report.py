"""Phonons of one crystal: bands, densities of states, heat capacity, Debye temperatures, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.check import dimensionality
from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused, as_crystal
from onnes.crystal.symmetry import space_group
from onnes.errors import CrystalError, OnnesError, PhysicsError
from onnes.stability.phonon_bands import Bands, frequencies, run_bands, standard_path
from onnes.stability.phonon_thermal import debye_acoustic, heat_capacity, kelvin
from onnes.stability.phonon_verdict import (
    TOLERANCE_CM1,
    Modes,
    Verdict,
    commensurate,
    judge,
    noise_radius,
    require_tolerance,
    vote,
)
from onnes.stability.phonons import (
    THZ_TO_MEV,
    Harmonic,
    PhononSettings,
    harmonic,
    run_mesh,
    spectra_of,
)
from onnes.theory.debye import debye_from_dos
from onnes.theory.phonon_dos import SiteSpectra
from onnes.units import TO_KELVIN

if TYPE_CHECKING:
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

THZ_TO_CM1 = TO_KELVIN["THz"] / TO_KELVIN["cm-1"]
#: Cell and atoms relaxed to 1e-3 eV/A, supercells of at least 9 A with even repetitions, refused rather than cut short.
RELAXED = PhononSettings(
    least_length_A=9.0,
    most_times=12,
    most_atoms=600,
    fmax_eV_A=1e-3,
    relax_steps=300,
    relax_cell=True,
    force_left_eV_A=1e-3,
    zone_edges=True,
)
#: The crystal as it is, refused when a force above 1e-3 eV/A is left.
AS_GIVEN = replace(RELAXED, relax_steps=0, relax_cell=False)
#: Positions this close to symmetric ones are made symmetric before a relaxation, angstrom.
SYMMETRISE_A = 0.01
#: Temperatures of the heat capacity curve, kelvin.
TEMPERATURES_K = np.arange(0.0, 1001.0, 10.0)
ROOM_K = 300.0
#: Factor of the supercell's length where one is not enough.
ENLARGE = 1.5
#: Pressures from here on are mentioned, GPa.
PRESSURE_GPA = 1.0
COLUMNS = (
    "id",
    "formula",
    "space_group",
    "verdict",
    "votes",
    "tolerance_cm1",
    "worst_cm1",
    "worst_q",
    "worst_label",
    "worst_exact_cm1",
    "top_cm1",
    "debye_K",
    "debye_acoustic_K",
    "heat_capacity_300K_J_mol_K",
    "potential",
    "supercell",
    "n_primitive",
    "force_left_eV_A",
    "pressure_GPa",
    "volume_change",
    "note",
    "status",
    "reason",
)


@dataclass(frozen=True)
class PhononReport:
    """Phonons of one crystal from one potential.

    Attributes
    ----------
    potential : str
    structure : pymatgen Structure
        Primitive cell the phonons belong to, relaxed if asked.
    spectra : SiteSpectra
        Modes of every atom of the crystal asked for, in its order.
    species : tuple of str
        Elements of those atoms.
    bands : Bands
    verdict : Verdict
    top_cm1 : float
        Highest frequency on mesh and path.
    debye_K : float or None
        From the second moment of the density of states (`onnes.theory.debye.debye_from_dos`); None for a crystal
        with imaginary modes.
    debye_acoustic_K : float or None
        From the long waves (`debye_acoustic`); None for a slab or where an acoustic branch is imaginary.
    temperature_K, heat_capacity_J_mol_K : ndarray, shape (t,)
        Harmonic heat capacity at constant volume per mole of atoms; empty for a crystal with imaginary modes.
    heat_capacity_300K_J_mol_K : float or None
    supercell : tuple of int
    force_left_eV_A, pressure_GPa, volume_change : float
        See `Harmonic`.
    notes : tuple of str
        What a reader must know: pressure, slab, isotopes, remarks of the verdict.
    """

    potential: str
    structure: Structure
    spectra: SiteSpectra
    species: tuple[str, ...]
    bands: Bands
    verdict: Verdict
    top_cm1: float
    debye_K: float | None
    debye_acoustic_K: float | None
    temperature_K: FloatArray
    heat_capacity_J_mol_K: FloatArray
    heat_capacity_300K_J_mol_K: float | None
    supercell: tuple[int, int, int]
    force_left_eV_A: float
    pressure_GPa: float
    volume_change: float
    notes: tuple[str, ...]

    def numbers(self) -> dict[str, Any]:
        """What a table or a ledger keeps."""
        seen = self.verdict
        return {
            "space_group": space_group(self.structure, SYMMETRISE_A)[1],
            "verdict": seen.verdict,
            "tolerance_cm1": seen.tolerance_cm1,
            "worst_cm1": seen.worst_cm1,
            "worst_q": " ".join(f"{x:.6g}" for x in seen.worst_q),
            "worst_label": seen.worst_label,
            "worst_exact_cm1": seen.worst_exact_cm1,
            "top_cm1": self.top_cm1,
            "debye_K": self.debye_K,
            "debye_acoustic_K": self.debye_acoustic_K,
            "heat_capacity_300K_J_mol_K": self.heat_capacity_300K_J_mol_K,
            "potential": self.potential,
            "supercell": "x".join(map(str, self.supercell)),
            "n_primitive": len(self.structure),
            "force_left_eV_A": self.force_left_eV_A,
            "pressure_GPa": self.pressure_GPa,
            "volume_change": self.volume_change,
            "note": "; ".join(self.notes),
        }


def phonon_report(
    crystal: Any,
    settings: PhononSettings = RELAXED,
    *,
    tolerance_cm1: float = TOLERANCE_CM1,
    calc: Any = None,
) -> PhononReport:
    """Compute the phonons of a crystal.

    Modes that are imaginary only between the q-points of the supercell may be its artefact: the supercell is then
    made larger once, by half, and the larger one has the last word.

    Parameters
    ----------
    crystal : Crystal, pymatgen Structure or ASE Atoms
        Any cell of the crystal. Isotopes that the reader kept enter the frequencies; a slab is not repeated along
        its vacuum, and its cell is not relaxed.
    settings : PhononSettings
        `RELAXED` and `AS_GIVEN` are ready.
    tolerance_cm1 : float
        Imaginary modes above minus this are no instability.
    calc : ASE calculator, optional
        Instead of the potential named in the settings.

    Raises
    ------
    CrystalError
        ``low-dimensional`` (chain, molecule), ``potential-unknown-element``, ``supercell-too-large``,
        ``vacuum-not-along-axis``.
    PhysicsError
        ``not-relaxed``, ``diverged``, ``phonons-failed``.
    SettingsError
        ``bad-setting``, ``unknown-potential``.
    """
    require_tolerance(tolerance_cm1)
    item = as_crystal(crystal)
    masses: dict[int, float] = item.meta.get("isotopes", {})
    empty = 3 - dimensionality(item.structure)
    if empty > 1:
        raise CrystalError(
            "low-dimensional",
            f"a {'chain' if empty == 2 else 'molecule'} in a box turns freely, which these phonons do not describe;"
            " bulk crystals and slabs only",
        )
    notes = [] if not masses else [f"isotopes: {_isotopes(item)}"]
    if empty:
        notes.append("slab: not repeated along the vacuum, cell not relaxed")
        settings = replace(settings, relax_cell=False)
    structure = _symmetrised(item.structure) if settings.relax_steps else item.structure
    asked = _Asked(structure, masses, empty, tolerance_cm1, notes, calc)
    report = _once(asked, settings)
    if not report.verdict.interpolated:
        return report
    larger = replace(settings, least_length_A=ENLARGE * settings.least_length_A)
    try:
        again = _once(asked, larger)
    except CrystalError as error:
        return replace(report, notes=(*report.notes, error.message))
    size, lowest = "x".join(map(str, report.supercell)), report.verdict.worst_cm1
    told = f"supercell: enlarged, as {size} had {lowest:.1f} cm-1 between its q-points"
    return replace(again, notes=(*again.notes, told))


class _Asked(NamedTuple):
    structure: Structure
    masses: Mapping[int, float]
    vacuum_axes: int
    tolerance_cm1: float
    notes: list[str]
    calc: Any


def _once(asked: _Asked, settings: PhononSettings) -> PhononReport:
    try:
        found = harmonic(
            asked.structure, settings, asked.calc, masses=asked.masses, vacuum_axes=asked.vacuum_axes
        )
        return _report(found, settings, asked)
    except (ArithmeticError, ValueError, IndexError, np.linalg.LinAlgError, RuntimeError) as error:
        # phonopy, spglib and ASE stop with errors of their own.
        raise PhysicsError("phonons-failed", f"{type(error).__name__}: {str(error)[:200]}") from error


class Reported(NamedTuple):
    """A row of the table and the reports it is made of, one a potential that came through."""

    row: dict[str, Any]
    reports: tuple[PhononReport, ...]


def report_all(
    items: Iterable[Crystal | Refused],
    settings: PhononSettings = RELAXED,
    potentials: Sequence[str] = (),
    tolerance_cm1: float = TOLERANCE_CM1,
) -> Iterator[Reported]:
    """Phonons of crystals one by one; refused and failed ones keep their row.

    Parameters
    ----------
    items : iterable of Crystal or Refused
        As `onnes.crystal.read.read` yields them.
    settings : PhononSettings
    potentials : sequence of str
        Names; by default the one of the settings. Several vote; the numbers of the row are those of the first that
        came through.
    tolerance_cm1 : float
    """
    names = list(dict.fromkeys(potentials)) or [settings.potential]
    for item in items:
        row: dict[str, Any] = {"id": item.id, "formula": "", "status": "refused", "reason": ""}
        if isinstance(item, Refused):
            row.update(formula=item.formula, reason=item.code)
            yield Reported(row, ())
            continue
        row["formula"] = reduced_formula(item.structure)
        reports: list[PhononReport] = []
        failed: dict[str, OnnesError] = {}
        for name in names:
            try:
                reports.append(
                    phonon_report(item, replace(settings, potential=name), tolerance_cm1=tolerance_cm1)
                )
            except (CrystalError, PhysicsError) as error:
                failed[name] = error
        row.update(_joint(reports, failed))
        yield Reported(row, tuple(reports))


def _joint(reports: Sequence[PhononReport], failed: Mapping[str, OnnesError]) -> dict[str, Any]:
    row: dict[str, Any] = dict(reports[0].numbers()) if reports else {}
    votes = {r.potential: r.verdict.verdict for r in reports}
    row["verdict"] = vote(votes)
    said = {**votes, **{name: error.code for name, error in failed.items()}}
    row["votes"] = " ".join(f"{name}={text}" for name, text in said.items())
    if not failed:
        return {**row, "status": "ok", "reason": ""}
    first = next(iter(failed.values()))
    notes = [row.get("note", ""), *(f"{name}: {e.message}" for name, e in failed.items())]
    status = "refused" if isinstance(first, CrystalError) else "failed"
    return {**row, "status": status, "reason": first.code, "note": "; ".join(n for n in notes if n)}


def _report(found: Harmonic, settings: PhononSettings, asked: _Asked) -> PhononReport:
    from pymatgen.core import Structure

    phonon, notes = found.phonon, list(asked.notes)
    times = [int(n) for n in np.diag(phonon.supercell_matrix)]
    mesh = run_mesh(found, settings.mesh_length_A)
    spectra = spectra_of(found, mesh)
    bands = run_bands(phonon, standard_path(phonon.primitive.cell, found.vacuum), THZ_TO_MEV)
    verdict = _verdict(found, bands, mesh, times, asked.tolerance_cm1)
    slab = any(found.vacuum)
    if not slab and abs(found.pressure_GPa) >= PRESSURE_GPA:
        notes.append(f"pressure: {found.pressure_GPa:.1f} GPa at this cell")
    if verdict.note:
        notes.append(verdict.note)
    try:
        capacity = heat_capacity(
            kelvin(mesh["frequencies"] * THZ_TO_MEV), mesh["weights"], [*TEMPERATURES_K, ROOM_K]
        )
        debye: float | None = debye_from_dos(kelvin(spectra.omega_meV), spectra.total)
    except PhysicsError as error:
        capacity, debye = np.empty(0), None
        notes.append(f"{error.code}: no heat capacity and no Debye temperature")
    return PhononReport(
        potential=settings.potential if asked.calc is None else type(asked.calc).__name__,
        structure=Structure(
            phonon.primitive.cell, phonon.primitive.symbols, phonon.primitive.scaled_positions
        ),
        spectra=spectra,
        species=tuple(phonon.primitive.symbols[k] for k in found.site),
        bands=bands,
        verdict=verdict,
        top_cm1=float(max(mesh["frequencies"].max(), bands.omega_meV.max() / THZ_TO_MEV) * THZ_TO_CM1),
        debye_K=debye,
        debye_acoustic_K=None if slab or debye is None else _long_waves(found),
        temperature_K=TEMPERATURES_K[: len(capacity)],
        heat_capacity_J_mol_K=capacity[:-1],
        heat_capacity_300K_J_mol_K=float(capacity[-1]) if len(capacity) else None,
        supercell=(times[0], times[1], times[2]),
        force_left_eV_A=found.force_left_eV_A,
        pressure_GPa=found.pressure_GPa,
        volume_change=found.volume_change,
        notes=tuple(notes),
    )


def _verdict(
    found: Harmonic, bands: Bands, mesh: Mapping[str, FloatArray], times: Sequence[int], tolerance_cm1: float
) -> Verdict:
    reciprocal: FloatArray = np.linalg.inv(np.asarray(found.phonon.primitive.cell, dtype=np.float64)).T
    fitting = commensurate(times)
    modes = [
        Modes(bands.path.q, bands.omega_meV / THZ_TO_MEV * THZ_TO_CM1, bands.path.label),
        Modes(fitting, frequencies(found.phonon, fitting) * THZ_TO_CM1, exact=True),
        Modes(mesh["qpoints"], mesh["frequencies"] * THZ_TO_CM1),
    ]
    return judge(modes, noise_radius(times, reciprocal, found.vacuum), reciprocal, tolerance_cm1)


def _long_waves(found: Harmonic) -> float | None:
    try:
        return debye_acoustic(found.phonon)
    except PhysicsError:
        return None


def _symmetrised(structure: Structure) -> Structure:
    """The structure with lattice and positions made as symmetric as they nearly are; the order of atoms is kept."""
    from ase.spacegroup.symmetrize import refine_symmetry
    from pymatgen.core import Structure as PmgStructure
    from pymatgen.io.ase import AseAtomsAdaptor

    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    try:
        refine_symmetry(atoms, symprec=SYMMETRISE_A)
    except Exception:  # spglib finds no symmetry: the crystal is used as it is
        return structure
    return PmgStructure(np.array(atoms.cell), structure.species, atoms.get_scaled_positions())


def _isotopes(item: Crystal) -> str:
    found: dict[str, int] = {}
    for k, mass in item.meta["isotopes"].items():
        name = f"{item.structure[k].specie} of {mass:.3f} u"
        found[name] = found.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in found.items())
