"""A folder of files is understood without editing, asked about where it is doubtful, and refused in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.data.columns import checked_columns
from fastmtl.data.discovery import Discovery, discover
from fastmtl.data.sources.files import from_yaml
from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec

WORDS = "the cook bought some apples and a waiter washed bowls in the rain while nobody looked at him".split()


def sentence(number: int, words: int = 7) -> str:
    """The same for the same number, and another for another."""
    rng = np.random.default_rng(number)
    return " ".join([*rng.choice(WORDS, words).tolist(), f"today{number}"])


def write(folder: Path, name: str, lines: list[str], encoding: str = "utf-8") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def labelled(name: str, count: int = 40, labels: tuple[str, ...] = ("no", "yes"), mark: str = ",") -> list[str]:
    """A CSV of texts and labels."""
    return [f"text{mark}label", *(f"{sentence(i)}{mark}{labels[i % len(labels)]}" for i in range(count))]


HAM = labelled("mine", labels=("spam", "ham"))


def read_back(found: Discovery, folder: Path) -> dict[str, dict[str, int]]:
    """Rows by task and split, all of them checked, as `data=files` reads what discovery wrote."""
    found.write(folder / "tasks.yaml")
    tasks = from_yaml(str(folder / "tasks.yaml"))
    return {task.name: {split: rows_of(task, split) for split in task.splits} for task in tasks}


def rows_of(task: TaskSpec, split: str) -> int:
    assert task.source is not None
    start = 0
    for batch in task.source.batches(task, split):
        start += len(checked_columns(batch, task, split, start, task.source.labels_are_codes).labels)
    return start


def only(folder: Path) -> Any:
    """The one task of the folder."""
    found = discover(folder)
    assert found.faults == ()
    (task,) = found.tasks
    assert read_back(found, folder)[task.name] == task.rows
    return task


def options(found: Discovery) -> set[str]:
    return {question.option.partition(":")[0] for question in found.questions}


# --- files shaped like public data sets ------------------------------------------------------------------------------


def test_tab_separated_with_upper_case_labels_and_an_id_column(tmp_path: Path) -> None:
    for split, count in (("train", 40), ("dev", 20), ("test", 10)):
        rows = [f"{1000 + i}\t{sentence(i)}\t{('POSITIVE', 'NEGATIVE', 'NEUTRAL')[i % 3]}" for i in range(count)]
        write(tmp_path, f"reviews/{split}.tsv", ["tweetId\ttweet\tLABEL", *rows])
    task = only(tmp_path)
    assert (task.name, task.kind, task.text, task.label) == ("reviews", "classification", ("tweet",), "LABEL")
    assert list(task.labels) == ["NEGATIVE", "NEUTRAL", "POSITIVE"]
    assert task.rows == {"train": 40, "validation": 20, "test": 10}
    assert task.reading == {}
    assert discover(tmp_path).questions == ()


def test_jsonl_with_nested_fields_and_numbers_as_labels(tmp_path: Path) -> None:
    rows = [{"meta": {"id": f"r{i}", "stars": i % 5 + 1}, "review": {"body": sentence(i)}} for i in range(50)]
    write(tmp_path, "reviews.jsonl", [json.dumps(row) for row in rows])
    task = only(tmp_path)
    assert (task.kind, task.text, task.label) == ("regression", ("review.body",), "meta.stars")
    assert options(discover(tmp_path)) == {"kind", "validation_share"}  # five whole numbers may be classes


def test_a_quoted_csv_with_line_ends_in_cells_and_semicolons(tmp_path: Path) -> None:
    rows = [f'T-{i};"{sentence(i, 3)}\n{sentence(i, 2)}; ""so""";{["no", "yes"][i % 2]}' for i in range(60)]
    write(tmp_path, "tickets.csv", ["Ticket ID;Body;Urgent", *rows])
    found = discover(tmp_path)
    (task,) = found.tasks
    assert (task.text, task.label, task.reading["delimiter"]) == (("Body",), "Urgent", ";")
    assert "\n" in task.examples[0]["Body"]
    assert "\n" not in found.table().splitlines()[-1]
    assert options(found) == {"validation_share"}
    assert sum(read_back(found, tmp_path)["tickets"].values()) == 60


def test_parquet_with_class_codes_and_their_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["entailment", "neutral", "contradiction"], "_type": "ClassLabel"}}
    for split, count in (("train", 30), ("validation", 15), ("test", 9)):
        codes = [-1] * count if split == "test" else [i % 3 for i in range(count)]
        table = pa.table({
            "premise": [sentence(i) for i in range(count)], "hypothesis": [sentence(i + 99) for i in range(count)],
            "label": codes, "idx": range(count),
        })  # fmt: skip
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        (tmp_path / "nli").mkdir(exist_ok=True)
        path = tmp_path / f"nli/{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
    task = only(tmp_path)
    assert (task.kind, task.text) == ("classification", ("premise", "hypothesis"))
    assert list(task.labels.items()) == [("entailment", 10), ("neutral", 10), ("contradiction", 10)]
    assert task.rows == {"train": 30, "validation": 15, "test": 9}
    assert task.examples[1]["label"] == "neutral"


def test_parquet_with_bare_class_codes(tmp_path: Path) -> None:
    table = pa.table({"sentence": [sentence(i) for i in range(40)], "label": [i % 2 for i in range(40)]})
    pyarrow.parquet.write_table(table, tmp_path / "sst2.parquet")
    assert list(only(tmp_path).labels) == ["0", "1"]


def test_conll_with_a_document_line(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        rows = [f"{word} NN {tag}" for word, tag in zip(WORDS[:8], "O B-PER O O B-LOC I-LOC O O".split())]
        write(
            tmp_path, f"ner-{split}.conll", ["-DOCSTART- -X- O", "", *[line for _ in range(9) for line in (*rows, "")]]
        )
    task = only(tmp_path)
    assert (task.name, task.kind, task.text, task.label) == ("ner", "tagging", ("0",), "-1")
    assert list(task.labels) == ["B-LOC", "B-PER", "I-LOC", "O"]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_words_and_tags_side_by_side(tmp_path: Path, ending: str) -> None:
    rows = [(sentence(i).split(), [("O", "B")[(i + j) % 2] for j in range(8)]) for i in range(30)]
    if ending == "jsonl":
        write(tmp_path, "ner.jsonl", [json.dumps({"tokens": words, "ner_tags": tags}) for words, tags in rows])
    else:
        lines = [f"{' '.join(words)},{' '.join(tags)}" for words, tags in rows]
        write(tmp_path, "ner.csv", ["tokens,ner_tags", *lines])
    task = only(tmp_path)
    assert (task.kind, task.text, task.label, list(task.labels)) == ("tagging", ("tokens",), "ner_tags", ["B", "O"])


def test_arrow_files_and_streams(tmp_path: Path) -> None:
    table = pa.table({"text": [sentence(i) for i in range(30)], "label": [i % 2 == 0 for i in range(30)]})
    for name, opened in (("file.arrow", pa.ipc.new_file), ("stream.arrow", pa.ipc.new_stream)):
        with opened(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    found = discover(tmp_path)
    assert [(task.name, list(task.labels)) for task in found.tasks] == [
        ("file", ["False", "True"]),
        ("stream", ["False", "True"]),
    ]
    assert sum(read_back(found, tmp_path)["stream"].values()) == 30


# --- how text files are written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1251"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_encodings_are_found_and_kept_in_the_yaml(tmp_path: Path, encoding: str, ending: str) -> None:
    word = "привет как дела сегодня" if encoding == "cp1251" else "déjà vu à la crème brûlée"
    rows = [(f"{word} {sentence(i)}", ("no", "yes")[i % 2]) for i in range(40)]
    if ending == "csv":
        lines = ["text,label", *map(",".join, rows)]
    else:
        lines = [json.dumps(dict(zip(("text", "label"), row)), ensure_ascii=False) for row in rows]
    write(tmp_path, f"notes.{ending}", lines, encoding)
    found = discover(tmp_path)
    assert found.tasks[0].examples[0]["text"].startswith(word)
    assert ("encoding" in options(found)) is (
        encoding in ("utf-16-le", "latin-1", "cp1251")
    )  # those are guessed, and asked about
    assert sum(read_back(found, tmp_path)["notes"].values()) == 40


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_delimiters_that_the_ending_does_not_say(tmp_path: Path, mark: str) -> None:
    write(tmp_path, "mine.csv", labelled("mine", mark=mark))
    assert only(tmp_path).reading["delimiter"] == mark


def test_quotes_that_are_text(tmp_path: Path) -> None:
    rows = [f'"{sentence(i)}\t{i % 2}' if i % 7 == 0 else f"{sentence(i)}\t{i % 2}" for i in range(40)]
    write(tmp_path, "films.tsv", ["sentence\tlabel", *rows])
    found = discover(tmp_path)
    assert found.tasks[0].reading["quoted"] is False
    assert "quoted" in options(found)
    assert sum(read_back(found, tmp_path)["films"].values()) == 40


@pytest.mark.parametrize(
    ("header", "names"),
    [("text,label,text", ["text", "label", "text_2"]), ("text,label,", ["text", "label", "column_3"]),
     (" text , label,x", ["text", "label", "x"])],
)  # fmt: skip
def test_repeated_blank_and_padded_headers_get_names(tmp_path: Path, header: str, names: list[str]) -> None:
    write(tmp_path, "mine.csv", [header, *(f"{sentence(i)},{i % 2},{i / 7}" for i in range(40))])
    found = discover(tmp_path)
    assert found.tasks[0].reading["columns"] == names
    assert "columns" in options(found)
    assert sum(read_back(found, tmp_path)["mine"].values()) == 40


def test_a_file_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    write(tmp_path, "mine.csv", labelled("mine")[1:])
    found = discover(tmp_path)
    assert (found.tasks[0].text, found.tasks[0].label) == (("column_1",), "column_2")
    assert "header" in options(found)
    assert sum(read_back(found, tmp_path)["mine"].values()) == 40


def test_booleans_of_a_jsonl_are_classes(tmp_path: Path) -> None:
    write(tmp_path, "mine.jsonl", [json.dumps({"text": sentence(i), "label": i % 3 == 0}) for i in range(40)])
    assert list(only(tmp_path).labels) == ["False", "True"]


def test_hand_made_files_with_headers_of_their_own(tmp_path: Path) -> None:
    days = [f"2024-0{i % 7 + 1}-1{i % 9}" for i in range(60)]
    rows = [
        f'{day};"{sentence(i)}";{("Eva M", "Tom B", "Uli K")[i % 3]};{("ja", "nein")[i % 2]}'
        for i, day in enumerate(days)
    ]
    write(tmp_path, "Anfragen 2024.csv", ["Eingang;Anfrage-Text;Bearbeiter;Dringend?", *rows])
    write(
        tmp_path,
        "survey.tsv",
        ["Nr.\tWhat was good?\tMark (1-6)", *(f"{i}\t{sentence(i)}\t{i % 6 + 1}" for i in range(50))],
    )
    links = [f"https://x.org/{i},{sentence(i, 2)},{sentence(i, 12)},{('Auto & Rad', 'Haus')[i % 2]}" for i in range(50)]
    write(tmp_path, "forum.csv", ["url,überschrift,beitrag,sparte", *links])
    found = discover(tmp_path)
    assert {task.name: (task.text, task.label) for task in found.tasks} == {
        "Anfragen_2024": (("Anfrage-Text",), "Dringend?"),
        "forum": (("überschrift", "beitrag"), "sparte"),
        "survey": (("What was good?",), "Mark (1-6)"),
    }
    assert options(found) == {"label", "text", "kind", "validation_share"}
    assert {name: sum(rows.values()) for name, rows in read_back(found, tmp_path).items()} == {
        "Anfragen_2024": 60, "forum": 50, "survey": 50
    }  # fmt: skip


# --- tasks, splits and questions -------------------------------------------------------------------------------------


def test_a_folder_of_tasks_its_splits_and_what_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "mine_train.csv", labelled("mine"))
    write(tmp_path, "mine.VAL.csv", labelled("mine", 20))
    write(tmp_path, "other/training.csv", labelled("other"))
    write(tmp_path, "other/eval.csv", labelled("other", 12))
    write(tmp_path, "sheet.xlsx", ["x"])
    write(tmp_path, "README.md", ["x"])
    write(tmp_path, ".hidden.csv", ["x"])
    found = discover(tmp_path)
    assert {task.name: dict(task.splits) for task in found.tasks} == {
        "mine": {"train": "mine_train.csv", "validation": "mine.VAL.csv"},
        "other": {"train": "other/training.csv", "validation": "other/eval.csv"},
    }
    assert found.notes == ("sheet.xlsx is not read; save it as CSV (UTF-8)",)
    assert "| mine   | classification | text   | label   |" in found.table()
    assert found.table().count(" -> ") == 6


def test_validation_is_set_aside_reproducibly_and_equal_texts_stay_together(tmp_path: Path) -> None:
    rows = labelled("mine", 60)
    write(tmp_path, "mine.csv", [*rows, *rows[1:21]])
    found = discover(tmp_path)
    (task,) = found.tasks
    before = read_back(found, tmp_path)["mine"]
    (spec,) = from_yaml(str(tmp_path / "tasks.yaml"))
    assert spec.source is not None
    texts = {
        split: pa.Table.from_batches(spec.source.batches(spec, split))["text"].to_pylist() for split in spec.splits
    }
    assert not {*texts["train"]} & {*texts["validation"]}
    assert before == task.rows
    assert 0.1 < before["validation"] / 80 < 0.35
    write(tmp_path, "mine.csv", [*rows, *rows[1:21], *(f"{sentence(i)},no" for i in range(100, 120))])
    assert {*texts["validation"]} <= {
        *pa.Table.from_batches(spec.source.batches(spec, "validation"))["text"].to_pylist()
    }
    assert discover(tmp_path, primary="mine").tasks[0].rows.keys() == {"train", "validation"}


def test_only_the_primary_gives_rows_for_validation(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        write(tmp_path, f"{name}.csv", labelled(name))
    found = discover(tmp_path, primary="mine")
    assert [tuple(task.rows) for task in found.tasks] == [("train", "validation"), ("train",)]
    with pytest.raises(UserError, match="primary='nope' is no task"):
        discover(tmp_path, primary="nope")


@pytest.mark.parametrize(
    ("lines", "option", "said"),
    [
        ([*HAM, "a late one,Spam"], "rename_labels: {'Spam': 'spam'}", "did you mean one?"),
        ([*HAM, "a late one,ham "], "rename_labels: {'ham ': 'ham'}", "'ham '"),
        (["text,a,b", *(f"{sentence(i)},{i % 2},{i % 3}" for i in range(40))], "label: a", "is 'a' the label, or 'b'?"),
        (["title,body,note,label", *(f"{sentence(i, 2)},{sentence(i)},{sentence(i, 4)},{i % 2}" for i in range(40))],
         "text: ['title', 'body']", "3 text columns"),
        (["text,rating", *(f"{sentence(i)},{i % 7}" for i in range(40))], "kind: regression", "are they classes"),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_a_question_with_its_option(
    tmp_path: Path, lines: list[str], option: str, said: str
) -> None:
    write(tmp_path, "mine.csv", lines)
    asked = {question.option: question.text for question in discover(tmp_path).questions}
    if option.startswith("text"):
        option = next(key for key in asked if key.startswith("text"))
    assert said in asked[option]


def test_a_label_of_the_validation_file_alone_is_asked_about(tmp_path: Path) -> None:
    write(tmp_path, "mine_train.csv", labelled("mine", labels=("urgent", "normal")))
    write(tmp_path, "mine_dev.csv", labelled("mine", 10, ("urgnt", "normal")))
    asked = {question.option: question.text for question in discover(tmp_path).questions}
    assert "row 1, has the label 'urgnt'" in asked["rename_labels: {'urgnt': 'urgent'}"]


def test_the_answer_to_a_question_is_read(tmp_path: Path) -> None:
    write(tmp_path, "mine.csv", [*HAM, "a late one,Spam"])
    discover(tmp_path).write(tmp_path / "tasks.yaml")
    text = (tmp_path / "tasks.yaml").read_text()
    assert "# mine: mine.csv, row 41, has the label 'Spam' (1 rows), other rows 'spam' (20)" in text
    entry = text.replace("labels: [ham, Spam, spam]", "labels: [ham, spam]\n  rename_labels: {Spam: spam}")
    assert entry != text
    (tmp_path / "tasks.yaml").write_text(entry)
    (task,) = from_yaml(str(tmp_path / "tasks.yaml"))
    assert sum(rows_of(task, split) for split in task.splits) == 41


def test_control_characters_are_spelled(tmp_path: Path) -> None:
    write(tmp_path, "mine.csv", ["text,label", *(f"{sentence(i)} \x1b[31mred\x07,{i % 2}" for i in range(40))])
    found = discover(tmp_path)
    assert "\x1b" not in found.table()
    assert "\\x1b[31mred" in found.table()


# --- files that cannot be used ---------------------------------------------------------------------------------------

Content = list[str] | bytes | Callable[[Path], None]
OK = labelled("x")


def table(**columns: list[Any]) -> Callable[[Path], None]:
    return lambda path: pyarrow.parquet.write_table(pa.table(columns), path)


TEXTS = [sentence(i) for i in range(40)]
BAD: dict[str, tuple[str, Content, list[str]]] = {
    "empty": ("a.csv", b"", ["a.csv is empty", "fill it"]),
    "blanks alone": ("a.csv", b"  \n\n", ["a.csv is empty"]),
    "header alone": ("a.csv", ["text,label"], ["a.csv has one line", "rows"]),
    "empty jsonl": ("a.jsonl", b"", ["a.jsonl is empty"]),
    "empty parquet": ("a.parquet", table(text=[], label=[]), ["a.parquet has a header and no rows"]),
    "a workbook": ("a.csv", b"PK\x03\x04rest", ["a.csv is a workbook or an archive", "save it as CSV"]),
    "an old workbook": ("a.csv", b"\xd0\xcf\x11\xe0rest", ["old Excel workbook"]),
    "gzip": ("a.csv", b"\x1f\x8b\x08rest", ["a.csv is compressed", "unpack it"]),
    "pdf": ("a.csv", b"%PDF-1.7", ["a.csv is a PDF"]),
    "html": ("a.csv", b"<!DOCTYPE html><html>", ["a.csv is HTML", "save the data itself"]),
    "parquet as csv": ("a.csv", b"PAR1rest", ["a.csv is a Parquet file", ".parquet"]),
    "zero bytes": ("a.csv", b"text,label\na\0b,c\nd,e\nfine,row\n" * 20, ["a.csv has zero bytes"]),
    "text as parquet": ("a.parquet", OK, ["a.parquet is no whole Parquet file"]),
    "cut parquet": ("a.parquet", b"PAR1" + b"x" * 99, ["a.parquet is no whole Parquet file", "again"]),
    "text as arrow": ("a.arrow", OK, ["a.arrow is no whole Arrow file"]),
    "more cells": ("a.csv", [*OK, "one, two,yes"], ["a.csv, line 42, has 3 columns, not 2", "in double quotes"]),
    "fewer cells": ("a.csv", [*OK, "one"], ["a.csv, line 42, has 1 columns, not 2", "fill the row"]),
    "an open quote": ("a.csv", [*OK, '"one, two,yes', "x,y,z"], ["a.csv, line 42, opens a quote", "close it"]),
    "no json": ("a.jsonl", ['{"text": "x", "label": "y"}', '{"text": "x"'], ["a.jsonl, line 2, is not JSON", "mend"]),
    "a json list": ("a.jsonl", ['[{"text": "x"}]'], ["a.jsonl is a JSON list", "one object a line"]),
    "json over lines": ("a.jsonl", ["[", '{"text": "x"}', "]"], ["a.jsonl is one JSON text over many lines"]),
    "json texts": ("a.jsonl", ['"x"', '"y"'], ["a.jsonl, line 1, is", "not an object"]),
    "mixed json": ("a.jsonl", ['{"text": "x", "label": 1}', '{"text": "x", "label": "b"}'],
                   ["a.jsonl, line 2, has a text in 'label', but line 1 has a number"]),
    "uneven conll": ("a.conll", ["the D", "cook", ""], ["line 2 has 1 columns, not 2 as the first"]),
    "one column": ("a.csv", ["text", *TEXTS], ["a.csv has no column that looks like a label", "'text'"]),
    "ids and labels": ("a.csv", ["id,label", *(f"x{i},{i % 2}" for i in range(40))], ["a.csv has no text", "'id'"]),
    "numbers and labels": ("a.csv", ["size,label", *(f"{i / 3},{i % 2}" for i in range(40))], ["no text", "'size'"]),
    "text as label": ("a.csv", ["text,label", *(f"{sentence(i)},{sentence(i + 50)}" for i in range(40))],
                      ["'label' has 40 different values in 40 rows", "text, not classes"]),
    "no label column": ("a.csv", ["id,text", *(f"{i},{sentence(i)}" for i in range(40))], ["no column that looks"]),
    "one class": ("a.csv", labelled("x", labels=("no",)), ["rows of a.csv have the class 'no'", "teaches nothing"]),
    "a constant": ("a.csv", ["text,score", *(f"{t},0.5" for t in TEXTS)], ["have the number '0.5' in 'score'"]),
    "no text": ("a.csv", [*OK, ",yes"], ["a.csv, row 41, has no text in 'text'", "fill or remove"]),
    "blank text": ("a.csv", [*OK, "   ,yes"], ["a.csv, row 41, has no text"]),
    "no label": ("a.csv", [*OK, "some more text,"], ["a.csv, row 41, has no label in 'label'", "fill or remove"]),
    "a missing number": ("a.csv", ["text,score", *(f"{t},{i / 3}" for i, t in enumerate(TEXTS)), "x y z,n/a"],
                         ["a.csv, row 41, has 'n/a' in 'score'", "numbers"]),
    "a number too large": ("a.csv", ["text,score", *(f"{t},{i / 3}" for i, t in enumerate(TEXTS)), "x y z,inf"],
                           ["a.csv, row 41, has 'inf' in 'score'"]),
    "null text": ("a.parquet", table(text=[*TEXTS[:39], None], label=[0, 1] * 20), ["a.parquet, row 40, has no text"]),
    "null label": ("a.jsonl", [json.dumps({"text": t, "label": [0, 1, None][i % 3]}) for i, t in enumerate(TEXTS)],
                   ["a.jsonl, row 3, has no label"]),
    "tags and words": ("a.jsonl", [json.dumps({"tokens": t.split(), "ner_tags": ["O", "B"] * 4}) for t in TEXTS] * 60
                       + [json.dumps({"tokens": ["one", "two"], "ner_tags": ["O"]})], ["has 2 words and 1 tags"]),
    "no words": ("a.conll", ["# a comment", ""], ["a.conll"]),
    "test alone": ("a_test.csv", OK, ["a_test.csv has no training file beside it", "add one"]),
    "several labels per row": ("a.jsonl", [json.dumps({"text": t, "labels": ["a", "b"][: len(t) % 3]}) for t in TEXTS],
                             ["'labels' has several labels per row"]),
}  # fmt: skip
"""What is wrong -> name and content of the file, and what its one line says."""


@pytest.mark.parametrize("wrong", BAD)
def test_a_file_that_cannot_be_used_is_said_in_one_line(tmp_path: Path, wrong: str) -> None:
    name, content, said = BAD[wrong]
    write(tmp_path, "good.csv", labelled("good"))
    if callable(content):
        content(tmp_path / name)
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        write(tmp_path, name, content)
    found = discover(tmp_path)
    assert [task.name for task in found.tasks] == ["good"]  # the others are understood all the same
    (fault,) = found.faults
    assert all(part in fault for part in said), fault
    assert "\n" not in fault
    assert len(fault) < 260


def test_what_is_wrong_between_the_files_of_a_task(tmp_path: Path) -> None:
    for folder, dev, said in (
        (
            "class",
            labelled("x", 10, ("no",)),
            ["all 10 validation rows of x_dev.csv have the class 'no'", "measures nothing"],
        ),
        ("column", ["body,label", *OK[1:]], ["x_dev.csv has no column 'text', which the training file has"]),
        ("mark", labelled("x", 10, mark=";"), ["x_dev.csv has delimiter=';'", "save both files of x alike"]),
        ("empty", [""], ["x_dev.csv is empty"]),
    ):
        write(tmp_path / folder, "x_train.csv", OK)
        write(tmp_path / folder, "x_dev.csv", dev)
        (fault,) = discover(tmp_path / folder).faults
        assert all(part in fault for part in said), fault


def test_two_files_of_one_split_are_named(tmp_path: Path) -> None:
    for name in ("x_dev.csv", "x_val.csv", "x.csv"):
        write(tmp_path, name, OK)
    found = discover(tmp_path)
    assert found.faults == ("x_val.csv and x_dev.csv are both validation of x; join them into one file, or rename one",)


def test_a_folder_that_is_none_and_one_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        discover(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no file that is read \(\.csv, \.tsv"):
        discover(tmp_path)


@pytest.mark.data("glue")
def test_glue_as_a_folder_of_parquet_files_is_understood(tmp_path: Path, shared_data: Path) -> None:
    for task in ("rte", "mrpc", "stsb", "cola"):
        (tmp_path / task).mkdir()
        for split in ("train", "validation"):
            (tmp_path / task / f"{split}.parquet").symlink_to(shared_data / "glue" / task / f"{split}.parquet")
    found = discover(tmp_path)
    assert found.faults == ()
    kinds = {task.name: (task.kind, len(task.text)) for task in found.tasks}
    classes = ("classification", 2)
    assert kinds == {"cola": ("classification", 1), "mrpc": classes, "rte": classes, "stsb": ("regression", 2)}
    assert next(task.rows for task in found.tasks if task.name == "rte") == {"train": 2490, "validation": 277}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "conll", "parquet", "arrow"])
def test_damaged_files_end_in_one_line_or_are_read_as_they_were_understood(tmp_path: Path, ending: str) -> None:
    rng = random.Random(ending)
    pieces = [b'"', b"\n", b",", b"\t", b"{", b"null", b"\xff", b"\0", b"1e999", b"\xc3", b"\r", b" ", b""]
    table = pa.table({"text": TEXTS, "label": [i % 2 for i in range(40)]})
    rows = table.to_pylist()
    content = {
        "csv": "\n".join(OK).encode(),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "conll": "\n\n".join("\n".join(f"{word}\tO" for word in text.split()) for text in TEXTS).encode() + b"\tB\n",
    }
    if ending not in content:
        sink = pa.BufferOutputStream()
        if ending == "parquet":
            pyarrow.parquet.write_table(table, sink)
        else:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        content[ending] = sink.getvalue().to_pybytes()
    for number in range(25):
        folder = tmp_path / str(number)
        folder.mkdir()
        damaged = bytearray(content[ending])
        for _ in range(rng.choice([1, 2, 9])):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.randrange(3)] = rng.choice(pieces)
        (folder / f"a.{ending}").write_bytes(damaged)
        found = discover(folder)
        assert len(found.tasks) + len(found.faults) == 1
        assert not any("\n" in fault or len(fault) > 300 for fault in found.faults)
        for task in found.tasks:
            assert read_back(found, folder)[task.name] == task.rows
