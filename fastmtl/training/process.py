"""What the operating system is asked about this process and its children: memory, and an end with the driver."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

_FOLLOW = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM; it outlives exec
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)  # the driver ended before it was set
os.execvp(sys.argv[2], sys.argv[2:])
"""


def following(command: Sequence[str]) -> list[str]:
    """The command, such that Linux ends it with this process, also when that is killed.

    A process of its own asks for it and then becomes the command: what `preexec_fn` runs between fork and exec may
    deadlock beside other threads.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-ISc", _FOLLOW, str(os.getpid()), *command]


class PeakMemory:
    """The largest memory use since the object was made: of the GPU's allocator, or of this process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_reset = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
                libc.malloc_trim(0)  # what glibc keeps of an earlier fit is not this one's
            with suppress(OSError):  # no Linux, or a /proc that is read-only
                Path("/proc/self/clear_refs").write_text("5")
                self._is_reset = True
        self._before = _high_water_mib()

    def mib(self) -> int | None:
        """In MiB; None where all that is known is that the process once had more, before."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device) / 2**20)
        peak = _high_water_mib()
        return int(peak) if self._is_reset or peak > self._before else None


def _high_water_mib() -> float:
    """The process's largest resident memory; `ru_maxrss` survives `exec` and is never reset."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.M)):
        return int(found[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
