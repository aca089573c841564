"""The one door to inference: structures in, a table of predictions with intervals out.

(The module is not called ``predict`` so that ``onnes.predict`` can be the function.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from onnes.crystal.formula import reduced_formula
from onnes.crystal.read import Crystal, Refused, as_crystal
from onnes.errors import CrystalError, OnnesError
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
    "model",
    "warning",
)
#: Those that hold words or marks.
NOT_NUMBERS = ("id", "formula", "in_domain", "status", "reason", "tc_formula", "model", "warning")


def predict(
    structures: Any,
    *,
    mu_star: float = 0.10,
    formula: str = "allen-dynes",
    model: str = "auto",
    chunk: int = 64,
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
    model : str
        ``standard``, ``spectrum``, ``fast`` or ``trees`` (`onnes.learn.predictors`); ``auto`` is the standard one,
        or trees where no potential is installed.
    chunk : int
        Crystals held in memory at a time.

    Returns
    -------
    DataFrame
        One row per input, in order. Refused inputs have ``status="refused"`` and the code in ``reason``.
        Columns that the model does not give are empty; ``warning`` says where lambda may be too low.

    Raises
    ------
    SettingsError
        ``unknown-model``, ``unknown-formula``.
    ModelError
        ``no-potential``, ``damaged-model``.

    Notes
    -----
    lambda, omega_log and Tc assume a metal; where a gap is likely, ``in_domain`` is False and ``reason`` says so.
    """
    import pandas as pd

    from onnes.learn.predictors import choose

    name, chosen = str(formula_named(formula)), choose(model)
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[int, Crystal]] = []
    for i, item in enumerate(_items(structures)):
        rows.append({"id": item.id, "formula": "", "tc_formula": name, "mu_star": mu_star, "model": chosen})
        if isinstance(item, Refused):
            rows[i].update(formula=item.formula, status="refused", reason=item.code)
            continue
        rows[i]["formula"] = reduced_formula(item.structure)
        waiting.append((i, item))
        if len(waiting) == chunk:
            _fill(rows, waiting, mu_star, name, chosen)
            waiting = []
    _fill(rows, waiting, mu_star, name, chosen)
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
    rows: list[dict[str, Any]],
    waiting: list[tuple[int, Crystal]],
    mu_star: float,
    formula: str,
    model: str,
) -> None:
    """Complete the rows of the crystals that passed the gate."""
    from onnes.learn.predictors import predictor

    if not waiting:
        return
    found = predictor(model).rows([crystal.structure for _, crystal in waiting], mu_star, formula)
    for (place, crystal), columns in zip(waiting, found, strict=True):
        if isinstance(columns, OnnesError):
            rows[place].update(status="refused", reason=columns.code, in_domain=False)
            continue
        reason = columns.pop("outside")
        low_dimensional = [f for f in crystal.meta.get("flags", []) if f in ("slab", "molecule", "chain")]
        if low_dimensional:
            reason = f"{low_dimensional[0]} in vacuum; the training set holds bulk crystals"
        rows[place].update(**columns, in_domain=not reason, status="ok", reason=reason)
