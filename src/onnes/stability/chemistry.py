"""Chemistry screens fit for metals: elements one does not want, and charge balance as information only.

No screen asks for oxidation states: an alloy or a boride has none, and a rule that wants them throws out most
superconductors. Where a composition could be ionic, `charge_balance` says whether common oxidation states add up to
zero; nothing is refused for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from onnes.crystal.formula import atomic_numbers, formula_of, symbols
from onnes.crystal.read import Crystal, Refused
from onnes.errors import SettingsError

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Harmonised classification of the element itself in Annex VI, table 3, of Regulation (EC) No 1272/2008 (CLP), where
#: it is carcinogenic, mutagenic or toxic for reproduction of category 1A or 1B, or acutely toxic of category 1 or 2.
#: Arsenic stands for its compounds (diarsenic trioxide: Carc. 1A). Nickel (Carc. 2) and selenium (Acute Tox. 3) are
#: below the line. Left out are elements whose class is that of the elemental gas or liquid (Br2: Acute Tox. 2; F2, Cl2)
#: and of white phosphorus: it does not describe bromides, chlorides, fluorides and phosphides. Uranium is radioactive,
#: too.
TOXIC: Mapping[str, str] = {
    "As": "compounds Carc. 1A",
    "Be": "Carc. 1B",
    "Cd": "Carc. 1B",
    "Co": "Carc. 1B",
    "Hg": "Repr. 1B",
    "Pb": "Repr. 1A",
    "Te": "Repr. 1B",
    "Tl": "Acute Tox. 2",
    "U": "Acute Tox. 2",
}
#: Elements without a stable isotope: Tc, Pm and everything from Po on (Th and U, too). Bismuth, whose half-life is 1e9
#: times the age of the universe (de Marcillac et al., Nature 422, 876 (2003)), counts as stable.
FIRST_RADIOACTIVE = 84
OTHER_RADIOACTIVE = ("Tc", "Pm")

#: Abundance in the Earth's crust, mg/kg: CRC Handbook of Chemistry and Physics, "Abundance of elements in the Earth's
#: crust and in the sea" (97th edition, section 14). Elements that are not listed there do not occur: 0.
_CRUST = """
H 1.40e3 He 0.008 Li 20 Be 2.8 B 10 C 200 N 19 O 4.61e5 F 585 Ne 0.005 Na 2.36e4 Mg 2.33e4 Al 8.23e4 Si 2.82e5
P 1.05e3 S 350 Cl 145 Ar 3.5 K 2.09e4 Ca 4.15e4 Sc 22 Ti 5.65e3 V 120 Cr 102 Mn 950 Fe 5.63e4 Co 25 Ni 84 Cu 60
Zn 70 Ga 19 Ge 1.5 As 1.8 Se 0.05 Br 2.4 Kr 1e-4 Rb 90 Sr 370 Y 33 Zr 165 Nb 20 Mo 1.2 Ru 0.001 Rh 0.001 Pd 0.015
Ag 0.075 Cd 0.15 In 0.25 Sn 2.3 Sb 0.2 Te 0.001 I 0.45 Xe 3e-5 Cs 3 Ba 425 La 39 Ce 66.5 Pr 9.2 Nd 41.5 Sm 7.05
Eu 2.0 Gd 6.2 Tb 1.2 Dy 5.2 Ho 1.3 Er 3.5 Tm 0.52 Yb 3.2 Lu 0.8 Hf 3.0 Ta 2.0 W 1.25 Re 7e-4 Os 0.0015 Ir 0.001
Pt 0.005 Au 0.004 Hg 0.085 Tl 0.85 Pb 14 Bi 0.0085 Po 2e-10 Rn 4e-13 Ra 9e-7 Ac 5.5e-10 Th 9.6 Pa 1.4e-6 U 2.7
"""
CRUST_PPM: Mapping[str, float] = {
    symbol: float(value) for symbol, value in zip(*[iter(_CRUST.split())] * 2, strict=True)
}

#: Elements that form anions in ionic crystals. H, B, C, Si, P and As build metals, too: alone they make nothing ionic.
ANIONS = frozenset(("N", "O", "F", "S", "Cl", "Se", "Br", "Te", "I"))


def radioactive(symbol: str) -> bool:
    """Whether an element has no stable isotope."""
    return symbol in OTHER_RADIOACTIVE or atomic_numbers()[symbol] >= FIRST_RADIOACTIVE


@dataclass(frozen=True)
class Chemistry:
    """What is not wanted.

    Attributes
    ----------
    no_radioactive : bool
        Refuse elements without a stable isotope.
    no_toxic : bool
        Refuse the elements of `TOXIC`.
    min_abundance_ppm : float
        Refuse elements that are rarer in the Earth's crust, mg/kg (gold 0.004, niobium 20).
    exclude : tuple of str
        Refuse these elements.
    min_elements, max_elements : int
        Number of different elements.

    Raises
    ------
    SettingsError
        ``unknown-element``, ``bad-setting``.
    """

    no_radioactive: bool = False
    no_toxic: bool = False
    min_abundance_ppm: float = 0.0
    exclude: tuple[str, ...] = ()
    min_elements: int = 1
    max_elements: int = 118

    def __post_init__(self) -> None:
        wrong = [s for s in self.exclude if s not in atomic_numbers()]
        if wrong:
            raise SettingsError("unknown-element", f"{wrong[0]!r} is no element; give symbols such as Tl,Pb")
        if not 0.0 <= self.min_abundance_ppm < float("inf"):
            raise SettingsError(
                "bad-setting", f"an abundance of {self.min_abundance_ppm} ppm cannot be asked for"
            )
        if not 1 <= self.min_elements <= self.max_elements:
            raise SettingsError(
                "bad-setting", f"between {self.min_elements} and {self.max_elements} elements is no range"
            )

    def refusal(self, elements: Iterable[str]) -> tuple[str, str] | None:
        """Reason code and one line, or None when nothing speaks against these elements.

        Parameters
        ----------
        elements : iterable of str
            Symbols.
        """
        names = sorted(set(elements))
        for code, found, words in (
            ("chemistry-excluded", [s for s in names if s in self.exclude], "excluded"),
            (
                "chemistry-radioactive",
                [s for s in names if self.no_radioactive and radioactive(s)],
                "radioactive",
            ),
            (
                "chemistry-toxic",
                [f"{s} ({TOXIC[s]})" for s in names if self.no_toxic and s in TOXIC],
                "toxic",
            ),
            ("chemistry-rare", self._rare(names), f"rarer than {self.min_abundance_ppm:g} ppm"),
        ):
            if found:
                return code, f"{', '.join(found)}: {words}"
        if len(names) < self.min_elements:
            return (
                "chemistry-too-few-elements",
                f"{len(names)} elements; at least {self.min_elements} are wanted",
            )
        if len(names) > self.max_elements:
            return (
                "chemistry-too-many-elements",
                f"{len(names)} elements; at most {self.max_elements} are wanted",
            )
        return None

    def _rare(self, names: list[str]) -> list[str]:
        rare = [s for s in names if CRUST_PPM.get(s, 0.0) < self.min_abundance_ppm]
        return [f"{s} ({CRUST_PPM.get(s, 0.0):g} ppm)" for s in rare]

    def screen(self, items: Iterable[Crystal | Refused]) -> Iterator[Crystal | Refused]:
        """Pass crystals on; those with unwanted elements become `Refused` with a reason code.

        Parameters
        ----------
        items : iterable of Crystal or Refused
        """
        for item in items:
            found = None if isinstance(item, Refused) else self.refusal(symbols(item.structure))
            if found is None:
                yield item
            else:
                assert isinstance(item, Crystal)
                yield Refused(item.id, item.source, found[0], found[1], formula_of(symbols(item.structure)))


def charge_balance(structure: Structure) -> str:
    """Whether common oxidation states could add up to zero. Information: no screen refuses for it.

    Every element takes states of one sign, its atoms may differ (Fe3O4 balances); cations must not be more
    electronegative than anions. The rule of SMACT (Davies et al., J. Open Source Softw. 4, 1361 (2019)) with mixed
    valence, over pymatgen's common oxidation states.

    Parameters
    ----------
    structure : pymatgen Structure
        Ordered.

    Returns
    -------
    str
        ``balanced``, ``unbalanced``, or ``not-asked`` for elements and compounds without an element of `ANIONS`.
    """
    from collections import Counter
    from math import gcd

    counts = Counter(symbols(structure))
    if len(counts) < 2 or not ANIONS & counts.keys():
        return "not-asked"
    divisor = gcd(*counts.values())
    names = sorted(counts)
    return "balanced" if _balances(names, [counts[s] // divisor for s in names]) else "unbalanced"


def _balances(names: list[str], counts: list[int]) -> bool:
    from pymatgen.core import Element

    elements = [Element(s) for s in names]
    sums = []
    for element, count in zip(elements, counts, strict=True):
        states = element.common_oxidation_states
        negative, positive = (
            _sums([q for q in states if q < 0], count),
            _sums([q for q in states if q > 0], count),
        )
        sums.append([(sign, found) for sign, found in ((-1, negative), (1, positive)) if found])
    for chosen in product(*sums):
        if _ordered([e.X for e in elements], [sign for sign, _ in chosen]) and _zero([f for _, f in chosen]):
            return True
    return False


def _sums(states: list[int], count: int) -> frozenset[int]:
    """All totals that `count` atoms in these states can have."""
    totals = frozenset([0]) if states else frozenset()
    for _ in range(count):
        totals = frozenset(t + q for t in totals for q in states)
    return totals


def _ordered(electronegativity: list[float], signs: list[int]) -> bool:
    """Cations and anions are there, and no cation is more electronegative than an anion."""
    cations = [x for x, s in zip(electronegativity, signs, strict=True) if s > 0]
    anions = [x for x, s in zip(electronegativity, signs, strict=True) if s < 0]
    return bool(cations and anions) and max(cations) <= min(anions)


def _zero(choices: list[frozenset[int]]) -> bool:
    totals = {0}
    for choice in choices:
        totals = {t + q for t in totals for q in choice}
    return 0 in totals
