"""onnes: a toolkit that finds conventional (electron-phonon) superconductors."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

# Name -> module that holds it. Resolved on first use, so that `import onnes` and `onnes --help`
# never pay for torch.
_LAZY = {
    "predict": "onnes.prediction",
    "discover": "onnes.campaign.discover",
    "Spectrum": "onnes.theory.spectral",
    "tc": "onnes.theory.tc",
    "eliashberg": "onnes.theory.superconductor",
    "Record": "onnes.data.records",
    "read": "onnes.crystal.read",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'onnes' has no attribute {name!r}")
