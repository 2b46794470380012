"""`fastmtl doctor`: what this machine has and what is missing, a line each; it changes nothing and never fails."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from fastmtl.cli.compose import compose, typed_paths, values
from fastmtl.cli.verbs import Arguments
from fastmtl.errors import UserError

SHOWN = ("fastmtl", "torch", "pytorch-lightning", "transformers", "hydra-core", "datasets")
IMPORTED = ("torch", "pytorch_lightning", "transformers", "datasets")
"""What a broken installation of shows only when it is imported."""

EXTRAS = {
    "minilm": "encoder=minilm, the default",
    "wandb": "logger=wandb and make dashboard",
    "tensorboard": "logger=tensorboard",
    "surgery": "weighting=pcgrad, cagrad and upgrad",
    "launchers": "cells in parallel: hydra/launcher=joblib, submitit_local and submitit_slurm",
    "ray": "hydra/launcher=ray",
    "bench": "make bench",
    "dev": "the tests and make check",
}
"""Extra of the package -> what it is for."""

WHY = {
    (True, "bf16"): "this GPU computes in it",
    (True, "fp16"): "this GPU only emulates bf16",
    (False, "bf16"): "this processor has AVX512-BF16 or AMX",
    (False, "fp32"): "this processor has neither AVX512-BF16 nor AMX, and would only emulate bf16",
}
"""(has a GPU, what precision=auto becomes) -> the reason (see `resolve_precision`)."""

HUB_S = 3.0

Line = tuple[str, str]
"""State and text: `ok`, `--` for what is optional and missing, `BAD` for what is needed and broken."""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def packages(_: Sequence[str]) -> Iterator[Line]:
    """Versions; dependencies and extras that are missing."""
    yield "ok", f"Python {platform.python_version()} at {sys.executable}, {platform.platform()}"
    yield "ok", ", ".join(f"{name} {_version(name)}" for name in (*SHOWN, "wandb") if _version(name))
    missing: dict[str, list[str]] = {}
    for line in requires("fastmtl") or []:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"]([\w-]+)", line)
        if name and not _version(name[0]):
            missing.setdefault(extra[1] if extra else "", []).append(name[0])
    for of, names in missing.items():
        state, what = ("--", f"fastmtl[{of}]") if of else ("BAD", "fastmtl")
        for_what = f", for {EXTRAS[of]}" if of in EXTRAS else ""
        yield state, f"{', '.join(names)} missing{for_what}: pip install '{what}'"
    for module in IMPORTED:
        import_module(module)


def devices(_: Sequence[str]) -> Iterator[Line]:
    """Devices, what `precision=auto` makes of them, threads."""
    import torch

    from fastmtl.training.config import Hardware, resolve_precision

    cuda = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    device = f"GPU: {', '.join(cuda)}" if cuda else "CPU, since no CUDA device is seen"
    yield "ok", f"trainer.accelerator=auto: {device}"
    precision = resolve_precision("auto", Hardware())
    yield "ok", f"precision=auto: {precision}, since {WHY[bool(cuda), precision]}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "ok", f"threads: {torch.get_num_threads()} on {cores} cores; OMP_NUM_THREADS sets them"


def configuration(overrides: Sequence[str]) -> Iterator[Line]:
    """Whether the configuration composes into an experiment, its tasks among it."""
    exp = compose(*overrides)
    yield "ok", f"configuration: primary={exp.primary} of {len(exp.tasks)} tasks, encoder {exp.encoder.name}"


def folders(overrides: Sequence[str]) -> Iterator[Line]:
    """Whether results and artifacts can be written, and how much of them."""
    paths = typed_paths(values(*overrides))
    for key in ("output", "artifacts"):
        given = Path(getattr(paths, key)).expanduser().absolute()
        existing = next(path for path in (given, *given.parents) if path.exists())
        free = shutil.disk_usage(existing).free / 1e9
        try:
            tempfile.TemporaryFile(dir=existing).close()
            yield ("ok" if free > 1 else "BAD"), f"paths.{key}: {given} can be written to, {free:.1f} GB free"
        except OSError as error:
            yield "BAD", f"paths.{key}: {given} cannot be written to ({error.strerror}); name a folder of yours"


def hub(_: Sequence[str]) -> Iterator[Line]:
    """Whether the Hub answers, for data=glue and encoders that are not cached."""
    from huggingface_hub import constants

    alone = f"what is in {constants.HF_HUB_CACHE} can be used; generated rows and your own files need no network"
    if constants.HF_HUB_OFFLINE:
        yield "--", f"Hub: not asked, since HF_HUB_OFFLINE is set; {alone}"
        return
    reasons: list[str] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_S).close()
            reasons.append("")
        except OSError as error:
            reasons.append(str(getattr(error, "reason", error)))

    asking = threading.Thread(target=ask, daemon=True)  # looking up its address knows no time limit
    asking.start()
    asking.join(HUB_S)
    reason = reasons[0] if reasons else f"nothing within {HUB_S:.0f} s"
    yield ("--", f"Hub: no answer ({reason}); {alone}") if reason else ("ok", f"Hub: {constants.ENDPOINT} answers")


CHECKS: tuple[Callable[[Sequence[str]], Iterator[Line]], ...] = (packages, devices, configuration, folders, hub)


def main(argv: list[str]) -> int:
    """`fastmtl doctor`; 1 if something that is needed is broken."""
    parser = Arguments("doctor", "fastmtl doctor data=glue primary=rte", "Exits with 1 where a run could not work.")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE as for fastmtl: what a run with them would need")
    overrides, bad = parser.parse_args(argv).overrides, 0
    for check in CHECKS:
        try:
            for state, text in check(overrides):
                bad += state == "BAD"
                print(f"{state:3}  {text}", flush=True)
        except Exception as error:  # whatever is broken is what was asked for
            bad += 1
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            print(f"BAD  {check.__name__}: {kind}{' '.join(str(error).split())[:300]}", flush=True)
    return int(bad > 0)
