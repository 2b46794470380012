"""One fit gives the same weights however it is cut: into micro-batches, over ranks, over machines, or sharded."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from fastmtl.data.collate import collate
from fastmtl.errors import UserError
from fastmtl.models.dropout import drop, use_cpu_dropout
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.training.config import FitConfig, Hardware, resolve_precision
from fastmtl.training.fit import run_distributed
from fastmtl.training.modules import MultiTaskModule
from tests.helpers.fits import CPU, ROWS, assert_same_weights, curve_points, finished, fit_file, records, weights

FIT = FitConfig(  # batches of 7 and 5 rows, every gradient clipped
    epochs=2, batch_size=7, learning_rate=1e-3, max_grad_norm=0.1, precision="fp32", dropout=0.0
)  # fmt: skip


@pytest.fixture
def fit(tmp_path: Path, tiny_pool: Any, encoder: EncoderSpec) -> Callable[..., Path]:
    """`fit(name, hardware=..., **changes of the job)`: the folder of a finished fit over all tasks."""

    def run(name: str, **changes: Any) -> Path:
        return finished(tiny_pool, tmp_path / name, **{"encoder": encoder, "fit": FIT, **changes})

    return run


def curves(folder: Path) -> list[tuple[int, int, str, float]]:
    return [
        (int(p["step"]), int(p["epoch"]), p["name"], pytest.approx(float(p["value"]), abs=1e-5))
        for p in curve_points(folder)
    ]


CHOOSE = {"evaluated": {"single": np.arange(ROWS)}}
PROXY = {"discriminator": "ce"}


@pytest.mark.parametrize("kind", [CHOOSE, PROXY], ids=["multitask", "proxy"])
@pytest.mark.parametrize("accumulate", [2, 6])  # 6: the batch of 5 rows leaves a micro-batch empty
def test_micro_batches_add_up_to_the_batch(fit: Callable[..., Path], accumulate: int, kind: Any) -> None:
    whole = fit("whole", **kind)
    parts = fit("parts", hardware=replace(CPU, accumulate=accumulate), **kind)
    assert_same_weights(whole, parts, atol=1e-5)
    assert curves(whole) == curves(parts)
    assert records(whole)["steps"] == records(parts)["steps"] == 12


def assert_same_fit(a: Path, b: Path) -> None:
    """Of multitask fits on different numbers of devices."""
    assert_same_weights(a, b, atol=2e-4)
    left, right = fit_file(a), fit_file(b)
    assert left["best_epoch"] == right["best_epoch"]
    assert left["epochs"] == [pytest.approx(epoch, abs=1e-4) for epoch in right["epochs"]]


@pytest.mark.slow  # tests/test_end_to_end.py has one of these for the default run
@pytest.mark.parametrize(
    "strategy", ["ddp", "fsdp"]
)  # fmt: skip
def test_two_ranks_train_what_one_device_trains(fit: Callable[..., Path], strategy: Any) -> None:
    hardware = Hardware(accelerator="cpu", devices=2, strategy=strategy, accumulate=2)
    frozen = replace(FIT, freeze_embeddings=True, layer_decay=0.5, probing=0.2, pull=100.0)
    two = fit("two", hardware=hardware, fit=frozen, **CHOOSE)
    assert_same_fit(fit("one", fit=frozen, **CHOOSE), two)
    assert records(two)["devices"] == 2


@pytest.mark.slow
@pytest.mark.timeout(300)  # ranks that wait for each other
@pytest.mark.parametrize(("strategy", "task"), [("ddp", "single"), ("fsdp", "score")])
def test_a_rank_may_be_left_without_a_held_out_row(fit: Callable[..., Path], strategy: Any, task: str) -> None:
    two = Hardware(accelerator="cpu", devices=2, strategy=strategy)
    frozen = replace(FIT, freeze_embeddings=True)
    choose = {"evaluated": {task: np.arange(1)}, "fit": frozen}
    left, right = (fit_file(folder)["epochs"] for folder in (fit("one", **choose), fit("two", hardware=two, **choose)))
    assert left == [pytest.approx(epoch, abs=1e-4, nan_ok=True) for epoch in right]


@pytest.mark.slow
def test_a_sharded_proxy_is_what_one_device_trains(fit: Callable[..., Path]) -> None:
    frozen = replace(FIT, freeze_layers=1)
    two = fit("two", hardware=Hardware(accelerator="cpu", devices=2, strategy="fsdp"), fit=frozen, **PROXY)
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
    """Below the ports that the system itself gives out, and another for each process: nobody takes it meanwhile."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as tried:
            try:
                tried.bind(("localhost", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@pytest.mark.slow
def test_two_machines_train_what_one_device_trains(fit: Callable[..., Path], launcher: str) -> None:
    hardware = Hardware(
        accelerator="cpu", num_nodes=2, launcher=launcher, rendezvous=f"localhost:{free_port()}"
    )  # fmt: skip
    two = fit("two", hardware=hardware, **CHOOSE)
    assert_same_fit(fit("one", **CHOOSE), two)
    assert records(two)["devices"] == 2


def test_without_a_launcher_the_line_for_the_other_machines_is_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[list[str]] = []

    def note(command: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
        assert "preexec_fn" not in how, "it may deadlock beside other threads"
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    hardware = Hardware(accelerator="cpu", devices=3, num_nodes=2, rendezvous="here:29400")
    run_distributed(cast(Any, "a job"), hardware, tmp_path)
    (said,) = caplog.messages
    assert "\n" not in said
    assert said.endswith(shlex.join(ran[0][ran[0].index("torch.distributed.run") - 2 :]))
    assert {"--nnodes=2", "--nproc-per-node=3", "--rdzv-endpoint=here:29400"} <= set(ran[0])
    monkeypatch.undo()
    with pytest.raises(UserError, match="nowhere_to_be_found"):
        run_distributed(cast(Any, "a job"), replace(hardware, launcher="nowhere_to_be_found"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strategy": "deepspeed"}, ["strategy='deepspeed'", "ddp, fsdp"]),
        ({"accumulate": 0}, ["accumulate=0", "1 or more"]),
        ({"accumulate": "auto"}, ["accumulate='auto'"]),
        ({"num_nodes": 1.5}, ["num_nodes=1.5"]),
        ({"devices": "all"}, ["devices='all'", "auto", "1 or more"]),
        ({"rendezvous": "node1"}, ["rendezvous='node1'", "HOST:PORT"]),
        ({"profiler": "fast"}, ["profiler='fast'", "simple, advanced"]),
        ({"launcher": "srun {nodes}"}, ["trainer.launcher=", "'nodes'", "{num_nodes}"]),
        ({"launcher": "srun 'a"}, ["trainer.launcher=", "quotation"]),
    ],
)
def test_hardware_refuses_in_one_line(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        Hardware(**values)
    assert "\n" not in str(refused.value)
    assert all(word in str(refused.value) for word in words), refused.value


def test_frozen_layers_keep_their_weights_and_cost_one_forward_pass(
    fit: Callable[..., Path], encoder: EncoderSpec
) -> None:
    free, frozen = fit("free"), fit("frozen", fit=replace(FIT, freeze_layers=1))
    before = MultiTaskModel(encoder, []).state_dict()
    after = {name: torch.from_numpy(values) for name, values in weights(frozen).items()}
    kept = {name for name, values in before.items() if torch.equal(after[name], values)}
    assert kept == {n for n in before if n.startswith(("encoder.inner.embeddings.", "encoder.inner.encoder.layer.0."))}
    # Two layers at three forward passes each, against one at one and one at three.
    assert records(frozen)["flops"] / records(free)["flops"] == pytest.approx(4 / 6)


def test_more_layers_than_the_encoder_has_cannot_be_frozen(fit: Callable[..., Path], tiny: Any, tiny_pool: Any) -> None:
    for hardware in (CPU, replace(CPU, devices=2)):
        with pytest.raises(UserError, match=r"fit\.freeze_layers=3, but encoder .* has 2; use fewer"):
            fit(f"on{hardware.devices}", hardware=hardware, fit=replace(FIT, freeze_layers=3))
    for values in ({"freeze_layers": -1}, {"freeze_layers": True}, {"freeze_embeddings": "some"}):
        with pytest.raises(UserError, match=r"^freeze_.* does not fit; use "):
            FitConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("has", "precision"),
    [({}, "fp32"), ({"avx512_bf16": False, "amx_bf16": False}, "fp32"), ({"avx512_bf16": True}, "bf16"),
     ({"avx512_bf16": False, "amx_bf16": True}, "bf16")],
)  # fmt: skip
def test_auto_is_half_precision_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert resolve_precision("auto", CPU) == precision
    assert [resolve_precision(asked, CPU) for asked in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert resolve_precision("auto", Hardware(accelerator="gpu")) == ("bf16" if native else "fp16")


def test_half_precision_trains_on_a_cpu(fit: Callable[..., Path]) -> None:
    trained = weights(fit("half", fit=replace(FIT, epochs=1, precision="bf16", dropout=0.1)))
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in trained.values())


def test_the_fused_step_is_not_used_where_it_would_unscale_gradients_after_they_are_clipped(
    encoder: EncoderSpec,
) -> None:
    for precision, fused in (("fp32", True), ("bf16", True), ("fp16", False)):
        module = MultiTaskModule(
            MultiTaskModel(encoder, []), (), FitConfig(precision=cast(Any, precision), learning_rate=1e-3), 1
        )
        assert module.configure_optimizers()["optimizer"].param_groups[0]["fused"] is fused


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cpu_dropout_drops_each_value_with_probability_p_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(401, 1003, requires_grad=True)
    y = drop(x, p)
    kept = (y != 0).double()
    sigma = (p * (1 - p)) ** 0.5
    assert float(kept.mean()) == pytest.approx(1 - p, abs=4 * sigma / x.numel() ** 0.5)
    assert float(kept.mean(1).std()) == pytest.approx(sigma / 1003**0.5, rel=0.2)  # rows vary as independent draws do
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    y.sum().backward()
    assert torch.equal(cast(torch.Tensor, x.grad), y.detach())
    torch.manual_seed(0)
    assert torch.equal(drop(x, p), y)


def test_attention_with_cpu_dropout_is_that_of_the_encoder(
    monkeypatch: pytest.MonkeyPatch, tiny: Any, tiny_tasks: Any, tiny_pool: Any
) -> None:
    model = MultiTaskModel(tiny, tiny_tasks)
    batch = collate(tiny_pool.split("single", "train"), np.arange(ROWS), 0)
    expected = model.eval()(batch, "single")
    use_cpu_dropout(model)
    assert not [m for m in model.modules() if type(m) is torch.nn.Dropout]
    torch.testing.assert_close(model(batch, "single"), expected)
    assert not torch.allclose(model.train()(batch, "single"), expected, atol=1e-3)
    monkeypatch.setattr("fastmtl.models.dropout.drop", lambda x, p: x)
    torch.testing.assert_close(model(batch, "single"), expected, rtol=1e-4, atol=1e-5)
