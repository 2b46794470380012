"""The heat map of gains between tasks (Bingel & Søgaard 2017, figure 1). Loads matplotlib."""

from __future__ import annotations

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from pandas import DataFrame

from fastmtl.reporting.plots import DRAWN

CELL = 0.52
"""Inches, both ways."""
_COLORS = LinearSegmentedColormap.from_list("loss to gain", ["#D55E00", "#FFFFFF", "#0072B2"])
_FULL = 0.9
"""Quantile of the sizes from which on the colour is full: one large gain does not pale the others."""


@DRAWN
def heat_map(gains: DataFrame, label: str = "relative gain over single-task, %") -> Figure:
    """A row a main task, a column an auxiliary task, of a table of `relations.gains.gains`.

    Blue gains, orange loses; bold where the interval over seeds leaves zero out, which one seed never shows.
    """
    tasks = list(dict.fromkeys(gains.index.get_level_values("main")))
    matrix = gains["gain"].unstack().reindex(index=tasks, columns=tasks)
    full = float(gains["gain"].abs().quantile(_FULL)) or 1.0
    figure = Figure(figsize=(CELL * len(tasks) + 1.6, CELL * len(tasks) + 0.8), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix.to_numpy(dtype=float), cmap=_COLORS, vmin=-full, vmax=full)
    for (main, aux), one in gains.iterrows():
        sure = one["low"] > 0 or one["high"] < 0
        axes.text(
            tasks.index(aux), tasks.index(main), f"{one['gain']:+.1f}", ha="center", va="center",
            fontsize=8, fontweight="bold" if sure else "normal", color="white" if one["gain"] > 0.6 * full else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="auxiliary task", ylabel="main task")
    bar = figure.colorbar(image, ax=axes, extend="both", shrink=0.8)
    bar.set_label(label)
    bar.outline.set_visible(False)
    return figure
