"""The matrix of gains on a user's own files: models once for both directions, features, affinities, a predictor."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from fastmtl.cli.compose import compose
from fastmtl.cli.main import main as command
from fastmtl.errors import UserError
from fastmtl.pipelines.relations import GainMatrix
from fastmtl.relations.predictor import GainPredictor

WORDS = "red blue green cat dog fish run jump sit old new big small house tree sun moon star".split()
RULES: dict[str, Callable[[list[str]], float]] = {
    "red": lambda words: float("red" in words),
    "cat": lambda words: float("cat" in words or "dog" in words),
    "noise": lambda words: float(len(words[0]) % 2),
    "length": lambda words: float(sum(map(len, words))),
}


def write_tasks(folder: Path, *names: str, validation: bool = True) -> Path:
    """Each task's files, the same whatever others there are, and the YAML that declares them."""
    splits = ("train", "validation") if validation else ("train",)
    told = []
    for name in names:
        rng = random.Random(name)
        for split in splits:
            rows = [rng.choices(WORDS, k=6) for _ in range(40)]
            lines = [json.dumps({"text": " ".join(words), "label": RULES[name](words)}) for words in rows]
            (folder / f"{name}.{split}.jsonl").write_text("\n".join(lines) + "\n")
        kind = "kind: regression" if name == "length" else 'kind: classification, labels: ["0.0", "1.0"]'
        files = ", ".join(f"{split}: {name}.{split}.jsonl" for split in splits)
        told.append(f"- {{name: {name}, {kind}, text: text, splits: {{{files}}}}}")
    (folder / "tasks.yaml").write_text("tasks:\n" + "\n".join(told) + "\n")
    return folder / "tasks.yaml"


def overrides(folder: Path, config: Path, primary: str = "red") -> list[str]:
    return [
        "data=files", f"data.config={config}", f"primary={primary}", f"paths.output={folder}", "encoder=tiny",
        "trainer=cpu", "relations.batches=100", "relations.fit.batch_size=2", "proxy.fit.epochs=1",
        "multitask.fit.epochs=1", "finetune.fit.epochs=1", "logger=none",
    ]  # fmt: skip


def run(*arguments: str) -> None:
    with mock.patch.dict(os.environ):  # which a program may set for itself
        command(["relations", *arguments])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks and one seed, without a proxy."""
    folder = tmp_path_factory.mktemp("two")
    config = write_tasks(folder, "red", "length")
    run("toy", *overrides(folder, config), "--seeds", "1", "--points", "--no-affinities")
    return folder


def models(folder: Path) -> set[str]:
    return {path.parent.name for path in (folder / "artifacts/joint").glob("*/manifest.json")}


def test_a_pair_is_one_model_for_both_directions(two: Path) -> None:
    assert len(models(two)) == 3
    scores = pd.read_csv(two / "relations/toy/scores.csv").fillna({"other": ""})
    assert set(scores["rows"]) == {40}
    by_pair = scores.set_index(["task", "other"])["score"]
    assert set(by_pair.index) == {("red", ""), ("length", ""), ("red", "length"), ("length", "red")}
    named = json.loads((two / "relations/toy/result.json").read_text())["artifacts"]  # which `fastmtl gc` keeps
    assert {f"{path.parent.name}/{path.name}" for path in two.glob("artifacts/*/[!.]*")} == set(named)
    gain = pd.read_csv(two / "relations/toy/gains.csv", index_col=["main", "aux"])["gain"]
    for main, aux in gain.index:
        assert gain[main, aux] == pytest.approx(100 * (by_pair[main, aux] - by_pair[main, ""]), abs=1e-9)
    features = pd.read_csv(two / "relations/toy/features.csv", index_col="task")
    assert features["labels"].to_dict() == {"red": 2, "length": 5}
    assert (features["size"] == 40).all()
    assert "<svg" in (two / "relations/toy/figure.svg").read_text()


def test_a_saved_predictor_chooses_tasks_without_any_pair(two: Path) -> None:
    x = pairs_table()
    path = two / "predictor.json"
    GainPredictor.fit(x, pd.Series([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], x.index)).save(path)
    before = models(two)
    chosen = ["selection=predicted_gain", f"selection.predictor={path}", "budget=10"]
    cell = compose(*overrides(two, two / "tasks.yaml"), *chosen)
    stages = [artifact.kind for artifact in cell.artifacts("selection")]
    assert stages.count("joint") == 2  # their cost is a part of the cell's
    assert models(two) == before
    artifact = cell.utilities()
    assert artifact is not None
    utilities = artifact.read("utilities.json")
    assert utilities["red"] is None
    assert utilities["length"] > 0.5
    assert cell.selection().read("counts.json") == {"length": 10}


@pytest.mark.slow  # ten models
def test_affinities_of_three_tasks_and_a_fourth_that_adds_its_own_pairs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_tasks(tmp_path, "red", "cat", "length")
    run("toy", *overrides(tmp_path, config), "--seeds", "1", "--points")
    before = models(tmp_path)
    assert len(before) == 3 + 3
    affinities = pd.read_csv(tmp_path / "relations/toy/affinities.csv", index_col=["main", "aux"])
    assert list(affinities) == ["confusion", "centroids", "taskemb", "gradients"]
    assert affinities.notna().all().all()
    config = write_tasks(tmp_path, "noise", "length", "red", "cat")
    run("more", *overrides(tmp_path, config), "--seeds", "1", "--points", "--no-affinities")
    assert before < models(tmp_path)
    assert len(models(tmp_path)) == len(before) + 1 + 3


def pairs_table() -> pd.DataFrame:
    """Features of six pairs that a predictor can be fitted to."""
    index = pd.MultiIndex.from_tuples([(f"m{i}", f"a{i}") for i in range(6)], names=["main", "aux"])
    return pd.DataFrame({"aux/labels": [5.0, 2, 4, 2, 5, 2], "main/size": [40.0, 40, 40, 41, 40, 40]}, index)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["relations.batches=20"], "relations.batches=20 does not fit; use a whole number of 100 or more"),
        (["relations.validation_rows=0"], "relations.validation_rows=0 does not fit; use a whole number of 2 or more"),
        (["--seeds", "0"], "argument --seeds: '0' is not a whole number of 1 or more"),
        (["seed=-1"], "seed=-1 does not fit"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_tasks(tmp_path, "red", "cat")
    with pytest.raises(SystemExit):
        run("toy", *overrides(tmp_path, config), *arguments)
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_task_that_cannot_be_measured_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    write_tasks(tmp_path, "cat", validation=False)
    without = (tmp_path / "tasks.yaml").read_text().splitlines()[1]
    config = write_tasks(tmp_path, "red")
    config.write_text(f"{config.read_text()}{without}\n")
    with pytest.raises(UserError, match="task 'cat' has no validation split"):
        GainMatrix({0: compose(*overrides(tmp_path, config))}, affinities=False).run()
    assert not (tmp_path / "artifacts").exists()
    path = tmp_path / "predictor.json"
    path.write_text("{}")
    chosen = [*overrides(tmp_path, config), "selection=predicted_gain", f"selection.predictor={path}"]
    with pytest.raises(UserError, match="is no saved predictor"):
        compose(*chosen)
    GainPredictor.fit(pairs_table(), pd.Series([1.0, -1, 1, -1, 1, -1], pairs_table().index)).save(path)
    with pytest.raises(UserError, match="task 'cat' has no validation split"):
        compose(*chosen)
