"""The W&B pages of a study, built by code: a workspace for each setting's arms, one for its cells, and a report.

`python experiments/dashboard.py --study NAME --entity ENTITY` saves them to the project to which the study's runs
were sent. What there is to show is read off the study's result files, so a panel names only what the runs have logged.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from requests import RequestException
from wandb.errors import Error as WandbError

from fastmtl.errors import UserError
from fastmtl.reporting.figures import COLORS
from fastmtl.reporting.frame import Result, differing, frame, read_results
from fastmtl.reporting.logs import BELIEFS, TABLES, curves, scalars, setting
from fastmtl.store import write_json

MEAN: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
"""Of the runs of one group: the bar or line, and the range about it."""


@dataclass(frozen=True)
class View:
    """Panels over the runs of one setting; `by` groups them (none: each cell for itself), `colors` are of cells."""

    title: str
    text: str
    setting: str
    by: tuple[str, ...]
    colors: dict[str, str]
    sections: dict[str, list[Any]]


def views(results: Sequence[Result]) -> Iterator[View]:
    """Two for each setting: its arms and budgets as means over seeds, and its cells, which share seeds."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[setting(result)].append(result)
    for name, cells in groups.items():
        one = cells[0]
        title = f"{one['primary']} ({one['encoder']}, protocol {one['protocol']}, pool {one['pool'][:8]})"
        by = ("selection.name", *_options(cells), "budget")
        text = f"Mean and standard deviation over seeds, by {', '.join(by)}; the score is {one['metric']}."
        yield View(f"{title}: arms", text, name, by, {}, _arms(cells))
        text = f"Cell by cell, coloured by arm; the score is {one['metric']}. Arms of one seed share held-out rows and "
        yield View(f"{title}: cells", f"{text}initial weights: compare them.", name, (), _colors(cells), _cells(cells))


def workspace(entity: str, project: str, study: str, view: View) -> ws.Workspace:
    """One view as a saved view of the project's workspace."""
    sections = [ws.Section(name=name, panels=panels, is_open=True) for name, panels in view.sections.items()]
    return ws.Workspace(
        entity=entity, project=project, name=f"{study}: {view.title}", sections=sections,
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=_shown(study, view),
            groupby=[ws.Config(key) for key in view.by],
            order=[ws.Ordering(ws.Summary("score"), ascending=False)],
            run_settings={run: ws.RunSettings(color=color) for run, color in view.colors.items()},
            pinned_columns=[f"summary:{name}" for name in ("score", "aux_rows", "total_flops", "total_wall_s")],
        ),
    )  # fmt: skip


def report(entity: str, project: str, study: str, results: Sequence[Result]) -> wr.Report:
    """All views one below the other, with the commands that made the cells."""
    blocks: list[Any] = [wr.TableOfContents()]
    for view in views(results):
        blocks += [wr.H1(view.title), wr.P(view.text)]
        runs = wr.Runset(  # of the report's own project
            name=study,
            filters=_shown(study, view),
            groupby=[f"config.{key}" for key in view.by],
            order=[wr.OrderBy(wr.SummaryMetric("score"), ascending=False)],
            run_settings={run: wr.RunSettings(color=color) for run, color in view.colors.items()},
        )
        for name, panels in view.sections.items():
            for panel in panels:  # two abreast, tables over the whole width; the grid moves what would overlap
                panel.layout = wr.Layout(w=24 if isinstance(panel, wr.WeavePanelSummaryTable) else 12, h=8)
            blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    commands = "\n".join(result["command"] for result in results if result["command"])
    blocks += [wr.H1("Commands"), wr.MarkdownBlock(f"```\n{commands}\n```")]
    return wr.Report(entity=entity, project=project, title=f"{study}: selectors compared", blocks=blocks, width="fluid")


def pages(entity: str, project: str, study: str, results: Sequence[Result]) -> list[ws.Workspace | wr.Report]:
    """All there is of a study."""
    made = [workspace(entity, project, study, view) for view in views(results)]
    return [*made, report(entity, project, study, results)]


def specification(built: Sequence[ws.Workspace | wr.Report]) -> list[dict[str, Any]]:
    """What `save` sends of each page, as plain values."""
    return [page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True) for page in built]


def _shown(study: str, view: View) -> Any:
    """Which runs are in a view."""
    return ws.And(ws.Metric("Group") == study, ws.Config("setting") == view.setting)


def _arms(cells: Sequence[Result]) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for cell in cells for name in scalars(cell)))
    drawn = dict.fromkeys((stage, name) for cell in cells for stage, _, values in curves(cell) for name in values)
    kinds: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for stage, name in drawn:  # losses of all tasks in one plot; the metrics that choose an epoch have different units
        _, kind, metric = name.split("/", 2)
        kinds[stage, metric if kind == "choose" else kind].append(name)
    score = [_bars("score", ["score"]), _scatter("score against compute", "total_flops", log_x=True)]
    score += [_bars("share of truly relevant rows", ["precision_at_budget"])] * ("precision_at_budget" in names)
    of = {group: [name for name in names if name.startswith(f"{group}/")] for group in ("rows", "flops", "wall_s")}
    panels: dict[str, list[Any]] = {
        "Score by arm and budget": score,
        "Auxiliary rows by task": [_bars("rows", of["rows"])],
        "Cost by stage": [_bars("FLOPs", of["flops"]), _bars("seconds", of["wall_s"])],
        "Learning curves": [
            wr.LinePlot(title=f"{stage}: {kind}", x=f"{stage}/step", y=y, **MEAN) for (stage, kind), y in kinds.items()
        ],
    }
    return {title: drawn for title, drawn in panels.items() if drawn}


def _cells(cells: Sequence[Result]) -> dict[str, list[Any]]:
    columns: list[Any] = [*map(wr.Config, ("selection.name", "budget", "seed")), wr.SummaryMetric("score")]
    chosen: list[Any] = [wr.WeavePanelSummaryTable(table_name=key) for key in TABLES.values()]
    if any(cell["utilities"] for cell in cells):
        chosen.append(wr.MediaBrowser(title="the bandit's beliefs", media_keys=[BELIEFS]))
    return {
        "Pairs by seed": [
            _scatter("score by seed", wr.Config("seed")),
            wr.ParallelCoordinatesPlot(columns=[wr.ParallelCoordinatesPlotColumn(metric=c) for c in columns]),
        ],
        "Compute": [_scatter("score against compute", "total_flops", log_x=True)],
        "Rows at the top and the bottom of each selection": chosen,
    }


def _bars(title: str, metrics: list[Any]) -> wr.BarPlot:
    return wr.BarPlot(title=title, metrics=metrics, max_runs_to_show=100, max_bars_to_show=100, **MEAN)


def _scatter(title: str, x: Any, **more: Any) -> wr.ScatterPlot:
    return wr.ScatterPlot(title=title, x=x, y=wr.SummaryMetric("score"), **more)


def _colors(cells: Sequence[Result]) -> dict[str, str]:
    made = frame(cells)
    return {run: COLORS[i % len(COLORS)] for run, i in zip(made["id"], made["arm"].factorize()[0])}


def _options(cells: Sequence[Result]) -> list[str]:
    """Dotted keys of the configuration that tell cells of one selection apart, as in the arms of `frame`."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for cell in cells:
        groups[cell["selection"]].append(cell)
    told = [(name, value) for group in groups.values() for one in differing(group) for name, value in one.items()]
    # An option that is a class, or that a cell does without, is a group of the configuration.
    groups_of = {name for name, value in told if value == "none" or value.rpartition(".")[2][:1].isupper()}
    return list(dict.fromkeys(f"{name}._target_" if name in groups_of else name for name, _ in told))


def main(args: Sequence[str] | None = None) -> None:
    """Save workspaces and report, or with `--dry-run` write their specification as JSON."""
    parser = argparse.ArgumentParser("python experiments/dashboard.py", description="W&B pages of a study")
    parser.add_argument("--study", required=True, help="as in study=NAME")
    parser.add_argument("--project", default="fastmtl", help="of W&B, where the study's runs are")
    parser.add_argument("--entity", default="", help="user or team of W&B; without it, your default")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="paths.output of the study's runs")
    parser.add_argument("--dry-run", action="store_true", help="write OUTPUT/dashboards/STUDY.json, send nothing")
    told = parser.parse_args(args)
    results = read_results(told.output / "studies" / told.study)
    if told.dry_run:
        path = told.output / "dashboards" / f"{told.study}.json"
        write_json(path, specification(pages(told.entity, told.project, told.study, results)))
        print(f"written to {path}")
        return
    try:
        entity = told.entity or wandb.Api().default_entity or ""
        for page in pages(entity, told.project, told.study, results):
            page.save()  # it prints the address
    except (WandbError, RequestException) as error:
        raise UserError(f"W&B: {str(error).splitlines()[0]} (--dry-run writes the pages to a file)") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
