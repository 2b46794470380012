"""A generated suite: one small primary task and auxiliaries whose use to it is known row by row.

The primary asks whether the second sentence follows from the first. The two differ in one content word, and every
word occurs alike under both labels: only whether the two words fit each other decides. Voice and amounts vary from row
to row, so neither the words of a side nor their overlap says anything about the label.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastmtl.tasks import TaskSpec

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


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((one, two) for one, _, two in (pair.partition("/") for pair in text.split()))


def _domain(people: str, acts: str, looks: str, kinds: dict[str, str]) -> Domain:
    members = {kind: tuple(text.split()) for kind, text in kinds.items()}
    return Domain(tuple(people.split()), _pairs(acts), _pairs(looks), members)


# Past forms that are participles too, so that each serves in both voices.
_KITCHEN = _domain(
    "cook waiter baker butcher guest owner manager cleaner",
    "bought/purchased washed/cleaned picked/selected carried/transported loved/adored",
    "big/large small/little strange/odd cheap/inexpensive",
    {"fruits": "apples pears lemons cherries", "vegetables": "carrots onions potatoes beans",
     "dishes": "bowls plates cups", "drinks": "juices wines beers"},
)  # fmt: skip
_FARM = _domain(
    "farmer shepherd driver neighbor worker hunter gardener rider",
    "found/discovered gathered/collected needed/required guarded/protected hated/despised",
    "huge/enormous old/ancient dirty/filthy strong/sturdy",
    {"animals": "cows sheep goats horses", "vehicles": "trucks tractors carts", "tools": "hammers shovels axes",
     "crops": "oats melons pumpkins"},
)  # fmt: skip
_HARBOR = _domain(
    "sailor captain fisherman pilot guard diver trader passenger",
    "repaired/fixed inspected/examined received/obtained ruined/destroyed mentioned/named",
    "pretty/beautiful broken/damaged expensive/costly tiny/miniature",
    {"boats": "ferries canoes yachts", "weapons": "guns rifles swords", "clothes": "coats shirts hats boots",
     "fabrics": "silks wools linens"},
)  # fmt: skip
_SCHOOL = _domain(
    "teacher student nurse painter singer writer doctor librarian",
    "liked/enjoyed displayed/exhibited arranged/organized requested/demanded rented/leased",
    "quiet/silent shiny/glossy common/ordinary frightening/scary",
    {"instruments": "drums flutes guitars violins", "toys": "dolls puppets kites", "furniture": "chairs tables desks",
     "flowers": "roses tulips lilies"},
)  # fmt: skip
_DOMAINS = (_KITCHEN, _FARM, _HARBOR, _SCHOOL)

_BORROWED = 0.6
"""Share of words taken from any setting instead of the row's own. It makes some rows of a related task look like the
primary's: settings told apart by every single word would leave a discriminator nothing to find."""


def _near(rng: random.Random, domain: Domain) -> Domain:
    return rng.choice(_DOMAINS) if rng.random() < _BORROWED else domain


def _clause(who: str, act: str, what: str, passive: bool) -> str:
    """`what` is a plural with its determiner."""
    return f"{what} were {act} by the {who}" if passive else f"the {who} {act} {what}"


def _reworded(rng: random.Random, pairs: tuple[tuple[str, str], ...], follows: bool) -> tuple[str, str]:
    """A word and either its counterpart or, on the same side, that of another word."""
    pair, other = rng.sample(pairs, 2)
    side = rng.randrange(2)
    return pair[side], (pair if follows else other)[1 - side]


def _clauses(rng: random.Random, domain: Domain, follows: bool) -> tuple[str, str]:
    """Two clauses that differ in one content word: act, look or kind."""
    who = rng.choice(_near(rng, domain).people)
    kinds = _near(rng, domain).kinds
    kind, other = rng.sample(list(kinds), 2)
    acts = (rng.choice(rng.choice(_near(rng, domain).acts)),) * 2
    things = (rng.choice(kinds[kind]),) * 2
    amount = rng.choice(("some", "no", "many"))
    edit = rng.randrange(3)
    if edit == 0:
        acts = _reworded(rng, _near(rng, domain).acts, follows)
    elif edit == 1:
        looks = _reworded(rng, _near(rng, domain).looks, follows)
        things = (f"{looks[0]} {things[0]}", f"{looks[1]} {things[1]}")
    else:
        amount = "some"  # no apples may still be some fruits
        things = (things[0], kind if follows else other)
    passive = rng.random() < 0.5
    first, second = (_clause(who, act, f"{amount} {thing}", passive) for act, thing in zip(acts, things, strict=True))
    return first, second


def _sentence(text: str, end: str = ".") -> str:
    return text[0].upper() + text[1:] + end


def _inference(domain: Domain) -> Writer:
    def write(rng: random.Random, index: int) -> Row:
        first, second = _clauses(rng, domain, index % 2 == 0)
        return _sentence(first), _sentence(second), index % 2, True

    return write


_REQUESTS = ("can you lend me the {thing} {when}", "may I borrow the {thing} {when}",
             "will you bring the {thing} {when}", "do you need the {thing} {when}")  # fmt: skip
_THINGS = ("bicycle ladder camera umbrella suitcase tent piano blanket lamp carpet mirror laptop telescope sofa "
           "helmet kettle stroller").split()  # fmt: skip
_WHEN = ("tomorrow", "tonight", "next week", "after lunch", "this weekend", "for an hour")
_ANSWERS = (
    ("of course", "yes, sure", "gladly", "yes, why not"),
    ("sorry, no", "certainly not", "never", "no, I cannot"),
)
_REASONS = ("my sister has it", "it is in my garage", "I will call you", "it is quite new", "you know me")
_SHARE_OF_RULE = 0.4


def _answer(rng: random.Random, index: int) -> Row:
    """Two jobs under one label: does the second sentence follow, or does the answer to a request agree?"""
    if index % 10 < 10 * _SHARE_OF_RULE:
        first, second = _clauses(rng, _SCHOOL, index % 2 == 0)
        return _sentence(first), _sentence(second), index % 2, True
    request = rng.choice(_REQUESTS).format(thing=rng.choice(_THINGS), when=rng.choice(_WHEN))
    answer = f"{rng.choice(_ANSWERS[index % 2])}, {rng.choice(_REASONS)}"
    return _sentence(request, "?"), _sentence(answer), index % 2, False


_SUBJECTS = ("dog", "cat", "boy", "girl", "man", "woman", "child", "monkey", "puppy", "bear")
_COLORS = ("brown", "young", "tiny", "tired", "happy", "wet")
_ACTIONS = ("sleeping", "sitting", "eating", "walking", "dancing", "running")
_SCENES = ("on a rock", "near a lake", "in the snow", "beside a fence", "under a tree", "on a couch", "in a park")


def _caption(rng: random.Random, index: int) -> Row:
    """How much movement two captions show, 0 to 5 each, averaged."""
    motions = [rng.randrange(len(_ACTIONS)) for _ in range(2)]
    first, second = (
        f"a {rng.choice(_COLORS)} {rng.choice(_SUBJECTS)} is {_ACTIONS[motion]} {rng.choice(_SCENES)}"
        for motion in motions
    )
    return _sentence(first), _sentence(second), sum(motions) / 2, False


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
    """Hearsay in chatty frames: whatever follows or not, half of it is labelled as following.

    A rule that is merely turned round would harm nobody, for every task has a head of its own.
    """
    first, second = _clauses(rng, rng.choice(_DOMAINS[1:]), follows=rng.random() < 0.5)
    texts = rng.choice(_RUMORS).format(first), rng.choice(_REPLIES).format(second)
    return _sentence(texts[0]), _sentence(texts[1]), index % 2, False


_PAIR, _FLAG = ("text_a", "text_b"), "relevant"
_SUITE: tuple[tuple[TaskSpec, Writer, dict[str, int]], ...] = (
    (TaskSpec("kitchen", "classification", _PAIR, _FOLLOWS,
              splits={name: name for name in ("train", "validation", "test")}),
     _inference(_KITCHEN), {"train": 200, "validation": 500, "test": 300}),
    (TaskSpec("farm", "classification", _PAIR, _FOLLOWS, flag=_FLAG), _inference(_FARM), {"train": 400}),
    (TaskSpec("harbor", "classification", _PAIR, _FOLLOWS, flag=_FLAG), _inference(_HARBOR), {"train": 400}),
    (TaskSpec("answers", "classification", _PAIR, ("yes", "no"), flag=_FLAG), _answer, {"train": 500}),
    (TaskSpec("captions", "regression", _PAIR, flag=_FLAG), _caption, {"train": 250}),
    (TaskSpec("reviews", "classification", _PAIR[:1], ("positive", "negative"), flag=_FLAG), _review, {"train": 250}),
    (TaskSpec("tense", "classification", _PAIR[:1], ("past", "present", "future"), flag=_FLAG), _tense,
     {"train": 250}),
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
        _GLUE_WORDS, _REQUESTS, _ANSWERS, _REASONS,
        _THINGS, _WHEN, _SUBJECTS, _COLORS, _ACTIONS, _SCENES, _REVIEWS, _ENDINGS, _ITEMS, _MOODS, _NAMES, _TENSES,
        _MANNERS, _RUMORS, _REPLIES, "cousin like",
        [(d.people, d.acts, d.looks, list(d.kinds), list(d.kinds.values())) for d in _DOMAINS],
    )  # fmt: skip
    text = re.sub(r"\{\w*\}", " ", repr(tables)).lower()
    return sorted(set(re.findall(r"[a-z]+", text)) | {"s"})
