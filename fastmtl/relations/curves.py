"""Learning curves as arrays."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmtl.errors import UserError


class Curve(NamedTuple):
    """Training loss after so many steps: `steps` (n,) int, `losses` (n,)."""

    steps: np.ndarray
    losses: np.ndarray


def from_run(path: Path, task: str) -> Curve:
    """The training loss of a task in a fit's `curves.csv` (`training.callbacks.Curves`)."""
    with open(path, newline="") as file:
        points = [(row["step"], row["value"]) for row in csv.DictReader(file) if row["name"] == f"loss/{task}"]
    if not points:
        raise UserError(f"{path} has no training loss of {task!r}; name a task that was trained there")
    steps, losses = zip(*points)
    return Curve(np.array(steps, dtype=int), np.array(losses, dtype=float))
