"""What the ledger keeps of the best candidates for their dossiers: alpha2F, Tc(mu*), four models, phonons.

Two stages behind the ranking. They refuse nobody: what cannot be computed is a note. Only the first in rank are looked
at, one at a time, so that a kill loses at most one; the funnel passes all others by. Neither the place in the ranking
nor how many are wanted is part of the ledger's key: they change nothing of what is computed of a crystal. Everything is
stored as short lists of rounded numbers, keys beginning ``dossier_`` and ``phonon_``, so that no number of an earlier
stage is replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.campaign.funnel import Item, Outcome, Stage
from onnes.errors import CrystalError, ModelError, OnnesError, PhysicsError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from onnes.campaign.settings import Settings
    from onnes.stability.phonon_report import PhononReport

#: Raised when the code changes what it answers: old verdicts are then not reused.
REVISION = {"dossier": 1, "phonons": 1}
#: The one number of earlier stages that a dossier uses.
KNOWN = "known_id"
#: Models whose answers stand side by side, the run's own among them.
MODELS = ("standard", "spectrum", "fast", "trees")
#: Columns of ``dossier_models``.
MODEL_COLUMNS = (
    "model",
    "lambda",
    "lambda_std",
    "omega_log_K",
    "omega_log_K_std",
    "tc_K",
    "tc_low_K",
    "tc_high_K",
    "in_domain",
    "reason",
)
#: mu* of the Tc(mu*) curve: what is used for metals, and some room on either side.
MU_STARS = tuple(round(0.06 + 0.02 * k, 2) for k in range(8))
#: Points kept of a curve on a page, and of a path through the Brillouin zone.
CURVE_POINTS, PATH_POINTS = 200, 160
#: alpha2F is kept up to the frequency above which less than this share of its band's height is left.
QUIET = 0.02


def dossier_stages(settings: Settings) -> list[Stage]:
    """The two stages, or none where ``dossier.top`` is 0.

    Parameters
    ----------
    settings : Settings
    """
    from functools import partial

    from onnes.stability.potentials import potential_hash

    part, predicting = settings.dossier, settings.predict
    if not part.top:
        return []
    asked = {"mu_star": float(predicting.mu_star), "formula": predicting.formula}
    moving = {"max_atoms": part.phonon_max_atoms, "potential": settings.relax.potential}
    how: dict[str, Any] = {"batch_size": 1, "parallel": True}
    stages = [
        Stage(
            "dossier",
            partial(dossier, settings=asked),
            {**asked, "revision": REVISION["dossier"]},
            dossier_hash(),
            sees=known_alone,
            wanted=partial(wanted, top=part.top),
            **how,
        )
    ]
    if part.phonons:
        weights = potential_hash(settings.relax.potential)
        process, key = partial(phonons, settings=moving), {**moving, "revision": REVISION["phonons"]}
        few = partial(wanted, top=min(part.phonons, part.top))
        stages.append(Stage("phonons", process, key, weights, sees=nothing, wanted=few, **how))
    return stages


def dossier(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Predicted alpha2F, Tc(mu*), all models and the nearest known crystal of the best candidates.

    Parameters
    ----------
    items : list of Item
        With ``known_id`` among their numbers where there is one.
    settings : dict
        ``mu_star`` (float), ``formula`` (str).
    """
    return [Outcome(i.id, True, "", _dossier(i, settings)) for i in items]


def phonons(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Harmonic bands, densities of states and verdict of the best candidates, with the run's potential.

    Parameters
    ----------
    items : list of Item
    settings : dict
        ``max_atoms`` (int), ``potential`` (str).
    """
    return [Outcome(i.id, True, "", _phonons(i, settings)) for i in items]


def wanted(item: Item, top: int) -> bool:
    """Whether a candidate is among the first `top` in rank."""
    rank = item.numbers.get("rank")
    return rank is not None and int(rank) <= top


def known_alone(name: str) -> bool:
    """Hide all numbers but the id of the known crystal."""
    return name == KNOWN


def nothing(name: str) -> bool:
    """Hide all numbers: the structure alone decides."""
    return False


def dossier_hash() -> str:
    """Hash of all models and tables a dossier is made with."""
    from onnes.campaign.canonical import content_hash
    from onnes.learn.predictors import model_hash
    from onnes.stability.novelty import KnownCrystals

    return content_hash([[model_hash(name) for name in MODELS], KnownCrystals.load().digest])


def _dossier(item: Item, settings: dict[str, Any]) -> dict[str, Any]:
    from onnes.campaign.stages import structure_of
    from onnes.stability.novelty import KnownCrystals

    structure, mu_star, formula = structure_of(item), float(settings["mu_star"]), str(settings["formula"])
    numbers: dict[str, Any] = {
        "dossier_models": [_model(item, name, structure, mu_star, formula) for name in MODELS]
    }
    known = str(item.numbers.get(KNOWN) or "")
    numbers["dossier_known_formula"] = _usual(KnownCrystals.load().formula_of(known)) if known else ""
    try:
        numbers.update(_spectrum(structure, formula))
    except (CrystalError, PhysicsError, ModelError) as error:
        numbers["dossier_note"] = f"{error.code}: {error.message}"
    return numbers


def _usual(formula: str) -> str:
    """A formula with its elements in the usual order: ``MgB2``, not ``B2Mg``."""
    from pymatgen.core import Composition

    return str(Composition(formula).reduced_formula) if formula else ""


def _model(item: Item, name: str, structure: Structure, mu_star: float, formula: str) -> list[Any]:
    """One row of ``dossier_models``."""
    from onnes.crystal.check import flags
    from onnes.crystal.read import Crystal
    from onnes.prediction import predict

    crystal = Crystal(item.id, structure, "ledger", {"flags": flags(structure)})
    table = predict([crystal], mu_star=mu_star, formula=formula, model=name)
    row: dict[str, Any] = table.to_dict("records")[0]
    if row["status"] != "ok":
        return [name, *[None] * 8, str(row["reason"])]
    values = [_short(row[key]) for key in MODEL_COLUMNS[1:8]]
    return [name, *values, bool(row["in_domain"]), str(row["reason"] or "")]


def _spectrum(structure: Structure, formula: str) -> dict[str, Any]:
    """Mean alpha2F with its 68.3 % band, and Tc with its 90 % interval over mu*.

    The networks are evaluated once; only the closed formula is repeated. Eliashberg's Tc is that of the mean curve.
    """
    from onnes.spectra import ensemble

    loaded = ensemble("cso")
    (features,) = loaded.features([structure])
    if isinstance(features, OnnesError):
        raise features
    crystal = loaded.prepare(structure, features)
    source = loaded.convention("")
    log, shares = loaded.shares([crystal], source)
    values = loaded.grid.values(shares, np.exp(log))
    found = [loaded.of_values(values, source, mu_star=mu, formula=formula) for mu in MU_STARS]
    refusal = loaded.beyond(found[0], 0, "this crystal")
    if refusal is not None:
        raise refusal
    curve = found[0]
    return {
        "dossier_alpha2F": _curve(curve.omega_meV, curve.alpha2F[0], curve.low[0], curve.high[0]),
        "dossier_tc_mu": [
            list(MU_STARS),
            *(
                [_short(getattr(f.moments, key)[0]) for f in found]
                for key in ("tc_K", "tc_low_K", "tc_high_K")
            ),
            [_eliashberg(curve.spectrum(0, ""), mu) for mu in MU_STARS],
        ],
        "dossier_tc_formula": formula,
    }


def _eliashberg(spectrum: Any, mu_star: float) -> float | None:
    from onnes.theory.superconductor import eliashberg

    try:
        return _short(eliashberg(spectrum, mu_star=mu_star, gap=False).tc_K)
    except PhysicsError:
        return None


def _curve(omega: NDArray[Any], *columns: NDArray[Any]) -> list[list[float]]:
    """Columns on an even grid from zero to where the last one has died out."""
    high = columns[-1]
    filled = np.flatnonzero(high > QUIET * high.max()) if high.max() > 0 else np.array([len(high) - 1])
    top = float(omega[min(int(filled[-1]) + 1, len(omega) - 1)])
    grid = np.linspace(0.0, top, CURVE_POINTS)
    kept = [np.interp(grid, omega, column, left=0.0) for column in columns]
    return [[round(float(w), 3) for w in grid], *([round(float(v), 4) for v in column] for column in kept)]


def _phonons(item: Item, settings: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import replace

    from onnes.campaign.stages import structure_of
    from onnes.crystal.read import Crystal
    from onnes.stability.phonon_report import RELAXED, phonon_report

    structure = structure_of(item)
    if len(structure) > settings["max_atoms"]:
        return {
            "phonon_note": f"not computed: {len(structure)} atoms in the cell, dossier.phonon_max_atoms is "
            f"{settings['max_atoms']}"
        }
    try:
        chosen = replace(RELAXED, potential=str(settings["potential"]))
        report = phonon_report(Crystal(item.id, structure, "ledger"), chosen)
    except (CrystalError, PhysicsError) as error:
        return {"phonon_note": f"{error.code}: {error.message}"}
    return phonon_numbers(report)


def phonon_numbers(report: PhononReport) -> dict[str, Any]:
    """What the ledger keeps of a phonon calculation.

    ``phonon_bands`` holds the distance along the path (1/A), then a list a branch (meV, imaginary ones negative);
    ``phonon_ticks`` the places and names of the special points; ``phonon_legs`` the first and last point of every
    unbroken stretch; ``phonon_dos`` the frequency (meV), then modes per meV and cell of every element in
    ``phonon_elements``.
    """
    told = report.numbers()
    kept = (
        "verdict",
        "tolerance_cm1",
        "worst_cm1",
        "worst_label",
        "worst_q",
        "top_cm1",
        "debye_K",
        "supercell",
    )
    numbers = {
        f"phonon_{key}": _short(told[key]) for key in (*kept, "heat_capacity_300K_J_mol_K", "pressure_GPa")
    }
    numbers.update(phonon_potential=report.potential, phonon_note=told["note"])
    numbers.update(_bands(report))
    numbers.update(_density(report))
    return numbers


def _bands(report: PhononReport) -> dict[str, Any]:
    path, omega = report.bands.path, report.bands.omega_meV
    stride = max(1, -(-len(path.x) // PATH_POINTS))
    ends = {k for leg in path.legs for k in leg}
    keep = [k for k in range(len(path.x)) if k % stride == 0 or path.label[k] or k in ends]
    place = {k: i for i, k in enumerate(keep)}
    return {
        "phonon_bands": [
            [round(float(path.x[k]), 4) for k in keep],
            *([round(float(w), 2) for w in omega[keep, branch]] for branch in range(omega.shape[1])),
        ],
        "phonon_ticks": [[round(x, 4), name] for x, name in path.ticks()],
        "phonon_legs": [[place[a], place[b]] for a, b in path.legs],
    }


def _density(report: PhononReport) -> dict[str, Any]:
    from onnes.stability.phonon_files import density

    omega, dos = density(report)
    names = sorted(set(report.species))
    each = [dos[[k for k, s in enumerate(report.species) if s == name]].sum(0) for name in names]
    grid = np.linspace(float(omega[0]), float(omega[-1]), CURVE_POINTS)
    columns = [np.interp(grid, omega, column) for column in each]
    return {
        "phonon_dos": [
            [round(float(w), 3) for w in grid],
            *([round(float(v), 4) for v in column] for column in columns),
        ],
        "phonon_elements": names,
    }


def _short(value: Any) -> Any:
    """Five significant digits of a number, None for what is not finite; everything else as it is."""
    if isinstance(value, bool | str) or value is None:
        return value
    number = float(value)
    return float(f"{number:.5g}") if np.isfinite(number) else None
