"""The result of a cell: everything that tables, figures and loggers need of it, as plain values in one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet

from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.identity import digest
from fastmtl.reporting.frame import Result
from fastmtl.reporting.tables import total
from fastmtl.stages.utilities import read_utilities
from fastmtl.store import Artifact, write_json

if TYPE_CHECKING:
    from fastmtl.pipelines.experiment import Experiment


def record(
    experiment: Experiment, study: str | None = None, output: str | Path = "outputs", command: str = ""
) -> Result:
    """Finish a cell and write its result, see `summarize`, where the reports of a study read it.

    Args:
        experiment: The cell; what is missing is built.
        study: The name under which cells gather; None writes nothing.
        output: The folder of outputs, `paths.output` on the command line.
        command: What repeats the cell, for people who read the report.
    """
    folder = None if study is None else study_folder(study, output)
    result = {**summarize(experiment), "study": study, "command": command}
    if folder is not None:
        write_json(folder / f"{result['id']}.json", result)
    return result


def study_folder(study: str, output: str | Path) -> Path:
    """Where the results of a study's cells gather, however many sweeps they come from."""
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", str(study)):
        raise UserError(f"study={str(study)!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
    return Path(output) / "studies" / str(study)


def cell_name(result: Result) -> str:
    """What a person calls a cell; ids tell cells apart."""
    return "-".join(str(result[key]) for key in ("primary", "selection", "budget", "seed") if result[key] is not None)


def summarize(experiment: Experiment) -> Result:
    """Everything a table needs of a finished cell, as plain values."""
    finetune, selection = experiment.finetune(), experiment.selection()
    artifacts = experiment.artifacts("report")
    metrics = finetune.read("metrics.json")
    for artifact in artifacts:
        if artifact.kind == "test":
            metrics |= artifact.read("metrics.json")
    plan, options, chosen = experiment.selection_plan, experiment.options(), experiment.selected()
    stages = [{"stage": a.kind, "key": a.key, "hit": a.hit, "path": str(a.path), **a.records} for a in artifacts]
    mixing, headline = read_if_there(experiment.mixing(), "mixing.json"), experiment.task.metrics[0]
    utilities, budget = experiment.utilities(), experiment.budget if plan.selector.uses_budget else None
    cell = {"primary": experiment.primary, "selection": plan.name, "budget": budget, "seed": experiment.seed}
    kept = ("ratio", "value")  # of a trial; costs are among the stages
    drawn = experiment.pool.rows_of(experiment.primary)
    return {
        **cell,
        "id": digest([cell, options, finetune.key]),
        "config": options,
        "encoder": experiment.encoder.name,
        "protocol": experiment.protocol.name,
        "pool": digest([experiment.tasks, sorted(experiment.rows_kept.items())]),
        "metric": headline,
        "headline": metrics["validation"][headline],
        "metrics": {split: metrics[split] for split in ("validation", "test") if metrics.get(split)},
        "validation_rows": experiment.reported_rows.count,
        "primary_rows": len(drawn),
        "primary_draw": digest(RowSet.of(experiment.tasks, experiment.pool.by_task(drawn)).content),
        "best_epoch": metrics["best_epoch"],
        "auxiliary_rows": len(chosen),
        "counts": selection.read("counts.json"),
        "candidates": {name: len(rows) for name, rows in experiment.candidates().items()},
        "audit": selection.records.get("audit"),
        "leakage": _leakage(experiment),
        "environment": {
            "device": finetune.records["device"], "precision": finetune.records["precision"],
            "torch": finetune.manifest["ran_on"]["torch"],
        },
        "precision_at_budget": _relevant(experiment, chosen),
        "relevant_share": _relevant(experiment, experiment.candidate_ids()),
        "utilities": read_utilities(utilities) if utilities else None,
        "mixing": {
            "tasks": mixing["tasks"], "ratio": mixing["ratio"],
            "trials": [{key: trial[key] for key in kept} for trial in mixing["trials"]],
        } if mixing else None,
        "total": {key: round(total(stages, key), 3) for key in ("wall_s", "flops")},
        "stages": stages,
        "artifacts": [f"{kind}/{key}" for kind, key in experiment.context.names],  # all that was read, for `fastmtl gc`
    }  # fmt: skip


def _leakage(experiment: Experiment) -> dict[str, Any] | None:
    """Auxiliary rows that match the primary's held-back rows, by their strictest kind, and what became of them."""
    if len(experiment.tasks) < 2:
        return None
    found = experiment.leaks
    rows = found.drop_duplicates(["task", "row"])["kind"].value_counts()
    hit = found.drop_duplicates(["split", "reference"])["split"].value_counts()
    return {"dropped": experiment.drops_leaks, "rows": rows.to_dict(), "held_back": hit.to_dict()}


def read_if_there(artifact: Artifact | None, name: str) -> dict[str, Any] | None:
    """A JSON file of an artifact that may not exist, or may have no such file."""
    return artifact.read(name) if artifact and (artifact.path / name).exists() else None


def selected_rows(experiment: Experiment, n: int = 20) -> list[dict[str, Any]]:
    """The first and the last `n` rows of the selection, none twice, in rank order, for people to read.

    Each has `end` (top or bottom), `rank` from 1, `task`, `row` (its place in the task's training file), `score` (None
    where nothing was scored), `label` (text), `text_a` and `text_b` (empty for tasks of one text column).
    """
    pool, table = experiment.pool, pyarrow.parquet.read_table(experiment.selection().path / "selection.parquet")
    k = len(table)
    positions = np.r_[0 : min(n, k), max(n, k - n) : k]
    chosen = table.take(positions).to_pylist()
    row_ids = np.array([pool.starts[pool.index(one["task"])] + one["row"] for one in chosen], dtype=np.int64)
    rows = []
    for place, one, shown in zip(positions, chosen, pool.texts(row_ids)):
        first, *second = (shown[column] for column in pool.task(one["task"]).text)
        rows.append({
            "end": "top" if place < n else "bottom", "rank": int(place) + 1, "task": one["task"], "row": one["row"],
            "score": None if np.isnan(one["score"]) else float(one["score"]), "label": str(shown["label"]),
            "text_a": first, "text_b": second[0] if second else "",
        })  # fmt: skip
    return rows


def _relevant(experiment: Experiment, rows: np.ndarray) -> float | None:
    """Share of rows whose hidden flag says that they are relevant, where the data has such flags."""
    flags = experiment.pool.flags_of(rows) if len(rows) else None
    return None if flags is None else float(np.mean(flags))
