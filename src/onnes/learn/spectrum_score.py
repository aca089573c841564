"""A spectral ensemble of ``onnes train spectrum`` under the scoring of everything else, each crystal out of bag.

A crystal whose formula was trained on is predicted by the members whose bootstrap sample lacked it, a new one by all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnes.data.records import Record
from onnes.errors import DataError, ModelError, OnnesError
from onnes.graph.crystal_graph import graph_of
from onnes.learn.epc import tc_of
from onnes.learn.features import AtomFeatures
from onnes.learn.fold_of import UNSEEN, FormulaTable
from onnes.learn.inputs import cached_rows
from onnes.learn.marks import NOT_KNOWN, OUT_OF_BAG, SEEN_PARTS, UNSEEN_ROWS
from onnes.learn.metrics import bootstrap
from onnes.learn.spectrum import SpectrumEnsemble, SpectrumInput
from onnes.learn.spectrum_data import curve_of, labels_of, paths_of, with_potentials, with_vibrations
from onnes.learn.spectrum_train import LEAST_UNSEEN, LEFT_OUT
from onnes.learn.store import MODEL_FILE, Checkpoint

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.theory.phonon_dos import SiteSpectra
    from onnes.theory.spectral import Spectrum

FloatArray = NDArray[np.float64]

TASK = "spectrum"
#: Field of `onnes.learn.epc.EpcPrediction` for each label.
_FIELDS = {"lambda": "lam", "omega_log_K": "omega_log_K", "omega_2_K": "omega_2_K", "Tc_K": "tc_K"}
_CHUNK = 64


class Scored(NamedTuple):
    """Predictions of one label.

    Attributes
    ----------
    value, low, high : ndarray, shape (n,)
        NaN for refused crystals; low and high are of Tc only.
    marks, notes : list of str
        See `onnes.learn.marks`.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    marks: list[str]
    notes: list[str]


def is_spectral(path: str | Path) -> bool:
    """Whether a folder or checkpoint is one of ``onnes train spectrum``; False for what is no checkpoint."""
    file = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
    try:
        Checkpoint.load(file, "spectrum")
    except OnnesError:
        return False
    return True


class SpectralRun:
    """The ensemble of a run, with what each member has seen.

    Parameters
    ----------
    path : path
        The folder of the training, or its checkpoint.
    vibrations : callable, optional
        Given the quality of phonons (``coarse``, ``fine``), the function that computes vibrational spectra; needed by
        networks that read them.

    Raises
    ------
    ModelError
        ``no-model``, ``damaged-model``, ``wrong-model``, ``no-variant``.
    """

    task = TASK

    def __init__(
        self,
        path: str | Path,
        vibrations: Callable[[str], Callable[[Structure], SiteSpectra] | None] | None = None,
    ) -> None:
        self.path = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
        self.checkpoint = Checkpoint.load(self.path, "spectrum")
        held = list(self.checkpoint.settings.get("variants", {}))
        if len(held) != 1:
            raise ModelError(
                "no-variant", f"one kind of networks is scored at a time; {self.path} holds {held or 'none'}"
            )
        self.ensemble = SpectrumEnsemble(held[0], self.path)
        self.table = FormulaTable.read(self.checkpoint)
        self.vibrations = vibrations(self.ensemble.phonons) if vibrations is not None else None
        if self.ensemble.settings.phonons and self.vibrations is None:
            raise ModelError(
                "no-variant", "these networks read vibrational spectra, and nothing computes them"
            )
        left = self.checkpoint.tensors.get(LEFT_OUT)
        #: Curves of the crystals that are scored, by id (`labelled`).
        self.truths: dict[str, Spectrum] = {}
        #: Members that have not seen a formula of the table, shape (members, formulas); None in older checkpoints.
        self.left = None if left is None else left.numpy().astype(bool)

    @property
    def labels(self) -> list[str]:
        """Labels that the run predicts."""
        return list(_FIELDS)

    @property
    def words(self) -> str:
        """What was scored."""
        e = self.ensemble
        return (
            f"{e.members} spectral networks ({e.variant}) of onnes train (checkpoint {self.checkpoint.hash})"
        )

    def remarks(self, label: str) -> list[str]:
        """What to know when only one label of several is scored."""
        others = ", ".join(name for name in _FIELDS if name != label)
        out = [f"the run also predicts {others} (--target)"]
        if "chose the epoch" in str(self.checkpoint.card.get("split", "")):
            out.append("out-of-bag crystals chose the epoch that is kept, which flatters their figures")
        return out

    def threshold(self, label: str) -> None:
        """No label of these is a yes or no."""
        return

    def chosen(self, task: str | None, target: str | None, records: Sequence[Record]) -> str:
        """The label to score; see `onnes.learn.trained.chosen_label`.

        Raises
        ------
        ModelError
            ``task-mismatch``, ``unknown-target``.
        DataError
            ``no-label``.
        """
        if task not in (None, TASK):
            raise ModelError(
                "task-mismatch", f"{self.path.parent.name} was trained for {TASK!r}, not for {task!r}"
            )
        if target is not None and target not in _FIELDS and not target.startswith("Tc"):
            raise ModelError(
                "unknown-target",
                f"the run (task {TASK}) predicts no {target}; it predicts {', '.join(_FIELDS)}",
            )
        carried = {name for record in records for name in record.labels}
        for label in self.labels if target is None else [target]:
            if label in carried:
                return label
        raise DataError(
            "no-label",
            f"the run predicts {', '.join(_FIELDS)}; the records carry: {', '.join(sorted(carried)) or 'none'} "
            "(curves in files: --curves)",
        )

    def truth(self, records: Sequence[Record], label: str) -> FloatArray:
        """The labels, shape (n,)."""
        return np.array([r.labels[label] for r in records], dtype=float)

    def labelled(
        self,
        records: Sequence[Record],
        files: Mapping[str, list[Path]],
        unit: str | None,
        *,
        mu_star: float,
        formula: str,
    ) -> tuple[list[Record], list[str]]:
        """Records with the moments of their curves as labels, and Tc from them where none is given; and notes.

        Parameters
        ----------
        records : sequence of Record
        files : mapping
            Of `onnes.learn.spectrum_data.curve_files`.
        unit : str, optional
            Of files that do not state theirs.
        mu_star, formula
            For Tc.
        """
        out, bad = [], []
        for record in records:
            try:
                curve = curve_of(record, files, unit)
            except OnnesError as error:
                bad.append(f"{record.id}: {error.message}")
                continue
            if curve is None:
                out.append(record)
                continue
            self.truths[record.id] = curve
            logs = np.log([[curve.lam, curve.omega_log_K, 1.0, curve.omega_2_K / curve.omega_log_K]])
            own = {"lambda": curve.lam, "omega_log_K": curve.omega_log_K, "omega_2_K": curve.omega_2_K}
            labels = {"Tc_K": float(tc_of(logs, mu_star, formula)[0]), **record.labels, **own}
            out.append(record.model_copy(update={"labels": labels}))
        notes = []
        if self.truths:
            notes.append(
                f"{len(self.truths)} rows have curves: lambda, omega_log and omega_2 are theirs, and Tc ({formula}, "
                f"mu* {mu_star:g}) where no Tc is given"
            )
        if bad:
            notes.append(f"{len(bad)} rows left out for their curves; first: {bad[0]}")
        return out, notes

    def median(self, label: str) -> float:
        """Median of the training labels; NaN for Tc and where the checkpoint states none."""
        return float(self.checkpoint.settings.get("median", {}).get(label, float("nan")))

    def allowed(self, records: Sequence[Record]) -> NDArray[np.bool_]:
        """Members that may be asked about each crystal, shape (members, n).

        Those that left its formula out; all of a formula that is new, and of one that every member has seen.
        """
        found = np.ones((self.ensemble.members, len(records)), dtype=bool)
        if self.table is None or self.left is None:
            return found
        for i, record in enumerate(records):
            k = self.table.place(record.formula)
            if k != UNSEEN and self.left[:, k].any():
                found[:, i] = self.left[:, k]
        return found

    def marks(self, records: Sequence[Record]) -> list[str]:
        """What the run knows of each formula (`onnes.learn.marks`)."""
        if self.table is None:
            return [NOT_KNOWN] * len(records)
        out = []
        for record in records:
            k = self.table.place(record.formula)
            if k == UNSEEN:
                out.append(UNSEEN_ROWS)
            elif self.left is not None and self.left[:, k].any():
                out.append(OUT_OF_BAG)
            else:
                out.append(SEEN_PARTS["training"])
        return out

    def curves(self, records: Sequence[Record]) -> FloatArray:
        """alpha2F of every member, shape (members, n, K); NaN where it may not be asked, or cannot see the crystal."""
        e = self.ensemble
        out = np.full((e.members, len(records), len(e.grid.omega_meV)), np.nan)
        allowed = self.allowed(records)
        for start in range(0, len(records), _CHUNK):
            part = records[start : start + _CHUNK]
            by_source: dict[str, list[tuple[int, SpectrumInput]]] = {}
            for i, crystal in self._inputs(part):
                source = self._source(part[i])
                by_source.setdefault(source, []).append((start + i, crystal))
            for source, some in by_source.items():
                rows = [i for i, _ in some]
                log, shares = e.shares([crystal for _, crystal in some], source)
                values = e.grid.values(shares, np.exp(log))
                values[~allowed[:, rows]] = np.nan
                out[:, rows] = values
        return out

    def score(self, records: Sequence[Record], label: str, *, mu_star: float, formula: str) -> Scored:
        """Predictions of a label with its interval; a curve that runs into the end of the grid is none.

        Parameters
        ----------
        records : sequence of Record
        label : str
            Of `labels`, or another Tc.
        mu_star, formula
            For Tc.
        """
        e, values = self.ensemble, self.curves(records)
        field = _FIELDS["Tc_K" if label.startswith("Tc") else label]
        value, low, high = np.full((3, len(records)), np.nan)
        asked = np.isfinite(values[:, :, 0])
        for members in np.unique(asked, axis=1).T:
            if not members.any():
                continue
            rows = np.flatnonzero((asked == members[:, None]).all(0))
            for source in e.sources:
                some = rows[[self._source(records[int(i)]) == source for i in rows]]
                if not len(some):
                    continue
                found = e.of_values(values[members][:, some], source, mu_star=mu_star, formula=formula)
                good = [k for k in range(len(some)) if e.beyond(found, k, "") is None]
                value[some[good]] = getattr(found.moments, field)[good]
                # The members' spread is part of the width, and one member has none.
                if field == "tc_K" and members.sum() >= LEAST_UNSEEN:
                    low[some[good]] = found.moments.tc_low_K[good]
                    high[some[good]] = found.moments.tc_high_K[good]
        return Scored(value, low, high, self.marks(records), self._notes(records, values))

    def _source(self, record: Record) -> str:
        return record.source if record.source in self.ensemble.sources else self.ensemble.sources[0]

    def _notes(self, records: Sequence[Record], values: FloatArray) -> list[str]:
        sources = self.ensemble.sources
        foreign = sorted({r.source for r in records} - set(sources))
        out = []
        if foreign and len(sources) > 1:
            out.append(
                f"{', '.join(foreign)}: no label source of the run; predicted in the convention of {sources[0]}"
            )
        if self.left is None:
            out.append("an earlier version trained this run: which member has seen what is not kept")
        else:
            known = sum(m == OUT_OF_BAG for m in self.marks(records))
            asked = np.isfinite(values[:, :, 0]).sum(0)
            bag = [a for a, m in zip(asked, self.marks(records), strict=True) if m == OUT_OF_BAG and a]
            if known:
                out.append(
                    f"{known} rows have formulas of the training set; each is predicted by the members whose bootstrap "
                    f"sample lacked it ({np.mean(bag):.1f} of {self.ensemble.members} on average)"
                )
        area = self._area(records, values)
        return [*out, area] if area else out

    def _area(self, records: Sequence[Record], values: FloatArray) -> str:
        """Area between predicted and true curve over that of the true one, and of the mean true curve, in words."""
        grid, rows, shares = self.ensemble.grid, [], []
        for i, record in enumerate(records):
            if record.id not in self.truths or not np.isfinite(values[:, i, 0]).any():
                continue
            try:
                labels = labels_of(record, self.truths[record.id], self.ensemble.settings)
            except OnnesError:  # beyond the grid
                continue
            if labels is not None:
                rows.append(i)
                shares.append(labels[1])
        if len(rows) < 2:
            return ""
        mean = np.nanmean(values[:, rows], axis=0)
        truth = grid.values(np.array(shares), np.array([self.truths[records[i].id].lam for i in rows]))
        under = truth @ grid.width_meV
        ours = np.abs(mean - truth) @ grid.width_meV / under
        plain = np.abs(truth.mean(0) - truth) @ grid.width_meV / under
        group = [records[i].formula for i in rows]
        s = bootstrap("area", np.zeros(len(rows)), ours, group, statistic=lambda t, p: float(np.median(p)))
        return (
            f"area between the curves over that of the true one, median: {s.value:.3f} ({s.low:.3f} to {s.high:.3f}), "
            f"mean curve {np.median(plain):.3f}, n {s.n}"
        )

    def _inputs(self, records: Sequence[Record]) -> Iterator[tuple[int, SpectrumInput]]:
        """Place and inputs of the crystals that the networks can see."""
        from onnes.crystal.read import as_crystal

        e, refused = self.ensemble, dict[str, str]()
        with tempfile.TemporaryDirectory() as scratch:
            # The run's folder keeps features and vibrations by content; what it has is not computed again.
            folder = self.path.parent if os.access(self.path.parent, os.W_OK) else Path(scratch)
            kept: list[Any] = [(record,) for record in records]
            kept = with_potentials(kept, e.potentials, folder, refused)
            cells = with_vibrations(kept, self.vibrations if e.settings.phonons else None, folder, refused)
            for i, record in enumerate(records):
                if record.id in refused:
                    continue
                try:
                    structure = as_crystal(record.structure(), id=record.id).structure
                    features = _features(record, e.potentials, folder)
                    if e.settings.phonons:
                        x = [features[name].x for name in e.potentials]
                        joint = np.concatenate(x, axis=1) if x else np.zeros((len(structure), 0), np.float32)
                        volume = structure.volume / len(structure)
                        graph = graph_of(structure, e.settings.graph)
                        yield i, SpectrumInput(record.id, graph, joint, cells[record.id], volume)
                    else:
                        yield i, e.prepare(structure, features, name=record.id)
                except OnnesError:
                    continue


def _features(
    record: Record, potentials: Mapping[str, tuple[str, ...]], folder: Path
) -> dict[str, AtomFeatures]:
    found = {}
    for path, name in zip(paths_of(record, potentials, folder), potentials, strict=True):
        x = cached_rows(path, len(record.species))
        assert x is not None  # `with_potentials` has written it, or refused the record
        found[name] = AtomFeatures(x, float("nan"))
    return found
