"""Bandits: the rules by hand, that the best arm is found and followed, and that a restored bandit continues alike."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from fastmtl.bandit import Bandit, BetaBernoulli, Exp3, Reward, Ucb1, priors

ARMS = 5
BANDITS: dict[str, Callable[[], Bandit]] = {
    "beta_bernoulli": lambda: BetaBernoulli(*priors(ARMS), decay=0.05),
    "exp3": lambda: Exp3(ARMS),
    "ucb1": lambda: Ucb1(ARMS),
    "ucb1_mean": lambda: Ucb1(ARMS, smoothing=None),
}
"""A new bandit is one more entry here."""
REWARDS = ["graded", "not_worse_than_previous"]

each_bandit = pytest.mark.parametrize("make", BANDITS.values(), ids=list(BANDITS))


def play(bandit: Bandit, rates: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Arms played (rounds,), each reward being 1 with its arm's rate, else 0."""
    arms = []
    for _ in range(rounds):
        arm = bandit.choose(rng)
        bandit.update(arm, float(rng.random() < rates[arm]))
        arms.append(arm)
    return np.array(arms)


def play_cosines(bandit: Bandit, means: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Arms played (rounds,), each reward being within 0.4 of its arm's mean."""
    arms = []
    for _ in range(rounds):
        arm = bandit.choose(rng)
        bandit.update(arm, means[arm] + rng.uniform(-0.4, 0.4))
        arms.append(arm)
    return np.array(arms)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(state, allow_nan=False))


# the contract of all


@each_bandit
def test_a_bandit_is_a_function_of_its_generator(make: Callable[[], Bandit]) -> None:
    rates = np.linspace(0.2, 0.8, ARMS)
    one, same, other = (play(make(), rates, 60, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


@each_bandit
def test_choosing_changes_nothing_but_the_generator(make: Callable[[], Bandit]) -> None:
    bandit = make()
    play(bandit, np.linspace(0.2, 0.8, ARMS), 20, np.random.default_rng(0))
    before = bandit.state()
    chosen = {bandit.choose(np.random.default_rng(seed)) for seed in range(20)}
    assert bandit.state() == before
    assert chosen <= set(range(ARMS))
    assert all(type(arm) is int for arm in chosen)


@each_bandit
@pytest.mark.parametrize("rounds", [0, 3, 40])
def test_a_restored_bandit_continues_alike(make: Callable[[], Bandit], rounds: int) -> None:
    rates = np.linspace(0.2, 0.8, ARMS)
    bandit, restored = make(), make()
    play(bandit, rates, rounds, np.random.default_rng(0))
    state = through_json(bandit.state())
    restored.restore(state)
    for one in (bandit, restored):  # a state is a snapshot, so it may be restored again after either has moved on
        arms = play(one, rates, 40, np.random.default_rng(1))
        again = make()
        again.restore(state)
        assert (play(again, rates, 40, np.random.default_rng(1)) == arms).all()
    np.testing.assert_array_equal(bandit.utilities(), restored.utilities())


@each_bandit
def test_the_state_of_another_number_of_arms_is_refused(make: Callable[[], Bandit]) -> None:
    bandit = make()
    state = {key: value[:-1] if isinstance(value, list) else value for key, value in bandit.state().items()}
    with pytest.raises(AssertionError, match="other arms"):
        bandit.restore(state)


@each_bandit
@pytest.mark.parametrize("reward", [1.1, -1.1, math.nan])
def test_a_reward_out_of_range_is_refused_and_changes_nothing(make: Callable[[], Bandit], reward: float) -> None:
    bandit = make()
    before = bandit.state()
    with pytest.raises(AssertionError, match="reward"):
        bandit.update(0, reward)
    assert bandit.state() == before


@each_bandit
def test_a_single_arm_is_always_played(make: Callable[[], Bandit]) -> None:
    alone: dict[type, Bandit] = {BetaBernoulli: BetaBernoulli([1], [1], 0.1), Exp3: Exp3(1), Ucb1: Ucb1(1)}
    bandit = alone[type(make())]
    assert (play(bandit, np.array([0.5]), 20, np.random.default_rng(0)) == 0).all()
    assert np.isfinite(bandit.utilities()).all()


# BetaBernoulli


def test_all_beliefs_decay_before_the_played_arm_gains() -> None:
    bandit = BetaBernoulli([1, 2], [1, 1], decay=0.5)
    np.testing.assert_allclose(bandit.utilities(), [1 / 2, 2 / 3])
    bandit.update(0, 1.0)
    np.testing.assert_allclose(bandit.alpha, [2, 2])
    np.testing.assert_allclose(bandit.beta, [1, 1])
    bandit.update(1, 0.25)  # a fraction is that share of a success
    np.testing.assert_allclose(bandit.alpha, [1.5, 2.25])
    np.testing.assert_allclose(bandit.beta, [1, 1.75])
    np.testing.assert_allclose(bandit.utilities(), [0.6, 0.5625])


def test_without_decay_beliefs_are_counts() -> None:
    bandit = BetaBernoulli(*priors(ARMS, prior=(1, 1), primary_prior=(3, 2)), decay=0)
    successes, failures = np.zeros(ARMS), np.zeros(ARMS)
    rng = np.random.default_rng(0)
    for _ in range(200):
        arm, reward = bandit.choose(rng), float(rng.integers(2))
        bandit.update(arm, reward)
        successes[arm] += reward
        failures[arm] += 1 - reward
    np.testing.assert_array_equal(bandit.alpha - [3, 1, 1, 1, 1], successes)
    np.testing.assert_array_equal(bandit.beta - [2, 1, 1, 1, 1], failures)


@pytest.mark.parametrize("decay", [0.3, 0.05])
def test_decay_caps_what_an_arm_and_what_all_arms_hold(decay: float) -> None:
    cap = 2 + 1 / decay  # of Beta(1, 1): 5.33 at 0.3, the release's default
    constant = BetaBernoulli([1, 1], [1, 1], decay)
    totals = []
    for _ in range(400):
        constant.update(0, 1.0)
        totals.append(constant.alpha[0] + constant.beta[0])
    assert (np.diff(totals) > -1e-9).all()
    assert max(totals) <= cap + 1e-9
    assert totals[-1] == pytest.approx(cap)

    spread = BetaBernoulli(*priors(8, primary_prior=(1, 1)), decay)
    play(spread, np.full(8, 0.5), 300, np.random.default_rng(0))
    held = spread.alpha + spread.beta - 2
    assert held.sum() == pytest.approx(1 / decay, rel=1e-3)
    assert held.max() < 1 / decay


def test_thompson_sampling_finds_the_best_of_eight_arms() -> None:
    """Measured: 50 of 50 by utility and by plays; an arm at random would be the best one 6 times."""
    by_utility = by_plays = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        rates = rng.permutation([0.8, 0.5, 0.5, 0.45, 0.4, 0.4, 0.3, 0.2])
        bandit = BetaBernoulli(*priors(8), decay=0)
        arms = play(bandit, rates, 200, rng)
        by_utility += int(bandit.utilities().argmax() == rates.argmax())
        by_plays += int(np.bincount(arms[100:], minlength=8).argmax() == rates.argmax())
    assert by_utility >= 47
    assert by_plays >= 47


def test_only_a_decaying_belief_follows_a_change_soon() -> None:
    """The best and the worst of four arms swap after 200 rounds; plays of the new best one in the next 100.

    Measured: a share of 0.66 with decay, of 0.13 without.
    """
    before, after = np.array([0.9, 0.5, 0.4, 0.1]), np.array([0.1, 0.5, 0.4, 0.9])
    share = {}
    for decay in (0.05, 0.0):
        plays = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            bandit = BetaBernoulli(*priors(4), decay)
            assert np.bincount(play(bandit, before, 200, rng)).argmax() == 0
            plays.append(play(bandit, after, 100, rng) == 3)
        share[decay] = np.mean(plays)
    assert share[0.05] > 0.5
    assert share[0.0] < 0.25


def test_a_stronger_prior_is_played_more_at_the_start() -> None:
    def early(primary_prior: tuple[float, float]) -> float:
        shares = []
        for seed in range(50):
            bandit = BetaBernoulli(*priors(8, primary_prior=primary_prior), decay=0.01)
            shares.append((play(bandit, np.full(8, 0.5), 20, np.random.default_rng(seed)) == 0).mean())
        return float(np.mean(shares))

    shares = [early(prior) for prior in [(1, 1), (2, 1), (10, 2)]]
    np.testing.assert_allclose(shares, [0.12, 0.16, 0.29], atol=0.02)


def test_priors_put_the_primary_first() -> None:
    alpha0, beta0 = priors(3, prior=(1, 2), primary_prior=(5, 4))
    np.testing.assert_array_equal(alpha0, [5, 1, 1])
    np.testing.assert_array_equal(beta0, [4, 2, 2])


# Exp3


def test_exp3_by_hand() -> None:
    """Two arms: e_t = 1/2, .416277, .339889, .294352; the softmax takes the e of the round before."""
    bandit = Exp3(2)
    first_arms_share = [bandit.utilities()[0]]
    for arm, reward in [(0, 1.0), (1, -0.5), (0, 0.3)]:  # R = (2, 0), (2, -1.083869), (2.507915, -1.083869)
        bandit.update(arm, reward)
        first_arms_share.append(bandit.utilities()[0])
    np.testing.assert_allclose(first_arms_share, [0.5, 0.538690, 0.590651, 0.611957], atol=1e-6)
    assert [bandit.exploration(t) for t in (0, 1, 2, 3, 4)] == pytest.approx(
        [0.5, 0.5, 0.416277, 0.339889, 0.294352], abs=1e-6
    )


def test_exp3_explores_uniformly_for_k_ln_k_rounds() -> None:
    bandit = Exp3(8)  # K ln K = 16.6: rounds 1 to 16
    for _ in range(16):
        np.testing.assert_allclose(bandit.utilities(), 1 / 8)
        bandit.update(0, 1.0)
    assert bandit.utilities()[0] > 1 / 8


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_exp3_keeps_a_policy_whatever_the_rewards(sign: float) -> None:
    bandit = Exp3(ARMS)
    rng = np.random.default_rng(0)
    for t in range(1, 500):
        policy = bandit.utilities()
        assert policy.sum() == pytest.approx(1)
        assert policy.min() >= bandit.exploration(t) - 1e-12
        arm = bandit.choose(rng)
        bandit.update(arm, sign if arm == 0 else -sign)
    bandit.restore({"rewards": [1e6, 0, -1e6, 5, 1e6], "updates": 50})  # exponents far past what exp can hold
    assert np.isfinite(bandit.utilities()).all()
    assert bandit.utilities().sum() == pytest.approx(1)


# Ucb1


def test_ucb1_plays_every_arm_first_in_an_order_of_the_generator() -> None:
    orders = set()
    for seed in range(30):
        bandit = Ucb1(ARMS)
        assert np.isnan(bandit.utilities()).all()
        arms = play(bandit, np.full(ARMS, 0.5), ARMS, np.random.default_rng(seed))
        assert sorted(arms) == list(range(ARMS))
        orders.add(tuple(arms))
    assert len(orders) > 20


def test_ucb1_breaks_ties_by_the_generator() -> None:
    bandit = Ucb1(ARMS)
    for arm in range(ARMS):
        bandit.update(arm, 0.5)
    assert {bandit.choose(np.random.default_rng(seed)) for seed in range(60)} == set(range(ARMS))


@pytest.mark.parametrize(("smoothing", "averages"), [(0.1, [0.4, 0.37]), (None, [0.0, 1 / 30]), (1.0, [-0.5, 0.1])])
def test_ucb1_by_hand(smoothing: float | None, averages: list[float]) -> None:
    bandit, rng = Ucb1(2, smoothing), np.random.default_rng(0)
    bandit.update(0, 0.5)
    bandit.update(1, 0.1)
    assert bandit.choose(rng) == 0  # equal widths
    bandit.update(0, -0.5)
    np.testing.assert_allclose(bandit.utilities(), [averages[0], 0.1])
    assert bandit.choose(rng) == 1  # smoothed: 0.4 + sqrt(2 ln 3 / 2) = 1.448 against 0.1 + sqrt(2 ln 3) = 1.582
    bandit.update(0, 0.1)
    np.testing.assert_allclose(bandit.utilities(), [averages[1], 0.1])


@pytest.mark.parametrize(("reward", "chosen"), [(0.70, 1), (0.71, 0)])
def test_ucb1_width(reward: float, chosen: int) -> None:
    """Three plays against one: the widths sqrt(2 ln 4 / n) are 0.9613 and 1.6651, 0.7038 apart."""
    bandit = Ucb1(2)
    for arm, value in [(0, reward), (0, reward), (0, reward), (1, 0.0)]:
        bandit.update(arm, value)
    assert bandit.choose(np.random.default_rng(0)) == chosen


# both, on cosines


@pytest.mark.parametrize(
    ("make", "rounds"),
    [(lambda: Exp3(ARMS), 400), (lambda: Ucb1(ARMS), 400), (lambda: Ucb1(ARMS, smoothing=None), 400)],
    ids=["exp3", "ucb1", "ucb1_mean"],
)
def test_the_best_of_five_noisy_cosines_is_found(make: Callable[[], Bandit], rounds: int) -> None:
    by_utility = by_plays = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        means = rng.permutation([0.55, 0.1, 0.0, -0.1, -0.5])
        bandit = make()
        arms = play_cosines(bandit, means, rounds, rng)
        by_utility += int(bandit.utilities().argmax() == means.argmax())
        by_plays += int(np.bincount(arms).argmax() == means.argmax())
    assert by_utility == by_plays == 10


def test_a_float32_cosine_may_round_past_one() -> None:
    for bandit in (Exp3(2), Ucb1(2)):
        bandit.update(0, float(np.nextafter(np.float32(1), np.float32(2))))


# rewards of AutoSeM's stage 1


def rewards_of(reward: Reward, values: list[float]) -> Iterator[float | None]:
    return (reward(value) for value in values)


def test_a_value_is_compared_with_the_one_before() -> None:
    given = rewards_of(Reward("not_worse_than_previous"), [0.5, 0.5, 0.4, 0.7, 0.5, 0.6])
    assert list(given) == [None, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("name", REWARDS)
def test_an_undefined_value_is_no_improvement_and_is_forgotten(name: str) -> None:
    reward = Reward(name)
    up, down = (norm.cdf(1), norm.cdf(-1)) if name == "graded" else (1, 0)
    given = list(rewards_of(reward, [math.nan, 0.5, math.nan, math.nan, 0.6]))
    assert given == [None, None, 0, 0, pytest.approx(up)]
    given = list(rewards_of(Reward(name), [0.5, -math.inf, math.inf, 0.4]))
    assert given == [None, 0, 0, pytest.approx(down)]


def test_a_graded_reward_is_the_rank_of_a_change_among_normal_ones_whatever_the_unit() -> None:
    values = np.array([1.0, 1.0, 4.0, 0.0, 0.0])  # changes 0, 3, -4, 0; root mean squares 0, 2.12, 2.89, 2.5
    expected = [None, 0.5, *norm.cdf([3 / math.sqrt(4.5), -4 / math.sqrt(25 / 3), 0])]
    for unit in (1.0, 1e-6, 1e6):
        given = list(rewards_of(Reward("graded"), (unit * values).tolist()))
        assert given[0] is None
        assert given[1:] == pytest.approx(expected[1:])


@pytest.mark.parametrize("name", REWARDS)
def test_a_restored_reward_continues_alike(name: str) -> None:
    values = np.random.default_rng(0).normal(size=40).tolist()
    for seen in (0, 1, 20):
        reward, restored = Reward(name), Reward(name)
        list(rewards_of(reward, values[:seen]))
        restored.restore(through_json(reward.state()))
        assert list(rewards_of(restored, values[seen:])) == list(rewards_of(reward, values[seen:]))
