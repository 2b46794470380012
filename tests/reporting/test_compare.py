"""Cells written by hand, with scores whose answer is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests

from fastmtl import resampling
from fastmtl.errors import UserError
from fastmtl.reporting import tables
from fastmtl.reporting.compare import check_comparable, comparisons
from fastmtl.reporting.compute import matched, reaching
from fastmtl.reporting.recommend import recommendation
from fastmtl.reporting.row_noise import row_noise
from fastmtl.resampling import resampled_scores
from fastmtl.stats import Noise, detectable, half_width, seeds_needed
from fastmtl.tasks import TaskSpec

NONE, RANDOM, FULL, OURS = ("none", None), ("random", 100), ("full", None), ("feature_similarity", 100)
OURS200 = ("feature_similarity", 200)
FLOPS = {"none": 1e12, "primary_only": 1.5e12, "random": 2e12, "feature_similarity": 3e12, "full": 10e12}
NOISE = np.array([0.00, 0.02, -0.01, 0.01, -0.02, 0.015, -0.005, 0.005])


def cells_of(scores: Mapping[tuple[str, int | None], Sequence[float]], **columns: Any) -> pandas.DataFrame:
    """Scores by arm and budget, one a seed; the arm's first word is its selection, the rest its variant."""
    rows = []
    for (arm, budget), values in scores.items():
        selection, _, variant = arm.partition(" ")
        for seed, score in enumerate(values):
            rows.append({
                "id": f"{arm}-{budget}-{seed}", "primary": "rte", "metric": "accuracy", "protocol": "strict",
                "encoder": "tiny", "pool": "abc", "selection": selection, "variant": variant, "arm": arm,
                "budget": budget, "seed": seed, "score": score, "total_flops": FLOPS[selection] * (budget or 100) / 100,
                "aux_rows": {"none": 0, "primary_only": 0, "full": 1000}.get(selection, budget),
                "finetune": "/nowhere", **columns,
            })  # fmt: skip
    cells = pandas.DataFrame(rows)
    cells["budget"] = cells["budget"].astype("Int64")
    return cells


def four_arms(ours: float = 0.0, n: int = 6) -> pandas.DataFrame:
    """All arms about 0.6 but for ours, each with noise of its own order."""
    noise = NOISE[:n]
    return cells_of({
        NONE: 0.6 + noise, RANDOM: 0.6 + noise[::-1], FULL: 0.6 + np.roll(noise, 2),
        OURS: 0.6 + ours + np.roll(noise, 3),
    })  # fmt: skip


def write_hits(folder: Path, hits: np.ndarray) -> None:
    """Predictions as the stage leaves them, for a task whose labels are not in the order of the alphabet."""
    label = np.resize(["yes", "no"], len(hits)).astype(object)
    prediction = np.where(hits, label, np.where(label == "yes", "no", "yes"))
    write_table(folder, TaskSpec("rte", "classification", ("text",), ("yes", "no")), {
        "row": range(len(hits)), "label": label, "prediction": prediction,
        "p_yes": prediction == "yes", "p_no": prediction == "no",
    })  # fmt: skip


def write_table(folder: Path, task: TaskSpec, columns: Mapping[str, Any]) -> None:
    """What a `finetune` folder says of its task, and the predictions."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"task": task.to_dict()}))
    pandas.DataFrame(columns).to_parquet(folder / "validation.parquet")


def predicted(cells: pandas.DataFrame, folder: Path, rows: int = 4000) -> pandas.DataFrame:
    """With stored predictions of these scores: a better model is right wherever a worse one is."""
    return write_predictions(cells, folder, dict(zip(cells["id"], cells["score"])), rows)


def write_predictions(
    cells: pandas.DataFrame, folder: Path, right: Mapping[str, float] | Callable[[str, int], np.ndarray], rows: int = 0
) -> pandas.DataFrame:
    """With each cell's folder, and its score."""
    for i, cell in cells.iterrows():
        if callable(right):
            hits = right(cell["arm"], cell["seed"])
        else:
            hits = np.arange(rows) < round(right[cell["id"]] * rows)
        path = folder / cell["id"]
        write_hits(path, hits)
        cells.loc[i, "finetune"] = str(path)
        cells.loc[i, "score"] = hits.mean()
    return cells


def test_every_pair_stands_once_and_over_seeds_alone_with_the_numbers_of_scipy_and_statsmodels() -> None:
    cells = four_arms(0.05)
    told = comparisons(cells)
    assert list(zip(told["arm"], told["reference"])) == [
        ("random", "none"), ("random", "full"), ("full", "none"),
        ("feature_similarity", "none"), ("feature_similarity", "random"), ("feature_similarity", "full"),
    ]  # fmt: skip
    assert told["budget"].dtype == "Int64"
    assert told["budget"].isna().tolist() == [False, False, True, False, False, False]
    score = {arm: group["score"].to_numpy() for arm, group in cells.groupby("arm")}
    tests = [stats.ttest_rel(score[arm], score[other]) for arm, other in zip(told["arm"], told["reference"])]
    p = [test.pvalue for test in tests]
    assert told["p"].to_numpy() == pytest.approx(p)
    assert told["low"].to_numpy() == pytest.approx([test.confidence_interval().low for test in tests])
    assert told["p_holm"].to_numpy() == pytest.approx(multipletests(p, method="holm")[1])
    row = told.iloc[3]
    assert row["mean"] == pytest.approx((score["feature_similarity"] - score["none"]).mean())


def test_without_predictions_nothing_is_significant_and_nothing_is_planned() -> None:
    told = comparisons(four_arms(0.05))
    assert (told["p_holm"] < 0.01).any()
    assert set(told["covers"]) == {"seeds"}
    assert not told["significant"].any()
    assert told[["row_share", "detectable", "seeds_needed", "seeds_for_point"]].isna().all(axis=None)


def test_with_predictions_interval_p_and_power_are_of_seeds_and_rows(tmp_path: Path) -> None:
    cells = predicted(four_arms(0.05), tmp_path, rows=400)
    told = comparisons(cells)
    assert set(told["covers"]) == {"seeds and rows"}
    assert told["significant"].tolist() == (told["p_holm"] < 0.05).tolist()
    assert told["significant"].tolist()[:3] == [False] * 3
    assert told["significant"].any()
    score = {arm: group["score"].to_numpy() for arm, group in cells.groupby("arm")}
    difference = score["feature_similarity"] - score["none"]
    # Right where the other is not, on the rows between: so many of 400, and they overlap.
    hits = np.arange(400) < np.round(400 * np.stack([score["feature_similarity"], score["none"]]))[..., None]
    covariance = np.cov(hits[0].astype(float) - hits[1], ddof=0) / 400
    shared = (covariance.sum() - np.trace(covariance)) / (6 * 5)
    noise = Noise(6, difference.var(ddof=1), shared, np.trace(covariance) / 6 - shared, 400)
    row = told.iloc[3]
    assert row["sd"] == pytest.approx(difference.std(ddof=1))
    assert row["low"] == pytest.approx(difference.mean() - half_width(noise), abs=1e-3)
    assert row["low"] < stats.ttest_rel(score["feature_similarity"], score["none"]).confidence_interval().low
    assert row["row_share"] == pytest.approx(noise.row_share, abs=0.02)
    assert row["detectable"] == pytest.approx(detectable(noise, alpha=0.05 / 6), rel=0.03)
    assert row["seeds_needed"] == pytest.approx(seeds_needed(row["mean"], noise, alpha=0.05 / 6), abs=1)
    assert row["seeds_for_point"] == math.inf  # 400 rows do not show one point


def test_seeds_are_paired_by_number_and_only_where_both_have_them() -> None:
    cells = four_arms(0.05)
    ours = (cells["arm"] == "feature_similarity") & cells["seed"].isin([1, 4])
    fewer = cells[(cells["arm"] == "none") | ours].sample(frac=1, random_state=0)  # the order of rows says nothing
    score = cells.set_index(["arm", "seed"])["score"]
    row = comparisons(fewer).iloc[0]
    assert row["n"] == 2
    assert row["mean"] == pytest.approx(np.mean([score["feature_similarity", s] - score["none", s] for s in (1, 4)]))


def test_one_common_seed_keeps_its_row_without_statistics() -> None:
    told = comparisons(cells_of({NONE: [0.6, 0.61, 0.59], OURS: [0.7]}))
    assert told["n"].tolist() == [1]
    numbers = ["mean", "sd", "low", "p", "p_holm", "row_share", "detectable", "seeds_needed", "seeds_for_point"]
    assert told[numbers].isna().all(axis=None)
    assert told["covers"].tolist() == [""]
    assert not told["significant"].any()


def test_a_few_seeds_that_nearly_agree_by_chance_do_not_make_a_difference_significant(tmp_path: Path) -> None:
    """What the rows alone could have made is counted however little the seeds differ."""
    cells = cells_of({NONE: [0.6, 0.61, 0.59], OURS: [0.65, 0.66, 0.64]})
    assert math.isnan(comparisons(cells)["p"].iloc[0])  # equal differences: of seeds alone their noise is unknown
    few = comparisons(predicted(cells, tmp_path, rows=40)).iloc[0]
    assert few["p"] > 0.05
    assert not few["significant"]
    (tmp_path / "many").mkdir()
    assert comparisons(predicted(cells, tmp_path / "many", rows=4000)).iloc[0]["significant"]


def test_one_arm_has_nothing_to_be_compared_with() -> None:
    cells = cells_of({NONE: [0.6, 0.61]})
    told = comparisons(cells)
    assert len(told) == len(matched(cells)) == 0
    assert "p_holm" in told
    assert "another arm" in recommendation(cells, told)


def test_equal_differences_are_never_significant_and_count_in_no_family() -> None:
    told = comparisons(cells_of({NONE: [0.5, 0.6, 0.7], FULL: [0.7, 0.8, 0.9], RANDOM: [0.5, 0.6, 0.71]}), ["none"])
    shifted, noisy = told.iloc[0], told.iloc[1]
    assert (shifted["mean"], math.isnan(shifted["p"]), bool(shifted["significant"])) == (
        pytest.approx(0.2),
        True,
        False,
    )
    assert noisy["p_holm"] == noisy["p"]


def test_random_is_taken_at_the_same_budget_and_references_of_the_same_variant() -> None:
    told = comparisons(cells_of({
        NONE: [0.1, 0.2], RANDOM: [0.1, 0.3], ("random", 200): [0.3, 0.1], ("feature_similarity", 200): [0.5, 0.5],
        ("feature_similarity epochs=3", 100): [0.5, 0.5], ("random epochs=3", 100): [0.2, 0.1],
    }))  # fmt: skip
    mean = told.set_index(["arm", "budget", "reference"])["mean"]
    assert mean["feature_similarity", 200, "random"] == pytest.approx(0.3)
    assert mean["feature_similarity epochs=3", 100, "random epochs=3"] == pytest.approx(0.35)
    assert ("feature_similarity epochs=3", 100, "random") not in mean
    assert mean["feature_similarity epochs=3", 100, "none"] == pytest.approx(0.35)


def few_rows(tmp_path: Path, rows: int) -> pandas.DataFrame:
    """Ours is right in one row of 40 more than `none`, with every seed but one that has two."""

    def right(arm: str, seed: int) -> np.ndarray:
        extra = {"none": 0, "feature_similarity": rows // 40 * (2 if seed == 0 else 1)}[arm]
        return np.arange(rows) < rows // 2 + extra

    return write_predictions(cells_of({NONE: [0.0] * 6, OURS: [0.0] * 6}), tmp_path, right)


def test_what_too_few_rows_could_have_made_is_not_significant(tmp_path: Path) -> None:
    cells = few_rows(tmp_path, 40)
    row = comparisons(cells).iloc[0]
    assert stats.ttest_1samp([0.05, *[0.025] * 5], 0).pvalue < 0.001
    assert (row["p"] > 0.1, row["covers"], bool(row["significant"])) == (True, "seeds and rows", False)
    assert row["low"] <= 0 < row["mean"] < row["high"]
    assert row["row_share"] > 0.9


def test_with_enough_rows_it_is(tmp_path: Path) -> None:
    cells = few_rows(tmp_path, 400)
    row = comparisons(cells).iloc[0]
    assert row["low"] > 0
    assert bool(row["significant"])
    pandas.testing.assert_frame_equal(comparisons(cells), comparisons(cells, by_rows=row_noise(cells)))


def test_a_missing_folder_leaves_the_seeds_alone(tmp_path: Path) -> None:
    cells = few_rows(tmp_path, 40)
    cells.loc[0, "finetune"] = str(tmp_path / "gone")
    row = comparisons(cells).iloc[0]
    assert (row["p"] < 0.001, row["covers"], bool(row["significant"])) == (True, "seeds", False)


def test_the_table_says_what_no_number_of_seeds_shows_and_what_its_intervals_cover(tmp_path: Path) -> None:
    table = tables.differences(comparisons(few_rows(tmp_path, 40)))
    told = dict(zip(table.headers, table.rows[0]))
    assert told["seeds needed"] == "infinite"
    assert float(told["rows' share %"]) > 90
    assert float(told["minimum detectable x100"]) > 5
    assert not table.bold
    assert "cover both seeds and validation rows" in table.note
    assert "predictions of these cells are gone" not in table.note
    table = tables.differences(comparisons(four_arms(0.05)))
    assert "predictions of these cells are gone" in table.note
    assert not table.bold
    assert all(row[-3:] == ["", "", ""] for row in table.rows)
    two = tables.differences(comparisons(predicted(four_arms(n=2), tmp_path / "two")))
    assert "> 100" in [row[-2] for row in two.rows]


def test_predictions_are_read_in_the_order_of_the_tasks_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F1 is of the second label: of `no`, though `yes` comes later in the alphabet."""
    rng = np.random.default_rng(0)
    cells = write_predictions(
        cells_of({NONE: [0.0] * 2, OURS: [0.0] * 2}, metric="f1"), tmp_path,
        lambda arm, seed: (rng.random(100) < (0.9 if arm == "none" else 0.5)) | (np.arange(100) % 2 == 0),
    )  # fmt: skip
    f1 = {}
    for arm, group in cells.groupby("arm"):
        tables = [pandas.read_parquet(Path(folder) / "validation.parquet") for folder in group["finetune"]]
        f1[arm] = np.mean([_f1_of_no(table) for table in tables])
    assert resampled_mean(cells, monkeypatch) == pytest.approx(f1["feature_similarity"] - f1["none"], abs=0.02)


def resampled_mean(cells: pandas.DataFrame, monkeypatch: pytest.MonkeyPatch) -> float:
    """Mean difference of ours to `none` on the resamples that the noise of rows is taken from."""
    told = []

    def keep(*args: Any, **options: Any) -> np.ndarray:
        told.append(resampled_scores(*args, **options))
        return told[-1]

    monkeypatch.setattr(resampling, "resampled_scores", keep)
    found = row_noise(cells)
    score = dict(zip(found.cells, told[0].mean(axis=1)))
    mean = {arm: np.mean([score[cell] for cell in group["id"]]) for arm, group in cells.groupby("arm")}
    return float(mean["feature_similarity"] - mean["none"])


def _f1_of_no(table: pandas.DataFrame) -> float:
    hits = ((table["label"] == "no") & (table["prediction"] == "no")).sum()
    return 2 * hits / ((table["label"] == "no").sum() + (table["prediction"] == "no").sum())


def test_tags_are_drawn_again_by_the_row_and_the_negative_one_is_no_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of({NONE: [0.0] * 2, OURS: [0.0] * 2}, metric="f1_micro")
    rng = np.random.default_rng(0)
    f1: dict[str, list[float]] = {"none": [], "feature_similarity": []}
    for i, cell in cells.iterrows():
        label = [rng_row.choice(["O", "B", "I"], size=1 + k % 7).tolist() for k, rng_row in enumerate(rows_rng(80))]
        share = 0.9 if cell["arm"] == "none" else 0.6
        said = [[tag if rng.random() < share else str(rng.choice(["O", "I", "E"])) for tag in row] for row in label]
        path = tmp_path / cell["id"]
        task = TaskSpec("rte", "tagging", ("words",), ("O", "B", "I", "E"), ("f1_micro",))
        write_table(path, task, {"row": range(81), "label": [*label, None], "prediction": [*said, ["B"]]})
        cells.loc[i, "finetune"] = str(path)
        f1[cell["arm"]].append(
            f1_score([*chain(*label)], [*chain(*said)], labels=["B", "I", "E"], average="micro", zero_division=0)
        )
    difference = np.mean(f1["feature_similarity"]) - np.mean(f1["none"])
    assert resampled_mean(cells, monkeypatch) == pytest.approx(difference, abs=0.02)
    assert row_noise(cells).rows == 80


def rows_rng(n: int) -> list[np.random.Generator]:
    """A generator a row, the same for every cell."""
    return [np.random.default_rng(k) for k in range(n)]


def test_regressions_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = cells_of({NONE: [0.5, 0.6], OURS: [0.7, 0.9]}, metric="pearson")
    rng = np.random.default_rng(0)
    for i, cell in cells.iterrows():
        path = tmp_path / cell["id"]
        label = np.linspace(0, 5, 50)
        noise = rng.normal(0, 0.2 if cell["arm"] == "feature_similarity" else 3, 50)
        task = TaskSpec("rte", "regression", ("text",), metrics=("pearson",))
        write_table(path, task, {"row": range(50), "label": label, "prediction": label + noise})
        cells.loc[i, "finetune"] = str(path)
    assert resampled_mean(cells, monkeypatch) > 0.1
    assert comparisons(cells).iloc[0]["covers"] == "seeds and rows"


def test_the_best_for_the_same_flops_by_hand() -> None:
    """Random goes 1, 2, 4, 10 TFLOP; ours with 3 lies between 2 and 4, with 6 between 4 and 10, with 12 beyond all."""
    told = matched(cells_of({
        NONE: [0.5, 0.5, 0.5], RANDOM: [0.6, 0.6, 0.6], ("random", 200): [0.7, 0.7, 0.8], FULL: [0.9, 0.9, 0.9],
        OURS: [0.7, 0.72, 0.8], ("feature_similarity", 200): [0.7, 0.7, 0.7], ("feature_similarity", 400): [1, 1, 1],
    }))  # fmt: skip
    assert told["budget"].tolist() == [100, 200, 400]
    assert told["flops"].tolist() == [3e12, 6e12, 12e12]
    between = math.log(3 / 2) / math.log(4 / 2)
    reached = 0.6 + between * np.array([0.1, 0.1, 0.2])
    assert told.loc[0, "reached"] == pytest.approx(reached.mean())
    assert told.loc[0, "alternative"] == "`random`, budget 100 to `random`, budget 200"
    test = stats.ttest_rel([0.7, 0.72, 0.8], reached)
    assert told.loc[0, "mean"] == pytest.approx(0.74 - reached.mean())
    assert tuple(told.loc[0, ["low", "high", "p"]]) == pytest.approx((*test.confidence_interval(), test.pvalue))
    assert told["n"].tolist() == [3, 3, 3]
    assert told["alternative"].tolist()[1:] == ["`random`, budget 200 to `full`", "`full`"]  # to spend less is no loss
    assert told.loc[2, "reached"] == pytest.approx(0.9)


def test_the_primary_alone_trained_longer_is_an_alternative() -> None:
    arms = {
        NONE: [0.5, 0.5], ("none finetune.epochs=9", None): [0.55, 0.55], ("primary_only", None): [0.6, 0.61],
        ("primary_only multitask.epochs=8", None): [0.8, 0.84], ("primary_only encoder.layers=2", None): [0.9, 0.9],
        RANDOM: [0.62, 0.6], FULL: [0.7, 0.7], OURS: [0.7, 0.72], ("feature_similarity", 200): [0.7, 0.7],
    }  # fmt: skip
    cells = cells_of(arms)
    cells.loc[cells["arm"] == "primary_only multitask.epochs=8", "total_flops"] = 4e12
    told = matched(cells)
    assert set(told["arm"]) == {"feature_similarity"}
    assert told["alternative"].tolist() == [
        "`primary_only` to `primary_only multitask.epochs=8`", "`primary_only multitask.epochs=8`",
    ]  # fmt: skip
    assert told.loc[1, "reached"] == pytest.approx(0.82)
    assert told.loc[0, "reached"] == pytest.approx(0.605 + math.log(3 / 1.5) / math.log(4 / 1.5) * 0.215)
    cheap = matched(cells[cells["arm"].isin(["full", "feature_similarity"])])
    assert cheap["n"].tolist() == [0, 0]  # all rows cost more, and there is nothing else
    assert "nan" not in tables.matched(cheap).markdown()


# --- the smallest budget that reaches full -------------------------------------------------------------------------


def test_the_smallest_budget_that_reaches_full_and_what_its_interval_is(tmp_path: Path) -> None:
    noise = NOISE / 8
    cells = predicted(cells_of({
        NONE: 0.5 + noise, ("random", 100): 0.6 + noise[::-1], ("random", 400): 0.7 + noise[::-1],
        FULL: 0.8 + noise, ("feature_similarity", 100): 0.75 + noise[::-1], OURS200: 0.793 + noise[::-1],
        ("feature_similarity", 400): 0.81 + noise[::-1], ("feature_similarity", 800): 0.83 + noise[::-1],
    }), tmp_path, rows=2000)  # fmt: skip
    told = reaching(cells).set_index("arm")
    assert set(told.index) == {"none", "random", "feature_similarity"}
    assert told.loc["random", ["rows", "least", "most"]].isna().all()
    ours = told.loc["feature_similarity"]
    assert (ours["rows"], ours["budget"], ours["share"]) == (200, 200, pytest.approx(0.2))
    assert (ours["least"], ours["most"]) == (200, 400)
    assert ours["speedup"] == pytest.approx(10 / 6)
    assert ours["low"] < -0.01 < ours["mean"]
    table = tables.reaching(cells, reaching(cells))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["feature_similarity"][:3] == ["200", "20.0", "200 to 400"]
    assert rows["random"][0] == "none here"
    assert rows["full"][:2] == ["1,000", "100.0"]
    assert "nan" not in table.markdown()


def test_one_seed_reaches_full_without_an_interval_and_without_full_there_is_no_table() -> None:
    cells = cells_of({NONE: [0.8], FULL: [0.805], OURS: [0.7], ("feature_similarity", 200): [0.9]})
    told = reaching(cells)
    assert told["rows"].tolist() == [0, 200]  # no auxiliary rows are enough
    assert told[["least", "most", "low"]].isna().all(axis=None)
    table = tables.reaching(cells, told)
    assert [row[3] for row in table.rows] == ["", "", ""]
    without = cells[cells["arm"] != "full"]
    assert not tables.reaching(without, reaching(without)).rows


def test_the_same_compute_is_compared_over_seeds_and_rows(tmp_path: Path) -> None:
    """Ours costs as much as `random` with 150 rows: the mean of two cells has less noise by rows than either."""
    cells = cells_of({NONE: [0.5] * 3, RANDOM: [0.6, 0.61, 0.62], ("random", 200): [0.7, 0.7, 0.72],
                      OURS: [0.7, 0.71, 0.72]})  # fmt: skip
    over_seeds = matched(cells).iloc[0]
    both = matched(predicted(cells, tmp_path, rows=200)).iloc[0]
    assert (over_seeds["covers"], both["covers"]) == ("seeds", "seeds and rows")
    assert both["mean"] == pytest.approx(over_seeds["mean"])
    assert both["low"] < over_seeds["low"] - 0.01


def test_no_auxiliary_data_where_nothing_is_better(tmp_path: Path) -> None:
    cells = predicted(four_arms(), tmp_path)
    compared = comparisons(cells)
    told = recommendation(cells, compared)
    assert told.startswith("rte: use no auxiliary data; no arm is significantly better than `none` over 6 seeds.")
    against = compared.query("reference == 'none'")
    assert f"Effects below {100 * against['detectable'].max():.1f} points would not have been seen" in told
    assert f"up to {100 * against['row_share'].max():.0f} % of the variance is due to the validation rows" in told


def test_the_cheapest_of_the_better_arms_that_none_beats(tmp_path: Path) -> None:
    noise = NOISE / 4
    cells = cells_of({
        NONE: 0.6 + noise, RANDOM: 0.65 + noise[::-1], OURS: 0.7 + np.roll(noise, 3),
        ("feature_similarity", 300): 0.7 + np.roll(noise, 5), FULL: 0.701 + np.roll(noise, 1),
    })  # fmt: skip
    predicted(cells, tmp_path)
    told = recommendation(cells, comparisons(cells))
    assert told.startswith("rte: use `feature_similarity`, budget 100: 10.0 points above `none` (95 % interval ")
    assert "cheapest of 4 better arms" in told


def test_few_seeds_recommend_nothing_and_say_how_many_are_needed(tmp_path: Path) -> None:
    cells = predicted(four_arms(0.05, n=3), tmp_path, rows=20_000)
    told = comparisons(cells)
    needed = told[told["reference"] == "none"]["seeds_for_point"].max()
    said = recommendation(cells, told)
    assert said.startswith("rte: the best so far is `feature_similarity`, budget 100: 5.0 points above `none` (95 % ")
    assert "for 3 TFLOP in total, 3 times as much. Significantly better than the primary alone: `feature" in said
    assert said.endswith(
        " 3 seeds, too few to recommend anything (5 at least, as with seed=range(5); to see an effect of one point "
        f"takes about {needed:,.0f})."
    )
    few = predicted(four_arms(0.05, n=3).assign(id=lambda told: "few-" + told["id"]), tmp_path, rows=400)
    assert recommendation(few, comparisons(few)).endswith(
        "(5 at least, as with seed=range(5); on these validation rows no number of seeds shows an effect of one point)."
    )
    single = four_arms(0.05, n=1)
    assert recommendation(single, comparisons(single)) == (
        "rte: the best so far is `feature_similarity`, budget 100: 5.0 points above `none` (1 seed), for 3 TFLOP in "
        "total, 3 times as much. Significantly better than the primary alone: no arm yet. 1 seed, too few to "
        "recommend anything (5 at least, as with seed=range(5))."
    )
    alone = cells_of({NONE: [0.7, 0.7], OURS: [0.5, 0.6]})
    assert "`none` scores highest so far, 70.0: no auxiliary data." in recommendation(alone, comparisons(alone))


def test_an_arm_must_also_beat_the_primary_alone_through_both_stages(tmp_path: Path) -> None:
    noise = NOISE / 4
    longer = ("primary_only", None)
    cells = predicted(cells_of({NONE: 0.6 + noise, longer: 0.7 + noise[::-1], OURS: 0.7 + np.roll(noise, 3)}), tmp_path)
    compared = comparisons(cells)
    assert list(zip(compared["arm"], compared["reference"])) == [
        ("primary_only", "none"), ("feature_similarity", "none"), ("feature_similarity", "primary_only"),
    ]  # fmt: skip
    told = recommendation(cells, compared)
    assert told.startswith("rte: use no auxiliary data; no arm is significantly better than `none` and `primary_only` ")
    assert "Train the primary alone, but longer: `primary_only`: 10.0 points above `none` (95 % interval " in told
    assert ", for 1.5 TFLOP in total, 1.5 times as much." in told
    better = predicted(
        cells_of({NONE: 0.6 + noise, longer: 0.7 + noise[::-1], OURS: 0.8 + np.roll(noise, 3)}), tmp_path / "better"
    )
    told = recommendation(better, comparisons(better), same=matched(better))
    assert told.startswith(
        "rte: use `feature_similarity`, budget 100: 10.0 points above `primary_only` (95 % interval "
    )
    assert "the best that as much compute buys otherwise, `primary_only`: +10.0 points (95 % interval " in told


def test_what_is_unknown_is_said_in_words(tmp_path: Path) -> None:
    """Never "effects below nan points"."""
    cells = cells_of({NONE: [0.6] * 5, OURS: [0.7] * 5})
    assert "nothing can be recommended" in (told := recommendation(cells, comparisons(cells)))
    assert "the cells' predictions are gone" in told
    shifted = recommendation(predicted(cells, tmp_path), comparisons(cells))
    assert shifted.startswith("rte: use `feature_similarity`, budget 100: 10.0 points above `none`")
    same = predicted(cells_of({NONE: [0.6] * 5, ("full", None): [0.6] * 5}), tmp_path / "same")
    told = recommendation(same, comparisons(same))
    assert told.endswith("All arms make the same predictions with every seed, so what could have been seen is unknown.")
    assert not any("nan" in one for one in (told, shifted))


def test_without_the_baseline_nothing_is_recommended() -> None:
    cells = cells_of({OURS: [0.5, 0.6], RANDOM: [0.4, 0.6]})
    assert "without cells of `none`" in recommendation(cells, comparisons(cells))


@pytest.mark.parametrize("key", ["protocol", "encoder", "pool", "metric"])
def test_mixed_settings_are_refused_in_one_line(key: str) -> None:
    cells = four_arms()
    check_comparable(cells)
    cells.loc[3, key] = "another"
    with pytest.raises(UserError, match=rf"^rte has cells of several values of {key}: .*another.*--where {key}=\S+$"):
        check_comparable(cells)


def test_no_cells_double_cells_and_undefined_scores_are_refused_in_one_line() -> None:
    cells = four_arms()
    with pytest.raises(UserError, match=r"^no finished cells to compare"):
        check_comparable(cells[:0])
    with pytest.raises(UserError, match=r"cells none-None-0 and x are both `none`, seed 0; keep one: --where id="):
        check_comparable(pandas.concat([cells, cells[:1].assign(id="x")]))
    cells.loc[6, "score"] = math.nan
    with pytest.raises(UserError, match=r"^rte: accuracy of `random`, budget 100, seed 0, is undefined"):
        check_comparable(cells)


def test_two_primaries_may_have_settings_of_their_own() -> None:
    check_comparable(pandas.concat([four_arms(), four_arms().assign(primary="stsb", metric="pearson")]))
