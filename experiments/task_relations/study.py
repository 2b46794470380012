"""Which task helps which, and can one know before? Bingel & Søgaard's (2017) tables from the logs of their own runs.

Reads a folder with their logs as Parquet; trains nothing. Writes results.md, results.json and figure.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import published
import yaml
from foretell import coefficients

from fastmtl.errors import UserError
from fastmtl.relations.features import CURVE, DATA, ROLES, Curve, curve_features, pair_table
from fastmtl.relations.gains import gains
from fastmtl.relations.predictor import (
    Accuracy,
    Folds,
    cross_validated,
    fitted,
    main_task_folds,
    shuffled_folds,
    trivial,
)
from fastmtl.reporting.table import Table

HERE = Path(__file__).resolve().parent
Variant = Literal["paper", "corrected"]
PAPER = yaml.safe_load((HERE / "paper.yaml").read_text())
NAMES: dict[str, str] = PAPER["names"]
SINGLE, PAIR = 50_000, 100_000
"""Batches after which the published gains were read; each task of a pair has had half of them."""
CHOSEN = len(PAPER["best_combination"])


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluations (run, task, step, f1) and training losses (task, step, loss), the tasks by their short names."""
    for name in ("eval.parquet", "train_loss.parquet"):
        if not (folder / name).exists():
            raise UserError(f"{folder} has no {name}; name the folder with the logs of the original runs")
    evaluated, losses = (pd.read_parquet(folder / name) for name in ("eval.parquet", "train_loss.parquet"))
    for frame in (evaluated, losses):
        frame["task"] = frame["task"].astype(str).map(NAMES)
    return evaluated.assign(run=evaluated["run"].astype(str)), losses


def gains_at(evaluated: pd.DataFrame, single: int, pair: int, last: int = 1) -> pd.DataFrame:
    """Gains after so many batches, from the mean F1 of the last few evaluations up to there."""

    def scores(pairs: bool, step: int) -> pd.DataFrame:
        runs = evaluated[evaluated["run"].str.contains("_") == pairs]
        recent = runs[runs["step"].between(step - 100 * (last - 1), step)]
        return recent.groupby(["run", "task"], sort=False)["f1"].mean().rename("score").reset_index().assign(seed=0)

    pairs = scores(True, pair)
    both = [{NAMES[name] for name in run.split("_")} for run in pairs["run"]]
    pairs["other"] = [(names - {task}).pop() for names, task in zip(both, pairs["task"])]
    return gains(scores(False, single), pairs)


def task_features(losses: pd.DataFrame, variant: Variant) -> dict[str, dict[str, float]]:
    """Table 1's features and those of the curves. The corrected ones lack its divergence, which compares word ids with
    label ids, and see of each log the last run, up to the batches that the gains use."""
    found = {}
    for task, points in losses.groupby("task", sort=False):
        curve = Curve(points["step"].to_numpy(), points["loss"].to_numpy(dtype=float))
        values = dict(zip(DATA, PAPER["table_1"][task]))
        if variant == "paper":
            found[task] = values | published.curve_features(curve)
            continue
        del values["jsd"]
        found[task] = values | curve_features(task, *published.until(published.last_run(curve), SINGLE))
    return found


def feature_sets(x: pd.DataFrame) -> dict[str, tuple[list[str], int]]:
    """The rows of table 3 that use features: which, and how many of them are chosen inside each fold (0: all)."""
    data = [column for column in x if column.split("/")[1] in DATA]
    return {
        "all": (list(x), 0),
        "data": (data, 0),
        "data, the paper's best": ([column for column in data if column not in PAPER["best_data_without"]], 0),
        "curves": ([column for column in x if column.split("/")[1] in CURVE], 0),
        f"the paper's best {CHOSEN}": (PAPER["best_combination"], 0),
        f"best {CHOSEN} inside each fold": (list(x), CHOSEN),
    }


def ways(tables: dict[Variant, pd.DataFrame], gain: pd.Series, repeats: int) -> dict[str, dict[str, Accuracy]]:
    """Table 3 in each way to evaluate it: way -> row -> mean over the repeats."""
    shuffled = [shuffled_folds(len(gain), seed) for seed in range(repeats)]
    plan: dict[str, tuple[Variant, Variant, list[Folds]]] = {  # of the features, of the regression
        "as published": ("paper", "paper", shuffled),
        "scaled inside the fold": ("paper", "corrected", shuffled),
        "corrected features": ("corrected", "corrected", shuffled),
        "unseen main task": ("corrected", "corrected", [main_task_folds(tables["corrected"])]),
    }
    found = {}
    for way, (features, variant, folds) in plan.items():
        featureless = pd.DataFrame([trivial(gain, one) for one in folds])
        found[way] = {row: _mean(featureless[row]) for row in featureless}
        for row, (columns, keep) in feature_sets(tables[features]).items():
            some = folds[: -(-len(folds) // 10)] if keep else folds  # an elimination is two dozen fits
            x, paper = tables[features][columns], variant == "paper"
            plain = published.penalised if paper else fitted
            model = published.best_features(keep, paper) if keep else plain
            x = published.scaled(x) if paper else x
            found[way][row] = _mean(cross_validated(x, gain, one, model) for one in some)
    return found


def _mean(found) -> Accuracy:
    return Accuracy(*np.mean(list(found), axis=0).tolist())


def table_3(found: dict[str, dict[str, Accuracy]]) -> Table:
    published = {
        "majority class": ("majority", "{0:.3f}"), "always gain": ("majority", "- / {1:.3f}"),
        "all": ("all", "{0:.3f} / {1:.3f}"), "data, the paper's best": ("best data", "{0:.3f} / {1:.3f}"),
        f"the paper's best {CHOSEN}": ("best combination", "{0:.3f} / {1:.3f}"),
    }  # fmt: skip
    rows = []
    for row in found["as published"]:
        name, form = published.get(row, (None, ""))
        cells = [form.format(*PAPER["table_3"][name]) if name else ""]
        for way, results in found.items():
            f1 = results[row].fold_f1 if way == "as published" and row not in TRIVIAL else results[row].f1
            cells.append(f"{results[row].accuracy:.3f} / {f1:.3f}")
        rows.append([row, *cells])
    note = (
        "As published: mean of the folds' F1, features scaled before the split. Else F1 over all held-out pairs. "
        "Unseen main task: all nine pairs of a task are held out together."
    )
    return Table("Table 3: accuracy / F1 of the gains", ["features", "paper", *found], rows, note=note)


TRIVIAL = ("majority class", "always gain", "as its main task")


def table_4(paper: pd.DataFrame, corrected: pd.DataFrame) -> Table:
    rows = []
    for name in sorted(PAPER["table_4"], key=lambda name: -abs(PAPER["table_4"][name])):
        published, ours = PAPER["table_4"][name], paper["value"][name]
        after = corrected.loc[name] if name in corrected.index else None
        between = "" if after is None else f"{after['value']:+.2f} [{after['low']:+.2f}, {after['high']:+.2f}]"
        rows.append([name, f"{published:+.3f}", f"{ours:+.3f}", between])
    return Table(
        "Table 4: coefficients",
        ["feature", "paper", "as published", "corrected, 95 % over main tasks"],
        rows,
        note=f"Rank correlation of the first two columns: {_agreement(paper):.2f}.",
    )


def _agreement(paper: pd.DataFrame) -> float:
    return float(paper["value"].corr(pd.Series(PAPER["table_4"]), method="spearman"))


def readings(evaluated: pd.DataFrame, base: pd.DataFrame) -> Table:
    """How many of the 90 gains are positive, and have the published sign, after other batches."""
    rows = []
    for single, pair, last in ((SINGLE, PAIR, 1), (25_000, 50_000, 1), (50_000, 50_000, 1), (25_000, 25_000, 1),
                               (SINGLE, PAIR, 10), (SINGLE, PAIR, 50)):  # fmt: skip
        other = gains_at(evaluated, single, pair, last)["gain"]
        same = int(((other > 0) == (base["gain"] > 0)).sum())
        rows.append([f"{single:,}", f"{pair:,}", str(last), str(int((other > 0).sum())), str(same)])
    heads = ["batches, single", "batches, pair", "evaluations averaged", "gains of 90", "signs as in Figure 1"]
    return Table("What the count of gains depends on", heads, rows)


def importance(x: pd.DataFrame, gain: pd.Series, repeats: int) -> Table:
    groups = {f"{role}, {part}": [c for c in x if c.split("/")[0] == role and c.split("/")[1] in names]
              for role in ROLES for part, names in (("data", DATA), ("curve", CURVE))}  # fmt: skip
    groups |= {role: [c for c in x if c.startswith(role)] for role in ROLES}
    shuffled = pd.DataFrame([published.permutation_importance(x, gain, shuffled_folds(len(x), seed), groups, seed=seed)
                             for seed in range(max(1, repeats // 10))]).mean()  # fmt: skip
    unseen = published.permutation_importance(x, gain, main_task_folds(x), groups)
    rows = [[name, f"{100 * shuffled[name]:+.1f}", f"{100 * unseen[name]:+.1f}"] for name in groups]
    heads = ["features shuffled together", "shuffled folds", "unseen main task"]
    return Table("Points of accuracy that a group of features is worth", heads, rows)


def main(folder: Path, out: Path, repeats: int = 100) -> None:
    from fastmtl.reporting.relations import heat_map

    evaluated, losses = read(folder)
    base = gains_at(evaluated, SINGLE, PAIR)
    features = {variant: task_features(losses, variant) for variant in ("paper", "corrected")}
    tables: dict[Variant, pd.DataFrame] = {
        "paper": published.pair_table(features["paper"], list(base.index)),
        "corrected": pair_table(features["corrected"], base.index),
    }
    found = ways(tables, base["gain"], repeats)
    weights = {
        "paper": published.coefficients(tables["paper"], base["gain"], draws=max(20, repeats)),
        "corrected": coefficients(tables["corrected"], base["gain"], draws=max(20, repeats * 10)),
    }
    gain = Table(
        "Figure 1: relative gain in %, rows main, columns auxiliary",
        ["main", *NAMES.values()],
        [[m, *("" if m == a else f"{base['gain'][m, a]:+.2f}" for a in NAMES.values())] for m in NAMES.values()],
    )
    parts = [gain, readings(evaluated, base), table_3(found), table_4(weights["paper"], weights["corrected"]),
             importance(tables["corrected"], base["gain"], repeats)]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text("\n\n".join(part.markdown() for part in parts) + "\n")
    numbers = {
        "gain": {main: base["gain"][main].to_dict() for main in NAMES.values()},
        "features": features,
        "table_3": {way: {row: one._asdict() for row, one in rows.items()} for way, rows in found.items()},
        "table_4": {variant: weights[variant].to_dict("index") for variant in weights},
    }
    (out / "results.json").write_text(json.dumps(numbers, indent=1) + "\n")
    heat_map(base).savefig(out / "figure.svg", metadata={"Date": None})
    print("\n\n".join(part.markdown() for part in parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the logs of the original runs: eval.parquet, train_loss.parquet")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    try:
        main(given.folder, given.out)
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
