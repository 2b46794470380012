"""What the figures of a study draw: a point an arm and budget, its look, its numbers in words. No matplotlib here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame, isna
from scipy.stats import sem, t

from fastmtl.reporting.frame import arms


class Look(NamedTuple):
    """How an arm is drawn; `line` is of curves and bands."""

    color: str
    marker: str
    line: Any


Looks = Mapping[str, Look]
"""Arm -> its look, the same in all figures of a page."""

MARKERS = "^vPX<>*hdp"
"""Of arms and tasks that have none of their own."""

_FIXED = {
    "none": Look("#000000", "s", "--"), "primary_only": Look("#5B3A8E", "p", "-."),
    "random": Look("#6B6B6B", "o", "-"), "full": Look("#8C6500", "D", ":"),
}  # fmt: skip
_HUES = ("#D55E00", "#0072B2", "#009E73", "#AA4499", "#3D9FD6", "#882255", "#8A8A1F")
_LINES: tuple[Any, ...] = ("-", (0, (6, 1)), (0, (3, 1, 1, 1)))


def arm_looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for every arm, in the order given; those of the baselines are always the same."""
    looks, i = dict.fromkeys(names, _FIXED["none"]), 0
    for name in looks:
        if name not in _FIXED:
            looks[name] = Look(_HUES[i % len(_HUES)], MARKERS[i % len(MARKERS)], _LINES[i // len(_HUES) % len(_LINES)])
            i += 1
    return looks | {name: look for name, look in _FIXED.items() if name in looks}


@dataclass(frozen=True)
class Point:
    """The seeds of one arm at one budget, None for arms without one."""

    arm: str
    budget: float | None
    cells: DataFrame
    look: Look

    @property
    def name(self) -> str:
        return name_of(self.arm, self.budget)

    @cached_property
    def scores(self) -> np.ndarray:
        """Headlines x100, one a seed."""
        return 100 * self.cells["score"].to_numpy(float)

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of the mean; NaN with one seed, or where all are equal."""
        if len(self.scores) < 2:
            return np.nan, np.nan
        half = float(sem(self.scores) * t.ppf(0.975, len(self.scores) - 1)) or np.nan
        return self.mean - half, self.mean + half

    @property
    def rows(self) -> float:
        """Auxiliary rows; at least one, for a logarithmic axis."""
        return max(1.0, self.mean_of("aux_rows"))

    @property
    def teraflops(self) -> float:
        """All that a cell needs, mean over the seeds."""
        return self.mean_of("total_flops") / 1e12

    def mean_of(self, column: str) -> float:
        """Over the seeds, those without a value as 0."""
        return float(self.cells[column].fillna(0).mean())

    def counts(self, prefix: str) -> dict[str, float]:
        """Mean of all columns with this prefix, by the rest of their name."""
        return {name.removeprefix(prefix): self.mean_of(name) for name in self.cells if name.startswith(prefix)}


def points_of(cells: DataFrame, looks: Looks | None) -> list[Point]:
    """One an arm and budget, in the order of the frame."""
    looks = looks or arm_looks(cells["arm"])
    return [Point(arm, None if isna(size) else float(size), group, looks[arm]) for arm, size, group in arms(cells)]


def by_arm(points: Iterable[Point]) -> list[list[Point]]:
    """The points of each arm, which follow each other."""
    return [list(line) for _, line in groupby(points, key=lambda point: point.arm)]


def name_of(arm: str, budget: Any) -> str:
    """An arm at a budget, NA for none."""
    return arm if isna(budget) else f"{arm} {number(budget)}"


def row_names(points: Sequence[Point]) -> list[str]:
    """Of rows: the arm once, then its further budgets alone."""
    before = [None, *(p.arm for p in points)]
    return [number(p.budget) if p.budget is not None and p.arm == arm else p.name for p, arm in zip(points, before)]


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def paired(point: Point, reference: DataFrame) -> np.ndarray:
    """Differences x100 of the seeds that both have, to the reference at the same budget or else without one."""
    same = reference[(reference["budget"] == point.budget).fillna(False)]
    other = same if len(same) else reference[reference["budget"].isna()]
    both = point.cells.merge(other[["seed", "score"]], on="seed", suffixes=("", "_reference"))
    return 100 * (both["score"] - both["score_reference"]).to_numpy(float)


def difference(row: Any) -> str:
    """A row of the comparisons in words."""
    if row.n < 2:
        return "1 seed" if row.n else "no common seed"
    mean = f"{100 * row.mean:+.1f}".replace("-", "\N{MINUS SIGN}")
    return f"{mean}{between(100 * row.low, 100 * row.high)}{' *' * bool(row.significant)}"


def between(low: float, high: float) -> str:
    """An interval in brackets, after a space; nothing where there is none."""
    return "" if np.isnan(low) else f" ({low:.1f} to {high:.1f})".replace("-", "\N{MINUS SIGN}")
