"""Run a study and write its tables: `python study.py NAME [--scale smoke|cpu|full] [--glue FOLDER]`.

NAME is a folder beside this file. Its study.yaml lists, for each scale, sweeps: axes and their values. scales.yaml has
what all studies of a scale share, the study's own `base` what its sweeps share. Every sweep is one `fastmtl -m`, so a
study that was stopped goes on where it was, and two studies share the cells that they have in common.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from fastmtl.cli.main import main as command
from fastmtl.errors import UserError
from fastmtl.reporting import report
from fastmtl.reporting.frame import BASELINES

HERE = Path(__file__).resolve().parent


def names() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("*/study.yaml"))


def sweeps(name: str, scale: str, glue: Path | None) -> list[list[str]]:
    """The overrides of each sweep."""
    if name not in names():
        raise UserError(f"study {name!r} is unknown; choose from {', '.join(names())}")
    shared = yaml.safe_load((HERE / "scales.yaml").read_text())
    if scale not in shared:
        raise UserError(f"SCALE={scale!r} is unknown; choose from {', '.join(shared)}")
    base = [one.replace("=GLUE", f"={glue}") for one in shared[scale]]
    if glue is None and base != shared[scale]:
        raise UserError(f"SCALE={scale} reads GLUE from files; pass GLUE=FOLDER with <task>/<split>.parquet in it")
    told = load(name)
    return [
        [
            *base,
            *told.get("base", {}).get(scale, []),
            *sweep.get("base", []),
            *(f"{axis}={_values(values)}" for axis, values in sweep.items() if axis != "base"),
        ]
        for sweep in told[scale]
    ]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((HERE / name / "study.yaml").read_text())


def main(name: str, scale: str, glue: Path | None, output: Path) -> None:
    """Run the cells that are missing; write the report to the study's folder, for `smoke` to the output."""
    study = f"{name}-{scale}"
    failed = False
    for overrides in sweeps(name, scale, glue):
        own = ["hydra.callbacks.comparison.report=false", f"study={study}", f"paths.output={output}"]
        failed |= bool(fastmtl("-m", *own, *overrides))
    out = output / "reports" / study if scale == "smoke" else HERE / name / scale
    told, results = load(name), report.read(output / "studies" / study)
    more = {}
    if "more" in told:  # a module beside study.yaml, which makes a part of the report
        module = import_module(f"{name}.{told['more']}")
        more = {told["more"]: module.part(results, scale == "smoke")}
    print(report.write(results, out, study, told.get("references", BASELINES), more))
    if failed:
        sys.exit(f"some cells failed; `make` the target again to repeat them alone; the report is in {out}")


def fastmtl(*arguments: str) -> int:
    """`fastmtl ARGUMENTS` in this process; its exit code."""
    try:
        return command(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def _values(values: Any) -> str:
    return ",".join(map(str, values)) if isinstance(values, list) else str(values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help=", ".join(names()))
    parser.add_argument("--scale", default="smoke")
    parser.add_argument("--glue", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    given = parser.parse_args()
    try:
        main(given.name, given.scale, given.glue, given.output)
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
