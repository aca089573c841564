"""Measure generators trained on a benchmark set (Perov-5, Carbon-24) against its public test split.

    python training/generate/benchmarks.py generate predict --data perov_5.npz --model JOINT --n 500 --out FILE
    python training/generate/benchmarks.py reconstruct --data carbon_24.npz --model CDVAE --n 96 --out FILE

Parts, each stored when it is done:

generate
    n crystals without conditions. Beside them the same figures of n training crystals drawn at random, which is what
    copying the training set gets, and of two halves of the test split.
predict
    n test crystals, told their atoms only. Baselines: a random training crystal with the same amounts, its elements
    exchanged at random; prototype substitution from the training crystals.
chance
    The random baseline of predict alone (n of its rows).
reconstruct
    n test crystals encoded and decoded (CDVAE). Baseline: z of another test crystal with as many atoms.

Only rows of the split "train" are ever used by models and baselines; rows of the test split are drawn with the seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from onnes.crystal.amd import amd, same_crystal
from onnes.crystal.formula import reduced_formula
from onnes.crystal.wyckoff import LETTERS, Described, Site
from onnes.crystal.wyckoff_table import wyckoff_position
from onnes.generate.asked import SamplerSettings
from onnes.generate.cdvae_sampling import CdvaeSampler, CdvaeSamplerSettings
from onnes.generate.groups import Arrays, packed_hash, read_packed
from onnes.generate.metrics import DEFAULT, LOOSE, measure, prediction, unique
from onnes.generate.prototypes import Template, Templates, prototype_of, substitute
from onnes.generate.sampling import Sampler
from onnes.generate.shares import share
from onnes.generate.validity import compositionally_valid, structurally_valid
from onnes.learn.store import Checkpoint

#: Crystals whose average minimum distances differ by more are not given to the matcher. The pairs it matches among
#: crystals of Carbon-24 are within 0.03.
NEAR = 0.1
#: Crystals of one size that are drawn together.
BATCH = 64


def structures_of(arrays: Arrays, rows: Sequence[int]) -> list[Structure]:
    """Primitive cells of rows of a packed set."""
    out = []
    for row in rows:
        atoms = slice(int(arrays["start"][row]), int(arrays["start"][row]) + int(arrays["n"][row]))
        cell = Lattice(arrays["cell"][row].astype(float))
        out.append(Structure(cell, arrays["types"][atoms].tolist(), arrays["frac"][atoms].astype(float)))
    return out


def described_of(arrays: Arrays, row: int) -> Described:
    """Description by Wyckoff positions of a row of a packed set."""
    from pymatgen.core import Element

    number = int(arrays["number"][row])
    first = int(arrays["site_start"][row])
    sites = []
    for i in range(first, first + int(arrays["n_sites"][row])):
        letter = LETTERS[int(arrays["site_letter"][i])]
        free = wyckoff_position(number, letter).freedom
        values = tuple(arrays["site_parameters"][i, :free].astype(float).tolist())
        sites.append(Site(letter, Element.from_Z(int(arrays["site_z"][i])).symbol, values))
    lattice = arrays["lattice"][row].astype(float).tolist()
    return Described(number, tuple(sites), tuple(lattice))


def templates_of(arrays: Arrays) -> Templates:
    """Templates of all rows that have a description."""
    out = []
    for row in np.flatnonzero(arrays["number"] > 0).tolist():
        crystal = described_of(arrays, row)
        out.append(Template(str(arrays["id"][row]), crystal, *prototype_of(crystal)))
    return Templates(out)


def falling(structure: Structure) -> tuple[int, ...]:
    """Amounts of the elements in the cell, the largest first."""
    return tuple(sorted(Counter(structure.atomic_numbers).values(), reverse=True))


def exchanged(known: Structure, wanted: Structure, rng: np.random.Generator) -> Structure:
    """A crystal with its elements replaced by those of another one with the same amounts, at random among equals."""

    def order(structure: Structure, shuffle: bool) -> list[int]:
        count = Counter(structure.atomic_numbers)
        tie = {z: rng.random() if shuffle else z for z in count}
        return sorted(count, key=lambda z: (-count[z], tie[z]))

    by = dict(zip(order(known, False), order(wanted, True), strict=True))
    return Structure(known.lattice, [by[z] for z in known.atomic_numbers], known.frac_coords)


def unseen(train: Sequence[Structure]) -> Callable[[Structure], bool]:
    """Judge whether a crystal equals no training crystal: StructureMatcher on those near in `amd`."""
    by_formula: dict[str, list[Structure]] = defaultdict(list)
    for s in train:
        by_formula[reduced_formula(s)].append(s)
    prints = {formula: np.array([amd(s) for s in group]) for formula, group in by_formula.items()}

    def judge(structure: Structure) -> bool:
        formula = reduced_formula(structure)
        if formula not in prints:
            return True
        distance = np.abs(prints[formula] - amd(structure)).mean(axis=1)
        near = np.argsort(distance)[: int((distance < NEAR).sum())]
        return not any(same_crystal(structure, by_formula[formula][i]) for i in near)

    return judge


def random_guesses(
    train: Sequence[Structure], truth: Sequence[Structure], rng: np.random.Generator, k: int
) -> list[list[Structure]]:
    """For each target k random training crystals with its amounts, elements exchanged at random."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, s in enumerate(train):
        groups[falling(s)].append(i)
    out = []
    for true in truth:
        among = groups.get(falling(true), [])
        picked = rng.choice(among, size=k) if among else []
        out.append([exchanged(train[i], true, rng) for i in picked])
    return out


def arranged(sampler: Sampler, truth: Sequence[Structure], seed: int, k: int) -> list[list[Structure]]:
    """k guesses of the diffusion model for each target, told its atoms."""
    out: list[list[Structure]] = [[] for _ in truth]
    generator = torch.Generator().manual_seed(seed)
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, s in enumerate(truth):
        by_size[len(s)] += [i] * k
    for _, members in sorted(by_size.items()):
        for start in range(0, len(members), BATCH):
            part = members[start : start + BATCH]
            # Sorted, so that nothing but the composition is told.
            types = torch.tensor([sorted(truth[i].atomic_numbers) for i in part])
            for i, guess in zip(part, sampler.arrange(types, generator), strict=True):
                out[i].append(guess)
    return out


def several(structures: Sequence[Structure]) -> bool:
    """Whether there is more than one formula, so that to be told the composition is to be told something."""
    return len({reduced_formula(s) for s in structures}) > 1


def matched(guesses: Sequence[Sequence[Structure]], truth: Sequence[Structure]) -> dict:
    """Match rates and distances at both matchers."""
    out = {}
    for name, tolerances in (("loose", LOOSE), ("default", DEFAULT)):
        out[name] = {k: f.to_dict() for k, f in prediction(guesses, truth, tolerances).items()}
    return out


def generate(args: argparse.Namespace, train: list[Structure], test: list[Structure]) -> dict:
    sampler: Sampler | CdvaeSampler
    if Checkpoint.load(args.model).kind == "cdvae":
        # Published: z from a Gaussian, nothing left aside.
        sampler = CdvaeSampler(CdvaeSamplerSettings(prior="gaussian", again=0), args.model)
    else:
        sampler = Sampler(
            SamplerSettings(model="joint", temperature=1.0, steps=args.steps), args.model, noise=1.0
        )
    began = time.process_time()
    drawn = [s for _, s in sampler.sample(0, args.n, args.seed)]
    seconds = (time.process_time() - began) / args.n
    print(f"{args.n} crystals drawn, {seconds:.2f} CPU seconds each", flush=True)
    report = measure(drawn, reference=test, variety=False, seed=args.seed)
    out = report.to_dict() | {"cpu_seconds_a_crystal": round(seconds, 3)}
    judge, first = unseen(train), drawn[: args.compared]
    alone = unique([s for s in first if structurally_valid(s)])
    out["figures"]["unique"] = share(int(alone.sum()), len(first)).to_dict()
    new = sum(judge(s) for s in drawn if structurally_valid(s))
    out["figures"]["novel"] = share(new, len(drawn)).to_dict()
    rows = np.random.default_rng(args.seed).choice(len(train), size=args.n, replace=False)
    copied = measure([train[i] for i in rows], reference=test, variety=False, seed=args.seed)
    return out | {"training_crystals": copied.to_dict()["figures"]}


def predict(args: argparse.Namespace, train: list[Structure], test: list[Structure]) -> dict:
    rng = np.random.default_rng(args.seed)
    truth = [test[i] for i in rng.permutation(len(test))[: args.n]]
    sampler = Sampler(SamplerSettings(model="joint", steps=args.steps), args.model, noise=1.0)
    began = time.process_time()
    guesses = arranged(sampler, truth, args.seed, args.guesses)
    out: dict = {"guesses": args.guesses}
    out["cpu_seconds_a_guess"] = round((time.process_time() - began) / (len(truth) * args.guesses), 3)
    out["model"] = matched(guesses, truth)
    # DiffCSP's script counts a guess that is not valid as no guess (scripts/compute_metrics.py of its repository).
    fine = [[g for g in row if structurally_valid(g) and compositionally_valid(g)] for row in guesses]
    out["model_valid_only"] = matched(fine, truth)
    print("model", json.dumps(out["model"]["loose"]), flush=True)
    out["random_training_crystal"] = matched(random_guesses(train, truth, rng, args.guesses), truth)
    if several(truth):
        known = templates_of(read_packed(args.data, "train"))
        best = [substitute(s.composition.as_dict(), known, args.guesses) for s in truth]
        out["substitution"] = matched([[g.crystal.structure() for g in row] for row in best], truth)
    return out


def chance(args: argparse.Namespace, train: list[Structure], test: list[Structure]) -> dict:
    """The first baseline of `predict` alone, which needs no model: the same test rows for the same seed."""
    rng = np.random.default_rng(args.seed)
    truth = [test[i] for i in rng.permutation(len(test))[: args.n]]
    return {"random_training_crystal": matched(random_guesses(train, truth, rng, args.guesses), truth)}


def reconstruct(args: argparse.Namespace, train: list[Structure], test: list[Structure]) -> dict:
    # No latent prior is needed to encode and decode; the Gaussian is there without fitting one.
    model = CdvaeSampler(CdvaeSamplerSettings(prior="gaussian"), args.model)
    rng = np.random.default_rng(args.seed)
    truth = [test[i] for i in rng.permutation(len(test))[: args.n]]
    z, numbers = model.encode(truth)
    other = other_of([len(s) for s in truth], rng)
    began = time.process_time()
    copies = model.decode(z, numbers, args.seed)
    out: dict = {"cpu_seconds_a_crystal": round((time.process_time() - began) / len(truth), 2)}
    out["model"] = matched([[c] for c in copies], truth)
    same = sum(len(a) == len(b) for a, b in zip(copies, truth, strict=True))
    out["atoms_right"] = share(same, len(truth)).to_dict()
    if several(truth):
        told = model.decode(z, numbers, args.seed, given="composition")
        out["model_told_composition"] = matched([[c] for c in told], truth)
    lost = model.decode(z[other], numbers, args.seed, given="composition")
    out["z_of_another_crystal"] = matched([[c] for c in lost], truth)
    out["random_training_crystal"] = matched(random_guesses(train, truth, rng, 1), truth)
    return out


def other_of(sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Index of another member of the same size for each; any other one where there is none."""
    at = np.asarray(sizes)
    out = np.empty(len(at), dtype=int)
    for i in range(len(at)):
        others = np.flatnonzero(np.arange(len(at)) != i)
        same = others[at[others] == at[i]]
        out[i] = rng.choice(same if len(same) else others)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="+", choices=["generate", "predict", "chance", "reconstruct"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="noise levels; the model's own number by default")
    parser.add_argument("--guesses", type=int, default=1)
    parser.add_argument("--compared", type=int, default=100, help="crystals compared with each other")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(args.out.read_text()) if args.out.exists() else {}
    model, digest = Checkpoint.load(args.model), packed_hash(args.data)
    if model.card["data_hash"] != digest:
        raise SystemExit(f"{args.model} was trained on {model.card['data_hash']}, {args.data} is {digest}")
    train, test = (
        structures_of(rows, range(len(rows["n"])))
        for rows in (read_packed(args.data, split) for split in ("train", "test"))
    )
    kept |= {"data": args.data.name, "data_hash": digest, "n_train": len(train), "n_test": len(test)}
    for part in args.parts:
        began = time.time()
        found = globals()[part](args, train, test)
        kept[part] = {"model": model.hash, "n": args.n, "seed": args.seed} | {"result": found}
        args.out.write_text(json.dumps(kept, indent=1) + "\n")
        print(part, f"done in {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
