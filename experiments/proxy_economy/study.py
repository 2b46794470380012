"""How much of the full proxy's choice cheaper ways to score keep: `python study.py [--root GLUE] [--seeds 2]`.

Writes results.json and results.md beside this file. Stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tabulate import tabulate

from fastmtl import compose
from fastmtl.pipelines.experiment import Experiment
from fastmtl.selection.candidates import top_k

SHORTCUTS = {
    "2 of 6 layers": ["+encoder@proxy.encoder=minilm", "proxy.encoder.layers=2"],
    "1 of 6 layers": ["+encoder@proxy.encoder=minilm", "proxy.encoder.layers=1"],
    "int8 weights": ["scoring.precision=int8"],
    "cascade 2 -> 6 layers": ["scoring.cascade=[small,large]"],
}
"""Overrides to the full proxy: MiniLM, six layers, the precision that `auto` takes."""


def main(base: list[str], primaries: list[str], budgets: list[int], seeds: int, out: Path) -> None:
    """Run every way to score for every seed and primary, and write what it chose against the full proxy's choice."""

    def experiment(seed: int, primary: str, budget: int, *more: str) -> Experiment:
        return compose(*base, f"primary={primary}", f"budget={budget}", f"seed={seed}", *more)

    full = {(seed, p): _column(experiment(seed, p, budgets[0])) for seed in range(seeds) for p in primaries}
    cells = [cell for p in primaries for cell in _between_seeds(full, p, seeds, budgets)]
    for seed, primary in itertools.product(range(seeds), primaries):
        exp = experiment(seed, primary, budgets[0])
        about = {"seed": seed, "primary": primary, "candidates": len(exp.candidate_ids())}
        for (name, more), budget in itertools.product(SHORTCUTS.items(), budgets):
            found = _compare(experiment(seed, primary, budget, *more), exp, budget, full[seed, primary])
            cells.append({"way": name, "budget": budget, **about, **found})
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(
            json.dumps(
                {"overrides": [one for one in base if not one.startswith("data.root")], "cells": cells}, indent=1
            )
            + "\n"
        )
        (out / "results.md").write_text(table(cells, budgets) + "\n")
        print(f"seed {seed}, {primary}: done", flush=True)
    print(table(cells, budgets))


def _between_seeds(
    full: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]], primary: str, seeds: int, budgets: list[int]
) -> list[dict[str, Any]]:
    """What two full proxies of different seeds choose in common: nothing can be closer to one of them than that."""
    cells = []
    for a, b in itertools.combinations(range(seeds), 2):
        # Their training rows differ and are no candidates: rows that both scored are compared.
        rows, left, right = np.intersect1d(full[a, primary][0], full[b, primary][0], return_indices=True)
        one, two = full[a, primary][1][left], full[b, primary][1][right]
        for k in budgets:
            overlap = _overlap(rows[_best(rows, one, k)], rows[_best(rows, two, k)])
            rank = float(spearmanr(one, two).statistic)
            cells.append({"way": "full, another seed", "seed": a, "primary": primary, "budget": k, "flops": 1.0,
                          "overlap": overlap, "spearman": rank})  # fmt: skip
    return cells


def _compare(exp: Experiment, full: Experiment, k: int, scored: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    rows, values = scored
    best = rows[_best(rows, values, k)]
    found: dict[str, Any] = {
        "overlap": _overlap(exp.selected(), best),
        "flops": _flops(exp) / _flops(full),
    }
    if len(exp.passes) == 1:
        own_rows, own = _column(exp)
        assert np.array_equal(own_rows, rows)
        found["spearman"] = float(spearmanr(own, values).statistic)
    else:
        found["audit"] = exp.selection().records["audit"]
    return found


def _column(exp: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """The candidates, ascending, and their scores for the primary."""
    rows = exp.candidate_ids()
    names = [task.name for task in exp.tasks]
    return rows, exp.all_scores()[names.index(exp.primary)][rows]


def _best(rows: np.ndarray, values: np.ndarray, k: int) -> np.ndarray:
    return top_k([(rows, values)], k, salt=0)


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    return len(np.intersect1d(one, two)) / len(one)


def _flops(exp: Experiment) -> float:
    return sum(a.records.get("flops", 0.0) for a in (*exp.proxy(), *exp.scores()))


def table(cells: list[dict[str, Any]], budgets: list[int]) -> str:
    """Means over seeds and primaries, the range beside them."""
    rows = []
    for way in ["full, another seed", *SHORTCUTS]:
        mine = [cell for cell in cells if cell["way"] == way]
        if not mine:
            continue
        row: list[Any] = [way, f"{np.mean([cell['flops'] for cell in mine]):.2f}"]
        row += [_range([100 * cell["overlap"] for cell in mine if cell["budget"] == k]) for k in budgets]
        ranks = [cell["spearman"] for cell in mine if "spearman" in cell]
        rows.append([*row, f"{np.mean(ranks):.3f}" if ranks else ""])
    chance = [np.mean([100 * k / c["candidates"] for c in cells if "candidates" in c]) for k in budgets]
    rows.append(["random rows", "", *(f"{share:.1f}" for share in chance), ""])
    headers = ["way to score", "FLOPs", *(f"overlap % at {k}" for k in budgets), "Spearman"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _range(values: list[float]) -> str:
    return f"{np.mean(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder of GLUE Parquet files; without it the sample")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1000, help="training rows kept a task")
    asked = parser.parse_args()
    here = Path(__file__).parent
    if asked.root is None:
        main(["data=sample", "encoder=minilm", f"data.rows_per_task={asked.rows}"], ["chats", "mails"], [100, 400],
             asked.seeds, Path("outputs/proxy_economy"))  # fmt: skip
    else:
        data = ["data=glue_local", f"data.root={asked.root}", f"data.rows_per_task={asked.rows}", "encoder=minilm"]
        proxy = ["proxy.examples_per_task=150", "proxy.fit.epochs=4"]
        main([*data, *proxy], ["rte", "mrpc", "stsb"], [250, 500, 1000], asked.seeds, here)
