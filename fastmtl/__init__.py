"""Find the auxiliary rows that help a small primary task, train on them, and show what it cost."""

import os
from typing import Any

# Threads of torch's OpenMP spin while they wait. Two processes on the same cores then stop each other: measured on two
# cores, a step of a small model took 100 times as long beside another job. Sleeping costs nothing measurable alone.
# It must be set before torch is imported; an environment that sets it itself is left alone.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["UserError", "compose", "record"]


def __getattr__(name: str) -> Any:  # so that `import fastmtl` costs nothing until something is used
    if name == "compose":
        from fastmtl.cli.compose import compose

        return compose
    if name == "record":
        from fastmtl.reporting.result import record

        return record
    if name == "UserError":
        from fastmtl.errors import UserError

        return UserError
    raise AttributeError(f"module 'fastmtl' has no attribute {name!r}")
