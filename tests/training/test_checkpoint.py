"""A fit that is killed and resumed ends in the weights, curves and costs of one that was left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file

from fastmtl.data.batching.online import Exp3Sampling, ThompsonSampling
from fastmtl.data.batching.planned import Proportional
from fastmtl.data.rows import RowSet
from fastmtl.store import WEIGHTS
from fastmtl.training.checkpoint import NAME
from fastmtl.training.config import FitConfig, Hardware
from fastmtl.training.fit import FitJob, run_fit
from fastmtl.training.weighting import Uncertainty


class Killed(Exception):
    pass


class Kill(Callback):
    """Ends the fit after so many batches of all epochs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_train_batch_end(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


FIT = FitConfig(epochs=2, batch_size=2, learning_rate=1e-3, precision="fp32")
ONLINE = ThompsonSampling(batches_per_round=3, validation_rows=4, rounds=9, warmup_rounds=1, episode=1.0)
CASES: dict[str, dict[str, Any]] = {
    "planned": {"sampling": Proportional(), "weighting": Uncertainty()},
    "chooses an epoch": {"sampling": Proportional(), "keep_best": True},
    "proxy": {"sampling": Proportional(), "discriminator": "bce", "evaluated": None},
    "micro-batches": {"sampling": Proportional(), "hardware": {"accumulate": 2}},
    "gradients reward": {"sampling": Exp3Sampling()},
    "validation rewards": {"sampling": ONLINE, "fit": {"epochs": 1}, "keep_best": False},
}


def job(pool: Any, tiny: Any, out: Path, case: dict[str, Any], after: int | None = None, **hardware: Any) -> FitJob:
    out.mkdir(parents=True)
    rows = RowSet.of(pool.tasks, {name: np.arange(12) for name in pool.names})
    more = {"evaluated": rows.only(["pairs"]), **case}
    fit = replace(FIT, **more.pop("fit", {}))
    if after is not None:
        fit = replace(fit, callbacks={"kill": {"_target_": f"{__name__}.Kill", "after": after}})
    where = Hardware(accelerator="cpu", **more.pop("hardware", {}), **hardware)
    return FitJob(
        title="fit", pool=pool, encoder=tiny, rows=rows, fit=fit, seed=1, pad_id=0, out=out, hardware=where,
        resume=out.parent / "resume", **more,
    )  # fmt: skip


def compared(out: Path) -> dict[str, Any]:
    """All that a fit leaves but seconds, rates and memory."""
    fit = json.loads((out / "fit.json").read_text())
    records = {name: fit["records"][name] for name in ("steps", "examples", "passes", "tokens", "flops")}
    bandit = (out / "bandit.json").read_text() if (out / "bandit.json").exists() else None
    return {**fit, "records": records, "curves": (out / "curves.csv").read_text(), "bandit": bandit}


@pytest.mark.parametrize(("name", "after"), [("planned", 11), *((name, 25) for name in CASES)])
def test_a_killed_fit_ends_as_one_that_was_left_alone(
    name: str, after: int, tmp_path: Path, tiny_pool: Any, tiny: Any
) -> None:
    case = CASES[name]
    run_fit(job(tiny_pool, tiny, tmp_path / "alone" / "out", case, checkpoint_minutes=None))
    with pytest.raises(Killed):
        run_fit(job(tiny_pool, tiny, tmp_path / "killed" / "first", case, after, checkpoint_minutes=0))
    saved = tmp_path / "killed" / "resume" / NAME
    assert saved.exists()
    resumed = job(tiny_pool, tiny, tmp_path / "killed" / "second", case, checkpoint_minutes=0)
    run_fit(resumed)
    assert not saved.parent.exists()
    assert compared(resumed.out) == compared(tmp_path / "alone" / "out")
    one, other = (load_file(folder / WEIGHTS) for folder in (resumed.out, tmp_path / "alone" / "out"))
    assert one.keys() == other.keys()
    assert all((one[key] == other[key]).all() for key in one)


def test_a_resumed_fit_trains_the_rest_alone(tmp_path: Path, tiny_pool: Any, tiny: Any) -> None:
    case = CASES["planned"]
    with pytest.raises(Killed):
        run_fit(job(tiny_pool, tiny, tmp_path / "first", case, 35, checkpoint_minutes=0))
    # Of 36 batches 28 are in the last checkpoint; one more than the rest would end a fit that began anew.
    run_fit(job(tiny_pool, tiny, tmp_path / "second", case, 9, checkpoint_minutes=0))
