"""What a pile of auxiliary data is worth, in words: the answer of `pipelines.verdict`'s cells, and what it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastmtl.reporting.compare import BOTH, LEVEL, difference
from fastmtl.reporting.frame import Result, frame
from fastmtl.reporting.recommend import FEW_SEEDS
from fastmtl.reporting.row_noise import RowNoise, row_noise
from fastmtl.reporting.table import Table, percent
from fastmtl.stats import Noise, half_width, holm, seeds_needed

if TYPE_CHECKING:
    from pandas import DataFrame

MATTERS = 0.01
"""A gain below one point is not worth auxiliary data."""

POWER = 0.84
"""Standard normal quantile of 80 % power, for the validation rows that an effect needs."""

Cells = Sequence[Result]


@dataclass(frozen=True)
class Difference:
    """The score of one arm less that of another, over their common seeds; see `reporting.compare.difference`."""

    n: int
    mean: float
    low: float
    high: float
    p: float
    noise: Noise | None

    def __str__(self) -> str:
        return f"{percent(self.mean, '+.1f')} [{percent(self.low, '+.1f')}, {percent(self.high, '+.1f')}]"


@dataclass(frozen=True)
class Arm:
    """The cells of one arm. `kind`: alone (no auxiliary rows), random, chosen, or all."""

    name: str
    kind: Literal["alone", "random", "chosen", "all"]
    rows: int
    cells: Cells

    @property
    def score(self) -> float:
        return sum(cell["headline"] for cell in self.cells) / len(self.cells)

    @property
    def flops(self) -> float:
        return sum(cell["total"]["flops"] for cell in self.cells) / len(self.cells)


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Args:
        answer: rows (use the chosen ones), any rows (as many random ones do), everything, nothing, or unclear.
        arm: The arm that it is about; for `nothing` the better of the arms without auxiliary rows.
        sentences: The answer, then what it rests on.
    """

    answer: Literal["rows", "any rows", "everything", "nothing", "unclear"]
    arm: Arm
    sentences: tuple[str, ...]


class Judge:
    """Paired differences between cells, of seeds and validation rows together.

    Args:
        cells: All cells that are compared.
    """

    def __init__(self, cells: Cells) -> None:
        table = frame(cells)
        self.scores = table.set_index("id")["score"]
        self.by_rows: RowNoise = row_noise(table)
        self.rows = int(table["validation_rows"].iloc[0])

    def between(self, a: Cells, b: Cells) -> Difference:
        """`a` less `b` on the seeds that both have."""
        of_b = {cell["seed"]: cell["id"] for cell in b}
        pairs = [(cell["id"], of_b[cell["seed"]]) for cell in a if cell["seed"] in of_b]
        columns, noise = difference(
            [{one: 1.0} for one, _ in pairs], [{two: 1.0} for _, two in pairs], self.scores, self.by_rows
        )
        known = noise if columns["covers"] == BOTH else None
        p = columns["p"] if known else math.nan
        return Difference(columns["n"], columns["mean"], columns["low"], columns["high"], p, known)


def decide(arms: Sequence[Arm], stopped: int, judge: Judge, matters: float = MATTERS) -> Verdict:
    """The answer, from the arms that went on to all seeds.

    An arm counts as better than the primary alone if it beats both arms without auxiliary rows, after Holm's
    correction over all arms with auxiliary rows that were tried, the stopped ones with p = 1. The answer is then the
    cheapest of the better arms that no other of them beats. Where none is better, the answer is to use nothing if the
    best arm's gain is below `matters` with as much confidence, and unclear otherwise.

    Args:
        arms: With at least one of the kind alone.
        stopped: How many arms with auxiliary rows were stopped early.
        judge: Of the cells of all these arms.
        matters: The least gain that is worth auxiliary data, in the unit of the score.
    """
    alone = [arm for arm in arms if arm.kind == "alone"]
    tried = [arm for arm in arms if arm.kind != "alone"]
    reference = max(alone, key=lambda arm: arm.score)
    gains = [[judge.between(arm.cells, other.cells) for other in alone] for arm in tried]
    p = holm([*(max(map(_one, own)) for own in gains), *([1.0] * stopped)])[: len(tried)]
    better = [arm for arm, value in zip(tried, p) if value < LEVEL]
    enough = len(reference.cells) >= FEW_SEEDS
    if better and enough:
        return _use(_cheapest(better, judge), arms, judge)
    best = max(tried, key=lambda arm: arm.score)
    gain = judge.between(best.cells, reference.cells)
    level = LEVEL / (len(tried) + stopped)
    if enough and gain.noise is not None and gain.mean + half_width(gain.noise, level) < matters:
        return Verdict("nothing", reference, (
            f"Use no auxiliary data. {_has(reference)}, and no arm with auxiliary rows is better by "
            f"{percent(matters, '.0f')} point or more: the best of them, {best.name}, differs by {gain}.",
        ))  # fmt: skip
    return Verdict("unclear", best, (
        f"These runs cannot tell. {_has(reference)}; the best arm with auxiliary rows, {best.name}, differs by {gain} "
        f"over {gain.n} seed{'s' * (gain.n != 1)}, which may be chance.", _needed(gain, level, judge.rows),
    ))  # fmt: skip


def _one(gain: Difference) -> float:
    """Its p, 1 where the rows' part of the noise is unknown or the arm is not better."""
    return gain.p if gain.mean > 0 and not math.isnan(gain.p) else 1.0


def _cheapest(better: Sequence[Arm], judge: Judge) -> Arm:
    """The cheapest in FLOPs of the better arms that no other of them beats significantly."""
    pairs = [(a, b) for a in better for b in better if a is not b]
    found = [judge.between(a.cells, b.cells) for a, b in pairs]
    # Both directions of a pair have the same p and count as one test.
    p = holm([_one(one) if one.mean > 0 else math.nan for one in found])
    beaten = {b.name for (_, b), value in zip(pairs, p) if value < LEVEL}
    return min((arm for arm in better if arm.name not in beaten), key=lambda arm: arm.flops)


def _use(arm: Arm, arms: Sequence[Arm], judge: Judge) -> Verdict:
    what: dict[str, tuple[Any, str]] = {
        "chosen": ("rows", f"Use the {arm.rows:,} rows that {arm.name} chooses"),
        "random": ("any rows", f"Use any {arm.rows:,} auxiliary rows: chosen ones were not shown to be better"),
        "all": ("everything", f"Use all {arm.rows:,} auxiliary rows: no smaller part did as well"),
    }
    answer, sentence = what[arm.kind]
    if arm.kind == "all" and not any(other.kind in ("chosen", "random") for other in arms):
        sentence = f"Use all {arm.rows:,} auxiliary rows"
    beside = []
    for other in arms:
        if other is arm or (other.kind == "random" and other.rows != arm.rows) or other.kind == "chosen":
            continue
        cost = f" at {other.flops / arm.flops:.1f} times its compute" if other.kind == "all" else ""
        what_other = {
            "alone": f"the primary alone ({other.name})", "random": "as many random rows",
            "all": f"all {other.rows:,} rows{cost}",
        }[other.kind]  # fmt: skip
        beside.append(f"{judge.between(arm.cells, other.cells)} against {what_other}")
    return Verdict(answer, arm, (
        f"{sentence}. {_has(arm)}.",
        f"Differences in points, with 95 % intervals over {len(arm.cells)} seeds and {judge.rows:,} validation rows: "
        + "; ".join(beside) + ".",
    ))  # fmt: skip


def _has(arm: Arm) -> str:
    metric = arm.cells[0]["metric"].replace("_", " ")
    return f"{arm.name} reaches {metric} {percent(arm.score)} (of 100)"


def _needed(gain: Difference, level: float, rows: int) -> str:
    """What would show a difference as large as the one seen."""
    if gain.noise is None or not gain.mean:
        return "More seeds are needed to say more; raise --minutes."
    seeds = seeds_needed(gain.mean, gain.noise, alpha=level)
    if math.isfinite(seeds):
        wanted = f"{max(seeds, FEW_SEEDS):,} seeds"
        return f"To show a difference as large as this one takes about {wanted}; raise --minutes and --seeds."
    from scipy.stats import norm

    # The rows' shared part falls with their number; half of the variance that the effect allows is left to the seeds.
    allowed = (gain.mean / (norm.isf(level / 2) + POWER)) ** 2 / 2
    rows_wanted = math.ceil(rows * float(gain.noise.shared) / allowed / 100) * 100
    return (
        f"No number of seeds would show a difference as large as this one on {rows:,} validation rows; about "
        f"{max(rows_wanted, rows):,} would be needed."
    )


def task_table(pairs: Mapping[str, Sequence[tuple[Result, Result]]], judge: Judge) -> Table:
    """Per auxiliary task, the winner's score less its score without the task: helps, hurts, or neither is shown."""
    rows = []
    gains = {task: judge.between([a for a, _ in own], [b for _, b in own]) for task, own in pairs.items()}
    for (task, gain), p in zip(gains.items(), holm([gain.p for gain in gains.values()])):
        known = not math.isnan(p) and p < LEVEL
        found = ("helps" if gain.mean > 0 else "hurts") if known else "neutral, as far as seen"
        count = pairs[task][0][0]["counts"].get(task, 0)
        rows.append([task, f"{count:,}", str(gain.n), str(gain), found])
    note = (
        "The winning arm less the same arm without the task's rows, nothing in their place; 95 % intervals over seeds "
        "and validation rows. Helps or hurts: p below 0.05 after Holm's correction over the tasks."
    )
    return Table("What each auxiliary task adds", ["task", "rows", "seeds", "points", "verdict"], rows, note=note)


def row_table(rows: DataFrame, most: int = 2000) -> Table:
    """The first rows of `pipelines.chosen.chosen_rows`, for the page, where they can be searched and sorted."""
    names = {
        "rank": "rank", "task": "task", "label": "label", "text_a": "text", "text_b": "second text",
        "chosen_by": "chosen by % of seeds", "score": "score", "margin": "above the cut",
        "nearest": "nearest primary row",
    }  # fmt: skip
    kept = rows.head(most).drop(columns=[name for name in names if (rows[name].astype(str).isin(["", "nan"])).all()])
    forms = {"chosen_by": lambda value: percent(value, ".0f"), "score": "{:.2f}".format, "margin": "{:.2f}".format}
    columns = [[forms.get(name, str)(value) for value in kept[name]] for name in names if name in kept]
    note = (
        f"The first {len(kept):,} of {len(rows):,} rows; all of them are in rows.parquet, with scores for every task."
    )
    heads = [head for name, head in names.items() if name in kept]
    return Table("The rows", heads, list(zip(*columns)), note=note, searchable=True)


def model_of(arm: Arm) -> str:
    """The folder of the arm's model that is best on the rows that choose, not on those that are reported."""

    def chosen_by(cell: Result) -> float:
        metrics = json.loads((Path(_finetune(cell)) / "metrics.json").read_text())
        return metrics["epochs"][metrics["best_epoch"]].get(cell["metric"], -math.inf)

    return _finetune(max(arm.cells, key=chosen_by))


def _finetune(cell: Result) -> str:
    return next(stage["path"] for stage in cell["stages"] if stage["stage"] == "finetune")


def as_values(verdict: Verdict, spent: float, unit: str) -> dict[str, Any]:
    """The answer as plain values, for scripts."""
    return {
        "answer": verdict.answer, "arm": verdict.arm.name, "rows": verdict.arm.rows, "score": verdict.arm.score,
        "metric": verdict.arm.cells[0]["metric"], "seeds": len(verdict.arm.cells), "sentences": list(verdict.sentences),
        "spent": {unit: spent}, "model": model_of(verdict.arm),
    }  # fmt: skip
