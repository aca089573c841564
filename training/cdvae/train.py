"""Train the CDVAE: python training/cdvae/train.py --data crystals.npz --out DIR; rerun to resume.

Data: the file that training/generate/crystals.py packs (or perov_5.npz, carbon_24.npz of the same layout). Needs numpy,
torch and safetensors only. Crystals are drawn and measured in the course of the training as in
training/generate/train.py (--check-draws, --check-every, --keep-best), where what onnes needs is there. Writes
DIR/last.pt every two minutes and DIR/cdvae.safetensors at the end; the latent prior is added by
training/cdvae/latents.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from onnes.generate.cdvae import PUBLISHED, CdvaeWeights, losses, standardised, weighted
from onnes.generate.fitting import Fit, FitSettings, Judge
from onnes.generate.groups import load_groups, packed_hash, read_packed
from onnes.generate.process import LatticeScale
from onnes.learn.store import Checkpoint
from onnes.nets.cdvae import PUBLISHED_SIZE, Cdvae, CdvaeSettings


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60000)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", choices=["ours", "published"], default="ours", help="sizes and weights")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--latent", type=int, default=128)
    parser.add_argument("--kl", type=float, default=None)
    parser.add_argument("--high-tc", type=float, default=5.0, help="kelvin; from here on crystals count ...")
    parser.add_argument("--times", type=float, default=4.0, help="... so many times")
    parser.add_argument("--eph-times", type=float, default=2.0, help="weight of crystals with a known Tc")
    parser.add_argument("--check-draws", type=int, default=24, help="crystals of a check; 0 for none")
    parser.add_argument("--check-every", type=int, default=5000, help="steps; 0 for the end only")
    parser.add_argument("--keep-best", action="store_true", help="the weights with the best drawn crystals")
    args = parser.parse_args()
    if args.keep_best and args.check_draws < 1:
        parser.error("--keep-best goes by the crystals of --check-draws")
    return args


def up_sampled(groups: dict, args: argparse.Namespace) -> None:
    """Set how often crystals are drawn: those with a Tc more often, those with a high one more often still."""
    for group in groups.values():
        tc = torch.nan_to_num(group["log_tc"], nan=-torch.inf)
        weight = torch.where(torch.isfinite(tc), args.eph_times, 1.0)
        group["weight"] = torch.where(tc >= np.log10(args.high_tc), args.times, weight)


def judge_of(args: argparse.Namespace, settings: dict) -> Judge | None:
    """What draws crystals in the course of the training; None where it is not wanted or cannot be had."""
    if args.check_draws < 1:
        return None
    if importlib.util.find_spec("pymatgen") is None:
        return unjudged(args, "no pymatgen here")
    from onnes.generate import quality

    held = quality.held_out(read_packed(args.data, "val"), args.check_draws, settings["elements"])
    if not held:
        return unjudged(args, "no held-out crystals")
    return quality.cdvae(settings, held, args.check_draws)


def unjudged(args: argparse.Namespace, why: str) -> None:
    """Go on without drawn crystals, and say so; with --keep-best nothing could be kept."""
    if args.keep_best:
        raise SystemExit(f"{why}: --keep-best cannot be obeyed")
    print(f"{why}: no crystals are drawn in the course of the training", flush=True)


def main() -> None:
    args = options()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    groups = load_groups(args.data, "train", args.device)
    held = load_groups(args.data, "val", args.device)
    up_sampled(groups, args)
    raw = torch.cat([g["lattice"] for g in groups.values()]).cpu().double().numpy()
    scale = LatticeScale.fit(raw)
    largest = max(20, *groups)
    if args.preset == "published":
        size, weights = PUBLISHED_SIZE, PUBLISHED
    else:
        size, weights = CdvaeSettings(hidden=args.hidden, latent=args.latent), CdvaeWeights()
    size = CdvaeSettings(**size.as_dict() | {"max_atoms": largest})
    weights = CdvaeWeights(**weights.as_dict() | ({} if args.kl is None else {"kl": args.kl}))
    net = Cdvae(size).to(args.device)
    fitting = FitSettings(
        steps=args.steps,
        seconds=args.seconds,
        lr=args.lr,
        batch=args.batch,
        pairs=args.pairs,
        seed=args.seed,
        draw_every=args.check_every,
        keep_drawn=args.keep_best,
    )

    def loss(batch):
        parts = losses(net, standardised(batch, scale), scale, types_by_noise=weights.types_by_noise)
        return weighted(parts, weights)

    print(
        f"{sum(len(g['types']) for g in groups.values())} training crystals, "
        f"{sum(len(g['types']) for g in held.values())} held out, "
        f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters",
        flush=True,
    )
    settings = {
        "network": size.as_dict(),
        "lattice_mean": list(scale.mean),
        "lattice_std": list(scale.std),
        "atom_counts": {int(n): len(g["types"]) for n, g in groups.items()},
        "elements": sorted({int(z) for g in groups.values() for z in g["types"].unique().tolist()}),
    }
    run = Fit(net, loss, groups, fitting, args.out)
    line = run.run((lambda: run.mean_loss(held)) if held else None, judge_of(args, settings))
    card = {
        "data": args.data.name,
        "data_hash": packed_hash(args.data),
        "n_train": sum(len(g["types"]) for g in groups.values()),
        "n_val": sum(len(g["types"]) for g in held.values()),
        "split": "of the packed file; formulas of the structure-prediction test are in no training row",
        "seed": args.seed,
        "command": "python training/cdvae/train.py " + " ".join(sys.argv[1:]),
        "weights": weights.as_dict(),
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
        "last": line,
        "drawn": run.drawn,
        **({"step_kept": run.finest_step} if args.keep_best else {}),
    }
    Checkpoint("cdvae", settings, card, run.weights()).save(args.out / "cdvae.safetensors")
    print("done", flush=True)


if __name__ == "__main__":
    main()
