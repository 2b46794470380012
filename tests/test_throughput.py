"""The benchmark runs end to end, compares the same computation, and says what was reached."""

import importlib
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.helpers.scripts import EXPERIMENTS, script

FOLDER = EXPERIMENTS / "throughput"


MEASURES = {
    "scoring", "training", "top_k", "growth", "sweep", "help", "economy", "gpu", "tokenization", "ranks",
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    for package in ("sentence_transformers", "accelerate"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("bench") / "results.json"
    command = [sys.executable, str(FOLDER / "bench.py"), "--quick"]
    env = {key: value for key, value in os.environ.items() if key != "GLUE_ROOT"}
    subprocess.run([*command, "--out", str(out)], env=env, check=True, capture_output=True)
    assert "numbers mean nothing" in out.with_suffix(".md").read_text()
    return json.loads(out.read_text())


@pytest.mark.slow
def test_every_measure_runs_and_the_report_says_what_was_measured_where(report: dict[str, Any]) -> None:
    assert {"machine", "rows", "quick", "repetitions", "seconds", "measures"} == set(report)
    assert {"cpu", "capabilities", "threads", "torch", "precision"} <= set(report["machine"])
    assert sum(report["rows"]["rows_per_task"].values()) == report["rows"]["rows"]
    assert set(report["measures"]) == MEASURES
    for row in (row for rows in report["measures"].values() for row in rows):
        assert not row["verdict"].startswith("failed"), row
        assert {"title", "unit", "goal", "values", "verdict", "beside"} <= set(row)
        assert row["values"] or row["verdict"].startswith("not measurable here: ")


@pytest.mark.slow
def test_peers_compute_what_we_compute(report: dict[str, Any]) -> None:
    compared = {row["title"]: row["agreement"] for row in report["measures"]["scoring"] if "agreement" in row}
    assert len(compared) >= 4
    for title, agreement in compared.items():
        deviation = agreement["standard_deviation"]
        # bf16 has eight bits: a tenth of what rows differ by is a matter of rounding.
        allowed, rank = (1e-3, 0.999) if agreement["precision"] == "fp32" else (0.2 * deviation, 0.98)
        assert agreement["max_difference"] < allowed < deviation, title
        assert agreement["rank_correlation"] > rank, title


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("bf16", 0.2)])
def test_plain_padding_computes_what_we_compute_in_the_same_precision(
    tiny_pool: Any, monkeypatch: pytest.MonkeyPatch, precision: str, allowed: float
) -> None:
    """`allowed` is in standard deviations of a task's scores."""
    import torch

    monkeypatch.syspath_prepend(FOLDER)
    ours, peers = importlib.import_module("ours"), importlib.import_module("peers")
    model, tokens = ours.proxy("tiny").cpu(), tiny_pool.split("pairs", "train")
    exact = ours.scores(model, tokens, how="fp32")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    for found in (peers.DynamicPadding(model, tokens, dtype).run(), ours.scores(model, tokens, how=precision)):
        assert np.abs(found - exact).max() < allowed * exact.std(0).min()


@pytest.fixture(scope="module")
def timing() -> ModuleType:
    return script("throughput/timing.py")


@pytest.mark.parametrize(
    ("goal", "op", "values", "verdict"),
    [
        (4, ">=", [5.0, 4.0, 6.0], "reached"),
        (4, ">=", [5.0, 3.0, 6.0], "reached, not each time"),
        (4, ">=", [3.0], "missed by 25 %"),
        (2, "<=", [3.0], "missed by 50 %"),
        (2, "<=", [2.001], "missed by 1 %"),
        ((9, 11), "within", [10.5], "reached"),
        ((9, 11), "within", [12.1], "missed by 10 %"),
        (None, ">=", [1.0], "no goal set"),
    ],
)
def test_a_goal_is_read_on_the_median(timing: ModuleType, goal: Any, op: str, values: Any, verdict: str) -> None:
    assert timing.Result("row", "x", goal, op, values).verdict() == verdict


def test_a_contender_that_fails_takes_no_other_with_it(timing: ModuleType) -> None:
    def broken() -> Any:
        raise ValueError("no such thing")

    runs = timing.interleaved({"broken": broken, "whole": lambda: timing.Timed(2.0)}, 3)
    assert runs.of("whole") == [2.0] * 3
    with pytest.raises(ValueError, match="no such thing"):
        runs.times_faster("whole", "broken")
    assert timing.reason(runs.failures["broken"]) == "failed: ValueError: no such thing"
    assert timing.reason(timing.NotMeasurable("no GPU")) == "not measurable here: no GPU"
