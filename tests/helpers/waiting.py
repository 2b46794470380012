"""Waiting for another process, never for ever."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest


def wait_for(
    what: Callable[[], object], seconds: float = 60, process: subprocess.Popen | None = None, step: float = 0.02
) -> None:
    """Return once `what()` is true; fail at the deadline, or when `process`, whose work it is, ends without it."""
    deadline = time.monotonic() + seconds
    while not what():
        if process is not None and process.poll() is not None and not what():
            pytest.fail(f"the process ended with {process.returncode} before what was waited for")
        if time.monotonic() > deadline:
            pytest.fail(f"nothing after {seconds:g} seconds")
        time.sleep(step)
