"""From a finished experiment to its result, its folder and its report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.types import RunMode

from fastmtl.cli import cell
from fastmtl.cli.compose import build, values
from fastmtl.reporting.result import summarize
from fastmtl.reporting.tables import UNCOUNTED
from tests.helpers.cells import SMALL

SEARCHES = [
    "selection=autosem", "selection.selector.threshold=0.6", "mixing=autosem_grid", "mixing.trials=2",
    "bandit.rounds=3", "bandit.policy.warmup_rounds=1", "bandit.policy.validation_rows=20", "budget=60",
]  # fmt: skip
PLAIN = ["selection=random", "budget=60"]


def configuration(output: Path, searches: bool) -> Any:
    return values(*SMALL, *(SEARCHES if searches else PLAIN), "trainer=cpu", "logger=none", f"paths.output={output}")


def test_a_result_has_the_same_keys_with_and_without_searches(session_output: Path) -> None:
    searched, plain = (build(configuration(session_output, searches)) for searches in (True, False))
    found, without = summarize(searched), summarize(plain)
    assert list(found) == list(without)
    assert (without["utilities"], without["mixing"]) == (None, None)
    bandit, mixing = searched.utilities(), searched.mixing()
    assert bandit is not None
    assert mixing is not None
    assert found["utilities"] == bandit.read("bandit.json")["utilities"]
    written = mixing.read("mixing.json")
    trials = [{"ratio": one["ratio"], "value": one["value"]} for one in written["trials"]]
    assert len(trials) == 2
    assert found["mixing"] == {"tasks": written["tasks"], "ratio": written["ratio"], "trials": trials}
    # Both trials count: one in `mixing`, one as the cell's own stages; pool, leaks and test split never do.
    for result, more in ((found, ["utilities", "mixing"]), (without, [])):
        stages = [*more, "selection", "multitask", "finetune"]
        counted = [stage for stage in result["stages"] if stage["stage"] not in UNCOUNTED]
        assert sorted(stage["stage"] for stage in counted) == sorted(stages)
        for unit in ("wall_s", "flops"):
            spent = sum(stage.get(unit, 0) for stage in counted)
            assert result["total"][unit] == pytest.approx(spent, abs=1e-3)
    other = next(one for one in written["trials"] if one["ratio"] != written["ratio"])
    assert mixing.records["flops"] == other["flops"] > 0


@pytest.mark.parametrize("searches", [True, False])
def test_a_run_leaves_result_report_and_figure(
    session_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searches: bool
) -> None:
    job = SimpleNamespace(
        runtime=SimpleNamespace(output_dir=str(tmp_path)), overrides=SimpleNamespace(task=["seed=0"]),
        mode=RunMode.RUN,
    )  # fmt: skip
    monkeypatch.setattr(cell.HydraConfig, "get", lambda: job)
    cfg = configuration(session_output, searches)
    experiment = build(cfg)
    headline = cell.run_cell(experiment, cfg)
    assert headline == experiment.finetune().read("metrics.json")["validation"][experiment.task.metrics[0]]
    report, figure = (tmp_path / "report.md").read_text(), tmp_path / "figures/cell_posteriors.svg"
    assert ("cell_posteriors.svg" in report) == figure.exists() == searches
    assert ("Utility of each task" in (tmp_path / "report.html").read_text()) == searches
    if searches:
        assert "dashed: tasks above 0.6 are chosen" in figure.read_text()
        mixing = experiment.mixing()
        assert mixing is not None
        for trial in mixing.read("mixing.json")["trials"]:
            assert f"| {':'.join(map(str, trial['ratio']))} " in report
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["command"] == "fastmtl seed=0"
    assert result == json.loads(json.dumps({**summarize(experiment), "study": None, "command": "fastmtl seed=0"}))
