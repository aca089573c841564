"""Training of a property network under Lightning: folders in, one checkpoint with its card out."""

from __future__ import annotations

import hashlib
import math
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from onnes.data.records import Record, read_records
from onnes.data.splits import groups, train_val_test
from onnes.errors import DataError, InputError, SettingsError
from onnes.learn.fold_of import KEY, FormulaTable
from onnes.learn.inputs import Encoder, encoder
from onnes.learn.store import MODEL_FILE, Checkpoint
from onnes.learn.tasks import Target, targets_from, task

LAST = "last.ckpt"
#: Parts of the table of formulas in a checkpoint.
PARTS = ("training", "validation")


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Attributes
    ----------
    task : str
        Name in `onnes.learn.tasks.TASKS`.
    model : str
        Name in `onnes.learn.inputs.MODELS`.
    epochs, batch, seed : int
    learning_rate, weight_decay : float
    validation : float
        Share of the formulas held out for early stopping and for the card.
    patience : int
        Epochs without improvement after which training stops.
    """

    task: str
    model: str = "head"
    epochs: int = 40
    batch: int = 64
    seed: int = 0
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    validation: float = 0.1
    patience: int = 15

    def __post_init__(self) -> None:
        ok = self.epochs >= 1 and self.batch >= 1 and 0 < self.validation < 0.9 and self.patience >= 1
        if not ok or self.learning_rate <= 0 or self.weight_decay < 0:
            raise SettingsError("bad-setting", f"these settings cannot be used: {self}")


class Regression(L.LightningModule):
    """Masked multi-target regression (L1) and classification (cross entropy) of standardised targets."""

    def __init__(
        self, net: torch.nn.Module, targets: Sequence[Target], settings: FitSettings, steps: int
    ) -> None:
        super().__init__()
        self.net, self.targets, self.fit_settings, self.steps = net, targets, settings, steps
        self.binary = torch.tensor([t.binary for t in targets])
        self.weight = torch.tensor([t.weight for t in targets])

    def losses(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed loss of every target and how many labels it had."""
        known = ~torch.isnan(y)
        target = torch.nan_to_num(y)
        cross = torch.nn.functional.binary_cross_entropy_with_logits(
            out, target.clamp(0, 1), reduction="none"
        )
        error = torch.where(self.binary.to(y.device), cross, (out - target).abs()) * known
        return error.sum(0), known.sum(0)

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Loss of a batch."""
        inputs, y = batch
        total, count = self.losses(self.net(*inputs), y)
        loss = (total / count.clamp(min=1) * self.weight.to(y.device)).sum()
        self.log("train", loss, batch_size=len(y), prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting: the mean over all samples, not over batches of unequal size."""
        self._sum = torch.zeros(len(self.targets))
        self._count = torch.zeros(len(self.targets))

    def validation_step(self, batch: Any, _: int) -> None:
        """Add a batch."""
        inputs, y = batch
        total, count = self.losses(self.net(*inputs), y)
        self._sum += total.detach().cpu()
        self._count += count.cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the loss over every sample."""
        mean = self._sum / self._count.clamp(min=1)
        self.log("val", float((mean * self.weight).sum()), prog_bar=True)
        self.log("val_n", float(self._count.max()))

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises over a tenth of the steps and falls as a cosine.

        The schedule depends on the step alone, so that a resumed training may run for more epochs.
        """
        s = self.fit_settings
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warm = max(1, self.steps // 10)
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, self.steps - warm))
        return 0.5 * (1.0 + math.cos(math.pi * done)) + 1e-3


def read_all(paths: Sequence[str | Path]) -> list[Record]:
    """Read record files into one list; equal ids of two files are an error.

    Raises
    ------
    DataError
        ``duplicate-id`` and those of reading.
    """
    records: list[Record] = []
    for path in paths:
        records += read_records(path)
    names = [r.id for r in records]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise DataError("duplicate-id", f"{twice} occurs more than once in the data")
    return records


def fit(
    paths: Sequence[str | Path], out: str | Path, settings: FitSettings, *, resume: bool = False
) -> Checkpoint:
    """Train a network and write ``model.safetensors`` with its card to a folder.

    Parameters
    ----------
    paths : sequence of path
        Record files (``.jsonl``, ``.jsonl.gz``); the file name is the label source.
    out : path
        Folder; ``last.ckpt`` there lets an interrupted training go on.
    settings : FitSettings
    resume : bool
        Go on from ``last.ckpt``. Without it a folder that holds one is an error.

    Raises
    ------
    SettingsError, DataError, InputError
        ``unknown-task``, ``unknown-model``, ``no-labels``, ``training-exists``, ...
    """
    out = Path(out)
    last = out / LAST
    if last.exists() and not resume:
        raise InputError("training-exists", f"{out} holds a training; use --resume, or another folder")
    targets = task(settings.task)
    prepared = prepare(read_all(paths), targets, encoder(settings.model), settings, out)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    net = prepared.encoder.network(len(targets), len(prepared.sources))
    prepared.encoder.standardise(net, prepared.train)
    module = Regression(net, targets, settings, settings.epochs * len(prepared.batches(True)))
    trainer = _trainer(out, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(
            module,
            prepared.batches(True),
            prepared.batches(False),
            ckpt_path=str(last) if last.exists() else None,
            weights_only=False,
        )
    if not trainer.is_global_zero:
        # A process that Lightning started for another device has done its part; the first one writes and reports.
        raise SystemExit(0)
    best = Path(trainer.checkpoint_callbacks[1].best_model_path)  # type: ignore[attr-defined]
    state = torch.load(best if best.is_file() else last, map_location="cpu", weights_only=False)["state_dict"]
    weights = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    net.load_state_dict(weights)
    card = prepared.card(net, settings, [Path(p).name for p in paths])
    table = prepared.table()
    stored = {**prepared.settings(settings), KEY: table.settings()}
    checkpoint = Checkpoint("property", stored, card, {**weights, **table.tensors()})
    checkpoint.save(out / MODEL_FILE)
    return checkpoint


class Saying(L.Callback):
    """One line an epoch on stderr: results alone go to stdout."""

    def on_train_epoch_end(self, trainer: L.Trainer, _: L.LightningModule) -> None:
        """Say how far the training is."""
        m = {k: float(v) for k, v in trainer.callback_metrics.items()}
        text = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: train {m.get('train', math.nan):.4f}"
        print(f"{text}, held out {m.get('val', math.nan):.4f}", file=sys.stderr, flush=True)


def _trainer(out: Path, settings: FitSettings) -> L.Trainer:
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    return L.Trainer(
        accelerator="auto",
        max_epochs=settings.epochs,
        gradient_clip_val=1.0,
        logger=CSVLogger(out, name="log", version=0),
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=20,
        callbacks=[
            ModelCheckpoint(dirpath=out, filename="last", enable_version_counter=False),
            ModelCheckpoint(
                dirpath=out, filename="best", monitor="val", enable_version_counter=False, save_top_k=1
            ),
            EarlyStopping("val", patience=settings.patience),
            Saying(),
        ],
    )


@dataclass
class Prepared:
    """Encoded training data: inputs and standardised targets of the records that have any label."""

    encoder: Encoder
    targets: tuple[Target, ...]
    sources: list[str]
    items: list[Any]
    y: Tensor
    train: list[int]
    val: list[int]
    center: list[float]
    spread: list[float]
    data_hash: str
    formulas: list[str]
    batch: int
    seed: int

    def batches(self, training: bool) -> DataLoader[Any]:
        """Loader of one part; the last batch is kept whatever its size."""
        chosen = self.train if training else self.val
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            [(self.items[i], self.y[i]) for i in chosen],  # type: ignore[arg-type]
            batch_size=self.batch,
            shuffle=training,
            generator=generator,
            collate_fn=self._collate,
        )

    def _collate(self, pairs: list[tuple[Any, Tensor]]) -> tuple[Any, Tensor]:
        return self.encoder.collate([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])

    def settings(self, settings: FitSettings) -> dict[str, Any]:
        """What inference needs: nothing is guessed there."""
        return {
            "model": settings.model,
            "task": settings.task,
            "targets": [asdict(t) for t in self.targets],
            "sources": self.sources,
            "center": self.center,
            "spread": self.spread,
            "median": self.medians(),
            **self.encoder.settings(),
        }

    def medians(self) -> list[float]:
        """Median of every target's training labels in physical units: the constant to compare with."""
        middle = _by_column(np.nanmedian, self.y[self.train].numpy().astype(float))
        values = zip(self.targets, middle, self.spread, self.center, strict=True)
        return [float(v > 0.5) if t.binary else float(t.decode(v * s + c)) for t, v, s, c in values]

    def table(self) -> FormulaTable:
        """Which formulas were trained on and which decided when to stop."""
        parts = {self.formulas[i]: 0 for i in self.train} | {self.formulas[i]: 1 for i in self.val}
        return FormulaTable.of(parts, PARTS, self.data_hash)

    def card(self, net: torch.nn.Module, settings: FitSettings, files: list[str]) -> dict[str, Any]:
        """Where the weights come from and their errors on the held-out formulas, beside the median."""
        guess = _predict(net, self, self.val)
        truth = self.y[self.val].numpy()
        median = _by_column(np.nanmedian, self.y[self.train].numpy())
        validation: dict[str, dict[str, Any]] = {}
        for k, target in enumerate(self.targets):
            known = np.isfinite(truth[:, k])
            true, ours, plain = (
                target.decode(v * self.spread[k] + self.center[k])
                for v in (truth[known, k], guess[known, k], np.full(known.sum(), median[k]))
            )
            if target.binary:
                validation[target.name] = {
                    "n": int(known.sum()),
                    "accuracy": float(((guess[known, k] > 0) == (truth[known, k] > 0.5)).mean()),
                    "majority": float(max(truth[known, k].mean(), 1 - truth[known, k].mean())),
                }
                continue
            validation[target.name] = {
                "n": int(known.sum()),
                "mae": float(np.abs(ours - true).mean()) if known.any() else None,
                "median_mae": float(np.abs(plain - true).mean()) if known.any() else None,
            }
        return {
            "settings": asdict(settings),
            "data": files,
            "data_hash": self.data_hash,
            "n_train": len(self.train),
            "n_val": len(self.val),
            "split": f"{settings.validation:.0%} of the formulas, seed {settings.seed}",
            "formulas": {
                "training": len({self.formulas[i] for i in self.train}),
                "validation": len({self.formulas[i] for i in self.val}),
                "table": "salted hashes of all of them are in the checkpoint: onnes evaluate tells seen from unseen",
            },
            "validation": validation,
            "environment": {
                "torch": torch.__version__,
                "lightning": L.__version__,
                "python": platform.python_version(),
            },
        }


def prepare(
    records: Sequence[Record], targets: tuple[Target, ...], coder: Encoder, settings: FitSettings, out: Path
) -> Prepared:
    """Encode the records that carry a label, split whole formulas, standardise.

    Raises
    ------
    DataError
        ``no-labels``, ``too-few-groups``.
    """
    y = np.array([[t.encode(r.labels, len(r.species)) for t in targets] for r in records])
    kept = [i for i in range(len(records)) if np.isfinite(y[i]).any()]
    if len(kept) < 10:
        names = ", ".join(sorted({label for t in targets for label in t.labels}))
        raise DataError("no-labels", f"{len(kept)} records carry one of {names}; at least 10 are needed")
    chosen = [records[i] for i in kept]
    sources = sorted({r.source for r in chosen})
    coded = coder.encode(chosen, [sources.index(r.source) for r in chosen], out)
    good = [i for i, item in enumerate(coded) if item is not None]
    chosen, y = [chosen[i] for i in good], y[kept][good]
    parts = train_val_test(
        groups(chosen), (1.0 - settings.validation, settings.validation, 0.0), settings.seed
    )
    center, spread = (_by_column(f, y[parts.train]) for f in (np.nanmean, np.nanstd))
    for k, target in enumerate(targets):
        if target.binary:
            center[k], spread[k] = 0.0, 1.0
    spread = np.where(spread > 1e-9, spread, 1.0)
    digest = hashlib.sha256(repr([(r.id, r.formula) for r in chosen]).encode() + y.tobytes()).hexdigest()
    return Prepared(
        coder,
        targets,
        sources,
        [coded[i] for i in good],
        torch.as_tensor((y - center) / spread).float(),
        parts.train.tolist(),
        parts.val.tolist(),
        center.tolist(),
        spread.tolist(),
        digest[:16],
        [r.formula for r in chosen],
        settings.batch,
        settings.seed,
    )


def _by_column(statistic: Callable[..., Any], y: np.ndarray) -> np.ndarray:
    """A statistic of every target; NaN, without numpy's warning, for one that no training row is labelled with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(statistic(y, axis=0))


@torch.no_grad()
def _predict(net: torch.nn.Module, data: Prepared, which: list[int]) -> np.ndarray:
    net.eval()
    out = []
    for start in range(0, len(which), data.batch):
        part = which[start : start + data.batch]
        out.append(net(*data.encoder.collate([data.items[i] for i in part])).numpy())
    return np.concatenate(out)


def targets_of(checkpoint: Checkpoint) -> tuple[Target, ...]:
    """Rebuild the targets a checkpoint was trained for."""
    return targets_from(checkpoint.settings["targets"])
