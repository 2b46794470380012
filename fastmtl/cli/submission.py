"""`python -m fastmtl.cli.submission`: the zip that the GLUE server scores, from cells that are trained or found."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fastmtl.cli.compose import compose
from fastmtl.cli.messages import in_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; errors that a user can mend are one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m fastmtl.cli.submission",
        description="Write the zip that the GLUE server scores, from cells that are trained or found.",
        epilog="python -m fastmtl.cli.submission --tasks rte,mrpc data=glue encoder=minilm budget=4000",
    )
    parser.add_argument("--tasks", default="", help="as rte,mrpc; without it all GLUE tasks of the data")
    parser.add_argument("--out", type=Path, default=Path("submission.zip"), help="the zip (%(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out files that cannot be made")
    parser.add_argument("overrides", nargs="*", help="of the cells, as for fastmtl: data=glue seed=0 budget=500")
    given = parser.parse_intermixed_args(arguments)
    with in_one_line("fastmtl"):
        from fastmtl.pipelines.submission import FILES, write_submission
        from fastmtl.tasks import GLUE

        tasks = given.tasks.split(",") if given.tasks else []
        tasks = tasks or [task.name for task in compose(*given.overrides).tasks if task.name in GLUE]
        cells = {task: compose(*given.overrides, f"primary={task}") for task in tasks}
        missing = write_submission(cells, given.out, given.allow_missing)
        print(f"written to {given.out}")
        if missing:
            print(f"not in it, and the server asks for all {len(FILES)} files:")
            print("\n".join(f"  {name}.tsv: {why}" for name, why in missing.items()))


if __name__ == "__main__":
    main()
