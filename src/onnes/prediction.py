"""The one door to inference: structures in, a table of predictions with intervals out.

(The module is not called ``predict`` so that ``onnes.predict`` can be the function.)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused, as_crystal
from onnes.errors import CrystalError, ModelError
from onnes.theory.tc import formula_named

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "id",
    "formula",
    "lambda",
    "lambda_std",
    "omega_log_K",
    "omega_log_K_std",
    "omega_2_K",
    "tc_K",
    "tc_low_K",
    "tc_high_K",
    "formation_energy_eV_atom",
    "gap_eV",
    "p_superconductor",
    "in_domain",
    "status",
    "reason",
    "tc_formula",
    "mu_star",
    "p_nonmetal",
    "p_dynamically_stable",
    "bulk_GPa",
    "shear_GPa",
    "debye_K",
    "dos_ef_states_eV_atom",
)
#: Above this probability of a gap, lambda and Tc are those of a metal that the crystal is not.
NONMETAL = 0.5


@lru_cache(maxsize=1)
def _models() -> tuple[Any, Any, Any]:
    from onnes.learn.ensemble import EpcEnsemble
    from onnes.learn.features import FrozenPotential
    from onnes.learn.properties import PropertyEnsemble

    ensemble, properties = EpcEnsemble(), PropertyEnsemble()
    potentials = {
        p.potential: FrozenPotential(potential=p.potential, layers=p.layers) for p in ensemble.parts
    }
    return potentials, ensemble, properties


def predict(
    structures: Any, *, mu_star: float = 0.10, formula: str = "allen-dynes", chunk: int = 64
) -> pd.DataFrame:
    """Predict lambda, omega_log and Tc of crystals.

    Parameters
    ----------
    structures : one or many
        pymatgen ``Structure``, ASE ``Atoms``, record dict, `Crystal` or `Refused`.
    mu_star : float
        Coulomb pseudopotential.
    formula : str
        Name of a closed Tc formula (``onnes.theory.tc.Formula``).
    chunk : int
        Crystals held in memory at a time.

    Returns
    -------
    DataFrame
        One row per input, in order. Refused inputs have ``status="refused"`` and the code in ``reason``.
        Columns without a shipped model are empty.

    Notes
    -----
    lambda, omega_log and Tc assume a metal; where a gap is likely, ``in_domain`` is False and ``reason`` says so.
    """
    import pandas as pd

    name = str(formula_named(formula))
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[int, Crystal]] = []
    for i, item in enumerate(_items(structures)):
        rows.append({"id": item.id, "formula": "", "tc_formula": name, "mu_star": mu_star})
        if isinstance(item, Refused):
            rows[i].update(formula=item.formula, status="refused", reason=item.code)
            continue
        rows[i]["formula"] = reduced_formula(item.structure)
        waiting.append((i, item))
        if len(waiting) == chunk:
            _fill(rows, waiting, mu_star, name)
            waiting = []
    _fill(rows, waiting, mu_star, name)
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _items(structures: Any) -> Iterable[Crystal | Refused]:
    single = (
        not isinstance(structures, Iterable)
        or isinstance(structures, dict)
        or hasattr(structures, "get_positions")
    )
    if single or hasattr(structures, "frac_coords"):
        structures = [structures]
    for i, one in enumerate(structures):
        if isinstance(one, Crystal | Refused):
            yield one
            continue
        try:
            yield as_crystal(one)
        except CrystalError as error:
            yield Refused(f"structure-{i}", "python", error.code, error.message)


def _fill(
    rows: list[dict[str, Any]], waiting: list[tuple[int, Crystal]], mu_star: float, formula: str
) -> None:
    """Complete the rows of the crystals that passed the gate."""
    if not waiting:
        return
    potentials, ensemble, properties = _models()
    inputs, places = [], []
    for place, crystal in waiting:
        try:
            features = {name: next(p.evaluate([crystal.structure])) for name, p in potentials.items()}
        except ModelError as error:
            rows[place].update(status="refused", reason=error.code, in_domain=False)
            continue
        numbers = np.array([site.specie.Z for site in crystal.structure])
        inputs.append((features, numbers, crystal.structure.volume / len(numbers)))
        places.append((place, crystal))
    if not inputs:
        return
    result = ensemble.predict(inputs, mu_star=mu_star, formula=formula)
    more = properties.predict([(f[properties.potential], z, v) for f, z, v in inputs])
    for i, (place, crystal) in enumerate(places):
        reason = ensemble.outside(inputs[i][1], inputs[i][2])
        low_dimensional = [f for f in crystal.meta.get("flags", []) if f in ("slab", "molecule", "chain")]
        if low_dimensional and not reason:
            reason = f"{low_dimensional[0]} in vacuum; the training set holds bulk crystals"
        if more.p_nonmetal[i] > NONMETAL and not reason:
            reason = f"a gap of {more.gap_eV[i]:.1f} eV is likely; lambda and Tc are those of a metal"
        rows[place].update(_properties(more, i, crystal))
        rows[place].update(
            {
                "lambda": result.lam[i],
                "lambda_std": result.lam_std[i],
                "omega_log_K": result.omega_log_K[i],
                "omega_log_K_std": result.omega_log_K_std[i],
                "omega_2_K": result.omega_2_K[i],
                "tc_K": result.tc_K[i],
                "tc_low_K": result.tc_low_K[i],
                "tc_high_K": result.tc_high_K[i],
                "dos_ef_states_eV_atom": result.dos_ef[i],
                "in_domain": not reason,
                "status": "ok",
                "reason": reason,
            }
        )


def _properties(more: Any, i: int, crystal: Crystal) -> dict[str, float]:
    """Columns of the property heads for one crystal."""
    from onnes.crystal.geometry import geometry
    from onnes.theory.debye import debye_temperature

    shape = geometry(crystal.structure)
    bulk, shear = float(more.bulk_GPa[i]), float(more.shear_GPa[i])
    return {
        "formation_energy_eV_atom": float(more.formation_energy_eV_atom[i]),
        "gap_eV": float(more.gap_eV[i]),
        "p_nonmetal": float(more.p_nonmetal[i]),
        "p_dynamically_stable": float(more.p_dynamically_stable[i]),
        "bulk_GPa": bulk,
        "shear_GPa": shear,
        "debye_K": float(debye_temperature(bulk, shear, shape["density_g_cm3"], shape["volume_per_atom_A3"])),
    }
