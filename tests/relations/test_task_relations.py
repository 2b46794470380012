"""The published gains come out of the original logs, cell by cell; the tables beside them are written."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from fastmtl.errors import UserError
from fastmtl.relations.features import Curve, pair_table
from fastmtl.relations.predictor import cross_validated, main_task_folds, shuffled_folds
from tests.helpers.scripts import script


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return script("task_relations/study.py")


@pytest.fixture(scope="module")
def world() -> tuple[pd.DataFrame, pd.Series]:
    """An auxiliary task helps whomever where its `use` is high."""
    rng = np.random.default_rng(1)
    x = pair_table({f"t{i}": {"use": rng.random(), "noise": rng.random()} for i in range(10)})
    return x, x["aux/use"] - x["aux/use"].median()


@pytest.fixture(scope="module")
def logs(shared_data: Path) -> Path:
    """Of the original runs."""
    return shared_data / "bingel2017"


@pytest.mark.data("bingel2017")
def test_all_cells_of_figure_1_are_the_printed_ones(study: ModuleType, logs: Path) -> None:
    evaluated, _ = study.read(logs)
    table = study.gains_at(evaluated, study.SINGLE, study.PAIR)
    names = list(study.NAMES.values())
    printed = {(main, aux): value for main in names for aux, value in zip(names, study.PAPER["figure_1"][main])
               if value is not None}  # fmt: skip
    assert len(printed) == len(table) == 90
    assert {pair: round(gain, 2) for pair, gain in table["gain"].items()} == printed
    assert (table["gain"] > 0).sum() == 40
    # the counts after other numbers of batches: the paper names the second and used the first
    counts = [(study.gains_at(evaluated, *batches)["gain"] > 0).sum() for batches in
              ((25_000, 50_000), (50_000, 50_000), (25_000, 25_000))]  # fmt: skip
    assert counts == [44, 27, 21]


@pytest.mark.data("bingel2017")
def test_the_published_gradients_come_out_of_the_logs(study: ModuleType, logs: Path) -> None:
    _, losses = study.read(logs)
    features = study.task_features(losses, "paper")
    notebook = {"CCG": -0.006298333406448364, "COM": 5.260854959487915e-05, "HYP": -0.0008521348237991333,
                "SEM": 0.0011842578649520874}  # fmt: skip
    for task, value in notebook.items():
        assert features[task]["gradient_30"] == pytest.approx(value, abs=1e-9)


@pytest.mark.slow
@pytest.mark.data("bingel2017")
def test_the_study_writes_its_tables(study: ModuleType, logs: Path, tmp_path: Path) -> None:
    study.main(logs, tmp_path, repeats=1)
    text = (tmp_path / "results.md").read_text()
    assert all(f"Table {n}" in text for n in (3, 4))
    assert "nan" not in text
    assert len(json.loads((tmp_path / "results.json").read_text())["gain"]) == 10
    assert "main task" in (tmp_path / "figure.svg").read_text()


def test_a_folder_without_logs_is_said_in_one_line(study: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no eval\.parquet"):
        study.read(tmp_path)


# --- what the published code computes ------------------------------------------------------------------------------


def test_a_log_may_hold_a_run_that_was_started_again(study: ModuleType) -> None:
    steps = np.array([10, 20, 10, 20, 30])
    last = study.published.last_run(Curve(steps, steps / 7))
    assert last.steps.tolist() == [10, 20, 30]
    assert last.losses[-1] == 30 / 7
    assert study.published.until(last, 20).steps.tolist() == [10, 20]


def test_a_published_slope_is_that_of_the_two_neighbours(study: ModuleType) -> None:
    steps = np.arange(10, 1001, 10)
    losses = 5 - 0.5 * np.log(steps)
    before = study.published.curve_features(Curve(steps, losses))
    assert before["gradient_30"] == pytest.approx(-0.5 * log(320 / 300) / 20)  # about the point after 30 %, by step
    assert before["curve_a"] == pytest.approx(-0.5, rel=1e-3)
    losses[31] += 1.0
    after = study.published.curve_features(Curve(steps, losses))
    assert after["gradient_30"] == pytest.approx(before["gradient_30"] + 1 / 20)


def test_a_published_ratio_is_plain(study: ModuleType) -> None:
    features = {"m": {"size": 300.0, "g": 2.0}, "a": {"size": 100.0, "g": 0.0}}
    table = study.published.pair_table(features, [("a", "m")])
    assert list(table.columns) == ["main/size", "main/g", "aux/size", "aux/g", "ratio/size", "ratio/g"]
    assert table.loc[("a", "m")].tolist() == [100, 0, 300, 2, pytest.approx(1 / 3), 0]


def test_the_published_regression_is_that_of_scikit_learn(
    study: ModuleType, world: tuple[pd.DataFrame, pd.Series]
) -> None:
    """Scaled before the split, which one far row changes for all others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.preprocessing import MinMaxScaler

    x, gain = world
    scaled, y = MinMaxScaler().fit_transform(x), gain.to_numpy() > 0
    how = {"cv": KFold(5, shuffle=True, random_state=3)}

    def published(table: pd.DataFrame, folds: object) -> object:
        return cross_validated(study.published.scaled(table), gain, folds, study.published.penalised)

    ours, model = published(x, shuffled_folds(len(x), 3)), LogisticRegression(solver="liblinear")
    assert ours.fold_f1 == pytest.approx(cross_val_score(model, scaled, y, scoring="f1", **how).mean())
    assert ours.accuracy == pytest.approx(cross_val_score(model, scaled, y, **how).mean())
    far = x.copy()
    far.iloc[0] *= 1e6
    folds = [(np.arange(30, len(x)), np.arange(1, 30))]
    assert published(x, folds) != published(far, folds)


@pytest.mark.parametrize("way", [True, False])
def test_features_that_matter_are_chosen_and_have_the_largest_coefficients(
    study: ModuleType, world: tuple[pd.DataFrame, pd.Series], way: bool
) -> None:
    x, gain = world
    table = study.published.scaled(x) if way else x
    chosen = cross_validated(table, gain, main_task_folds(x), study.published.best_features(1, way))
    assert chosen.accuracy > 0.85
    weights = study.published.coefficients(x, gain, draws=20)
    assert weights["value"].abs().idxmax() == "aux/use"
    assert (weights["low"] <= weights["high"]).all()
    assert weights.loc["aux/use", "low"] > 0
    assert weights.equals(study.published.coefficients(x, gain, draws=20))


def test_importance_names_the_group_that_matters(study: ModuleType, world: tuple[pd.DataFrame, pd.Series]) -> None:
    x, gain = world
    groups = {"use": ["aux/use", "ratio/use"], "noise": ["main/noise", "aux/noise", "ratio/noise"]}
    lost = study.published.permutation_importance(x, gain, main_task_folds(x), groups, repeats=3)
    assert lost["use"] > 0.2
    assert abs(lost["noise"]) < 0.1


# --- what our own predictor leans on -------------------------------------------------------------------------------


def test_coefficients_name_the_feature_that_matters(study: ModuleType, world: tuple[pd.DataFrame, pd.Series]) -> None:
    x, gain = world
    table = study.coefficients(x, gain, draws=20)
    assert table["value"].abs().idxmax() == "aux/use"
    assert (table["low"] <= table["high"]).all()
    assert table.loc["aux/use", "low"] > 0
    assert table.equals(study.coefficients(x, gain, draws=20))


def test_the_largest_coefficients_come_first_with_their_intervals(world: tuple[pd.DataFrame, pd.Series]) -> None:
    table = script("task_relations/foretell.py").leanings(*world)
    values = [float(row[1]) for row in table.rows]
    assert table.rows[0][0] == "aux/use"
    assert values[0] > 0
    assert [abs(value) for value in values] == sorted((abs(value) for value in values), reverse=True)
    low, high = map(float, table.rows[0][2].split(" to "))
    assert low <= high
    assert f"The {len(table.rows)} largest of" in table.note
