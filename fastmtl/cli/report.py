"""`fastmtl-report STUDY`: the page, tables and figures of a study."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fastmtl.cli.messages import in_one_line
from fastmtl.reporting.frame import BASELINES
from fastmtl.reporting.report import FILTERS, read, write


def main() -> None:
    """Entry point of `fastmtl-report`."""
    parser = argparse.ArgumentParser(prog="fastmtl-report", description="The page, tables and figures of a study.")
    parser.add_argument("study", help="the name that cells were given with study=NAME, or a folder of their results")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="paths.output of the cells")
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
        print(write(results, out, folder.name, given.reference or BASELINES))
