"""A pile of which a known share is of the primary's own task, under another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.cli.compose import compose
from fastmtl.data.sources.pile import ARCHIVE, FLAG, pile_tasks
from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

SHARES = (0.1, 0.5, 1.0)


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    for name, rows in (("sst2", 60), ("cola", 40), ("rte", 6)):
        (tmp_path / name).mkdir()
        for split in ("train", "validation"):
            text = [f"{name} {split} {i}" for i in range(rows)]
            columns = {"sentence1": text, "sentence2": text} if name == "rte" else {"sentence": text}
            table = pa.table({**columns, "label": [i % 2 for i in range(rows)]})
            pa.parquet.write_table(table, tmp_path / name / f"{split}.parquet")
    return tmp_path


def pile(folder: Path, share: float = 0.5, **options: Any) -> dict[str, TaskSpec]:
    given = {"unrelated": ["cola", "rte"], "size": 40, "rows": 20, "validation": 30, **options}
    return {task.name: task for task in pile_tasks(str(folder), "sst2", share=share, **given)}


def rows_of(task: TaskSpec, split: str = "train") -> list[dict[str, Any]]:
    assert task.source is not None
    return [row for batch in task.source.batches(task, split) for row in batch.to_pylist()]


def texts(task: TaskSpec, split: str = "train") -> list[str]:
    return [row[task.text[0]] for row in rows_of(task, split)]


@pytest.mark.parametrize("share", SHARES)
def test_as_many_rows_are_related_as_the_share_says(glue: Path, share: float) -> None:
    tasks = pile(glue, share)
    flags = [row[FLAG] for name, task in tasks.items() if name != "sst2" for row in rows_of(task)]
    assert (len(flags), sum(flags)) == (40, round(40 * share))
    assert all(text.startswith("sst2 train") for text in texts(tasks[ARCHIVE]))
    assert len(texts(tasks["sst2"])) == 20
    assert set(texts(tasks["sst2"])).isdisjoint(texts(tasks[ARCHIVE]))


def test_labels_stay_beside_their_texts(glue: Path) -> None:
    for task in pile(glue).values():
        assert all(int(row[task.text[0]].split()[-1]) % 2 == row["label"] for row in rows_of(task))


def test_a_task_with_few_rows_gives_all_and_the_others_the_rest(glue: Path) -> None:
    assert {name: len(rows_of(task)) for name, task in pile(glue).items()} == {
        "sst2": 20, ARCHIVE: 20, "cola": 14, "rte": 6,
    }  # fmt: skip


def test_rows_of_a_smaller_share_are_among_those_of_a_larger_one(glue: Path) -> None:
    few, half, all_ = (set(texts(pile(glue, share)[ARCHIVE])) for share in SHARES)
    assert few < half < all_


def test_a_seed_draws_other_training_rows_and_the_same_validation_rows(glue: Path) -> None:
    first, second = pile(glue), pile(glue, seed=1)
    for name in ("sst2", ARCHIVE, "cola"):
        assert set(texts(first[name])) != set(texts(second[name]))
    assert texts(first["sst2"], "validation") == texts(second["sst2"], "validation")
    assert len(texts(first["sst2"], "validation")) == 30


def test_the_digest_is_that_of_the_rows(glue: Path) -> None:
    assert pile(glue)["sst2"].content == pile(glue, share=0.1)["sst2"].content  # cells without a pile are shared
    assert pile(glue)[ARCHIVE].content != pile(glue, share=0.1)[ARCHIVE].content
    assert pile(glue)["sst2"].content != pile(glue, seed=1)["sst2"].content


def test_the_report_knows_which_rows_are_related_and_the_primary_has_no_flag(glue: Path) -> None:
    drawn = ["data.source.rows=20", "data.source.size=40", "data.source.share=0.5", "data.source.unrelated=[cola]"]
    paths = [f"data.root={glue}", f"paths.artifacts={glue / 'artifacts'}"]
    exp = compose("data=pile", *drawn, *paths, "encoder=tiny", "selection=full", "protocol=paper")
    flags = exp.pool.flags_of(exp.candidate_ids())
    assert flags is not None
    assert np.mean(flags) == 0.5
    assert exp.pool.flags_of(exp.pool.rows_of("sst2")) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 1.0, "size": 41}, "takes 41 rows of 'sst2' beside the primary's 20, but there are 60; lower"),
        ({"share": 0.01}, "is 0 rows, fewer than two; raise share"),
        ({"share": 0.1, "size": 60}, r"asks for 54 unrelated rows, but cola, rte have 46; lower size or name more"),
        ({"unrelated": [], "share": 0.1}, r"asks for 36 unrelated rows, but no task has any"),
        ({"unrelated": ["cola", "sst2"]}, "'sst2' 2 times"),
        ({"unrelated": ["wnli"]}, "no file .*wnli/train.parquet"),
        ({"share": 0}, "share=0 does not fit"),
    ],
)
def test_what_the_pool_cannot_give_is_one_line(glue: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        pile(glue, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.data("glue")
def test_real_rows_fill_a_pile(shared_data: Path) -> None:
    tasks = pile_tasks(str(shared_data / "glue"), "sst2", ["cola", "qqp"], share=0.01)
    assert [len(rows_of(task)) for task in tasks] == [500, 50, 2475, 2475]
    assert len(rows_of(tasks[0], "validation")) == 872
