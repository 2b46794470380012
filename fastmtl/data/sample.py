"""A generated suite: one small primary task and auxiliaries whose use to it is known row by row.

The primary asks whether the second sentence follows from the first. The two differ in one content word, and every
word occurs alike under both labels: only whether the two words fit each other decides. Voice and amounts vary from row
to row, so neither the words of a side nor their overlap says anything about the label.

`sample.yaml` has the words and the tasks. A `Row` is the first text, the second (empty for a single sentence), the
label, and whether the primary's rule decides the label.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fastmtl.tasks import TaskSpec

Row = tuple[str, str, float, bool]
Domain = dict[str, Any]
"""The words of one setting, as in `sample.yaml`: people, acts, looks and kinds."""

_TABLES = yaml.safe_load(Path(__file__).with_name("sample.yaml").read_text(encoding="utf-8"))
_WORDS: dict[str, list[Any]] = _TABLES["words"]
_DOMAINS: dict[str, Domain] = _TABLES["settings"]
_SIZES: dict[str, dict[str, int]] = {entry["name"]: entry.pop("rows") for entry in _TABLES["tasks"]}

SPECS: tuple[TaskSpec, ...] = tuple(TaskSpec.from_dict(entry) for entry in _TABLES["tasks"])
"""The primary first; the auxiliaries carry the hidden flag `relevant` in their training rows."""

_BORROWED = 0.6
"""Share of words taken from any setting instead of the row's own. It makes some rows of a related task look like the
primary's: settings told apart by every single word would leave a discriminator nothing to find."""
_SHARE_OF_RULE = 0.4
"""Of the rows of `answers`."""


def _near(rng: random.Random, domain: Domain) -> Domain:
    return rng.choice([*_DOMAINS.values()]) if rng.random() < _BORROWED else domain


def _clause(who: str, act: str, what: str, passive: bool) -> str:
    """`what` is a plural with its determiner."""
    return f"{what} were {act} by the {who}" if passive else f"the {who} {act} {what}"


def _reworded(rng: random.Random, pairs: list[list[str]], follows: bool) -> tuple[str, str]:
    """A word and either its counterpart or, on the same side, that of another word."""
    pair, other = rng.sample(pairs, 2)
    side = rng.randrange(2)
    return pair[side], (pair if follows else other)[1 - side]


def _clauses(rng: random.Random, domain: Domain, follows: bool) -> tuple[str, str]:
    """Two clauses that differ in one content word: act, look or kind."""
    who = rng.choice(_near(rng, domain)["people"])
    kinds = _near(rng, domain)["kinds"]
    kind, other = rng.sample(list(kinds), 2)
    acts = (rng.choice(rng.choice(_near(rng, domain)["acts"])),) * 2
    things = (rng.choice(kinds[kind]),) * 2
    amount = rng.choice(_WORDS["amounts"])
    edit = rng.randrange(3)
    if edit == 0:
        acts = _reworded(rng, _near(rng, domain)["acts"], follows)
    elif edit == 1:
        looks = _reworded(rng, _near(rng, domain)["looks"], follows)
        things = (f"{looks[0]} {things[0]}", f"{looks[1]} {things[1]}")
    else:
        amount = "some"  # no apples may still be some fruits
        things = (things[0], kind if follows else other)
    passive = rng.random() < 0.5
    first, second = (_clause(who, act, f"{amount} {thing}", passive) for act, thing in zip(acts, things, strict=True))
    return first, second


def _sentence(text: str, end: str = ".") -> str:
    return text[0].upper() + text[1:] + end


def _inference(setting: str, rng: random.Random, index: int) -> Row:
    first, second = _clauses(rng, _DOMAINS[setting], index % 2 == 0)
    return _sentence(first), _sentence(second), index % 2, True


def _answer(rng: random.Random, index: int) -> Row:
    """Two jobs under one label: does the second sentence follow, or does the answer to a request agree?"""
    if index % 10 < 10 * _SHARE_OF_RULE:
        return _inference("school", rng, index)
    form, thing, when = (rng.choice(_WORDS[name]) for name in ("requests", "things", "times"))
    answer = f"{rng.choice(_WORDS['answers'][index % 2])}, {rng.choice(_WORDS['reasons'])}"
    return _sentence(form.format(thing=thing, when=when), "?"), _sentence(answer), index % 2, False


def _caption(rng: random.Random, index: int) -> Row:
    """How much movement two captions show, 0 to 5 each, averaged."""
    colors, subjects, actions, scenes = (_WORDS[name] for name in ("colors", "subjects", "actions", "scenes"))
    motions = [rng.randrange(len(actions)) for _ in range(2)]
    first, second = (
        f"a {rng.choice(colors)} {rng.choice(subjects)} is {actions[motion]} {rng.choice(scenes)}" for motion in motions
    )
    return _sentence(first), _sentence(second), sum(motions) / 2, False


def _review(rng: random.Random, index: int) -> Row:
    form, item = rng.choice(_WORDS["reviews"]), rng.choice(_WORDS["items"])
    text = form.format(item=item, word=rng.choice(_WORDS["moods"][index % 2]))
    return _sentence(text + rng.choice(_WORDS["endings"])), "", index % 2, False


def _tense(rng: random.Random, index: int) -> Row:
    one, two = rng.sample(_WORDS["names"], 2)
    who = rng.choice((one, f"{one}, not {two},", f"{one}'s cousin", f"{two}, like {one},"))
    verb = ("will " if index % 3 == 2 else "") + rng.choice(_WORDS["tenses"][index % 3])
    return _sentence(f"{who} {verb} {rng.choice(_WORDS['manners'])}"), "", index % 3, False


def _gossip(rng: random.Random, index: int) -> Row:
    """Hearsay in chatty frames: whatever follows or not, half of it is labelled as following.

    A rule that is merely turned round would harm nobody, for every task has a head of its own.
    """
    elsewhere = [domain for name, domain in _DOMAINS.items() if name != "kitchen"]
    first, second = _clauses(rng, rng.choice(elsewhere), follows=rng.random() < 0.5)
    texts = rng.choice(_WORDS["rumors"]).format(first), rng.choice(_WORDS["replies"]).format(second)
    return _sentence(texts[0]), _sentence(texts[1]), index % 2, False


_WRITERS: dict[str, Callable[[random.Random, int], Row]] = {
    **{setting: partial(_inference, setting) for setting in ("kitchen", "farm", "harbor")},
    "answers": _answer, "captions": _caption, "reviews": _review, "tense": _tense, "gossip": _gossip,
}  # fmt: skip


def _columns(spec: TaskSpec, split: str, rows: list[Row]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(spec.text)}
    columns[spec.label] = [float(row[2]) if spec.kind == "regression" else int(row[2]) for row in rows]
    if spec.flag and split == "train":
        columns[spec.flag] = [int(row[3]) for row in rows]
    return columns


def generate(seed: int = 0) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """All rows as task -> split -> column -> values; labels are codes of `SPECS`, or floats for a regression.

    No text occurs twice in a task.
    """
    suite: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for spec in SPECS:
        # One generator a task, seeded by text: adding a task leaves the others' rows as they were.
        rng, seen, suite[spec.name] = random.Random(f"{seed}/{spec.name}"), set[tuple[str, str]](), {}
        for split, size in _SIZES[spec.name].items():
            rows: list[Row] = []
            while len(rows) < size:
                row = _WRITERS[spec.name](rng, len(rows))  # the place in the split fixes the label, hence the balance
                if row[:2] not in seen:
                    seen.add(row[:2])
                    rows.append(row)
            rng.shuffle(rows)
            suite[spec.name][split] = _columns(spec, split, rows)
    return suite


def vocabulary() -> list[str]:
    """Every lower-cased word the grammar can emit, sorted; punctuation is left out, contractions are split."""
    tables = [list(words.values()) for words in (_WORDS, *_DOMAINS.values())]
    text = re.sub(r"\{\w*\}", " ", repr(tables)).lower()
    return sorted(set(re.findall(r"[a-z]+", text)) | {"s"})
