"""Tables over results written by hand."""

from typing import Any

import pytest

from fastmtl.reporting.report import cell_tables, comparison
from fastmtl.reporting.tables import total

COST = {"pool": (100.0, 0), "selection": (0.5, 0), "multitask": (4.0, 4e9), "finetune": (2.0, 2e9)}
SEARCHED = {**COST, "utilities": (8.0, 8e9), "mixing": (16.0, 16e9)}


def stages(cost: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    order = ["pool", "utilities", "selection", "mixing", "multitask", "finetune"]
    made = [
        {"stage": s, "key": "0", "path": "gone", "hit": False, "wall_s": cost[s][0], "flops": cost[s][1]}
        for s in order
        if s in cost
    ]
    return [{k: v for k, v in stage.items() if k != "flops" or v} for stage in made]


def plain(**more: Any) -> dict[str, Any]:
    """A cell without bandit and search."""
    made = {
        "primary": "rte", "selection": "random", "budget": 60, "seed": 0, "protocol": "strict", "encoder": "tiny",
        "pool": "0123456789", "metric": "accuracy", "validation_rows": 277, "auxiliary_rows": 60, "headline": 0.6,
        "metrics": {"validation": {"accuracy": 0.6, "loss": 0.7}}, "counts": {"mnli": 40, "qqp": 20, "cola": 0},
        "candidates": {"mnli": 80, "qqp": 80, "cola": 30},
        "audit": None, "precision_at_budget": None, "relevant_share": None, "stages": stages(COST), "best_epoch": 0,
        "utilities": None, "mixing": None, "config": {}, "study": None, "command": "fastmtl", **more,
    }  # fmt: skip
    totals = {"total": {unit: total(made["stages"], unit) for unit in ("wall_s", "flops")}}
    return {"id": "-".join(str(made[key]) for key in ("selection", "budget", "seed")), **totals, **made}


def autosem(**more: Any) -> dict[str, Any]:
    found = {
        "selection": "autosem", "utilities": {"rte": 2 / 3, "mnli": 0.5, "qqp": 2 / 3, "cola": 1 / 3},
        "mixing": {"tasks": ["rte", "mnli", "qqp"], "ratio": [5, 0, 1], "trials": []}, "stages": stages(SEARCHED),
    }  # fmt: skip
    return plain(**{**found, **more})


BANDIT = {
    "arms": ["rte", "mnli", "qqp", "cola"],
    "utilities": {"rte": 2 / 3, "mnli": 0.5, "qqp": 2 / 3, "cola": 1 / 3},
    "rounds": [
        {"arm": "mnli", "value": 0.5, "reward": None, "alpha": [2, 1, 1, 1], "beta": [1, 1, 1, 1]},
        {"arm": "qqp", "value": 0.6, "reward": 1.0, "alpha": [2, 1, 2, 1], "beta": [1, 1, 1, 1]},
        {"arm": "cola", "value": 0.5, "reward": 0.0, "alpha": [2, 1, 2, 1], "beta": [1, 1, 1, 2]},
    ],
}
MIXING = {
    "tasks": ["rte", "mnli", "qqp"],
    "ratio": [5, 0, 1],
    "trials": [
        {"ratio": [1, 1, 1], "value": 0.55, "ask_s": 0.1, "stages": [], "wall_s": 16.0, "flops": 16e9},
        {"ratio": [5, 0, 1], "value": 0.58, "ask_s": 0.1, "stages": [], "wall_s": 6.0, "flops": 6e9},
    ],
}


CHOSEN = "Tasks chosen (utility) and mixing ratio"


def cell_report(result: dict[str, Any], *more: Any) -> str:
    return "\n\n".join([comparison([result]), *(table.markdown() for table in cell_tables(result, *more))])


def row(text: str, first: str) -> list[str]:
    """The cells of the only table row that begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {first} ")]
    assert len(found) == 1, found
    return [one.strip() for one in found[0].strip("|").split("|")]


def section(text: str, title: str) -> str:
    return text.split(f"### {title}\n")[1].split("\n### ")[0]


def test_a_total_counts_each_stage_once_and_the_pool_never() -> None:
    made = stages(SEARCHED)
    assert total(made, "wall_s") == 0.5 + 4 + 2 + 8 + 16
    assert total(made, "flops") == 30e9
    assert total(made, "wall_s", "pool") == 100
    assert total([*made, *made], "wall_s", "mixing") == 32  # shards of one stage are added up
    assert total([*made, {"stage": "leakage", "wall_s": 7.0}], "wall_s") == total(made, "wall_s")  # every arm needs it
    text = comparison([autosem()])
    assert row(section(text, "Scores"), "autosem")[-2:] == ["30.5", "30"]


def test_cost_columns_of_the_searches_come_in_order_and_only_where_a_cell_has_them() -> None:
    text = section(comparison([plain(), autosem()]), "Cost by stage: seconds / GFLOP, as first computed")
    assert row(text, "selection")[2:] == [
        "pool", "proxy", "scores", "bandit", "other trials", "multitask", "finetune",
    ]  # fmt: skip
    assert row(text, "autosem")[2:] == ["100.0", "", "", "8.0 / 8", "16.0 / 16", "4.0 / 4", "2.0 / 2"]
    assert row(text, "random")[5:7] == ["", ""]
    text = comparison([plain()])
    assert "bandit" not in text
    assert "other trials" not in text
    only = comparison([autosem(stages=stages({k: v for k, v in SEARCHED.items() if k != "mixing"}))])
    assert "bandit" in only
    assert "other trials" not in only


@pytest.mark.parametrize(
    ("protocol", "where"), [("strict", "rows held out of the primary's training rows"), ("paper", "optimistic")]
)
def test_a_comparison_has_a_line_for_every_seed_of_an_arm_that_searched(protocol: str, where: str) -> None:
    cells = [one | {"protocol": protocol} for one in (plain(), autosem(), autosem(seed=1, counts={"mnli": 0}))]
    text = section(comparison(cells), CHOSEN)
    rows = [[one.strip() for one in line.strip("|").split("|")] for line in text.splitlines() if "| autosem " in line]
    assert rows == [
        ["autosem", "60", "0", "qqp (0.67), mnli (0.50)", "rte:mnli:qqp = 5:0:1"],
        ["autosem", "60", "1", "no task", "rte:mnli:qqp = 5:0:1"],
    ]
    assert where in text


def test_one_search_without_the_other_has_its_line() -> None:
    assert row(section(comparison([autosem(mixing=None)]), CHOSEN), "autosem")[3:] == ["qqp (0.67), mnli (0.50)", ""]
    text = section(comparison([autosem(utilities=None)]), CHOSEN)
    assert row(text, "autosem")[3:] == ["mnli, qqp", "rte:mnli:qqp = 5:0:1"]


def test_a_cell_report_tells_of_every_task_and_trial() -> None:
    text = cell_report(autosem(), BANDIT, MIXING)
    tasks = section(text, "Tasks")
    assert [line.split()[1] for line in tasks.splitlines() if line.startswith("| ")][1:] == [
        "rte", "qqp", "mnli", "cola",
    ]  # fmt: skip
    assert row(tasks, "rte") == ["rte", "0", "", "0.67", "0.16 to 0.99", "75", "primary", "5"]
    assert row(tasks, "qqp") == ["qqp", "1", "100", "0.67", "0.16 to 0.99", "75", "yes", "1"]
    assert row(tasks, "mnli") == ["mnli", "1", "", "0.50", "0.03 to 0.97", "50", "yes", "0"]
    assert row(tasks, "cola") == ["cola", "1", "0", "0.33", "0.01 to 0.84", "25", "no", ""]
    trials = section(text, "Mixing ratios tried")
    assert row(trials, "trial") == ["trial", "rte:mnli:qqp", "accuracy x100", "wall s", ""]
    assert row(trials, "1") == ["1", "1:1:1", "55.0", "16.0", ""]
    assert row(trials, "2") == ["2", "5:0:1", "58.0", "6.0", "best"]
    for part in (tasks, trials):
        assert ("held out" if part is trials else "did not train on") in part
        assert "optimistic" not in part
    paper = cell_report(autosem(protocol="paper"), BANDIT, MIXING)
    assert "optimistic" in section(paper, "Tasks")
    assert "optimistic" in section(paper, "Mixing ratios tried")


def test_no_section_where_there_is_nothing() -> None:
    for text in (cell_report(plain()), cell_report(plain(utilities=None, mixing=None))):
        for title in ("### Tasks", "### Mixing", "svg", "ratio"):
            assert title not in text
    assert "ratio" not in section(cell_report(autosem(mixing=None), BANDIT), "Tasks")
    assert "### Mixing ratios" not in cell_report(autosem(mixing=None), BANDIT)


def test_what_a_predictor_has_seen_of_validation_rows_is_said() -> None:
    joint = [*stages(SEARCHED), {"stage": "joint", "key": "k", "hit": True, "wall_s": 1.0, "path": "x"}]
    seen = "A predictor was fitted to validation scores of pairs without this primary"
    assert seen in section(comparison([autosem(stages=joint)]), CHOSEN)
    assert seen not in section(comparison([autosem()]), CHOSEN)


def test_the_chance_that_a_task_is_useful_stands_beside_its_utility() -> None:
    text = section(cell_report(autosem(), BANDIT), "Tasks")
    place = row(text, "task").index("P(utility > 0.5) %")
    assert [row(text, name)[place] for name in ("rte", "mnli", "cola")] == ["75", "50", "25"]  # of Beta(2, 1), …
