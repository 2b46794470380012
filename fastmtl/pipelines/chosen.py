"""The chosen rows of an arm as a table that can be trained on elsewhere, and why each row was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet
from torch import nn

from fastmtl.models.inference import forward_rows
from fastmtl.pipelines.experiment import Experiment
from fastmtl.stages.fitting import inference

if TYPE_CHECKING:
    from pandas import DataFrame


def chosen_rows(experiments: Sequence[Experiment], limit: int | None = None) -> DataFrame:
    """The rows that most seeds chose, best first.

    Args:
        experiments: The same arm with several seeds.
        limit: How many rows; as many as a seed chooses unless given.

    Returns:
        `rank` from 1; `task`; `row`, its number in the task's training file, from 0; `text_a` and `text_b` (empty for
        tasks of one text column); `label`; `chosen_by`, the share of seeds that chose it; `score`, its mean score over
        these seeds, and `margin`, the mean of its score less that of the last row that was chosen (both NaN where
        nothing was scored); `score: TASK`, the first seed's score for every task, where the scorer has one for each;
        `nearest` and `cosine`, the primary's training row whose feature in the untrained encoder is nearest.
    """
    import pandas

    tables = []
    for experiment in experiments:
        table = pyarrow.parquet.read_table(experiment.selection().path / "selection.parquet").to_pandas()
        tables.append(table.assign(place=np.arange(len(table)), margin=table["score"] - table["score"].min()))
    limit = max(map(len, tables)) if limit is None else limit
    merged = (
        pandas.concat(tables)
        .groupby(["task", "row"], as_index=False)
        .agg(chosen_by=("row", "size"), score=("score", "mean"), margin=("margin", "mean"), place=("place", "mean"))
        .sort_values(["chosen_by", "place"], ascending=[False, True], kind="stable")
        .head(limit)
    )
    pool = experiments[0].pool
    ids = np.array([pool.starts[pool.index(task)] + row for task, row in zip(merged["task"], merged["row"])], np.int64)
    texts = pool.texts(ids)
    shown = [[row[column] for column in pool.task(row["task"]).text] for row in texts]
    near, cosine = _nearest(experiments[0], ids)
    return pandas.DataFrame({
        "rank": np.arange(1, len(merged) + 1), "task": merged["task"].to_numpy(), "row": merged["row"].to_numpy(),
        "text_a": [columns[0] for columns in shown],
        "text_b": [columns[1] if len(columns) > 1 else "" for columns in shown],
        "label": [f"{row['label']:.6g}" if isinstance(row["label"], float) else str(row["label"]) for row in texts],
        "chosen_by": merged["chosen_by"].to_numpy() / len(experiments),
        "score": merged["score"].to_numpy(), "margin": merged["margin"].to_numpy(),
        **_per_task(experiments[0], ids), "nearest": near, "cosine": cosine,
    })  # fmt: skip


def _per_task(experiment: Experiment, ids: np.ndarray) -> dict[str, np.ndarray]:
    """`score: TASK` -> (n,) of some rows; NaN for a row that the seed's proxy was trained on."""
    shards = [shard for shard in experiment.selection_stage.scores if not shard.scorer.per_primary and shard.proxy]
    pool = experiment.pool
    table: dict[str, np.ndarray] = {}
    for shard in shards:
        scores = np.load(experiment.context.get(shard).path / "scores.npy", mmap_mode="r")
        ((task, positions),) = shard.rows.items()
        _, at, place = np.intersect1d(pool.starts[pool.index(task)] + positions, ids, return_indices=True)
        for name, values in zip(shard.proxy.rows if shard.proxy else (), scores):
            table.setdefault(f"score: {name}", np.full(len(ids), np.nan, np.float32))[place] = values[at]
    return table


def _nearest(experiment: Experiment, ids: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The text of the primary's training row that is nearest to each row, and its cosine (n,)."""
    pool, encoder = experiment.pool, experiment.encoder
    precision = "fp32" if experiment.scoring.precision == "int8" else experiment.scoring.precision
    how, model = inference(experiment.context, encoder, precision), encoder.build().to(experiment.hardware.device)

    def features(row_ids: np.ndarray) -> np.ndarray:
        out = np.empty((len(row_ids), model.hidden_size), np.float32)
        tasks = np.searchsorted(pool.starts, row_ids, side="right") - 1
        for task in np.unique(tasks):
            mine = np.flatnonzero(tasks == task)
            rows, positions = pool.split(pool.names[task], "train"), row_ids[mine] - pool.starts[task]
            out[mine] = forward_rows(model.eval(), nn.Identity(), rows, positions, how, "features")
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    ((name, positions),) = experiment.primary_rows[0].items()
    own = pool.starts[pool.index(name)] + positions
    cosines = features(ids) @ features(own).T
    best = cosines.argmax(axis=1)
    texts = pool.texts(own[best])
    columns = pool.task(name).text
    return [" | ".join(str(row[column]) for column in columns) for row in texts], cosines.max(axis=1)


def stability(experiments: Sequence[Experiment]) -> float:
    """The mean share of rows that two seeds of an arm have in common; NaN for one seed.

    Args:
        experiments: The same arm with several seeds.
    """
    sets = [set(experiment.selected().tolist()) for experiment in experiments]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[:i]]
    return float(np.mean([len(a & b) / max(1, min(len(a), len(b))) for a, b in pairs])) if pairs else float("nan")
