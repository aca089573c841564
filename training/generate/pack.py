"""Make the shipped files of trained generators, in half precision (used in single precision).

python training/generate/pack.py joint JOINT.pt diffusion.safetensors
python training/generate/pack.py symmetric SITES.pt ORBITS.pt symmetric.safetensors
python training/generate/pack.py composed SYMMETRIC.safetensors SITES1.pt SITES2.pt symmetric.safetensors

``composed`` adds transformers that draw where a formula is asked for (`train.py --composed 1`), in place of those
already there.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from onnes.learn.store import Checkpoint

DATA = (
    "mp_crystals, alexandria_eph, jarvis_supercon, exp_superconductors_mp and bete_structures, at most 20 atoms in the "
    "primitive cell; the formulas of the 105 test rows of the JARVIS-SC generation split left out of all"
)
#: The benchmark sets, by the file that was trained on.
BENCHMARKS = {
    name: f"{name.removesuffix('.npz')}, its public training split"
    for name in ("perov_5.npz", "carbon_24.npz")
}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, Any]]:
    torch.serialization.add_safe_globals([torch.torch_version.TorchVersion])
    stored = torch.load(path, map_location="cpu", weights_only=True)
    return stored["weights"], stored["settings"], cleaned(stored["card"])


def cleaned(card: dict[str, Any]) -> dict[str, Any]:
    """The card of a run, and of the one it started from, without folders: they say nothing to anyone else."""
    card = dict(card)
    card["command"] = re.sub(r"(--data|--out|--start) \S*/", r"\1 WORK/", card["command"])
    card["environment"] = {k: str(v) for k, v in card["environment"].items()}
    return card | ({"start": cleaned(card["start"])} if "start" in card else {})


def halves(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}


def with_composed(path: Path, files: list[Path]) -> Checkpoint:
    """The symmetric generator with these transformers for compositions asked for."""
    old = Checkpoint.load(path, "symmetric")
    tensors = {k: v for k, v in old.tensors.items() if not k.startswith("composed")}
    sizes, cards = [], []
    for i, (weights, known, card) in enumerate(read(f) for f in files):
        same = all(known.get(key, []) == old.settings.get(key, []) for key in ("elements", "like"))
        if not same or known["network"]["max_atoms"] != old.settings["sites"]["max_atoms"]:
            raise SystemExit(f"{files[i]} knows other elements, data sets or sizes than {path}")
        tensors |= {f"composed{i}.{k}": v for k, v in halves(weights).items()}
        sizes.append(known["network"])
        cards.append(card)
    settings = old.settings | {"composed": sizes}
    return Checkpoint("symmetric", settings, old.card | {"composed": cards}, tensors)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("joint", "symmetric", "composed"))
    parser.add_argument("files", type=Path, nargs="+")
    args = parser.parse_args()
    *sources, target = args.files
    if len(sources) < {"joint": 1, "symmetric": 2, "composed": 2}[args.kind]:
        parser.error(f"too few files for {args.kind}")
    if args.kind == "joint":
        weights, settings, card = read(sources[0])
        data = BENCHMARKS.get(str(card.get("file")), DATA)
        Checkpoint("diffusion", settings, {"data": data, **card}, halves(weights)).save(target)
        return
    if args.kind == "composed":
        with_composed(sources[0], sources[1:]).save(target)
        return
    (sites, known, site_card), (orbits, orbit_known, orbit_card) = (read(p) for p in sources)
    settings = {
        "sites": known["network"],
        "orbits": orbit_known["network"],
        "lattice_scale": orbit_known["lattice_scale"],
        "elements": known["elements"],
        "like": known.get("like", []),
    }
    weights = {f"sites.{k}": v for k, v in sites.items()} | {f"orbits.{k}": v for k, v in orbits.items()}
    card = {"data": DATA, "sites": site_card, "orbits": orbit_card}
    Checkpoint("symmetric", settings, card, halves(weights)).save(target)


if __name__ == "__main__":
    main()
