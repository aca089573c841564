"""The fast electron-phonon predictor: graph networks alone, no potential, with calibrated intervals.

Neighbour graph and forward pass take less than a twentieth of the time of `onnes.learn.ensemble`, at a slightly
larger error (`docs/fast.md`). Results have the form of that predictor, so that one can stand in for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.errors import CrystalError, ModelError
from onnes.graph.batch import collate
from onnes.graph.crystal_graph import BondGraph, build
from onnes.learn.calibrate import Conformal
from onnes.learn.epc import EpcPrediction
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.epc_net import EpcNet, EpcNetSettings
from onnes.nets.tabulated import TabulatedEpcNet
from onnes.theory.tc import tc_array

if TYPE_CHECKING:
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

#: Bonds and angles in a batch: the memory of a forward pass follows them, not the number of crystals.
MAX_ROWS = 16_000


@dataclass(frozen=True)
class FastInput:
    """A crystal as the networks see it.

    Attributes
    ----------
    graph : BondGraph
    volume_A3 : float
        Per atom, in cubic angstrom.
    """

    graph: BondGraph
    volume_A3: float


class FastEpc:
    """Fold members, standardisation and calibration read from one checkpoint.

    Parameters
    ----------
    path : path, optional
        A checkpoint of kind ``epc-fast``; the shipped one by default.
    members : int, optional
        Use the first few members only; all by default.

    Raises
    ------
    ModelError
        ``no-model``, ``damaged-model``, ``wrong-model``, ``bad-members``.
    """

    def __init__(self, path: str | Path | None = None, *, members: int | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("fast.safetensors"), "epc-fast")
        s = self.checkpoint.settings
        self.members: int = s["members"] if members is None else members
        if not 1 <= self.members <= s["members"]:
            raise ModelError("bad-members", f"members = {members}; use a number from 1 to {s['members']}")
        self.settings = EpcNetSettings.from_dict(s["net"])
        self.nets = [self._net(k) for k in range(self.members)]
        self.centre, self.spread = (
            np.array(s[name], dtype=float)[: self.members, None] for name in ("center", "spread")
        )
        self.calibration = {k: Conformal.from_dict(v) for k, v in s["calibration"].items()}
        self.ratio: float = s["omega_2_ratio"]
        self.element_counts: dict[int, int] = {int(k): v for k, v in s["element_counts"].items()}
        self.volume_range: tuple[float, float] = tuple(s["volume_per_atom_range"])

    def _net(self, member: int) -> TabulatedEpcNet:
        net = EpcNet(self.settings)
        prefix = f"{member}."
        weights = {
            k.removeprefix(prefix): v.float()
            for k, v in self.checkpoint.tensors.items()
            if k.startswith(prefix)
        }
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(
                "damaged-model", f"member {member} does not fit its settings: {error}"
            ) from error
        return TabulatedEpcNet(net.eval())

    def prepare(self, structure: Structure) -> FastInput:
        """Graph of one crystal; refuses what cannot be predicted.

        Parameters
        ----------
        structure : pymatgen Structure
            One that passed the gate of `onnes.crystal`; only what would stop the networks is checked again.

        Raises
        ------
        CrystalError
            ``no-atoms``, ``partial-occupancy``, ``unknown-element``, ``no-bonds`` and those of
            `onnes.graph.crystal_graph.build`.
        ModelError
            ``unknown-element``: the networks have no features for it.
        """
        z = _numbers(structure)
        top = len(self.nets[0].net.body.elements.values) - 1
        if z.max() > top:
            raise ModelError(
                "unknown-element",
                f"no features for the element Z = {int(z.max())}; the table ends at {top}",
            )
        lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
        graph = build(z, lattice, frac, self.settings.body.graph)
        return FastInput(graph, abs(float(np.linalg.det(lattice))) / len(z))

    def outputs(self, crystals: Iterable[Structure | FastInput]) -> FloatArray:
        """Ln lambda, ln omega_log, ln N(EF)/atom of every member, shape (members, n, 3).

        Crystals are read one batch at a time, and a batch passes through all members: a generator of any
        length needs the memory of one batch.

        Parameters
        ----------
        crystals : iterable of Structure or FastInput

        Raises
        ------
        CrystalError, ModelError
            See `prepare`.
        """
        found = [self._batch(batch) for batch in self._batches(crystals)]
        if not found:
            return np.zeros((self.members, 0, 3))
        return np.concatenate(found, axis=1) * self.spread + self.centre

    def _batches(self, crystals: Iterable[Structure | FastInput]) -> Iterator[list[FastInput]]:
        waiting: list[FastInput] = []
        rows = 0
        for crystal in crystals:
            one = crystal if isinstance(crystal, FastInput) else self.prepare(crystal)
            size = len(one.graph.src) + len(one.graph.line_src)
            if waiting and rows + size > MAX_ROWS:
                yield waiting
                waiting, rows = [], 0
            waiting.append(one)
            rows += size
        if waiting:
            yield waiting

    def _batch(self, crystals: list[FastInput]) -> FloatArray:
        """Standardised outputs of all members."""
        batch = collate([c.graph for c in crystals])
        volume = torch.tensor([c.volume_A3 for c in crystals], dtype=torch.float32).log()
        source = torch.zeros(len(crystals), dtype=torch.long)  # Alexandria's convention
        with torch.no_grad():
            return np.stack([net(batch, volume, source).double().numpy() for net in self.nets])

    def predict(
        self,
        structures: Iterable[Structure | FastInput],
        *,
        mu_star: float = 0.10,
        formula: str = "allen-dynes",
    ) -> EpcPrediction:
        """Predict lambda, omega_log and Tc with intervals.

        Parameters
        ----------
        structures : iterable of Structure or FastInput
            One crystal that cannot be predicted stops the call; `prepare` them one by one to go on without it.
        mu_star : float
        formula : str
            A closed formula of `onnes.theory.tc`.

        Returns
        -------
        EpcPrediction
            Deviations and Tc intervals come from residuals of members that had not seen the formula, as a
            function of the predicted value; the mean over all members errs less than a member, so they are wide
            rather than narrow.

        Raises
        ------
        CrystalError, ModelError
            See `prepare`.
        """
        mean = self.outputs(structures).mean(0)
        lam, wlog, dos = np.exp(mean).T
        tc = tc_array(lam, wlog, self.ratio * wlog, mu_star=mu_star, formula=formula)
        low, high = self.calibration["tc_K"].interval(tc)
        return EpcPrediction(
            lam,
            self._deviation("lambda", lam),
            wlog,
            self._deviation("omega_log_K", wlog),
            self.ratio * wlog,
            tc,
            low,
            high,
            dos,
        )

    def _deviation(self, name: str, value: FloatArray) -> FloatArray:
        """Half the width of the interval that holds 68.3 %."""
        low, high = self.calibration[name].interval(value)
        half: FloatArray = (high - low) / 2
        return half

    def outside(self, numbers: NDArray[np.int64], volume: float) -> str:
        """Why a crystal is outside the training domain; empty if it is inside.

        The criterion of `onnes.learn.ensemble.EpcEnsemble.outside`, on the training set of these networks.
        """
        return outside(numbers, volume, self.element_counts, self.volume_range)


def _numbers(structure: Structure) -> NDArray[np.int64]:
    """Atomic numbers of an ordered crystal."""
    from onnes.crystal.formula import numbers

    if not len(structure):
        raise CrystalError("no-atoms", "the structure has a cell but no atoms")
    if not structure.is_ordered:
        shared = next(site.species_string for site in structure if not site.is_ordered)
        raise CrystalError("partial-occupancy", f"a site is shared: {shared}")
    try:
        return np.asarray(numbers(structure), dtype=np.int64)
    except KeyError as error:
        raise CrystalError("unknown-element", f"{error.args[0]!r} is no element H to Og") from None


def outside(numbers: Any, volume: float, counts: dict[int, int], limits: tuple[float, float]) -> str:
    """Why a crystal is outside a training set; empty if it is inside.

    Parameters
    ----------
    numbers : sequence of int
        Atomic numbers.
    volume : float
        Per atom, in cubic angstrom.
    counts : dict
        Training crystals that hold each element; at least 10 are asked for.
    limits : (float, float)
        Volume per atom of the training set.
    """
    from ase.data import chemical_symbols

    rare = [chemical_symbols[int(z)] for z in np.unique(numbers) if counts.get(int(z), 0) < 10]
    if rare:
        return f"fewer than 10 training crystals contain {', '.join(rare)}"
    low, high = limits
    if not low <= volume <= high:
        return f"volume per atom {volume:.1f} A^3 outside {low:.1f} to {high:.1f} A^3 of the training set"
    return ""
