"""FastMTL's toy study: pooled features of a few rows of each task without and with the proxy's task discriminator.

A stage, its pictures and its table, all outside of the package: `part` is what a report shows of them.
`python projection.py STUDY [--rows 500]` writes the report of a study's cells with it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from fastmtl.cli.compose import compose
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.models.inference import Precision, forward_rows, inference_flops
from fastmtl.models.multitask import load_encoder
from fastmtl.pipelines.relations import TaskRelations
from fastmtl.reporting import report
from fastmtl.reporting.figures import COLORS
from fastmtl.reporting.frame import Result
from fastmtl.reporting.plots import DRAWN, Picture
from fastmtl.reporting.table import Part, Table, percent
from fastmtl.stages.base import Context, Stage
from fastmtl.stages.fitting import inference
from fastmtl.stages.pool import pool_of
from fastmtl.stages.proxy import Proxy
from fastmtl.store import WEIGHTS, Artifact

TITLES = {"without": "Without task discriminator", "with": "With task discriminator"}
MARKERS = "o^vPX<>*hdp"


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
        pd.DataFrame(columns).to_parquet(out / "projection.parquet")
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


def projections(relations: TaskRelations, rows_per_task: int = 500) -> dict[str, Artifact]:
    """The same rows `without` and `with` the discriminator.

    The first trains a proxy of its own, on the same rows with task heads alone. No primary matters to either; a
    `UserError` if the selection trains no proxy.
    """
    exp, proxy = relations.experiment, relations.proxy
    rows, precision = relations.unused_rows(rows_per_task), exp.passes[-1].precision
    proxies = {"without": replace(proxy, discriminator=None), "with": proxy}
    return {kind: exp.context.get(Projection(one, rows, precision)) for kind, one in proxies.items()}


def pictures(made: Mapping[str, Artifact], primary: str) -> list[Picture]:
    """t-SNE of each projection; distances between far groups, their sizes and their places mean nothing."""
    drawn = []
    for kind, artifact in made.items():
        rows = pd.read_parquet(artifact.path / "projection.parquet")
        near = ranked(artifact.read("separation.json")["near"][primary])
        shares = ", ".join(f"{task} {100 * share:.0f} %" for task, share in near)
        alt = f"t-SNE of {len(rows):,} rows; neighbours of {primary} among other tasks: {shares}"
        drawn.append(Picture(f"projection_{kind}", TITLES[kind], alt, scatter(rows, primary, TITLES[kind])))
    return drawn


@DRAWN
def scatter(rows: pd.DataFrame, primary: str, title: str) -> Figure:
    """Rows (task, x, y) coloured by their task; the primary's are drawn last, in black."""
    figure = Figure((3.6, 3.6))
    axes = figure.add_axes((0, 0, 1, 1))
    others = [str(task) for task in np.unique(rows["task"]) if task != primary]
    for i, task in enumerate([*others, primary], 1):
        color, marker = (COLORS[0], "o") if task == primary else (COLORS[1:][i % 9], MARKERS[i % len(MARKERS)])
        own = rows[rows["task"] == task]
        # Thousands of rows: as pixels, a tenth of the file.
        axes.scatter(
            own["x"], own["y"], s=7, color=color, marker=marker, linewidth=0, alpha=0.7, rasterized=True, label=task
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True, markerscale=2)
    return figure


def table(made: Mapping[str, Artifact], primary: str) -> Table:
    """How far apart tasks lie in the features themselves, in per cent, beside what rows in no order would give."""
    told = {kind: artifact.read("separation.json") for kind, artifact in made.items()}
    last = told["with"]
    counts, k, own, total = last["rows"], last["k"], last["rows"][primary], sum(last["rows"].values())
    both = list(told.values())
    lines = [
        ("task told by a linear probe, all rows", [one["probe"]["all"] for one in both], max(counts.values()) / total),
        (f"task told by a linear probe, rows of {primary}", [one["probe"]["tasks"][primary] for one in both], None),
        (f"{k} nearest rows that are of {primary} too", [one["own"][primary] for one in both],
         (own - 1) / (total - 1)),
        *((f"{k} nearest rows of other tasks: {task}", [one["near"][primary][task] for one in both],
           counts[task] / (total - own)) for task, _ in ranked(last["near"][primary])),
    ]  # fmt: skip
    return Table(
        f"Where rows of {primary} lie among those of other tasks",
        ["rows, %", *told, "by chance"],
        [[name, *map(percent, shares), percent(chance)] for name, shares, chance in lines],
        note=f"{total:,} rows on which neither proxy trained; one seed. Of pooled features, not of a picture. "
        "Nearest: by cosine, centred. Probe: logistic regression, five-fold cross-validated.",
    )


def ranked(near: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(near.items(), key=lambda one: -one[1])


def part(results: Sequence[Result], smoke: bool = False, rows_per_task: int = 500) -> Part:
    """So many rows of each task as the proxy of the first cell that has one sees them."""
    scored = [one for one in results if one["command"] and any(stage["stage"] == "proxy" for stage in one["stages"])]
    if not scored:
        raise UserError("no cell has a proxy to show; add selection=feature_similarity")
    exp = compose(*shlex.split(scored[0]["command"])[1:])
    made = projections(TaskRelations(exp), 20 if smoke else rows_per_task)
    tables = [table(made, name) for name in dict.fromkeys(one["primary"] for one in results)]
    return Part("What the proxy sees", tables=tables, pictures=pictures(made, exp.primary))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The report of a study, with t-SNE of what its proxy sees.")
    parser.add_argument("study", help="the name that cells were given with study=NAME")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="paths.output of the cells")
    parser.add_argument("--rows", type=int, default=500, help="of each task")
    given = parser.parse_args()
    results = report.read(given.output / "studies" / given.study)
    out = given.output / "reports" / given.study
    print(report.write(results, out, given.study, more={"proxy": part(results, rows_per_task=given.rows)}))
