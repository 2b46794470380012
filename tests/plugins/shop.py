"""A source of rows that are made here: what customers of a shop write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from fastmtl.data.sources import checked_pool
from fastmtl.tasks import TaskSpec

THINGS = ("lamp", "chair", "kettle", "carpet", "mirror", "shelf", "clock", "desk", "oven", "sofa")
MOODS = {"praise": ("sturdy", "lovely", "bright", "quiet"), "complaint": ("broken", "late", "scratched", "loud")}
SPLITS = {"train": "train", "validation": "validation"}


@dataclass(frozen=True)
class Shop:
    """`rows` messages per task, a quarter of them for validation, drawn from a seed."""

    rows: int
    seed: int
    labels_are_codes = False

    def fingerprint(self, task: TaskSpec) -> str:
        return f"shop 1 {task.name} {self.rows} {self.seed}"

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        places = range(self.rows) if split == "train" else range(self.rows, self.rows + self.rows // 4)
        messages = list(islice(self._messages(task), places.start, places.stop))
        yield pa.RecordBatch.from_pylist(messages)

    def _messages(self, task: TaskSpec) -> Iterator[dict[str, str]]:
        rng = np.random.default_rng([self.seed, len(task.name)])
        while True:
            mood = rng.choice(list(MOODS))
            thing, *others = rng.choice(THINGS, 5, replace=False)
            said = " ".join(rng.choice(MOODS[mood], 2))
            label = mood if task.name == "mood" else "long" if len(thing) > 5 else "short"
            yield {"text": f"the {thing} is {said} unlike {' '.join(others)}", "label": label}


def shop_tasks(rows: int = 60, seed: int = 0) -> tuple[TaskSpec, ...]:
    """The mood of a message, and the length of the thing's name."""
    rows, seed = int(rows), int(seed)  # a tasks file gives texts
    tasks = [
        TaskSpec(name, "classification", ("text",), labels, splits=SPLITS, source=Shop(rows, seed))
        for name, labels in (("mood", tuple(MOODS)), ("thing", ("long", "short")))
    ]
    return checked_pool(tasks)
