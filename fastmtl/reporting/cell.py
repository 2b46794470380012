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
from fastmtl.reporting.table import cell_report
from fastmtl.store import digest


def run_cell(experiment: Experiment, cfg: DictConfig) -> float | None:
    """Build the cell up to `cfg.stage`, write `result.json` and `report.md` to the run's folder, log it, print it."""
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
    report = cell_report(result)
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
        "stages": stages,
    }


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
        cost = {f"cost/{s['stage']}_wall_s": s["wall_s"] for s in result["stages"] if s["stage"] != "pool"}
        flops = {f"cost/{s['stage']}_flops": s["flops"] for s in result["stages"] if "flops" in s}
        rows = {f"rows/{task}": count for task, count in result["counts"].items()}
        scores = {f"{s}/{name}": v for s, values in result["metrics"].items() for name, v in values.items()}
        extra = (
            {"precision_at_budget": result["precision_at_budget"]} if result["precision_at_budget"] is not None else {}
        )
        logger.log_metrics({**scores, **cost, **flops, **rows, **extra}, step=first)
    finally:
        logger.finalize("success")
        if hasattr(logger.experiment, "finish"):  # W&B keeps one run open a process; the next cell needs its own
            logger.experiment.finish()
