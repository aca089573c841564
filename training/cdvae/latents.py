"""What is trained on the latent vectors of a finished CDVAE (heads, flow, critic, mixture), and the file shipped.

    python training/cdvae/latents.py WORK/cdvae.safetensors --data crystals.npz --work WORK/latents --out FILE

On one CPU core about half an hour; rerun to resume. The encoder stays as it is. Wider heads read the composition more
surely than those trained with the decoder; flow, critic and mixture are the latent priors. Stored in half precision.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from pathlib import Path

import torch

from onnes.generate.cdvae import CdvaeWeights, head_labels, standardised
from onnes.generate.fitting import FitSettings
from onnes.generate.groups import load_groups, packed_hash
from onnes.generate.latent import LatentPrior, Reweighted
from onnes.generate.latent_fit import Encoded, encode, fit_critic, fit_flow, fit_heads, fit_mixture
from onnes.generate.process import LatticeScale
from onnes.learn.store import Checkpoint
from onnes.nets.cdvae import Cdvae, CdvaeSettings, Heads
from onnes.nets.latent_critic import LatentCritic
from onnes.nets.latent_flow import LatentFlow

HEADS = {"head_hidden": 512, "head_layers": 2}
FLOW = {"hidden": 256, "couplings": 10, "dropout": 0.1}
CRITIC = {"hidden": 384, "dropout": 0.2}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--head-steps", type=int, default=2500)
    parser.add_argument("--flow-steps", type=int, default=3000)
    parser.add_argument("--critic-steps", type=int, default=1500)
    parser.add_argument("--components", default="1,4,16")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def check(data: Path, trained: Checkpoint) -> None:
    """Refuse other crystals than the model's. Their description by Wyckoff positions may differ: it is not used."""
    groups = load_groups(data, "train")
    scale = LatticeScale.fit(torch.cat([g["lattice"] for g in groups.values()]).double().numpy())
    counts = {str(n): len(g["types"]) for n, g in groups.items()}
    stored = trained.settings
    if counts != stored["atom_counts"] or list(scale.mean) != stored["lattice_mean"]:
        raise SystemExit(f"{data} holds other primitive cells than this model was trained on")


def encoded(net: Cdvae, scale: LatticeScale, data: Path, work: Path, split: str, key: str) -> tuple:
    """Posteriors and labels of a split; kept in the folder, for encoding takes minutes."""
    groups = load_groups(data, split)
    rows = [head_labels(standardised(g, scale)) for g in groups.values()]
    labels = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    kept = work / f"{split}-{key}.pt"
    if not kept.exists():
        posteriors = encode(net, scale, groups)
        torch.save({"mean": posteriors.mean, "log_var": posteriors.log_var}, kept)
    stored = torch.load(kept, weights_only=True)
    return Encoded(stored["mean"], stored["log_var"]), labels


@torch.no_grad()
def likelihoods(held: Encoded, priors: dict, seed: int) -> dict[str, float]:
    """Mean log density (nats) of one draw from each held-out posterior."""
    generator = torch.Generator().manual_seed(seed)
    z = held.draw(generator)
    out = {name: float(prior.log_prob(z).mean()) for name, prior in priors.items()}
    # The reweighted density is known up to a constant, the mean ratio over draws of its base.
    both = priors["reweighted"]
    ratio = both.critic(both.base.sample(20000, generator), both.heads)
    out["reweighted"] -= float(ratio.logsumexp(0)) - math.log(len(ratio))
    return {name: round(value, 3) for name, value in out.items()}


def main() -> None:
    args = options()
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    trained = Checkpoint.load(args.model, "cdvae")
    settings = trained.settings
    net = Cdvae(CdvaeSettings(**settings["network"]))
    net.load_state_dict(trained.tensors)
    net.eval()
    scale = LatticeScale(tuple(settings["lattice_mean"]), tuple(settings["lattice_std"]))
    check(args.data, trained)
    train = encoded(net, scale, args.data, args.work, "train", trained.hash)
    held = encoded(net, scale, args.data, args.work, "val", trained.hash)
    print(f"{len(train[0].mean)} posteriors, {len(held[0].mean)} held out", flush=True)

    size = CdvaeSettings(**settings["network"] | HEADS)
    fitting = {"batch": 256, "warmup": 200, "ema": 0.998, "seed": args.seed, "every": 100}
    heads = fit_heads(
        Heads(size, dropout=0.05),
        train,
        held,
        CdvaeWeights(**trained.card["weights"]),
        FitSettings(steps=args.head_steps, lr=2e-3, **fitting),
        args.work / "heads",
    )
    flow = fit_flow(
        train[0],
        held[0],
        LatentFlow(size.latent, **FLOW),
        FitSettings(steps=args.flow_steps, lr=1e-3, **fitting),
        args.work / "flow",
    )
    critic = fit_critic(
        LatentCritic(size.latent, **CRITIC),
        flow,
        heads,
        train[0],
        held[0],
        FitSettings(steps=args.critic_steps, lr=1e-3, **fitting),
        args.work / "critic",
    )
    began = time.time()
    mixture, tried = fit_mixture(train[0], held[0], [int(k) for k in args.components.split(",")], args.seed)
    print("mixtures", json.dumps(tried), f"{time.time() - began:.0f} s", flush=True)

    body = {
        k: v for k, v in trained.tensors.items() if not k.startswith(("heads.", "prior.", "flow.", "critic."))
    }
    body |= {f"heads.{k}": v for k, v in heads.state_dict().items()}
    body |= {f"flow.{k}": v for k, v in flow.state_dict().items()} | mixture.as_tensors()
    body |= {f"critic.{k}": v for k, v in critic.state_dict().items()}
    halves = {k: v.half() if v.is_floating_point() else v for k, v in body.items()}
    card = dict(trained.card)
    card["command"] = [
        re.sub(r"--(out|data) (\S*/)?(\S+)", r"--\1 WORK/\3", card["command"]),
        "python training/cdvae/latents.py WORK/cdvae.safetensors --data WORK/crystals.npz --work WORK/latents "
        f"--head-steps {args.head_steps} --flow-steps {args.flow_steps} --critic-steps {args.critic_steps} "
        f"--seed {args.seed}",
    ]
    priors = {"gaussian": LatentPrior.standard(size.latent), "mixture": mixture, "flow": flow}
    priors["reweighted"] = Reweighted(flow, critic, heads)
    card["latent_data_hash"] = packed_hash(args.data)
    card["latent_prior"] = {
        "n_held_out": len(held[0].mean),
        "nats": likelihoods(held[0], priors, args.seed),
        "mixtures_tried": {k: round(v, 3) for k, v in tried.items()},
    }
    card["stored"] = "half precision; used in single precision"
    shipped = settings | {"network": size.as_dict(), "flow": FLOW, "critic": CRITIC}
    Checkpoint("cdvae", shipped, card, halves).save(args.out)
    print("done", json.dumps(card["latent_prior"]), flush=True)


if __name__ == "__main__":
    main()
