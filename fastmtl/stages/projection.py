"""The stage `projection`: the proxy's pooled features of a few rows a task, drawn by t-SNE, and how far tasks part."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from torch import nn

from fastmtl.data.pool import TaskPool
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.models.inference import Precision, forward_rows, inference_flops
from fastmtl.models.multitask import load_encoder
from fastmtl.seeds import generator
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.fitting import inference
from fastmtl.stages.pool import pool_of
from fastmtl.stages.proxy import Proxy
from fastmtl.store import WEIGHTS
from fastmtl.tasks import TaskSpec


@dataclass(frozen=True, eq=False)
class Projection(Stage):
    """`projection.parquet` (task, row, x, y) by t-SNE, and `separation.json` (see `separation`) of the features.

    The proxy makes the features, those of its heads before dropout. `perplexity` is at most a third of the rows. As in
    FastMTL (Kung et al., EMNLP 2021), with numbers beside the picture.
    """

    kind = "projection"
    proxy: Proxy
    rows: RowSet
    precision: Precision
    perplexity: float = 30.0
    neighbours: int = 15

    def build(self, out: Path, context: Context) -> dict[str, Any]:
        names = list(self.rows)
        task_N = np.repeat(names, [len(positions) for positions in self.rows.positions])
        features_NH, records = self._features(context)
        (out / "separation.json").write_text(json.dumps(separation(features_NH, task_N, self.neighbours), indent=1))
        started = time.perf_counter()
        x_N, y_N = tsne(features_NH, self.perplexity).T
        columns = {"task": task_N, "row": np.concatenate(self.rows.positions), "x": x_N, "y": y_N}
        pa.parquet.write_table(pa.table(columns), out / "projection.parquet")
        return {**records, "tsne_s": round(time.perf_counter() - started, 3)}

    def _features(self, context: Context) -> tuple[np.ndarray, dict[str, Any]]:
        """(N, H) float32, task after task, and what reading them cost."""
        how = inference(context, self.proxy.encoder, self.precision)
        pool = pool_of(context, self.proxy.encoder, self.rows)
        encoder = load_encoder(self.proxy.encoder, context.get(self.proxy).path / WEIGHTS).to(how.device)
        read, lengths = [], []
        for name, positions in self.rows.items():
            rows = pool.split(name, "train")
            read.append(forward_rows(encoder, nn.Identity(), rows, positions, how, f"read {name}"))
            lengths.append(rows.lengths[positions])
        length_N = np.concatenate(lengths)
        flops = inference_flops(encoder, length_N, how)
        return np.concatenate(read), {"examples": len(length_N), "tokens": int(length_N.sum()), "flops": flops}


def unused_rows(tasks: Sequence[TaskSpec], pool: TaskPool, used: np.ndarray, rows_per_task: int, seed: int) -> RowSet:
    """At most so many rows of each task, none of them among the row ids `used`; the seed, no primary, draws them."""
    if isinstance(rows_per_task, bool) or not isinstance(rows_per_task, int) or rows_per_task < 10:
        raise UserError(f"rows_per_task={rows_per_task!r} is not a whole number of 10 or more; use 500, say")
    drawn = {}
    for name in pool.names:
        left = np.setdiff1d(pool.rows_of(name), used, assume_unique=True)
        rng = generator("projection", name, seed)
        drawn[name] = pool.local(np.sort(rng.permutation(left)[:rows_per_task]))
    return RowSet.of(tasks, drawn)


def tsne(features_NH: np.ndarray, perplexity: float) -> np.ndarray:
    """(N, 2) float32 from the principal components on; on one thread, since the order of its sums moves points."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    method = TSNE(perplexity=min(perplexity, (len(features_NH) - 1) / 3), init="pca", random_state=0)
    with threadpool_limits(1):
        return method.fit_transform(features_NH)


def separation(features_NH: np.ndarray, task_N: Sequence[str] | np.ndarray, k: int) -> dict[str, Any]:
    """How far apart tasks lie in the space of the features, all of it: a picture of two dimensions may mislead.

    `rows`: their number by task. `probe`: the share of rows, of all and of each task, whose task a logistic regression
    on standardised features tells, five-fold cross-validated. `own`: of the k nearest rows to a row of the task, the
    share that is of it too. `near`: task -> of the k nearest rows of other tasks, the share of each. Near is the cosine
    of centred features (Suzuki et al., EMNLP 2013): by Euclid, rows of long texts are hubs, neighbours to all.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import NearestNeighbors
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    task_N = np.asarray(task_N)
    names = list(dict.fromkeys(task_N.tolist()))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    right_N = cross_val_predict(probe, features_NH, task_N, cv=folds) == task_N
    centred_NH = features_NH - features_NH.mean(0)
    everywhere = NearestNeighbors(n_neighbors=min(k, len(task_N) - 1), metric="cosine").fit(centred_NH)
    all_Nk = everywhere.kneighbors(return_distance=False)  # a row is no neighbour of its own
    own, near = {}, {}
    for name in names:
        mine = task_N == name
        own[name] = float(np.mean(task_N[all_Nk[mine]] == name))
        outside = NearestNeighbors(n_neighbors=min(k, int(np.sum(~mine))), metric="cosine").fit(centred_NH[~mine])
        found = task_N[~mine][outside.kneighbors(centred_NH[mine], return_distance=False)]
        near[name] = {other: float(np.mean(found == other)) for other in names if other != name}
    by_task = {name: float(np.mean(right_N[task_N == name])) for name in names}
    return {
        "rows": {name: int(np.sum(task_N == name)) for name in names},
        "probe": {"all": float(np.mean(right_N)), "tasks": by_task},
        "k": k,
        "own": own,
        "near": near,
    }
