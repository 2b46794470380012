"""The select-and-train pipeline, from token ids to test predictions; `STAGES` lists its steps in order.

A step is a method that finds its artifact by key or builds it from the artifacts before it. How a stage is made, and
what its key is made of, is in the module of its name in `fastmtl.stages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastmtl.data.batching.online import OnlineSampling, is_rewarded_by_validation
from fastmtl.data.batching.planned import Proportional, Ratio, Sampling
from fastmtl.data.duplicates import holdout, read_texts
from fastmtl.data.pool import TaskPool
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.identity import digest, plain
from fastmtl.mixing import MixingSearch
from fastmtl.models.encoder import EncoderSpec, TokenizerSpec
from fastmtl.models.multitask import MultiTaskModel, shared_heads
from fastmtl.pipelines import checks
from fastmtl.plans import BanditPlan, Protocol, ProxyPlan, RelationsPlan, ScoringPass, ScoringPlan, SelectionPlan
from fastmtl.seeds import derive, generator
from fastmtl.selection.cascade import best_of
from fastmtl.stages.base import Context, options_of
from fastmtl.stages.features import Features
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.joint import JointTraining, joint_training
from fastmtl.stages.leakage import Leakage, leaks
from fastmtl.stages.mixing import Mixing
from fastmtl.stages.multitask import Multitask
from fastmtl.stages.pool import open_pool, tokens, training_rows
from fastmtl.stages.proxy import Proxy
from fastmtl.stages.scores import Prepared, ShardScores, assign, read_scores, score
from fastmtl.stages.selection import Selection, read_selected
from fastmtl.stages.test import Test
from fastmtl.stages.utilities import Bandit, PredictedUtilities, read_predictor
from fastmtl.store import WEIGHTS, Artifact, Store
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig, Hardware, resolve_precision
from fastmtl.training.finetuned import load_finetuned
from fastmtl.training.weighting import Equal, Weighting

if TYPE_CHECKING:
    from pandas import DataFrame

STAGES = (
    "pool", "leakage", "proxy", "scores", "singles", "utilities", "selection", "mixing", "multitask", "finetune",
    "test", "report",
)  # fmt: skip

LINES_PER_STAGE = 2


def check_stage(stage: str) -> None:
    """A `UserError` for a stage that there is not."""
    if stage not in STAGES:
        raise UserError(f"stage={stage!r} is unknown; choose from {', '.join(STAGES)}")


@dataclass
class Experiment:
    """One cell, primary x selection x budget x seed: its stages are lazy, cached and shared where they can be."""

    tasks: tuple[TaskSpec, ...]
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
    relations_plan: RelationsPlan
    scoring: ScoringPlan = field(default_factory=ScoringPlan)
    weighting: Weighting = field(default_factory=Equal)
    mixing_search: MixingSearch | None = None
    hardware: Hardware = field(default_factory=Hardware)
    rows_per_task: int | Mapping[str, int] | None = None
    leakage_rule: Literal["report", "drop", "fail"] | None = None
    multitask_heads: str | Mapping[str, Sequence[str]] = "per_task"
    keep_selected: float = 0.0
    chosen_precision: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checks.check(self)
        # Keys say which precision and rate were used, arms what was asked for.
        self.chosen_precision = {
            "proxy.fit": self.proxy_plan.fit.precision, "utilities.fit": self.bandit_plan.fit.precision,
            "multitask.fit": self.multitask_fit.precision, "finetune.fit": self.finetune_fit.precision,
            "scores": self.scoring.precision, "prepared": self.scoring.precision,
        }  # fmt: skip
        if self.scoring.precision != "int8":
            self.scoring = replace(self.scoring, precision=resolve_precision(self.scoring.precision, self.hardware))
        self.context = Context(self.store, self.hardware)

    # --- rows ----------------------------------------------------------------------------------------------------

    @property
    def task(self) -> TaskSpec:
        """The primary task."""
        return next(task for task in self.tasks if task.name == self.primary)

    @cached_property
    def pool(self) -> TaskPool:
        """All rows of all tasks as the main model reads them, cut to `rows_per_task` training rows where asked."""
        return open_pool(self.context, self.tasks, self.encoder, self.rows_kept)

    @property
    def rows_kept(self) -> dict[str, int]:
        """Task -> training rows that are kept, where the task is cut."""
        return training_rows(self.rows_per_task, [task.name for task in self.tasks])

    def rows(self, row_ids: np.ndarray, **origin: Any) -> RowSet:
        """Row ids as a row set, the tasks in pool order."""
        return RowSet.of(self.tasks, self.pool.by_task(row_ids), origin=origin)

    @cached_property
    def primary_rows(self) -> tuple[RowSet, RowSet]:
        """The primary's training rows (trained on, held out); nothing is held out under `paper`."""
        positions = self.pool.local(self.pool.rows_of(self.primary))
        kept, held = np.arange(len(positions)), np.arange(0)
        origin: dict[str, Any] = {"protocol": self.protocol.name}
        if self.protocol.name == "strict":
            texts = read_texts(self.pool.split(self.primary, "train").folder, "train").take(positions)
            # duplicates are on one side of the cut
            kept, held = holdout(texts.keys(), self.protocol.holdout, self.seed, self.primary)
            origin["holdout"] = self.protocol.holdout
        return (
            RowSet.of(self.tasks, {self.primary: positions[kept]}, origin=origin),
            RowSet.of(self.tasks, {self.primary: positions[held]}),
        )

    @cached_property
    def reported_rows(self) -> RowSet:
        """The primary's validation split."""
        return self._split("validation")

    @property
    def choosing_rows(self) -> RowSet:
        """The rows on which choices are made: held-out ones, or under `paper` the validation split."""
        return self.primary_rows[1] if self.protocol.name == "strict" else self.reported_rows

    def _split(self, split: str) -> RowSet:
        return RowSet.of(self.tasks, {self.primary: np.arange(len(self.pool.split(self.primary, split)))}, split)

    def _shuffled(self, positions: np.ndarray) -> np.ndarray:
        """Rows of the primary (n,) in the order in which they are taken to reward a bandit."""
        return positions[generator("rewarded", self.seed, self.primary).permutation(len(positions))]

    def _rewarding(self, count: int) -> RowSet:
        """As many of the rows that choose as a round of a bandit reads."""
        chosen = self.choosing_rows
        return replace(chosen, positions=(np.sort(self._shuffled(chosen.positions[0])[:count]),))

    # --- leakage -------------------------------------------------------------------------------------------------

    def leakage(self) -> Artifact | None:
        """Matches between the primary's rows and the other tasks' training rows; None without other tasks."""
        others = tuple(task for task in self.tasks if task.name != self.primary)
        return self.context.get(Leakage(self.task, others, TokenizerSpec(self.encoder))) if others else None

    @property
    def drops_leaks(self) -> bool:
        """Whether auxiliary rows that match held-back rows are left out; under `strict` they are unless configured."""
        return self.leakage_rule == "drop" or (self.leakage_rule is None and self.protocol.name == "strict")

    @cached_property
    def leaks(self) -> DataFrame:
        """The matches with the primary's validation, test and held-out rows (see `stages.leakage`)."""
        held_back = {split: np.arange(len(self.pool.split(self.primary, split))) for split in self.task.splits}
        held_back["train"] = self.primary_rows[1].positions[0]
        artifact = self.leakage()
        assert artifact is not None
        found = leaks(artifact, held_back)
        if self.leakage_rule == "fail" and len(found):
            counts = found.drop_duplicates(["split", "reference"])["split"].value_counts()
            hit = ", ".join(f"{count} {split} rows" for split, count in counts.items())
            raise UserError(f"auxiliary rows match the primary's held-back rows ({hit}); use data.leakage=drop")
        return found

    @cached_property
    def _left_out(self) -> np.ndarray:
        """(n,) row ids of auxiliary rows that are left out, ascending."""
        if len(self.tasks) < 2 or not (self.drops_leaks or self.leakage_rule == "fail"):
            return np.empty(0, dtype=np.int64)
        found, pool = self.leaks, self.pool
        ids = [pool.starts[pool.index(name)] + rows["row"].to_numpy() for name, rows in found.groupby("task")]
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *ids]))

    # --- proxy and scores ------------------------------------------------------------------------------------------

    @cached_property
    def passes(self) -> tuple[ScoringPass, ...]:
        """What scores rows, in order: one pass, several for a cascade, none if nothing needs scores."""
        scorer, precision = self.selection_plan.scorer, self.scoring.precision
        if scorer is None:
            return ()
        assert precision != "auto"  # resolved when the experiment was made
        return self.scoring.passes(ScoringPass(self.proxy_plan.encoder or self.encoder, scorer, precision))

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """Row ids that proxies are trained on: one sample, or with `cross_fit` two disjoint ones."""
        plan, folds = self.proxy_plan, (0, 1) if self.proxy_plan.cross_fit else (0,)
        names = [task.name for task in self.tasks if plan.tasks is None or task.name in plan.tasks]
        drawn = [self.pool.sample(plan.examples_per_task, self.seed, fold, names) for fold in folds]
        return [np.setdiff1d(sample, self._left_out, assume_unique=True) for sample in drawn]

    @property
    def _sampled_by(self) -> dict[str, Any]:
        """How the proxy's rows came about."""
        plan = self.proxy_plan
        tasks = None if plan.tasks is None else list(plan.tasks)
        return {"examples_per_task": plan.examples_per_task, "cross_fit": plan.cross_fit, "tasks": tasks}

    @cached_property
    def proxy_stages(self) -> list[list[Proxy]]:
        """The proxies of each pass, one per sample; none for a scorer that reads none."""
        return [self._proxies(one) for one in self.passes]

    def _proxies(self, reader: ScoringPass) -> list[Proxy]:
        if reader.scorer.needs not in ("heads", "discriminator"):
            return []
        loss: Any = getattr(reader.scorer, "loss", "ce") if reader.scorer.needs == "discriminator" else None
        fit = self.proxy_plan.fit.resolved(self.hardware, reader.encoder)
        return [
            Proxy(self.rows(sample, **self._sampled_by), reader.encoder, fit, self.seed, loss)
            for sample in self.samples
        ]

    def proxy(self) -> tuple[Artifact, ...]:
        """The proxies of all passes; a budget that cannot be met is reported before one trains."""
        if any(self.proxy_stages):
            self.check_budget()
        return tuple(self.context.get(stage) for level in self.proxy_stages for stage in level)

    @cached_property
    def levels(self) -> tuple[list[list[ShardScores]], RowSet | None]:
        """The shards of each pass, and with a cascade the candidates that the last pass chooses among.

        The first pass reads every row, the others what the one before passes on to them.
        """
        levels: list[list[ShardScores]] = []
        pool, candidates = self.pool, self.candidate_ids()
        reached = candidates
        for i, reader in enumerate(self.passes):
            if i:
                read, values = read_scores(self.context, levels[-1], self.primary)
                ids = np.concatenate([self._row_ids(rows) for rows in read])
                count = self.scoring.num_kept(len(candidates), i)
                reached = todo = best_of(reached, ids, values, count, derive("keep", i - 1, self.seed, self.primary))
                if i == len(self.passes) - 1:
                    todo = np.union1d(todo, self._audited(candidates, reached))
            else:
                names = [name for name in pool.names if name != self.primary or not reader.scorer.per_primary]
                todo = np.concatenate([pool.rows_of(name) for name in names])
            levels.append(self._shards(reader, self.proxy_stages[i], pool.by_task(todo)))
            score(self.context, levels[-1])
        plan = self.scoring
        levels_of = {name: plan.levels[name] for name in plan.cascade}
        origin = {"cascade": plan.cascade, "cascade.keep": plan.keep, "cascade.levels": levels_of}
        return levels, self.rows(reached, **origin) if len(levels) > 1 else None

    def _row_ids(self, rows: RowSet) -> np.ndarray:
        pool = self.pool
        return np.concatenate([pool.starts[pool.index(name)] + positions for name, positions in rows.items()])

    def _audited(self, candidates: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """Rejected rows, drawn at random, that the last pass reads too."""
        rejected = np.setdiff1d(candidates, reached, assume_unique=True)
        rng = generator("audit", self.seed, self.primary)
        return rng.choice(rejected, min(self.scoring.audit, len(rejected)), replace=False)

    def _shards(self, reader: ScoringPass, proxies: list[Proxy], rows: Mapping[str, np.ndarray]) -> list[ShardScores]:
        scorer: Any = reader.scorer
        seed = self.seed if getattr(scorer, "uses_seed", False) else None
        target = self.primary_rows[0] if scorer.per_primary else None
        shared: dict[str, Any] = {
            "scorer": scorer, "encoder": reader.encoder, "target": target, "precision": reader.precision, "seed": seed,
        }  # fmt: skip
        prepared = None
        if hasattr(scorer, "prepare"):
            everything = RowSet.of(self.tasks, rows)
            prepared = Prepared(rows=everything, proxy=proxies[0] if proxies else None, **shared)
        # A row is read by the first proxy that was not trained on it; without a proxy nothing was trained on.
        trained_on: list[Mapping[str, np.ndarray]] = [proxy.rows for proxy in proxies] or [{}]
        return [
            ShardScores(
                rows=RowSet.of(self.tasks, {task: positions}), proxy=proxies[which] if proxies else None,
                prepared=prepared, **shared,
            )
            for task, positions, which in assign(rows, trained_on, self.scoring.shard_rows)
        ]  # fmt: skip

    def scores(self) -> tuple[Artifact, ...]:
        """Scores in shards, pass after pass, and what their scorers prepared."""
        if not self.passes:
            return ()
        shards = [shard for level in self.levels[0] for shard in level]
        stages = {stage.key: stage for shard in shards for stage in (shard.prepared, shard) if stage is not None}
        return tuple(self.context.get(stage) for stage in stages.values())

    def all_scores(self) -> np.ndarray:
        """(T, N) float32 of the last pass: each row's value to each of the proxy's tasks; NaN = not scored."""
        shards = self.levels[0][-1]
        height = 1 if shards[0].proxy is None or shards[0].scorer.per_primary else len(shards[0].proxy.rows)
        out = np.full((height, len(self.pool)), np.nan, dtype=np.float32)
        for shard in shards:
            out[:, self._row_ids(shard.rows)] = np.load(self.context.get(shard).path / "scores.npy")
        return out

    # --- utilities -----------------------------------------------------------------------------------------------

    @cached_property
    def single_stages(self) -> tuple[JointTraining, ...]:
        """The model of each task alone, where a predictor of gains reads their learning curves; else none."""
        if not self.selection_plan.predictor:
            return ()
        plan = self.relations_plan
        fit = replace(plan.fit.resolved(self.hardware, self.encoder), epochs=1)
        return tuple(
            joint_training(self.tasks, self.pool, (task.name,), plan, fit, self.encoder, self.seed)
            for task in self.tasks
        )

    def singles(self) -> tuple[Artifact, ...]:
        """The model of each task alone, where a predictor of gains reads their learning curves; else none."""
        return tuple(self.context.get(stage) for stage in self.single_stages)

    @cached_property
    def utilities_stage(self) -> Bandit | PredictedUtilities | None:
        """What values tasks; None if the selector needs no utilities."""
        if "utilities" not in self.selection_plan.selector.needs:
            return None
        if self.selection_plan.predictor is None:
            return self._bandit()
        features = tuple(Features(single) for single in self.single_stages)
        return PredictedUtilities(self.primary, read_predictor(self.selection_plan.predictor), features)

    def _bandit(self) -> Bandit:
        """Under `strict`, the protocol's held-out rows reward the bandit first, then others of the primary's."""
        plan = self.bandit_plan
        policy = replace(plan.policy, rounds=plan.rounds)
        (trained, held), rewarded = self.primary_rows, self._rewarding(policy.validation_rows)
        if self.protocol.name == "strict":
            kept, out = trained.positions[0], held.positions[0]
            most = max(1, int(plan.holdout * (len(kept) + len(out))))
            in_turn = np.concatenate([self._shuffled(out), self._shuffled(kept)])
            taken = in_turn[: min(policy.validation_rows, most)]
            rewarded = replace(held, positions=(np.sort(taken),))
            trained = replace(trained, positions=(np.setdiff1d(kept, taken),))
        pool = self.pool
        kept = np.setdiff1d(self.pool.candidates(self.primary), self._left_out, assume_unique=True)
        auxiliary = pool.by_task(kept)
        rows = RowSet.of(self.tasks, {**trained, **auxiliary}, origin={"holdout": plan.holdout})
        fit = replace(plan.fit.resolved(self.hardware, self.encoder), epochs=1)
        return Bandit(rows, self.encoder, fit, self.seed, policy, rewarded)

    def utilities(self) -> Artifact | None:
        """Each task's utility to the primary, by a bandit or a predictor; None if the selector needs none."""
        return self.context.get(self.utilities_stage) if self.utilities_stage else None

    # --- selection -----------------------------------------------------------------------------------------------

    def candidate_ids(self) -> np.ndarray:
        """Row ids that may be chosen: a function of pool, proxy sample and seed, the same for every budgeted arm."""
        everything = self.selection_plan.selector.takes_all or self.proxy_plan.cross_fit
        rows = self.pool.candidates(self.primary, None if everything else self.samples[0])
        for name in self.selection_plan.exclude:
            rows = np.setdiff1d(rows, self.pool.rows_of(name), assume_unique=True)
        return np.setdiff1d(rows, self._left_out, assume_unique=True)

    def candidates(self) -> RowSet:
        """The rows that may be chosen."""
        origin = {} if self.selection_plan.selector.takes_all else self._sampled_by
        origin = {**origin, "leakage": "drop" if self.drops_leaks else "report"}
        if self.selection_plan.exclude:
            origin["exclude"] = list(self.selection_plan.exclude)
        return self.rows(self.candidate_ids(), **origin)

    def _selection(self, **valued: Any) -> Selection:
        plan, pool = self.selection_plan, self.pool
        sizes = tuple(zip(pool.names, np.diff(pool.starts).tolist()))
        return Selection(
            primary=self.primary, sizes=sizes, candidates=self.candidates(), selector=plan.selector, seed=self.seed,
            budget=self.budget if plan.selector.uses_budget else None,
            **{"scores": (), "reached": None, "utilities": None, **valued},
        )  # fmt: skip

    def check_budget(self) -> None:
        """A `UserError` for a budget that cannot be met, before anything is trained for it."""
        self._selection().check_budget()
        checks.check_cascade(self.scoring, self.budget, len(self.candidate_ids()), len(self.passes))

    @cached_property
    def selection_stage(self) -> Selection:
        """The selection with all that values its candidates."""
        self.check_budget()
        needs = self.selection_plan.selector.needs
        levels, reached = self.levels if "scores" in needs else ([[]], None)
        return self._selection(scores=tuple(levels[-1]), reached=reached, utilities=self.utilities_stage)

    def selection(self) -> Artifact:
        """`selection.parquet` (task, row, score), best first, and `counts.json`."""
        return self.context.get(self.selection_stage)

    def selected(self) -> np.ndarray:
        """(k,) row ids, best first."""
        return self._selected

    @cached_property
    def _selected(self) -> np.ndarray:
        return read_selected(self.selection(), self.pool.starts, self.pool.names)

    # --- mixing, multitask, finetune -----------------------------------------------------------------------------

    @cached_property
    def _unordered(self) -> Multitask:
        """The multi-task stage before a sampling is chosen."""
        rows = {**self.primary_rows[0], **self.pool.by_task(np.sort(self.selected()))}
        fit = self.multitask_fit.resolved(self.hardware, self.encoder)
        trained = RowSet.of(self.tasks, rows, origin=self.primary_rows[0].origin)
        heads = tuple(shared_heads(self.multitask_heads, trained.tasks).items())
        return Multitask(trained, self.encoder, fit, self.seed, Proportional(), self.weighting, None, heads)

    @cached_property
    def _search(self) -> Mixing | None:
        """The search for a ratio, whatever rows there are."""
        search = self.mixing_search
        last = self._finetuned_from(None, follows=True)
        return Mixing(search, self._unordered, last, self.seed) if search is not None else None

    @property
    def mixing_stage(self) -> Mixing | None:
        """The search for a ratio; None without a search or without selected rows."""
        return self._search if len(self.selected()) else None

    def mixing(self) -> Artifact | None:
        """`mixing.json`: every trial of the search for a ratio; None without a search or without selected rows."""
        return self.context.get(self.mixing_stage) if self.mixing_stage else None

    @cached_property
    def multitask_stage(self) -> Multitask | None:
        """The multi-task stage, in the configured order or at the ratio that the search found.

        None without auxiliary rows, unless the primary alone is to pass both stages, in proportional order.
        """
        alone = not len(self.selected())
        if alone and not self.selection_plan.both_stages:
            return None
        mixing = self.mixing()
        order: Any = Ratio(tuple(mixing.read("mixing.json")["ratio"])) if mixing else self.sampling
        order = Proportional() if alone else order
        rewards = self._rewarding(order.validation_rows) if is_rewarded_by_validation(order) else None
        return replace(self._unordered.ordered(order), rewarded=rewards)

    def multitask(self) -> Artifact | None:
        """The MT-DNN on all primary rows (less the held-out ones) and the selected rows; None if none were selected."""
        return self.context.get(self.multitask_stage) if self.multitask_stage else None

    def _finetuned_from(self, multitask: Multitask | None, follows: bool = False) -> Finetune:
        """Fine-tuning from the weights of a stage; it `follows` auxiliary rows, maybe in a stage yet to be named."""
        follows = follows or (multitask is not None and len(multitask.rows) > 1)
        fit = self.finetune_fit.resolved(self.hardware, self.encoder, follows)
        keep = self.keep_selected if self.keep_selected and follows and len(self.selected()) else 0.0
        rows, heads = (self._unordered.rows, self._unordered.heads) if keep else (self.primary_rows[0], ())
        return Finetune(
            rows, self.encoder, fit, self.seed, self.choosing_rows, self.reported_rows, multitask, keep, heads
        )

    @cached_property
    def finetune_stage(self) -> Finetune:
        """The last training stage."""
        return self._finetuned_from(self.multitask_stage)

    def finetune(self) -> Artifact:
        """The primary alone, from the multi-task weights: weights, predictions and metrics of its best epoch."""
        self.multitask()  # a stage of its own, whose cost is its own
        return self.context.get(self.finetune_stage)

    def finetuned(self) -> tuple[MultiTaskModel, TaskSpec]:
        """The fine-tuned model in eval mode and its task; trained again if its weights were dropped."""
        return load_finetuned(self.context.get(self.finetune_stage, WEIGHTS).path)

    def drop_weights(self) -> None:
        """Delete the weights of this cell's multi-task and fine-tuned models, those of a search's trials included.

        All else stays: results, predictions, curves, costs. What needs the weights trains them again.
        """
        mixing = self.mixing()
        trials = mixing.read("mixing.json")["trials"] if mixing else []
        searched = [self.store.root / kind / key for trial in trials for kind, key in trial["stages"]]
        for folder in [*(one.path for one in (self.multitask(), self.finetune()) if one), *searched]:
            (folder / WEIGHTS).unlink(missing_ok=True)

    # --- test ----------------------------------------------------------------------------------------------------

    def test(self) -> Artifact | None:
        """Predictions of the primary's test rows, and metrics if they have labels; None if there is no test split."""
        return self.predicted(self._split("test")) if self.pool.has_split(self.primary, "test") else None

    @property
    def test_is_measured(self) -> bool:
        """Whether there are test rows with labels."""
        return self.pool.has_split(self.primary, "test") and not self.pool.split(self.primary, "test").hidden.all()

    def predicted(self, rows: RowSet) -> Artifact:
        """The fine-tuned model's answers on rows that are labelled as the primary's are."""
        precision = self.finetune_stage.fit.precision
        assert precision != "auto"
        return self.context.get(Test(self.finetune_stage, rows, precision))

    # --- the whole -----------------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Dotted option -> value of all that sets this cell's numbers, beside primary, budget and seed.

        Options of stages that the cell does without are not among them, so that one baseline serves all their values;
        nor is what the cell found out, such as a ratio, or that no row was worth choosing.
        """
        chooses = self._selection().check_budget() > 0
        multitask = replace(self._unordered, sampling=self.sampling) if chooses else None
        stages = [self.selection_stage, self._finetuned_from(multitask), self._search if chooses else None]
        found: dict[str, Any] = {}
        for stage in stages:
            found |= options_of(stage) if stage else {}
        if self.selection_plan.predictor:  # one option, however many coefficients it has
            found = {key: value for key, value in found.items() if not key.startswith("utilities.predictor")}
            found["utilities.predictor"] = digest(read_predictor(self.selection_plan.predictor))
        if chooses:  # not which tasks happen to share heads among those selected
            found.pop("finetune.heads", None)
            found["multitask.heads"] = plain(self.multitask_heads)
        for place, precision in self.chosen_precision.items():
            if f"{place}.precision" in found:
                found[f"{place}.precision"] = precision
        for key in (
            "selection.budget",
            "selection.primary",
            "selection.sizes",
            "selection.scores",
            "finetune.multitask",
        ):
            found.pop(key, None)
        return found

    def artifacts(self, stage: str = "finetune") -> list[Artifact]:
        """Every artifact up to a stage, in order, built where missing; a report needs no test rows without labels."""
        check_stage(stage)
        done: list[Artifact] = []
        for name in STAGES[: STAGES.index(stage) + 1]:
            if name == "report" or (name == "test" and stage == "report" and not self.test_is_measured):
                continue
            made = self.token_ids() if name == "pool" else getattr(self, name)()
            done += made if isinstance(made, tuple) else [made] if made else []
        return done

    def token_ids(self) -> tuple[Artifact, ...]:
        """Token ids, one artifact per task and tokenizer."""
        encoders = [self.encoder, *(reader.encoder for reader in self.passes)]
        made = [artifact for encoder in encoders for artifact in tokens(self.context, self.tasks, encoder)]
        return tuple({artifact.key: artifact for artifact in made}.values())

    def tree(self, stage: str = "finetune") -> str:
        """One line per artifact, or for many of one stage one line in all: key, found or built, seconds it cost."""
        lines = []
        for name, group in groupby(self.artifacts(stage), key=lambda a: a.kind):
            made = list(group)
            if len(made) > LINES_PER_STAGE:
                built = sum(not a.hit for a in made)
                wall_s = sum(a.records["wall_s"] for a in made)
                lines.append(f"{name:<10} {f'{len(made)} parts, {built} built':<22} {wall_s:>10.1f} s")
            else:
                lines += [
                    f"{name:<10} {a.key}  {'hit  ' if a.hit else 'built'} {a.records['wall_s']:>9.1f} s" for a in made
                ]
        return "\n".join(lines)
