"""The stage `proxy`: a small multi-task model, trained on a sample of every task, as a rule with a discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from fastmtl.data.samplers import Proportional
from fastmtl.models.encoder import EncoderSpec
from fastmtl.plans import Reader
from fastmtl.stages.ground import Ground, Rows
from fastmtl.store import Artifact
from fastmtl.training.modules import FitConfig


@dataclass(frozen=True, eq=False)
class Proxy:
    """The model trained on `rows`; with `discriminator` None it has task heads alone, and no scorer can read it."""

    ground: Ground
    title: str
    encoder: EncoderSpec
    discriminator: Literal["ce", "bce"] | None
    rows: Rows
    fit: FitConfig
    name: ClassVar[str] = "proxy"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 1,
            "discriminator": self.discriminator,
            **self.ground.fit_identity(self.rows, self.fit, self.encoder, Proportional()),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        return self.ground.fit(self.title, self.rows, self.fit, out, self.encoder, discriminator=self.discriminator)


def train_proxies(
    ground: Ground, level: str, reader: Reader, samples: list[np.ndarray], fit: FitConfig
) -> list[Artifact]:
    """A reader's proxies, one for each sample of row ids; none if its scorer needs none. `level` is for progress."""
    loss = reader.scorer.discriminator
    if not loss:
        return []
    folds = "AB" if len(samples) > 1 else [""]
    return [
        ground.artifact(
            Proxy(ground, f"{level} proxy {fold}".strip(), reader.encoder, loss, ground.pool.by_task(sample), fit)
        )
        for fold, sample in zip(folds, samples)
    ]
