"""The pre-screen of existing crystals: cheap gates before anything is relaxed, the cheapest first.

Choudhary and Garrity (npj Comput. Mater. 8, 244 (2022)) start from a Debye temperature above 300 K and a high density
of states at the Fermi level; Gibson et al. (BETE-NET) from a network that needs the structure alone. Here both act:
what the files say comes first, then the fast network (metal or not, N(EF), Tc), and the Debye temperature, from
learned moduli, of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from onnes.campaign.funnel import Item, Outcome
from onnes.errors import CrystalError, ModelError, OnnesError, PhysicsError

if TYPE_CHECKING:
    from onnes.campaign.settings import PredictPart, PrescreenPart

#: Names under which numbers of the files travel with a crystal.
BULK, SHEAR, DEBYE, DOS = (
    "given_bulk_GPa",
    "given_shear_GPa",
    "given_debye_K",
    "given_dos_ef_states_eV_atom",
)


def given(labels: Mapping[str, Any], n_atoms: int) -> dict[str, float]:
    """What a file says about a crystal that the pre-screen can use.

    Parameters
    ----------
    labels : mapping
        Of the record.
    n_atoms : int
        In the cell.
    """
    from onnes.stability.screen import MODULI

    found: dict[str, float] = {}
    for bulk, shear in MODULI:
        if bulk in labels and shear in labels:
            found.update({BULK: float(labels[bulk]), SHEAR: float(labels[shear])})
            break
    if "debye_T_K" in labels:
        found[DEBYE] = float(labels["debye_T_K"])
    if "dos_ef_states_eV_cell" in labels:
        found[DOS] = float(labels["dos_ef_states_eV_cell"]) / n_atoms
    return found


def settings_of(part: PrescreenPart, predict: PredictPart) -> dict[str, Any]:
    """Everything the outcome of the pre-screen depends on."""
    values = {k: v for k, v in part.model_dump().items() if k != "use"}
    return {**values, "mu_star": predict.mu_star, "formula": predict.formula}


def model_hash(settings: Mapping[str, Any]) -> str:
    """Hash of the networks the gates use."""
    from importlib.metadata import version

    from onnes.learn.predictors import model_hash as of
    from onnes.learn.store import Checkpoint, pretrained

    if not settings["min_debye_K"] > 0:
        return of("fast")
    # The heads read features of a potential inside the sevenn package: its version stands for its weights.
    heads = Checkpoint.load(pretrained("properties.safetensors")).hash
    return "+".join((of("fast"), heads, version("sevenn")))


def prescreen(items: list[Item], settings: dict[str, Any]) -> list[Outcome]:
    """Apply the gates; a crystal stops at the first one that refuses it."""
    from onnes.campaign.stages import structure_of
    from onnes.learn.predictors import predictor

    outcomes = {i.id: _by_file(i, settings) for i in items}
    left = [i for i in items if outcomes[i.id] is None]
    rows = predictor("fast").rows(
        [structure_of(i) for i in left], float(settings["mu_star"]), settings["formula"]
    )
    for item, row in zip(left, rows, strict=True):
        if isinstance(row, OnnesError):
            outcomes[item.id] = Outcome(item.id, False, f"{row.code}: {row.message}")
            continue
        outcomes[item.id] = _by_networks(item, row, settings)
    return [o for o in outcomes.values() if o is not None]


def _by_file(item: Item, settings: Mapping[str, Any]) -> Outcome | None:
    """Refuse by numbers of the file alone; None when they do not refuse it."""
    dos, debye = item.numbers.get(DOS), _given_debye(item) if settings["min_debye_K"] > 0 else None
    reason = _dos_reason(dos, settings) or _debye_reason(debye, settings)
    return Outcome(item.id, False, reason, _numbers(None, dos, debye, "file")) if reason else None


def _by_networks(item: Item, row: Mapping[str, Any], settings: Mapping[str, Any]) -> Outcome:
    likely, tc = float(row["p_superconductor"]), float(row["tc_K"])
    stated = item.numbers.get(DOS)
    dos = float(row["dos_ef_states_eV_atom"]) if stated is None else stated
    numbers = _numbers(row, dos, None, "")
    if likely < settings["min_p_superconductor"]:
        reason = (
            f"classifier: probability {likely:.2f} of a superconductor rather than an insulator or magnet"
        )
    elif settings["min_tc_K"] > 0 and not tc > settings["min_tc_K"]:
        reason = f"tc-below-limit: {tc:.1f} K by the fast network"
    else:
        reason = _dos_reason(dos, settings)
    if reason or not settings["min_debye_K"] > 0:
        return Outcome(item.id, not reason, reason, numbers)
    debye, source = _given_debye(item), "file"
    if debye is None:
        try:
            debye, source = _learned_debye(item), "learned"
        except (CrystalError, PhysicsError, ModelError) as error:
            _raise_what_is_not_the_crystals(error)
            return Outcome(item.id, False, f"debye-unknown: {error.message}", numbers)
    reason = _debye_reason(debye, settings)
    return Outcome(item.id, not reason, reason, {**numbers, **_numbers(None, None, debye, source)})


def _raise_what_is_not_the_crystals(error: OnnesError) -> None:
    """Too little memory is tried again on resume; of the models only an element they do not know is a verdict."""
    if error.code == "out-of-memory":
        raise MemoryError(error.message) from error
    if isinstance(error, ModelError) and error.code != "unknown-element":
        raise error


def _numbers(
    row: Mapping[str, Any] | None, dos: float | None, debye: float | None, source: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if row is not None:
        for name in ("lambda", "omega_log_K", "tc_K", "p_superconductor"):
            found[f"prescreen_{name}"] = float(row[name])
    if dos is not None and math.isfinite(dos):
        found["prescreen_dos_ef_states_eV_atom"] = dos
    if debye is not None:
        found.update(prescreen_debye_K=debye, prescreen_debye_source=source)
    return found


def _dos_reason(dos: float | None, settings: Mapping[str, Any]) -> str:
    limit = settings["min_dos_ef_states_eV_atom"]
    if dos is None or not limit > 0:
        return ""
    if not math.isfinite(dos) or dos < 0:
        return f"dos-unknown: N(EF) is given as {dos:.3g}"
    return "" if dos > limit else f"dos-low: {dos:.3g} states/eV/atom"


def _debye_reason(debye: float | None, settings: Mapping[str, Any]) -> str:
    limit = settings["min_debye_K"]
    return f"debye-low: {debye:.0f} K" if debye is not None and limit > 0 and not debye > limit else ""


def _given_debye(item: Item) -> float | None:
    """Debye temperature of the file's moduli, or the one it states; what is not positive counts as not given."""
    bulk, shear, stated = (item.numbers.get(name) for name in (BULK, SHEAR, DEBYE))
    if _positive(bulk) and _positive(shear):
        return _debye(item, float(bulk), float(shear))
    return float(stated) if _positive(stated) else None


def _positive(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value) and value > 0


def _learned_debye(item: Item) -> float:
    from onnes.campaign.stages import structure_of
    from onnes.heads import predicted

    found = predicted(structure_of(item))
    return _debye(item, float(found.bulk_GPa[0]), float(found.shear_GPa[0]))


def _debye(item: Item, bulk: float, shear: float) -> float:
    from onnes.theory.debye import debye_temperature

    numbers = item.numbers
    return float(debye_temperature(bulk, shear, numbers["density_g_cm3"], numbers["volume_per_atom_A3"]))
