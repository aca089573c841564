"""The shipped electron-phonon ensemble as an honest witness: each crystal by the heads that left its formula out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnes.data.records import Record
from onnes.errors import CrystalError, ModelError
from onnes.learn.ensemble import EpcEnsemble, Seen
from onnes.learn.fold_of import UNSEEN, FormulaTable, held_out
from onnes.learn.marks import OUT_OF_FOLD, UNSEEN_ROWS

FloatArray = NDArray[np.float64]

#: Field of `onnes.learn.ensemble.EpcPrediction` for each column of `onnes.predict`.
_FIELDS = {"lambda": "lam", "omega_log_K": "omega_log_K", "omega_2_K": "omega_2_K", "tc_K": "tc_K"}
#: Crystals whose features are held in memory at a time.
CHUNK = 64


def out_of_fold(
    records: Sequence[Record],
    column: str,
    *,
    mu_star: float,
    formula: str,
    ensemble: EpcEnsemble | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, list[str], list[str]] | None:
    """Predictions of one column; None where the checkpoint carries no table of folds.

    Crystals of a formula in the table are predicted by the heads whose fold it was; others by all heads.

    Parameters
    ----------
    records : sequence of Record
    column : str
        Of `onnes.predict`: lambda, omega_log_K, omega_2_K or tc_K.
    mu_star, formula
        For Tc.
    ensemble : EpcEnsemble, optional
        The shipped one by default.

    Returns
    -------
    value, low, high : ndarray, shape (n,)
        NaN for refused crystals; low and high for tc_K only.
    marks, notes : list of str
        See `onnes.learn.marks`.

    Raises
    ------
    ModelError
        ``bad-folds``, ``damaged-model``.
    """
    ensemble = ensemble or EpcEnsemble()
    table = FormulaTable.read(ensemble.checkpoint)
    if table is None or not table.members_per_fold:
        return None
    fold = table.parts_of(r.formula for r in records)
    value, low, high = np.full((3, len(records)), np.nan)
    for start in range(0, len(records), CHUNK):
        place, crystals = [], []
        for i in range(start, min(start + CHUNK, len(records))):
            crystal = _seen(records[i], ensemble)
            if crystal is not None:
                place.append(i)
                crystals.append(crystal)
        if not place:
            continue
        rows, log = np.array(place), ensemble.outputs(crystals)
        for chosen in (fold[rows] == UNSEEN, fold[rows] != UNSEEN):
            if not chosen.any():
                continue
            part, known = log[:, chosen], fold[rows[chosen]]
            if (known != UNSEEN).all():
                part = held_out(part, known, table.members_per_fold)
            found = ensemble.calibrated(part, mu_star=mu_star, formula=formula)
            value[rows[chosen]] = getattr(found, _FIELDS[column])
            if column == "tc_K":
                low[rows[chosen]], high[rows[chosen]] = found.tc_low_K, found.tc_high_K
    marks = [UNSEEN_ROWS if k == UNSEEN else OUT_OF_FOLD for k in fold]
    return value, low, high, marks, _notes(fold, table, ensemble)


def _seen(record: Record, ensemble: EpcEnsemble) -> Seen | None:
    """A crystal as the networks see it; None for one that `onnes.predict` refuses."""
    from onnes.crystal.read import as_crystal

    try:
        return ensemble.look(as_crystal(record.structure(), id=record.id).structure)
    except (CrystalError, ModelError):
        return None


def _notes(fold: NDArray[np.intp], table: FormulaTable, ensemble: EpcEnsemble) -> list[str]:
    known = int((fold != UNSEEN).sum())
    if not known:
        return [f"no formula is among the {len(table.keys)} the heads were trained on; all heads predict"]
    return [
        f"{known} rows have formulas of the training set; each is predicted by the {table.members_per_fold} of "
        f"{ensemble.members} heads that did not see it (the other {len(fold) - known} rows by all)"
    ]
