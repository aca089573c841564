"""Rows of an unfinished table, kept as they come, so that a killed run loses nothing that was finished.

The journal lies beside the table (``table.csv.part``): a line that names the settings, then a line for each finished
row with a hash of what it was computed from. The table itself appears whole, at the end, and the journal goes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from pymatgen.core import Structure

from onnes.crystal.read import Crystal
from onnes.errors import DataError, InputError
from onnes.stability.potentials import potential, potential_hash
from onnes.stability.relax import RelaxSettings

#: Reasons that are the machine's fault: such rows are computed again.
RETRY = ("worker-died",)


def run_key(settings: RelaxSettings, symmetrise: bool, *, structures: bool = False) -> str:
    """Hash of all that a row depends on besides its crystal, and of whether structures are kept beside the rows."""
    parts: list[Any] = [asdict(settings), symmetrise, _weights(settings.potential)]
    text = json.dumps([*parts, "structures"] if structures else parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _weights(name: str) -> str:
    """What tells the weights of a potential from others, without loading it: the driver of workers never needs it."""
    if potential(name).kind == "sevennet":
        return f"sevenn {version('sevenn')}"  # they ship inside the package
    return potential_hash(name)


def crystal_key(crystal: Crystal) -> str:
    """Hash of a crystal and its name."""
    s = crystal.structure
    species = [site.species_string for site in s]
    parts = [crystal.id, s.lattice.matrix.tolist(), species, s.frac_coords.tolist()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


class Journal:
    """Finished rows of a table on its way.

    Parameters
    ----------
    table : Path
        The table to be.
    key : str
        Of `run_key`.
    resume : bool
        Go on with what an earlier run has left; otherwise there must be nothing.

    Attributes
    ----------
    rows : dict
        Rows by `crystal_key`.
    structures : dict
        Relaxed structures by `crystal_key`, of the rows that were added with one.

    Raises
    ------
    InputError
        ``unfinished-run``: an earlier run has left rows and `resume` was not asked for; ``other-settings``;
        ``cannot-write``.
    """

    def __init__(self, table: Path, key: str, resume: bool) -> None:
        self.path = table.with_name(table.name + ".part")
        self.rows: dict[str, dict[str, Any]] = {}
        self.structures: dict[str, Structure] = {}
        self._added = False
        try:
            length = self._read(key, resume) if self.path.exists() else 0
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
            # A line that was cut when the run was killed goes.
            self._file.truncate(length)
        except OSError as error:
            raise InputError("cannot-write", f"{self.path}: {error.strerror or error}") from None
        if not length:
            self._line({"settings": key})

    def _read(self, key: str, resume: bool) -> int:
        """Take over what is there; returns the length of what is whole, in bytes."""
        whole = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if entry is None or not line.endswith(b"\n"):
                break
            whole += len(line)
            if number == 0:
                if resume and entry.get("settings") != key:
                    raise InputError(
                        "other-settings", f"{self.path} was made with other settings; delete it or use those"
                    )
            elif not str(entry["row"].get("reason", "")).startswith(RETRY):
                self.rows[entry["crystal"]] = entry["row"]
                if entry.get("structure"):
                    self.structures[entry["crystal"]] = Structure.from_dict(entry["structure"])
        if self.rows and not resume:
            raise InputError(
                "unfinished-run",
                f"{self.path} holds {len(self.rows)} rows of a run that was stopped; go on with --resume or delete it",
            )
        return whole if resume else 0

    def add(self, crystal: Crystal, row: dict[str, Any], structure: Structure | None = None) -> None:
        """Keep a finished row, and the relaxed structure where it is needed again: on the disk when this returns.

        Raises
        ------
        DataError
            ``cannot-write``: full disk.
        """
        self._added = True
        entry = {"crystal": crystal_key(crystal), "row": row}
        self._line(entry if structure is None else {**entry, "structure": structure.as_dict()})

    def _line(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError("cannot-write", f"{self.path}: {error.strerror or error}") from error

    def close(self, *, finished: bool) -> None:
        """Close; a finished one is removed, and one with nothing in it to go on with."""
        self._file.close()
        if finished or not (self.rows or self._added):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(finished=kind is None)
