"""What is said of the folder of four made-up tasks, of which one helps all and an affinity knows it."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from fastmtl.errors import UserError
from fastmtl.reporting.relations import Relations, write
from tests.helpers.scripts import script

TASKS = ("a", "b", "c", "d")
HELP = {"a": 0.04, "b": 0.01, "c": -0.02, "d": -0.05}
"""What each adds to the score of another, as an auxiliary task."""


@pytest.fixture
def foretell() -> ModuleType:
    return script("task_relations/foretell.py")


@pytest.fixture
def found() -> Relations:
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


def test_an_affinity_that_knows_has_no_regret_and_the_opposite_all_of_it(
    found: Relations, foretell: ModuleType, tmp_path: Path
) -> None:
    write(found, tmp_path, "made up", "points")
    table, largest = foretell.tables(tmp_path, "points")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["knows"] == ["+1.00 [+nan, +nan]", "+1.00", "0.0", "0.0", "+3.6"]
    assert rows["not"][0].startswith("-1.00")
    assert rows["others"][2] == "0.0"
    assert float(rows["not"][2]) > float(rows["random order"][2]) > 0
    assert set(rows) == {"knows", "not", "others", "size", "features, unseen main task", "random order"}
    assert largest.rows[0][0] == "aux/oov"
    foretell.append(tmp_path, [table, largest])
    assert "What foretells the gains" in (tmp_path / "results.md").read_text()


def test_a_main_task_that_never_changes_is_left_out_and_said(
    found: Relations, foretell: ModuleType, tmp_path: Path
) -> None:
    write(found, tmp_path, "made up", "points")
    gain, x, affinities = foretell.read(tmp_path)
    gain.loc["b"] = 0.0
    table = foretell.agreements(gain, x, affinities, "points")
    assert table.rows[0][:2] == ["knows", "+1.00 [+nan, +nan]"]
    assert "`b` scores the same beside every task" in table.note


def test_two_tasks_without_affinities_allow_nothing_and_the_reason_is_printed(
    found: Relations, foretell: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = Relations(
        found.single[found.single["task"].isin(["a", "b"])],
        found.pairs[found.pairs["task"].isin(["a", "b"]) & found.pairs["other"].isin(["a", "b"])],
        {task: found.features[task] for task in "ab"}, {}, found.costs,
    )  # fmt: skip
    write(few, tmp_path, "two tasks", "points")
    assert not any(table.title == "What foretells the gains" for table in foretell.tables(tmp_path, "points"))
    assert "left out: " in capsys.readouterr().out
    with pytest.raises(UserError, match=r"has no gains\.csv"):
        foretell.read(tmp_path / "nowhere")
