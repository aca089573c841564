"""Plane-wave cut-offs and valence charges of the recommended pseudopotentials.

The table is that of PseudoDojo 0.4, PBEsol, scalar relativistic, standard accuracy (M. J. van Setten et al., Comput.
Phys. Commun. 226, 39 (2018)): the files themselves carry no usable hint. Facts transcribed by hand, in Ha as
published; there is nothing for Ce to Yb, At, Fr, Ra and the actinides.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnes.errors import InputError

# Element: valence charge, cut-offs low, normal, high in Ha.
_TABLE = """
H 1 32 36 42; He 2 39 45 49; Li 3 33 37 41; Be 4 38 44 50; B 3 34 38 44; C 4 37 41 45; N 5 36 42 48; O 6 36 42 48;
F 7 36 42 48; Ne 8 30 34 40; Na 9 38 44 48; Mg 10 38 42 48; Al 3 16 20 26; Si 4 14 18 24; P 5 18 22 28; S 6 20 26 32;
Cl 7 25 29 33; Ar 8 29 33 37; K 9 33 37 43; Ca 10 28 34 38; Sc 11 35 39 45; Ti 12 38 42 46; V 13 38 42 48;
Cr 14 43 47 55; Mn 15 42 48 54; Fe 16 41 45 53; Co 17 42 48 54; Ni 18 45 49 55; Cu 19 42 46 52; Zn 20 38 42 48;
Ga 13 36 40 46; Ge 14 35 39 45; As 15 38 42 48; Se 16 39 43 49; Br 7 19 23 29; Kr 8 22 26 34; Rb 9 19 23 29;
Sr 10 28 34 40; Y 11 30 36 42; Zr 12 29 33 49; Nb 13 37 41 49; Mo 14 36 40 46; Tc 15 38 42 48; Ru 16 38 42 50;
Rh 17 40 44 50; Pd 18 37 41 49; Ag 19 37 41 47; Cd 20 47 51 57; In 13 31 35 41; Sn 14 32 36 42; Sb 15 36 40 44;
Te 16 34 40 46; I 7 31 35 41; Xe 8 28 34 42; Cs 9 19 25 29; Ba 10 18 22 28; La 11 50 55 65; Lu 25 46 50 58;
Hf 12 25 29 35; Ta 13 25 29 35; W 14 31 37 41; Re 15 30 36 42; Os 16 33 37 43; Ir 17 30 34 40; Pt 18 38 42 50;
Au 19 32 38 44; Hg 20 29 33 39; Tl 13 27 31 37; Pb 14 24 28 34; Bi 15 29 33 37; Po 16 28 32 38; Rn 18 32 36 42
"""


@dataclass(frozen=True)
class Cutoffs:
    """Published hints of one element.

    Attributes
    ----------
    z_valence : float
        Electrons treated explicitly.
    low_Ry, normal_Ry, high_Ry : float
        Kinetic-energy cut-offs of wave functions.
    """

    z_valence: float
    low_Ry: float
    normal_Ry: float
    high_Ry: float


def _parse() -> dict[str, Cutoffs]:
    rows = (entry.split() for entry in _TABLE.replace("\n", " ").split(";"))
    return {
        symbol: Cutoffs(float(z), 2 * float(low), 2 * float(normal), 2 * float(high))
        for symbol, z, low, normal, high in rows
    }


#: Element symbol -> hints, 72 elements.
CUTOFFS: dict[str, Cutoffs] = _parse()


def cutoffs_of(symbol: str) -> Cutoffs:
    """Hints of an element.

    Raises
    ------
    InputError
        ``no-cutoff``.
    """
    try:
        return CUTOFFS[symbol]
    except KeyError:
        raise InputError(
            "no-cutoff", f"no cut-off is known for {symbol}: PseudoDojo 0.4 has no such element; give --ecut"
        ) from None
