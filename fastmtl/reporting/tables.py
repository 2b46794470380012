"""Tables over the cells of one setting, and over one cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.reporting.beliefs import Bandit, beliefs
from fastmtl.reporting.compare import BOTH
from fastmtl.reporting.frame import Result, arms, candidates
from fastmtl.reporting.table import Table
from fastmtl.stats import one_sd_rule

if TYPE_CHECKING:
    from pandas import DataFrame

STAGES = {
    "pool": "pool", "proxy": "proxy", "scores": "scores", "joint": "single tasks", "utilities": "bandit",
    "mixing": "other trials", "multitask": "multitask", "finetune": "finetune", "test": "test split",
}  # fmt: skip
"""Stages whose cost is shown -> their names in the table."""

OPTIONAL = ("joint", "utilities", "mixing", "test")
"""Stages without a column where no cell has them."""

UNCOUNTED = ("pool", "test")
"""Stages that count in no total: every arm needs the token pool, and no arm needs predictions of the test split."""


_BOLD = (
    "Mean ± standard deviation over seeds. Bold: significantly better than no auxiliary data (p below 0.05 from seeds "
    "and validation rows together, after Holm's correction over all comparisons of the primary)."
)


def total(stages: list[dict[str, Any]], key: str, stage: str | None = None) -> float:
    """Cost of a cell's own stages, or of one of them.

    Each training counts once: `mixing` records the trials that came to nothing, the best one is the cell's `multitask`
    and `finetune`.
    """
    kept = (s for s in stages if (s["stage"] == stage if stage else s["stage"] not in UNCOUNTED))
    return float(sum(s.get(key) or 0.0 for s in kept))


# --- the cells of one setting ------------------------------------------------------------------------------------


def scores(cells: DataFrame, compared: DataFrame) -> Table:
    """Score, rows and cost of every arm; in bold the headline of those that are better than `none`."""
    metrics = [name for name in _prefixed(cells, "validation/") if name != "loss"]
    known = cells["precision_at_budget"].notna().any()
    marked = {(arm, _budget(budget)) for arm, budget in better_than_none(compared)}
    rows: list[list[str]] = []
    bold = set()
    for arm, budget, group in arms(cells):
        if (arm, _budget(budget)) in marked:
            bold.add((len(rows), 3))
        rows.append([
            arm, _budget(budget), str(len(group)), *(_spread(100 * group[f"validation/{m}"]) for m in metrics),
            _mean(group["aux_rows"], 0), *([_mean(100 * group["precision_at_budget"], 1)] if known else []),
            _mean(group["total_wall_s"], 1), _giga(group["total_flops"].mean()),
        ])  # fmt: skip
    heads = ["selection", "budget", "seeds", *(f"{name} x100" for name in metrics), "aux rows",
             *(["relevant %"] if known else []), "total s", "total GFLOP"]  # fmt: skip
    return Table("Scores", heads, rows, frozenset(bold), _BOLD)


def composition(cells: DataFrame) -> Table:
    """Auxiliary rows by task, and how many there were to choose from."""
    there = candidates(cells)
    tasks = sorted(_prefixed(cells, "rows/"))
    rows = [
        [arm, _budget(budget), *(_mean(group[f"rows/{task}"].fillna(0), 0) for task in tasks)]
        for arm, budget, group in arms(cells)
    ]
    if there:
        rows.append(["(candidates)", "", *(f"{there.get(task, 0):.0f}" for task in tasks)])
    return Table("Auxiliary rows by task", ["selection", "budget", *tasks], rows)


def costs(cells: DataFrame) -> Table:
    """Seconds and FLOPs by stage."""
    found = set(_prefixed(cells, "wall_s/"))
    stages = [stage for stage in STAGES if stage in found or stage not in OPTIONAL]
    rows = []
    for arm, budget, group in arms(cells):
        row = [arm, _budget(budget)]
        for stage in stages:
            wall_s, flops = (
                group[f"{unit}/{stage}"].fillna(0).mean() if f"{unit}/{stage}" in group else 0.0
                for unit in ("wall_s", "flops")
            )
            row.append(f"{wall_s:.1f} / {_giga(flops)}" if flops else f"{wall_s:.1f}" if wall_s else "")
        rows.append(row)
    names = [STAGES[stage] for stage in stages]
    return Table("Cost by stage: seconds / GFLOP, as first computed", ["selection", "budget", *names], rows)


def differences(compared: DataFrame) -> Table:
    """Paired differences of `reporting.compare.comparisons`."""
    rows, bold = [], set()
    for r, one in enumerate(compared.itertuples()):
        if one.significant:
            bold.add((r, 3))
        rows.append([
            f"{one.arm} - {one.reference}", _budget(one.budget), str(one.n), _points(one.mean),
            _interval(one.low, one.high), _p(one.p), _p(one.p_holm), _percent(one.row_share, 0),
            _least(one.detectable), _count(one.seeds_needed),
        ])  # fmt: skip
    heads = ["arms", "budget", "seeds", "difference x100", "95 % interval", "p", "p (Holm)", "rows' share %",
             "minimum detectable x100", "seeds needed"]  # fmt: skip
    note = (
        "Differences of the same seeds; interval and p cover both seeds and validation rows. Bold: p below 0.05 after "
        "Holm's correction over this table. Rows' share: the share of the variance that more seeds cannot remove. "
        "Minimum detectable: the smallest effect that as many seeds find with 80 % power. Seeds needed: for the same "
        "power and an effect as large as seen; infinite where no number is enough on as many validation rows."
    )
    if (compared["covers"] != BOTH).any():
        note += (
            " Without a share: the predictions of these cells are gone, so interval and p cover seeds alone, and "
            "nothing is significant."
        )
    return Table("Paired differences", heads, rows, frozenset(bold), note)


def matched(compared: DataFrame) -> Table:
    """What random rows reach for the same FLOPs, of `reporting.compare.matched`."""
    rows = [
        [one.arm, _budget(one.budget), str(one.n), _giga(one.flops), _percent(one.score), _percent(one.random),
         _points(one.mean), _interval(one.low, one.high)]
        for one in compared.itertuples()
    ]  # fmt: skip
    heads = [
        "selection",
        "budget",
        "seeds",
        "total GFLOP",
        "score x100",
        "random, as many FLOPs",
        "difference",
        "95 % interval",
    ]
    note = (
        "Random selection's score at an arm's total compute: between its budgets on a logarithmic scale; empty outside "
        "of them. Intervals cover seeds and validation rows, each for itself."
    )
    return Table("For the same compute", heads, rows, note=note)


def overview(names: Sequence[str], cells: Sequence[DataFrame], compared: Sequence[DataFrame]) -> Table:
    """Arms as rows, settings as columns: the table of a paper."""
    better = [{(arm, _budget(budget)) for arm, budget in better_than_none(one)} for one in compared]
    found = [{(arm, _budget(budget)): group["score"] for arm, budget, group in arms(one)} for one in cells]
    keys = list(dict.fromkeys(key for one in found for key in one))
    rows = [[*key, *(_spread(100 * one[key]) if key in one else "" for one in found)] for key in keys]
    bold = {(r, 2 + c) for r, key in enumerate(keys) for c, marked in enumerate(better) if key in marked}
    return Table("Scores x100 of all primaries", ["selection", "budget", *names], rows, frozenset(bold), _BOLD)


def verdicts(names: Sequence[str], cells: Sequence[DataFrame]) -> list[Table]:
    """FastMTL's reading of the same numbers, of settings with two or more single-task runs; none without them."""
    found: list[dict[tuple[str, str], str]] = []
    for one in cells:
        single = one[one["selection"] == "none"]["score"]
        found.append({
            (arm, _budget(budget)): f"{_points(group['score'].mean() - single.mean())} "
            f"{one_sd_rule(single, group['score'])}"
            for arm, budget, group in arms(one)
            if len(single) > 1 and arm != "none"
        })  # fmt: skip
    keys = list(dict.fromkeys(key for one in found for key in one))
    if not keys:
        return []
    note = (
        "Mean change x100 against single-task training; IMPROVED or DROPPED if it is more than one standard deviation "
        "of the single-task runs (FastMTL). No test: of arms without any effect it calls many IMPROVED or DROPPED."
    )
    rows = [[*key, *(one.get(key, "") for one in found)] for key in keys]
    return [Table("By one standard deviation", ["selection", "budget", *names], rows, note=note)]


def better_than_none(compared: DataFrame) -> list[tuple[str, Any]]:
    """Arm and budget of those that are significantly better than no auxiliary data."""
    to_none = compared["reference"].str.split().str[0] == "none"  # a label may go on with its variant
    better = compared[compared["significant"] & to_none & (compared["mean"] > 0)]
    return list(zip(better["arm"], better["budget"]))


def audits(cells: DataFrame) -> list[str]:
    """What a cascade lost, the worst seed of each arm."""
    lines = []
    for arm, budget, group in arms(cells):
        audited = [audit for audit in group["audit"] if audit and audit.get("low") is not None]
        if not audited:
            continue
        worst = min(audited, key=lambda audit: audit["low"])
        lines.append(
            f"{arm}, budget {_budget(budget)}: of the rows that its last level alone would choose, the cascade kept at "
            f"least {100 * worst['overlap_at_least']:.0f} %, with 95 % confidence at least {100 * worst['low']:.0f} % "
            f"({worst['better']} of {worst['audited']} audited rows were better than the last one chosen; "
            f"{worst['rejected']} were rejected)."
        )
    return lines


def choices(cells: DataFrame) -> Table | None:
    """The tasks and the ratio that were found, a row a cell."""
    rows = []
    for cell in cells.to_dict("records"):
        utilities, mixing = cell["utilities"], cell["mixing"]
        if not utilities and not mixing:
            continue
        tasks = [task for task in _prefixed(cells, "rows/") if cell[f"rows/{task}"] > 0]
        if utilities:
            valued = {task: utilities[task] for task in tasks if utilities[task] is not None}
            tasks = [f"{task} ({valued[task]:.2f})" for task in sorted(valued, key=lambda task: -valued[task])]
        ratio = f"{_colons(mixing['tasks'])} = {_colons(mixing['ratio'])}" if mixing else ""
        rows.append([cell["arm"], _budget(cell["budget"]), str(cell["seed"]), ", ".join(tasks) or "no task", ratio])
    if not rows:
        return None
    note = f"Chosen on {_chosen_on(cells['protocol'].iloc[0])}."
    return Table("Tasks chosen (utility) and mixing ratio", ["selection", "budget", "seed", "tasks", "ratio"], rows,
                 note=note)  # fmt: skip


# --- one cell ----------------------------------------------------------------------------------------------------


def stages(result: Result) -> Table:
    """Every artifact of a cell, and whether it was found."""
    rows = [
        [s["stage"], s["key"], "found" if s["hit"] else "built", str(s.get("examples", "")), f"{s['wall_s']}",
         _giga(s.get("flops"))]
        for s in result["stages"]
    ]  # fmt: skip
    return Table("Stages", ["stage", "artifact", "", "examples", "wall s", "GFLOP"], rows)


def tasks(result: Result, bandit: Bandit) -> Table:
    """What the bandit learnt of every task, the best first."""
    mixing = result.get("mixing")
    ratio = dict(zip(mixing["tasks"], map(str, mixing["ratio"]))) if mixing else {}
    rows = []
    for one in sorted(beliefs(bandit), key=lambda one: -one.utility):
        low, high = one.interval()
        chosen = "primary" if one.task == result["primary"] else "yes" if result["counts"].get(one.task) else "no"
        rows.append([
            one.task, str(one.played), f"{100 * one.rewarded / one.compared:.0f}" if one.compared else "",
            f"{one.utility:.2f}", f"{low:.2f} to {high:.2f}", chosen, *([ratio.get(one.task, "")] if ratio else []),
        ])  # fmt: skip
    paper = result["protocol"] == "paper"
    rows_of_primary = _chosen_on("paper") if paper else "training rows of its own that the bandit did not train on"
    heads = ["task", "rounds", "mean reward %", "utility", "95 % interval", "chosen", *(["ratio"] if ratio else [])]
    note = (
        f"Rounds are rewarded by the primary's value on {rows_of_primary}. Without a warm-up the first has nothing to "
        "compare with. Utility is the mean of the Beta posterior, the interval its middle 95 %."
    )
    return Table("Tasks", heads, rows, note=note)


def trials(result: Result, mixing: dict[str, Any]) -> Table:
    """Every ratio that was tried, in this order."""
    rows = [
        [str(i), _colons(trial["ratio"]), _percent(trial["value"]), f"{trial['wall_s']:.1f}",
         "best" if trial["ratio"] == mixing["ratio"] else ""]
        for i, trial in enumerate(mixing["trials"], 1)
    ]  # fmt: skip
    note = f"A trial is a whole multi-task training and fine-tuning; its value is on {_chosen_on(result['protocol'])}."
    heads = ["trial", _colons(mixing["tasks"]), f"{result['metric']} x100", "wall s", ""]
    return Table("Mixing ratios tried", heads, rows, note=note)


def _chosen_on(protocol: str) -> str:
    """The rows that choose tasks, ratio and epoch."""
    if protocol == "paper":
        return "the validation rows, on which the score is reported too: optimistic"
    return "rows held out of the primary's training rows; the validation rows of the score take no part"


def _prefixed(cells: DataFrame, prefix: str) -> list[str]:
    return [
        name.removeprefix(prefix) for name in cells.columns if name.startswith(prefix) and cells[name].notna().any()
    ]


def _budget(value: Any) -> str:
    import pandas as pd

    return "" if value is None or pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def _mean(values: Any, digits: int) -> str:
    mean = values.mean()
    return "" if math.isnan(mean) else f"{mean:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def _points(value: float, sign: bool = True) -> str:
    return "" if math.isnan(value) else f"{100 * value:{'+' if sign else ''}.1f}"


def _least(effect: float) -> str:
    return "> 100" if effect > 1 else _points(effect, sign=False)


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "" if math.isnan(value) else "infinite"
    return "> 1000" if value > 1000 else f"{value:.0f}"


def _giga(flops: float | None) -> str:
    return f"{flops / 1e9:,.0f}" if flops else ""


def _colons(values: list[Any]) -> str:
    return ":".join(map(str, values))
