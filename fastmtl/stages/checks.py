"""Choices that do not go together, each said in one line before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastmtl.data.online import Exp3Sampling, OnlineSampling, Thompson, Ucb1Sampling
from fastmtl.data.samplers import Proportional, Sampling
from fastmtl.errors import UserError
from fastmtl.mixing import MixingSearch
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.plans import ProxyPlan, ScoringPlan, SelectionPlan
from fastmtl.selection import BestTasks, MatchedRandom, PickedTasks
from fastmtl.stages.predicted import read_predictor
from fastmtl.tasks import TaskSpec
from fastmtl.training.fit import Where, resolve_precision
from fastmtl.training.modules import FitConfig, freeze, last_shared
from fastmtl.training.weighting import Equal, GradNorm, Surgery, Uncertainty, Weighting


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
    if len(tasks) < 2 and selection.name != "none":
        raise UserError(f"data has one task, {primary!r}, and so no auxiliary rows; add tasks or use selection=none")


def check_related(task: TaskSpec) -> None:
    """A task trained with others to see who gains can be measured."""
    if "validation" not in task.splits:
        raise UserError(f"task {task.name!r} has no validation split to measure gains on; add one, or leave it out")


def check_predictor(selection: SelectionPlan, tasks: Sequence[TaskSpec]) -> None:
    """A saved predictor can be read, and every task can be trained alone and measured."""
    if selection.predictor is not None:
        read_predictor(selection.predictor)
        for task in tasks:
            check_related(task)


def check_training_rows(kept: Mapping[str, object], names: Sequence[str]) -> None:
    """The numbers of rows to keep are numbers, of tasks that there are."""
    for name, count in kept.items():
        if name not in names:
            raise UserError(f"data.rows_per_task names {name!r}, which is no task; choose from {', '.join(names)}")
        if isinstance(count, bool) or not isinstance(count, int):
            raise UserError(f"data.rows_per_task={count!r} is not a whole number; use 2 or more")
        if count < 2:
            raise UserError(f"data.rows_per_task={count} is too few; use 2 or more")


def check_scoring(scoring: ScoringPlan, selection: SelectionPlan, where: Where) -> None:
    """Rows can be scored here in this precision, and all those that the selector asks for are."""
    if scoring.precision == "int8" and where.device.type != "cpu":
        raise UserError("scoring.precision=int8 is for CPUs; use auto on a GPU")
    if scoring.cascade and isinstance(getattr(selection.selector, "rows", selection.selector), MatchedRandom):
        raise UserError(
            f"selection={selection.name} draws from all candidates, which a cascade does not score to the end; "
            "use scoring.cascade=[]"
        )


def check_proxy_tasks(proxy: ProxyPlan, primary: str, names: Sequence[str]) -> None:
    """The proxy is trained on tasks of the data, the primary among them."""
    for name in proxy.tasks or ():
        if name not in names:
            raise UserError(f"proxy.tasks names {name!r}, which is no task; choose from {', '.join(names)}")
    if proxy.tasks is not None and primary not in proxy.tasks:
        raise UserError(f"proxy.tasks lacks the primary {primary!r}; add it")


def check_selected_tasks(selection: SelectionPlan, auxiliary: Sequence[str]) -> None:
    """A selector of tasks can have the tasks that it asks for."""
    if isinstance(selection.selector, PickedTasks | BestTasks):
        selection.selector.check(auxiliary)


def check_order(sampling: Sampling | OnlineSampling, search: MixingSearch | None, weighting: Weighting) -> None:
    """One choice alone sets the order of batches, and its steps suit the weighting."""
    if search is not None and sampling != Proportional():
        raise UserError(
            f"hparams_search sets the sampling itself, and so cannot use sampling={type(sampling).__name__}; "
            "drop it, or use hparams_search=none"
        )
    if isinstance(sampling, Thompson) and weighting.parts > 1:
        raise UserError(
            f"weighting {type(weighting).__name__} compares the tasks of a step, and sampling=bandit has one "
            "task a step; use another sampling, or weighting=equal"
        )
    if isinstance(sampling, Thompson) and sampling.episode is not None:
        raise UserError(
            f"sampling.episode={sampling.episode} would undo the training of a model that is kept; use null (in "
            "bandit.policy.episode it is in its place)"
        )


def check_parts(sampling: Sampling | OnlineSampling, weighting: Weighting, fit: FitConfig) -> None:
    """Each task of a step has a row of the batch."""
    rows = fit.batch_size
    if rows < weighting.parts:
        raise UserError(
            f"multitask.fit.batch_size={rows} has too few rows for weighting.parts={weighting.parts}; raise the one "
            "or lower the other"
        )
    if isinstance(sampling, Exp3Sampling | Ucb1Sampling) and rows < 2:
        raise UserError(f"multitask.fit.batch_size={rows} has no rows for two tasks a step; use 2")


def check_shared(
    sampling: Sampling | OnlineSampling, weighting: Weighting, fit: FitConfig, encoder: EncoderSpec
) -> None:
    """What compares gradients in the encoder leaves some of it to train; the encoder alone knows its layers."""
    if fit.freeze_layers and (
        isinstance(sampling, Exp3Sampling | Ucb1Sampling) or isinstance(weighting, GradNorm | Surgery)
    ):
        model = MultiTaskModel(encoder, [])
        freeze(model, fit)
        last_shared(model)


def check_sharding(sampling: Sampling | OnlineSampling, weighting: Weighting, where: Where) -> None:
    """What looks at gradients has them whole."""
    sharded = where.strategy == "fsdp" and where.is_distributed
    if sharded and (weighting != Equal() or isinstance(sampling, Exp3Sampling | Ucb1Sampling)):
        raise UserError("trainer.strategy=fsdp goes with weighting=equal and no gradient-rewarded sampling; use ddp")


def check_optimizer(weighting: Weighting, fit: FitConfig) -> None:
    """What a weighting learns is stepped as its rate is meant."""
    if isinstance(weighting, Uncertainty) and fit.optimizer != "adamw":
        raise UserError(
            f"weighting=uncertainty learns at a rate that is meant for adamw; drop multitask.fit.optimizer="
            f"{fit.optimizer}, or use another weighting"
        )


def check_surgery(weighting: Weighting, fit: FitConfig, where: Where) -> None:
    """Gradient surgery has all gradients of a step on one device, and unscaled."""
    if not isinstance(weighting, Surgery):
        return
    name = type(weighting).__name__.lower()
    if where.is_distributed or where.accumulate > 1:
        raise UserError(f"weighting={name} works on one device, and without trainer.accumulate; use trainer=gpu or cpu")
    if resolve_precision(fit.precision, where) == "fp16":
        raise UserError(f"weighting={name} does not scale losses for fp16; use multitask.fit.precision=bf16 or fp32")
