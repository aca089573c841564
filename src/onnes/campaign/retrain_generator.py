"""What hits teach the symmetric generator: a short, guarded fine-tuning of its symbol transformer.

Only the transformer learns, which decides on space group, Wyckoff letters and elements, that is, on what Tc depends.
The diffusion of lattice and free parameters stays as shipped: the funnel relaxes every crystal with a potential anyway,
and the crystals it draws lie at that potential's minimum within the accuracy of a relaxation (`symmetric.card.json`).

The training set of the shipped model is not shipped, so it is rehearsed: half of what the network sees are symbols
that the shipped model itself drew (Robins, Connection Science 7, 123 (1995)), half of those under the Tc asked for. A
part of them is never trained on; if its likelihood falls too far, the tuned weights are thrown away.
"""

from __future__ import annotations

import contextlib
import io
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onnes.errors import CrystalError
from onnes.generate.site_loss import LENGTHS, SiteLoss, in_order, symbol_losses
from onnes.nets.sites import MAX_Z, Asked, SiteSettings, position_table

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from onnes.generate.groups import Groups
    from onnes.generate.orbits import Frame
    from onnes.learn.store import Checkpoint

#: Symbols drawn for rehearsal, and how many more are only measured.
REHEARSED, HELD = 256, 128
#: Of what is drawn in training: hits, other labelled crystals (they teach what a low Tc looks like), rehearsal.
SHARES = (0.4, 0.1, 0.5)
#: Rise of the negative log-likelihood of the held rehearsal, in nats a crystal, that is too much forgotten.
FORGOTTEN = 1.0
#: Distance tolerance when a relaxed crystal is described by its symmetry, in angstrom.
SYMPREC_A = 0.05
#: Peak learning rate (the training had seven times as much), and crystals in a step.
RATE, BATCH = 1e-4, 24


@dataclass(frozen=True)
class Example:
    """Symbols of a crystal with its Tc (NaN where unknown) and how often it is drawn."""

    frame: Frame
    log_tc: float
    weight: float


def frame_of(structure: Structure, elements: set[int], most: int) -> Frame | None:
    """Symbols of a crystal; None where it has no description or the generator could not draw it.

    Parameters
    ----------
    structure : pymatgen Structure
    elements : set of int
        Atomic numbers the generator knows.
    most : int
        Atoms in the primitive cell it can draw.
    """
    from onnes.crystal.formula import atomic_numbers
    from onnes.crystal.wyckoff import LETTERS, describe
    from onnes.generate.orbits import Frame

    try:
        found = describe(structure, SYMPREC_A)
    except CrystalError:
        return None
    kinds = tuple(int(atomic_numbers()[s.element]) for s in found.sites)
    if found.n_primitive > most or not set(kinds) <= elements or len(kinds) > LENGTHS[-1]:
        return None
    return Frame(found.number, tuple(LETTERS.index(s.letter) for s in found.sites), kinds)


def groups_of(examples: Sequence[Example]) -> Groups:
    """Examples as `onnes.generate.site_loss.load_sites` gives them."""
    table = position_table()
    out: Groups = {}
    lengths = np.array(LENGTHS)[np.searchsorted(LENGTHS, [len(e.frame.letters) for e in examples])]
    for most in np.unique(lengths).tolist():
        part = [e for e, length in zip(examples, lengths.tolist(), strict=True) if length == most]
        letters = np.full((len(part), most), -1, np.int64)
        kinds = np.zeros((len(part), most), np.int64)
        for i, e in enumerate(part):
            letters[i, : len(e.frame.letters)] = e.frame.letters
            kinds[i, : len(e.frame.kinds)] = e.frame.kinds
        group = np.array([e.frame.number for e in part], np.int64)
        m = table.multiplicity[group[:, None], np.maximum(letters, 0)] * (letters >= 0)
        arrays = {
            "n": m.sum(1),
            "group": group,
            "letters": letters,
            "kinds": kinds,
            "log_tc": np.array([e.log_tc for e in part], np.float32),
            # As the sampler asks: stable.
            "stable": np.ones(len(part), np.int64),
            "weight": np.array([e.weight for e in part], np.float32),
        }
        out[int(most)] = {name: torch.as_tensor(value) for name, value in arrays.items()}
    return out


def nats(net: Any, examples: Sequence[Example]) -> float:
    """Mean negative log-likelihood of symbols given their Tc and stability, in nats a crystal."""
    if not examples:
        return float("nan")
    total, count = 0.0, 0
    with torch.no_grad():
        for group in groups_of(examples).values():
            letters, kinds = in_order(group["letters"], group["kinds"])
            b = len(letters)
            nothing = torch.zeros(b, MAX_Z + 1)
            asked = Asked(
                group["log_tc"], group["stable"], torch.zeros_like(group["group"]), nothing, nothing
            )
            parts = symbol_losses(net, asked, group["n"], group["group"], letters, kinds)
            total += float(torch.stack(list(parts.values())).sum())
            count += b
    return total / count


class Tuning:
    """The symbol transformer of a symmetric generator, ready to be tuned.

    Parameters
    ----------
    start : Checkpoint
        Of kind ``symmetric``: where the weights begin, and whose draws are rehearsed.
    target_tc_K : float
        Tc that the campaign asks for; half of the rehearsal is drawn under it. 0: none.
    seed : int
    """

    def __init__(self, start: Checkpoint, target_tc_K: float, seed: int) -> None:
        from onnes.generate.prototypes import element_features
        from onnes.generate.site_sampling import SiteSampler, Wish

        self.start, self.seed = start, seed
        self.elements = {int(z) for z in start.settings["elements"]}
        network = SiteSettings(**start.settings["sites"])
        self.most = network.max_atoms
        features = torch.as_tensor(element_features()[: MAX_Z + 1], dtype=torch.float32)
        self.module = SiteLoss(network, features, torch.tensor(sorted(self.elements)))
        prefix = "sites."
        weights = {
            k.removeprefix(prefix): v.float() for k, v in start.tensors.items() if k.startswith(prefix)
        }
        self.module.net.load_state_dict(weights)
        self.module.eval()
        free, wish = Wish(), Wish(log_tc=math.log10(target_tc_K)) if target_tc_K > 0 else Wish()
        count = REHEARSED + HELD
        wishes = [wish if i % 2 else free for i in range(count)]
        drawn = SiteSampler(self.module.net, sorted(self.elements)).draw(wishes, np.random.default_rng(seed))
        examples = [
            Example(d.frame, math.nan if w.log_tc is None else w.log_tc, 1.0)
            for d, w in zip(drawn, wishes, strict=True)
        ]
        self.rehearsed, self.held = examples[:REHEARSED], examples[REHEARSED:]

    def frame_of(self, structure: Structure) -> Frame | None:
        """See `frame_of`."""
        return frame_of(structure, self.elements, self.most)

    def run(
        self, hits: Sequence[Example], others: Sequence[Example], steps: int, folder: Path
    ) -> dict[str, Any]:
        """Tune; the module holds the new weights afterwards.

        Parameters
        ----------
        hits, others : sequence of Example
            Labelled crystals above and below the target.
        steps : int
        folder : Path
            Scratch of the training loop, emptied before and after: a tuning that was cut begins again, so that it
            ends as if it had not been.

        Returns
        -------
        dict
            ``hits``, ``others`` (how many) and ``nats_hits``, ``nats_held``, each before and after.
        """
        from onnes.generate.fitting import FitSettings, fit

        net = self.module.net
        before = nats(net, hits), nats(net, self.held)
        train = groups_of(_weighted(hits, others, self.rehearsed))
        settings = FitSettings(
            steps=steps, lr=RATE, warmup=10, batch=BATCH, pairs=10**9, ema=0.95, every=steps, seed=self.seed
        )
        shutil.rmtree(folder, ignore_errors=True)
        self.module.train()
        with contextlib.redirect_stdout(io.StringIO()):
            _, weights = fit(self.module, self.module, train, settings, folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.module.load_state_dict(weights, strict=False)
        self.module.eval()
        after = nats(net, hits), nats(net, self.held)
        return {
            "hits": len(hits),
            "others": len(others),
            "steps": steps,
            "nats_hits": [round(before[0], 4), round(after[0], 4)],
            "nats_held": [round(before[1], 4), round(after[1], 4)],
        }

    def checkpoint(self, card: dict[str, Any]) -> Checkpoint:
        """The generator with the tuned transformer, in the precision of the shipped one."""
        from onnes.learn.store import Checkpoint

        tensors: dict[str, Tensor] = dict(self.start.tensors)
        for name, value in self.module.net.state_dict().items():
            key = f"sites.{name}"
            if key in tensors:
                tensors[key] = value.detach().to(tensors[key].dtype).contiguous()
        return Checkpoint(self.start.kind, self.start.settings, {**self.start.card, "tuned": card}, tensors)


def _weighted(
    hits: Sequence[Example], others: Sequence[Example], rehearsed: Sequence[Example]
) -> list[Example]:
    """All examples, each kind with its share of the draws."""
    kinds = [(kind, share) for kind, share in zip((hits, others, rehearsed), SHARES, strict=True) if kind]
    whole = sum(share for _, share in kinds)
    out: list[Example] = []
    for kind, share in kinds:
        total = sum(e.weight for e in kind)
        out += [replace(e, weight=1000.0 * share / whole * e.weight / total) for e in kind]
    return out


def tune(
    start: Path,
    labelled: Sequence[tuple[Structure, float, float]],
    *,
    target_tc_K: float,
    asked_tc_K: float,
    steps: int,
    path: Path,
    seed: int,
) -> dict[str, Any]:
    """Fine-tune a symmetric generator on labelled crystals.

    Parameters
    ----------
    start : Path
        Checkpoint to begin from: always the shipped one, so that rounds do not drift.
    labelled : sequence of (structure, Tc in K, weight)
    target_tc_K : float
        A Tc above it is a hit.
    asked_tc_K : float
        Tc that the generator will be asked for; 0: none.
    steps : int
    path : Path
        Of the new checkpoint; written only when it is used.
    seed : int

    Returns
    -------
    dict
        ``used``, ``hash`` (empty where not used), ``why``, and the figures of `Tuning.run`.
    """
    from onnes.learn.store import Checkpoint

    if not any(tc > target_tc_K for _, tc, _ in labelled):
        return {"used": False, "hash": "", "why": "no hit to learn from"}
    shipped = Checkpoint.load(start, "symmetric")
    tuning = Tuning(shipped, asked_tc_K, seed)
    hits: list[Example] = []
    others: list[Example] = []
    for structure, tc, weight in labelled:
        frame = tuning.frame_of(structure)
        if frame is not None:
            example = Example(frame, math.log10(max(tc, 0.01)), weight)
            (hits if tc > target_tc_K else others).append(example)
    if not hits:
        return {"used": False, "hash": "", "why": "the generator cannot draw any of the hits"}
    found = tuning.run(hits, others, steps, path.with_suffix(".fit"))
    lost = found["nats_held"][1] - found["nats_held"][0]
    if not lost <= FORGOTTEN:
        why = f"it forgot: {lost:.2f} nats a crystal, {FORGOTTEN:g} are allowed"
        return {**found, "used": False, "hash": "", "why": why}
    made = tuning.checkpoint({"from": shipped.hash, "seed": seed, **found})
    made.save(path)
    return {**found, "used": True, "hash": made.hash, "why": ""}
