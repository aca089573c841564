"""What the networks see: from records to tensors, one encoder a kind of network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from onnes.crystal.formula import numbers as atomic_numbers
from onnes.data.files import atomic_write
from onnes.data.records import Record
from onnes.errors import ModelError, SettingsError
from onnes.nets.property_head import HeadSettings, PropertyHead


class Encoder(Protocol):
    """Turns records into inputs of a network, and builds that network."""

    def encode(self, records: Sequence[Record], sources: Sequence[int], folder: Path) -> list[Any]:
        """Inputs of every record; None for one the network cannot see. `folder` is for a cache."""

    def collate(self, items: list[Any]) -> tuple[Any, ...]:
        """Arguments of the network for a batch."""

    def network(self, targets: int, sources: int) -> nn.Module:
        """A fresh network."""

    def standardise(self, net: nn.Module, train: list[int]) -> None:
        """Set whatever the network keeps of its inputs' statistics."""

    def settings(self) -> dict[str, Any]:
        """What inference needs to rebuild encoder and network."""


class HeadEncoder:
    """Frozen features of the universal potential, for `PropertyHead`.

    Parameters
    ----------
    hidden : int
        Width of the head.
    """

    def __init__(self, hidden: int = 128) -> None:
        self.hidden = hidden
        self.items: list[Any] = []
        self.head: HeadSettings | None = None

    def encode(self, records: Sequence[Record], sources: Sequence[int], folder: Path) -> list[Any]:
        """Evaluate the potential, or read what an earlier call kept in ``folder/features``."""
        cache = folder / "features"
        potential = None
        found: list[Any] = []
        for record, source in zip(records, sources, strict=True):
            structure = record.structure()
            z = atomic_numbers(structure)
            path = cache / f"{content_key(record)}.npy"
            x = cached_rows(path, len(z))
            if x is None:
                if potential is None:
                    from onnes.learn.features import FrozenPotential

                    potential = FrozenPotential()
                if not set(z.tolist()) <= potential.elements:
                    found.append(None)
                    continue
                (features,) = potential.evaluate([structure])
                x = features.x.astype(np.float16)
                cache.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as handle:
                    np.save(handle, x)
            volume = float(np.log(structure.volume / len(z)))
            found.append((torch.as_tensor(x), torch.as_tensor(z), volume, source))
        self.items = [item for item in found if item is not None]
        return found

    def collate(self, items: list[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pad to the largest crystal of the batch; atomic number 0 marks padding."""
        most = max(len(z) for _, z, _, _ in items)
        x = torch.zeros((len(items), most, items[0][0].shape[1]))
        z = torch.zeros((len(items), most), dtype=torch.long)
        for k, (features, species, _, _) in enumerate(items):
            x[k, : len(species)] = features.float()
            z[k, : len(species)] = species
        volume = torch.tensor([v for _, _, v, _ in items], dtype=torch.float32)
        return x, z, volume, torch.tensor([s for _, _, _, s in items])

    def network(self, targets: int, sources: int) -> nn.Module:
        """A fresh head."""
        width = int(self.items[0][0].shape[1]) if self.items else 576
        self.head = HeadSettings(features=width, hidden=self.hidden, targets=targets, sources=sources)
        return PropertyHead(self.head)

    def standardise(self, net: nn.Module, train: list[int]) -> None:
        """Mean and deviation of the features over the atoms of (at most 4,000) training crystals."""
        some = train[:: max(1, len(train) // 4000)]
        x = torch.cat([self.items[i][0] for i in some]).float()
        net.mean.copy_(x.mean(0))  # type: ignore[operator]
        net.std.copy_(x.std(0).clamp(min=1e-3))  # type: ignore[operator]

    def settings(self) -> dict[str, Any]:
        """Head size and potential."""
        from onnes.learn.features import POTENTIAL

        return {"head": self.head.as_dict() if self.head else {}, "potential": POTENTIAL}


def content_key(record: Record) -> str:
    """Name of a crystal in a cache: the same cell and atoms, the same name."""
    return hashlib.sha256(repr((record.lattice, record.species, record.frac)).encode()).hexdigest()[:24]


def cached_rows(path: Path, n: int) -> np.ndarray | None:
    """Read a cached array; None when it is missing, damaged or of another crystal."""
    try:
        x = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return x if x.ndim == 2 and len(x) == n else None


def _graph(name: str) -> Callable[[], Encoder]:
    def build() -> Encoder:
        from onnes.learn.graph_inputs import GraphEncoder

        return GraphEncoder(name)

    return build


#: Networks by name. ``head`` reads the frozen features of the potential, the others bonds and angles.
MODELS: dict[str, Callable[[], Encoder]] = {
    "head": HeadEncoder,
    **{name: _graph(name) for name in ("alignn", "alignn-onnes", "megnet", "megnet-onnes")},
}


def encoder(name: str) -> Encoder:
    """Build the encoder of a model.

    Raises
    ------
    SettingsError
        ``unknown-model``.
    """
    if name not in MODELS:
        raise SettingsError("unknown-model", f"unknown model {name!r}; use one of {', '.join(MODELS)}")
    return MODELS[name]()


def rebuild(settings: dict[str, Any]) -> tuple[Encoder, nn.Module]:
    """Encoder and untrained network of a checkpoint of ``onnes train``, as its settings describe them.

    Raises
    ------
    SettingsError
        ``unknown-model``.
    ModelError
        ``incompatible-model`` when this version builds another network or other inputs under that name.
    """
    coder = encoder(settings["model"])
    stored = settings.get("network", settings.get("potential"))
    if isinstance(coder, HeadEncoder):
        ours: Any = coder.settings()["potential"]
        net: nn.Module = PropertyHead(HeadSettings(**settings["head"]))
    else:
        # As JSON, for the settings went through it.
        ours = json.loads(json.dumps(coder.settings()["network"]))
        net = coder.network(len(settings["targets"]), len(settings["sources"]))
    if ours != stored:
        raise ModelError(
            "incompatible-model", f"this version's {settings['model']} has other settings than the checkpoint"
        )
    return coder, net
