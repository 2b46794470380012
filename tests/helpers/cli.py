"""The commands as a user runs them: in a process and a folder of their own, or quickly in this process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.helpers.waiting import DEADLINE_S


def command(*arguments: str, module: str = "fastmtl.cli.main") -> list[str]:
    """`fastmtl ARGUMENTS`, of the package that is tested."""
    return [sys.executable, "-m", module, *arguments]


def run_cli(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `path` is a folder of a user's own modules."""
    more = {} if path is None else {"PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}
    alone = {key: value for key, value in os.environ.items() if "WANDB" not in key}  # no service of another test's run
    return subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, check=False, env=alone | more,
        timeout=DEADLINE_S,
    )  # fmt: skip


def start_cli(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start it in a process group of its own, which can be interrupted or killed whole; its output is one pipe."""
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command(*arguments), cwd=folder, start_new_session=True, **piped | options)


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
"""Options of `start_cli` for a process that nobody listens to: a full pipe would stop it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended in this process."""

    code: int
    out: str
    err: str


def run_here(folder: Path, *arguments: str) -> Ended:
    """`fastmtl ARGUMENTS` in this process, which has imported all it needs; what it sets here is put back."""
    from fastmtl.cli.main import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ),
    ):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Ended(code, out.getvalue(), err.getvalue())
