"""The generated tagging suite is what its docstring says: one language, and teachers, pupils and chatter of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pytest

from fastmtl.data import tagging
from fastmtl.data.sources.generated import tagging_tasks
from fastmtl.models.encoder import EncoderSpec

suite = cache(tagging.generate)  # made once for all tests
SPEC = {spec.name: spec for spec in tagging.SPECS}


def words_of(name: str, split: str = "train") -> list[str]:
    return list(chain.from_iterable(suite(0)[name][split]["tokens"]))


def tags_of(name: str, split: str = "train") -> list[str]:
    return list(chain.from_iterable(suite(0)[name][split]["tags"]))


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
    text = json.dumps(suite(0), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "5f984e6b4cf1f188"
    assert all(suite(1)[name]["train"]["tokens"] != suite(0)[name]["train"]["tokens"] for name in SPEC)


@pytest.mark.parametrize("name", SPEC)
def test_each_task_has_its_rows_words_and_tags(name: str) -> None:
    rows = suite(0)[name]
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


def test_a_teacher_meets_each_word_often_and_a_pupil_most_words_hardly() -> None:
    assert all(min(Counter(words_of(name)).values()) >= 3 for name in tagging.TEACHERS)
    for name in tagging.PUPILS:
        seen = Counter(words_of(name))
        assert sum(seen[word] <= 5 for word in set(words_of("classes"))) > 200


def test_a_teacher_tells_the_class_of_each_word_and_chatter_hardly_does() -> None:
    assert all(told_by_word(name) > 0.99 for name in tagging.TEACHERS)
    assert all(0.12 < told_by_word(name) < 0.35 for name in tagging.CHATTER)


def test_chatter_has_more_kinds_of_tags_in_more_even_shares_than_pupils() -> None:
    def entropy(name: str) -> float:
        share = np.array(list(Counter(tags_of(name)).values())) / len(tags_of(name))
        return float(-(share * np.log(share)).sum())

    assert min(map(entropy, tagging.CHATTER)) > 2 * max(map(entropy, tagging.PUPILS))


def test_every_main_task_has_auxiliaries_of_both_kinds() -> None:
    meant = {main: {tagging.is_helpful(main, aux) for aux in SPEC if aux != main} for main in SPEC}
    assert all(kinds == {True, False} for kinds in meant.values())
    assert not any(tagging.is_helpful(name, name) for name in SPEC)


def test_pupils_follow_from_the_classes_of_a_word_and_its_neighbour() -> None:
    rng: Any = None
    assert tagging._agree(rng, [0, 1, 5, 7, 3, 2]) == ["O", "Y", "O", "Y", "O", "O"]
    assert tagging._phrase(rng, [1, 4, 0, 6, 6, 2]) == ["B", "I", "O", "B", "I", "O"]
    assert tagging._group(rng, [0, 1, 2, 3, 4, 7]) == ["A", "A", "B", "B", "O", "O"]


def test_the_source_hands_it_out() -> None:
    task, other = tagging_tasks()[0], tagging_tasks(1)[0]
    assert task.source is not None
    batch = next(iter(task.source.batches(task, "validation")))
    assert batch.to_pylist()[7]["tags"] == suite(0)["classes"]["validation"]["tags"][7]
    assert task == other
    assert task.content != other.content
