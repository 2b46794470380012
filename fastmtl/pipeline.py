"""The experiment: pool, proxy, scores, utilities, selection, mixing, multitask, finetune, in this order.

Each stage is a property that finds its artifact by identity or builds it from the artifacts before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from fastmtl.data.online import Exp3Sampling, OnlineSampling, Thompson, Ucb1Sampling
from fastmtl.data.pool import POOL_VERSION, TaskPool, holdout, write_task
from fastmtl.data.samplers import Proportional, Ratio, Sampling
from fastmtl.data.sources import Source
from fastmtl.errors import UserError
from fastmtl.mixing import MixingSearch, Mixture, best
from fastmtl.models.encoder import EncoderSpec, Tokenizer
from fastmtl.models.inference import Inference, Precision
from fastmtl.plans import BanditPlan, Protocol, ProxyPlan, Reader, ScoringPlan, SelectionPlan
from fastmtl.scoring.cascade import best_of, overlap_at_least
from fastmtl.scoring.shards import ScoreJob, Shard, assign, column, score
from fastmtl.selection import BestTasks, Candidates, MatchedRandom, PickedTasks, rows_wanted
from fastmtl.store import Artifact, Store, digest
from fastmtl.tasks import TaskSpec
from fastmtl.training.finetuned import load_finetuned, predict, write_config
from fastmtl.training.fit import FitJob, Where, resolve_precision, run_fit
from fastmtl.training.modules import FitConfig
from fastmtl.training.weighting import Equal, Surgery, Weighting

STAGES = ("pool", "proxy", "scores", "utilities", "selection", "mixing", "multitask", "finetune", "report")

LINES_A_STAGE = 2
FEW_REWARDED = 50
"""A share of right answers over fewer rows than this has a standard error of seven points or more."""

Evaluated = tuple[str, str, np.ndarray]
"""Task, split, and places (n,) of the rows that are measured."""

# Raised when the meaning of a stage's result changes, so that older artifacts are no longer found.
VERSIONS = {
    "pool": POOL_VERSION, "proxy": 1, "scores": 2, "utilities": 1, "selection": 2, "mixing": 1, "multitask": 2,
    "finetune": 1,
}  # fmt: skip


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
    sampling: Sampling | OnlineSampling
    protocol: Protocol
    bandit_plan: BanditPlan
    scoring: ScoringPlan = field(default_factory=ScoringPlan)
    weighting: Weighting = field(default_factory=Equal)
    mixing_search: MixingSearch | None = None
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
        self._pools: dict[str, tuple[list[Artifact], TaskPool]] = {}  # by tokenizer
        self._cut()  # said before anything is tokenized
        self._check_scoring(names)
        self._check_mixing(names)
        self.bandit_plan = replace(self.bandit_plan, fit=self._resolved(replace(self.bandit_plan.fit, epochs=1)))
        self.proxy_plan = replace(self.proxy_plan, fit=self._resolved(self.proxy_plan.fit))
        self.multitask_fit = self._resolved(self.multitask_fit)
        self.finetune_fit = self._resolved(self.finetune_fit)
        precision = self.scoring.precision
        self.scoring = replace(
            self.scoring,
            precision=precision if precision == "int8" else resolve_precision(precision, self.where),
        )

    def _check_scoring(self, names: list[str]) -> None:
        if self.scoring.precision == "int8" and self.where.device.type != "cpu":
            raise UserError("scoring.precision=int8 is for CPUs; use auto on a GPU")
        selector = self.selection_plan.selector
        if self.scoring.cascade and isinstance(getattr(selector, "rows", selector), MatchedRandom):
            raise UserError(
                f"selection={self.selection_plan.name} draws from all candidates, which a cascade does not score to "
                "the end; use scoring.cascade=[]"
            )
        for name in self.proxy_plan.tasks or ():
            if name not in names:
                raise UserError(f"proxy.tasks names {name!r}, which is no task; choose from {', '.join(names)}")
        if self.primary not in self._proxy_tasks:
            raise UserError(f"proxy.tasks lacks the primary {self.primary!r}; add it")

    def _check_mixing(self, names: list[str]) -> None:
        selector = self.selection_plan.selector
        if isinstance(selector, PickedTasks | BestTasks):
            selector.check([name for name in names if name != self.primary])
        if self.mixing_search is not None and self.sampling != Proportional():
            raise UserError(
                f"hparams_search sets the sampling itself, and so cannot use sampling={type(self.sampling).__name__}; "
                "drop it, or use hparams_search=none"
            )
        if isinstance(self.sampling, Thompson) and self.weighting.parts > 1:
            raise UserError(
                f"weighting {type(self.weighting).__name__} compares the tasks of a step, and sampling=bandit has one "
                "task a step; use another sampling, or weighting=equal"
            )

        sharded = self.where.strategy == "fsdp" and self.where.is_distributed
        if sharded and (self.weighting != Equal() or isinstance(self.sampling, Exp3Sampling | Ucb1Sampling)):
            raise UserError(
                "trainer.strategy=fsdp goes with weighting=equal and no gradient-rewarded sampling; use ddp"
            )
        if isinstance(self.weighting, Surgery):
            name = type(self.weighting).__name__.lower()
            if self.where.is_distributed or self.where.accumulate > 1:
                raise UserError(
                    f"weighting={name} works on one device, and without trainer.accumulate; use trainer=gpu or cpu"
                )
            if resolve_precision(self.multitask_fit.precision, self.where) == "fp16":
                raise UserError(
                    f"weighting={name} does not scale losses for fp16; use multitask.fit.precision=bf16 or fp32"
                )

    @property
    def _proxy_tasks(self) -> list[str]:
        """Names of the tasks that proxies are trained on, in pool order."""
        wanted = self.proxy_plan.tasks
        return [task.name for task in self.source.tasks if wanted is None or task.name in wanted]

    def _resolved(self, fit: FitConfig) -> FitConfig:
        return replace(fit, precision=resolve_precision(fit.precision, self.where))

    # --- stage 1: pool -------------------------------------------------------------------------------------------

    @cached_property
    def pool_artifacts(self) -> tuple[Artifact, ...]:
        """Token ids, one artifact a task and tokenizer, so that adding a task tokenizes that task alone."""
        encoders = [self.encoder, *(reader.encoder for reader in self.readers)]
        by_tokenizer = {digest(encoder.tokenizer_identity()): encoder for encoder in reversed(encoders)}
        return tuple(
            artifact for encoder in reversed(by_tokenizer.values()) for artifact in self._tokenized(encoder)[0]
        )

    @cached_property
    def pool(self) -> TaskPool:
        """All rows of all tasks, cut to `rows_per_task` training rows where asked."""
        return self._pool(self.encoder)

    def _pool(self, encoder: EncoderSpec) -> TaskPool:
        """The same rows under the same row ids as token ids of an encoder's tokenizer."""
        return self._tokenized(encoder)[1]

    def _tokenized(self, encoder: EncoderSpec) -> tuple[list[Artifact], TaskPool]:
        def artifact(task: TaskSpec) -> Artifact:
            identity = {
                "version": VERSIONS["pool"],
                "content": self.source.fingerprint(task),
                "task": task.to_dict(),
                **encoder.tokenizer_identity(),
            }
            return self.store.get("pool", identity, lambda out: write_task(out, self.source, task, _tokenizer(encoder)))

        key = digest(encoder.tokenizer_identity())
        if key not in self._pools:
            made = [artifact(task) for task in self.source.tasks]
            self._pools[key] = made, TaskPool([one.path for one in made], self._cut())
        return self._pools[key]

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
    def readers(self) -> tuple[Reader, ...]:
        """What scores rows, in order: one reader, several for a cascade, none if nothing needs scores."""
        scorer, precision = self.selection_plan.scorer, self.scoring.precision
        if scorer is None:
            return ()
        assert precision != "auto"  # resolved when the experiment was made
        return self.scoring.readers(Reader(self.proxy_plan.encoder or self.encoder, scorer, precision))

    @cached_property
    def proxy(self) -> tuple[Artifact, ...]:
        """The proxies of all levels: one each, or two with `cross_fit`; none if nothing needs scores."""
        return tuple(artifact for proxies in self._proxies for artifact in proxies)

    @cached_property
    def _proxies(self) -> list[list[Artifact]]:
        self.num_wanted  # noqa: B018  a budget that cannot be met is said before a proxy trains
        return [
            [self._proxy(reader, fold) for fold in self._folds()] if reader.scorer.discriminator else []
            for reader in self.readers
        ]

    def _folds(self) -> tuple[int, ...]:
        return (0, 1) if self.proxy_plan.cross_fit else (0,)

    def _sample(self, fold: int) -> np.ndarray:
        return self.pool.sample(self.proxy_plan.examples_per_task, self.seed, fold, self._proxy_tasks)

    def _proxy(self, reader: Reader, fold: int) -> Artifact:
        encoder, loss, fit = reader.encoder, reader.scorer.discriminator, self.proxy_plan.fit
        rows = self.pool.by_task(self._sample(fold))
        identity = {
            "version": VERSIONS["proxy"],
            "rows": self._rows_identity(rows, encoder),
            "encoder": encoder.identity(),
            "discriminator": loss,
            "fit": fit,
            "sampling": Proportional(),
            "seed": self.seed,
        }
        title = " ".join([
            *self.scoring.cascade[self.readers.index(reader) :][:1], "proxy",
            *("AB"[fold] if self.proxy_plan.cross_fit else ""),
        ])  # fmt: skip
        return self.store.get(
            "proxy", identity, lambda out: run_fit(self._job(title, rows, fit, out, encoder, discriminator=loss))
        )

    def _job(
        self, title: str, rows: dict[str, np.ndarray], fit: FitConfig, out: Path, encoder: EncoderSpec, **more: Any
    ) -> FitJob:
        return FitJob(
            title=title, pool=self._pool(encoder), encoder=encoder, rows=rows, fit=fit, seed=self.seed,
            pad_id=_tokenizer(encoder).pad_id, out=out, where=self.where, **{"sampling": Proportional(), **more},
        )  # fmt: skip

    def _inference(self, encoder: EncoderSpec, precision: Precision | Literal["auto"]) -> Inference:
        assert precision != "auto"  # resolved when the experiment was made
        return Inference(_tokenizer(encoder).pad_id, self.where.device, precision)

    def _rows_identity(self, rows: Mapping[str, np.ndarray], encoder: EncoderSpec) -> dict[str, list[str]]:
        """Which rows, by content of their pool and their places: however they came to be chosen."""
        folders = self._pool(encoder).folders
        return {
            name: [folders[self.pool.index(name)].name, hashlib.sha256(places.tobytes()).hexdigest()[:16]]
            for name, places in rows.items()
        }

    # --- stage 3: scores -----------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> tuple[Artifact, ...]:
        """Scores in shards, level after level: each (T, n) float32, its rows' value to every task as primary."""
        return tuple(artifact for scored in self._scored for _, artifact in scored)

    @cached_property
    def _scored(self) -> list[list[tuple[Shard, Artifact]]]:
        """Shards and their scores, level after level: the first reads every row, the others what reaches them."""
        done: list[list[tuple[Shard, Artifact]]] = []
        for level in range(len(self.readers)):
            if level == 0:
                todo = np.concatenate([self.pool.rows_of(name) for name in self.pool.names])
            else:
                todo = self._reached(level, done)
            if level and level == len(self.readers) - 1:
                rejected = np.setdiff1d(self.candidates(), todo, assume_unique=True)
                rng = np.random.default_rng(self._salt("audit"))
                todo = np.union1d(todo, rng.choice(rejected, min(self.scoring.audit, len(rejected)), replace=False))
            done.append(self._score(level, todo))
        return done

    def _score(self, level: int, row_ids: np.ndarray) -> list[tuple[Shard, Artifact]]:
        reader, proxies = self.readers[level], self._proxies[level]
        how = self._inference(reader.encoder, reader.precision)
        # Without a proxy nothing was trained on, and the scorer may have read any row of the pool.
        samples = [self.pool.by_task(self._sample(fold)) for fold in self._folds()] if proxies else [{}]

        def shard(task: str, places: np.ndarray, proxy: int) -> Shard:
            identity = {
                "version": VERSIONS["scores"],
                "rows": self._rows_identity({task: places}, reader.encoder),
                "proxy": proxies[proxy].key if proxies else self.pool.fingerprint,
                "scorer": reader.scorer,
                "precision": reader.precision,
            }
            return Shard(task, places, proxy, identity)

        shards = [shard(*parts) for parts in assign(self.pool.by_task(row_ids), samples, self.scoring.shard_rows)]
        job = ScoreJob(
            store=self.store, pool=self._pool(reader.encoder), encoder=reader.encoder, scorer=reader.scorer,
            tasks=tuple(self.pool.task(name) for name in self._proxy_tasks),
            proxies=tuple(artifact.path for artifact in proxies), shards=shards, how=how,
        )  # fmt: skip
        return list(zip(shards, score(job, self.where)))

    def _column(self, scored: list[tuple[Shard, Artifact]]) -> tuple[np.ndarray, np.ndarray]:
        return column(self.pool, scored, self.primary, self._proxy_tasks.index(self.primary))

    def _reached(self, level: int, scored: list[list[tuple[Shard, Artifact]]]) -> np.ndarray:
        """Row ids, ascending, of the candidates that the levels before this one pass on to it."""
        reached = self.candidates()
        n = len(reached)
        for i in range(level):
            count = self.scoring.num_kept(n, i + 1)
            reached = best_of(reached, *self._column(scored[i]), count, self._salt("keep", i))
        return reached

    def _salt(self, *purpose: str | int) -> int:
        return int(digest([*purpose, self.seed, self.primary]), 16)

    def all_scores(self) -> np.ndarray:
        """(T, N) float32 of the last level: each row's value to each of the proxy's tasks; NaN = not scored."""
        out = np.full((len(self._proxy_tasks), len(self.pool)), np.nan, dtype=np.float32)
        for shard, artifact in self._scored[-1] if self.readers else ():
            start = self.pool.starts[self.pool.index(shard.task)]
            out[:, start + shard.places] = np.load(artifact.path / "scores.npy")
        return out

    # --- utilities of tasks --------------------------------------------------------------------------------------

    @cached_property
    def utilities(self) -> Artifact | None:
        """`bandit.json`: each task's utility to the primary and how it came about; None if the selector needs none."""
        if not self.selection_plan.needs_utilities:
            return None
        plan = self.bandit_plan
        policy = replace(plan.policy, rounds=plan.rounds)
        auxiliary = {name: self.pool.local(self.pool.rows_of(name)) for name in self.pool.names if name != self.primary}
        rows = {self.primary: self._primary_rows[0], **auxiliary}
        rewarded = self._rewarded(policy)
        identity = {
            "version": VERSIONS["utilities"],
            "rows": self._rows_identity(rows, self.encoder),
            "rewarded": self._evaluated_identity(rewarded),
            "encoder": self.encoder.identity(),
            "fit": plan.fit,
            "sampling": policy,
            "seed": self.seed,
        }

        def build(out: Path) -> dict[str, Any]:
            if (n := len(rewarded[2])) < FEW_REWARDED:
                print(
                    f"fastmtl: {n} rows reward the bandit, few for a reliable choice; raise protocol.holdout",
                    flush=True,
                )
            job = self._job("bandit", rows, plan.fit, out, self.encoder, sampling=policy, evaluated=rewarded)
            return run_fit(replace(job, keep_best=False))

        return self.store.get("utilities", identity, build)

    @property
    def _evaluated(self) -> Evaluated:
        """The rows of the primary on which choices are made: held-out ones, or under `paper` the validation split."""
        if self.protocol.name == "strict":
            return self.primary, "train", self._primary_rows[1]
        return self.primary, "validation", np.arange(len(self.pool.split(self.primary, "validation")))

    def _rewarded(self, policy: Thompson) -> Evaluated:
        """As many of these rows as a round of the bandit reads."""
        primary, split, places = self._evaluated
        order = np.random.default_rng(self._salt("rewarded")).permutation(len(places))
        return primary, split, np.sort(places[order[: policy.validation_rows]])

    def _evaluated_identity(self, evaluated: Evaluated) -> list[Any]:
        primary, split, places = evaluated
        return [split, self._rows_identity({primary: places}, self.encoder)]

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
        if not self.selection_plan.selector.uses_budget:
            return n
        wanted, left = rows_wanted(self.budget, n), self.scoring.num_kept(n, len(self.readers) - 1)
        if wanted > left:
            raise UserError(
                f"budget={self.budget} is more than the {left} rows that the cascade keeps; raise scoring.keep"
            )
        return wanted

    @cached_property
    def selection(self) -> Artifact:
        """`selection.parquet` (task, row, score), best first, and `counts.json`."""
        plan = self.selection_plan
        identity: dict[str, Any] = {
            "version": VERSIONS["selection"],
            "pool": self.pool.fingerprint,
            "primary": self.primary,
            "selector": plan.selector,
            "scores": digest([a.key for a in self.scores]) if plan.selector.needs_scores else None,
        }
        if self.utilities is not None:
            identity |= {"utilities": self.utilities.key}
        if plan.selector.uses_budget:
            rule = None if self.proxy_plan.cross_fit else [self.proxy_plan.examples_per_task, self._proxy_tasks]
            identity |= {"budget": self.budget, "seed": self.seed, "candidates": rule}
        if len(self.readers) > 1:
            identity |= {"keep": self.scoring.keep, "audit": self.scoring.audit}
        return self.store.get("selection", identity, self._select)

    def _select(self, out: Path) -> dict[str, Any]:
        plan = self.selection_plan
        row_ids, scores, audit = self.candidates(), None, {}
        if plan.selector.needs_scores:
            row_ids, scores = self._column(self._scored[-1])
            reached = np.isin(row_ids, self._reached(len(self.readers) - 1, self._scored), assume_unique=True)
            audited = scores[~reached]
            row_ids, scores = row_ids[reached], scores[reached]
        utilities = None
        if self.utilities is not None:
            known = self.utilities.read("bandit.json")["utilities"]
            utilities = np.array([known[name] for name in self.pool.names])
        candidates = Candidates(row_ids, self.pool.task_of(row_ids), scores, tuple(self.pool.names), utilities)
        rng = np.random.default_rng(self._salt("select"))
        picks = plan.selector.select(candidates, self.num_wanted, rng)
        exact = plan.selector.uses_budget and not isinstance(plan.selector, PickedTasks | BestTasks)
        wanted = self.num_wanted if exact else len(picks)
        assert len(np.unique(picks)) == len(picks) == wanted, f"{plan.selector} chose {len(picks)} rows, not {wanted}"
        if scores is not None and len(self.readers) > 1:
            rejected = len(self.candidates()) - len(candidates)
            audit = {"audit": overlap_at_least(scores[picks], audited, rejected)}
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
        return {"examples": len(picks), "candidates": len(self.candidates()), **audit}

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
    def mixing(self) -> Artifact | None:
        """`mixing.json`: every trial of the search for a ratio; None without a search or without selected rows.

        A trial is this experiment with that ratio, to its end; its value is the primary's on the rows that choose the
        epoch. The records count the cost of all trials but the best one, whose stages are the experiment's own.
        """
        chosen, search = self.pool.by_task(self.selected()), self.mixing_search
        if search is None or not chosen:
            return None
        identity = {
            "version": VERSIONS["mixing"],
            "search": search,
            "trial": [self._multitask_identity(*self._mixed(Proportional())), self._finetune_identity(None)],
            "held_out": self._evaluated_identity(self._evaluated),
        }
        return self.store.get("mixing", identity, lambda out: self._mix(out, search, [self.primary, *chosen]))

    def _mix(self, out: Path, search: MixingSearch, tasks: list[str]) -> dict[str, Any]:
        stages: dict[Mixture, list[Artifact]] = {}

        def evaluate(ratio: Mixture) -> float:
            trial = self._with_ratio(ratio)
            print(f"trial {len(stages) + 1} of {search.trials}: {':'.join(map(str, ratio))}", flush=True)
            stages[ratio] = [artifact for artifact in (trial.multitask, trial.finetune) if artifact]
            fit = trial.finetune.read("fit.json")
            return fit["epochs"][fit["best_epoch"]][self.pool.task(self.primary).metrics[0]]

        trials = search.run(len(tasks), evaluate, self.seed)
        winner = best(trials).ratio
        told = [
            {**vars(trial), "value": trial.value if np.isfinite(trial.value) else None,  # JSON has no NaN
             "stages": [[a.stage, a.key] for a in stages[trial.ratio]],
             **{name: _total(stages[trial.ratio], name) for name in ("wall_s", "flops")}}
            for trial in trials
        ]  # fmt: skip
        (out / "mixing.json").write_text(json.dumps({"tasks": tasks, "ratio": winner, "trials": told}, indent=1))
        others = [one for one in told if one["ratio"] != winner]
        ask_s = sum(trial.ask_s for trial in trials)
        return {
            "trials": len(trials),
            "ask_s": round(ask_s, 3),
            "flops": sum(one["flops"] for one in others),
            "wall_s": round(sum(one["wall_s"] for one in others) + ask_s, 3),
        }

    def _with_ratio(self, ratio: Mixture) -> Experiment:
        """This experiment with a given mixing ratio; it shares what does not depend on it."""
        trial = copy(self)
        for stage in ("mixing", "multitask", "finetune"):
            trial.__dict__.pop(stage, None)
        trial.sampling, trial.mixing_search = Ratio(ratio), None
        return trial

    @property
    def order(self) -> Sampling | OnlineSampling:
        """The sampling of the multi-task stage: as configured, or the ratio that the search found."""
        return Ratio(tuple(self.mixing.read("mixing.json")["ratio"])) if self.mixing else self.sampling

    def _mixed(self, order: Sampling | OnlineSampling) -> tuple[Sampling | OnlineSampling, dict[str, np.ndarray]]:
        """The order, and places of all primary rows (less the held-out ones) and the selected rows; a task of ratio 0
        is in neither, as if it had not been selected."""
        rows = {self.primary: self._primary_rows[0], **self.pool.by_task(np.sort(self.selected()))}
        if not isinstance(order, Ratio):
            return order, rows
        order.check(len(rows))
        kept = [(name, ratio) for name, ratio in zip(rows, order.ratios) if ratio]
        return replace(order, ratios=tuple(ratio for _, ratio in kept)), {name: rows[name] for name, _ in kept}

    def _multitask_identity(self, order: Sampling | OnlineSampling, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
        identity = {
            "version": VERSIONS["multitask"],
            "rows": self._rows_identity(rows, self.encoder),
            "encoder": self.encoder.identity(),
            "fit": self.multitask_fit,
            "sampling": order,
            "weighting": self.weighting,
            "seed": self.seed,
        }
        if isinstance(order, Thompson):
            identity |= {"rewarded": self._evaluated_identity(self._rewarded(order))}
        return identity

    @cached_property
    def multitask(self) -> Artifact | None:
        """The MT-DNN on all primary rows (less the held-out ones) and the selected rows; None if none were selected."""
        if not len(self.selected()):
            return None
        order, rows = self._mixed(self.order)
        evaluated = self._rewarded(order) if isinstance(order, Thompson) else None

        def build(out: Path) -> dict[str, Any]:
            job = self._job(
                "multitask", rows, self.multitask_fit, out, self.encoder, sampling=order, weighting=self.weighting,
                evaluated=evaluated, keep_best=False,
            )  # fmt: skip
            return run_fit(job)

        return self.store.get("multitask", self._multitask_identity(order, rows), build)

    # --- stage 6: finetune ---------------------------------------------------------------------------------------

    @cached_property
    def finetune(self) -> Artifact:
        """The primary alone, from the multi-task weights: weights, predictions and metrics of its best epoch."""
        return self.store.get("finetune", self._finetune_identity(self.multitask), self._finetune)

    def _finetune_identity(self, multitask: Artifact | None) -> dict[str, Any]:
        train, held = self._primary_rows
        return {
            "version": VERSIONS["finetune"],
            "rows": self._rows_identity({self.primary: train}, self.encoder),
            "held_out": self._rows_identity({self.primary: held}, self.encoder),
            "multitask": multitask.key if multitask else None,
            "encoder": self.encoder.identity(),
            "fit": self.finetune_fit,
            "sampling": Proportional(),
            "seed": self.seed,
        }

    def _finetune(self, out: Path) -> dict[str, Any]:
        init = self.multitask.path / "weights.safetensors" if self.multitask else None
        rows = {self.primary: self._primary_rows[0]}
        records = run_fit(
            self._job("finetune", rows, self.finetune_fit, out, self.encoder, init=init, evaluated=self._evaluated)
        )
        task = self.pool.task(self.primary)
        write_config(out, self.encoder, task)
        model = load_finetuned(out)[0].to(self.where.device)
        how = self._inference(self.encoder, self.finetune_fit.precision)
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
        """One line an artifact, or for many of one stage one line in all: key, found or built, seconds it cost."""
        lines = []
        for name, group in groupby(self.artifacts(stage), key=lambda a: a.stage):
            made = list(group)
            if len(made) > LINES_A_STAGE:
                built = sum(not a.hit for a in made)
                wall_s = sum(a.records["wall_s"] for a in made)
                lines.append(f"{name:<10} {f'{len(made)} parts, {built} built':<22} {wall_s:>10.1f} s")
            else:
                lines += [
                    f"{name:<10} {a.key}  {'hit  ' if a.hit else 'built'} {a.records['wall_s']:>9.1f} s" for a in made
                ]
        return "\n".join(lines)


def _total(artifacts: list[Artifact], record: str) -> float:
    return float(sum(artifact.records[record] for artifact in artifacts))


@lru_cache(maxsize=8)
def _tokenizer(encoder: EncoderSpec) -> Tokenizer:
    return encoder.make_tokenizer()
