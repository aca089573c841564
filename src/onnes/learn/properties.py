"""The shipped property heads: formation energy, band gap, metal or not, moduli, dynamical stability.

They read the same frozen features as the electron-phonon heads. The formation energy is the potential's own
(relative to the shipped elemental references) plus a learned correction, because the potential knows most of
it already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnes.learn.features import AtomFeatures, padded
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.property_head import HeadSettings, PropertyHead

FloatArray = NDArray[Any]

#: Targets of the heads in their order. The first is the correction to the potential's formation energy.
TARGETS = ("formation_correction", "gap", "nonmetal", "ln_bulk", "ln_shear", "stable")
#: Label sources of the heads: formation energy and gap follow the first, moduli and stability the second.
MATERIALS_PROJECT, JARVIS = 0, 1
#: Crystals whose heads are evaluated together.
BATCH = 64
#: Features, atomic numbers, volume per atom in cubic angstrom.
PropertyInput = tuple[AtomFeatures, NDArray[np.int64], float]


@dataclass(frozen=True)
class PropertyPrediction:
    """Predicted properties, one entry a crystal.

    Attributes
    ----------
    formation_energy_eV_atom : ndarray, shape (n,)
        In the Materials Project's convention (corrected PBE and PBE+U); NaN without elemental reference.
    gap_eV : ndarray, shape (n,)
        PBE gap; 0 where a metal is more likely.
    p_nonmetal, p_dynamically_stable : ndarray, shape (n,)
        Probabilities.
    bulk_GPa, shear_GPa : ndarray, shape (n,)
        Voigt moduli (JARVIS, OptB88vdW).
    """

    formation_energy_eV_atom: FloatArray
    gap_eV: FloatArray
    p_nonmetal: FloatArray
    p_dynamically_stable: FloatArray
    bulk_GPa: FloatArray
    shear_GPa: FloatArray


class PropertyEnsemble:
    """Heads and standardisation read from one checkpoint.

    Parameters
    ----------
    path : path, optional
        A checkpoint of kind ``properties``; the shipped one by default.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.checkpoint = Checkpoint.load(path or pretrained("properties.safetensors"), "properties")
        settings = self.checkpoint.settings
        self.heads = []
        for member in range(settings["members"]):
            head = PropertyHead(HeadSettings(**settings["head"]))
            prefix = f"{member}."
            weights = self.checkpoint.tensors.items()
            head.load_state_dict(
                {k.removeprefix(prefix): v.float() for k, v in weights if k.startswith(prefix)}
            )
            self.heads.append(head.eval())
        self.potential: str = settings["potential"]
        self.centre, self.spread = np.array(settings["center"]), np.array(settings["spread"])
        self.elements: dict[int, float] = {int(k): v for k, v in settings["element_energies"].items()}

    def outputs(self, crystals: Sequence[PropertyInput]) -> FloatArray:
        """Outputs of every member in physical units (logits for the two classes), in the order of `TARGETS`.

        Parameters
        ----------
        crystals : sequence of (features, atomic numbers, volume per atom in cubic angstrom)

        Returns
        -------
        ndarray, shape (members, n, 6)
        """
        result = np.empty((len(self.heads), len(crystals), len(TARGETS)))
        with torch.no_grad():
            for start in range(0, len(crystals), BATCH):
                features, numbers, volumes = zip(*crystals[start : start + BATCH], strict=True)
                x, z, v = padded([f.x for f in features], numbers, volumes)
                for source, columns in ((MATERIALS_PROJECT, slice(0, 3)), (JARVIS, slice(3, 6))):
                    told = torch.full((len(x),), source)
                    for m, head in enumerate(self.heads):
                        found = head(x, z, v, told)[:, columns].double().numpy()
                        result[m, start : start + BATCH, columns] = found
        return result * self.spread + self.centre

    def predict(self, crystals: Sequence[PropertyInput]) -> PropertyPrediction:
        """Predict with all members; see `outputs` for the input."""
        return self.properties(self.outputs(crystals), crystals)

    def properties(self, outputs: FloatArray, crystals: Sequence[PropertyInput]) -> PropertyPrediction:
        """Properties of the mean of some members.

        Parameters
        ----------
        outputs : ndarray, shape (members, n, 6)
            See `outputs`; members may be those of one fold.
        crystals : sequence
            The same crystals.
        """
        out = outputs.mean(axis=0)
        own = np.array([self._formation(features, numbers) for features, numbers, _ in crystals])
        nonmetal = _sigmoid(out[:, 2])
        gap = np.where(nonmetal > 0.5, np.maximum(out[:, 1], 0.0), 0.0)
        bulk, shear = np.exp(out[:, 3]), np.exp(out[:, 4])
        return PropertyPrediction(own + out[:, 0], gap, nonmetal, _sigmoid(out[:, 5]), bulk, shear)

    def _formation(self, features: AtomFeatures, numbers: NDArray[np.int64]) -> float:
        """Formation energy by the potential alone, in eV/atom; NaN without elemental reference."""
        known = [self.elements.get(int(z), np.nan) for z in numbers]
        return features.energy_eV_atom - float(np.mean(known))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
