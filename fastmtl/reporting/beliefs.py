"""What AutoSeM's bandit came to believe of each task, read from the history that its fit left in `bandit.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Bandit = dict[str, Any]
"""`arms`: task names, the primary first; `rounds`: arm, value, reward (None: nothing to compare with), alpha, beta."""


@dataclass(frozen=True)
class Belief:
    """The last round's Beta(alpha, beta) over a task's utility, its rate of success (Guo et al. 2019, section 3.2).

    `played` counts its rounds, `compared` those of them that had a reward, `rewarded` is the sum of these.
    """

    task: str
    alpha: float
    beta: float
    played: int
    compared: int
    rewarded: float

    @property
    def utility(self) -> float:
        """The mean, by which tasks are chosen."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def mode(self) -> float:
        """Where the density is highest; the mean where it is flat or highest at both ends."""
        above, below = max(self.alpha - 1, 0.0), max(self.beta - 1, 0.0)
        return above / (above + below) if above + below else self.utility

    @property
    def peak(self) -> float:
        """Height of the density at its mode; where that is infinite, at an end, a little inside."""
        return float(self.density(np.clip(self.mode, 0.005, 0.995)))

    def interval(self) -> tuple[float, float]:
        """The interval that holds 95 % of the belief and leaves as much below as above it."""
        from scipy.stats import beta

        low, high = beta.interval(0.95, self.alpha, self.beta)
        return float(low), float(high)

    @property
    def above_half(self) -> float:
        """The probability that the utility is above 0.5, that of a task without any effect under `graded` rewards."""
        from scipy.stats import beta

        return float(beta.sf(0.5, self.alpha, self.beta))

    def density(self, x: np.ndarray) -> np.ndarray:
        """Of utilities x in [0, 1], in their shape; infinite at an end where alpha or beta is below 1."""
        from scipy.stats import beta

        return beta.pdf(x, self.alpha, self.beta)


def beliefs(bandit: Bandit) -> list[Belief]:
    """One a task, in the order of the arms."""
    last, found = bandit["rounds"][-1], []
    for task, alpha, beta in zip(bandit["arms"], last["alpha"], last["beta"]):
        rewards = [one["reward"] for one in bandit["rounds"] if one["arm"] == task]
        known = [reward for reward in rewards if reward is not None]
        found.append(Belief(task, alpha, beta, len(rewards), len(known), sum(known)))
    return found
