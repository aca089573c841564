"""Records with alpha2F curves, lambda and omega_log, as the spectral networks are trained on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnes.data.files import atomic_text, atomic_write
from onnes.data.records import Record
from onnes.errors import DataError, InputError, OnnesError, PhysicsError
from onnes.graph.crystal_graph import graph_of
from onnes.learn.features import FrozenPotential, by_potential
from onnes.learn.inputs import cached_rows, content_key
from onnes.learn.spectrum_fit import SpectrumData
from onnes.learn.spectrum_inputs import phonon_cells
from onnes.nets.spectrum import GRIDS, PHONON_EDGES_MEV, SpectrumSettings
from onnes.theory.readers import read_a2f
from onnes.theory.spectral import Spectrum
from onnes.units import TO_KELVIN

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.theory.phonon_dos import SiteSpectra

#: Layers of the potentials whose invariants are the features of the shipped networks.
FEATURES: dict[str, tuple[str, ...]] = {
    "7net-0": tuple(f"{k}_equivariant_gate" for k in (1, 2, 4)),
    "7net-l3i5": tuple(f"{k}_equivariant_gate" for k in (1, 2, 3, 4)),
}
MEV = TO_KELVIN["meV"]
#: Couplings and frequencies below these are no superconductors and noise in their logarithms.
LEAST_LAMBDA, LEAST_LOG_K = 0.02, 5.0
CHUNK = 16
#: Files beside curves that hold none.
NO_CURVES = (".png", ".svg", ".pdf", ".json", ".md")
NAN = float("nan")


@dataclass(frozen=True)
class Prepared:
    """Training data with what the checkpoint says of them.

    Attributes
    ----------
    data : SpectrumData
    sources : list of str
        Names of the conventions of labels (the data files); `SpectrumData.source` counts in it.
    volumes : ndarray, shape (n,)
        Per atom, cubic angstrom.
    refused : dict of str to str
        Why records were left out, by id; curve files without a record by name.
    digest : str
        Hash of crystals, labels and which inputs are read. Not of the inputs' values: the last bits of a potential's
        features depend on the machine and on what was computed together.
    """

    data: SpectrumData
    sources: list[str]
    volumes: NDArray[np.float64]
    refused: dict[str, str]
    digest: str


def curve_files(folder: Path | None) -> dict[str, list[Path]]:
    """Files of a folder by the id of the record they belong to: their name, with or without its last suffix.

    Raises
    ------
    InputError
        ``not-found``.
    """
    out: dict[str, list[Path]] = {}
    if folder is None:
        return out
    if not folder.is_dir():
        raise InputError("not-found", f"no folder of curves at {folder}")
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() not in NO_CURVES):
        for name in {path.name, path.stem}:
            out.setdefault(name, []).append(path)
    return out


def curve_of(record: Record, files: Mapping[str, list[Path]], unit: str | None) -> Spectrum | None:
    """The curve of a record: its ``omega_meV`` and ``alpha2F``, or the file of its name (`curve_files`).

    Raises
    ------
    DataError
        ``bad-field``, ``two-curves``.
    InputError, PhysicsError
        Those of `onnes.theory.readers.read_a2f`.
    """
    own = record.meta.get("omega_meV"), record.meta.get("alpha2F")
    if all(v is not None for v in own):
        try:
            omega, values = (np.asarray(v, dtype=float) for v in own)
        except (TypeError, ValueError):
            raise DataError(
                "bad-field", f"{record.id}: omega_meV and alpha2F must be lists of numbers"
            ) from None
        return Spectrum.from_arrays(omega, values, "meV", source=record.id)
    found = files.get(record.id, [])
    if len(found) > 1:
        raise DataError("two-curves", f"{record.id}: {' and '.join(p.name for p in found)}; keep one")
    return read_a2f(found[0], unit=unit) if found else None


def labels_of(
    record: Record, curve: Spectrum | None, settings: SpectrumSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Moments, shape (3,), and shares of lambda, shape (K,), as `SpectrumData` has them; None without labels.

    Raises
    ------
    PhysicsError
        ``beyond-grid``, ``no-coupling``, ``negative-label``.
    """
    grid = GRIDS[settings.grid]()
    if curve is not None:
        log = np.log(curve.omega_log_meV)
        moments = np.array([np.log(max(curve.lam, LEAST_LAMBDA)), log, np.log(curve.omega_2_meV) - log])
        if settings.grid == "linear":
            parts = grid.smoothed(curve) * grid.coupling
            return moments, parts / parts.sum()
        return moments, grid.shares(curve)
    lam, log_K = (record.labels.get(name) for name in ("lambda", "omega_log_K"))
    if lam is None or log_K is None:
        return None
    if not (lam >= 0.0 and log_K >= 0.0):
        raise PhysicsError(
            "negative-label", f"{record.id}: lambda {lam} and omega_log {log_K} K must not be negative"
        )
    second = record.labels.get("omega_2_K")
    ratio = np.log(second / log_K) if second and log_K > 0.0 else NAN
    moments = np.array([np.log(max(lam, LEAST_LAMBDA)), np.log(max(log_K, LEAST_LOG_K) / MEV), ratio])
    return moments, np.full(len(grid.omega_meV), NAN)


def prepare(
    records: Sequence[Record],
    settings: SpectrumSettings,
    potentials: Mapping[str, tuple[str, ...]],
    cache: Path,
    *,
    curves: Path | None = None,
    unit: str | None = None,
    vibrations: Callable[[Structure], SiteSpectra] | None = None,
) -> Prepared:
    """Collect labels and inputs of every record that has any label.

    Parameters
    ----------
    records : sequence of Record
        With a curve (`curve_of`), or the labels ``lambda`` and ``omega_log_K`` (and ``omega_2_K``).
    settings : SpectrumSettings
        ``features`` and ``phonons`` say which inputs are needed.
    potentials : mapping of str to tuple of str
        Layers of each potential whose features are read (`FEATURES`); empty without features.
    cache : Path
        Folder; features and vibrational spectra are kept there by content.
    curves, unit
        Folder of curve files named after the records, and the unit of those that do not state theirs.
    vibrations : callable, optional
        Vibrational spectra of the atoms of a crystal, for networks that read them. They are also a target.

    Raises
    ------
    DataError
        ``no-labels``.
    """
    refused: dict[str, str] = {}
    kept: list[tuple[Record, Any, Any]] = []
    files = curve_files(curves)
    for record in records:
        try:
            labels = labels_of(record, curve_of(record, files, unit), settings)
            if labels is None:
                refused[record.id] = "no-labels: neither a curve nor lambda and omega_log_K"
                continue
            kept.append((record, labels, graph_of(record.structure(), settings.graph)))
        except OnnesError as error:
            refused[record.id] = f"{error.code}: {error.message}"
    kept = with_potentials(kept, potentials, cache, refused)
    sites = with_vibrations(kept, vibrations, cache, refused)
    kept = [k for k in kept if k[0].id not in refused]
    if not kept:
        raise DataError("no-labels", "no record has a curve, or lambda and omega_log_K, that can be used")
    sources = sorted({k[0].source for k in kept})
    modes = np.full((len(kept), len(PHONON_EDGES_MEV) - 1), NAN)
    for i, k in enumerate(kept):
        if sites:
            modes[i] = sites[k[0].id].mean(0)
    data = SpectrumData(
        [r.id for r, *_ in kept],
        [k[2] for k in kept],
        np.array([r.formula for r, *_ in kept]),
        np.array([sources.index(r.source) for r, *_ in kept]),
        np.array([k[1][0] for k in kept]),
        np.array([k[1][1] for k in kept]),
        modes,
        [x for r, *_ in kept if (x := _features(r, potentials, cache)) is not None] if potentials else None,
        [sites[r.id] for r, *_ in kept] if settings.phonons else None,
    )
    volumes = np.array([r.structure().volume / len(r.species) for r, *_ in kept])
    digest = hashlib.sha256(repr((settings.as_dict(), dict(potentials), sources)).encode())
    for record, *_ in kept:
        digest.update(f"{record.id} {content_key(record)} ".encode())
    for array in (data.source, data.moments, data.shares):
        digest.update(np.ascontiguousarray(array).tobytes())
    taken = {r.id for r in records}
    for path in sorted({p for paths in files.values() for p in paths}):
        if not {path.name, path.stem} & taken:
            refused[str(path)] = "no-record: no record has this name"
    return Prepared(data, sources, volumes, refused, digest.hexdigest()[:16])


def paths_of(record: Record, potentials: Mapping[str, tuple[str, ...]], cache: Path) -> Iterator[Path]:
    """Where the features of a record are kept, one file a potential."""
    key = content_key(record)
    return (cache / f"features-{name}" / f"{key}.npy" for name in potentials)


def _features(
    record: Record, potentials: Mapping[str, tuple[str, ...]], cache: Path
) -> NDArray[np.float32] | None:
    parts = [cached_rows(path, len(record.species)) for path in paths_of(record, potentials, cache)]
    if any(p is None for p in parts):
        return None
    return np.concatenate([p for p in parts if p is not None], axis=1)


def with_potentials(
    kept: list[Any], potentials: Mapping[str, tuple[str, ...]], cache: Path, refused: dict[str, str]
) -> list[Any]:
    """Compute the features that the cache lacks; records the potentials refuse are left out."""
    missing = [k[0] for k in kept if potentials and _features(k[0], potentials, cache) is None]
    if missing:
        frozen = {name: FrozenPotential(potential=name, layers=layers) for name, layers in potentials.items()}
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            given = by_potential(frozen, [r.structure() for r in chunk])
            for record, found in zip(chunk, given, strict=True):
                if isinstance(found, OnnesError):
                    refused[record.id] = f"{found.code}: {found.message}"
                    continue
                for path, name in zip(paths_of(record, potentials, cache), potentials, strict=True):
                    _save(path, found[name].x.astype(np.float32))
    return [k for k in kept if k[0].id not in refused]


def with_vibrations(
    kept: list[Any],
    vibrations: Callable[[Structure], SiteSpectra] | None,
    cache: Path,
    refused: dict[str, str],
) -> dict[str, NDArray[np.float64]]:
    """Vibrational spectra of the atoms in the network's cells, by id."""
    out: dict[str, NDArray[np.float64]] = {}
    if vibrations is None:
        return out
    for record, *_ in kept:
        path = cache / "vibrations" / f"{content_key(record)}.npy"
        cells, no = cached_rows(path, len(record.species)), path.with_suffix(".txt")
        if cells is None and no.exists():
            refused[record.id] = no.read_text()
            continue
        if cells is None:
            try:
                seen = vibrations(record.structure())
                cells = phonon_cells(seen.edges_meV, seen.weight)
            except OnnesError as error:
                refused[record.id] = f"{error.code}: {error.message}"
                with atomic_text(no) as handle:
                    handle.write(refused[record.id])
                continue
            _save(path, cells)
        out[record.id] = cells
    return out


def _save(path: Path, array: NDArray[Any]) -> None:
    if path.exists():
        return  # another task was faster: what it wrote stays, for all to read the same
    with atomic_write(path) as handle:
        np.save(handle, array)


def with_features(settings: SpectrumSettings, potentials: Mapping[str, tuple[str, ...]]) -> SpectrumSettings:
    """Settings of a network that reads these features."""
    return replace(settings, features=sum(WIDTHS[name] for name in potentials))


#: Features that the layers of `FEATURES` give.
WIDTHS = {"7net-0": 576, "7net-l3i5": 896}
