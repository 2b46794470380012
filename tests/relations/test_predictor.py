"""The predictor finds what is there, nothing where there is nothing, and survives a trip through its file."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from pandas import DataFrame, MultiIndex, Series

from fastmtl.errors import UserError
from fastmtl.relations.features import pair_table
from fastmtl.relations.predictor import (
    GainPredictor,
    cross_validated,
    main_task_folds,
    shuffled_folds,
    trivial,
)

TASKS = [f"t{i}" for i in range(10)]


@pytest.fixture(scope="module")
def features() -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(1)
    return {task: {"use": rng.random(), "noise": rng.random()} for task in TASKS}


@pytest.fixture(scope="module")
def world(features: dict[str, dict[str, float]]) -> tuple[DataFrame, Series]:
    """An auxiliary task helps whomever where its `use` is high."""
    x = pair_table(features)
    return x, x["aux/use"] - x["aux/use"].median()


def test_what_depends_on_the_auxiliary_task_is_found_for_unseen_main_tasks(world: tuple[DataFrame, Series]) -> None:
    x, gain = world
    for folds in (shuffled_folds(len(x), 0), main_task_folds(x)):
        ours, none = cross_validated(x, gain, folds), trivial(gain, folds)
        assert ours.accuracy > 0.85
        assert ours.f1 > 0.85
        assert ours.accuracy > max(one.accuracy for one in none.values())


def test_shuffled_labels_are_not_predicted(world: tuple[DataFrame, Series]) -> None:
    x, gain = world
    rng = np.random.default_rng(0)
    found = []
    for seed in range(5):
        mixed = Series(rng.permutation(gain.to_numpy()), gain.index)
        found.append(cross_validated(x, mixed, shuffled_folds(len(x), seed)).accuracy)
    assert 0.4 < np.mean(found) < 0.6


def test_the_trivial_predictors_are_two_and_the_habit_of_the_main_task_a_third() -> None:
    index = MultiIndex.from_tuples([(m, a) for m in "abc" for a in "xyzw"], names=["main", "aux"])
    gain = Series([1.0] * 4 + [-1.0] * 8, index)
    folds = shuffled_folds(12, 0, folds=3)
    found = trivial(gain, folds)
    assert found["majority class"][:2] == (8 / 12, 0)
    assert found["always gain"][:2] == pytest.approx((4 / 12, 0.5))
    assert found["as its main task"][:2] == (1, 1)
    assert trivial(gain, main_task_folds(gain.to_frame()))["as its main task"].accuracy == 8 / 12


def test_rows_are_scaled_within_the_fold(world: tuple[DataFrame, Series]) -> None:
    x, gain = world
    far = x.copy()
    far.iloc[0] *= 1e6  # a row of another fold squeezes all others where scaling has seen it
    folds = [(np.arange(30, len(x)), np.arange(1, 30))]
    assert cross_validated(x, gain, folds) == cross_validated(far, gain, folds)


def test_f1_is_that_of_scikit_learn(world: tuple[DataFrame, Series]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    x, gain = world
    y = gain.to_numpy() > 0
    how = {"cv": KFold(5, shuffle=True, random_state=3)}
    ours = cross_validated(x, gain, shuffled_folds(len(x), 3))
    model = make_pipeline(MinMaxScaler(clip=True), LogisticRegression())
    assert ours.fold_f1 == pytest.approx(cross_val_score(model, x.to_numpy(), y, scoring="f1", **how).mean())
    assert ours.accuracy == pytest.approx(cross_val_score(model, x.to_numpy(), y, **how).mean())


def test_a_saved_predictor_is_plain_numbers_and_ranks_as_before(
    world: tuple[DataFrame, Series], features: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    fitted = GainPredictor.fit(*world)
    fitted.save(tmp_path / "predictor.json")
    assert set(json.loads((tmp_path / "predictor.json").read_text())) == {
        "features", "low", "span", "coefficients", "intercept", "pairs", "models"}  # fmt: skip
    assert fitted.pairs == tuple(permutations(TASKS, 2))
    loaded = GainPredictor.load(tmp_path / "predictor.json")
    assert loaded == fitted
    new = {**features, "new": {"use": 0.5, "noise": 0.5}}
    ranking = loaded.rank("new", new)
    assert [task for task, _ in ranking[:2]] == sorted(TASKS, key=lambda task: -features[task]["use"])[:2]
    assert ranking == fitted.rank("new", new)
    assert all(0 <= chance <= 1 for _, chance in ranking)
    x, gain = world
    assert ((fitted.probability(x) > 0.5) == (gain > 0)).mean() > 0.9


def test_the_saved_numbers_predict_as_scikit_learn_does(world: tuple[DataFrame, Series]) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    x, gain = world
    model = make_pipeline(MinMaxScaler(clip=True), LogisticRegression()).fit(x.to_numpy(), gain.to_numpy() > 0)
    beyond = 3 * x
    assert GainPredictor.fit(x, gain).probability(beyond) == pytest.approx(model.predict_proba(beyond.to_numpy())[:, 1])


def test_bad_input_is_said_in_one_line(world: tuple[DataFrame, Series], tmp_path: Path) -> None:
    x, gain = world
    folds = shuffled_folds(len(x), 0)
    holed = x.copy()
    holed.iloc[3, 1] = np.nan
    (tmp_path / "bad.json").write_text("{}")
    cases = {
        f"{len(x)} pairs with features and 5 with a gain": lambda: cross_validated(x, gain.iloc[:5], folds),
        "the gain of t0 with t1 is no number": lambda: cross_validated(
            x, gain.where(gain.index != ("t0", "t1")), folds
        ),
        "'main/noise' of t0 with t4 is no number": lambda: cross_validated(holed, gain, folds),
        "all of 90 pairs gain": lambda: GainPredictor.fit(x, gain.abs() + 1),
        "none of 90 pairs gain": lambda: GainPredictor.fit(x, -gain.abs()),
        "needs the feature 'aux/use'": lambda: GainPredictor.fit(x, gain).probability(x.drop(columns="aux/use")),
        "is no saved predictor": lambda: GainPredictor.load(tmp_path / "bad.json"),
        "none.json is no saved predictor": lambda: GainPredictor.load(tmp_path / "none.json"),
    }
    for said, call in cases.items():
        with pytest.raises(UserError) as raised:
            call()
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
