"""One YAML whose tasks come from files, GLUE and functions of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.cli.compose import compose
from fastmtl.data.sources.files import from_yaml
from fastmtl.data.sources.generated import sample_tasks
from fastmtl.data.sources.glue import from_parquet
from fastmtl.data.sources.hub import HubSource
from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

MINE = "{name: mine, kind: classification, text: text, labels: [no, yes], splits: {train: a.csv, validation: a.csv}}"
OTHER = "{name: other, kind: regression, text: text, label: mark, splits: {train: b.csv}}"
MRPC = "{name: mrpc, source: glue, root: glue}"


def chats_and_mails(seed: int = 0, only: tuple[str, ...] = ("chats", "mails")) -> list[TaskSpec]:
    return [task for task in sample_tasks(seed) if task.name in only]


def without_source() -> list[TaskSpec]:
    return [replace(task, source=None) for task in chats_and_mails()]


def a_number() -> int:
    return 3


def one_alone() -> TaskSpec:
    return chats_and_mails()[0]


OWN = f"{__name__}.chats_and_mails"


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., tuple[TaskSpec, ...]]:
    """`declare(*tasks)`: the tasks of a YAML beside two CSV files and a folder of GLUE."""
    (tmp_path / "a.csv").write_text("text,label\n" + "the cook,no\na waiter,yes\n" * 10)
    (tmp_path / "b.csv").write_text("text,mark\n" + "apples,0.5\nbowls,1\n" * 10)
    (tmp_path / "glue" / "mrpc").mkdir(parents=True)
    rows = {"sentence1": ["the cook", "a"] * 10, "sentence2": ["the waiter", "b"] * 10, "label": [0, 1] * 10}
    for split in ("train", "validation"):
        pa.parquet.write_table(pa.table(rows), tmp_path / "glue" / "mrpc" / f"{split}.parquet")

    def tasks(*entries: str) -> tuple[TaskSpec, ...]:
        (tmp_path / "tasks.yaml").write_text("tasks:\n" + "".join(f"- {entry}\n" for entry in entries))
        return from_yaml(str(tmp_path / "tasks.yaml"))

    return tasks


def test_each_task_has_the_rows_of_its_own_source(declare: Callable[..., tuple[TaskSpec, ...]], tmp_path: Path) -> None:
    tasks = declare(MINE, MRPC, f"{{source: {OWN}, seed: 1, only: [mails]}}", OTHER)
    assert [task.name for task in tasks] == ["mine", "mrpc", "mails", "other"]
    first = []
    for task in tasks:
        assert task.source is not None
        first.append(next(task.source.batches(task, "train")).to_pylist()[0])
    assert first[0] == {"text": "the cook", "label": "no"}
    assert first[1] == {"sentence1": "the cook", "sentence2": "the waiter", "label": 0}
    assert first[3] == {"text": "apples", "mark": "0.5"}
    assert [task.source.labels_are_codes for task in tasks if task.source] == [False, True, True, False]
    # A number is a number, and so the rows are those of the function itself.
    assert tasks[2].content == chats_and_mails(1, ("mails",))[0].content != chats_and_mails(0, ("mails",))[0].content
    assert tasks[1].content == from_parquet(str(tmp_path / "glue"), ["mrpc"])[0].content


def test_a_cell_trains_on_all_of_them(declare: Callable[..., tuple[TaskSpec, ...]], tmp_path: Path) -> None:
    declare(MINE, OTHER, MRPC, f"{{source: {OWN}}}")
    exp = compose(
        "data=files", f"data.config={tmp_path}/tasks.yaml", "primary=mine", "encoder=tiny", "selection=random",
        "budget=30", "data.rows_per_task=20", "multitask.fit.epochs=1", "finetune.fit.epochs=1", "trainer=cpu",
        "multitask.fit.precision=fp32", "finetune.fit.precision=fp32", f"paths.output={tmp_path}",
    )  # fmt: skip
    assert exp.pool.names == ("mine", "other", "mrpc", "chats", "mails")
    assert len(exp.pool.by_task(exp.selected())) > 1
    assert 0 <= exp.finetune().read("metrics.json")["validation"]["accuracy"] <= 1


def test_a_folder_of_glue_may_stand_anywhere(declare: Callable[..., tuple[TaskSpec, ...]], tmp_path: Path) -> None:
    (inside,) = declare(MRPC)
    (absolute,) = declare(f"{{name: mrpc, source: glue, root: {tmp_path}/glue}}")
    assert inside.content == absolute.content
    with pytest.raises(UserError, match=rf"root='{Path.home()}/nowhere_at_all' is not a folder"):
        declare("{name: mrpc, source: glue, root: ~/nowhere_at_all}")


def test_a_hub_task_says_where_it_is_and_whether_its_labels_are_codes(
    declare: Callable[..., tuple[TaskSpec, ...]],
) -> None:
    rest = "kind: classification, text: a, labels: [no, yes]"
    codes, names = declare(
        f"{{name: one, source: hub, dataset: me/mine, config: '7', revision: '123', {rest}}}",
        f"{{name: two, source: hub, dataset: me/mine, labels_are_codes: false, {rest}}}",
    )
    assert codes.source == HubSource("me/mine", "7", "123")
    assert names.source == HubSource("me/mine", labels_are_codes=False)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ([MINE, MRPC, MINE], ["'mine' is declared 2 times"]),
        ([MRPC, MRPC.replace("mrpc", "mrpc")], ["'mrpc' is declared 2 times"]),
        ([f"{{source: {OWN}}}", MINE.replace("mine", "mails")], ["'mails' is declared 2 times"]),
        (["{name: mrpc, source: glue, root: nowhere}"], ["nowhere", "is not a folder"]),
        (["{name: squad, source: glue, root: glue}"], ["'squad'", "mnli, rte"]),
        (["{source: glue, root: glue}"], ["'None'", "mnli, rte"]),
        (["{name: [mrpc], source: glue, root: glue}"], ["mrpc", "mnli, rte"]),
        (["{name: mrpc, source: glue, root: [glue]}"], ["is not a folder"]),
        (["{name: mrpc, source: glue, labels: [a, b]}"], ["'mrpc'", "its own labels"]),
        (["{name: x, source: hub, kind: regression, text: a}"], ["'x'", "give dataset"]),
        (["{name: x, source: hub, dataset: d, kind: regression}"], ["'x'", "'text' is missing"]),
        (["{name: x, kind: regression, text: a, splits: a.csv}"], ["'x'", "splits='a.csv'", "{train: FILE}"]),
        (["{name: x, source: spreadsheet}"], ["'spreadsheet' is unknown", "files, glue, hub"]),
        (["{source: ''}"], ["source='' is unknown"]),
        (["{source: [glue]}"], ["source=['glue'] is unknown"]),
        (["{source: no_such_module.tasks}"], ["'no_such_module.tasks' is unknown"]),
        ([f"{{source: {__name__}.nothing}}"], [".nothing' is unknown"]),
        ([f"{{source: {OWN}, sed: 1}}"], [OWN, "{'sed': 1}"]),
        ([f"{{source: {__name__}.MINE}}"], [".MINE'", "not a callable"]),
        ([f"{{source: {__name__}.a_number}}"], [".a_number' gives no tasks", "list of TaskSpec"]),
        ([f"{{source: {__name__}.one_alone}}"], [".one_alone' gives no tasks", "list of TaskSpec"]),
        ([f"{{source: {__name__}.without_source}}"], ["'chats' has no source"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_line(
    declare: Callable[..., tuple[TaskSpec, ...]], entries: list[str], named: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        declare(*entries)
    assert "\n" not in str(refused.value)
    assert all(part in str(refused.value) for part in named), refused.value


@pytest.mark.parametrize(
    ("written", "given"),
    [("1", 1), ("2.5", 2.5), ("true", True), ("null", None), ("no", "no"), ("1_000", "1_000"), ("'a: b'", "a: b")],
)
def test_values_for_a_function_are_what_they_look_like(
    declare: Callable[..., tuple[TaskSpec, ...]], monkeypatch: pytest.MonkeyPatch, written: str, given: object
) -> None:
    got: dict[str, object] = {}

    def note(**values: object) -> list[TaskSpec]:
        got.update(values)
        return chats_and_mails()

    monkeypatch.setattr(f"{__name__}.a_number", note)
    declare(f"{{source: {__name__}.a_number, value: {written}, many: [{written}], inner: {{x: {written}}}}}")
    assert got == {"value": given, "many": [given], "inner": {"x": given}}
