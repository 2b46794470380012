"""The stage `pool`: the token ids of a task under one tokenizer, and how many of its rows are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from fastmtl.data.pool import POOL_VERSION, write_task
from fastmtl.data.sources import Source
from fastmtl.models.encoder import EncoderSpec, Tokenizer
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True)
class TokenIds:
    """One task as token ids: an artifact of its own, so that adding a task tokenizes that task alone."""

    source: Source
    task: TaskSpec
    encoder: EncoderSpec
    name: ClassVar[str] = "pool"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "version": POOL_VERSION,
            "content": self.source.fingerprint(self.task),
            "task": self.task.to_dict(),
            **self.encoder.tokenizer_identity(),
        }

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        return write_task(out, self.source, self.task, tokenizer(self.encoder))


@lru_cache(maxsize=8)
def tokenizer(encoder: EncoderSpec) -> Tokenizer:
    """The encoder's tokenizer, which takes seconds to load."""
    return encoder.make_tokenizer()


def training_rows(rows_per_task: int | Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int]:
    """Task -> number of training rows that are kept; a task that is not in it keeps all."""
    if rows_per_task is None:
        return {}
    return dict(rows_per_task) if isinstance(rows_per_task, Mapping) else dict.fromkeys(names, rows_per_task)
