"""The stage `proxy`: a small multi-task model, trained on a sample of every task, as a rule with a discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastmtl.stages.base import Context
from fastmtl.stages.fitting import FitStage


@dataclass(frozen=True, eq=False)
class Proxy(FitStage):
    """The model trained on a sample; with `discriminator` None it has task heads alone."""

    kind = "proxy"
    discriminator: Literal["ce", "bce"] | None

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        return self.train("proxy", out, context, discriminator=self.discriminator)
