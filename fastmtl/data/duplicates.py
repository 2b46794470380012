"""Rows that say the same: exact, normalised and near-duplicate texts between two sets of rows and within one.

Rows are compared as a whole. A pair of texts matches a pair, in either order; a text alone, or the words of a tagging
task joined by blanks, matches a text alone. A text that is one side of a pair is no match, since the label of a pair
says nothing about one of its texts; whether labels agree is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fastmtl.data.minhash import THRESHOLD, NearTexts
from fastmtl.errors import UserError
from fastmtl.seeds import generator
from fastmtl.tasks import TaskSpec

KINDS = ("exact", "normalised", "near")
"""From the strictest on: each includes the ones before it."""
_BLANKED = r"[\p{P}\p{Sc}\p{Sm}\p{Sk}\p{Z}\p{C}]+"  # emoji stay: messages that differ in them say different things
_BETWEEN = "\x1f"


@dataclass(frozen=True)
class Texts:
    """The texts of n rows, one or two each."""

    first: Sequence[str]
    second: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Sequence[int] | np.ndarray) -> Texts:
        """Some rows, in the order asked for."""
        columns = (self.first,) if self.second is None else (self.first, self.second)
        return Texts(*([column[int(row)] for row in rows] for column in columns))

    @cached_property
    def _columns(self) -> tuple[pa.Array, ...]:
        return tuple(pa.array(column, pa.string()) for column in (self.first, self.second) if column is not None)

    @cached_property
    def folded(self) -> tuple[pa.Array, ...]:
        """Each column in lower case, with punctuation, currency and mathematical signs as blanks, and blanks folded.

        Punctuation becomes a blank rather than nothing, so that "don 't" and "don't" are the same words.
        """
        lower = (pc.utf8_lower(pc.utf8_normalize(column, form="NFKC")) for column in self._columns)
        return tuple(pc.utf8_trim_whitespace(pc.replace_substring_regex(column, _BLANKED, " ")) for column in lower)

    def keys(self, kind: str = "normalised") -> np.ndarray:
        """(n,) uint64: a key for each row, equal where the texts are: `exact`, or `normalised` but for case,
        punctuation, blanks and the order of a pair.

        Keys have 64 bits and are the same on every machine; two differing rows of a million share one once in 10^7
        cases.
        """
        columns = self._columns if kind == "exact" else self.folded
        if len(columns) == 2 and kind != "exact":
            columns = pc.min_element_wise(*columns), pc.max_element_wise(*columns)
        joined = pc.binary_join_element_wise(*columns, _BETWEEN) if len(columns) == 2 else columns[0]
        return pd.util.hash_array(joined.to_numpy(zero_copy_only=False), categorize=False)


def read_texts(folder: Path, split: str) -> Texts:
    """The texts of a whole split, column by column, from the files that `fastmtl.data.pool.write_task` wrote.

    Args:
        folder: of the task in the pool.
        split: train, validation or test.

    Returns:
        One text a row or two; the words of a tagging task joined by blanks.
    """
    task = TaskSpec.from_dict(json.loads((folder / "task.json").read_text())["task"])
    with pa.memory_map(str(folder / f"{split}.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
        columns = []
        for name in task.text:
            column = table.column(name)
            columns.append((pc.binary_join(column, " ") if task.of_kind.reads == "words" else column).to_pylist())
    return Texts(*columns)


def comparable(primary: TaskSpec, others: Sequence[TaskSpec]) -> tuple[str, ...]:
    """Names of the tasks whose rows can match the primary's: those with as many texts a row.

    Raises:
        UserError: There are others but no such one, so that nothing could be found whatever the rows are.
    """
    names = tuple(task.name for task in others if len(task.text) == len(primary.text))
    if others and not names:
        shape = ("one text", "two texts")[len(primary.text) - 1]
        raise UserError(
            f"data.leakage: {primary.name!r} has {shape} a row and {', '.join(task.name for task in others)} "
            "do not, so that no row can match; leave the option out"
        )
    return names


def matches(
    reference: Texts, candidate: Texts, kinds: Sequence[str] = KINDS, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Find the candidate rows that say what a reference row says.

    Every row with a match of a kind is listed with one at least. Where several rows on either side are equal, not all
    their combinations are listed, so that there are as many matches as rows, by order.

    Args:
        reference: the smaller side; near-duplicates are found through an index of it.
        candidate: any number of rows.
        kinds: which of `KINDS` to look for.
        threshold: least Jaccard similarity of near-duplicates, in (0, 1].

    Returns:
        `reference` and `candidate`, int64 places among the rows, ascending by candidate, and `kind`, the strictest that
        holds.

    Source: candidates by MinHash (Broder 1997) and banding (Indyk and Motwani 1998), then compared exactly.
    """
    assert (reference.second is None) == (candidate.second is None), "texts and pairs have no fields in common"
    found = []
    for kind in (kind for kind in KINDS if kind in kinds):
        keys = [texts.keys(kind) for texts in (reference, candidate)]
        if kind == "near":
            pairs = _near_keys(reference, candidate, keys, threshold)
        else:
            pairs = np.repeat(np.intersect1d(keys[0], keys[1])[:, None], 2, axis=1)
        found.append(_rows(pairs, *keys).assign(kind=kind))
    return pd.concat(found).drop_duplicates(["reference", "candidate"]).sort_values(["candidate", "reference"])


def holdout(groups: np.ndarray, share: float, seed: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Places (kept, held out) of training rows, both ascending, with each group on one side; the same for every arm.

    Groups are drawn by their first rows, so that one of many rows is held out no more often than one of a single row;
    a group that no longer fits into the share is passed over.

    Args:
        groups: (n,) the group of each row, as of `Texts.keys`.
        share: of the rows to hold out, in (0, 1).
        seed: of the draw.
        name: of the task.

    Raises:
        UserError: No row would be left to train on.
    """
    n = len(groups)
    order = generator("holdout", name, seed).permutation(n)
    _, first, group, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    room = max(1, round(share * n), int(size.min()))
    held = np.zeros(len(first), dtype=bool)
    for g in group[order[np.isin(order, first)]]:
        if size[g] <= room:
            held[g], room = True, room - size[g]
        if not room:
            break
    rows = held[group]
    if rows.all():
        raise UserError(
            f"task {name!r}: {n} training rows, {len(first)} of them distinct, leave none after holding out "
            f"{share:.0%}; use protocol=paper"
        )
    return np.flatnonzero(~rows), np.flatnonzero(rows)


def _rows(pairs: np.ndarray, reference_keys: np.ndarray, candidate_keys: np.ndarray) -> pd.DataFrame:
    """Rows of (p, 2) pairs of keys: each row on either side with the first row that has the other key."""
    table = pd.DataFrame(pairs, columns=["r", "c"])
    reference = pd.DataFrame({"r": reference_keys, "reference": np.arange(len(reference_keys))})
    candidate = pd.DataFrame({"c": candidate_keys, "candidate": np.arange(len(candidate_keys))})
    return pd.concat([
        table.merge(reference.drop_duplicates("r"), on="r").merge(candidate, on="c"),
        table.merge(reference, on="r").merge(candidate.drop_duplicates("c"), on="c"),
    ])[["reference", "candidate"]]  # fmt: skip


def _near_keys(reference: Texts, candidate: Texts, keys: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    """(p, 2) uint64: keys of near-duplicate rows; one row of each key is compared."""
    one = [np.unique(side, return_index=True)[1] for side in keys]
    references, candidates = (
        list(zip(*(column.take(rows).to_pylist() for column in texts.folded)))
        for texts, rows in zip((reference, candidate), one)
    )
    index = NearTexts({text for row in references for text in row}, threshold)
    other: dict[str, list[tuple[int, str]]] = {}  # of each reference text: rows that have it, and their other text
    for i, row in enumerate(references):
        for here, there in {(row[0], row[-1]), (row[-1], row[0])}:
            other.setdefault(here, []).append((i, there))
    near = index.near({row[0] for row in candidates})
    near |= index.near({row[-1] for row in candidates if row[0] in near} - near.keys())
    pairs = {
        (i, j)
        for j, row in enumerate(candidates)
        for here in near.get(row[0], ())
        for i, there in other[here]
        if there in near.get(row[-1], ())
    }
    if not pairs:
        return np.empty((0, 2), dtype=np.uint64)
    i, j = np.array(sorted(pairs)).T
    return np.stack([keys[0][one[0][i]], keys[1][one[1][j]]], axis=1)
