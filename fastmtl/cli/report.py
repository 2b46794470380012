"""`fastmtl report STUDY`: the page, tables and figures of a study."""

from __future__ import annotations

import os
from pathlib import Path

from fastmtl.cli.verbs import Arguments


def main(argv: list[str]) -> None:
    """`fastmtl report`."""
    parser = Arguments("report", "fastmtl report mine --where primary=rte")
    parser.add_argument("study", help="the name that cells were given with study=NAME, or a folder of their results")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="paths.output of the cells")
    parser.add_argument("--out", type=Path, help="where to write; OUTPUT/reports/STUDY unless given")
    compared, kept = "selection to compare with (default: none, primary_only, random, full)", "only cells with it"
    keys = "primary, metric, protocol, encoder, pool, id or selection"
    parser.add_argument("--reference", action="append", help=f"{compared}; repeatable")
    parser.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help=f"{kept}: {keys}; repeatable")
    given = parser.parse_args(argv)
    from fastmtl.reporting.report import BASELINES, read, write

    folder = Path(given.study) if os.sep in given.study else given.output / "studies" / given.study
    results = read(folder, given.where)
    out = given.out or given.output / "reports" / folder.name
    print(write(results, out, folder.name, given.reference or BASELINES))
