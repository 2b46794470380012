"""Toy worlds: rows written in the test, a tokenizer whose ids can be read off the text, the random `tiny` encoder."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may wait for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # toy tensors: threads would only wait for each other

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

Rows = Mapping[str, Mapping[str, Mapping[str, list[Any]]]]
"""task -> split -> column -> values."""


@dataclass(frozen=True)
class ToySource:
    """Rows held in memory, handed out `batch_rows` at a time."""

    tasks: tuple[Any, ...]
    rows: Rows = field(repr=False)
    labels_are_codes: bool = False
    batch_rows: int = 2

    def fingerprint(self, task: Any) -> str:
        return repr(self.rows[task.name])

    def batches(self, task: Any, split: str) -> Iterator[Any]:
        import pyarrow as pa

        yield from pa.table(dict(self.rows[task.name][split])).to_batches(self.batch_rows)


def toy_tokenize(first: list[str], second: list[str] | None) -> tuple[list[list[int]], list[int]]:
    """'3 70000' -> [3, 70000]: a text is its token ids, and a pair is one after the other."""
    heads = [[int(word) for word in text.split()] for text in first]
    tails = [[int(word) for word in text.split()] for text in second] if second else [[] for _ in first]
    return [head + tail for head, tail in zip(heads, tails)], [len(head) for head in heads]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def toy_source() -> Callable[..., ToySource]:
    return ToySource


@pytest.fixture(scope="session")
def toy_tokenizer() -> Callable[..., Any]:
    return toy_tokenize


@pytest.fixture(scope="session")
def make_pool() -> Callable[..., Any]:
    """`make_pool(folder, source, tokenize, cut=None)`: every task written to its folder, opened as one pool."""
    from fastmtl.data.pool import TaskPool, write_task

    def make(folder: Path, source: ToySource, tokenize: Any = toy_tokenize, cut: Any = None) -> TaskPool:
        folders = []
        for task in source.tasks:
            folders.append(folder / task.name)
            folders[-1].mkdir(parents=True)
            write_task(folders[-1], source, task, tokenize)
        return TaskPool(folders, cut)

    return make


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The two-layer random BERT; its vocabulary has all letters, so it reads any text."""
    from fastmtl.models.encoder import EncoderSpec

    return EncoderSpec("tiny", pooling="mean", max_length=32)


@pytest.fixture(scope="session")
def tiny_tasks() -> tuple[Any, ...]:
    """A pair task, a single-sentence task of three classes and a regression."""
    from fastmtl.tasks import TaskSpec

    train = {"train": "train"}
    return (
        TaskSpec("pairs", "classification", ("a", "b"), ("no", "yes"), splits=train),
        TaskSpec("single", "classification", ("a",), ("red", "green", "blue"), splits=train),
        TaskSpec("score", "regression", ("a",), splits=train),
    )


@pytest.fixture(scope="session")
def tiny_pool(tmp_path_factory: pytest.TempPathFactory, make_pool: Any, tiny: Any, tiny_tasks: Any) -> Any:
    """12 rows a task over the real `tiny` tokenizer, of very different lengths."""
    from fastmtl.models.encoder import Tokenizer

    rng = np.random.default_rng(0)
    words = "the cook bought some apples and a waiter washed bowls".split()

    def text(longest: int) -> str:
        return " ".join(rng.choice(words, size=rng.integers(1, longest)))

    rows = {
        "pairs": {"a": [text(6) for _ in range(12)], "b": [text(12) for _ in range(12)], "label": ["no", "yes"] * 6},
        "single": {"a": [text(25) for _ in range(12)], "label": ["red", "green", "blue"] * 4},
        "score": {"a": [text(9) for _ in range(12)], "label": [str(i / 4) for i in range(12)]},
    }
    source = ToySource(tiny_tasks, {name: {"train": columns} for name, columns in rows.items()}, batch_rows=5)
    return make_pool(tmp_path_factory.mktemp("tiny_pool"), source, Tokenizer(tiny))


@pytest.fixture(scope="session")
def tagged_pool(tmp_path_factory: pytest.TempPathFactory, make_pool: Any, tiny: Any) -> Any:
    """Two tagging tasks of 12 rows, each word's tag its own; `things` has the negative tag and hidden test rows.

    "zebra" is not in the vocabulary and so has five pieces.
    """
    from fastmtl.models.encoder import Tokenizer
    from fastmtl.tasks import TaskSpec

    classes = {"the": "D", "some": "D", "cook": "N", "zebra": "N", "apples": "N", "bought": "V", "washed": "V"}
    rng = np.random.default_rng(0)
    words = [rng.choice(list(classes), size=rng.integers(1, 7)).tolist() for _ in range(12)]
    kinds = [[classes[word] for word in row] for row in words]
    things = [["thing" if kind == "N" else "deed" if kind == "V" else "O" for kind in row] for row in kinds]
    tasks = tuple(
        TaskSpec(name, "tagging", ("words",), labels, ("f1_micro", "accuracy"), "tags", {"train": "train", **more})
        for name, labels, more in (("things", ("thing", "O", "deed"), {"test": "test"}), ("words", ("D", "N", "V"), {}))
    )
    rows = {
        "things": {"train": {"words": words, "tags": things}, "test": {"words": words[:3], "tags": [None] * 3}},
        "words": {"train": {"words": words, "tags": kinds}},
    }
    return make_pool(tmp_path_factory.mktemp("tagged_pool"), ToySource(tasks, rows, batch_rows=5), Tokenizer(tiny))
