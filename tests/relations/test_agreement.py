"""Rank correlation and regret against values worked out by hand; the predictor as one affinity among others."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from pandas import DataFrame, MultiIndex, Series
from scipy import stats

from fastmtl.errors import UserError
from fastmtl.relations.features import pair_table
from fastmtl.relations.predictor import GainPredictor
from tests.helpers.scripts import script

module = script("task_relations/agreement.py")
agreement, predicted = module.agreement, module.predicted

GAIN = {"a": {"b": 3.0, "c": 1.0, "d": -2.0}, "b": {"d": 5.0, "c": 4.0, "a": 0.0}}
NEAR = {"a": {"a": 9.0, "b": 0.9, "c": 0.5, "d": 0.1}, "b": {"a": 0.7, "b": np.nan, "c": 0.7, "d": 0.2}}


def series(gain: dict[str, dict[str, float]]) -> Series:
    flat = {(main, aux): value for main, own in gain.items() for aux, value in own.items()}
    return Series(flat.values(), MultiIndex.from_tuples(flat, names=["main", "aux"]))


def test_order_and_regret_are_those_worked_out_by_hand() -> None:
    found = agreement(series(GAIN), DataFrame(NEAR).T, ks=(1, 2))
    # a is ordered as its gains are; for b the two of 0.7 come by name, a then c, and the best, d, is last
    tied = stats.pearsonr([1, 2.5, 2.5], [3, 2, 1]).statistic
    assert found.by_main["spearman"].tolist() == pytest.approx([1, tied])
    assert found.by_main["regret@1"].tolist() == [0, 5]
    assert found.by_main["regret@2"].tolist() == [0, 1]
    assert found.by_main["top_gain@1"].tolist() == [3, 0]
    assert found.by_main["top_gain@2"].tolist() == [2, 2]
    assert found.by_main["mean_gain"].tolist() == pytest.approx([2 / 3, 3])
    # one of three at random: its mean; two of three: 3, 3 or 1 of a, 4, 5 or 5 of b
    assert found.by_main["random_regret@1"].tolist() == pytest.approx([3 - 2 / 3, 5 - 3])
    assert found.by_main["random_regret@2"].tolist() == pytest.approx([3 - 7 / 3, 5 - 14 / 3])


def test_the_mean_correlation_has_students_interval_and_all_pairs_have_one_of_their_own() -> None:
    found = agreement(series(GAIN), DataFrame(NEAR).T)
    rho = found.by_main["spearman"]
    assert found.spearman.mean == pytest.approx(rho.mean())
    wanted = stats.t.interval(0.95, 1, rho.mean(), stats.sem(rho))
    assert (found.spearman.low, found.spearman.high) == pytest.approx(wanted)
    near, gain = [0.9, 0.5, 0.1, 0.2, 0.7, 0.7], [3, 1, -2, 5, 4, 0]
    assert found.all_pairs == pytest.approx(stats.spearmanr(near, gain).statistic)


def test_the_expected_regret_is_that_of_all_subsets() -> None:
    rng = np.random.default_rng(0)
    names = list("abcdefg")
    gain = {main: {aux: float(rng.normal()) for aux in names if aux != main} for main in names}
    gain["a"]["c"] = gain["a"]["b"]
    found = agreement(series(gain), DataFrame(gain).T.rank(), ks=range(1, 7)).by_main
    for main, own in gain.items():
        for k in range(1, 7):
            best = [max(some) for some in combinations(own.values(), k)]
            assert found.loc[main, f"random_regret@{k}"] == pytest.approx(max(own.values()) - np.mean(best))
    assert found["regret@6"].tolist() == [0] * 7


def test_what_cannot_be_compared_is_said_in_one_line() -> None:
    gain, near = series(GAIN), DataFrame(NEAR).T

    def lost(value: float) -> Series:
        return gain.where(gain.index != ("b", "c"), value)

    cases = [
        (gain.drop(("b", "c")), near, (1,), "no gain of 'b' with 'c'"),
        (lost(np.nan), near, (1,), "the gain of 'b' with 'c' is missing or no number"),
        (gain, near.drop(columns="d"), (1,), "the affinity of 'a' with 'd' is missing"),
        (gain, near.replace(0.1, np.inf), (1,), "the affinity of 'a' with 'd' is missing or no number"),
        (gain, near * [1, 0, 0, 0], (1,), "the affinity of 'a' is the same"),
        (gain * 0, near, (1,), "the gain of 'a' is the same"),
        (gain, near, (4,), "k=4 is out of range; 'a' has 3 auxiliary tasks"),
        (gain.drop("b"), near, (1,), "over main tasks, and there is 1"),
    ]
    for one, two, ks, said in cases:
        with pytest.raises(UserError) as raised:
            agreement(one, two, ks)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_main_task_is_predicted_from_the_pairs_of_the_others() -> None:
    rng = np.random.default_rng(1)
    x = pair_table({f"t{i}": {"use": rng.random(), "noise": rng.random()} for i in range(6)})
    gain = x["aux/use"] - x["aux/use"].median()
    chance = predicted(x, gain)
    others = x.index.get_level_values("main") != "t2"
    wanted = GainPredictor.fit(x[others], gain[others]).probability(x[~others])
    assert chance.loc["t2"].drop("t2").tolist() == pytest.approx(wanted)
    assert np.isnan(np.diag(chance)).all()
    assert agreement(gain, chance).spearman.mean > 0.8
