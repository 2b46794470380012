"""Results written by hand -> one frame."""

from pathlib import Path

import pytest

from fastmtl.errors import UserError
from fastmtl.reporting.frame import arms, as_ever, frame, read_results, settings
from tests.reporting.test_study import plain


def test_a_cell_that_came_twice_is_one_row() -> None:
    cells = frame([plain(), plain(seed=1), plain()])
    assert cells["seed"].tolist() == [0, 1]
    assert cells["id"].is_unique


def test_baselines_come_first_then_budgets_and_seeds_in_order() -> None:
    given = [plain(selection="similar", budget=b, seed=s) for b in (9, 5) for s in (1, 0)]
    cells = frame([*given, plain(selection="full", budget=None), plain(selection="none", budget=None)])
    assert cells["arm"].tolist() == ["none", "full", *["similar"] * 4]
    assert cells["budget"].tolist()[2:] == [5, 5, 9, 9]
    assert cells["budget"].isna().tolist() == [True, True, False, False, False, False]
    assert [(arm, len(group)) for arm, _, group in arms(cells)] == [
        ("none", 1),
        ("full", 1),
        ("similar", 2),
        ("similar", 2),
    ]


def test_an_arm_is_named_by_what_tells_it_from_others_of_its_selection() -> None:
    def similar(**config: object) -> dict[str, object]:
        return plain(
            selection="similar", id=str(config), config={"selection.scorer.loss": "ce", "a.fit.epochs": 1} | config
        )

    first, second, third = similar(), similar(**{"selection.scorer.loss": "bce"}), similar(**{"a.fit.epochs": 2})
    assert frame([first])["arm"].tolist() == ["similar"]
    assert frame([first, second])["arm"].tolist() == ["similar loss=bce", "similar loss=ce"]
    both = frame([first, third, plain(config={"a.fit.epochs": 2})])
    assert both["arm"].tolist() == ["random", "similar a.epochs=1", "similar a.epochs=2"]
    assert both["variant"].tolist() == ["", "a.epochs=1", "a.epochs=2"]


def test_a_whole_part_that_some_cells_do_without_is_told_in_a_word() -> None:
    def searched(**config: object) -> dict[str, object]:
        told = {"search._target_": "X", "search.proposals": "gp", "search.trials": 20} | config
        return plain(id=str(config), config={"a.fit.epochs": 1} | told)

    without = plain(id="without", config={"a.fit.epochs": 1})
    assert frame([without, searched()])["arm"].tolist() == ["random", "random search=none"]
    fewer = searched(**{"search.trials": 5})
    assert frame([without, searched(), fewer])["arm"].tolist() == [
        "random search.trials=20", "random search.trials=5", "random search=none",
    ]  # fmt: skip


def test_a_cell_from_before_an_option_is_of_the_arm_that_has_it_as_ever() -> None:
    old, new = plain(id="old", config={"a.fit.epochs": 1}), plain(id="new", config={"a.fit.optimizer": "adadelta"})
    new["config"]["a.fit.epochs"] = 1
    assert frame([old, new])["arm"].tolist() == ["random a.optimizer=adadelta", "random a.optimizer=adamw"]
    assert as_ever("a.fit.optimizer", "adamw")
    assert not as_ever("a.fit.optimizer", "adadelta")
    assert not as_ever("a.fit.epochs", None)


def test_settings_are_kept_apart() -> None:
    cells = frame([plain(), plain(protocol="paper", id="p"), plain(pool="other", id="q")])
    assert [(setting["protocol"], setting["pool"], len(group)) for setting, group in settings(cells)] == [
        ("paper", "0123456789", 1), ("strict", "0123456789", 1), ("strict", "other", 1),
    ]  # fmt: skip


def test_costs_and_rows_have_columns_of_their_own() -> None:
    cell = frame([plain()]).iloc[0]
    assert cell["rows/mnli"] == 40
    assert cell["flops/multitask"] == 4e9
    assert cell["total_flops"] == 6e9
    assert cell["validation/accuracy"] == cell["score"] == 0.6
    assert cell["key/finetune"] == "0"


def test_a_result_of_an_older_version_is_refused() -> None:
    old = plain()
    del old["config"]
    with pytest.raises(UserError, match="older version; repeat its command"):
        frame([old])


def test_an_unknown_study_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study 'x' has no finished cells in .*; run some with: fastmtl -m study=x"):
        read_results(tmp_path / "x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1.json").write_text("{}")
    with pytest.raises(UserError, match="there are mine"):
        read_results(tmp_path / "x")
    assert read_results(tmp_path / "mine") == [{}]
