"""Rows of words and tags: every kind of file, the pool over words of several pieces, batches, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastmtl.data.collate import collate
from fastmtl.data.columns import HIDDEN
from fastmtl.data.pool import TaskPool, write_task
from fastmtl.data.sources.files import FileSource
from fastmtl.errors import UserError
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.encoder import EncoderSpec
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import HIDDEN_LABEL

SPLITS = {"train": "train", "test": "test"}
NER = TaskSpec("ner", "tagging", ("tokens",), ("O", "B", "I"), label="tags", splits=SPLITS)
WORDS = [["the", "cook", "Kim"], ["Zoe"], ["a", "waiter", "washed", "bowls"]]
TAGS = [["O", "O", "B"], ["B"], ["O", "B", "I", "O"]]


@pytest.fixture(scope="module")
def tokenizer(tiny: EncoderSpec) -> Any:
    return tiny.make_tokenizer()


@pytest.fixture
def pool(tmp_path: Path, make_pool: Any, toy_source: Any, tokenizer: Any) -> TaskPool:
    hidden = {"tokens": [["the", "Zoe"], ["cook"]], "tags": [None, ["B"]]}
    source = toy_source((NER,), {"ner": {"train": {"tokens": WORDS, "tags": TAGS}, "test": hidden}})
    return make_pool(tmp_path, source, tokenizer)


# --- the task ------------------------------------------------------------------------------------------------------


def test_a_tagging_task_has_one_text_column_and_an_output_a_tag() -> None:
    assert (NER.num_outputs, NER.metrics) == (3, ("f1_micro",))
    with pytest.raises(UserError, match=r"'ner'.*one column"):
        TaskSpec("ner", "tagging", ("a", "b"), ("O", "B"))
    with pytest.raises(UserError, match=r"labels=\[\]"):
        TaskSpec("ner", "tagging", ("a",))


# --- words to tokens -----------------------------------------------------------------------------------------------


def test_each_word_begins_at_its_first_piece(tokenizer: Any) -> None:
    vocabulary = tokenizer.inner.get_vocab()
    (ids,), (begins,) = tokenizer.words([["the", "Zoe", "cook"]])
    assert ids == [vocabulary[piece] for piece in ("[CLS]", "the", "z", "##o", "##e", "cook", "[SEP]")]
    assert begins == [-1, 0, 1, -1, -1, 2, -1]


def test_words_without_a_piece_are_unknown_ones(tokenizer: Any) -> None:
    unknown = tokenizer.inner.unk_token_id
    ids, begins = tokenizer.words([["the", "\u200b", "cook"], ["\u200b"]])
    assert [row[1:-1] for row in ids] == [[ids[0][1], unknown, ids[0][3]], [unknown]]
    assert [row[1:-1] for row in begins] == [[0, 1, 2], [0]]


def test_words_are_read_as_the_running_text_is(tokenizer: Any) -> None:
    rows = [["the", "cook's", "Zoe"], ["bowls"]]
    assert tokenizer.words(rows)[0] == tokenizer([" ".join(row) for row in rows], None)[0]


def test_long_rows_end_with_the_last_word_that_fits_and_the_separator() -> None:
    tokenizer = EncoderSpec("tiny", max_length=6).make_tokenizer()
    (ids,), (begins,) = tokenizer.words([["the", "Zoe", "cook"]])
    assert begins == [-1, 0, 1, -1, -1, -1]
    assert ids[-1] == tokenizer.inner.sep_token_id


def test_a_word_tokenizer_adds_no_special_tokens(tmp_path: Path) -> None:
    own = BiLSTMSpec(tokenizer="tiny", max_length=4).make_tokenizer()
    (ids,), (begins,) = own.words([["the", "Zoe", "cook"]])
    assert (len(ids), begins) == (4, [0, 1, -1, -1])
    (tmp_path / "vectors.txt").write_text("the 1 2\ncook 3 4\n")
    glove = BiLSTMSpec(embeddings=str(tmp_path / "vectors.txt")).make_tokenizer()
    assert glove.words([["The", "cook's", "\u200b"]]) == ([[2, 3, 1, 1, 1]], [[0, 1, -1, -1, 2]])


# --- the pool ------------------------------------------------------------------------------------------------------


def test_tags_stand_at_the_first_token_of_each_word(pool: TaskPool) -> None:
    rows = pool.split("ner", "train")
    no = HIDDEN_LABEL
    assert rows.tags is not None
    assert rows.tags.dtype == np.int16
    assert rows.tags.tolist() == [no, 0, 0, 1, no, no, no, no, 1, no, no, no, no, 0, 1, 2, 0, no]
    assert len(rows.tags) == len(rows.ids) == rows.offsets[-1]
    assert rows.labels.tolist() == [0, 0, 0]
    assert rows.second.tolist() == rows.lengths.tolist()


def test_hidden_tags_keep_the_places_of_their_words(pool: TaskPool) -> None:
    rows = pool.split("ner", "test")
    assert rows.tags is not None
    assert rows.tags.tolist() == [HIDDEN_LABEL, HIDDEN, HIDDEN, *[HIDDEN_LABEL] * 4, 1, HIDDEN_LABEL]
    np.testing.assert_array_equal(rows.labels, [np.nan, 0])


def test_other_kinds_have_no_tags(tiny_pool: TaskPool) -> None:
    assert tiny_pool.split("pairs", "train").tags is None


def test_rows_are_shown_as_lists_and_to_people_as_text(pool: TaskPool) -> None:
    assert pool.split("ner", "train").texts([1, 0]) == [
        {"tokens": WORDS[1], "label": TAGS[1]}, {"tokens": WORDS[0], "label": TAGS[0]},
    ]  # fmt: skip
    assert pool.split("ner", "test").texts([0]) == [{"tokens": ["the", "Zoe"], "label": None}]
    assert pool.texts(np.array([2])) == [{"task": "ner", "tokens": "a waiter washed bowls", "label": "O B I O"}]


def test_codes_are_named_where_rows_are_shown(tmp_path: Path, make_pool: Any, toy_source: Any, tokenizer: Any) -> None:
    rows = {split: {"tokens": WORDS[:1], "tags": [[0, 0, 1]]} for split in SPLITS}
    pool = make_pool(tmp_path, toy_source((NER,), {"ner": rows}, labels_are_codes=True), tokenizer)
    assert pool.split("ner", "train").texts([0])[0]["label"] == ["O", "O", "B"]


def test_a_batch_has_its_tags_as_wide_as_its_ids(pool: TaskPool) -> None:
    batch = collate(pool.split("ner", "train"), np.array([1, 0]), pad_id=0)
    no = HIDDEN_LABEL
    assert batch["labels"].tolist() == [[no, 1, no, no, no, no, no], [no, 0, 0, 1, no, no, no]]
    assert batch["labels"].dtype == batch["input_ids"].dtype
    assert batch["labels"].shape == batch["input_ids"].shape


@pytest.mark.parametrize(
    ("words", "tags", "named"),
    [
        ([["a"], []], [["O"], []], ["row 1", "no words", "'tokens'"]),
        ([["a"], None], [["O"], ["O"]], ["row 1", "no words"]),
        (["a", "  "], ["O", "O"], ["row 1", "no words"]),
        ([["a"], ["b", ""]], [["O"], ["O", "O"]], ["row 1", "empty word at place 1"]),
        ([["a"], ["b", None]], [["O"], ["O", "O"]], ["row 1", "empty word at place 1"]),
        ([["a"], ["b", "c"]], [["O"], ["O"]], ["row 1", "2 words and 1 tags"]),
        ([["a"], ["b"]], [["O"], None], ["row 1", "1 words and 0 tags"]),
        ([["a"], ["b", "c"]], [["O"], ["O", "X"]], ["row 1", "tag 'X'", "O, B, I"]),
        ([["a"], ["b", "c"]], [["O"], ["O", None]], ["row 1", "tag None"]),
    ],
    ids=str,
)
def test_a_row_that_is_wrong_is_named(
    tmp_path: Path, make_pool: Any, toy_source: Any, tokenizer: Any, words: Any, tags: Any, named: list[str]
) -> None:
    source = toy_source((NER,), {"ner": {"train": {"tokens": words, "tags": tags}, "test": {}}})
    with pytest.raises(UserError) as error:
        make_pool(tmp_path, source, tokenizer)
    for part in ("'ner'", "'train'", *named):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_test_split_may_hide_tags_but_not_some_of_a_row(
    tmp_path: Path, make_pool: Any, toy_source: Any, tokenizer: Any
) -> None:
    rows = {"train": {"tokens": WORDS, "tags": TAGS}, "test": {"tokens": WORDS[:1], "tags": [["O"]]}}
    with pytest.raises(UserError, match=r"'test': row 0 has 3 words and 1 tags"):
        make_pool(tmp_path, toy_source((NER,), {"ner": rows}), tokenizer)


# --- files ---------------------------------------------------------------------------------------------------------


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"tokens": w, "tags": t}) + "\n" for w, t in zip(WORDS, TAGS)))


def as_parquet(path: Path) -> None:
    pa.parquet.write_table(pa.table({"tokens": WORDS, "tags": TAGS}), path)


def as_cells(path: Path) -> None:
    gap = "\t" if path.suffix == ".tsv" else ","
    lines = [gap.join((" ".join(w), " ".join(t))) for w, t in zip(WORDS, TAGS)]
    path.write_text("\n".join([gap.join(("tokens", "tags")), *lines]))


def as_conll(path: Path) -> None:
    rows = ["\n".join(f"{w} {i} {t}" for i, (w, t) in enumerate(zip(*row))) for row in zip(WORDS, TAGS)]
    path.write_text("-DOCSTART- -X- O\n\n# of a kitchen\n" + "\n\n\n".join(rows))


WRITERS = {"jsonl": as_jsonl, "parquet": as_parquet, "csv": as_cells, "tsv": as_cells, "conll": as_conll}


def files(folder: Path, train: str, **more: Any) -> TaskSpec:
    columns = {"text": "0", "label": "-1"} if train.endswith(".conll") else {"text": "tokens", "label": "tags"}
    spec = {"name": "ner", "kind": "tagging", "labels": ["O", "B", "I"], **columns, "splits": {"train": train, **more}}
    return TaskSpec.from_dict(spec, FileSource(str(folder)))


def pool_of(folder: Path, task: TaskSpec, tokenizer: Any) -> TaskPool:
    folder.mkdir()
    write_task(folder, task, tokenizer)
    return TaskPool([folder])


@pytest.mark.parametrize("ending", WRITERS)
def test_the_same_words_and_tags_from_every_kind_of_file(tmp_path: Path, tokenizer: Any, ending: str) -> None:
    WRITERS[ending](tmp_path / f"rows.{ending}")
    rows = pool_of(tmp_path / "pool", files(tmp_path, f"rows.{ending}"), tokenizer).split("ner", "train")
    assert [list(row.values()) for row in rows.texts([0, 1, 2])] == [list(pair) for pair in zip(WORDS, TAGS)]


def conll(tmp_path: Path, text: str, columns: tuple[str, str] = ("0", "-1")) -> list[list[list[str]]]:
    """Columns of each sentence, as asked for."""
    path = tmp_path / "rows.conll"
    path.write_text(text, encoding="utf-8")
    task = TaskSpec("t", "tagging", columns[:1], ("O", "B"), label=columns[1], splits={"train": "rows.conll"})
    batches = FileSource(str(tmp_path)).batches(task, "train")
    return [[row.get(name) for name in columns] for batch in batches for row in batch.to_pylist()]


def test_columns_of_a_conll_file_are_counted_from_either_end(tmp_path: Path) -> None:
    text = "Kim\tNNP\tB\nran\tVBD\tO\n\nZoe\tNNP\tB\n"
    assert conll(tmp_path, text) == [[["Kim", "ran"], ["B", "O"]], [["Zoe"], ["B"]]]
    assert conll(tmp_path, text, ("0", "-2"))[0] == [["Kim", "ran"], ["NNP", "VBD"]]
    assert conll(tmp_path, text, ("0", "1"))[1] == [["Zoe"], ["NNP"]]


@pytest.mark.parametrize("gap", [" ", "   ", "\t"])
def test_any_number_of_blanks_or_one_tab_parts_columns(tmp_path: Path, gap: str) -> None:
    text = f"\ufeffKim{gap}B\r\nran{gap}O\r\n \t\r\n\r\n"
    assert conll(tmp_path, text) == [[["Kim", "ran"], ["B", "O"]]]


def test_a_number_sign_is_a_comment_only_before_a_sentence(tmp_path: Path) -> None:
    assert conll(tmp_path, "# text = Kim\n# id 3\n# 5 O\n\nKim B\n# O\n5 O\n") == [[["Kim", "#", "5"], ["B", "O", "O"]]]


def test_a_blank_that_is_part_of_a_word_stays(tmp_path: Path) -> None:
    assert conll(tmp_path, "New York\tB\n10\u00a0000\tO\n")[0][0] == ["New York", "10\u00a0000"]


def test_words_alone_have_no_last_column(tmp_path: Path, tokenizer: Any) -> None:
    as_conll(tmp_path / "rows.conll")
    (tmp_path / "test.conll").write_text("Kim\nran\n\nZoe\n")
    pool = pool_of(tmp_path / "pool", files(tmp_path, "rows.conll", test="test.conll"), tokenizer)
    assert np.isnan(pool.split("ner", "test").labels).all()
    with pytest.raises(UserError, match=r"no label column '-1'; the columns are 0$"):
        pool_of(tmp_path / "again", files(tmp_path, "test.conll"), tokenizer)


def test_a_ragged_line_is_named_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.conll: line 5 has 2 columns, not 3 as the first"):
        conll(tmp_path, "Kim NNP B\nran VBD O\n\n# next\nZoe B\n")


def test_long_files_come_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmtl.data.sources.formats.BATCH_ROWS", 2)
    assert len(conll(tmp_path, "a O\n\n" * 5)) == 5
