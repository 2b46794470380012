"""What a pile of auxiliary data is worth to a primary task: arms compete under a stated cost, losers stop early.

The arms are the primary alone, all auxiliary rows, and random and chosen rows on a ladder of budgets. All are trained
on the first seeds; then the worse half stops, and the others go on to more seeds, until few are left, which get all
seeds that the cost allows. An arm may only be stopped, never favoured, by what its first seeds showed, and those that
were stopped still count in the correction for many comparisons, so that the answer keeps its error rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fastmtl.errors import UserError

ALONE = ("none", "primary_only")
"""The arms without auxiliary rows: the last stage alone, and both stages with the primary's rows only."""

SEEDS_PER_ROUND = 2
FINALISTS = 2
"""Chosen arms that go on to all seeds, beside their references."""

LEAST_SEEDS = 5
"""Fewer seeds than this answer nothing."""

RESERVED = 0.2
"""The share of the cost that is kept for leaving tasks out one by one."""

Unit = Literal["wall_s", "flops"]
Result = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to use the auxiliary data.

    Args:
        selection: An option of the group `selection`.
        budget: Rows that it takes; None where it takes none or all.
        exclude: Auxiliary tasks whose rows may not be chosen.
    """

    selection: str
    budget: int | None = None
    exclude: tuple[str, ...] = ()

    @property
    def chooses(self) -> bool:
        """Whether it is one of the arms that are on trial, rather than a reference."""
        return self.budget is not None and self.selection != "random"


Run = Callable[[Arm, int], Result]
"""Trains an arm with a seed, or finds it; returns what `fastmtl.record` does."""


@dataclass
class Ledger:
    """What has been spent: every stage counts once, however many arms share it, and at what it cost when it was built.

    So the decisions of a repeated or resumed verdict are those of the first one.
    """

    unit: Unit
    limit: float
    stages: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Seconds or FLOPs."""
        return sum(self.stages.values())

    def add(self, result: Result) -> float:
        """Enter a cell; returns what it added."""
        before = self.spent
        for stage in result["stages"]:
            self.stages[stage["stage"], stage["key"]] = float(stage.get(self.unit) or 0.0)
        return self.spent - before


@dataclass
class Trial:
    """The cells so far, and which arms are still in the running."""

    run: Run
    ledger: Ledger
    report: Callable[[str], None] = lambda line: None
    cells: dict[Arm, list[Result]] = field(default_factory=dict)
    added: dict[Arm, list[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def train(self, arm: Arm, seed: int) -> Result:
        """Run one cell, or find it, and enter its cost."""
        for known in self.cells.get(arm, ()):
            if known["seed"] == seed:
                return known
        result = self.run(arm, seed)
        self.cells.setdefault(arm, []).append(result)
        self.added.setdefault(arm, []).append(self.ledger.add(result))
        share = self.ledger.spent / self.ledger.limit
        self.report(f"{name(arm)}, seed {seed}: {100 * result['headline']:.1f}  ({share:.0%} of the cost spent)")
        return result

    def mean(self, arm: Arm) -> float:
        """Mean score over the arm's seeds."""
        return sum(cell["headline"] for cell in self.cells[arm]) / len(self.cells[arm])

    def next_seed(self, arms: Iterable[Arm]) -> float:
        """What one more seed of these arms is expected to cost, at the dearest seed that each has had."""
        return sum(max(self.added[arm]) for arm in arms)

    def results(self) -> list[Result]:
        """All cells but those that leave a task out; the arms that were stopped included."""
        return [cell for arm, cells in self.cells.items() if not arm.exclude for cell in cells]


def name(arm: Arm) -> str:
    """What people call an arm."""
    rows = "" if arm.budget is None else f" {arm.budget:,} rows"
    return f"{arm.selection}{rows}" + (f" without {', '.join(arm.exclude)}" if arm.exclude else "")


def ladder(candidates: int, primary: int) -> tuple[int, ...]:
    """Budgets to try, ascending: about the primary's own size, and four times that, at most half of the candidates."""
    most = candidates // 2
    steps = sorted({min(most, max(1, primary)), min(most, 4 * max(1, primary))} - {0})
    return tuple(steps)


def batch_size(primary: int) -> int:
    """Rows of a batch, a power of two from 4 to 32, that give at least fifteen steps per pass over so many rows.

    With the papers' 32 a primary of 60 rows is passed in two steps, and no arm learns anything.
    """
    return 2 ** min(5, max(2, int(math.log2(max(1, primary / 15)))))


def compete(
    trial: Trial, budgets: Sequence[int], selectors: Sequence[str], max_seeds: int, candidates: int
) -> list[Arm]:
    """Train all arms, stop the worse ones early, and give the others all seeds that the cost allows.

    Args:
        trial: Where the cells go.
        budgets: Rows that chosen and random arms take.
        selectors: Options of `selection` that choose rows.
        max_seeds: Seeds at most of an arm.
        candidates: All auxiliary rows.

    Returns:
        The arms that were left, all with the same seeds, references first. The first seeds are trained whatever they
        cost; no later one is begun that the cost is not expected to reach for.
    """
    references = [*(Arm(selection) for selection in ALONE), *(Arm("random", budget) for budget in budgets)]
    for arm in references:
        trial.train(arm, 0)
    chosen = [Arm(selection, budget) for selection in selectors for budget in reversed(budgets)]
    left = _with_all(trial, [*references, *_fitting(trial, chosen)], candidates)
    seed = 0
    while True:
        for _ in range(SEEDS_PER_ROUND):
            for arm in left:
                trial.train(arm, seed)
            seed += 1
        left = _halved(trial, left)
        if sum(arm.chooses for arm in left) <= FINALISTS or not _affordable(trial, left):
            break
    left = _halved(trial, left, FINALISTS)
    while seed < max_seeds and _affordable(trial, left):
        for arm in left:
            trial.train(arm, seed)
        seed += 1
    return left


def _fitting(trial: Trial, chosen: list[Arm]) -> list[Arm]:
    """As many of the chosen arms as leave the finalists the seeds that an answer needs; at least one."""
    dearest = max(cost for costs in trial.added.values() for cost in costs)
    finals = LEAST_SEEDS * (trial.next_seed(trial.added) + FINALISTS * dearest)
    rest = trial.ledger.limit * (1 - RESERVED) - trial.ledger.spent - finals
    count = max(1, FINALISTS + math.floor(rest / max(1e-9, dearest * SEEDS_PER_ROUND)))
    if dropped := chosen[count:]:
        trial.skipped.append(f"Not tried, since the stated cost is too small: {', '.join(map(name, dropped))}.")
    return chosen[:count]


def _with_all(trial: Trial, left: list[Arm], candidates: int) -> list[Arm]:
    """Add the arm of all auxiliary rows, and train its first seed, if a few seeds of it can be paid."""
    largest = max((arm for arm in left if arm.selection == "random"), key=lambda arm: arm.budget or 0)
    alone = trial.added[Arm("none")][0]
    cost = alone + (trial.added[largest][0] - alone) * candidates / (largest.budget or 1)
    if trial.ledger.spent + cost * LEAST_SEEDS > trial.ledger.limit * (1 - RESERVED):
        trial.skipped.append(
            f"All {candidates:,} auxiliary rows were not tried: {LEAST_SEEDS} seeds would cost too much."
        )
        return left
    trial.train(Arm("full"), 0)
    return [*left, Arm("full")]


def _halved(trial: Trial, left: list[Arm], most: int | None = None) -> list[Arm]:
    """The better half of the chosen arms, or the best `most`, with the references and random arms they need."""
    chosen = sorted((arm for arm in left if arm.chooses), key=lambda arm: -trial.mean(arm))
    kept = chosen[: most or max(FINALISTS, math.ceil(len(chosen) / 2))]
    budgets = {arm.budget for arm in kept}
    return [arm for arm in left if arm in kept or (not arm.chooses and (arm.budget is None or arm.budget in budgets))]


def _affordable(trial: Trial, left: Sequence[Arm]) -> bool:
    return trial.ledger.spent + trial.next_seed(left) <= trial.ledger.limit * (1 - RESERVED)


def leave_out(trial: Trial, winner: Arm, tasks: Sequence[str]) -> dict[str, list[tuple[Result, Result]]]:
    """Train the winner without each auxiliary task in turn, on as many of its seeds as the rest of the cost allows.

    The rows of the other tasks stay those that the winner chose; nothing takes the place of the ones left out.

    Returns:
        Task -> per seed, the winner's cell and the one without the task; empty where two seeds cannot be paid.
    """
    if not tasks:
        return {}
    cells = trial.cells[winner]
    rest = trial.ledger.limit - trial.ledger.spent
    seeds = min(len(cells), math.floor(rest / max(1e-9, trial.next_seed([winner]) * len(tasks))))
    if seeds < 2:
        trial.skipped.append("What each auxiliary task adds was not measured: the rest of the cost is too small.")
        return {}
    pairs: dict[str, list[tuple[Result, Result]]] = {task: [] for task in tasks}
    for cell in cells[:seeds]:
        for task in tasks:
            budget = None if winner.budget is None else winner.budget - cell["counts"].get(task, 0)
            arm = replace(winner, budget=budget, exclude=(task,)) if budget != 0 else Arm("primary_only")
            pairs[task].append((cell, trial.train(arm, cell["seed"])))
    return pairs


def check(tasks: int, primary_rows: int, validation_rows: int) -> None:
    """A `UserError` for data on which no verdict is possible."""
    if tasks < 2:
        raise UserError("a verdict needs auxiliary tasks beside the primary; put their files into the folder too")
    if primary_rows < 2 or validation_rows < 2:
        raise UserError(
            f"the primary has {primary_rows} training and {validation_rows} validation rows; give two or more of each"
        )
