"""Words and numbers as a reader sees them: reasons in plain English, subscripts, rounded values."""

from __future__ import annotations

import html
import math
import re
from typing import Any

#: What each stage asks, in the order of the funnel. Stages of other names are placed before ``rank``.
STAGES: dict[str, tuple[str, str]] = {
    "generate": ("Generated", "crystals drawn from the generator or read from files"),
    "read": ("Read", "files that could be read as crystals"),
    "check": ("Valid crystal", "no overlapping atoms, sensible cell and density"),
    "prescreen": ("Pre-screen", "metallic enough for phonon-mediated pairing"),
    "unique": ("Unique", "not a duplicate of another crystal of this run"),
    "relax": ("Relaxed", "forces and stress relaxed with the interatomic potential"),
    "symmetry": ("Symmetry", "space group found, primitive cell taken"),
    "distinct": ("Distinct", "still not a duplicate after relaxation"),
    "novel": ("New", "not already in the collection of known crystals"),
    "hull": ("Stable", "formation energy and energy above the convex hull within limits"),
    "predict": ("Superconductor", "predicted critical temperature above the limit"),
    "verify": ("Verified", "electron-phonon calculation from first principles"),
    "rank": ("Candidates", "survivors in order of merit"),
    "dossier": ("Dossiers", "alpha2F, all models and the nearest known crystal of the best candidates"),
    "phonons": ("Phonons", "bands and densities of states of the best candidates"),
}

#: Reason codes in words. A code that is missing here is shown with its hyphens turned into spaces.
REASONS: dict[str, str] = {
    "overlapping-atoms": "atoms closer to each other than any bond allows",
    "isolated-atom": "an atom with no neighbour within reach",
    "too-many-atoms": "more atoms in the cell than the limit",
    "zero-volume": "the cell vectors span no volume",
    "huge-cell": "the cell is far larger than that of any crystal",
    "flat-cell": "the cell is flat: its planes lie too close together",
    "left-handed": "the cell vectors are left-handed",
    "non-finite": "coordinates or cell contain a number that is not finite",
    "partial-occupancy": "sites are only partly occupied",
    "unknown-element": "contains an element that the model does not know",
    "potential-unknown-element": "contains an element that the potential does not know",
    "no-atoms": "the cell holds no atoms",
    "packing-out-of-range": "atoms fill too much or too little of the cell",
    "chemistry-excluded": "contains an excluded element",
    "chemistry-radioactive": "contains an element without a stable isotope",
    "chemistry-toxic": "contains a toxic element",
    "chemistry-rare": "contains an element that is too rare",
    "chemistry-too-few-elements": "fewer elements than wanted",
    "chemistry-too-many-elements": "more elements than wanted",
    "chemistry-missing": "lacks an element that was asked for",
    "wrong-dimensions": "a slab, chain, molecule or bulk crystal where another was asked for",
    "not-relaxed": "forces are too large for a crystal that is relaxed already",
    "classifier": "more likely an insulator or a magnet than an electron-phonon superconductor",
    "dos-low": "too few electronic states at the Fermi level",
    "dos-unknown": "the density of states given at the Fermi level is no number",
    "debye-low": "Debye temperature too low",
    "debye-unknown": "no Debye temperature could be given",
    "no-bonds": "no atom has a neighbour within reach of the network",
    "duplicate": "same crystal as an earlier one of this run",
    "not-converged": "relaxation did not converge within the allowed steps",
    "diverged": "relaxation left the physical range",
    "steps": "relaxation did not converge within the allowed steps",
    "volume": "the volume changed beyond the limit in the relaxation",
    "exploded": "forces or energy of the relaxation left the physical range",
    "close": "atoms came too close to each other in the relaxation",
    "isolated": "an atom lost all its neighbours in the relaxation",
    "nan": "a number of the relaxation is not finite",
    "energy": "the energy rose in the relaxation",
    "hopeless": "relaxation given up: neither energy nor forces fell any more",
    "symmetry": "relaxation left the space group it was to keep",
    "potential-refused": "the potential has no energy for it",
    "dock-failed": "clashing atoms could not be separated",
    "known-crystal": "already in the collection of known crystals",
    "e-hull-above-limit": "energy above the convex hull beyond the limit",
    "positive-formation-energy": "formation energy is positive: the elements are lower in energy",
    "unknown-references": "no reference energies for one of the elements",
    "tc-below-limit": "predicted critical temperature below the limit",
    "gap-above-limit": "a band gap is likely: no metal",
    "out-of-domain": "unlike anything the predictor was trained on",
    "imaginary-modes": "imaginary phonon modes in DFT",
    "dft-not-converged": "the DFT calculation did not converge",
    "unstable": "imaginary phonon modes",
    "insulator": "an insulator in DFT",
    "magnetic": "magnetic in DFT",
    "failed": "no label: its calculation failed",
    "refused": "no label: its calculation could not be begun",
    "not-in-table": "not in the table of labels",
    "no-plateau": "lambda does not level off with the broadening",
    "internal-error": "the program failed on this crystal (it is tried again on resume)",
    "worker-died": "the process that worked on this crystal ended (it is tried again on resume)",
}

MISSING = "\N{EN DASH}"
_SUBSCRIPTS = str.maketrans("0123456789.", "₀₁₂₃₄₅₆₇₈₉.")
_COUNT = re.compile(r"(?<=[A-Za-z)\]])(\d+(?:\.\d+)?)")


def stage_title(stage: str) -> str:
    """Name of a stage for a reader; an unknown stage keeps its own name, capitalised."""
    return STAGES[stage][0] if stage in STAGES else stage.replace("_", " ").replace("-", " ").capitalize()


def reason_code(reason: str) -> str:
    """The part of a reason that is counted: the code in front of a colon."""
    return reason.split(":", 1)[0].strip() or "no reason given"


def reason_words(reason: str) -> str:
    """A reason in plain words, with whatever detail follows the code."""
    code, _, detail = reason.partition(":")
    code = code.strip()
    words = REASONS.get(code, code.replace("-", " ").replace("_", " ") or "no reason given")
    return f"{words} ({detail.strip()})" if detail.strip() else words


def finite(value: Any) -> float | None:
    """Return ``value`` as a finite float, or None for anything that is not one."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def show(value: Any, digits: int = 2, unit: str = "") -> str:
    """Format a number with fixed digits, a real minus sign and a unit; an en dash when it is missing."""
    number = finite(value)
    if number is None:
        return MISSING
    text = f"{number:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}") + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")


def show_any(value: Any) -> str:
    """Format a value of any kind found in a verdict: numbers to four significant digits, text as it is."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else MISSING
    if isinstance(value, (list, tuple)):
        return ", ".join(show_any(entry) for entry in value) or "none"
    return str(value)


def show_seconds(seconds: float) -> str:
    """Format a duration: ``41 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def subscript_html(formula: str) -> str:
    """Escape a formula and lower its counts: ``MgB2`` becomes ``MgB<sub>2</sub>``."""
    # Quotes stay: their entities hold digits, and the result is text, never an attribute.
    return _COUNT.sub(r"<sub>\1</sub>", html.escape(formula, quote=False))


def subscript_text(formula: str) -> str:
    """Lower the counts of a formula with Unicode digits, for terminals and hover labels."""
    return _COUNT.sub(lambda match: match.group(1).translate(_SUBSCRIPTS), formula)


def space_group_html(symbol: str) -> str:
    """Escape a Hermann-Mauguin symbol, lower screw indices and put bars over inversion axes."""
    text = html.escape(symbol, quote=False)
    text = re.sub(r"_(\d)", r"<sub>\1</sub>", text)
    return re.sub(r"-(\d)", r'<span class="bar">\1</span>', text)
