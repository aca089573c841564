"""Measure a packed CDVAE: python training/cdvae/evaluate.py PART... --model FILE --data crystals.npz --out CARD.json

Parts: heads (what is read from z), reconstruct, generate (the latent priors), optimise (towards a high Tc). Each
part is written into the card when it is done; every figure has its n, baseline and 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from onnes.generate.cdvae import head_labels, standardised
from onnes.generate.cdvae_sampling import CLOSEST, CdvaeSampler, CdvaeSamplerSettings
from onnes.generate.groups import load_groups
from onnes.generate.langevin import LangevinSettings
from onnes.generate.latent import AscentSettings
from onnes.generate.latent_fit import encode
from onnes.generate.metrics import DEFAULT, LOOSE, measure, prediction
from onnes.generate.process import cells_of
from onnes.generate.shares import resampled, share
from onnes.generate.validity import overlapping
from onnes.learn.store import Checkpoint
from onnes.prediction import predict

FIGURES = (
    "structural_validity",
    "min_distance_above_1.5_A",
    "compositional_validity",
    "five_or_more_elements",
    "P1_share",
    "unique",
)

#: Among the priors: z of held-out crystals.
HELD_OUT = "held_out"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "parts", nargs="+", choices=["heads", "reconstruct", "generate", "optimise", "overlaps"]
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--n", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--levels", type=int, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--penalties", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--priors", nargs="+", default=["reweighted", "flow", "mixture", "gaussian"])
    parser.add_argument("--again", type=int, default=0, help="crystals whose atoms overlap are drawn anew")
    parser.add_argument("--crystals", type=Path, help="folder to keep the generated crystals in")
    return parser.parse_args()


def crystals(groups: dict) -> list[Structure]:
    """All crystals of a split, in the order of the groups."""
    out = []
    for n, group in groups.items():
        cells = cells_of(group["lattice"].double(), float(np.log(n) / 3.0)).numpy()
        rows = zip(cells, group["types"].tolist(), group["frac"].numpy(), strict=True)
        out += [Structure(Lattice(c), z, f) for c, z, f in rows]
    return out


def decoding(args: argparse.Namespace) -> LangevinSettings:
    asked = {"levels": args.levels, "steps": args.steps}
    return replace(LangevinSettings(), **{k: v for k, v in asked.items() if v})


def sampler(args: argparse.Namespace, prior: str | None = None) -> CdvaeSampler:
    # Only a packed model has a fitted prior; reconstruction needs none.
    prior = prior or (
        "reweighted" if "critic" in Checkpoint.load(args.model, "cdvae").settings else "gaussian"
    )
    settings = CdvaeSamplerSettings(decoding=decoding(args), prior=prior, again=args.again)
    return CdvaeSampler(settings, args.model)


def figure(f) -> dict:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in f.to_dict().items()}


def heads(args: argparse.Namespace) -> dict:
    """Held-out errors of the heads at the mean of the posterior, beside the median of the split."""
    model = sampler(args)
    groups = load_groups(args.data, args.split)
    rows = [head_labels(standardised(g, model.scale)) for g in groups.values()]
    labels = {name: torch.cat([r[name] for r in rows]) for name in rows[0]}
    posteriors = encode(model.net, model.scale, groups)
    out = {}
    with torch.no_grad():
        read = model.net.heads(posteriors.mean)
        drawn = model.net.heads(posteriors.draw(torch.Generator().manual_seed(args.seed)))
    for name, of in (("mean", read), ("draw", drawn)):
        right = same_composition(of, labels, model.langevin.whole)
        out[f"composition_right_{name}"] = figure(share(int(right.sum()), len(right)))
        right = of.count_logits.argmax(-1) == labels["count"]
        out[f"count_right_{name}"] = figure(share(int(right.sum()), len(right)))
    for name in ("log_tc", "e_form"):
        truth = labels[name]
        known = ~torch.isnan(truth)
        miss = (getattr(read, name) - truth)[known].abs().numpy()
        base = (truth[known] - truth[known].median()).abs().numpy()
        if known.any():
            out[f"{name}_mae"] = figure(resampled(np.mean, miss))
            out[f"{name}_mae_of_the_median"] = figure(resampled(np.mean, base))
    return out


def same_composition(read, labels, whole) -> torch.Tensor:
    p = torch.softmax(read.composition_logits, -1)
    right = torch.zeros(len(p), dtype=torch.bool)
    for n in labels["count"].unique().tolist():
        at = labels["count"] == n
        right[at] = (whole(p[at], n) == (n * labels["composition"][at]).round().long()).all(-1)
    return right


def reconstruct(args: argparse.Namespace) -> dict:
    """Match rates of held-out crystals; baseline: z of another crystal, composition (or size) given all the same."""
    model = sampler(args)
    every = crystals(load_groups(args.data, args.split))
    rng = np.random.default_rng(args.seed)
    truth = [every[i] for i in rng.permutation(len(every))[: args.n]]
    z, numbers = model.encode(truth)
    out: dict = {"levels": decoding(args).levels, "steps_a_level": decoding(args).steps}
    began = time.process_time()
    ways = {
        "nothing given": model.decode(z, numbers, args.seed),
        "composition given": model.decode(z, numbers, args.seed, given="composition"),
        "composition given, z of another crystal": model.decode(
            z[others(truth, rng)], numbers, args.seed, given="composition"
        ),
    }
    out["cpu_seconds_a_crystal"] = round((time.process_time() - began) / (3 * len(truth)), 2)
    for name, copies in ways.items():
        out[name] = {}
        for tolerance, values in (("loose", LOOSE), ("default", DEFAULT)):
            found = prediction([[c] for c in copies], truth, values)
            out[name][tolerance] = {k: figure(found[k]) for k in ("match_rate_first", "rmsd_first")}
        same = sum(a.composition == b.composition for a, b in zip(copies, truth, strict=True))
        out[name]["composition_right"] = figure(share(same, len(truth)))
    return out


def others(structures: list[Structure], rng: np.random.Generator) -> np.ndarray:
    """Index of another crystal for each: of the same composition where there is one, else of the same size."""
    keys = [s.composition.reduced_formula for s in structures], [len(s) for s in structures]
    out = np.arange(len(structures))
    for i in range(len(structures)):
        for key in keys:
            same = [
                j
                for j in range(len(structures))
                if j != i and key[j] == key[i] and len(structures[j]) == len(structures[i])
            ]
            if same:
                out[i] = rng.choice(same)
                break
    return out


def overlaps(args: argparse.Namespace) -> dict:
    """How many crystals of the split would be left aside, and how many of these hold U, Np or Ce."""
    every = crystals(load_groups(args.data, args.split))
    close = [s for s in every if overlapping(s, CLOSEST)]
    heavy = sum(bool({"U", "Np", "Ce"} & {e.symbol for e in s.composition}) for s in close)
    return {
        "closest": CLOSEST,
        "n": len(every),
        "overlapping": len(close),
        "of these with U, Np or Ce": heavy,
    }


def from_held_out(args: argparse.Namespace, model: CdvaeSampler) -> list[Structure]:
    """Crystals decoded from draws of the posteriors of held-out ones: what a perfect prior would give."""
    generator = torch.Generator().manual_seed(args.seed)
    z = encode(model.net, model.scale, load_groups(args.data, args.split)).draw(generator)
    picked = torch.randperm(len(z), generator=generator)[: args.n]
    return model.decode(z[picked], [], args.seed)


def generate(args: argparse.Namespace) -> dict:
    """Quality of crystals from each of the priors."""
    out = {}
    for prior in args.priors:
        model = sampler(args, None if prior == HELD_OUT else prior)
        began = time.process_time()
        held = prior == HELD_OUT
        drawn = from_held_out(args, model) if held else [s for _, s in model.sample(0, args.n, args.seed)]
        seconds = (time.process_time() - began) / len(drawn)
        keep(args, prior, drawn)
        found = measure(drawn).to_dict()
        out[prior] = rounded_figures(found["figures"])
        out[prior]["space_groups"] = found["space_groups"]
        out[prior]["cpu_seconds_a_crystal"] = round(seconds, 2)
        out[prior]["left_aside"] = dict(model.rejected)
        print(prior, json.dumps(out[prior]), flush=True)
    return out


def optimise(args: argparse.Namespace) -> dict:
    """Towards a high Tc: what the head reads from z before and after, and what `onnes predict` says of the crystals.

    Crystals that are not optimised begin from the same latent vectors (none is drawn anew); `fast` is a network that
    had no part in the ascent.
    """
    plain = [s for _, s in sampler(args).sample(0, args.n, args.seed)]
    keep(args, "not_optimised", plain)
    out: dict = {"not optimised": predicted(plain) | shown(plain)}
    print("not optimised", json.dumps(out["not optimised"]), flush=True)
    for penalty in args.penalties:
        settings = CdvaeSamplerSettings(decoding=decoding(args), ascent=AscentSettings(penalty=penalty))
        model = CdvaeSampler(settings, args.model)
        found = [x for _, x in model.optimise(0, args.n, args.seed)]
        structures = [x.structure for x in found]
        keep(args, f"optimised_{penalty:g}", structures)
        row = {
            "head_tc_K_before": figure(resampled(np.median, [10**x.before for x in found])),
            "head_tc_K_after": figure(resampled(np.median, [10**x.after for x in found])),
            "log_prior": figure(resampled(np.mean, [x.log_prior for x in found])),
        }
        out[f"penalty {penalty:g}"] = row | predicted(structures) | shown(structures)
        print(penalty, json.dumps(out[f"penalty {penalty:g}"]), flush=True)
    return out


def shown(structures: list[Structure]) -> dict:
    return rounded_figures(measure(structures).to_dict()["figures"])


def rounded_figures(found: dict) -> dict:
    return {k: {a: round(b, 4) if isinstance(b, float) else b for a, b in found[k].items()} for k in FIGURES}


def predicted(structures: list[Structure]) -> dict:
    """Tc that `onnes predict --model fast` gives, of the crystals it does not refuse."""
    table = predict(structures, model="fast")
    tc = table.loc[table["status"] == "ok", "tc_K"].to_numpy(dtype=float)
    return {
        "predicted_tc_K": figure(resampled(np.median, tc)),
        "predicted_tc_above_5K": figure(share(int((tc > 5.0).sum()), len(structures))),
        "refused": len(structures) - len(tc),
    }


def keep(args: argparse.Namespace, name: str, structures: list[Structure]) -> None:
    if args.crystals:
        folder = args.crystals / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, s in enumerate(structures):
            (folder / f"g{i:06d}.cif").write_text(str(CifWriter(s, significant_figures=8)))


def main() -> None:
    args = options()
    if args.again and "optimise" in args.parts:
        raise SystemExit("optimise compares the same latent vectors: no --again")
    torch.set_num_threads(1)
    card = json.loads(args.out.read_text()) if args.out.exists() else dict(sampler(args).checkpoint.card)
    for part in args.parts:
        card[part] = globals()[part](args) | {"split": args.split, "seed": args.seed}
        args.out.write_text(json.dumps(card, indent=1) + "\n")
        print(part, json.dumps(card[part]), flush=True)


if __name__ == "__main__":
    main()
