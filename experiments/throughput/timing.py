"""What a measure leaves behind, and how contenders are timed: in turn, so that a busy moment hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class NotMeasurable(Exception):
    """This machine or installation cannot answer; the message says why."""


def reason(error: Exception) -> str:
    """Why a row has no values."""
    return f"not measurable here: {error}" if isinstance(error, NotMeasurable) else f"failed: {said(error)}"


def said(error: BaseException) -> str:
    """An exception in one short line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


@dataclass
class Timed:
    """Seconds of one piece of work, and what it returned."""

    seconds: float
    output: Any = None


def timed(work: Callable[..., Any], *args: Any) -> Timed:
    """Run it; on a GPU until its last kernel has finished."""
    _synchronize()
    started = time.perf_counter()
    output = work(*args)
    _synchronize()
    return Timed(time.perf_counter() - started, output)


def _synchronize() -> None:
    import torch  # slow to import; the command's --help does without

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class Runs:
    """Every repetition of every contender, or what stopped it."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)

    def of(self, name: str) -> list[float]:
        """Its seconds, one a repetition; raises what it raised."""
        if name in self.failures:
            raise self.failures[name]
        return self.seconds[name]

    def times_faster(self, name: str, peer: str) -> list[float]:
        """How many times as fast as the peer, repetition by repetition."""
        return [theirs / own for own, theirs in zip(self.of(name), self.of(peer), strict=True)]


def interleaved(contenders: Mapping[str, Callable[[], Timed]], repetitions: int) -> Runs:
    """A, B, C … in turn, `repetitions` times; a contender that raises is left out and takes no other with it."""
    runs = Runs()
    for _ in range(repetitions):
        for name, run in contenders.items():
            if name in runs.failures:
                continue
            try:
                done = run()
            except Exception as error:
                runs.failures[name] = error
                continue
            runs.seconds.setdefault(name, []).append(done.seconds)
            runs.outputs.setdefault(name, []).append(done.output)
    return runs


@dataclass
class Result:
    """One row of the table. `values` are its repetitions; the goal is read on their median.

    `goal` with `op` >= or <=, or for `op` within the pair (low, high); None where nothing was promised.
    """

    title: str
    unit: str = ""
    goal: float | tuple[float, float] | None = None
    op: str = ">="
    values: list[float] = field(default_factory=list)
    beside: str = ""
    reason: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    def verdict(self) -> str:
        if self.reason:
            return self.reason
        if self.goal is None:
            return "no goal set"
        assert self.median is not None, f"{self.title} has neither values nor a reason"
        missed = self._missed(self.median)
        if missed > 0:
            return f"missed by {max(1, round(100 * missed))} %"
        return "reached" if all(self._missed(value) <= 0 for value in self.values) else "reached, not each time"

    def _missed(self, value: float) -> float:
        """Share of the goal by which a value falls short of it; 0 or less where it is reached."""
        if isinstance(self.goal, tuple):
            low, high = self.goal
            return max((low - value) / low, (value - high) / high)
        assert self.goal is not None
        return (self.goal - value) / self.goal if self.op == ">=" else (value - self.goal) / self.goal

    def goal_text(self) -> str:
        if self.goal is None:
            return "–"
        if isinstance(self.goal, tuple):
            return f"{number(self.goal[0])} to {number(self.goal[1])}{self.unit}"
        return f"{self.op} {number(self.goal)}{self.unit}"

    def value_text(self) -> str:
        if not self.values:
            return "–"
        middle = f"{number(statistics.median(self.values))}{self.unit}"
        low, high = number(min(self.values)), number(max(self.values))
        return f"{middle} [{low}, {high}]" if len(self.values) > 1 else middle

    def to_dict(self) -> dict[str, Any]:
        values = [float(f"{value:.6g}") for value in self.values]
        spread = {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else {}
        return {
            "title": self.title, "unit": self.unit.strip(), "goal": self.goal, "op": self.op if self.goal else None,
            **spread, "values": values, "verdict": self.verdict(), "beside": self.beside,
            "shown": [self.title, self.value_text(), self.goal_text(), self.verdict(), self.beside],
            **self.extra,
        }  # fmt: skip


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def median_rate(amount: float, seconds: Iterable[float]) -> float:
    """Amount a second at the median of several repetitions."""
    return amount / statistics.median(seconds)
