"""What a stage is: a frozen value whose key is derived from its fields; and the context in which stages are built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from fastmtl.data.rows import RowSet
from fastmtl.identity import counted, digest, plain, stable_name
from fastmtl.models.encoder import TokenizerSpec
from fastmtl.store import MANIFEST, Artifact, Store
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import Hardware


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """One step: upstream stages, row sets and plain options; another trial is `replace(stage, ...)`.

    `kind` names the folder of its artifacts and says what tables call it. `version` is raised when the meaning of the
    result changes, so that older artifacts are no longer found. Both outlive the class's name and place.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1

    @cached_property
    def parts(self) -> list[Any]:
        """What the key is made of: kind, version and the fields in order, upstream stages by their keys."""
        return [self.kind, self.version, [[f.name, plain(getattr(self, f.name))] for f in counted(self)]]

    @cached_property
    def key(self) -> str:
        """The name of the artifact."""
        return digest(self.parts)

    def identity(self) -> str:
        return self.key

    @abstractmethod
    def build(self, out: Path, context: Context) -> dict[str, Any]:
        """Fill the folder `out`; return what is recorded beside the result, its cost above all."""


@dataclass(frozen=True, eq=False)
class Context:
    """Where stages are built: nothing in it can change a number, and it is in no key."""

    store: Store
    hardware: Hardware
    _made: dict[tuple[str, str], Artifact] = field(default_factory=dict, init=False, repr=False)

    def __reduce__(self) -> Any:  # what this process has made is of no use to another
        return Context, (self.store, self.hardware)

    def get(self, stage: Stage, needs: str = MANIFEST) -> Artifact:
        """The stage's result, found or built; built again where it lacks the file that is needed.

        What this context built is not a hit when it is asked for again, as the best trial of a search is.
        """
        name = stage.kind, stage.key
        if name not in self._made or not (self._made[name].path / needs).exists():
            self._made[name] = self.store.get(
                stage.kind, stage.key, stage.parts, lambda out: stage.build(out, self), needs
            )
        return self._made[name]

    @property
    def names(self) -> list[tuple[str, str]]:
        """Kind and key of everything that was asked for."""
        return sorted(self._made)

    def keep(self, artifact: Artifact) -> None:
        """Take what other processes built for this one, which is no hit either when it is asked for."""
        self._made[artifact.kind, artifact.key] = artifact


def upstream(stage: Stage) -> Iterator[Stage]:
    """The stages that a stage is made from, directly or not, each once, the first to be built first."""
    seen: dict[str, Stage] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Stage):
            for part in fields(value):
                walk(getattr(value, part.name))
            seen.setdefault(value.key, value)
        elif isinstance(value, tuple | list):
            for inner in value:
                walk(inner)

    for part in fields(stage):
        walk(getattr(stage, part.name))
    return iter(seen.values())


def options_of(stage: Stage) -> dict[str, Any]:
    """Dotted option -> plain value of a stage and of all that it is made from: what tells the arms of a study apart.

    Stages count by their kind, row sets by their origin, and seeds not at all.
    """
    found: dict[str, Any] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, Stage | RowSet | TokenizerSpec | TaskSpec):
            for name, part in value.origin.items() if isinstance(value, RowSet) else ():
                add(f"{key.partition('.')[0]}.{name}", part)
        elif is_dataclass(value) and not isinstance(value, type):
            found[key] = stable_name(type(value))
            for part in fields(value):
                add(f"{key}.{part.name}", getattr(value, part.name))
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                add(f"{key}.{name}", inner)
        elif not (isinstance(value, tuple | list) and any(isinstance(inner, Stage | TaskSpec) for inner in value)):
            found[key] = plain(value)

    for one in (*upstream(stage), stage):
        for part in fields(one):
            if part.name != "seed":
                add(f"{one.kind}.{part.name}", getattr(one, part.name))
    return found
