"""Learning curves as arrays, from our own runs and from the logs of Bingel & Søgaard's code."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmtl.errors import UserError

_LINE = re.compile(r"Iter (\d+), task (\S+), loss ([^\s,]+)")


class Curve(NamedTuple):
    """Training loss after so many steps: `steps` (n,) int, `losses` (n,)."""

    steps: np.ndarray
    losses: np.ndarray


def from_run(path: Path, task: str) -> Curve:
    """The training loss of a task in a fit's `curves.csv` (`training.callbacks.Curves`)."""
    with open(path, newline="") as file:
        points = [(row["step"], row["value"]) for row in csv.DictReader(file) if row["name"] == f"loss/{task}"]
    return _curve(points, path, task)


def from_log(path: Path, task: str) -> Curve:
    """The training loss of a task in a log of lines `Iter 10, task ccg, loss 7.164`, as it stands there."""
    found = (_LINE.match(line) for line in path.read_text().splitlines())
    return _curve([(match[1], match[3]) for match in found if match and match[2] == task], path, task)


def last_run(curve: Curve) -> Curve:
    """What follows the last place where the steps go back: a run that was started again appended to its log."""
    back = np.flatnonzero(np.diff(curve.steps) <= 0)
    start = back[-1] + 1 if len(back) else 0
    return Curve(curve.steps[start:], curve.losses[start:])


def until(curve: Curve, step: int) -> Curve:
    """The curve up to and with a step, so that percentages of training mean the same in runs of unequal length."""
    return Curve(curve.steps[curve.steps <= step], curve.losses[curve.steps <= step])


def _curve(points: list[tuple[str, str]], path: Path, task: str) -> Curve:
    if not points:
        raise UserError(f"{path} has no training loss of {task!r}; name a task that was trained there")
    steps, losses = zip(*points)
    return Curve(np.array(steps, dtype=int), np.array(losses, dtype=float))
