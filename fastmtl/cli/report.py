"""`fastmtl-report STUDY`: the page, tables and figures of a study."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from fastmtl.cli.compose import compose
from fastmtl.cli.messages import in_one_line
from fastmtl.errors import UserError
from fastmtl.reporting.frame import BASELINES, Result
from fastmtl.reporting.report import FILTERS, read, write
from fastmtl.reporting.table import Part


def projected(results: Sequence[Result], rows_per_task: int) -> dict[str, Part]:
    """So many rows of each task as the proxy of the first cell that has one sees them, without and with discriminator.

    The former trains a second proxy.
    """
    from fastmtl.pipelines.relations import TaskRelations
    from fastmtl.reporting import projection

    scored = [one for one in results if one["command"] and any(stage["stage"] == "proxy" for stage in one["stages"])]
    if not scored:
        raise UserError("no cell has a proxy to show; add selection=feature_similarity, or leave --projection out")
    exp = compose(*shlex.split(scored[0]["command"])[1:])
    made = projection.projections(TaskRelations(exp), rows_per_task)
    tables = [projection.table(made, name) for name in dict.fromkeys(one["primary"] for one in results)]
    return {"proxy": Part("What the proxy sees", tables=tables, pictures=projection.pictures(made, exp.primary))}


def main() -> None:
    """Entry point of `fastmtl-report`."""
    parser = argparse.ArgumentParser(prog="fastmtl-report", description="The page, tables and figures of a study.")
    parser.add_argument("study", help="the name that cells were given with study=NAME, or a folder of their results")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="paths.output of the cells")
    parser.add_argument("--projection", type=int, default=0, metavar="ROWS", help="t-SNE of so many rows of each task")
    parser.add_argument("--out", type=Path, help="where to write; OUTPUT/reports/STUDY unless given")
    parser.add_argument("--reference", action="append", help=f"selection to compare with, repeatable; {BASELINES}")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help=f"only cells with it, repeatable; {FILTERS}"
    )
    given = parser.parse_args()
    folder = Path(given.study) if os.sep in given.study else given.output / "studies" / given.study
    with in_one_line("fastmtl-report"):
        results = read(folder, given.where)
        out = given.out or given.output / "reports" / folder.name
        more = projected(results, given.projection) if given.projection else {}
        print(write(results, out, folder.name, given.reference or BASELINES, more))


if __name__ == "__main__":
    main()
