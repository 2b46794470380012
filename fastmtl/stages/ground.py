"""What all stages of an experiment stand on: its artifacts, its rows, the primary's share of them, and its fits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmtl.data.online import OnlineSampling, Thompson
from fastmtl.data.pool import TaskPool, holdout
from fastmtl.data.samplers import Proportional, Sampling
from fastmtl.data.sources import Source
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Inference, Precision
from fastmtl.plans import Protocol
from fastmtl.stages.pool import TokenIds, tokenizer
from fastmtl.stages.stage import Stage
from fastmtl.store import MANIFEST, Artifact, Store, digest
from fastmtl.training.fit import FitJob, Where, run_fit
from fastmtl.training.modules import FitConfig

Evaluated = tuple[str, str, np.ndarray]
"""Task, split, and places (n,) of the rows that are measured."""
Rows = Mapping[str, np.ndarray]
"""Task -> places (n,) in its training file."""
FEW_ROWS = 50
"""A share of right answers over fewer rows than this has a standard error of seven points or more."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Shared by all stages of one experiment. `encoder` is the main model's; `kept` cuts tasks (see `TaskPool`)."""

    store: Store
    source: Source
    kept: Mapping[str, int]
    encoder: EncoderSpec
    primary: str
    seed: int
    protocol: Protocol
    where: Where
    _made: dict[tuple[str, str], Artifact] = field(default_factory=dict, init=False, repr=False)
    _pools: dict[str, tuple[list[Artifact], TaskPool]] = field(default_factory=dict, init=False, repr=False)

    def artifact(self, stage: Stage, needs: str = MANIFEST) -> Artifact:
        """The stage's result, found or built; built again where it lacks the file that is needed.

        What this experiment built is not a hit when it asks again, as it does for the best trial of a search.
        """
        identity = stage.identity
        key = stage.name, digest(identity)
        if key not in self._made or not (self._made[key].path / needs).exists():
            self._made[key] = self.store.get(stage.name, identity, stage.build, needs)
        return self._made[key]

    def salt(self, *purpose: str | int) -> int:
        """A seed of its own for each purpose; another primary draws other rows."""
        return int(digest([*purpose, self.seed, self.primary]), 16)

    # --- rows ----------------------------------------------------------------------------------------------------

    def tokenized(self, encoder: EncoderSpec) -> tuple[list[Artifact], TaskPool]:
        """All rows of all tasks as token ids of an encoder's tokenizer, under the same row ids for every encoder."""
        key = digest(encoder.tokenizer_identity())
        if key not in self._pools:
            made = [self.artifact(TokenIds(self.source, task, encoder)) for task in self.source.tasks]
            self._pools[key] = made, TaskPool([one.path for one in made], self.kept)
        return self._pools[key]

    @cached_property
    def pool(self) -> TaskPool:
        """The rows as the main model reads them."""
        return self.tokenized(self.encoder)[1]

    def rows_identity(self, rows: Rows, encoder: EncoderSpec) -> dict[str, list[str]]:
        """Which rows, by content of their pool and their places: however they came to be chosen."""
        pool = self.tokenized(encoder)[1]
        return {
            name: [pool.folders[pool.index(name)].name, hashlib.sha256(places.tobytes()).hexdigest()[:16]]
            for name, places in rows.items()
        }

    @cached_property
    def primary_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (trained on, held out) of the primary's training rows; nothing is held out under `paper`."""
        places = self.pool.local(self.pool.rows_of(self.primary))
        if self.protocol.name == "paper":
            return places, places[:0]
        kept, held = holdout(len(places), self.protocol.holdout, self.seed, self.primary)
        return places[kept], places[held]

    @property
    def evaluated(self) -> Evaluated:
        """The rows of the primary on which choices are made: held-out ones, or under `paper` the validation split."""
        if self.protocol.name == "strict":
            return self.primary, "train", self.primary_rows[1]
        return self.primary, "validation", np.arange(len(self.pool.split(self.primary, "validation")))

    def rewarded(self, policy: Thompson) -> Evaluated:
        """As many of these rows as a round of the bandit reads."""
        primary, split, places = self.evaluated
        return primary, split, np.sort(self.shuffled(places)[: policy.validation_rows])

    def shuffled(self, places: np.ndarray) -> np.ndarray:
        """Rows of the primary (n,) in the order in which they are taken to reward a bandit."""
        return places[np.random.default_rng(self.salt("rewarded")).permutation(len(places))]

    def evaluated_identity(self, evaluated: Evaluated) -> list[Any]:
        """Which rows are measured."""
        primary, split, places = evaluated
        return [split, self.rows_identity({primary: places}, self.encoder)]

    # --- models --------------------------------------------------------------------------------------------------

    def fit_identity(
        self, rows: Rows, fit: FitConfig, encoder: EncoderSpec, sampling: Sampling | OnlineSampling | Thompson
    ) -> dict[str, Any]:
        """What every fit depends on."""
        return {
            "rows": self.rows_identity(rows, encoder),
            "encoder": encoder.identity(),
            "fit": fit,
            "sampling": sampling,
            "seed": self.seed,
        }

    def fit(
        self, title: str, rows: Rows, fit: FitConfig, out: Path, encoder: EncoderSpec, **more: Any
    ) -> dict[str, Any]:
        """Fit a model into a folder and return the cost records; `more` are other fields of `FitJob`."""
        job = FitJob(
            title=title, pool=self.tokenized(encoder)[1], encoder=encoder, rows=rows, fit=fit, seed=self.seed,
            pad_id=tokenizer(encoder).pad_id, out=out, where=self.where, **{"sampling": Proportional(), **more},
        )  # fmt: skip
        return run_fit(job)

    def inference(self, encoder: EncoderSpec, precision: Precision | Literal["auto"]) -> Inference:
        """How a model that was fitted is read."""
        assert precision != "auto"  # resolved when the experiment was made
        return Inference(tokenizer(encoder).pad_id, self.where.device, precision)
