"""What a sweep's arms are called, from the options of real cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastmtl.cli.compose import compose
from fastmtl.reporting.frame import frame, option
from tests.helpers.cells import SMALL
from tests.reporting.test_study import plain

FP32 = ["proxy.fit.precision=fp32", "multitask.fit.precision=fp32", "finetune.fit.precision=fp32",
        "bandit.fit.precision=fp32"]  # fmt: skip
BANDIT = ["selection=autosem", "bandit.rounds=2", "bandit.policy.warmup_rounds=1", "bandit.policy.validation_rows=20"]


@pytest.fixture
def cell(session_output: Path) -> Any:
    """A result with the options of the cell of some overrides, which is built no further than its selection."""

    def made(*overrides: str) -> dict[str, Any]:
        exp = compose(*SMALL, *FP32, "trainer=cpu", "budget=30", f"paths.output={session_output}", *overrides)
        budget = exp.budget if exp.selection_plan.selector.uses_budget else None
        return plain(
            id="".join(overrides), selection=exp.selection_plan.name, budget=budget, seed=exp.seed,
            config=exp.options(),
        )  # fmt: skip

    return made


def arms(*cells: dict[str, Any]) -> list[str]:
    """The arm of each cell, in the order given."""
    named = frame(cells).set_index("id")["arm"]
    return [named[cell["id"]] for cell in cells]


def test_losses_of_the_discriminator(cell: Any) -> None:
    cells = [cell("selection=feature_similarity", f"selection.scorer.loss={loss}") for loss in ("ce", "bce")]
    assert arms(*cells) == ["feature_similarity loss=ce", "feature_similarity loss=bce"]
    assert arms(cells[0]) == ["feature_similarity"]


def test_sizes_of_the_proxy_tell_the_random_rows_apart_too(cell: Any) -> None:
    """Rows of the proxy are no candidates; the baseline without auxiliary rows is one arm for all sizes."""
    sizes = ("proxy.examples_per_task=20", "proxy.examples_per_task=40")
    cells = [cell(f"selection={name}", size) for name in ("feature_similarity", "random") for size in sizes]
    labels = [f"{name} {size}" for name in ("feature_similarity", "random") for size in sizes]
    assert arms(*cells) == labels
    variants = frame(cells).set_index("id")["variant"]
    assert [variants[one["id"]] for one in cells] == [*sizes, *sizes]
    assert arms(*(cell("selection=none", size) for size in sizes)) == ["none", "none"]


def test_a_bandit_with_and_without_a_search_for_a_ratio(cell: Any) -> None:
    without = cell(*BANDIT)
    grids = [cell(*BANDIT, "mixing=autosem_grid", f"mixing.trials={n}") for n in (1, 2)]
    assert arms(without, grids[0]) == ["autosem mixing=none", "autosem"]
    assert arms(without, *grids) == ["autosem mixing=none", "autosem mixing.trials=1", "autosem mixing.trials=2"]


def test_what_a_cell_finds_out_tells_no_seeds_apart(cell: Any) -> None:
    """Neither the ratio that a search finds nor that no task is worth choosing, which a higher bar makes sure of."""
    options = cell(*BANDIT, "mixing=autosem_grid", "mixing.trials=2")["config"]
    assert options["multitask.sampling"] == "Proportional"
    assert not [key for key in options if "ratios" in key]
    nothing = cell(*BANDIT, "selection.selector.top=0", "selection.selector.threshold=1.0")["config"]
    something = cell(*BANDIT, "selection.selector.top=1", "selection.selector.threshold=null")["config"]
    differ = {key for key in nothing if nothing[key] != something.get(key)} | {*nothing} ^ {*something}
    assert differ == {"selection.selector.top", "selection.selector.threshold"}


def test_learning_rates(cell: Any) -> None:
    rates = [cell("selection=none", f"finetune.fit.learning_rate={rate}") for rate in ("1e-3", "1e-4")]
    assert arms(*rates) == ["none finetune.learning_rate=0.001", "none finetune.learning_rate=0.0001"]
    taken = [cell("selection=random", f"encoder.learning_rate={rate}") for rate in ("1e-3", "1e-4")]
    assert arms(*taken) == ["random encoder.learning_rate=0.001", "random encoder.learning_rate=0.0001"]


def test_orders_of_batches(cell: Any) -> None:
    orders = ("proportional", "uniform", "temperature", "temperature sampling.temperature=5")
    cells = [cell("selection=random", *f"sampling={order}".split()) for order in orders]
    assert arms(*cells) == [
        "random sampling=Proportional", "random sampling=Uniform",
        "random sampling=Temperature sampling.temperature=2", "random sampling=Temperature sampling.temperature=5",
    ]  # fmt: skip
    assert arms(*cells[2:]) == ["random sampling.temperature=2", "random sampling.temperature=5"]


@pytest.mark.parametrize("selection", ["feature_similarity", "embedding"])
def test_precisions_of_a_scoring_pass_are_those_that_were_asked_for(cell: Any, selection: str) -> None:
    cells = [cell(f"selection={selection}", f"scoring.precision={how}") for how in ("auto", "int8")]
    assert arms(*cells) == [f"{selection} scoring.precision=auto", f"{selection} scoring.precision=int8"]


def test_layers_of_the_proxy_and_of_everything(cell: Any) -> None:
    own = [
        cell("selection=feature_similarity", "+encoder@proxy.encoder=tiny", f"proxy.encoder.layers={n}") for n in (1, 2)
    ]
    assert arms(*own) == [f"feature_similarity proxy.encoder.layers={n}" for n in (1, 2)]
    main = [cell("selection=feature_similarity", f"encoder.layers={n}") for n in (1, 2)]
    assert arms(*main) == [f"feature_similarity encoder.layers={n}" for n in (1, 2)]


def test_levels_of_a_cascade(cell: Any) -> None:
    cells = [
        cell("selection=feature_similarity", *more)
        for more in ([], *(["scoring.cascade=[small,large]", f"scoring.levels.small.layers={n}"] for n in (1, 2)))
    ]
    levels = [f"scoring.cascade=[small,large] scoring.levels.small.layers={n}" for n in (1, 2)]
    assert arms(*cells) == [f"feature_similarity {rest}" for rest in ("scoring.cascade=null", *levels)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sampling=temperature sampling.temperature=2", "sampling=temperature sampling.temperature=2.0"),
        ("multitask.fit.epochs=2", "multitask.fit.epochs=2.0"),
        ("protocol.holdout=0.1", ""),
        ("finetune.fit.learning_rate=null", ""),
        ("finetune.fit.learning_rate=0.001", "finetune.fit.learning_rate=1e-3"),
        ("proxy.tasks=null", ""),
        ("trainer.accumulate=2", "trainer.profiler=simple"),  # hardware is no arm
    ],
)
def test_what_is_equal_is_one_arm(cell: Any, one: str, other: str) -> None:
    first, second = (cell("selection=random", *more.split()) for more in (one, other))
    assert first["config"] == second["config"]
    second["id"] += " again"
    assert set(arms(first, second)) == {"random"}


def test_values_made_in_python_are_those_of_yaml(cell: Any, session_output: Path) -> None:
    from dataclasses import replace

    from fastmtl.data.batching.planned import Temperature

    exp = compose(*SMALL, *FP32, "trainer=cpu", "budget=30", f"paths.output={session_output}", "selection=random")
    given = replace(exp, sampling=Temperature(temperature=2))
    assert given.options() == cell("selection=random", "sampling=temperature", "sampling.temperature=2.0")["config"]


def test_every_option_is_a_key_of_the_command_line(cell: Any) -> None:
    """So that what a label says can be typed."""
    from omegaconf import OmegaConf

    from fastmtl.cli.compose import values

    overrides = ["selection=autosem_feature_similarity", "mixing=autosem_grid", "mixing.trials=1", *BANDIT[1:],
                 "sampling=proportional", "+encoder@proxy.encoder=tiny"]  # fmt: skip
    cfg = values(*SMALL, *overrides)
    for key in cell(*overrides)["config"]:
        if not key.endswith(UNNAMED):
            node = option(key).rpartition(".")[0]  # what an option leaves out can be added: +sampling.temperature=3
            assert OmegaConf.select(cfg, node or option(key), default="absent") != "absent", key


UNNAMED = (".prepared", ".reached", ".rewarded", ".utilities", ".proxy", ".target", ".parts")
"""Fields of stages that are other stages or rows, and what a class says of itself."""
