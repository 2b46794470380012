"""The features of three corpora small enough to count by hand, and of curves whose shape is known."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from fastmtl.errors import UserError
from fastmtl.relations.features import CURVE, DATA, curve_features, data_features, log_curve, pair_table

CORPORA = {
    # a tagging task: 2 sentences, 5 tokens, words a b c; test shares one of two words
    "tags": (
        [["a", "b", "a"], ["a", "c"]], [["X", "O", "X"], ["O", "O"]], [["a", "d"]], {"a", "b", "d"},
        {"size": 2, "labels": 2, "tokens_per_type": 5 / 3, "oov": 20.0,
         "label_entropy": -(0.4 * log(0.4) + 0.6 * log(0.6)), "frobenius": sqrt(4 + 1 + 1 + 1),
         # p = (3/5, 1/5, 1/5, 0), q = (1/2, 0, 0, 1/2), m = (11/20, 1/10, 1/10, 1/4)
         "jsd": (0.6 * log(12 / 11) + 0.4 * log(2) + 0.5 * log(10 / 11) + 0.5 * log(2)) / 2},
    ),
    # whole texts, one label each; the same words in train and test
    "texts": (
        [["good", "film"], ["bad", "film"], ["good"], ["bad"]], [["1"], ["0"], ["1"], ["0"]],
        [["good", "bad", "film"]], {"good", "bad", "film"},
        {"size": 4, "labels": 2, "tokens_per_type": 2.0, "oov": 0.0, "label_entropy": log(2), "frobenius": sqrt(6),
         "jsd": 0.0},
    ),
    # no word in common, nothing in the vocabulary, three labels
    "alien": (
        [["p"], ["q"], ["q"], ["q", "q"]], [["x"], ["y"], ["z"], ["z"]], [["r"]], set(),
        {"size": 4, "labels": 3, "tokens_per_type": 2.5, "oov": 100.0, "label_entropy": 1.5 * log(2),
         "frobenius": sqrt(1 + 1 + 1 + 4), "jsd": log(2)},
    ),
}  # fmt: skip
STEPS = np.arange(10, 1001, 10)


@pytest.mark.parametrize("task", CORPORA)
def test_data_features_are_those_counted_by_hand(task: str) -> None:
    *corpus, expected = CORPORA[task]
    assert data_features(task, *corpus) == pytest.approx(expected, abs=1e-12)
    assert tuple(expected) == DATA


def test_the_slopes_of_a_straight_line_are_its_slope_by_share_of_training() -> None:
    ours = curve_features("t", STEPS, 3 - 0.002 * STEPS)
    assert [ours[name] for name in CURVE[:5]] == pytest.approx([-2.0] * 5)


def test_a_slope_is_no_noise_of_two_points() -> None:
    losses = 5 - 0.5 * np.log(STEPS)
    before = curve_features("t", STEPS, losses)["gradient_30"]
    losses[31] += 1.0
    assert abs(curve_features("t", STEPS, losses)["gradient_30"] - before) < 5  # where 1 / 20 by step is 50 by share


@pytest.mark.parametrize(("a", "c"), [(-0.5, 40.0), (-2.0, 3.0), (0.3, 99.0)])
def test_the_curve_is_found_again(a: float, c: float) -> None:
    share = STEPS / 1000
    assert log_curve(share, a * np.log(c * share + 1) + 7) == pytest.approx((a, c), rel=1e-4)
    # the published form with another d is the same curve: c is that of d = 1
    assert log_curve(share, a * np.log(5 * c * share + 5) + 1) == pytest.approx((a, c), rel=1e-4)
    values = curve_features("t", STEPS, a * np.log(c * share + 1) + 7)
    assert (values["curve_a"], values["curve_c"]) == pytest.approx((a, log(c)), rel=1e-4)


def test_a_flat_curve_and_one_that_bends_too_early_have_finite_features() -> None:
    for losses in (np.ones(100), np.r_[9.0, np.ones(99)], np.linspace(1, 0, 100) ** 0.5):
        assert np.isfinite(list(curve_features("t", STEPS, losses).values())).all()


def test_pairs_have_main_auxiliary_and_ratio() -> None:
    features = {"m": {"size": 300.0, "g": -0.1}, "a": {"size": 100.0, "g": 0.0}, "z": {"size": 100.0, "g": 0.0}}
    table = pair_table(features)
    assert list(table.columns) == ["main/size", "main/g", "aux/size", "aux/g", "ratio/size", "ratio/g"]
    assert len(table) == 6
    assert table.loc[("m", "a")].tolist() == [300, -0.1, 100, 0, 0.5, -1]
    assert table.loc[("a", "z"), "ratio/g"] == 0
    full = {t: dict.fromkeys([*DATA, *CURVE], 1.0) for t in "ab"}
    assert pair_table(full).shape == (2, 42)


def test_bad_input_is_said_in_one_line() -> None:
    good = np.linspace(3, 1, 100)
    gap = np.delete(np.arange(100), [50, 51])
    twice = np.r_[STEPS[:5], STEPS[:95]]
    features = {"m": {"g": 1.0}, "a": {"g": 0.0}}
    cases = {
        "has 9 points": lambda: curve_features("t", STEPS[:9], good[:9]),
        "at step 20 is no number": lambda: curve_features("t", STEPS, np.r_[1.0, np.nan, good[2:]]),
        "gap from step 500 to 530": lambda: curve_features("t", STEPS[gap], good[gap]),
        "goes back to step 10": lambda: curve_features("t", twice, good),
        "no words in a test split": lambda: data_features("t", [["a"]], [["x"]], [], {"a"}),
        "no words in training": lambda: data_features("t", [[]], [[]], [["a"]], {"a"}),
        "are 'x'": lambda: data_features("t", [["a"], ["b"]], [["x"], ["x"]], [["a"]], {"a"}),
        "feature 'g' of task 'b' is missing": lambda: pair_table({"m": {"g": 1.0}, "b": {}}),
        "feature 'g' of task 'c' is missing or no number": lambda: pair_table({"m": {"g": 1.0}, "c": {"g": np.nan}}),
        "no features of task 'q'": lambda: pair_table(features, [("m", "q")]),
    }
    for said, call in cases.items():
        with pytest.raises(UserError) as raised:
            call()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
