"""Work whose memory is measured, in a process of its own: `python child.py NAME ARGUMENTS…` prints one line of JSON."""

from __future__ import annotations

import json
import re
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ours


def argpartition(path: Path, k: int) -> np.ndarray:
    """A peer: NumPy's selection; ties at the boundary fall as they may."""
    values = np.load(path, mmap_mode="r")
    picks = np.argpartition(values, len(values) - k)[-k:]
    return picks[np.argsort(-values[picks], kind="stable")]


def lexsort(path: Path, k: int) -> np.ndarray:
    """A peer: a full sort, ties broken by position."""
    values = np.load(path, mmap_mode="r")
    return np.lexsort((np.arange(len(values)), -values))[:k]


def top_k(name: str, scores: str, k: str, out: str) -> dict[str, float]:
    """Rank a file of scores by `ours` or a peer, in a process without torch; positions go to `out`."""
    ways: dict[str, Callable[[Path, int], np.ndarray]] = {
        "ours": ours.top_k, "argpartition": argpartition, "lexsort": lexsort,
    }  # fmt: skip
    before = memory()["peak_mb"]
    started = time.perf_counter()
    picks = ways[name](Path(scores), int(k))
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, **memory(), "before_mb": before}
    np.save(out, picks)
    return found


def growth(folder: str, rows: str) -> dict[str, float]:
    """Score so many rows of a folder with the `tiny` proxy."""
    model = ours.proxy("tiny")
    tokens = ours.open_rows(Path(folder))
    ours.scores(model, tokens, np.arange(64))  # its first call
    with tempfile.TemporaryDirectory(dir=folder) as out, PeakAnonymous() as own:
        started = time.perf_counter()
        ours.score_to_disk(model, tokens, int(rows), Path(out))
        seconds = time.perf_counter() - started
    return {"seconds": seconds, **memory(), "anonymous_mb": own.peak}


def ranks(scratch: str, count: str, quick: str) -> dict[str, float]:
    """Training and scoring on so many ranks of this machine."""
    return ours.on_ranks(Path(scratch), int(count), quick == "True")


def memory() -> dict[str, float]:
    """Peak resident memory of this process, mapped files included.

    From /proc where there is one: `ru_maxrss` survives `exec`, so a child would report its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return {"peak_mb": _field(status, "VmHWM")}
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def _field(status: Path, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.M)
    return int(found[1]) * 1024 / 1e6 if found else float("nan")


class PeakAnonymous:
    """The largest memory that is no mapped file, looked up every 20 ms (mapped pages can be dropped at any time)."""

    peak = float("nan")

    def __enter__(self) -> PeakAnonymous:
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists():
            self.peak = float(np.fmax(self.peak, _field(status, "RssAnon")))
            if self._over.wait(0.02):
                return

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    work: dict[str, Callable[..., dict[str, float]]] = {"top_k": top_k, "growth": growth, "ranks": ranks}
    print(json.dumps(work[name](*arguments)))
