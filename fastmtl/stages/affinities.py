"""The stage `affinities`: how near tasks are, from single-task models and a proxy, without training any pair."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame
from torch import nn

from fastmtl.data.rows import RowSet
from fastmtl.models.encoder import EncoderSpec, tokenizer_of
from fastmtl.models.inference import forward_rows
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.relations import affinities
from fastmtl.relations.affinities import Sample
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.fitting import inference
from fastmtl.stages.joint import JointTraining
from fastmtl.stages.pool import pool_of
from fastmtl.stages.proxy import Proxy
from fastmtl.stages.scores import ShardScores
from fastmtl.store import WEIGHTS


@dataclass(frozen=True, eq=False)
class Affinities(Stage):
    """`affinities.json`: name -> main task -> auxiliary task -> value (see `relations.affinities`).

    Args:
        encoder: The main model's.
        proxy: What has made the `scores` of all rows.
        singles: The models of each task alone.
        rows: Rows of each task, none of which the proxy was trained on: centroids, Fisher information and gradients are
            of these.
    """

    kind = "affinities"
    encoder: EncoderSpec
    proxy: Proxy
    scores: tuple[ShardScores, ...]
    singles: tuple[JointTraining, ...]
    rows: RowSet

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        """See `Stage`; records the seconds of each affinity, beyond those of proxy, scores and single-task models."""
        tables, seconds = {}, {}
        ways: dict[str, Callable[[Context], DataFrame]] = {
            "confusion": self._confusion, "centroids": self._centroids,
            "taskemb": self._taskemb, "gradients": self._gradients,
        }  # fmt: skip
        for name, find in ways.items():
            started = time.perf_counter()
            tables[name] = find(context).to_dict("index")
            seconds[name] = round(time.perf_counter() - started, 3)
        (out / "affinities.json").write_text(json.dumps(tables, indent=1))
        return {"seconds": seconds}

    def _confusion(self, context: Context) -> DataFrame:
        names = list(self.proxy.rows)
        scores = [np.load(context.get(shard).path / "scores.npy") for shard in self.scores]
        tasks = [np.full(shard.rows.count, names.index(next(iter(shard.rows)))) for shard in self.scores]
        return affinities.confusion(np.concatenate(scores, axis=1), np.concatenate(tasks), names)

    def _centroids(self, context: Context) -> DataFrame:
        how = inference(context, self.encoder, "fp32")
        encoder = self.encoder.build().eval().to(how.device)
        pool = pool_of(context, self.encoder, self.rows)
        return affinities.centroids({
            name: forward_rows(encoder, nn.Identity(), pool.split(name, "train"), positions, how, f"read {name}")
            for name, positions in self.rows.items()
        })  # fmt: skip

    def _taskemb(self, context: Context) -> DataFrame:
        found = {}
        for single, sample in zip(self.singles, self._samples(context, self.encoder)):
            model = _loaded(MultiTaskModel(self.encoder, [sample.task]), single, context)
            found[sample.task.name] = affinities.fisher_embedding(model, sample)
        return affinities.taskemb(found)

    def _gradients(self, context: Context) -> DataFrame:
        samples = self._samples(context, self.proxy.encoder)
        model = _loaded(ProxyModel(self.proxy.encoder, [sample.task for sample in samples]), self.proxy, context)
        return affinities.gradient_cosine(model, samples, tokenizer_of(self.proxy.encoder).pad_id)

    def _samples(self, context: Context, encoder: EncoderSpec) -> Sequence[Sample]:
        pool = pool_of(context, encoder, self.rows)
        return [Sample(pool.task(name), pool.split(name, "train"), rows) for name, rows in self.rows.items()]


def _loaded(model: MultiTaskModel, stage: Stage, context: Context) -> MultiTaskModel:
    load_weights(model, context.get(stage).path / WEIGHTS)
    return model.eval().to(context.hardware.device)
