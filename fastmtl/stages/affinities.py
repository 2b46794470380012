"""The stage `affinities`: how near tasks are, from single-task models and a proxy, without training any pair."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pandas import DataFrame
from torch import nn

from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import forward_rows
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.relations import affinities
from fastmtl.relations.affinities import Sample
from fastmtl.stages.ground import Ground, Rows
from fastmtl.stages.pool import tokenizer
from fastmtl.stages.scores import Scored
from fastmtl.store import WEIGHTS, Artifact


@dataclass(frozen=True, eq=False)
class Affinities:
    """`affinities.json`: name -> main task -> auxiliary task -> value (see `relations.affinities`).

    `proxy`, of `encoder`, has made the scores; `singles` are the models of each task alone (`Joint`). `rows` of each
    task, none of which the proxy was trained on, are what centroids, Fisher information and gradients are of.
    """

    ground: Ground
    encoder: EncoderSpec
    proxy: Artifact
    scored: Scored
    singles: Mapping[str, Artifact]
    rows: Rows
    name: ClassVar[str] = "affinities"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 1,
            "proxy": self.proxy.key,
            "scores": [artifact.key for artifact in self.scored.artifacts],
            "singles": {name: single.key for name, single in self.singles.items()},
            "rows": self.ground.rows_identity(self.rows, self.ground.encoder),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`; records the seconds of each affinity, beyond those of proxy, scores and single-task models."""
        tables, seconds = {}, {}
        ways: dict[str, Callable[[], DataFrame]] = {
            "confusion": self._confusion, "centroids": self._centroids,
            "taskemb": self._taskemb, "gradients": self._gradients,
        }  # fmt: skip
        for name, find in ways.items():
            started = time.perf_counter()
            tables[name] = find().to_dict("index")
            seconds[name] = round(time.perf_counter() - started, 3)
        (out / "affinities.json").write_text(json.dumps(tables, indent=1))
        return {"seconds": seconds}

    def _confusion(self) -> DataFrame:
        pool = self.ground.pool
        return affinities.confusion(self.scored.table(), pool.task_of(np.arange(len(pool))), pool.names)

    def _centroids(self) -> DataFrame:
        ground = self.ground
        how = ground.inference(ground.encoder, "fp32")
        encoder = ground.encoder.build().eval().to(how.device)
        return affinities.centroids({
            name: forward_rows(encoder, nn.Identity(), ground.pool.split(name, "train"), places, how, f"read {name}")
            for name, places in self.rows.items()
        })  # fmt: skip

    def _taskemb(self) -> DataFrame:
        found = {}
        for (name, single), sample in zip(self.singles.items(), self._samples(self.ground.encoder)):
            model = MultiTaskModel(self.ground.encoder, [sample.task])
            found[name] = affinities.fisher_embedding(self._loaded(model, single), sample)
        return affinities.taskemb(found)

    def _gradients(self) -> DataFrame:
        samples = self._samples(self.encoder)
        model = self._loaded(ProxyModel(self.encoder, [sample.task for sample in samples]), self.proxy)
        return affinities.gradient_cosine(model, samples, tokenizer(self.encoder).pad_id)

    def _loaded(self, model: MultiTaskModel, artifact: Artifact) -> MultiTaskModel:
        load_weights(model, artifact.path / WEIGHTS)
        return model.eval().to(self.ground.where.device)

    def _samples(self, encoder: EncoderSpec) -> Sequence[Sample]:
        pool = self.ground.tokenized(encoder)[1]
        return [Sample(pool.task(name), pool.split(name, "train"), places) for name, places in self.rows.items()]
