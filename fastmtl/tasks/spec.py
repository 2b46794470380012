"""What a task is: `TaskSpec`, its columns, labels, metrics and splits, and the source that its rows come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from fastmtl.errors import UserError
from fastmtl.identity import digest
from fastmtl.tasks.kinds import TaskKind, kind_of

if TYPE_CHECKING:
    import pyarrow as pa


class Source(Protocol):
    """Where the rows of a task come from, streamed as Arrow record batches so that memory stays flat."""

    @property
    def labels_are_codes(self) -> bool:
        """True when the label column of a classification task holds codes; False when it holds label names."""
        ...

    def fingerprint(self, task: TaskSpec) -> str:
        """A text that changes when the task's content changes."""
        ...

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        """The split's rows in a fixed order."""
        ...


@dataclass(frozen=True)
class TaskSpec:
    """One task: which columns hold it, what its labels mean, how it is measured, and where its rows are.

    Args:
        name: Its name in results, configurations and pools.
        kind: `classification`, `regression`, `tagging`, or the class path of a `TaskKind`.
        text: One or two text columns; for tagging one, the words of a row.
        labels: Names of classes or tags in code order; empty for regression.
        metrics: Metric names; the first is the headline metric.
        label: The label column; for tagging a tag for each word.
        splits: Maps train, validation and test to the source's own split names or files. Validation and test may be
            absent for a task that only ever serves as auxiliary.
        flag: An optional 0/1 column that says whether a row is truly relevant to the primary. No selector sees it,
            only the report reads it.
        source: Where the rows come from; None once a pool holds them.
    """

    name: str
    kind: str
    text: tuple[str, ...]
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    label: str = "label"
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation"}, hash=False
    )
    flag: str | None = None
    source: Source | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.name or "." in self.name:
            raise UserError(f"task {self.name!r}: a name must not be empty or hold a dot; rename the task")
        if len(self.text) not in (1, 2):
            raise UserError(f"task {self.name!r}: text={list(self.text)} must name one or two columns")
        kind = kind_of(self.kind, self.name)
        kind.check(self)
        if not self.metrics:
            object.__setattr__(self, "metrics", kind.metrics[:1])
        for metric in self.metrics:
            if metric not in kind.metrics:
                known = ", ".join(kind.metrics)
                raise UserError(f"task {self.name!r}: metric {metric!r} does not fit {self.kind}; use one of {known}")
        if "f1" in self.metrics and len(self.labels) > 2:
            raise UserError(f"task {self.name!r}: metric 'f1' needs two labels; use f1_macro for {len(self.labels)}")
        unknown = set(self.splits) - {"train", "validation", "test"}
        if unknown or not {"train", "test"} & set(self.splits):  # test alone: read by another task's model
            raise UserError(
                f"task {self.name!r}: splits={sorted(self.splits)}; train is needed, validation and test may follow"
            )

    @property
    def of_kind(self) -> TaskKind:
        """What tasks of this kind have in common: loss, metrics, predictions."""
        return kind_of(self.kind)

    @property
    def num_outputs(self) -> int:
        """Width of the task's head: one logit per class or tag, or one value."""
        return self.of_kind.num_outputs(self)

    @cached_property
    def content(self) -> str:
        """A digest of what the task is and of all its rows."""
        assert self.source is not None, f"task {self.name} was read from a pool"
        return digest([self.to_dict(), self.source.fingerprint(self)])

    def identity(self) -> str:
        """See `fastmtl.identity.plain`: `content`."""
        return self.content

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for manifests and cache keys; the source is not among them."""
        values = {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__}
        del values["source"]
        return {**values, "splits": dict(self.splits)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: Source | None = None) -> TaskSpec:
        """The inverse of `to_dict`; accepts what YAML and JSON give."""
        known = [name for name in cls.__dataclass_fields__ if name != "source"]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise UserError(f"task {values.get('name')!r}: unknown key {unknown[0]!r}; the keys are {', '.join(known)}")
        missing = {"name", "kind", "text"} - set(values)
        if missing:
            raise UserError(f"task {values.get('name')!r}: key {sorted(missing)[0]!r} is missing")
        if not isinstance(values.get("splits", {}), Mapping):
            raise UserError(f"task {values['name']!r}: splits={values['splits']!r} is no mapping; use {{train: FILE}}")
        plain = dict(values)
        for key in ("text", "labels", "metrics"):
            given = plain.get(key) or ()
            plain[key] = (given,) if isinstance(given, str) else tuple(str(value) for value in given)
        return cls(**plain, source=source)
