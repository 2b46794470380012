"""Which columns of a task are its text, its label and its ids, and what kind of task they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fastmtl.data.discovery.sniff import Doubt
from fastmtl.errors import UserError

_LABELS = ("label", "labels", "gold_label", "target", "class", "category", "ner_tags", "tags", "tag", "y", "intent",
           "topic", "sentiment", "emotion", "polarity", "score", "similarity", "rating", "stars", "answer")  # fmt: skip
"""Names of label columns, the surest first."""
_SCORES = ("score", "similarity", "rating", "stars", "price", "strength")
_TEXTS = re.compile(
    r"^(text|sentence|premise|hypothesis|question|query|document|doc|body|content|message|comment|review|title|subject"
    r"|headline|description|summary|passage|context|tweet|post|utterance|abstract|snippet)[_ ]?([12ab])?$"
)
_PAIRS = (("premise", "hypothesis"), ("question", "sentence"), ("question", "passage"), ("question", "context"),
          ("query", "document"), ("query", "passage"))  # fmt: skip
_ID = re.compile(r"(^|[_ .-])(id|idx|index|guid|uuid|nr|no|number|row|key)$|[a-z](Id|ID)$|^Unnamed: 0$|^#$")
_ID_VALUE = re.compile(r"(?=.*\d)[\w.:/+-]+")
CLASSES = 200
"""More values than these are text, or numbers, and no classes."""


@dataclass(frozen=True)
class Column:
    """The values of a column in the first rows, None where it has none."""

    name: str
    values: tuple[Any, ...]

    @cached_property
    def given(self) -> list[Any]:
        return [value for value in self.values if value is not None and value != ""]

    @cached_property
    def words(self) -> float:
        """Mean words per value."""
        return sum(len(str(value).split()) for value in self.given) / max(1, len(self.given))

    @cached_property
    def distinct(self) -> int:
        return len({str(value) for value in self.given})

    @property
    def is_list(self) -> bool:
        return any(isinstance(value, list) for value in self.given)

    @property
    def key(self) -> str:
        """The name as it is compared: the last field, in lower case."""
        return self.name.rpartition(".")[2].strip().lower().replace("-", "_")

    @cached_property
    def numbers(self) -> list[float]:
        return [number for value in self.given if (number := number_of(value)) is not None]

    @property
    def is_number(self) -> bool:
        """Whether most values are numbers; the others are then to be mended."""
        return len(self.numbers) >= 0.9 * len(self.given) > 0 and not self.is_list

    @property
    def is_id(self) -> bool:
        """Whether it tells rows apart and says nothing of them."""
        single = not self.is_list and all(len(str(value).split()) == 1 for value in self.given)
        if not self.given or not single or self.key in _LABELS:
            return False
        unique = self.distinct == len(self.given) > 2
        coded = all(_ID_VALUE.fullmatch(str(value)) for value in self.given)
        whole = len(self.numbers) == len(self.given) and all(number.is_integer() for number in self.numbers)
        named = bool(_ID.search(self.name.strip()))
        return (named and (unique or coded)) or (unique and coded and (whole or not self.is_number))


@dataclass(frozen=True)
class Roles:
    """What the columns are."""

    kind: str
    text: tuple[str, ...]
    label: str
    doubts: tuple[Doubt, ...] = ()


def number_of(value: Any) -> float | None:
    """The value as a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if isinstance(value, bool) or number != number or number in (float("inf"), -float("inf")) else number


def roles(file: str, columns: Sequence[Column], known_kinds: Sequence[str]) -> Roles:
    """Find text, label and kind.

    Raises:
        UserError: No column can be the text, or none the label.
    """
    if [column.name for column in columns] == ["0", "-1"]:
        return Roles("tagging", ("0",), "-1")
    if tagged := _tagged(columns):
        return tagged
    ids = [column for column in columns if column.is_id]
    others = [column for column in columns if column not in ids and column.given]
    label, doubts = _label(file, others, ids)
    texts = [column for column in others if column is not label and _is_text(column)]
    if not texts:
        left = ", ".join(repr(column.name) for column in columns if column is not label)
        why = "hold ids or numbers" if left else "are not there"
        raise UserError(
            f"{file} has no text beside the label {label.name!r}: its other columns ({left}) {why}; add one"
        )
    text, more = _chosen(file, texts)
    kind, further = _kind(file, label, known_kinds)
    return Roles(kind, text, label.name, (*doubts, *more, *further))


def _is_text(column: Column) -> bool:
    if column.is_list or column.is_number or all(isinstance(value, bool) for value in column.given):
        return False
    return bool(_TEXTS.match(column.key)) or (column.words >= 2 and 2 * column.distinct > len(column.given))


def _tagged(columns: Sequence[Column]) -> Roles | None:
    """Words and their tags: two columns of lists, or of words between blanks, of one length in every row."""

    def lengths(column: Column) -> list[int]:
        return [len(v if isinstance(v, list) else str(v).split()) for v in column.values if v is not None]

    def few_values(column: Column) -> bool:
        tags = [tag for v in column.given for tag in (v if isinstance(v, list) else str(v).split())]
        return len(set(map(str, tags))) < max(3, len(tags) / (4 if column.is_list else 10))

    lists = [column for column in columns if column.is_list]
    named = [column for column in (lists or columns) if re.search(r"(tags?|^labels?)$", column.key)]
    spelled = [column for column in (lists or columns) if column not in named]
    for words in spelled:
        tags = [tag for tag in named if lengths(tag) == lengths(words) and max(lengths(tag)) > 1 and few_values(tag)]
        tags.sort(key=lambda column: _LABELS.index(column.key) if column.key in _LABELS else len(_LABELS))
        if len(tags) > 1:
            said = f"several columns have one tag per word: {', '.join(tag.name for tag in tags)}"
            return Roles("tagging", (words.name,), tags[0].name, ((said, f"label: {tags[0].name}"),))
        if tags:
            return Roles("tagging", (words.name,), tags[0].name)
    return None


def _label(file: str, columns: Sequence[Column], ids: Sequence[Column]) -> tuple[Column, list[Doubt]]:
    def is_class(column: Column) -> bool:
        few = column.distinct <= min(CLASSES, max(2, len(column.given) / 2))
        return (few and column.words < 4 and not column.is_list) or (column.is_number and not _TEXTS.match(column.key))

    named = sorted((c for c in columns if c.key in _LABELS), key=lambda column: _LABELS.index(column.key))
    guessed = [column for column in columns if column not in named and is_class(column)]
    guessed.sort(key=lambda column: (column.distinct < 2, column.distinct))  # of few values, but not of one
    candidates = named or guessed
    if not candidates:
        names = ", ".join(repr(column.name) for column in (*columns, *ids))
        raise UserError(f"{file} has no column that looks like a label (its columns are {names}); name it 'label'")
    label, *rest = candidates
    if not rest and (named or len(columns) == 2):
        return label, []
    if not rest:
        return label, [(f"{file}: is {label.name!r} the label?", f"label: {label.name}")]
    also = ", ".join(repr(column.name) for column in rest[:4])
    return label, [(f"{file}: is {label.name!r} the label, or {also}?", f"label: {label.name}")]


def _chosen(file: str, texts: list[Column]) -> tuple[tuple[str, ...], list[Doubt]]:
    """One text column, or two that are a pair."""
    names = tuple(column.name for column in texts)
    if len(texts) == 1:
        return names, []
    keys = [column.key for column in texts]
    for pair in _PAIRS:
        if set(pair) <= {*keys}:
            return tuple(names[keys.index(key)] for key in pair), []
    for first, second in (("1", "2"), ("a", "b"), ("_1", "_2"), ("_a", "_b")):
        for key in keys:
            if key.endswith(first) and (other := key[: -len(first)] + second) in keys:
                return (names[keys.index(key)], names[keys.index(other)]), []
    longest = sorted(texts, key=lambda column: -column.words)[:2]
    chosen = tuple(name for name in names if name in {column.name for column in longest})
    said = f"{file} has {len(names)} text columns ({', '.join(names)}); {chosen[0]} and {chosen[1]} are read as a pair"
    return chosen, [(said, f"text: {list(chosen)}")]


def _kind(file: str, label: Column, known_kinds: Sequence[str]) -> tuple[str, list[Doubt]]:
    if label.is_list:
        multi = next((kind for kind in ("multilabel", "multi_label") if kind in known_kinds), None)
        if multi is None:
            raise UserError(
                f"{file}: {label.name!r} has several labels per row, which no kind here takes; keep one per row"
            )
        return multi, []
    if not label.is_number:
        if label.distinct > CLASSES or (len(label.given) >= 20 and 2 * label.distinct > len(label.given)):
            raise UserError(
                f"{file}: {label.name!r} has {label.distinct} different values in {len(label.given)} rows, such as "
                f"{str(label.given[0])[:30]!r}: text, not classes; name the label column 'label'"
            )
        return "classification", []
    whole = all(number.is_integer() for number in label.numbers)
    if not whole or (label.distinct > 20 and 4 * label.distinct > len(label.given)):
        return "regression", []
    if label.distinct <= 2:
        return "classification", []
    kind = "regression" if label.key in _SCORES or label.distinct > 20 else "classification"
    said = f"{file}: {label.name!r} has {label.distinct} whole numbers; are they classes, or amounts (regression)?"
    return kind, [] if label.key in ("label", "labels", "class", "target") and kind == "classification" else [
        (said, f"kind: {kind}")
    ]


def named(column: Column, names: Sequence[str]) -> Column:
    """The column with the names of its class codes."""

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(inner) for inner in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else value

    return replace(column, values=tuple(map(name, column.values)))
