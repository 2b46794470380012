"""Tables over the cells of one setting, and over one cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastmtl.reporting.beliefs import Bandit, beliefs
from fastmtl.reporting.compare import BOTH, beats_alone
from fastmtl.reporting.frame import ALONE, Result, arms, candidates
from fastmtl.reporting.table import Table, mean_sd, percent, shown

if TYPE_CHECKING:
    from pandas import DataFrame

STAGES = {
    "pool": "pool", "leakage": "leakage", "proxy": "proxy", "prepared": "preparation", "scores": "scores",
    "joint": "single tasks", "features": "features", "utilities": "bandit", "mixing": "other trials",
    "multitask": "multitask", "finetune": "finetune", "test": "test split",
}  # fmt: skip
"""Stages whose cost is shown -> their names in the table."""

OPTIONAL = ("leakage", "prepared", "joint", "features", "utilities", "mixing", "test")
"""Stages without a column where no cell has them."""

UNCOUNTED = ("pool", "leakage", "test")
"""Stages that count in no total: every arm needs the pool and its leaks, and no arm needs predictions of test rows."""

_BOLD = (
    "Mean ± standard deviation over seeds. Bold: significantly better than the primary alone, be it `none` or "
    "`primary_only` (p below 0.05 from seeds and validation rows, after Holm's correction over all comparisons)."
)

Key = tuple[str, str]
"""Arm and budget as a table shows them."""


def total(stages: list[dict[str, Any]], key: str, stage: str | None = None) -> float:
    """Cost of a cell's own stages, or of one of them.

    Each training counts once: `mixing` records the trials that came to nothing, the best one is the cell's `multitask`
    and `finetune`.
    """
    kept = (s for s in stages if (s["stage"] == stage if stage else s["stage"] not in UNCOUNTED))
    return float(sum(s.get(key) or 0.0 for s in kept))


def scores(cells: DataFrame, compared: DataFrame) -> Table:
    """Score, rows, passes over the primary and cost of every arm; bold: headlines better than the primary alone."""
    metrics = [name for name in _prefixed(cells, "validation/") if name != "loss"]
    known, passed = (cells[column].notna().any() for column in ("precision_at_budget", "passes"))
    better = _bold(compared)
    rows = [
        [*key, str(len(group)), *(mean_sd(100 * group[f"validation/{m}"]) for m in metrics),
         shown(group["aux_rows"].mean(), ".0f"), *([percent(group["precision_at_budget"].mean())] if known else []),
         *([shown(group["passes"].mean())] if passed else []),
         shown(group["total_wall_s"].mean()), _giga(group["total_flops"].mean())]
        for key, group in _by_arm(cells)
    ]  # fmt: skip
    heads = ["selection", "budget", "seeds", *(f"{name} x100" for name in metrics), "aux rows",
             *(["relevant %"] if known else []), *(["passes"] if passed else []), "total s", "total GFLOP"]  # fmt: skip
    note = _BOLD + (" Passes: over the primary's training rows, in both stages together." if passed else "")
    return Table("Scores", heads, rows, frozenset((r, 3) for r, row in enumerate(rows) if (*row[:2],) in better), note)


def composition(cells: DataFrame) -> Table:
    """Auxiliary rows by task, and how many there were to choose from."""
    there, tasks = candidates(cells), sorted(_prefixed(cells, "rows/"))
    rows = [[*key, *(f"{group[f'rows/{t}'].fillna(0).mean():.0f}" for t in tasks)] for key, group in _by_arm(cells)]
    if there:
        rows.append(["(candidates)", "", *(f"{there.get(task, 0):.0f}" for task in tasks)])
    return Table("Auxiliary rows by task", ["selection", "budget", *tasks], rows)


def costs(cells: DataFrame, reached: DataFrame) -> Table:
    """Seconds and FLOPs by stage, and the speed-up of arms that reach `full` (`compute.reaching`)."""
    found = set(_prefixed(cells, "wall_s/"))
    shown_stages = [stage for stage in STAGES if stage in found or stage not in OPTIONAL]

    def cost(group: DataFrame, stage: str) -> str:
        columns = (group.get(f"{unit}/{stage}", 0 * group["seed"]) for unit in ("wall_s", "flops"))
        wall_s, flops = (column.fillna(0).mean() for column in columns)
        return f"{wall_s:.1f} / {_giga(flops)}" if flops else f"{wall_s:.1f}" if wall_s else ""

    needed = reached[reached["rows"].notna()]
    faster = {(one.arm, _budget(one.budget)): f"{one.speedup:.2g}x" for one in needed.itertuples()}
    rows = [[*key, *(cost(group, s) for s in shown_stages), *([faster.get(key, "")] if faster else [])]
            for key, group in _by_arm(cells)]  # fmt: skip
    heads = ["selection", "budget", *(STAGES[stage] for stage in shown_stages), *(["speed-up"] if faster else [])]
    note = "Speed-up: total FLOPs of `full` over an arm's at the smallest budget that reaches it." if faster else ""
    return Table("Cost by stage: seconds / GFLOP, as first computed", heads, rows, note=note)


def differences(compared: DataFrame) -> Table:
    """Paired differences of `reporting.compare.comparisons`."""
    rows = [
        [f"{one.arm} - {one.reference}", _budget(one.budget), str(one.n), percent(one.mean, "+.1f"), _interval(one),
         _p(one.p), _p(one.p_holm), percent(one.row_share, ".0f"),
         "> 100" if one.detectable > 1 else percent(one.detectable), _count(one.seeds_needed)]
        for one in compared.itertuples()
    ]  # fmt: skip
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
    bold = frozenset((r, 3) for r, real in enumerate(compared["significant"]) if real)
    return Table("Paired differences", heads, rows, bold, note)


def matched(compared: DataFrame) -> Table:
    """The best that the same FLOPs buy otherwise, of `reporting.compute.matched`."""
    rows = [
        [one.arm, _budget(one.budget), str(one.n), _giga(one.flops), percent(one.score),
         one.alternative.replace("`", ""), percent(one.reached), percent(one.score - one.reached, "+.1f"),
         _interval(one)]
        for one in compared.itertuples()
    ]  # fmt: skip
    heads = ["selection", "budget", "seeds", "total GFLOP", "score x100", "alternative", "its score", "difference",
             "95 % interval"]  # fmt: skip
    note = (
        "Alternative: the best mean that an arm's total compute buys without choosing rows: `none` or `primary_only`, "
        "also trained longer where the study has that, random rows, or all, as far as they cost no more; and what lies "
        "between two of them, on a logarithmic scale. Intervals cover seeds and validation rows, each for itself."
    )
    return Table("For the same compute", heads, rows, note=note)


def reaching(cells: DataFrame, reached: DataFrame) -> Table:
    """The smallest budget with which each arm reaches `full`, of `reporting.compute.reaching`."""
    rows = [
        [one.arm, shown(one.rows, ",.0f") or "none here", percent(one.share), _range(one.least, one.most),
         percent(one.mean, "+.1f"), _interval(one), _giga(one.flops), shown(one.speedup, ".2g")]
        for one in reached.itertuples()
    ]  # fmt: skip
    full = cells[cells["selection"] == "full"]
    if rows:
        every, flops = full["aux_rows"].mean(), full["total_flops"].mean()
        rows.append(["full", f"{every:,.0f}", "100.0", "", "", "", _giga(flops), "1"])
    heads = ["selection", "auxiliary rows", "% of all", "95 % interval", "minus full x100", "95 % interval of it"]
    note = (
        "The smallest budget of the study whose mean is at most one point below `full`, over the seeds of both; its "
        "interval, from the smallest budget of which the 95 % interval of the difference does not exclude that, to the "
        "smallest of which it shows it. Speed-up: total FLOPs of `full` over the arm's with this budget."
    )
    return Table("Smallest budget that reaches full", [*heads, "total GFLOP", "speed-up"], rows, note=note)


def overview(names: Sequence[str], cells: Sequence[DataFrame], compared: Sequence[DataFrame]) -> Table:
    """Arms as rows, settings as columns: the table of a paper."""
    found = [{key: mean_sd(100 * group["score"]) for key, group in _by_arm(one)} for one in cells]
    return _side_by_side("Scores x100 of all primaries", names, found, [_bold(one) for one in compared], _BOLD)


def by_size(cells: Sequence[DataFrame], compared: Sequence[DataFrame]) -> Table:
    """Gain over the primary alone, of cells of one primary that was cut to several sizes."""
    reference = next((name for name in reversed(ALONE) if any(name in set(one["arm"]) for one in cells)), "none")
    found, real = [], []
    for one in compared:
        rows = list(one[one["reference"] == reference].itertuples())
        found.append({(r.arm, _budget(r.budget)): f"{percent(r.mean, '+.1f')} {_interval(r)}" for r in rows})
        real.append({(r.arm, _budget(r.budget)) for r in rows if r.significant})
    names = [f"{int(one['primary_rows'].iloc[0]):,}" for one in cells]
    title = f"Gain x100 over {reference} by training rows of {cells[0]['primary'].iloc[0]}"
    note = "Differences of the same seeds and 95 % intervals. Bold: p below 0.05 after Holm's correction over a size."
    return _side_by_side(title, names, found, real, note)


def _side_by_side(
    title: str, names: Sequence[str], found: Sequence[Mapping[Key, str]], marked: Sequence[set[Key]], note: str
) -> Table:
    keys = list(dict.fromkeys(key for one in found for key in one))
    rows = [[*key, *(one.get(key, "") for one in found)] for key in keys]
    bold = {(r, 2 + c) for r, key in enumerate(keys) for c, better in enumerate(marked) if key in better}
    return Table(title, ["selection", "budget", *names], rows, frozenset(bold), note)


def _bold(compared: DataFrame) -> set[Key]:
    return {(arm, _budget(budget)) for arm, budget in beats_alone(compared)}


def audits(cells: DataFrame) -> list[str]:
    """What a cascade lost, the worst seed of each arm."""
    lines = []
    for (arm, budget), group in _by_arm(cells):
        audited = [audit for audit in group["audit"] if audit and audit.get("low") is not None]
        if audited:
            worst = min(audited, key=lambda audit: audit["low"])
            lines.append(
                f"{arm}, budget {budget}: of the rows that its last level alone would choose, the cascade kept at "
                f"least {100 * worst['overlap_at_least']:.0f} %, with 95 % confidence at least {100 * worst['low']:.0f}"
                f" % ({worst['better']} of {worst['audited']} audited rows were better than the last one chosen; "
                f"{worst['rejected']} were rejected)."
            )
    return lines


def warnings(cells: DataFrame) -> list[str]:
    """What a reader must know before comparing: rows that leak, and cells of different machines."""
    lines = []
    leaks = [leak for leak in cells["leakage"] if leak and leak["rows"]]
    if leaks:
        worst = max(leaks, key=lambda leak: sum(leak["rows"].values()))
        kinds = ", ".join(f"{count} {kind}" for kind, count in worst["rows"].items())
        hit = ", ".join(f"{n} {'held-out' if split == 'train' else split}" for split, n in worst["held_back"].items())
        done = "left out" if worst["dropped"] else "kept: data.leakage=drop leaves them out"
        lines.append(
            f"Auxiliary rows that match rows of the primary that are held back: {kinds} (of {hit} rows); {done}."
        )
    for name in ("precision", "device", "torch"):
        values = sorted({environment[name] for environment in cells["environment"] if environment})
        if len(values) > 1:
            listed = ", ".join(values)
            lines.append(f"Cells ran with several values of {name}: {listed}; scores may differ by that alone.")
    return lines


def coverage(cells: DataFrame, compared: DataFrame) -> list[str]:
    """What intervals are of, and what has none."""
    untested = [f"{one.arm} - {one.reference}" for one in compared.itertuples() if one.n < 2]
    lines = [f"No test, for want of two common seeds: {', '.join(untested)}."] if untested else []
    if cells["seed"].nunique() < 2:
        return [*lines, "One seed: there is no interval, and a difference may be chance alone."]
    redrawn = cells["primary_draw"].nunique() > 1
    changed = ["initialisation", "order of rows", *(["the proxy's sample"] if "flops/proxy" in cells else []),
               *(["held-out rows"] if (cells["protocol"] == "strict").any() else []),
               *(["the draw of the primary's rows"] if redrawn else [])]  # fmt: skip
    fixed = "" if redrawn else "; the primary's training rows are the same for every seed"
    return [*lines, f"Intervals cover what a seed changes ({', '.join(changed)}) and the validation rows{fixed}."]


def choices(cells: DataFrame) -> Table:
    """The tasks and the ratio that were found, one row per cell that looked for any."""
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
    note = f"Chosen on {_chosen_on(cells['protocol'].iloc[0])}."
    if "wall_s/joint" in cells:  # single-task models, which a predictor of gains reads
        note += (
            " A predictor was fitted to validation scores of pairs without this primary, and reads the words, but no "
            "labels, of the primary's validation rows."
        )
    heads = ["selection", "budget", "seed", "tasks", "ratio"]
    return Table("Tasks chosen (utility) and mixing ratio", heads, rows, note=note)


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
            f"{one.utility:.2f}", f"{low:.2f} to {high:.2f}", percent(one.above_half, ".0f"), chosen,
            *([ratio.get(one.task, "")] if ratio else []),
        ])  # fmt: skip
    paper = result["protocol"] == "paper"
    rows_of_primary = _chosen_on("paper") if paper else "training rows of its own that the bandit did not train on"
    heads = ["task", "rounds", "mean reward %", "utility", "95 % interval", "P(utility > 0.5) %", "chosen",
             *(["ratio"] if ratio else [])]  # fmt: skip
    note = (
        f"Rounds are rewarded by the primary's value on {rows_of_primary}. Without a warm-up the first has nothing to "
        "compare with. Utility is the mean of the Beta posterior, the interval its middle 95 %. Under graded rewards a "
        "task without any effect has utility 0.5, and is above it as often as below."
    )
    return Table("Tasks", heads, rows, note=note)


def trials(result: Result, mixing: dict[str, Any]) -> Table:
    """Every ratio that was tried, in this order."""
    rows = [
        [str(i), _colons(trial["ratio"]), percent(trial["value"]), f"{trial['wall_s']:.1f}",
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
    return "rows held out of the primary's training rows; the labels of the score's validation rows take no part"


def _by_arm(cells: DataFrame) -> Iterator[tuple[Key, DataFrame]]:
    for arm, budget, group in arms(cells):
        yield (arm, _budget(budget)), group


def _prefixed(cells: DataFrame, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in cells if name.startswith(prefix) and cells[name].notna().any()]


def _budget(value: Any) -> str:
    import pandas as pd

    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _interval(row: Any) -> str:
    return "" if math.isnan(row.low) else f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]"


def _range(least: float, most: float) -> str:
    return "" if math.isnan(least) else f"{least:,.0f} to {shown(most, ',.0f') or 'more than tried'}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else shown(value, ".3f")


def _count(value: float) -> str:
    return "infinite" if math.isinf(value) else "> 1000" if value > 1000 else shown(value, ".0f")


def _giga(flops: float | None) -> str:
    return shown(flops, ",.0f", 1e-9) if flops else ""


def _colons(values: list[Any]) -> str:
    return ":".join(map(str, values))
