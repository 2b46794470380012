"""A study's folder of results written by hand -> its report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmtl.cli.main import main
from fastmtl.errors import UserError
from fastmtl.reporting import report
from tests.reporting.test_compare import write_hits
from tests.reporting.test_study import plain, row, section


def study(folder: Path, primaries: tuple[str, ...] = ("rte", "mrpc"), seeds: int = 3, **more: Any) -> Path:
    """none, random and similar; similar is 10 points better, give or take one, on 1,000 rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for primary in primaries:
        for seed in range(seeds):
            for i, (arm, budget) in enumerate((("none", None), ("random", 60), ("similar", 60))):
                score = 0.5 + 0.05 * i + 0.001 * ((seed * (i + 1)) % 5)
                cell = plain(
                    id=f"{primary}-{arm}-{seed}", primary=primary, selection=arm, budget=budget, seed=seed,
                    headline=score,
                    metrics={"validation": {"accuracy": score, "loss": 0.7}}, command=f"fastmtl seed={seed}",
                ) | more  # fmt: skip
                predictions = folder.parent / "predictions" / cell["id"]
                if not predictions.exists():
                    write_hits(predictions, np.arange(1000) < round(1000 * score))
                cell["stages"] = [
                    stage | {"path": str(predictions)} if stage["stage"] == "finetune" else stage
                    for stage in cell["stages"]
                ]
                (folder / f"{cell['id']}.json").write_text(json.dumps(cell))
    return folder


def written(folder: Path, out: Path, where: tuple[str, ...] = (), **more: Any) -> str:
    return report.write(report.read(folder, where), out, "mine", **more)


def test_a_report_is_a_page_texts_tables_and_figures(tmp_path: Path) -> None:
    said = written(study(tmp_path / "mine", seeds=5), tmp_path / "out")
    out = tmp_path / "out"
    assert str(out / "report.html") in said
    page = (out / "report.html").read_text()
    for text in ("<svg", "fastmtl seed=4", "rte: accuracy on 277 validation rows", "Scores x100 of all primaries"):
        assert text in page
    text = (out / "report.md").read_text()
    assert row(section(text, "Scores x100 of all primaries"), "none")[2:] == ["50.2 ± 0.2", "50.2 ± 0.2"]
    assert row(section(text, "Scores x100 of all primaries"), "similar")[2] == "**60.2 ± 0.2**"
    assert row(section(text, "By one standard deviation"), "similar")[2:] == ["+10.0 IMPROVED", "+10.0 IMPROVED"]
    assert "rte: use `similar`, budget 60: 10.0 points above `none`" in text
    assert (out / "tables.tex").read_text().count(r"\begin{table}") == len(list((out / "tables").iterdir()))
    assert {path.name for path in (out / "figures").iterdir()} >= {"rte_pareto.svg", "mrpc_budget_curves.svg"}
    assert len((out / "cells.csv").read_text().splitlines()) == 31


@pytest.mark.slow
def test_equal_cells_make_equal_files(tmp_path: Path) -> None:
    folder = study(tmp_path / "mine", seeds=2)
    for out in ("a", "b"):
        written(folder, tmp_path / out)
    files = [sorted(path for path in (tmp_path / out).rglob("*.*")) for out in ("a", "b")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_one_seed_is_reported_without_a_test(tmp_path: Path) -> None:
    said = written(study(tmp_path / "mine", ("rte",), seeds=1), tmp_path / "out")
    assert "1 seed, too few to recommend anything" in said
    assert "Paired differences" not in said
    assert "All primaries" not in (tmp_path / "out" / "report.html").read_text()


def test_other_references(tmp_path: Path) -> None:
    said = written(study(tmp_path / "mine", ("rte",)), tmp_path / "out", references=["similar"])
    assert row(section(said, "Paired differences"), "random - similar")[2:4] == ["3", "**-4.9**"]


def test_what_does_not_compare_is_refused_and_a_filter_keeps_one(tmp_path: Path) -> None:
    folder = study(tmp_path / "mine", ("rte",))
    other = plain(protocol="paper", id="other")
    (folder / "other.json").write_text(json.dumps(other))
    with pytest.raises(
        UserError, match=r"rte has cells of several values of protocol: paper, strict; .*--where protocol"
    ):
        written(folder, tmp_path / "out")
    assert "protocol strict" in written(folder, tmp_path / "out", where=("protocol=strict",))
    with pytest.raises(UserError, match="no cell of study 'mine' has primary=cola; leave"):
        written(folder, tmp_path / "out", where=("primary=cola",))
    with pytest.raises(UserError, match="'colour' is unknown; use one of primary"):
        written(folder, tmp_path / "out", where=("colour=red",))


@pytest.mark.usefixtures("own_environment")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path / "studies" / "mine", ("rte",), seeds=2)
    assert main(["report", "mine", "--output", str(tmp_path)]) == 0
    assert "written to" in capsys.readouterr().out
    assert (tmp_path / "reports" / "mine" / "report.html").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["report", "yours", "--output", str(tmp_path)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"fastmtl report: study 'yours' has no finished cells .*; there are mine\n", error)
