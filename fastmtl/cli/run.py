"""A run: one cell, or with -m a sweep of cells. Errors that a user can mend are one line and exit code 2."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fastmtl.cli.callback import CompareCells
from fastmtl.cli.compose import build, conf_dir, in_words
from fastmtl.cli.messages import CONFIG_ERRORS, in_one_line, say
from fastmtl.cli.overrides import check_choices, quote_unicode
from fastmtl.cli.sweep import running
from fastmtl.errors import UserError

if TYPE_CHECKING:
    from fastmtl.pipelines.experiment import Experiment


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
def _run(cfg: DictConfig) -> float | None:
    """Run one cell; its headline metric is what Hydra's sweepers see."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return _cell_of_a_sweep(cfg)
    try:
        return _cell(cfg)[0]
    except (UserError, *CONFIG_ERRORS) as error:  # it would pass through Hydra, which adds lines of its own
        _forget(Path(HydraConfig.get().runtime.output_dir))
        sys.exit(say("fastmtl", _message(error)))


def _forget(run: Path) -> None:
    """Remove the folder of a run that was refused, if all it has is Hydra's copy of the configuration."""
    if {path.name for path in run.iterdir()} != {".hydra"} or Path.cwd().is_relative_to(run):
        return
    shutil.rmtree(run)
    for logger in (logging.getLogger(), logging.getLogger("fastmtl")):
        for handler in logger.handlers[:]:  # the next message of this process would look for the folder
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(run):
                logger.removeHandler(handler)
                handler.close()
    for parent in run.parents:
        if Path.cwd().is_relative_to(parent) or any(parent.iterdir()):
            return
        parent.rmdir()


def _cell(cfg: DictConfig) -> tuple[float | None, Experiment]:
    check_choices(HydraConfig.get().overrides.task, Path(conf_dir()))
    experiment = build(cfg)  # before torch is imported, where a plain value is wrong
    from fastmtl.cli.cell import run_cell

    return run_cell(experiment, cfg), experiment


def _cell_of_a_sweep(cfg: DictConfig) -> float | None:
    """One failing cell must not take the others with it: how it ended is in its status, for the table at the end."""
    with running(Path(HydraConfig.get().runtime.output_dir)) as status:
        try:
            headline, experiment = _cell(cfg)
        except Exception as error:
            if not isinstance(error, (UserError, *CONFIG_ERRORS)):
                traceback.print_exc()
            status |= {"state": "failed", "error": _message(error)}
            return None
        artifacts = experiment.artifacts(cfg.stage)
        hits = sum(artifact.hit for artifact in artifacts)
        status |= {"state": "found" if hits == len(artifacts) else "done", "hits": hits, "artifacts": len(artifacts)}
        if headline is not None:
            status["score"] = f"{experiment.task.metrics[0]} {100 * headline:.1f}"
        return headline


def run() -> None:
    """What the arguments of the process say; exits with 2 where a cell failed."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that its errors too are one line here
    CompareCells.watch, CompareCells.failed = None, 0
    sys.argv[1:] = quote_unicode(sys.argv[1:])
    with in_one_line("fastmtl", logs=False):
        try:
            _run()
        except CONFIG_ERRORS as error:
            raise UserError(in_words(error)) from error
        except (UserError, BrokenPipeError):
            raise
        except Exception:
            if CompareCells.watch is None:
                raise
            traceback.print_exc()  # of a launcher that lost a process: the other cells have still something to show
            CompareCells.conclude()
            sys.exit(2)
    if CompareCells.failed:
        sys.exit(2)


def _message(error: Exception) -> str:
    if isinstance(error, CONFIG_ERRORS):
        return in_words(error)
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
