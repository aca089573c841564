"""UPF pseudopotentials of a folder the user names: read by header, checked against the element, hashed.

Any source will do. A file's name proves nothing, so the element, the functional, the relativistic treatment and the
valence charge come from its header, and the SHA-256 of every file used becomes part of the run's record.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnes.data.fetch import digest
from onnes.dft.cutoffs import CUTOFFS
from onnes.errors import InputError

#: A header stands in the first part of the file, behind at most a long human-readable section.
_HEAD_BYTES = 400_000
_ATTRIBUTE = re.compile(r"([A-Za-z_]\w*)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
#: Spellings of one functional: short names and QE's own lists of components.
_FUNCTIONALS = {
    "pbesol": "PBEsol",
    "sla pw psx psc": "PBEsol",
    "pbe": "PBE",
    "sla pw pbx pbc": "PBE",
    "sla pw pbe pbe": "PBE",
    "pz": "LDA",
    "lda": "LDA",
    "sla pz nogx nogc": "LDA",
    "sla pw nogx nogc": "LDA",
}


@dataclass(frozen=True)
class Pseudopotential:
    """What a run needs to know of one file.

    Attributes
    ----------
    path : Path
    element : str
    z_valence : float
    functional : str
        ``PBEsol``, ``PBE``, ``LDA``, or what the header says.
    relativistic : str
        ``scalar``, ``full`` or ``no``.
    kind : str
        ``NC``, ``US`` or ``PAW``.
    projectors : int
        Nonlocal projectors (radial).
    wfc_cutoff_Ry, rho_cutoff_Ry : float or None
        Suggested in the header; None where it says nothing (or 0).
    sha256 : str
    """

    path: Path
    element: str
    z_valence: float
    functional: str
    relativistic: str
    kind: str
    projectors: int
    wfc_cutoff_Ry: float | None
    rho_cutoff_Ry: float | None
    sha256: str


def read_header(path: str | Path) -> Pseudopotential:
    """Read the header of a UPF file (version 2; version 1 in its plain form).

    Raises
    ------
    InputError
        ``no-such-file``, ``not-upf``, ``pseudo-incomplete`` (the end of the file is missing), ``pseudo-no-element``.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError("no-such-file", f"{file}: {error.strerror or error}") from None
    head = raw[:_HEAD_BYTES].decode("latin-1")
    if "<PP_HEADER" not in head:
        raise InputError("not-upf", f"{file} has no PP_HEADER: not a UPF pseudopotential")
    if not re.search(rb"</UPF>|</PP_RHOATOM>", raw[-4000:]):
        raise InputError("pseudo-incomplete", f"{file} is cut: its end is missing; fetch it again")
    values = _version_2(head) or _version_1(head)
    element = values.get("element", "").strip().capitalize()
    if not element or not re.fullmatch(r"[A-Z][a-z]?", element):
        raise InputError("pseudo-no-element", f"{file}: the header names no element")
    try:
        z_valence = float(values["z_valence"].replace("D", "E").replace("d", "e"))
    except (KeyError, ValueError):
        raise InputError("not-upf", f"{file}: the header states no valence charge") from None
    return Pseudopotential(
        path=file,
        element=element,
        z_valence=z_valence,
        functional=_functional(values.get("functional", "")),
        relativistic=values.get("relativistic", "unknown").strip().lower() or "unknown",
        kind=_kind(values),
        projectors=int(float(values.get("number_of_proj", "0") or 0)),
        wfc_cutoff_Ry=_cutoff(values, "wfc_cutoff"),
        # Norm-conserving files put a radius here (18.75 bohr in PseudoDojo's); a real one comes with the other.
        rho_cutoff_Ry=_cutoff(values, "rho_cutoff") if _cutoff(values, "wfc_cutoff") else None,
        sha256=digest(file),
    )


def find(folder: str | Path, elements: Iterable[str]) -> dict[str, Pseudopotential]:
    """Choose one file for every element of a crystal.

    Parameters
    ----------
    folder : path
        Searched without its subfolders for ``*.upf`` in any case.
    elements : iterable of str
        Element symbols.

    Returns
    -------
    dict
        Element -> pseudopotential, in the order asked for.

    Raises
    ------
    InputError
        ``no-such-folder``; ``missing-pseudopotential`` (lists every missing element at once);
        ``wrong-element`` (a file named after one element holds another); ``ambiguous-pseudopotential``;
        ``spin-orbit-pseudopotential``; ``mixed-functionals``; and those of `read_header` for a file named after an
        element asked for.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError("no-such-folder", f"{place} is no folder of pseudopotentials")
    files = sorted(f for f in place.iterdir() if f.suffix.lower() == ".upf" and f.is_file())
    chosen: dict[str, Pseudopotential] = {}
    missing: list[str] = []
    for element in dict.fromkeys(elements):
        named = [f for f in files if _element_in_name(f.name) == element]
        if not named:
            missing.append(element)
            continue
        chosen[element] = _one_of(named, element)
    if missing:
        raise InputError(
            "missing-pseudopotential",
            f"{place} has no pseudopotential for {', '.join(missing)} (files are named after the element: Al.upf); "
            "`onnes pseudo install` fetches 72 elements",
        )
    functionals = {p.functional for p in chosen.values()}
    if len(functionals) > 1:
        listed = ", ".join(f"{p.path.name} {p.functional}" for p in chosen.values())
        raise InputError("mixed-functionals", f"one functional is needed for all elements: {listed}")
    return chosen


def suggested_cutoffs(
    chosen: Mapping[str, Pseudopotential], level: str, factor: float = 1.0
) -> tuple[float, float]:
    """Cut-offs of wave functions and density for a set of pseudopotentials.

    Parameters
    ----------
    chosen : mapping
        Element -> pseudopotential.
    level : {"low", "normal", "high"}
        Column of the table.
    factor : float
        Multiplies the wave-function cut-off.

    Returns
    -------
    (float, float)
        ``ecutwfc`` and ``ecutrho`` in Ry. The header's suggestion counts where there is one; the table belongs to
        norm-conserving files. The density gets 4 times the former, 8 times for ultrasoft and PAW files, or more where
        a header says so.

    Raises
    ------
    InputError
        ``no-cutoff``: an ultrasoft or PAW file without a suggestion, or an element outside the table.
    """
    wave, density, ratio = 0.0, 0.0, 4.0
    for element, pseudo in chosen.items():
        if pseudo.kind != "NC":
            ratio = 8.0
        if pseudo.wfc_cutoff_Ry:
            wave = max(wave, pseudo.wfc_cutoff_Ry)
            density = max(density, pseudo.rho_cutoff_Ry or 0.0)
        elif pseudo.kind == "NC" and element in CUTOFFS:
            wave = max(wave, float(getattr(CUTOFFS[element], f"{level}_Ry")))
        else:
            raise InputError(
                "no-cutoff",
                f"{pseudo.path.name} ({pseudo.kind}) suggests no cut-off and the table has none for it; give --ecut",
            )
    wave = float(round(wave * factor))
    return wave, max(ratio * wave, float(round(density * factor)))


def _version_2(head: str) -> dict[str, str]:
    found = re.search(r"<PP_HEADER\b([^>]*)>", head)
    if found is None:
        return {}
    pairs = _ATTRIBUTE.findall(found[1])
    return {name.lower(): html.unescape(a or b) for name, a, b in pairs}


def _version_1(head: str) -> dict[str, str]:
    """Header of the old format: one value a line, its name behind it."""
    found = re.search(r"<PP_HEADER>(.*?)</PP_HEADER>", head, re.DOTALL)
    values: dict[str, str] = {}
    for line in found[1].splitlines() if found else ():
        first = line.split()[:1]
        if not first:
            continue
        if "Element" in line:
            values["element"] = first[0]
        elif "Z valence" in line:
            values["z_valence"] = first[0]
        elif "Exchange-Correlation" in line:
            values["functional"] = line.split("Exchange-Correlation")[0]
        elif "Ultrasoft" in line or re.search(r"\bNC\b.*Norm", line):
            values["pseudo_type"] = first[0]
        elif "cutoff for wfc" in line or "Suggested cutoff" in line:
            numbers = line.split()[:2]
            values["wfc_cutoff"], values["rho_cutoff"] = numbers[0], numbers[-1]
        elif "Number of Wavefunctions" in line:
            values["number_of_proj"] = line.split()[1]
    return values


def _functional(text: str) -> str:
    words = text.replace("+", " ").lower().split()
    # The old format lists four components and the short name behind them.
    known = _FUNCTIONALS.get(" ".join(words)) or _FUNCTIONALS.get(" ".join(words[:4]))
    return known or " ".join(text.split()) or "unknown"


def _kind(values: Mapping[str, str]) -> str:
    kind = values.get("pseudo_type", "").strip().upper()
    if values.get("is_paw", "").strip().lower().startswith(("t", ".t")) or kind == "PAW":
        return "PAW"
    return "US" if kind in ("US", "USPP") else "NC"


def _cutoff(values: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(values.get(name, "0").strip() or 0)
    except ValueError:
        return None
    return value if value > 1.0 else None


def _element_in_name(name: str) -> str:
    """Element a file is named after: ``Al.upf``, ``al_pbesol_v1.uspp.F.UPF``, ``Nb-sp.upf``; empty if none."""
    found = re.match(r"([A-Za-z]{1,2})(?=[^A-Za-z]|$)", name)
    return found[1].capitalize() if found else ""


def _one_of(files: list[Path], element: str) -> Pseudopotential:
    """The only fitting file of several named after an element."""
    read = [read_header(f) for f in files]
    for pseudo in read:
        if pseudo.element != element:
            raise InputError(
                "wrong-element",
                f"{pseudo.path.name} is named after {element} but its header says {pseudo.element}; refused",
            )
    scalar = [p for p in read if p.relativistic != "full"]
    if not scalar:
        raise InputError(
            "spin-orbit-pseudopotential",
            f"{read[0].path.name} is fully relativistic; scalar-relativistic files are needed here",
        )
    if len({p.sha256 for p in scalar}) > 1:
        names = ", ".join(p.path.name for p in scalar)
        raise InputError(
            "ambiguous-pseudopotential", f"several files for {element}: {names}; keep one in the folder"
        )
    return scalar[0]
