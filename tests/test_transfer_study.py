"""The study of transfer efficiency: what is added to the primary, and the numbers of its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastmtl.data.sources.generated import sample_tasks
from fastmtl.tasks import TaskSpec
from tests.helpers.scripts import EXPERIMENTS, script


def texts(task: TaskSpec, split: str) -> list[str]:
    assert task.source is not None
    return [row["text"] for batch in task.source.batches(task, split) for row in batch.to_pylist()]


def test_the_rows_added_to_the_primary_are_those_that_are_relevant_and_have_its_labels() -> None:
    added = script("transfer/added.py")
    plain, more = sample_tasks(size=0.5), added.sample_with_added(size=0.5)
    own, *others = plain
    same = [task for task in others if task.name in ("mails", "calls", "forum", "bot")]
    flagged = [
        row["text"] for task in same for batch in task.source.batches(task, "train")  # type: ignore[union-attr]
        for row in batch.to_pylist() if row["relevant"]
    ]  # fmt: skip
    assert len(flagged) > 50
    assert texts(more[0], "train") == [*texts(own, "train"), *flagged]
    assert texts(more[0], "validation") == texts(own, "validation")
    assert more[0].content != own.content
    assert [task.content for task in more[1:]] == [task.content for task in others]


def test_a_ratio_of_means_lies_within_its_interval_and_far_from_zero_it_is_near_the_delta_method() -> None:
    study, rng = script("transfer/study.py"), np.random.default_rng(0)
    under = 10 + rng.normal(0, 0.1, 200)
    over = 0.9 * under + rng.normal(0, 0.1, 200)
    value, low, high = map(float, study.ratio(over, under).replace("[", "").replace("]", "").replace(",", "").split())
    assert (value, low, high) == (0.9, pytest.approx(0.9, abs=0.011), pytest.approx(0.9, abs=0.011))
    assert study.ratio(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.5, 1.0])).endswith("(unbounded)")
    covered = 0
    for _ in range(400):  # of five seeds, whose noise is a third of what the rows are worth
        under = 3 + rng.normal(0, 1, 5)
        parts = study.ratio(0.5 * under + rng.normal(0, 1, 5), under)
        inside = [float(part.strip("[],")) for part in parts.split()[1:]] if "unbounded" not in parts else [-9, 9]
        covered += inside[0] <= 0.5 <= inside[1]
    assert covered / 400 == pytest.approx(0.95, abs=0.04)


def test_cells_are_asked_for_once_and_with_options_that_exist(tmp_path: Path) -> None:
    study = script("transfer/study.py")
    plan: dict[str, Any] = yaml.safe_load((EXPERIMENTS / "transfer/arms.yaml").read_text())
    asked = list(study.cells(plan, [*plan["tasks"], *plan["searched"]], plan["arms"]))
    assert len({(cell.task, cell.arm, cell.seed) for cell in asked}) == len(asked)
    assert {cell.seed for cell in asked} == set(range(plan["seeds"]))
    few = [cell for cell in asked if cell.task == "sample" and cell.seed == 0]
    for cell in few[::4]:
        if "added" not in cell.arm:
            study.compose(*plan["base"], *cell.overrides, f"paths.output={tmp_path}")


def test_the_report_has_a_row_for_each_arm_that_has_run(tmp_path: Path) -> None:
    study = script("transfer/study.py")
    plan = yaml.safe_load((EXPERIMENTS / "transfer/arms.yaml").read_text())
    (tmp_path / "out/sst2").mkdir(parents=True)
    scores = {study.ALONE: 0.70, "none": 0.69, study.ADDED: 0.80, "oracle, shared, 2e-5": 0.79}
    for seed in (0, 1):
        for arm, score in scores.items():
            one = {"task": "sst2", "arm": arm, "seed": seed, "metric": "accuracy", "score": score + seed / 100}
            path = tmp_path / f"out/sst2/{arm}-{seed}.json".replace(" ", "")
            path.write_text(json.dumps({**one, "relevant": 1.0 if "oracle" in arm else None}))
    study.report(plan, tmp_path / "out", tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "79.5 ± 0.7" in text
    assert "0.90 [0.90, 0.90]" in text
    assert len(json.loads((tmp_path / "results.json").read_text())) == 8
