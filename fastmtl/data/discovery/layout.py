"""Which files of a folder are which split of which task."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fastmtl.data.sources.formats import ENDINGS
from fastmtl.errors import UserError

SPLITS = {
    "train": "train", "training": "train", "dev": "validation", "devel": "validation", "val": "validation",
    "valid": "validation", "validation": "validation", "eval": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Words of a file's name that say which split it is."""
_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
UNREAD = {
    ".xlsx": "save it as CSV (UTF-8)", ".xls": "save it as CSV (UTF-8)", ".ods": "save it as CSV (UTF-8)",
    ".json": "write one object a line and name it .jsonl", ".gz": "unpack it", ".zip": "unpack it",
    ".txt": "name it .csv, .tsv or .conll if that is what it holds", ".pkl": "pickles are never read; save it as CSV",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The files of each task, and what was passed over."""

    tasks: dict[str, dict[str, Path]]
    faults: list[str]
    notes: list[str]


def layout(folder: Path) -> Layout:
    """One task a file or a folder of files; the word for a split stands in the file's name or is all of it.

    Raises:
        UserError: No folder, or nothing in it that is read.
    """
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is not a folder; give one with a file, or a folder of files, per task")
    found = Layout({}, [], [])
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__")) for part in parts) or path.name.lower().startswith(("readme", "license")):
            continue
        place = path.relative_to(folder).as_posix()
        if path.suffix.lower() not in ENDINGS:
            if advice := UNREAD.get(path.suffix.lower()):
                found.notes.append(f"{place} is not read; {advice}")
            continue
        name, split = _named(path.stem)
        name = "_".join([*parts[:-1], *([name] if name else [])]) or folder.resolve().name
        name = re.sub(r"[\s.,=:/\\{}\[\]'\"]+", "_", name).strip("_") or "task"
        splits = found.tasks.setdefault(name, {})
        if split in splits:
            before = splits[split].relative_to(folder).as_posix()
            found.faults.append(
                f"{place} and {before} are both {split} of {name}; join them into one file, or rename one"
            )
        else:
            splits[split] = path
    for name in [name for name, splits in found.tasks.items() if "train" not in splits]:
        first = next(iter(found.tasks.pop(name).values())).relative_to(folder).as_posix()
        found.faults.append(
            f"{first} has no training file beside it; add one with 'train' in its name, or drop the word"
        )
    if not found.tasks and not found.faults:
        raise UserError(f"{str(folder)!r} has no file that is read ({', '.join(ENDINGS)}); add one per task")
    return found


def _named(stem: str) -> tuple[str, str]:
    """The task's part of a file's name, which may be empty, and the split; without a word for one it is train."""
    stem = _SHARD.sub("", stem)
    words = re.split(r"([._\- ]+)", stem)
    for place in (len(words) - 1, 0):
        if split := SPLITS.get(words[place].lower()):
            rest = words[:-1] if place else words[1:]
            return "".join(rest).strip("._- "), split
    return stem, "train"
