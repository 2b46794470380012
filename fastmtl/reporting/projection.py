"""What the task discriminator does to the proxy's features: a picture without it, one with it, and the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastmtl.reporting.table import Table, percent
from fastmtl.store import Artifact

if TYPE_CHECKING:
    from fastmtl.pipelines.relations import TaskRelations
    from fastmtl.reporting.plots import Picture

TITLES = {"without": "Without task discriminator", "with": "With task discriminator"}


def projections(relations: TaskRelations, rows_per_task: int = 500) -> dict[str, Artifact]:
    """The same rows `without` and `with` the discriminator: two artifacts of the stage `projection`.

    The first trains a proxy of its own. No primary matters to either; a `UserError` if the selection trains no proxy.
    """
    return {kind: relations.projection(kind == "with", rows_per_task) for kind in TITLES}


def pictures(made: Mapping[str, Artifact], primary: str) -> list[Picture]:
    """t-SNE of each projection; distances between far groups, their sizes and their places mean nothing."""
    from pandas import read_parquet

    from fastmtl.reporting import plots

    drawn = []
    for kind, artifact in made.items():
        rows, told = read_parquet(artifact.path / "projection.parquet"), artifact.read("separation.json")
        figure = plots.projection(rows[["x", "y"]].to_numpy(), rows["task"].tolist(), primary, TITLES[kind])
        near = ", ".join(f"{task} {100 * share:.0f} %" for task, share in _ranked(told["near"][primary]))
        alt = f"t-SNE of {len(rows):,} rows; neighbours of {primary} among other tasks: {near}"
        drawn.append(plots.Picture(f"projection_{kind}", TITLES[kind], alt, figure))
    return drawn


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
           counts[task] / (total - own)) for task, _ in _ranked(last["near"][primary])),
    ]  # fmt: skip
    return Table(
        f"Where rows of {primary} lie among those of other tasks",
        ["rows, %", *told, "by chance"],
        [[name, *map(percent, shares), percent(chance)] for name, shares, chance in lines],
        note=f"{total:,} rows on which neither proxy trained; one seed. Of pooled features, not of a picture. "
        "Nearest: by cosine, centred. Probe: logistic regression, five-fold cross-validated.",
    )


def _ranked(near: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(near.items(), key=lambda one: -one[1])
