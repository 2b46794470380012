"""How much of what the right rows are worth arrives? `python study.py --glue FOLDER` runs arms.yaml, and reports.

Transfer efficiency is (arm - primary alone) / (the same rows added to the primary - primary alone). Cells are run group
by group, task by task, seed by seed; a study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats
from tabulate import tabulate

from fastmtl import compose
from fastmtl.errors import UserError
from fastmtl.store import WEIGHTS, write_json

HERE = Path(__file__).resolve().parent
ROWS = {"oracle": "hand_picked", "chosen": "feature_similarity"}
ADDED, ALONE, NONE = "added", "primary_only, 1e-4", "none"
BEFORE = ", own, 1e-4"
"""Heads and last stage of the former defaults."""


@dataclass(frozen=True)
class Cell:
    """One arm of one task and seed."""

    task: str
    arm: str
    seed: int
    overrides: tuple[str, ...]

    def run(self, base: list[str]) -> dict[str, Any]:
        """Its headline metric on the rows that are reported, and on those that chose the epoch; weights are dropped."""
        experiment = compose(*base, *self.overrides)
        finetune = experiment.finetune()
        fit, metrics = finetune.read("fit.json"), finetune.read("metrics.json")
        name, flags = experiment.task.metrics[0], experiment.pool.flags_of(experiment.selected())
        (finetune.path / WEIGHTS).unlink(missing_ok=True)
        return {
            "task": self.task, "arm": self.arm, "seed": self.seed, "metric": name,
            "score": metrics["validation"][name], "chooses": fit["epochs"][fit["best_epoch"]][name],
            "best_epoch": metrics["best_epoch"], "primary_rows": experiment.primary_rows[0].count,
            "auxiliary_rows": len(experiment.selected()), "device": finetune.records["device"],
            "precision": finetune.records["precision"],
            "relevant": None if flags is None or not len(flags) else round(float(np.mean(flags)), 3),
            "overrides": list(self.overrides),
        }  # fmt: skip


def arms(plan: Mapping[str, Any], task: Mapping[str, Any], group: str) -> Iterator[tuple[str, list[str]]]:
    """Arm -> overrides, in the order in which they run."""
    for arm in plan["arms"][group]:
        if isinstance(arm, str):
            own = task.get("single", {}).get(arm, [])
            yield arm, [*plan["single"][arm], *own, *(task["added"] if arm == ADDED else [])]
        else:
            rows, heads, last = arm
            picked = task["oracle"] if rows == "oracle" else []
            yield ", ".join(arm), [f"selection={ROWS[rows]}", *picked, *plan["heads"][heads], *plan["last"][last]]


def cells(plan: Mapping[str, Any], names: Sequence[str], groups: Sequence[str]) -> Iterator[Cell]:
    """Group by group, task by task, seed by seed."""
    for group, name in itertools.product(groups, names):
        task = {**plan["tasks"], **plan["searched"]}[name]
        for seed in range(plan["seeds"]):
            drawn = [f"seed={seed}", f"data.source.seed={seed}"]
            for arm, own in arms(plan, task, group):
                yield Cell(name, arm, seed, (*task["base"], *task["own"], *own, *drawn))


def run(asked: Iterator[Cell], base: Sequence[str], glue: Path, output: Path, artifacts: Path) -> None:
    """Write the results that are missing, a file each."""
    for cell in asked:
        path = output / cell.task / f"{cell.arm}-{cell.seed}.json".replace(" ", "")
        if not path.exists():
            root = [] if cell.task == "sample" else [f"data.root={glue}"]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, cell.run([*base, f"paths.artifacts={artifacts}", *root]))
            print(cell.task, cell.arm, cell.seed, flush=True)


# --- report --------------------------------------------------------------------------------------------------------


def interval(values_n: np.ndarray) -> str:
    """Mean over paired seeds and its 95 % interval by Student's t."""
    if len(values_n) < 2:
        return f"{values_n.mean():+.1f}"
    half = stats.t.ppf(0.975, len(values_n) - 1) * stats.sem(values_n)
    return f"{values_n.mean():+.1f} [{values_n.mean() - half:+.1f}, {values_n.mean() + half:+.1f}]"


def ratio(over_n: np.ndarray, under_n: np.ndarray) -> str:
    """The ratio of two means over paired seeds and its 95 % interval by Fieller's theorem; it may be unbounded."""
    value = over_n.mean() / under_n.mean()
    n = len(over_n)
    if n < 2:
        return f"{value:.2f}"
    ((xx, xy), (_, yy)) = np.cov(over_n, under_n) / n * stats.t.ppf(0.975, n - 1) ** 2
    x, y = over_n.mean(), under_n.mean()
    a, b, c = y**2 - yy, x * y - xy, x**2 - xx
    if a <= 0 or b**2 < a * c:
        return f"{value:.2f} (unbounded)"
    low, high = (b - np.sqrt(b**2 - a * c)) / a, (b + np.sqrt(b**2 - a * c)) / a
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A task's arms: score, what is gained over the primary alone, and the share of what the added rows are worth."""
    scores: dict[str, dict[int, float]] = {}
    for one in results:
        scores.setdefault(one["arm"], {})[one["seed"]] = 100 * one["score"]
    found = []
    for arm, own in scores.items():
        column, row = np.array(list(own.values())), [arm, len(own)]
        sd = f" ± {column.std(ddof=1):.1f}" if len(own) > 1 else ""
        relevant = [one["relevant"] for one in results if one["arm"] == arm and one["relevant"] is not None]
        row += [f"{column.mean():.1f}{sd}", f"{np.mean(relevant):.2f}" if relevant else ""]
        for alone in (ALONE, NONE):
            seeds = sorted(set(own) & set(scores.get(alone, {})) & set(scores.get(ADDED, {})))
            x, base, y = (np.array([values.get(seed, np.nan) for seed in seeds])
                          for values in (own, scores.get(alone, {}), scores.get(ADDED, {})))  # fmt: skip
            row += [interval(x - base), ratio(x - base, y - base)] if seeds and arm != alone else ["", ""]
        before = arm.split(", ")[0] + BEFORE  # the same rows
        both = sorted(set(own) & set(scores.get(before, {})))
        difference = np.array([own[seed] - scores[before][seed] for seed in both])
        found.append([*row, interval(difference) if both and arm != before else ""])
    against = [column for alone in (ALONE, NONE) for column in (f"minus {alone}", "efficiency")]
    heads = ["arm", "seeds", results[0]["metric"], "relevant", *against, f"minus the same rows{BEFORE}"]
    return tabulate(found, heads, tablefmt="github")


def report(plan: Mapping[str, Any], output: Path, folder: Path) -> None:
    """results.md and results.json of all cells that there are."""
    everything, parts = [], []
    for name in (*plan["tasks"], *plan["searched"]):
        found = {path.stem: json.loads(path.read_text()) for path in sorted(output.glob(f"{name}/*.json"))}
        asked = dict.fromkeys(f"{one.arm}-{one.seed}".replace(" ", "") for one in cells(plan, [name], plan["arms"]))
        if results := [found[key] for key in asked if key in found]:
            everything += results
            title = f"## {name}" + (", which no study reports on" if name in plan["searched"] else "")
            parts.append(f"{title}\n\n{table(results)}\n")
    (folder / "results.md").write_text("\n".join(parts))
    (folder / "results.json").write_text(json.dumps(everything, indent=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="of arms.yaml; all that are reported by default")
    parser.add_argument("--arms", nargs="*", help="groups of arms of arms.yaml; all by default")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--glue", type=Path, default=Path("glue"))
    parser.add_argument("--output", type=Path, default=Path("outputs/transfer"))
    parser.add_argument("--artifacts", type=Path, default=Path("outputs/artifacts"))
    parser.add_argument("--report", action="store_true", help="write the report of what has run, and run nothing")
    given = parser.parse_args()
    told = yaml.safe_load((HERE / "arms.yaml").read_text())
    told["seeds"] = given.seeds or told["seeds"]
    try:
        if not given.report:
            asked = cells(told, given.tasks or list(told["tasks"]), given.arms or list(told["arms"]))
            run(asked, told["base"], given.glue, given.output, given.artifacts)
        report(told, given.output, HERE)
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
