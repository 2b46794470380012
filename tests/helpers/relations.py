"""The relations between four made-up tasks, of which one helps all and an affinity knows it."""

from __future__ import annotations

from itertools import permutations

import pandas as pd

from fastmtl.reporting.relations import Relations

TASKS = ("a", "b", "c", "d")
HELP = {"a": 0.04, "b": 0.01, "c": -0.02, "d": -0.05}
"""What each adds to the score of another, as an auxiliary task."""


def made_up() -> Relations:
    """What pairs of the four tasks were seen to gain, and an affinity that knows it beside its opposite."""
    seeds = (0, 1, 2)
    told = {"metric": "accuracy", "rows": 1200}
    single = [{"task": task, "seed": s, "score": 0.5 + s / 100, **told} for task in TASKS for s in seeds]
    pairs = [
        {"task": main, "other": aux, "seed": s, "score": 0.5 + s / 100 + HELP[aux] * (1 + s / 10), **told}
        for main, aux in permutations(TASKS, 2)
        for s in seeds
    ]
    features = {task: {"size": 10.0 * i, "oov": HELP[task]} for i, task in enumerate(TASKS, 1)}
    knows = pd.DataFrame(dict.fromkeys(TASKS, HELP)).T
    costs = pd.DataFrame(
        {"all pairs": {"flops": 2e12, "seconds": 30.0}, "affinity: x": {"flops": float("nan"), "seconds": 1}}
    ).T
    return Relations(pd.DataFrame(single), pd.DataFrame(pairs), features, {"knows": knows, "not": -knows}, costs)
