"""Waiting for another process, never for ever."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

DEADLINE_S = 300
"""For a process beside others on a busy machine; pytest's own deadline for slow tests is thrice as long."""


def wait_for(what: Callable[[], object], seconds: float = DEADLINE_S, process: subprocess.Popen | None = None) -> None:
    """Return once `what()` is true; fail at the deadline, or when `process`, whose work it is, ends without it."""
    deadline = time.monotonic() + seconds
    while not what():
        if process is not None and process.poll() is not None and not what():
            pytest.fail(f"the process ended with {process.returncode} before what was waited for")
        if time.monotonic() > deadline:
            pytest.fail(f"what was waited for was not there after {seconds:g} seconds")
        time.sleep(0.02)
