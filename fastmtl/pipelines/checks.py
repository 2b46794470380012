"""Choices that do not go together, each reported in one line before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastmtl.data.batching.online import is_rewarded_by_validation
from fastmtl.data.batching.planned import Proportional
from fastmtl.data.duplicates import comparable
from fastmtl.errors import UserError
from fastmtl.models.multitask import MultiTaskModel, check_heads
from fastmtl.plans import ProxyPlan, ScoringPlan, SelectionPlan
from fastmtl.selection.base import PoolExhausted, rows_wanted
from fastmtl.stages.utilities import read_predictor
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import Hardware, resolve_precision
from fastmtl.training.modules import freeze, last_shared

if TYPE_CHECKING:
    from fastmtl.pipelines.experiment import Experiment


def check(experiment: Experiment) -> None:
    """Raise a `UserError` for the first thing that cannot work."""
    plan, names = experiment.selection_plan, [task.name for task in experiment.tasks]
    check_tasks(experiment.tasks, experiment.primary, plan)
    _check_training_rows(experiment, names)
    if experiment.leakage_rule not in (None, "report", "drop", "fail"):
        raise UserError(f"data.leakage={experiment.leakage_rule!r} does not fit; use one of report, drop, fail or null")
    if experiment.leakage_rule in ("drop", "fail"):
        comparable(experiment.task, [task for task in experiment.tasks if task.name != experiment.primary])
    check_scoring(experiment.scoring, plan, experiment.hardware)
    check_proxy_tasks(experiment.proxy_plan, experiment.primary, names)
    for name in plan.exclude:
        if name not in names or name == experiment.primary:
            raise UserError(f"selection.exclude names {name!r}, which is no auxiliary task; drop it")
    keep = experiment.keep_selected
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise UserError(f"finetune.keep_selected={keep!r} does not fit; use a number of 0 or more and at most 1")
    check_heads(experiment.multitask_heads, experiment.tasks)
    if plan.predictor is not None:
        read_predictor(plan.predictor)
        for task in experiment.tasks:
            check_measured(task)
    if hasattr(plan.selector, "check"):
        plan.selector.check([name for name in names if name != experiment.primary])
    _check_early_stopping(experiment)
    _check_order(experiment)
    _check_weighting(experiment)


def check_tasks(tasks: Sequence[TaskSpec], primary: str, selection: SelectionPlan) -> None:
    """The primary is a task that can be reported on, and there are others if rows are to be selected."""
    splits = {task.name: task.splits for task in tasks}
    if primary not in splits:
        raise UserError(f"primary={primary!r} is not a task of this data; choose from {', '.join(splits)}")
    for name in splits:
        if "train" not in splits[name]:
            raise UserError(f"task {name!r} has no train split; add one under its splits")
    if "validation" not in splits[primary]:
        raise UserError(f"task {primary!r} has no validation split to report on; add one under its splits")
    if len(tasks) < 2 and selection.name not in ("none", "primary_only"):
        raise UserError(f"data has one task, {primary!r}, and so no auxiliary rows; add tasks or use selection=none")


def check_measured(task: TaskSpec) -> None:
    """A task trained with others to see who gains can be measured."""
    if "validation" not in task.splits:
        raise UserError(f"task {task.name!r} has no validation split to measure gains on; add one, or leave it out")


def _check_training_rows(experiment: Experiment, names: Sequence[str]) -> None:
    for name, count in experiment.rows_kept.items():
        if name not in names:
            raise UserError(f"data.rows_per_task names {name!r}, which is no task; choose from {', '.join(names)}")
        if isinstance(count, bool) or not isinstance(count, int):
            raise UserError(f"data.rows_per_task={count!r} is not a whole number; use 2 or more")
        if count < 2:
            raise UserError(f"data.rows_per_task={count} is too few; use 2 or more")


def check_scoring(scoring: ScoringPlan, selection: SelectionPlan, hardware: Hardware) -> None:
    """Rows can be scored here in this precision, and all those that the selector asks for are."""
    if scoring.precision == "int8" and hardware.device.type != "cpu":
        raise UserError("scoring.precision=int8 is for CPUs; use auto on a GPU")
    selector = getattr(selection.selector, "rows", selection.selector)
    if scoring.cascade and getattr(selector, "needs_all_scores", False):
        raise UserError(
            f"selection={selection.name} draws from all candidates, which a cascade does not score to the end; "
            "use scoring.cascade=[]"
        )


def check_cascade(scoring: ScoringPlan, budget: int | float, candidates: int, passes: int) -> None:
    """As many rows as the budget asks for reach the last pass."""
    kept = scoring.num_kept(candidates, max(0, passes - 1))
    if passes > 1 and rows_wanted(budget, candidates) > kept:
        raise PoolExhausted(f"budget={budget} is more than the {kept} rows that the cascade keeps; raise scoring.keep")


def check_proxy_tasks(proxy: ProxyPlan, primary: str, names: Sequence[str]) -> None:
    """The proxy is trained on tasks of the data, the primary among them."""
    for name in proxy.tasks or ():
        if name not in names:
            raise UserError(f"proxy.tasks names {name!r}, which is no task; choose from {', '.join(names)}")
    if proxy.tasks is not None and primary not in proxy.tasks:
        raise UserError(f"proxy.tasks lacks the primary {primary!r}; add it")


def _check_early_stopping(experiment: Experiment) -> None:
    """Fine-tuning alone has rows that choose the epoch."""
    for name, fit in (
        ("proxy", experiment.proxy_plan.fit), ("multitask", experiment.multitask_fit),
        ("bandit", experiment.bandit_plan.fit), ("relations", experiment.relations_plan.fit),
    ):  # fmt: skip
        if fit.early_stopping is not None:
            raise UserError(
                f"{name}.fit.early_stopping={fit.early_stopping}: no rows choose an epoch of this fit; use null, and "
                "finetune.fit.early_stopping"
            )


def _check_order(experiment: Experiment) -> None:
    """One choice alone sets the order of batches, and its steps suit the weighting."""
    sampling, weighting = experiment.sampling, experiment.weighting
    name = type(sampling).__name__
    if experiment.mixing_search is not None and sampling != Proportional():
        raise UserError(
            f"mixing sets the sampling itself, and so cannot use sampling={name}; drop it, or use mixing=none"
        )
    if is_rewarded_by_validation(sampling):
        if weighting.parts > 1:
            raise UserError(
                f"weighting {type(weighting).__name__} compares the tasks of a step, and sampling={name} has one task "
                "per step; use another sampling, or weighting=equal"
            )
        if (episode := getattr(sampling, "episode", None)) is not None:
            raise UserError(
                f"sampling.episode={episode} would undo the training of a model that is kept; use null (in "
                "bandit.policy.episode it is in its place)"
            )


def _check_weighting(experiment: Experiment) -> None:
    """The batch, the hardware, the precision and the optimizer are what the weighting and the sampling need."""
    weighting, hardware, fit = experiment.weighting, experiment.hardware, experiment.multitask_fit
    name, alignment = type(weighting).__name__.lower(), getattr(experiment.sampling, "feedback", "") == "alignment"
    if fit.batch_size < weighting.parts:
        raise UserError(
            f"multitask.fit.batch_size={fit.batch_size} has too few rows for weighting.parts={weighting.parts}; raise "
            "the one or lower the other"
        )
    if alignment and fit.batch_size < 2:
        raise UserError(f"multitask.fit.batch_size={fit.batch_size} has no rows for two tasks per step; use 2")
    if fit.freeze_layers and (alignment or {"last_layer", "whole_gradients"} & weighting.needs):
        # What compares gradients in the encoder leaves some of it to train; the encoder alone knows its layers.
        model = MultiTaskModel(experiment.encoder, [])
        freeze(model, fit)
        last_shared(model)
    if hardware.strategy == "fsdp" and hardware.is_distributed and ("unsharded" in weighting.needs or alignment):
        raise UserError("trainer.strategy=fsdp goes with weighting=equal and no gradient-rewarded sampling; use ddp")
    if "adamw" in weighting.needs and fit.optimizer != "adamw":
        raise UserError(
            f"weighting={name} learns at a rate that is meant for adamw; drop multitask.fit.optimizer={fit.optimizer}, "
            "or use another weighting"
        )
    if "whole_gradients" in weighting.needs:
        if hardware.is_distributed or hardware.accumulate > 1:
            raise UserError(
                f"weighting={name} works on one device, and without trainer.accumulate; use trainer=gpu or cpu"
            )
        if resolve_precision(fit.precision, hardware) == "fp16":
            raise UserError(
                f"weighting={name} does not scale losses for fp16; use multitask.fit.precision=bf16 or fp32"
            )
