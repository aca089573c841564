"""The nearest crystal of another composition, on an index made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.crystal.formula import reduced_formula
from onnes.errors import DataError
from onnes.stability.novelty import STEP, KnownCrystals, descriptor
from onnes.stability.novelty_near import parts


def perovskite(a: str, b: str, x: str) -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    return Structure.from_spacegroup("Pm-3m", Lattice.cubic(3.9), [a, b, x], sites)


def rocksalt(a: str, b: str) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.0), [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])


def caesium_chloride(a: str, b: str) -> Structure:
    return Structure(Lattice.cubic(3.0), [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])


def index(**crystals: tuple[Structure, int]) -> KnownCrystals:
    by_formula: dict[str, list] = {}
    for id, (structure, source) in crystals.items():
        by_formula.setdefault(reduced_formula(structure), []).append((id, descriptor(structure), source))
    formulas, ids, values, sources, starts = sorted(by_formula), [], [], [], [0]
    for formula in formulas:
        for id, vector, source in by_formula[formula]:
            ids.append(id)
            values.append(np.round(vector / STEP).astype(np.uint16))
            sources.append(source)
        starts.append(len(ids))
    return KnownCrystals(
        formulas,
        np.array(starts),
        ids,
        np.concatenate(values),
        "",
        np.array(sources),
        ("one", "two", "three"),
    )


KNOWN = index(
    catio3=(perovskite("Ca", "Ti", "O"), 1),
    srzro3=(perovskite("Sr", "Zr", "O"), 2),
    nacl=(rocksalt("Na", "Cl"), 1),
    nbn=(rocksalt("Nb", "N"), 4),
    nial=(caesium_chloride("Ni", "Al"), 1),
    mgb2=(
        Structure.from_spacegroup(
            "P6/mmm", Lattice.hexagonal(3.08, 3.52), ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]]
        ),
        3,
    ),
)


def test_same_structure_with_the_most_similar_elements():
    found = KNOWN.find(rocksalt("Ta", "N"))
    assert (found.novelty, found.known_id, found.nearness) == ("new-composition", "nbn", "same-prototype")
    assert found.distance == pytest.approx(0.0, abs=2e-3) and found.source == "three"
    assert KNOWN.find(rocksalt("K", "Br")).known_id == "nacl"
    assert KNOWN.find(caesium_chloride("Co", "Al")).known_id == "nial"


def test_elements_take_the_places_that_fit_not_those_of_the_alphabet():
    # In alphabetical order A comes first here and last there; the perovskites are the same structure all the same.
    found = KNOWN.find(perovskite("Ba", "Hf", "O"))
    assert (found.known_id, found.nearness) == ("srzro3", "same-prototype")
    found = KNOWN.find(perovskite("Zn", "Al", "N"))
    assert found.nearness == "same-prototype" and found.distance < 0.01


def test_without_the_structure_the_nearest_formula_answers():
    odd = Structure(
        Lattice.cubic(6.0), ["Mg", "B", "B", "B"], [[0, 0, 0], [0.3, 0, 0], [0, 0.3, 0], [0.6, 0.6, 0.6]]
    )
    found = KNOWN.find(odd)
    assert (found.novelty, found.known_id, found.nearness) == ("new-composition", "mgb2", "composition")
    # B3Mg and B2Mg share a quarter of Mg and two thirds of B.
    assert found.distance == pytest.approx(1 - 0.25 - 2 / 3, abs=1e-4) and found.source == "one two"


def test_nothing_in_common_has_no_nearest():
    found = KNOWN.find(Structure(Lattice.cubic(4.0), ["Xe"], [[0, 0, 0]]))
    assert (found.novelty, found.known_id, found.distance, found.nearness) == (
        "new-composition",
        "",
        None,
        "",
    )


def test_known_and_other_structure_name_their_source():
    known = KNOWN.find(rocksalt("Na", "Cl"))
    assert (known.novelty, known.known_id, known.source) == ("known", "nacl", "one")
    other = KNOWN.find(caesium_chloride("Na", "Cl"))
    assert (other.novelty, other.known_id) == ("known-composition-new-structure", "nacl")
    assert other.nearness == "same-formula" and other.distance > 0.1


def test_many_elements_fall_back_to_the_formula():
    """Seven elements of equal share could change places in 5040 ways: not tried, and said by the kind of nearness."""
    names = ["Ti", "Zr", "Hf", "V", "Nb", "Ta", "Mo"]
    alloy = Structure(Lattice.cubic(9.0), names, [[k / 7, 2 * k / 7 % 1, 3 * k / 7 % 1] for k in range(7)])
    held = index(one=(alloy, 1))
    swapped = alloy.copy()
    swapped.replace(0, "W")
    found = held.find(swapped)
    assert (found.known_id, found.nearness) == ("one", "composition")
    assert found.distance == pytest.approx(1 / 7, abs=1e-4)


def test_formulas_are_taken_apart():
    assert parts("B2Mg") == {"B": 2, "Mg": 1}
    assert parts("C") == {"C": 1} and parts("Al12Mg17") == {"Al": 12, "Mg": 17}


def test_inconsistent_index_is_named():
    with pytest.raises(DataError, match="damaged-table"):
        KnownCrystals(["Al"], np.array([0, 1]), ["a"], np.zeros(13, dtype=np.uint16), "", np.zeros(2))
