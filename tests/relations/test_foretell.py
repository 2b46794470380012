"""What is said of the folder of four made-up tasks, of which one helps all and an affinity knows it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from fastmtl.errors import UserError
from fastmtl.reporting.relations import Relations, write
from tests.helpers.relations import made_up
from tests.helpers.scripts import script


@pytest.fixture
def foretell() -> ModuleType:
    return script("task_relations/foretell.py")


@pytest.fixture
def found() -> Relations:
    return made_up()


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
