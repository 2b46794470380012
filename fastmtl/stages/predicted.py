"""The stage `utilities` by a saved predictor: each task's probability to help, before any pair is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastmtl.relations.predictor import GainPredictor
from fastmtl.stages.ground import Ground
from fastmtl.store import Artifact


@dataclass(frozen=True, eq=False)
class Predicted:
    """`utilities.json`: task -> probability of a gain, None for the primary; from the `features` of each task."""

    ground: Ground
    predictor: GainPredictor
    features: Mapping[str, Artifact]
    name: ClassVar[str] = "utilities"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`; the predictor counts by what it says, not by where it is."""
        return {
            "version": 1,
            "primary": self.ground.primary,
            "predictor": self.predictor,
            "features": {name: artifact.key for name, artifact in self.features.items()},
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        known = {name: artifact.read("features.json") for name, artifact in self.features.items()}
        utilities = {self.ground.primary: None, **dict(self.predictor.rank(self.ground.primary, known))}
        (out / "utilities.json").write_text(json.dumps(utilities, indent=1))
        return {}


def read_predictor(path: str) -> GainPredictor:
    """A predictor that was saved; `UserError` if there is none."""
    return GainPredictor.load(Path(path).expanduser())
