"""Writing generated crystals: one CIF each, a manifest that names model, seed and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.io.cif import CifWriter

from onnes.data.files import atomic_text
from onnes.errors import InputError
from onnes.generate.asked import SamplerSettings
from onnes.generate.models import open_sampler
from onnes.generate.sampling import BLOCK, NOISE, SETTLE

if TYPE_CHECKING:
    from pymatgen.core import Structure


def write_crystals(
    out: Path, n: int, seed: int, settings: SamplerSettings, model: str | Path | None = None
) -> Iterator[int]:
    """Write ``g000000.cif`` ... and yield how many of the n exist, after each.

    Files that exist are kept (each was published whole), so an interrupted call resumes.

    Raises
    ------
    InputError
        ``other-run`` when the folder holds crystals of another seed, model or settings; ``not-a-folder``,
        ``cannot-write``, ``damaged-manifest``.
    """
    sampler = open_sampler(settings, model)
    claim(out, {"weights": sampler.checkpoint.hash, "seed": seed, **facts_of(settings)})
    done = 0
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        missing = [i for i in range(start, stop) if not _path(out, i).exists()]
        drawn = dict(sampler.sample(start, stop, seed)) if missing else {}
        for i in range(start, stop):
            if i in missing:
                write_cif(out, i, drawn[i])
            done += 1
            yield done


def facts_of(settings: SamplerSettings) -> dict[str, Any]:
    """Settings as a manifest holds them."""
    facts = {**asdict(settings), "elements": list(settings.elements), "exclude": list(settings.exclude)}
    if not settings.like:
        del facts["like"]  # runs begun before there was a choice go on
    return {**facts, "settle": SETTLE, "noise": NOISE} if settings.model == "joint" else facts


def claim(out: Path, facts: dict[str, Any]) -> None:
    """Take a folder for a run, or find that it is this run's.

    Raises
    ------
    InputError
        As `write_crystals`.
    """
    if not claimed(out, facts):
        with atomic_text(out / "manifest.txt") as handle:
            handle.write(json.dumps(facts, indent=1) + "\n")


def claimed(out: Path, facts: dict[str, Any]) -> bool:
    """Whether a folder is this run's already; False where it is free. It is made if there is none.

    Raises
    ------
    InputError
        As `write_crystals`.
    """
    if out.exists() and not out.is_dir():
        raise InputError("not-a-folder", f"{out} is a file; --out takes a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("cannot-write", f"cannot make {out}: {error.strerror}") from None
    manifest = out / "manifest.txt"
    if manifest.exists():
        held = _read(manifest)
        if held != facts:
            old = held if isinstance(held, dict) else {}
            differ = sorted(k for k in {*old, *facts} if old.get(k) != facts.get(k))
            raise InputError(
                "other-run",
                f"{out} holds crystals of another seed, model or settings ({', '.join(differ)}); use another folder",
            )
        return True
    if any(out.glob("g*.cif")):
        raise InputError("other-run", f"{out} holds crystals of unknown origin")
    return False


def write_cif(out: Path, index: int, structure: Structure) -> Path:
    """Publish one crystal, whole or not at all."""
    with atomic_text(_path(out, index)) as handle:
        handle.write(str(CifWriter(structure, significant_figures=8)))
    return _path(out, index)


def _read(manifest: Path) -> Any:
    try:
        return json.loads(manifest.read_text())
    except (OSError, ValueError):
        raise InputError("damaged-manifest", f"{manifest} cannot be read; use another folder") from None


def _path(out: Path, index: int) -> Path:
    return out / f"g{index:06d}.cif"
