"""What all rows of a task's splits say of its labels, and what must be mended before anything is trained."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.discovery.columns import Roles, number_of
from fastmtl.data.discovery.result import shown
from fastmtl.data.discovery.sniff import Doubt
from fastmtl.data.sources.files import held_for_validation
from fastmtl.data.sources.formats import Reading, read
from fastmtl.errors import UserError

SHARE = 0.2
"""Of the training rows, set aside for validation where there is no file for it."""


@dataclass
class Seen:
    """The labels of one split."""

    file: str
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)
    """Label -> the first row that has it, from 1 on."""

    def add(self, label: str, row: int) -> None:
        self.counts[label] += 1
        self.first.setdefault(label, row)


def survey(paths: Mapping[str, Path], roles: Roles, reading: Reading, carve: bool) -> dict[str, Seen]:
    """Read every row of every split once; with `carve` the training file also is the validation split.

    Raises:
        UserError: A row without text or label, a number that is none, or as many tags as words.
    """
    seen: dict[str, Seen] = {}
    for split, path in paths.items():
        parts = [seen.setdefault(split, Seen(path.name))]
        if carve and split == "train":
            parts.append(seen.setdefault("validation", Seen(path.name)))
        for row, texts, value, held_out in _rows(path, roles, reading, carve and split == "train"):
            part = parts[int(held_out)]
            part.rows += 1
            _check_row(path.name, row, texts, value, roles, hidden_allowed=split == "test")
            for label in _labels(value, roles):
                part.add(reading.rename_labels.get(label, label), row)
        if not parts[0].rows:
            raise UserError(f"{path.name} has a header and no rows; fill it or take it away")
    return seen


def _rows(path: Path, roles: Roles, reading: Reading, carve: bool) -> Iterator[tuple[int, list[Any], Any, bool]]:
    start = 1
    for batch in read(path, [*roles.text, roles.label], reading):
        for name in roles.text:
            if name not in batch.schema.names:
                raise UserError(f"{path.name} has no column {name!r}, which the training file has; name all alike")
        texts = [batch.column(name).to_pylist() for name in roles.text]
        has_label = roles.label in batch.schema.names
        values = batch.column(roles.label).to_pylist() if has_label else [None] * batch.num_rows
        held_out = held_for_validation(texts, SHARE) if carve else np.zeros(batch.num_rows, dtype=bool)
        yield from zip(range(start, start + batch.num_rows), map(list, zip(*texts)), values, held_out.tolist())
        start += batch.num_rows


def _check_row(file: str, row: int, texts: list[Any], value: Any, roles: Roles, hidden_allowed: bool) -> None:
    for name, text in zip(roles.text, texts):
        if text is None or not str(text).strip() or text == []:
            raise UserError(f"{file}, row {row}, has no text in {name!r}; fill or remove the row")
    if value is None or (isinstance(value, str) and not value.strip()):
        if not hidden_allowed:
            raise UserError(f"{file}, row {row}, has no label in {roles.label!r}; fill or remove the row")
    elif roles.kind == "regression" and number_of(value) is None:
        raise UserError(
            f"{file}, row {row}, has {shown(value)!r} in {roles.label!r}, where others have numbers; mend it"
        )
    elif roles.kind == "tagging":
        words, tags = (item if isinstance(item, list) else str(item).split() for item in (texts[0], value))
        if len(words) != len(tags):
            raise UserError(f"{file}, row {row}, has {len(words)} words and {len(tags)} tags; give each word one tag")
        if None in words or "" in words:
            raise UserError(f"{file}, row {row}, has an empty word beside the tag {tags[_empty(words)]!r}; remove both")


def _empty(words: list[Any]) -> int:
    return next(place for place, word in enumerate(words) if word is None or word == "")


def _labels(value: Any, roles: Roles) -> list[str]:
    if value is None or value == "":
        return []
    if roles.kind == "tagging":
        return [str(tag) for tag in (value if isinstance(value, list) else str(value).split())]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def in_order(counts: Counter[str], names: Sequence[str]) -> list[str]:
    """All labels: class codes' names in their order, numbers by size, else by the alphabet."""
    if names:
        return [*names, *sorted({*counts} - {*names})]
    if all(number_of(label) is not None for label in counts):
        return sorted(counts, key=float)
    return sorted(counts, key=lambda label: (label.casefold(), label))


def check_labels(name: str, seen: Mapping[str, Seen], roles: Roles, carved: bool) -> list[Doubt]:
    """What is doubtful about the labels.

    Raises:
        UserError: The labels teach nothing, or a split measures nothing.
    """
    train = seen["train"]
    for split in ("train", "validation"):
        if split in seen and len(seen[split].counts) < 2:
            raise UserError(_one_value(seen[split], split, roles, carved))
    if roles.kind == "regression":
        return []
    doubts = _alike(seen)
    for split, part in seen.items():
        for label in sorted({*part.counts} - {*train.counts} if split != "train" else ()):
            if any(label in doubt[1] for doubt in doubts):
                continue
            near = difflib.get_close_matches(label, train.counts, n=1, cutoff=0.7)
            mean = f"; did you mean {shown(near[0])!r}?" if near else "; no training row has it"
            fix = {label: near[0] if near else "..."}
            where = f"{part.file}, row {part.first[label]}, has the label {shown(label)!r}, which {train.file} has not"
            doubts.append((f"{where}{mean}", f"rename_labels: {fix}"))
    return doubts


def _one_value(part: Seen, split: str, roles: Roles, carved: bool) -> str:
    only = next(iter(part.counts), None)
    if only is None:
        return f"{part.file} has no labels in {roles.label!r}; name the label column 'label'"
    what = "number" if roles.kind == "regression" else "class"
    said = f"all {part.rows} {split} rows of {part.file} have the {what} {shown(only)!r} in {roles.label!r}"
    if split == "train":
        return f"{said}, which teaches nothing; add rows of another {what}, or name another column 'label'"
    fix = "add rows, or a validation file of its own" if carved else f"add rows of another {what} to it"
    return f"{said}, which measures nothing; {fix}"


def _alike(seen: Mapping[str, Seen]) -> list[Doubt]:
    """Labels that differ in case or blanks alone."""
    variants: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, count in chain.from_iterable(part.counts.items() for part in seen.values()):
        variants["".join(label.split()).casefold()][label] += count
    doubts: list[Doubt] = []
    for counts in (counts for counts in variants.values() if len(counts) > 1):
        (most, often), *others = counts.most_common()
        for label, count in others:
            part = next(part for part in seen.values() if label in part.first)
            said = (
                f"{part.file}, row {part.first[label]}, has the label {label[:40]!r} ({count} rows), other rows "
                f"{most[:40]!r} ({often}); did you mean one?"
            )
            doubts.append((said, f"rename_labels: { ({label: most}) }"))
    return doubts
