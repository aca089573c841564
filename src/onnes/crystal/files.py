"""From a path to text and a format: discovery in folders, decompression, decoding, and recognition."""

from __future__ import annotations

import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from onnes.crystal.formats import cif, espresso, poscar, records, xyz
from onnes.crystal.parsed import Parsed, Problem
from onnes.errors import InputError

Parser = Callable[[str], Iterable[Parsed | Problem]]

#: format name -> parser
PARSERS: dict[str, Parser] = {
    "cif": cif.parse,
    "poscar": poscar.parse,
    "extxyz": xyz.parse,
    "espresso": espresso.parse,
    "json": records.parse_json,
    "jsonl": records.parse_lines,
}

#: file-name ending -> format name
ENDINGS = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".contcar": "poscar",
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".pwi": "espresso",
    ".in": "espresso",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

#: A file larger than this (uncompressed) is refused.
MAX_BYTES = 2_000_000_000

_ACCEPTED = "CIF, POSCAR, extxyz, pw.x input, JSON, or jsonl of records (each also .gz)"


def named_format(path: Path) -> str | None:
    """Return the format a file name announces, None when it announces none.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str or None
        A key of `PARSERS`.
    """
    name = path.name.lower().removesuffix(".gz")
    if re.match(r"(poscar|contcar)([._-]|$)", name) and not name.endswith((".cif", ".json")):
        return "poscar"
    return ENDINGS.get(Path(name).suffix)


def find(path: Path) -> list[Path]:
    """Return the structure files a path stands for.

    Parameters
    ----------
    path : Path
        A file, taken as it is, or a folder, searched recursively in sorted order. Hidden files and names
        without a known ending are passed over.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        ``missing-path``, ``empty-folder``, ``no-structure-file``, ``not-a-file``, ``unreadable``.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError("missing-path", f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError("unreadable", f"{path!s:.200} cannot be read: {error}") from error
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise InputError("not-a-file", f"{path} is neither a file nor a folder")
    everything = sorted(_walk(path))
    if not everything:
        raise InputError("empty-folder", f"{path} is a folder without files")
    found = [p for p in everything if named_format(p) and not _other_input(p)]
    if not found:
        raise InputError("no-structure-file", f"{path} holds no structure file; accepted are {_ACCEPTED}")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            path = Path(root) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _other_input(path: Path) -> bool:
    """In a folder, ``ph.in`` or ``lammps.in`` is not meant; only pw.x inputs have &SYSTEM."""
    if named_format(path) != "espresso":
        return False
    try:
        return "&system" not in text_of(path).lower()
    except InputError:
        return False  # say why when it is read


def text_of(path: Path) -> str:
    """Return the decoded text of a file.

    Parameters
    ----------
    path : Path
        Plain or gzip-compressed.

    Returns
    -------
    str

    Raises
    ------
    InputError
        ``unreadable``, ``too-large``, ``truncated`` (damaged gzip), ``empty-file``, ``binary-file``.
    """
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("truncated", f"the gzip file is damaged: {error}") from error
    except OSError as error:
        raise InputError("unreadable", f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise InputError("too-large", f"more than {MAX_BYTES / 1e9:g} GB")
    if not data.strip():
        raise InputError("empty-file", f"the file holds {len(data)} bytes and no text")
    return _decode(data)


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise InputError("binary-file", "the file is not text") from error
    control = sum(data[:4096].count(c) for c in range(32) if c not in b"\t\n\r\f\v\x1a")
    if b"\x00" in data or control > 0.05 * len(data[:4096]):
        raise InputError("binary-file", "the file is not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # old CIF files: author names in Latin-1
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _looks_like(text: str) -> str | None:
    """Recognise a format by content."""
    start = text.lstrip()[:1]
    lines = text.splitlines()
    if re.search(r"^\s*data_", text, re.MULTILINE | re.IGNORECASE) and "_cell_length_a" in text.lower():
        return "cif"
    if re.search(r"^\s*&system\b", text, re.MULTILINE | re.IGNORECASE):
        return "espresso"
    if start in "{[":
        return "jsonl" if start == "{" and len(lines) > 1 and lines[1].lstrip()[:1] == "{" else "json"
    if len(lines) > 2 and lines[0].strip().isdecimal():
        return "extxyz"
    vectors = [re.fullmatch(r"\s*(?:[-+.\deE]+\s+){2}[-+.\deE]+\s*", line) for line in lines[2:5]]
    if len(lines) > 7 and re.fullmatch(r"\s*[-+.\deE]+\s*", lines[1]) and all(vectors):
        return "poscar"
    return None


def parse(path: Path) -> Iterable[Parsed | Problem]:
    """Parse one file by its name, or by its content where the name says nothing.

    Parameters
    ----------
    path : Path

    Returns
    -------
    iterable of Parsed or Problem

    Raises
    ------
    InputError
        What `text_of` raises; ``unknown-format``; what the parser raises.
    """
    text = text_of(path)
    name = named_format(path) or _looks_like(text)
    if name is None:
        raise InputError("unknown-format", f"neither name nor content is one of {_ACCEPTED}")
    return PARSERS[name](text)
