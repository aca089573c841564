"""Checkpoints: weights, settings and card in one safetensors file.

The settings a model was trained with travel in the header of the file, so that inference never guesses them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from onnes.errors import ModelError

_KEY = "onnes"
#: Name of the checkpoint in the folder of `onnes train`.
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model on disk.

    Attributes
    ----------
    kind : str
        What the weights are for (``"diffusion"``, ``"epc"``, ...).
    settings : dict
        Everything needed to rebuild the network and its inputs.
    card : dict
        Where it comes from and how good it is: data hash, split, seed, command, metrics.
    tensors : dict of str to Tensor
    """

    kind: str
    settings: dict[str, Any]
    card: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)

    @cached_property
    def hash(self) -> str:
        """Hash of kind, settings and weights: the model hash of every verdict."""
        digest = hashlib.sha256(json.dumps([self.kind, self.settings], sort_keys=True).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(self.tensors[name].detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the file atomically: a reader sees the old file or the whole new one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"kind": self.kind, "settings": self.settings, "card": self.card}, sort_keys=True)
        body = save({k: v.detach().cpu().contiguous() for k, v in self.tensors.items()}, {_KEY: header})
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as handle:
            handle.write(body)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(handle.name, 0o644)
        os.replace(handle.name, path)

    @classmethod
    def load(cls, path: str | Path, kind: str | None = None) -> Checkpoint:
        """Read a checkpoint and check what it is for.

        Raises
        ------
        ModelError
            ``no-model``, ``damaged-model`` or ``wrong-model``.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError("no-model", f"no checkpoint at {path}")
        try:
            with safe_open(path, framework="pt") as handle:
                header = json.loads((handle.metadata() or {})[_KEY])
            tensors = load_file(path)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ModelError("damaged-model", f"{path} is not an onnes checkpoint ({error})") from error
        if kind is not None and header["kind"] != kind:
            raise ModelError("wrong-model", f"{path} holds a {header['kind']!r} model, {kind!r} is needed")
        return cls(header["kind"], header["settings"], header["card"], tensors)


def pretrained(name: str) -> Path:
    """Path of a file shipped in ``onnes/pretrained``."""
    return Path(str(resources.files("onnes.pretrained") / name))
