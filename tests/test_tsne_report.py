"""The pictures of projections and the numbers beside them, from hand-made artifacts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.errors import UserError
from fastmtl.store import Artifact
from tests.helpers.scripts import script

projection = script("tsne/projection.py")

WITHOUT = {"mnli": 0.25, "cola": 0.75}
WITH = {"mnli": 0.9, "cola": 0.1}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Artifact]:
    def one(kind: str, near: dict[str, float]) -> Artifact:
        (path := tmp_path / kind).mkdir()
        told = {
            "rows": {"rte": 3, "mnli": 3, "cola": 1}, "probe": {"all": 0.5, "tasks": {"rte": 0.4}}, "k": 15,
            "own": {"rte": 0.6}, "near": {"rte": near},
        }  # fmt: skip
        (path / "separation.json").write_text(json.dumps(told))
        columns = {"task": ["rte"] * 3 + ["mnli"] * 3 + ["cola"], "row": list(range(7))}
        places = {"x": [float(i) for i in range(7)], "y": [0.0] * 7}
        pa.parquet.write_table(pa.table({**columns, **places}), path / "projection.parquet")
        return Artifact("projection", "0", path, {}, True)

    return {"without": one("without", WITHOUT), "with": one("with", WITH)}


def test_the_table_has_both_beside_chance_and_the_nearest_task_first(made: dict[str, Artifact]) -> None:
    told = projection.table(made, "rte")
    assert list(told.headers) == ["rows, %", "without", "with", "by chance"]
    assert [row[1:] for row in told.rows] == [
        ["50.0", "50.0", "42.9"],  # the largest task, 3 of 7 rows
        ["40.0", "40.0", ""],
        ["60.0", "60.0", "33.3"],  # 2 of the 6 others
        ["25.0", "90.0", "75.0"],  # 3 of 4
        ["75.0", "10.0", "25.0"],
    ]
    assert [row[0].split()[-1] for row in told.rows[3:]] == ["mnli", "cola"]
    assert "7 rows" in told.note


def test_pictures_have_names_and_the_numbers_as_text(made: dict[str, Artifact]) -> None:
    without, with_ = projection.pictures(made, "rte")
    assert (without.name, with_.name) == ("projection_without", "projection_with")
    assert without.alt.endswith("neighbours of rte among other tasks: cola 75 %, mnli 25 %")
    assert [len(artist.get_offsets()) for artist in with_.figure.axes[0].collections] == [1, 3, 3]


def test_a_projection_has_the_primary_on_top() -> None:
    places = np.arange(24.0).reshape(12, 2)
    rows = pd.DataFrame({"task": np.repeat(["a", "b", "c"], 4), "x": places[:, 0], "y": places[:, 1]})
    axes = projection.scatter(rows, "b", "of features").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["b", "c", "a"]
    assert np.asarray(axes.collections[-1].get_offsets()) == pytest.approx(places[4:8])


def test_without_a_proxy_there_is_nothing_to_show() -> None:
    with pytest.raises(UserError, match="no cell has a proxy to show; add selection=feature_similarity"):
        projection.part([{"command": "fastmtl selection=none", "stages": [{"stage": "finetune"}]}])
