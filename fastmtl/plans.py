"""The choices of an experiment that are more than one value: how to select, the proxy, how to score, the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fastmtl.data.batching.online import ThompsonSampling
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Precision
from fastmtl.options import Count, Natural, Share, options
from fastmtl.scoring.base import Scorer


def _made(value: Any) -> Any:
    if isinstance(value, str | bool | int | float | list | tuple | dict):
        raise ValueError("no object")
    return value


Part = Annotated[Any, BeforeValidator(_made), Field(description="an option of its group, or {_target_: CLASS, ...}")]
"""An object that another class path of the configuration has made."""


@options
class SelectionPlan:
    """How auxiliary rows are valued and chosen.

    Args:
        name: What tables call it.
        selector: A `Selector`.
        scorer: A `Scorer`; null where the selector needs no scores.
        predictor: A file of a saved predictor of gains, which values tasks in place of the bandit.
        both_stages: Without auxiliary rows the primary alone still passes both training stages.
        exclude: Auxiliary tasks whose rows may not be chosen; the proxy still learns to tell them apart.
    """

    name: str
    selector: Part
    scorer: Part = None
    predictor: str | None = None
    both_stages: bool = False
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "scores" in self.selector.needs and self.scorer is None:
            raise UserError(f"selection={self.name}: its selector needs scores; set selection.scorer")
        if "scores" not in self.selector.needs and self.scorer is not None:
            raise UserError(f"selection={self.name}: its selector reads no scores; drop selection.scorer")
        if self.predictor is not None and "utilities" not in self.selector.needs:
            raise UserError(f"selection={self.name}: its selector values no tasks; drop selection.predictor")
        if self.scorer is not None and not self.scorer.per_primary and self.scorer.needs in ("nothing", "encoder"):
            raise UserError(f"selection={self.name}: a scorer without a proxy scores for one primary; set per_primary")


@options
class ProxyPlan:
    """The proxy's training sample and fit.

    Args:
        fit: How it is trained.
        examples_per_task: Rows of each task in its training sample, at most half of the task.
        cross_fit: A second proxy, trained on a disjoint sample, scores the first one's rows, so that every row is a
            candidate.
        encoder: The proxy's where it differs from the main model's: a small one selects for a large one.
        tasks: Tasks that it is trained on; null for all. Rows of other tasks are scored all the same, so that data can
            be added without training a new proxy.
    """

    fit: Part
    examples_per_task: Count = 500
    cross_fit: bool = False
    encoder: Part = None
    tasks: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.tasks is not None and len(set(self.tasks)) < max(2, len(self.tasks)):
            raise UserError(
                f"proxy.tasks={list(self.tasks)!r}: give two or more task names, each once, or null for all"
            )


@options
class BanditPlan:
    """AutoSeM's stage 1: rounds of the bandit over all tasks, in one fit of a fresh multi-task model.

    The model is thrown away, so the rows that reward it are not lost to what follows, and can be more than the protocol
    holds out.

    Args:
        fit: How the model is trained; `epochs` does not apply.
        policy: The bandit.
        rounds: Rounds after the warm-up.
        holdout: Under the protocol `strict` it is rewarded by `policy.validation_rows` of the primary's training rows,
            at most this share of them, and trains on the others.
    """

    fit: Part
    policy: ThompsonSampling = Field(default_factory=ThompsonSampling)
    rounds: Count = 200
    holdout: Share = 0.5

    def __post_init__(self) -> None:
        if self.policy.rounds is not None:
            raise UserError(
                f"bandit.policy.rounds={self.policy.rounds} does not apply; use null, and set bandit.rounds"
            )


@options
class RelationsPlan:
    """How tasks are trained alone and in pairs to see which gains by which (Bingel & Søgaard 2017).

    Args:
        fit: How a model is trained; `epochs` does not apply, and no epoch is chosen.
        batches: Batches of each task, alone or beside another, each drawn with equal probability. A point of the
            learning curve is ten batches, and its features need ten points.
        validation_rows: That many random rows measure a task, the same for every model; null: all.
    """

    fit: Part
    batches: Annotated[Count, Field(ge=100)] = 200
    validation_rows: Annotated[Count, Field(ge=2)] | None = 1000


@options
class CascadeLevel:
    """One step of a cascade as configured; what is null is as without a cascade.

    Args:
        layers: The first so many of the encoder's layers alone.
        encoder: Another encoder than the proxy's.
        scorer: Another scorer than the selection's.
        precision: Of weights and activations.
    """

    layers: Count | None = None
    encoder: Part = None
    scorer: Part = None
    precision: Precision | None = None


@dataclass(frozen=True)
class ScoringPass:
    """What reads rows once: the encoder of its proxies, its scorer, the precision of its pass."""

    encoder: EncoderSpec
    scorer: Scorer
    precision: Precision


@options
class ScoringPlan:
    """How rows are scored. With a `cascade`, each level but the last passes on its best rows for the primary alone.

    Args:
        precision: Of weights and activations; int8 is an approximation for CPUs.
        shard_rows: Rows per artifact: what a killed run loses at most.
        cascade: Names of `levels`, the cheap first.
        keep: Share of the candidates that reached a level which it passes on.
        audit: Rejected rows, drawn at random, that the last level scores too, to bound what the cascade lost.
        levels: Name -> level.
    """

    precision: Literal["auto"] | Precision = "auto"
    shard_rows: Count = 32768
    cascade: tuple[str, ...] = ()
    keep: Share = 0.25
    audit: Natural = 500
    levels: Mapping[str, Part] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ", ".join(self.levels)
        if len(self.cascade) == 1:
            raise UserError(f"scoring.cascade={list(self.cascade)!r}: give two or more of {names}, as in [small,large]")
        for name in self.cascade:
            if name not in self.levels:
                raise UserError(f"scoring.cascade names {name!r}, which is no level; choose from {names}")

    def passes(self, own: ScoringPass) -> tuple[ScoringPass, ...]:
        """The passes in order; `own` alone without a cascade."""
        passes = []
        for level in (self.levels[name] for name in self.cascade):
            encoder = level.encoder or own.encoder
            if level.layers is not None:
                encoder = replace(encoder, layers=level.layers)
            passes.append(ScoringPass(encoder, level.scorer or own.scorer, level.precision or own.precision))
        return tuple(passes) or (own,)

    def num_kept(self, candidates: int, level: int) -> int:
        """How many of the candidates reach a level; the first is 0."""
        for _ in range(level):
            candidates = max(1, round(self.keep * candidates))
        return candidates


@options
class Protocol:
    """Which rows choose the epoch.

    Args:
        name: `strict`: it is chosen on `holdout` of the primary's training rows, and the validation split is only
            reported on. `paper`: it is chosen and reported on the validation split, as FastMTL did; its scores are
            optimistic.
        holdout: Share of the primary's training rows.
    """

    name: Literal["strict", "paper"] = "strict"
    holdout: Share = 0.1
