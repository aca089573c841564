"""Learned order of prototype substitution: what it sees, and that it is used where it was trained for."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from onnes.errors import CrystalError, ModelError, SettingsError
from onnes.generate.evidence import COLUMNS, COMPARED, FEWEST, KIND, PrototypeOrder, compared, rows_of
from onnes.generate.prototypes import FAR, TEMPERATURES, Templates, pool, substitute, template
from onnes.generate.ranking import fitting, learned
from onnes.generate.site_sampling import Wish
from onnes.learn.store import Checkpoint

ALKALI, HALOGEN = ("Li", "Na", "K", "Rb", "Cs"), ("F", "Cl", "Br", "I")


def binary(group, a, one, two, frac):
    return Structure.from_spacegroup(group, Lattice.cubic(a), [one, two], [[0, 0, 0], frac])


@lru_cache(maxsize=1)
def described():
    """Each halide in rock salt and in caesium chloride."""
    return [
        (
            template(f"{a}{x}", binary(225, 6.0, a, x, [0.5, 0, 0])),
            template(f"h{a}{x}", binary(221, 3.7, a, x, [0.5, 0.5, 0.5]), home=True),
        )
        for a in ALKALI
        for x in HALOGEN
    ]


def known(home, repeat=1):
    """Halides in rock salt, and in caesium chloride where the home data set has them."""
    pairs = [pair if home else pair[:1] for pair in described()]
    return Templates(replace(t, id=f"{t.id}-{r}") for r in range(repeat) for pair in pairs for t in pair)


def test_evidence_counts_all_templates_and_those_at_home():
    found, total = pool("NaAt", known(home=True))
    assert {g.crystal.number for g in found} == {221, 225}
    for g in found:
        everyone, home = g.evidence.votes
        assert everyone.shape == (len(TEMPERATURES),) and (np.diff(everyone) > 0).all()
        if g.crystal.number == 221:
            assert np.allclose(everyone, home) and g.evidence.home == 20
            assert g.evidence.nearest[0] == g.evidence.nearest[1] == pytest.approx(g.distance)
        else:
            assert (home == 0).all() and g.evidence.home == 0 and g.evidence.nearest[1] == FAR
    assert np.allclose(total, sum(g.evidence.votes for g in found))
    # What `substitute` says is untouched: same crystals, same shares.
    plain = substitute("NaAt", known(home=True))
    assert [(g.crystal.number, g.share) for g in plain] == [(g.crystal.number, g.share) for g in found]


def test_columns_are_finite_and_named():
    found, total = pool("NaAt", known(home=False))
    rows = rows_of([g.crystal for g in found], [g.evidence for g in found], total)
    assert rows.shape == (1, len(COLUMNS)) and np.isfinite(rows).all()
    named = dict(zip(COLUMNS, rows[0], strict=True))
    assert named["atoms"] == 2 and named["orbits"] == 2 and named["free parameters"] == 0
    assert named["space group"] == 225 and named["crystal system"] == 6
    assert named["distance beyond the nearest"] == 0 and named["log share of votes at 0.05"] == pytest.approx(
        0, abs=1e-5
    )
    assert named["log share of votes at 0.05, home"] == pytest.approx(np.log(1e-4))


def test_trees_also_see_how_far_a_guess_is_behind_the_best():
    found, total = pool("NaAt", known(home=True))
    rows = rows_of([g.crystal for g in found], [g.evidence for g in found], total)
    seen = compared(rows)
    assert seen.shape == (2, len(COMPARED)) and np.array_equal(seen[:, : len(COLUMNS)], rows)
    behind = seen[:, len(COLUMNS) :]
    assert (behind <= 0).all() and (behind.max(axis=0) == 0).all()
    # A guess that is alone is behind nobody.
    assert (compared(rows[:1])[:, len(COLUMNS) :] == 0).all()


def test_chances_add_up_and_the_home_data_set_counts_for_more():
    order = PrototypeOrder()
    many = known(home=True, repeat=6)
    guesses = order.guesses("NaAt", many)
    assert sum(chance for _, chance in guesses) == pytest.approx(1.0)
    assert [c for _, c in guesses] == sorted((c for _, c in guesses), reverse=True)
    # As many templates say rock salt as caesium chloride, but only the second is what the data set holds.
    chance = {g.crystal.number: c for g, c in guesses}
    assert chance[221] > chance[225]
    assert len(order.guesses("NaAt", many, 1)) == 1
    assert order.chances([], np.zeros((2, 5))).shape == (0,)
    with pytest.raises(CrystalError):
        order.guesses("Al7B3", many)
    with pytest.raises(SettingsError, match="no-home-templates"):
        order.guesses("NaAt", known(home=True))


def test_learned_order_needs_templates_of_the_home_data_set():
    few, many = known(home=True), known(home=True, repeat=6)
    assert few.at_home < FEWEST <= many.at_home and not learned(few) and learned(many)
    wish = Wish(formula={11: 1, 85: 1})
    by_votes = [(g.share, chance) for g, chance in fitting(wish, few)]
    assert all(share == chance for share, chance in by_votes)
    by_order = {g.crystal.number: chance for g, chance in fitting(wish, many)}
    assert by_order == {g.crystal.number: c for g, c in PrototypeOrder().guesses("NaAt", many)}
    assert [g.crystal.number for g, _ in fitting(Wish(formula={11: 1, 85: 1}, group=225), many)] == [225]


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    Checkpoint("diffusion", {}, {}, {}).save(path)
    with pytest.raises(ModelError) as refused:
        PrototypeOrder(path)
    assert refused.value.code == "wrong-model"


def test_trees_of_other_columns_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    Checkpoint(KIND, {"base": 0.0, "columns": list(COLUMNS)}, {}, {}).save(path)
    with pytest.raises(ModelError) as refused:
        PrototypeOrder(path)
    assert refused.value.code == "other-columns"
