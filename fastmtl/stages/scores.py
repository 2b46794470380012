"""The stage `scores`: each reader passes over the rows that reach it, the first over all, and scores them in shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmtl.plans import Reader, ScoringPlan
from fastmtl.scoring.cascade import best_of
from fastmtl.scoring.shards import ScoreJob, Shard, assign, column, score
from fastmtl.stages.ground import Ground, Rows
from fastmtl.store import Artifact

Level = list[tuple[Shard, Artifact]]
"""What one reader read, and its scores."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of all levels. `tasks` are those that proxies know; `reached` (n,) are the row ids, ascending, of the
    candidates among which the last level chooses."""

    ground: Ground
    tasks: Sequence[str]
    levels: list[Level]
    reached: np.ndarray

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """One a shard, level after level."""
        return tuple(artifact for level in self.levels for _, artifact in level)

    def last(self) -> tuple[np.ndarray, np.ndarray]:
        """Row ids (n,) of all auxiliary rows that the last level read, and their scores (n,) for the primary."""
        return _for_primary(self.ground, self.levels[-1], self.tasks)

    def table(self) -> np.ndarray:
        """(T, N) float32 of the last level: each row's value to each of `tasks`; NaN = not scored."""
        pool = self.ground.pool
        out = np.full((len(self.tasks), len(pool)), np.nan, dtype=np.float32)
        for shard, artifact in self.levels[-1] if self.levels else ():
            start = pool.starts[pool.index(shard.task)]
            out[:, start + shard.places] = np.load(artifact.path / "scores.npy")
        return out


@dataclass(frozen=True, eq=False)
class Scoring:
    """The passes to make. `proxies` are those of each reader, each trained on one of `samples` (row ids), and `tasks`
    the tasks that they know."""

    ground: Ground
    plan: ScoringPlan
    readers: Sequence[Reader]
    proxies: list[list[Artifact]]
    samples: list[np.ndarray]
    tasks: Sequence[str]
    candidates: np.ndarray

    def run(self) -> Scored:
        """Level after level: the first reads every row, the others what the one before passes on to them."""
        levels: list[Level] = []
        pool, reached = self.ground.pool, self.candidates
        for i in range(len(self.readers)):
            if i == 0:
                todo = np.concatenate([pool.rows_of(name) for name in pool.names])
            else:
                count = self.plan.num_kept(len(self.candidates), i)
                read = _for_primary(self.ground, levels[-1], self.tasks)
                reached = todo = best_of(reached, *read, count, self.ground.salt("keep", i - 1))
            if i and i == len(self.readers) - 1:
                todo = np.union1d(todo, self._audited(reached))
            levels.append(self._read(self.readers[i], self.proxies[i], pool.by_task(todo)))
        return Scored(self.ground, self.tasks, levels, reached)

    def _audited(self, reached: np.ndarray) -> np.ndarray:
        """Rejected rows, drawn at random, that the last level reads too."""
        rejected = np.setdiff1d(self.candidates, reached, assume_unique=True)
        rng = np.random.default_rng(self.ground.salt("audit"))
        return rng.choice(rejected, min(self.plan.audit, len(rejected)), replace=False)

    def _read(self, reader: Reader, proxies: list[Artifact], rows: Rows) -> Level:
        ground, encoder = self.ground, reader.encoder

        def shard(task: str, places: np.ndarray, proxy: int) -> Shard:
            identity: dict[str, Any] = {
                "version": 2,
                "rows": ground.rows_identity({task: places}, encoder),
                "proxy": proxies[proxy].key if proxies else ground.pool.fingerprint,
                "scorer": reader.scorer,
                "precision": reader.precision,
            }
            return Shard(task, places, proxy, identity)

        # Without a proxy nothing was trained on, and the scorer may have read any row of the pool.
        trained_on = [ground.pool.by_task(sample) for sample in self.samples] if proxies else [{}]
        shards = [shard(*parts) for parts in assign(rows, trained_on, self.plan.shard_rows)]
        job = ScoreJob(
            store=ground.store, pool=ground.tokenized(encoder)[1], encoder=encoder, scorer=reader.scorer,
            tasks=tuple(ground.pool.task(name) for name in self.tasks),
            proxies=tuple(artifact.path for artifact in proxies), shards=shards,
            how=ground.inference(encoder, reader.precision),
        )  # fmt: skip
        return list(zip(shards, score(job, ground.where)))


def _for_primary(ground: Ground, level: Level, tasks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    return column(ground.pool, level, ground.primary, tasks.index(ground.primary))
