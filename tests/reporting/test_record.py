"""`fastmtl.record` is the one way into a study, from Python as from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fastmtl
from fastmtl.cli.main import main
from fastmtl.errors import UserError
from fastmtl.reporting.frame import frame
from tests.helpers.cells import SMALL
from tests.helpers.cli import run_cli

CELL = [*SMALL, "selection=none", "trainer=cpu", "multitask.fit.precision=fp32", "finetune.fit.precision=fp32"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a cell of the command line, one of a notebook, and the former once more, from a notebook."""
    folder = tmp_path_factory.mktemp("record")
    ran = run_cli(folder, *CELL, "seed=0", "study=mine", "logger=none", f"paths.output={folder}")
    assert ran.returncode == 0, ran.stderr
    for seed in (1, 0):
        fastmtl.record(fastmtl.compose(*CELL, f"seed={seed}", f"paths.output={folder}"), study="mine", output=folder)
    return folder


def test_a_notebook_adds_a_cell_to_a_study_of_the_command_line(output: Path) -> None:
    cells = {path.stem: json.loads(path.read_text()) for path in (output / "studies/mine").glob("*.json")}
    assert sorted(cell["seed"] for cell in cells.values()) == [0, 1]  # the same cell is the same file, however made
    first, second = cells.values()
    assert first["config"] == second["config"]
    assert list(first) == list(second)
    assert all(cell["id"] == name for name, cell in cells.items())
    assert {cell["study"] for cell in cells.values()} == {"mine"}


@pytest.mark.usefixtures("own_environment")
def test_a_report_reads_both_kinds_together(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "mine", "--output", str(output)]) == 0
    assert "written to" in capsys.readouterr().out
    (head, *rows) = (output / "reports/mine/cells.csv").read_text().splitlines()
    arm, seed = (head.split(",").index(name) for name in ("arm", "seed"))
    assert sorted((row.split(",")[arm], row.split(",")[seed]) for row in rows) == [("none", "0"), ("none", "1")]


def test_passes_over_the_primary_are_the_epochs_of_both_stages(output: Path) -> None:
    longer = [*CELL, "seed=0", "selection=primary_only", "multitask.fit.epochs=3", "finetune.fit.epochs=2"]
    alone = fastmtl.record(fastmtl.compose(*longer, f"paths.output={output}"))
    first = fastmtl.record(fastmtl.compose(*CELL, "seed=0", "finetune.fit.epochs=1", f"paths.output={output}"))
    other = fastmtl.record(fastmtl.compose(*CELL, "seed=1", "finetune.fit.epochs=1", f"paths.output={output}"))
    assert frame([alone, first])["passes"].tolist() == [1.0, 5.0]
    assert alone["primary_rows"] == first["primary_rows"]
    assert alone["primary_draw"] == first["primary_draw"] == other["primary_draw"]  # seeds draw the same primary


def test_without_a_study_nothing_is_written(output: Path, tmp_path: Path) -> None:
    result = fastmtl.record(fastmtl.compose(*CELL, "seed=1", f"paths.output={output}"), output=tmp_path)
    assert result["study"] is None
    assert not list(tmp_path.iterdir())


def test_a_wrong_name_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    experiment = fastmtl.compose(*CELL, f"paths.output={tmp_path}")
    with pytest.raises(UserError, match=r"^study='a/b' cannot name a folder; use letters"):
        fastmtl.record(experiment, study="a/b", output=tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))
