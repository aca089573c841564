"""One schema for a labelled crystal, and its jsonl files.

A row is one JSON object: ``id``, ``lattice`` (3x3, angstrom, row vectors), ``species``, ``frac``, then label
fields at the top level (names and units in `onnes.data.labels.LABELS`). Anything else a row carries is
kept in `Record.meta`. Nulls mean "not known" and are dropped.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from onnes.crystal.formula import atomic_numbers, formula_of
from onnes.data.files import atomic_text, text_lines
from onnes.data.labels import LABELS
from onnes.errors import DataError

if TYPE_CHECKING:
    from pymatgen.core import Structure

# Strict: neither "3.1" nor true is a number here.
Number = Annotated[FiniteFloat, Strict()]
Vector = tuple[Number, Number, Number]

#: Below this volume (cubic angstrom per atom) a cell is flat; solid hydrogen at 500 GPa still has 1.
MIN_VOLUME_PER_ATOM = 0.1

#: Accepted besides the elements.
ISOTOPES = frozenset({"D", "T"})

_DERIVED = ("formula", "nsites")
_PYDANTIC_CODES = {
    "missing": "missing-field",
    "finite_number": "not-finite",
    "float_type": "not-a-number",
    "string_type": "not-a-string",
    "too_short": "bad-shape",
    "too_long": "bad-shape",
    "tuple_type": "bad-shape",
}


@lru_cache(maxsize=1)
def _symbols() -> frozenset[str]:
    return frozenset(atomic_numbers()) | ISOTOPES


def reduced_formula(species: Iterable[str]) -> str:
    """Alphabetical reduced formula: MgB2 is ``B2Mg``. Deuterium and tritium count as hydrogen."""
    return formula_of("H" if symbol in ISOTOPES else symbol for symbol in species)


class Record(BaseModel):
    """A crystal with labels.

    Attributes
    ----------
    id : str
        Name, unique within a file.
    lattice : 3 x 3 numbers, angstrom
        Row vectors, right-handed.
    species : (n,) element symbols
    frac : (n, 3) numbers
        Fractional coordinates.
    source : str
        Data set the labels come from. Labels of two sources are not the same quantity.
    labels : dict
        Finite numbers by name; units in `onnes.data.labels.LABELS`.
    meta : dict
        Everything else (spectra, split names, the convention behind Tc, ...). JSON values only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    lattice: tuple[Vector, Vector, Vector]
    species: tuple[str, ...] = Field(min_length=1)
    frac: tuple[Vector, ...]
    source: str = ""
    labels: dict[str, Number] = Field(default_factory=dict)
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("species")
    @classmethod
    def _known_elements(cls, species: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(species) - _symbols())
        if unknown:
            raise PydanticCustomError("unknown-element", f"no such element: {', '.join(unknown)[:80]}")
        return species

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if len(self.frac) != len(self.species):
            raise PydanticCustomError(
                "site-count", f"{len(self.species)} species but {len(self.frac)} coordinates"
            )
        volume = self.volume
        if volume < -MIN_VOLUME_PER_ATOM * len(self.species):
            raise PydanticCustomError("left-handed-cell", f"the cell is left-handed ({volume:.3g} A^3)")
        if not volume >= MIN_VOLUME_PER_ATOM * len(self.species):
            raise PydanticCustomError(
                "flat-cell", f"cell volume {volume:.3g} A^3 for {len(self.species)} atoms"
            )
        return self

    @property
    def volume(self) -> float:
        """Cell volume in cubic angstrom, negative for a left-handed cell."""
        (a, b, c), (d, e, f), (g, h, i) = self.lattice
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    @property
    def formula(self) -> str:
        """Alphabetical reduced formula."""
        return reduced_formula(self.species)

    def structure(self) -> Structure:
        """As a pymatgen `Structure`; isotopes D and T become hydrogen."""
        from pymatgen.core import Structure

        plain = ["H" if symbol in ISOTOPES else symbol for symbol in self.species]
        return Structure(self.lattice, plain, self.frac)

    @classmethod
    def from_structure(
        cls,
        structure: Structure,
        id: str,
        *,
        source: str = "",
        labels: Mapping[str, float] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Record:
        """Build from an ordered pymatgen `Structure`; oxidation states are dropped.

        Raises
        ------
        DataError
            ``disordered-site`` or any reason code of `from_row`.
        """
        species = []
        for index, site in enumerate(structure):
            if not site.is_ordered:
                raise DataError("disordered-site", f"{id}: site {index} holds {site.species_string}")
            species.append(getattr(site.specie, "element", site.specie).symbol)
        row = {
            "id": id,
            "lattice": structure.lattice.matrix.tolist(),
            "species": species,
            "frac": structure.frac_coords.tolist(),
            "source": source,
            "labels": {name: float(value) for name, value in (labels or {}).items()},
            "meta": dict(meta or {}),
        }
        return cls.from_row(row)

    @classmethod
    def from_row(
        cls, row: Any, *, id: str = "", source: str = "", extra_labels: Iterable[str] = ()
    ) -> Record:
        """Build from one decoded jsonl row.

        Parameters
        ----------
        row : dict
            Label fields at the top level, or under ``"labels"``; the rest goes to `meta`.
        id, source : str, optional
            Used when the row has none.
        extra_labels : names, optional
            Top-level fields to take as labels besides the known ones.

        Raises
        ------
        DataError
            ``not-an-object``, ``missing-field``, ``bad-shape``, ``not-finite``, ``not-a-number``,
            ``unknown-element``, ``site-count``, ``flat-cell``, ``left-handed-cell``, ``formula-mismatch``,
            ``bad-field``.
        """
        if not isinstance(row, Mapping):
            raise DataError("not-an-object", f"a row must be a JSON object, not {type(row).__name__}")
        fields = _sort_fields(row, id, source, set(extra_labels))
        try:
            record = cls(**fields)
        except ValidationError as error:
            raise _first_error(fields.get("id"), error) from None
        _check_stated(record, row)
        return record

    def to_row(self) -> dict[str, Any]:
        """The jsonl row of this record; `from_row` gives the record back."""
        known = {name: value for name, value in self.labels.items() if name in LABELS}
        other = {name: value for name, value in self.labels.items() if name not in LABELS}
        row: dict[str, Any] = {
            "id": self.id,
            "formula": self.formula,
            "nsites": len(self.species),
            "lattice": self.lattice,
            "species": self.species,
            "frac": self.frac,
            **known,
        }
        extras = {"labels": other, "source": self.source, "meta": self.meta}
        return row | {name: value for name, value in extras.items() if value}


def _sort_fields(row: Mapping[str, Any], id: str, source: str, extra: set[str]) -> dict[str, Any]:
    """Distribute the keys of a row over the fields of a record, dropping nulls."""
    fields: dict[str, Any] = {"labels": {}, "meta": {}}
    for name in ("labels", "meta"):
        inner = row.get(name)
        if inner is not None and not isinstance(inner, Mapping):
            raise DataError("bad-field", f"{row.get('id', id)}: {name} must be an object")
        fields[name] |= {key: value for key, value in (inner or {}).items() if value is not None}
    for name, value in row.items():
        if value is None or name in _DERIVED or name in ("labels", "meta"):
            continue
        if name in Record.model_fields:
            fields[name] = value
        elif name in LABELS or name in extra:
            fields["labels"][name] = value
        else:
            fields["meta"][name] = value
    key = fields.get("id", id)
    # Some sets number their rows.
    fields["id"] = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    if not isinstance(fields.get("source"), str) or not fields["source"]:
        fields["source"] = source
    return fields


def _first_error(id: Any, error: ValidationError) -> DataError:
    """Turn pydantic's report into one line with one reason code."""
    first = error.errors(include_url=False, include_input=False)[0]
    code = first["type"] if "-" in first["type"] else _PYDANTIC_CODES.get(first["type"], "bad-field")
    if code == "missing-field" and len(first["loc"]) > 1:  # a vector or row that is too short
        code = "bad-shape"
    where = ".".join(str(part) for part in first["loc"])
    label = f"{id}: " if isinstance(id, str) and id else ""
    return DataError(code, f"{label}{where + ': ' if where else ''}{first['msg']}")


def _check_stated(record: Record, row: Mapping[str, Any]) -> None:
    """Compare what the row says of itself with its sites: a lost hydrogen shows here."""
    count = row.get("nsites")
    if isinstance(count, int) and count != len(record.species):
        raise DataError("site-count", f"{record.id}: nsites is {count} but {len(record.species)} are listed")
    stated = row.get("formula")
    if not isinstance(stated, str) or stated == record.formula:
        return
    from pymatgen.core import Composition

    try:
        same = Composition(stated).reduced_composition == Composition(record.formula).reduced_composition
    except Exception:  # pymatgen raises several kinds for text that is no formula
        raise DataError("bad-field", f"{record.id}: {stated[:40]!r} is not a formula") from None
    if not same:
        raise DataError(
            "formula-mismatch", f"{record.id}: formula says {stated[:40]}, the sites say {record.formula}"
        )


@dataclass(frozen=True)
class BadRow:
    """A row that could not be used: where it is and why."""

    line: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message} [{self.code}]"


class Records(list[Record]):
    """A list of records that remembers the rows which failed.

    Attributes
    ----------
    bad : list of BadRow
    path : str
        The file read.
    """

    def __init__(self, items: Iterable[Record] = (), bad: Iterable[BadRow] = (), path: str = "") -> None:
        super().__init__(items)
        self.bad: list[BadRow] = list(bad)
        self.path = path


def set_name(path: str | os.PathLike[str]) -> str:
    """File name without its endings: ``a/jarvis.jsonl.gz`` is ``jarvis``."""
    return Path(path).name.split(".")[0] or Path(path).name


def iter_records(
    path: str | os.PathLike[str], *, extra_labels: Iterable[str] = ()
) -> Iterator[Record | BadRow]:
    """Yield each row of a ``.jsonl`` or ``.jsonl.gz`` file as a record or as a bad row.

    Raises
    ------
    InputError, DataError
        The file itself cannot be read (see `onnes.data.files.text_lines`).
    """
    name, extra, seen = set_name(path), tuple(extra_labels), dict[str, int]()
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            record = Record.from_row(_decode(line), id=f"{name}-{number}", source=name, extra_labels=extra)
            if record.id in seen:
                raise DataError("duplicate-id", f"{record.id} was already on line {seen[record.id]}")
        except DataError as error:
            yield BadRow(number, error.code, error.message)
            continue
        seen[record.id] = number
        yield record


def _decode(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("not-json", f"not a JSON object: {str(error)[:80]}") from None


def read_records(path: str | os.PathLike[str], *, extra_labels: Iterable[str] = ()) -> Records:
    """Read a ``.jsonl`` or ``.jsonl.gz`` file of records.

    Bad rows do not stop the reading: they are collected in the result's ``bad`` and announced by one
    warning.

    Raises
    ------
    InputError
        The file is missing, empty, a folder or not text.
    DataError
        ``truncated-file``, or ``no-good-row`` when not one row can be used.
    """
    records = Records(path=str(path))
    for item in iter_records(path, extra_labels=extra_labels):
        if isinstance(item, BadRow):
            records.bad.append(item)
        else:
            records.append(item)
    if not records:
        why = f"; first: {records.bad[0]}" if records.bad else ""
        raise DataError("no-good-row", f"{path} holds no usable record{why}")
    if records.bad:
        text = f"{path}: {len(records.bad)} bad rows left out; first: {records.bad[0]}"
        warnings.warn(text, stacklevel=2)
    return records


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> int:
    """Write records as jsonl (gzip when the name ends in ``.gz``) and return their number.

    The file appears complete or not at all; equal records give equal bytes.

    Raises
    ------
    DataError
        ``cannot-write``, ``not-json`` (a `meta` value JSON cannot hold), ``duplicate-id``.
    """
    seen: set[str] = set()
    with atomic_text(path) as stream:
        for record in records:
            if record.id in seen:
                raise DataError("duplicate-id", f"{record.id} comes twice; nothing was written to {path}")
            seen.add(record.id)
            stream.write(encode(record) + "\n")
    return len(seen)


def encode(record: Record) -> str:
    """The jsonl line of a record, without line end.

    Raises
    ------
    DataError
        ``not-json``: `meta` (or a name) holds what a JSON file cannot.
    """
    try:
        line = json.dumps(record.to_row(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        line.encode()  # half a surrogate pair is a Python string but no UTF-8
        return line
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError("not-json", f"{record.id!a}: meta cannot be written as JSON: {error}") from None
