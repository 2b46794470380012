"""One fit gives the same weights however it is cut: into micro-batches, over ranks, over machines, or sharded."""

from __future__ import annotations

import csv
import json
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fastmtl.data.samplers import Proportional
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec, _tiny_tokenizer
from fastmtl.models.roofline import gemm_flops_per_s
from fastmtl.training.fit import FitJob, Where, run_distributed, run_fit
from fastmtl.training.modules import FitConfig, MultiTaskModule

CPU = Where(accelerator="cpu")
ROWS = 12
FIT = FitConfig(epochs=2, batch_size=7, learning_rate=1e-3, precision="fp32", dropout=0.0)  # batches of 7 and 5 rows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    """Two layers without dropout, so that fits can be compared weight by weight."""
    from transformers import BertConfig, BertModel

    folder = str(tmp_path_factory.mktemp("encoder"))
    config = BertConfig(
        vocab_size=len(_tiny_tokenizer()), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return EncoderSpec(folder, pooling="mean", max_length=32)


@pytest.fixture
def fit(tmp_path: Path, tiny_pool: Any, encoder: EncoderSpec) -> Callable[..., Path]:
    """`fit(name, where=..., **changes of the job)`: the folder of a finished fit over all tasks."""

    def run(name: str, where: Where = CPU, **changes: Any) -> Path:
        job = FitJob(
            title=name, pool=tiny_pool, encoder=encoder, rows={task: np.arange(ROWS) for task in tiny_pool.names},
            fit=FIT, sampling=Proportional(), seed=0, pad_id=0, out=tmp_path / name, where=where,
        )  # fmt: skip
        job.out.mkdir()
        run_fit(replace(job, **changes))
        assert not list(job.out.glob(".*")), "the job's file is gone"
        return job.out

    return run


def assert_same_weights(a: Path, b: Path, atol: float) -> None:
    left, right = (load_file(folder / "weights.safetensors") for folder in (a, b))
    assert set(left) == set(right)
    for name, values in left.items():
        np.testing.assert_allclose(values, right[name], atol=atol, err_msg=name)


def curves(folder: Path) -> list[tuple[int, int, str, float]]:
    with (folder / "curves.csv").open() as file:
        return [
            (int(p["step"]), int(p["epoch"]), p["name"], pytest.approx(float(p["value"]), abs=1e-5))
            for p in csv.DictReader(file)
        ]


def records(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "fit.json").read_text())["records"]


CHOOSE = {"evaluated": ("single", "train", np.arange(ROWS))}
PROXY = {"discriminator": "ce"}


@pytest.mark.parametrize("kind", [CHOOSE, PROXY], ids=["multitask", "proxy"])
@pytest.mark.parametrize("accumulate", [2, 6])  # 6: the batch of 5 rows leaves a micro-batch empty
def test_micro_batches_add_up_to_the_batch(fit: Callable[..., Path], accumulate: int, kind: Any) -> None:
    whole = fit("whole", **kind)
    parts = fit("parts", where=replace(CPU, accumulate=accumulate), **kind)
    assert_same_weights(whole, parts, atol=1e-5)
    assert curves(whole) == curves(parts)
    assert records(whole)["steps"] == records(parts)["steps"] == 12


def assert_same_fit(a: Path, b: Path) -> None:
    """Of multitask fits on different numbers of devices."""
    assert_same_weights(a, b, atol=2e-4)
    left, right = (json.loads((folder / "fit.json").read_text()) for folder in (a, b))
    assert left["best_epoch"] == right["best_epoch"]
    assert left["epochs"] == [pytest.approx(epoch, abs=1e-4) for epoch in right["epochs"]]


@pytest.mark.parametrize(
    "strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)]
)  # fmt: skip
def test_two_ranks_train_what_one_device_trains(fit: Callable[..., Path], strategy: Any) -> None:
    two = fit("two", where=Where(accelerator="cpu", devices=2, strategy=strategy, accumulate=2), **CHOOSE)
    assert_same_fit(fit("one", **CHOOSE), two)
    assert records(two)["devices"] == 2


def test_a_sharded_proxy_is_what_one_device_trains(fit: Callable[..., Path]) -> None:
    frozen = replace(FIT, freeze_layers=1)
    two = fit("two", where=Where(accelerator="cpu", devices=2, strategy="fsdp"), fit=frozen, **PROXY)
    assert_same_weights(fit("one", fit=frozen, **PROXY), two, atol=2e-4)


LAUNCHER = """#!/bin/sh
# What a cluster's launcher does, on one machine: the same command once a node, and its end with its end.
nodes=$1; shift
for node in $(seq $nodes); do "$@" & nodes="$nodes $!"; done
set -- $nodes; shift
trap 'kill $*' TERM
for pid in $*; do wait $pid || failed=1; done
exit ${failed:-0}
"""


@pytest.fixture
def launcher(tmp_path: Path) -> str:
    path = tmp_path / "launch"
    path.write_text(LAUNCHER)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{path} {{num_nodes}}"


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return int(held.getsockname()[1])


@pytest.mark.slow
def test_two_machines_train_what_one_device_trains(fit: Callable[..., Path], launcher: str) -> None:
    where = Where(
        accelerator="cpu", num_nodes=2, launcher=launcher, rendezvous=f"localhost:{free_port()}"
    )  # fmt: skip
    two = fit("two", where=where, **CHOOSE)
    assert_same_fit(fit("one", **CHOOSE), two)
    assert records(two)["devices"] == 2
