"""One cell of the command line from start to end: its stages, its result file, its page, its logger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from fastmtl.cli.messages import command_line
from fastmtl.errors import UserError
from fastmtl.pipelines.experiment import Experiment
from fastmtl.reporting import report
from fastmtl.reporting.figures import draw_bandit
from fastmtl.reporting.frame import Result
from fastmtl.reporting.logs import log_cell
from fastmtl.reporting.plots import Picture, save
from fastmtl.reporting.result import cell_name, read_if_there, record, selected_rows, study_folder
from fastmtl.reporting.table import Part
from fastmtl.store import write_json

BELIEFS = "Beta posterior of every task's utility, and the rounds; the numbers are in the table"


def run_cell(experiment: Experiment, cfg: DictConfig) -> float | None:
    """Build the cell up to `cfg.stage`, write result, report and figure to the run's folder, log it, print it."""
    job = HydraConfig.get()
    out = Path(job.runtime.output_dir)
    if cfg.study is not None:
        study_folder(cfg.study, cfg.paths.output)  # a wrong name is reported before anything is built
    artifacts = experiment.artifacts(cfg.stage)
    if cfg.stage != "report":
        print(f"{experiment.tree(cfg.stage)}\nlast artifact: {artifacts[-1].path}", flush=True)
        return None
    result = record(experiment, cfg.study, cfg.paths.output, command_line(list(job.overrides.task)))
    write_json(out / "result.json", result)
    bandit = read_if_there(experiment.utilities(), "bandit.json")
    mixing = read_if_there(experiment.mixing(), "mixing.json")
    beliefs = out / "posteriors.png"  # W&B shows no SVG
    threshold = getattr(experiment.selection_plan.selector, "threshold", None)
    shown = [task for task, count in result["counts"].items() if count], threshold
    if bandit:
        save(draw_bandit(bandit, *shown), beliefs)
    logger = cell_logger(cfg, out, result)
    if logger is not None:
        config = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(config, dict)
        log_cell(logger, result, config, selected_rows(experiment), beliefs if bandit else None)
    if not cfg.paths.keep_weights:
        experiment.drop_weights()
    if job.mode == RunMode.MULTIRUN:  # a sweep ends in a report over its cells
        return result["headline"]
    drawn = [Picture("posteriors", "Utility of each task", BELIEFS, draw_bandit(bandit, *shown))] if bandit else []
    this = Part("This cell", tables=report.cell_tables(result, bandit, mixing), pictures=drawn)
    print(f"\n{report.write([result], out, cell_name(result), more={'cell': this})}", flush=True)
    return result["headline"]


def cell_logger(cfg: DictConfig, out: Path, result: Result) -> Any:
    """The cell's logger, or None for `logger=none`; a W&B run has the cell's id, so that a repeated cell updates it."""
    if not cfg.logger or "_target_" not in cfg.logger:
        return None
    extra: dict[str, Any] = {}
    kind = cfg.logger._target_.rpartition(".")[2]
    if kind == "WandbLogger":
        os.environ.setdefault("WANDB_SILENT", "true")  # otherwise a line or more per cell
        if cfg.logger.offline:
            os.environ["WANDB_MODE"] = "offline"  # Lightning sets it too late for `wandb.setup`
        tags = [result["primary"], result["selection"], f"budget {result['budget']}", f"protocol {result['protocol']}"]
        extra = {
            "id": result["id"], "name": cell_name(result), "group": cfg.logger.group or result["primary"],
            "job_type": result["selection"], "tags": [tag[:64] for tag in tags],  # W&B takes no longer ones
        }  # fmt: skip
    elif kind == "CSVLogger":
        extra = {"save_dir": str(out)}
    elif kind == "TensorBoardLogger":
        extra = {"version": f"{cell_name(result)}-{result['id'][:8]}"}
    try:
        return instantiate(cfg.logger, **extra, _convert_="all")
    except (InstantiationException, ModuleNotFoundError) as error:
        raise UserError(f"logger {kind} cannot be set up ({str(error).splitlines()[0]}); install its package") from None
