"""What the README shows runs as it is shown."""

import re
from pathlib import Path

import pytest

from tests.helpers.cli import run_cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in b]
    assert len(found) == 1, f"{len(found)} {language} blocks contain {containing!r}"
    return found[0]


@pytest.mark.slow
def test_the_selector_of_the_readme_runs_from_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "my_selectors.py").write_text(block("python", "class BottomK"))
    (tmp_path / "my_conf/selection").mkdir(parents=True)
    (tmp_path / "my_conf/selection/bottom_k.yaml").write_text(block("yaml", "my_selectors.BottomK"))
    mine = ["--config-dir", "my_conf", "selection=bottom_k"]
    ran = run_cli(tmp_path, *mine, "debug=smoke", "stage=selection", path=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "selection" in ran.stdout


def test_the_tasks_file_of_the_readme_declares_two_valid_tasks(tmp_path: Path) -> None:
    from fastmtl.data.sources.files import from_yaml

    (tmp_path / "tasks.yaml").write_text(block("yaml", "name: tickets"))
    tasks = from_yaml(str(tmp_path / "tasks.yaml"))
    assert [task.labels for task in tasks] == [("no", "yes"), ("1", "2", "3", "4", "5")]


def test_the_file_tree_lists_every_module() -> None:
    tree = README[README.index("## The tree") : README.index("## Limits today")]
    modules = [path.relative_to(ROOT / "fastmtl") for path in (ROOT / "fastmtl").rglob("*.py")]
    for module in modules:
        if module.name != "__init__.py" and module.parts[0] not in ("scoring", "reporting"):
            assert str(module) in tree, f"README's tree lacks {module}"
