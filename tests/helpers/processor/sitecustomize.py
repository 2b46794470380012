"""Replaces the bf16 entries of `torch.cpu.get_capabilities`, once torch is imported and only if the variable is set."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any

VARIABLE = "FASTMTL_TESTS_BF16"


def _patch(torch_cpu: Any) -> None:
    real = torch_cpu.get_capabilities
    forced = {"avx512_bf16": os.environ[VARIABLE] == "1", "amx_bf16": False}
    torch_cpu.get_capabilities = lambda: {**real(), **forced}


class _Watch(MetaPathFinder):
    """Waits for torch instead of importing it: what does not need it stays fast."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            _patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def fake() -> None:
    """Patch torch if it is there, else as soon as it is."""
    if "torch.cpu" in sys.modules:
        _patch(sys.modules["torch.cpu"])
    elif not any(type(finder).__name__ == "_Watch" for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


if __name__ == "sitecustomize" and VARIABLE in os.environ:
    fake()
