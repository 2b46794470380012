"""What the study's cells say: `results` compares them, `write` makes results.json, results.md and figure.svg of it.

Comparisons are paired over seeds; intervals and p cover seeds and validation rows (see `fastmtl.reporting.compare`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pandas import DataFrame, concat

from fastmtl.errors import UserError
from fastmtl.reporting.compare import LEVEL, comparisons
from fastmtl.reporting.figures import COLORS, STYLE
from fastmtl.reporting.frame import frame
from fastmtl.reporting.plots import save
from fastmtl.reporting.row_noise import row_noise
from fastmtl.reporting.table import Part, Table, mean_sd, percent
from fastmtl.stats import half_width, holm, noise, p_value
from fastmtl.store import write_json

CHOSEN = "feature_similarity"
GAINS = ((CHOSEN, "random"), (CHOSEN, "primary_only"), ("random", "primary_only"))
"""What is compared: arm, reference."""

NAMES = {CHOSEN: "chosen", "primary_only": "primary alone"}

ARMS = ("none", "primary_only", "random", CHOSEN, "oracle")


def results(output: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Cells, comparisons and headroom of what has finished, as plain values."""
    read = {path.stem: json.loads(path.read_text()) for path in sorted(output.glob("*.json"))}
    cells: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    averaged: list[dict[str, Any]] = []
    for primary in plan["primaries"]:
        frames = {share: _frame(read, plan, primary, share) for share in plan["shares"]}
        frames = {share: found for share, found in frames.items() if len(found)}
        cells += [_plain(row, share) for share, found in frames.items() for row in found.to_dict("records")]
        compared += _family(primary, [row for share, found in frames.items() for row in _compared(found, share)])
        mixed = [frames[share] for share in plan["shares"] if share in frames and share < max(plan["shares"])]
        averaged += _family(primary, list(_averaged(mixed, plan["budgets"])))
    if not cells:
        raise UserError(f"{str(output)!r} has no finished part of the study; run it without --report first")
    return {"cells": cells, "compared": compared, "averaged": averaged, "headroom": list(_headroom(read))}


def _family(primary: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with p after Holm's correction over all of them."""
    adjusted = map(float, holm([row["p"] for row in rows])) if rows else ()
    return [{"primary": primary, **row, "p_holm": p, "significant": p < LEVEL} for row, p in zip(rows, adjusted)]


def _frame(read: Mapping[str, Any], plan: Mapping[str, Any], primary: str, share: float) -> DataFrame:
    """The cells of one share, with the references and oracles that belong to it, of all seeds that have both."""
    found, most = [], max(plan["shares"])
    for seed in range(plan["seeds"]):
        shared, own = read.get(f"{primary}-{most}-{seed}"), read.get(f"{primary}-{share}-{seed}")
        if shared is None or own is None:
            continue
        found += [cell for cell in own if cell["selection"] in ("random", CHOSEN)]
        found += [cell for cell in shared if cell["selection"] in ("none", "primary_only")]
        by_arm = {cell["arm"]: cell for cell in shared}
        for budget in plan["budgets"] if share < most else ():
            oracle = by_arm[f"oracle {min(budget, round(share * plan['size']))}"]
            # The same cell stands for several shares and budgets: each gets an id of its own.
            found.append({**oracle, "id": f"{oracle['id']}-{budget}", "selection": "oracle", "budget": budget})
    return frame({**cell, "pool": str(share)} for cell in found)


def _compared(cells: DataFrame, share: float) -> Iterator[dict[str, Any]]:
    """`GAINS` at each budget, of those with two seeds at least."""
    if cells["seed"].nunique() < 2:
        return
    for row in comparisons(cells, ("random", "primary_only"), row_noise(cells)).to_dict("records"):
        if (row["arm"], row["reference"]) in GAINS:
            kept = ("arm", "budget", "reference", "n", "mean", "sd", "low", "high", "p", "covers", "row_share")
            yield {"share": share, **{key: row[key] for key in kept}}


def _averaged(frames: Sequence[DataFrame], budgets: Sequence[int]) -> Iterator[dict[str, Any]]:
    """`GAINS` at each budget, each seed's mean over the shares of these frames, of the seeds that all of them have."""
    if not frames:
        return
    cells = concat(frames).drop_duplicates("id")
    by_rows, score = row_noise(cells), cells.set_index("id")["score"]
    seeds = [seed for seed in sorted(cells["seed"].unique()) if all(seed in set(one["seed"]) for one in frames)]
    if len(seeds) < 2:
        return

    def means(arm: str, budget: int, sign: int) -> list[Counter[str]]:
        """Per seed, the arm's cells with their weights."""
        sums = [Counter[str]() for _ in seeds]
        for one in frames:
            mine = one[(one["selection"] == arm) & (one["budget"].isna() | (one["budget"] == budget))]
            ids = mine.set_index("seed")["id"]
            for total, seed in zip(sums, seeds):
                total[ids[seed]] += sign / len(frames)
        return sums

    for budget, (arm, reference) in itertools.product(budgets, GAINS):
        sums = [{**one, **two} for one, two in zip(means(arm, budget, 1), means(reference, budget, -1))]
        gains_n = np.array([sum(weight * score[cell] for cell, weight in one.items()) for one in sums])
        known = noise(gains_n, by_rows.covariance_of(sums), by_rows.rows)
        mean, half = float(gains_n.mean()), float(half_width(known))
        yield {"arm": arm, "budget": budget, "reference": reference, "n": len(seeds), "mean": mean,
               "low": mean - half, "high": mean + half, "p": float(p_value(mean, known))}  # fmt: skip


def _plain(row: Mapping[str, Any], share: float) -> dict[str, Any]:
    kept = ("primary", "metric", "validation_rows", "selection", "budget", "seed", "score", "aux_rows",
            "precision_at_budget", "relevant_share", "total_flops", "total_wall_s")  # fmt: skip
    return {"share": share, **{key: _value(row[key]) for key in kept}}


def _value(value: Any) -> Any:
    """None for what a frame holds where there is nothing."""
    return None if value is None or value != value or str(value) == "<NA>" else value


def _headroom(read: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, part in read.items():
        if name.startswith("headroom-"):
            for cell in part:
                yield {key: cell[key] for key in ("primary", "seed", "arm", "metric", "headline")}


def write(told: Mapping[str, Any], out: Path) -> str:
    """results.json, results.md and figure.svg; returns the tables."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", told)
    text = "\n\n".join(part.markdown() for part in sections(told)) + "\n"
    (out / "results.md").write_text(text)
    if told["compared"]:
        save(figure(told), out / "figure.svg")
    return text


def sections(told: Mapping[str, Any]) -> Iterator[Part]:
    """One a primary, and one of their headroom."""
    cells, compared = DataFrame(told["cells"]), DataFrame(told["compared"])
    averaged = DataFrame(told["averaged"], columns=["primary"] if not told["averaged"] else None)
    for primary, own in cells.groupby("primary", sort=False):
        title = f"{primary}: {own['metric'].iloc[0]} on {own['validation_rows'].iloc[0]} validation rows"
        tables = [scores(own)]
        if len(compared):
            tables.append(gains(compared[compared["primary"] == primary]))
            tables += [averages(here)] if len(here := averaged[averaged["primary"] == primary]) else []
        yield Part(title, tables=tables)
    if told["headroom"]:
        yield Part("Headroom", tables=[headroom(DataFrame(told["headroom"]))])


def scores(cells: DataFrame) -> Table:
    """A row a share and budget: the score of every arm, what was chosen, and the cost of choosing."""
    rows = []
    for share, budget in itertools.product(sorted(cells["share"].unique()), sorted(cells["budget"].dropna().unique())):
        here = cells[(cells["share"] == share) & (cells["budget"].isna() | (cells["budget"] == budget))]
        arms = {name: here[here["selection"] == name] for name in ARMS}
        if not len(here):
            continue
        rows.append([
            f"{share:.0%}", f"{budget:.0f}", str(here["seed"].nunique()),
            *(mean_sd(100 * arm["score"]) if len(arm) else "" for arm in arms.values()),
            *(percent(arms[name]["precision_at_budget"].mean()) for name in ("random", CHOSEN)),
            *(f"{arms[name]['total_flops'].mean() / 1e12:.1f}" for name in ("random", CHOSEN)),
        ])  # fmt: skip
    heads = ["related share", "budget", "seeds", *(NAMES.get(name, name) for name in ARMS), "related % of random",
             "related % of chosen", "TFLOP random", "TFLOP chosen"]  # fmt: skip
    note = (
        "Scores x100, mean ± standard deviation over seeds. Oracle: as many of the related rows as the budget takes, "
        "or all of them; at 100 % random rows are such rows. TFLOP: all that the arm needs, the choice included."
    )
    return Table("Scores", heads, rows, note=note)


def gains(compared: DataFrame) -> Table:
    """`GAINS` by share and budget."""
    rows, bold = [], set()
    for (share, budget), here in compared.groupby(["share", "budget"]):
        row = [f"{share:.0%}", f"{budget:.0f}", str(here["n"].max())]
        for arm, reference in GAINS:
            one = here[(here["arm"] == arm) & (here["reference"] == reference)].iloc[0]
            if one["significant"]:
                bold.add((len(rows), len(row)))
            row += [f"{100 * one['mean']:+.1f}", _interval(one), f"{one['p_holm']:.3f}"]
        rows.append(row)
    heads = ["related share", "budget", "seeds"]
    for arm, reference in GAINS:
        heads += [f"{NAMES.get(arm, arm)} - {NAMES.get(reference, reference)}", "95 % interval", "p (Holm)"]
    note = (
        "Differences x100 of the same seeds; interval and p cover seeds, which draw the primary and the pile anew, and "
        "validation rows. Bold: p below 0.05 after Holm's correction over this table."
    )
    return Table("Gains", heads, rows, frozenset(bold), note)


def averages(averaged: DataFrame) -> Table:
    """`GAINS` by budget, averaged over the shares below 100 %."""
    rows = [
        [f"{NAMES.get(one.arm, one.arm)} - {NAMES.get(one.reference, one.reference)}", f"{one.budget:.0f}", str(one.n),
         f"{100 * one.mean:+.1f}", _interval(one._asdict()), f"{one.p:.4f}", f"{one.p_holm:.3f}"]
        for one in averaged.itertuples()
    ]  # fmt: skip
    heads = ["gain", "budget", "seeds", "difference x100", "95 % interval", "p", "p (Holm)"]
    note = "Each seed's mean over all shares below 100 %. Bold: p below 0.05 after Holm's correction over this table."
    bold = frozenset((r, 3) for r, real in enumerate(averaged["significant"]) if real)
    return Table("Gains, averaged over shares", heads, rows, bold, note)


def _interval(row: Any) -> str:
    return "" if math.isnan(row["low"]) else f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def headroom(cells: DataFrame) -> Table:
    """Each primary's own learning curve beside the most related rows that the study gives it."""
    arms = sorted(set(cells["arm"]), key=lambda arm: (not arm.startswith("alone"), len(arm), arm))
    rows = [
        [f"{primary} ({own['metric'].iloc[0]})", str(own["seed"].nunique()),
         *(mean_sd(100 * own.loc[own["arm"] == arm, "headline"]) for arm in arms)]
        for primary, own in cells.groupby("primary", sort=False)
    ]  # fmt: skip
    note = "Scores x100. Alone N: N rows of the primary and nothing else. Oracle N: the study's, N related beside."
    return Table("What each primary can gain", ["primary", "seeds", *arms], rows, note=note)


def figure(told: Mapping[str, Any]) -> Figure:
    """A row a primary, a column a budget: the three gains against the related share of the pile."""
    compared, cells = DataFrame(told["compared"]), DataFrame(told["cells"])
    primaries, budgets = list(dict.fromkeys(compared["primary"])), sorted(compared["budget"].unique())
    with style.context(["default", STYLE]):
        drawn = Figure((0.6 + 3.6 * len(budgets), 0.9 + 2.3 * len(primaries)), layout="constrained")
        panels = drawn.subplots(len(primaries), len(budgets), sharey="row", squeeze=False)
        for (r, primary), (c, budget) in itertools.product(enumerate(primaries), enumerate(budgets)):
            panel: Axes = panels[r][c]
            own = cells[(cells["primary"] == primary) & (cells["budget"] == budget)]
            _panel(panel, compared[(compared["primary"] == primary) & (compared["budget"] == budget)], own)
            panel.set_title(f"{primary}, {budget:.0f} rows", loc="left", fontsize=9)
            if c == 0:
                panel.set_ylabel(f"difference, {own['metric'].iloc[0]} x100")
        for panel in panels[-1]:
            panel.set_xlabel("related share of the pile; below it, of the chosen rows", fontsize=8)
        handles, labels = panels[0][0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=len(GAINS), frameon=False)
        return drawn


def _panel(panel: Axes, compared: DataFrame, cells: DataFrame) -> None:
    """One gain a line, with 95 % intervals; lines stand a little apart so that no interval hides another."""
    panel.axhline(0, color="#999999", linewidth=0.8)
    for i, (arm, reference) in enumerate(GAINS):
        one = compared[(compared["arm"] == arm) & (compared["reference"] == reference)].sort_values("share")
        spread: Sequence[Any] = [100 * (one["mean"] - one["low"]), 100 * (one["high"] - one["mean"])]
        panel.errorbar(
            one["share"] * 1.09 ** (i - 1), 100 * one["mean"], spread, color=COLORS[1 + i], marker="os^"[i],
            markersize=4, linewidth=1.4, elinewidth=0.9, linestyle=("-", "--", ":")[i],
            label=f"{NAMES.get(arm, arm)} - {NAMES.get(reference, reference)}",
        )  # fmt: skip
    panel.set_xscale("log")
    shares = sorted(compared["share"].unique())
    precision = cells[cells["selection"] == CHOSEN].groupby("share")["precision_at_budget"].mean()
    panel.set_xticks(shares, [f"{share:.0%}\n{precision[share]:.0%}" for share in shares])
    panel.xaxis.set_minor_locator(NullLocator())
