"""What README and docs show runs as it is shown."""

import re
from pathlib import Path

import pytest

from tests.helpers.cli import run_cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs/tutorials/own_data.md").read_text()
EXTENDING = (ROOT / "docs/extending.md").read_text()


def block(text: str, language: str, containing: str) -> str:
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if containing in b]
    assert len(found) == 1, f"{len(found)} {language} blocks contain {containing!r}"
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["length_match", "bottom_k"])
def test_the_scorer_and_the_selector_of_the_docs_run_from_an_empty_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "my_scorers.py").write_text(block(EXTENDING, "python", "class LengthMatch"))
    (tmp_path / "my_selectors.py").write_text(block(EXTENDING, "python", "class BottomK"))
    (tmp_path / "my_conf/selection").mkdir(parents=True)
    (tmp_path / f"my_conf/selection/{name}.yaml").write_text(block(EXTENDING, "yaml", f"name: {name}"))
    ran = run_cli(
        tmp_path, "--config-dir", "my_conf", f"selection={name}", "debug=smoke", "stage=selection", path=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert "selection" in ran.stdout


def test_the_tasks_file_of_the_tutorial_declares_three_valid_tasks(tmp_path: Path) -> None:
    from fastmtl.data.sources.files import from_yaml

    (tmp_path / "tasks.yaml").write_text(block(TUTORIAL, "yaml", "name: tickets"))
    tasks = from_yaml(str(tmp_path / "tasks.yaml"))
    assert [task.labels for task in tasks] == [("no", "yes"), ("1", "2", "3", "4", "5"), ("spam", "private", "work")]


def test_the_table_of_extensions_names_files_that_exist_and_two_at_most() -> None:
    rows = [line for line in EXTENDING.splitlines() if line.startswith("| a ")]
    assert [row.split("|")[1].split(",")[0].strip() for row in rows] == [
        "a scorer", "a selector", "a kind of task", "a source of rows", "a stage", "a section of the report"
    ]  # fmt: skip
    for row in rows:
        named = re.findall(r"`((?:fastmtl|conf)/[\w/.]+)`", row)
        assert all((ROOT / path).exists() for path in named), row
        assert len(row.split("|")) == 6
