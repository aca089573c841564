"""A checkpoint of ``onnes train`` under the same scoring as everything else, seen formulas told from unseen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.data.records import Record
from onnes.errors import DataError, ModelError
from onnes.learn.fold_of import UNSEEN, FormulaTable
from onnes.learn.inputs import rebuild
from onnes.learn.marks import NOT_KNOWN, SEEN_PARTS, UNSEEN_ROWS
from onnes.learn.store import MODEL_FILE, Checkpoint
from onnes.learn.tasks import Target, targets_from
from onnes.learn.tasks import task as task_named
from onnes.theory.tc import tc_array

FloatArray = NDArray[np.float64]

#: omega_2 / omega_log where a run predicts no omega_2: the median of the Alexandria rows whose Tc determines it.
OMEGA_2_RATIO = 1.18
_BATCH = 64


class TrainedRun:
    """A trained network with its targets and its table of formulas.

    Parameters
    ----------
    path : path
        The folder of the training, or its checkpoint.

    Raises
    ------
    ModelError
        ``no-model``, ``damaged-model``, ``wrong-model``, ``incompatible-model``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path) / MODEL_FILE if Path(path).is_dir() else Path(path)
        self.checkpoint = Checkpoint.load(self.path, "property")
        settings = self.checkpoint.settings
        self.task: str = settings["task"]
        self.targets: tuple[Target, ...] = targets_from(settings["targets"])
        self.sources: list[str] = settings["sources"]
        self.table = FormulaTable.read(self.checkpoint)
        self.encoder, self.net = rebuild(settings)
        names = self.net.state_dict().keys()
        weights = {k: v for k, v in self.checkpoint.tensors.items() if k in names}
        try:
            self.net.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError("incompatible-model", f"the weights do not fit: {str(error)[:120]}") from None
        self.net.eval()

    @property
    def labels(self) -> list[str]:
        """Labels that the run predicts; Tc where it predicts lambda and omega_log."""
        found = [label for t in self.targets for label in t.labels]
        return [*found, "Tc_K"] if self._gives_tc else found

    @property
    def _gives_tc(self) -> bool:
        return {"lambda", "omega_log_K"} <= {t.name for t in self.targets}

    def target(self, label: str) -> Target | None:
        """The target read from a label; None for Tc, which is derived.

        Raises
        ------
        ModelError
            ``unknown-target``.
        """
        for target in self.targets:
            if label in target.labels:
                return target
        if label.startswith("Tc") and self._gives_tc:
            return None
        known = ", ".join(self.labels)
        raise ModelError(
            "unknown-target", f"the run (task {self.task}) predicts no {label}; it predicts {known}"
        )

    def remarks(self, label: str) -> list[str]:
        """What to know when only one label of several is scored."""
        others = [t.labels[0] for t in self.targets if label not in t.labels]
        return [f"the run also predicts {', '.join(others)} (--target)"] if others else []

    def threshold(self, label: str) -> float | None:
        """Between no and yes for a yes-or-no target; None for others."""
        target = self.target(label)
        return 0.5 if target is not None and target.binary else None

    def truth(self, records: Sequence[Record], label: str) -> FloatArray:
        """Labels as the run's outputs are compared with them: 0 or 1 for a yes-or-no target."""
        target = self.target(label)
        values = np.array([r.labels[label] for r in records], dtype=float)
        return (values > 0).astype(float) if target is not None and target.binary else values

    def marks(self, records: Sequence[Record]) -> list[str]:
        """What the run knows of each formula (`onnes.learn.marks`)."""
        if self.table is None:
            return [NOT_KNOWN] * len(records)
        parts = self.table.parts_of(r.formula for r in records)
        return [UNSEEN_ROWS if p == UNSEEN else SEEN_PARTS[self.table.names[p]] for p in parts]

    def median(self, label: str) -> float:
        """Median of the training labels of a target; NaN for Tc and where the checkpoint has none."""
        target, stored = self.target(label), self.checkpoint.settings.get("median")
        if target is None or stored is None or target.per_atom:
            return float("nan")
        return float(stored[self.targets.index(target)])

    def predict(
        self, records: Sequence[Record], label: str, *, mu_star: float, formula: str
    ) -> tuple[FloatArray, list[str]]:
        """Predictions in the label's unit, shape (n,), NaN where the network cannot see a crystal; and notes.

        Parameters
        ----------
        records : sequence of Record
        label : str
            Of `labels`.
        mu_star, formula
            For Tc.
        """
        target = self.target(label)
        out, notes = self._outputs(records)
        if target is None:
            lam, wlog, w2 = (self._column(out, n) for n in ("lambda", "omega_log_K", "omega_2_K"))
            wlog = np.asarray(wlog)
            w2 = OMEGA_2_RATIO * wlog if w2 is None else w2
            value, known = np.full(len(records), np.nan), np.isfinite(wlog)
            moments = (np.asarray(x)[known] for x in (lam, wlog, w2))
            value[known] = tc_array(*moments, mu_star=mu_star, formula=formula)
            return value, [
                *notes,
                f"predicted Tc by {formula} at mu* = {mu_star:g} from lambda and omega_log",
            ]
        value = out[:, self.targets.index(target)]
        return value * [len(r.species) for r in records] if target.per_atom else value, notes

    def _column(self, out: FloatArray, name: str) -> FloatArray | None:
        return next((out[:, k] for k, t in enumerate(self.targets) if t.name == name), None)

    def _outputs(self, records: Sequence[Record]) -> tuple[FloatArray, list[str]]:
        """All targets in physical units, shape (n, targets)."""
        foreign = sorted({r.source for r in records} - set(self.sources))
        source = [self.sources.index(r.source) if r.source in self.sources else 0 for r in records]
        notes = []
        if foreign and len(self.sources) > 1:
            notes.append(
                f"{', '.join(foreign)}: no label source of the run; predicted in the convention of {self.sources[0]}"
            )
        with tempfile.TemporaryDirectory() as scratch:
            # The run's folder keeps features and graphs by content; what it has is not computed again.
            folder = self.path.parent if os.access(self.path.parent, os.W_OK) else Path(scratch)
            items = self.encoder.encode(records, source, folder)
        settings = self.checkpoint.settings
        center, spread = (np.array(settings[k], dtype=float) for k in ("center", "spread"))
        out = np.full((len(records), len(self.targets)), np.nan)
        kept = [i for i, item in enumerate(items) if item is not None]
        with torch.no_grad():
            for start in range(0, len(kept), _BATCH):
                part = kept[start : start + _BATCH]
                batch: tuple[Any, ...] = self.encoder.collate([items[i] for i in part])
                out[part] = self.net(*batch).double().numpy() * spread + center
        return np.column_stack([t.decode(out[:, k]) for k, t in enumerate(self.targets)]), notes


def chosen_label(run: TrainedRun, task: str | None, target: str | None, records: Sequence[Record]) -> str:
    """The label to score a run on: the one asked for, or the first that the records carry.

    Parameters
    ----------
    run : TrainedRun
    task : str or None
        What the user takes the run for; checked.
    target : str or None
        Label.
    records : sequence of Record

    Raises
    ------
    SettingsError
        ``unknown-task``.
    ModelError
        ``task-mismatch``, ``unknown-target``.
    DataError
        ``no-label``.
    """
    if task is not None:
        task_named(task)
        if task != run.task:
            raise ModelError(
                "task-mismatch", f"{run.path.parent.name} was trained for {run.task!r}, not for {task!r}"
            )
    if target is not None:
        run.target(target)
    wanted = run.labels if target is None else [target]
    carried = {name for record in records for name in record.labels}
    for label in wanted:
        if label in carried:
            return label
    raise DataError(
        "no-label",
        f"the run predicts {', '.join(wanted)}; the records carry: {', '.join(sorted(carried)) or 'none'}",
    )
