"""Results written by hand -> one frame."""

import math
from pathlib import Path

import pytest

from fastmtl.errors import UserError
from fastmtl.reporting.frame import arms, frame, read_results, settings
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
            selection="similar", id=str(config), config={"scores.scorer.loss": "ce", "a.fit.epochs": 1} | config
        )

    first, second, third = similar(), similar(**{"scores.scorer.loss": "bce"}), similar(**{"a.fit.epochs": 2})
    assert frame([first])["arm"].tolist() == ["similar"]
    assert frame([first, second])["arm"].tolist() == ["similar loss=bce", "similar loss=ce"]
    both = frame([first, third, plain(config={"a.fit.epochs": 2})])
    assert both["arm"].tolist() == ["random", "similar a.epochs=1", "similar a.epochs=2"]
    assert both["variant"].tolist() == ["", "a.epochs=1", "a.epochs=2"]


def test_a_whole_part_that_some_cells_do_without_is_told_in_a_word() -> None:
    def searched(**config: object) -> dict[str, object]:
        told = {"mixing.search": "X", "mixing.search.proposals": "gp", "mixing.search.trials": 20} | config
        return plain(id=str(config), config={"a.fit.epochs": 1} | told)

    without = plain(id="without", config={"a.fit.epochs": 1})
    assert frame([without, searched()])["arm"].tolist() == ["random", "random mixing=none"]
    fewer = searched(**{"mixing.search.trials": 5})
    assert frame([without, searched(), fewer])["arm"].tolist() == [
        "random mixing.trials=20", "random mixing.trials=5", "random mixing=none",
    ]  # fmt: skip


def test_an_option_that_is_left_out_is_null_and_2_is_2_0() -> None:
    given = plain(id="given", config={"a.fit.epochs": 2, "a.layers": None, "a.prior": [1.0, 2.0]})
    left_out = plain(id="left out", config={"a.fit.epochs": 2.0, "a.prior": [1, 2]})
    assert frame([given, left_out])["arm"].tolist() == ["random", "random"]
    two = plain(id="two", config={"a.fit.epochs": 2, "a.layers": 2, "a.prior": [1, 2]})
    assert frame([given, two])["arm"].tolist() == ["random a.layers=2", "random a.layers=null"]


def test_options_of_a_class_are_told_among_cells_that_use_it() -> None:
    def ordered(name: str, **config: object) -> dict[str, object]:
        told = {f"multitask.sampling.{key}": value for key, value in config.items()}
        return plain(id=f"{name}{config}", config={"multitask.sampling": name, **told})

    cells = [ordered("Plain", window=1), ordered("Warm", window=5, heat=2), ordered("Warm", window=5, heat=3)]
    assert frame(cells)["arm"].tolist() == [
        "random sampling=Plain", "random sampling=Warm sampling.heat=2", "random sampling=Warm sampling.heat=3",
    ]  # fmt: skip


def test_a_long_value_is_shown_by_a_digest() -> None:
    cells = [plain(id=str(i), config={"a.weights": [i / 7] * 20}) for i in range(2)]
    labels = frame(cells)["arm"].tolist()
    assert len(set(labels)) == 2
    assert all(len(label) < 30 for label in labels)


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


def test_the_primary_alone_is_named_by_its_length_where_it_was_trained_longer_than_the_others() -> None:
    def alone(epochs: int, **more: object) -> dict[str, object]:
        return plain(id=f"alone {epochs}", selection="none", budget=None, config={"finetune.fit.epochs": epochs} | more)

    others = [plain(config={"finetune.fit.epochs": 2})]
    assert frame([alone(2), alone(9), *others])["arm"].tolist() == ["none", "none finetune.epochs=9", "random"]
    others.append(plain(id="9", config={"finetune.fit.epochs": 9}))
    both = ["none finetune.epochs=2", "none finetune.epochs=9", "random finetune.epochs=2", "random finetune.epochs=9"]
    assert frame([alone(2), alone(9), *others])["arm"].tolist() == both


def test_passes_over_the_primary_add_up_over_stages_and_are_unknown_of_older_artifacts() -> None:
    def trained(**passes: dict[str, float]) -> list[dict[str, object]]:
        return [stage | ({"passes": passes[name]} if (name := stage["stage"]) in passes else {})
                for stage in plain()["stages"]]  # fmt: skip

    rows = frame([
        plain(stages=trained(multitask={"rte": 3.0, "mnli": 1.0}, finetune={"rte": 2.0})),
        plain(id="old", stages=trained(finetune={"rte": 2.0})),
    ])  # fmt: skip
    assert rows["passes"].tolist()[0] == 5.0
    assert math.isnan(rows["passes"].tolist()[1])
