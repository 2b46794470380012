"""The studies' programs, which are in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def script(path: str) -> ModuleType:
    """The module of `experiments/PATH`, loaded anew: what a test changes in it no other test sees."""
    name = f"experiments_{Path(path).with_suffix('').as_posix().replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS / Path(path).parent)  # as where it is run as a program
        spec.loader.exec_module(module)
    return module
