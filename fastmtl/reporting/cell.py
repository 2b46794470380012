"""One cell from start to end: its stages, its result file, its log."""

from __future__ import annotations

import csv
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastmtl.config import build_logger, command_line
from fastmtl.pipeline import Experiment
from fastmtl.reporting.figures import write_bandit
from fastmtl.reporting.table import POSTERIORS, cell_report, total
from fastmtl.selection import BestTasks
from fastmtl.store import Artifact, digest


def run_cell(experiment: Experiment, cfg: DictConfig) -> float | None:
    """Build the cell up to `cfg.stage`, write result, report and figure to the run's folder, log it, print it."""
    job = HydraConfig.get()
    out = Path(job.runtime.output_dir)
    artifacts = experiment.artifacts(cfg.stage)
    if cfg.stage != "report":
        print(f"{experiment.tree(cfg.stage)}\nlast artifact: {artifacts[-1].path}", flush=True)
        return None
    result = summarize(experiment)
    result["command"] = command_line(list(job.overrides.task))
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1))
    log_cell(result, experiment, cfg, out)
    bandit, mixing = _read(experiment.utilities, "bandit.json"), _read(experiment.mixing, "mixing.json")
    if bandit:
        selector = experiment.selection_plan.selector
        threshold = selector.threshold if isinstance(selector, BestTasks) else None
        chosen = [task for task, count in result["counts"].items() if count]
        write_bandit(bandit, out / POSTERIORS, chosen, threshold)
    report = cell_report(result, bandit, mixing)
    (out / "report.md").write_text(report + "\n")
    if job.mode == RunMode.MULTIRUN:  # the sweep ends in a table over its cells
        found = sum(a.hit for a in artifacts)
        print(
            f"    {result['metric']} {100 * result['headline']:.1f}  ({found} of {len(artifacts)} artifacts found)",
            flush=True,
        )
    else:
        print(f"\n{report}\n\nwritten to {out}", flush=True)
    return result["headline"]


def summarize(experiment: Experiment) -> dict[str, Any]:
    """Everything a table needs of a finished cell, as plain values."""
    finetune = experiment.finetune
    metrics = finetune.read("metrics.json")
    task = experiment.pool.task(experiment.primary)
    plan = experiment.selection_plan
    stages = [
        {"stage": a.stage, "key": a.key, "hit": a.hit, "path": str(a.path), **a.records} for a in experiment.artifacts()
    ]
    chosen = experiment.selected()
    bandit, mixing = _read(experiment.utilities, "bandit.json"), _read(experiment.mixing, "mixing.json")
    cell = {
        "primary": experiment.primary,
        "selection": plan.name,
        "budget": experiment.budget if plan.selector.uses_budget else None,
        "seed": experiment.seed,
    }
    return {
        **cell,
        "id": digest([cell, finetune.key]),
        "encoder": experiment.encoder.name,
        "protocol": experiment.protocol.name,
        "pool": experiment.pool.fingerprint,
        "metric": task.metrics[0],
        "headline": metrics["validation"][task.metrics[0]],
        "metrics": {split: metrics[split] for split in ("validation", "test") if metrics.get(split)},
        "validation_rows": len(experiment.pool.split(experiment.primary, "validation")),
        "best_epoch": metrics["best_epoch"],
        "auxiliary_rows": len(chosen),
        "counts": experiment.selection.read("counts.json"),
        "audit": experiment.selection.records.get("audit"),
        "precision_at_budget": _relevant(experiment, chosen),
        "relevant_share": _relevant(experiment, experiment.candidates()),
        "utilities": bandit["utilities"] if bandit else None,
        "mixing": _ratios(mixing) if mixing else None,
        "total": {key: round(total(stages, key), 3) for key in ("wall_s", "flops")},
        "stages": stages,
    }


def _read(artifact: Artifact | None, name: str) -> dict[str, Any] | None:
    return artifact.read(name) if artifact else None


def _ratios(mixing: dict[str, Any]) -> dict[str, Any]:
    """What a table over many cells needs of the search; its costs are among the stages."""
    trials = [{"ratio": trial["ratio"], "value": trial["value"]} for trial in mixing["trials"]]
    return {"tasks": mixing["tasks"], "ratio": mixing["ratio"], "trials": trials}


def _relevant(experiment: Experiment, rows: np.ndarray) -> float | None:
    """Share of rows whose hidden flag says that they are relevant, where the data has such flags."""
    flags = experiment.pool.flags_of(rows) if len(rows) else None
    return None if flags is None else float(np.mean(flags))


def log_cell(result: dict[str, Any], experiment: Experiment, cfg: DictConfig, out: Path) -> None:
    """Write curves, summary and configuration to the chosen logger.

    It reads them from the artifacts, after the fact: so a cell whose stages were all found is logged as completely as
    one that was trained just now, on several devices or one.
    """
    name = "-".join(str(result[key]) for key in ("primary", "selection", "budget", "seed") if result[key] is not None)
    logger = build_logger(cfg, out, result["id"], name)
    if logger is None:
        return
    try:
        config = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(config, dict)
        logger.log_hyperparams({**config, "id": result["id"]})
        first = 0
        for artifact in experiment.artifacts():
            curves = artifact.path / "curves.csv"
            if not curves.exists():
                continue
            with curves.open() as file:
                points = list(csv.DictReader(file))
            for step, group in groupby(points, key=lambda point: int(point["step"])):
                logger.log_metrics(
                    {f"{artifact.stage}/{p['name']}": float(p["value"]) for p in group}, step=first + step
                )
            first += int(points[-1]["step"]) + 1
        logger.log_metrics(_summary(result), step=first)
    finally:
        logger.finalize("success")
        if hasattr(logger.experiment, "finish"):  # W&B keeps one run open a process; the next cell needs its own
            logger.experiment.finish()


def _summary(result: dict[str, Any]) -> dict[str, float]:
    """Name -> value of all that a finished cell logs at its end."""
    stages = result["stages"]
    mixing = result["mixing"] or {"tasks": [], "ratio": []}
    named: dict[str, dict[str, float]] = {
        **result["metrics"],
        "cost": {
            **{f"{s['stage']}_{key}": total(stages, key, s["stage"]) for s in stages if s["stage"] != "pool"
               for key in ("wall_s", "flops") if key in s},
            **{f"total_{key}": value for key, value in result["total"].items()},
        },
        "rows": result["counts"],
        "utility": result["utilities"] or {},
        "ratio": dict(zip(mixing["tasks"], mixing["ratio"])),
    }  # fmt: skip
    relevant = result["precision_at_budget"]
    return {
        **{f"{group}/{name}": value for group, values in named.items() for name, value in values.items()},
        **({} if relevant is None else {"precision_at_budget": relevant}),
    }
