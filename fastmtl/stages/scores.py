"""The stages `prepared` and `scores`: what a scorer computes once, and its scores of all rows, shard by shard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fastmtl.data.rows import RowSet
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Precision
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.scoring.base import Scorer, ScoringInputs
from fastmtl.seeds import derive
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.fitting import inference
from fastmtl.stages.pool import pool_of
from fastmtl.stages.proxy import Proxy
from fastmtl.store import WEIGHTS, Artifact
from fastmtl.tasks import TaskSpec
from fastmtl.training.fit import device_name, run_distributed
from fastmtl.training.process import PeakMemory


@dataclass(frozen=True, eq=False)
class ScorerStage(Stage):
    """What both stages of a scorer have in common.

    Args:
        rows: The rows that it reads: all of them to prepare, those of one task to score.
        target: The primary's training rows that may be read; None for a scorer whose scores serve every primary.
        proxy: None for a scorer that needs none.
        seed: None for a scorer without randomness of its own.
    """

    scorer: Scorer
    rows: RowSet
    encoder: EncoderSpec
    proxy: Proxy | None
    target: RowSet | None
    precision: Precision
    seed: int | None

    @property
    def _all_rows(self) -> RowSet:
        """The rows of all tasks, so that row ids are the same in both stages."""
        return self.rows

    def inputs(self, context: Context) -> ScoringInputs:
        """What the scorer may read."""
        known = self.proxy.rows.tasks if self.proxy else ()
        weights = context.get(self.proxy).path / WEIGHTS if self.proxy else None
        primary, target = next(iter(self.target.items())) if self.target else ("", np.empty(0, np.int64))
        return ScoringInputs(
            tasks=tuple(task.name for task in known), primary=primary, target=target, rows=self.rows,
            pool=pool_of(context, self.encoder, self._all_rows, self.target),
            model=_model(self.scorer.needs, self.encoder, known, weights, context.hardware.device),
            inference=inference(context, self.encoder, self.precision), seed=derive("scorer", self.seed or 0, primary),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prepared(ScorerStage):
    """Whatever files `Scorer.prepare` writes."""

    kind = "prepared"

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        scorer: Any = self.scorer
        return {"device": device_name(context.hardware.device), **(scorer.prepare(self.inputs(context), out) or {})}


@dataclass(frozen=True, eq=False)
class ShardScores(ScorerStage):
    """`scores.npy`, (T, n) float32 for the T tasks of the proxy, or (1, n) for one primary."""

    kind = "scores"
    version = 3
    prepared: Prepared | None

    @property
    def _all_rows(self) -> RowSet:
        return self.prepared.rows if self.prepared else self.rows

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        inputs = self.inputs(context)
        ((task, positions),) = self.rows.items()
        device = context.hardware.device
        lengths = inputs.pool.split(task, "train").lengths[positions]
        state = context.get(self.prepared).path if self.prepared else None
        peak = PeakMemory(device)
        started = time.perf_counter()
        scores = self.scorer.score(inputs, state, task, positions)
        wall_s = time.perf_counter() - started
        expected = 1 if self.scorer.per_primary else len(inputs.tasks)
        assert scores.shape == (expected, len(positions)), f"{self.scorer} gave scores of the shape {scores.shape}"
        np.save(out / "scores.npy", scores)
        flops = self._flops(inputs, lengths)
        return {
            "device": device_name(device),
            "precision": self.precision,
            "task": task,
            "examples": len(positions),
            "tokens": int(lengths.sum()),
            "flops": flops,
            "rows_per_s": round(len(positions) / wall_s, 1),
            "wall_s": round(wall_s, 3),
            "peak_memory_mib": peak.mib(),
        }

    def _flops(self, inputs: ScoringInputs, lengths: np.ndarray) -> float:
        counted: Any = getattr(self.scorer, "flops", None)
        if counted is not None:
            return counted(inputs, lengths)
        encoder: Any = getattr(inputs.model, "encoder", inputs.model)
        return encoder.forward_flops(lengths) if encoder is not None else 0.0


@lru_cache(maxsize=2)
def _model(
    needs: str, encoder: EncoderSpec, tasks: tuple[TaskSpec, ...], weights: Path | None, device: Any
) -> nn.Module | None:
    """What the scorer reads, in eval mode; two are kept, since a pass may alternate between two proxies."""
    if needs == "nothing":
        return None
    model: Any = encoder.build()
    if weights is not None:
        model = (ProxyModel if needs == "discriminator" else MultiTaskModel)(encoder, tasks)
        load_weights(model, weights)
    return model.to(device).eval()


@dataclass(frozen=True)
class ScoringJob:
    """A pass over shards as a value that can be pickled to child processes."""

    context: Context
    shards: Sequence[ShardScores]

    def run(self) -> None:
        """This rank's share of the shards, of about as many rows as every other rank's."""
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        longest_first = sorted(self.shards, key=lambda shard: -shard.rows.count)
        for shard in longest_first[rank::world]:
            self.context.get(shard)


def score(context: Context, shards: Sequence[ShardScores]) -> list[Artifact]:
    """The artifacts of all shards in order; missing ones are computed on all devices."""
    missing = [shard for shard in shards if context.store.find(shard.kind, shard.key) is None]
    if context.hardware.is_distributed and len(missing) > 1:
        for shard in missing:  # by the driver, which alone holds the locks of what trains on several devices
            _ = shard.prepared and context.get(shard.prepared), shard.proxy and context.get(shard.proxy)
        context.store.root.mkdir(parents=True, exist_ok=True)
        run_distributed(ScoringJob(context, missing), context.hardware, context.store.root)
    built = {shard.key for shard in missing}
    artifacts = [replace(context.get(shard), hit=shard.key not in built) for shard in shards]
    for artifact in artifacts:
        context.keep(artifact)
    _model.cache_clear()
    return artifacts


def read_scores(context: Context, shards: Sequence[ShardScores], primary: str) -> tuple[list[RowSet], np.ndarray]:
    """The rows of all shards but the primary's own, and their scores (n,) for the primary, one after another."""
    read, values = [], [np.empty(0, dtype=np.float32)]
    for shard in shards:
        if primary not in shard.rows:
            column = 0 if shard.scorer.per_primary or not shard.proxy else list(shard.proxy.rows).index(primary)
            read.append(shard.rows)
            values.append(np.load(context.get(shard).path / "scores.npy", mmap_mode="r")[column])
    return read, np.concatenate(values)


def assign(
    rows: Mapping[str, np.ndarray], trained_on: Sequence[Mapping[str, np.ndarray]], size: int
) -> list[tuple[str, np.ndarray, int]]:
    """(task, positions, proxy) of each shard of at most `size` rows.

    A row goes to the first proxy that was not trained on it; a row that all of them were trained on is left out.
    """
    out = []
    for task, todo in rows.items():
        for proxy, seen in enumerate(trained_on):
            known = np.isin(todo, seen.get(task, ()), assume_unique=True)
            mine, todo = todo[~known], todo[known]
            out += [(task, mine[start : start + size], proxy) for start in range(0, len(mine), size)]
    return out
