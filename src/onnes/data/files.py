"""Files that are either complete or absent: atomic writing, and reading that notices a cut."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from onnes.errors import DataError, InputError


def sync_folder(folder: Path) -> None:
    """Flush a folder's entry table, so that a rename in it survives a power cut."""
    # Not every file system lets a folder be opened or flushed; the rename itself is then all there is.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary neighbour of `path` for writing and rename it into place at the end.

    Whatever stops the block (an error, a full disk, Ctrl-C) removes the temporary file, so `path` holds
    either its old content or the whole new one.

    Parameters
    ----------
    path : path
        The file to appear. Missing parent folders are made.

    Yields
    ------
    binary file

    Raises
    ------
    DataError
        ``cannot-write``: no permission, read-only or full disk, `path` is a folder.
    """
    target = Path(path)
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(21, "is a folder", str(target))
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private; a data set should have the mode any new file would get.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
        temporary = ""
        sync_folder(target.parent)
    except OSError as error:
        raise DataError(
            "cannot-write", f"{target}: {error.strerror or error}; nothing was written"
        ) from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


@contextmanager
def atomic_text(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """Like `atomic_write`, as UTF-8 text, compressed when the name ends in ``.gz``.

    The gzip header carries neither time nor name, so equal content gives equal bytes.
    """
    with atomic_write(path) as raw:
        if str(path).endswith(".gz"):
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                io.TextIOWrapper(cast(BinaryIO, packed), encoding="utf-8", newline="\n") as text,
            ):
                yield text
        else:
            text = io.TextIOWrapper(cast(BinaryIO, raw), encoding="utf-8", newline="\n")
            yield text
            text.flush()
            text.detach()


def readable(path: str | os.PathLike[str]) -> Path:
    """Return `path` when it is a file with content, else raise an `InputError` that says why not."""
    file = Path(path)
    if file.is_dir():
        raise InputError("is-a-folder", f"{file} is a folder, a file was expected")
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise InputError("no-such-file", f"{file} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise InputError("cannot-read", f"{file}: {error}") from None
    if size == 0:
        raise InputError("empty-file", f"{file} has no content")
    return file


def text_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield ``(line number from 1, line)`` of a plain or gzip text file.

    Raises
    ------
    InputError
        ``no-such-file``, ``is-a-folder``, ``empty-file``, ``cannot-read``, ``not-text``.
    DataError
        ``truncated-file``: the gzip stream stops early or is damaged.
    """
    file = readable(path)
    number = 0
    try:
        with open(file, "rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        # By content, not by name: browsers unpack and rename as they like.
        opener = gzip.open if packed else open
        with opener(file, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line
    except UnicodeDecodeError:
        raise InputError("not-text", f"{file} is not UTF-8 text (after line {number})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError("truncated-file", f"{file} is cut or damaged after line {number}: {error}") from None
    except OSError as error:
        raise InputError("cannot-read", f"{file}: {error.strerror or error}") from None


def read_all(path: str | os.PathLike[str]) -> str:
    """Whole text of a plain or gzip file, with the errors of `text_lines`."""
    return "".join(line for _, line in text_lines(path))
