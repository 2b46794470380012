"""Memory is that of the fit that is measured, and children end with their driver."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmtl.training import process
from fastmtl.training.fit import _keep_freed_memory
from fastmtl.training.process import PeakMemory, following

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def until(true: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@on_linux
def test_the_peak_is_that_since_the_measure_began() -> None:
    _keep_freed_memory()  # as every fit on a CPU does
    before = [np.ones(2**17) for _ in range(256)]  # 256 MiB
    del before
    peak = PeakMemory(CPU)
    least = peak.mib()
    during = np.ones(64 * 2**17)
    assert least is not None
    assert peak.mib() == pytest.approx(least + 64, abs=16)
    del during
    assert PeakMemory(CPU).mib() == pytest.approx(least, abs=16)


def test_a_peak_that_may_be_older_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the mark cannot be set back."""
    marks = iter([100.0, 100.0, 130.0])
    monkeypatch.setattr(process, "_high_water_mib", lambda: next(marks))
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(PermissionError()))
    peak = PeakMemory(CPU)
    assert peak.mib() is None
    assert peak.mib() == 130


@on_linux
def test_a_child_ends_when_its_driver_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); time.sleep(600)"
    driver = (
        "import subprocess, sys, threading\nfrom fastmtl.training.process import following\n"
        f"threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        f"subprocess.run(following([sys.executable, '-c', {child!r}]))"
    )
    running = subprocess.Popen([sys.executable, "-c", driver])
    try:
        assert until(lambda: told.exists() and told.read_text() != "", 120)
    finally:
        running.kill()
        running.wait()
    pid = told.read_text()
    assert until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


@on_linux
def test_a_child_whose_driver_is_gone_already_does_not_start() -> None:
    command = following([sys.executable, "-c", "print('started')"])
    command[command.index(str(os.getpid()))] = "1"
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")


def test_a_command_keeps_its_arguments_and_its_exit_code() -> None:
    ran = subprocess.run(
        following([sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a b", "--c"]),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (7, "['a b', '--c']\n")
