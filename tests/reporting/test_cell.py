"""From a finished experiment, here a hand-made one, to its result, its folder and its log."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from fastmtl.reporting import cell
from fastmtl.selection.rows import Random
from fastmtl.selection.tasks import BestTasks
from fastmtl.store import Artifact

BANDIT = {
    "arms": ["rte", "mnli", "qqp"],
    "utilities": {"rte": 2 / 3, "mnli": 2 / 3, "qqp": 0.5},
    "rounds": [
        {"arm": "qqp", "value": 0.5, "reward": None, "alpha": [2, 1, 1], "beta": [1, 1, 1]},
        {"arm": "mnli", "value": 0.6, "reward": 1.0, "alpha": [2, 2, 1], "beta": [1, 1, 1]},
    ],
}
TRIALS = [
    {"ratio": [1, 1], "value": 0.55, "ask_s": 0.1, "stages": [["finetune", "x"]], "wall_s": 6.0, "flops": 6e9},
    {"ratio": [3, 1], "value": 0.58, "ask_s": 0.1, "stages": [["finetune", "y"]], "wall_s": 6.0, "flops": 6e9},
]
MIXING = {"tasks": ["rte", "mnli"], "ratio": [3, 1], "trials": TRIALS}
FINETUNE = {"validation": {"accuracy": 0.6, "loss": 0.7}, "best_epoch": 1}


def experiment(folder: Path, searches: bool) -> Any:
    def made(stage: str, wall_s: float, flops: float = 0.0, **files: Any) -> Artifact:
        path = folder / stage
        path.mkdir()
        for name, content in files.items():
            (path / f"{name}.json").write_text(json.dumps(content))
        return Artifact(stage, "0", path, {"records": {"wall_s": wall_s, **({"flops": flops} if flops else {})}}, False)

    parts = {
        "pool": made("pool", 100.0),
        "utilities": made("utilities", 8.0, 8e9, bandit=BANDIT) if searches else None,
        "selection": made("selection", 0.5, counts={"mnli": 60, "qqp": 0}),
        "mixing": made("mixing", 6.2, 6e9, mixing=MIXING) if searches else None,
        "multitask": made("multitask", 4.0, 4e9),
        "finetune": made("finetune", 2.0, 2e9, metrics=FINETUNE),
    }
    pool = SimpleNamespace(
        fingerprint="0123456789", task=lambda name: SimpleNamespace(metrics=["accuracy"]),
        split=lambda task, split: np.arange(277), flags_of=lambda rows: None,
        by_task=lambda rows: {"mnli": rows},
    )  # fmt: skip
    plan = SimpleNamespace(name="autosem", selector=BestTasks(threshold=0.6) if searches else Random())
    named = {**parts, "pool": pool}
    return SimpleNamespace(
        primary="rte", budget=60, seed=0, readers=(), singles=(), encoder=SimpleNamespace(name="tiny"),
        protocol=SimpleNamespace(name="strict"),
        selection_plan=plan, selected=lambda: np.arange(60), candidates=lambda: np.arange(90),
        artifacts=lambda stage="finetune": [part for part in parts.values() if part], **named,
    )  # fmt: skip


def test_a_result_has_the_same_keys_with_and_without_searches(tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    found, plain = (
        cell.summarize(experiment(tmp_path / name, searches), {})
        for name, searches in (("with", True), ("without", False))
    )
    assert list(found) == list(plain)
    assert (plain["utilities"], plain["mixing"]) == (None, None)
    assert plain["total"] == {"wall_s": 6.5, "flops": 6e9}
    assert found["utilities"] == BANDIT["utilities"]
    assert found["mixing"] == {
        "tasks": ["rte", "mnli"],
        "ratio": [3, 1],
        "trials": [{"ratio": [1, 1], "value": 0.55}, {"ratio": [3, 1], "value": 0.58}],
    }
    assert found["total"] == {"wall_s": 20.7, "flops": 20e9}  # both trials: one in mixing, one as the cell's own stages


@pytest.mark.parametrize("searches", [True, False])
def test_a_run_leaves_result_report_and_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, searches: bool) -> None:
    job = SimpleNamespace(
        runtime=SimpleNamespace(output_dir=str(tmp_path / "run")), overrides=SimpleNamespace(task=["seed=0"]),
        mode=RunMode.RUN,
    )  # fmt: skip
    monkeypatch.setattr(cell.HydraConfig, "get", lambda: job)
    cfg = OmegaConf.create({"stage": "report", "logger": None, "study": None, "paths": {"keep_weights": True}})
    assert cell.run_cell(experiment(tmp_path, searches), cfg) == 0.6
    report, figure = (tmp_path / "run/report.md").read_text(), tmp_path / "run/figures/cell_posteriors.svg"
    assert ("cell_posteriors.svg" in report) == figure.exists() == searches
    assert ("Utility of each task" in (tmp_path / "run/report.html").read_text()) == searches
    if searches:
        assert "dashed: tasks above 0.6 are chosen" in figure.read_text()
        assert "| 3:1 " in report
    assert json.loads((tmp_path / "run/result.json").read_text())["command"] == "fastmtl seed=0"
