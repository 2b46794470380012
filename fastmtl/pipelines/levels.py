"""Passes over the rows: the proxies of each, which rows it scores, and in a cascade which of them reach the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmtl.data.rows import RowSet
from fastmtl.plans import ScoringPass
from fastmtl.seeds import derive, generator
from fastmtl.selection.cascade import best_of
from fastmtl.stages.proxy import Proxy
from fastmtl.stages.scores import Prepared, ShardScores, assign, read_scores, score

if TYPE_CHECKING:
    from fastmtl.pipelines.experiment import Experiment


def proxies(exp: Experiment, reader: ScoringPass) -> list[Proxy]:
    """The proxies of a pass, one per sample; none for a scorer that reads none."""
    if reader.scorer.needs not in ("heads", "discriminator"):
        return []
    loss: Any = getattr(reader.scorer, "loss", "ce") if reader.scorer.needs == "discriminator" else None
    fit = exp.proxy_plan.fit.resolved(exp.hardware, reader.encoder)
    samples = [exp.rows(sample, **exp.sampled_by) for sample in exp.samples]
    return [Proxy(sample, reader.encoder, fit, exp.seed, loss) for sample in samples]


def score_levels(exp: Experiment) -> tuple[list[list[ShardScores]], RowSet | None]:
    """The shards of each pass, and with a cascade the candidates that the last pass chooses among.

    The first pass reads every row, the others what the one before passes on to them.
    """
    levels: list[list[ShardScores]] = []
    candidates = reached = exp.candidate_ids()
    for i, reader in enumerate(exp.passes):
        if i:
            read, values = read_scores(exp.context, levels[-1], exp.primary)
            ids = np.concatenate([exp.row_ids(rows) for rows in read])
            count = exp.scoring.num_kept(len(candidates), i)
            reached = todo = best_of(reached, ids, values, count, derive("keep", i - 1, exp.seed, exp.primary))
            if i == len(exp.passes) - 1:
                todo = np.union1d(todo, _audited(exp, candidates, reached))
        else:
            names = [name for name in exp.pool.names if name != exp.primary or not reader.scorer.per_primary]
            todo = np.concatenate([exp.pool.rows_of(name) for name in names])
        levels.append(_shards(exp, reader, exp.proxy_stages[i], exp.pool.by_task(todo)))
        score(exp.context, levels[-1])
    plan = exp.scoring
    levels_of = {name: plan.levels[name] for name in plan.cascade}
    origin = {"cascade": plan.cascade, "cascade.keep": plan.keep, "cascade.levels": levels_of}
    return levels, exp.rows(reached, **origin) if len(levels) > 1 else None


def _audited(exp: Experiment, candidates: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Rejected rows, drawn at random, that the last pass reads too."""
    rejected = np.setdiff1d(candidates, reached, assume_unique=True)
    rng = generator("audit", exp.seed, exp.primary)
    return rng.choice(rejected, min(exp.scoring.audit, len(rejected)), replace=False)


def _shards(
    exp: Experiment, reader: ScoringPass, proxies: list[Proxy], rows: Mapping[str, np.ndarray]
) -> list[ShardScores]:
    scorer: Any = reader.scorer
    shared: dict[str, Any] = {
        "scorer": scorer, "encoder": reader.encoder, "precision": reader.precision,
        "target": exp.primary_rows[0] if scorer.per_primary else None,
        "seed": exp.seed if getattr(scorer, "uses_seed", False) else None,
    }  # fmt: skip
    prepared = None
    if hasattr(scorer, "prepare"):
        everything = RowSet.of(exp.tasks, rows)
        prepared = Prepared(rows=everything, proxy=proxies[0] if proxies else None, **shared)
    # A row is read by the first proxy that was not trained on it; without a proxy nothing was trained on.
    trained_on: list[Mapping[str, np.ndarray]] = [proxy.rows for proxy in proxies] or [{}]
    return [
        ShardScores(
            rows=RowSet.of(exp.tasks, {task: positions}), proxy=proxies[which] if proxies else None,
            prepared=prepared, **shared,
        )
        for task, positions, which in assign(rows, trained_on, exp.scoring.shard_rows)
    ]  # fmt: skip
