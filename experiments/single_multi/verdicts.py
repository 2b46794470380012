"""FastMTL's reading of a study's scores: what changed by more than one standard deviation of the single-task runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastmtl.errors import UserError
from fastmtl.reporting.frame import arms, frame, settings
from fastmtl.reporting.table import Part, Table, percent

NOTE = (
    "Mean change x100 against single-task training; IMPROVED or DROPPED if it is more than one standard deviation of "
    "the single-task runs (FastMTL). No test: of arms without any effect it calls many IMPROVED or DROPPED."
)


def one_sd_rule(single: ArrayLike, multi: ArrayLike) -> Literal["IMPROVED", "NEUTRAL", "DROPPED"]:
    """Whether the mean changed by more than one standard deviation of the single-task runs (n,)."""
    single, multi = np.asarray(single, float), np.asarray(multi, float)
    if len(single) < 2:
        raise UserError(f"the rule of one sd needs two or more seeds, not {len(single)}; run more, as 'seed=range(5)'")
    change, sd = multi.mean() - single.mean(), single.std(ddof=1)
    return "IMPROVED" if change > sd else "DROPPED" if change < -sd else "NEUTRAL"


def part(results: Sequence[dict[str, Any]], smoke: bool = False) -> Part:
    """A row an arm and budget, a column a primary that has two or more single-task runs."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    names = []
    for setting, cells in settings(frame(results)):
        single = cells[cells["selection"] == "none"]["score"]
        if len(single) < 2:
            continue
        names.append(f"{setting['primary']} ({setting['metric']})")
        for arm, budget, group in arms(cells[cells["selection"] != "none"]):
            change = percent(group["score"].mean() - single.mean(), "+.1f")
            row = found.setdefault((arm, str(budget).replace("<NA>", "")), {})
            row[names[-1]] = f"{change} {one_sd_rule(single, group['score'])}"
    rows = [[*key, *(row.get(name, "") for name in names)] for key, row in found.items()]
    table = Table("By one standard deviation", ["selection", "budget", *names], rows, note=NOTE)
    return Part("By the rule of one standard deviation", tables=[table] if rows else [])
