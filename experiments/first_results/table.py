"""Tables of a finished sweep: `python table.py SWEEP_FOLDER` writes results.md and results.json beside this file."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from scipy.stats import bootstrap
from tabulate import tabulate

from fastmtl.config import read_cells
from fastmtl.reporting.study import comparison

STAGES = ("proxy", "scores", "selection", "multitask", "finetune")
KEPT = ("primary", "selection", "budget", "seed", "id", "encoder", "protocol", "pool", "metrics", "best_epoch")


def main(sweep: Path, out: Path) -> None:
    cells = read_cells(sweep)
    seeds = sorted({cell["seed"] for cell in cells})
    by_arm = {
        arm: {c["seed"]: c for c in cells if c["selection"] == arm}
        for arm in dict.fromkeys(c["selection"] for c in cells)
    }
    parts = [comparison(cells), "## Paired differences", differences(by_arm, seeds), "## Every cell", every_cell(cells)]
    (out / "results.md").write_text("\n\n".join(parts) + "\n")
    slim = [
        {**{key: cell[key] for key in KEPT}, "counts": cell["counts"], "stages": [_plain(s) for s in cell["stages"]]}
        for cell in cells
    ]
    (out / "results.json").write_text(json.dumps(slim, indent=1) + "\n")


def _plain(stage: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key not in ("path", "hit")}


def differences(by_arm: dict[str, dict[int, dict[str, Any]]], seeds: list[int]) -> str:
    """Mean difference over seeds of each pair of arms, and a 95 % interval over validation rows.

    A row's value is the mean over seeds of (right under one arm) - (right under the other); rows are resampled (BCa,
    10,000 draws). With two seeds the spread between seeds is not in the interval: it is shown beside it.
    """
    rows = []
    for first, second in (("random", "none"), ("feature_similarity", "none"), ("feature_similarity", "random")):
        per_seed = np.array([right(by_arm[first][s]) - right(by_arm[second][s]) for s in seeds])
        interval = bootstrap(
            (per_seed.mean(0),), np.mean, n_resamples=10_000, rng=np.random.default_rng(0)
        ).confidence_interval
        each = ", ".join(f"{100 * value:+.1f}" for value in per_seed.mean(1))
        rows.append(
            [
                f"{first} - {second}",
                f"{100 * per_seed.mean():+.1f}",
                each,
                f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]",
            ]
        )
    return tabulate(
        rows, ["arms", "accuracy x100", f"seeds {seeds}", "95 % over rows"], tablefmt="github", disable_numparse=True
    )


def right(cell: dict[str, Any]) -> np.ndarray:
    """(n,) 1.0 where the cell's validation prediction is the label."""
    folder = next(stage["path"] for stage in cell["stages"] if stage["stage"] == "finetune")
    table = pyarrow.parquet.read_table(Path(folder) / "validation.parquet").to_pydict()
    return np.array([a == b for a, b in zip(table["label"], table["prediction"], strict=True)], dtype=float)


def every_cell(cells: list[dict[str, Any]]) -> str:
    rows = []
    for cell in cells:
        found = {stage["stage"]: stage for stage in cell["stages"]}
        spent = sum(found[s]["wall_s"] for s in STAGES if s in found)
        rows.append([
            cell["selection"], cell["seed"], f"{100 * cell['headline']:.1f}", cell["best_epoch"] + 1, f"{spent:.0f}",
            *(f"`{found[s]['key']}` {found[s]['wall_s']:.0f} s" if s in found else "" for s in STAGES),
        ])  # fmt: skip
    mean = statistics.mean(cell["headline"] for cell in cells)
    table = tabulate(
        rows,
        ["selection", "seed", "accuracy x100", "epoch", "total s", *STAGES],
        tablefmt="github",
        disable_numparse=True,
    )
    return f"{table}\n\nMean over all cells: {100 * mean:.1f}."


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
