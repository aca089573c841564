"""Writing generated crystals: one CIF each, a manifest that names model, seed and settings, records where asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymatgen.io.cif import CifWriter

from onnes.data.files import atomic_text
from onnes.errors import DataError, InputError, SettingsError
from onnes.generate.asked import SamplerSettings
from onnes.generate.models import open_sampler
from onnes.generate.sampling import BLOCK, NOISE, SETTLE

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: What a manifest holds of the course of a run, not of what was asked: two runs may differ in it.
COURSE = "rejected"


def write_crystals(
    out: Path,
    n: int,
    seed: int,
    settings: SamplerSettings,
    model: str | Path | None = None,
    records: Path | None = None,
    begin: Callable[[int, int], None] | None = None,
) -> Iterator[int]:
    """Write ``g000000.cif`` ... and yield how many of the n exist, after each.

    Files that exist are kept (each was published whole), so an interrupted call resumes.

    Parameters
    ----------
    out : Path
    n, seed : int
    settings : SamplerSettings
    model : path, optional
        Checkpoint; the shipped one by default.
    records : Path, optional
        File of records (jsonl), one line for each crystal, that grows along; an interrupted one goes on.
    begin : callable, optional
        Told ``(start, stop)`` of each block that has to be drawn, before that begins.

    Raises
    ------
    InputError
        ``other-run`` when the folder holds crystals of another seed, model or settings, or the file of records
        those of another folder; ``not-a-folder``, ``cannot-write``, ``damaged-manifest``.
    SettingsError
        ``bad-setting`` for records within the folder, which would count its crystals twice when it is read.
    """
    if records is not None and out.resolve() in records.resolve().parents:
        raise SettingsError("bad-setting", f"--records {records} lies within {out}; it belongs elsewhere")
    sampler = open_sampler(settings, model)
    facts = {"weights": sampler.checkpoint.hash, "seed": seed, **facts_of(settings)}
    # Before the folder is taken: a wrong name of a file leaves it free.
    listed = _resumed(records, facts) if records is not None else n
    claim(out, facts)
    done = 0
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        missing = [i for i in range(start, stop) if i >= listed or not _path(out, i).exists()]
        drawn = {}
        if missing:
            if begin is not None:
                begin(start, stop)
            earlier = Counter(getattr(sampler, "rejected", ()))
            drawn = dict(sampler.sample(start, stop, seed))
            _note(out, facts, start // BLOCK, Counter(getattr(sampler, "rejected", ())) - earlier)
        for i in range(start, stop):
            if not _path(out, i).exists():
                write_cif(out, i, drawn[i])
            if records is not None and i >= listed:
                _append(records, _record(drawn[i], i, facts))
            done += 1
            yield done


def rejections(out: Path) -> dict[str, int]:
    """What was drawn and left aside for the crystals of a folder, by reason, all sessions together.

    Parameters
    ----------
    out : Path
        As given to `write_crystals`. Crystals are drawn in whole blocks, so the counts are of whole blocks.

    Returns
    -------
    dict of str to int
        Empty where the model leaves nothing aside.

    Raises
    ------
    InputError
        ``damaged-manifest``.
    """
    total: Counter[str] = Counter()
    for counts in _read(out / "manifest.txt").get(COURSE, {}).values():
        total.update(counts)
    return dict(total)


def _note(out: Path, facts: dict[str, Any], block: int, rejected: Counter[str]) -> None:
    """Keep the counts of a block; one that was interrupted and is drawn again is not counted twice."""
    if rejected:
        by_block = _read(out / "manifest.txt").get(COURSE, {}) | {str(block): dict(rejected)}
        _publish(out, facts | {COURSE: by_block})


def _publish(out: Path, facts: dict[str, Any]) -> None:
    with atomic_text(out / "manifest.txt") as handle:
        handle.write(json.dumps(facts, indent=1) + "\n")


def _record(structure: Structure, index: int, facts: dict[str, Any]) -> str:
    from onnes.data.records import Record, encode

    name, meta = _name(index), {"generated": _told(facts)}
    try:
        return encode(Record.from_structure(structure, name, source="onnes generate", meta=meta)) + "\n"
    except DataError as error:  # a cell without volume: its line says so, and readers refuse it
        return json.dumps({"id": name, "refused": error.code, "meta": meta}) + "\n"


def _told(facts: dict[str, Any]) -> dict[str, Any]:
    """Model, seed and what was asked for; what was not is left out."""
    return {k: v for k, v in facts.items() if v not in (None, "", [])}


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise InputError("cannot-write", f"cannot write {path}: {error.strerror}") from None


def _resumed(path: Path, facts: dict[str, Any]) -> int:
    """Whole lines of a file of records; a line that was cut goes, one of another run is an error."""
    whole = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("rb+") as stream:
            end = 0
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                if not _ours(line, whole, facts):
                    raise InputError("other-run", f"{path} holds other crystals; use another file")
                whole, end = whole + 1, end + len(line)
            stream.truncate(end)
    except OSError as error:
        raise InputError("cannot-write", f"cannot write {path}: {error.strerror}") from None
    return whole


def _ours(line: bytes, index: int, facts: dict[str, Any]) -> bool:
    try:
        row = json.loads(line)
        told = row["meta"]["generated"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(row.get("id") == _name(index) and told == json.loads(json.dumps(_told(facts))))


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
        _publish(out, facts)


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
        old = {k: v for k, v in held.items() if k != COURSE} if isinstance(held, dict) else {}
        if old != facts:
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


def _name(index: int) -> str:
    return f"g{index:06d}"


def _path(out: Path, index: int) -> Path:
    return out / f"{_name(index)}.cif"
