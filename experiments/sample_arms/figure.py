"""`python figure.py SWEEP_FOLDER` writes results.md and figure.svg beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from fastmtl.cli.callback import read_cells
from fastmtl.reporting.report import comparison

COLORS = {
    "none": "#777777",
    "primary_only": "#8a3fa0",
    "random": "#d98b28",
    "feature_similarity": "#2a6fbb",
    "full": "#4b9b4b",
}
LABELS = {"primary_only": (-10, 22), "feature_similarity": (-30, -24)}
"""Arm -> points from its mean to its label, where the usual place is another arm's."""


def main(sweep: Path, out: Path) -> None:
    cells = read_cells(sweep)
    (out / "results.md").write_text(comparison(cells) + "\n")
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "fastmtl", "font.family": "sans-serif", "font.size": 11}
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for arm, color in COLORS.items():
        if not (mine := [cell for cell in cells if cell["selection"] == arm]):
            continue
        cost = [sum(s.get("flops") or 0 for s in cell["stages"]) / 1e12 for cell in mine]
        score = [100 * cell["headline"] for cell in mine]
        axis.scatter(cost, score, s=26, color=color, alpha=0.55, linewidths=0)
        mean = (sum(cost) / len(cost), sum(score) / len(score))
        axis.scatter(*mean, s=120, marker="_", linewidths=3, color=color)
        rows = round(sum(cell["auxiliary_rows"] for cell in mine) / len(mine))
        axis.annotate(f"{arm} ({rows} rows)", mean, LABELS.get(arm, (10, 3)), textcoords="offset points", color=color)
    axis.set_xlabel("total compute of the arm, selection included (TFLOP)")
    axis.set_ylabel(f"accuracy x100 on {cells[0]['validation_rows']} rows")
    axis.set_xlim(left=0, right=axis.get_xlim()[1] * 1.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out / "figure.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
