"""Likelihood of crystals' symbols under the site transformer, with random hiding of conditions for training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from onnes.generate.groups import Arrays, Group, Groups, read_packed
from onnes.nets.sites import MAX_Z, N_LETTERS, NEVER, Asked, SiteSettings, SiteTransformer, position_table

#: Share of crystals whose Tc (and, separately, stability and source) is hidden.
HIDE = 0.25
#: Shares with composition, else with the set of elements, and with the space group, asked.
COMPOSED, LISTED, GROUPED = 0.5, 0.5, 0.3
#: Share of crystals with the composition asked whose elements are exchanged for like ones, and how like: an element at
#: distance d takes part with exp(-d / LIKE). What a composition crystallises in varies slowly with its elements, which
#: is what prototype substitution lives on.
EXCHANGED, LIKE = 0.6, 0.3


#: Crystals are stacked by their number of orbits, rounded up to one of these.
LENGTHS = (3, 5, 8, 12, 20)


def load_sites(path: str, split: str = "train", device: str = "cpu") -> Groups:
    """Crystals as symbols, by the largest number of orbits in a group.

    Returns
    -------
    dict of int to dict of str to Tensor
        ``n``, ``group``, ``log_tc``, ``stable``, ``source``, ``weight`` (M,), ``letters`` (M, S; -1 where there is no
        orbit), ``kinds`` (M, S).
    """
    arrays: Arrays = read_packed(path, split)
    table = position_table()
    rows = np.flatnonzero(arrays["number"] > 0)
    letters = np.full((len(rows), LENGTHS[-1]), -1, np.int64)
    kinds = np.zeros((len(rows), LENGTHS[-1]), np.int64)
    for i, row in enumerate(rows.tolist()):
        start, count = int(arrays["site_start"][row]), int(arrays["n_sites"][row])
        letters[i, :count] = arrays["site_letter"][start : start + count]
        kinds[i, :count] = arrays["site_z"][start : start + count]
    group = arrays["number"][rows].astype(np.int64)
    m = table.multiplicity[group[:, None], np.maximum(letters, 0)] * (letters >= 0)
    out: dict[str, np.ndarray] = {
        "n": m.sum(1),
        "group": group,
        "letters": letters,
        "kinds": kinds,
        "log_tc": arrays["log_tc"][rows],
        "stable": arrays["stable"][rows].astype(np.int64),
        "source": arrays["source"][rows].astype(np.int64),
        "weight": np.ones(len(rows), np.float32),
    }
    lengths = np.array(LENGTHS)[np.searchsorted(LENGTHS, (letters >= 0).sum(1))]
    groups: Groups = {}
    for most in np.unique(lengths).tolist():
        part = {name: value[lengths == most] for name, value in out.items()}
        part |= {"letters": part["letters"][:, :most], "kinds": part["kinds"][:, :most]}
        groups[most] = {name: torch.as_tensor(value, device=device) for name, value in part.items()}
    return groups


class SiteLoss(nn.Module):
    """Negative log-likelihood of crystals, in nats a crystal, by part.

    Parameters
    ----------
    settings : SiteSettings
    features : Tensor, shape (MAX_Z + 1, F)
        Of the elements, a difference of 1 being a clear one.
    trained : Tensor of int
        Atomic numbers that occur.
    shuffle : bool
        Whether an equivalent description is drawn each time.
    composed : float
        Share of crystals with the composition asked.
    """

    relabel: Tensor
    relabels: Tensor
    like: Tensor

    def __init__(
        self,
        settings: SiteSettings,
        features: Tensor,
        trained: Tensor,
        *,
        shuffle: bool = True,
        composed: float = COMPOSED,
    ) -> None:
        super().__init__()
        self.net = SiteTransformer(settings)
        self.net.element_features.copy_((features - features[1:].mean(0)) / features[1:].std(0))
        self.register_buffer("like", likeness(features, trained), persistent=False)
        self.shuffle, self.composed = shuffle, composed
        table = position_table()
        self.register_buffer("relabel", torch.as_tensor(table.relabel), persistent=False)
        self.register_buffer("relabels", torch.as_tensor(table.relabels), persistent=False)

    def forward(self, batch: Group) -> dict[str, Tensor]:
        """Mean over the crystals of a batch of `load_sites`, conditions hidden at random."""
        letters, kinds = self._described(batch)
        composed = torch.rand(len(kinds), device=kinds.device) < self.composed
        if self.training:
            batch, kinds, letters = self._exchanged(batch, letters, kinds, composed)
        asked = hide(batch, letters, kinds, self.net, composed)
        parts = symbol_losses(self.net, asked, batch["n"], batch["group"], letters, kinds)
        return {name: value.mean() for name, value in parts.items()}

    def _exchanged(
        self, batch: Group, letters: Tensor, kinds: Tensor, composed: Tensor
    ) -> tuple[Group, Tensor, Tensor]:
        """Some crystals with like elements in place of theirs, without their labels."""
        device = kinds.device
        take = composed & (torch.rand(len(kinds), device=device) < EXCHANGED)
        # One draw for each element of each crystal.
        drawn = torch.rand(len(kinds), MAX_Z + 1, device=device)
        swap = torch.searchsorted(self.like, drawn.T.contiguous()).T.clamp(max=MAX_Z)
        other = torch.gather(swap, 1, kinds)
        # Two elements that became one would be another composition: such crystals stay as they are.
        there = letters >= 0
        differ = kinds[:, :, None] != kinds[:, None, :]
        merged = differ & (other[:, :, None] == other[:, None, :]) & there[:, :, None] & there[:, None, :]
        take = take & ~merged.flatten(1).any(1)
        kinds = torch.where(take[:, None] & there, other, kinds)
        letters, kinds = in_order(letters, kinds)
        labels = {
            "log_tc": batch["log_tc"].masked_fill(take, float("nan")),
            "stable": batch["stable"].masked_fill(take, 0),
        }
        return batch | labels, kinds, letters

    def _described(self, batch: Group) -> tuple[Tensor, Tensor]:
        letters, kinds, group = batch["letters"], batch["kinds"], batch["group"]
        if self.shuffle and self.training:
            count = self.relabels[group]
            which = (torch.rand(len(group), device=group.device) * count).long().clamp(max=count - 1)
            letters = relabelled(letters, self.relabel[group, which])
        return in_order(letters, kinds)


def relabelled(letters: Tensor, row: Tensor) -> Tensor:
    """Letters (B, S) after a change of description (B, 27)."""
    return torch.where(letters >= 0, torch.gather(row, 1, letters.clamp(min=0)), letters)


def in_order(letters: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Orbits sorted by letter, then atomic number; empty places last."""
    key = torch.where(letters >= 0, letters * (MAX_Z + 1) + kinds, 10**6)
    order = key.argsort(dim=1)
    return torch.gather(letters, 1, order), torch.gather(kinds, 1, order)


def likeness(features: Tensor, trained: Tensor) -> Tensor:
    """Cumulative chances (MAX_Z + 1, MAX_Z + 1) that the element of a row becomes that of a column."""
    distance = torch.cdist(features.double(), features.double())
    chance = torch.zeros_like(distance)
    chance[:, trained] = torch.exp(-distance[:, trained] / LIKE)
    chance[0] = 1.0
    return torch.cumsum(chance / chance.sum(1, keepdim=True), 1).float().contiguous()


def hide(batch: Group, letters: Tensor, kinds: Tensor, net: SiteTransformer, composed: Tensor) -> Asked:
    """Conditions of training crystals, each hidden at random."""
    group = batch["group"]
    b, device = len(group), group.device
    chance = torch.rand(6, b, device=device)
    full = composition(net, batch["n"], group, letters, kinds)
    listed = ~composed & (chance[1] < LISTED)
    # The set asked for holds what is there and, often, elements that are not used.
    extra = torch.rand(b, MAX_Z + 1, device=device) < 0.5 * torch.rand(b, 1, device=device) ** 3
    allowed = ((full > 0) | extra).to(full.dtype)
    return Asked(
        batch["log_tc"].masked_fill(chance[2] < HIDE, float("nan")),
        batch["stable"].masked_fill(chance[3] < HIDE, 0),
        group.masked_fill(chance[4] > GROUPED, 0),
        full * composed[:, None],
        allowed * listed[:, None],
        (batch["source"] + 1).masked_fill(chance[5] < HIDE, 0) if "source" in batch else None,
    )


def composition(net: SiteTransformer, n: Tensor, group: Tensor, letters: Tensor, kinds: Tensor) -> Tensor:
    """Fractions of the elements (B, MAX_Z + 1)."""
    m = torch.gather(net.multiplicity[group], 1, letters.clamp(min=0)) * (letters >= 0)
    out = torch.zeros(len(n), MAX_Z + 1, device=n.device)
    return out.scatter_add(1, kinds, m.to(out.dtype)) / n[:, None]


def symbol_losses(
    net: SiteTransformer, asked: Asked, n: Tensor, group: Tensor, letters: Tensor, kinds: Tensor
) -> dict[str, Tensor]:
    """Negative log-likelihoods (B,) of N, group, letters and elements given the conditions.

    Letters are masked as in sampling: those of the group, not too large, in rising order, fixed points once; elements
    rise within one letter and obey the composition or the set asked for.
    """
    s = letters.shape[1]
    hidden = net.trunk(asked, n, group, letters, kinds)
    there = letters >= 0
    ce = nn.functional.cross_entropy
    out = {
        "count": ce(net.to_count(hidden[:, 0]), n, reduction="none"),
        "group": ce(_group_logits(net, hidden[:, 1], asked), group, reduction="none"),
    }
    at_letter = net.letter_logits(hidden[:, 2 : 2 + 2 * s : 2], group)
    at_element = net.element_logits(hidden[:, 3 : 3 + 2 * s : 2])
    safe = letters.clamp(min=0)
    sizes = net.multiplicity[group]
    m = torch.gather(sizes, 1, safe) * there
    left = n[:, None] - (torch.cumsum(m, 1) - m)
    before = torch.cat([torch.full_like(letters[:, :1], -1), letters[:, :-1]], 1)
    fixed = torch.gather(net.freedom[group], 1, before.clamp(min=0)) == 0
    least = torch.where(fixed | (before < 0), before + 1, before)
    number = torch.arange(N_LETTERS, device=n.device)
    wrong = (number < least[..., None]) | (sizes[:, None, :] > left[..., None])
    letter = ce(at_letter.masked_fill(wrong, NEVER).flatten(0, 1), safe.flatten(), reduction="none")
    out["letters"] = (letter.reshape(there.shape) * there).sum(1)
    wrong = _wrong_elements(asked, n, letters, kinds, m)
    element = ce(at_element.masked_fill(wrong, NEVER).flatten(0, 1), kinds.flatten(), reduction="none")
    out["elements"] = (element.reshape(there.shape) * there).sum(1)
    return out


def _group_logits(net: SiteTransformer, hidden: Tensor, asked: Asked) -> Tensor:
    logits = net.to_group(hidden)
    number = torch.arange(logits.shape[1], device=logits.device)
    forced = (asked.group[:, None] > 0) & (number != asked.group[:, None])
    return logits.masked_fill(forced | (number == 0), NEVER)


def _wrong_elements(asked: Asked, n: Tensor, letters: Tensor, kinds: Tensor, m: Tensor) -> Tensor:
    """Elements (B, S, MAX_Z + 1) that cannot stand at each orbit."""
    number = torch.arange(MAX_Z + 1, device=n.device)
    none = torch.full_like(letters[:, :1], -1)
    same = letters == torch.cat([none, letters[:, :-1]], 1)
    last = torch.cat([none, kinds[:, :-1]], 1)
    wrong = (same[..., None] & (number < last[..., None])) | (number == 0)
    listed = asked.elements.sum(-1) > 0
    wrong = wrong | (listed[:, None] & (asked.elements == 0))[:, None, :]
    composed = asked.composition.sum(-1) > 0
    onehot = nn.functional.one_hot(kinds, MAX_Z + 1) * m[..., None]
    spent = torch.cumsum(onehot, 1) - onehot
    need = (n[:, None] * asked.composition).round()[:, None, :] - spent
    return wrong | (composed[:, None, None] & (need < m[..., None]))
