"""Rows that say the same: what counts as a match, which rows are listed, whole groups held out, GLUE's known counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from pandas import DataFrame, factorize

from fastmtl.data.duplicates import (
    KINDS,
    Texts,
    comparable,
    holdout,
    matches,
    read_texts,
)
from fastmtl.data.minhash import NearTexts
from fastmtl.errors import UserError
from fastmtl.tasks import GLUE, TaskSpec

PAIR = TaskSpec("pair", "classification", ("a", "b"), ("no", "yes"), splits={"train": "train", "test": "test"})
SINGLE = TaskSpec("single", "regression", ("a",), splits={"train": "train"})
LONG = "The chancellor of the board declined to comment on personnel matters on Tuesday evening"


def listed(found: DataFrame) -> list[tuple[int, int, str]]:
    return list(zip(found.reference, found.candidate, found.kind))


def counts(found: DataFrame) -> dict[str, tuple[int, int]]:
    """By kind: reference and candidate rows, each under its strictest match."""
    strictest = [found.assign(kind=found.kind.map(KINDS.index)).groupby(side).kind.min() for side in found.columns[:2]]
    return {kind: tuple(int((side == i).sum()) for side in strictest) for i, kind in enumerate(KINDS)}


def groups_of(keys: np.ndarray) -> list[int]:
    return factorize(keys)[0].tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It's  GOOD.", " it 's good"),
        ("$ 102 million", "$102 million"),
        ("under_score", "under score"),
        ("ﬁne ١", "Fine ١"),
        ("( ", ") "),
    ],
)
def test_case_punctuation_signs_and_blanks_do_not_part_texts(one: str, other: str) -> None:
    assert len(set(Texts([one, other]).keys())) == 1
    assert len(set(Texts([one, other]).keys("exact"))) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [("good 😀", "good 😡"), ("dont", "don't"), ("naïve", "naive"), ("कि", "का"), ("1.5", "15")],
)
def test_words_accents_vowel_signs_and_emoji_part_texts(one: str, other: str) -> None:
    assert len(set(Texts([one, other]).keys())) == 2


def test_a_pair_is_the_same_in_either_order_but_for_exactly_the_same() -> None:
    first, second = ["A b.", "c", "a b", "a b c"], ["C", "a B", "a b", ""]
    assert groups_of(Texts(first, second).keys()) == [0, 0, 1, 2]
    assert groups_of(Texts(["x", "y", "x"], ["y", "x", "y"]).keys("exact")) == [0, 1, 0]


def test_keys_are_the_same_on_every_machine() -> None:
    assert Texts(["Good film."]).keys().tolist() == Texts(["good film"]).keys().tolist() == [10778884345285557029]


def test_each_match_has_its_strictest_kind() -> None:
    reference = Texts([LONG, "something else altogether"], ["He said no.", "x"])
    candidate = Texts(
        [LONG, "he said no", f"{LONG}, he said", "x", LONG],
        ["He said no.", LONG.upper(), "He said no", "y", "He said yes."],
    )
    assert listed(matches(reference, candidate)) == [(0, 0, "exact"), (0, 1, "normalised"), (0, 2, "near")]
    assert listed(matches(reference, candidate, ("near",))) == [(0, 0, "near"), (0, 1, "near"), (0, 2, "near")]
    assert listed(matches(reference, candidate, ("exact",))) == [(0, 0, "exact")]
    assert counts(matches(reference, candidate)) == {"exact": (1, 1), "normalised": (0, 1), "near": (0, 1)}


def test_both_texts_of_a_pair_must_be_near_and_may_be_so_crosswise() -> None:
    reference = Texts([LONG], ["Mills would not say what the meeting was about"])
    candidate = Texts(
        ["Mills would not say what the meeting was about today", f"{LONG}s", f"{LONG}s"],
        [f"On Monday {LONG}", "Stocks fell for a third day in a row", LONG],
    )
    assert listed(matches(reference, candidate)) == [(0, 0, "near")]


def test_nearness_is_the_jaccard_similarity_of_shingles_and_the_threshold_is_kept() -> None:
    text, edited = "abcdefghij", "abcdefghix"  # five of seven shingles in common
    for threshold, found in ((5 / 7, True), (0.72, False), (1.0, False)):
        assert bool(len(matches(Texts([text]), Texts([edited]), ("near",), threshold))) is found
    assert len(matches(Texts([text]), Texts([text]), ("near",), 1.0)) == 1


def test_banding_misses_next_to_none_of_the_pairs_at_the_threshold() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefghijklmnop"), 60)) for _ in range(400)]
    edited = [text[:51] + "".join(rng.choice(list("qrstuvwxyz"), 9)) for text in texts]  # 47 of 65 shingles: 0.72
    assert len(NearTexts(texts, 0.7).near(edited)) >= 0.97 * len(texts)


def test_rows_that_are_equal_are_all_found_without_all_their_combinations() -> None:
    found = matches(Texts(["yes"] * 1000 + ["other"]), Texts(["no"] + ["Yes"] * 2000), ("normalised",))
    assert sorted(set(found.reference)) == list(range(1000))
    assert sorted(set(found.candidate)) == list(range(1, 2001))
    assert len(found) == 2999


def test_near_matches_reach_every_row_of_a_group() -> None:
    found = matches(Texts(["other", LONG, LONG.lower()]), Texts([f"{LONG}s", "x", f"{LONG}s!"]))
    assert sorted(set(found.reference)) == [1, 2]
    assert sorted(set(found.candidate)) == [0, 2]


def test_no_match_is_an_empty_result() -> None:
    found = matches(Texts(["a"]), Texts(["b"]))
    assert len(found) == 0
    assert sorted(set(found.reference)) == sorted(set(found.candidate)) == []
    assert counts(found) == dict.fromkeys(KINDS, (0, 0))


def test_texts_of_a_split_come_whole_and_tagged_words_joined(
    tmp_path: Path, make_pool: Any, toy_source: Any, tagged_pool: Any
) -> None:
    rows = {
        "pair": {
            "train": {"a": ["1", "2", "3"], "b": ["4", "5", "6"], "label": ["no", "yes", "no"]},
            "test": {"a": ["7"], "b": ["8"]},
        },
        "single": {"train": {"a": ["9 10"], "label": ["0.5"]}},
    }
    pool = make_pool(tmp_path, toy_source((PAIR, SINGLE), rows))
    assert read_texts(pool.folders[0], "train") == Texts(["1", "2", "3"], ["4", "5", "6"])
    assert read_texts(pool.folders[0], "test") == Texts(["7"], ["8"])
    assert read_texts(pool.folders[1], "train") == Texts(["9 10"])
    assert read_texts(pool.folders[0], "train").take([2, 0]) == Texts(["3", "1"], ["6", "4"])
    words = read_texts(tagged_pool.folders[0], "train").first
    assert list(words) == [row["words"] for row in tagged_pool.texts(np.arange(12))]


def test_tasks_are_comparable_where_they_have_as_many_texts() -> None:
    assert comparable(GLUE["stsb"], [GLUE["mrpc"], GLUE["sst2"]]) == ("mrpc",)
    assert comparable(GLUE["sst2"], []) == ()
    with pytest.raises(UserError, match="'sst2' has one text a row and mrpc, rte do not"):
        comparable(GLUE["sst2"], [GLUE["mrpc"], GLUE["rte"]])


@pytest.mark.parametrize(("n", "share", "size"), [(10, 0.1, 1), (10, 0.34, 3), (100, 0.1, 10), (2, 0.1, 1)])
def test_held_out_rows_and_the_rest_are_disjoint_and_exhaustive(n: int, share: float, size: int) -> None:
    kept, held = holdout(np.arange(n), share, seed=1, name="rte")
    assert len(held) == size
    assert sorted([*kept, *held]) == list(range(n))
    assert kept.tolist() == sorted(kept)
    assert held.tolist() == sorted(held)


def test_held_out_rows_follow_seed_and_task() -> None:
    held = {
        (seed, name): tuple(holdout(np.arange(1000), 0.1, seed, name)[1]) for seed in (0, 1) for name in ("rte", "cola")
    }
    assert len(set(held.values())) == 4
    assert tuple(holdout(np.arange(1000), 0.1, 0, "rte")[1]) == held[0, "rte"]


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(UserError, match=r"'rte'.*1 training rows.*protocol=paper"):
        holdout(np.zeros(1), 0.1, 0, "rte")


def test_duplicates_stay_on_one_side_and_the_share_is_kept() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(400, size=1000)
    for seed in range(5):
        kept, held = holdout(groups, 0.2, seed, "t")
        assert not set(groups[kept]) & set(groups[held])
        assert np.sort(np.concatenate([kept, held])).tolist() == list(range(1000))
        assert 195 <= len(held) <= 200
    assert holdout(groups, 0.2, 0, "t")[1].tolist() != holdout(groups, 0.2, 1, "t")[1].tolist()


def test_a_row_with_many_duplicates_is_held_out_as_often_as_any() -> None:
    groups = np.concatenate([np.repeat(np.arange(200), 5), np.arange(200, 1200)])
    shares = [np.mean(holdout(groups, 0.25, seed, "t")[1] < 1000) for seed in range(200)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.01)  # half of all rows have duplicates


def test_where_no_group_fits_the_smallest_is_held_out_and_one_group_alone_is_refused() -> None:
    kept, held = holdout(np.array([0, 0, 0, 1, 1]), 0.1, 0, "t")
    assert (kept.tolist(), held.tolist()) == ([0, 1, 2], [3, 4])
    with pytest.raises(UserError, match="task 't': 4 training rows, 1 of them distinct, leave none after holding out"):
        holdout(np.zeros(4, dtype=int), 0.1, 0, "t")


def test_many_auxiliary_rows_take_seconds() -> None:
    many = Texts([f"the cook bought {i} apples and {i % 977} pears" for i in range(400_000)])
    started = time.process_time()
    found = matches(Texts([f"The cook bought {i} apples, and {i % 977} pears!" for i in range(2000)]), many, KINDS[:2])
    assert len(found) == 2000
    assert time.process_time() - started < 20  # about two


@pytest.fixture(scope="module")
def glue(root: Path) -> Any:
    folder = root.parent / "shared" / "glue"
    if not folder.exists():
        pytest.skip("needs ../shared/glue")

    def texts(task: str, split: str) -> Texts:
        table = pyarrow.parquet.read_table(folder / task / f"{split}.parquet")
        return Texts(*(table.column(name).to_pylist() for name in GLUE[task].text))

    return texts


@pytest.mark.parametrize(
    ("reference", "candidate", "rows", "hit", "near"),
    [
        (("stsb", "validation"), ("mrpc", "train"), 1500, 111, 6),
        (("stsb", "test"), ("mrpc", "train"), 1379, 119, 5),
        (("mrpc", "validation"), ("stsb", "train"), 408, 48, 3),
    ],
)
def test_known_matches_between_glue_tasks(
    glue: Any, reference: tuple[str, str], candidate: tuple[str, str], rows: int, hit: int, near: int
) -> None:
    unseen = glue(*reference)
    hits = counts(matches(unseen, glue(*candidate)))
    assert (len(unseen), hits["exact"][0] + hits["normalised"][0], hits["near"][0]) == (rows, hit, near)


def test_known_duplicates_within_sst2_and_none_straddle(glue: Any) -> None:
    keys = glue("sst2", "train").keys()
    assert (len(keys), len(keys) - len(set(keys))) == (67349, 8751)  # rows beyond the first of each group
    kept, held = holdout(keys, 0.1, 1, "sst2")
    assert len(held) == 6735
    assert not set(keys[kept]) & set(keys[held])
    before, straddling = holdout(np.arange(len(keys)), 0.1, 1, "sst2")
    assert np.isin(keys[straddling], keys[before]).sum() > 1000
