"""What was understood of a folder: to be shown, and to be written as a YAML that `data=files` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

LONGEST = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Question:
    """Something that could also have been meant otherwise, and the option of the YAML that answers it."""

    task: str
    text: str
    option: str
    """As it stands in the YAML now, or as it would have to be added: `key: value`."""


@dataclass(frozen=True)
class FoundTask:
    """A task as it was understood; `splits` are paths below the folder, `reading` the options of `Reading` in use."""

    name: str
    kind: str
    text: tuple[str, ...]
    label: str
    labels: Mapping[str, int]
    """Name -> training rows, in the order of the codes; empty for a regression."""
    splits: Mapping[str, str]
    rows: Mapping[str, int]
    examples: tuple[Mapping[str, Any], ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)

    def entry(self, root: Path, folder: Path) -> dict[str, Any]:
        """The task in a YAML in `folder`."""
        paths = {split: Path(os.path.relpath(root / path, folder)).as_posix() for split, path in self.splits.items()}
        values = {"name": self.name, "kind": self.kind, "text": list(self.text), "label": self.label}
        return values | ({"labels": list(self.labels)} if self.labels else {}) | {"splits": paths} | dict(self.reading)

    def classes(self) -> str:
        """The labels and how many training rows each has, the most frequent eight."""
        if not self.labels:
            return "numbers"
        often = sorted(self.labels.items(), key=lambda pair: -pair[1])
        more = [f"and {len(often) - 8} more"] * (len(often) > 8)
        return ", ".join([*(f"{shown(name)} ({count:,})" for name, count in often[:8]), *more])


@dataclass(frozen=True)
class Discovery:
    """The tasks of a folder; those with a fault are not among them."""

    folder: Path
    tasks: tuple[FoundTask, ...]
    questions: tuple[Question, ...] = ()
    """What to ask before anything is trained; what is written stands for the first reading of each."""
    faults: tuple[str, ...] = ()
    """What has to be mended first, one line each: file, row, value and fix."""
    notes: tuple[str, ...] = ()
    """What was not read, and why."""

    def table(self) -> str:
        """All tasks, and three example rows of each."""
        rows = [
            [task.name, task.kind, " + ".join(map(shown, task.text)), shown(task.label), task.classes(),
             ", ".join(f"{split} {count:,}" for split, count in task.rows.items())]
            for task in self.tasks
        ]  # fmt: skip
        parts = [tabulate(rows, ["task", "kind", "text", "label", "labels", "rows"], "github", disable_numparse=True)]
        for task in self.tasks:
            lines = [
                f"  {number}. {' | '.join(shown(row.get(name)) for name in task.text)} -> {shown(row.get(task.label))}"
                for number, row in enumerate(task.examples, 1)
            ]
            parts.append("\n".join([f"{task.name}:", *lines]))
        return "\n\n".join(parts)

    def write(self, path: Path) -> None:
        """The YAML that `data=files data.config=PATH` reads, the questions as comments; to be edited."""
        asked = [f"# {line(f'{asked.task}: {asked.text} [{asked.option}]')}" for asked in self.questions]
        head = [
            f"# Understood from {line(str(self.folder))}; check and edit. Keys: see docs/how_to/own_files.md.",
            *asked,
        ]
        tasks = [task.entry(self.folder.resolve(), path.resolve().parent) for task in self.tasks]
        text = yaml.safe_dump({"tasks": tasks}, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        path.write_text("\n".join(head) + "\n" + text, encoding="utf-8")


def line(text: str) -> str:
    """The text in one line, control characters spelled."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: Any) -> str:
    """A value for people: short, in one line, lists between blanks."""
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    text = line(" ".join(text.split()) if text.strip() else text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
