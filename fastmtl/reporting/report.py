"""The report of a study: a page; its tables as Markdown, LaTeX and CSV; its figures as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastmtl.errors import UserError
from fastmtl.reporting.compare import check_comparable
from fastmtl.reporting.frame import BASELINES, SETTING, Result, frame, read_results
from fastmtl.reporting.study import across, sections
from fastmtl.reporting.table import section

if TYPE_CHECKING:
    from fastmtl.reporting.page import Part

FILTERS = (*SETTING, "id", "selection")

VERSIONS = ("fastmtl", "torch", "pytorch-lightning", "transformers", "scipy", "statsmodels")


def write(
    results: Sequence[Result], out: Path, title: str, references: Sequence[str] = BASELINES,
    more: Mapping[str, Part] = MappingProxyType({}),
) -> str:  # fmt: skip
    """All files of a report: report.html, report.md, tables.tex, cells.csv, and tables and figures one by one.

    Returns what a terminal should show. `references` are the selections that arms are compared with; `more` parts come
    last, their files named by their keys. A `UserError` if there are no cells or if they are not comparable.
    """
    from fastmtl.reporting.page import Part, write_page
    from fastmtl.reporting.plots import pictures, save
    from fastmtl.reporting.points import arm_looks

    cells = frame(results)
    check_comparable(cells)
    told = sections(cells, references)
    looks = arm_looks(cells["arm"])
    parts = {"all": Part("All primaries", tables=overall)} if (overall := across(told)) else {}
    for one in told:  # one a primary, since they are comparable
        drawn = pictures(one.cells, one.compared, looks)
        parts[one.name] = Part(one.title, one.sentences, one.tables, drawn)
    parts |= more
    for folder in ("figures", "tables"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        for picture in part.pictures:
            save(picture.figure, out / "figures" / f"{name}_{picture.name}.svg")
        for table in part.tables:
            (out / "tables" / f"{name}_{_slug(table.title)}.csv").write_text(table.csv())
    commands = [command for command in dict.fromkeys(cells["command"]) if command]  # cells of notebooks have none
    write_page(out / "report.html", title, list(parts.values()), commands, {n: version(n) for n in VERSIONS})
    (out / "tables.tex").write_text("\n\n".join(t.latex() for part in parts.values() for t in part.tables) + "\n")
    (out / "report.md").write_text(text(parts, figures=True) + "\n")
    objects = ["utilities", "mixing", "audit", "finetune"]
    cells.drop(columns=objects).to_csv(out / "cells.csv", index=False)
    return f"{text(parts)}\n\nwritten to {out / 'report.html'}"


def read(folder: Path, where: Iterable[str] = ()) -> list[Result]:
    """The cells in a folder that pass all filters, KEY=VALUE over `FILTERS`: the value or its beginning."""
    results = [result for result in read_results(folder) if _kept(result, where)]
    if not results:
        raise UserError(f"no cell of study {folder.name!r} has {' '.join(where)}; leave the filter out to see all")
    return results


def text(parts: Mapping[str, Part], figures: bool = False) -> str:
    """Everything as Markdown, which also reads well in a terminal; figures as links to their files, where wanted."""
    told = []
    for name, part in parts.items():
        told.append(section(part.title, part.sentences, part.tables))
        if figures:
            told += [f"![{picture.title}](figures/{name}_{picture.name}.svg)" for picture in part.pictures]
    return "\n\n".join(told)


def _kept(result: Result, where: Iterable[str]) -> bool:
    for one in where:
        key, _, value = one.partition("=")
        if key not in FILTERS:
            raise UserError(f"--where {one!r}: {key!r} is unknown; use one of {', '.join(FILTERS)}")
        if not str(result[key]).startswith(value):
            return False
    return True


def _slug(title: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in title.partition(":")[0].lower()).split())
