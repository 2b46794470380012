"""Figures of a cell, drawn on figure objects of matplotlib: no window, no state of pyplot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.reporting.beliefs import Bandit, Belief, beliefs

if TYPE_CHECKING:  # who prints a table does not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLORS = (
    "#000000", "#0072B2", "#D55E00", "#009E73", "#AA4499", "#B07F00", "#3D9FD6", "#882255", "#8A8A1F", "#7F7F7F",
)  # fmt: skip
"""Told apart with any colour vision (after Okabe & Ito and Tol) and dark enough for text; the primary's is black."""

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text stays text: a small file whose names can be searched
    "svg.hashsalt": "fastmtl",  # without it ids are random
}

WIDTH, CURVES, ROW, BESIDES = 6.0, 2.4, 0.2, 1.8
"""Inches: of a panel, of the curves' height, of a task's row, and of what is written above and below."""
SLANT = 40
"""Degrees by which names above the curves are turned, so that they need little width."""

_DASHED: dict[str, Any] = {"color": "#555555", "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 0}


def draw_bandit(bandit: Bandit, chosen: Collection[str] = (), threshold: float | None = 0.5) -> Figure:
    """`posteriors` and `rounds` side by side; `plots.save` writes it."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        size = 2 * WIDTH, CURVES + ROW * len(bandit["arms"]) + BESIDES
        figure = Figure(size, layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False)[0]
        posteriors(bandit, left, chosen, threshold)
        rounds(bandit, right, threshold)
        return figure


def posteriors(
    bandit: Bandit, figure: Figure | SubFigure, chosen: Collection[str] = (), threshold: float | None = 0.5
) -> None:
    """Every task's Beta posterior of its utility at the end (Guo et al. 2019, figure 3).

    Above, the densities, each named at its peak; below, best first, mean and 95 % interval. The primary and the
    `chosen` tasks are filled; `threshold` is the utility above which tasks are chosen, None without one. Room for the
    names is made by the figure's constrained layout.
    """
    posteriors = beliefs(bandit)
    upper, lower = _panels(figure, posteriors, "Belief in each task's utility at the end")
    utility = np.linspace(0, 1, 401)
    top = max(one.peak for one in posteriors)
    for row, i in enumerate(_best_first(posteriors)):
        one, color = posteriors[i], _color(i)
        density = np.minimum(one.density(utility), top)
        upper.plot(utility, density, **_line(i))
        filled = i == 0 or one.task in chosen
        if filled:
            upper.fill_between(utility, density, color=color, alpha=0.08, linewidth=0)
        lower.plot(one.interval(), (row, row), color=color, linewidth=1.6, solid_capstyle="butt")
        lower.plot(one.utility, row, "o", color=color, markersize=5, markerfacecolor=color if filled else "white")
        lower.text(1.01, row, f"{one.utility:.2f}", va="center_baseline", color=color)
    upper.set(xlim=(0, 1), ylim=(0, 1.05 * top), ylabel="density")
    solid = " (filled: primary and chosen)" if chosen else ""
    dashed = "" if threshold is None else f"\ndashed: tasks above {threshold:g} are chosen"
    lower.set_xlabel(f"utility: mean reward of a round\nbar: 95 % interval; dot: mean{solid}{dashed}")
    for axes in (upper, lower):
        if threshold is not None:
            axes.axvline(threshold, **_DASHED)
    order = sorted(range(len(posteriors)), key=lambda i: (posteriors[i].mode, i))
    gap = 0.2 / _inches(upper)[0]
    for i, x in zip(order, spread([posteriors[i].mode for i in order], gap, 0, 1)):
        leader(upper, (posteriors[i].mode, posteriors[i].peak), (x, 1.05), ("data", "axes fraction"), _color(i))
        above = upper.text(x, 1.07, posteriors[i].task, va="center", rotation=SLANT, rotation_mode="anchor", **_text(i))
        above.set_transform(upper.get_xaxis_transform())


def rounds(bandit: Bandit, figure: Figure | SubFigure, threshold: float | None = 0.5) -> None:
    """Every task's utility after each round, from when it is first played on; below, which task was played.

    Between two episodes of the model stands a grey line.
    """
    from matplotlib.ticker import MaxNLocator

    posteriors, history = beliefs(bandit), bandit["rounds"]
    upper, lower = _panels(figure, posteriors, "Utility after each round, and the task played")
    belief_R2K = np.array([[one["alpha"], one["beta"]] for one in history])
    utility_RK = belief_R2K[:, 0] / belief_R2K.sum(axis=1)
    number = np.arange(1, len(history) + 1)
    for row, i in enumerate(_best_first(posteriors)):
        mine = [(r, one["reward"]) for r, one in zip(number, history) if one["arm"] == posteriors[i].task]
        first = max(mine[0][0] - 2, 0) if mine else len(number)  # the round before, which has the prior
        upper.plot(number[first:], utility_RK[first:, i], **_line(i))
        reach = [None if reward is None else 0.8 * (reward - 0.5) for _, reward in mine]
        up = np.array([0.1 if r is None else max(r, 0.0) for r in reach])
        down = np.array([0.1 if r is None else max(-r, 0.0) for r in reach])
        lower.vlines([r for r, _ in mine], row - up, row + down, color=_color(i), linewidth=1.2)
        lower.axhline(row, color=_color(i), linewidth=0.4, alpha=0.5)
    back = [r + 0.5 for r, one in zip(number, history) if one.get("back") and r < len(history)]
    for axes in (upper, lower):
        for r in back:
            axes.axvline(r, color="#BBBBBB", linewidth=0.5, zorder=0)
    low, high = max(0, utility_RK.min() - 0.05), min(1, utility_RK.max() + 0.05)
    upper.set(xlim=(0, len(history) + 1), ylim=(low, high), ylabel="utility")
    if threshold is not None:
        upper.axhline(threshold, **_DASHED)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    lower.set_xlabel(
        "round\nmark upwards: reward above one half; downwards: below\n"
        + ("grey: back to the end of the warm-up" if back else "(the first has nothing to compare with)")
    )
    order = sorted(range(len(posteriors)), key=lambda i: (posteriors[i].utility, -i))
    ends = [(len(history), posteriors[i].utility) for i in order]
    for i, y in zip(order, beside_ends(upper, ends, 0.16, [_color(i) for i in order])):
        upper.text(1.03, y, posteriors[i].task, transform=upper.get_yaxis_transform(), va="center", **_text(i))


def beside_ends(axes: Axes, ends: Sequence[tuple[float, float]], gap: float, colors: Sequence[str]) -> np.ndarray:
    """Heights of names right of the axes, `gap` inches apart, with a thin line to each end of a curve, from below."""
    low, high = axes.get_ylim()
    places = spread([y for _, y in ends], gap / _inches(axes)[1] * (high - low), low, high)
    for end, y, color in zip(ends, places, colors):
        leader(axes, end, (1.02, y), ("axes fraction", "data"), color)
    return places


def leader(axes: Axes, point: tuple[float, float], label: tuple[float, float], units: Any, color: str) -> None:
    """A thin line from a point of the data to a label's place, in its units."""
    arrow = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", point, label, textcoords=units, annotation_clip=False, arrowprops=arrow)


def spread(wanted: list[float], gap: float, low: float, high: float) -> np.ndarray:
    """Places (n,) in [low, high], at least `gap` apart and closest to the ascending wanted ones in squares."""
    from scipy.optimize import isotonic_regression

    steps = min(gap, (high - low) / max(1, len(wanted) - 1)) * np.arange(len(wanted))
    return np.clip(isotonic_regression(np.array(wanted) - steps).x, low, high - steps[-1]) + steps


def _panels(figure: Figure | SubFigure, posteriors: list[Belief], title: str) -> tuple[Axes, Axes]:
    """Axes for curves, and below them axes with a named row per task, the best first."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(CURVES, ROW * len(posteriors)))
    figure.suptitle(title, x=0.02, ha="left", fontsize=10)
    upper.locator_params(axis="y", nbins=6)
    order = _best_first(posteriors)
    lower.set_ylim(len(order) - 0.4, -0.6)
    lower.set_yticks(range(len(order)), [posteriors[i].task for i in order])
    for label, i in zip(lower.get_yticklabels(), order):
        label.set(**_text(i))
    lower.tick_params(axis="y", length=0)
    lower.spines["left"].set_visible(False)
    return upper, lower


def _inches(axes: Axes) -> tuple[float, float]:
    """Width and height, as the layout has them so far."""
    figure: Any = axes.get_figure(root=True)
    if figure.get_layout_engine():
        figure.draw_without_rendering()
    box = axes.get_window_extent()
    return box.width / figure.dpi, box.height / figure.dpi


def _best_first(posteriors: list[Belief]) -> list[int]:
    return sorted(range(len(posteriors)), key=lambda i: -posteriors[i].utility)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _text(i: int) -> dict[str, Any]:
    """How the i-th arm's name is written."""
    return {"color": _color(i), "fontweight": "bold" if i == 0 else "normal"}


def _line(i: int) -> dict[str, Any]:
    """How the i-th arm's curve is drawn: dashed where colours come again."""
    return {"color": _color(i), "linewidth": 2.0 if i == 0 else 1.4, "linestyle": "-" if i < len(COLORS) else "--"}
