"""What foretells the gains of a matrix that `fastmtl relations` wrote: `python foretell.py FOLDER`.

Affinities, by rank correlation and regret, and the coefficients of the predictor; appended to the folder's results.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from agreement import agreement, predicted
from pandas import DataFrame, Series

from fastmtl.errors import UserError
from fastmtl.relations.features import pair_table
from fastmtl.relations.gains import Unit
from fastmtl.relations.predictor import checked, fitted
from fastmtl.reporting.relations import SIGNS
from fastmtl.reporting.table import Table
from fastmtl.stats import holm

DRAWS = 300
"""Draws of main tasks behind the interval of a coefficient."""
SHOWN = 10
"""Coefficients in the table; `predictor.json` has all."""


def coefficients(x: DataFrame, gain: Series, draws: int = 1000, confidence: float = 0.95, seed: int = 0) -> DataFrame:
    """The coefficient of each feature, with an interval: columns value, low, high.

    The value is that of all rows, the interval the quantiles over draws of whole main tasks with replacement, for pairs
    of one main task are not independent. It says how stable a penalised coefficient is, not that it differs from zero.
    """
    x_PF, y_P = checked(x, gain)
    rng = np.random.default_rng(seed)
    mains, group_P = np.unique(x.index.get_level_values("main"), return_inverse=True)

    def drawn() -> np.ndarray:
        return np.concatenate([np.flatnonzero(group_P == g) for g in rng.integers(len(mains), size=len(mains))])

    samples = [rows for rows in (drawn() for _ in range(draws)) if len(set(y_P[rows])) > 1]
    drawings = np.array([fitted(x_PF[rows], y_P[rows])[-1].coef_[0] for rows in samples])
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawings, [tail, 1 - tail], axis=0)
    return DataFrame({"value": fitted(x_PF, y_P)[-1].coef_[0], "low": low, "high": high}, index=x.columns)


def leanings(x: DataFrame, gain: Series) -> Table:
    """The largest coefficients of the predictor that is saved (Bingel & Søgaard 2017, table 4)."""
    found = coefficients(x, gain, draws=DRAWS)
    largest = found.reindex(found["value"].abs().sort_values(ascending=False, kind="stable").index).head(SHOWN)
    rows = [[str(name), f"{one['value']:+.2f}", f"{one['low']:+.2f} to {one['high']:+.2f}"]
            for name, one in largest.iterrows()]  # fmt: skip
    note = (
        f"The {len(rows)} largest of {len(found)} coefficients of the saved logistic regression, features scaled to "
        "[0, 1]; intervals over draws of main tasks. They say what it leans on, not what causes a gain."
    )
    return Table("What the predictor leans on", ["feature", "coefficient", "95 % interval"], rows, note=note)


def agreements(gain: Series, x: DataFrame, affinities: Mapping[str, DataFrame], unit: Unit) -> Table:
    """How well each affinity foretells the gains; see `Agreement`. `x` has the features of all pairs."""
    agreed, missing = {}, []
    moved = gain.groupby("main").transform("nunique") > 1
    for main in gain[~moved].index.unique("main"):
        missing.append(f"`{main}` scores the same beside every task, no order, and is left out as a main task.")
    gain, x = gain[moved], x[moved]
    if gain.empty:
        raise UserError("no main task has auxiliary tasks that it gains more or less by; add tasks")
    k = min(3, min(len(own) for _, own in gain.groupby("main")))
    # What an auxiliary task gains other main tasks on average; its own row is NaN.
    others = gain.unstack("aux")
    habit = {main: others.drop(index=main).mean().drop(main, errors="ignore") for main in others.index}
    tables = {**affinities, "others": DataFrame(habit).T, "size": x["aux/size"].unstack("aux")}
    with suppress(UserError):  # said below the table of its accuracy
        tables["features, unseen main task"] = predicted(x, gain)
    for name, table in tables.items():
        try:
            agreed[name] = agreement(gain, table, ks=(1, k))
        except UserError as error:
            missing.append(f"`{name}` is not told: {error}.")
    if not agreed:
        raise UserError(" ".join(missing).rstrip("."))
    p = holm([one.spearman.p for one in agreed.values()])
    rows = []
    for name, one in agreed.items():
        means, r = one.by_main.mean(), one.spearman
        rows.append([
            name, f"{r.mean:+.2f} [{r.low:+.2f}, {r.high:+.2f}]", f"{one.all_pairs:+.2f}", f"{means['regret@1']:.1f}",
            f"{means[f'regret@{k}']:.1f}", f"{means['top_gain@1']:+.1f}",
        ])  # fmt: skip
    bold = {(r, 1) for r in range(len(rows)) if p[r] < 0.05}
    regrets = [f"{means[f'random_regret@{n}']:.1f}" for n in (1, k)]
    rows.append(["random order", "0", "0", *regrets, f"{means['mean_gain']:+.1f}"])
    heads = ["affinity", "rank correlation", "over all pairs", "regret@1", f"regret@{k}", "gain of its first"]
    note = (
        "Rank correlation (Spearman) of affinity and gain over a main task's auxiliary tasks, mean over main tasks, "
        "with a 95 % interval; bold after Holm. regret@k: by how much the best gain exceeds the best of the k tasks of "
        f"highest affinity, {SIGNS[unit]}. `others` is a task's mean gain to other main tasks, and needs the matrix; "
        "`size` its training rows."
    )
    return Table("What foretells the gains", heads, rows, frozenset(bold), " ".join([note, *missing]))


def read(out: Path) -> tuple[Series, DataFrame, dict[str, DataFrame]]:
    """The gains of all pairs, the features of these, and the affinities by name, as they were written."""
    if not (out / "gains.csv").exists():
        raise UserError(f"{out} has no gains.csv; name a folder that fastmtl relations wrote")
    gain = pd.read_csv(out / "gains.csv", index_col=["main", "aux"])["gain"]
    x = pair_table(pd.read_csv(out / "features.csv", index_col="task").to_dict("index"), gain.index)
    flat = pd.read_csv(out / "affinities.csv") if (out / "affinities.csv").exists() else DataFrame()
    if "main" not in flat:  # there were none
        return gain, x, {}
    return gain, x, {name: column.unstack("aux") for name, column in flat.set_index(["main", "aux"]).items()}


def tables(out: Path, unit: Unit) -> list[Table]:
    """What can be said of the folder; what so few tasks or pairs do not allow is printed and left out."""
    gain, x, affinities = read(out)
    found = []
    for make in (lambda: agreements(gain, x, affinities, unit), lambda: leanings(x, gain)):
        try:
            found.append(make())
        except UserError as error:
            print(f"left out: {error}")
    return found


def append(out: Path, found: list[Table]) -> None:
    """Add tables to results.md, and print them."""
    text = "\n\n".join(table.markdown() for table in found)
    with open(out / "results.md", "a") as file:
        file.write(f"\n{text}\n")
    print(f"\n{text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", action="store_true", help="as fastmtl relations was called")
    given = parser.parse_args()
    try:
        append(given.folder, tables(given.folder, "points" if given.points else "percent"))
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
