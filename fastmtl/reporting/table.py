"""Tables of cells as Markdown that also reads well in a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from tabulate import tabulate

from fastmtl.reporting.beliefs import Bandit, beliefs

Result = dict[str, Any]

FEW_SEEDS = 5
"""Below this the table warns: seed noise on small primaries is several points (Dodge et al., 2020)."""

POSTERIORS = "posteriors.svg"
"""The figure that a report with a bandit expects beside it."""

STAGES = {
    "pool": "pool", "proxy": "proxy", "scores": "scores", "utilities": "bandit", "mixing": "other trials",
    "multitask": "multitask", "finetune": "finetune",
}  # fmt: skip
"""Stages whose cost is shown -> their names in the table."""

OPTIONAL = ("utilities", "mixing")
"""Stages without a column where no cell has them."""


def comparison(results: list[Result]) -> str:
    """For each primary and protocol: score, rows and cost of every arm; rows by task; cost by stage."""
    parts = []
    for (primary, protocol, encoder, pool), group in _grouped(results, "primary", "protocol", "encoder", "pool"):
        cells = list(group)
        metric, rows = cells[0]["metric"], cells[0]["validation_rows"]
        parts += [
            f"## {primary}: {metric} on {rows} validation rows ({encoder}, protocol {protocol}, pool {pool[:8]})",
            _arms(cells),
            "### Auxiliary rows by task",
            _composition(cells),
            "### Cost by stage: seconds / GFLOP, as first computed",
            _costs(cells),
        ]
        parts += _audits(cells)
        parts += _choices(cells)
        seeds = {cell["seed"] for cell in cells}
        if len(seeds) < FEW_SEEDS:
            parts.append(
                f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: too few to call any difference between arms real."
            )
    return "\n\n".join(parts)


def cell_report(result: Result, bandit: Bandit | None = None, mixing: dict[str, Any] | None = None) -> str:
    """One cell, with its stages; with the `bandit.json` and `mixing.json` of its artifacts, where it has them, also how
    its tasks and its ratio came about."""
    stages = [
        [s["stage"], s["key"], "found" if s["hit"] else "built", s.get("examples"), s["wall_s"], _giga(s.get("flops"))]
        for s in result["stages"]
    ]
    return "\n\n".join([
        comparison([result]),
        *(_tasks(result, bandit) if bandit else []),
        *(_trials(result, mixing) if mixing else []),
        "### Stages",
        _table(stages, ["stage", "artifact", "", "examples", "wall s", "GFLOP"]),
    ])  # fmt: skip


def total(stages: list[dict[str, Any]], key: str, stage: str | None = None) -> float:
    """Cost of a cell's own stages, or of one of them; the token pool, which every arm needs, counts in no total.

    Each training counts once: `mixing` records the trials that came to nothing, the best one is the cell's `multitask`
    and `finetune`.
    """
    kept = (s for s in stages if (s["stage"] == stage if stage else s["stage"] != "pool"))
    return float(sum(s.get(key) or 0.0 for s in kept))


def _tasks(result: Result, bandit: Bandit) -> list[str]:
    """What the bandit learnt of every task, the best first."""
    mixing = result.get("mixing")
    ratio = dict(zip(mixing["tasks"], mixing["ratio"])) if mixing else {}
    rows = []
    for one in sorted(beliefs(bandit), key=lambda one: -one.utility):
        low, high = one.interval()
        chosen = "primary" if one.task == result["primary"] else "yes" if result["counts"].get(one.task) else "no"
        rows.append([
            one.task, one.played, f"{100 * one.rewarded / one.compared:.0f}" if one.compared else "",
            f"{one.utility:.2f}", f"{low:.2f} to {high:.2f}", chosen, *([ratio.get(one.task, "")] if ratio else []),
        ])  # fmt: skip
    return [
        "### Tasks",
        _table(
            rows,
            ["task", "rounds", "mean reward %", "utility", "95 % interval", "chosen", *(["ratio"] if ratio else [])],
        ),
        f"Rounds are rewarded by the primary's value on {_chosen_on(result)}. The first has nothing to compare with. "
        "Utility is the mean of the Beta posterior, the interval its middle 95 %.",
        f"![Beta posterior of every task's utility, and the rounds]({POSTERIORS})",
    ]


def _trials(result: Result, mixing: dict[str, Any]) -> list[str]:
    """Every ratio that was tried, in this order."""
    rows = [
        [i, _colons(trial["ratio"]), _percent(trial["value"]), f"{trial['wall_s']:.1f}",
         "best" if trial["ratio"] == mixing["ratio"] else ""]
        for i, trial in enumerate(mixing["trials"], 1)
    ]  # fmt: skip
    return [
        "### Mixing ratios tried",
        _table(rows, ["trial", _colons(mixing["tasks"]), f"{result['metric']} x100", "wall s", ""]),
        f"A trial is a whole multi-task training and fine-tuning; its value is on {_chosen_on(result)}.",
    ]


def _choices(cells: list[Result]) -> list[str]:
    """The tasks and the ratio that were found, a line a cell."""
    lines = []
    for cell in cells:
        utilities, mixing = cell.get("utilities"), cell.get("mixing")
        if not utilities and not mixing:
            continue
        tasks = [task for task, count in cell["counts"].items() if count]
        if utilities:
            tasks = [f"{t} ({utilities[t]:.2f})" for t in sorted(tasks, key=lambda task: -utilities[task])]
        budget = "" if cell["budget"] is None else f", budget {cell['budget']}"
        ratio = f"; ratio {_colons(mixing['tasks'])} = {_colons(mixing['ratio'])}" if mixing else ""
        lines.append(f"- {cell['selection']}{budget}, seed {cell['seed']}: {', '.join(tasks) or 'no task'}{ratio}")
    if not lines:
        return []
    return ["### Tasks chosen (utility) and mixing ratio", "\n".join(lines), f"Chosen on {_chosen_on(cells[0])}."]


def _chosen_on(cell: Result) -> str:
    """The rows that choose tasks, ratio and epoch."""
    if cell["protocol"] == "paper":
        return "the validation rows, on which the score is reported too: optimistic"
    return "rows held out of the primary's training rows; the validation rows of the score take no part"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _colons(values: list[Any]) -> str:
    return ":".join(map(str, values))


def _arms(cells: list[Result]) -> str:
    metrics = list(cells[0]["metrics"]["validation"])
    rows = []
    for (selection, budget), group in _grouped(cells, "selection", "budget"):
        arm = list(group)
        row: list[Any] = [selection, "" if budget is None else budget, len(arm)]
        row += [_spread([100 * cell["metrics"]["validation"][m] for cell in arm]) for m in metrics if m != "loss"]
        row += [_mean((cell["auxiliary_rows"] for cell in arm), digits=0)]
        if any(cell["relevant_share"] is not None for cell in cells):
            shares = [cell["precision_at_budget"] for cell in arm if cell["precision_at_budget"] is not None]
            row += [_mean((100 * s for s in shares), digits=1) if shares else ""]
        row += [
            _mean((total(c["stages"], "wall_s") for c in arm), digits=1),
            _giga(statistics.mean(total(c["stages"], "flops") for c in arm)),
        ]
        rows.append(row)
    relevant = ["relevant %"] if any(cell["relevant_share"] is not None for cell in cells) else []
    names = [f"{m} x100" for m in metrics if m != "loss"]
    return _table(rows, ["selection", "budget", "seeds", *names, "aux rows", *relevant, "total s", "total GFLOP"])


def _audits(cells: list[Result]) -> list[str]:
    """What a cascade lost, the worst seed of each arm."""
    audited = [cell for cell in cells if (cell.get("audit") or {}).get("low") is not None]
    lines = []
    for (selection, budget), group in _grouped(audited, "selection", "budget"):
        worst = min((cell["audit"] for cell in group), key=lambda audit: audit["low"])
        lines.append(
            f"{selection}, budget {budget}: of the rows that its last level alone would choose, the cascade kept at "
            f"least {100 * worst['overlap_at_least']:.0f} %, with 95 % confidence at least {100 * worst['low']:.0f} % "
            f"({worst['better']} of {worst['audited']} audited rows were better than the last one chosen; "
            f"{worst['rejected']} were rejected)."
        )
    return lines


def _composition(cells: list[Result]) -> str:
    tasks = sorted({task for cell in cells for task in cell["counts"]})
    rows = []
    for (selection, budget), group in _grouped(cells, "selection", "budget"):
        arm = list(group)
        counts = [_mean((cell["counts"].get(task, 0) for cell in arm), digits=0) for task in tasks]
        rows.append([selection, "" if budget is None else budget, *counts])
    return _table(rows, ["selection", "budget", *tasks])


def _costs(cells: list[Result]) -> str:
    found = {s["stage"] for cell in cells for s in cell["stages"]}
    stages = [stage for stage in STAGES if stage in found or stage not in OPTIONAL]
    rows = []
    for (selection, budget), group in _grouped(cells, "selection", "budget"):
        arm = list(group)
        costs = []
        for stage in stages:
            wall = statistics.mean(total(cell["stages"], "wall_s", stage) for cell in arm)
            flops = statistics.mean(total(cell["stages"], "flops", stage) for cell in arm)
            costs.append(f"{wall:.1f} / {_giga(flops)}" if flops else f"{wall:.1f}" if wall else "")
        rows.append([selection, "" if budget is None else budget, *costs])
    return _table(rows, ["selection", "budget", *(STAGES[stage] for stage in stages)])


def _grouped(cells: Iterable[Result], *keys: str) -> Any:
    def key(cell: Result) -> tuple[Any, ...]:
        return tuple(cell[k] for k in keys)

    first_seen = {k: i for i, k in enumerate(dict.fromkeys(key(cell) for cell in cells))}
    return groupby(sorted(cells, key=lambda cell: first_seen[key(cell)]), key=key)


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def _mean(values: Iterable[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f}"


def _giga(flops: float | None) -> str:
    return f"{flops / 1e9:,.0f}" if flops else ""


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
