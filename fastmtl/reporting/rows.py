"""Selected rows for people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet

if TYPE_CHECKING:
    from fastmtl.pipelines.experiment import Experiment


def selected_rows(experiment: Experiment, n: int = 20) -> list[dict[str, Any]]:
    """The first and the last `n` rows of the selection, none twice, in rank order.

    Each has `end` (top or bottom), `rank` from 1, `task`, `row` (its place in the task's training file), `score` (None
    where nothing was scored), `label` (text), `text_a` and `text_b` (empty for tasks of one text column).
    """
    pool, path = experiment.pool, experiment.selection().path / "selection.parquet"
    table = pyarrow.parquet.read_table(path)
    k = len(table)
    places = np.r_[0 : min(n, k), max(n, k - n) : k]
    chosen = table.take(places).to_pylist()
    row_ids = np.array([pool.starts[pool.index(one["task"])] + one["row"] for one in chosen], dtype=np.int64)
    rows = []
    for place, one, told in zip(places, chosen, pool.texts(row_ids)):
        first, *second = (told[column] for column in pool.task(one["task"]).text)
        score = None if np.isnan(one["score"]) else float(one["score"])
        rows.append({
            "end": "top" if place < n else "bottom", "rank": int(place) + 1, "task": one["task"], "row": one["row"],
            "score": score, "label": str(told["label"]), "text_a": first, "text_b": second[0] if second else "",
        })  # fmt: skip
    return rows
