"""One cell from start to end: its stages, its result file, its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fastmtl.config import build_logger, cell_name, command_line
from fastmtl.errors import UserError
from fastmtl.pipeline import Experiment
from fastmtl.reporting.figures import draw_bandit, write_bandit
from fastmtl.reporting.frame import as_ever
from fastmtl.reporting.logs import log_cell
from fastmtl.reporting.rows import selected_rows
from fastmtl.reporting.study import cell_tables
from fastmtl.reporting.tables import total
from fastmtl.selection import BestTasks
from fastmtl.stages.utilities import read_utilities
from fastmtl.store import Artifact, digest
from fastmtl.sweep import write_json

BELIEFS = "Beta posterior of every task's utility, and the rounds; the numbers are in the table"


def run_cell(experiment: Experiment, cfg: DictConfig) -> float | None:
    """Build the cell up to `cfg.stage`, write result, report and figure to the run's folder, log it, print it."""
    job = HydraConfig.get()
    out = Path(job.runtime.output_dir)
    study = study_folder(cfg)
    artifacts = experiment.artifacts(cfg.stage)
    if cfg.stage != "report":
        print(f"{experiment.tree(cfg.stage)}\nlast artifact: {artifacts[-1].path}", flush=True)
        return None
    result = summarize(experiment, told_apart(experiment, cfg))
    result |= {"study": cfg.study, "command": command_line(list(job.overrides.task))}
    write_json(out / "result.json", result)
    if study:
        write_json(study / f"{result['id']}.json", result)
    bandit, mixing = _read(experiment.utilities, "bandit.json"), _read(experiment.mixing, "mixing.json")
    beliefs = out / "posteriors.png"  # W&B shows no SVG
    if bandit:
        selector = experiment.selection_plan.selector
        threshold = selector.threshold if isinstance(selector, BestTasks) else None
        shown = [task for task, count in result["counts"].items() if count], threshold
        write_bandit(bandit, beliefs, *shown)
    logger = build_logger(cfg, out, result)
    if logger is not None:
        config = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(config, dict)
        log_cell(logger, result, config, selected_rows(experiment), beliefs if bandit else None)
    if not cfg.paths.keep_weights:
        experiment.drop_weights()
    if job.mode == RunMode.MULTIRUN:  # a sweep ends in a report over its cells
        return result["headline"]
    from fastmtl.reporting import report
    from fastmtl.reporting.page import Part
    from fastmtl.reporting.plots import Picture

    drawn = [Picture("posteriors", "Utility of each task", BELIEFS, draw_bandit(bandit, *shown))] if bandit else []
    this = Part("This cell", tables=cell_tables(result, bandit, mixing), pictures=drawn)
    print(f"\n{report.write([result], out, cell_name(result), more={'cell': this})}", flush=True)
    return result["headline"]


def study_folder(cfg: DictConfig) -> Path | None:
    """Where the cells of `study` gather, however many sweeps they come from."""
    if cfg.study is None:
        return None
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", str(cfg.study)):
        raise UserError(f"study={str(cfg.study)!r} is no name for a folder; use letters, digits, '-', '_' and '.'")
    return Path(cfg.paths.output) / "studies" / str(cfg.study)


def told_apart(experiment: Experiment, cfg: DictConfig) -> dict[str, Any]:
    """Dotted key -> value of what can change this cell's numbers, beside primary, budget and seed.

    Options of stages that the cell does without are left out, so that one baseline serves all values of theirs.
    """
    parts = ["selection", "protocol", "encoder", "finetune"]
    if experiment.selection_plan.selector.uses_budget:  # the proxy's rows are no candidates, for any budgeted arm
        parts += ["proxy.examples_per_task", "proxy.cross_fit", "proxy.tasks"]
    if experiment.readers:
        parts += ["proxy", "scoring"]
    if experiment.utilities:
        parts += ["relations" if experiment.singles else "bandit"]
    if experiment.mixing:
        parts += ["hparams_search"]
    if experiment.multitask:
        parts += ["multitask", "sampling", "weighting"]
    told: dict[str, Any] = {}
    for part in parts:
        node = OmegaConf.select(cfg, part)
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        told |= _leaves(part, plain)
    names = ("selection.name", "encoder.name", "protocol.name")
    return {key: value for key, value in told.items() if key not in names and not as_ever(key, value)}


def _leaves(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for name, inner in value.items() for k, v in _leaves(f"{key}.{name}", inner).items()}


def summarize(experiment: Experiment, config: dict[str, Any]) -> dict[str, Any]:
    """Everything a table needs of a finished cell, as plain values; `config` is what `told_apart` found."""
    finetune = experiment.finetune
    artifacts = experiment.artifacts("report")
    metrics = finetune.read("metrics.json")
    for artifact in artifacts:
        if artifact.stage == "test":
            metrics |= artifact.read("metrics.json")
    task = experiment.pool.task(experiment.primary)
    plan = experiment.selection_plan
    stages = [{"stage": a.stage, "key": a.key, "hit": a.hit, "path": str(a.path), **a.records} for a in artifacts]
    chosen = experiment.selected()
    mixing = _read(experiment.mixing, "mixing.json")
    cell = {
        "primary": experiment.primary,
        "selection": plan.name,
        "budget": experiment.budget if plan.selector.uses_budget else None,
        "seed": experiment.seed,
    }
    return {
        **cell,
        "id": digest([cell, config, finetune.key]),
        "config": config,
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
        "candidates": {name: len(rows) for name, rows in experiment.pool.by_task(experiment.candidates()).items()},
        "audit": experiment.selection.records.get("audit"),
        "precision_at_budget": _relevant(experiment, chosen),
        "relevant_share": _relevant(experiment, experiment.candidates()),
        "utilities": read_utilities(experiment.utilities) if experiment.utilities else None,
        "mixing": _ratios(mixing) if mixing else None,
        "total": {key: round(total(stages, key), 3) for key in ("wall_s", "flops")},
        "stages": stages,
    }


def _read(artifact: Artifact | None, name: str) -> dict[str, Any] | None:
    return artifact.read(name) if artifact and (artifact.path / name).exists() else None


def _ratios(mixing: dict[str, Any]) -> dict[str, Any]:
    """What a table over many cells needs of the search; its costs are among the stages."""
    trials = [{"ratio": trial["ratio"], "value": trial["value"]} for trial in mixing["trials"]]
    return {"tasks": mixing["tasks"], "ratio": mixing["ratio"], "trials": trials}


def _relevant(experiment: Experiment, rows: np.ndarray) -> float | None:
    """Share of rows whose hidden flag says that they are relevant, where the data has such flags."""
    flags = experiment.pool.flags_of(rows) if len(rows) else None
    return None if flags is None else float(np.mean(flags))
