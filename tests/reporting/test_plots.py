"""What the figures of a study draw, read back from the figures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from pandas import DataFrame
from scipy import stats

from fastmtl.reporting import plots
from fastmtl.reporting.compare import comparisons
from fastmtl.reporting.points import arm_looks
from tests.reporting.test_compare import predicted

TASKS = ("mnli", "qqp", "$x$ _<b>")
STAGES = ("pool", "proxy", "scores", "multitask", "finetune")


def make_cells(
    seeds: int = 5, budgets: Sequence[int] = (500, 2000), arms: Sequence[str] = ("feature_similarity",), **over: Any
) -> DataFrame:
    """Arms with budgets gain a point over `none`, those that are no baseline five."""
    rng = np.random.default_rng(0)
    rows = []
    for arm, budget in [("none", None), *((arm, b) for arm in ("random", *arms) for b in budgets), ("full", None)]:
        own = arm not in ("none", "random", "full")
        aux_rows = budget or (0 if arm == "none" else 9000)
        for seed in range(seeds):
            flops = {"pool": 5e15, "proxy": 2e12 * own, "scores": 3e12 * own, "multitask": 1e9 * aux_rows,
                     "finetune": 4e12}  # fmt: skip
            rows.append({
                "id": f"{arm}-{budget}-{seed}", "primary": "rte", "metric": "accuracy", "protocol": "strict",
                "encoder": "tiny", "pool": "abc", "selection": arm.split()[0], "variant": "", "arm": arm,
                "budget": budget, "seed": seed, "aux_rows": aux_rows, "finetune": "gone", "command": f"fastmtl {seed=}",
                "score": 0.6 + 0.01 * bool(aux_rows) + 0.04 * own + 0.02 * np.sin(seed) + rng.normal(0, 0.004),
                **{f"rows/{task}": share * aux_rows for task, share in zip(TASKS, (0.6, 0.3, 0.1))},
                **{f"flops/{stage}": value for stage, value in flops.items()},
                **{f"wall_s/{stage}": value / 1e11 for stage, value in flops.items()},
                "total_flops": sum(flops.values()) - flops["pool"],
                "total_wall_s": (sum(flops.values()) - flops["pool"]) / 1e11, **over,
            })  # fmt: skip
    return DataFrame(rows).astype({"budget": "Int64"})


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> DataFrame:
    return predicted(make_cells(), tmp_path_factory.mktemp("predictions"))


@pytest.fixture(scope="module")
def compared(cells: DataFrame) -> DataFrame:
    return comparisons(cells)


def words(svg: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.parse(svg).iter() if node.tag.endswith("}text")]


def widths(figure: Figure, panel: int = 0) -> np.ndarray:
    """Of the bars (parts, rows)."""
    return np.array([[bar.get_width() for bar in part] for part in figure.axes[panel].containers])


def test_all_figures_are_made_and_saved_alike_twice(cells: DataFrame, compared: DataFrame, tmp_path: Path) -> None:
    made = plots.pictures(cells, compared)
    assert [one.name for one in made] == [
        "budget_curves", "pareto", "differences_none", "differences_random", "differences_full", "composition", "costs",
    ]  # fmt: skip
    for one in made:
        for name in ("a.svg", "b.svg"):
            plots.save(one.figure, tmp_path / name)
        text = (tmp_path / "a.svg").read_text()
        assert text == (tmp_path / "b.svg").read_text()
        assert "<dc:date>" not in text
        assert any(word.startswith("feature_similarity") for word in words(tmp_path / "a.svg")) or "pareto" in one.name
        assert "feature_similarity 500: " in one.alt
    plots.save(made[0].figure, tmp_path / "a.pdf")
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


def test_looks_are_distinct_and_those_of_baselines_do_not_depend_on_the_others() -> None:
    many = arm_looks(["none", "random", *(f"arm {i}" for i in range(20)), "full"])
    assert len(set(many.values())) == 23
    assert arm_looks(["full", "new", "none"])["full"] == many["full"]


def test_curves_are_means_with_students_interval_and_bands_are_arms_without_a_budget(cells: DataFrame) -> None:
    axes = plots.budget_curves(cells).axes[0]
    looks = arm_looks(cells["arm"])
    own = cells[cells["arm"] == "feature_similarity"]
    drawn = [line.get_ydata() for line in axes.lines if same_color(line.get_color(), looks["feature_similarity"].color)]
    at_500 = 100 * own[own["budget"] == 500]["score"].to_numpy()
    assert any(len(y) == 2 and y == pytest.approx(100 * own.groupby("budget")["score"].mean()) for y in drawn)
    expected = stats.ttest_1samp(at_500, 0).confidence_interval()
    assert any(len(y) == 2 and y == pytest.approx([expected.low, expected.high]) for y in drawn)
    assert any(len(y) == 5 and y == pytest.approx(at_500) for y in drawn)
    assert len(axes.patches) == 2
    assert [text.get_text() for text in axes.get_xticklabels()] == ["500", "2,000"]


def test_the_frontier_goes_through_what_nothing_beats(cells: DataFrame) -> None:
    (frontier,) = [line for line in plots.pareto(cells).axes[0].lines if line.get_drawstyle() == "steps-post"]
    x, y = frontier.get_data()
    assert x[0] == pytest.approx(4)  # none: cheapest
    assert np.all(np.diff(y) >= 0)
    assert y[-1] == pytest.approx(100 * cells.groupby(["arm", "budget"], dropna=False)["score"].mean().max())


def test_a_difference_is_filled_where_it_is_significant_alone(cells: DataFrame, compared: DataFrame) -> None:
    axes = plots.differences(cells, compared, "none").axes[0]
    rows = compared[compared["reference"] == "none"].reset_index()
    assert rows["significant"].any()
    marks = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() in tuple("soD^")}
    notes = {text.get_position()[1]: text.get_text() for text in axes.texts}
    for i, row in rows.iterrows():
        assert marks[i].get_xdata()[0] == pytest.approx(100 * row["mean"])
        assert same_color(marks[i].get_markerfacecolor(), "white") != row["significant"]
        assert notes[i].endswith("*") == row["significant"]
    bars = [100 * rows[end] for end in ("low", "high")]
    drawn = [line.get_xdata() for line in axes.lines if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2]
    assert [x for x, _ in drawn][: len(rows)] == pytest.approx(bars[0].tolist())
    assert [x for _, x in drawn][: len(rows)] == pytest.approx(bars[1].tolist())
    assert "bar: 95 % over seeds and validation rows" in axes.get_xlabel()
    random = plots.differences(cells, compared, "random").axes[0]
    dots = [line.get_xdata() for line in random.lines if line.get_marker() == "."]
    scores = cells.set_index(["arm", "budget", "seed"])["score"].sort_index()
    assert dots[1] == pytest.approx(100 * (scores["feature_similarity", 2000] - scores["random", 2000]).to_numpy())


def test_compositions_are_shares_beside_the_candidates() -> None:
    figure = plots.composition(make_cells(**{"candidates/mnli": 100, "candidates/qqp": 300}))
    bars = widths(figure)
    assert bars.sum(axis=0) == pytest.approx(100)
    assert bars[:, 0] == pytest.approx([60, 30, 10])
    assert bars[:, -1] == pytest.approx([25, 75, 0])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["random 500", "2,000", "feature_similarity 500", "2,000", "full", "(candidates)"]


def test_costs_add_up_to_the_total_without_the_pool(cells: DataFrame) -> None:
    figure = plots.costs(cells)
    means = cells.groupby(["arm", "budget"], sort=False, dropna=False)[["total_flops", "total_wall_s"]].mean()
    assert widths(figure).sum(axis=0) == pytest.approx(means["total_flops"] / 1e12)
    assert widths(figure, 1).sum(axis=0) == pytest.approx(means["total_wall_s"])


@pytest.mark.parametrize("given", [
    {"seeds": 1, "budgets": [500]}, {"seeds": 2, "budgets": [], "score": 0.5},
    {"seeds": 2, "arms": [f"selector_{i} loss=$x$ epochs={i}" for i in range(9)], "budgets": [1_234_567]},
])  # fmt: skip
def test_few_seeds_equal_scores_and_many_arms_are_drawn_too(given: dict[str, Any], tmp_path: Path) -> None:
    cells = make_cells(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = plots.pictures(cells, comparisons(cells))
        for one in made:
            plots.save(one.figure, tmp_path / f"{one.name}.svg")
            assert "nan" not in (tmp_path / f"{one.name}.svg").read_text()
            assert "nan" not in one.alt
    assert "$x$ _<b>" in words(tmp_path / "composition.svg")
    names = [one.name for one in made]
    assert names[0] == "pareto"  # there is no more than one budget
    one_seed = given["seeds"] == 1
    said = {True: "one seed: no intervals", False: f"small dots: seeds; bars: 95 % over {given['seeds']} seeds"}
    assert said[one_seed] in words(tmp_path / "pareto.svg")
    drawn = words(tmp_path / "differences_none.svg")
    assert ("dots: the one common seed, so no interval and no test" in drawn) == one_seed
    assert any("bar: 95 %" in word for word in drawn) != one_seed
