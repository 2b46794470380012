"""Figures of a cell, drawn on figure objects of matplotlib: no window, no state of pyplot."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
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

# Sizes in inches.
WIDTH, CURVES, ROW, BELOW = 3.9, 2.4, 0.2, 0.75
"""Of a panel: width without names, heights of the curves, of a task's row, and of what is written below."""
SLANT = 40
"""Degrees by which names above the curves are turned, so that they need little width."""


def write_bandit(bandit: Bandit, path: Path, chosen: Collection[str] = (), threshold: float | None = 0.5) -> None:
    """`draw_bandit`, in the format that the file's name says; equal bandits, equal SVG."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        figure = draw_bandit(bandit, chosen, threshold)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_bandit(bandit: Bandit, chosen: Collection[str] = (), threshold: float | None = 0.5) -> Figure:
    """`posteriors` and `rounds` side by side."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure()
        left, right = figure.subfigures(1, 2, squeeze=False)[0]
        name = _longest(figure, bandit["arms"])
        height = _above(name) + CURVES + ROW * len(bandit["arms"]) + BELOW
        figure.set_size_inches(2 * (WIDTH + 2 * _beside(name)), height)
        posteriors(bandit, left, chosen, threshold)
        rounds(bandit, right, threshold)
        return figure


def posteriors(
    bandit: Bandit, figure: Figure | SubFigure, chosen: Collection[str] = (), threshold: float | None = 0.5
) -> None:
    """Every task's Beta posterior of its utility at the end (Guo et al. 2019, figure 3), on an empty (sub)figure.

    Above, the densities, each named at its peak; below, best first, mean and 95 % interval. The primary and the
    `chosen` tasks are filled; `threshold` is the utility above which tasks are chosen, None without one.
    """
    told = beliefs(bandit)
    upper, lower = _panels(figure, bandit["arms"], "Belief in each task's utility at the end")
    utility = np.linspace(0, 1, 401)
    top = max(_peak(one) for one in told)
    for i, one in enumerate(told):
        density = np.minimum(one.density(utility), top)
        upper.plot(utility, density, **_line(i))
        if i == 0 or one.task in chosen:
            upper.fill_between(utility, density, color=_color(i), alpha=0.08, linewidth=0)
    upper.set(xlim=(0, 1), ylim=(0, 1.05 * top), ylabel="density")
    order = _best_first(told)
    for row, i in enumerate(order):
        one, color = told[i], _color(i)
        face = color if i == 0 or one.task in chosen else "white"
        lower.plot(one.interval(), (row, row), color=color, linewidth=1.6, solid_capstyle="butt")
        lower.plot(one.utility, row, "o", color=color, markersize=5, markerfacecolor=face)
        lower.text(1.01, row, f"{one.utility:.2f}", va="center_baseline", color=color)
    _name_rows(lower, bandit["arms"], order)
    filled = " (filled: primary and chosen)" if chosen else ""
    dashed = "" if threshold is None else f"\ndashed: tasks above {threshold:g} are chosen"
    lower.set_xlabel(f"utility: mean reward of a round\nbar: 95 % interval; dot: mean{filled}{dashed}")
    for axes in (upper, lower):
        if threshold is not None:
            axes.axvline(threshold, **_DASHED)
    _name_peaks(upper, told)


def rounds(bandit: Bandit, figure: Figure | SubFigure, threshold: float | None = 0.5) -> None:
    """Every task's utility after each round, from when it is first played on; below, which task was played.

    Between two episodes of the model stands a grey line.
    """
    from matplotlib.ticker import MaxNLocator

    told, history = beliefs(bandit), bandit["rounds"]
    upper, lower = _panels(figure, bandit["arms"], "Utility after each round, and the task played")
    belief_R2K = np.array([[one["alpha"], one["beta"]] for one in history])
    utility_RK = belief_R2K[:, 0] / belief_R2K.sum(axis=1)
    number = np.arange(1, len(history) + 1)
    order = _best_first(told)
    for row, i in enumerate(order):
        mine = [(r, one["reward"]) for r, one in zip(number, history) if one["arm"] == told[i].task]
        first = max(mine[0][0] - 2, 0) if mine else len(number)  # the round before, which has the prior
        upper.plot(number[first:], utility_RK[first:, i], **_line(i))
        reach = [None if reward is None else 0.8 * (reward - 0.5) for _, reward in mine]
        up = [0.1 if r is None else max(r, 0.0) for r in reach]
        down = [0.1 if r is None else max(-r, 0.0) for r in reach]
        lower.vlines([r for r, _ in mine], row - np.array(up), row + np.array(down), color=_color(i), linewidth=1.2)
        lower.axhline(row, color=_color(i), linewidth=0.4, alpha=0.5)
    back = [r + 0.5 for r, one in zip(number, history) if one.get("back") and r < len(history)]
    for axes in (upper, lower):
        for r in back:
            axes.axvline(r, color="#BBBBBB", linewidth=0.5, zorder=0)
    low, high = utility_RK.min(), utility_RK.max()
    upper.set(xlim=(0, len(history) + 1), ylim=(max(0, low - 0.05), min(1, high + 0.05)), ylabel="utility")
    if threshold is not None:
        upper.axhline(threshold, **_DASHED)
    _name_rows(lower, bandit["arms"], order)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    lower.set_xlabel(
        "round\nmark upwards: reward above one half; downwards: below\n"
        + ("grey: back to the end of the warm-up" if back else "(the first has nothing to compare with)")
    )
    _name_ends(upper, told)


_DASHED: dict[str, Any] = {"color": "#555555", "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 0}


def _panels(figure: Figure | SubFigure, names: list[str], title: str) -> tuple[Axes, Axes]:
    """Axes for curves, and below them axes for a row a task, with room for the names."""
    width, height = _inches(figure)
    name = _longest(figure, names)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(CURVES, ROW * len(names)))
    beside = _beside(name) / width
    figure.subplots_adjust(
        left=beside, right=1 - beside, top=1 - _above(name) / height, bottom=BELOW / height, hspace=0.05
    )
    figure.suptitle(title, x=0.1 / width, y=1 - 0.1 / height, ha="left", va="top", fontsize=10)
    upper.locator_params(axis="y", nbins=6)
    return upper, lower


def _longest(figure: Figure | SubFigure, names: list[str]) -> float:
    """Width of the longest name, in inches; bold, since the primary's may be it."""
    texts = [figure.text(0, 0, name, fontweight="bold") for name in names]
    width = max(text.get_window_extent().width for text in texts) / figure.dpi
    for text in texts:
        text.remove()
    return width


def _beside(name: float) -> float:
    """Inches left and right of the axes for names of that length, and for the label of the curves' axis."""
    return max(name, 0.4) + 0.15


def _above(name: float) -> float:
    """Inches above the curves: title, and slanted names of that length."""
    return 0.55 + name * float(np.sin(np.radians(SLANT)))


def _name_rows(axes: Axes, names: list[str], order: list[int]) -> None:
    """One row a task, in this order from above."""
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_yticks(range(len(order)), [names[i] for i in order])
    for label, i in zip(axes.get_yticklabels(), order):
        label.set(**_text(i))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _name_peaks(axes: Axes, told: list[Belief]) -> None:
    """Slanted names above the axes, each with a thin line to the peak of its density."""
    order = sorted(range(len(told)), key=lambda i: (told[i].mode, i))
    gap = 0.2 / _inches(axes)[0]
    for i, place in zip(order, spread([told[i].mode for i in order], gap, 0, 1)):
        _leader(axes, i, (told[i].mode, _peak(told[i])), (place, 1.05), ("data", "axes fraction"))
        axes.text(
            place, 1.07, told[i].task, transform=axes.get_xaxis_transform(), rotation=SLANT, rotation_mode="anchor",
            va="center", **_text(i),
        )  # fmt: skip


def _name_ends(axes: Axes, told: list[Belief]) -> None:
    """Names right of the axes, each with a thin line to the end of its curve."""
    order = sorted(range(len(told)), key=lambda i: (told[i].utility, -i))
    (low, high), end = axes.get_ylim(), axes.get_xlim()[1] - 1
    gap = 0.16 / _inches(axes)[1] * (high - low)
    for i, place in zip(order, spread([told[i].utility for i in order], gap, low, high)):
        _leader(axes, i, (end, told[i].utility), (1.02, place), ("axes fraction", "data"))
        axes.text(1.03, place, told[i].task, transform=axes.get_yaxis_transform(), va="center", **_text(i))


def _leader(axes: Axes, i: int, point: tuple[float, float], label: tuple[float, float], units: Any) -> None:
    arrow = {"arrowstyle": "-", "color": _color(i), "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", point, label, textcoords=units, annotation_clip=False, arrowprops=arrow)


def spread(wanted: list[float], gap: float, low: float, high: float) -> np.ndarray:
    """Places (n,) in [low, high], at least `gap` apart and closest to the ascending wanted ones in squares."""
    from scipy.optimize import isotonic_regression

    steps = min(gap, (high - low) / max(1, len(wanted) - 1)) * np.arange(len(wanted))
    return np.clip(isotonic_regression(np.array(wanted) - steps).x, low, high - steps[-1]) + steps


def _inches(artist: Axes | Figure | SubFigure) -> tuple[float, float]:
    """Width and height."""
    box, figure = artist.get_window_extent(), artist.figure
    assert figure is not None
    return box.width / figure.dpi, box.height / figure.dpi


def _peak(one: Belief) -> float:
    """Height of the density at its mode, which may be infinite at an end; there, a little inside."""
    return float(one.density(np.clip(one.mode, 0.005, 0.995)))


def _best_first(told: list[Belief]) -> list[int]:
    return sorted(range(len(told)), key=lambda i: -told[i].utility)


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _text(i: int) -> dict[str, Any]:
    """How the i-th arm's name is written."""
    return {"color": _color(i), "fontweight": "bold" if i == 0 else "normal"}


def _line(i: int) -> dict[str, Any]:
    """How the i-th arm's curve is drawn: dashed where colours come again."""
    return {"color": _color(i), "linewidth": 2.0 if i == 0 else 1.4, "linestyle": "-" if i < len(COLORS) else "--"}
