"""The BCS pre-screen of a table of crystals: Debye temperature and density of states at the Fermi level."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from onnes.crystal.formula import reduced_formula
from onnes.crystal.geometry import geometry
from onnes.crystal.read import Crystal, Refused
from onnes.errors import OnnesError, PhysicsError
from onnes.theory.bcs import Screen
from onnes.theory.debye import debye_temperature

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Bulk and shear modulus, GPa; the third is the crystal whose moduli they are.
Given: TypeAlias = "tuple[float, float] | tuple[float, float, Structure]"
COLUMNS = (
    "id",
    "formula",
    "bulk_GPa",
    "shear_GPa",
    "debye_K",
    "debye_source",
    "dos_ef_states_eV_atom",
    "status",
    "gate",
    "reason",
)
#: Labels that hold moduli, in order of preference: (bulk, shear).
MODULI = (
    ("bulk_modulus_GPa", "shear_modulus_GPa"),
    ("bulk_modulus_kv_GPa", "shear_modulus_gv_GPa"),
    ("bulk_modulus_kv_GPa_v2022", "shear_modulus_gv_GPa_v2022"),
)


def screen(
    items: Iterable[Crystal | Refused],
    limits: Screen,
    *,
    require_dos: bool = False,
    moduli: Callable[[Crystal], Given] | None = None,
    source: str = "potential",
) -> Iterator[dict[str, Any]]:
    """Screen crystals; one row each.

    Parameters
    ----------
    items : iterable of Crystal or Refused
        Moduli, Debye temperature and N(EF) are taken from the crystal's labels.
    limits : Screen
        `min_dos` is compared with N(EF) in states/eV/atom.
    require_dos : bool
        Stop crystals without a known N(EF); otherwise that gate is only applied where it is known.
    moduli : callable, optional
        Gives missing bulk and shear moduli in GPa (`from_strains`, or a model's), and the crystal they are of where
        it is not the given one.
    source : str
        What the column ``debye_source`` calls it.
    """
    for item in items:
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row.update(id=item.id, status="refused", gate="read")
        if isinstance(item, Refused):
            row.update(formula=item.formula, reason=item.code)
            yield row
            continue
        row["formula"] = reduced_formula(item.structure)
        try:
            row.update(_quantities(item, moduli, source))
        except OnnesError as error:
            row.update(gate="debye", reason=f"{error.code}: {error.message}")
            yield row
            continue
        gate, reason = _gate(row["debye_K"], row["dos_ef_states_eV_atom"], limits, require_dos)
        row.update(status="stopped" if gate else "passed", gate=gate, reason=reason)
        yield row


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Count rows by the gate that stopped them; ``passed`` for those none did."""
    found: dict[str, int] = {}
    for row in rows:
        name = str(row["gate"] or "passed")
        found[name] = found.get(name, 0) + 1
    return found


def _quantities(item: Crystal, give: Callable[[Crystal], Given] | None, named: str) -> dict[str, Any]:
    labels: Mapping[str, Any] = item.meta.get("labels", {})
    shape = geometry(item.structure)
    dos = labels.get("dos_ef_states_eV_cell")
    found: dict[str, Any] = {"dos_ef_states_eV_atom": None if dos is None else dos / int(shape["n_atoms"])}
    moduli = next(((labels[b], labels[g]) for b, g in MODULI if b in labels and g in labels), None)
    source = "moduli"
    if moduli is None and "debye_T_K" in labels:
        return {**found, "debye_K": labels["debye_T_K"], "debye_source": "label"}
    if moduli is None and give is not None:
        bulk, shear, *relaxed = give(item)
        moduli, source = (bulk, shear), named
        shape = geometry(relaxed[0]) if relaxed else shape
    if moduli is None:
        return found
    bulk, shear = moduli
    found.update(bulk_GPa=bulk, shear_GPa=shear)
    debye = debye_temperature(bulk, shear, shape["density_g_cm3"], shape["volume_per_atom_A3"])
    return {**found, "debye_K": float(debye), "debye_source": source}


def from_strains(item: Crystal) -> tuple[float, float, Structure]:
    """Bulk and shear modulus (Hill, GPa) of the potential, and the relaxed crystal: seconds to a minute a crystal.

    The same numbers as those of ``onnes elastic``.

    Raises
    ------
    PhysicsError, CrystalError
        Those of `onnes.stability.elastic_report.elastic`; ``unstable-moduli``.
    """
    from onnes.stability.elastic_report import elastic

    found = elastic(item.structure)
    if not found.stable:
        raise PhysicsError(
            "unstable-moduli", f"Born-unstable: least eigenvalue {found.least_eigenvalue_GPa:.3g} GPa"
        )
    return (*found.moduli(), found.structure)


def _gate(debye: float | None, dos: float | None, limits: Screen, require_dos: bool) -> tuple[str, str]:
    """Name of the gate that stops a crystal, and why; empty when none does."""
    if debye is None:
        return "debye", "debye-unknown: no moduli and no Debye temperature"
    if not math.isfinite(debye):
        return "debye", f"debye-unknown: given as {debye:.3g}"
    if not debye > limits.min_debye_K:
        return "debye", f"debye-low: {debye:.0f} K"
    if dos is None:
        return ("dos", "dos-unknown: no N(EF)") if require_dos else ("", "N(EF) unknown, not screened")
    if not math.isfinite(dos) or dos < 0:
        return "dos", f"dos-unknown: N(EF) is given as {dos:.3g}"
    if not dos > limits.min_dos:
        return "dos", f"dos-low: {dos:.3g} states/eV/atom"
    return "", ""
