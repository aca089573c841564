"""The shipped ensembles as honest witnesses: each crystal by the heads that left its formula out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnes.crystal.formula import numbers
from onnes.data.records import Record
from onnes.errors import CrystalError, ModelError, OnnesError
from onnes.learn.ensemble import EpcEnsemble
from onnes.learn.features import FrozenPotential
from onnes.learn.fold_of import UNSEEN, FormulaTable, held_out
from onnes.learn.marks import OUT_OF_FOLD, UNSEEN_ROWS
from onnes.learn.properties import PropertyEnsemble

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.learn.spectrum import SpectrumEnsemble, SpectrumInput

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
    for rows, structures in _chunks(records):
        place, crystals = [], []
        for i, crystal in zip(rows, ensemble.look(structures), strict=True):
            if not isinstance(crystal, OnnesError):
                place.append(i)
                crystals.append(crystal)
        if not place:
            continue
        for chosen, part in _parts(ensemble.outputs(crystals), fold[place], table):
            here = np.array(place)[chosen]
            found = ensemble.calibrated(part, mu_star=mu_star, formula=formula)
            value[here] = getattr(found, _FIELDS[column])
            if column == "tc_K":
                low[here], high[here] = found.tc_low_K, found.tc_high_K
    return value, low, high, _marks(fold), _notes(fold, table, ensemble.members)


def properties_out_of_fold(
    records: Sequence[Record],
    column: str,
    *,
    heads: PropertyEnsemble | None = None,
    potential: FrozenPotential | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, list[str], list[str]] | None:
    """As `out_of_fold`, of the property heads; they state no intervals.

    Parameters
    ----------
    records : sequence of Record
    column : str
        Field of `onnes.learn.properties.PropertyPrediction`.
    heads : PropertyEnsemble, optional
        The shipped ones by default.
    potential : FrozenPotential, optional
        Whose features they read.

    Raises
    ------
    ModelError
        ``bad-folds``, ``damaged-model``.
    """
    heads = heads or PropertyEnsemble()
    table = FormulaTable.read(heads.checkpoint)
    if table is None or not table.members_per_fold:
        return None
    potential = potential or FrozenPotential(potential=heads.potential)
    fold = table.parts_of(r.formula for r in records)
    value, low, high = np.full((3, len(records)), np.nan)
    for rows, structures in _chunks(records):
        place, crystals = [], []
        for i, structure, found in zip(rows, structures, potential.attempt(structures), strict=True):
            if not isinstance(found, OnnesError):
                place.append(i)
                crystals.append((found, numbers(structure), structure.volume / len(structure)))
        if not place:
            continue
        for chosen, part in _parts(heads.outputs(crystals), fold[place], table):
            some = [crystals[i] for i in chosen]
            value[np.array(place)[chosen]] = getattr(heads.properties(part, some), column)
    notes = _notes(fold, table, len(heads.heads))
    return value, low, high, _marks(fold), [*notes, heads.checkpoint.card["caution"]]


def spectrum_out_of_fold(
    records: Sequence[Record],
    column: str,
    *,
    mu_star: float,
    formula: str,
    ensemble: SpectrumEnsemble | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, list[str], list[str]]:
    """As `out_of_fold`, of the moments of the spectral networks' curves (variant ``cso``).

    Crystals with ids of JARVIS are answered in its convention of labels, others in the usual one.

    Raises
    ------
    ModelError
        ``bad-folds``, ``damaged-model``.
    """
    from onnes.learn.spectrum import SpectrumEnsemble

    ensemble = ensemble or SpectrumEnsemble("cso")
    table = FormulaTable.read(ensemble.checkpoint)
    if table is None or not table.members_per_fold:
        raise ModelError("bad-folds", "the spectral networks carry no table of folds")
    fold = table.parts_of(r.formula for r in records)
    other = "jarvis" if "jarvis" in ensemble.sources else ensemble.sources[0]
    value, low, high = np.full((3, len(records)), np.nan)
    for rows, structures in _chunks(records):
        place: dict[str, list[int]] = {}
        crystals: dict[str, list[SpectrumInput]] = {}
        given = zip(rows, structures, ensemble.features(structures), strict=True)
        for i, structure, features in given:
            if isinstance(features, OnnesError):
                continue
            source = other if records[i].id.startswith("JVASP-") else ensemble.sources[0]
            try:
                crystal = ensemble.prepare(structure, features, name=records[i].id)
            except OnnesError:
                continue
            place.setdefault(source, []).append(i)
            crystals.setdefault(source, []).append(crystal)
        for source, some in crystals.items():
            log, shares = ensemble.shares(some, source)
            values = ensemble.grid.values(shares, np.exp(log))
            rows_of = np.array(place[source])
            for chosen, part in _parts(values, fold[rows_of], table):
                curves = ensemble.of_values(part, source, mu_star=mu_star, formula=formula)
                # What `onnes spectrum` would refuse is no prediction here either.
                good = [k for k in range(len(chosen)) if ensemble.beyond(curves, k, "") is None]
                here, found = rows_of[chosen][good], curves.moments
                value[here] = getattr(found, _FIELDS[column])[good]
                if column == "tc_K":
                    low[here], high[here] = found.tc_low_K[good], found.tc_high_K[good]
    return value, low, high, _marks(fold), _notes(fold, table, ensemble.members)


def _chunks(records: Sequence[Record]) -> Iterator[tuple[list[int], list[Structure]]]:
    """Rows and crystals that pass the gate of `onnes.predict`, some at a time."""
    from onnes.crystal.read import as_crystal

    for start in range(0, len(records), CHUNK):
        rows, structures = [], []
        for i in range(start, min(start + CHUNK, len(records))):
            try:
                structures.append(as_crystal(records[i].structure(), id=records[i].id).structure)
            except CrystalError:
                continue
            rows.append(i)
        yield rows, structures


def _parts(
    outputs: FloatArray, fold: NDArray[np.intp], table: FormulaTable
) -> Iterator[tuple[NDArray[np.intp], FloatArray]]:
    """Unseen crystals with the outputs of all members, known ones with those of their fold's."""
    unseen, known = np.flatnonzero(fold == UNSEEN), np.flatnonzero(fold != UNSEEN)
    if len(unseen):
        yield unseen, outputs[:, unseen]
    if len(known):
        yield known, held_out(outputs[:, known], fold[known], table.members_per_fold)


def _marks(fold: NDArray[np.intp]) -> list[str]:
    return [UNSEEN_ROWS if k == UNSEEN else OUT_OF_FOLD for k in fold]


def _notes(fold: NDArray[np.intp], table: FormulaTable, members: int) -> list[str]:
    known = int((fold != UNSEEN).sum())
    if not known:
        return [f"no formula is among the {len(table.keys)} the heads were trained on; all heads predict"]
    return [
        f"{known} rows have formulas of the training set; each is predicted by the {table.members_per_fold} of "
        f"{members} heads that did not see it (the other {len(fold) - known} rows by all)"
    ]
