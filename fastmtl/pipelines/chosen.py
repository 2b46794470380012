"""The chosen rows of an arm as a table that can be trained on elsewhere, and why each row was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet

from fastmtl.pipelines.experiment import Experiment

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
        nothing was scored).
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
    return pandas.DataFrame({
        "rank": np.arange(1, len(merged) + 1), "task": merged["task"].to_numpy(), "row": merged["row"].to_numpy(),
        "text_a": [columns[0] for columns in shown],
        "text_b": [columns[1] if len(columns) > 1 else "" for columns in shown],
        "label": [str(row["label"]) for row in texts],
        "chosen_by": merged["chosen_by"].to_numpy() / len(experiments),
        "score": merged["score"].to_numpy(), "margin": merged["margin"].to_numpy(),
    })  # fmt: skip


def stability(experiments: Sequence[Experiment]) -> float:
    """The mean share of rows that two seeds of an arm have in common; NaN for one seed.

    Args:
        experiments: The same arm with several seeds.
    """
    sets = [set(experiment.selected().tolist()) for experiment in experiments]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[:i]]
    return float(np.mean([len(a & b) / max(1, min(len(a), len(b))) for a, b in pairs])) if pairs else float("nan")
