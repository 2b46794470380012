"""Figures of a study, each on a figure object of matplotlib: no window, no state of pyplot.

`cells` is the frame of one setting (`reporting.frame`), `compared` its paired differences (`reporting.compare`), and
`looks` the marks of all arms of a page, so that an arm looks the same in every figure. Scores are x100; their
intervals are 95 % t intervals over seeds, those of differences are in `compared`. Import this module where a figure is
made, not before: it loads matplotlib.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isnan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from pandas import DataFrame, isna

from fastmtl.reporting.compare import BOTH
from fastmtl.reporting.figures import COLORS, STYLE, beside_ends
from fastmtl.reporting.frame import candidates
from fastmtl.reporting.points import (
    Looks,
    Point,
    between,
    by_arm,
    difference,
    name_of,
    number,
    paired,
    points_of,
    row_names,
)
from fastmtl.reporting.tables import STAGES, UNCOUNTED
from fastmtl.stats import pareto as undominated


@dataclass(frozen=True)
class Picture:
    """A figure with the `name` of its file, its `title`, and in `alt` the numbers that it shows."""

    name: str
    title: str
    alt: str
    figure: Figure


DRAWN = style.context(["default", {
    **STYLE,
    "font.sans-serif": ["DejaVu Sans"],  # one name instead of a dozen in every text of the SVG
    "text.parse_math": False,  # a task's name with two dollars is a name
    "savefig.bbox": "tight",  # names outside the axes take the room they need
    "savefig.dpi": 150,
    "legend.frameon": False,
    "legend.fontsize": 8,
}])  # fmt: skip
"""Around whatever makes or saves a figure; also a decorator."""

WIDTH, HEIGHT, LINE = 3.6, 2.5, 0.15
"""Inches: of an axes; from a line of text to the next."""

_GREY = "#555555"


def pictures(cells: DataFrame, compared: DataFrame, looks: Looks | None = None) -> list[Picture]:
    """All figures that the cells of a setting allow."""
    points, made = points_of(cells, looks), []  # the first picture stands beside the answer

    def add(name: str, title: str, captions: Iterable[tuple[str, str]], figure: Figure) -> None:
        made.append(Picture(name, title, "; ".join(f"{of}: {numbers}" for of, numbers in captions), figure))

    if cells["budget"].notna().any():
        captions = [(p.name, f"{p.mean:.1f}{between(*p.interval)}") for p in points]
        add("budget_curves", "Score against budget", captions, budget_curves(cells, looks))
    captions = [(p.name, f"{p.mean:.1f} for {number(p.teraflops)} TFLOP") for p in points]
    add("pareto", "Score against total compute", captions, pareto(cells, looks))
    if cells["budget"].nunique() < 2:
        made.reverse()
    for reference in (arm for arm in cells["arm"].unique() if arm in set(compared["reference"])):
        rows = compared[compared["reference"] == reference].itertuples()
        captions = [(name_of(row.arm, row.budget), difference(row)) for row in rows]
        name = f"differences_{re.sub(r'[^a-zA-Z0-9]+', '_', reference)}"
        add(name, f"Difference to {reference}", captions, differences(cells, compared, reference, looks))
    if (cells["aux_rows"] > 0).any():
        captions = [
            (p.name, ", ".join(f"{task} {count:,.0f}" for task, count in p.counts("rows/").items() if count))
            for p in points if p.mean_of("aux_rows")
        ]  # fmt: skip
        add("composition", "Auxiliary rows by task", captions, composition(cells, looks))
    captions = [(p.name, f"{number(p.teraflops)} TFLOP, {number(p.mean_of('total_wall_s'))} seconds") for p in points]
    add("costs", "Cost by stage", captions, costs(cells, looks))
    return made


@DRAWN
def budget_curves(cells: DataFrame, looks: Looks | None = None) -> Figure:
    """Score against the number of auxiliary rows (log), a line an arm; arms without a budget are bands."""
    points = points_of(cells, looks)
    lines = by_arm(p for p in points if p.budget is not None)
    names = {p.arm: textwrap.fill(p.arm, 20) for p in points}
    gap = LINE * max(name.count("\n") + 1 for name in names.values())
    axes = _axes(WIDTH, max(HEIGHT, gap * len(names)))
    ends = []
    sizes = sorted({p.rows for line in lines for p in line})
    edge = (max(sizes) / min(sizes)) ** 0.06 if len(sizes) > 1 else 1.3
    for i, line in enumerate(lines):
        apart = edge ** (1.4 * (i - (len(lines) - 1) / 2) / len(lines))  # bars at one budget stand side by side
        x = np.array([apart * p.rows for p in line])
        axes.plot(x, [p.mean for p in line], color=line[0].look.color, linestyle=line[0].look.line, linewidth=1.4)
        for at, p in zip(x, line):
            _marks(axes, p, at)
        ends.append((line[-1], x[-1]))
    axes.set(xscale="log", xlim=(min(sizes) / edge**1.5, max(sizes) * edge**1.5), ylim=_limits(points))
    for p in points:
        if p.budget is None:
            if not isnan(p.interval[0]):
                axes.axhspan(*p.interval, color=p.look.color, alpha=0.08, linewidth=0)
            axes.axhline(p.mean, color=p.look.color, linestyle=p.look.line, linewidth=1.2)
            ends.append((p, axes.get_xlim()[1]))
    ends.sort(key=lambda end: end[0].mean)
    heights = beside_ends(axes, [(x, p.mean) for p, x in ends], gap, [p.look.color for p, _ in ends])
    for (p, _), y in zip(ends, heights):
        right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
        if p.budget is not None:
            axes.plot(1.05, y, p.look.marker, color=p.look.color, markersize=4.5, **right)
        axes.text(1.09, y, names[p.arm], va="center", linespacing=1.0, **right)
    kept: list[float] = []  # ticks: the budgets, but for those too close to the one before
    for size in sizes:
        if not kept or np.log(size / kept[-1]) > 0.1 * np.log(sizes[-1] / sizes[0]):
            kept.append(size)
    axes.set_xticks(kept, [f"{size:,.0f}" for size in kept])
    axes.set_xticks([], minor=True)
    bands = ";\nbands: arms without a budget" if any(p.budget is None for p in points) else ""
    axes.set(xlabel=f"auxiliary rows{_legend(points)}{bands}", ylabel=_score(cells))
    return _figure(axes)


@DRAWN
def pareto(cells: DataFrame, looks: Looks | None = None) -> Figure:
    """Score against all FLOPs that a cell needs, selection and trials included (log); dashed: the frontier."""
    points = points_of(cells, looks)
    axes = _axes(WIDTH, HEIGHT)
    for line in by_arm(points):
        axes.plot([p.teraflops for p in line], [p.mean for p in line], color=line[0].look.color, linewidth=0.6)
    for p in points:
        _marks(axes, p, p.teraflops)
    cost, score = np.array([p.teraflops for p in points]), np.array([p.mean for p in points])
    best = np.flatnonzero(undominated(cost, score))
    best = best[np.argsort(cost[best], kind="stable")]
    x, y = [*cost[best], 1.15 * cost.max()], [*score[best], score[best[-1]]]
    axes.plot(x, y, drawstyle="steps-post", color=_GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set(xscale="log", xlim=(cost.min() / 1.15, x[-1]), ylim=_limits(points))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_locator(NullLocator())
    along = "; along a line: budgets" if any(p.budget is not None for p in points) else ""
    axes.set_xlabel(f"total TFLOP, selection and all trials included{_legend(points)}\ndashed: the frontier{along}")
    axes.set_ylabel(_score(cells))
    ranked = sorted(by_arm(points), key=lambda line: -max(p.mean for p in line))  # from above, as the marks are
    marks = [Line2D([], [], color=line[0].look.color, marker=line[0].look.marker, linestyle="") for line in ranked]
    axes.legend(marks, [textwrap.fill(line[0].arm, 30) for line in ranked], loc="upper left", bbox_to_anchor=(1, 1))
    return _figure(axes)


@DRAWN
def composition(cells: DataFrame, looks: Looks | None = None) -> Figure:
    """Share of each task among an arm's auxiliary rows, mean over seeds, and among the candidates."""
    points = [p for p in points_of(cells, looks) if p.mean_of("aux_rows")]
    there = candidates(cells)
    counted = [*(p.counts("rows/") for p in points), *([there] if there else [])]
    tasks = list(dict.fromkeys(task for counts in counted for task in counts))
    count_TR = np.array([[counts.get(task, 0) for counts in counted] for task in tasks])
    total_R = count_TR.sum(axis=0)
    (axes,) = _rows([*row_names(points), *(["(candidates)"] if there else [])], 1)
    drawn = _stack(axes, tasks, 100 * count_TR / total_R, [f"{total:,.0f}" for total in total_R])
    _key(axes, drawn)
    axes.set(xlim=(0, 100), xlabel="% of the auxiliary rows, mean over seeds; right: how many")
    return _figure(axes)


@DRAWN
def costs(cells: DataFrame, looks: Looks | None = None) -> Figure:
    """TFLOP and seconds of every stage that counts, mean over seeds."""
    points = points_of(cells, looks)
    stages = [stage for stage in STAGES if stage not in UNCOUNTED and f"flops/{stage}" in cells]
    panels = _rows(row_names(points), 2)
    for axes, prefix, scale, unit in zip(panels, ("flops/", "wall_s/"), (1e-12, 1.0), ("TFLOP", "seconds")):
        cost_SR = np.array([[scale * p.mean_of(prefix + stage) for p in points] for stage in stages])
        total_R = cost_SR.sum(axis=0)
        drawn = _stack(axes, [STAGES[stage] for stage in stages], cost_SR, [number(total) for total in total_R])
        axes.set(xlim=(0, total_R.max() or 1), xlabel=f"{unit}, as first computed")
    _key(panels[0], drawn)
    return _figure(panels[0])


@DRAWN
def differences(cells: DataFrame, compared: DataFrame, reference: str, looks: Looks | None = None) -> Figure:
    """Paired differences of all arms to the reference: mean and interval, a dot a seed; filled: significant."""
    drawn = {(p.arm, p.budget): p for p in points_of(cells, looks)}
    rows = [
        (drawn[row.arm, None if isna(row.budget) else row.budget], row)
        for row in compared[compared["reference"] == reference].itertuples()
    ]
    (axes,) = _rows(row_names([p for p, _ in rows]), 1)
    seen = [0.0]
    for y, (p, row) in enumerate(rows):
        axes.text(1.02, y, difference(row), transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=8)
        seeds = paired(p, cells[cells["arm"] == reference])
        if not len(seeds):
            continue
        low, high, reach = 100 * row.low, 100 * row.high, max(seeds) - min(seeds)
        seen += [*seeds, max(low, min(seeds) - reach), min(high, max(seeds) + reach)]
        axes.plot(seeds, np.full(len(seeds), y + 0.28), ".", color=p.look.color, alpha=0.5, markersize=4)
        axes.plot((low, high), (y, y), color=p.look.color, linewidth=1.6, solid_capstyle="butt")
        face = p.look.color if row.significant else "white"
        axes.plot(100 * row.mean, y, p.look.marker, color=p.look.color, markerfacecolor=face, markersize=6)
    axes.axvline(0, color=_GREY, linewidth=0.8, linestyle="--", zorder=0)
    seen = [x for x in seen if np.isfinite(x)]
    margin = 0.05 * (max(seen) - min(seen)) or 1.0
    axes.set_xlim(min(seen) - margin, max(seen) + margin)
    covered = "seeds and validation rows" if (compared["covers"] == BOTH).any() else "seeds"
    bars = f"dots: seeds; bar: 95 % over {covered}\nfilled and *: significant after Holm's correction"
    said = bars if any(row.n > 1 for _, row in rows) else "dots: the one common seed, so no interval and no test"
    axes.set_xlabel(f"{_score(cells)}: difference to {reference}, paired by seed\n{said}")
    return _figure(axes)


@DRAWN
def save(figure: Figure, path: Path) -> None:
    """In the format that the file's name says (.svg, .pdf, .png); equal figures, equal files."""
    dated = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix)
    figure.savefig(path, metadata={dated: None} if dated else None)


def _axes(width: float, height: float) -> Axes:
    """Axes of this size in inches; what is written around them widens the saved figure."""
    axes = Figure((width, height)).add_axes((0, 0, 1, 1))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def _rows(names: Sequence[str], panels: int) -> list[Axes]:
    """Panels side by side with a named row for each, from above."""
    broken = [textwrap.fill(name, 30) for name in names]
    row = 0.1 + LINE * max(name.count("\n") + 1 for name in broken)
    width, gap = (WIDTH, 0.0) if panels == 1 else (WIDTH / 2, 0.5)
    figure = Figure((panels * (width + gap), row * len(names)))
    for i in range(panels):
        axes = figure.add_axes((i / panels, 0, width / (width + gap) / panels, 1))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), broken if i == 0 else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
    return figure.axes


def _stack(axes: Axes, parts: Sequence[str], value_PR: np.ndarray, ends: Sequence[str]) -> dict[str, Any]:
    """A bar a row, of one piece a part, named inside where there is room, `ends` behind; the pieces by part."""
    left_R = np.zeros(value_PR.shape[1])
    width = axes.get_position().width * _figure(axes).get_figwidth()
    total = value_PR.sum(axis=0).max() or 1
    drawn = {}
    for i, (part, value_R) in enumerate(zip(parts, value_PR)):
        if not value_R.any():  # its colour stays its own in the figures of other settings
            continue
        # A tint that black letters are read on; every second is lighter, so that neighbours differ in grey print.
        fill = tuple(1 - (1 - c) * (0.4 if i % 2 else 0.7) for c in to_rgb(COLORS[1:][i % (len(COLORS) - 1)]))
        drawn[part] = bars = axes.barh(
            range(len(value_R)), value_R, left=left_R, height=0.7, color=fill, edgecolor="white", linewidth=0.8,
            hatch="////" if i >= len(COLORS) - 1 else None,
        )  # fmt: skip
        roomy_R = value_R / total * width > 0.075 * len(part) + 0.1
        axes.bar_label(bars, [part * bool(roomy) for roomy in roomy_R], label_type="center", fontsize=7.5)
        left_R = left_R + value_R
    for bars in list(drawn.values())[-1:]:
        axes.bar_label(bars, ends, padding=3, fontsize=8)
    return drawn


def _marks(axes: Axes, point: Point, x: float) -> None:
    """Mean, interval, and a faint dot a seed."""
    look = point.look
    axes.plot(np.full(len(point.scores), x), point.scores, ".", color=look.color, alpha=0.35, markersize=3)
    axes.plot((x, x), point.interval, color=look.color, linewidth=1, alpha=0.8)
    edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}
    axes.plot(x, point.mean, look.marker, color=look.color, markersize=5.5, **edge)


def _limits(points: Sequence[Point]) -> tuple[float, float]:
    """All seeds, and the intervals as far as they do not press the seeds into a line, as those of two seeds would."""
    scores = np.concatenate([p.scores for p in points])
    low, high, reach = scores.min(), scores.max(), 0.6 * np.ptp(scores) or 1.0
    ends = [*scores, *(end for p in points for end in p.interval)]
    return max(np.nanmin(ends), low - reach) - 0.1 * reach, min(np.nanmax(ends), high + reach) + 0.1 * reach


def _key(axes: Axes, drawn: Mapping[str, Any]) -> None:
    """A legend above the axes, five inches wide."""
    lines = ceil(len(drawn) / max(1, int(5 / (0.08 * max(map(len, drawn)) + 0.5))))
    where: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3, "columnspacing": 1.2}
    axes.legend(list(drawn.values()), list(drawn), ncols=ceil(len(drawn) / lines), handletextpad=0.4, **where)


def _score(cells: DataFrame) -> str:
    return "{primary} {metric} x100".format(**cells.iloc[0])


def _legend(points: Sequence[Point]) -> str:
    """How the marks are read."""
    seeds = sorted({len(p.scores) for p in points})
    if seeds[-1] == 1:
        return "\none seed: no intervals"
    return f"\nsmall dots: seeds; bars: 95 % over {'–'.join(map(str, seeds[:: max(1, len(seeds) - 1)]))} seeds"
