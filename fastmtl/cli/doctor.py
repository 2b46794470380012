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
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from fastmtl.cli.compose import compose, typed_paths, values
from fastmtl.cli.verbs import Arguments
from fastmtl.errors import UserError

SHOWN = ("fastmtl", "torch", "pytorch-lightning", "transformers", "hydra-core", "datasets", "wandb")
IMPORTED = ("torch", "pytorch_lightning", "transformers", "datasets")
"""What a broken installation of shows only when it is imported."""

EXTRAS = {
    "minilm": "encoder=minilm, the default", "wandb": "logger=wandb and make dashboard",
    "tensorboard": "logger=tensorboard", "surgery": "weighting=pcgrad, cagrad and upgrad",
    "launchers": "cells in parallel, hydra/launcher=joblib and submitit_*", "ray": "hydra/launcher=ray",
    "bench": "make bench", "docs": "make docs", "dev": "the tests and make check",
}  # fmt: skip
"""Extra of the package -> what it is for."""

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
    yield "ok", ", ".join(f"{name} {_version(name)}" for name in SHOWN if _version(name))
    missing: dict[str, list[str]] = {}
    for line in requires("fastmtl") or []:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"]([\w-]+)", line)
        if name and not _version(name[0]):
            missing.setdefault(extra[1] if extra else "", []).append(name[0])
    for of, names in missing.items():
        for_what = f", for {EXTRAS[of]}" if of in EXTRAS else ""
        fix = f"pip install 'fastmtl{f'[{of}]' if of else ''}'"
        yield "--" if of else "BAD", f"{', '.join(names)} missing{for_what}: {fix}"
    for module in IMPORTED:
        import_module(module)


def devices(_: Sequence[str]) -> Iterator[Line]:
    """Devices, what `precision=auto` makes of them, threads."""
    import torch

    from fastmtl.training.config import Hardware, resolve_precision

    cuda = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    device = f"GPU: {', '.join(cuda)}" if cuda else "CPU, since no CUDA device is seen"
    precision, unit = resolve_precision("auto", Hardware()), "GPU" if cuda else "processor (AVX512-BF16 or AMX)"
    why = f"bf16 is native to this {unit}" if precision == "bf16" else f"bf16 is only emulated by this {unit}"
    yield "ok", f"trainer.accelerator=auto: {device}"
    yield "ok", f"precision=auto: {precision}, since {why}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "ok", f"threads: {torch.get_num_threads()} on {cores} cores; OMP_NUM_THREADS sets them"


def configuration(overrides: Sequence[str]) -> Iterator[Line]:
    """Whether it composes into an experiment with tasks, and whether results and artifacts can be written."""
    paths = typed_paths(values(*overrides))
    for key, folder in {"output": paths.output, "artifacts": paths.artifacts}.items():
        given = Path(folder).expanduser().absolute()
        existing = next(path for path in (given, *given.parents) if path.exists())
        free = shutil.disk_usage(existing).free / 1e9
        try:
            tempfile.TemporaryFile(dir=existing).close()
            yield "ok" if free > 1 else "BAD", f"paths.{key}: {given} can be written to, {free:.1f} GB free"
        except OSError as error:
            yield "BAD", f"paths.{key}: {given} cannot be written to ({error.strerror}); name a folder of yours"
    exp = compose(*overrides)
    yield "ok", f"configuration: primary={exp.primary} of {len(exp.tasks)} tasks, encoder {exp.encoder.name}"


def hub(_: Sequence[str]) -> Iterator[Line]:
    """Whether the Hub answers, for data=glue and encoders that are not cached."""
    from huggingface_hub import constants

    reasons: list[str] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_S).close()
            reasons.append("")
        except OSError as error:
            reasons.append(f"no answer ({getattr(error, 'reason', error)})")

    if constants.HF_HUB_OFFLINE:
        reasons = ["not asked, since HF_HUB_OFFLINE is set"]
    else:
        asking = threading.Thread(target=ask, daemon=True)  # looking up its address knows no time limit
        asking.start()
        asking.join(HUB_S)
    alone = f"what is in {constants.HF_HUB_CACHE} can be used; generated rows and your own files need no network"
    reason = reasons[0] if reasons else f"no answer within {HUB_S:.0f} s"
    yield ("--", f"Hub: {reason}; {alone}") if reason else ("ok", f"Hub: {constants.ENDPOINT} answers")


def main(argv: list[str]) -> int:
    """`fastmtl doctor`; 1 if something that is needed is broken."""
    parser = Arguments("doctor", "fastmtl doctor data=glue primary=rte", "Exits with 1 where a run could not work.")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE as for fastmtl: what a run with them would need")
    overrides, bad = parser.parse_args(argv).overrides, 0
    for check in (packages, devices, configuration, hub):
        try:
            for state, text in check(overrides):
                bad += state == "BAD"
                print(f"{state:3}  {text}", flush=True)
        except Exception as error:  # whatever is broken is what was asked for
            bad += 1
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            print(f"BAD  {check.__name__}: {kind}{' '.join(str(error).split())[:300]}", flush=True)
    return int(bad > 0)
