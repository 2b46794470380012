"""The stage `features`: what a task's data and its learning curve alone say, for a predictor of gains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.pool import TokenRows
from fastmtl.models.encoder import Tokenizer, tokenizer_of
from fastmtl.relations.features import curve_features, data_features, read_curve
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.joint import JointTraining
from fastmtl.stages.pool import pool_of
from fastmtl.tasks import TaskSpec

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Features(Stage):
    """`features.json`: those of `relations.features`, of the one task whose model alone is `single`.

    Words are those of all text columns, in lower case, cut at punctuation; a tagging task's are its own. The vocabulary
    is of the words that are one token of the encoder's tokenizer; the second split is validation, as in the paper.
    """

    kind = "features"
    single: JointTraining

    @property
    def task(self) -> TaskSpec:
        """The task that the features are of."""
        return self.single.rows.tasks[0]

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        task, encoder = self.task, self.single.encoder
        pool = pool_of(context, encoder, self.single.rows)
        positions = self.single.rows[task.name]
        train, validation = pool.split(task.name, "train"), pool.split(task.name, "validation")
        words, labels = words_of(task, train, positions), labels_of(task, train, positions)
        later = words_of(task, validation, np.arange(len(validation)))
        known = whole_words(tokenizer_of(encoder), {word for row in words for word in row})
        curve = read_curve(context.get(self.single).path / "curves.csv", task.name)
        found = data_features(task.name, words, labels, later, known) | curve_features(task.name, *curve)
        (out / "features.json").write_text(json.dumps(found, indent=1))
        return {"examples": len(words)}


def words_of(task: TaskSpec, rows: TokenRows, positions: np.ndarray) -> list[list[str]]:
    """The words of each row."""
    shown = ([row[column] for column in task.text] for row in rows.texts(positions))
    if task.of_kind.reads == "words":
        return [[word.lower() for word in words] for (words,) in shown]
    return [_WORD.findall(" ".join(texts).lower()) for texts in shown]


def labels_of(task: TaskSpec, rows: TokenRows, positions: np.ndarray) -> list[list[str]]:
    """The labels of each row: one, or a tagging task's one per word."""
    labels: Any = rows.labels[positions]
    if rows.tags is not None:
        labels = [rows.tags[rows.offsets[place] : rows.offsets[place + 1]] for place in positions]
    return task.of_kind.label_classes(labels, task)


def whole_words(tokenize: Tokenizer, words: Iterable[str]) -> set[str]:
    """Those that are one token, and not the unknown one."""
    listed = sorted(words)
    once, twice = (tokenize.words([[word] * times for word in listed]) for times in (1, 2))
    return {
        word
        for word, row, begins, longer in zip(listed, *once, twice[0])
        if len(longer) - len(row) == 1 and row[begins.index(0)] != tokenize.unknown_id  # special tokens are in both
    }
