"""When does selecting pay? `python study.py --glue FOLDER`; `--headroom` for the primaries' own learning curves.

arms.yaml says what runs. The work is cut into parts, a primary, a seed and a share each, seeds outermost; several
processes with the same `--output` share them, and a study that was stopped goes on where it was. `--report` alone
writes the results of all seeds that have finished.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from fastmtl import compose
from fastmtl.errors import UserError
from fastmtl.reporting.result import summarize
from fastmtl.store import WEIGHTS, write_json

HERE = Path(__file__).resolve().parent

KEPT = (
    "id", "primary", "selection", "budget", "seed", "config", "encoder", "protocol", "metric", "headline", "metrics",
    "validation_rows", "best_epoch", "auxiliary_rows", "counts", "candidates", "audit", "leakage", "environment",
    "precision_at_budget", "relevant_share", "utilities", "mixing", "total", "stages",
)  # fmt: skip
"""What is kept of a result (see `summarize`)."""


@dataclass(frozen=True)
class Part:
    """Cells that run together: arm -> overrides, all of them on one pile."""

    name: str
    pile: Sequence[str]
    arms: Mapping[str, Sequence[str]]

    def run(self, base: Sequence[str], output: Path) -> None:
        """Write the part's results, unless they are there or another process is about to."""
        target = output / f"{self.name}.json"
        output.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(output / f".{self.name}.lock", timeout=0):
                if not target.exists():
                    write_json(target, [self._cell(name, [*base, *self.pile, *own]) for name, own in self.arms.items()])
                    print(f"{self.name}: done", flush=True)
        except Timeout:
            return

    def _cell(self, arm: str, overrides: Sequence[str]) -> dict[str, Any]:
        experiment = compose(*overrides)
        result = summarize(experiment)
        for artifact in experiment.artifacts("finetune"):  # predictions stay, for the rows' part of the intervals
            if artifact.kind in ("multitask", "finetune"):
                (artifact.path / WEIGHTS).unlink(missing_ok=True)
        return {"arm": arm, **{key: result[key] for key in KEPT}}


def pile(primary: str, unrelated: Sequence[str], share: float, seed: int, size: int, rows: int = 500) -> list[str]:
    """Overrides: all training rows are drawn anew for each seed."""
    return [
        "data=pile", f"data.primary={primary}", f"data.source.unrelated=[{','.join(unrelated)}]",
        f"data.source.share={share}", f"data.source.size={size}", f"data.source.rows={rows}",
        f"data.source.seed={seed}", f"seed={seed}",
    ]  # fmt: skip


def parts(plan: Mapping[str, Any]) -> Iterator[Part]:
    """The study, seeds outermost."""
    for seed, (primary, unrelated) in itertools.product(range(plan["seeds"]), plan["primaries"].items()):
        for share in sorted(plan["shares"], reverse=True):
            arms = {
                f"{selection} {budget}": [f"selection={selection}", f"budget={budget}"]
                for selection in ("random", "feature_similarity") for budget in plan["budgets"]
            }  # fmt: skip
            if share == max(plan["shares"]):
                arms |= references(plan)
            name = f"{primary}-{share}-{seed}"
            yield Part(name, pile(primary, unrelated, share, seed, plan["size"]), arms)


def references(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """Arms that are the same at all shares: without auxiliary rows, and with as many related ones as a share has."""
    counts = {min(budget, round(share * plan["size"])) for budget in plan["budgets"] for share in plan["shares"]}
    return {
        "none": ["selection=none", *plan["none"]],
        "primary_only": ["selection=primary_only"],
        **{f"oracle {n}": ["selection=hand_picked", "selection.selector.tasks=[archive]", f"budget={n}"]
           for n in sorted(counts)},
    }  # fmt: skip


def headroom(plan: Mapping[str, Any]) -> Iterator[Part]:
    """Each primary's own learning curve, and the most related rows that the study ever gives it."""
    told, most = plan["headroom"], max(plan["budgets"])
    for seed, (primary, unrelated) in itertools.product(range(told["seeds"]), told["primaries"].items()):
        for rows in told["rows"]:
            arms = {f"alone {rows}": ["selection=none", *plan["none"]]}
            if rows == min(told["rows"]):
                arms |= {"primary_only": ["selection=primary_only"]}
                arms |= {name: own for name, own in references(plan).items() if name == f"oracle {most}"}
            name = f"headroom-{primary}-{rows}-{seed}"
            yield Part(name, pile(primary, unrelated, 1.0, seed, plan["size"], rows), arms)


def main(glue: Path | None, output: Path, artifacts: Path, asked: str) -> None:
    plan = yaml.safe_load((HERE / "arms.yaml").read_text())
    if glue is None:
        raise UserError("the piles are made of GLUE's rows; pass --glue FOLDER with <task>/<split>.parquet in it")
    base = [*plan["base"], f"data.root={glue}", f"paths.artifacts={artifacts}"]
    for part in headroom(plan) if asked == "headroom" else parts(plan):
        part.run(base, output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs/when_it_pays"))
    parser.add_argument("--artifacts", type=Path, default=Path("outputs/artifacts"))
    parser.add_argument("--headroom", action="store_const", const="headroom", default="study", dest="asked")
    given = parser.parse_args()
    try:
        main(given.glue, given.output, given.artifacts, given.asked)
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
