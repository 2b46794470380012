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
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

Row = tuple[str, float, bool]
"""Text, label, and whether the primary's rule decides the label."""
Writer = Callable[[random.Random, int], Row]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GOODS: dict[str, tuple[str, ...]] = {
    "red": _words("""pan pot kettle wok ladle whisk grater spatula
                     guitar violin cello harp banjo mandolin ukulele viola
                     bicycle helmet saddle pedal tent rucksack compass canteen
                     hammer saw drill wrench screwdriver chisel axe mallet"""),
    "orange": _words("""plate bowl cup fork spoon teapot mug saucer
                        shirt blouse sweater jacket coat vest cardigan hoodie
                        pencil pen eraser stapler notebook envelope ruler folder
                        flute trumpet clarinet oboe trombone saxophone tuba bassoon"""),
    "yellow": _words("""toaster blender oven fridge freezer dishwasher microwave stove
                        robot dinosaur unicorn dragon pirate wizard princess knight
                        boot sandal slipper sneaker loafer clog moccasin shoelace
                        racket bat puck javelin paddle frisbee football dart"""),
    "green": _words("""rake spade hoe trowel wheelbarrow sprinkler mower shovel
                       piano organ accordion drum cymbal xylophone gong tambourine
                       printer scanner laptop keyboard monitor router modem projector
                       sofa armchair stool bench cushion ottoman recliner footrest"""),
    "blue": _words("""rose tulip fern cactus lily orchid ivy sunflower
                      nail screw bolt hinge bracket rivet washer hook
                      doll puppet kite marble puzzle balloon rattle jigsaw
                      treadmill dumbbell barbell trampoline stopwatch hurdle trophy whistle"""),
    "violet": _words("""hammock parasol barbecue lantern flowerpot sundial gazebo fountain
                        bracelet necklace ring earring brooch locket pendant tiara
                        desk bookcase cabinet shelf drawer lectern wardrobe dresser
                        amplifier microphone loudspeaker turntable radio stereo headphone metronome"""),
    "brown": _words("""pillow blanket mattress quilt towel curtain duvet rug
                       crib stroller pacifier bib cradle highchair playpen diaper
                       brush roller ladder varnish stencil scraper easel primer
                       scarf belt hat glove mitten shawl beret tie"""),
    "gray": _words("""ski sled snowboard canoe kayak surfboard raft snorkel
                      socket fuse switch bulb battery cable plug adapter
                      camera lens tripod telescope binocular microscope flash magnifier
                      skirt dress gown robe kilt kimono poncho sari"""),
}  # fmt: skip
"""Department -> what it answers for, four lines of eight goods; no good belongs to two."""
DEPARTMENTS, FLOORS = tuple(GOODS), ("first", "second", "third", "fourth")

_CHATS = (
    ("", "hi, ", "hello, ", "hey, ", "hello again, ", "good morning, ", "sorry, "),
    ("the {} came but the {} did not", "do you still have the {} and the {}", "can I swap the {} for the {}",
     "my {} is fine but my {} is broken", "where are my {} and my {}", "is the {} in one box with the {}",
     "I got the {} instead of the {}", "who can tell me about this {} and that {}", "is your {} cheaper than the {}",
     "how do I pay for the {} and the {}", "I lost the bill for my {} and this {}", "does the {} need its own {}"),
    ("", ", thanks", ", please", ", can you check", ", it is urgent", ", any news"),
)  # fmt: skip
_MAILS = (
    ("Dear team, ", "Dear madam, ", "To whom it may concern, ", "Dear sir, ", "Good day, "),
    ("we ordered one {} and one {} last week", "I am writing because of the {} and the {} on my bill",
     "our parcel held another {} than the {} shown", "I would like to return one {} and one {}",
     "kindly send us prices of every {} and every {}", "last month we bought your {} and your {}",
     "our {} was sent without our {}"),
    (". Kind regards", ". Yours, Maria", ". Many thanks", ". Yours faithfully", ". Best wishes, Tom"),
)  # fmt: skip
_CALLS = (
    ("Caller: ", "Man on the phone: ", "Woman on the phone: ", "Old client: ", "From abroad: "),
    ("{} and {} arrived late", "second question about {} and {}", "wants {} sent with {}", "complains of {} and {}",
     "cannot find {} or {} on our pages", "has {} but needs {}", "forgot to order {} and {}"),
    (", will ring again", ", was polite", ", no number left", ", line was bad", ", promised an answer"),
)  # fmt: skip
_FORUM = (
    ("Anyone else? ", "Solved: ", "Question for experts: ", "Just my opinion: ", "First post: "),
    ("their {} beats any {}", "never put your {} next to some {}", "after years with one {} I tried this {}",
     "which {} goes with an old {}", "we tested every {} and every {}", "a friend found some {} and {} on sale",
     "this {} is worth more than that {}"),
    ("", ", what do you think", ", see my other thread", ", lol", ", hope it helps", ", up vote if you agree"),
)  # fmt: skip
_VISITORS = (
    ("A man: ", "A couple: ", "Two girls: ", "An old lady: ", "A family: ", "A tourist: "),
    ("looking for {} and {}", "had come about {} or {}", "brought back {} and {}", "show me {} or {}",
     "nobody answers about {} and {}"),
    ("", ", at noon", ", before we closed", ", this morning", ", in a hurry"),
)  # fmt: skip
_SERVICES = (
    ("the toilets", "the lockers", "the cash machine", "the lost property office"),
    ("the cafe", "the bakery", "a glass of water", "the smoking area"),
    ("a hairdresser", "the tailor", "the photo booth", "the key service"),
    ("the manager", "a job interview", "the accountant", "the training room"),
)

_REVIEWS = ("I think this {item} is {mood}", "what a {mood} {item}", "we found the {item} really {mood}",
            "the {item} felt {mood} to me", "overall, a {mood} {item}", "my wife calls this {item} {mood}")  # fmt: skip
_VERDICTS = ("", " from start to finish", ", if you ask me", " and I would say so again", ", like the last one")
_ITEMS = tuple("film novel album show hotel restaurant phone game concert series podcast cruise".split())
_MOODS = ("wonderful brilliant charming delightful great lovely superb thrilling".split(),
          "tedious boring dreadful horrible terrible dull poor disappointing".split())  # fmt: skip
_SUBJECTS = "dog cat boy girl man woman child monkey puppy bear".split()
_COLORS = "brown young tiny tired happy wet".split()
_MOTIONS = "sleeping sitting eating walking dancing running".split()
_PLACES, _SCENES = ("near", "beside", "behind", "under"), tuple("rock lake tree couch park river bus wall".split())
_NAMES = "Maria Tom Alice Henry Laura Oscar Julia Martin Emma Victor".split()
_TENSES = (
    "walked talked looked traveled smiled returned worked waited".split(),
    "walks talks looks travels smiles returns works waits".split(),
    "walk talk look travel smile return work wait".split(),
)
_MANNERS = ("slowly", "quietly", "alone", "with friends", "for a while", "in the rain", "again", "without a plan")
_ABOUT = tuple("weather wedding exam train garden song holiday doctor".split())

Frames = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Beginnings, middles with places for two things, and ends."""


def _goods(rng: random.Random, department: int) -> list[str]:
    """Two of a department."""
    return rng.sample(GOODS[DEPARTMENTS[department]], 2)


def _fill(rng: random.Random, frames: Iterable[tuple[str, ...]], two: list[str]) -> str:
    start, middle, end = (rng.choice(part) for part in frames)
    return _sentence(start + middle.format(*two) + end)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


@dataclass(frozen=True)
class _Sorted:
    """Writes rows about goods, labelled by department, or by floor where `merged` departments make a label.

    Beginning, middle and end are each from the task's own `frames` with the probability `shift`, else from the
    primary's. A share `noise` of the labels is drawn again among the others: no rule gives them.
    """

    frames: Frames
    merged: int = 1
    shift: float = 1.0
    noise: float = 0.0

    def __call__(self, rng: random.Random, index: int) -> Row:
        department = index % len(DEPARTMENTS)
        parts = (own if rng.random() < self.shift else chat for own, chat in zip(self.frames, _CHATS, strict=True))
        text = _fill(rng, parts, _goods(rng, department))
        label, labels = department // self.merged, len(DEPARTMENTS) // self.merged
        wrong = rng.random() < self.noise
        moved = (label + rng.randrange(1, labels)) % labels
        return text, moved if wrong else label, not wrong


def _guess(rng: random.Random, index: int) -> Row:
    """As the primary's, but the label says nothing of the text."""
    return _fill(rng, _CHATS, _goods(rng, rng.randrange(len(DEPARTMENTS)))), index % len(DEPARTMENTS), False


def _service(rng: random.Random, index: int) -> Row:
    """What else visitors want; each service is on one floor."""
    return _fill(rng, _VISITORS, rng.sample(_SERVICES[index % 4], 2)), index % 4, False


@dataclass(frozen=True)
class _Unrelated:
    """Writes rows whose label has nothing to do with goods; a share `overlap` of them names one all the same."""

    write: Callable[[random.Random, int, str | None], tuple[str, float]]
    overlap: float

    def __call__(self, rng: random.Random, index: int) -> Row:
        good = _goods(rng, rng.randrange(len(DEPARTMENTS)))[0]
        text, label = self.write(rng, index, good if rng.random() < self.overlap else None)
        return _sentence(text), label, False


def _review(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    item = good or rng.choice(_ITEMS)
    return rng.choice(_REVIEWS).format(item=item, mood=rng.choice(_MOODS[index % 2])) + rng.choice(_VERDICTS), index % 2


def _photo(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    """How much two animals or people move, 0 to 1 each, averaged."""
    motions = [rng.randrange(len(_MOTIONS)) for _ in range(2)]
    one, two = (f"a {rng.choice(_COLORS)} {rng.choice(_SUBJECTS)} {_MOTIONS[motion]}" for motion in motions)
    return f"{one} and {two} {rng.choice(_PLACES)} the {good or rng.choice(_SCENES)}", sum(motions) / 10


def _entry(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    """When it happens."""
    verb = ("will " if index % 3 == 2 else "") + rng.choice(_TENSES[index % 3])
    one, two = rng.sample(_NAMES, 2)
    about = f"because of the {good or rng.choice(_ABOUT)}"
    return f"{one} and {two}'s cousin {verb} {rng.choice(_MANNERS)} {about}", index % 3


def _auxiliary(name: str, labels: tuple[str, ...] = DEPARTMENTS) -> TaskSpec:
    return TaskSpec(name, "classification" if labels else "regression", ("text",), labels, flag="relevant")


PRIMARY = "chats"
SPECS: tuple[TaskSpec, ...] = (
    TaskSpec(PRIMARY, "classification", ("text",), DEPARTMENTS,
             splits={name: name for name in ("train", "validation", "test")}),
    _auxiliary("mails"), _auxiliary("calls"), _auxiliary("forum"), _auxiliary("floors", FLOORS), _auxiliary("bot"),
    _auxiliary("reviews", ("positive", "negative")), _auxiliary("photos", ()),
    _auxiliary("diary", ("past", "present", "future")),
)  # fmt: skip
"""The primary first; the auxiliaries carry the hidden flag `relevant` in their training rows."""

_PRIMARY_ROWS = {"train": 56, "validation": 720, "test": 200}
_AUXILIARY_ROWS, _VALIDATION_ROWS = 1600, 80
_RELEVANT = {
    "mails": (0.6, _MAILS, 1),
    "calls": (0.15, _CALLS, 1),
    "forum": (0.15, _FORUM, 1),
    "floors": (0.1, _VISITORS, 2),
}
"""Share of the relevant rows, register, and departments per label."""
_SERVICES_SHARE, _UNRELATED = 0.16, {"reviews": _review, "photos": _photo, "diary": _entry}
"""Of the rows that are neither relevant nor the bot's, the visitors' other wishes; the three tasks have equal rests."""
_TRIES = 50
"""Rows that are drawn for each that is wanted, at most, before the grammar is said to be exhausted."""


def _parts(
    share: float, noise: float, overlap: float, size: float, shift: float, lookalikes: float
) -> dict[str, list[tuple[Writer, int]]]:
    """Who writes how many training rows of each auxiliary task."""
    rows = size * _AUXILIARY_ROWS
    others = rows * (1 - share - lookalikes)
    rest = others * (1 - _SERVICES_SHARE) / len(_UNRELATED)
    parts: dict[str, list[tuple[Writer, int]]] = {
        name: [(_Sorted(frames, merged, shift, noise), round(rows * share * part))]
        for name, (part, frames, merged) in _RELEVANT.items()
    }
    parts["floors"].append((_service, round(others * _SERVICES_SHARE)))
    parts["bot"] = [(_guess, round(rows * lookalikes))]
    parts |= {name: [(_Unrelated(write, overlap), round(rest))] for name, write in _UNRELATED.items()}
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
        noise: Share of those whose label is wrong; they are not flagged as relevant.
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
    rows = {split: _rows(rng, [(_Sorted(_CHATS), n)], taken) for split, n in _PRIMARY_ROWS.items()}
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
    tables = (
        list(GOODS.values()), _CHATS, _MAILS, _CALLS, _FORUM, _VISITORS, _SERVICES, _REVIEWS, _VERDICTS, _ITEMS,
        _MOODS, _SUBJECTS, _COLORS, _MOTIONS, _PLACES, _SCENES, _NAMES, _TENSES, _MANNERS, _ABOUT,
        "a and the because of cousin will s",
    )  # fmt: skip
    return sorted(set(re.findall(r"[a-z]+", re.sub(r"\{\w*\}", " ", repr(tables)).lower())))
