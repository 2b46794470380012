"""The result of a cell: everything that tables, figures and loggers need of it, as plain values in one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
    """Finish a cell and write its result where the reports of a study read it.

    Args:
        experiment: The cell; what is missing is built.
        study: The name under which cells gather; None writes nothing.
        output: The folder of outputs, `paths.output` on the command line.
        command: What repeats the cell, for people who read the report.

    Returns:
        The result, see `summarize`.
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
    cell = {
        "primary": experiment.primary,
        "selection": plan.name,
        "budget": experiment.budget if plan.selector.uses_budget else None,
        "seed": experiment.seed,
    }
    utilities = experiment.utilities()
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
        "best_epoch": metrics["best_epoch"],
        "auxiliary_rows": len(chosen),
        "counts": selection.read("counts.json"),
        "candidates": {name: len(rows) for name, rows in experiment.candidates().items()},
        "audit": selection.records.get("audit"),
        "precision_at_budget": _relevant(experiment, chosen),
        "relevant_share": _relevant(experiment, experiment.candidate_ids()),
        "utilities": read_utilities(utilities) if utilities else None,
        "mixing": _ratios(mixing) if mixing else None,
        "total": {key: round(total(stages, key), 3) for key in ("wall_s", "flops")},
        "stages": stages,
    }


def read_if_there(artifact: Artifact | None, name: str) -> dict[str, Any] | None:
    """A JSON file of an artifact that may not exist, or may have no such file."""
    return artifact.read(name) if artifact and (artifact.path / name).exists() else None


def _ratios(mixing: dict[str, Any]) -> dict[str, Any]:
    """What a table over many cells needs of the search; its costs are among the stages."""
    trials = [{"ratio": trial["ratio"], "value": trial["value"]} for trial in mixing["trials"]]
    return {"tasks": mixing["tasks"], "ratio": mixing["ratio"], "trials": trials}


def _relevant(experiment: Experiment, rows: np.ndarray) -> float | None:
    """Share of rows whose hidden flag says that they are relevant, where the data has such flags."""
    flags = experiment.pool.flags_of(rows) if len(rows) else None
    return None if flags is None else float(np.mean(flags))
