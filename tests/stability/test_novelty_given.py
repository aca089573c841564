"""A user's crystals as reference, and candidates among themselves: the structure matcher decides."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import InputError
from onnes.stability.novelty import Novelty
from onnes.stability.novelty_given import Collection


def mgb2(a: float = 3.08) -> Structure:
    lattice = Lattice.hexagonal(a, 1.14 * a)
    return Structure.from_spacegroup("P6/mmm", lattice, ["Mg", "B"], [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])


def fluorite() -> Structure:
    return Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(6.0), ["Mg", "B"], [[0, 0, 0], [0.25, 0.25, 0.25]]
    ).get_primitive_structure()


NEW = Novelty("new-composition", "x", 0.3, "composition", "jarvis")
OTHER = Novelty("known-composition-new-structure", "mp-1", 0.2, "same-formula", "jarvis")


def test_equal_crystals_are_found_in_any_cell_and_size():
    held = Collection()
    held.add("a", fluorite())
    held.add("b", mgb2())
    big = mgb2(3.2)
    big.make_supercell([[1, 1, 0], [0, 2, 0], [0, 0, 1]])
    big.translate_sites(range(len(big)), [0.13, 0.2, 0.4])
    match = held.nearest(big)
    assert match is not None and (match.id, match.same) == ("b", True)
    assert held.nearest(Structure(Lattice.cubic(3), ["Al"], [[0, 0, 0]])) is None


def test_other_structure_of_the_formula_is_near_but_not_the_same():
    held = Collection()
    held.add("a", fluorite())
    match = held.nearest(mgb2())
    assert match is not None and not match.same and match.distance > 0.1


def test_first_of_equals_is_named():
    held = Collection()
    held.add("first", mgb2())
    held.add("second", mgb2(3.1))
    assert held.nearest(mgb2(3.1)).id == "first"


def test_a_match_here_makes_known():
    held = Collection()
    held.add("mine", mgb2())
    for found in (NEW, OTHER):
        answer = held.judge(mgb2(3.1), found)
        assert (answer.novelty, answer.known_id, answer.source) == ("known", "mine", "user")
    known = Novelty("known", "mp-763", 0.01, "same-formula", "materials-project")
    answer = held.judge(mgb2(3.1), known)
    assert (answer.known_id, answer.source) == ("mp-763", "materials-project user")


def test_the_same_formula_here_makes_the_composition_known():
    held = Collection()
    held.add("mine", fluorite())
    answer = held.judge(mgb2(), NEW)
    assert (answer.novelty, answer.known_id) == ("known-composition-new-structure", "mine")
    assert held.judge(mgb2(), OTHER) == OTHER  # the index' crystal is nearer
    far = Novelty("known-composition-new-structure", "mp-1", 50.0, "same-formula", "jarvis")
    assert held.judge(mgb2(), far).known_id == "mine"
    known = Novelty("known", "mp-763", 0.01, "same-formula", "jarvis")
    assert held.judge(mgb2(), known) == known


def test_folder_with_a_broken_file(tmp_path):
    mgb2().to(str(tmp_path / "MgB2.cif"))
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a 3\n")
    held = Collection.read([tmp_path])
    assert len(held) == 1 and [r.id for r in held.refused] == ["broken"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty-folder"):
        Collection.read([tmp_path / "empty"])
