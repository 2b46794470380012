"""The report of a study, `fastmtl-report STUDY`: a page; its tables as Markdown, LaTeX and CSV; its figures as SVG."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fastmtl.errors import UserError
from fastmtl.reporting.compare import check_comparable
from fastmtl.reporting.frame import BASELINES, SETTING, Result, frame, read_results
from fastmtl.reporting.study import Section, across, sections

if TYPE_CHECKING:
    from fastmtl.reporting.page import Part

FILTERS = (*SETTING, "id", "selection")

VERSIONS = ("fastmtl", "torch", "pytorch-lightning", "transformers", "scipy", "statsmodels")


def write(
    folder: Path, out: Path, references: Sequence[str] | None = None, where: Iterable[str] = (),
    projections: Sequence[Part] = (),
) -> str:  # fmt: skip
    """Report on the cells in a folder; returns what a terminal should show.

    `references` are the selections that arms are compared with, `where` is KEY=VALUE over `FILTERS`: the value or its
    beginning. A `UserError` if there are no cells or if they are not comparable.
    """
    results = [result for result in read_results(folder) if _kept(result, where)]
    if not results:
        raise UserError(
            f"no cell of study {folder.name!r} has {' '.join(where)}; leave the filter out to see what there is"
        )
    check_comparable(frame(results))
    told = sections(results, references or BASELINES)
    write_sections(told, out, folder.name, projections)
    return f"{text(told)}\n\nwritten to {out / 'report.html'}"


def write_sections(told: Sequence[Section], out: Path, title: str, projections: Sequence[Part] = ()) -> None:
    """All files of a report: report.html, report.md, tables.tex, cells.csv, and figures and tables one by one."""
    import pandas as pd

    from fastmtl.reporting.page import Part, write_page
    from fastmtl.reporting.plots import arm_looks, pictures, save

    for part in ("figures", "tables"):
        (out / part).mkdir(parents=True, exist_ok=True)
    cells = pd.concat([section.cells for section in told], ignore_index=True)
    looks = arm_looks(cells["arm"])
    overall = across(told)
    tex = [table.latex() for table in overall]
    parts = [Part("All primaries", tables=overall)] if overall else []
    for table in overall:
        (out / "tables" / f"{_slug(table.title)}.csv").write_text(table.csv())
    for i, section in enumerate(told):
        drawn = pictures(section.cells, section.compared, looks)
        parts.append(Part(section.title, section.sentences, section.tables, drawn))
        name = section.name if [one.name for one in told].count(section.name) == 1 else f"{section.name}_{i}"
        for picture in drawn:
            save(picture.figure, out / "figures" / f"{name}_{picture.name}.svg")
        for table in section.tables:
            (out / "tables" / f"{name}_{_slug(table.title)}.csv").write_text(table.csv())
            tex.append(table.latex())
    commands = list(dict.fromkeys(cells["command"]))
    write_page(out / "report.html", title, [*parts, *projections], commands, (), {n: version(n) for n in VERSIONS})
    (out / "report.md").write_text(text(told) + "\n")
    (out / "tables.tex").write_text("\n\n".join(tex) + "\n")
    columns = [name for name in cells if name not in ("utilities", "mixing", "audit", "finetune")]
    cells[columns].to_csv(out / "cells.csv", index=False)


def text(told: Sequence[Section]) -> str:
    """Everything but the figures, as Markdown."""
    return "\n\n".join([*(table.markdown() for table in across(told)), *(section.markdown() for section in told)])


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


def main() -> None:
    """Entry point of `fastmtl-report`."""
    parser = argparse.ArgumentParser(prog="fastmtl-report", description=__doc__)
    parser.add_argument("study", help="the name that cells were given with study=NAME, or a folder of their results")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="paths.output of the cells")
    parser.add_argument("--out", type=Path, help="where to write; OUTPUT/reports/STUDY unless given")
    parser.add_argument("--reference", action="append", help=f"selection to compare with, repeatable; {BASELINES}")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help=f"only cells with it, repeatable; {FILTERS}"
    )
    given = parser.parse_args()
    folder = Path(given.study) if os.sep in given.study else given.output / "studies" / given.study
    try:
        print(write(folder, given.out or given.output / "reports" / folder.name, given.reference, given.where))
    except UserError as error:
        sys.exit(f"fastmtl-report: {error}")


if __name__ == "__main__":
    main()
