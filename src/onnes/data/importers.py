"""Local files of any origin to records: our jsonl, JARVIS and pymatgen JSON (zipped or not), structure files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from onnes.data.catalog import CATALOG
from onnes.data.joining import join_labels
from onnes.data.records import Record, set_name
from onnes.data.rows import json_rows, record_of
from onnes.errors import DataError, InputError, OnnesError

_TABLES = (".csv", ".tsv", ".xlsx", ".parquet")
_PICKLES = (".pkl", ".pickle", ".pk", ".pk.bz2", ".npz")
_JSON = (".json", ".jsonl", ".ndjson", ".zip")


@dataclass(frozen=True)
class BadInput:
    """Something that did not become a record: where it is and why."""

    where: str
    code: str
    message: str

    def __str__(self) -> str:
        lead = "" if self.message.startswith(self.where) else f"{self.where}: "
        return f"{lead}{self.message} [{self.code}]"


@dataclass
class Imported:
    """What an import found.

    Attributes
    ----------
    records : list of Record
        Ids are unique.
    bad : list of BadInput
        Files, rows and labels that could not be used.
    notes : list of str
        What was passed over on purpose.
    """

    records: list[Record] = field(default_factory=list)
    bad: list[BadInput] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def import_file(path: str | os.PathLike[str], **options: Any) -> Imported:
    """Import one file or folder; see `import_paths`."""
    return import_paths([path], **options)


def import_paths(
    paths: Iterable[str | os.PathLike[str]],
    *,
    source: str = "",
    labels: str | os.PathLike[str] | None = None,
    id_column: str = "id",
    extra_labels: Iterable[str] = (),
) -> Imported:
    """Read files and folders into records that passed the gate of `onnes.crystal`.

    Parameters
    ----------
    paths : iterable of paths
        jsonl of records, JSON (a record, a list of them, JARVIS ``atoms`` rows, pymatgen dictionaries), a zip
        with one such JSON, CIF, POSCAR, extxyz, pw.x input, folders of these; each also gzip-compressed.
    source : str
        Data set the labels come from; default: the file's name. A name of the catalogue also brings its
        convention of Tc (``meta["Tc_formula"]``).
    labels : path, optional
        csv whose rows are joined to the records by id (see `onnes.data.joining.join_labels`).
    id_column : str
        Column of that csv with the ids.
    extra_labels : names, optional
        Fields or columns to take as labels besides the known ones.

    Returns
    -------
    Imported

    Raises
    ------
    InputError
        ``no-input``, ``not-crystals`` (a table of formulas), and what made a lone input unreadable.
    DataError
        ``no-good-row`` when nothing could be used.
    """
    extra, found = tuple(extra_labels), Imported()
    seen: set[str] = set()
    for item in _items([Path(p) for p in paths], source, extra):
        if isinstance(item, Record):
            if item.id in seen:
                item = BadInput(item.source, "duplicate-id", f"{item.id} was already read; left out")
            else:
                seen.add(item.id)
                found.records.append(_with_convention(item))
                continue
        found.bad.append(item)
    if not found.records:
        raise _nothing(found.bad)
    if labels is not None:
        joined = join_labels(found.records, labels, id_column=id_column, extra=extra)
        found.records = joined.records
        found.bad += [BadInput(str(labels), code, message) for code, message in joined.problems]
        found.notes += joined.notes
    return found


def _nothing(bad: list[BadInput]) -> OnnesError:
    if not bad:
        return InputError("no-input", "no path was given")
    if len(bad) == 1:
        return InputError(bad[0].code, str(bad[0]).removesuffix(f" [{bad[0].code}]"))
    return DataError("no-good-row", f"none of {len(bad)} inputs is usable; first: {bad[0]}")


def _with_convention(record: Record) -> Record:
    known = CATALOG.get(record.source)
    if known and known.tc_convention and "Tc_K" in record.labels and "Tc_formula" not in record.meta:
        return record.model_copy(update={"meta": {**record.meta, "Tc_formula": known.tc_convention}})
    return record


def _items(paths: list[Path], source: str, extra: tuple[str, ...]) -> Iterator[Record | BadInput]:
    listed: list[Path | BadInput] = [entry for path in paths for entry in _files(path)]
    for kind, group in groupby(listed, _kind):
        if kind == "bad":
            yield from (entry for entry in group if isinstance(entry, BadInput))
        elif kind == "structure":  # one call, so that equal file names get different ids
            yield from _structures([entry for entry in group if isinstance(entry, Path)], source)
        else:
            for entry in group:
                if isinstance(entry, Path):
                    yield from _json(entry, source, extra)


def _files(path: Path) -> list[Path | BadInput]:
    """Return the files a path stands for, or why there are none."""
    from onnes.crystal.files import find

    name = path.name.lower().removesuffix(".gz")
    if path.is_file() and name.endswith(_TABLES):
        text = (
            f"{path} is a table: formulas and numbers are no crystals. Import the structure files and join the "
            "table's numbers with --labels"
        )
        return [BadInput(str(path), "not-crystals", text)]
    if path.is_file() and name.endswith(_PICKLES):
        text = f"{path} is a pickle or array file; these can run code or lack structures: convert it to JSON"
        return [BadInput(str(path), "unknown-format", text)]
    try:
        return list(find(path))
    except InputError as error:
        return [BadInput(str(path), error.code, error.message)]


def _kind(entry: Path | BadInput) -> str:
    if isinstance(entry, BadInput):
        return "bad"
    return "json" if entry.name.lower().removesuffix(".gz").endswith(_JSON) else "structure"


def _json(path: Path, source: str, extra: tuple[str, ...]) -> Iterator[Record | BadInput]:
    name = set_name(path)
    try:
        for where, row in json_rows(path):
            try:
                if isinstance(row, DataError):
                    raise row
                yield record_of(row, id=f"{name}-{where.split()[-1]}", source=source or name, extra=extra)
            except OnnesError as error:
                yield BadInput(f"{path} {where}", error.code, error.message)
    except OnnesError as error:
        yield BadInput(str(path), error.code, error.message)


def _structures(paths: list[Path], source: str) -> Iterator[Record | BadInput]:
    from onnes.crystal.read import Refused, read

    try:
        for item in read(paths):
            if isinstance(item, Refused):
                yield BadInput(item.source, item.code, item.message)
                continue
            try:
                yield _from_crystal(item, source)
            except OnnesError as error:
                yield BadInput(item.source, error.code, error.message)
    except InputError as error:
        yield BadInput(str(paths[0]), error.code, error.message)


def _from_crystal(crystal: Any, source: str) -> Record:
    kept = {
        key: value for key, value in crystal.meta.items() if key not in ("labels", "record_id", "data_set")
    }
    if "isotopes" in kept:  # JSON has no integer keys
        kept["isotopes"] = {str(site): mass for site, mass in kept["isotopes"].items()}
    kept["file"] = crystal.source
    return Record.from_structure(
        crystal.structure,
        crystal.id,
        source=source or set_name(crystal.source.split("#")[0]),
        labels=crystal.meta.get("labels"),
        meta=kept,
    )
