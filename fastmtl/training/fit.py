"""One fit: from rows and a configuration to weights, learning curves and metrics in a folder; on one device or many."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from fastmtl.data.pool import TaskPool
from fastmtl.data.samplers import Sampling
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights, save_weights
from fastmtl.training.callbacks import Curves, KeepBest, OneBar
from fastmtl.training.datamodule import TaskData
from fastmtl.training.modules import FitConfig, MultiTaskModule, ProxyModule


@dataclass(frozen=True)
class Where:
    """Where fits run; nothing here changes what is computed, so none of it enters an identity."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise UserError(f"trainer.accelerator={self.accelerator!r} is unknown; use auto, cpu or gpu")
        whole = isinstance(self.devices, int) and not isinstance(self.devices, bool) and self.devices >= 1
        if not whole and self.devices != "auto":
            raise UserError(f"trainer.devices={self.devices!r} is not a whole number of 1 or more, or auto")

    def resolved(self) -> Where:
        """`auto` replaced by what this machine has."""
        has_gpu = torch.cuda.is_available()
        accelerator = self.accelerator if self.accelerator != "auto" else ("gpu" if has_gpu else "cpu")
        if accelerator == "gpu" and not has_gpu:
            raise UserError("trainer.accelerator='gpu', but this machine has no CUDA device; use trainer=cpu")
        devices = self.devices
        if devices == "auto":
            devices = torch.cuda.device_count() if accelerator == "gpu" else 1
        if accelerator == "gpu" and devices > torch.cuda.device_count():
            raise UserError(f"trainer.devices={devices}, but this machine has {torch.cuda.device_count()} CUDA devices")
        return replace(self, accelerator=accelerator, devices=int(devices))

    @property
    def device(self) -> torch.device:
        """The device of single-device work such as scoring."""
        return torch.device("cuda" if self.resolved().accelerator == "gpu" else "cpu")


def resolve_precision(precision: str, where: Where) -> Literal["fp32", "bf16", "fp16"]:
    """`auto`: bf16 on GPUs that have it (else fp16) and on CPUs with AVX512-BF16 or AMX; elsewhere bf16 is emulated
    and many times slower than fp32."""
    if precision != "auto":
        return precision  # type: ignore[return-value]
    if where.resolved().accelerator == "gpu":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has = torch.cpu.get_capabilities()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class FitJob:
    """All that a fit needs, as values that can be pickled to a child process.

    `rows` maps each task to places in its training file. `evaluated` is (task, split, places): the rows on which the
    best epoch is chosen; without it the last epoch is kept. `discriminator` makes it a proxy. `init` is a weights file
    to start from; without it the encoder's own.
    """

    title: str
    pool: TaskPool
    encoder: EncoderSpec
    rows: Mapping[str, np.ndarray]
    fit: FitConfig
    sampling: Sampling
    seed: int
    pad_id: int
    out: Path
    where: Where
    discriminator: Literal["ce", "bce"] | None = None
    init: Path | None = None
    evaluated: tuple[str, str, np.ndarray] | None = None


def run_fit(job: FitJob) -> dict[str, Any]:
    """Run the job, in this process or, for several devices, in `torchrun` children; returns its cost records.

    `job.fit.precision` must be resolved: it is part of the identity under which the result is kept.

    The driver never joins a process group: children do, and the driver alone holds the store's lock. It writes
    `weights.safetensors`, `fit.json` and `curves.csv` to `job.out`.
    """
    where = job.where.resolved()
    job = replace(job, where=where)
    started = time.perf_counter()
    if where.devices == 1:
        train(job)
        # Trainer and module refer to each other: uncollected, the weights and optimizer states of a sweep's past cells
        # pile up, with too few objects for the collector to start by itself.
        gc.collect()
    else:
        path = job.out / "job.pkl"
        path.write_bytes(pickle.dumps(job))
        _torchrun(path, where)
        path.unlink()
    fit = json.loads((job.out / "fit.json").read_text())
    return {**fit["records"], "wall_s": round(time.perf_counter() - started, 3)}


def _torchrun(job: Path, where: Where) -> None:
    threads = max(1, (os.cpu_count() or 1) // int(where.devices))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={where.devices}"]
    env = {"OMP_NUM_THREADS": str(threads), **os.environ}
    ran = subprocess.run(
        [*command, "-m", "fastmtl.worker", str(job)], env=env, check=False, preexec_fn=_stop_with_the_driver
    )
    if ran.returncode != 0:
        raise RuntimeError(f"the multi-device fit failed with exit code {ran.returncode}; its output is above")


def _stop_with_the_driver() -> None:
    """Ask Linux to end the children when the driver is killed: they would train on for hours and into nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; torchrun passes the signal to its ranks


def train(job: FitJob) -> None:
    """The fit itself, on each rank; rank zero writes."""
    _quiet()
    pl.seed_everything(job.seed, verbose=False)
    data = TaskData(job.pool, job.rows, job.sampling, job.fit.batch_size, job.seed, job.pad_id, job.evaluated)
    total_steps = data.steps_per_epoch * job.fit.epochs
    module = _module(job, total_steps)
    if job.init is not None:
        load_weights(module.model, job.init)
    best = KeepBest(job.pool.task(job.evaluated[0]).metrics[0]) if job.evaluated else None
    curves = Curves()
    trainer = _trainer(job, [curves, *([best] if best else []), OneBar(job.title, total_steps)])
    trainer.fit(module, datamodule=data)
    if not trainer.is_global_zero:
        return
    if best is not None:
        module.model.load_state_dict(best.state)
    save_weights(module.model, job.out / "weights.safetensors")
    curves.write(job.out / "curves.csv")
    lengths = np.concatenate(data.lengths)
    records = {
        "device": _device_name(job.where),
        "devices": job.where.devices,
        "precision": job.fit.precision,
        "steps": total_steps,
        "examples": len(lengths) * job.fit.epochs,
        "tokens": int(lengths.sum()) * job.fit.epochs,
        "flops": 3.0 * job.fit.epochs * module.model.encoder.forward_flops(lengths),
        "peak_memory_mib": peak_memory_mib(),
    }
    epochs = {"epochs": best.history, "best_epoch": best.epoch} if best else {}
    (job.out / "fit.json").write_text(json.dumps({**epochs, "records": records}, indent=1))


def _module(job: FitJob, total_steps: int) -> ProxyModule | MultiTaskModule:
    tasks = tuple(job.pool.task(name) for name in job.rows)
    if job.discriminator:
        proxy = ProxyModel(job.encoder, tasks, job.fit.dropout)
        counts = [len(places) for places in job.rows.values()]
        return ProxyModule(proxy, tasks, job.fit, total_steps, job.discriminator, counts)
    model = MultiTaskModel(job.encoder, tasks, job.fit.dropout)
    evaluated = job.pool.task(job.evaluated[0]) if job.evaluated else None
    return MultiTaskModule(model, tasks, job.fit, total_steps, evaluated)


def _trainer(job: FitJob, callbacks: list[Callback]) -> pl.Trainer:
    where = job.where
    strategy = where.strategy if where.devices != 1 else "auto"
    if where.devices != 1 and strategy in ("auto", "ddp"):
        strategy = "ddp_find_unused_parameters_true"  # the heads of all other tasks are idle at each step
    return pl.Trainer(
        accelerator=where.accelerator,
        devices=where.devices,
        strategy=strategy,
        precision=_LIGHTNING_PRECISION[job.fit.precision],  # type: ignore[arg-type]
        max_epochs=job.fit.epochs,
        gradient_clip_val=job.fit.max_grad_norm or None,
        callbacks=callbacks,
        use_distributed_sampler=False,  # the data module shards by rank itself
        reload_dataloaders_every_n_epochs=1,  # it plans each epoch anew
        limit_val_batches=1.0 if job.evaluated else 0,
        num_sanity_val_steps=0,
        deterministic="warn",
        logger=False,  # `Curves` writes; loggers are fed from its file, also for cells found in the store
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def peak_memory_mib() -> int:
    """The largest memory use so far: of the GPU's allocator where there is one, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated() / 2**20)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def _device_name(where: Where) -> str:
    if where.accelerator == "gpu":
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name", "cpu"))


def _quiet() -> None:
    """Lightning's advice that does not fit here, and warnings of its own calls; its errors still come through."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for message in (
        "does not have many workers",
        "GPU available but not used",
        "have no `validation_step`",
        "LeafSpec",
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
