"""Orders of batches that are learned on the way: a bandit chooses each round's task from the rewards before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeGuard

import numpy as np

from fastmtl.bandit import BetaBernoulli, Exp3, Learner, Reward, Ucb1, priors
from fastmtl.data.batching.planned import Step, num_batches, one_pass
from fastmtl.errors import UserError
from fastmtl.options import Count, Natural, Portion, Positive, Rate, options


@options
class ThompsonSampling:
    """AutoSeM's stage 1 as an order of batches: a Beta-Bernoulli bandit with Thompson sampling (Guo et al. 2019, 3.2).

    Args:
        batches_per_round: Of one task.
        validation_rows: Held-out rows of the primary that reward a round.
        metric: What is measured on them: the `headline` takes few values on few rows, the `loss` grows with
            overconfidence and then rewards whatever undoes it, the mean `probability` of the right class does neither
            (of a regression the headline is taken, which is as smooth).
        reward: `graded` by how far it rose since the round before, or 1 if it did not fall (the paper).
        prior: Alpha and beta of an auxiliary task.
        primary_prior: Those of the primary.
        decay: Draws every arm back to its prior after each round.
        rounds: Length of an epoch; None is as long as `Proportional`'s.
        warmup_rounds: Rounds before those that draw each batch's task with equal chances and reward nobody: before the
            primary is learned at all, values are noise.
        episode: Passes over as many rows as there are, rounded to whole rounds, after which the model goes back to what
            it was after the warm-up: once all that the tasks share is learned, no task is worth more than another. None
            never goes back (the paper); neither may a model that is kept.
    """

    batches_per_round: Count = 10
    validation_rows: Count = 256
    metric: Literal["headline", "loss", "probability"] = "probability"
    reward: Literal["graded", "not_worse_than_previous"] = "graded"
    prior: tuple[Positive, Positive] = (1.0, 1.0)
    primary_prior: tuple[Positive, Positive] = (2.0, 1.0)
    decay: Rate = 0.01
    rounds: Count | None = None
    warmup_rounds: Natural = 0
    length_bucket_batches: Count = 50
    episode: Positive | None = None
    feedback: ClassVar[Literal["validation"]] = "validation"

    def value(self, measured: Mapping[str, float], headline: str) -> float:
        if self.metric == "loss":
            return -measured["loss"]
        return measured.get("probability", measured[headline]) if self.metric == "probability" else measured[headline]

    def bandit(self, arms: int) -> BetaBernoulli:
        return BetaBernoulli(*priors(arms, self.prior, self.primary_prior), self.decay)


@options
class Exp3Sampling:
    """EXP3 over the auxiliary tasks, rewarded by gradient alignment (Albalak et al. 2023, EXP3-FLAD)."""

    length_bucket_batches: Count = 50
    batches_per_round: ClassVar[int] = 1
    feedback: ClassVar[Literal["alignment"]] = "alignment"

    def bandit(self, arms: int) -> Exp3:
        return Exp3(arms)


@options
class Ucb1Sampling:
    """UCB1 over the auxiliary tasks, rewarded by gradient alignment (Albalak et al. 2023, UCB1-FLAD).

    `smoothing` is the weight of a new reward in an arm's moving average; None takes the plain mean.
    """

    smoothing: Portion | None = 0.1
    length_bucket_batches: Count = 50
    batches_per_round: ClassVar[int] = 1
    feedback: ClassVar[Literal["alignment"]] = "alignment"

    def bandit(self, arms: int) -> Ucb1:
        return Ucb1(arms, self.smoothing)


OnlineSampling = ThompsonSampling | Exp3Sampling | Ucb1Sampling
"""Which bandit, and what rewards it.

`validation`: a round is `batches_per_round` batches of one task, the primary among them, rewarded by what it did to the
primary's validation value. `alignment`: every step has half a batch of the primary and half a batch of an auxiliary
task, rewarded by the cosine of their gradients in the last shared layer.
"""


def is_rewarded_by_validation(sampling: object) -> TypeGuard[ThompsonSampling]:
    """Whether the order learns from the primary's validation value, and so needs rows to measure it on."""
    return isinstance(sampling, ThompsonSampling)


class Online(Sequence[Step]):
    """The steps of one epoch after another, asked for in order; `tell` must come before the next round is asked for.

    Rows come in passes, each shuffled anew, from a generator made of seed and epoch: at the end of an epoch `state()`
    is all that the next one needs. `history` has one entry a finished round after the warm-up: arm (place of the
    task), value, reward (None where there was nothing to compare with), under Thompson sampling every arm's alpha and
    beta, and `back` if it ended an episode.

    Where there are episodes, of `episode` rounds each, the model has to be kept after the round that `starts`, and to
    be as it was then after each that `ends` one.
    """

    def __init__(self, sampling: OnlineSampling, lengths: list[np.ndarray], batch_size: int, seed: int) -> None:
        self.sampling, self.lengths, self.batch_size, self.seed = sampling, lengths, batch_size, seed
        self.joint = sampling.feedback == "alignment"
        if self.joint and len(lengths) < 2:
            raise UserError("sampling by gradient alignment needs an auxiliary task; use sampling=proportional")
        self.arms = list(range(int(self.joint), len(lengths)))
        self.bandit = sampling.bandit(len(self.arms))
        self.history: list[dict[str, Any]] = []
        self.reference: float | None = None  # the primary's value at the start of an episode
        self.compare, self.episode, self._warmup, self._played = None, None, 0, 0
        # Whole rounds: as many as `Proportional` has batches, rounded up, unless the sampling says how many.
        rounds = -(-num_batches([len(one) for one in lengths], batch_size) // sampling.batches_per_round)
        if isinstance(sampling, ThompsonSampling):
            self.compare, self._warmup = Reward(sampling.reward), sampling.warmup_rounds
            rounds = rounds if sampling.rounds is None else self._warmup + sampling.rounds
            if sampling.episode is not None:
                rows = sampling.episode * sum(len(one) for one in lengths)
                self.episode = max(1, round(rows / (batch_size * sampling.batches_per_round)))
        self._learners: list[Learner] = [self.bandit, *([self.compare] if self.compare else [])]
        self._steps = sampling.batches_per_round * rounds
        self.start(0)

    def __len__(self) -> int:
        return self._steps

    def start(self, epoch: int) -> None:
        self._rng = np.random.default_rng([self.seed, epoch])
        self._waiting: dict[int, list[np.ndarray]] = {}
        self._at, self._step = -1, list[tuple[int, np.ndarray]]()
        self._arm: int | None = None

    def __getitem__(self, i: int) -> Step:  # type: ignore[override]  # no slices
        """Step i, which must be the last one asked for or the one after it."""
        if i != self._at:
            assert i == self._at + 1, "an online order has no other steps than the next"
            if i % self.sampling.batches_per_round == 0:
                self._arm = self.bandit.choose(self._rng) if self._played >= self._warmup else None
            self._at, self._step = i, self._next()
        return self._step

    def _next(self) -> Step:
        task = int(self._rng.integers(len(self.lengths))) if self._arm is None else self.arms[self._arm]
        if not self.joint:
            return [(task, self._rows(task, self.batch_size))]
        half = self.batch_size // 2
        return [(0, self._rows(0, self.batch_size - half)), (task, self._rows(task, half))]

    def _rows(self, task: int, count: int) -> np.ndarray:
        if not self._waiting.get(task):
            batches = one_pass(self.lengths[task], count, self.sampling.length_bucket_batches, self._rng)
            self._waiting[task] = [batches[i] for i in self._rng.permutation(len(batches))]
        return self._waiting[task].pop()

    def tell(self, value: float) -> None:
        """The value of the round just played: of the primary's metric, higher is better, or a cosine."""
        self._played += 1
        reward = value if self.compare is None else self.compare(value)
        if self.compare is not None:
            if self._since_start == 0:
                self.reference = self.compare.reference
            elif self.ends:
                self.compare.reference = self.reference
        if self._arm is None:
            return
        if reward is not None:
            self.bandit.update(self._arm, reward)
        entry = {"arm": self.arms[self._arm], "value": value, "reward": reward}
        beliefs = self.bandit.state() if isinstance(self.bandit, BetaBernoulli) else {}
        self.history.append(entry | beliefs | ({"back": True} if self.ends else {}))

    @property
    def _since_start(self) -> int:
        """Rounds after the one that every episode goes on from: the last of the warm-up, else the first of all."""
        return self._played - max(1, self._warmup)

    @property
    def starts(self) -> bool:
        """Whether episodes go on from the last round."""
        return self.episode is not None and self._since_start == 0

    @property
    def ends(self) -> bool:
        """Whether the last round was the last of an episode."""
        return self.episode is not None and self._since_start > 0 and self._since_start % self.episode == 0

    def state(self) -> dict[str, Any]:
        """Plain values from which `restore` goes on at the step that was asked for last."""
        return {
            "learned": [one.state() for one in self._learners],
            "place": [self._played, self.reference, list(self.history), self._at, self._arm],
            "rng": self._rng.bit_generator.state,
            "step": [(task, rows.tolist()) for task, rows in self._step],
            "waiting": [[task, [rows.tolist() for rows in batches]] for task, batches in self._waiting.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        for one, learned in zip(self._learners, state["learned"]):
            one.restore(learned)
        self._played, self.reference, self.history, self._at, self._arm = state["place"]
        self._rng.bit_generator.state = state["rng"]
        self._step = [(task, np.array(rows, dtype=np.int64)) for task, rows in state["step"]]
        self._waiting = {task: [np.array(rows, dtype=np.int64) for rows in some] for task, some in state["waiting"]}
