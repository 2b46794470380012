"""The studies' tables and figures can be made from any finished sweep of their arms."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, EXPERIMENTS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    arms = "selection=none,random,feature_similarity,full"
    command = [sys.executable, "-m", "fastmtl.cli", "-m", "debug=smoke", arms, "seed=0,1", f"paths.output={folder}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return next(folder.glob("sweeps/*/*"))


def test_the_sample_study_writes_its_table_and_figure(sweep: Path, tmp_path: Path) -> None:
    script("sample_arms/figure.py").main(sweep, tmp_path)
    assert "feature_similarity" in (tmp_path / "results.md").read_text()
    assert "full (" in (tmp_path / "figure.svg").read_text()


def test_the_first_results_write_paired_differences_and_hashes(sweep: Path, tmp_path: Path) -> None:
    script("first_results/table.py").main(sweep, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "feature_similarity - random" in text
    assert str(tmp_path.parent) not in (tmp_path / "results.json").read_text()
