"""The suite of messages to departments: the same rows everywhere, honest flags, and dials that do what they say."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from fastmtl.data import sample
from fastmtl.errors import UserError

SUITE = sample.generate(0)
AUXILIARY = [spec.name for spec in sample.SPECS if spec.name != sample.PRIMARY]


def train(suite: Any, name: str) -> dict[str, list[Any]]:
    return suite[name]["train"]


def share_of_relevant(suite: Any) -> float:
    flags = [flag for name in AUXILIARY for flag in train(suite, name)["relevant"]]
    return sum(flags) / len(flags)


def test_rows_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(json.dumps(SUITE).encode()).hexdigest()[:16]
    assert digest == hashlib.sha256(json.dumps(sample.generate(0)).encode()).hexdigest()[:16]
    assert digest == "08e4b1dfb46ef084"
    assert sample.generate(1) != SUITE


def test_specs_match_the_rows_and_every_label_occurs() -> None:
    assert list(SUITE) == [spec.name for spec in sample.SPECS]
    for spec in sample.SPECS:
        assert set(SUITE[spec.name]) == set(spec.splits)
        if spec.labels:
            assert set(train(SUITE, spec.name)["label"]) == set(range(len(spec.labels)))


def test_no_text_of_the_primary_is_an_auxiliary_row() -> None:
    own = {text for split in SUITE[sample.PRIMARY].values() for text in split["text"]}
    others = {text for name in AUXILIARY for text in train(SUITE, name)["text"]}
    assert not own & others


def test_the_share_of_relevant_rows_is_a_dial() -> None:
    assert share_of_relevant(SUITE) == pytest.approx(0.3, abs=0.01)
    assert share_of_relevant(sample.generate(0, share=0.6)) == pytest.approx(0.6, abs=0.01)


def test_the_primary_depends_on_no_dial() -> None:
    other = sample.generate(0, share=0.5, noise=0.2, overlap=0.9, size=1.5, shift=0.1, lookalikes=0.05)
    assert other[sample.PRIMARY] == SUITE[sample.PRIMARY]


def test_wrong_labels_are_not_flagged_as_relevant() -> None:
    assert share_of_relevant(sample.generate(0, noise=0.5)) == pytest.approx(0.15, abs=0.02)


def test_size_and_lookalikes_count_rows() -> None:
    rows = sum(len(train(SUITE, name)["text"]) for name in AUXILIARY)
    larger = sample.generate(0, size=2.0, lookalikes=0.1)
    assert sum(len(train(larger, name)["text"]) for name in AUXILIARY) == pytest.approx(2 * rows, rel=0.01)
    assert len(train(larger, "bot")["text"]) == pytest.approx(0.2 * rows, rel=0.02)


def test_overlap_names_goods_in_rows_that_have_nothing_to_do_with_them() -> None:
    goods = {word for words in sample.GOODS.values() for word in words}

    def naming(suite: Any) -> float:
        texts = [text for name in ("reviews", "photos", "diary") for text in train(suite, name)["text"]]
        return sum(bool(goods & set(re.findall("[a-z]+", text.lower()))) for text in texts) / len(texts)

    none, some = (naming(sample.generate(0, overlap=overlap)) for overlap in (0.0, 0.8))
    assert none < 0.05
    assert some == pytest.approx(0.8, abs=0.08)


def test_the_vocabulary_covers_all_words() -> None:
    known = set(sample.vocabulary())
    texts = [text for task in SUITE.values() for split in task.values() for text in split["text"]]
    assert {word for text in texts for word in re.findall("[a-z]+", text.lower())} <= known


def test_a_pile_that_leaves_a_task_fewer_rows_than_labels_is_refused() -> None:
    with pytest.raises(UserError, match="raise size"):
        sample.generate(0, size=0.02)
