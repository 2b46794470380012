"""Find the auxiliary rows that help a small primary task, train on them, and show what it cost."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["UserError", "compose", "load", "record"]


def __getattr__(name: str) -> Any:  # so that `import fastmtl` costs nothing until something is used
    if name == "compose":
        from fastmtl.cli.compose import compose

        return compose
    if name == "load":
        from fastmtl.training.trained import load

        return load
    if name == "record":
        from fastmtl.reporting.result import record

        return record
    if name == "UserError":
        from fastmtl.errors import UserError

        return UserError
    raise AttributeError(f"module 'fastmtl' has no attribute {name!r}")
