"""Train a matrix of gains: `python gains.py glue|tagging [--scale smoke|cpu|full] [--glue FOLDER]`.

gains.yaml has what is trained. A matrix that was stopped goes on where it was; the result is written to this folder, of
`smoke` to the output.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fastmtl.cli.main import main as command
from fastmtl.data import tagging
from fastmtl.errors import UserError
from fastmtl.relations.features import pair_table
from fastmtl.relations.predictor import Folds, featureless, held_out, main_task_folds, shuffled_folds
from fastmtl.reporting.table import Table

HERE = Path(__file__).resolve().parent
PLANS = yaml.safe_load((HERE / "gains.yaml").read_text())


def overrides(name: str, scale: str, glue: Path | None) -> list[str]:
    """Of `fastmtl relations`."""
    if scale not in PLANS[name]:
        raise UserError(f"SCALE={scale!r} is unknown for {name}; choose from {', '.join(PLANS[name])}")
    given = PLANS[name][scale]
    if glue is None and any("=GLUE" in one for one in given):
        raise UserError(f"SCALE={scale} reads GLUE from files; pass GLUE=FOLDER with <task>/<split>.parquet in it")
    return [one.replace("=GLUE", f"={glue}") for one in given]


def as_built(out: Path) -> Table:
    """How often held-out pairs are told as the generated suite was built; what is learned from are the gains."""
    gain = pd.read_csv(out / "gains.csv", index_col=["main", "aux"])["gain"]
    features = pd.read_csv(out / "features.csv", index_col="task").to_dict("index")
    x = pair_table(features, gain.index)
    helps_P = np.array([tagging.is_helpful(main, aux) for main, aux in gain.index])
    rows = [["the gains that were measured", f"{np.mean((gain > 0) == helps_P):.3f}", ""]]
    ways = [[shuffled_folds(len(x), seed) for seed in range(20)], [main_task_folds(x)]]
    right = [pd.DataFrame([_right(x, gain, helps_P, folds) for folds in some]).mean() for some in ways]
    rows += [[name, *(f"{means[name]:.3f}" for means in right)] for name in right[0].index]
    note = f"{helps_P.sum()} of {len(helps_P)} pairs are built to help."
    return Table("Right about what was built", ["", "shuffled folds", "unseen main task"], rows, note=note)


def _right(x: pd.DataFrame, gain: pd.Series, helps_P: np.ndarray, folds: Folds) -> dict[str, float]:
    """The share of held-out pairs told as built, by the predictor and without features."""
    said = {"features": held_out(x, gain, folds), **featureless(gain, folds)}
    built = np.concatenate([helps_P[out] for _, out in folds])
    return {name: float(np.mean(np.concatenate(parts) == built)) for name, parts in said.items()}


def main(name: str, scale: str, glue: Path | None, seeds: int, output: Path) -> None:
    """Train what is missing and write the result."""
    out = output / "reports" / f"{name}-gains" if scale == "smoke" else HERE / name
    arguments = [name, *overrides(name, scale, glue), f"paths.output={output}", "--seeds", str(seeds), "--points"]
    command(["relations", *arguments, "--out", str(out)])
    if name == "tagging":
        told = as_built(out).markdown()
        with open(out / "results.md", "a") as file:
            file.write(f"\n{told}\n")
        print(f"\n{told}")


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
