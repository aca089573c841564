"""Downloads that end complete and verified, or not at all.

A download grows in ``NAME.part`` and is renamed to ``NAME`` once size and checksum are right. The checksum of
what was accepted is pinned in ``NAME.sha256``: a copy that decays in the cache, or a source that changes its
file without saying so, is noticed from then on.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnes.data.catalog import DataSet
from onnes.data.files import atomic_text, sync_folder
from onnes.data.transfer import Progress, Retry, download, forget, locked, resumable
from onnes.errors import DataError, InputError

#: Seconds between the two attempts.
PAUSE_S = 1.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Fetched:
    """A verified file.

    Attributes
    ----------
    path : Path
    sha256 : str
        Checksum of its content.
    status : {"downloaded", "cached"}
    pinned : bool
        Whether nothing but this very copy vouches for the checksum (first use).
    """

    path: Path
    sha256: str
    status: Literal["downloaded", "cached"]
    pinned: bool


def cache_folder() -> Path:
    """Folder of downloads: ``ONNES_CACHE``, else the platform's cache folder (``~/.cache/onnes``)."""
    named = os.environ.get("ONNES_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "onnes"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "onnes"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnes"


def fetch_set(
    data: DataSet,
    file: str | None = None,
    *,
    url: str | None = None,
    sha256: str | None = None,
    folder: Path | None = None,
    refresh: bool = False,
    progress: Progress | None = None,
) -> Fetched:
    """Bring one file of a catalogued data set into the cache.

    Parameters
    ----------
    data : DataSet
        From `onnes.data.catalog.data_set`.
    file : str, optional
        Which of its files; needed where there are several.
    url, sha256 : str, optional
        Replace the catalogued address and checksum. Another address without a checksum drops the catalogued
        size and checksum: they belong to the catalogued file.
    folder : Path, optional
        Instead of ``cache_folder()/NAME``.
    refresh, progress
        As in `fetch`.

    Raises
    ------
    InputError, DataError
        As `DataSet.file` and `fetch`.
    """
    remote = data.file(file)
    own = url is not None or sha256 is not None
    return fetch(
        url or remote.url,
        (folder or cache_folder() / data.name) / remote.name,
        sha256=sha256 if own else remote.sha256,
        size=None if own else remote.bytes,
        refresh=refresh,
        progress=progress,
    )


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    size: int | None = None,
    refresh: bool = False,
    progress: Progress | None = None,
) -> Fetched:
    """Return `target` verified, downloading it where needed.

    A good copy in place is returned without a connection. A damaged one is removed. A download that fails its
    check is removed and tried once more.

    Parameters
    ----------
    url : str
        http or https address.
    target : path
    sha256 : str, optional
        Expected checksum; without it the one pinned by the first fetch counts.
    size : int, optional
        Expected size in bytes.
    refresh : bool
        Download although a copy is there, to see whether the source still serves the same file; the copy stays
        until the new one is verified.
    progress : callable (bytes done, bytes in all or None), optional

    Raises
    ------
    InputError
        ``bad-url``, ``bad-checksum``.
    DataError
        ``checksum-mismatch``, ``source-changed`` (differs from the pin of an earlier fetch),
        ``truncated-download``, ``http-404`` and other ``http-`` codes, ``no-network``, ``cannot-write``,
        ``in-use``.
    """
    path = Path(target)
    if not re.match(r"https?://[^\s/]", url):
        raise InputError("bad-url", f"{url!r} is no http or https address")
    if sha256 is not None:
        sha256 = sha256.strip().lower()
        if not _SHA256.fullmatch(sha256):
            raise InputError("bad-checksum", f"{sha256[:80]!r} is no SHA-256 (64 hexadecimal digits)")
    pin = read_pin(path)
    expected = sha256 or pin
    if path.is_file() and not refresh:
        found = digest(path)
        if expected in (None, found) and size in (None, path.stat().st_size):
            if pin != found:
                write_pin(path, found)
            return Fetched(path, found, "cached", pinned=sha256 is None)
        _remove(path)
    with locked(path):
        found = _verified(url, path, expected, size, pin_only=sha256 is None, progress=progress)
    return Fetched(path, found, "downloaded", pinned=sha256 is None)


def _verified(
    url: str, path: Path, expected: str | None, size: int | None, *, pin_only: bool, progress: Progress | None
) -> str:
    """Download, check, retry once, put in place; the checksum."""
    seen: list[str] = []
    for attempt in (1, 2):
        try:
            part = download(url, path, progress)
        except Retry as again:
            if attempt == 2:
                if not resumable(path):
                    forget(path)
                raise again.error from None
            time.sleep(PAUSE_S)
            continue
        found, length = digest(part), part.stat().st_size
        if expected in (None, found) and size in (None, length):
            _place(part, path, found)
            return found
        forget(path)
        seen.append(found)
        if attempt == 1:
            time.sleep(PAUSE_S)
    raise _mismatch(url, path, expected, size, seen, length, pin_only)


def _mismatch(
    url: str, path: Path, expected: str | None, size: int | None, seen: list[str], length: int, pin_only: bool
) -> DataError:
    """Say whether the transfer is bad or the source has changed."""
    last = seen[-1]
    if expected is None or expected == last:
        text = f"{url}: {length} bytes instead of {size}; the file was removed"
        return DataError("checksum-mismatch", text)
    if pin_only and len(seen) == 2 and seen[0] == last:
        text = (
            f"{url} now serves another file (SHA-256 {last}) than the one first fetched ({expected}, pinned in "
            f"{pin_file(path)}); pass --sha256 {last} to accept it"
        )
        return DataError("source-changed", text)
    text = f"{url}: SHA-256 is {last}, expected {expected}; tried {len(seen)} times, the file was removed"
    return DataError("checksum-mismatch", text)


def _place(part: Path, path: Path, found: str) -> None:
    # The pin goes first: after a crash in between, the next download is held against it.
    write_pin(path, found)
    try:
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        raise DataError("cannot-write", f"{path}: {error.strerror or error}") from error
    sync_folder(path.parent)
    forget(path)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise DataError(
            "cannot-write", f"{path} is damaged and cannot be removed: {error.strerror}"
        ) from None


def digest(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError("cannot-read", f"{path}: {error.strerror or error}") from error


def pin_file(path: Path) -> Path:
    """Where the checksum of an accepted download is kept."""
    return path.with_name(path.name + ".sha256")


def read_pin(path: Path) -> str | None:
    """Pinned checksum of `path`; None where there is none (or only noise, as after a full disk)."""
    with suppress(OSError, UnicodeDecodeError):
        match = _SHA256.match(pin_file(path).read_text(encoding="utf-8"))
        return match.group() if match else None
    return None


def write_pin(path: Path, checksum: str) -> None:
    """Pin a checksum, in the format of ``sha256sum -c``."""
    with atomic_text(pin_file(path)) as stream:
        stream.write(f"{checksum}  {path.name}\n")
