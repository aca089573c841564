"""CHGNet (extra ``chgnet``) as an ASE calculator with the manners of the others: silent, on the CPU."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

#: Version of the weights that ship inside the package.
VERSION = "0.3.0"
#: CHGNet has an embedding for every element up to here.
LAST_ELEMENT = 94


def load() -> Any:
    """Load CHGNet 0.3.0 with the weights in its package.

    Returns
    -------
    ASE calculator
        Energy in eV, forces in eV/A, stress in eV/A^3. An atom without neighbour within its cut-off of 6 A is an error
        of its own, not an energy.

    Raises
    ------
    ImportError
        Without the package.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from chgnet.model import CHGNet, CHGNetCalculator

        model = CHGNet.load(model_name=VERSION, use_device="cpu", verbose=False)
        calc: Any = CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="error")
    # It computes the energy its forces belong to, and forgets to say so.
    calc.implemented_properties = [*calc.implemented_properties, "free_energy"]
    # The watch on isolated atoms in a relaxation asks for it.
    calc.cutoff = float(model.graph_converter.atom_graph_cutoff)
    return calc


@lru_cache(maxsize=1)
def weights_hash() -> str:
    """Hash of the weights file.

    Raises
    ------
    ImportError
        Without the package.
    """
    import chgnet

    folder = Path(chgnet.__file__).parent / "pretrained" / VERSION
    (file,) = sorted(folder.glob("*.pth.tar"))
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
