"""One fit: from rows and a configuration to weights, learning curves and metrics in a folder; on one device or many."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import pickle
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from safetensors.torch import save_file

from fastmtl.data.online import OnlineSampling, Thompson
from fastmtl.data.pool import TaskPool
from fastmtl.data.samplers import Sampling, num_batches
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.inference import DTYPES
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.models.roofline import gemm_flops_per_s
from fastmtl.store import WEIGHTS
from fastmtl.training.callbacks import Curves, Feedback, KeepBest, OneBar, full_state
from fastmtl.training.datamodule import TaskData
from fastmtl.training.modules import FitConfig, MultiTaskModule, ProxyModule, freeze, training_flops
from fastmtl.training.process import PeakMemory, following
from fastmtl.training.weighting import Equal, Weighting


@dataclass(frozen=True)
class Where:
    """Where fits run; nothing here changes what is computed, so none of it enters an identity.

    `devices` are those of each of `num_nodes` machines. `accumulate` cuts a batch into so many micro-batches a device,
    for the sake of memory. With several machines, `launcher` is a command that starts what follows it once on each,
    with the fields {num_nodes} and {devices}; without it the user starts the other machines by hand. `rendezvous` is
    the HOST:PORT at which they meet; HOST is one of them, and without it the machine that asks for the fit.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    accumulate: int = 1
    num_nodes: int = 1
    launcher: str | None = None
    rendezvous: str | None = None

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise UserError(f"trainer.accelerator={self.accelerator!r} is unknown; use auto, cpu or gpu")
        if self.strategy not in ("ddp", "fsdp"):
            raise UserError(f"trainer.strategy={self.strategy!r} is unknown; use ddp or fsdp")
        for name in ("devices", "accumulate", "num_nodes"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and (name, value) != ("devices", "auto"):
                other = ", or auto" if name == "devices" else ""
                raise UserError(f"trainer.{name}={value!r} is not a whole number of 1 or more{other}")
        if self.rendezvous is not None and not re.fullmatch(r"\S+:\d+", self.rendezvous):
            raise UserError(f"trainer.rendezvous={self.rendezvous!r} is not HOST:PORT, such as node1:29400")
        try:
            self.launch_prefix()
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"trainer.launcher={self.launcher!r} is no command line with the fields {{num_nodes}} and {{devices}} "
                f"({error}); write, say, 'srun --nodes={{num_nodes}} --ntasks-per-node=1'"
            ) from error

    def launch_prefix(self) -> list[str]:
        """The launcher's words with its fields filled in; none without a launcher."""
        return shlex.split((self.launcher or "").format(num_nodes=self.num_nodes, devices=self.devices))

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
    def world(self) -> int:
        """Devices on all machines together."""
        return int(self.resolved().devices) * self.num_nodes

    @property
    def is_distributed(self) -> bool:
        """Whether there are several devices, and so work runs in processes of its own, one a device."""
        return self.world > 1

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


_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class FitJob:
    """All that a fit needs, as values that can be pickled to a child process.

    `rows` maps each task to places in its training file, the primary first. `evaluated` is (task, split, places): rows
    measured on the way; the best epoch on them is kept, or with `keep_best=False`, as without them, the last one.
    `discriminator` makes it a proxy. `init` is a weights file
    to start from; without it the encoder's own.
    """

    title: str
    pool: TaskPool
    encoder: EncoderSpec
    rows: Mapping[str, np.ndarray]
    fit: FitConfig
    sampling: Sampling | OnlineSampling
    seed: int
    pad_id: int
    out: Path
    where: Where
    discriminator: Literal["ce", "bce"] | None = None
    init: Path | None = None
    evaluated: tuple[str, str, np.ndarray] | None = None
    keep_best: bool = True
    weighting: Weighting = field(default_factory=Equal)

    def run(self) -> None:
        """See `train`."""
        train(self)


class Job(Protocol):
    """What `run_distributed` can run: values that can be pickled, and what each rank does with them."""

    def run(self) -> None:
        """One rank's part; PyTorch's variables RANK and WORLD_SIZE say which."""
        ...


def run_fit(job: FitJob) -> dict[str, Any]:
    """Run the job, in this process or on several devices; returns its cost records.

    `job.fit.precision` must be resolved: it is part of the identity under which the result is kept. Written to
    `job.out` are `weights.safetensors`, `fit.json` and `curves.csv`.
    """
    where = job.where.resolved()
    job = replace(job, where=where)
    started = time.perf_counter()
    if where.is_distributed:
        # What does not fit together is said here, in one line, rather than by every rank.
        data = _data(job)
        if job.fit.freeze_layers or job.fit.freeze_embeddings:
            _module(job, data)
        run_distributed(job, where, job.out)
    else:
        train(job)
        # Trainer and module refer to each other: uncollected, the weights and optimizer states of a sweep's past cells
        # pile up, with too few objects for the collector to start by itself.
        gc.collect()
    fit = json.loads((job.out / "fit.json").read_text())
    return {**fit["records"], "wall_s": round(time.perf_counter() - started, 3)}


def run_distributed(job: Job, where: Where, folder: Path) -> None:
    """Run the job as one `torchrun` child a device; `folder`, which all machines must share, holds it meanwhile.

    The driver never joins a process group: children do, and the driver alone holds the store's lock.
    """
    where = where.resolved()
    path = folder.resolve() / f".job-{uuid.uuid4().hex[:12]}.pkl"
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={where.devices}"]
    if where.num_nodes == 1:
        command += ["--standalone"]
    else:
        meet = where.rendezvous or f"{socket.gethostname()}:29400"
        command += [f"--nnodes={where.num_nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meet}"]
        command += [f"--rdzv-id={path.stem}"]
    command += ["-m", "fastmtl.worker", str(path)]
    if where.num_nodes > 1 and where.launcher is None:
        others = "the other node" if where.num_nodes == 2 else f"each of the other {where.num_nodes - 1} nodes"
        print(f"start on {others}, now: {shlex.join(command)}", flush=True)
    if where.num_nodes > 1:
        command = [*where.launch_prefix(), *command]
    threads = max(1, (os.cpu_count() or 1) // int(where.devices))
    env = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if shutil.which(command[0]) is None:
        raise UserError(f"trainer.launcher={where.launcher!r}: there is no command {command[0]!r} here")
    path.write_bytes(pickle.dumps(job))
    try:
        ran = subprocess.run(following(command), env=env, check=False)
    finally:
        path.unlink()
    if ran.returncode != 0:
        raise RuntimeError(f"the multi-device run failed with exit code {ran.returncode}; its output is above")


def train(job: FitJob) -> None:
    """The fit itself, on each rank; rank zero writes."""
    _quiet()
    if job.where.accelerator == "cpu":
        _keep_freed_memory()
    pl.seed_everything(job.seed, verbose=False)
    data = _data(job)
    module = _module(job, data)
    if job.init is not None:
        load_weights(module.model, job.init)
    best = KeepBest(job.pool.task(job.evaluated[0]).metrics[0]) if job.evaluated and job.keep_best else None
    curves = Curves()
    trainer = _trainer(job, [curves, Feedback(), *([best] if best else []), OneBar(job.title, module.total_steps)])
    peak = PeakMemory(job.where.device)
    started = time.perf_counter()
    try:
        trainer.fit(module, datamodule=data)
    except SystemExit:  # what Lightning makes of Ctrl-C, which it then ignores
        if trainer.interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
        raise
    fit_s = time.perf_counter() - started
    state = best.state if best else full_state(module.model, trainer.is_global_zero)
    if not trainer.is_global_zero:
        return
    save_file(state, job.out / WEIGHTS)
    curves.write(job.out / "curves.csv")
    if data.online is not None:
        _write_history(job.out, data)
    lengths = data.visited()
    flops = training_flops(module.model, job.fit, lengths)
    peak_mib = peak.mib()  # before the machine's own rate is measured, which takes memory too
    device = job.where.device
    gemm = gemm_flops_per_s(device, DTYPES[job.fit.precision])
    records = {
        "device": device_name(device),
        "devices": job.where.world,
        "precision": job.fit.precision,
        "steps": module.total_steps,
        "examples": len(lengths),
        "tokens": int(lengths.sum()),
        "flops": flops,
        "fit_s": round(fit_s, 3),
        "gemm_flops_per_s": float(f"{gemm:.3g}"),
        "mfu": round(flops / (fit_s * gemm * job.where.world), 4),
        "peak_memory_mib": peak_mib,
    }
    epochs = {"epochs": best.history, "best_epoch": best.epoch} if best else {}
    (job.out / "fit.json").write_text(json.dumps({**epochs, "records": records}, indent=1))


def _keep_freed_memory() -> None:
    """Ask glibc to reuse large blocks: each step's embedding gradient would be fresh memory, paged in anew."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _write_history(folder: Path, data: TaskData) -> None:
    """`bandit.json`: tasks, final utility of each arm, what the first round was compared with, and every round (see
    `Online`); arms are named."""
    assert data.online is not None
    arms = [data.names[i] for i in data.online.arms]
    rounds = [{**one, "arm": data.names[one["arm"]]} for one in data.online.history]
    final = data.online.bandit.utilities()
    utilities = {name: None if np.isnan(value) else float(value) for name, value in zip(arms, final)}
    told = {"arms": arms, "utilities": utilities, "reference": data.online.reference, "rounds": rounds}
    (folder / "bandit.json").write_text(json.dumps(told))


def _data(job: FitJob) -> TaskData:
    return TaskData(
        job.pool, job.rows, job.sampling, job.fit.batch_size, job.seed, job.pad_id, job.evaluated, job.weighting.parts
    )


def _module(job: FitJob, data: TaskData) -> ProxyModule | MultiTaskModule:
    tasks = tuple(job.pool.task(name) for name in job.rows)
    counts = [len(places) for places in job.rows.values()]
    total_steps = data.num_steps(job.fit.epochs)
    if job.discriminator:
        proxy = ProxyModel(job.encoder, tasks, job.fit.dropout)
        freeze(proxy, job.fit)
        return ProxyModule(proxy, tasks, job.fit, total_steps, job.discriminator, counts)
    model = MultiTaskModel(job.encoder, tasks, job.fit.dropout)
    freeze(model, job.fit)
    evaluated = job.pool.task(job.evaluated[0]) if job.evaluated else None
    weigher = job.weighting.start(tasks, [num_batches([n], job.fit.batch_size) for n in counts], job.seed)
    watch = data.online is not None and data.online.joint
    return MultiTaskModule(model, tasks, job.fit, total_steps, evaluated, weigher, watch)


def _strategy(where: Where) -> Strategy | str:
    if where.world == 1:
        return "auto"
    if where.strategy == "fsdp":
        return ModelParallelStrategy(data_parallel_size=where.world, tensor_parallel_size=1)
    return "ddp_find_unused_parameters_true"  # the heads of all other tasks are idle at each step


def _trainer(job: FitJob, callbacks: list[Callback]) -> pl.Trainer:
    where = job.where
    # A bandit that is rewarded by validation needs it after every round.
    interval = job.sampling.batches_per_round * where.accumulate if isinstance(job.sampling, Thompson) else None
    return pl.Trainer(
        accelerator=where.accelerator,
        devices=where.devices,
        num_nodes=where.num_nodes,
        strategy=_strategy(where),
        accumulate_grad_batches=where.accumulate,
        precision=_LIGHTNING_PRECISION[job.fit.precision],  # type: ignore[arg-type]
        max_epochs=job.fit.epochs,
        gradient_clip_val=job.fit.max_grad_norm or None,
        callbacks=callbacks,
        use_distributed_sampler=False,  # the data module shards by rank itself
        reload_dataloaders_every_n_epochs=1,  # it plans each epoch anew
        limit_val_batches=1.0 if job.evaluated else 0,
        val_check_interval=interval,
        num_sanity_val_steps=0,
        deterministic="warn",
        logger=False,  # `Curves` writes; loggers are fed from its file, also for cells found in the store
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def device_name(device: torch.device) -> str:
    """The model of the processor or GPU, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
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
