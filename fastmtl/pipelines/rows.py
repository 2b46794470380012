"""Which rows of the data a cell trains on, chooses by and reports on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastmtl.data.duplicates import holdout, read_texts
from fastmtl.data.pool import TaskPool
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec, TokenizerSpec
from fastmtl.plans import Protocol, ProxyPlan, SelectionPlan
from fastmtl.seeds import generator
from fastmtl.stages.base import Context
from fastmtl.stages.leakage import Leakage, leaks
from fastmtl.stages.pool import open_pool, training_rows
from fastmtl.store import Artifact, Store
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import Hardware

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(kw_only=True)
class ExperimentRows:
    """The rows of a cell, by the protocol, the proxy's sample and what leaks; N are those of the whole pool."""

    tasks: tuple[TaskSpec, ...]
    store: Store
    encoder: EncoderSpec
    primary: str
    seed: int
    proxy_plan: ProxyPlan
    selection_plan: SelectionPlan
    protocol: Protocol
    hardware: Hardware = field(default_factory=Hardware)
    rows_per_task: int | Mapping[str, int] | None = None
    leakage_rule: Literal["report", "drop", "fail"] | None = None
    redraw: bool = False

    @cached_property
    def context(self) -> Context:
        """Where stages are built."""
        return Context(self.store, self.hardware)

    @property
    def task(self) -> TaskSpec:
        """The primary task."""
        return next(task for task in self.tasks if task.name == self.primary)

    @cached_property
    def pool(self) -> TaskPool:
        """All rows of all tasks as the main model reads them, cut to `rows_per_task` training rows where asked.

        With `redraw` the seed draws the primary's rows, the same for all arms.
        """
        draws = {self.primary: self.seed} if self.redraw else {}
        return open_pool(self.context, self.tasks, self.encoder, self.rows_kept, draws)

    @property
    def rows_kept(self) -> dict[str, int]:
        """Task -> training rows that are kept, where the task is cut."""
        return training_rows(self.rows_per_task, [task.name for task in self.tasks])

    def rows(self, row_ids: np.ndarray, **origin: Any) -> RowSet:
        """Row ids as a row set, the tasks in pool order."""
        return RowSet.of(self.tasks, self.pool.by_task(row_ids), origin=origin)

    def row_ids(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n,) row ids of task -> positions in its training file."""
        starts = dict(zip(self.pool.names, self.pool.starts))
        return np.concatenate([np.empty(0, np.int64), *(starts[name] + positions for name, positions in rows.items())])

    @cached_property
    def primary_rows(self) -> tuple[RowSet, RowSet]:
        """The primary's training rows (trained on, held out); nothing is held out under `paper`."""
        positions = self.pool.local(self.pool.rows_of(self.primary))
        kept, held = np.arange(len(positions)), np.arange(0)
        origin: dict[str, Any] = {"protocol": self.protocol.name, **({"redraw": True} if self.redraw else {})}
        if self.protocol.name == "strict":
            texts = read_texts(self.pool.split(self.primary, "train").folder, "train").take(positions)
            # duplicates are on one side of the cut
            kept, held = holdout(texts.keys(), self.protocol.holdout, self.seed, self.primary)
            origin["holdout"] = self.protocol.holdout
        trained = RowSet.of(self.tasks, {self.primary: positions[kept]}, origin=origin)
        return trained, RowSet.of(self.tasks, {self.primary: positions[held]})

    def split(self, split: str) -> RowSet:
        """All rows of a split of the primary."""
        return RowSet.of(self.tasks, {self.primary: np.arange(len(self.pool.split(self.primary, split)))}, split)

    @cached_property
    def reported_rows(self) -> RowSet:
        """The primary's validation split."""
        return self.split("validation")

    @property
    def choosing_rows(self) -> RowSet:
        """The rows on which choices are made: held-out ones, or under `paper` the validation split."""
        return self.primary_rows[1] if self.protocol.name == "strict" else self.reported_rows

    def rewarding(self, count: int) -> RowSet:
        """As many of the rows that choose as a round of a bandit reads."""
        chosen = self.choosing_rows
        return replace(chosen, positions=(np.sort(self._shuffled(chosen.positions[0])[:count]),))

    def _shuffled(self, positions: np.ndarray) -> np.ndarray:
        """Rows of the primary (n,) in the order in which they are taken to reward a bandit."""
        return positions[generator("rewarded", self.seed, self.primary).permutation(len(positions))]

    def bandit_rows(self, count: int, holdout: float) -> tuple[RowSet, RowSet]:
        """The rows of all tasks that AutoSeM's bandit trains on, and `count` rows of the primary that reward it.

        Under `strict`, the protocol's held-out rows reward it first, then others of the primary's, at most the share
        `holdout` of them all.
        """
        (trained, held), rewarded = self.primary_rows, self.rewarding(count)
        if self.protocol.name == "strict":
            kept, out = trained.positions[0], held.positions[0]
            most = max(1, int(holdout * (len(kept) + len(out))))
            taken = np.concatenate([self._shuffled(out), self._shuffled(kept)])[: min(count, most)]
            rewarded = replace(held, positions=(np.sort(taken),))
            trained = replace(trained, positions=(np.setdiff1d(kept, taken),))
        auxiliary = self.pool.by_task(self.candidate_rows(everything=True))
        return RowSet.of(self.tasks, {**trained, **auxiliary}, origin={"holdout": holdout}), rewarded

    # --- leakage -------------------------------------------------------------------------------------------------

    def leakage(self) -> Artifact | None:
        """Matches between the primary's rows and the other tasks' training rows; None without other tasks."""
        others = tuple(task for task in self.tasks if task.name != self.primary)
        return self.context.get(Leakage(self.task, others, TokenizerSpec(self.encoder))) if others else None

    @property
    def drops_leaks(self) -> bool:
        """Whether auxiliary rows that match held-back rows are left out; under `strict` they are unless configured."""
        return self.leakage_rule == "drop" or (self.leakage_rule is None and self.protocol.name == "strict")

    @cached_property
    def leaks(self) -> DataFrame:
        """The matches with the primary's validation, test and held-out rows (see `stages.leakage`)."""
        held_back = {split: np.arange(len(self.pool.split(self.primary, split))) for split in self.task.splits}
        held_back["train"] = self.primary_rows[1].positions[0]
        artifact = self.leakage()
        assert artifact is not None
        found = leaks(artifact, held_back)
        if self.leakage_rule == "fail" and len(found):
            counts = found.drop_duplicates(["split", "reference"])["split"].value_counts()
            hit = ", ".join(f"{count} {split} rows" for split, count in counts.items())
            raise UserError(f"auxiliary rows match the primary's held-back rows ({hit}); use data.leakage=drop")
        return found

    def without_leaks(self, row_ids: np.ndarray) -> np.ndarray:
        """The row ids, ascending, less those of auxiliary rows that are left out."""
        if len(self.tasks) < 2 or not (self.drops_leaks or self.leakage_rule == "fail"):
            return np.sort(row_ids)
        found = self.leaks.groupby("task")["row"]
        return np.setdiff1d(row_ids, self.row_ids({str(task): rows.to_numpy() for task, rows in found}))

    # --- the proxy's rows, and what may be chosen ------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """Row ids that proxies are trained on: one sample, or with `cross_fit` two disjoint ones."""
        plan, folds = self.proxy_plan, (0, 1) if self.proxy_plan.cross_fit else (0,)
        names = [task.name for task in self.tasks if plan.tasks is None or task.name in plan.tasks]
        drawn = [self.pool.sample(plan.examples_per_task, self.seed, fold, names) for fold in folds]
        return [self.without_leaks(sample) for sample in drawn]

    @property
    def sampled_by(self) -> dict[str, Any]:
        """How the proxy's rows came about."""
        plan = self.proxy_plan
        tasks = None if plan.tasks is None else list(plan.tasks)
        return {"examples_per_task": plan.examples_per_task, "cross_fit": plan.cross_fit, "tasks": tasks}

    def candidate_rows(self, everything: bool) -> np.ndarray:
        """Row ids of auxiliary rows; without `everything` less those that the proxy was trained on."""
        used = None if everything or self.proxy_plan.cross_fit else self.samples[0]
        return self.without_leaks(self.pool.candidates(self.primary, used))

    def candidate_ids(self) -> np.ndarray:
        """Row ids that may be chosen: a function of pool, proxy sample and seed, the same for every budgeted arm."""
        rows = self.candidate_rows(self.selection_plan.selector.takes_all)
        excluded = [self.pool.rows_of(name) for name in self.selection_plan.exclude]
        return np.setdiff1d(rows, np.concatenate(excluded), assume_unique=True) if excluded else rows

    def candidates(self) -> RowSet:
        """The rows that may be chosen."""
        plan = self.selection_plan
        origin = {} if plan.selector.takes_all else self.sampled_by
        excluded = {"exclude": list(plan.exclude)} if plan.exclude else {}
        return self.rows(self.candidate_ids(), **origin, leakage="drop" if self.drops_leaks else "report", **excluded)
