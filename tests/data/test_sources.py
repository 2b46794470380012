"""The same rows from every kind of file, as typed; GLUE from a folder and from the Hub; and what each refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from fastmtl.data.pool import write_task
from fastmtl.data.sources import hub as hub_source
from fastmtl.data.sources.files import FileSource, from_yaml
from fastmtl.data.sources.glue import from_hub, from_parquet
from fastmtl.errors import UserError
from fastmtl.tasks import GLUE, TaskSpec

ROWS = [
    ("001", "first, one", "no"),
    ("NA", 'a "quoted" word', "yes"),
    ("1e3", "two\nlines", "no"),
    ("true", "ünï", "yes"),
]
NAMES = ("code", "text", "answer")


def as_csv(path: Path, delimiter: str = ",") -> None:
    def quoted(value: str) -> str:
        return f'"{value.replace(chr(34), chr(34) * 2)}"' if set(value) & {",", '"', "\n"} else value

    lines = [delimiter.join(map(quoted, row)) for row in (NAMES, *ROWS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(dict(zip(NAMES, row))) + "\n" for row in ROWS))


def as_parquet(path: Path) -> None:
    pa.parquet.write_table(pa.table({name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}), path)


WRITERS = {
    "csv": as_csv, "tsv": lambda path: as_csv(path, "\t"), "jsonl": as_jsonl, "ndjson": as_jsonl, "parquet": as_parquet,
}  # fmt: skip


def files(folder: Path, train: str) -> TaskSpec:
    spec = {"name": "t", "kind": "classification", "text": ["code", "text"], "labels": ["no", "yes"], "label": "answer"}
    return TaskSpec.from_dict({**spec, "splits": {"train": train}}, FileSource(str(folder)))


def rows_of(task: TaskSpec, split: str = "train") -> list[dict[str, Any]]:
    assert task.source is not None
    return [row for batch in task.source.batches(task, split) for row in batch.to_pylist()]


def refusal(task: TaskSpec) -> str:
    with pytest.raises(UserError) as error:
        rows_of(task)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ending", WRITERS)
def test_the_same_rows_from_every_kind_of_file_exactly_as_typed(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](tmp_path / f"rows.{ending}")
    assert rows_of(files(tmp_path, f"rows.{ending}")) == [dict(zip(NAMES, row)) for row in ROWS]


def test_an_ending_may_be_in_capitals(tmp_path: Path) -> None:
    as_csv(tmp_path / "ROWS.CSV")
    assert len(rows_of(files(tmp_path, "ROWS.CSV"))) == 4


def test_numbers_of_a_csv_stay_text_in_the_columns_that_the_task_uses(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("code,text,answer,other\n007,1.50,no,5\n08,null,yes,6\n")
    assert [(r["code"], r["text"]) for r in rows_of(files(tmp_path, "n.csv"))] == [("007", "1.50"), ("08", "null")]


def test_a_column_that_no_task_uses_may_change_its_type_late_in_a_long_csv(tmp_path: Path) -> None:
    lines = [f"{i},{'x' * 200},no,{i}" for i in range(12_000)]  # over two blocks of pyarrow's reader
    (tmp_path / "long.csv").write_text("\n".join(["code,text,answer,ticket", *lines, "1,late,yes,A-17"]) + "\n")
    assert len(rows_of(files(tmp_path, "long.csv"))) == 12_001


def test_a_field_may_appear_late_in_a_long_jsonl(tmp_path: Path) -> None:
    row = {"code": "1", "text": "x" * 300, "answer": "no"}
    late = {**row, "note": "new"}
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*[row] * 8000, late]))
    assert len(rows_of(files(tmp_path, "long.jsonl"))) == 8001


def test_an_unknown_ending_is_named_with_those_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("x")
    message = refusal(files(tmp_path, "rows.xlsx"))
    assert "'.xlsx'" in message
    assert ".csv, .tsv, .jsonl, .ndjson, .parquet, .arrow, .feather or .conll" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("empty.jsonl", b""),
        ("broken.parquet", b"no parquet"),
        ("broken.jsonl", b'{"code": "1", \n{{{'),
        ("ragged.csv", b"code,text,answer\n1,2\n"),
        ("latin1.csv", "code,text,answer\n1,gr\xfcn,no\n".encode("latin-1")),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(files(tmp_path, name))
    assert name in message
    assert "'t'" in message


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_with_a_header_and_no_rows_gives_none_and_the_pool_says_so(
    tmp_path: Path, ending: str, toy_tokenizer: Any
) -> None:
    if ending == "csv":
        (tmp_path / "none.csv").write_text("code,text,answer\n")
    else:
        pa.parquet.write_table(pa.table({name: pa.array([], pa.string()) for name in NAMES}), tmp_path / "none.parquet")
    task = files(tmp_path, f"none.{ending}")
    assert rows_of(task) == []
    with pytest.raises(UserError, match="no rows"):
        write_task(tmp_path, task, toy_tokenizer)


def test_a_missing_file_is_named_with_task_and_split(tmp_path: Path) -> None:
    message = refusal(files(tmp_path, "nowhere.csv"))
    for part in ("'t'", "'train'", "nowhere.csv"):
        assert part in message


def test_a_tasks_digest_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        as_csv(folder / "rows.csv")
    before = files(one, "rows.csv").content
    assert before == files(two, "rows.csv").content
    (one / "rows.csv").write_text((one / "rows.csv").read_text().replace("first", "FIRST!"))
    assert files(one, "rows.csv").content != before
    assert files(two, "rows.csv").content == before
    assert replace(files(two, "rows.csv"), metrics=("f1",)).content != before


# --- the YAML that declares a user's tasks -------------------------------------------------------------------------


def declare(tmp_path: Path, text: str) -> tuple[TaskSpec, ...]:
    (tmp_path / "tasks.yaml").write_text(text)
    return from_yaml(str(tmp_path / "tasks.yaml"))


def test_labels_no_and_yes_stay_text_and_paths_are_relative_to_the_yaml(tmp_path: Path) -> None:
    as_csv(tmp_path / "rows.csv")
    (task,) = declare(
        tmp_path,
        "tasks:\n- {name: t, kind: classification, text: [code, text], label: answer, labels: [no, yes],"
        " splits: {train: rows.csv}}\n",
    )
    assert task.labels == ("no", "yes")
    assert len(rows_of(task)) == 4


def test_numeric_labels_of_a_yaml_are_taken_as_typed(tmp_path: Path) -> None:
    (task,) = declare(
        tmp_path, "tasks: [{name: t, kind: classification, text: a, labels: [01, 1.0], splits: {train: r.csv}}]"
    )
    assert task.labels == ("01", "1.0")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tasks: [", "is not YAML"),
        ("", "no list `tasks:`"),
        ("tasks: {}", "no list `tasks:`"),
        ("tasks: []", "no list `tasks:`"),
        ("- name: t", "no list `tasks:`"),
        ("tasks: [tickets]", "'tickets' is not a task"),
    ],
)
def test_a_declaration_that_is_none_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UserError) as error:
        declare(tmp_path, text)
    assert "tasks.yaml" in str(error.value)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_yaml_the_key_to_pass_is_named() -> None:
    with pytest.raises(UserError, match=r"data\.config=FILE\.yaml"):
        from_yaml(None)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_yaml_that_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^config="):
        from_yaml(str(tmp_path / name))


def test_a_yaml_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_bytes(b"tasks:\n- name: gr\xfcn\n")
    with pytest.raises(UserError, match=r"tasks\.yaml"):
        from_yaml(str(tmp_path / "tasks.yaml"))


def test_the_example_in_conf_declares_a_task(root: Path, tmp_path: Path) -> None:
    comments = [line[1:] for line in (root / "conf/data/files.yaml").read_text().splitlines() if line.startswith("#  ")]
    listing = yaml.load("\n".join(comments), Loader=yaml.BaseLoader)
    (task,) = map(TaskSpec.from_dict, listing["tasks"])
    assert (task.name, task.labels, task.metrics) == ("tickets", ("no", "yes"), ("f1", "accuracy"))


# --- GLUE ----------------------------------------------------------------------------------------------------------

RTE = {"sentence1": ["a b", "c", "d"], "sentence2": ["e", "f", "g h"], "label": [0, 1, 1], "idx": [0, 1, 2]}


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    (tmp_path / "rte").mkdir()
    for split in ("train", "validation"):
        pa.parquet.write_table(pa.table(RTE), tmp_path / "rte" / f"{split}.parquet")
    return tmp_path


def test_a_glue_folder_is_read_task_by_task(glue: Path) -> None:
    (task,) = from_parquet(str(glue), ["rte"])
    assert [row["label"] for row in rows_of(task)] == [0, 1, 1]
    assert task.source is not None
    assert task.source.labels_are_codes


def test_a_task_without_a_test_file_has_no_test_split(glue: Path) -> None:
    assert set(from_parquet(str(glue), ["rte"])[0].splits) == {"train", "validation"}
    pa.parquet.write_table(pa.table(RTE), glue / "rte" / "test.parquet")
    assert from_parquet(str(glue), ["rte"])[0].splits == GLUE["rte"].splits


def test_mnli_reads_its_matched_validation_file(glue: Path) -> None:
    (glue / "mnli").mkdir()
    table = pa.table({"premise": ["a"], "hypothesis": ["b"], "label": [2]})
    pa.parquet.write_table(table, glue / "mnli" / "validation_matched.parquet")
    assert [row["label"] for row in rows_of(*from_parquet(str(glue), ["mnli"]), "validation")] == [2]


def test_a_missing_glue_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^root=.*nowhere"):
        from_parquet(str(tmp_path / "nowhere"), ["rte"])


def test_a_missing_glue_file_is_named_with_its_split(glue: Path) -> None:
    (glue / "rte" / "train.parquet").unlink()
    message = refusal(*from_parquet(str(glue), ["rte"]))
    for part in ("'rte'", "'train'", "train.parquet", "data.root"):
        assert part in message


def test_a_glue_file_that_is_no_parquet_is_named(glue: Path) -> None:
    (glue / "rte" / "train.parquet").write_text("no parquet")
    assert "train.parquet" in refusal(*from_parquet(str(glue), ["rte"]))


@pytest.mark.parametrize("build", [partial(from_parquet, "."), from_hub])
def test_a_task_that_is_not_of_glue_is_named_with_those_that_are(build: Any) -> None:
    with pytest.raises(UserError, match=r"'squad'.*mnli, rte"):
        build(["rte", "squad"])


@pytest.mark.parametrize("build", [partial(from_parquet, "."), from_hub])
def test_a_glue_task_may_be_listed_once(build: Any) -> None:
    with pytest.raises(UserError, match="'rte'"):
        build(["rte", "cola", "rte"])


def test_another_content_is_another_digest(glue: Path) -> None:
    before = from_parquet(str(glue), ["rte"])[0].content
    pa.parquet.write_table(pa.table({**RTE, "label": [1, 1, 1]}), glue / "rte" / "validation.parquet")
    assert from_parquet(str(glue), ["rte"])[0].content != before


@pytest.mark.data("glue")
def test_the_real_rte_has_2490_training_rows(shared_data: Path) -> None:
    rows = rows_of(*from_parquet(str(shared_data / "glue"), ["rte"]))
    assert len(rows) == 2490
    assert {row["label"] for row in rows} == {0, 1}
    assert {"sentence1", "sentence2"} <= set(rows[0])


# --- the Hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """`load_dataset` answers with `rows`, or raises it."""
    import datasets

    state: dict[str, Any] = {"rows": None, "asked": []}

    def load(name: str, config: str, split: str, revision: str | None) -> Any:
        state["asked"].append((name, config, split, revision))
        if isinstance(state["rows"], Exception):
            raise state["rows"]
        return state["rows"]

    monkeypatch.setattr(datasets, "load_dataset", load)
    hub_source._hash.cache_clear()
    yield state
    hub_source._hash.cache_clear()


@pytest.mark.parametrize(
    "error", [ConnectionError("no route\nto host"), OSError("x"), ValueError("x"), ConnectionError()], ids=repr
)
def test_without_a_network_the_offline_way_is_named(hub: dict[str, Any], error: Exception) -> None:
    hub["rows"] = error
    message = refusal(*from_hub(["rte"]))
    for part in ("'nyu-mll/glue'", "rte", "train", "data=glue_local data.root=FOLDER"):
        assert part in message


def test_rows_of_the_hub_are_those_of_its_data_set(hub: dict[str, Any]) -> None:
    import datasets

    hub["rows"] = datasets.Dataset.from_dict(RTE)
    rows = rows_of(from_hub(["mnli", "rte"], revision="abc")[0], "validation")
    assert [(row["sentence1"], row["label"]) for row in rows] == [("a b", 0), ("c", 1), ("d", 1)]
    assert hub["asked"] == [("nyu-mll/glue", "mnli", "validation_matched", "abc")]


def test_a_hub_fingerprint_is_of_the_rows_whatever_their_chunks(hub: dict[str, Any]) -> None:
    import datasets

    def fingerprint(rows: Any) -> str:
        hub["rows"] = rows
        hub_source._hash.cache_clear()
        return from_hub(["rte"])[0].content

    many = {name: values * 3000 for name, values in RTE.items()}  # more than one batch of 4096
    whole = datasets.Dataset.from_dict(many)
    halves = datasets.concatenate_datasets([whole.select(range(5000)), whole.select(range(5000, 9000))])
    shifted = datasets.concatenate_datasets([whole.select(range(1)), whole.select(range(1, 9000))])
    assert fingerprint(whole) == fingerprint(halves) == fingerprint(shifted)
    assert fingerprint(whole) != fingerprint(datasets.Dataset.from_dict({**many, "label": many["label"][::-1]}))
