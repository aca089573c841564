"""The standard electron-phonon predictor: heads and a kernel on frozen features, mixed with graph networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.errors import CrystalError, ModelError, OnnesError
from onnes.learn import domain
from onnes.learn.calibrate import Conformal
from onnes.learn.epc import TARGETS, EpcPrediction, FloatArray, calibrated
from onnes.learn.fast import FastEpc, FastInput
from onnes.learn.features import AtomFeatures, FrozenPotential, by_potential, padded
from onnes.learn.kernel import AtomKernel
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.property_head import HeadSettings, PropertyHead

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Crystals whose heads are evaluated together.
BATCH = 64


@dataclass(frozen=True)
class Seen:
    """A crystal as the networks see it.

    Attributes
    ----------
    features : mapping of str to AtomFeatures
        By name of the potential.
    numbers : int array, shape (N,)
        Atomic numbers.
    volume_A3 : float
        Per atom, in cubic angstrom.
    graph : FastInput
    """

    features: Mapping[str, AtomFeatures]
    numbers: NDArray[np.int64]
    volume_A3: float
    graph: FastInput


class Part:
    """Heads on the features of one or more potentials.

    Attributes
    ----------
    potentials : dict of str to tuple of str
        Interaction layers that are read of each potential; the features of several stand side by side.
    weight : float
        Share in the mean; the shares of all parts add up to 1.
    """

    def __init__(self, checkpoint: Checkpoint, number: int) -> None:
        settings = checkpoint.settings["parts"][number]
        self.potentials: dict[str, tuple[str, ...]] = {
            p["potential"]: tuple(p["layers"]) for p in settings["potentials"]
        }
        self.weight: float = settings["weight"]
        self.centre, self.spread = np.array(settings["center"]), np.array(settings["spread"])
        self.heads = []
        for member in range(checkpoint.settings["members"]):
            head = PropertyHead(HeadSettings(**settings["head"]))
            prefix = f"{number}.{member}."
            weights = checkpoint.tensors.items()
            head.load_state_dict(
                {k.removeprefix(prefix): v.float() for k, v in weights if k.startswith(prefix)}
            )
            self.heads.append(head.eval())

    def outputs(self, crystals: Sequence[Seen]) -> FloatArray:
        """As `EpcEnsemble.outputs`, of these heads alone."""
        result = np.empty((len(self.heads), len(crystals), len(TARGETS)))
        with torch.no_grad():
            for start in range(0, len(crystals), BATCH):
                x, z, v = self._padded(crystals[start : start + BATCH])
                source = torch.zeros(len(x), dtype=torch.long)
                for m, head in enumerate(self.heads):
                    result[m, start : start + BATCH] = head(x, z, v, source).double().numpy()
        return result * self.spread + self.centre

    def _padded(self, crystals: Sequence[Seen]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = [np.concatenate([c.features[name].x for name in self.potentials], axis=1) for c in crystals]
        return padded(found, [c.numbers for c in crystals], [c.volume_A3 for c in crystals])


class EpcEnsemble:
    """Heads, standardisation and calibration read from one checkpoint.

    Parameters
    ----------
    path : path, optional
        A checkpoint of kind ``epc``; the shipped one by default.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("epc.safetensors"), "epc")
        try:
            self._read(self.checkpoint.settings)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ModelError(
                "damaged-model", f"the checkpoint does not fit this version: {error!r}"
            ) from None

    def _read(self, settings: dict[str, Any]) -> None:
        self.members: int = settings["members"]
        self.parts = [Part(self.checkpoint, k) for k in range(len(settings["parts"]))]
        #: Potentials that have to be evaluated, with the layers to read.
        self.potentials = {name: layers for p in self.parts for name, layers in p.potentials.items()}
        #: Share of the graph networks in the first three of `TARGETS`.
        self.graph_weight = np.asarray(settings["graph"]["weight"], dtype=float)
        self.graph_hash: str = settings["graph"]["hash"]
        self.kernel: AtomKernel | None = None
        # A mixture without a kernel is valid, too (files of earlier versions).
        if "kernel" in settings:
            of = settings["kernel"]
            self.kernel = AtomKernel.read(self.checkpoint.tensors, of["widths"])
            self.kernel_weight = np.array(of["weight"], dtype=float)
            self.kernel_potentials: list[str] = of["potentials"]
        self.calibration = {k: Conformal.from_dict(v) for k, v in settings["calibration"].items()}
        self.caution: dict[str, Any] = settings["caution"]
        self.spread_limit: float = settings["spread_limit"]
        self.width_limits: dict[str, float] = settings["width_limits"]
        self.element_counts: dict[int, int] = {int(k): v for k, v in settings["element_counts"].items()}
        self.volume_range: tuple[float, float] = tuple(settings["volume_per_atom_range"])

    @cached_property
    def fast(self) -> FastEpc:
        """The graph networks that are mixed in.

        Raises
        ------
        ModelError
            ``damaged-model`` when they are not those of the calibration.
        """
        found = FastEpc()
        if found.checkpoint.hash != self.graph_hash or self.members % found.members:
            raise ModelError(
                "damaged-model", "the graph networks are not those this ensemble was calibrated with"
            )
        return found

    @cached_property
    def frozen(self) -> dict[str, FrozenPotential]:
        """The potentials whose features are read."""
        return {name: FrozenPotential(potential=name, layers=k) for name, k in self.potentials.items()}

    def look(self, structures: Sequence[Structure]) -> list[Seen | OnnesError]:
        """Compute what the networks read of each crystal, or say why one is refused.

        Parameters
        ----------
        structures : sequence of pymatgen Structure

        Returns
        -------
        list
            In order. A refusal is a ModelError (``unknown-element``) or a CrystalError (``out-of-memory`` and those
            of `onnes.learn.fast.FastEpc.prepare`).
        """
        from onnes.crystal.formula import numbers

        graphs: dict[int, FastInput] = {}
        refused: dict[int, OnnesError] = {}
        for k, structure in enumerate(structures):
            try:
                graphs[k] = self.fast.prepare(structure)
            except (CrystalError, ModelError) as error:
                refused[k] = error
        features: dict[int, dict[str, AtomFeatures]] = {}
        for k, found in zip(graphs, by_potential(self.frozen, [structures[k] for k in graphs]), strict=True):
            if isinstance(found, OnnesError):
                refused[k] = found
            else:
                features[k] = found
        return [
            refused[k]
            if k in refused
            else Seen(features[k], numbers(structure), graphs[k].volume_A3, graphs[k])
            for k, structure in enumerate(structures)
        ]

    def outputs(self, crystals: Sequence[Seen]) -> FloatArray:
        """Outputs of every member in the order of `TARGETS`, shape (members, n, 4).

        A member is the weighted mean of one head of each part, mixed with the graph network and the kernel of the
        same fold; omega_2/omega_log comes from the heads alone, N(EF) from heads and graph networks.

        Parameters
        ----------
        crystals : sequence of Seen
        """
        result = np.zeros((self.members, len(crystals), len(TARGETS)))
        for part in self.parts:
            result += part.weight * part.outputs(crystals)
        graphs = self.fast.outputs([c.graph for c in crystals])
        per_fold, kinds = self.members // len(graphs), graphs.shape[-1]
        shares = [(self.graph_weight, np.repeat(graphs, per_fold, axis=0))]
        if self.kernel is not None:
            alike = np.repeat(self._kernel(self.kernel, crystals), per_fold, axis=0)
            shares.append((self.kernel_weight, alike))
        result[..., :kinds] *= 1.0 - sum(weight for weight, _ in shares)
        for weight, found in shares:
            few = found.shape[-1]
            result[..., :few] += np.broadcast_to(weight, (kinds,))[:few] * found
        return result

    def _kernel(self, kernel: AtomKernel, crystals: Sequence[Seen]) -> FloatArray:
        """Outputs of the kernel of each fold, shape (folds, n, 2)."""
        features = [
            np.concatenate([c.features[name].x for name in self.kernel_potentials], axis=1) for c in crystals
        ]
        return kernel.outputs(features, [c.numbers for c in crystals])

    def predict(
        self,
        crystals: Sequence[Seen],
        *,
        mu_star: float = 0.10,
        formula: str = "allen-dynes",
    ) -> EpcPrediction:
        """Predict with intervals; see `outputs` for the input and `EpcPrediction` for the result."""
        return self.calibrated(self.outputs(crystals), mu_star=mu_star, formula=formula)

    def calibrated(
        self, log_outputs: FloatArray, *, mu_star: float = 0.10, formula: str = "allen-dynes"
    ) -> EpcPrediction:
        """Predictions and intervals of the members' outputs, shape (members, n, 4)."""
        return calibrated(log_outputs, self.calibration, mu_star, formula, self.width_limits)

    def outside(self, numbers: NDArray[np.int64], volume: float) -> str:
        """Why a crystal is outside the training domain (`onnes.learn.domain.outside`); empty if it is inside.

        See `doubt` for the other criterion of the domain.
        """
        return domain.outside(numbers, volume, self.element_counts, self.volume_range)

    def doubt(self, spread: float) -> str:
        """Why the interval of a crystal cannot be trusted: its heads disagree more than on 99 % of those it was
        calibrated on; empty otherwise.

        Parameters
        ----------
        spread : float
            `EpcPrediction.tc_spread` of the crystal.
        """
        if spread <= self.spread_limit:
            return ""
        return "the networks disagree more than on 99 % of the crystals the interval was calibrated on"

    def warning(self, numbers: NDArray[np.int64], lam: float) -> str:
        """Say that lambda may be too low where the out-of-fold predictions were; empty elsewhere.

        Errors sit in crystals with soft modes: those of a few elements, and those whose lambda is large.
        """
        from pymatgen.core import Element

        known = self.caution["elements"]
        found = [int(z) for z in np.unique(numbers) if str(int(z)) in known]
        why = [f"crystals with {Element.from_Z(z).symbol} were {known[str(z)]:.2f} too low" for z in found]
        if lam >= self.caution["lambda_from"]:
            share = self.caution["share_above_1.2_beyond"]
            why.append(f"soft modes are likely: {100 * share:.0f} % of such crystals had lambda above 1.2")
        return f"lambda may be underestimated ({'; '.join(why)})" if why else ""
