"""Likelihood of symbols: it learns, exchanges elements without merging them, and agrees with the sampler."""

from __future__ import annotations

import numpy as np
import torch

from onnes.generate.prototypes import element_features
from onnes.generate.site_loss import SiteLoss, in_order, likeness, relabelled, symbol_losses
from onnes.generate.site_sampling import SiteSampler, Wish
from onnes.nets.sites import MAX_Z, Asked, SiteSettings, position_table

SMALL = SiteSettings(hidden=32, layers=2, heads=4, dropout=0.0)


def features() -> torch.Tensor:
    return torch.as_tensor(element_features()[: MAX_Z + 1], dtype=torch.float32)


def crystals() -> dict[str, torch.Tensor]:
    """MgB2, NbC, ThCr2Si2-type BaFe2As2 and A15 Nb3Sn as symbols."""
    rows = [
        (191, [(0, 12), (3, 5)]),
        (225, [(0, 41), (1, 6)]),
        (139, [(0, 56), (3, 26), (4, 33)]),
        (223, [(0, 50), (2, 41)]),
    ]
    table = position_table()
    letters, kinds, n = torch.full((4, 3), -1), torch.zeros(4, 3, dtype=torch.long), []
    for i, (g, sites) in enumerate(rows):
        for j, (letter, z) in enumerate(sites):
            letters[i, j], kinds[i, j] = letter, z
        n.append(sum(int(table.multiplicity[g, letter]) for letter, _ in sites))
    return {
        "n": torch.tensor(n),
        "group": torch.tensor([g for g, _ in rows]),
        "letters": letters,
        "kinds": kinds,
        "log_tc": torch.tensor([1.6, 1.0, float("nan"), 1.26]),
        "stable": torch.ones(4, dtype=torch.long),
    }


def loss() -> SiteLoss:
    torch.manual_seed(0)
    trained = torch.tensor([5, 6, 12, 20, 26, 27, 33, 41, 50, 56, 73])
    return SiteLoss(SMALL, features(), trained)


def test_atoms_of_the_known_crystals_are_counted_right():
    assert crystals()["n"].tolist() == [3, 2, 5, 8]


def test_it_learns_a_few_crystals():
    module, batch = loss(), crystals()
    many = {k: v.repeat_interleave(8, 0) for k, v in batch.items()}
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    totals = []
    for _ in range(60):
        total = torch.stack(list(module.train()(many).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert np.mean(totals[-5:]) < 0.6 * np.mean(totals[:5]) and np.isfinite(totals).all()


def test_like_elements_take_part_and_two_never_become_one():
    module, batch = loss(), crystals()
    many = {k: v.repeat_interleave(200, 0) for k, v in batch.items()}
    letters, kinds = in_order(many["letters"], many["kinds"])
    torch.manual_seed(1)
    composed = torch.ones(len(kinds), dtype=torch.bool)
    labels, other, moved = module._exchanged(many, letters, kinds, composed)
    changed = (other != kinds).any(1)
    assert 0.05 < float(changed.float().mean()) < 0.7
    before = [len(set(row[row > 0].tolist())) for row in kinds]
    assert before == [len(set(row[row > 0].tolist())) for row in other]
    assert torch.isnan(labels["log_tc"][changed]).all() and bool((moved[:, 0] >= 0).all())
    chance = likeness(features(), torch.tensor([41, 73, 6])).diff(dim=1, prepend=torch.zeros(MAX_Z + 1, 1))
    assert chance[41, 41] > chance[41, 73] > chance[41, 6] and chance[41, 26] == 0


def test_changes_of_description_keep_the_atoms():
    table, batch = position_table(), crystals()
    for g, letters in zip(batch["group"].tolist(), batch["letters"], strict=True):
        there = letters[letters >= 0]
        for row in table.relabel[g, : table.relabels[g]]:
            moved = relabelled(there[None], torch.as_tensor(row)[None])[0]
            same = table.multiplicity[g, moved.numpy()] == table.multiplicity[g, there.numpy()]
            assert same.all()


def test_sampler_and_loss_give_one_likelihood():
    """Where the look-ahead forbids nothing that the masks allow, both must agree."""
    net = loss().eval().net
    sampler = SiteSampler(net, range(1, 99))
    wish = Wish(formula={41: 1}, atoms=1, group=221)
    drawn = sampler.draw([wish] * 6, np.random.default_rng(0))
    for d in drawn:
        composition = torch.zeros(1, MAX_Z + 1)
        composition[0, 41] = 1.0
        asked = Asked(
            torch.tensor([float("nan")]),
            torch.tensor([1]),
            torch.tensor([221]),
            composition,
            torch.zeros(1, MAX_Z + 1),
        )
        parts = symbol_losses(
            net,
            asked,
            torch.tensor([1]),
            torch.tensor([221]),
            torch.tensor([list(d.frame.letters)]),
            torch.tensor([[41]]),
        )
        assert abs(float((parts["letters"] + parts["elements"] + parts["group"]).detach()) + d.log_p) < 1e-4
    assert {d.frame.letters for d in drawn} <= {(0,), (1,)}


def test_several_networks_draw_by_the_mean_of_their_log_chances():
    """Twice the same network is that network; what one of two is quite sure of they draw, with doubts they meet."""
    one, other = loss().eval().net, loss().eval().net
    with torch.no_grad():
        other.to_group.bias[229] += 30.0
    wish = Wish(formula={41: 1}, atoms=1)

    def drawn(*nets):
        found = SiteSampler(one, range(1, 99), nets).draw([wish] * 40, np.random.default_rng(0))
        return [(d.frame, round(d.log_p, 9)) for d in found]

    assert drawn(one, one) == drawn(one) == drawn()
    sure, both = ([f.number == 229 for f, _ in drawn(*nets)] for nets in ((other,), (one, other)))
    assert all(sure) and all(both)
    with torch.no_grad():
        other.to_group.bias[229] -= 27.0
    count = [sum(f.number == 229 for f, _ in drawn(*nets)) for nets in ((one,), (one, other), (other,))]
    assert count[0] <= count[1] <= count[2] and count[0] < count[2]


def test_all_compositions_can_be_asked_for_in_training():
    module = SiteLoss(SMALL, features(), torch.tensor([5, 12, 41]), composed=1.0).train()
    seen = []
    trunk = module.net.trunk
    module.net.trunk = lambda asked, *rest: seen.append(asked) or trunk(asked, *rest)
    module({k: v.repeat_interleave(20, 0) for k, v in crystals().items()})
    assert (seen[0].composition.sum(-1) > 0.99).all() and not seen[0].elements.any()
