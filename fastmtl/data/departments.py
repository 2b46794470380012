"""A generated suite about a mail-order house: one small primary task, and a pile of which a known part is worth reading.

`chats` is the primary: every message belongs to one of eight departments, and a few have been sorted by hand. A message
names two goods of its department and one of another, so that the goods alone decide; there are so many that the sorted
messages show about half of them. Mails, calls and forum posts were sorted in the same way; the reception's book says
only to which floor a visitor was sent, two departments to a floor, and visitors ask for other things than goods too.
Reviews, captions of photos and diaries have nothing to do with it, though they may name goods. An old bot guessed the
department of messages that look like the primary's: its labels are noise.

So the primary's score rises smoothly with the relevant rows that are read: each one shows goods of which it knew little.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastmtl.tasks import TaskSpec

Row = tuple[str, float, bool]
"""Text, label, and whether the primary's rule decides the label."""
Writer = Callable[[random.Random, int], Row]

def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


GOODS: dict[str, tuple[str, ...]] = {
    "red": _words("""pan pot kettle wok ladle whisk  guitar violin cello harp banjo mandolin
                     bicycle helmet saddle pedal tent rucksack  hammer saw drill wrench screwdriver chisel"""),
    "orange": _words("""plate bowl cup fork spoon teapot  shirt blouse sweater jacket coat vest
                        pencil pen eraser stapler notebook envelope  flute trumpet clarinet oboe trombone saxophone"""),
    "yellow": _words("""toaster blender oven fridge freezer dishwasher  robot dinosaur unicorn dragon pirate wizard
                        boot sandal slipper sneaker loafer clog  racket bat puck javelin paddle frisbee"""),
    "green": _words("""rake spade hoe trowel wheelbarrow sprinkler  piano organ accordion drum cymbal xylophone
                       printer scanner laptop keyboard monitor router  sofa armchair stool bench cushion ottoman"""),
    "blue": _words("""rose tulip fern cactus lily orchid  nail screw bolt hinge bracket rivet
                      doll puppet kite marble puzzle balloon  treadmill dumbbell barbell trampoline stopwatch hurdle"""),
    "violet": _words("""hammock parasol barbecue lantern flowerpot sundial  bracelet necklace ring earring brooch locket
                        desk bookcase cabinet shelf drawer lectern  amplifier microphone loudspeaker turntable radio stereo"""),
    "brown": _words("""pillow blanket mattress quilt towel curtain  crib stroller pacifier bib cradle highchair
                       brush roller ladder varnish stencil scraper  scarf belt hat glove mitten shawl"""),
    "gray": _words("""ski sled snowboard canoe kayak surfboard  socket fuse switch bulb battery cable
                      camera lens tripod telescope binocular microscope  skirt dress gown robe kilt kimono"""),
}  # fmt: skip
"""Department -> what it answers for, four lines of six goods; no good belongs to two."""
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
          "awful boring dreadful horrible terrible dull poor disappointing".split())  # fmt: skip
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


def _fill(rng: random.Random, starts: Sequence[str], middles: Sequence[str], ends: Sequence[str], two: list[str]) -> str:
    return _sentence(rng.choice(starts) + rng.choice(middles).format(*two) + rng.choice(ends))


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
        text = _fill(rng, *parts, _goods(rng, department))
        label, labels = department // self.merged, len(DEPARTMENTS) // self.merged
        wrong = rng.random() < self.noise
        moved = (label + rng.randrange(1, labels)) % labels
        return text, moved if wrong else label, not wrong


def _guess(rng: random.Random, index: int) -> Row:
    """As the primary's, but the label says nothing of the text."""
    return _fill(rng, *_CHATS, _goods(rng, rng.randrange(len(DEPARTMENTS)))), index % len(DEPARTMENTS), False


def _service(rng: random.Random, index: int) -> Row:
    """What else visitors want; each service is on one floor."""
    return _fill(rng, *_VISITORS, rng.sample(_SERVICES[index % 4], 2)), index % 4, False


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
    """How much two animals or people move, 0 to 5 each, averaged."""
    motions = [rng.randrange(len(_MOTIONS)) for _ in range(2)]
    one, two = (f"a {rng.choice(_COLORS)} {rng.choice(_SUBJECTS)} {_MOTIONS[motion]}" for motion in motions)
    return f"{one} and {two} {rng.choice(_PLACES)} the {good or rng.choice(_SCENES)}", sum(motions) / 2


def _entry(rng: random.Random, index: int, good: str | None) -> tuple[str, float]:
    """When it happens."""
    verb = ("will " if index % 3 == 2 else "") + rng.choice(_TENSES[index % 3])
    about = f"because of the {good or rng.choice(_ABOUT)}"
    return f"{rng.choice(_NAMES)} and {rng.choice(_NAMES)}'s cousin {verb} {rng.choice(_MANNERS)} {about}", index % 3


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

_PRIMARY_ROWS = {"train": 80, "validation": 800, "test": 240}
_AUXILIARY_ROWS, _VALIDATION_ROWS = 2000, 80
_RELEVANT = {"mails": 0.3, "calls": 0.25, "forum": 0.25, "floors": 0.2}
_IRRELEVANT = {"floors": 0.16, "reviews": 0.28, "photos": 0.28, "diary": 0.28}
"""How the relevant rows, and the others but for the bot's, are spread over the tasks."""


def _parts(
    share: float, noise: float, overlap: float, size: float, shift: float, lookalikes: float
) -> dict[str, list[tuple[Writer, int]]]:
    """Who writes how many training rows of each auxiliary task."""
    rows = size * _AUXILIARY_ROWS
    left = rows * (1 - share - lookalikes)
    parts: dict[str, list[tuple[Writer, int]]] = {spec.name: [] for spec in SPECS if spec.name != PRIMARY}
    frames = {"mails": _MAILS, "calls": _CALLS, "forum": _FORUM, "floors": _VISITORS}
    for name, part in _RELEVANT.items():
        parts[name].append((_Sorted(frames[name], 2 if name == "floors" else 1, shift, noise), round(rows * share * part)))
    others = {"floors": _service, **{n: _Unrelated(w, overlap) for n, w in
              (("reviews", _review), ("photos", _photo), ("diary", _entry))}}
    for name, part in _IRRELEVANT.items():
        parts[name].append((others[name], round(left * part)))
    parts["bot"].append((_guess, round(rows * lookalikes)))
    return parts


def _rows(rng: random.Random, parts: list[tuple[Writer, int]], taken: set[str]) -> list[Row]:
    """Rows of one split, shuffled; no text that is taken, and none twice."""
    rows: list[Row] = []
    for write, size in parts:
        index = 0
        while index < size:
            row = write(rng, index)  # the row's place fixes its label, hence the balance
            if row[0] not in taken:
                taken.add(row[0])
                rows.append(row)
                index += 1
    rng.shuffle(rows)
    return rows


def _columns(spec: TaskSpec, split: str, rows: list[Row]) -> dict[str, list[Any]]:
    labels = [float(row[1]) if spec.kind == "regression" else int(row[1]) for row in rows]
    columns: dict[str, list[Any]] = {"text": [row[0] for row in rows], "label": labels}
    return columns | ({"relevant": [int(row[2]) for row in rows]} if spec.flag and split == "train" else {})


def generate(
    seed: int = 0, *, share: float = 0.28, noise: float = 0.0, overlap: float = 0.3, size: float = 1.0,
    shift: float = 0.5, lookalikes: float = 0.025,
) -> dict[str, dict[str, dict[str, list[Any]]]]:  # fmt: skip
    """All rows as task -> split -> column -> values; labels are codes of `SPECS`, or floats for a regression.

    Args:
        seed: Other rows of the same kind. The primary's rows depend on it alone, on none of the dials below.
        share: Share of the auxiliary rows that are about the primary's decision.
        noise: Share of those whose label is wrong; they are not flagged as relevant.
        overlap: Share of the reviews, photos and diaries that name goods.
        size: Auxiliary rows, as a multiple of 2,000.
        shift: Share of the rows about the primary's decision that are in their own register throughout; the others
            say what the primary's say between a beginning and an end of their own.
        lookalikes: Share of the auxiliary rows that the bot guessed: the primary's register, and labels by chance.
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
