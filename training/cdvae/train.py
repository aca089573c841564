"""Train the CDVAE: python training/cdvae/train.py --data crystals.npz --out DIR; rerun to resume.

Data: the file that training/generate/crystals.py packs (or perov_5.npz, carbon_24.npz of the same layout). Needs numpy,
torch and safetensors only. Writes DIR/last.pt every two minutes and DIR/cdvae.safetensors at the end; the
latent prior is added by training/cdvae/latents.py.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from onnes.generate.cdvae import PUBLISHED, CdvaeWeights, losses, standardised, weighted
from onnes.generate.fitting import FitSettings, fit
from onnes.generate.groups import load_groups, packed_hash
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
    return parser.parse_args()


def up_sampled(groups: dict, args: argparse.Namespace) -> None:
    """Set how often crystals are drawn: those with a Tc more often, those with a high one more often still."""
    for group in groups.values():
        tc = torch.nan_to_num(group["log_tc"], nan=-torch.inf)
        weight = torch.where(torch.isfinite(tc), args.eph_times, 1.0)
        group["weight"] = torch.where(tc >= np.log10(args.high_tc), args.times, weight)


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
    line, tensors = fit(net, loss, groups, fitting, args.out, validate=held or None)
    settings = {
        "network": size.as_dict(),
        "lattice_mean": list(scale.mean),
        "lattice_std": list(scale.std),
        "atom_counts": {int(n): len(g["types"]) for n, g in groups.items()},
        "elements": sorted({int(z) for g in groups.values() for z in g["types"].unique().tolist()}),
    }
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
    }
    Checkpoint("cdvae", settings, card, tensors).save(args.out / "cdvae.safetensors")
    print("done", flush=True)


if __name__ == "__main__":
    main()
