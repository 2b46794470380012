"""From rows as they are kept to words, labels and known words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmtl.models.encoder import EncoderSpec
from fastmtl.stages.features import labels_of, whole_words, words_of
from fastmtl.tasks import TaskSpec

PAIRS = TaskSpec("pairs", "regression", ("a", "b"), splits={"train": "train"})
KINDS = TaskSpec("kinds", "classification", ("a",), ("no", "yes"), splits={"train": "train"})
ROWS = {
    "pairs": {"train": {"a": ["1 2", "3", "4"], "b": ["5", "6 7", "8"], "label": [0.0, 2.6, 5.0]}},
    "kinds": {"train": {"a": ["10 11", "12"], "label": ["yes", "no"]}},
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, make_pool: Callable[..., Any], toy_source: Any) -> Any:
    return make_pool(tmp_path_factory.mktemp("pool"), toy_source((PAIRS, KINDS), ROWS))


def test_words_are_those_of_all_text_columns_and_labels_have_names(pool: Any) -> None:
    train = pool.split("pairs", "train")
    assert words_of(PAIRS, train, np.array([1, 0])) == [["3", "6", "7"], ["1", "2", "5"]]
    assert labels_of(PAIRS, train, np.arange(3)) == [["bin 0"], ["bin 2"], ["bin 4"]]
    assert labels_of(KINDS, pool.split("kinds", "train"), np.arange(2)) == [["yes"], ["no"]]


def test_known_words_are_one_token_and_not_the_unknown_one() -> None:
    tokenizer = EncoderSpec("tiny").make_tokenizer()
    known = next(word for word in tokenizer.inner.get_vocab() if word.isalpha() and len(word) > 2)
    assert whole_words(tokenizer, [known, "☃", known + "qqxz"]) == {known}
    assert whole_words(tokenizer, ["☃"]) == set()


def test_a_folder_of_tags_gives_the_tags_of_each_word(tmp_path: Path, make_pool: Any, toy_source: Any) -> None:
    task = TaskSpec("tags", "tagging", ("words",), ("O", "X"), label="tags", splits={"train": "train"})
    rows = {"tags": {"train": {"words": [["Ab", "c"], ["d"]], "tags": [["O", "X"], ["X"]]}}}
    pool = make_pool(tmp_path / "pool", toy_source((task,), rows), EncoderSpec("tiny").make_tokenizer())
    train = pool.split("tags", "train")
    assert words_of(task, train, np.array([0, 1])) == [["ab", "c"], ["d"]]
    assert labels_of(task, train, np.array([0, 1])) == [["O", "X"], ["X"]]
