"""Bandits on arrays: which of K arms, 0 to K - 1, to play next, given the rewards so far; and AutoSeM's rewards.

All state goes through `state` and `restore` as plain values that survive JSON unchanged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

COSINE_LIMIT = 1 + 1e-6
"""Largest reward, in absolute value, of `Exp3` and `Ucb1`: a float32 cosine of parallel vectors may round past 1."""


class Learner:
    """What learns the attributes that `learned` names."""

    learned: ClassVar[tuple[str, ...]]

    def state(self) -> dict[str, Any]:
        """The learned attributes as plain values."""
        return {name: np.array(getattr(self, name)).tolist() for name in self.learned}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue as the instance of the same arguments whose `state` this is."""
        for name in self.learned:
            before, value = getattr(self, name), state[name]
            value = np.array(value, dtype=before.dtype) if isinstance(before, np.ndarray) else value
            assert np.shape(value) == np.shape(before), "the state of a bandit with other arms"
            setattr(self, name, value)


class Bandit(Learner, ABC):
    """Chooses an arm per round; `choose` changes nothing but `rng`, so a round without a reward needs no update."""

    @abstractmethod
    def choose(self, rng: np.random.Generator) -> int:
        """The arm to play now; ties are broken by `rng`, never by the order of the arms."""

    @abstractmethod
    def update(self, arm: int, reward: float) -> None:
        """Learn the reward of playing `arm` as it was chosen by the present state."""

    @abstractmethod
    def utilities(self) -> np.ndarray:
        """Estimated value of each arm (K,) float64, higher is better; its unit is the bandit's own."""


class BetaBernoulli(Bandit):
    """Non-stationary Beta-Bernoulli bandit, played by Thompson sampling (AutoSeM, Guo et al. 2019, section 3.2).

    Each arm's utility, its rate of success, has a Beta(alpha, beta) belief that decays towards its prior. Each round
    fades what is known of every arm, so all arms together hold 1/decay rewards at most. The paper does not give its
    decay; its code's default, 0.3, holds three rewards. A reward in [0, 1] is that share of a success.

    Args:
        alpha0: (K,) above 0, see `priors`; beta0 as well.
        beta0: (K,).
        decay: 0 counts for ever.
    """

    learned = ("alpha", "beta")

    def __init__(self, alpha0: Sequence[float] | np.ndarray, beta0: Sequence[float] | np.ndarray, decay: float):
        assert 0 <= decay < 1, f"decay {decay}"
        self.decay = decay
        self._prior = np.array([alpha0, beta0], dtype=np.float64)
        assert np.all(self._prior > 0), "an arm's counts are above 0"
        self.alpha, self.beta = self._prior.copy()  # decayed successes and failures (K,), the prior's included

    def choose(self, rng: np.random.Generator) -> int:
        return _argmax(rng.beta(self.alpha, self.beta), rng)

    def update(self, arm: int, reward: float) -> None:
        """See `Bandit`; every arm decays first, then the played one gains (reward, 1 - reward)."""
        assert 0 <= reward <= 1, f"reward {reward}"
        self.alpha, self.beta = (1 - self.decay) * np.stack([self.alpha, self.beta]) + self.decay * self._prior
        self.alpha[arm] += reward
        self.beta[arm] += 1 - reward

    def utilities(self) -> np.ndarray:
        """See `Bandit`: the beliefs' means, rates of success in (0, 1); an arm not played keeps its prior's."""
        return self.alpha / (self.alpha + self.beta)


def priors(
    arms: int, prior: Sequence[float] = (1.0, 1.0), primary_prior: Sequence[float] = (2.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """alpha0 and beta0 (arms,) of `BetaBernoulli`: the (successes, failures) that each auxiliary arm and the primary's,
    arm 0, are credited with beforehand. AutoSeM's are (1, 1) and "slightly stronger", unstated; (2, 1) is ours.
    """
    alpha0, beta0 = np.array([primary_prior, *[prior] * (arms - 1)], dtype=np.float64).T
    return alpha0.copy(), beta0.copy()


class Exp3(Bandit):
    """EXP3-FLAD (Albalak, Raffel & Wang, NeurIPS 2023, arXiv 2302.00674; after Auer et al. 2002, Seldin et al. 2013).

    Round t = 1, 2, ... plays an arm a drawn from pi_t(a) = (1 - K e_t) softmax(e_{t-1} R)_a + e_t, where the rate of
    exploration is e_t = min(1/K, sqrt(ln K / (K t))), and adds reward / pi_t(a) to R_a. Rewards are in [-1, 1]
    (cosines of gradients). The authors' release (alon-albalak/FLAD) differs in its clock: there t is 1 + 10 times the
    batches trained on; here it counts the updates.
    """

    learned = ("rewards", "updates")

    def __init__(self, arms: int):
        self.rewards = np.zeros(arms)  # R (K,): cumulative, importance-weighted
        self.updates = 0

    def exploration(self, t: int) -> float:
        """e_t, each arm's least share of round t."""
        arms = len(self.rewards)
        return min(1 / arms, math.sqrt(math.log(arms) / (arms * t))) if t else 1 / arms

    def choose(self, rng: np.random.Generator) -> int:
        return int(rng.choice(len(self.rewards), p=self.utilities()))

    def update(self, arm: int, reward: float) -> None:
        assert abs(reward) <= COSINE_LIMIT, f"reward {reward}"
        self.rewards[arm] += reward / self.utilities()[arm]
        self.updates += 1

    def utilities(self) -> np.ndarray:
        """See `Bandit`: the policy pi_t (K,), which sums to 1; R itself grows with t and is noisy after few plays."""
        t = self.updates + 1
        floor = self.exploration(t)
        exponents = self.exploration(t - 1) * self.rewards
        weights = np.exp(exponents - exponents.max())
        return (1 - len(weights) * floor) * weights / weights.sum() + floor


class Ucb1(Bandit):
    """UCB1-FLAD (Albalak, Raffel & Wang, NeurIPS 2023, arXiv 2302.00674; after Auer et al. 2002).

    Every arm is played once, in an order drawn from `rng`; then the arm with the largest R_a + sqrt(2 ln t / n_a),
    where n_a counts the arm's plays and t all plays. R_a is its first reward, then the moving average
    R_a <- (1 - smoothing) R_a + smoothing reward; `smoothing=None` is the plain mean of Auer et al.

    The default is that of the authors' release (alon-albalak/FLAD), where R_a starts from the gradient of 1000 rows per
    arm instead. As there, the width is that of rewards in [0, 1] though cosines are in [-1, 1]: arms are explored less
    than in theory.
    """

    learned = ("rewards", "plays")

    def __init__(self, arms: int, smoothing: float | None = 0.1):
        assert smoothing is None or 0 < smoothing <= 1, f"smoothing {smoothing}"
        self.smoothing = smoothing
        self.rewards = np.zeros(arms)
        self.plays = np.zeros(arms, dtype=np.int64)

    def choose(self, rng: np.random.Generator) -> int:
        played = self.plays > 0
        index = np.full(len(played), np.inf)
        width = np.sqrt(2 * np.log(max(self.plays.sum(), 1)) / self.plays[played])
        index[played] = self.rewards[played] + width
        return _argmax(index, rng)

    def update(self, arm: int, reward: float) -> None:
        assert abs(reward) <= COSINE_LIMIT, f"reward {reward}"
        self.plays[arm] += 1
        plays = int(self.plays[arm])
        share = 1 / plays if self.smoothing is None or plays == 1 else self.smoothing
        self.rewards[arm] += share * (reward - self.rewards[arm])

    def utilities(self) -> np.ndarray:
        """See `Bandit`: the average reward, without the width; NaN for an arm not played."""
        return np.where(self.plays > 0, self.rewards, np.nan)


SCALE_SMOOTHING = 0.1
"""Least share of the newest change in what the reward `graded` calls usual: about the last twenty count."""

_RULES: dict[str, Callable[[float, float], float]] = {
    "graded": lambda change, usual: 0.5 * math.erfc(-change / (usual * math.sqrt(2))) if usual else 0.5,
    "not_worse_than_previous": lambda change, _: float(change >= 0),
}
"""Name -> reward of a change, given the root mean square of the last changes."""


class Reward(Learner):
    """How much the primary's validation value, higher is better, says that a round helped: 0 to 1.

    `not_worse_than_previous`: 1 if value >= the one before (AutoSeM, section 3.2); where validation is flat, all
    utilities drift to 1. `graded`, ours: the normal distribution function of the change from the value before over the
    root mean square of the last changes; no change is 0.5.

    The first value has nothing to be compared with: its reward is None, for which no arm is updated (AutoSeM's release
    compares with 0, a free success for its first arm). A value that is not finite is no improvement, and the next one
    is compared with the same reference. Set `reference` where the model goes back to an earlier state.
    """

    learned = ("reference", "changes", "square")

    def __init__(self, name: str):
        self._rule = _RULES[name]
        self.reference: float | None = None
        self.changes = 0
        self.square = 0.0  # moving average of the squared changes

    def __call__(self, value: float) -> float | None:
        """The round's reward, given the primary's value after it."""
        if not math.isfinite(value):
            return None if self.reference is None else 0.0
        before, self.reference = self.reference, float(value)
        if before is None:
            return None
        change = self.reference - before
        self.changes += 1
        self.square += max(1 / self.changes, SCALE_SMOOTHING) * (change**2 - self.square)
        return self._rule(change, math.sqrt(self.square))


def _argmax(values: np.ndarray, rng: np.random.Generator) -> int:
    """Position of the largest value; `rng` is asked only if there are several."""
    best = np.flatnonzero(values == values.max())
    return int(best[rng.integers(len(best))] if len(best) > 1 else best[0])
