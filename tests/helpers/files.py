"""A small pool of a user's own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def three_tasks(folder: Path, changed: bool = False) -> Path:
    """The YAML of `alpha`, `beta` and `gamma`, of 60 rows each; a row of `beta` repeats a validation row of `alpha`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    told = []
    for name in ("alpha", "beta", "gamma"):
        for split, count in (("train", 60), ("validation", 16), ("test", 8)):
            words = rng.choice(["cook", "apples", "the", "bowls"], (count, 6)).tolist()
            texts = [" ".join([name, split, *some, str(i)]) for i, some in enumerate(words)]
            if (name, split) == ("alpha", "validation"):
                shared = texts[0]
            if (name, split) == ("beta", "train"):
                texts[5:7] = [shared, "another row altogether" if changed else texts[6]]
            rows = [json.dumps({"text": text, "label": ["no", "yes"][i % 2]}) for i, text in enumerate(texts)]
            (folder / f"{name}.{split}.jsonl").write_text("\n".join(rows) + "\n")
        files = ", ".join(f"{split}: {name}.{split}.jsonl" for split in ("train", "validation", "test"))
        told.append(f"- {{name: {name}, kind: classification, labels: ['no', 'yes'], text: text, splits: {{{files}}}}}")
    path = folder / "tasks.yaml"
    path.write_text("tasks:\n" + "\n".join(told) + "\n")
    return path
