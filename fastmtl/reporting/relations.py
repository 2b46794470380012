"""What was found of the relations between tasks: gains, what foretells them, what it cost; as tables and files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from fastmtl.errors import UserError
from fastmtl.relations.features import pair_table
from fastmtl.relations.gains import Relations, Unit
from fastmtl.relations.predictor import (
    GainPredictor,
    cross_validated,
    main_task_folds,
    shuffled_folds,
    trivial,
)
from fastmtl.reporting.plots import DRAWN
from fastmtl.reporting.table import Table, mean_sd, shown

SHUFFLES = 20
"""Times that the pairs are parted into folds anew."""
SIGNS = {"percent": "%", "points": "points"}
CELL = 0.52
"""Inches of the heat map's cells, both ways."""
_FULL = 0.9
"""Quantile of the sizes from which on its colour is full: one large gain does not pale the others."""


def write(found: Relations, out: Path, title: str, unit: Unit) -> str:
    """Write the folder; returns its Markdown.

    `results.md`, `figure.svg`, the numbers as `scores.csv`, `gains.csv`, `features.csv`, `affinities.csv`, and
    `predictor.json`, a `GainPredictor` of all pairs. What so few tasks or pairs do not allow is said and left out.
    """
    out.mkdir(parents=True, exist_ok=True)
    gain = found.gains(unit)
    x = pair_table(found.features)
    parts = [
        f"# {title}", singles(found.single).markdown(), matrix(gain, unit).markdown(),
        _or_reason("how well features predict", lambda: predictions(x, gain["gain"])),
        cost_table(found.costs).markdown(),
    ]  # fmt: skip
    (out / "results.md").write_text("\n\n".join(parts) + "\n")
    with suppress(UserError):  # said above
        replace(GainPredictor.fit(x, gain["gain"]), models=found.models).save(out / "predictor.json")
    heat_map(gain, f"gain over single-task, {SIGNS[unit]}").savefig(out / "figure.svg", metadata={"Date": None})
    frame = found.single.assign(other="").reindex(columns=found.pairs.columns)
    DataFrame([*frame.to_dict("records"), *found.pairs.to_dict("records")]).to_csv(out / "scores.csv", index=False)
    gain.to_csv(out / "gains.csv")
    DataFrame(found.features).T.rename_axis("task").to_csv(out / "features.csv")
    flat = {name: table.rename_axis(index="main", columns="aux").stack() for name, table in found.affinities.items()}
    DataFrame(flat).to_csv(out / "affinities.csv")
    return "\n\n".join(parts)


def _or_reason(what: str, make: Callable[[], Table]) -> str:
    try:
        return make().markdown()
    except UserError as error:
        return f"Not known, {what}: {error}."


def singles(single: DataFrame) -> Table:
    """Each task alone."""
    rows = [
        [task, own["metric"].iloc[0], mean_sd(100 * own["score"]), f"{own['rows'].iloc[0]:,}"]
        for task, own in single.groupby("task", sort=False)
    ]
    note = f"Mean and standard deviation over {single['seed'].nunique()} seeds. Gains are changes of these."
    return Table("Each task alone", ["task", "metric", "score", "validation rows"], rows, note=note)


def matrix(gain: DataFrame, unit: Unit) -> Table:
    """The gains, with half the width of their intervals; bold where these leave zero out."""
    tasks = list(dict.fromkeys(gain.index.get_level_values("main")))
    half = (gain["high"] - gain["low"]) / 2
    texts = {pair: f"{mean:+.1f}" + (f" ± {half[pair]:.1f}" if np.isfinite(half[pair]) else "")
             for pair, mean in gain["gain"].items()}  # fmt: skip
    rows = [[main, *(texts.get((main, aux), "") for aux in tasks)] for main in tasks]
    bold = {(tasks.index(main), tasks.index(aux) + 1) for main, aux in gain.index[_sure(gain)]}
    note = (
        f"Rows are main tasks, columns auxiliary ones; {int((gain['gain'] > 0).sum())} of {len(gain)} are gains. "
        f"95 % intervals over {gain['seeds'].iloc[0]} seeds, each for itself: of as many pairs without any effect "
        f"{0.05 * len(gain):.0f} would be bold."
    )
    return Table(f"Gain over single-task, {SIGNS[unit]}", ["main", *tasks], rows, frozenset(bold), note)


def predictions(x: DataFrame, gain: Series) -> Table:
    """Accuracy and F1 of the predictor beside those without features."""
    ways = {
        "shuffled folds": [shuffled_folds(len(gain), seed) for seed in range(SHUFFLES)],
        "unseen main task": [main_task_folds(x)],
    }
    found: dict[str, list[str]] = {}
    for some in ways.values():
        featureless = [trivial(gain, folds) for folds in some]
        accuracies = {"features": [cross_validated(x, gain, folds) for folds in some]}
        accuracies |= {name: [one[name] for one in featureless] for name in featureless[0]}
        for name, each in accuracies.items():
            mean = np.mean([(one.accuracy, one.f1) for one in each], axis=0)
            found.setdefault(name, []).append(f"{mean[0]:.3f} / {mean[1]:.3f}")
    rows = [[name, *cells] for name, cells in found.items()]
    note = "Accuracy / F1 of the sign of a gain. `features`: logistic regression; the others know no feature."
    return Table("Who gains, predicted", ["predictor", *ways], rows, note=note)


def cost_table(costs: DataFrame) -> Table:
    """What each kind of work took, over all seeds."""
    rows = [[work, shown(one["flops"], ",.2f", 1e-12), f"{one['seconds']:,.0f}"] for work, one in costs.iterrows()]
    return Table("Cost, all seeds", ["", "TFLOP", "s"], rows)


@DRAWN
def heat_map(gains: DataFrame, label: str = "relative gain over single-task, %") -> Figure:
    """A row a main task, a column an auxiliary task, of `relations.gains.gains` (Bingel & Søgaard 2017, figure 1).

    Blue gains, orange loses; bold where the interval over seeds leaves zero out, which one seed never shows.
    """
    tasks = list(dict.fromkeys(gains.index.get_level_values("main")))
    matrix = gains["gain"].unstack().reindex(index=tasks, columns=tasks)
    full = float(gains["gain"].abs().quantile(_FULL)) or 1.0
    figure = Figure(figsize=(CELL * len(tasks) + 1.6, CELL * len(tasks) + 0.8), layout="constrained")
    axes = figure.subplots()
    colors = LinearSegmentedColormap.from_list("loss to gain", ["#D55E00", "#FFFFFF", "#0072B2"])
    image = axes.imshow(matrix.to_numpy(dtype=float), cmap=colors, vmin=-full, vmax=full)
    for ((main, aux), gain), sure in zip(gains["gain"].items(), _sure(gains)):
        axes.text(
            tasks.index(aux), tasks.index(main), f"{gain:+.1f}", ha="center", va="center", fontsize=8,
            fontweight="bold" if sure else "normal", color="white" if gain > 0.6 * full else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="auxiliary task", ylabel="main task")
    bar = figure.colorbar(image, ax=axes, extend="both", shrink=0.8, label=label)
    bar.outline.set_visible(False)
    return figure


def _sure(gain: DataFrame) -> Series:
    """Where the interval leaves zero out."""
    return (gain["low"] > 0) | (gain["high"] < 0)
