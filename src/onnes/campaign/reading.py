"""Candidates from files: a stream of crystals, block by block, into the ledger."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnes.campaign.canonical import content_hash
from onnes.campaign.funnel import Watcher
from onnes.campaign.ledger import Candidate, Ledger
from onnes.campaign.settings import Settings
from onnes.errors import InputError

if TYPE_CHECKING:
    from onnes.crystal.read import Crystal, Refused

#: Files are read with these wide limits: judging is the work of the check stage, which can be resumed.
ANY = {"max_atoms": 100_000, "min_distance_A": 0.01, "min_distance_ratio": 0.0, "max_isolation_A": 1e3}


#: Crystals of files written to the ledger together; more are never held in memory.
READ_BLOCK = 256


class Files:
    """Crystals of files and folders; what cannot be read is kept in the run's facts, not lost.

    The files are read as a stream, twice in a new run: the beginning, to know before the run is made that there is a
    crystal in them, then all of it, block by block, into the ledger. A finished reading is not repeated.
    """

    def __init__(self, settings: Settings) -> None:
        from onnes.crystal.read import Crystal

        self.paths = settings.generate.paths
        self.digest, self.expected = files_digest(self.paths)
        refused: list[str] = []
        for item in self._read():
            if isinstance(item, Crystal):
                return
            refused.append(f"{item.source}: {item.message}")
        first = f"the first: {refused[0]}" if refused else "there were none"
        raise InputError("no-structures", f"none of {len(refused)} inputs could be read; {first}")

    def _read(self) -> Iterator[Crystal | Refused]:
        from onnes.crystal.check import Limits
        from onnes.crystal.read import read

        return read(self.paths, limits=Limits(**ANY))  # type: ignore[arg-type]

    def adopt(self, ledger: Ledger, held: str) -> bool:
        """Take over a run whose digest is that of its crystals, as it was before it was that of the files' bytes.

        Parameters
        ----------
        ledger : Ledger
            Open for writing; the reading is marked as finished under the present digest.
        held : str
            Digest that the ledger holds.

        Returns
        -------
        bool
            Whether the run holds the crystals of these files, all of them.
        """
        from onnes.campaign.stages import plain
        from onnes.crystal.read import Crystal

        inside = [(c.id, c.structure) for c in ledger.candidates()]
        if content_hash(inside) != held:
            return False
        # The files are read for this: the ledger alone does not say that they are the same ones.
        here = [(i.id, plain(i.structure)) for i in self._read() if isinstance(i, Crystal)]
        if content_hash(here) != held:
            return False
        ledger.add_candidates([], chunk=(self.digest, 0, len(inside)))
        return True

    def fill(self, ledger: Ledger, workers: Any, watcher: Watcher) -> None:
        """Add the candidates, unless the ledger holds all of them."""
        count = next((stop for source, _, stop in ledger.chunks() if source == self.digest), None)
        if count is not None:
            refused = len(ledger.get_meta("refused_inputs", []))
            watcher.begin("read", count + refused, count + refused)
            watcher.advance("read", count, refused)
            watcher.end("read")
            return
        watcher.begin("read", self.expected, 0)
        count, refusals, block = 0, [], []
        for item in self._read():
            candidate = _candidate(item, count)
            if isinstance(candidate, Candidate):
                block.append(candidate)
                count += 1
            else:
                refusals.append(candidate)
            watcher.advance("read", int(isinstance(candidate, Candidate)), int(isinstance(candidate, list)))
            if len(block) == READ_BLOCK:
                ledger.add_candidates(block)
                block = []
        ledger.set_meta("refused_inputs", refusals)
        ledger.add_candidates(block, chunk=(self.digest, 0, count))
        watcher.end("read")


def _candidate(item: Crystal | Refused, index: int) -> Candidate | list[str]:
    from onnes.campaign.prescreen import given
    from onnes.campaign.stages import plain
    from onnes.crystal.read import Refused

    if isinstance(item, Refused):
        return [item.source, item.code, item.message]
    known = given(item.meta.get("labels", {}), len(item.structure))
    meta = {"given": known} if known else {}
    return Candidate(item.id, index, plain(item.structure), item.source, index, meta)


def files_digest(paths: Sequence[str]) -> tuple[str, int]:
    """Hash of the names and bytes of all files, wherever they lie, and about how many crystals they hold.

    Parameters
    ----------
    paths : sequence of str
        Files and folders.
    """
    from onnes.crystal.files import find

    parts: list[Any] = []
    expected = 0
    for path in map(Path, paths):
        try:
            found = find(path)
        except InputError as error:
            parts.append([path.name, error.code])
            expected += 1
            continue
        for file in found:
            name = str(file.relative_to(path)) if file != path else file.name
            digest, lines = _file_digest(file)
            parts.append([name, digest])
            expected += lines if ".jsonl" in file.name or ".ndjson" in file.name else 1
    return content_hash(parts), expected


def _file_digest(file: Path) -> tuple[str, int]:
    """Hash of a file's bytes, and the lines of its text (0 where it cannot be read)."""
    digest, lines = hashlib.sha256(), 0
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while block := stream.read(1 << 20):
                lines += block.count(b"\n")
    except (OSError, EOFError, zlib.error):
        return "unreadable", 0
    return digest.hexdigest(), lines
