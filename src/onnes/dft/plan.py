"""The steps of a run: folders, programs, inputs, what needs what, and a hash for each.

Folder layout below the run::

    pseudo/            copies of the pseudopotentials used
    relax/relax.in
    spin/spin.in       only where magnetism is looked for
    scf/dense.in, scf.in
    q001/ph.in, q002/ph.in, ...
    bands/q2r.in, bands.in, a2f.in
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from onnes.crystal.formula import reduced_formula
from onnes.data.fetch import digest
from onnes.data.files import atomic_text, atomic_write
from onnes.dft import inputs
from onnes.dft.cutoffs import cutoffs_of
from onnes.dft.grids import Grids, irreducible, make_grids, point_rotations
from onnes.dft.inputs import Cell
from onnes.dft.pseudopotentials import Pseudopotential, suggested_cutoffs
from onnes.dft.tiers import Tier
from onnes.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


class Program(StrEnum):
    """Executables of Quantum ESPRESSO that a run needs."""

    PW = "pw.x"
    PH = "ph.x"
    Q2R = "q2r.x"
    MATDYN = "matdyn.x"


@dataclass(frozen=True)
class Step:
    """One execution.

    Attributes
    ----------
    name : str
        Unique in the run: ``relax``, ``spin``, ``dense``, ``scf``, ``q001``, ``q2r``, ``bands``, ``a2f``.
    folder : str
        Working directory below the run.
    program : Program
    text : str
        The input.
    needs : tuple of str
        Steps whose results it reads.
    """

    name: str
    folder: str
    program: Program
    text: str
    needs: tuple[str, ...] = ()

    @property
    def input_name(self) -> str:
        """File name of the input in the step's folder."""
        return "ph.in" if self.program is Program.PH else f"{self.name}.in"

    @property
    def output_name(self) -> str:
        """File name of the standard output."""
        return self.input_name.removesuffix(".in") + ".out"


@dataclass(frozen=True)
class Plan:
    """All steps of one crystal at one tier.

    Attributes
    ----------
    cell : Cell
    tier : Tier
    grids : Grids
    q_weights : tuple of int
        Points of every irreducible q's star, in this package's order (not that of ``dyn0``).
    pseudo_sha256 : dict
        Element -> checksum; empty where the plan was made without pseudopotentials.
    steps : tuple of Step
        In an order that respects `Step.needs`.
    """

    cell: Cell
    tier: Tier
    grids: Grids
    q_weights: tuple[int, ...]
    pseudo_sha256: dict[str, str]
    steps: tuple[Step, ...]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every step: its program and input, the pseudopotentials, and the steps it needs."""
        found: dict[str, str] = {}
        common = json.dumps(self.pseudo_sha256, sort_keys=True)
        for step in self.steps:
            parts = [step.program, step.text, common, *(found[name] for name in step.needs)]
            found[step.name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return found

    def write(self, folder: str | Path, pseudos: dict[str, Pseudopotential] | None = None) -> list[Path]:
        """Write every input, ``plan.json`` and copies of the pseudopotentials; returns the files in order.

        Raises
        ------
        DataError
            ``cannot-write``.
        """
        place = Path(folder)
        written = []
        for step in self.steps:
            file = place / step.folder / step.input_name
            # What is there already is left alone: going on must not need a disk with room for it twice.
            if not file.is_file() or file.read_bytes() != step.text.encode():
                with atomic_text(file) as stream:
                    stream.write(step.text)
            written.append(file)
        for pseudo in (pseudos or {}).values():
            copy = place / "pseudo" / pseudo.path.name
            if not copy.is_file() or digest(copy) != pseudo.sha256:
                with atomic_write(copy) as raw:
                    raw.write(pseudo.path.read_bytes())
            written.append(copy)
        with atomic_text(place / "plan.json") as stream:
            stream.write(json.dumps(self.summary(), indent=2, sort_keys=True) + "\n")
        return [*written, place / "plan.json"]

    def summary(self) -> dict[str, object]:
        """Settings, grids, hashes: everything that decides the result, as plain data."""
        return {
            "formula": reduced_formula(self.cell.structure),
            "tier": asdict(self.tier),
            "grids": asdict(self.grids),
            "irreducible_q": len(self.q_weights),
            "ecutwfc_Ry": self.cell.ecutwfc_Ry,
            "ecutrho_Ry": self.cell.ecutrho_Ry,
            "masses_u": self.cell.masses,
            "pseudopotentials": {
                e: {"file": self.cell.files[e], "sha256": self.pseudo_sha256.get(e, "")}
                for e in self.cell.elements
            },
            "steps": [
                {
                    "name": s.name,
                    "folder": s.folder,
                    "program": s.program,
                    "input": s.input_name,
                    "needs": s.needs,
                    "sha256": h,
                }
                for s, h in zip(self.steps, self.hashes().values(), strict=True)
            ],
        }


def refuse_other(plan: Plan, folder: Path) -> None:
    """Refuse a folder in which steps of a crystal of another composition are done: they would be written over.

    Raises
    ------
    InputError
        ``other-crystal``.
    """
    try:
        held = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    # Plans of before 2026-12 name their elements only.
    key = "formula" if isinstance(held, dict) and "formula" in held else "masses_u"
    mine = plan.summary()[key]
    other = held.get(key) if isinstance(held, dict) else None
    same = sorted(other) == sorted(mine) if isinstance(other, dict) else other == mine  # type: ignore[call-overload]
    if other and not same and any(folder.glob("*/*.done.json")):
        words = other if isinstance(other, str) else "-".join(sorted(other))
        raise InputError(
            "other-crystal",
            f"{folder} holds a run of {words}, not of {plan.summary()['formula']}: use another --out",
        )


def make_cell(
    structure: Structure,
    tier: Tier,
    *,
    pseudos: dict[str, Pseudopotential] | None = None,
    isotopes: dict[int, float] | None = None,
    ecut_Ry: float | None = None,
) -> Cell:
    """Standardise a crystal and choose cut-offs.

    Parameters
    ----------
    structure : pymatgen Structure
        Any cell of the crystal.
    tier : Tier
    pseudos : dict, optional
        From `onnes.dft.pseudopotentials.find`. Without it (a dry run) the table of PseudoDojo 0.4 stands in.
    isotopes : dict, optional
        Site index of `structure` -> mass in u.
    ecut_Ry : float, optional
        Wave-function cut-off instead of the suggested one.

    Raises
    ------
    InputError
        ``no-cutoff``, ``mixed-isotopes``.
    CrystalError
        ``symmetry-failed``.
    """
    from onnes.crystal.symmetry import standardise

    masses = inputs.masses_of(structure, isotopes)
    if pseudos is not None:
        files = {e: pseudos[e].path.name for e in masses}
        wave, density = (
            suggested_cutoffs(pseudos, tier.cutoff, tier.cutoff_factor) if ecut_Ry is None else (ecut_Ry, 0.0)
        )
        soft = any(p.kind != "NC" for p in pseudos.values())
    else:
        files = {e: f"{e}.upf" for e in masses}
        if ecut_Ry is None:
            wave = max(getattr(cutoffs_of(e), f"{tier.cutoff}_Ry") for e in masses)
            wave = float(round(wave * tier.cutoff_factor))
        else:
            wave = ecut_Ry
        density, soft = 0.0, False
    return Cell(standardise(structure), masses, files, wave, max(density, (8.0 if soft else 4.0) * wave))


def make_plan(
    cell: Cell,
    tier: Tier,
    pseudos: dict[str, Pseudopotential] | None = None,
    *,
    relax: bool = True,
    spin: bool = False,
) -> Plan:
    """Lay out the whole run of a cell.

    Parameters
    ----------
    cell : Cell
    tier : Tier
    pseudos : dict, optional
        Element -> pseudopotential; their checksums enter the hashes.
    relax : bool
        Whether the first step relaxes the cell. The later inputs are then made anew from the relaxed one.
    spin : bool
        Whether a spin-polarised scf comes before the coupling, where an element is among `inputs.MAGNETIC`.

    Raises
    ------
    SettingsError
        ``grid-too-coarse``, ``bad-density``.
    CrystalError
        ``symmetry-failed``.
    """
    grids = make_grids(cell.structure, tier.k_density_A, tier.q_density_A, dense_factor=tier.dense_factor)
    _, weights = irreducible(grids.q, point_rotations(cell.structure))
    steps = []
    if relax:
        steps.append(Step("relax", "relax", Program.PW, inputs.relax_input(cell, tier, grids.k)))
    before = ("relax",) if relax else ()
    if spin and any(element in inputs.MAGNETIC for element in cell.elements):
        # Nothing reads its results, so a run with and one without it share all other steps.
        steps.append(Step("spin", "spin", Program.PW, inputs.spin_input(cell, tier, grids.k), before))
    steps.append(Step("dense", "scf", Program.PW, inputs.dense_input(cell, tier, grids), before))
    steps.append(Step("scf", "scf", Program.PW, inputs.scf_input(cell, tier, grids), ("dense",)))
    names = [f"q{n:03d}" for n in range(1, len(weights) + 1)]
    for n, name in enumerate(names, start=1):
        steps.append(Step(name, name, Program.PH, inputs.ph_input(tier, grids.q, n), ("scf",)))
    steps.append(Step("q2r", "bands", Program.Q2R, inputs.q2r_input(), tuple(names)))
    steps.append(Step("bands", "bands", Program.MATDYN, inputs.bands_input(cell.structure), ("q2r",)))
    steps.append(Step("a2f", "bands", Program.MATDYN, inputs.a2f_input(tier, grids.q), ("q2r",)))
    checksums = {e: p.sha256 for e, p in sorted((pseudos or {}).items())}
    return Plan(cell, tier, grids, tuple(int(w) for w in weights), checksums, tuple(steps))
