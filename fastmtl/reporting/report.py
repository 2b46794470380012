"""The report of a study, a section for each setting: a page; its tables as Markdown, LaTeX and CSV; its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastmtl.errors import UserError
from fastmtl.reporting import tables
from fastmtl.reporting.beliefs import Bandit
from fastmtl.reporting.compare import check_comparable, comparisons
from fastmtl.reporting.compute import matched, reaching
from fastmtl.reporting.frame import BASELINES, SETTING, Result, frame, read_results, settings
from fastmtl.reporting.recommend import recommendation
from fastmtl.reporting.row_noise import row_noise
from fastmtl.reporting.table import Part, Table

if TYPE_CHECKING:
    from pandas import DataFrame

FILTERS = (*SETTING, "id", "selection")

VERSIONS = ("fastmtl", "torch", "pytorch-lightning", "transformers", "scipy", "statsmodels")


@dataclass(frozen=True, kw_only=True)
class Section(Part):
    """What is said of the cells of one setting; `compared` has one row a pair of arms (see `comparisons`)."""

    name: str
    cells: DataFrame
    compared: DataFrame


def sections(cells: DataFrame, references: Sequence[str] = BASELINES) -> list[Section]:
    """One section a setting, in the order of the frame."""
    settled = []
    for setting, group in settings(cells):
        by_rows = row_noise(group)
        compared = comparisons(group, references, by_rows)
        same, reached = matched(group, by_rows), reaching(group, by_rows)
        made = [
            tables.scores(group, compared), tables.differences(compared[compared["n"] > 1]),
            tables.matched(same if same["n"].any() else same[:0]), tables.reaching(group, reached),
            tables.composition(group), tables.costs(group, reached), tables.choices(group),
        ]  # fmt: skip
        title = (
            f"{setting['primary']}: {setting['metric']} on {group['validation_rows'].iloc[0]} validation rows "
            f"({setting['encoder']}, protocol {setting['protocol']}, pool {setting['pool'][:8]})"
        )
        several = (cells["primary"] == setting["primary"]).sum() > len(group) and group["primary_rows"].notna().all()
        name = f"{setting['primary']}_{group['primary_rows'].iloc[0]:.0f}" if several else setting["primary"]
        sentences = [recommendation(group, compared, by_rows, same), *tables.audits(group), *tables.warnings(group),
                     *tables.coverage(group, compared)]  # fmt: skip
        shown = [table for table in made if table.rows]
        settled.append(Section(title, sentences, shown, name=name, cells=group, compared=compared))
    return settled


def comparison(results: Iterable[Result]) -> str:
    """All sections as Markdown that also reads well in a terminal."""
    return "\n\n".join(one.markdown() for one in sections(frame(results)))


def cell_tables(result: Result, bandit: Bandit | None = None, mixing: dict[str, Any] | None = None) -> list[Table]:
    """A cell's stages; before them, with the `bandit.json` and `mixing.json` of its artifacts, how its tasks and its
    ratio came about."""
    found = [tables.tasks(result, bandit)] if bandit else []
    return [*found, *([tables.trials(result, mixing)] if mixing else []), tables.stages(result)]


def write(
    results: Sequence[Result], out: Path, title: str, references: Sequence[str] = BASELINES,
    more: Mapping[str, Part] = MappingProxyType({}), first: Mapping[str, Part] = MappingProxyType({}),
) -> str:  # fmt: skip
    """All files of a report: report.html, report.md, tables.tex, cells.csv, and tables and figures one by one.

    Returns what a terminal should show. `references` are the selections that arms are compared with; parts `first` and
    `more` stand before and after the others, their files named by their keys. A `UserError` if there are no cells or if
    they are not comparable.
    """
    from fastmtl.reporting.page import write_page
    from fastmtl.reporting.plots import pictures, save
    from fastmtl.reporting.points import arm_looks

    cells = frame(results)
    check_comparable(cells)
    looks = arm_looks(cells["arm"])
    settled = [replace(one, pictures=pictures(one.cells, one.compared, looks)) for one in sections(cells, references)]
    answers = [one.sentences[0] for one in settled]
    parts = dict(first) | ({"all": Part("In short", answers, _across(settled))} if len(settled) > 1 else {})
    parts |= {one.name: one for one in settled} | dict(more)  # one a primary, since they are comparable
    for folder in ("figures", "tables"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    linked = []
    for name, part in parts.items():
        linked.append(part.markdown(f"figures/{name}_"))
        for picture in part.pictures:
            save(picture.figure, out / "figures" / f"{name}_{picture.name}.svg")
        for table in part.tables:
            (out / "tables" / f"{name}_{_slug(table.title)}.csv").write_text(table.csv())
    commands = [command for command in dict.fromkeys(cells["command"]) if command]  # cells of notebooks have none
    write_page(out / "report.html", title, list(parts.values()), commands, {n: version(n) for n in VERSIONS})
    (out / "tables.tex").write_text("\n\n".join(t.latex() for part in parts.values() for t in part.tables) + "\n")
    (out / "report.md").write_text("\n\n".join(linked) + "\n")
    cells.drop(columns=["utilities", "mixing", "audit", "leakage", "environment", "finetune", "primary_draw"]).to_csv(
        out / "cells.csv", index=False
    )
    return "\n\n".join([*(part.markdown() for part in parts.values()), f"written to {out / 'report.html'}"])


def read(folder: Path, where: Iterable[str] = ()) -> list[Result]:
    """The cells in a folder that pass all filters, KEY=VALUE over `FILTERS`: the value or its beginning."""
    results = read_results(folder)
    for one in where:
        key, _, value = one.partition("=")
        if key not in FILTERS:
            raise UserError(f"--where {one!r}: {key!r} is unknown; use one of {', '.join(FILTERS)}")
        results = [result for result in results if str(result[key]).startswith(value)]
    if not results:
        raise UserError(f"no cell of study {folder.name!r} has {' '.join(where)}; leave the filter out to see all")
    return results


def _across(settled: Sequence[Section]) -> list[Table]:
    """Tables over all primaries, and all sizes of one."""
    names = [f"{one.name} ({one.cells['metric'].iloc[0]})" for one in settled]
    cells, compared = [one.cells for one in settled], [one.compared for one in settled]
    primaries = [list(some) for _, some in groupby(settled, key=lambda one: one.cells["primary"].iloc[0])]
    sized = [
        tables.by_size([one.cells for one in some], [one.compared for one in some])
        for some in primaries if len(some) > 1
    ]  # fmt: skip
    return [tables.overview(names, cells, compared), *sized]


def _slug(title: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in title.partition(":")[0].lower()).split())
