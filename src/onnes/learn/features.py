"""Frozen representations of a universal potential as inputs of the property heads.

A forward pass of SevenNet-0 (Park et al., J. Chem. Theory Comput. 20, 4857 (2024); weights inside the
``sevenn`` package) gives every atom features that were learned from millions of DFT forces. Kept are the
scalars and the norms of the l = 1 and l = 2 parts after two intermediate interaction layers, and the scalars
of the last one: rotation invariants of the atom's surroundings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure

from onnes.errors import CrystalError, ModelError, OnnesError

#: Interaction layers whose gated output is read.
LAYERS = ("1_equivariant_gate", "2_equivariant_gate", "4_equivariant_gate")
POTENTIAL = "7net-0"
#: Atoms evaluated together. More are no faster on a CPU: SevenNet-l3i5 takes 1.5 times as long with 256.
ATOMS_PER_BATCH = 32


@dataclass(frozen=True)
class AtomFeatures:
    """Representation of one crystal.

    Attributes
    ----------
    x : float32 array, shape (N, F)
        Invariants per atom.
    energy_eV_atom : float
        Potential energy per atom at the given geometry.
    """

    x: NDArray[np.float32]
    energy_eV_atom: float


class FrozenPotential:
    """A SevenNet potential evaluated without forces, in batches of bounded size.

    Parameters
    ----------
    device : str
    atoms_per_batch : int
        Atoms evaluated together; bounds memory. A batch that runs out of it all the same is halved.
    potential : str
        Name of weights inside the ``sevenn`` package.
    layers : sequence of str
        Interaction layers whose gated output is read.
    """

    def __init__(
        self,
        device: str = "cpu",
        atoms_per_batch: int = ATOMS_PER_BATCH,
        potential: str = POTENTIAL,
        layers: Sequence[str] = LAYERS,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sevenn.calculator import SevenNetCalculator

            calculator = SevenNetCalculator(potential, device=device)
        self.model: Any = calculator.model.eval()
        self.model.set_is_batch_data(True)
        self.cutoff: float = calculator.cutoff
        self.device, self.atoms_per_batch = device, atoms_per_batch
        self.potential, self.layers = potential, frozenset(layers)
        known = getattr(calculator, "type_map", None)
        self.elements: frozenset[int] = frozenset(known or range(1, 90))

    def evaluate(self, structures: Sequence[Structure]) -> Iterator[AtomFeatures]:
        """Yield the features of each structure, in order.

        Raises
        ------
        ModelError
            ``unknown-element`` for an element the potential does not know.
        CrystalError
            ``out-of-memory`` for a crystal that is too large even alone.
        """
        for found in self.attempt(structures):
            if isinstance(found, OnnesError):
                raise found
            yield found

    def attempt(self, structures: Sequence[Structure]) -> Iterator[AtomFeatures | OnnesError]:
        """As `evaluate`, but yield the error of a crystal in its place and go on with the others."""
        batch: list[Any] = []
        size = 0
        for structure in structures:
            try:
                graph = self._graph(structure)
            except ModelError as error:
                yield from self._halving(batch)
                batch, size = [], 0
                yield error
                continue
            if batch and size + len(structure) > self.atoms_per_batch:
                yield from self._halving(batch)
                batch, size = [], 0
            batch.append(graph)
            size += len(structure)
        yield from self._halving(batch)

    def _halving(self, graphs: list[Any]) -> list[AtomFeatures | OnnesError]:
        """Evaluate a batch; where memory does not suffice, its halves."""
        if not graphs:
            return []
        try:
            return list(self._batch(graphs))
        except (MemoryError, RuntimeError) as error:
            if not _no_memory(error):
                raise
        if len(graphs) == 1:
            n = len(graphs[0]["atomic_numbers"])
            return [CrystalError("out-of-memory", f"{n} atoms are too many for {self.potential} here")]
        middle = len(graphs) // 2
        return self._halving(graphs[:middle]) + self._halving(graphs[middle:])

    def _batch(self, graphs: list[Any]) -> list[AtomFeatures]:
        from torch_geometric.loader.dataloader import Collater

        data = Collater(graphs)(graphs).to(self.device)
        kept: list[torch.Tensor] = []
        with torch.no_grad():
            data = self.model._preprocess(data)
            for name, module in self.model._modules.items():
                if name == "force_output":
                    break
                data = module(data)
                if name in self.layers:
                    kept.append(_invariants(data["x"]))
        x = torch.cat(kept, dim=-1).cpu().numpy()
        energies = data["inferred_total_energy"].cpu().numpy().reshape(-1)
        ends = np.cumsum([len(g["atomic_numbers"]) for g in graphs])
        parts = np.split(x, ends[:-1])
        return [AtomFeatures(p, float(e) / len(p)) for p, e in zip(parts, energies, strict=True)]

    def _graph(self, structure: Structure) -> Any:
        from pymatgen.io.ase import AseAtomsAdaptor
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        unknown = sorted({s.symbol for s in structure.elements if s.Z not in self.elements})
        if unknown:
            raise ModelError("unknown-element", f"{self.potential} does not know {', '.join(unknown)}")
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        return AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, self.cutoff, with_shift=False))


def _invariants(x: torch.Tensor) -> torch.Tensor:
    """Scalars and channel norms of 128x0e + 64x1e + 32x2e (+ 32x3e), whatever of it is there."""
    parts, start = [x[:, :128]], 128
    for channels, size in ((64, 3), (32, 5), (32, 7)):
        stop = start + channels * size
        if x.shape[-1] >= stop:
            parts.append(x[:, start:stop].reshape(-1, channels, size).norm(dim=-1))
            start = stop
    return torch.cat(parts, dim=-1)


def by_potential(
    potentials: Mapping[str, FrozenPotential], structures: Sequence[Structure]
) -> list[dict[str, AtomFeatures] | OnnesError]:
    """Features of each crystal by name of the potential, or the error of the first one that refuses it."""
    good: list[dict[str, AtomFeatures]] = [{} for _ in structures]
    refused: dict[int, OnnesError] = {}
    for name, potential in potentials.items():
        left = [k for k in range(len(structures)) if k not in refused]
        for k, found in zip(left, potential.attempt([structures[k] for k in left]), strict=True):
            if isinstance(found, OnnesError):
                refused[k] = found
            else:
                good[k][name] = found
    return [refused.get(k, one) for k, one in enumerate(good)]


def _no_memory(error: Exception) -> bool:
    """Whether an error of torch means that memory ran out (on the CPU it has no class of its own)."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )


def padded(
    features: Sequence[NDArray[np.float32]], numbers: Sequence[NDArray[np.int64]], volumes: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crystals side by side, as `onnes.nets.property_head.PropertyHead` takes them.

    Parameters
    ----------
    features : sequence of float32 array, shape (N, F)
    numbers : sequence of int array, shape (N,)
        Atomic numbers.
    volumes : sequence of float
        Per atom, in cubic angstrom.

    Returns
    -------
    x : Tensor, shape (B, most N, F)
    z : Tensor of int, shape (B, most N)
        0 where there is no atom.
    log_volume : Tensor, shape (B,)
    """
    most = max(len(z) for z in numbers)
    x = np.zeros((len(numbers), most, features[0].shape[1]), dtype=np.float32)
    z = np.zeros((len(numbers), most), dtype=np.int64)
    for i, (block, found) in enumerate(zip(features, numbers, strict=True)):
        x[i, : len(found)], z[i, : len(found)] = block, found
    return torch.as_tensor(x), torch.as_tensor(z), torch.as_tensor(np.log(volumes).astype(np.float32))
