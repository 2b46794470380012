"""The published gains come out of the original logs, cell by cell; the tables beside them are written."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from fastmtl.errors import UserError
from tests.helpers.scripts import script


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return script("task_relations/study.py")


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
