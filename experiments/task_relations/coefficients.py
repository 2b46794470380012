"""What the predictor of gains leans on: its coefficients, with intervals over main tasks."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame, Series

from fastmtl.relations.predictor import checked, fitted
from fastmtl.reporting.table import Table

DRAWS = 300
"""Draws of main tasks behind the interval of a coefficient."""
SHOWN = 10
"""Coefficients in the table; `predictor.json` has all."""


def coefficients(x: DataFrame, gain: Series, draws: int = 1000, confidence: float = 0.95, seed: int = 0) -> DataFrame:
    """The coefficient of each feature, with an interval: columns value, low, high.

    The value is that of all rows, the interval the quantiles over draws of whole main tasks with replacement, for pairs
    of one main task are not independent. It says how stable a penalised coefficient is, not that it differs from zero.
    """
    x_PF, y_P = checked(x, gain)
    rng = np.random.default_rng(seed)
    mains, group_P = np.unique(x.index.get_level_values("main"), return_inverse=True)

    def drawn() -> np.ndarray:
        return np.concatenate([np.flatnonzero(group_P == g) for g in rng.integers(len(mains), size=len(mains))])

    samples = [rows for rows in (drawn() for _ in range(draws)) if len(set(y_P[rows])) > 1]
    drawings = np.array([fitted(x_PF[rows], y_P[rows])[-1].coef_[0] for rows in samples])
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawings, [tail, 1 - tail], axis=0)
    return DataFrame({"value": fitted(x_PF, y_P)[-1].coef_[0], "low": low, "high": high}, index=x.columns)


def leanings(x: DataFrame, gain: Series) -> Table:
    """The largest coefficients of the predictor that is saved (Bingel & Søgaard 2017, table 4)."""
    found = coefficients(x, gain, draws=DRAWS)
    largest = found.reindex(found["value"].abs().sort_values(ascending=False, kind="stable").index).head(SHOWN)
    rows = [[str(name), f"{one['value']:+.2f}", f"{one['low']:+.2f} to {one['high']:+.2f}"]
            for name, one in largest.iterrows()]  # fmt: skip
    note = (
        f"The {len(rows)} largest of {len(found)} coefficients of the saved logistic regression, features scaled to "
        "[0, 1]; intervals over draws of main tasks. They say what it leans on, not what causes a gain."
    )
    return Table("What the predictor leans on", ["feature", "coefficient", "95 % interval"], rows, note=note)
