"""Store trained weights in half precision for shipping: python training/diffusion/pack.py FROM TO."""

import dataclasses
import re
import sys

from onnes.learn.store import Checkpoint

source, target = sys.argv[1:]
trained = Checkpoint.load(source, "diffusion")
halves = {k: v.half() if v.is_floating_point() else v for k, v in trained.tensors.items()}
card = {**trained.card, "stored": "half precision; used in single precision"}
# The folder of the run says nothing to anyone else.
card["command"] = re.sub(r"--out \S+", "--out WORK/diffusion", card["command"])
dataclasses.replace(trained, tensors=halves, card=card).save(target)
