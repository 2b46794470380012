"""The stage `features`: what a task's data and its learning curve alone say, for a predictor of gains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastmtl.data.pool import TokenRows
from fastmtl.models.encoder import Tokenizer
from fastmtl.relations import curves
from fastmtl.relations.features import Variant, curve_features, data_features
from fastmtl.stages.ground import Ground
from fastmtl.stages.pool import tokenizer
from fastmtl.store import Artifact
from fastmtl.tasks import TaskSpec

BINS = 5
"""Of equal width, between a regression's lowest and highest training value: its labels."""
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Features:
    """`features.json`: those of `relations.features`, of a task whose model alone is `single` (a `Joint`).

    Words are those of all text columns, in lower case, cut at punctuation; a tagging task's are its own. The vocabulary
    is of the words that are one token of the encoder's tokenizer; the second split is validation, as in the paper.
    """

    ground: Ground
    single: Artifact
    task: str
    variant: Variant
    name: ClassVar[str] = "features"

    @property
    def identity(self) -> dict[str, Any]:
        """See `Stage`."""
        return {"version": 1, "single": self.single.key, "task": self.task, "variant": self.variant}

    def build(self, out: Path) -> dict[str, Any]:
        """See `Stage`."""
        pool, task = self.ground.pool, self.ground.pool.task(self.task)
        places = pool.local(pool.rows_of(self.task))
        train, validation = pool.split(self.task, "train"), pool.split(self.task, "validation")
        words, labels = words_of(task, train, places), labels_of(task, train, places)
        later = words_of(task, validation, np.arange(len(validation)))
        known = whole_words(tokenizer(self.ground.encoder), {word for row in words for word in row})
        curve = curves.from_run(self.single.path / "curves.csv", self.task)
        found = {
            **data_features(self.task, words, labels, later, known, self.variant),
            **curve_features(self.task, *curve, self.variant),
        }
        (out / "features.json").write_text(json.dumps(found, indent=1))
        return {"examples": len(words)}


def words_of(task: TaskSpec, rows: TokenRows, places: np.ndarray) -> list[list[str]]:
    """The words of each row."""
    shown = ([row[column] for column in task.text] for row in rows.texts(places))
    if task.kind == "tagging":
        return [[word.lower() for word in words] for (words,) in shown]
    return [_WORD.findall(" ".join(texts).lower()) for texts in shown]


def labels_of(task: TaskSpec, rows: TokenRows, places: np.ndarray) -> list[list[str]]:
    """The labels of each row: one, or a tagging task's one a word."""
    if task.kind == "tagging":
        assert rows.tags is not None
        tags = (rows.tags[rows.offsets[place] : rows.offsets[place + 1]] for place in places)
        return [[task.labels[tag] for tag in row[row >= 0]] for row in tags]
    labels = rows.labels[places]
    if task.kind == "regression":
        edges = np.linspace(labels.min(), labels.max(), BINS + 1)[1:-1]
        return [[f"bin {one}"] for one in np.digitize(labels, edges)]
    return [[task.labels[int(code)]] for code in labels]


def whole_words(tokenize: Tokenizer, words: Iterable[str]) -> set[str]:
    """Those that are one token, and not the unknown one."""
    listed = sorted(words)
    once, twice = (tokenize.words([[word] * times for word in listed]) for times in (1, 2))
    known = set()
    for word, row, begins, longer in zip(listed, *once, twice[0]):
        pieces = len(longer) - len(row)  # special tokens are in both
        if pieces == 1 and row[begins.index(0)] != tokenize.unknown_id:
            known.add(word)
    return known
