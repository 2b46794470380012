"""A sweep as files in its folder: which cells there are, which one runs, how each one ended. `fastmtl status` draws it.

The files are the only channel between cells and the overview, so it does not matter which launcher runs the cells, in
which process or on which machine, and another terminal sees what the sweep's own sees.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from fastmtl.cli.verbs import Arguments
from fastmtl.errors import UserError
from fastmtl.store import write_json

PLAN, STATUS, LOCK = "cells.json", "status.json", ".running"

MARKS = {"queued": ".", "running": ">", "done": "#", "found": "=", "failed": "x", "stopped": "?"}
"""State -> its mark in the matrix. `found`: every artifact was there; `stopped`: its process is gone."""

ENDED = ("done", "found", "failed")

POLL_S = 1.0


@dataclass(frozen=True)
class Cell:
    """A cell as its files show it; seconds since the epoch, 0 where there is none yet."""

    number: int
    overrides: dict[str, str]
    command: str
    state: str = "queued"
    started: float = 0.0
    ended: float = 0.0
    artifacts: int = 0
    hits: int = 0
    score: str = ""
    error: str = ""

    @property
    def wall_s(self) -> float:
        """How long it took."""
        return self.ended - self.started


def plan(folder: Path, cells: Sequence[Sequence[str]], commands: Sequence[str]) -> None:
    """Write down all cells of a sweep, `KEY=VALUE` each override; what an earlier sweep left in the folder goes."""
    for name in (STATUS, "result.json"):
        for path in folder.glob(f"*/{name}"):
            path.unlink()
    # An override that only removes, `~debug`, has no value.
    plan = [
        {"overrides": {key: value for key, _, value in (one.partition("=") for one in cell)}, "command": command}
        for cell, command in zip(cells, commands)
    ]
    write_json(folder / PLAN, plan)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, Any]]:
    """Hold the cell's lock while it runs; what the caller puts into the dict becomes its status.

    A process that is killed cannot write its end, but its lock is free: such a cell is read as `stopped`.
    """
    status = {"state": "running", "started": time.time()}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        write_json(folder / STATUS, status)
        yield status
        write_json(folder / STATUS, {**status, "ended": time.time()})


def read(folder: Path) -> list[Cell]:
    """All cells of the sweep in `folder`, in the order in which they are launched."""
    cells = []
    for n, planned in enumerate(json.loads((folder / PLAN).read_text())):
        # The lock first: a cell that ends between the two looks is then read as ended, not as stopped.
        alive, status = held(folder / str(n) / LOCK), folder / str(n) / STATUS
        found = json.loads(status.read_text()) if status.exists() else {}
        if found.get("state") == "running" and not alive:
            found["state"] = "stopped"
        cells.append(Cell(n, **planned, **found))
    return cells


def held(lock: Path) -> bool:
    """Whether a living process holds the lock."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def newest(folder: Path) -> Path:
    """The folder itself if it is a sweep's, else the newest sweep of an output folder."""
    if (folder / PLAN).exists():
        return folder
    plans = sorted(folder.glob(f"sweeps/*/*/{PLAN}"))
    if not plans:
        raise UserError(f"{str(folder)!r} has no sweep; give the folder of one, or that of paths.output")
    return plans[-1].parent


def summary(cells: Sequence[Cell]) -> str:
    """Counts by state and, once a cell was computed, the time left if the others take as long."""
    counts = Counter(cell.state for cell in cells)
    counts["done"] += counts["found"]
    states = [
        f"{counts[state]} {state}" for state in ("done", "running", "failed", "stopped", "queued") if counts[state]
    ]
    if counts["found"]:
        states[0] += f" ({counts['found']} found)"
    text = f"{len(cells)} cells: {', '.join(states)}"
    computed = [cell.wall_s for cell in cells if cell.state == "done"]
    if computed and counts["running"]:
        now = time.time()
        mean_s = sum(computed) / len(computed)
        left_s = [max(0.0, mean_s - (now - cell.started)) for cell in cells if cell.state == "running"]
        seconds = (sum(left_s) + mean_s * counts["queued"]) / counts["running"]
        text += f"; about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'} left"
    return text


def matrix(cells: Sequence[Cell]) -> str:
    """One mark a cell: budgets are columns, seeds stand side by side, and all else that is swept tells rows apart."""
    from tabulate import tabulate

    rows = [key for key in _swept(cells) if key not in ("budget", "seed")]
    columns = list(dict.fromkeys(cell.overrides.get("budget", "") for cell in cells))
    boxes: dict[str, dict[str, str]] = {}
    for cell in cells:
        box = boxes.setdefault(" ".join(cell.overrides[key] for key in rows), dict.fromkeys(columns, ""))
        box[cell.overrides.get("budget", "")] += MARKS[cell.state]
    heads = [" ".join(rows), *(f"budget={column}" if column else "" for column in columns)]
    lines = [[label, *box.values()] for label, box in boxes.items()]
    table = tabulate(lines, heads, tablefmt="github", disable_numparse=True)
    return f"{table}\n{'  '.join(f'{mark} {state}' for state, mark in MARKS.items())}"


def line(cell: Cell, cells: Sequence[Cell]) -> str:
    """How a cell ended, and which one of the sweep it is."""
    ended = f"failed: {cell.error}" if cell.error else f"{cell.score} ({cell.hits} of {cell.artifacts} artifacts found)"
    which = " ".join(f"{key}={cell.overrides[key]}" for key in _swept(cells))
    return " ".join(f"[{cell.number + 1}/{len(cells)}] {which}  {ended}, {cell.wall_s:.0f} s".split())


def losses(cells: Sequence[Cell]) -> list[str]:
    """What did not end well, with the command that repeats it."""
    return [
        f"fastmtl: {cell.state}: {cell.error or 'its process is gone'}\n         repeat: {cell.command}"
        for cell in cells
        if cell.state in ("failed", "stopped")
    ]


def _swept(cells: Sequence[Cell]) -> list[str]:
    """Keys with more than one value."""
    return [key for key in cells[0].overrides if len({cell.overrides[key] for cell in cells}) > 1]


class Watch(threading.Thread):
    """Prints a line for every cell that ends; on a terminal, a last line has the state of the whole sweep."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self._last = threading.Event()

    def run(self) -> None:
        reported: set[int] = set()
        with tqdm(bar_format="{desc}", leave=False, disable=None) as state:  # None: not without a terminal
            while True:
                last = self._last.wait(POLL_S)
                cells = read(self.folder)
                for cell in cells:
                    if cell.state in ENDED and cell.number not in reported:
                        reported.add(cell.number)
                        tqdm.write(line(cell, cells))
                state.set_description_str(summary(cells))
                if last:
                    return

    def stop(self) -> None:
        """Return when everything that has ended is reported."""
        self._last.set()
        self.join()


def main(argv: list[str]) -> None:
    """`fastmtl status`."""
    parser = Arguments("status", "fastmtl status outputs")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("outputs"),
                        help="of a sweep, or an output folder for its newest sweep (default: %(default)s)")  # fmt: skip
    folder = newest(parser.parse_args(argv).folder)
    cells = read(folder)
    print("\n".join([str(folder), summary(cells), "", matrix(cells), *losses(cells)]))
