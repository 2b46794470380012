"""The relations between four made-up tasks, of which one helps all and an affinity knows it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fastmtl.relations.predictor import GainPredictor
from fastmtl.reporting.relations import Relations, matrix, singles, write
from tests.helpers.relations import HELP, made_up


@pytest.fixture
def found() -> Relations:
    return made_up()


def test_gains_in_points_have_their_intervals_and_are_bold_where_these_leave_zero_out(found: Relations) -> None:
    table = matrix(found.gains("points"), "points")
    assert table.rows[0] == ["a", "", "+1.1 ± 0.2", "-2.2 ± 0.5", "-5.5 ± 1.2"]
    assert table.bold == {(r, c) for r in range(4) for c in range(1, 5) if c != r + 1}
    assert "6 of 12 are gains" in table.note
    relative = matrix(found.gains("percent"), "percent")
    assert relative.rows[0][2].startswith("+2.2 ")
    assert singles(found.single).rows[0] == ["a", "accuracy", "51.0 ± 1.0", "1,200"]


def test_a_folder_has_the_numbers_the_figure_and_a_predictor(found: Relations, tmp_path: Path) -> None:
    told = write(found, tmp_path, "made up", "points")
    assert (tmp_path / "results.md").read_text() == told + "\n"
    names = {"results.md", "figure.svg", "scores.csv", "gains.csv", "features.csv", "affinities.csv", "predictor.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert len(pd.read_csv(tmp_path / "scores.csv")) == 4 * 3 + 12 * 3
    assert pd.read_csv(tmp_path / "affinities.csv", index_col=["main", "aux"])["knows"]["b", "a"] == HELP["a"]
    ranked = GainPredictor.load(tmp_path / "predictor.json").rank("d", found.features)
    assert ranked[0][0] == "a"
    assert "nan" not in told.split("### Cost")[1]


def test_what_cannot_be_told_is_said_and_loses_nothing_else(found: Relations, tmp_path: Path) -> None:
    few = Relations(
        found.single[found.single["task"].isin(["a", "b"])],
        found.pairs[found.pairs["task"].isin(["a", "b"]) & found.pairs["other"].isin(["a", "b"])],
        {task: found.features[task] for task in "ab"}, {}, found.costs,
    )  # fmt: skip
    told = write(few, tmp_path, "two tasks", "points")
    assert "2 pairs are too few for 5 folds" in told
    assert not (tmp_path / "predictor.json").exists()
