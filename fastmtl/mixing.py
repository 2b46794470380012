"""The search for a mixing ratio: AutoSeM's stage 2. It asks for values of ratios and knows nothing of training."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastmtl.data.batching.planned import Ratio
from fastmtl.errors import UserError
from fastmtl.options import Count, options

Mixture = tuple[int, ...]
"""Batches of each task in a cycle, the primary's first; 0 drops a task."""

RANDOM_STARTS = 6


@dataclass(frozen=True)
class Trial:
    """A ratio in lowest terms, its value (higher is better), and the seconds it took to propose it."""

    ratio: Mixture
    value: float
    ask_s: float


@options
class MixingSearch:
    """Tries `trials` different ratios; the best by value wins, the earlier of two equal ones.

    All have as many `passes` over the primary's rows, or as AutoSeM as many `steps`: then a ratio also sets how long
    the primary is trained, 26 to 132 passes in one search of ours.

    `gp`: Optuna's Gaussian process after `random_starts` (6) random ratios (AutoSeM, Guo et al. 2019, section 3.3,
    which used GP-Hedge). `grid`: coarse ratios first, in a fixed order. Both begin with 1:1:...:1. Entries are whole
    numbers up to `largest`, the primary's at least 1; 2:2 is tried as 1:1.
    """

    proposals: Literal["gp", "grid"] = "gp"
    trials: Count = 20
    random_starts: Count | None = None
    largest: Count = 20
    hold: Literal["passes", "steps"] = "passes"

    def __post_init__(self) -> None:
        if self.proposals == "gp" and self.random_starts is None:
            object.__setattr__(self, "random_starts", RANDOM_STARTS)  # one key, however it is said
        if self.proposals == "grid" and self.random_starts is not None:
            raise UserError(f"mixing.random_starts={self.random_starts} does not apply to a grid; use null")

    def order(self, ratio: Mixture) -> Ratio:
        """The batches of a trial."""
        return Ratio(ratio, hold=self.hold)

    def run(self, num_tasks: int, evaluate: Callable[[Mixture], float], seed: int) -> list[Trial]:
        """The trials in the order in which they were made; fewer where there are no more ratios to try.

        What is proposed is a function of seed and values alone: repeated after an interruption, with `evaluate` finding
        what it computed before, a search goes on where it was.
        """
        propose = self._gp(num_tasks, seed) if self.proposals == "gp" else self._grid(num_tasks)
        done: list[Trial] = []
        while len(done) < self.trials:
            started = time.perf_counter()
            try:
                ratio = propose.send(done[-1].value) if done else next(propose)
            except StopIteration:
                break
            ask_s = time.perf_counter() - started
            done.append(Trial(ratio, evaluate(ratio), ask_s))
        return done

    def _gp(self, num_tasks: int, seed: int) -> Generator[Mixture, float, None]:
        import optuna
        from optuna.distributions import BaseDistribution, FloatDistribution

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Optuna counts every trial that has ended, and so the 1:1:...:1 that is no random start.
            sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=(self.random_starts or 0) + 1)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.enqueue_trial({f"task_{i}": 1.0 for i in range(num_tasks)})
        # Rounded here: the process takes three times as long over whole numbers.
        lowest = [1, *[0] * (num_tasks - 1)]
        space: dict[str, BaseDistribution] = {
            f"task_{i}": FloatDistribution(low - 0.49, self.largest + 0.49) for i, low in enumerate(lowest)
        }
        rng = np.random.default_rng([seed, num_tasks])
        tried: set[Mixture] = set()
        while True:
            trial = study.ask(space)
            ratio = lowest_terms(tuple(round(trial.params[name]) for name in space))
            if known := ratio in tried:  # tried in other terms, or where the process sees nothing to gain
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                if (drawn := self._untried(num_tasks, tried, rng)) is None:
                    return
                ratio = drawn
            tried.add(ratio)
            value = yield ratio
            # A metric that is not defined is no improvement over anything, but must not end the search.
            value = value if math.isfinite(value) else -1.0
            if known:
                at = dict(zip(space, map(float, ratio)))
                study.add_trial(optuna.trial.create_trial(params=at, distributions=space, value=value))
            else:
                study.tell(trial, value)

    def _untried(self, num_tasks: int, tried: set[Mixture], rng: np.random.Generator) -> Mixture | None:
        """A random ratio that was not tried; None where hardly any is left."""
        for _ in range(1000):
            drawn = rng.integers([1, *[0] * (num_tasks - 1)], self.largest + 1)
            if (ratio := lowest_terms(tuple(drawn.tolist()))) not in tried:
                return ratio
        return None

    def _grid(self, num_tasks: int) -> Generator[Mixture, float, None]:
        seen = set()
        for top in range(1, self.largest + 1):
            for ratio in itertools.product(range(top, -1, -1), repeat=num_tasks):
                if ratio[0] and max(ratio) == top and (lowest := lowest_terms(ratio)) not in seen:
                    seen.add(lowest)
                    yield lowest


def lowest_terms(ratio: Mixture) -> Mixture:
    """The same ratio with the smallest whole numbers."""
    divisor = math.gcd(*ratio)
    return tuple(one // divisor for one in ratio)


def best(trials: list[Trial]) -> Trial:
    """The one of highest value, NaN being the lowest; the first of equals."""
    return max(trials, key=lambda trial: trial.value if math.isfinite(trial.value) else -math.inf)
