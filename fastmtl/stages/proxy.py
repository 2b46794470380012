"""The stage `proxy`: a small multi-task model with a task discriminator, trained on a sample of every task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.samplers import Proportional
from fastmtl.plans import Reader
from fastmtl.stages.ground import Ground, Rows
from fastmtl.store import Artifact
from fastmtl.training.modules import FitConfig


@dataclass(frozen=True, eq=False)
class Proxy:
    """The proxy that a reader's scorer asks for, trained on `rows`."""

    ground: Ground
    title: str
    reader: Reader
    rows: Rows
    fit: FitConfig
    name: ClassVar[str] = "proxy"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": 1,
            "discriminator": self.reader.scorer.discriminator,
            **self.ground.fit_identity(self.rows, self.fit, self.reader.encoder, Proportional()),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        loss = self.reader.scorer.discriminator
        return self.ground.fit(self.title, self.rows, self.fit, out, self.reader.encoder, discriminator=loss)


def train_proxies(
    ground: Ground, level: str, reader: Reader, samples: list[np.ndarray], fit: FitConfig
) -> list[Artifact]:
    """A reader's proxies, one for each sample of row ids; none if its scorer needs none. `level` is for progress."""
    if not reader.scorer.discriminator:
        return []
    folds = "AB" if len(samples) > 1 else [""]
    return [
        ground.artifact(Proxy(ground, f"{level} proxy {fold}".strip(), reader, ground.pool.by_task(sample), fit))
        for fold, sample in zip(folds, samples)
    ]
