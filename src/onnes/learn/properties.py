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

from onnes.learn.features import AtomFeatures
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.property_head import HeadSettings, PropertyHead

FloatArray = NDArray[Any]

#: Targets of the heads in their order. The first is the correction to the potential's formation energy.
TARGETS = ("formation_correction", "gap", "nonmetal", "ln_bulk", "ln_shear", "stable")
#: Label sources of the heads: formation energy and gap follow the first, moduli and stability the second.
MATERIALS_PROJECT, JARVIS = 0, 1


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

    def predict(
        self, crystals: Sequence[tuple[AtomFeatures, NDArray[np.int64], float]]
    ) -> PropertyPrediction:
        """Predict.

        Parameters
        ----------
        crystals : sequence of (features, atomic numbers, volume per atom in cubic angstrom)
        """
        out = np.empty((len(crystals), len(TARGETS)))
        own = np.empty(len(crystals))
        with torch.no_grad():
            for i, (features, numbers, volume) in enumerate(crystals):
                out[i] = self._mean(features, numbers, volume)
                known = [self.elements.get(int(z), np.nan) for z in numbers]
                own[i] = features.energy_eV_atom - float(np.mean(known))
        nonmetal = _sigmoid(out[:, 2])
        gap = np.where(nonmetal > 0.5, np.maximum(out[:, 1], 0.0), 0.0)
        bulk, shear = np.exp(out[:, 3]), np.exp(out[:, 4])
        return PropertyPrediction(own + out[:, 0], gap, nonmetal, _sigmoid(out[:, 5]), bulk, shear)

    def _mean(self, features: AtomFeatures, numbers: NDArray[np.int64], volume: float) -> FloatArray:
        """Mean of the members in physical units (logits for the two classes)."""
        x = torch.as_tensor(features.x)[None].expand(2, -1, -1)
        z = torch.as_tensor(numbers)[None].expand(2, -1)
        v = torch.full((2,), float(np.log(volume)))
        source = torch.tensor([MATERIALS_PROJECT, JARVIS])
        total = sum(head(x, z, v, source).double().numpy() for head in self.heads) / len(self.heads)
        both = np.asarray(total) * self.spread + self.centre
        return np.concatenate([both[MATERIALS_PROJECT, :3], both[JARVIS, 3:]])


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))
