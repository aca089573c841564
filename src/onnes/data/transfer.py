"""One HTTP transfer into a ``.part`` file, continued where an earlier one stopped."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from onnes.errors import DataError, InputError

#: Ending of an unfinished download.
PART = ".part"
#: Seconds without a byte after which a connection counts as lost.
TIMEOUT_S = 30.0
BLOCK = 1 << 18

Progress = Callable[[int, int | None], None]


class Retry(Exception):  # noqa: N818  # a signal with the error to raise when there is no further attempt
    """A transfer failed in a way that a second attempt may mend."""

    def __init__(self, error: DataError) -> None:
        self.error = error
        super().__init__(str(error))


def part_file(path: Path) -> Path:
    """Where the unfinished download of `path` is."""
    return path.with_name(path.name + PART)


def _note_file(path: Path) -> Path:
    """Which version of which address the unfinished download is of."""
    return path.with_name(path.name + PART + ".json")


def resumable(path: Path) -> bool:
    """Whether the unfinished download can be continued another day."""
    return part_file(path).exists() and bool(_read_note(path).get("validator"))


def forget(path: Path) -> None:
    """Remove what is left of an unfinished download."""
    for leftover in (part_file(path), _note_file(path)):
        with suppress(OSError):
            leftover.unlink()


def download(url: str, path: Path, progress: Progress | None = None) -> Path:
    """Transfer `url` into the part file of `path` and return it, complete by the server's own count.

    Raises
    ------
    Retry
        Around ``truncated-download``, ``no-network`` or a server fault (``http-5xx``, ``http-429``).
    DataError
        ``http-404`` and the like, ``cannot-write``.
    InputError
        ``bad-url``.
    """
    part = part_file(path)
    try:
        _transfer(url, path, progress)
    except HTTPError as error:
        fault = DataError(f"http-{error.code}", f"{url}: the server answers {error.code} {error.reason}")
        if error.code == 429 or error.code >= 500:
            raise Retry(fault) from None
        raise fault from None
    except http.client.InvalidURL as error:
        raise InputError("bad-url", f"{url!r}: {error}") from None
    except (URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise Retry(DataError("no-network", f"{url} cannot be reached: {reason}")) from None
    except OSError as error:
        raise DataError("cannot-write", f"{part}: {error.strerror or error}") from error
    return part


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a second process off the part file of `path`; no lock where the platform has none.

    Raises
    ------
    DataError
        ``in-use``, ``cannot-write``.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path.with_name(f".{path.name}.lock"), "wb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise DataError("cannot-write", f"{path.parent}: {error.strerror or error}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError("in-use", f"{path} is being downloaded by another process") from None
        yield  # the lock file stays: removing it would let a third process lock another one


def _transfer(url: str, path: Path, progress: Progress | None) -> None:
    part, have = part_file(path), 0
    headers = {"User-Agent": "onnes (data download)"}
    note = _read_note(path)
    if part.exists() and note.get("url") == url and note.get("validator"):
        have = part.stat().st_size
    if have:
        # Without If-Range, the tail of a new version could be glued to the head of an old one.
        headers |= {"Range": f"bytes={have}-", "If-Range": note["validator"]}
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
            return  # everything had arrived; only the check and the renaming were left
        forget(path)
        raise Retry(DataError("truncated-download", f"{url}: cannot be continued at byte {have}")) from None
    with answer:
        start = _start(answer, have)
        _write_note(path, url, _validator(answer))
        _copy(answer, part, start, url, progress)


def _start(answer: http.client.HTTPResponse, have: int) -> int:
    """Byte at which the answer begins: 0 unless the server continues where it was asked to."""
    if answer.status != 206:
        return 0
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if not match or int(match.group(1)) != have:
        raise http.client.HTTPException("the server sent another part than asked for")
    return have


def _copy(
    answer: http.client.HTTPResponse, part: Path, start: int, url: str, progress: Progress | None
) -> None:
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length and length.isdecimal() else None
    done, broken = start, False
    with open(part, "ab" if start else "wb") as stream:
        while True:
            try:
                block = answer.read(BLOCK)
            except (OSError, http.client.HTTPException):  # lost, timed out, or a chunk cut short
                block, broken = b"", True
            if not block:
                break
            stream.write(block)
            done += len(block)
            if progress:
                progress(done, total)
    if broken or (total is not None and done != total):
        text = f"{url}: the connection ended after {done} of {total or 'an unknown number of'} bytes"
        raise Retry(DataError("truncated-download", text))


def _validator(answer: http.client.HTTPResponse) -> str:
    """What names this version of the file; weak tags do not promise equal bytes."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _read_note(path: Path) -> dict[str, str]:
    try:
        note = json.loads(_note_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in note.items()} if isinstance(note, dict) else {}


def _write_note(path: Path, url: str, validator: str) -> None:
    _note_file(path).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
