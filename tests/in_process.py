"""The ``onnes`` command within the process of the tests, which has loaded torch already.

A process of its own takes 3 to 5 s of CPU time before it does anything. It stays where the process itself is what is
tested (kill -9, import time, silence of libraries), and once for most commands.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from onnes.cli.main import main


def onnes(*arguments: object, cwd: str | Path = ".", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder: its exit code, what it printed, and its words on standard error."""
    command = ["onnes", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", command)
        for name, value in environment.items():
            patch.setenv(name, value)
        main()
    return subprocess.CompletedProcess(command, int(end.value.code or 0), out.getvalue(), err.getvalue())
