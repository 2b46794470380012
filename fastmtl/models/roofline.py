"""What the machine itself can do: the rate of large matrix products, against which model FLOPs per second are read."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

_LARGEST = {"cpu": 1024, "cuda": 8192}
_LONG_ENOUGH_S = 0.005


@lru_cache
def gemm_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of one device in square matrix products, 2 per multiply-add; measured once a process.

    It is the best of five products with the threads and the float32 settings of this process, in about 0.1 s.
    """
    size = 256  # grown step by step: an emulated dtype takes seconds for what others do in milliseconds
    rates: list[float] = []
    while True:
        seconds = _seconds(size, device, dtype)
        rates.append(2 * size**3 / seconds)
        if seconds > _LONG_ENOUGH_S or size >= _LARGEST.get(device.type, 1024):
            return max(rates)
        size *= 2


@torch.inference_mode()
def _seconds(size: int, device: torch.device, dtype: torch.dtype) -> float:
    """The shortest of five products, after one that pays for kernels and memory; fewer where one takes long."""
    a = torch.rand(size, size, device=device, generator=torch.Generator(device).manual_seed(0)).to(dtype)
    out = a @ a
    times: list[float] = []
    while len(times) < 3 or (len(times) < 5 and sum(times) < 0.05):
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        _wait(device)
        times.append(time.perf_counter() - started)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
