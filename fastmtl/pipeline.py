"""The experiment: pool, proxy, scores, selection, multitask, finetune, in this order and nothing else.

Each stage is a property that finds its artifact by identity or builds it from the artifacts before it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fastmtl.data.pool import POOL_VERSION, TaskPool, holdout, write_task
from fastmtl.data.samplers import Sampling
from fastmtl.data.sources import Source
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec, Tokenizer
from fastmtl.models.inference import Inference
from fastmtl.models.multitask import ProxyModel, load_weights
from fastmtl.plans import Protocol, ProxyPlan, SelectionPlan
from fastmtl.scoring.scorer import Proxy, Scorer
from fastmtl.selection import Candidates, rows_wanted
from fastmtl.store import Artifact, Store, digest
from fastmtl.tasks import TaskSpec
from fastmtl.training.finetuned import load_finetuned, predict, write_config
from fastmtl.training.fit import DTYPES, FitJob, Where, peak_memory_mib, resolve_precision, run_fit
from fastmtl.training.modules import FitConfig

STAGES = ("pool", "proxy", "scores", "selection", "multitask", "finetune", "report")

# Raised when the meaning of a stage's result changes, so that older artifacts are no longer found.
VERSIONS = {"pool": POOL_VERSION, "proxy": 1, "scores": 1, "selection": 1, "multitask": 1, "finetune": 1}


@dataclass
class Experiment:
    """One cell, primary x selection x budget x seed: its stages are lazy, cached and shared where they can be."""

    source: Source
    store: Store
    encoder: EncoderSpec
    primary: str
    selection_plan: SelectionPlan
    budget: int | float
    seed: int
    proxy_plan: ProxyPlan
    multitask_fit: FitConfig
    finetune_fit: FitConfig
    sampling: Sampling
    protocol: Protocol
    where: Where = field(default_factory=Where)
    rows_per_task: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.source.tasks]
        if self.primary not in names:
            raise UserError(f"primary={self.primary!r} is not a task of this data; choose from {', '.join(names)}")
        splits = self.source.tasks[names.index(self.primary)].splits
        if "validation" not in splits:
            raise UserError(f"task {self.primary!r} has no validation split to report on; add one under its splits")
        if len(names) < 2 and self.selection_plan.name != "none":
            raise UserError(
                f"data has one task, {names[0]!r}, and so no auxiliary rows; add tasks or use selection=none"
            )
        self._cut()  # said before anything is tokenized
        self.proxy_plan = replace(self.proxy_plan, fit=self._resolved(self.proxy_plan.fit))
        self.multitask_fit = self._resolved(self.multitask_fit)
        self.finetune_fit = self._resolved(self.finetune_fit)

    def _resolved(self, fit: FitConfig) -> FitConfig:
        return replace(fit, precision=resolve_precision(fit.precision, self.where))

    # --- stage 1: pool -------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The encoder's tokenizer."""
        return Tokenizer(self.encoder)

    @cached_property
    def pool_artifacts(self) -> tuple[Artifact, ...]:
        """Token ids, one artifact a task, so that adding a task tokenizes that task alone."""
        return tuple(self._pool_artifact(task) for task in self.source.tasks)

    def _pool_artifact(self, task: TaskSpec) -> Artifact:
        identity = {
            "version": VERSIONS["pool"],
            "content": self.source.fingerprint(task),
            "task": task.to_dict(),
            **self.encoder.tokenizer_identity(),
        }
        return self.store.get("pool", identity, lambda out: write_task(out, self.source, task, self.tokenizer))

    @cached_property
    def pool(self) -> TaskPool:
        """All rows of all tasks, cut to `rows_per_task` training rows where asked."""
        return TaskPool([artifact.path for artifact in self.pool_artifacts], self._cut())

    def _cut(self) -> dict[str, int]:
        names = [task.name for task in self.source.tasks]
        rows = self.rows_per_task
        if rows is None:
            return {}
        cut: dict[str, Any] = dict(rows) if isinstance(rows, Mapping) else dict.fromkeys(names, rows)
        for name, count in cut.items():
            if name not in names:
                raise UserError(f"data.rows_per_task names {name!r}, which is no task; choose from {', '.join(names)}")
            if isinstance(count, bool) or not isinstance(count, int):
                raise UserError(f"data.rows_per_task={count!r} is not a whole number; use 2 or more")
            if count < 2:
                raise UserError(f"data.rows_per_task={count} is too few; use 2 or more")
        return cut

    # --- stage 2: proxy ------------------------------------------------------------------------------------------

    @cached_property
    def proxy(self) -> tuple[Artifact, ...]:
        """The proxies: one, or two with `cross_fit`; none if nothing needs scores."""
        scorer = self.selection_plan.scorer
        self.num_wanted  # noqa: B018  a budget that cannot be met is said before a proxy trains
        if scorer is None or scorer.discriminator is None:
            return ()
        return tuple(self._proxy(fold, scorer.discriminator) for fold in self._folds())

    def _folds(self) -> tuple[int, ...]:
        return (0, 1) if self.proxy_plan.cross_fit else (0,)

    def _sample(self, fold: int) -> np.ndarray:
        return self.pool.sample(self.proxy_plan.examples_per_task, self.seed, fold)

    def _proxy(self, fold: int, loss: Literal["ce", "bce"]) -> Artifact:
        rows = self.pool.by_task(self._sample(fold))
        identity = {
            "version": VERSIONS["proxy"],
            "rows": self._rows_identity(rows),
            "encoder": self.encoder.identity(),
            "discriminator": loss,
            "fit": self.proxy_plan.fit,
            "sampling": self.sampling,
            "seed": self.seed,
        }
        title = f"proxy {'AB'[fold]}" if self.proxy_plan.cross_fit else "proxy"
        return self.store.get(
            "proxy",
            identity,
            lambda out: run_fit(self._job(title, rows, self.proxy_plan.fit, out, discriminator=loss)),
        )

    def _job(self, title: str, rows: dict[str, np.ndarray], fit: FitConfig, out: Path, **more: Any) -> FitJob:
        return FitJob(
            title=title, pool=self.pool, encoder=self.encoder, rows=rows, fit=fit, sampling=self.sampling,
            seed=self.seed, pad_id=self.tokenizer.pad_id, out=out, where=self.where, **more,
        )  # fmt: skip

    def _rows_identity(self, rows: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
        """Which rows, by content of their pool and their places: however they came to be chosen."""
        return {
            name: [self.pool_artifacts[self.pool.index(name)].key, hashlib.sha256(places.tobytes()).hexdigest()[:16]]
            for name, places in rows.items()
        }

    # --- stage 3: scores -----------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> Artifact | None:
        """(T, N) float32 `scores.npy`: every row's value to every task as primary; None if nothing needs scores."""
        scorer = self.selection_plan.scorer
        if scorer is None:
            return None
        identity = {
            "version": VERSIONS["scores"],
            "pool": self.pool.fingerprint,
            "proxies": [artifact.key for artifact in self.proxy],
            "scorer": scorer,
            "precision": self.proxy_plan.fit.precision,
        }
        return self.store.get("scores", identity, lambda out: self._score(scorer, out))

    def _score(self, scorer: Scorer, out: Path) -> dict[str, Any]:
        started = time.perf_counter()
        proxies = [self._load_proxy(artifact, fold) for fold, artifact in zip(self._folds(), self.proxy)]
        scores_TN = scorer.score(self.pool, proxies, self._inference(self.proxy_plan.fit))
        np.save(out / "scores.npy", scores_TN)
        scored = np.flatnonzero(~np.isnan(scores_TN[0]))
        lengths = np.concatenate([self.pool.split(name, "train").lengths for name in self.pool.names])[scored]
        wall_s = time.perf_counter() - started
        return {
            "examples": len(scored),
            "tokens": int(lengths.sum()),
            "flops": proxies[0].model.encoder.forward_flops(lengths) if proxies else 0.0,
            "rows_per_s": round(len(scored) / wall_s, 1),
            "precision": self.proxy_plan.fit.precision,
            "peak_memory_mib": peak_memory_mib(),
        }

    def _load_proxy(self, artifact: Artifact, fold: int) -> Proxy:
        model = ProxyModel(self.encoder, self.pool.tasks)
        load_weights(model, artifact.path / "weights.safetensors")
        return Proxy(model.to(self.where.device).eval(), self._sample(fold))

    def _inference(self, fit: FitConfig) -> Inference:
        return Inference(self.tokenizer.pad_id, self.where.device, DTYPES[fit.precision])

    # --- stage 4: selection --------------------------------------------------------------------------------------

    def candidates(self) -> np.ndarray:
        """Row ids that may be chosen: a function of pool, proxy sample and seed, the same for every budgeted arm."""
        takes_all = not self.selection_plan.selector.uses_budget
        exclude = None if takes_all or self.proxy_plan.cross_fit else self._sample(0)
        return self.pool.candidates(self.primary, exclude)

    @cached_property
    def num_wanted(self) -> int:
        """Exactly how many rows the budget asks for; all candidates where the selector itself decides."""
        n = len(self.candidates())
        return rows_wanted(self.budget, n) if self.selection_plan.selector.uses_budget else n

    @cached_property
    def selection(self) -> Artifact:
        """`selection.parquet` (task, row, score), best first, and `counts.json`."""
        plan = self.selection_plan
        identity: dict[str, Any] = {
            "version": VERSIONS["selection"],
            "pool": self.pool.fingerprint,
            "primary": self.primary,
            "selector": plan.selector,
            "scores": self.scores.key if plan.selector.needs_scores and self.scores else None,
        }
        if plan.selector.uses_budget:
            rule = None if self.proxy_plan.cross_fit else self.proxy_plan.examples_per_task
            identity |= {"budget": self.budget, "seed": self.seed, "candidates": rule}
        return self.store.get("selection", identity, self._select)

    def _select(self, out: Path) -> dict[str, Any]:
        plan = self.selection_plan
        row_ids = self.candidates()
        scores = None
        if plan.selector.needs_scores:
            assert self.scores is not None
            scores = np.load(self.scores.path / "scores.npy", mmap_mode="r")[self.pool.index(self.primary)][row_ids]
        candidates = Candidates(row_ids, self.pool.task_of(row_ids), scores)
        rng = np.random.default_rng(int(digest(["select", self.seed, self.primary]), 16))
        picks = plan.selector.select(candidates, self.num_wanted, rng)
        wanted = self.num_wanted if plan.selector.uses_budget else len(picks)
        assert len(np.unique(picks)) == len(picks) == wanted, f"{plan.selector} chose {len(picks)} rows, not {wanted}"
        chosen = row_ids[picks]
        names = np.array(self.pool.names)
        table = {
            "task": names[self.pool.task_of(chosen)],
            "row": self.pool.local(chosen),
            "score": scores[picks] if scores is not None else np.full(len(picks), np.nan, dtype=np.float32),
        }
        pa.parquet.write_table(pa.table(table), out / "selection.parquet")
        counts = {name: int(np.sum(table["task"] == name)) for name in self.pool.names if name != self.primary}
        (out / "counts.json").write_text(json.dumps(counts, indent=1))
        return {"examples": len(picks), "candidates": len(candidates)}

    def selected(self) -> np.ndarray:
        """(k,) row ids, best first."""
        table = pa.parquet.read_table(self.selection.path / "selection.parquet")
        places = table["row"].to_numpy()
        tasks = table["task"].to_pylist()
        return places + np.array([self.pool.starts[self.pool.index(name)] for name in tasks], dtype=np.int64)

    # --- stage 5: multitask --------------------------------------------------------------------------------------

    @cached_property
    def _primary_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (trained on, held out) of the primary's training rows; nothing is held out under `paper`."""
        places = self.pool.local(self.pool.rows_of(self.primary))
        if self.protocol.name == "paper":
            return places, places[:0]
        kept, held = holdout(len(places), self.protocol.holdout, self.seed, self.primary)
        return places[kept], places[held]

    @cached_property
    def multitask(self) -> Artifact | None:
        """The MT-DNN on all primary rows (less the held-out ones) and the selected rows; None if none were selected."""
        chosen = self.pool.by_task(np.sort(self.selected()))
        if not chosen:
            return None
        rows = {self.primary: self._primary_rows[0], **chosen}
        identity = {
            "version": VERSIONS["multitask"],
            "rows": self._rows_identity(rows),
            "encoder": self.encoder.identity(),
            "fit": self.multitask_fit,
            "sampling": self.sampling,
            "seed": self.seed,
        }
        return self.store.get(
            "multitask", identity, lambda out: run_fit(self._job("multitask", rows, self.multitask_fit, out))
        )

    # --- stage 6: finetune ---------------------------------------------------------------------------------------

    @cached_property
    def finetune(self) -> Artifact:
        """The primary alone, from the multi-task weights: weights, predictions and metrics of its best epoch."""
        train, held = self._primary_rows
        identity = {
            "version": VERSIONS["finetune"],
            "rows": self._rows_identity({self.primary: train}),
            "held_out": self._rows_identity({self.primary: held}),
            "multitask": self.multitask.key if self.multitask else None,
            "encoder": self.encoder.identity(),
            "fit": self.finetune_fit,
            "sampling": self.sampling,
            "seed": self.seed,
        }
        return self.store.get("finetune", identity, self._finetune)

    def _finetune(self, out: Path) -> dict[str, Any]:
        train, held = self._primary_rows
        if self.protocol.name == "strict":
            evaluated = (self.primary, "train", held)
        else:
            evaluated = (self.primary, "validation", np.arange(len(self.pool.split(self.primary, "validation"))))
        init = self.multitask.path / "weights.safetensors" if self.multitask else None
        job = self._job("finetune", {self.primary: train}, self.finetune_fit, out, init=init, evaluated=evaluated)
        records = run_fit(job)
        task = self.pool.task(self.primary)
        write_config(out, self.encoder, task)
        model = load_finetuned(out)[0].to(self.where.device)
        how = self._inference(self.finetune_fit)
        metrics = {
            split: predict(model, task, self.pool.split(self.primary, split), how, out / f"{split}.parquet")
            for split in ("validation", "test")
            if self.pool.has_split(self.primary, split)
        }
        fit = json.loads((out / "fit.json").read_text())
        chosen = {"best_epoch": fit["best_epoch"], "epochs": fit["epochs"], "protocol": self.protocol.name}
        (out / "metrics.json").write_text(json.dumps({**metrics, **chosen}, indent=1))
        return records

    # --- the whole -----------------------------------------------------------------------------------------------

    def artifacts(self, stage: str = "finetune") -> list[Artifact]:
        """Every artifact up to a stage, in order, built where missing."""
        if stage not in STAGES:
            raise UserError(f"stage={stage!r} is unknown; choose from {', '.join(STAGES)}")
        done: list[Artifact] = []
        for name in STAGES[: min(STAGES.index(stage), STAGES.index("finetune")) + 1]:
            made = getattr(self, "pool_artifacts" if name == "pool" else name)
            done += made if isinstance(made, tuple) else [made] if made else []
        return done

    def tree(self, stage: str = "finetune") -> str:
        """One line an artifact: stage, key, whether it was found or built, seconds it cost."""
        lines = [
            f"{a.stage:<10} {a.key}  {'hit  ' if a.hit else 'built'} {a.records['wall_s']:>9.1f} s"
            for a in self.artifacts(stage)
        ]
        return "\n".join(lines)
