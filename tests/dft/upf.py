"""Small UPF files: a header as real ones write it, and nothing of use behind it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from onnes.dft.cutoffs import CUTOFFS

V1 = """<PP_INFO>
Generated using Vanderbilt code
</PP_INFO>
<PP_HEADER>
   0                   Version Number
  {element}                  Element
   US                  Ultrasoft pseudopotential
    T                  Nonlinear Core Correction
 SLA  PW   PBE  PBE     PBE  Exchange-Correlation functional
    {z:.6f}      Z valence
  -12.000000000      Total energy
   35.00     180.00    Suggested cutoff for wfc and rho
    1                  Max angular momentum component
  867                  Number of points in mesh
    2    4             Number of Wavefunctions, Number of Projectors
</PP_HEADER>
<PP_RHOATOM>
</PP_RHOATOM>
"""


def upf(element: str, *, z: float | None = None, functional="PBESOL", relativistic="scalar", more="") -> str:
    charge = z if z is not None else CUTOFFS[element].z_valence
    return (
        '<UPF version="2.0.1">\n<PP_INFO>\nmade for a test\n</PP_INFO>\n<PP_HEADER\n'
        f'generated="a test"\nelement="{element}"\npseudo_type="NC"\nrelativistic="{relativistic}"\n'
        f'is_ultrasoft="F"\nis_paw="F"\nfunctional="{functional}"\nz_valence="   {charge:.2f}"\n'
        f'rho_cutoff="   1.87500000000E+01"\n{more}number_of_proj="6"/>\n<PP_MESH>\n</PP_MESH>\n</UPF>\n'
    )


def folder_of(place: Path, *elements: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for element in elements:
        (place / f"{element}.upf").write_text(upf(element))
    return place


def archive_of(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()
