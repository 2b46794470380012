"""Train a matrix of gains: `python gains.py glue|tagging [--scale smoke|cpu|full] [--glue FOLDER]`.

gains.yaml has what is trained. A matrix that was stopped goes on where it was; the result is written to this folder, of
`smoke` to the output.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from fastmtl import pairs
from fastmtl.errors import UserError

HERE = Path(__file__).resolve().parent
PLANS = yaml.safe_load((HERE / "gains.yaml").read_text())


def overrides(name: str, scale: str, glue: Path | None) -> list[str]:
    """Of `fastmtl-relations`."""
    if scale not in PLANS[name]:
        raise UserError(f"SCALE={scale!r} is unknown for {name}; choose from {', '.join(PLANS[name])}")
    given = PLANS[name][scale]
    if glue is None and any("=GLUE" in one for one in given):
        raise UserError(f"SCALE={scale} reads GLUE from files; pass GLUE=FOLDER with <task>/<split>.parquet in it")
    return [one.replace("=GLUE", f"={glue}") for one in given]


def main(name: str, scale: str, glue: Path | None, seeds: int, output: Path) -> None:
    """Train what is missing and write the result."""
    out = output / "reports" / f"{name}-gains" if scale == "smoke" else HERE / name
    arguments = [name, *overrides(name, scale, glue), f"paths.output={output}", "--seeds", str(seeds), "--points"]
    argv, sys.argv = sys.argv, ["fastmtl-relations", *arguments, "--out", str(out)]
    try:
        pairs.main()
    finally:
        sys.argv = argv


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(PLANS))
    parser.add_argument("--scale", default="smoke")
    parser.add_argument("--glue", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    given = parser.parse_args()
    try:
        main(given.name, given.scale, given.glue, given.seeds, given.output)
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
