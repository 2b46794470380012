"""The choices of an experiment that are more than one value: how to select, the proxy, how to score, the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fastmtl.data.online import Thompson
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import DTYPES, Precision
from fastmtl.scoring.scorer import Scorer
from fastmtl.selection import BestTasks, Selector
from fastmtl.training.modules import FitConfig


@dataclass(frozen=True)
class SelectionPlan:
    """How auxiliary rows are valued (`scorer`, or None) and chosen (`selector`). `name` is for tables.

    A selector of tasks values them by a bandit, or with `predictor` by a saved predictor of gains (a file).
    """

    name: str
    selector: Selector
    scorer: Scorer | None = None
    predictor: str | None = None

    def __post_init__(self) -> None:
        if self.selector.needs_scores and self.scorer is None:
            raise UserError(f"selection={self.name}: its selector needs scores; set selection.scorer")
        if self.predictor is not None and not self.needs_utilities:
            raise UserError(f"selection={self.name}: its selector values no tasks; drop selection.predictor")

    @property
    def needs_utilities(self) -> bool:
        """Whether tasks must be valued before rows are chosen."""
        return isinstance(self.selector, BestTasks)


@dataclass(frozen=True)
class ProxyPlan:
    """The proxy's training sample and fit. With `cross_fit` a second proxy, trained on a disjoint sample, scores the
    first one's rows, so that every row is a candidate.

    `encoder` is the proxy's where it differs from the main model's: a small one selects for a large one. `tasks` are
    those that it is trained on, all by default; rows of other tasks are scored all the same, so that data can be added
    without training a new proxy.
    """

    fit: FitConfig
    examples_per_task: int = 500
    cross_fit: bool = False
    encoder: EncoderSpec | None = None
    tasks: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cross_fit, bool):
            raise UserError(f"proxy.cross_fit={self.cross_fit!r} is not a choice; use true or false")
        if isinstance(self.examples_per_task, bool) or not isinstance(self.examples_per_task, int):
            raise UserError(f"proxy.examples_per_task={self.examples_per_task!r} is not a whole number; use 1 or more")
        if self.examples_per_task < 1:
            raise UserError(f"proxy.examples_per_task={self.examples_per_task} is out of range; use 1 or more")
        if self.tasks is not None and (isinstance(self.tasks, str) or len(set(self.tasks)) < max(2, len(self.tasks))):
            raise UserError(f"proxy.tasks={self.tasks!r}: give two or more task names, each once, or null for all")


@dataclass(frozen=True)
class BanditPlan:
    """AutoSeM's stage 1: `rounds` of the bandit over all tasks, in one fit of a fresh multi-task model.

    Under the protocol `strict` it is rewarded by `policy.validation_rows` of the primary's training rows, at most
    `holdout` of them, and trains on the others. The model is thrown away, so these rows are not lost to what follows,
    and can be more than the protocol holds out. The number of epochs of `fit` does not apply.
    """

    fit: FitConfig
    policy: Thompson = field(default_factory=Thompson)
    rounds: int = 200
    holdout: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise UserError(f"bandit.rounds={self.rounds!r} is not a whole number of 1 or more")
        _check_share("bandit.holdout", self.holdout)


@dataclass(frozen=True)
class Level:
    """One step of a cascade as configured: what is None is as without a cascade.

    `layers` keeps the first layers of the proxy's encoder alone.
    """

    layers: int | None = None
    encoder: EncoderSpec | None = None
    scorer: Scorer | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.precision not in (None, *DTYPES):
            raise UserError(f"scoring.levels: precision={self.precision!r} is unknown; use {', '.join(DTYPES)} or null")


@dataclass(frozen=True)
class RelationsPlan:
    """How tasks are trained alone and in pairs to see which gains by which (Bingel & Søgaard 2017).

    `batches` are of each task, alone or beside another; each is drawn with equal probability. The number of epochs of
    `fit` does not apply, and no epoch is chosen. `validation_rows` measure a task: that many at random, the same for
    every model, or with null all of its validation split.
    """

    fit: FitConfig
    batches: int = 200
    validation_rows: int | None = 1000

    def __post_init__(self) -> None:
        # A point of the learning curve is ten batches, and its features need ten points.
        for name, least in (("batches", 100), ("validation_rows", 2)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and (name, value) != ("validation_rows", None):
                raise UserError(f"relations.{name}={value!r} is not a whole number of {least} or more")


@dataclass(frozen=True)
class Reader:
    """What reads rows once: the encoder of its proxies, its scorer, the precision of its pass."""

    encoder: EncoderSpec
    scorer: Scorer
    precision: Precision


@dataclass(frozen=True)
class ScoringPlan:
    """How rows are scored. With a `cascade`, each level but the last passes on its best rows for the primary alone.

    `cascade` names `levels`, the cheap first; a level passes on the share `keep` of the candidates that reached it, and
    `audit` rejected rows, drawn at random, are scored by the last level too: they say how many of its top rows were
    lost. `precision` int8 is an approximation for CPUs; `shard_rows` is how many rows a killed run loses at most.
    """

    precision: Precision | Literal["auto"] = "auto"
    shard_rows: int = 32768
    cascade: Sequence[str] = ()
    keep: float = 0.25
    audit: int = 500
    levels: Mapping[str, Level] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in ("auto", *DTYPES):
            raise UserError(f"scoring.precision={self.precision!r} is unknown; use auto, {', '.join(DTYPES)}")
        for name, least in (("shard_rows", 1), ("audit", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"scoring.{name}={value!r} is not a whole number of {least} or more")
        if isinstance(self.keep, bool) or not isinstance(self.keep, int | float) or not 0 < self.keep < 1:
            raise UserError(f"scoring.keep={self.keep!r} is out of range; use a share in (0, 1)")
        names = ", ".join(self.levels)
        if isinstance(self.cascade, str) or len(self.cascade) == 1:
            raise UserError(f"scoring.cascade={self.cascade!r}: give two or more of {names}, as in [small,large]")
        for name in self.cascade:
            if name not in self.levels:
                raise UserError(f"scoring.cascade names {name!r}, which is no level; choose from {names}")

    def readers(self, own: Reader) -> tuple[Reader, ...]:
        """The readers in order; `own` alone without a cascade."""
        readers = []
        for level in (self.levels[name] for name in self.cascade):
            encoder = level.encoder or own.encoder
            if level.layers is not None:
                encoder = replace(encoder, layers=level.layers)
            readers.append(Reader(encoder, level.scorer or own.scorer, level.precision or own.precision))
        return tuple(readers) or (own,)

    def num_kept(self, candidates: int, level: int) -> int:
        """How many of the candidates reach a level; the first is 0."""
        for _ in range(level):
            candidates = max(1, round(self.keep * candidates))
        return candidates


@dataclass(frozen=True)
class Protocol:
    """`strict`: the epoch is chosen on `holdout` of the primary's training rows, the validation split is only reported
    on. `paper`: chosen and reported on the validation split, as FastMTL did; its scores are optimistic."""

    name: Literal["strict", "paper"] = "strict"
    holdout: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in ("strict", "paper"):
            raise UserError(f"protocol.name={self.name!r} is unknown; use strict or paper")
        _check_share("protocol.holdout", self.holdout)


def _check_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{name}={value!r} is out of range; use a share in (0, 1)")
