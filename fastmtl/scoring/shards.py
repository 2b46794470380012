"""Scoring in shards: each an artifact of its own, so that a killed pass goes on and several devices share the work."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.pool import TaskPool
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import DTYPES, Inference
from fastmtl.models.multitask import ProxyModel, load_weights
from fastmtl.models.roofline import gemm_flops_per_s
from fastmtl.scoring.scorer import Scorer
from fastmtl.store import WEIGHTS, Artifact, Store, digest
from fastmtl.tasks import TaskSpec
from fastmtl.training.fit import Where, device_name, run_distributed
from fastmtl.training.process import PeakMemory


@dataclass(frozen=True)
class Shard:
    """Rows of one task, (n,) places in its training file, that one proxy reads; `identity` names the result."""

    task: str
    places: np.ndarray
    proxy: int
    identity: Mapping[str, Any]


def assign(
    rows: Mapping[str, np.ndarray], trained_on: Sequence[Mapping[str, np.ndarray]], size: int
) -> list[tuple[str, np.ndarray, int]]:
    """(task, places, proxy) of each shard of at most `size` rows.

    A row goes to the first proxy that was not trained on it; a row that all of them were trained on is left out.
    """
    out = []
    for task, todo in rows.items():
        for proxy, seen in enumerate(trained_on):
            known = np.isin(todo, seen.get(task, ()), assume_unique=True)
            mine, todo = todo[~known], todo[known]
            out += [(task, mine[start : start + size], proxy) for start in range(0, len(mine), size)]
    return out


@dataclass(frozen=True)
class ScoreJob:
    """All that scoring needs, as values that can be pickled to child processes. `proxies` are folders of weights.

    A shard's artifact holds `scores.npy`, (T, n) float32, T being `tasks`.
    """

    store: Store
    pool: TaskPool
    tasks: tuple[TaskSpec, ...]
    encoder: EncoderSpec
    proxies: tuple[Path, ...]
    scorer: Scorer
    shards: Sequence[Shard]
    how: Inference

    def run(self) -> None:
        """This rank's share of the shards, of about as many tokens as every other rank's."""
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        tokens = [self.pool.split(s.task, "train").lengths[s.places].sum() for s in self.shards]
        longest_first = np.argsort(tokens, kind="stable")[::-1]
        for i in longest_first[rank::world]:
            self.artifact(self.shards[i])

    def artifact(self, shard: Shard) -> Artifact:
        """The scores of a shard, computed if they are missing."""
        return self.store.get("scores", shard.identity, lambda out: self._build(shard, out))

    def _build(self, shard: Shard, out: Path) -> dict[str, Any]:
        proxy = self._models[shard.proxy] if self.proxies else None
        gemm = gemm_flops_per_s(self.how.device, DTYPES[self.how.precision])
        lengths = self.pool.split(shard.task, "train").lengths[shard.places]
        peak = PeakMemory(self.how.device)
        started = time.perf_counter()
        scores_Tn = self.scorer.score(self.pool, shard.task, shard.places, proxy, self.how)
        wall_s = time.perf_counter() - started
        assert scores_Tn.shape == (len(self.tasks), len(shard.places))
        np.save(out / "scores.npy", scores_Tn)
        flops = proxy.encoder.forward_flops(lengths) if proxy else 0.0
        return {
            "device": device_name(self.how.device),
            "precision": self.how.precision,
            "task": shard.task,
            "examples": len(shard.places),
            "tokens": int(lengths.sum()),
            "flops": flops,
            "gemm_flops_per_s": round(gemm),
            "mfu": round(flops / wall_s / gemm, 4),
            "rows_per_s": round(len(shard.places) / wall_s, 1),
            "wall_s": round(wall_s, 3),
            "peak_memory_mib": peak.mib(),
        }

    @cached_property
    def _models(self) -> list[ProxyModel]:
        models = []
        for folder in self.proxies:
            model = ProxyModel(self.encoder, self.tasks)
            load_weights(model, folder / WEIGHTS)
            models.append(model.to(self.how.device).eval())
        return models


def column(
    pool: TaskPool, scored: Sequence[tuple[Shard, Artifact]], primary: str, place: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row ids (n,) of all scored rows of auxiliary tasks, and their scores (n,) in row `place` of each shard."""
    row_ids, values = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
    for shard, artifact in scored:
        if shard.task != primary:
            row_ids.append(pool.starts[pool.index(shard.task)] + shard.places)
            values.append(np.load(artifact.path / "scores.npy", mmap_mode="r")[place])
    return np.concatenate(row_ids), np.concatenate(values)


def score(job: ScoreJob, where: Where) -> list[Artifact]:
    """The artifacts of all shards in order; missing ones are computed on all devices of `where`."""
    missing = [shard for shard in job.shards if job.store.find("scores", shard.identity) is None]
    if where.resolved().is_distributed and len(missing) > 1:
        job.store.root.mkdir(parents=True, exist_ok=True)
        run_distributed(replace(job, shards=missing), where, job.store.root)
    built = {digest(shard.identity) for shard in missing}
    return [replace(artifact, hit=artifact.key not in built) for artifact in map(job.artifact, job.shards)]
