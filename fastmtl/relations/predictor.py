"""Predict from features of two tasks whether the one gains by the other, and say how good the prediction is.

A logistic regression on features scaled to [0, 1], after Bingel & Søgaard (2017, section 4): it scales within each
fold, cuts what lies outside the range seen, and leaves the intercept alone.

`x` is a table of `features.pair_table`, indexed by (main, aux); `gain` a number for each of its rows, positive for a
gain. Everything follows from the `seed`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame, Series
from scipy.special import expit

from fastmtl.errors import UserError
from fastmtl.relations.features import pair_table

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""Rows to fit on and rows held out, for each fold."""
Model = Callable[[np.ndarray, np.ndarray], Any]
"""Features (P, F) and whether a pair gains (P,) -> what has scikit-learn's `predict`."""


class Accuracy(NamedTuple):
    """Share of right predictions; F1 of the gains over all held-out rows, and as its mean over folds."""

    accuracy: float
    f1: float
    fold_f1: float


def fitted(x_PF: np.ndarray, y_P: np.ndarray) -> Any:
    """The regression on scaled features as a scikit-learn pipeline, or what always says the one class that there is."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    if len(set(y_P)) < 2:
        return DummyClassifier().fit(x_PF, y_P)
    return make_pipeline(MinMaxScaler(clip=True), LogisticRegression()).fit(x_PF, y_P)


def cross_validated(x: DataFrame, gain: Series, folds: Folds, model: Model = fitted) -> Accuracy:
    """How well held-out rows are predicted.

    Raises:
        UserError: x and gain do not belong together, hold a value that is no number, or all pairs gain or none does.
    """
    return accuracy(gain.to_numpy() > 0, held_out(x, gain, folds, model), folds)


def held_out(x: DataFrame, gain: Series, folds: Folds, model: Model = fitted) -> list[np.ndarray]:
    """What is said of the rows held out of each fold (n,): True for a gain; see `cross_validated`."""
    x_PF, y_P = checked(x, gain)
    return [model(x_PF[fit], y_P[fit]).predict(x_PF[out]) for fit, out in folds]


def shuffled_folds(rows: int, seed: int, folds: int = 5) -> Folds:
    """Folds of rows in random order. The two pairs of a main task that a fold parts share their main features."""
    from sklearn.model_selection import KFold

    if rows < folds:
        raise UserError(f"{rows} pairs are too few for {folds} folds; add tasks")
    return list(KFold(folds, shuffle=True, random_state=seed).split(np.zeros(rows)))


def main_task_folds(x: DataFrame) -> Folds:
    """All pairs of one main task are held out together: the case of a new primary."""
    from sklearn.model_selection import LeaveOneGroupOut

    return list(LeaveOneGroupOut().split(x, groups=x.index.get_level_values("main")))


def trivial(gain: Series, folds: Folds) -> dict[str, Accuracy]:
    """How well three predictors without features do; see `featureless`."""
    return {name: accuracy(gain.to_numpy() > 0, said, folds) for name, said in featureless(gain, folds).items()}


def featureless(gain: Series, folds: Folds) -> dict[str, list[np.ndarray]]:
    """What predictors without features say of the rows held out of each fold (n,).

    `as its main task` says what its pairs mostly do among the rows to fit on, or most pairs where it has none.
    """
    y_P, mains = gain.to_numpy() > 0, gain.index.get_level_values("main")

    def habits(fit: np.ndarray, out: np.ndarray) -> np.ndarray:
        habit = gain.iloc[fit].gt(0).groupby("main").mean()
        return habit.reindex(mains[out], fill_value=y_P[fit].mean()).to_numpy() > 0.5

    return {
        "majority class": [np.full(len(out), y_P.mean() > 0.5) for _, out in folds],
        "always gain": [np.ones(len(out), bool) for _, out in folds],
        "as its main task": [habits(fit, out) for fit, out in folds],
    }


@dataclass(frozen=True)
class GainPredictor:
    """A fitted predictor as plain numbers: `features` (F,) and, for each, lowest value, range and coefficient.

    Args:
        pairs: The (main, aux) that it was fitted to.
        models: Key, FLOPs and seconds of each model of a pair or a task alone behind their gains.
    """

    features: tuple[str, ...]
    low: tuple[float, ...]
    span: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    pairs: tuple[tuple[str, str], ...] = ()
    models: tuple[tuple[str, float, float], ...] = ()

    def identity(self) -> list[Any]:
        """See `fastmtl.identity.plain`: the numbers that predict."""
        names = ("features", "low", "span", "coefficients", "intercept")
        return [type(self).__name__, [[name, getattr(self, name)] for name in names]]

    @classmethod
    def fit(cls, x: DataFrame, gain: Series) -> GainPredictor:
        """Fit to all rows; errors as of `cross_validated`."""
        scaler, regression = fitted(*checked(x, gain))
        low, span, weights = (tuple(map(float, a)) for a in (scaler.data_min_, 1 / scaler.scale_, regression.coef_[0]))
        return cls(tuple(x.columns), low, span, weights, float(regression.intercept_[0]), tuple(x.index))

    def probability(self, x: DataFrame) -> np.ndarray:
        """Of a gain, for each row; `UserError` for a feature that is missing or no number."""
        if absent := [name for name in self.features if name not in x.columns]:
            raise UserError(f"the predictor needs the feature {absent[0]!r}, which is not there; compute it first")
        x_PF = _numbers(x[list(self.features)])
        scaled = np.clip((x_PF - self.low) / np.array(self.span), 0, 1)
        return expit(scaled @ np.array(self.coefficients) + self.intercept)

    def rank(self, primary: str, features: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float]]:
        """The other tasks of `features` with their probability of a gain for the primary, best first, ties by name."""
        tasks = sorted(task for task in features if task != primary)
        chance = self.probability(pair_table(features, [(primary, task) for task in tasks]))
        return sorted(zip(tasks, map(float, chance)), key=lambda one: -one[1])

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> GainPredictor:
        """What `save` wrote; `UserError` for anything else."""
        try:
            values = json.loads(path.read_text())
            lists: dict[str, Any] = {name: tuple(values[name]) for name in ("features", "low", "span", "coefficients")}
            rows: dict[str, Any] = {name: tuple(map(tuple, values[name])) for name in ("pairs", "models")}
            return cls(**lists, **rows, intercept=float(values["intercept"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is no saved predictor ({error}); fit one and save it there") from error


def checked(x: DataFrame, gain: Series) -> tuple[np.ndarray, np.ndarray]:
    """Features (P, F) and whether a pair gains (P,)."""
    if not x.index.equals(gain.index):
        raise UserError(f"{len(x)} pairs with features and {len(gain)} with a gain are not the same; align them")
    if gain.isna().any():
        raise UserError(f"the gain of {' with '.join(gain.index[gain.isna()][0])} is no number; run that pair")
    y_P = gain.to_numpy() > 0
    if y_P.all() or not y_P.any():
        raise UserError(f"{'all' if y_P.any() else 'none'} of {len(y_P)} pairs gain; there is nothing to tell apart")
    return _numbers(x), y_P


def _numbers(x: DataFrame) -> np.ndarray:
    x_PF = x.to_numpy(dtype=float)
    for row, column in np.argwhere(~np.isfinite(x_PF)):
        pair = " with ".join(x.index[row])
        raise UserError(f"{x.columns[column]!r} of {pair} is no number; compute it or leave it out")
    return x_PF


def accuracy(y_P: np.ndarray, said: Iterable[np.ndarray], folds: Folds) -> Accuracy:
    """How often what is `said` of the rows held out of each fold is so."""
    said, true = list(said), [y_P[out] for _, out in folds]
    all_said, all_true = np.concatenate(said), np.concatenate(true)

    def f1(true: np.ndarray, said: np.ndarray) -> float:  # scikit-learn's takes as long as a fit
        return float(2 * np.sum(true & said) / max(1, np.sum(true) + np.sum(said)))

    return Accuracy(
        float(np.mean(all_true == all_said)), f1(all_true, all_said), float(np.mean(list(map(f1, true, said))))
    )
