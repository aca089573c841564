"""Graphs on disk, found by the hash of what they are built from.

One npz file a graph; the key hashes atoms, cell, settings and the version of the builder, so a stale file is
never read. Files are written whole or not at all; a damaged one is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from onnes.graph.crystal_graph import BondGraph, build
from onnes.graph.settings import GraphSettings

#: Raise when the builder gives other graphs for the same input.
VERSION = 1

_WHOLE = ("numbers", "src", "dst", "line_src", "line_dst")
_REAL = ("share", "vector", "distance", "weight", "bond_share", "cosine", "line_weight")


def key(numbers: np.ndarray, lattice: np.ndarray, frac: np.ndarray, settings: GraphSettings) -> str:
    """Return the content hash of a crystal and graph settings.

    Parameters
    ----------
    numbers : ndarray of int, shape (n,)
    lattice : ndarray, shape (3, 3)
    frac : ndarray, shape (n, 3)
    settings : GraphSettings

    Returns
    -------
    str
        32 hexadecimal digits. Bits count: coordinates that differ in the last place have another key.
    """
    digest = hashlib.sha256(json.dumps([VERSION, settings.as_dict()], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(numbers, np.int64).tobytes())
    digest.update(np.ascontiguousarray(lattice, np.float64).tobytes())
    digest.update(np.ascontiguousarray(frac, np.float64).tobytes())
    return digest.hexdigest()[:32]


class GraphCache:
    """Graphs kept in a folder.

    Parameters
    ----------
    folder : path
        Made when it is missing.

    Attributes
    ----------
    hits, built, damaged : int
        What `get` did so far.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.hits = self.built = self.damaged = 0

    def path(self, name: str) -> Path:
        """Return the file of a key; two digits of it name the subfolder."""
        return self.folder / name[:2] / f"{name}.npz"

    def get(
        self, numbers: np.ndarray, lattice: np.ndarray, frac: np.ndarray, settings: GraphSettings
    ) -> BondGraph:
        """Return the graph of a crystal, from disk or built and stored.

        A folder that cannot be written to costs the speed-up, not the answer.

        Parameters
        ----------
        numbers : ndarray of int, shape (n,)
        lattice : ndarray, shape (3, 3)
        frac : ndarray, shape (n, 3)
        settings : GraphSettings

        Raises
        ------
        CrystalError
            See `onnes.graph.crystal_graph.build`.
        """
        name = key(numbers, lattice, frac, settings)
        path = self.path(name)
        graph = self._read(path, name, settings)
        if graph is not None:
            self.hits += 1
            return graph
        graph = build(numbers, lattice, frac, settings)
        self.built += 1
        self._write(path, name, graph)
        return graph

    def _read(self, path: Path, name: str, settings: GraphSettings) -> BondGraph | None:
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                return _unpack(data["head"], data["whole"], data["real"], name, settings)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError):
            self.damaged += 1  # rebuilt and overwritten by the caller
            return None

    def _write(self, path: Path, name: str, graph: BondGraph) -> None:
        whole, real = _pack(graph)
        head = np.frombuffer(f"{name}:{graph.n_atoms}".encode(), np.uint8)
        part = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as handle:
                part = handle.name
                np.savez(handle, head=head, whole=whole, real=real)
            os.replace(part, path)
        except OSError:
            if part is not None:
                Path(part).unlink(missing_ok=True)


def _pack(graph: BondGraph) -> tuple[np.ndarray, np.ndarray]:
    """Two flat arrays: opening an npz member costs more than reading it."""
    sizes = [len(graph.numbers), len(graph.src), len(graph.line_src)]
    whole = np.concatenate([sizes, *(getattr(graph, n) for n in _WHOLE)]).astype(np.int32)
    return whole, np.concatenate([np.ravel(getattr(graph, n)) for n in _REAL])


def _unpack(
    head: np.ndarray, whole: np.ndarray, real: np.ndarray, name: str, settings: GraphSettings
) -> BondGraph:
    stored, n_atoms = head.tobytes().decode("ascii").split(":")
    if stored != name:
        raise ValueError("the file holds another graph")
    n, e, t = (int(k) for k in whole[:3])
    length = {"numbers": n, "share": n, "vector": 3 * e, "line_src": t, "line_dst": t, "cosine": t}
    length |= {"line_weight": t}
    values: dict[str, np.ndarray] = {}
    for names, flat in ((_WHOLE, whole[3:]), (_REAL, real)):
        ends = np.cumsum([length.get(k, e) for k in names])
        if len(flat) != ends[-1]:
            raise ValueError("the arrays do not fit their sizes")
        values |= dict(zip(names, np.split(flat, ends[:-1]), strict=True))
    values |= {k: values[k].astype(np.int64) for k in _WHOLE}
    values["vector"] = values["vector"].reshape(e, 3)
    known = {f.name for f in fields(BondGraph)} - {"settings", "n_atoms"}
    return BondGraph(settings=settings, n_atoms=int(n_atoms), **{k: values[k] for k in known})
