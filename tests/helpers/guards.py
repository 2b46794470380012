"""What a test must leave as it found it: environment, working folder, threads, child processes, torch's defaults."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_S = 5.0
"""How long a thread or a process that is on its way out may take."""

DAEMONS = re.compile("tqdm_monitor$")
"""Names of threads that a library starts once a process and keeps."""

SERVICES = re.compile("multiprocessing.resource_tracker|multiprocessing.forkserver|loky.backend.resource_tracker")
"""Command lines of processes that a library starts once a process and keeps."""

VARIABLES = re.compile("PYTEST_CURRENT_TEST$|PL_|CUBLAS_|KMP_|PYTORCH_|TORCHINDUCTOR_")
"""Environment variables that pytest sets for a test, Lightning for each fit, and libraries as they are imported."""


def adopt_orphans() -> None:
    """On Linux, processes whose parent dies become this process's children, so that a leak of theirs is seen too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _children() -> set[int]:
    """This process's children that still run; none where there is no /proc to read them from."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            found |= {int(pid) for pid in task.read_text().split()}
        except OSError:  # the thread has ended meanwhile
            continue
    return {pid for pid in found if _command(pid)}  # a process that has ended has no command line


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _torch_defaults() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {"torch's default dtype": torch.get_default_dtype(), "torch's threads": torch.get_num_threads()}


@dataclass(frozen=True)
class State:
    """What there is before a test."""

    environment: dict[str, str]
    folder: str
    threads: frozenset[threading.Thread]
    children: frozenset[int]
    torch: dict[str, Any]

    @classmethod
    def now(cls) -> State:
        return cls(
            dict(os.environ), os.getcwd(), frozenset(threading.enumerate()), frozenset(_children()), _torch_defaults()
        )

    def leaks(self) -> list[str]:
        """What has come on top since, each in words; all of it is put back, so that no later test is blamed for it."""
        return [*self._environment(), *self._folder(), *self._torch(), *self._processes(), *self._threads()]

    def _environment(self) -> list[str]:
        now = {key: value for key, value in os.environ.items() if not VARIABLES.match(key)}
        before = {key: value for key, value in self.environment.items() if not VARIABLES.match(key)}
        changed = sorted(key for key in {*now, *before} if now.get(key) != before.get(key))
        for key in changed:
            if key in before:
                os.environ[key] = before[key]
            else:
                del os.environ[key]
        return [f"environment variable {key}: {before.get(key)!r} became {now.get(key)!r}" for key in changed]

    def _folder(self) -> list[str]:
        now = os.getcwd()
        os.chdir(self.folder)
        return [f"the working folder: {self.folder} became {now}"] if now != self.folder else []

    def _torch(self) -> list[str]:
        now, torch = _torch_defaults(), sys.modules.get("torch")
        changed = [name for name, value in self.torch.items() if now[name] != value]
        if changed and torch is not None:
            torch.set_default_dtype(self.torch["torch's default dtype"])
            torch.set_num_threads(self.torch["torch's threads"])
        return [f"{name}: {self.torch[name]} became {now[name]}" for name in changed]

    def _processes(self) -> list[str]:
        def new() -> list[int]:
            return sorted(pid for pid in _children() - self.children if not SERVICES.search(_command(pid)))

        left = [(pid, _command(pid)) for pid in _after_grace(new)]
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        return [f"process {pid}: {command[:200]}" for pid, command in left]

    def _threads(self) -> list[str]:
        def new() -> list[threading.Thread]:
            return [one for one in threading.enumerate() if one not in self.threads and not DAEMONS.match(one.name)]

        return [f"thread {one.name!r}" for one in _after_grace(new)]


def _after_grace(new: Callable[[], Collection[Any]]) -> Collection[Any]:
    deadline = time.monotonic() + GRACE_S
    while (found := new()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
