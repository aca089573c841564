"""Training of one member of the spectral ensemble: bootstrap, mixed labels, stopping regimes, resume.

Labels of three kinds meet in one loss: whole alpha2F curves (few), lambda, omega_log and omega_2 (many), and
vibrational spectra (learned beside). A member sees a bootstrap sample of whole groups, so that a crystal that it has
not seen has no twin among those it has; what is out of the bag validates it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnes.data.files import atomic_write
from onnes.errors import DataError, SettingsError
from onnes.graph.batch import collate
from onnes.graph.crystal_graph import BondGraph
from onnes.learn.regimes import REGIMES, Regimes
from onnes.nets.spectrum import PHONON_EDGES_MEV, SpectrumNet, SpectrumOutput, SpectrumSettings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Spread of ln lambda, ln omega_log and ln(omega_2/omega_log) over crystals: errors are counted in these.
SPREAD = (0.6, 0.5, 0.1)


@dataclass
class SpectrumData:
    """Crystals with whatever is known of each; n crystals, K points of the grid, P phonon cells.

    Attributes
    ----------
    ids : list of str
    graphs : list of BondGraph
    group : ndarray, shape (n,)
        Crystals of one group are drawn together (reduced formulas).
    source : ndarray of int, shape (n,)
        Convention of the labels.
    moments : ndarray, shape (n, 3)
        ln lambda, ln(omega_log/meV), ln(omega_2/omega_log); NaN where unknown.
    shares : ndarray, shape (n, K)
        Shares of lambda at the points of the grid; NaN without a curve.
    modes : ndarray, shape (n, P)
        Shares of the vibrational modes; NaN where unknown.
    features, phonons : list of ndarray of shape (atoms, .), or None
        Inputs of the atoms.
    """

    ids: list[str]
    graphs: list[BondGraph]
    group: NDArray[Any]
    source: IntArray
    moments: FloatArray
    shares: FloatArray
    modes: FloatArray
    features: list[NDArray[Any]] | None = None
    phonons: list[NDArray[Any]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_curve(self) -> NDArray[np.bool_]:
        """Which crystals have a whole curve, shape (n,)."""
        return ~np.isnan(self.shares[:, 0])


@dataclass(frozen=True)
class FitSettings:
    """How a member is trained.

    Attributes
    ----------
    epochs, batch : int
    rate : float
        Learning rate of AdamW; the peak of the cycle where there is one.
    cycle : bool
        One cycle of the rate over all epochs, or a constant rate (the published way).
    weight_decay : float
    regime : str
        ``classical`` (first minimum of the validation loss), ``critical`` (maximum after it) or ``modern`` (end, or
        minimum after the maximum): whose weights are kept.
    curve_times : int
        How often a crystal with a curve comes in an epoch.
    curve_mse, curve_transport, curve_curvature, moments, modes : float
        Weights of the terms of the loss. ``curve_mse``: mean square error of alpha2F over its mean square;
        ``curve_transport``: Wasserstein distance of the shares in ln omega; ``curve_curvature``: mean square second
        difference of the predicted alpha2F; ``moments``: errors of the logarithms over their spreads; ``modes``:
        Wasserstein distance of the vibrational spectra in ln omega.
    only : tuple of str
        Beginnings of the names of the parameters that are trained; all where empty.
    seed : int
    """

    epochs: int = 25
    batch: int = 64
    rate: float = 3e-3
    cycle: bool = True
    weight_decay: float = 0.01
    regime: str = "modern"
    curve_times: int = 8
    curve_mse: float = 0.5
    curve_transport: float = 1.0
    curve_curvature: float = 0.0
    moments: float = 1.0
    modes: float = 0.5
    only: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "only", tuple(self.only))
        if self.regime not in REGIMES:
            raise SettingsError(
                "bad-setting", f"unknown regime {self.regime!r}; use one of {', '.join(REGIMES)}"
            )
        if self.epochs < 1 or self.batch < 1 or not self.rate > 0 or self.curve_times < 1:
            raise SettingsError(
                "bad-setting", f"epochs, batch, rate and curve_times must be positive: {self}"
            )
        terms = (self.curve_mse, self.curve_transport, self.moments, self.curve_curvature, self.modes)
        if min(terms) < 0.0 or not max(terms[:3]) > 0.0:
            raise SettingsError(
                "bad-setting", f"weights of the loss are >= 0, one of the labels' above 0: {terms}"
            )
        if self.cycle and self.regime != "modern":
            raise SettingsError(
                "bad-setting", "a cycle of the rate ends in one place; regimes need cycle = False"
            )


def bootstrap(group: NDArray[Any], rows: IntArray, seed: int) -> tuple[IntArray, FloatArray, IntArray]:
    """Draw whole groups with replacement.

    Parameters
    ----------
    group : ndarray, shape (n,)
    rows : ndarray of int
        Rows that may be drawn.
    seed : int

    Returns
    -------
    drawn : ndarray of int
        Rows in the bag, each once; 0.63 of the groups on average.
    times : ndarray, shape (len(drawn),)
        How often each was drawn.
    left : ndarray of int
        Rows out of the bag.
    """
    names, where = np.unique(group[rows], return_inverse=True)
    counts = np.bincount(
        np.random.default_rng(seed).integers(len(names), size=len(names)), minlength=len(names)
    )
    times = counts[where]
    return rows[times > 0], times[times > 0].astype(float), rows[times == 0]


def loss_terms(net: SpectrumNet, out: SpectrumOutput, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms of the loss, shape (B,) each; 0 where the label is unknown.

    Parameters
    ----------
    target : dict
        ``moments`` (B, 3), ``shares`` (B, K), ``modes`` (B, P), NaN where unknown.
    """
    log_lambda, log, second = net.moments(out)
    found = torch.stack([log_lambda, log, second - log], dim=1)
    known = ~torch.isnan(target["moments"])
    off = (found - torch.nan_to_num(target["moments"])).abs() * known
    weight = off.new_tensor([1.0, 1.0, 0.1]) / off.new_tensor(SPREAD)
    shares = target["shares"]
    curve = ~torch.isnan(shares[:, 0])
    shares = torch.nan_to_num(shares)
    truth = target["moments"][:, 0].nan_to_num().exp().unsqueeze(1) * shares / net.coupling
    values = net.values(out)
    width = target["width"]
    square = ((values - truth).square() * width).sum(1) / target["mean_square"]
    apart = (out.shares.cumsum(1) - shares.cumsum(1))[:, :-1].abs() @ net.log_omega.diff()
    bend = (values.diff(dim=1, n=2).square()).mean(1)
    terms = {
        "moments": (off * weight).sum(1),
        "curve_mse": square * curve,
        "curve_transport": apart * curve / SPREAD[1],
        "curve_curvature": bend,
    }
    if out.phonons is not None:
        modes = target["modes"]
        seen = ~torch.isnan(modes[:, 0])
        middle = torch.as_tensor((PHONON_EDGES_MEV[1:] + PHONON_EDGES_MEV[:-1]) / 2.0).log().diff()
        gap = (out.phonons.cumsum(1) - torch.nan_to_num(modes).cumsum(1))[:, :-1].abs()
        terms["modes"] = (gap @ middle.to(gap)) * seen / SPREAD[1]
    return terms


class Member:
    """One network in training; everything needed to go on is in one file.

    Parameters
    ----------
    data : SpectrumData
    rows : ndarray of int
        Rows it may learn from (those of the other folds).
    net, fit : SpectrumSettings, FitSettings
    path : Path
        State of the training (``.pt``); an existing one is gone on with.
    bag : (rows, times, left), optional
        What is learned, how often each of it counts, and what validates; a bootstrap sample by default.
    start : mapping of str to Tensor, optional
        Weights of a network without vibrations to begin with; those of the new inputs begin at zero.
    """

    def __init__(
        self,
        data: SpectrumData,
        rows: IntArray,
        net: SpectrumSettings,
        fit: FitSettings,
        path: Path,
        *,
        bag: tuple[IntArray, FloatArray, IntArray] | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not len(rows):
            raise DataError("no-rows", "a spectral network needs at least one labelled crystal")
        torch.manual_seed(fit.seed)
        self.data, self.fit, self.path = data, fit, path
        self.rows, self.times, self.left = bag or bootstrap(data.group, rows, fit.seed)
        self.net = SpectrumNet(net)
        if start is not None:
            begin(self.net, start)
        elif net.features:
            assert data.features is not None
            x = np.concatenate([data.features[i] for i in self.rows]).astype(np.float64)
            self.net.feature_mean.copy_(torch.as_tensor(x.mean(0)).float())
            self.net.feature_std.copy_(torch.as_tensor(x.std(0)).float().clamp(min=1e-3))
        self.order = np.random.default_rng(fit.seed)
        self.epoch_rows = np.concatenate(
            [self.rows, np.repeat(self.rows[data.has_curve[self.rows]], fit.curve_times - 1)]
        )
        self.weight = np.zeros(len(data))
        self.weight[self.rows] = self.times
        self.steps = -(-len(self.epoch_rows) // fit.batch)
        self.optimiser = torch.optim.AdamW(self._trained(), lr=fit.rate, weight_decay=fit.weight_decay)
        total = fit.epochs * self.steps
        # Fewer steps make no cycle; below ten the rise takes two of them, for one is a division by zero.
        self.schedule = (
            torch.optim.lr_scheduler.OneCycleLR(
                self.optimiser, fit.rate, total_steps=total, pct_start=max(0.2, 2.0 / total)
            )
            if fit.cycle and total >= 5
            else None
        )
        from onnes.nets.spectrum import GRIDS

        grid = GRIDS[net.grid]()
        curve = self.rows[data.has_curve[self.rows]]
        values = grid.values(data.shares[curve], np.exp(data.moments[curve, 0]))
        self.constants = {
            "width": torch.as_tensor(grid.width_meV).float(),
            "mean_square": torch.tensor(float(((values**2) @ grid.width_meV).mean()) if len(curve) else 1.0),
        }
        self.epoch, self.seconds = 0, 0.0
        self.curve: list[dict[str, float]] = []
        self.regimes = Regimes()
        if path.exists():
            self._read()

    def _trained(self) -> list[torch.nn.Parameter]:
        only = self.fit.only
        found = [p for name, p in self.net.named_parameters() if not only or name.startswith(only)]
        if not found:
            raise DataError("other-network", f"no parameter begins with one of {', '.join(only)}")
        return found

    def run(self, report: Any = None) -> SpectrumNet:
        """Train to the end; returns the network of the regime asked for."""
        saved = time.monotonic()
        while self.epoch < self.fit.epochs:
            begun = time.monotonic()
            train = self._epoch()
            valid = self.validate(self.left)
            self.epoch += 1
            self.seconds += time.monotonic() - begun
            self.curve.append({"epoch": self.epoch, "train": train, "valid": valid})
            self.regimes.see(self.epoch, valid, train, self.net.state_dict())
            if time.monotonic() - saved > 30.0 or self.epoch == self.fit.epochs:
                self.save()
                saved = time.monotonic()
            if report is not None:
                report(self)
        return self.kept()

    def kept(self) -> SpectrumNet:
        """The network of the regime asked for, ready for inference."""
        state = self.regimes.state(self.fit.regime) if not self.fit.cycle else None
        net = SpectrumNet(self.net.settings)
        net.load_state_dict(state or self.net.state_dict())
        return net.eval()

    def _epoch(self) -> float:
        self.net.train()
        total = 0.0
        for rows in np.array_split(self.order.permutation(self.epoch_rows), self.steps):
            loss = (self._losses(rows) * torch.as_tensor(self.weight[rows]).float()).mean()
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            if self.schedule is not None:
                self.schedule.step()
            total += float(loss.detach()) * len(rows)
        return total / len(self.epoch_rows)

    def validate(self, rows: IntArray) -> float:
        """Mean loss of rows; NaN without rows."""
        if not len(rows):
            return float("nan")
        self.net.eval()
        with torch.no_grad():
            parts = [self._losses(r) for r in np.array_split(rows, -(-len(rows) // 128))]
        return float(torch.cat(parts).mean())

    def _losses(self, rows: IntArray) -> Tensor:
        out, target = outputs(self.net, self.data, rows), self._target(rows)
        terms = loss_terms(self.net, out, target)
        # A term that does not count must not be in the sum at all: 0 times an infinite slope is NaN.
        counted = {k: getattr(self.fit, k) for k in terms if getattr(self.fit, k) > 0.0}
        return torch.stack([weight * terms[k] for k, weight in counted.items()]).sum(0)

    def _target(self, rows: IntArray) -> dict[str, Tensor]:
        d = self.data
        each = {"moments": d.moments[rows], "shares": d.shares[rows], "modes": d.modes[rows]}
        return {k: torch.as_tensor(v).float() for k, v in each.items()} | self.constants

    def save(self) -> None:
        """Write the state atomically."""
        state = {
            "net": self.net.state_dict(),
            "settings": self.net.settings.as_dict(),
            "fit": asdict(self.fit),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "epoch": self.epoch,
            "curve": self.curve,
            "seconds": self.seconds,
            "order": json.dumps(self.order.bit_generator.state),
            "torch": torch.get_rng_state(),
            "regimes": self.regimes.as_dict(),
            "rows": self.rows,
            "labels": self._labels_hash(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as handle:
            torch.save(state, handle)

    def _labels_hash(self) -> str:
        d = self.data
        digest = hashlib.sha256("\n".join(d.ids).encode())
        for array in (d.source, d.moments, d.shares, d.modes):
            digest.update(np.ascontiguousarray(array[self.rows]).tobytes())
        return digest.hexdigest()[:16]

    def _read(self) -> None:
        state = torch.load(self.path, weights_only=False)
        if state["fit"] != asdict(self.fit) or state["settings"] != self.net.settings.as_dict():
            raise DataError(
                "other-run", f"{self.path.name} is of a run with other settings; use another folder"
            )
        # States written before labels were hashed hold none; their rows must do.
        same = state.get("labels", self._labels_hash()) == self._labels_hash()
        if not (same and np.array_equal(state["rows"], self.rows)):
            raise DataError("other-data", f"{self.path.name} was trained on other crystals")
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.curve, self.seconds = state["epoch"], state["curve"], state["seconds"]
        self.order.bit_generator.state = json.loads(state["order"])
        torch.set_rng_state(state["torch"])
        self.regimes = Regimes.from_dict(state["regimes"])


def outputs(net: SpectrumNet, data: SpectrumData, rows: Sequence[int] | IntArray) -> SpectrumOutput:
    """Outputs of the network for rows of the data, with gradients if they are on."""
    batch = collate([data.graphs[i] for i in rows])
    source = torch.as_tensor(data.source[np.asarray(rows)])
    s = net.settings
    features = _atoms(data.features, rows) if s.features else None
    phonons = _atoms(data.phonons, rows) if s.phonons else None
    out: SpectrumOutput = net(batch, source, features, phonons)
    return out


def _atoms(each: list[NDArray[Any]] | None, rows: Sequence[int] | IntArray) -> Tensor:
    if each is None:
        raise DataError("missing-input", "the data hold no inputs of this kind for the atoms")
    return torch.as_tensor(np.concatenate([each[i] for i in rows])).float()


def begin(net: SpectrumNet, start: Mapping[str, Tensor]) -> None:
    """Give a network the weights of another one with fewer inputs.

    Raises
    ------
    DataError
        ``other-network``: the weights do not fit.
    """
    own = net.state_dict()
    for name, value in start.items():
        if name not in own or own[name].shape[:1] != value.shape[:1] or own[name].ndim != value.ndim:
            raise DataError("other-network", f"the weights to begin with do not fit at {name}")
        if own[name].shape == value.shape:
            own[name].copy_(value)
            continue
        own[name].zero_()
        own[name][:, : value.shape[1]] = value
    net.load_state_dict(own)
