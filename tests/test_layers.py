"""A module imports from its own or a lower level, and each large library from some level up."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LEVEL = {
    "errors": 0, "tasks": 0, "store": 0, "selection": 0, "bandit": 0, "resampling": 0, "stats": 0, "progress": 1,
    "data": 1, "models": 2, "training": 3, "relations": 3, "scoring": 4,
    "mixing": 5, "plans": 5, "stages": 5, "pipeline": 5,
    "reporting": 6, "config": 6, "worker": 6, "cli": 6, "sweep": 6, "tuning": 6, "pairs": 6,
    "__init__": 6,
}  # fmt: skip
"""A new module or folder of the package is one more entry here."""

LOWEST = {"torch": 1, "datasets": 1, "pyarrow": 1, "transformers": 2, "tokenizers": 2, "pytorch_lightning": 3,
          "hydra": 6, "omegaconf": 6}  # fmt: skip
AT_LEVEL_0 = {"numpy", "filelock", "scipy", "statsmodels"}
PACKAGE = Path(__file__).resolve().parents[1] / "fastmtl"
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(parts: tuple[str, ...]) -> str:
    """`data` of fastmtl/data/pool.py, `store` of fastmtl/store.py, `__init__` of the package itself."""
    return parts[0].removesuffix(".py") if parts else "__init__"


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything the module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its level"
            inner = [f"fastmtl.{alias.name}" for alias in node.names]  # of `from fastmtl import data`
            yield from inner if node.module == "fastmtl" else [str(node.module)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_or_a_lower_level(path: Path) -> None:
    level = LEVEL[unit(path.relative_to(PACKAGE).parts)]
    for name in imported(path):
        library, *rest = name.split(".")
        if library == "fastmtl":
            assert LEVEL[unit(tuple(rest))] <= level, f"level {level} imports {name}"
        elif library not in sys.stdlib_module_names:
            assert LOWEST.get(library, 0) <= level, f"level {level} imports {library}"
            assert level > 0 or library in AT_LEVEL_0, f"level 0 imports {library}"


def test_every_module_has_a_level_and_every_level_a_module() -> None:
    assert {unit(path.relative_to(PACKAGE).parts) for path in MODULES} == set(LEVEL)
