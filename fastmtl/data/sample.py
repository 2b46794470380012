"""A generated suite about a mail-order house: one small primary task, and a pile of which a known part is useful.

Eight departments answer for goods of very different lines, one for pots, violins, tents and hammers alike. Which good
is whose is this house's own custom: no pretrained encoder knows it, it has to be learned from examples.

`chats` is the primary: messages that belong to the department of the two goods they name. Few have been sorted by hand,
and they show less than half of the goods. In the files lie more: `mails`, `calls` and posts of the `forum` were sorted
in the same way. The reception's book of `floors` says only to which floor a visitor was sent, two departments to a
floor, and visitors ask for other things than goods too. `reviews`, captions of `photos` and entries of a `diary` have
nothing to do with it, though they may name goods. The `bot` of last year guessed the department of other chats: its
rows look like the primary's, and its labels are noise.

So the primary's score rises smoothly with the relevant rows that are read: each shows goods of which little was known.
`sample.yaml` has the words, the sentences and the tasks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

Row = tuple[str, float, bool]
"""Text, label, and whether the primary's rule decides the label."""
Writer = Callable[[random.Random, int], Row]

_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_FRAMES: dict[str, list[list[str]]] = _TABLES["frames"]
_WORDS: dict[str, list[Any]] = _TABLES["words"]

GOODS: dict[str, tuple[str, ...]] = {name: tuple(words.split()) for name, words in _TABLES["goods"].items()}
"""Department -> what it answers for."""
SPECS: tuple[TaskSpec, ...] = tuple(map(TaskSpec.from_dict, _TABLES["tasks"]))
"""The primary first; the auxiliaries carry the hidden flag `relevant` in their training rows."""
PRIMARY = SPECS[0].name

_PRIMARY_ROWS = {"train": 56, "validation": 720, "test": 200}
_AUXILIARY_ROWS, _VALIDATION_ROWS = 1600, 80
_SERVICES_SHARE = 0.16
"""Of the rows that are neither relevant nor the bot's, the visitors' other wishes."""
_TRIES = 50
"""Rows that are drawn for each that is wanted, at most, before the grammar is said to be exhausted."""


def _goods(rng: random.Random, department: int) -> list[str]:
    """Two of a department."""
    return rng.sample([*GOODS.values()][department], 2)


def _fill(rng: random.Random, frames: Iterable[Sequence[str]], two: list[str]) -> str:
    start, middle, end = (rng.choice(part) for part in frames)
    return _sentence(start + middle.format(*two) + end)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _sorted(task: str, merged: int, shift: float, noise: float, rng: random.Random, index: int) -> Row:
    """About goods, labelled by department, or by floor where `merged` departments make a label."""
    department = index % len(GOODS)
    frames = zip(_FRAMES[task], _FRAMES[PRIMARY], strict=True)
    parts = (own if rng.random() < shift else chat for own, chat in frames)
    text = _fill(rng, parts, _goods(rng, department))
    label, labels = department // merged, len(GOODS) // merged
    wrong = rng.random() < noise
    moved = (label + rng.randrange(1, labels)) % labels
    return text, moved if wrong else label, not wrong


def _guess(rng: random.Random, index: int) -> Row:
    """As the primary's, but the label says nothing of the text."""
    return _fill(rng, _FRAMES[PRIMARY], _goods(rng, rng.randrange(len(GOODS)))), index % len(GOODS), False


def _service(rng: random.Random, index: int) -> Row:
    """What else visitors want; each service is on one floor."""
    return _fill(rng, _FRAMES["floors"], rng.sample(_WORDS["services"][index % 4], 2)), index % 4, False


def _unrelated(
    write: Callable[[random.Random, int, str | None], tuple[str, float]], overlap: float, rng: random.Random, index: int
) -> Row:
    """A label that has nothing to do with goods; a share `overlap` of the rows name one all the same."""
    good = _goods(rng, rng.randrange(len(GOODS)))[0]
    text, label = write(rng, index, good if rng.random() < overlap else None)
    return _sentence(text), label, False


def _review(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    item = good or rng.choice(_WORDS["items"])
    text = rng.choice(_WORDS["reviews"]).format(item=item, mood=rng.choice(_WORDS["moods"][index % 2]))
    return text + rng.choice(_WORDS["verdicts"]), index % 2


def _photo(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    """How much two animals or people move, 0 to 1 each, averaged."""
    moving, colors, subjects = (_WORDS[name] for name in ("motions", "colors", "subjects"))
    motions = [rng.randrange(len(moving)) for _ in range(2)]
    one, two = (f"a {rng.choice(colors)} {rng.choice(subjects)} {moving[motion]}" for motion in motions)
    place = f"{rng.choice(_WORDS['places'])} the {good or rng.choice(_WORDS['scenes'])}"
    return f"{one} and {two} {place}", sum(motions) / 10


def _entry(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    """When it happens."""
    verb = ("will " if index % 3 == 2 else "") + rng.choice(_WORDS["tenses"][index % 3])
    one, two = rng.sample(_WORDS["names"], 2)
    about = f"because of the {good or rng.choice(_WORDS['about'])}"
    return f"{one} and {two}'s cousin {verb} {rng.choice(_WORDS['manners'])} {about}", index % 3


_UNRELATED = {"reviews": _review, "photos": _photo, "diary": _entry}


def _parts(
    share: float, noise: float, overlap: float, size: float, shift: float, lookalikes: float
) -> dict[str, list[tuple[Writer, int]]]:
    """Who writes how many training rows of each auxiliary task."""
    rows = size * _AUXILIARY_ROWS
    others = rows * (1 - share - lookalikes)
    rest = others * (1 - _SERVICES_SHARE) / len(_UNRELATED)
    parts: dict[str, list[tuple[Writer, int]]] = {
        name: [(partial(_sorted, name, merged, shift, noise), round(rows * share * part))]
        for name, (part, merged) in _TABLES["relevant"].items()
    }
    parts["floors"].append((_service, round(others * _SERVICES_SHARE)))
    parts["bot"] = [(_guess, round(rows * lookalikes))]
    parts |= {name: [(partial(_unrelated, write, overlap), round(rest))] for name, write in _UNRELATED.items()}
    for spec in SPECS[1:]:
        if (left := sum(n for _, n in parts[spec.name])) < max(2, len(spec.labels)):
            raise UserError(
                f"data.source.share={share}, lookalikes={lookalikes}, size={size} leave {left} rows to {spec.name!r}, "
                "fewer than its labels; raise size"
            )
    return parts


def _rows(rng: random.Random, parts: list[tuple[Writer, int]], taken: set[str]) -> list[Row]:
    """Rows of one split, shuffled; no text that is taken, and none twice."""
    rows: list[Row] = []
    for write, size in parts:
        drawn = 0
        wanted = len(rows) + size
        while len(rows) < wanted:
            row = write(rng, wanted - len(rows) - 1)  # the row's place fixes its label, hence the balance
            drawn += 1
            if row[0] not in taken:
                taken.add(row[0])
                rows.append(row)
            elif drawn > _TRIES * size:
                raise UserError(f"the grammar has no {size} unlike rows such as {row[0]!r}; lower data.source.size")
    rng.shuffle(rows)
    return rows


def _columns(spec: TaskSpec, split: str, rows: list[Row]) -> dict[str, list[Any]]:
    labels = [float(row[1]) if spec.kind == "regression" else int(row[1]) for row in rows]
    columns: dict[str, list[Any]] = {"text": [row[0] for row in rows], "label": labels}
    return columns | ({"relevant": [int(row[2]) for row in rows]} if spec.flag and split == "train" else {})


def generate(
    seed: int = 0, *, share: float = 0.3, noise: float = 0.0, overlap: float = 0.3, size: float = 1.0,
    shift: float = 0.5, lookalikes: float = 0.02,
) -> dict[str, dict[str, dict[str, list[Any]]]]:  # fmt: skip
    """All rows as task -> split -> column -> values; labels are codes of `SPECS`, or floats for a regression.

    Args:
        seed: Another one gives other rows of the same kind. The primary's rows depend on no dial below.
        share: Share of the auxiliary rows that are about the primary's decision.
        noise: Share of those whose label is wrong, drawn among the others; they are not flagged as relevant.
        overlap: Share of the reviews, photos and diaries that name goods.
        size: Auxiliary rows, as a multiple of 1,600.
        shift: Probability that the beginning, the middle or the end of a row about the primary's decision is in its own
            register and not in the primary's.
        lookalikes: Share of the auxiliary rows that the bot guessed: the primary's register, and labels by chance.

    Raises:
        UserError: A dial is out of range, a task would have fewer rows than labels, or the grammar has too few rows.
    """
    parts = _parts(share, noise, overlap, size, shift, lookalikes)
    taken: set[str] = set()
    rng = random.Random(f"{seed}/{PRIMARY}")
    write = partial(_sorted, PRIMARY, 1, 1.0, 0.0)
    rows = {split: _rows(rng, [(write, n)], taken) for split, n in _PRIMARY_ROWS.items()}
    suite = {PRIMARY: {split: _columns(SPECS[0], split, part) for split, part in rows.items()}}
    for spec in SPECS[1:]:
        # One generator per task, seeded by text: a task more leaves the others' rows as they were.
        rng, seen = random.Random(f"{seed}/{spec.name}"), set(taken)
        held = [(write, _VALIDATION_ROWS // len(parts[spec.name])) for write, _ in parts[spec.name]]
        rows = {"validation": _rows(rng, held, seen), "train": _rows(rng, parts[spec.name], seen)}
        suite[spec.name] = {split: _columns(spec, split, rows[split]) for split in ("train", "validation")}
    return suite


def vocabulary() -> list[str]:
    """Every lower-cased word that the suite can hold, sorted; punctuation is left out, contractions are split."""
    tables = [list(_TABLES[part].values()) for part in ("goods", "frames", "words")]
    return sorted(set(re.findall(r"[a-z]+", re.sub(r"\{\w*\}", " ", repr(tables)).lower())))
