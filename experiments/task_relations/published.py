"""What the code of Bingel & Søgaard (2017) computes where fastmtl corrects it, and what their study alone needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from fastmtl.relations.features import CURVE, POSITIONS, ROLES, Curve
from fastmtl.relations.predictor import Folds, accuracy, checked, fitted

Model = Callable[[np.ndarray, np.ndarray], Any]


# --- curves ----------------------------------------------------------------------------------------------------------


def last_run(curve: Curve) -> Curve:
    """What follows the last place where the steps go back: a run that was started again appended to its log."""
    back = np.flatnonzero(np.diff(curve.steps) <= 0)
    start = back[-1] + 1 if len(back) else 0
    return Curve(curve.steps[start:], curve.losses[start:])


def until(curve: Curve, step: int) -> Curve:
    """The curve up to and with a step, so that percentages of training mean the same in runs of unequal length."""
    return Curve(curve.steps[curve.steps <= step], curve.losses[curve.steps <= step])


def curve_features(curve: Curve) -> dict[str, float]:
    """The published features of a learning curve.

    A slope is the difference of the two neighbouring points, by step. (a, c) are of a ln(c i + d) + b over steps i,
    every tenth point, from scipy's start and without bounds: one of many equal solutions.
    """
    steps, losses = curve

    def log_curve(i: np.ndarray, b: float, a: float, c: float, d: float) -> np.ndarray:
        return b + a * np.log(c * i + d)

    at = [len(steps) * p // 100 for p in POSITIONS]
    slopes = [(losses[i + 1] - losses[i - 1]) / (steps[i + 1] - steps[i - 1]) for i in at]
    with np.errstate(invalid="ignore"):
        _, a, c, _ = curve_fit(log_curve, steps[:5000:10].astype(float), losses[:5000:10])[0]
    return dict(zip(CURVE, map(float, (*slopes, a, c))))


# --- pairs -----------------------------------------------------------------------------------------------------------


def pair_table(features: Mapping[str, Mapping[str, float]], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """As `fastmtl.relations.features.pair_table`, with the plain ratio m / a."""
    table = pd.DataFrame(features).T
    main, aux = (table.loc[list(side)].to_numpy() for side in zip(*pairs))
    index = pd.MultiIndex.from_tuples(pairs, names=["main", "aux"])
    return pd.DataFrame(
        np.hstack([main, aux, main / aux]), index, [f"{role}/{name}" for role in ROLES for name in table]
    )


def scaled(x: pd.DataFrame) -> pd.DataFrame:
    """Features scaled to [0, 1] over all rows, before they are split."""
    return pd.DataFrame(MinMaxScaler().fit_transform(x), x.index, x.columns)


def penalised(x_PF: np.ndarray, y_P: np.ndarray) -> LogisticRegression:
    """The regression with a penalised intercept: liblinear, the default of the scikit-learn of 2017."""
    return LogisticRegression(solver="liblinear").fit(x_PF, y_P)


def best_features(keep: int, published: bool) -> Model:
    """A regression on `keep` features, chosen by recursive elimination, the smallest coefficient first."""

    def model(x_PF: np.ndarray, y_P: np.ndarray) -> Any:
        regression = LogisticRegression(solver="liblinear" if published else "lbfgs")
        steps = [] if published else [MinMaxScaler(clip=True)]
        return make_pipeline(*steps, RFE(regression, n_features_to_select=keep), regression).fit(x_PF, y_P)

    return model


def coefficients(x: pd.DataFrame, gain: pd.Series, draws: int, seed: int = 0) -> pd.DataFrame:
    """The coefficient of each feature over random 80 % of the rows: columns value (the mean), low, high (95 %)."""
    x_PF, y_P = checked(scaled(x), gain)
    rng = np.random.default_rng(seed)
    samples = [rng.permutation(len(y_P))[: round(0.8 * len(y_P))] for _ in range(draws)]
    drawn = np.array([penalised(x_PF[rows], y_P[rows]).coef_[0] for rows in samples if len(set(y_P[rows])) > 1])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return pd.DataFrame({"value": drawn.mean(axis=0), "low": low, "high": high}, index=x.columns)


def permutation_importance(
    x: pd.DataFrame, gain: pd.Series, folds: Folds, groups: Mapping[str, Sequence[str]], repeats: int = 20,
    seed: int = 0,
) -> pd.Series:  # fmt: skip
    """Accuracy on held-out rows that is lost where the columns of a group are shuffled together; mean over repeats.

    Columns are shuffled over all rows, not within a fold: where a fold holds one main task its features are constant.
    """
    x_PF, y_P = checked(x, gain)
    rng = np.random.default_rng(seed)
    models = [fitted(x_PF[fit], y_P[fit]) for fit, _ in folds]

    def right(values_PF: np.ndarray) -> float:
        said = [model.predict(values_PF[out]) for model, (_, out) in zip(models, folds)]
        return accuracy(y_P, said, folds).accuracy

    def shuffled(names: Sequence[str]) -> np.ndarray:
        columns, copy = x.columns.get_indexer(list(names)), x_PF.copy()
        copy[:, columns] = x_PF[rng.permutation(len(x_PF))][:, columns]
        return copy

    whole = right(x_PF)
    return pd.Series({g: whole - np.mean([right(shuffled(n)) for _ in range(repeats)]) for g, n in groups.items()})
