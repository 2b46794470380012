"""The search for a mixing ratio, over a function in place of training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fastmtl.errors import UserError
from fastmtl.mixing import MixingSearch, Mixture, Trial, best, lowest_terms


def share(target: tuple[float, ...]) -> Callable[[Mixture], float]:
    """A value that is highest at one mixture."""
    return lambda ratio: -float(np.sum((np.array(ratio) / sum(ratio) - np.array(target)) ** 2))


@pytest.mark.parametrize("proposals", ["gp", "grid"])
def test_trials_are_different_ratios_in_lowest_terms_that_begin_with_equal_shares(proposals: str) -> None:
    trials = MixingSearch(proposals, trials=12).run(3, share((0.5, 0.4, 0.1)), seed=0)  # type: ignore[arg-type]
    ratios = [trial.ratio for trial in trials]
    assert ratios[0] == (1, 1, 1)
    assert len(set(ratios)) == len(ratios) == 12
    for ratio in ratios:
        assert math.gcd(*ratio) == 1
        assert ratio[0] >= 1
        assert 0 <= min(ratio) <= max(ratio) <= 20


@pytest.mark.parametrize("starts", [1, 6])
def test_as_many_ratios_are_random_as_asked_for_beside_the_equal_one(
    starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.samplers import RandomSampler

    drawn: list[int] = []
    plain = RandomSampler.sample_independent
    monkeypatch.setattr(
        RandomSampler, "sample_independent", lambda *given: drawn.append(given[2].number) or plain(*given)
    )
    MixingSearch(trials=starts + 3, random_starts=starts).run(3, share((0.5, 0.4, 0.1)), seed=0)
    assert sorted(set(drawn)) == list(range(1, starts + 1))  # trial 0 is 1:1:1


@pytest.mark.slow
def test_the_process_finds_better_ratios_than_as_many_random_ones() -> None:
    """On average over four seeds; the random ratios are the same up to the fifth."""
    target = share((0.62, 0.33, 0.05))
    guided, random = (
        [best(MixingSearch(trials=14, random_starts=starts).run(3, target, seed)).value for seed in range(4)]
        for starts in (5, 14)
    )
    assert np.mean(guided) > np.mean(random)


def test_an_interrupted_search_goes_on_where_it_was() -> None:
    value = share((0.3, 0.7))
    whole = MixingSearch(trials=10).run(2, value, seed=3)
    asked: list[Mixture] = []

    class Killed(Exception):
        pass

    def until_killed(ratio: Mixture) -> float:
        if len(asked) == 8:
            raise Killed
        asked.append(ratio)
        return value(ratio)

    with pytest.raises(Killed):
        MixingSearch(trials=10).run(2, until_killed, seed=3)
    assert [trial.ratio for trial in whole][:8] == asked
    assert [trial.ratio for trial in MixingSearch(trials=14).run(2, value, seed=3)][:10] == [t.ratio for t in whole]


def test_proposing_takes_less_than_a_second_a_trial() -> None:
    trials = MixingSearch(trials=20).run(4, share((0.4, 0.3, 0.2, 0.1)), seed=0)
    assert np.median([trial.ask_s for trial in trials]) < 1  # experiments/autosem has it up to 50 trials


def test_a_value_that_is_not_defined_neither_wins_nor_stops_the_search() -> None:
    trials = MixingSearch(trials=9).run(2, lambda ratio: math.nan if ratio[1] else 0.5, seed=0)
    assert len(trials) == 9
    assert best([Trial((1, 1), math.nan, 0.0), Trial((1, 0), -0.5, 0.0)]).ratio == (1, 0)


def test_there_may_be_fewer_ratios_than_trials() -> None:
    ratios = [trial.ratio for trial in MixingSearch("grid", trials=20, largest=2).run(2, share((1, 0)), seed=0)]
    assert ratios == [(1, 1), (1, 0), (2, 1), (1, 2)]
    assert {t.ratio for t in MixingSearch("gp", trials=20, largest=1).run(2, share((1, 0)), 0)} == {(1, 1), (1, 0)}


def test_the_first_of_equals_is_the_best_and_terms_are_lowest() -> None:
    assert best([Trial((1, 1), 0.5, 0.0), Trial((2, 1), 0.7, 0.0), Trial((1, 0), 0.7, 0.0)]).ratio == (2, 1)
    assert lowest_terms((20, 0, 5)) == (4, 0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, r"^trials=0 does not fit; use a whole number of 1 or more"),
        ({"random_starts": 2.5}, r"^random_starts=2\.5 .* whole number"),
        ({"largest": True}, r"^largest=True .* whole number"),
        ({"proposals": "anneal"}, r"^proposals='anneal' does not fit; use one of gp, grid"),
    ],
)
def test_bad_values_are_named_with_what_to_use_instead(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MixingSearch(**changes)
