"""The features from which Bingel & Søgaard (2017, section 3 and table 2) predict what an auxiliary task gains.

Fourteen of a task: seven of its data, seven of the training loss when it is trained alone. A pair of tasks has those of
the main task, those of the auxiliary task and their ratios: 42.

    feature          definition
    size             training sequences
    labels           distinct training labels
    tokens_per_type  training tokens by distinct ones
    oov              % of training tokens that the vocabulary lacks
    label_entropy    of the training labels, in nats
    frobenius        norm of the matrix of counts, sequence by word
    jsd              Jensen-Shannon divergence of the distributions of training and test words, in nats
    gradient_P       slope of the loss at P = 10, 20, 30, 50, 70 % of training: least squares over the nearest tenth of
                     the points, by share of training
    curve_a, curve_c of L(x) = a ln(c x + 1) + b, x the share of training, 1 <= c <= number of points; ln c
    ratio            (m - a) / (|m| + |a|), main m, auxiliary a

The published code (`experiments/task_relations/published.py`) differs: it reads 30 places of a
sequence; its divergence compares word ids with label ids, a slip; its gradient is the noise of two batches; its curve
a ln(c i + d) + b has a parameter too many; and its ratio m / a has no value at 0.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pandas import DataFrame, MultiIndex
from scipy.optimize import minimize_scalar
from scipy.special import rel_entr

from fastmtl.errors import UserError

Rows = Sequence[Sequence[str]]

POSITIONS = (10, 20, 30, 50, 70)
"""Percent of training."""
DATA = ("size", "labels", "tokens_per_type", "oov", "label_entropy", "frobenius", "jsd")
CURVE = (*(f"gradient_{p}" for p in POSITIONS), "curve_a", "curve_c")
ROLES = ("main", "aux", "ratio")


def data_features(
    task: str, tokens: Rows, labels: Rows, test_tokens: Rows, vocabulary: Container[str]
) -> dict[str, float]:
    """The features `DATA` of a task's training sequences; `labels` has a label per token, or one per whole text.

    Raises:
        UserError: A split has no words, or all labels are the same.
    """
    assert len(tokens) == len(labels), "a sequence has its labels"
    words, test_words = Counter(chain.from_iterable(tokens)), Counter(chain.from_iterable(test_tokens))
    if not test_words:
        raise UserError(f"task {task!r} has no words in a test split, which a feature compares; hold out rows for one")
    if not words:
        raise UserError(f"task {task!r} has no words in training; leave it out")
    inventory = set(chain.from_iterable(labels))
    if len(inventory) < 2:
        raise UserError(f"all training labels of task {task!r} are {next(iter(inventory), None)!r}; leave it out")
    counts_C = np.array(list(Counter(chain.from_iterable(labels)).values()))
    share_C = counts_C / counts_C.sum()
    values = (
        len(tokens),
        len(inventory),
        words.total() / len(words),
        100 * sum(n for word, n in words.items() if word not in vocabulary) / words.total(),
        -(share_C * np.log(share_C)).sum(),
        math.sqrt(sum(n * n for row in tokens for n in Counter(row).values())),
        _divergence(words, test_words),
    )
    return dict(zip(DATA, map(float, values)))


class Curve(NamedTuple):
    """Training loss after so many steps: `steps` (n,) int, `losses` (n,)."""

    steps: np.ndarray
    losses: np.ndarray


def read_curve(path: Path, task: str) -> Curve:
    """The training loss of a task in a fit's `curves.csv` (`training.callbacks.Curves`)."""
    with open(path, newline="") as file:
        points = [(row["step"], row["value"]) for row in csv.DictReader(file) if row["name"] == f"loss/{task}"]
    if not points:
        raise UserError(f"{path} has no training loss of {task!r}; name a task that was trained there")
    steps, losses = zip(*points)
    return Curve(np.array(steps, dtype=int), np.array(losses, dtype=float))


def curve_features(task: str, steps: ArrayLike, losses: ArrayLike) -> dict[str, float]:
    """The features `CURVE` of the training loss (n,) after so many steps (n,) of training on the task alone.

    Raises:
        UserError: There are fewer than ten points, a loss is no number, or steps go back or leave a gap.
    """
    steps, losses = np.asarray(steps, dtype=float), np.asarray(losses, dtype=float)
    assert steps.shape == losses.shape, "a point is a step and a loss"
    if len(steps) < 10:
        raise UserError(f"the learning curve of {task!r} has {len(steps)} points, not 10 or more; log more often")
    for step in steps[~np.isfinite(losses)]:
        raise UserError(f"the loss of {task!r} at step {step:g} is no number; train again with a lower learning rate")
    apart = np.diff(steps)
    for i in np.flatnonzero(apart <= 0):
        raise UserError(f"the log of {task!r} goes back to step {steps[i + 1]:g}; keep its last run")
    for i in np.flatnonzero(apart > 2 * np.median(apart)):
        raise UserError(f"the log of {task!r} has a gap from step {steps[i]:g} to {steps[i + 1]:g}; train it again")
    share = steps / steps[-1]
    a, c = log_curve(share, losses)
    values = (*(_slope_at(p / 100, share, losses) for p in POSITIONS), a, math.log(c))
    return dict(zip(CURVE, map(float, values)))


def log_curve(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(a, c) of the least squares fit y = a ln(c x + 1) + b to n points, 1 <= c <= n.

    Below 1 the curve is nearly straight and only the product of a and c is known; above n it bends before the first
    point and only a and the level are.
    """

    def unexplained(log_c: float) -> float:
        u = np.log1p(math.exp(log_c) * x)
        return float(np.sum((y - y.mean() - _slope(u, y) * (u - u.mean())) ** 2))

    grid = np.linspace(0, math.log(len(x)), 41)  # there can be several minima
    best = int(np.argmin([unexplained(log_c) for log_c in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, 40)])
    c = math.exp(minimize_scalar(unexplained, bounds=around, method="bounded", options={"xatol": 1e-9}).x)
    return _slope(np.log1p(c * x), y), c


def pair_table(
    features: Mapping[str, Mapping[str, float]], pairs: Iterable[tuple[str, str]] | None = None
) -> DataFrame:
    """A row for each pair (main, aux), of all tasks unless `pairs` says which; columns as `main/size`, `ratio/oov`.

    Raises:
        UserError: A pair names a task without features, or a task lacks a finite value of a feature that the first has.
    """
    names, pairs = list(next(iter(features.values()), {})), list(permutations(features, 2) if pairs is None else pairs)
    for task, values in features.items():
        if bad := [name for name in names if not math.isfinite(values.get(name, math.nan))]:
            raise UserError(f"feature {bad[0]!r} of task {task!r} is missing or no number; compute it or leave it out")
    if unknown := [task for pair in pairs for task in pair if task not in features]:
        raise UserError(f"there are no features of task {unknown[0]!r}; known are {', '.join(features)}")
    m_PF, a_PF = (np.array([[features[pair[side]][name] for name in names] for pair in pairs]) for side in (0, 1))
    both_PF = np.abs(m_PF) + np.abs(a_PF)
    ratio_PF = np.divide(m_PF - a_PF, both_PF, out=np.zeros_like(both_PF), where=both_PF > 0)
    index = MultiIndex.from_tuples(pairs, names=["main", "aux"])
    return DataFrame(np.hstack([m_PF, a_PF, ratio_PF]), index, [f"{role}/{name}" for role in ROLES for name in names])


def _divergence(first: Counter, second: Counter) -> float:
    words = sorted(first | second)
    p, q = (np.array([counts[word] for word in words]) / counts.total() for counts in (first, second))
    return float((rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum() / 2)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the least squares line."""
    apart = x - x.mean()
    return float(apart @ y / (apart @ apart))


def _slope_at(place: float, x: np.ndarray, y: np.ndarray) -> float:
    near = np.argsort(np.abs(x - place), kind="stable")[: max(5, len(x) // 10)]
    return _slope(x[near], y[near])
