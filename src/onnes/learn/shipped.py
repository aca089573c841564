"""The shipped predictors under the same scoring as the baselines, and whether that is a test at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnes.data.records import Record
from onnes.errors import ModelError
from onnes.learn.marks import IN_SAMPLE, PLAIN
from onnes.learn.store import Checkpoint, pretrained

FloatArray = NDArray[np.float64]

#: Column of `onnes.predict`, and the checkpoint behind it, for each label.
_COLUMN = {
    "lambda": ("lambda", "epc"),
    "omega_log_K": ("omega_log_K", "epc"),
    "omega_2_K": ("omega_2_K", "epc"),
    "Tc_K": ("tc_K", "epc"),
    "Tc616_K": ("tc_K", "epc"),
    "Tc_hydride_plus_bulk_K": ("tc_K", "epc"),
    "Tc_exp_K": ("tc_K", "epc"),
    "formation_energy_eV_atom": ("formation_energy_eV_atom", "properties"),
    "gap_eV": ("gap_eV", "properties"),
    "gap_pbe_eV": ("gap_eV", "properties"),
    "bulk_modulus_kv_GPa": ("bulk_GPa", "properties"),
    "shear_modulus_gv_GPa": ("shear_GPa", "properties"),
}
#: Public databases by the first letters of their ids, and the words a card names them with.
_FAMILIES = {
    "agm": ("Alexandria", ("Alexandria", "alexandria_eph")),
    "JVASP-": ("JARVIS", ("JARVIS", "jarvis_supercon")),
    "mp-": ("Materials Project", ("Materials Project", "mp_crystals")),
}


class Column(NamedTuple):
    """Predictions of one label.

    Attributes
    ----------
    value, low, high : ndarray, shape (n,)
        NaN for refused crystals; low and high are NaN where the model states no interval.
    marks : list of str
        What the model knows of each row (`onnes.learn.marks`).
    notes : list of str
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    marks: list[str]
    notes: list[str]


def predict_column(
    records: Sequence[Record], target: str, *, mu_star: float, formula: str, spectral: bool = False
) -> Column:
    """What the shipped model says of a label, with its interval where it states one.

    Where the checkpoint carries the folds of its formulas (`onnes.learn.fold_of`), a crystal of a known formula
    is predicted by the heads that did not see it; otherwise by all, as `onnes.predict` does.

    Parameters
    ----------
    records : sequence of Record
    target : str
        Label name.
    mu_star, formula
        For Tc; see `onnes.predict`.
    spectral : bool
        Moments of the spectral networks instead of the standard heads.

    Returns
    -------
    Column

    Raises
    ------
    ModelError
        ``unknown-target``.
    """
    from onnes.crystal.read import as_crystal
    from onnes.prediction import predict

    column, model = _column(target)
    from onnes.learn import shipped_folds

    if spectral:
        if model != "epc":
            raise ModelError("unknown-target", f"the spectral networks predict no {target}")
        given = shipped_folds.spectrum_out_of_fold(records, column, mu_star=mu_star, formula=formula)
        return Column(*given)
    if model == "epc":
        found = shipped_folds.out_of_fold(records, column, mu_star=mu_star, formula=formula)
    else:
        found = shipped_folds.properties_out_of_fold(records, column)
    if found is not None:
        return Column(*found)
    table = predict([_crystal(record, as_crystal) for record in records], mu_star=mu_star, formula=formula)
    if column not in table.columns or not table[column].notna().any():
        raise ModelError("unknown-target", f"the shipped model predicts no {column}")
    names = ("tc_low_K", "tc_high_K") if column == "tc_K" else ()
    value = table[column].to_numpy(dtype=float)
    nothing = np.full(len(value), np.nan)
    low, high = (table[n].to_numpy(dtype=float) for n in names) if names else (nothing, nothing)
    return Column(value, low, high, *_known(records, target))


def _known(records: Sequence[Record], target: str) -> tuple[list[str], list[str]]:
    """Marks and notes where the checkpoint names databases only."""
    seen, notes = honesty(records, target)
    known = _families(Checkpoint.load(pretrained(f"{_column(target)[1]}.safetensors")))
    marks = [IN_SAMPLE if any(r.id.startswith(p) for p in known) else PLAIN for r in records]
    if 0 < seen < len(records):
        notes[0] = (
            notes[0]
            .replace("NOT A TEST: ", "")
            .replace("the figures below flatter the model", "the first figures leave them out")
        )
    return marks, notes


def _families(checkpoint: Checkpoint) -> list[str]:
    """First letters of the ids of the databases that a card names as training data."""
    text = json.dumps(checkpoint.card)
    return [p for p, (_, words) in _FAMILIES.items() if any(word in text for word in words)]


def _crystal(record: Record, as_crystal: Any) -> Any:
    """A crystal, or the refusal of it as a row."""
    from onnes.crystal.read import Refused
    from onnes.errors import CrystalError

    try:
        return as_crystal(record.structure(), id=record.id)
    except CrystalError as error:
        return Refused(record.id, record.source, error.code, error.message, record.formula)


def _column(target: str) -> tuple[str, str]:
    if target not in _COLUMN:
        raise ModelError(
            "unknown-target", f"the shipped model predicts no {target}; it predicts {', '.join(_COLUMN)}"
        )
    return _COLUMN[target]


def honesty(records: Sequence[Record], target: str) -> tuple[int, list[str]]:
    """Whether scoring these rows tests the shipped model.

    Returns
    -------
    seen : int
        Rows whose database the model's card names as training data.
    notes : list of str
        In plain words, with the out-of-fold figures of the card where it states them.
    """
    model = _column(target)[1]
    checkpoint = Checkpoint.load(pretrained(f"{model}.safetensors"), model)
    seen, named = 0, []
    for prefix in _families(checkpoint):
        count = sum(record.id.startswith(prefix) for record in records)
        if count:
            seen += count
            named.append(f"{count} rows of {_FAMILIES[prefix][0]}")
    if not seen:
        return 0, [f"the card of {model} ({checkpoint.hash}) names no training set that these ids belong to"]
    notes = [
        f"NOT A TEST: {', '.join(named)} come from data the card of {model} ({checkpoint.hash}) names as "
        "training data; the figures below flatter the model"
    ]
    return seen, notes + _out_of_fold(checkpoint.card, _column(target)[0])


def _out_of_fold(card: dict[str, Any], column: str) -> list[str]:
    """Cross-validated errors of the card for a column, one line each."""
    table = card.get("cross_validation", {}).get("table", {})
    lines = []
    for name, row in table.items():
        found = row.get(column) if isinstance(row, dict) else None
        if isinstance(found, dict) and "mae" in found:
            low, high = found.get("ci95", (float("nan"), float("nan")))
            n = found.get("n", row.get("n", "?"))
            lines.append(
                f"card, out of fold: {name}: MAE {found['mae']:.4g} ({low:.4g} to {high:.4g}), n {n}"
            )
    return lines
