"""One fit: from rows and a configuration to weights, learning curves and metrics in a folder; on one device or many."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import pickle
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
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from safetensors.torch import save_file

from fastmtl.data.batching.online import OnlineSampling, is_rewarded_by_validation
from fastmtl.data.batching.planned import Sampling, num_batches
from fastmtl.data.pool import TaskPool
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.store import WEIGHTS
from fastmtl.training.callbacks import Curves, Feedback, KeepBest, OneBar, Stop, full_state
from fastmtl.training.checkpoint import Checkpoint
from fastmtl.training.config import FitConfig, Hardware
from fastmtl.training.datamodule import TaskData
from fastmtl.training.modules import MultiTaskModule, ProxyModule, freeze, training_flops
from fastmtl.training.optimizer import groups
from fastmtl.training.process import PeakMemory, following
from fastmtl.training.weighting import Equal, Weighting

log = logging.getLogger(__name__)

_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class FitJob:
    """All that a fit needs, as values that can be pickled to a child process.

    Args:
        title: What the progress bar says.
        pool: Token ids of all tasks concerned.
        rows: The training rows, the primary's first.
        discriminator: Makes it a proxy, with this loss.
        init: A weights file to start from; without it the encoder's own.
        heads: Task -> the task whose head it shares; see `fastmtl.models.multitask.shared_heads`.
        shares: For each epoch, the share of the rows of all tasks but the first that it reads; empty: all.
        evaluated: Rows of one task that are measured after each epoch. The best epoch on them is kept, or with
            `keep_best=False`, as without them, the last one.
        choose_by: What the best epoch and a bandit's reward go by; see `fastmtl.training.metrics.criterion`.
        resume: A folder for checkpoints, which outlives a killed process; None keeps none.
    """

    title: str
    pool: TaskPool
    encoder: EncoderSpec
    rows: RowSet
    fit: FitConfig
    sampling: Sampling | OnlineSampling
    seed: int
    pad_id: int
    out: Path
    hardware: Hardware
    discriminator: Literal["ce", "bce"] | None = None
    init: Path | None = None
    evaluated: RowSet | None = None
    keep_best: bool = True
    weighting: Weighting = field(default_factory=Equal)
    resume: Path | None = None
    heads: Mapping[str, str] = field(default_factory=dict)
    shares: tuple[float, ...] = ()
    choose_by: str = "headline"

    def run(self) -> None:
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
    hardware = job.hardware.resolved()
    job = replace(job, hardware=hardware)
    started = time.perf_counter()
    if hardware.is_distributed:
        # What does not fit together is said here, in one line, rather than by every rank.
        _callbacks(job.fit)
        data = _data(job)
        if job.fit.freeze_layers or job.fit.freeze_embeddings or job.fit.layer_decay != 1:
            groups(_module(job, data).model, job.fit)
        run_distributed(job, hardware, job.out)
    else:
        train(job)
        # Trainer and module refer to each other: uncollected, the weights and optimizer states of a sweep's past cells
        # pile up, with too few objects for the collector to start by itself.
        gc.collect()
    fit = json.loads((job.out / "fit.json").read_text())
    return {**fit["records"], "wall_s": round(time.perf_counter() - started, 3)}


def run_distributed(job: Job, hardware: Hardware, folder: Path) -> None:
    """Run the job as one `torchrun` child a device; `folder`, which all machines must share, holds it meanwhile.

    The driver never joins a process group: children do, and the driver alone holds the store's lock.
    """
    hardware = hardware.resolved()
    path = folder.resolve() / f".job-{uuid.uuid4().hex[:12]}.pkl"
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={hardware.devices}"]
    if hardware.num_nodes == 1:
        command += ["--standalone"]
    else:
        meet = hardware.rendezvous or f"{socket.gethostname()}:29400"
        command += [f"--nnodes={hardware.num_nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meet}"]
        command += [f"--rdzv-id={path.stem}"]
    command += ["-m", "fastmtl.worker", str(path)]
    if hardware.num_nodes > 1 and hardware.launcher is None:
        others = "the other node" if hardware.num_nodes == 2 else f"each of the other {hardware.num_nodes - 1} nodes"
        log.warning("start on %s, now: %s", others, shlex.join(command))
    if hardware.num_nodes > 1:
        command = [*hardware.launch_prefix(), *command]
    threads = max(1, (os.cpu_count() or 1) // int(hardware.devices))
    env = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if shutil.which(command[0]) is None:
        raise UserError(f"trainer.launcher={hardware.launcher!r}: there is no command {command[0]!r} here")
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
    if job.hardware.accelerator == "cpu":
        _keep_freed_memory()
    pl.seed_everything(job.seed, verbose=False)
    data = _data(job)
    module = _module(job, data)
    if job.init is not None:
        load_weights(module.model, job.init)
    best = KeepBest(job.evaluated.tasks[0].metrics, job.choose_by) if job.evaluated and job.keep_best else None
    curves = Curves()
    bar = OneBar(job.title, module.total_steps)
    resume = None
    if job.resume is not None and job.hardware.checkpoint_minutes is not None:
        resume = Checkpoint(job.resume, 60 * job.hardware.checkpoint_minutes, data)
    stop = Stop(job.fit.max_steps, job.fit.early_stopping)
    own = [stop, curves, Feedback(job.choose_by), *([best] if best else []), bar, *([resume] if resume else [])]
    trainer = _trainer(job, [*own, *_callbacks(job.fit)])
    peak = PeakMemory(job.hardware.device)
    started = time.perf_counter()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume.found() if resume else None, weights_only=True)
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
    if resume is not None:
        resume.drop()
    curves.write(job.out / "curves.csv")
    if data.online is not None:
        _write_history(job.out, data)
    tasks, lengths = data.visited()
    passes = np.bincount(tasks, minlength=len(data.names)) / [max(1, len(positions)) for positions in data.positions]
    flops = training_flops(module.model, job.fit, lengths) + module.model.encoder.forward_flops(data.measured())
    records = {
        "device": device_name(job.hardware.device),
        "devices": job.hardware.world,
        "precision": job.fit.precision,
        "steps": trainer.global_step,
        "examples": len(lengths),
        "passes": dict(zip(data.names, passes.round(4).tolist())),  # over each task's rows
        "tokens": int(lengths.sum()),
        "flops": flops,
        "fit_s": round(fit_s, 3),
        "peak_memory_mib": peak.mib(),
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
    history = {"arms": arms, "utilities": utilities, "reference": data.online.reference, "rounds": rounds}
    (folder / "bandit.json").write_text(json.dumps(history))


def _data(job: FitJob) -> TaskData:
    return TaskData(
        job.pool, job.rows, job.sampling, job.fit.batch_size, job.seed, job.pad_id, job.evaluated,
        job.weighting.parts, job.shares,
    )  # fmt: skip


def _module(job: FitJob, data: TaskData) -> ProxyModule | MultiTaskModule:
    tasks = tuple(job.pool.task(name) for name in job.rows)
    counts = [len(positions) for positions in job.rows.values()]
    total_steps = min(data.num_steps(job.fit.epochs), job.fit.max_steps or sys.maxsize)
    if job.discriminator:
        proxy = ProxyModel(job.encoder, tasks, job.fit.dropout)
        freeze(proxy, job.fit)
        return ProxyModule(proxy, tasks, job.fit, total_steps, job.discriminator, counts)
    model = MultiTaskModel(job.encoder, tasks, job.fit.dropout, job.heads)
    freeze(model, job.fit)
    evaluated = job.evaluated.tasks[0] if job.evaluated else None
    if evaluated and job.choose_by in evaluated.of_kind.metrics and job.choose_by not in evaluated.metrics:
        evaluated = replace(evaluated, metrics=(*evaluated.metrics, job.choose_by))
    weigher = job.weighting.start(tasks, [num_batches([n], job.fit.batch_size) for n in counts], job.seed)
    watch = data.online is not None and data.online.joint
    return MultiTaskModule(model, tasks, job.fit, total_steps, evaluated, weigher, watch)


def _strategy(hardware: Hardware) -> Strategy | str:
    if hardware.world == 1:
        return "auto"
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(data_parallel_size=hardware.world, tensor_parallel_size=1)
    return "ddp_find_unused_parameters_true"  # the heads of all other tasks are idle at each step


def _trainer(job: FitJob, callbacks: list[Callback]) -> pl.Trainer:
    hardware = job.hardware
    # A bandit that is rewarded by validation needs it after every round.
    interval = job.sampling.batches_per_round * hardware.accumulate if is_rewarded_by_validation(job.sampling) else None
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.num_nodes,
        strategy=_strategy(hardware),
        accumulate_grad_batches=hardware.accumulate,
        precision=_LIGHTNING_PRECISION[job.fit.precision],  # type: ignore[arg-type]
        max_epochs=job.fit.epochs,
        profiler=hardware.profiler,
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


def _callbacks(fit: FitConfig) -> list[Callback]:
    """The callbacks that the user asked for."""
    made: list[Callback] = []
    for name, options in fit.callbacks.items():
        module, _, called = str(options.get("_target_", "")).rpartition(".")
        try:
            cls = getattr(import_module(module), called)
            made.append(cls(**{key: value for key, value in options.items() if key != "_target_"}))
            if not isinstance(made[-1], Callback):
                raise TypeError(f"{called} is no Lightning callback")
        except (ImportError, AttributeError, ValueError, TypeError, MisconfigurationException) as error:
            raise UserError(
                f"callbacks.{name}={dict(options)!r} cannot be made ({error}); give _target_ and its options"
            ) from None
    return made


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
        "dataloader is not resumable",  # it is: see `TaskData.restore`
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
