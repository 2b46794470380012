"""`fastmtl verdict FOLDER primary=TASK`: which part of the auxiliary data helps the primary, answered in words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmtl.cli.verbs import Arguments
from fastmtl.errors import UserError

if TYPE_CHECKING:
    from fastmtl.pipelines.experiment import Experiment
    from fastmtl.pipelines.verdict import Arm, Trial

SMALL_BATCH = 8
SELECTORS = ("feature_similarity", "embedding", "ngram_importance")


def parser() -> argparse.ArgumentParser:
    """Of the arguments."""
    more = "Run the same command again to resume one that was stopped."
    made = Arguments("verdict", "fastmtl verdict my_tasks/ primary=tickets --minutes 30", more)
    made.add_argument("folder", nargs="?", metavar="FOLDER|TASKS.yaml", help="your files; or data=... as elsewhere")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options as of `fastmtl` itself")
    made.add_argument("--minutes", type=float, help="training and scoring time at most (default 15)")
    made.add_argument("--tflop", type=float, help="the same limit in TFLOP, which no other load changes")
    made.add_argument("--seeds", type=int, default=10, help="seeds at most of an arm (default %(default)s)")
    made.add_argument("--selectors", default=",".join(SELECTORS), help="options of selection= (default %(default)s)")
    made.add_argument("--budgets", help="rows to choose, as 250,1000 (default: the primary's own size and 4 times it)")
    made.add_argument("--name", default="verdict", help="names the folder of the answer (default %(default)s)")
    made.add_argument("--yes", action="store_true", help="take what was understood of the files, without a question")
    return made


def main(argv: list[str]) -> None:
    """`fastmtl verdict`, from the files to the page."""
    given = parser().parse_intermixed_args(argv)  # options may stand between KEY=VALUE
    if given.folder is not None and "=" in given.folder and not Path(given.folder).exists():
        given.overrides, given.folder = [given.folder, *given.overrides], None
    limits = {"wall_s": given.minutes and 60 * given.minutes, "flops": given.tflop and 1e12 * given.tflop}
    if given.minutes is not None and given.tflop is not None:
        raise UserError("--minutes and --tflop are two limits; give one of them")
    unit, limit = next(((unit, value) for unit, value in limits.items() if value is not None), ("wall_s", 900.0))
    if limit <= 0 or given.seeds < 2:
        raise UserError(f"--seeds {given.seeds} with a limit of {limit:g}: give two seeds or more, and a limit above 0")

    from fastmtl.cli.compose import values
    from fastmtl.reporting.result import study_folder

    paths = [one for one in given.overrides if one.startswith("paths.")]
    output = Path(values(*paths).paths.output)
    study_folder(given.name, output)  # a wrong name is reported before anything is read
    overrides = [*_data(given, output), *given.overrides]
    _answer(given, overrides, output, unit, limit)


def _data(given: argparse.Namespace, output: Path) -> list[str]:
    """The overrides that name the data: a YAML that declares tasks, or a folder of files, which is looked at first."""
    if given.folder is None:
        return []
    path = Path(given.folder)
    if path.suffix in (".yaml", ".yml"):
        return ["data=files", f"data.config={path}"]
    return ["data=files", f"data.config={_understood(path, given, output)}"]


def _understood(folder: Path, given: argparse.Namespace, output: Path) -> Path:
    """Show what the files are taken for and write it as a YAML; what is uncertain is asked, unless `--yes` is given."""
    from fastmtl.data.discovery import discover

    primary = next(
        (value for key, _, value in (one.partition("=") for one in given.overrides) if key == "primary"), None
    )
    found = discover(folder, primary)
    print(f"{found.table()}\n", flush=True)
    for note in found.notes:
        print(f"note: {note}")
    if found.faults:
        print("\n".join(f"fault: {fault}" for fault in found.faults))
        raise UserError(f"{len(found.faults)} of the files cannot be used as they are, see above; mend or remove them")
    names = ", ".join(task.name for task in found.tasks)
    if primary is None:
        raise UserError(f"say which task is yours: primary=NAME, one of {names}")
    path = output / "verdicts" / given.name / "tasks.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    again = f"fastmtl verdict {path} primary={primary}"
    old = path.read_text(encoding="utf-8") if path.exists() else None
    found.write(path)
    if old is not None and old != path.read_text(encoding="utf-8"):
        path.write_text(old, encoding="utf-8")
        raise UserError(f"{path} differs from what the files say now; to use it: {again}; else remove it")
    for question in found.questions:
        print(f"question: {question.task}: {question.text} [{question.option}]")
    if found.questions and not given.yes and not _agreed():
        raise UserError(f"{len(found.questions)} points are uncertain; edit {path}, then {again}, or pass --yes")
    return path


def _agreed() -> bool:
    """Whether a person at a terminal takes the first reading of everything uncertain."""
    return sys.stdin.isatty() and input("Go on with what was understood? [y/N] ").strip().lower() in ("y", "yes")


def _answer(given: argparse.Namespace, overrides: list[str], output: Path, unit: Any, limit: float) -> None:
    from fastmtl.cli.compose import compose
    from fastmtl.pipelines import verdict
    from fastmtl.reporting.result import record

    def cell(arm: Arm, seed: int) -> Experiment:
        budget = [] if arm.budget is None else [f"budget={arm.budget}"]
        experiment = compose(*recipe, *overrides, f"selection={arm.selection}", *budget, f"seed={seed}")
        if not arm.exclude:
            return experiment
        plan = replace(experiment.selection_plan, exclude=arm.exclude)
        return replace(experiment, selection_plan=plan)

    recipe: list[str] = []
    first = cell(verdict.Arm("none"), 0)
    pool, primary = first.pool, first.primary
    candidates = sum(len(pool.rows_of(name)) for name in pool.names if name != primary)
    size = len(pool.rows_of(primary))
    verdict.check(len(pool.names), size, len(pool.split(primary, "validation")))
    batch = verdict.batch_size(size)
    recipe += [f"{fit}.fit.batch_size={batch}" for fit in ("proxy", "multitask", "finetune")]
    recipe += ["multitask.fit.warmup=0.1", "finetune.fit.warmup=0.1"]
    if batch <= SMALL_BATCH:  # half of a small step is spent on word vectors that few rows touch
        recipe += [f"{fit}.fit.freeze_embeddings=true" for fit in ("proxy", "multitask", "finetune")]
    print(
        f"{primary}: {size:,} labelled rows; {candidates:,} auxiliary rows in {len(pool.names) - 1} tasks", flush=True
    )
    budgets = _budgets(given.budgets) if given.budgets else verdict.ladder(candidates, size)
    selectors = given.selectors.split(",")
    for selection in selectors:  # a wrong name is reported before anything is trained
        cell(verdict.Arm(selection, budgets[0]), 0)
    trial = verdict.Trial(
        lambda arm, seed: record(cell(arm, seed), None if arm.exclude else given.name, output),
        verdict.Ledger(unit, limit),
        lambda line: print(line, flush=True),
    )
    left = verdict.compete(trial, budgets, selectors, given.seeds, candidates)
    print(f"\n{_write(trial, left, cell, output, given.name)}", flush=True)


def _budgets(text: str) -> tuple[int, ...]:
    try:
        budgets = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        budgets = ()
    if not budgets or budgets[0] < 1:
        raise UserError(f"--budgets {text} are no row counts; give whole numbers above 0, as 250,1000")
    return budgets


def _write(trial: Trial, left: Sequence[Arm], cell: Any, output: Path, name: str) -> str:
    """Judge, then write the page, the rows and the answer; returns what a terminal shows."""
    from fastmtl.pipelines import verdict
    from fastmtl.pipelines.chosen import chosen_rows, stability
    from fastmtl.reporting import report
    from fastmtl.reporting import verdict as words
    from fastmtl.reporting.table import Part
    from fastmtl.store import write_json

    kinds = {"none": "alone", "primary_only": "alone", "random": "random", "full": "all"}
    arms = [
        words.Arm(verdict.name(arm), kinds.get(arm.selection, "chosen"), cells[0]["auxiliary_rows"], cells)  # type: ignore[arg-type]
        for arm, cells in ((arm, trial.cells[arm]) for arm in left)
    ]
    stopped = sum(1 for arm in trial.cells if arm not in left)
    answer = words.decide(arms, stopped, words.Judge([cell for arm in arms for cell in arm.cells]))
    winner = next(arm for arm in left if verdict.name(arm) == answer.arm.name)
    out = output / "verdicts" / name
    out.mkdir(parents=True, exist_ok=True)
    tables, on_page, notes = [], [], []
    if answer.arm.kind != "alone":
        counts = answer.arm.cells[0]["counts"] if answer.answer != "unclear" else {}
        if pairs := verdict.leave_out(trial, winner, [task for task, count in counts.items() if count]):
            both = [one for own in pairs.values() for pair in own for one in pair]
            tables.append(words.task_table(pairs, words.Judge(both)))
        experiments = [cell(winner, one["seed"]) for one in answer.arm.cells]
        rows = chosen_rows(experiments)
        rows.to_parquet(out / "rows.parquet", index=False)
        on_page.append(words.row_table(rows))
        notes.append(f"The rows are in {out / 'rows.parquet'}, those that most seeds chose first.")
        if answer.arm.kind == "chosen" and len(experiments) > 1:
            notes.append(f"Two seeds have {stability(experiments):.0%} of their chosen rows in common.")
    model = Path(words.model_of(answer.arm))
    model = model.relative_to(Path.cwd()) if model.is_relative_to(Path.cwd()) else model
    notes.append(f"To use the arm's model with the best score on held-out rows: `fastmtl predict {model} FILE`")
    part = Part("Verdict", (*answer.sentences, *trial.skipped, *notes), tables)
    write_json(out / "verdict.json", words.as_values(answer, trial.ledger.spent, trial.ledger.unit))
    whole = replace(part, tables=(*part.tables, *on_page))
    report.write(
        trial.results(), out, f"Which auxiliary rows help {arms[0].cells[0]['primary']}?", first={"verdict": whole}
    )
    return f"{part.markdown()}\n\nwritten to {out / 'report.html'}"
