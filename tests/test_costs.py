"""The FLOPs that a cell records are those that torch counts while it runs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fastmtl.cli.compose import compose
from fastmtl.pipelines.experiment import Experiment
from fastmtl.pipelines.relations import GainMatrix
from fastmtl.reporting.relations import write
from fastmtl.reporting.tables import total

TASKS = ("p", "q", "r", "s")
TOLERANCE = 0.01
"""Heads and discriminators, and cosines to a centroid, are in no record: with the tiny encoder up to 0.5 %."""


@pytest.fixture(autouse=True)
def _countable() -> Iterator[None]:
    """One thread, since the counter sees its own alone; attention as products, since it knows no fused one of a CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of equal length, so that no batch is padded: padding is computed, but is no work of the model."""
    folder = tmp_path_factory.mktemp("tasks")
    declared = []
    for name in TASKS:
        rng = random.Random(name)
        for split, count in (("train", 48), ("validation", 24)):
            texts = [rng.choices("abcdefghijklmnop", k=7) for _ in range(count)]
            rows = [{"text": " ".join(letters), "label": str(int(letters[0] < "h"))} for letters in texts]
            (folder / f"{name}.{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        declared.append(
            f'- {{name: {name}, kind: classification, labels: ["0", "1"], text: text, '
            f"splits: {{train: {name}.train.jsonl, validation: {name}.validation.jsonl}}}}"
        )
    (folder / "tasks.yaml").write_text("tasks:\n" + "\n".join(declared) + "\n")
    (folder / "others.yaml").write_text("tasks:\n" + "\n".join(declared[1:3]) + "\n")
    return folder / "tasks.yaml"


def overrides(config: Path, folder: Path, *more: str) -> list[str]:
    return [
        "data=files", f"data.config={config}", f"paths.output={folder}", "encoder=tiny", "trainer=cpu", "budget=20",
        "proxy.examples_per_task=10", "scoring.precision=fp32", "scoring.audit=5", "bandit.rounds=6",
        "bandit.policy.warmup_rounds=2", "bandit.policy.batches_per_round=2", "relations.batches=100",
        *(f"{stage}.fit.{option}" for stage in ("proxy", "bandit", "multitask", "finetune", "relations")
          for option in ("batch_size=4", "precision=fp32")),
        *(f"{stage}.fit.epochs=2" for stage in ("proxy", "multitask", "finetune")), *more,
    ]  # fmt: skip


def recorded(cell: Experiment) -> float:
    stages = [{"stage": made.kind, **made.records} for made in cell.artifacts("finetune")]
    return total(stages, "flops")


ARMS = {
    "none": ["selection=none"],
    "primary_only": ["selection=primary_only"],
    "random": ["selection=random"],
    "full": ["selection=full"],
    "feature_similarity": ["selection=feature_similarity"],
    "first tokens": ["selection=feature_similarity", "encoder.pooling=cls"],
    "cascade": ["selection=feature_similarity", "scoring.cascade=[small,large]", "scoring.levels.small.layers=1"],
    "embedding": ["selection=embedding"],
    "centroid": ["selection=embedding", "selection.scorer.method=centroid"],
    "ngram_importance": ["selection=ngram_importance"],
    "autosem": ["selection=autosem", "mixing=autosem_mixing", "mixing.trials=2", "mixing.random_starts=1"],
}


QUICK = ("random", "embedding")


@pytest.mark.parametrize("arm", [arm if arm in QUICK else pytest.param(arm, marks=pytest.mark.slow) for arm in ARMS])
def test_a_cell_records_all_that_it_computes(arm: str, config: Path, tmp_path: Path) -> None:
    cell = compose(*overrides(config, tmp_path, "primary=p", *ARMS[arm]))
    with FlopCounterMode(display=False) as counter:
        cell.finetune()
    assert recorded(cell) == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)


@pytest.mark.slow
def test_a_predictor_counts_the_matrix_that_it_was_fitted_to(config: Path, tmp_path: Path) -> None:
    others = overrides(config.with_name("others.yaml"), tmp_path, "primary=q", "budget=1.0")
    with FlopCounterMode(display=False) as counter:
        found = GainMatrix({7: compose(*others)}, affinities=False).run()
        for name, score in (("q", 0.0), ("r", 1.0)):  # so that one pair gains and the other does not
            found.pairs.loc[found.pairs["other"] == name, "score"] = score
        write(found, tmp_path, "two tasks", "points")
        chosen = ["selection=predicted_gain", f"selection.predictor={tmp_path / 'predictor.json'}"]
        cell = compose(*overrides(config, tmp_path, "primary=p", *chosen))
        cell.finetune()
    assert recorded(cell) == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)
