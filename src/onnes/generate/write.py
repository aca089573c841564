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
from onnes.generate.cdvae_sampling import AGAIN, CLOSEST
from onnes.generate.langevin import LangevinSettings
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
    lines = _Lines(records, facts) if records is not None else None
    held, listed = claimed(out, facts), lines.count if lines is not None else n
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
        # What cannot be drawn leaves folder and file free.
        if start == 0 and lines is not None:
            lines.begin()
        if start == 0 and not held:
            _publish(out, facts)
        if missing:
            _note(out, facts, start // BLOCK, Counter(getattr(sampler, "rejected", ())) - earlier)
        for i in range(start, stop):
            if not _path(out, i).exists():
                write_cif(out, i, drawn[i])
            if lines is not None and i >= listed:
                lines.add(i, drawn[i])
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


class _Lines:
    """A file of records that grows along with a folder, one line a crystal; looked at, not touched, until `begin`.

    Raises
    ------
    InputError
        ``other-run`` where it holds anything that these crystals would not have left there, ``cannot-write``.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self.count, self.end = path, 0, 0
        self.told = json.loads(json.dumps({k: v for k, v in facts.items() if v not in (None, "", [])}))
        try:
            held = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise InputError("cannot-write", f"cannot write {path}: {error.strerror}") from None
        for line in held.splitlines(keepends=True):
            whole = line.endswith(b"\n")
            if not (self._ours(line) if whole else self._cut(line)):
                raise InputError("other-run", f"{path} holds something else; use another file")
            self.count, self.end = self.count + whole, self.end + len(line) * whole

    def _ours(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
            told = row["meta"]["generated"]
        except (ValueError, KeyError, TypeError):
            return False
        return bool(row.get("id") == _name(self.count) and told == self.told)

    def _cut(self, line: bytes) -> bool:
        """Whether a last line without an end can be the beginning of the next record."""
        starts = [f'{{"id":{space}"{_name(self.count)}",'.encode() for space in ("", " ")]
        return any(line[: len(s)] == s[: len(line)] for s in starts)

    def begin(self) -> None:
        """Make the file, or take away a line that was cut."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.truncate(self.end)
        except OSError as error:
            raise InputError("cannot-write", f"cannot write {self.path}: {error.strerror}") from None

    def add(self, index: int, structure: Structure) -> None:
        from onnes.data.records import Record, encode

        name, meta = _name(index), {"generated": self.told}
        try:
            line = encode(Record.from_structure(structure, name, source="onnes generate", meta=meta))
        except DataError as error:  # a cell without volume: its line says so, and readers refuse it
            line = json.dumps({"id": name, "refused": error.code, "meta": meta})
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise InputError("cannot-write", f"cannot write {self.path}: {error.strerror}") from None


def facts_of(settings: SamplerSettings) -> dict[str, Any]:
    """Settings as a manifest holds them."""
    facts = {**asdict(settings), "elements": list(settings.elements), "exclude": list(settings.exclude)}
    if not settings.like:
        del facts["like"]  # runs begun before there was a choice go on
    return {**facts, **sampler_marks(settings)}


def sampler_marks(settings: SamplerSettings) -> dict[str, Any]:
    """What decides the crystals besides weights, seed and settings, and was once different: such runs do not go on."""
    if settings.model == "joint":
        return {"settle": SETTLE, "noise": NOISE}
    if settings.model == "cdvae":
        return {"settle": LangevinSettings().settle, "closest": CLOSEST, "again": AGAIN}
    asked = settings.space_group is not None or settings.atoms is not None
    return {"exact_group": True} if asked else {}


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
