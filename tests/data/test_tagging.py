"""The generated tagging suite is what its docstring says: one language, teachers, pupils and chatter."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pytest

from fastmtl.data import tagging
from fastmtl.data.sources import Tagging
from fastmtl.models.encoder import EncoderSpec

suite = cache(tagging.generate)
SPEC = {spec.name: spec for spec in tagging.SPECS}


def words_of(name: str, split: str = "train") -> list[str]:
    return list(chain.from_iterable(suite()[name][split]["tokens"]))


def tags_of(name: str, split: str = "train") -> list[str]:
    return list(chain.from_iterable(suite()[name][split]["tags"]))


def told_by_word(name: str) -> float:
    """Share of validation tags that equal the commonest tag of their word in training."""
    seen: dict[str, Counter[str]] = {}
    for word, tag in zip(words_of(name), tags_of(name)):
        seen.setdefault(word, Counter())[tag] += 1
    best = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}
    told = zip(words_of(name, "validation"), tags_of(name, "validation"))
    return float(np.mean([best.get(word) == tag for word, tag in told]))


def test_rows_are_the_same_on_every_machine_and_others_for_another_seed() -> None:
    """Committed results name the suite: when its rows change, they are made again, and this digest with them."""
    text = json.dumps(suite(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "DIGEST"
    assert tagging.generate(0) == suite()
    assert all(suite(1)[name]["train"]["tokens"] != suite()[name]["train"]["tokens"] for name in SPEC)


@pytest.mark.parametrize("name", SPEC)
def test_each_task_has_its_rows_words_and_tags(name: str) -> None:
    rows = suite()[name]
    assert {split: len(columns["tokens"]) for split, columns in rows.items() if split != "train"} == {
        "validation": 300, "test": 300,
    }  # fmt: skip
    assert 100 <= len(rows["train"]["tokens"]) <= 1500
    for columns in rows.values():
        assert all(5 <= len(words) == len(tags) <= 12 for words, tags in zip(columns["tokens"], columns["tags"]))
    assert set(tags_of(name)) == set(tags_of(name, "validation")) == set(SPEC[name].labels)


def test_every_word_is_one_token_of_the_tiny_vocabulary(tiny: EncoderSpec) -> None:
    words = sorted({word for name in SPEC for word in words_of(name)})
    ids, _ = tiny.make_tokenizer().words([[word] for word in words])
    assert {len(row) for row in ids} == {3}
    assert 300 < len(words) <= 320


def test_a_pupil_has_not_seen_many_of_the_words_that_a_teacher_has() -> None:
    words = {name: set(words_of(name)) for name in SPEC}
    for pupil in tagging.PUPILS:
        for teacher in tagging.TEACHERS:
            assert len(words[teacher] - words[pupil]) > 40


def test_a_teacher_tells_the_class_of_each_word_and_chatter_hardly_does() -> None:
    assert all(told_by_word(name) > 0.99 for name in tagging.TEACHERS)
    assert all(0.12 < told_by_word(name) < 0.35 for name in tagging.CHATTER)


def test_what_tells_the_roles_apart_can_be_known_beforehand() -> None:
    for chatter in tagging.CHATTER:
        share = np.array(list(Counter(tags_of(chatter)).values())) / len(tags_of(chatter))
        assert -(share * np.log(share)).sum() > 0.99 * math.log(len(SPEC[chatter].labels))


def test_pupils_follow_from_the_classes_of_a_word_and_its_neighbour() -> None:
    rng: Any = None
    assert tagging._agree(rng, [0, 1, 5, 7, 3, 2]) == ["O", "Y", "O", "Y", "O", "O"]
    assert tagging._phrase(rng, [1, 4, 0, 6, 6, 2]) == ["B", "I", "O", "B", "I", "O"]
    assert tagging._group(rng, [0, 1, 2, 3, 4, 7]) == ["A", "A", "B", "B", "O", "O"]


def test_the_source_hands_it_out() -> None:
    source = Tagging()
    batch = next(iter(source.batches(source.tasks[0], "validation")))
    assert batch.to_pylist()[7]["tags"] == suite()["classes"]["validation"]["tags"][7]
    assert source.fingerprint(source.tasks[0]) != Tagging(1).fingerprint(source.tasks[0])
