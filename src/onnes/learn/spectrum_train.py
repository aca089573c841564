"""Training of a spectral ensemble from record files: members apart, calibration out of bag, one checkpoint.

Members share nothing but the prepared data, so they may run one after another, side by side, or as the tasks of a job
array, each in a process of its own. A crystal is scored by the members whose bootstrap sample did not hold its formula.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.data.files import atomic_text, atomic_write
from onnes.errors import DataError, InputError, ModelError, SettingsError
from onnes.learn.domain import coverage_of
from onnes.learn.epc import tc_of
from onnes.learn.fold_of import KEY, FormulaTable
from onnes.learn.metrics import bootstrap, median_baseline
from onnes.learn.regimes import REGIMES
from onnes.learn.spectrum import BY_PHONONS, log_moments
from onnes.learn.spectrum_calibrate import USUAL_RATIO, band, intervals
from onnes.learn.spectrum_data import FEATURES, Prepared, with_features
from onnes.learn.spectrum_fit import FitSettings, Member, SpectrumData, outputs
from onnes.learn.store import MODEL_FILE, Checkpoint
from onnes.nets.spectrum import GRIDS, SpectrumNet, SpectrumSettings, bete
from onnes.units import TO_KELVIN

FloatArray = NDArray[np.float64]
MEV = TO_KELVIN["meV"]
SETTINGS = "spectrum.json"
MODELS = ("spectrum", "spectrum-bete")
#: Fewest curves, and formulas with curves: a 90 % interval needs nine groups of residuals.
LEAST_CURVES, LEAST_FORMULAS = 10, 10
#: Fewest members, and members that must not have seen a crystal for it to count in a calibration.
LEAST_MEMBERS, LEAST_UNSEEN = 4, 2
#: Steps of the optimiser that a member takes where the epochs are not given, and the range of epochs.
STEPS, EPOCHS = 3000, (25, 400)
#: How often a crystal with a curve comes in an epoch.
CURVE_TIMES = 8
MU_STAR, FORMULA = 0.10, "allen-dynes"
#: Beginning of the names of the weights among a member's outputs: neither is there without the other.
WEIGHTS = "weights."
#: Environment variable with the process that started a member.
PARENT = "ONNES_PARENT"
#: Tensor of the checkpoint: which members have not seen which formula (`left_out`).
LEFT_OUT = "left_out"
QUANTITIES = ("lambda", "omega_log_K", "omega_2_K", "tc_K")


@dataclass(frozen=True)
class TrainSettings:
    """How an ensemble is trained.

    Attributes
    ----------
    model : str
        ``spectrum``: features of two potentials and a scaled output, as shipped; ``spectrum-bete``: the published
        network of Gibson et al., from the structure alone on 0.25-100.25 meV.
    members : int
        Bootstrap replicas.
    phonons : str
        ``none``, ``coarse`` or ``fine``: vibrational spectra of the atoms as inputs.
    epochs : int
        0: as many as make about 3,000 steps.
    regime : str
        Of `onnes.learn.spectrum_fit.FitSettings`; other ones than ``modern`` train at a constant rate.
    batch, seed : int
    """

    model: str = "spectrum"
    members: int = 8
    phonons: str = "none"
    epochs: int = 0
    regime: str = "modern"
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise SettingsError(
                "unknown-model", f"unknown model {self.model!r}; use one of {', '.join(MODELS)}"
            )
        if self.phonons not in BY_PHONONS:
            raise SettingsError(
                "unknown-phonons", f"phonons {self.phonons!r} unknown; use one of {', '.join(BY_PHONONS)}"
            )
        if self.regime not in REGIMES:
            raise SettingsError(
                "bad-setting", f"unknown regime {self.regime!r}; use one of {', '.join(REGIMES)}"
            )
        if not LEAST_MEMBERS <= self.members <= 100 or self.epochs < 0 or self.batch < 1:
            raise SettingsError(
                "bad-setting",
                f"{LEAST_MEMBERS} to 100 members and a batch above 0 are needed, not {self.members} and {self.batch}",
            )

    @property
    def variant(self) -> str:
        """Name of the variant in the checkpoint."""
        return BY_PHONONS[self.phonons]

    @property
    def potentials(self) -> dict[str, tuple[str, ...]]:
        """Layers of the potentials whose features the network reads."""
        return FEATURES if self.model == "spectrum" else {}

    def network(self, sources: int = 2) -> SpectrumSettings:
        """Size and inputs of the network."""
        rest: dict[str, Any] = {"phonons": self.phonons != "none", "sources": sources}
        if self.model == "spectrum-bete":
            return bete(**rest)
        small = SpectrumSettings(**rest, multiplicity=16, layers=1, neurons=48)
        return with_features(small, self.potentials)

    def fit(self, data: SpectrumData, member: int) -> FitSettings:
        """How a member is trained."""
        times = 1 if self.model == "spectrum-bete" else CURVE_TIMES
        # A bag holds 0.63 of the crystals, and those with curves come several times.
        rows = 0.63 * (len(data) + (times - 1) * int(data.has_curve.sum()))
        epochs = self.epochs or int(np.clip(STEPS * self.batch / rows, *EPOCHS))
        seed = 1000 * (self.seed + 1) + member
        common: dict[str, Any] = {"epochs": epochs, "batch": self.batch, "seed": seed, "regime": self.regime}
        if self.regime != "modern":
            common["cycle"] = False
        if self.model == "spectrum-bete":
            published = {
                "rate": 0.005,
                "cycle": False,
                "curve_times": 1,
                "curve_transport": 0.0,
                "modes": 0.0,
            }
            return FitSettings(**(common | published))
        return FitSettings(**common, rate=2e-3, curve_times=times)


def enough_curves(data: SpectrumData) -> None:
    """Refuse data from which no curve can be learned.

    Raises
    ------
    DataError
        ``too-few-curves``.
    """
    curves, formulas = int(data.has_curve.sum()), len(set(data.group[data.has_curve]))
    if curves < LEAST_CURVES or formulas < LEAST_FORMULAS:
        raise DataError(
            "too-few-curves",
            f"{curves} curves of {formulas} formulas; at least {LEAST_CURVES} of {LEAST_FORMULAS} are needed",
        )


def open_run(out: Path, settings: TrainSettings, digest: str, *, resume: bool) -> None:
    """Claim a folder for a training, or check that it holds this very one.

    Raises
    ------
    InputError
        ``training-exists``: it holds one and `resume` is off.
    DataError
        ``other-run``: other settings or data.
    """
    path, own = out / SETTINGS, {"settings": asdict(settings), "data_hash": digest}
    if path.exists():
        if not resume:
            raise InputError("training-exists", f"{out} holds a training; use --resume, or another folder")
        try:
            held = json.loads(path.read_text())
        except ValueError:
            raise DataError("other-run", f"{path} is no settings of a training") from None
        if held != own:
            raise DataError(
                "other-run", f"{out} holds a training with other settings or data; use another folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_text(path) as handle:
        handle.write(json.dumps(own, indent=1) + "\n")


def train_member(
    prepared: Prepared, settings: TrainSettings, member: int, out: Path, report: Any = None
) -> None:
    """Train a member, or go on with it; leaves its state and its outputs for what it has not seen.

    Raises
    ------
    SettingsError
        ``bad-setting``: no such member.
    """
    if not 0 <= member < settings.members:
        raise SettingsError(
            "bad-setting", f"member {member} of {settings.members}; use 0 to {settings.members - 1}"
        )
    done = out / f"member-{member}.npz"
    if done.exists():
        return
    data = prepared.data
    net = settings.network(len(prepared.sources))
    trained = Member(data, np.arange(len(data)), net, settings.fit(data, member), out / f"member-{member}.pt")
    kept = trained.run(report)
    if not len(trained.left):
        raise DataError("no-rows", "the bootstrap sample holds every formula; more formulas are needed")
    values = curves_of(kept, data, trained.left)
    with atomic_write(done) as handle:
        np.savez(
            handle,
            id=np.array(data.ids)[trained.left],
            values=values.astype(np.float32),
            seconds=trained.seconds,
            **{WEIGHTS + name: value.numpy() for name, value in kept.state_dict().items()},
        )


def curves_of(net: SpectrumNet, data: SpectrumData, rows: NDArray[np.int64]) -> FloatArray:
    """alpha2F of rows in the convention of their own labels, shape (n, K)."""
    grid, parts = GRIDS[net.settings.grid](), []
    with torch.no_grad():
        for part in np.array_split(rows, -(-len(rows) // 128)):
            out = outputs(net, data, part)
            shares = out.shares.double().numpy()
            parts.append(grid.values(shares, np.exp(out.log_lambda.double().numpy())))
    return np.concatenate(parts)


def finish(prepared: Prepared, settings: TrainSettings, out: Path, files: Sequence[str]) -> Checkpoint:
    """Calibrate the finished members and write ``model.safetensors``.

    Raises
    ------
    ModelError
        ``members-missing``.
    DataError
        ``too-few-unseen``: no interval can be calibrated.
    """
    missing = [m for m in range(settings.members) if not (out / f"member-{m}.npz").exists()]
    if missing:
        raise ModelError("members-missing", f"members {', '.join(map(str, missing))} are not trained yet")
    data, net = prepared.data, settings.network(len(prepared.sources))
    grid, fit = GRIDS[net.grid](), settings.fit(data, 0)
    values, tensors, seconds = _members(data, settings, out, len(grid.omega_meV))
    unseen = np.isfinite(values[:, :, 0]).sum(0) >= LEAST_UNSEEN
    curves = np.flatnonzero(unseen & data.has_curve)
    if len(set(data.group[unseen])) < LEAST_FORMULAS or len(curves) < LEAST_CURVES // 2:
        raise DataError(
            "too-few-unseen",
            f"{int(unseen.sum())} crystals, {len(curves)} with curves, were left out by {LEAST_UNSEEN} or more "
            "members; intervals need more formulas or members",
        )
    calibration, card = {}, {}
    for k, name in enumerate(prepared.sources):
        rows = unseen & (data.source == k)
        # A source with next to no crystals takes the intervals of all.
        rows = rows if len(set(data.group[rows])) >= 20 else unseen
        calibration[name], card[name] = intervals(
            values[:, rows], data.moments[rows], data.group[rows], grid, mu_star=MU_STAR, formula=FORMULA
        )
    truth = grid.values(data.shares[curves], np.exp(data.moments[curves, 0]))
    _, group = np.unique(data.group[curves], return_inverse=True)
    counts, volumes = coverage_of([g.numbers for g in data.graphs], prepared.volumes)
    variant = {
        "net": net.as_dict(),
        "members": settings.members,
        "potentials": [{"potential": n, "layers": list(layers)} for n, layers in settings.potentials.items()],
        "phonons": settings.phonons,
        "phonon_potential": "7net-0",
        "calibration": calibration,
        "band": band(values[:, curves], truth, group % 5),
        "element_counts": counts,
        "volume_per_atom_range": volumes,
    }
    table = FormulaTable.of(dict.fromkeys(data.group.tolist(), 0), ("training",), prepared.digest)
    stored = {
        "variants": {settings.variant: variant},
        "sources": prepared.sources,
        KEY: table.settings(),
        "median": medians(data),
    }
    tensors[LEFT_OUT] = torch.from_numpy(left_out(values, data, table))
    full = {
        "what": f"alpha2F(omega) on {grid.omega_meV[0]:g}-{grid.omega_meV[-1]:g} meV, variant {settings.variant}",
        "split": "out of bag: a crystal is scored by the members whose bootstrap sample lacked its formula"
        + (
            ""
            if fit.cycle
            else "; the same crystals chose the epoch that is kept, which flatters the figures"
        ),
        "settings": asdict(settings),
        "fit": asdict(fit),
        "data": list(files),
        "data_hash": prepared.digest,
        "n": {"crystals": len(data), "curves": int(data.has_curve.sum()), "refused": len(prepared.refused)},
        "cpu_seconds": round(seconds),
        "out_of_bag": scores(values, data, grid),
        "intervals": card,
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
    }
    checkpoint = Checkpoint("spectrum", stored, full, tensors | table.tensors())
    checkpoint.save(out / MODEL_FILE)
    return checkpoint


def left_out(values: FloatArray, data: SpectrumData, table: FormulaTable) -> NDArray[np.uint8]:
    """1 where a member's bootstrap sample lacked a formula of the table, shape (members, formulas).

    Parameters
    ----------
    values : ndarray, shape (members, n, K)
        Outputs; NaN where the member has seen the crystal.
    """
    found = np.ones((len(values), len(table.keys)), dtype=np.uint8)
    unseen = np.isfinite(values[:, :, 0])
    for i, formula in enumerate(data.group):
        found[:, table.place(str(formula))] &= unseen[:, i]
    return found


def medians(data: SpectrumData) -> dict[str, float]:
    """Median of the training labels, by name; of omega_2 over those that have it."""
    m = data.moments
    with np.errstate(invalid="ignore"):
        columns = {
            "lambda": np.exp(m[:, 0]),
            "omega_log_K": np.exp(m[:, 1]) * MEV,
            "omega_2_K": np.exp(m[:, 1] + m[:, 2]) * MEV,
        }
    return {k: float(np.nanmedian(v)) for k, v in columns.items() if np.isfinite(v).any()}


def _members(
    data: SpectrumData, settings: TrainSettings, out: Path, points: int
) -> tuple[FloatArray, dict[str, torch.Tensor], float]:
    """Outputs (members, n, K) for what each has not seen, weights by name, and seconds of training."""
    place = {i: k for k, i in enumerate(data.ids)}
    values = np.full((settings.members, len(data), points), np.nan)
    tensors: dict[str, torch.Tensor] = {}
    seconds = 0.0
    for m in range(settings.members):
        with np.load(out / f"member-{m}.npz") as found:
            values[m, [place[str(i)] for i in found["id"]]] = found["values"]
            seconds += float(found["seconds"])
            for name in found.files:
                key = name.removeprefix(WEIGHTS)
                if key == name or "output_mask" in key:  # e3nn's, and rebuilt with the network
                    continue
                value = torch.as_tensor(found[name])
                keep = key in ("feature_mean", "feature_std") or not value.is_floating_point()
                tensors[f"{settings.variant}.{m}.{key}"] = value if keep else value.half()
    return values, tensors, seconds


def scores(values: FloatArray, data: SpectrumData, grid: Any) -> dict[str, Any]:
    """Errors of the mean of the members that had not seen a crystal, beside the median's, by kind of label."""
    unseen = np.isfinite(values[:, :, 0]).any(0)
    found: dict[str, Any] = {}
    for name, rows in (("curves", unseen & data.has_curve), ("moments", unseen & ~data.has_curve)):
        if rows.sum() < 5:
            continue
        with np.errstate(all="ignore"):
            mean = np.nanmean(values[:, rows], axis=0)
        guess = _quantities(np.nanmean(log_moments(values[:, rows], mean, grid), axis=0))
        m = data.moments[rows]
        actual = _quantities(np.column_stack([m[:, 0], m[:, 1] + np.log(MEV), np.zeros(len(m)), m[:, 2]]))
        found[name] = {
            q: _beside_the_median(actual[q], guess[q], data.group[rows])
            for q in QUANTITIES
            if np.isfinite(actual[q]).sum() >= 5
        }
        if name == "curves":
            truth = grid.values(data.shares[rows], np.exp(m[:, 0]))
            found[name]["area"] = _areas(mean, truth, grid)
    return found


def _quantities(logs: FloatArray) -> dict[str, FloatArray]:
    known = np.where(np.isfinite(logs[:, 3]), logs[:, 3], np.log(USUAL_RATIO))
    full = np.column_stack([logs[:, :3], known])
    return {
        "lambda": np.exp(logs[:, 0]),
        "omega_log_K": np.exp(logs[:, 1]),
        "omega_2_K": np.exp(logs[:, 1] + logs[:, 3]),
        "tc_K": tc_of(full, MU_STAR, FORMULA),
    }


def _beside_the_median(actual: FloatArray, guess: FloatArray, group: NDArray[Any]) -> dict[str, Any]:
    known = np.isfinite(actual) & np.isfinite(guess)
    score = bootstrap("mae", actual[known], guess[known], group[known], draws=400)
    plain = median_baseline(actual[known], actual[known])
    return {
        "mae": round(score.value, 4),
        "ci95": [round(score.low, 4), round(score.high, 4)],
        "median_mae": round(plain.value, 4),
        "n": score.n,
    }


def _areas(mean: FloatArray, truth: FloatArray, grid: Any) -> dict[str, Any]:
    """Area between curves over the area of the true one, median over crystals; the mean curve beside it."""
    under = truth @ grid.width_meV
    ours = np.abs(mean - truth) @ grid.width_meV / under
    plain = np.abs(truth.mean(0) - truth) @ grid.width_meV / under
    return {
        "median": round(float(np.median(ours)), 3),
        "mean_curve": round(float(np.median(plain)), 3),
        "n": len(truth),
    }


def say(member: int) -> Callable[[Any], None]:
    """One line on stderr about every tenth part of a training."""
    parent = os.environ.get(PARENT)

    def report(m: Any) -> None:
        if parent and os.getppid() != int(parent):
            # Whoever started this member is gone; a rerun goes on from its state.
            m.save()
            raise SystemExit(1)
        if m.epoch % max(1, m.fit.epochs // 10) == 0:
            last = m.curve[-1]
            print(
                f"member {member}: epoch {m.epoch}/{m.fit.epochs}, train {last['train']:.4f}, "
                f"out of bag {last['valid']:.4f}",
                file=sys.stderr,
                flush=True,
            )

    return report
