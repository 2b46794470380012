"""What a stage is: fields that say what it is made from, an identity, and a way to fill its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol


class Stage(Protocol):
    """One step of an experiment; a frozen dataclass, so that another trial is `replace(stage, ...)`."""

    name: ClassVar[str]

    @property
    def identity(self) -> dict[str, Any]:
        """All that can change the result, and nothing else.

        Its `version` is raised when the meaning of the result changes, so that older artifacts are no longer found.
        """
        ...

    def build(self, out: Path) -> dict[str, Any]:
        """Fill the folder; returns what is recorded beside the result, its cost above all."""
        ...
