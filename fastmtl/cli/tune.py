"""`fastmtl tune`: a search for hyper-parameters over cells, by Optuna, in a stored study that can be gone on with.

A trial trains the cell of its values once a seed. Its value is the primary's headline metric on the rows that choose
the epoch, held out of train under `protocol=strict`: so the validation split, on which the winner is reported, has had
no part in the choice.
"""

from __future__ import annotations

import math
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from fastmtl.cli.compose import build, compose, in_words, values
from fastmtl.cli.messages import check_folder_name, command_line
from fastmtl.cli.sweep import held
from fastmtl.cli.verbs import Arguments, count
from fastmtl.errors import UserError

if TYPE_CHECKING:  # optuna and torch take seconds to import; --help and mistyped values do without them
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

UNTUNABLE = ("seed", "primary", "data", "protocol", "stage")
"""First parts of keys whose values change what a trial is measured on, so that trials could not be compared."""


@dataclass(frozen=True)
class Search:
    """`fixed` overrides are of every trial; `space` has the swept ones; `trials` in all, `seeds` of each."""

    name: str
    fixed: tuple[str, ...]
    space: dict[str, BaseDistribution]
    trials: int
    seeds: int

    def run(self) -> Study:
        """Go on to `trials` trials. Several processes may run the same search at a time.

        A trial holds a lock while it runs; one whose lock is free was killed, and does not count. What is proposed
        depends on seed and counted trials alone: so the killed one is proposed again, its finished stages are found.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space: dict[str, Any] = self.space
        first = {key: (getattr(one, "choices", None) or [one.low])[0] for key, one in space.items()}
        cfg = values(*self.fixed, *_overrides(first))
        build(cfg)  # says what is wrong with a key or a value before there is a study
        folder = Path(cfg.paths.output) / "tuning" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{folder / 'study.db'}", study_name=self.name, direction="maximize", load_if_exists=True
        )
        self._bind(study)
        where = "the validation split (optimistic)" if cfg.protocol.name == "paper" else "held-out training rows"
        while (asked := self._ask(study, folder, cfg.seed)) is not None:
            trial, lock = asked
            try:
                self._evaluate(study, trial, cfg.seed, where)
            finally:
                lock.release()
        self._conclude(study, cfg.seed, where)
        return study

    def _bind(self, study: Study) -> None:
        """A study has one question: trials of another one would mislead it."""
        space = {key: repr(distribution) for key, distribution in self.space.items()}
        question = {"fixed": list(self.fixed), "space": space, "seeds": self.seeds}
        if (old := study.user_attrs.get("question", question)) != question:
            raise UserError(
                f"search {self.name!r} was begun with {' '.join(old['fixed'])} over {', '.join(old['space'])} "
                f"and {old['seeds']} seeds, with other values now; choose another name"
            )
        study.set_user_attr("question", question)

    def _ask(self, study: Study, folder: Path, seed: int) -> tuple[Trial, FileLock] | None:
        """The next trial with its lock held; None if there are enough."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        with FileLock(folder / ".asking"):
            for running in study.get_trials(states=(TrialState.RUNNING,)):
                if not held(folder / f".trial-{running.number}"):
                    study.tell(running.number, state=TrialState.FAIL)
            count = sum(one.state != TrialState.FAIL or "error" in one.user_attrs for one in study.get_trials())
            if count >= self.trials:
                return None
            study.sampler = TPESampler(seed=seed * 100_000 + count)
            trial = study.ask(self.space)
            lock = FileLock(folder / f".trial-{trial.number}")
            lock.acquire()
        print(f"trial {count + 1} of {self.trials}: {' '.join(_overrides(trial.params))}", flush=True)
        return trial, lock

    def _evaluate(self, study: Study, trial: Trial, seed: int, where: str) -> None:
        from optuna.trial import TrialState

        try:
            overrides = (*self.fixed, *_overrides(trial.params))
            scores = [_value(*overrides, f"seed={seed + i}") for i in range(self.seeds)]
            if not all(map(math.isfinite, scores)):
                raise UserError("its metric is not defined")
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=TrialState.FAIL)
            print(f"    failed: {error}", flush=True)
            return
        study.tell(trial, mean := sum(scores) / len(scores))
        each = " ".join(f"{100 * score:.1f}" for score in scores)
        print(f"    {100 * mean:.1f} on {where} (by seed: {each})", flush=True)

    def _conclude(self, study: Study, seed: int, where: str) -> None:
        from optuna.trial import TrialState

        done = study.get_trials(states=(TrialState.COMPLETE,))
        if not done:
            raise UserError(f"no trial of search {self.name!r} finished; the reasons are above")
        command = ["-m", *self.fixed, *_overrides(study.best_params), f"seed=range({seed},{seed + self.seeds})"]
        summary = f"{100 * study.best_value:.1f} on {where}, mean of {self.seeds} seeds; the best of many flatters"
        print(f"\nbest of {len(done)} trials: {summary}.\nto report it: {command_line(command)}")


def _value(*overrides: str) -> float:
    """The headline metric on the rows that choose the epoch, of the chosen epoch."""
    experiment = compose(*overrides)
    fit = experiment.finetune().read("fit.json")
    return fit["epochs"][fit["best_epoch"]][experiment.task.metrics[0]]


def _overrides(params: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in params.items()]


def parse(overrides: list[str]) -> tuple[tuple[str, ...], dict[str, BaseDistribution]]:
    """What is fixed, and the space, in Hydra's syntax for sweeps.

    `a,b`: one of these; `range(2,9)`: a whole number, 9 excluded; `interval(0,0.3)`: any number between, with
    `tag(log,interval(1e-5,1e-3))` on a logarithmic scale; `tag(int,interval(1,64))`: a whole number, 64 included.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(in_words(error)) from error
    swept = [one for one in parsed if one.is_sweep_override()]
    if not swept:
        raise UserError("nothing to search; give a key several values: KEY=a,b or 'KEY=tag(log,interval(1e-5,1e-3))'")
    for one in swept:
        if one.key_or_group.split(".")[0] in UNTUNABLE:
            raise UserError(f"{one.input_line} cannot be searched: trials would be measured on different rows")
    fixed = tuple(str(one.input_line) for one in parsed if not one.is_sweep_override())
    return fixed, {one.get_key_element(): _distribution(one) for one in swept}


def _distribution(one: Override) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    swept: Any = one.value()
    try:
        if isinstance(swept, IntervalSweep):
            kind: Any = IntDistribution if "int" in swept.tags else FloatDistribution
            return kind(swept.start, swept.end, log="log" in swept.tags)
        if isinstance(swept, RangeSweep) and all(isinstance(n, int) for n in (swept.start, swept.stop, swept.step)):
            numbers = list(swept.range())
            return IntDistribution(min(numbers), max(numbers), step=abs(int(swept.step)))
        return CategoricalDistribution(list(one.sweep_string_iterator()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{one.input_line} is no range to search: {error}") from None


def main(argv: list[str]) -> None:
    """`fastmtl tune`."""
    parser = Arguments(
        "tune",
        "fastmtl tune rates 'finetune.fit.learning_rate=tag(log,interval(1e-5,1e-3))' budget=200,400",
        "The same command goes on where it was, or to more trials.",
    )
    parser.add_argument("name", help="of the search; it is kept in <paths.output>/tuning/NAME")
    parser.add_argument("overrides", nargs="+", help="KEY=VALUE as for fastmtl; those with several values are searched")
    parser.add_argument("--trials", type=count, default=20, help="in all, not on top (default: %(default)s)")
    parser.add_argument("--seeds", type=count, default=1, help="of a trial; their mean counts (default: %(default)s)")
    given = parser.parse_intermixed_args(argv)
    check_folder_name(given.name)
    Search(given.name, *parse(given.overrides), given.trials, given.seeds).run()
