"""A generated suite: one small primary task and auxiliaries whose use to it is known row by row.

The primary asks whether the second sentence follows from the first. The two differ in one content word, and every
word occurs on either side under both labels: only whether the two words fit each other decides. Voice, negation and
word order vary freely, so which words stand on which side, and how many are shared, says nothing about the label.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastmtl.tasks import TaskSpec

VERSION = 1
"""Part of every cached result's identity: raise it when the generated rows change."""

Row = tuple[str, str, float, bool]
"""First text, second text (empty for a single sentence), label, and whether the primary's rule decides the label."""
Writer = Callable[[random.Random, int], Row]

_FOLLOWS = ("follows", "does_not_follow")


@dataclass(frozen=True)
class Domain:
    """The words of one setting: `kinds` maps a kind to its members; `acts` and `looks` are pairs of one meaning."""

    people: tuple[str, ...]
    acts: tuple[tuple[str, str], ...]
    looks: tuple[tuple[str, str], ...]
    kinds: dict[str, tuple[str, ...]]
    places: tuple[str, ...]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((one, two) for one, _, two in (pair.partition("/") for pair in text.split()))


def _domain(people: str, acts: str, looks: str, kinds: dict[str, str], places: str) -> Domain:
    members = {kind: tuple(text.split()) for kind, text in kinds.items()}
    return Domain(tuple(people.split()), _pairs(acts), _pairs(looks), members, tuple(places.split(", ")))


# Past forms that are participles too, so that each serves in both voices.
_KITCHEN = _domain(
    "cook waiter baker butcher guest owner manager cleaner",
    "bought/purchased washed/cleaned picked/selected carried/transported loved/adored",
    "big/large small/little strange/odd cheap/inexpensive",
    {"fruits": "apples pears lemons cherries", "vegetables": "carrots onions potatoes beans",
     "dishes": "bowls plates cups", "drinks": "juices wines beers"},
    "in the kitchen, in the cellar, at the market, in the hall",
)  # fmt: skip
_FARM = _domain(
    "farmer shepherd driver neighbor worker hunter gardener rider",
    "found/discovered gathered/collected needed/required guarded/protected hated/despised",
    "huge/enormous old/ancient dirty/filthy strong/sturdy",
    {"animals": "cows sheep goats horses", "vehicles": "trucks tractors carts", "tools": "hammers shovels axes",
     "crops": "oats melons pumpkins"},
    "on the farm, in the field, by the river, in the valley",
)  # fmt: skip
_HARBOR = _domain(
    "sailor captain fisherman pilot guard diver trader passenger",
    "repaired/fixed inspected/examined received/obtained ruined/destroyed mentioned/named",
    "pretty/beautiful broken/damaged expensive/costly tiny/miniature",
    {"boats": "ferries canoes yachts", "weapons": "guns rifles swords", "clothes": "coats shirts hats boots",
     "fabrics": "silks wools linens"},
    "in the harbor, on the island, at the dock, on the beach",
)  # fmt: skip
_SCHOOL = _domain(
    "teacher student nurse painter singer writer doctor librarian",
    "liked/enjoyed displayed/exhibited arranged/organized requested/demanded rented/leased",
    "quiet/silent shiny/glossy common/ordinary frightening/scary",
    {"instruments": "drums flutes guitars violins", "toys": "dolls puppets kites", "furniture": "chairs tables desks",
     "flowers": "roses tulips lilies"},
    "at school, in the museum, in the garden, at the theater",
)  # fmt: skip
_DOMAINS = (_KITCHEN, _FARM, _HARBOR, _SCHOOL)

_TIMES = ("yesterday", "on Monday", "on Friday", "at noon", "last night", "last week", "in May", "that evening")


def _clause(rng: random.Random, who: str, act: str, what: str) -> str:
    """Active or passive; `what` is a plural with its determiner."""
    return rng.choice((f"the {who} {act} {what}", f"{what} were {act} by the {who}"))


def _reworded(rng: random.Random, pairs: tuple[tuple[str, str], ...], follows: bool) -> tuple[str, str]:
    """A word and either its counterpart or, on the same side, that of another word."""
    pair, other = rng.sample(pairs, 2)
    side = rng.randrange(2)
    return pair[side], (pair if follows else other)[1 - side]


def _clauses(rng: random.Random, domain: Domain, follows: bool) -> tuple[str, str]:
    """Two clauses that differ in one content word: act, look or kind; voice and word order vary under both labels."""
    who = rng.choice(domain.people)
    kind, other = rng.sample(list(domain.kinds), 2)
    acts = (rng.choice(rng.choice(domain.acts)),) * 2
    things = (rng.choice(domain.kinds[kind]),) * 2
    amount = rng.choice(("some", "no", "many"))
    edit = rng.randrange(3)
    if edit == 0:
        acts = _reworded(rng, domain.acts, follows)
    elif edit == 1:
        looks = _reworded(rng, domain.looks, follows)
        things = (f"{looks[0]} {things[0]}", f"{looks[1]} {things[1]}")
    else:
        amount = "some"  # no apples may still be some fruits
        things = (things[0], kind if follows else other)
    first, second = (_clause(rng, who, act, f"{amount} {thing}") for act, thing in zip(acts, things, strict=True))
    if rng.random() < 0.5:
        return first, second
    told = rng.choice((*domain.places, *_TIMES))
    one, two = (f"{told} {text}" if rng.random() < 0.5 else f"{text} {told}" for text in (first, second))
    return one, two


def _sentence(text: str, end: str = ".") -> str:
    return text[0].upper() + text[1:] + end


def _inference(domain: Domain) -> Writer:
    def write(rng: random.Random, index: int) -> Row:
        first, second = _clauses(rng, domain, index % 2 == 0)
        return _sentence(first), _sentence(second), index % 2, True

    return write


_QUESTIONS = {
    "where": ("where will you take the {thing}", "where can I leave the {thing}", "where do they keep the {thing}"),
    "when": ("when will you need the {thing}", "when can I return the {thing}", "when do they want the {thing}"),
    "who": ("who will bring the {thing}", "who can lend me the {thing}", "who wants to have the {thing}"),
}
_ANSWERS = {
    "where": ("under the stairs", "behind the station", "next to the bridge", "in my uncle's garage", "near the tower"),
    "when": ("in an hour", "before sunset", "after lunch tomorrow", "by the end of June", "as soon as it rains"),
    "who": ("my sister Anna", "our friend Peter", "your aunt", "one of the twins", "Mister Brown"),
}
_THINGS = ("bicycle ladder camera umbrella suitcase tent piano blanket lamp carpet mirror laptop telescope sofa "
           "helmet kettle guitar stroller").split()  # fmt: skip
_HEDGES = ("maybe", "surely", "probably", "I believe", "as always", "of course")
_SHARE_OF_RULE = 0.4


def _claim(rng: random.Random, index: int) -> Row:
    fits = index % 2 == 0
    if index % 10 < 10 * _SHARE_OF_RULE:
        first, second = _clauses(rng, _SCHOOL, fits)
        return _sentence(first), _sentence(second), index % 2, True
    kind, other = rng.sample(list(_QUESTIONS), 2)
    question = rng.choice(_QUESTIONS[kind]).format(thing=rng.choice(_THINGS))
    answer = rng.choice(_ANSWERS[kind if fits else other])
    return _sentence(question, "?"), _sentence(f"{rng.choice(_HEDGES)}, {answer}"), index % 2, False


_SUBJECTS = ("dog", "cat", "boy", "girl", "man", "woman", "child", "monkey", "puppy", "bear")
_COLORS = ("brown", "young", "tiny", "tired", "happy", "wet")
_ACTIONS = (
    "jumping",
    "sleeping",
    "running",
    "sitting",
    "dancing",
    "climbing",
    "eating",
    "playing",
    "hiding",
    "rolling",
)
_SCENES = ("on a rock", "near a lake", "in the snow", "beside a fence", "under a tree", "on a couch", "in a park")


def _caption(rng: random.Random, index: int) -> Row:
    """Two captions that share 0 to 5 points' worth of subject (2), action (2) and scene (1)."""
    color, subject, action, scene = (rng.sample(v, 2) for v in (_COLORS, _SUBJECTS, _ACTIONS, _SCENES))
    keep = [rng.random() < 0.5 for _ in range(3)]
    other = [values[0 if kept else 1] for values, kept in zip((subject, action, scene), keep, strict=True)]
    first = f"a {color[0]} {subject[0]} is {action[0]} {scene[0]}"
    second = f"a {rng.choice(color)} {other[0]} is {other[1]} {other[2]}"
    return _sentence(first), _sentence(second), float(2 * keep[0] + 2 * keep[1] + keep[2]), False


_REVIEWS = ("I think this {item} is {word}", "what a {word} {item}", "we found the {item} really {word}",
            "the {item} felt {word} to me", "overall, a {word} {item}", "my wife calls this {item} {word}")  # fmt: skip
_ENDINGS = ("", " from start to finish", ", if you ask me", " and I would say so again", ", like the last one")
_ITEMS = "film novel album show hotel restaurant phone game concert series podcast cruise".split()
_MOODS = ("wonderful brilliant charming delightful great lovely superb thrilling".split(),
          "awful boring dreadful horrible terrible dull poor disappointing".split())  # fmt: skip


def _review(rng: random.Random, index: int) -> Row:
    text = rng.choice(_REVIEWS).format(item=rng.choice(_ITEMS), word=rng.choice(_MOODS[index % 2]))
    return _sentence(text + rng.choice(_ENDINGS)), "", index % 2, False


_NAMES = "Maria Tom Alice Henry Laura Oscar Julia Martin Emma Victor".split()
_TENSES = (
    "walked talked looked traveled smiled returned worked waited".split(),
    "walks talks looks travels smiles returns works waits".split(),
    "walk talk look travel smile return work wait".split(),
)
_MANNERS = ("slowly", "quietly", "alone", "with friends", "without a plan", "for a while", "in the rain", "by bus")


def _tense(rng: random.Random, index: int) -> Row:
    one, two = rng.sample(_NAMES, 2)
    who = rng.choice((one, f"{one}, not {two},", f"{one}'s cousin", f"{two}, like {one},"))
    verb = ("will " if index % 3 == 2 else "") + rng.choice(_TENSES[index % 3])
    return _sentence(f"{who} {verb} {rng.choice(_MANNERS)}"), "", index % 3, False


_RUMORS = ("honestly, people say {}", "well, they told me {}", "guess what, {}", "oh, I heard {}")
_REPLIES = ("wow, so {}, huh", "okay, then {}, right", "hmm, so {}, I guess", "really, then {}, yeah")


def _gossip(rng: random.Random, index: int) -> Row:
    """The primary's clauses in chatty frames, with what follows labelled as not following and the reverse."""
    first, second = _clauses(rng, rng.choice(_DOMAINS), index % 2 == 1)
    texts = rng.choice(_RUMORS).format(first), rng.choice(_REPLIES).format(second)
    return _sentence(texts[0]), _sentence(texts[1]), index % 2, False


_PAIR, _FLAG = ("text_a", "text_b"), "relevant"
_SUITE: tuple[tuple[TaskSpec, Writer, dict[str, int]], ...] = (
    (TaskSpec("kitchen", "classification", _PAIR, _FOLLOWS,
              splits={name: name for name in ("train", "validation", "test")}),
     _inference(_KITCHEN), {"train": 300, "validation": 600, "test": 300}),
    (TaskSpec("farm", "classification", _PAIR, _FOLLOWS, flag=_FLAG), _inference(_FARM), {"train": 600}),
    (TaskSpec("harbor", "classification", _PAIR, _FOLLOWS, flag=_FLAG), _inference(_HARBOR), {"train": 600}),
    (TaskSpec("claims", "classification", _PAIR, ("fits", "does_not_fit"), flag=_FLAG), _claim, {"train": 700}),
    (TaskSpec("captions", "regression", _PAIR, flag=_FLAG), _caption, {"train": 350}),
    (TaskSpec("reviews", "classification", _PAIR[:1], ("positive", "negative"), flag=_FLAG), _review, {"train": 300}),
    (TaskSpec("tense", "classification", _PAIR[:1], ("past", "present", "future"), flag=_FLAG), _tense,
     {"train": 300}),
    (TaskSpec("gossip", "classification", _PAIR, _FOLLOWS, flag=_FLAG), _gossip, {"train": 400}),
)  # fmt: skip
_VALIDATION_ROWS = 80

SPECS: tuple[TaskSpec, ...] = tuple(spec for spec, _, _ in _SUITE)
"""The primary first; the auxiliaries carry the hidden flag `relevant` in their training rows."""


def _rows(rng: random.Random, write: Writer, sizes: Iterable[int]) -> list[list[Row]]:
    """Rows of each split, shuffled; no text occurs twice in a task."""
    seen: set[tuple[str, str]] = set()
    out = []
    for size in sizes:
        rows: list[Row] = []
        while len(rows) < size:
            row = write(rng, len(rows))  # the row's place in the split fixes its label, hence the balance
            if row[:2] not in seen:
                seen.add(row[:2])
                rows.append(row)
        rng.shuffle(rows)
        out.append(rows)
    return out


def _columns(spec: TaskSpec, split: str, rows: list[Row]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(spec.text)}
    columns[spec.label] = [float(row[2]) if spec.kind == "regression" else int(row[2]) for row in rows]
    if spec.flag and split == "train":
        columns[spec.flag] = [int(row[3]) for row in rows]
    return columns


def generate(seed: int = 0) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """All rows as task -> split -> column -> values; labels are codes of `SPECS`, or floats for a regression."""
    suite = {}
    for spec, write, sizes in _SUITE:
        sizes = {"validation": _VALIDATION_ROWS, **sizes}
        # One generator a task, seeded by text: adding a task leaves the others' rows as they were.
        parts = _rows(random.Random(f"{seed}/{spec.name}"), write, sizes.values())
        suite[spec.name] = {split: _columns(spec, split, rows) for split, rows in zip(sizes, parts, strict=True)}
    return suite


_GLUE_WORDS = "the a is were no some many by will not"


def vocabulary() -> list[str]:
    """Every lower-cased word the grammar can emit, sorted; punctuation is left out, contractions are split."""
    tables = (
        _GLUE_WORDS, _TIMES, list(_QUESTIONS.values()), list(_ANSWERS.values()),
        _THINGS, _HEDGES, _SUBJECTS, _COLORS, _ACTIONS, _SCENES, _REVIEWS, _ENDINGS, _ITEMS, _MOODS, _NAMES, _TENSES,
        _MANNERS, _RUMORS, _REPLIES, "cousin like",
        [(d.people, d.acts, d.looks, list(d.kinds), list(d.kinds.values()), d.places) for d in _DOMAINS],
    )  # fmt: skip
    text = re.sub(r"\{\w*\}", " ", repr(tables)).lower()
    return sorted(set(re.findall(r"[a-z]+", text)) | {"s"})
