"""Tables of cells as Markdown that also reads well in a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from tabulate import tabulate

Result = dict[str, Any]

FEW_SEEDS = 5
"""Below this the table warns: seed noise on small primaries is several points (Dodge et al., 2020)."""


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
        seeds = {cell["seed"] for cell in cells}
        if len(seeds) < FEW_SEEDS:
            parts.append(
                f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: too few to call any difference between arms real."
            )
    return "\n\n".join(parts)


def cell_report(result: Result) -> str:
    """One cell, with its stages."""
    stages = [
        [s["stage"], s["key"], "found" if s["hit"] else "built", s.get("examples"), s["wall_s"], _giga(s.get("flops"))]
        for s in result["stages"]
    ]
    return "\n\n".join([
        comparison([result]),
        "### Stages",
        _table(stages, ["stage", "artifact", "", "examples", "wall s", "GFLOP"]),
    ])  # fmt: skip


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
            _mean((_total(c, "wall_s") for c in arm), digits=1),
            _giga(statistics.mean(_total(c, "flops") for c in arm)),
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
    stages = ["pool", "proxy", "scores", "multitask", "finetune"]
    rows = []
    for (selection, budget), group in _grouped(cells, "selection", "budget"):
        arm = list(group)
        costs = []
        for stage in stages:
            wall = statistics.mean(_total(cell, "wall_s", stage) for cell in arm)
            flops = statistics.mean(_total(cell, "flops", stage) for cell in arm)
            costs.append(f"{wall:.1f} / {_giga(flops)}" if flops else f"{wall:.1f}" if wall else "")
        rows.append([selection, "" if budget is None else budget, *costs])
    return _table(rows, ["selection", "budget", *stages])


def _total(cell: Result, key: str, stage: str | None = None) -> float:
    """Cost of a cell's own stages; the token pool, which every arm needs, counts in no arm's total."""
    kept = (s for s in cell["stages"] if (s["stage"] == stage if stage else s["stage"] != "pool"))
    return float(sum(s.get(key) or 0.0 for s in kept))


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
