"""Generated rows in the form of GLUE's files, to check the study's road without data: they show nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

WORDS = {
    "sst2": ("film", "plot", "cast", "score", "scene"), "cola": ("boy", "dog", "girl", "ball", "book"),
    "qqp": ("phone", "city", "price", "train", "visa"),
}  # fmt: skip
MOODS = (("dull", "weak", "poor"), ("great", "fine", "warm"))


def write(folder: Path, rows: int = 120) -> Path:
    """`<task>/<split>.parquet` of a single-sentence primary and two other tasks; returns the folder."""
    for task, words in WORDS.items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        for split in ("train", "validation"):
            rng = random.Random(f"{task} {split}")
            labels = [i % 2 for i in range(rows)]
            texts = [" ".join([rng.choice(words), *rng.choices(MOODS[label], k=2), f"{i}"])
                     for i, label in enumerate(labels)]  # fmt: skip
            columns = {"question1": texts, "question2": texts[::-1]} if task == "qqp" else {"sentence": texts}
            pa.parquet.write_table(pa.table({**columns, "label": labels}), folder / task / f"{split}.parquet")
    return folder
