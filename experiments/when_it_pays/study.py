"""When does selecting pay? `python study.py --glue FOLDER`; without a folder, on generated rows, which shows nothing.

arms.yaml says what runs. The work is cut into parts, a primary, a seed and a share each, seeds outermost; several
processes with the same `--output` share them, and a study that was stopped goes on where it was. `--headroom` runs the
primaries' own learning curves, `--report` alone writes what has finished.
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
from fastmtl.data.sources.pile import ARCHIVE
from fastmtl.errors import UserError
from fastmtl.reporting.result import summarize
from fastmtl.store import WEIGHTS, write_json

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import report  # noqa: E402
import smoke  # noqa: E402

Plan = Mapping[str, Any]
"""What arms.yaml holds."""


@dataclass(frozen=True)
class Part:
    """Cells that run together: arm -> overrides, all of them on one pile."""

    name: str
    pile: Sequence[str]
    arms: Mapping[str, Sequence[str]]

    def run(self, base: Sequence[str], output: Path) -> None:
        """Write the part's results, unless they are there or another process is at it."""
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
        return {"arm": arm, **result}


def pile(primary: str, unrelated: Sequence[str], share: float, seed: int, plan: Plan, rows: int) -> list[str]:
    """Overrides: all training rows are drawn anew for each seed."""
    return [
        "data=pile", f"data.primary={primary}", f"data.source.unrelated=[{','.join(unrelated)}]",
        f"data.source.share={share}", f"data.source.size={plan['size']}", f"data.source.rows={rows}",
        f"data.source.seed={seed}", f"seed={seed}",
    ]  # fmt: skip


def parts(plan: Plan) -> Iterator[Part]:
    """The study, seeds outermost."""
    for seed, (primary, unrelated) in itertools.product(range(plan["seeds"]), plan["primaries"].items()):
        for share in sorted(plan["shares"], reverse=True):
            arms = {
                f"{selection} {budget}": [f"selection={selection}", f"budget={budget}"]
                for selection in ("random", report.CHOSEN) for budget in plan["budgets"]
            }  # fmt: skip
            if share == max(plan["shares"]):
                arms |= references(plan)
            yield Part(f"{primary}-{share}-{seed}", pile(primary, unrelated, share, seed, plan, plan["rows"]), arms)


def references(plan: Plan) -> dict[str, list[str]]:
    """Arms that are the same at all shares: without auxiliary rows, and with as many related ones as a share has."""
    counts = {min(budget, round(share * plan["size"])) for budget in plan["budgets"] for share in plan["shares"]}
    return {
        "none": ["selection=none", *plan["none"]],
        "primary_only": ["selection=primary_only"],
        **{f"oracle {n}": ["selection=hand_picked", f"selection.selector.tasks=[{ARCHIVE}]", f"budget={n}"]
           for n in sorted(counts)},
    }  # fmt: skip


def headroom(plan: Plan) -> Iterator[Part]:
    """Each primary's own learning curve, and the most related rows that the study ever gives it."""
    told, most = plan["headroom"], f"oracle {max(plan['budgets'])}"
    for seed, (primary, unrelated) in itertools.product(range(told["seeds"]), told["primaries"].items()):
        for rows in told["rows"]:
            arms = {f"alone {rows}": ["selection=none", *told["alone"]]}
            if rows == plan["rows"]:
                arms |= {name: references(plan)[name] for name in ("primary_only", most)}
            yield Part(f"headroom-{primary}-{rows}-{seed}", pile(primary, unrelated, 1.0, seed, plan, rows), arms)


def read_plan(scale: str, primary: str | None) -> dict[str, Any]:
    """arms.yaml, with what its scale `smoke` changes if asked for, and one primary alone if named."""
    plan = yaml.safe_load((HERE / "arms.yaml").read_text())
    plan |= plan.pop("smoke") if scale == "smoke" else {}
    if primary is not None:
        if primary not in plan["primaries"]:
            raise UserError(f"--primary {primary!r} is not studied; choose from {', '.join(plan['primaries'])}")
        plan["primaries"] = {primary: plan["primaries"][primary]}
    return plan


def main(glue: Path | None, output: Path, artifacts: Path, asked: str = "study", primary: str | None = None) -> None:
    """Run what is missing of the study or of the headroom, or nothing, and report what there is."""
    plan = read_plan("smoke" if glue is None else "glue", primary)
    root = glue or smoke.write(output / "glue")
    base = [*plan["base"], f"data.root={root}", f"paths.artifacts={artifacts}"]
    todo = {"study": parts, "headroom": headroom, "report": lambda _: ()}
    for part in todo[asked](plan):
        part.run(base, output)
    print(report.write(report.results(output, plan), HERE if glue else output / "report"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glue", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs/when_it_pays"))
    parser.add_argument("--artifacts", type=Path, default=Path("outputs/artifacts"))
    parser.add_argument("--primary", help="one alone")
    parser.add_argument("--headroom", action="store_const", const="headroom", default="study", dest="asked")
    parser.add_argument("--report", action="store_const", const="report", dest="asked")
    given = parser.parse_args()
    try:
        main(given.glue, given.output, given.artifacts, given.asked, given.primary)
    except UserError as error:
        sys.exit(f"fastmtl: {error}")
