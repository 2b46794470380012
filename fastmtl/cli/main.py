"""The entry point of `fastmtl`: a run or a sweep, whose arguments Hydra reads, or a verb with arguments of its own."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from fastmtl import __version__
from fastmtl.cli.verbs import OVERVIEW, VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its arguments are those of the process unless given. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    first, *rest = given or [""]
    if first in VERBS:
        from fastmtl.cli.messages import in_one_line

        with in_one_line(f"fastmtl {first}", logs=first != "predict"):  # whose output is a table
            return import_module(f"fastmtl.cli.{VERBS[first][0]}").main(rest) or 0
    if first == "--version":
        print(f"fastmtl {__version__}")
        return 0
    if {"-h", "--help"} & set(given):
        print(OVERVIEW)
        return 0
    if first and first[0] not in "-~" and "=" not in first:
        near = difflib.get_close_matches(first, VERBS, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "see fastmtl --help"
        print(f"fastmtl: {first!r} is neither a verb nor KEY=VALUE; {fix}", file=sys.stderr)
        return 2
    from fastmtl.cli.run import run

    argv, sys.argv = sys.argv, ["fastmtl", *given]  # where Hydra looks for them
    try:
        run()
    finally:
        sys.argv = argv
    return 0


if __name__ == "__main__":
    sys.exit(main())
