"""The experiment: pool, proxy, scores, singles, utilities, selection, mixing, multitask, finetune, test, in this order.

Each stage is a property that finds its artifact by identity or builds it from the artifacts before it. How a stage is
made, and all that its identity holds, is in the module of its name in `fastmtl.stages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from fastmtl.data.online import OnlineSampling
from fastmtl.data.pool import TaskPool, TokenRows
from fastmtl.data.samplers import Proportional, Ratio, Sampling
from fastmtl.data.sources import Source
from fastmtl.errors import UserError
from fastmtl.mixing import MixingSearch
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.plans import BanditPlan, Protocol, ProxyPlan, Reader, RelationsPlan, ScoringPlan, SelectionPlan
from fastmtl.relations.features import Variant
from fastmtl.selection import rows_wanted
from fastmtl.stages import checks
from fastmtl.stages.affinities import Affinities
from fastmtl.stages.features import Features
from fastmtl.stages.finetune import Finetune
from fastmtl.stages.ground import Ground
from fastmtl.stages.joint import Joint
from fastmtl.stages.mixing import Mixing
from fastmtl.stages.multitask import Multitask
from fastmtl.stages.pool import TokenIds, training_rows
from fastmtl.stages.predicted import Predicted, read_predictor
from fastmtl.stages.projection import Projection, unused_rows
from fastmtl.stages.proxy import Proxy, train_proxies
from fastmtl.stages.scores import Scored, Scoring
from fastmtl.stages.selection import Selection, read_selected
from fastmtl.stages.test import Test
from fastmtl.stages.utilities import Utilities
from fastmtl.store import WEIGHTS, Artifact, Store
from fastmtl.tasks import TaskSpec
from fastmtl.training.finetuned import load_finetuned
from fastmtl.training.fit import Where, resolve_precision
from fastmtl.training.modules import FitConfig
from fastmtl.training.weighting import Equal, Weighting

STAGES = (
    "pool", "proxy", "scores", "singles", "utilities", "selection", "mixing", "multitask", "finetune", "test", "report",
)  # fmt: skip

LINES_A_STAGE = 2


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
    relations_plan: RelationsPlan
    scoring: ScoringPlan = field(default_factory=ScoringPlan)
    weighting: Weighting = field(default_factory=Equal)
    mixing_search: MixingSearch | None = None
    where: Where = field(default_factory=Where)
    rows_per_task: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        self._check()
        self._resolve()

    def _check(self) -> None:
        """What cannot work is said before anything is computed."""
        checks.check_tasks(self.source.tasks, self.primary, self.selection_plan)
        checks.check_training_rows(training_rows(self.rows_per_task, self._names), self._names)
        checks.check_scoring(self.scoring, self.selection_plan, self.where)
        checks.check_proxy_tasks(self.proxy_plan, self.primary, self._names)
        checks.check_predictor(self.selection_plan, self.source.tasks)
        checks.check_selected_tasks(self.selection_plan, [name for name in self._names if name != self.primary])
        checks.check_order(self.sampling, self.mixing_search, self.weighting)
        checks.check_parts(self.sampling, self.weighting, self.multitask_fit)
        checks.check_shared(self.sampling, self.weighting, self.multitask_fit, self.encoder)
        checks.check_sharding(self.sampling, self.weighting, self.where)
        checks.check_optimizer(self.weighting, self.multitask_fit)
        checks.check_surgery(self.weighting, self.multitask_fit, self.where)

    def _resolve(self) -> None:
        """Identities say which precision was used, not that this machine was to choose one."""

        def resolved(fit: FitConfig) -> FitConfig:
            return replace(fit, precision=resolve_precision(fit.precision, self.where))

        self.bandit_plan = replace(self.bandit_plan, fit=resolved(replace(self.bandit_plan.fit, epochs=1)))
        self.relations_plan = replace(self.relations_plan, fit=resolved(replace(self.relations_plan.fit, epochs=1)))
        self.proxy_plan = replace(self.proxy_plan, fit=resolved(self.proxy_plan.fit))
        self.multitask_fit, self.finetune_fit = resolved(self.multitask_fit), resolved(self.finetune_fit)
        if self.scoring.precision != "int8":
            self.scoring = replace(self.scoring, precision=resolve_precision(self.scoring.precision, self.where))

    @property
    def _names(self) -> list[str]:
        return [task.name for task in self.source.tasks]

    @cached_property
    def _ground(self) -> Ground:
        return Ground(
            store=self.store, source=self.source, kept=training_rows(self.rows_per_task, self._names),
            encoder=self.encoder, primary=self.primary, seed=self.seed, protocol=self.protocol, where=self.where,
        )  # fmt: skip

    # --- pool ----------------------------------------------------------------------------------------------------

    @cached_property
    def pool_artifacts(self) -> tuple[Artifact, ...]:
        """Token ids, one artifact a task and tokenizer, so that adding a task tokenizes that task alone."""
        encoders = [self.encoder, *(reader.encoder for reader in self.readers)]
        made = [artifact for encoder in encoders for artifact in self._ground.tokenized(encoder)[0]]
        return tuple({artifact.key: artifact for artifact in made}.values())

    @property
    def pool(self) -> TaskPool:
        """All rows of all tasks, cut to `rows_per_task` training rows where asked."""
        return self._ground.pool

    # --- proxy ---------------------------------------------------------------------------------------------------

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
        levels = self.scoring.cascade or [""]
        return [
            train_proxies(self._ground, level, reader, self._samples, self.proxy_plan.fit)
            for level, reader in zip(levels, self.readers)
        ]

    @cached_property
    def _samples(self) -> list[np.ndarray]:
        """Row ids that proxies are trained on: one sample, or with `cross_fit` two disjoint ones."""
        plan, folds = self.proxy_plan, (0, 1) if self.proxy_plan.cross_fit else (0,)
        return [self.pool.sample(plan.examples_per_task, self.seed, fold, self._proxy_tasks) for fold in folds]

    @property
    def _proxy_tasks(self) -> list[str]:
        """Names of the tasks that proxies are trained on, in pool order."""
        wanted = self.proxy_plan.tasks
        return [name for name in self._names if wanted is None or name in wanted]

    def projection(self, discriminator: bool, rows_per_task: int = 500) -> Artifact:
        """What the (last) proxy makes of rows that it was not trained on: see `Projection`.

        Without `discriminator` it is another proxy, trained on the same rows with task heads alone.
        """
        reader = self._check_discriminates()
        ground, sample = self._ground, self._samples[0]
        rows = unused_rows(ground, sample, rows_per_task)
        loss = reader.scorer.discriminator if discriminator else None
        title = "proxy" if discriminator else "proxy without discriminator"
        proxy = Proxy(ground, title, reader.encoder, loss, self.pool.by_task(sample), self.proxy_plan.fit)
        return ground.artifact(Projection(ground, reader.encoder, ground.artifact(proxy), rows, reader.precision))

    def _check_discriminates(self) -> Reader:
        """The last reader, which has a proxy with a discriminator."""
        reader = self.readers[-1] if self.readers else None
        if reader is None or reader.scorer.discriminator is None:
            raise UserError(f"selection={self.selection_plan.name} trains no proxy; use selection=feature_similarity")
        return reader

    # --- scores --------------------------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> tuple[Artifact, ...]:
        """Scores in shards, level after level: each (T, n) float32, its rows' value to every task as primary."""
        return self._scored.artifacts if self.readers else ()

    @cached_property
    def _scored(self) -> Scored:
        scoring = Scoring(
            self._ground, self.scoring, self.readers, proxies=self._proxies, samples=self._samples,
            tasks=self._proxy_tasks, candidates=self.candidates(),
        )  # fmt: skip
        return scoring.run()

    def all_scores(self) -> np.ndarray:
        """(T, N) float32 of the last level: each row's value to each of the proxy's tasks; NaN = not scored."""
        return self._scored.table()

    # --- relations -----------------------------------------------------------------------------------------------

    def joint(self, *tasks: str) -> Artifact:
        """The model of some tasks together, or of one alone, in whatever order they are named: see `Joint`."""
        for name in tasks:
            checks.check_related(self.pool.task(name))
        return self._ground.artifact(Joint(self._ground, tasks, self.relations_plan))

    def joint_rows(self, task: str) -> int:
        """How many rows measure the task in such models."""
        return len(Joint(self._ground, (task,), self.relations_plan).measured[task])

    def features(self, task: str, variant: Variant = "corrected") -> Artifact:
        """What the task's data and its learning curve alone say: see `Features`."""
        return self._ground.artifact(Features(self._ground, self.joint(task), task, variant))

    def affinities(self, rows_per_task: int = 128) -> Artifact:
        """How near all tasks are by the proxy and by their models alone: see `Affinities`."""
        self._check_discriminates()
        if self.proxy_plan.tasks is not None:
            raise UserError(
                f"proxy.tasks={list(self._proxy_tasks)}: affinities compare all tasks; use proxy.tasks=null"
            )
        ground, sample = self._ground, self._samples[0]
        rows = unused_rows(ground, sample, rows_per_task)
        singles = {name: self.joint(name) for name in self._names}
        proxy = self._proxies[-1][0]
        return ground.artifact(Affinities(ground, self.readers[-1].encoder, proxy, self._scored, singles, rows))

    @cached_property
    def singles(self) -> tuple[Artifact, ...]:
        """The model of each task alone, where a predictor of gains reads their learning curves; else none."""
        return tuple(self.joint(name) for name in self._names) if self.selection_plan.predictor else ()

    # --- utilities -----------------------------------------------------------------------------------------------

    @cached_property
    def utilities(self) -> Artifact | None:
        """Each task's utility to the primary, by a bandit or a predictor; None if the selector needs none."""
        plan, ground = self.selection_plan, self._ground
        if not plan.needs_utilities:
            return None
        if plan.predictor is None:
            return ground.artifact(Utilities(ground, self.bandit_plan))
        features = {name: self.features(name) for name in self._names}
        return ground.artifact(Predicted(ground, read_predictor(plan.predictor), features))

    # --- selection -----------------------------------------------------------------------------------------------

    def candidates(self) -> np.ndarray:
        """Row ids that may be chosen: a function of pool, proxy sample and seed, the same for every budgeted arm."""
        takes_all = not self.selection_plan.selector.uses_budget
        exclude = None if takes_all or self.proxy_plan.cross_fit else self._samples[0]
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
        selector, plan = self.selection_plan.selector, self.proxy_plan
        return self._ground.artifact(
            Selection(
                self._ground, selector, self.candidates(),
                left_out=None if plan.cross_fit else [plan.examples_per_task, self._proxy_tasks],
                budget=self.budget,
                num_wanted=self.num_wanted,
                scored=self._scored if selector.needs_scores else None,
                utilities=self.utilities,
                cascade=self.scoring if len(self.readers) > 1 else None,
            )
        )  # fmt: skip

    def selected(self) -> np.ndarray:
        """(k,) row ids, best first."""
        return read_selected(self.selection, self.pool)

    # --- mixing, multitask, finetune -----------------------------------------------------------------------------

    @cached_property
    def mixing(self) -> Artifact | None:
        """`mixing.json`: every trial of the search for a ratio; None without a search or without selected rows."""
        if self.mixing_search is None or not len(self.selected()):
            return None
        trial = self._multitask(Proportional()), Finetune(self._ground, self.finetune_fit, multitask=None)
        return self._ground.artifact(Mixing(self._ground, self.mixing_search, *trial))

    @property
    def order(self) -> Sampling | OnlineSampling:
        """The sampling of the multi-task stage: as configured, or the ratio that the search found."""
        return Ratio(tuple(self.mixing.read("mixing.json")["ratio"])) if self.mixing else self.sampling

    def _multitask(self, order: Sampling | OnlineSampling) -> Multitask:
        return Multitask(self._ground, self.selected(), order, self.multitask_fit, self.weighting)

    @cached_property
    def multitask(self) -> Artifact | None:
        """The MT-DNN on all primary rows (less the held-out ones) and the selected rows; None if none were selected."""
        return self._ground.artifact(self._multitask(self.order)) if len(self.selected()) else None

    @cached_property
    def _finetune(self) -> Finetune:
        multitask = self._multitask(self.order) if len(self.selected()) else None
        return Finetune(self._ground, self.finetune_fit, multitask)

    @cached_property
    def finetune(self) -> Artifact:
        """The primary alone, from the multi-task weights: weights, predictions and metrics of its best epoch."""
        _ = self.multitask  # a stage of its own, whose cost is its own
        return self._ground.artifact(self._finetune)

    def finetuned(self) -> tuple[MultiTaskModel, TaskSpec]:
        """The fine-tuned model in eval mode and its task; trained again if its weights were dropped."""
        return load_finetuned(self._ground.artifact(self._finetune, WEIGHTS).path)

    def drop_weights(self) -> None:
        """Delete the weights of this cell's multi-task and fine-tuned models, those of a search's trials included.

        All else stays: results, predictions, curves, costs. What needs the weights trains them again.
        """
        trials = self.mixing.read("mixing.json")["trials"] if self.mixing else []
        searched = [self.store.root / stage / key for trial in trials for stage, key in trial["stages"]]
        for folder in [*(one.path for one in (self.multitask, self.finetune) if one), *searched]:
            (folder / WEIGHTS).unlink(missing_ok=True)

    # --- test ----------------------------------------------------------------------------------------------------

    @cached_property
    def test(self) -> Artifact | None:
        """Predictions of the primary's test rows, and metrics if they have labels; None if there is no test split."""
        return self.predicted(self._test_rows) if self._test_rows is not None else None

    @property
    def _test_rows(self) -> TokenRows | None:
        return self.pool.split(self.primary, "test") if self.pool.has_split(self.primary, "test") else None

    @property
    def _test_is_measured(self) -> bool:
        return self._test_rows is not None and not np.isnan(self._test_rows.labels).all()

    def predicted(self, rows: TokenRows) -> Artifact:
        """What the fine-tuned model says of rows that are labelled as the primary's are."""
        return self._ground.artifact(Test(self._ground, self._finetune, rows, self.finetune_fit.precision))

    def test_rows_of(self, task: TaskSpec) -> TokenRows:
        """Test rows from the source that are of no task of the pool, such as those of GLUE's diagnostic set."""
        return TokenRows.open(self._ground.artifact(TokenIds(self.source, task, self.encoder)).path, "test")

    # --- the whole -----------------------------------------------------------------------------------------------

    def artifacts(self, stage: str = "finetune") -> list[Artifact]:
        """Every artifact up to a stage, in order, built where missing; a report needs no test rows without labels."""
        if stage not in STAGES:
            raise UserError(f"stage={stage!r} is unknown; choose from {', '.join(STAGES)}")
        done: list[Artifact] = []
        for name in STAGES[: STAGES.index(stage) + 1]:
            if name == "report" or (name == "test" and stage == "report" and not self._test_is_measured):
                continue
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
