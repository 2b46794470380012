"""The select-and-train pipeline, from token ids to test predictions; `STAGES` lists its steps in order.

A step is a method that finds its artifact by key or builds it from the artifacts before it. How a stage is made, and
what its key is made of, is in the module of its name in `fastmtl.stages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from fastmtl.data.batching.online import OnlineSampling, is_rewarded_by_validation
from fastmtl.data.batching.planned import Proportional, Sampling
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.identity import digest, plain
from fastmtl.mixing import MixingSearch
from fastmtl.models.multitask import MultiTaskModel, shared_heads
from fastmtl.pipelines import checks
from fastmtl.pipelines.levels import proxies, score_levels
from fastmtl.pipelines.rows import ExperimentRows
from fastmtl.plans import BanditPlan, RelationsPlan, ScoringPass, ScoringPlan
from fastmtl.stages.base import options_of
from fastmtl.stages.features import Features
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.joint import JointTraining, joint_training
from fastmtl.stages.mixing import Mixing
from fastmtl.stages.multitask import Multitask
from fastmtl.stages.pool import tokens
from fastmtl.stages.proxy import Proxy
from fastmtl.stages.scores import ShardScores
from fastmtl.stages.selection import Selection, read_selected
from fastmtl.stages.test import Test
from fastmtl.stages.utilities import Bandit, PredictedUtilities, read_predictor
from fastmtl.store import WEIGHTS, Artifact
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig, resolve_precision
from fastmtl.training.finetuned import load_finetuned
from fastmtl.training.weighting import Equal, Weighting

STAGES = tuple("pool leakage proxy scores singles utilities selection mixing multitask finetune test report".split())
LINES_PER_STAGE = 2

NO_OPTIONS = {"selection.budget", "selection.primary", "selection.sizes", "selection.scores", "finetune.multitask"}
"""Fields of stages that tell no arms apart: they are given otherwise, or found out."""


def check_stage(stage: str) -> None:
    """A `UserError` for a stage that there is not."""
    if stage not in STAGES:
        raise UserError(f"stage={stage!r} is unknown; choose from {', '.join(STAGES)}")


@dataclass(kw_only=True)
class Experiment(ExperimentRows):
    """One cell, primary x selection x budget x seed: its stages are lazy, cached and shared where they can be."""

    budget: int | float
    multitask_fit: FitConfig
    finetune_fit: FitConfig
    sampling: Sampling | OnlineSampling
    bandit_plan: BanditPlan
    relations_plan: RelationsPlan
    scoring: ScoringPlan = field(default_factory=ScoringPlan)
    weighting: Weighting = field(default_factory=Equal)
    mixing_search: MixingSearch | None = None
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
    def proxy_stages(self) -> list[list[Proxy]]:
        """The proxies of each pass, one per sample; none for a scorer that reads none."""
        return [proxies(self, reader) for reader in self.passes]

    def proxy(self) -> tuple[Artifact, ...]:
        """The proxies of all passes; a budget that cannot be met is reported before one trains."""
        if any(self.proxy_stages):
            self.check_budget()
        return tuple(self.context.get(stage) for level in self.proxy_stages for stage in level)

    @cached_property
    def levels(self) -> tuple[list[list[ShardScores]], RowSet | None]:
        """See `score_levels`."""
        return score_levels(self)

    def scores(self) -> tuple[Artifact, ...]:
        """Scores in shards, pass after pass, and what their scorers prepared."""
        shards = [shard for level in self.levels[0] for shard in level] if self.passes else []
        stages = {stage.key: stage for shard in shards for stage in (shard.prepared, shard) if stage is not None}
        return tuple(self.context.get(stage) for stage in stages.values())

    def all_scores(self) -> np.ndarray:
        """(T, N) float32 of the last pass: each row's value to each of the proxy's tasks; NaN = not scored."""
        parts = [np.load(self.context.get(shard).path / "scores.npy") for shard in self.levels[0][-1]]
        out = np.full((len(parts[0]), len(self.pool)), np.nan, dtype=np.float32)
        for shard, scores in zip(self.levels[0][-1], parts):
            out[:, self.row_ids(shard.rows)] = scores
        return out

    # --- utilities -----------------------------------------------------------------------------------------------

    def joint_stage(self, *tasks: str) -> JointTraining:
        """The model of some tasks together, or of one alone, in whatever order they are named."""
        plan = self.relations_plan
        fit = replace(plan.fit.resolved(self.hardware, self.encoder), epochs=1)
        return joint_training(self.tasks, self.pool, tasks, plan, fit, self.encoder, self.seed)

    @cached_property
    def single_stages(self) -> tuple[JointTraining, ...]:
        """The model of each task alone, where a predictor of gains reads their learning curves; else none."""
        return tuple(self.joint_stage(task.name) for task in self.tasks) if self.selection_plan.predictor else ()

    def singles(self) -> tuple[Artifact, ...]:
        """The models of `single_stages` and the features of their tasks."""
        return tuple(self.context.get(stage) for one in self.single_stages for stage in (one, Features(one)))

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
        plan = self.bandit_plan
        policy = replace(plan.policy, rounds=plan.rounds)
        rows, rewarded = self.bandit_rows(policy.validation_rows, plan.holdout)
        fit = replace(plan.fit.resolved(self.hardware, self.encoder), epochs=1)
        return Bandit(rows, self.encoder, fit, self.seed, policy, rewarded, choose_by=self.protocol.choose_by)

    def utilities(self) -> Artifact | None:
        """Each task's utility to the primary, by a bandit or a predictor; None if the selector needs none."""
        return self.context.get(self.utilities_stage) if self.utilities_stage else None

    # --- selection -----------------------------------------------------------------------------------------------

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

    @cached_property
    def _selected(self) -> np.ndarray:
        return read_selected(self.selection(), self.pool.starts, self.pool.names)

    def selected(self) -> np.ndarray:
        """(k,) row ids, best first."""
        return self._selected

    # --- mixing, multitask, finetune -----------------------------------------------------------------------------

    @cached_property
    def _unordered(self) -> Multitask:
        """The multi-task stage before a sampling is chosen."""
        trained = self.primary_rows[0]
        rows = RowSet.of(self.tasks, {**trained, **self.pool.by_task(np.sort(self.selected()))}, origin=trained.origin)
        fit = self.multitask_fit.resolved(self.hardware, self.encoder)
        heads = tuple(shared_heads(self.multitask_heads, rows.tasks).items())
        return Multitask(rows, self.encoder, fit, self.seed, Proportional(), self.weighting, None, heads)

    @cached_property
    def _search(self) -> Mixing | None:
        """The search for a ratio, whatever rows there are."""
        search = self.mixing_search
        last = self._finetuned_from(None, follows=True)
        return Mixing(search, self._unordered, last, self.seed) if search is not None else None

    def mixing(self) -> Artifact | None:
        """`mixing.json`: every trial of the search for a ratio; None without a search or without selected rows."""
        return self.context.get(self._search) if self._search and len(self.selected()) else None

    @cached_property
    def multitask_stage(self) -> Multitask | None:
        """The multi-task stage, in the configured order or at the ratio that the search found.

        None without auxiliary rows, unless the primary alone is to pass both stages, in proportional order.
        """
        alone = not len(self.selected())
        if alone and not self.selection_plan.both_stages:
            return None
        mixing = self.mixing()
        ratio = tuple(mixing.read("mixing.json")["ratio"]) if mixing else ()
        order: Any = self.mixing_search.order(ratio) if self.mixing_search and ratio else self.sampling
        order = Proportional() if alone else order
        if not is_rewarded_by_validation(order):
            return self._unordered.ordered(order)
        rewards, choose_by = self.rewarding(order.validation_rows), self.protocol.choose_by
        return replace(self._unordered.ordered(order), rewarded=rewards, choose_by=choose_by)

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
            rows, self.encoder, fit, self.seed, self.choosing_rows, self.reported_rows, multitask, keep, heads,
            choose_by=self.protocol.choose_by,
        )  # fmt: skip

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

    def test(self) -> Artifact | None:
        """Predictions of the primary's test rows, and metrics if they have labels; None if there is no test split."""
        return self.predicted(self.split("test")) if self.pool.has_split(self.primary, "test") else None

    @property
    def test_is_measured(self) -> bool:
        """Whether there are test rows with labels."""
        return self.pool.has_split(self.primary, "test") and not self.pool.split(self.primary, "test").hidden.all()

    def predicted(self, rows: RowSet) -> Artifact:
        """The fine-tuned model's answers on rows that are labelled as the primary's are."""
        precision = self.finetune_stage.fit.precision
        assert precision != "auto"
        return self.context.get(Test(self.finetune_stage, rows, precision))

    def options(self) -> dict[str, Any]:
        """Dotted option -> value of all that sets this cell's numbers, beside primary, budget and seed.

        Options of stages that the cell does without are not among them, so that one baseline serves all their values;
        nor is what the cell found out, such as a ratio, or that no row was worth choosing.
        """
        chooses = self._selection().check_budget() > 0
        multitask = replace(self._unordered, sampling=self.sampling) if chooses else None
        stages = (self.selection_stage, self._finetuned_from(multitask), self._search if chooses else None)
        found = {key: value for stage in stages if stage for key, value in options_of(stage).items()}
        if self.selection_plan.predictor:  # one option, however many coefficients it has
            found = {key: value for key, value in found.items() if not key.startswith("utilities.predictor")}
            found["utilities.predictor"] = digest(read_predictor(self.selection_plan.predictor))
        if chooses:  # not which tasks happen to share heads among those selected
            found.pop("finetune.heads", None)
            found["multitask.heads"] = plain(self.multitask_heads)
        found |= {f"{place}.precision": asked for place, asked in self.chosen_precision.items()
                  if f"{place}.precision" in found}  # fmt: skip
        return {key: value for key, value in found.items() if key not in NO_OPTIONS}

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
            rows = [(f"{a.key}  {'hit' if a.hit else 'built'}", a.records["wall_s"]) for a in made]
            if len(made) > LINES_PER_STAGE:
                built = sum(not a.hit for a in made)
                rows = [(f"{len(made)} parts, {built} built", sum(wall_s for _, wall_s in rows))]
            lines += [f"{name:<10} {shown:<23} {wall_s:>9.1f} s" for shown, wall_s in rows]
        return "\n".join(lines)
