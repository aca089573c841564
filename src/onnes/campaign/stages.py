"""The stages of a discovery run: what each one asks of a crystal.

Every function takes a list of items and returns one outcome each. They are plain functions of their
arguments, so a worker process or a cluster node gives the same answer as the driver.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from onnes.campaign.funnel import Item, Outcome, Stage
from onnes.campaign.settings import Settings, chemistry_of
from onnes.errors import CrystalError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Raised when the code of a stage changes what it answers: old verdicts are then not reused.
REVISION = {
    "check": 1,
    "prescreen": 2,
    "unique": 1,
    "relax": 1,
    "symmetry": 1,
    "distinct": 1,
    "novel": 1,
    "hull": 1,
    "predict": 4,
    "rank": 1,
}
#: Distance tolerance of the symmetry search after relaxation, in angstrom: above the noise that forces of
#: 0.05 eV/A leave, far below any distortion worth keeping.
SYMPREC_A = 0.05
#: Scale on which distance to the hull discounts a predicted Tc in the ranking, eV/atom.
HULL_SCALE = 0.1


def build(settings: Settings) -> list[Stage]:
    """Set up the stages of a run in their order.

    Parameters
    ----------
    settings : Settings
    """
    from onnes.campaign.dossier import dossier_stages
    from onnes.campaign.prescreen import model_hash as prescreen_hash
    from onnes.campaign.prescreen import prescreen, settings_of
    from onnes.learn.predictors import model_hash
    from onnes.stability.hull import HullReferences
    from onnes.stability.novelty import KnownCrystals
    from onnes.stability.potentials import potential_hash
    from onnes.stability.relax import RelaxSettings

    s = settings
    weights = potential_hash(s.relax.potential)
    known, table = KnownCrystals.load().digest, HullReferences.load().digest
    gates = settings_of(s.prescreen, s.predict)
    if s.relax.skip:
        still = {"potential": s.relax.potential, "max_force_eV_A": s.relax.skip_max_force_eV_A}
        relaxed = _stage("relax", single_point, still, weights, batch_size=8, parallel=True)
    else:
        relaxing = RelaxSettings(s.relax.potential, float(s.relax.fmax_eV_A), s.relax.max_steps)
        relaxed = _stage("relax", relax, asdict(relaxing), weights, batch_size=1, parallel=True)
    return [
        _stage(
            "check", check, {**s.check.model_dump(), "chemistry": s.chemistry.model_dump()}, batch_size=64
        ),
        *(
            [_stage("prescreen", prescreen, gates, prescreen_hash(gates), batch_size=32, parallel=True)]
            if s.prescreens
            else []
        ),
        _stage("unique", unique, whole=True),
        relaxed,
        _stage("symmetry", symmetry, batch_size=64),
        _stage("distinct", unique, whole=True),
        _stage("novel", novel, s.novel.model_dump(), known, batch_size=64),
        _stage("hull", hull, s.hull.model_dump(), table),
        _stage(
            "predict",
            predict,
            s.predict.model_dump(),
            model_hash(s.predict.model),
            batch_size=8,
            parallel=True,
        ),
        _stage("rank", rank, {"max_e_hull": s.hull.max_e_hull_eV_atom}, whole=True),
        *dossier_stages(s),
    ]


def stage_names(settings: Settings) -> list[str]:
    """Names of the stages of a run in their order, without loading anything."""
    names = [name for name in REVISION if name != "prescreen" or settings.prescreens]
    if settings.dossier.top:
        names += ["dossier", *(["phonons"] if settings.dossier.phonons else [])]
    return names


def _stage(
    name: str,
    function: Callable[..., list[Outcome]],
    settings: dict[str, Any] | None = None,
    model_hash: str = "",
    **how: Any,
) -> Stage:
    process = function if settings is None else partial(function, settings=settings)
    key = {**(settings or {}), "revision": REVISION[name]}
    return Stage(name, process, key, model_hash, sees=_not_of_prescreen, **how)


def _not_of_prescreen(name: str) -> bool:
    """Whether a stage may use a number: those of the pre-screen are its own, and change with mu* and its gates."""
    return not name.startswith("prescreen_")


def structure_of(item: Item) -> Structure:
    """Return the pymatgen structure of an item."""
    from pymatgen.core import Lattice, Structure

    d = item.structure
    return Structure(Lattice(d["lattice"]), d["species"], d["frac"])


def plain(structure: Structure) -> dict[str, Any]:
    """Reduce a structure to what the ledger keeps; rounding makes equal runs equal to the last digit."""
    return {
        "lattice": [[round(float(x), 8) for x in row] for row in structure.lattice.matrix],
        "species": [site.specie.symbol for site in structure],
        "frac": [[round(float(x), 8) % 1.0 for x in site.frac_coords] for site in structure],
    }


def check(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Refuse what is no crystal, and elements that are not wanted."""
    from onnes.crystal.check import Limits
    from onnes.crystal.check import check as gate
    from onnes.crystal.formula import symbols
    from onnes.crystal.geometry import geometry

    chemistry = chemistry_of(settings["chemistry"])
    limits = Limits(max_atoms=settings["max_atoms"], min_distance_A=float(settings["min_distance_A"]))
    outcomes = []
    for item in items:
        structure = structure_of(item)
        try:
            gate(structure, limits)
        except CrystalError as error:
            outcomes.append(Outcome(item.id, False, f"{error.code}: {error.message}"))
            continue
        unwanted = chemistry.refusal(symbols(structure))
        missing = sorted(set(settings["chemistry"]["require"]) - set(symbols(structure)))
        reason = ": ".join(unwanted) if unwanted else ""
        reason = reason or (f"chemistry-missing: {', '.join(missing)}" if missing else "")
        reason = reason or _dimension_reason(structure, settings["dimensions"])
        if reason:
            outcomes.append(Outcome(item.id, False, reason))
            continue
        numbers = dict(geometry(structure))
        packing = float(numbers["packing_fraction"])
        reason = ""
        if not settings["min_packing"] <= packing <= settings["max_packing"]:
            reason = f"packing-out-of-range: {packing:.2f}"
        outcomes.append(Outcome(item.id, not reason, reason, numbers))
    return outcomes


def _dimension_reason(structure: Structure, wanted: str) -> str:
    """Why a crystal has the wrong number of dimensions; empty if it has not, or if any will do."""
    from onnes.crystal.check import dimensionality

    if wanted == "any":
        return ""
    found = dimensionality(structure)
    if found == {"bulk": 3, "slab": 2}[wanted]:
        return ""
    return f"wrong-dimensions: {('molecule', 'chain', 'slab', 'bulk')[found]}, not {wanted}"


def unique(items: list[Item]) -> list[Outcome]:
    """Keep the first of equal crystals (StructureMatcher within a formula)."""
    from onnes.crystal.amd import same_crystal
    from onnes.crystal.formula import reduced_formula

    kept: dict[str, list[tuple[str, Structure]]] = {}
    outcomes = []
    for item in sorted(items, key=lambda i: i.index):
        structure = structure_of(item)
        peers = kept.setdefault(reduced_formula(structure), [])
        twin = next((id for id, other in peers if same_crystal(structure, other)), "")
        if twin:
            outcomes.append(Outcome(item.id, False, f"duplicate: of {twin}", {"duplicate_of": twin}))
        else:
            peers.append((item.id, structure))
            outcomes.append(Outcome(item.id, True))
    return outcomes


def relax(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Relax with the universal potential; what does not converge is refused."""
    from onnes.stability.relax import RelaxSettings
    from onnes.stability.relax import relax as run

    outcomes = []
    for item in items:
        try:
            done = run(structure_of(item), RelaxSettings(**settings))
        except CrystalError as error:
            outcomes.append(Outcome(item.id, False, f"{error.code}: {error.message}"))
            continue
        after = plain(done.structure) if done.converged else None
        outcomes.append(Outcome(item.id, done.converged, done.reason, done.numbers(), after))
    return outcomes


def single_point(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Energy and forces of crystals that are relaxed already; a large force says they are not."""
    import numpy as np
    from pymatgen.io.ase import AseAtomsAdaptor

    from onnes.stability.potentials import calculator, require_elements

    calc = calculator(settings["potential"])
    outcomes = []
    for item in items:
        structure = structure_of(item)
        try:
            require_elements(structure, settings["potential"])
        except CrystalError as error:
            outcomes.append(Outcome(item.id, False, f"{error.code}: {error.message}"))
            continue
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.calc = calc
        energy = float(atoms.get_potential_energy()) / len(atoms)
        force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
        reason = ""
        if not math.isfinite(energy + force):
            reason = "nan: the potential gives no finite energy"
        elif force > settings["max_force_eV_A"]:
            reason = f"not-relaxed: a force of {force:.2f} eV/A; run it without relax.skip"
        numbers = {"energy_eV_atom": energy, "fmax_eV_A": force, "steps": 0, "relaxed_here": False}
        outcomes.append(Outcome(item.id, not reason, reason, numbers))
    return outcomes


def symmetry(items: list[Item]) -> list[Outcome]:
    """Find the space group, go to the standardised primitive cell and measure it again."""
    from onnes.crystal.geometry import geometry
    from onnes.crystal.symmetry import fingerprint, space_group, standardise

    outcomes = []
    for item in items:
        structure = structure_of(item)
        number, symbol = space_group(structure, SYMPREC_A)
        small = standardise(structure, SYMPREC_A)
        numbers: dict[str, Any] = {"space_group_number": number, "space_group": symbol}
        numbers["fingerprint"] = fingerprint(small, SYMPREC_A)
        outcomes.append(Outcome(item.id, True, "", {**geometry(small), **numbers}, plain(small)))
    return outcomes


def novel(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Look the crystal up among the known ones."""
    from onnes.stability.novelty import KnownCrystals

    index = KnownCrystals.load()
    outcomes = []
    for item in items:
        found = index.find(structure_of(item))
        refused = settings["keep"] == "new" and found.novelty == "known"
        reason = f"known-crystal: {found.known_id}" if refused else ""
        outcomes.append(Outcome(item.id, not refused, reason, found.numbers()))
    return outcomes


def hull(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Place the relaxed crystal relative to the known phases."""
    from onnes.stability.hull import HullReferences

    table = HullReferences.load()
    outcomes = []
    for item in items:
        found = table.evaluate(structure_of(item), float(item.numbers["energy_eV_atom"]))
        reason = _hull_reason(found.formation_energy_eV_atom, found.e_hull_eV_atom, settings)
        if reason.startswith("unknown-references"):
            reason += ", ".join(found.unknown_references)
        outcomes.append(Outcome(item.id, not reason, reason, found.numbers()))
    return outcomes


def _hull_reason(formation: float | None, above: float | None, settings: dict[str, Any]) -> str:
    if formation is None or above is None:
        return "unknown-references: " if settings["unknown"] == "refuse" else ""
    if not formation < settings["max_formation_energy_eV_atom"]:
        return f"positive-formation-energy: {formation:.3f} eV/atom"
    if not above < settings["max_e_hull_eV_atom"]:
        return f"e-hull-above-limit: {above:.3f} eV/atom"
    return ""


def predict(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Predict lambda, omega_log and Tc."""
    from onnes.crystal.check import flags
    from onnes.crystal.read import Crystal
    from onnes.prediction import COLUMNS, NOT_NUMBERS
    from onnes.prediction import predict as run

    structures = [structure_of(i) for i in items]
    # The flags (slab, chain, molecule) say which crystals the predictors were not trained for.
    crystals = [
        Crystal(i.id, s, "ledger", {"flags": flags(s)}) for i, s in zip(items, structures, strict=True)
    ]
    table = run(
        crystals,
        mu_star=float(settings["mu_star"]),
        formula=settings["formula"],
        model=settings["model"],
    )
    outcomes = []
    for item, row in zip(items, table.to_dict("records"), strict=True):
        if row["status"] != "ok":
            outcomes.append(Outcome(item.id, False, str(row["reason"])))
            continue
        # NaN: not given by this model. The formation energy of a run is that of the hull stage.
        wanted = (k for k in COLUMNS if k not in (*NOT_NUMBERS, "formation_energy_eV_atom", "mu_star"))
        numbers = {k: float(row[k]) for k in wanted if row[k] == row[k]}
        reason = _predict_reason(numbers, row, settings)
        extra = {
            "in_domain": bool(row["in_domain"]),
            "domain_note": str(row["reason"] or ""),
            "warning": str(row["warning"] or ""),
        }
        outcomes.append(Outcome(item.id, not reason, reason, {**numbers, **extra}))
    return outcomes


def _predict_reason(numbers: dict[str, float], row: dict[str, Any], settings: dict[str, Any]) -> str:
    """Why a crystal is not worth going on with; empty if it is."""
    if settings["in_domain_only"] and not row["in_domain"]:
        return f"out-of-domain: {row['reason']}"
    if numbers.get("gap_eV", 0.0) > settings["max_gap_eV"]:
        return f"gap-above-limit: {numbers['gap_eV']:.2f} eV"
    likely = numbers.get("p_superconductor", 1.0)
    if likely < settings["min_p_superconductor"]:
        return f"classifier: probability {likely:.2f} of a superconductor rather than an insulator or magnet"
    if not numbers["tc_K"] > settings["min_tc_K"]:
        return f"tc-below-limit: {numbers['tc_K']:.1f} K"
    return ""


def rank(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Order the survivors: Tc, discounted by distance to the hull and by leaving the predictor's domain."""

    def score(item: Item) -> float:
        above = item.numbers.get("e_hull_eV_atom")
        # An unknown distance counts as the largest one allowed.
        above = settings["max_e_hull"] if above is None else max(float(above), 0.0)
        trust = 1.0 if item.numbers.get("in_domain") else 0.5
        return float(item.numbers["tc_K"]) * trust * math.exp(-above / HULL_SCALE)

    order = sorted(items, key=lambda i: (-score(i), i.index))
    return [Outcome(i.id, True, "", {"rank": k, "score": score(i)}) for k, i in enumerate(order, start=1)]
