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


def test_the_answer_comes_first_then_the_picture_then_what_it_rests_on(tmp_path: Path) -> None:
    written(study(tmp_path / "mine", ("rte",), seeds=5, leakage={
        "dropped": True, "rows": {"exact": 3, "near": 1}, "held_back": {"train": 1, "validation": 2}
    }), tmp_path / "out")  # fmt: skip
    text = (tmp_path / "out" / "report.md").read_text().split("\n\n")
    assert text[1].startswith("rte: use `similar`, budget 60: 10.0 points above `none` (95 % interval ")
    assert "for 0.006 TFLOP in total, 1 times as much" in text[1]
    assert text[2] == "![Score against total compute](figures/rte_pareto.svg)"
    assert (tmp_path / "out" / "figures" / "rte_pareto.svg").exists()
    assert "3 exact, 1 near (of 1 held-out, 2 validation rows); left out." in text[3]
    assert text[4].startswith("Intervals cover what a seed changes (initialisation, order of rows, held-out rows)")
    assert text[4].endswith("the primary's training rows are the same for every seed.")
    page = (tmp_path / "out" / "report.html").read_text()
    order = [page.index(one) for one in ("use <code>similar</code>", "<svg", "Auxiliary rows that match", "<table>")]
    assert order == sorted(order)


def test_several_primaries_open_with_all_answers(tmp_path: Path) -> None:
    written(study(tmp_path / "mine", seeds=5), tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text().split("\n\n")
    assert text[0] == "## In short"
    assert [line.split(",")[0] for line in text[1:3]] == ["mrpc: use `similar`", "rte: use `similar`"]


def test_what_seeds_cover_says_when_the_primary_is_drawn_anew(tmp_path: Path) -> None:
    folder = study(tmp_path / "mine", ("rte",), seeds=3)
    for path in folder.glob("*.json"):
        cell = json.loads(path.read_text())
        path.write_text(json.dumps(cell | {"primary_draw": f"draw {cell['seed']}"}))
    text = written(folder, tmp_path / "out")
    assert "held-out rows, the draw of the primary's rows) and the validation rows." in text


def test_seeds_that_arms_do_not_share_are_named(tmp_path: Path) -> None:
    folder = study(tmp_path / "mine", ("rte",), seeds=3)
    for seed in (1, 2):
        (folder / f"rte-random-{seed}.json").unlink()
    text = written(folder, tmp_path / "out")
    assert "No test, for want of two common seeds: random - none, similar - random." in text
    assert "3 seeds, too few to recommend anything (5 at least, as with seed=range(5)" in text


def test_a_study_of_sizes_has_a_section_a_size_and_a_table_of_gains(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for rows in (1000, 100):
        study(folder, ("rte",), seeds=3, primary_rows=rows, pool=f"pool {rows}")
        for path in folder.glob("rte-*.json"):
            path.rename(folder / f"{rows} {path.name}")
            cell = json.loads((folder / f"{rows} {path.name}").read_text())
            (folder / f"{rows} {path.name}").write_text(json.dumps(cell | {"id": f"{rows} {cell['id']}"}))
    text = written(folder, tmp_path / "out")
    table = section(text, "Gain x100 over none by training rows of rte")
    assert row(table, "selection")[2:] == ["100", "1,000"]
    assert row(table, "similar")[2].startswith("**+10.0 [")
    assert row(section(text, "Scores x100 of all primaries"), "selection")[2:] == [
        "rte_100 (accuracy)", "rte_1000 (accuracy)",
    ]  # fmt: skip
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} >= {"rte_100_pareto.svg"}
    assert (tmp_path / "out" / "tables" / "all_gain_x100_over_none_by_training_rows_of_rte.csv").exists()
    other = plain(id="other", primary_rows=100, pool="another pool")
    (folder / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="rte has cells of several values of pool"):
        written(folder, tmp_path / "out")


def test_speed_up_and_leakage_have_columns(tmp_path: Path) -> None:
    costs = {"leakage": (7.0, 0), "multitask": (4.0, 4e9), "finetune": (2.0, 2e9)}
    folder = study(tmp_path / "mine", ("rte",), seeds=2)
    for seed in range(2):
        cost = costs | {"multitask": (40.0, 40e9)}
        cell = plain(id=f"full {seed}", selection="full", budget=None, seed=seed, headline=0.6, auxiliary_rows=900,
                     stages=[{"stage": name, "key": "0", "path": "gone", "hit": True, "wall_s": wall, "flops": flops}
                             for name, (wall, flops) in cost.items()])  # fmt: skip
        (folder / f"full {seed}.json").write_text(json.dumps(cell))
    text = written(folder, tmp_path / "out")
    table = section(text, "Cost by stage: seconds / GFLOP, as first computed")
    assert row(table, "similar")[-1] == "7x"  # 42 GFLOP over 6
    assert row(table, "none")[-1] == row(table, "random")[-1] == ""
    assert row(table, "full")[row(table, "selection").index("leakage")] == "7.0"
    needed = section(text, "Smallest budget that reaches full")
    assert row(needed, "similar")[1:3] == ["60", "6.7"]
    assert row(needed, "none")[1] == "none here"
    assert row(needed, "full")[1:3] == ["900", "100.0"]
