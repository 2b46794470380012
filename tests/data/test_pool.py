"""The token pool over texts that are their own token ids: ids, places, splits of rows, and everything it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmtl.data.pool import TaskPool, chunks, write_task
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.identity import digest
from fastmtl.tasks import TaskSpec

TRAIN = {"train": "train"}
PAIR = TaskSpec("pair", "classification", ("a", "b"), ("no", "yes"), splits={**TRAIN, "test": "test"}, flag="flag")
VALUE = TaskSpec("value", "regression", ("a",), label="y", splits=TRAIN)
BIG = TaskSpec("big", "classification", ("a",), ("x", "y", "z"), splits=TRAIN)

ROWS: dict[str, dict[str, dict[str, list[Any]]]] = {
    "pair": {
        "train": {
            "a": ["1 2", "3", "4 5 6", "7", "8"], "b": ["9", "10 11", "12", "13", "14"],
            "label": ["no", "yes", "yes", "no", "no"], "flag": [0, 1, 1, 0, 0],
        },
        "test": {"a": ["1", "2", "3"], "b": ["4", "5", "6"], "label": [None, "", "yes"]},
    },
    "value": {"train": {"a": ["21", "22 23"], "y": ["0.25", "-1"]}},
    "big": {"train": {"a": ["65535 65536"] + [str(i) for i in range(100, 139)], "label": ["x", "y", "z", "x"] * 10}},
}  # fmt: skip


@pytest.fixture(scope="module")
def source(toy_source: Any) -> Any:
    return toy_source((PAIR, VALUE, BIG), ROWS)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, make_pool: Any, source: Any) -> TaskPool:
    return make_pool(tmp_path_factory.mktemp("pool"), source)


@pytest.fixture
def cut_pool(pool: TaskPool) -> Callable[[dict[str, int]], TaskPool]:
    return lambda cut: TaskPool(pool.folders, cut)


def test_ids_come_back_row_by_row_although_they_were_written_in_batches_of_two(pool: TaskPool) -> None:
    rows = pool.split("pair", "train")
    parts = [rows.ids[start:stop].tolist() for start, stop in zip(rows.offsets, rows.offsets[1:])]
    assert parts == [[1, 2, 9], [3, 10, 11], [4, 5, 6, 12], [7, 13], [8, 14]]
    assert rows.second.tolist() == [2, 1, 3, 1, 1]
    assert rows.lengths.tolist() == [3, 3, 4, 2, 2]


def test_labels_become_codes_or_values_and_hidden_ones_become_nan(pool: TaskPool) -> None:
    assert pool.split("pair", "train").labels.tolist() == [0, 1, 1, 0, 0]
    assert pool.split("value", "train").labels.tolist() == [0.25, -1.0]
    np.testing.assert_array_equal(pool.split("pair", "test").labels, [np.nan, np.nan, 1])


def test_ids_take_two_bytes_where_the_largest_allows_and_four_where_not(pool: TaskPool) -> None:
    assert pool.split("pair", "train").ids.dtype == np.uint16
    assert pool.split("big", "train").ids.dtype == np.uint32
    assert pool.split("big", "train").ids[:2].tolist() == [65535, 65536]


def test_the_largest_two_byte_id_still_fits(tmp_path: Path, make_pool: Any, toy_source: Any) -> None:
    source = toy_source((VALUE,), {"value": {"train": {"a": ["65535"], "y": ["1"]}}})
    ids = make_pool(tmp_path, source).split("value", "train").ids
    assert (ids.dtype, ids.tolist()) == (np.uint16, [65535])


def test_arrays_are_mapped_not_loaded(pool: TaskPool) -> None:
    rows = pool.split("pair", "train")
    for array in (rows.ids, rows.offsets, rows.second, rows.labels, rows.flags):
        assert isinstance(array, np.memmap)


def test_no_working_file_is_left_in_the_folder(pool: TaskPool) -> None:
    assert {p.suffix for folder in pool.folders for p in folder.iterdir()} == {".npy", ".arrow", ".json"}


def test_counts_are_of_rows_and_tokens_over_all_splits(tmp_path: Path, source: Any, toy_tokenizer: Any) -> None:
    assert write_task(tmp_path, source.task(), toy_tokenizer) == {"examples": 5 + 3, "tokens": 14 + 6}


def test_a_row_id_is_the_task_and_the_place_in_its_file(pool: TaskPool) -> None:
    row_ids = np.array([0, 4, 5, 6, 7, 46])
    assert len(pool) == 5 + 2 + 40
    assert pool.task_of(row_ids).tolist() == [0, 0, 1, 1, 2, 2]
    assert pool.local(row_ids).tolist() == [0, 4, 0, 1, 0, 39]
    assert {name: places.tolist() for name, places in pool.by_task(np.array([46, 2, 0])).items()} == {
        "pair": [2, 0], "big": [39],
    }  # fmt: skip


def test_every_row_of_a_task_maps_back_to_it(pool: TaskPool) -> None:
    for t, name in enumerate(pool.names):
        assert set(pool.task_of(pool.rows_of(name))) == {t}
        assert pool.local(pool.rows_of(name)).tolist() == list(range(len(pool.split(name, "train"))))


def test_an_unknown_task_is_named_with_the_known_ones(pool: TaskPool) -> None:
    with pytest.raises(UserError, match=r"'nope'.*pair, value, big"):
        pool.rows_of("nope")


def test_a_split_that_a_task_lacks_is_named_with_those_it_has(pool: TaskPool) -> None:
    assert pool.has_split("pair", "test")
    assert not pool.has_split("value", "test")
    with pytest.raises(UserError, match=r"'value'.*'test'.*train"):
        pool.split("value", "test")


def test_a_cut_keeps_a_fixed_subset_under_the_ids_of_the_whole(pool: TaskPool, cut_pool: Any) -> None:
    small, again = cut_pool({"big": 8}), cut_pool({"big": 8})
    kept = small.rows_of("big")
    assert len(set(kept.tolist())) == 8
    assert kept.tolist() == sorted(kept)
    assert set(kept) <= set(pool.rows_of("big"))
    assert kept.tolist() == again.rows_of("big").tolist()
    assert small.rows_of("pair").tolist() == pool.rows_of("pair").tolist()
    assert kept.tolist() != pool.rows_of("big")[:8].tolist()  # at random, not the head of a file that may be sorted


def test_a_larger_cut_keeps_the_rows_of_a_smaller_one(cut_pool: Any) -> None:
    assert set(cut_pool({"big": 5}).rows_of("big")) < set(cut_pool({"big": 20}).rows_of("big"))


def test_a_cut_above_the_size_keeps_everything(pool: TaskPool, cut_pool: Any) -> None:
    assert cut_pool({"big": 1000}).rows_of("big").tolist() == pool.rows_of("big").tolist()


def test_a_cut_changes_the_key_of_the_rows_that_are_handed_out(pool: TaskPool, cut_pool: Any, source: Any) -> None:
    def key(one: TaskPool) -> str:
        return digest(RowSet.of([source.task(2)], one.by_task(one.rows_of("big"))))

    assert key(pool) == key(cut_pool({"big": 40}))
    assert len({key(pool), key(cut_pool({"big": 8})), key(cut_pool({"big": 9}))}) == 3


def test_candidates_and_sample_respect_the_cut(cut_pool: Any) -> None:
    small = cut_pool({"big": 8})
    kept = set(small.rows_of("big"))
    assert set(small.candidates("pair")) == kept | set(small.rows_of("value"))
    assert set(small.sample(100, seed=0)) <= kept | set(range(7))


def test_a_sample_takes_so_many_of_each_task_but_at_most_half(pool: TaskPool) -> None:
    counts = {name: len(places) for name, places in pool.by_task(pool.sample(6, seed=0)).items()}
    assert counts == {"pair": 2, "value": 1, "big": 6}


def test_the_two_folds_share_no_row(pool: TaskPool) -> None:
    for seed in range(5):
        for per_task in (1, 6, 500):
            first, second = (pool.sample(per_task, seed, fold) for fold in (0, 1))
            assert len(first) == len(second)
            assert not set(first) & set(second)


def test_a_sample_is_without_repeats_and_follows_the_seed(pool: TaskPool) -> None:
    samples = [pool.sample(6, seed) for seed in range(4)]
    assert all(len(set(sample)) == len(sample) for sample in samples)
    assert len({tuple(sample) for sample in samples}) == 4
    assert pool.sample(6, 0).tolist() == samples[0].tolist()


def test_a_task_of_one_row_cannot_be_sampled(tmp_path: Path, make_pool: Any, toy_source: Any) -> None:
    source = toy_source((VALUE,), {"value": {"train": {"a": ["1"], "y": ["1"]}}})
    with pytest.raises(UserError, match=r"'value'.*1 training row"):
        make_pool(tmp_path, source).sample(5, seed=0)


def test_candidates_are_all_rows_but_the_primarys_and_the_excluded_ones(pool: TaskPool) -> None:
    assert pool.candidates("big").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert pool.candidates("pair", np.array([0, 5, 46])).tolist() == [6, *range(7, 46)]
    sample = pool.sample(6, seed=3)
    rest = pool.candidates("value", sample)
    assert not set(rest) & (set(sample) | set(pool.rows_of("value")))
    assert set(rest) | set(sample) | set(pool.rows_of("value")) == set(range(47))


def test_texts_are_the_columns_as_given_in_the_order_asked_for(pool: TaskPool) -> None:
    assert pool.split("pair", "train").texts([3, 0]) == [
        {"a": "7", "b": "13", "label": "no"}, {"a": "1 2", "b": "9", "label": "no"},
    ]  # fmt: skip


def test_flags_are_read_by_row_id_and_absent_where_a_task_has_none(pool: TaskPool) -> None:
    flags = pool.flags_of(np.array([2, 0, 1]))
    assert flags is not None
    assert flags.tolist() == [1, 0, 1]
    assert pool.flags_of(np.array([0, 5])) is None


def test_a_pickled_pool_is_its_folders_and_not_its_rows(cut_pool: Any) -> None:
    small = cut_pool({"big": 8})
    data = pickle.dumps(small)
    copy = pickle.loads(data)
    assert len(data) < 2000
    assert (copy.folders, copy.cut, copy.tasks) == (small.folders, small.cut, small.tasks)
    assert copy.rows_of("big").tolist() == small.rows_of("big").tolist()
    assert copy.split("pair", "train").ids.tolist() == small.split("pair", "train").ids.tolist()


@pytest.mark.parametrize("max_rows", [1, 3, 256])
def test_chunks_cover_all_rows_within_their_bounds(max_rows: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, size=200)
    lengths[17] = 500  # longer than a whole batch may be
    order = np.argsort(lengths)
    parts = list(chunks(order, lengths, max_tokens=128, max_rows=max_rows))
    assert np.concatenate(parts).tolist() == order.tolist()
    for part in parts:
        assert len(part) <= max_rows
        assert lengths[part].max() * len(part) <= 128 or len(part) == 1


def test_chunks_of_nothing_are_none() -> None:
    assert list(chunks(np.arange(0), np.arange(0), 128, 8)) == []


# --- everything that a row can have wrong --------------------------------------------------------------------------


def refusal(tmp_path: Path, source: Any, tokenize: Any) -> str:
    with pytest.raises(UserError) as error:
        write_task(tmp_path, source.task(), tokenize)
    assert "\n" not in str(error.value)
    return str(error.value)


GOOD = {"a": ["1", "2", "3"], "b": ["4", "5", "6"], "label": ["no", "yes", "no"]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"b": None}, ["'train'", "no column 'b'", "a, label"]),
        ({"label": None}, ["'train'", "no label column 'label'", "a, b"]),
        ({"label": ["no", "yes", "maybe"]}, ["row 2", "'maybe'", "no, yes"]),
        ({"label": ["no", "yes", "YES"]}, ["row 2", "'YES'", "no, yes"]),
        ({"label": ["no", "yes", ""]}, ["row 2", "''", "no, yes"]),
        ({"label": ["no", "yes", None]}, ["row 2", "None", "no, yes"]),
        ({"label": ["-1", "yes", "no"]}, ["row 0", "'-1'", "no, yes"]),
        ({"a": ["1", "2", ""]}, ["row 2", "empty 'a'"]),
        ({"b": ["1", " \t", "3"]}, ["row 1", "empty 'b'"]),
        ({"b": ["1", "2", None]}, ["row 2", "empty 'b'"]),
        ({"flag": ["0", "1", "x"]}, ["row 2", "'x'", "flag"]),
        ({"flag": [0, 1, None]}, ["row 2", "None", "flag"]),
        ({"flag": [0, 1, 1000]}, ["row 2", "1000", "flag"]),
    ],
    ids=str,
)
def test_a_bad_column_or_row_is_named_with_its_number_in_the_file(
    tmp_path: Path, toy_source: Any, toy_tokenizer: Any, changes: dict[str, Any], named: list[str]
) -> None:
    columns = {name: values for name, values in {**GOOD, **changes}.items() if values is not None}
    message = refusal(tmp_path, toy_source((PAIR,), {"pair": {"train": columns}}), toy_tokenizer)
    assert "'pair'" in message
    for part in named:
        assert part in message


@pytest.mark.parametrize("value", ["high", "", None, "1,5", "nan", "inf"])
def test_a_regression_takes_nothing_but_finite_numbers(
    tmp_path: Path, toy_source: Any, toy_tokenizer: Any, value: Any
) -> None:
    source = toy_source((VALUE,), {"value": {"train": {"a": ["1", "2"], "y": ["0", value]}}})
    message = refusal(tmp_path, source, toy_tokenizer)
    assert repr(value) in message
    assert "number" in message


@pytest.mark.parametrize("code", [-1, 2, 7, None, 0.5])
def test_a_code_outside_the_labels_is_refused_in_train(
    tmp_path: Path, toy_source: Any, toy_tokenizer: Any, code: Any
) -> None:
    columns = {**GOOD, "label": [0, 1, code]}
    source = toy_source((replace(PAIR, splits=TRAIN),), {"pair": {"train": columns}}, labels_are_codes=True)
    message = refusal(tmp_path, source, toy_tokenizer)
    assert "row 2" in message
    assert repr(code) in message


def test_minus_one_hides_a_code_in_test(tmp_path: Path, make_pool: Any, toy_source: Any) -> None:
    rows = {"train": {**GOOD, "label": [0, 1, 0]}, "test": {**GOOD, "label": [-1, -1, 1]}}
    pool = make_pool(tmp_path, toy_source((PAIR,), {"pair": rows}, labels_are_codes=True))
    np.testing.assert_array_equal(pool.split("pair", "test").labels, [np.nan, np.nan, 1])


def test_a_test_split_may_have_no_label_column_but_no_wrong_label(
    tmp_path: Path, make_pool: Any, toy_source: Any, toy_tokenizer: Any
) -> None:
    unlabelled = {"a": ["1"], "b": ["2"]}
    pool = make_pool(tmp_path / "good", toy_source((PAIR,), {"pair": {"train": GOOD, "test": unlabelled}}))
    assert np.isnan(pool.split("pair", "test").labels).all()
    wrong = {**unlabelled, "label": ["ye"]}
    message = refusal(tmp_path, toy_source((PAIR,), {"pair": {"train": GOOD, "test": wrong}}), toy_tokenizer)
    assert "'ye'" in message
    assert "leave it empty" in message


def test_a_split_without_rows_is_refused(tmp_path: Path, toy_source: Any, toy_tokenizer: Any) -> None:
    empty = {"a": [], "b": [], "label": []}
    assert "no rows" in refusal(tmp_path, toy_source((PAIR,), {"pair": {"train": empty}}), toy_tokenizer)


def test_equal_labels_are_refused_in_train_and_told_in_validation(
    tmp_path: Path, toy_source: Any, toy_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair = replace(PAIR, splits={**TRAIN, "validation": "validation"})
    equal = {**GOOD, "label": ["yes"] * 3}
    message = refusal(tmp_path, toy_source((pair,), {"pair": {"train": equal, "validation": GOOD}}), toy_tokenizer)
    assert message.startswith("task 'pair', split 'train': all 3 labels are 'yes'")
    write_task(tmp_path, toy_source((pair,), {"pair": {"train": GOOD, "validation": equal}}).task(), toy_tokenizer)
    assert "task 'pair', split 'validation': all 3 labels are 'yes'" in caplog.text
    constant = toy_source((VALUE,), {"value": {"train": {"a": ["1", "2"], "y": ["0.5", "0.5"]}}})
    assert "task 'value', split 'train': all 2 labels are 0.5" in refusal(tmp_path, constant, toy_tokenizer)


def test_an_empty_batch_between_full_ones_is_harmless(tmp_path: Path, toy_source: Any, toy_tokenizer: Any) -> None:
    class Gaps(toy_source):  # type: ignore[misc]
        def batches(self, task: TaskSpec, split: str) -> Any:
            for batch in super().batches(task, split):
                yield batch.slice(0, 0)
                yield batch

    source = Gaps((PAIR,), {"pair": {"train": GOOD, "test": GOOD}})
    assert write_task(tmp_path, source.task(), toy_tokenizer)["examples"] == 6


def test_texts_are_for_people_in_the_order_asked_for(pool: TaskPool) -> None:
    ids = np.concatenate([pool.rows_of(name)[:2] for name in reversed(pool.names)])
    rows = pool.texts(ids)
    assert [row["task"] for row in rows] == [pool.names[t] for t in pool.task_of(ids)]
    for row, task_id, place in zip(rows, pool.task_of(ids), pool.local(ids), strict=True):
        task = pool.tasks[task_id]
        code = pool.split(task.name, "train").labels[place]
        assert row["label"] == (task.labels[int(code)] if task.labels else code)
