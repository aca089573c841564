"""The shipped superconductor classifier: is this crystal a superconductor at all, and is it a strong one.

A graph encoder, pre-trained to reconstruct the neighbourhoods of metals, reads the crystal; see
`onnes.nets.autoencoder` for the network and ``docs/classifier.md`` for what the two probabilities mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.crystal.formula import atomic_numbers, symbols
from onnes.errors import CrystalError, ModelError, OnnesError, SettingsError
from onnes.graph.batch import BondGraph, chunks, collate, graph_of
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.autoencoder import QUESTIONS, AutoencoderSettings, SuperconductorNet
from onnes.nets.elements import MAX_Z

if TYPE_CHECKING:
    from pymatgen.core import Structure

FloatArray = NDArray[np.float64]

#: Bonds in one batch: about 60 MB of intermediate numbers.
MAX_ROWS = 20_000


@dataclass(frozen=True)
class Assessment:
    """What the classifier says of many crystals, refused ones included.

    Attributes
    ----------
    superconductor, strong : ndarray, shape (n,)
        Probabilities; NaN where the crystal was refused.
    refused : dict of int to OnnesError
        Why, by index.
    """

    superconductor: FloatArray
    strong: FloatArray
    refused: dict[int, OnnesError]


class SuperconductorClassifier:
    """Networks of all folds and their calibration, read from one checkpoint.

    Parameters
    ----------
    path : path, optional
        A checkpoint of kind ``classifier``; the shipped one by default.

    Raises
    ------
    ModelError
        ``no-model``, ``damaged-model`` or ``wrong-model``.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("classifier.safetensors"), "classifier")
        settings = self.checkpoint.settings
        self.settings = AutoencoderSettings.from_dict(settings["network"])
        self.calibration: dict[str, tuple[float, float]] = {
            q: (float(a), float(b)) for q, (a, b) in settings["calibration"].items()
        }
        self.members = [self._member(k) for k in range(settings["members"])]

    def _member(self, k: int) -> SuperconductorNet:
        net = SuperconductorNet(self.settings)
        prefix = f"{k}."
        weights = self.checkpoint.tensors.items()
        own = {name.removeprefix(prefix): v.float() for name, v in weights if name.startswith(prefix)}
        try:
            net.load_state_dict(own)
        except RuntimeError as error:
            raise ModelError("damaged-model", f"the weights of member {k} do not fit: {error}") from error
        return net.eval()

    def probability(self, structures: Sequence[Structure], question: str = "superconductor") -> FloatArray:
        """Calibrated probabilities.

        Parameters
        ----------
        structures : sequence of pymatgen Structure
        question : {"superconductor", "strong"}
            ``superconductor``: rather a superconductor (computed Tc of 1 K or more) than an insulator or a magnet,
            when both are equally frequent. ``strong``: given a non-magnetic metal, rather Tc of 5 K or more than
            less than 0.5 K, when both are equally frequent.

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        SettingsError
            ``unknown-question``.
        CrystalError, ModelError
            The first crystal that cannot be read, with its index (``partial-occupancy``,
            ``no-bonds``, ``unknown-element``, ...). `assess` goes on without it.
        """
        if question not in QUESTIONS:
            raise SettingsError(
                "unknown-question", f"unknown question {question!r}; use one of {', '.join(QUESTIONS)}"
            )
        found = self.assess(structures)
        _raise_first(found.refused)
        return found.superconductor if question == "superconductor" else found.strong

    def assess(self, structures: Sequence[Structure]) -> Assessment:
        """Both probabilities of every crystal; a crystal that cannot be read costs its own row only.

        Parameters
        ----------
        structures : sequence of pymatgen Structure

        Returns
        -------
        Assessment
        """
        logits, refused = self._run(structures, self._logits, len(QUESTIONS))
        columns = [self._calibrated(q, logits[:, k]) for k, q in enumerate(QUESTIONS)]
        return Assessment(columns[0], columns[1], refused)

    def latent(self, structures: Sequence[Structure]) -> FloatArray:
        """Latents of the crystals, those of all members one after another.

        Parameters
        ----------
        structures : sequence of pymatgen Structure

        Returns
        -------
        ndarray, shape (n, members * settings.latent)

        Raises
        ------
        CrystalError, ModelError
            As `probability`.
        """
        width = len(self.members) * self.settings.latent
        out, refused = self._run(structures, self._latents, width)
        _raise_first(refused)
        return out

    def _run(
        self, structures: Sequence[Structure], of: Any, width: int
    ) -> tuple[FloatArray, dict[int, OnnesError]]:
        """Apply a function to batches of bounded size; rows of refused crystals stay NaN."""
        out = np.full((len(structures), width), np.nan)
        refused: dict[int, OnnesError] = {}
        index: list[int] = []
        with torch.no_grad():
            begun = 0
            for batch in chunks(_graphs(structures, self.settings, index, refused), MAX_ROWS):
                rows = index[begun : begun + len(batch)]
                begun += len(batch)
                out[rows] = of(batch)
        return out, refused

    def _logits(self, graphs: list[BondGraph]) -> FloatArray:
        batch = collate(graphs)
        return np.asarray(sum(net(batch).double().numpy() for net in self.members) / len(self.members))

    def _latents(self, graphs: list[BondGraph]) -> FloatArray:
        batch = collate(graphs)
        return np.concatenate([net.latent(batch).double().numpy() for net in self.members], axis=1)

    def _calibrated(self, question: str, logit: FloatArray) -> FloatArray:
        slope, offset = self.calibration[question]
        return np.asarray(1.0 / (1.0 + np.exp(-(slope * logit + offset))))


def _graphs(
    structures: Sequence[Structure],
    settings: AutoencoderSettings,
    index: list[int],
    refused: dict[int, OnnesError],
) -> Iterator[BondGraph]:
    """Graphs one at a time; notes the index of each, or why there is none."""
    for k, structure in enumerate(structures):
        try:
            graph = _graph(structure, settings)
        except OnnesError as error:
            refused[k] = error
            continue
        index.append(k)
        yield graph


def _graph(structure: Structure, settings: AutoencoderSettings) -> BondGraph:
    if not structure.is_ordered:
        raise CrystalError("partial-occupancy", "a site is shared or partly empty; order the crystal first")
    table = atomic_numbers()
    for symbol in set(symbols(structure)):
        if table.get(symbol, MAX_Z + 1) > MAX_Z:
            raise ModelError("unknown-element", f"no features for {symbol!r}; elements up to Lr are known")
    return graph_of(structure, settings.graph)


def _raise_first(refused: dict[int, OnnesError]) -> None:
    for k, error in refused.items():
        raise type(error)(error.code, f"structure {k}: {error.message}")
