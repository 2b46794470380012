"""A generated suite of tagging tasks over one language, made so that some help each other and others do not.

Every word has a hidden class, which nothing but its use gives away, and classes follow each other by a rule. Tasks are
of three sorts, by what they tell of the classes:

    teachers  tag the class itself, on many rows: what every other task needs
    pupils    tag what follows from the class of a word or of its neighbour too, on rows too few to meet most words
              often: a teacher helps, another pupil does little
    chatter   tags mostly at random, and two of three also where a sentence begins and ends, which no other task asks:
              it takes what the others need, and harms; alone it learns so little that even a pupil helps

So a main task has auxiliary tasks of both kinds, and size, entropy and learning curves show which are which.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from fastmtl.tasks import TaskSpec

Tagger = Callable[[random.Random, list[int]], list[str]]
"""The tags of a sentence of which the hidden class of each word is given."""

VOCABULARY = Path(__file__).with_name("tagging_words.txt").read_text(encoding="utf-8").split()
CLASSES = 8
_WORDS = 320
_FOLLOWERS, _FOLLOWS = 3, 0.75
"""So many classes may follow a class, and do in this share of places; elsewhere any does."""
_LENGTHS = (5, 12)

_CLASS_TAGS = tuple(f"c{code}" for code in range(CLASSES))
_INSIDE = (1, 4, 6)


def _by_class(*tags: str) -> Tagger:
    return lambda rng, classes: [tags[code] for code in classes]


_group = _by_class(*"AABBOOOO")


def _agree(rng: random.Random, classes: list[int]) -> list[str]:
    """Whether an odd class follows one of its own half."""
    return ["O", *("Y" if two % 2 and (one < 4) == (two < 4) else "O" for one, two in pairwise(classes))]


def _phrase(rng: random.Random, classes: list[int]) -> list[str]:
    """Runs of some classes: where they begin and go on."""
    before = [None, *classes]
    return ["O" if c not in _INSIDE else "I" if b in _INSIDE else "B" for b, c in zip(before, classes)]


def _garbled(share: float, ends: bool = False) -> Tagger:
    """The class in a share of the places, elsewhere any; with `ends`, tags of their own for the first and last word."""

    def tag(rng: random.Random, classes: list[int]) -> list[str]:
        tags = [_CLASS_TAGS[code if rng.random() < share else rng.randrange(CLASSES)] for code in classes]
        return ["first", *tags[1:-1], "last"] if ends else tags

    return tag


TEACHERS, PUPILS, CHATTER = ("classes", "coarse"), ("group", "agree", "phrase"), ("rumour", "static", "whisper")
_SUITE: dict[str, tuple[Tagger, tuple[str, ...], int]] = {
    "classes": (_by_class(*_CLASS_TAGS), _CLASS_TAGS, 1500),
    "coarse": (_by_class(*(f"k{code // 2}" for code in range(CLASSES))), ("k0", "k1", "k2", "k3"), 900),
    "group": (_group, ("O", "A", "B"), 120),
    "agree": (_agree, ("O", "Y"), 150),
    "phrase": (_phrase, ("O", "B", "I"), 200),
    "rumour": (_garbled(0.15), _CLASS_TAGS, 1500),
    "static": (_garbled(0.25, ends=True), (*_CLASS_TAGS, "first", "last"), 400),
    "whisper": (_garbled(0.25, ends=True), (*_CLASS_TAGS, "first", "last"), 200),
}
_HELD_OUT = {"validation": 300, "test": 300}

SPECS: tuple[TaskSpec, ...] = tuple(
    TaskSpec(name, "tagging", ("tokens",), tags, label="tags", splits={split: split for split in ("train", *_HELD_OUT)})
    for name, (_, tags, _) in _SUITE.items()
)


def is_helpful(main: str, aux: str) -> bool:
    """Whether the auxiliary task is meant to help the main one: it tells more of the classes. For reports alone."""
    return aux != main and (aux in TEACHERS or (aux in PUPILS and main in CHATTER))


def generate(seed: int = 0) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """All rows as task -> split -> column -> values: `tokens` and, by name, `tags`, both lists of strings."""
    rng = random.Random(f"{seed}/language")
    words = rng.sample(VOCABULARY, _WORDS)
    members = [words[code::CLASSES] for code in range(CLASSES)]
    followers = [rng.sample(range(CLASSES), _FOLLOWERS) for _ in range(CLASSES)]
    often = list(accumulate(1 / (rank + 5) for rank in range(_WORDS // CLASSES)))  # most words are rare

    def sentence(rng: random.Random) -> tuple[list[str], list[int]]:
        classes = [rng.randrange(CLASSES)]
        for _ in range(rng.randint(*_LENGTHS) - 1):
            rule = rng.random() < _FOLLOWS
            classes.append(rng.choice(followers[classes[-1]]) if rule else rng.randrange(CLASSES))
        return [rng.choices(members[code], cum_weights=often)[0] for code in classes], classes

    suite: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for name, (tag, _, size) in _SUITE.items():
        rng = random.Random(f"{seed}/{name}")  # one a task: a new task leaves the others' rows as they were
        suite[name] = {}
        for split, rows in {"train": size, **_HELD_OUT}.items():
            sentences = [sentence(rng) for _ in range(rows)]
            tags = [tag(rng, classes) for _, classes in sentences]
            suite[name][split] = {"tokens": [words for words, _ in sentences], "tags": tags}
    return suite
