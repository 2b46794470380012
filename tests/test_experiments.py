"""The studies' tables and figures can be made from any finished sweep of their arms."""

import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fastmtl.cli.compose import values
from fastmtl.data import tagging
from fastmtl.errors import UserError
from tests.helpers.cli import run_cli
from tests.helpers.scripts import EXPERIMENTS, script
from tests.reporting.test_study import plain


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    arms = "selection=none,random,feature_similarity,full"
    ran = run_cli(folder, "-m", "debug=smoke", arms, "seed=0,1", f"paths.output={folder}")
    assert ran.returncode == 0, ran.stderr
    return next(folder.glob("sweeps/*/*"))


@pytest.mark.slow
def test_the_sample_study_writes_its_table_and_figure(sweep: Path, tmp_path: Path) -> None:
    script("sample_arms/figure.py").main(sweep, tmp_path)
    assert "feature_similarity" in (tmp_path / "results.md").read_text()
    assert "full (" in (tmp_path / "figure.svg").read_text()


@pytest.mark.slow
def test_the_proxy_economy_compares_every_shortcut_with_the_full_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = script("proxy_economy/study.py")
    one_layer = ["+encoder@proxy.encoder=tiny", "proxy.encoder.layers=1"]
    cascade = ["scoring.cascade=[small,large]", "scoring.levels.small.layers=1"]
    nothing_changed = ["trainer=cpu"]
    ways = {"1 layer": one_layer, "cascade": cascade, "the same": nothing_changed}
    monkeypatch.setattr(study, "SHORTCUTS", ways)
    base = ["data=sample", "encoder=tiny", "data.rows_per_task=60", "proxy.examples_per_task=20", "proxy.fit.epochs=1",
            f"paths.output={tmp_path}"]  # fmt: skip
    study.main(base, ["chats"], [10, 40], seeds=2, out=tmp_path)
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert {cell["way"] for cell in cells} == {"full, another seed", *ways}
    same = [cell for cell in cells if cell["way"] == "the same"]
    assert all((cell["overlap"], cell["flops"]) == (1.0, 1.0) for cell in same)
    assert all(cell["flops"] < 1 for cell in cells if cell["way"] == "1 layer")
    assert all(0 <= cell["audit"]["low"] <= 1 for cell in cells if cell["way"] == "cascade")
    assert "random rows" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_the_autosem_study_reports_what_has_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = script("autosem/study.py")
    study.smoke()
    real = study.GLUE
    study.ARMS["later"] = ["selection=random", "budget=9"]
    for part, primaries in (("sample", []), ("glue", ["chats"])):
        arms = {name: study.ARMS[name] for name in ("none", "AutoSeM")}
        with monkeypatch.context() as only:
            only.setattr(study, "ARMS", arms)
            study.main(part, tmp_path, real, primaries, tmp_path)
    study.RUNS["3 rounds"] = (["bandit.rounds=3"], range(3))  # neither a third seed nor the last arm is there
    study.main("report", tmp_path, real, ["chats"], tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert [int(n) for n in re.findall("after (.) rounds", text)] == [3, 4]
    assert len(re.findall("related tasks in . of 2 seeds", text)) == 2
    assert "| AutoSeM" in text
    assert "later" not in text
    kept = json.loads((tmp_path / "results.json").read_text())
    assert len(kept["mixing"]["chats"]["trials"]) == 2
    assert "chats" in (tmp_path / "posteriors_chats.svg").read_text()
    study.main("report", tmp_path / "elsewhere", real, ["chats"], tmp_path)  # without artifacts: all is kept
    assert json.loads((tmp_path / "results.json").read_text()) == kept
    assert (tmp_path / "results.md").read_text() == text


def test_the_autosem_study_counts_the_seeds_whose_best_two_tasks_are_related() -> None:
    study = script("autosem/study.py")

    def bandit(*best: str) -> dict[str, Any]:
        arms = ["chats", *study.KIN, "photos", "diary"]
        utilities = {"chats": 0.9} | {
            name: 0.8 if name in best else 0.3 for name in arms[1:]
        }  # the primary does not count
        return {"arms": arms, "utilities": utilities, "reference": 0.5, "wall_s": 1.0}

    found = {"0": bandit("mails", "calls"), "1": bandit("mails", "photos"), "2": bandit("floors", "calls"),
             "3": bandit("bot", "mails")}  # fmt: skip
    text = study.sample_table(found)
    assert text.endswith("The best two (bold) are related tasks in 2 of 4 seeds.")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[:6]]
    assert [head for head, cell in zip(rows[0], rows[3]) if "**" in cell] == ["mails (related)", "photos (unrelated)"]


def _pair(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["arm"], row["reference"], row["budget"]


@pytest.mark.slow
def test_when_it_pays_runs_in_parts_and_reports_what_has_finished(tmp_path: Path) -> None:
    study = script("when_it_pays/study.py")
    output, artifacts = tmp_path / "output", tmp_path / "artifacts"
    plan = study.read_plan("smoke", None)
    study.main(None, output, artifacts)
    told = json.loads((output / "report" / "results.json").read_text())
    cells = pd.DataFrame(told["cells"])
    assert set(cells["selection"]) == {"none", "primary_only", "random", "feature_similarity", "oracle"}
    chosen = cells[cells["selection"].isin(["random", "feature_similarity"])]
    assert chosen.groupby(["share", "budget"])["seed"].nunique().eq(plan["seeds"]).all()
    assert chosen.loc[chosen["share"] == 1.0, "precision_at_budget"].eq(1).all()
    assert cells.loc[cells["selection"] == "oracle", "precision_at_budget"].eq(1).all()
    assert sorted(cells.loc[cells["selection"] == "oracle", "aux_rows"].unique()) == [4, 6]  # 6 of 60 are related
    alone = cells[cells["selection"] == "primary_only"].groupby("seed")["score"]
    assert alone.nunique().eq(1).all()  # one cell for all shares
    assert {(row["arm"], row["reference"]) for row in told["compared"]} == set(study.report.GAINS)
    assert len(told["compared"]) == len(plan["shares"]) * len(plan["budgets"]) * len(study.report.GAINS)
    assert all(row["covers"] == "seeds and rows" for row in told["compared"])
    assert "chosen - random" in (output / "report" / "figure.svg").read_text()
    one = {_pair(row): row for row in told["compared"] if row["share"] == 0.1}  # the one share that is averaged
    for row in told["averaged"]:
        assert [row[key] for key in ("mean", "low", "high", "p")] == pytest.approx(
            [one[_pair(row)][key] for key in ("mean", "low", "high", "p")]
        )

    trained = {path: path.stat().st_mtime for path in artifacts.glob("*/*")}
    (output / "sst2-0.1-1.json").unlink()
    study.main(None, output, artifacts, "report")  # a seed has not finished
    kept = json.loads((output / "report" / "results.json").read_text())
    assert {row["share"] for row in kept["compared"]} == {1.0}
    study.main(None, output, artifacts)
    assert {path: path.stat().st_mtime for path in artifacts.glob("*/*")} == trained
    assert json.loads((output / "report" / "results.json").read_text()) == told
    with pytest.raises(UserError, match="'rte' is not studied; choose from sst2"):
        study.read_plan("smoke", "rte")


@pytest.mark.slow
def test_the_parts_of_when_it_pays_compose_and_have_names_of_their_own(tmp_path: Path) -> None:
    study = script("when_it_pays/study.py")
    plan = study.read_plan("glue", None)
    parts = [*study.parts(plan), *study.headroom(plan)]
    assert len({part.name for part in parts}) == len(parts)
    root = study.smoke.write(tmp_path)
    first = {arm: (part, own) for part in reversed(parts) for arm, own in part.arms.items()}
    for part, own in first.values():
        assert values(*plan["base"], f"data.root={root}", *part.pile, *own).primary in plan["primaries"]


def test_the_rule_of_one_standard_deviation() -> None:
    rule = script("single_multi/verdicts.py").one_sd_rule
    single = [0.50, 0.52, 0.54]  # 0.52, sd 0.02
    assert rule(single, [0.545]) == "IMPROVED"
    assert rule(single, [0.50, 0.53]) == "NEUTRAL"
    assert rule(single, [0.49]) == "DROPPED"
    with pytest.raises(UserError, match="two or more seeds"):
        rule([0.5], [0.6, 0.7])


def test_verdicts_are_a_table_of_primaries_with_two_single_task_runs() -> None:
    cells = [plain(selection="none", budget=None, seed=seed, headline=0.5 + seed / 100) for seed in range(2)]
    cells += [plain(selection="full", budget=None, seed=seed, headline=0.6) for seed in range(2)]
    part = script("single_multi/verdicts.py").part([*cells, plain(primary="mrpc", id="x"), plain(headline=0.5)])
    (table,) = part.tables
    assert list(table.headers) == ["selection", "budget", "rte (accuracy)"]
    assert [list(row) for row in table.rows] == [["random", "60", "-0.5 NEUTRAL"], ["full", "", "+9.5 IMPROVED"]]
    assert not script("single_multi/verdicts.py").part([plain()]).tables


def test_every_study_has_all_scales_and_options_that_exist() -> None:
    study = script("study.py")
    options = {path.stem for path in (EXPERIMENTS.parent / "conf" / "selection").iterdir()}
    for name in study.names():
        told = study.load(name)
        assert {"smoke", "cpu", "full"} <= set(told)
        for scale in ("smoke", "cpu", "full"):
            assert study.sweeps(name, scale, Path("glue"))
            assert all(set(sweep["selection"]) <= options for sweep in told[scale])
        assert set(told.get("references", ())) <= options


def test_a_study_says_what_it_lacks() -> None:
    study = script("study.py")
    for arguments, said in (
        (("nope", "smoke", None), "study 'nope' is unknown; choose from budget, "),
        (("budget", "huge", None), "SCALE='huge' is unknown; choose from smoke, cpu, full"),
        (("budget", "cpu", None), "pass GLUE=FOLDER"),
    ):
        with pytest.raises(UserError, match=said):
            study.sweeps(*arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("own_environment")
def test_every_study_runs_at_the_smallest_scale_and_again_finds_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = script("study.py")
    monkeypatch.syspath_prepend(EXPERIMENTS)  # as where the program runs
    for name in study.names():
        study.main(name, "smoke", None, tmp_path)
        out = tmp_path / "reports" / f"{name}-smoke"
        assert "<svg" in (out / "report.html").read_text()
        assert (out / "tables.tex").stat().st_size
    assert "What the proxy sees" in (tmp_path / "reports" / "tsne-smoke" / "report.html").read_text()
    artifacts = {path: path.stat().st_mtime for path in (tmp_path / "artifacts").glob("*/*")}
    report = (out / "report.md").read_text()
    capsys.readouterr()
    study.main(name, "smoke", None, tmp_path)
    assert {path: path.stat().st_mtime for path in (tmp_path / "artifacts").glob("*/*")} == artifacts
    assert (out / "report.md").read_text() == report


def test_the_matrices_of_gains_compose_at_every_scale(tmp_path: Path) -> None:
    gains = script("task_relations/gains.py")
    for name, scales in gains.PLANS.items():
        for scale in scales:
            assert values(*gains.overrides(name, scale, tmp_path)).relations.batches >= 100
    with pytest.raises(UserError, match="pass GLUE=FOLDER"):
        gains.overrides("glue", "cpu", None)
    with pytest.raises(UserError, match="SCALE='full' is unknown for tagging"):
        gains.overrides("tagging", "full", None)


def test_pairs_are_told_as_the_tagging_suite_was_built(tmp_path: Path) -> None:
    gains = script("task_relations/gains.py")
    names = [task.name for task in tagging.SPECS]
    rows = [(main, aux, 1.0 if tagging.is_helpful(main, aux) else -1.0) for main, aux in permutations(names, 2)]
    pd.DataFrame(rows, columns=["main", "aux", "gain"]).to_csv(tmp_path / "gains.csv", index=False)
    sorts = {**dict.fromkeys(tagging.TEACHERS, 0.0), **dict.fromkeys(tagging.PUPILS, 1.0)}
    features = pd.DataFrame({"size": {name: sorts.get(name, 2.0) for name in names}})
    features.rename_axis("task").to_csv(tmp_path / "features.csv")
    table = {row[0]: row[1:] for row in gains.as_built(tmp_path).rows}
    assert table["the gains that were measured"][0] == "1.000"
    assert float(table["features"][0]) > float(table["majority class"][0]) > 0.5 > float(table["always gain"][0])
