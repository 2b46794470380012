"""Options that keep what the multi-task stage learned: rates by depth, probing, the pull back, a share of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.encoder import EncoderSpec
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.training.config import FitConfig
from fastmtl.training.optimizer import groups, optimizer_of, schedule_of
from tests.helpers.files import three_tasks
from tests.helpers.fits import CPU, assert_same_weights, finished, fit_file, weights

FIT = FitConfig(epochs=2, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0)


@pytest.fixture
def fit(tmp_path: Path, tiny_pool: Any, encoder: EncoderSpec) -> Callable[..., Path]:
    """`fit(name, config, **changes of the job)`: the folder of a finished fit over three tasks."""

    def run(name: str, config: FitConfig, **changes: Any) -> Path:
        return finished(tiny_pool, tmp_path / name, **{"encoder": encoder, "fit": config, **changes})

    return run


def moved(folder: Path, start: dict[str, np.ndarray], part: str) -> float:
    """How far the weights of some part are from the encoder's own."""
    saved = weights(folder)
    return sum(float(np.abs(saved[name] - start[name]).sum()) for name in start if part in name)


@pytest.fixture(scope="module")
def start(encoder: EncoderSpec) -> dict[str, np.ndarray]:
    """The encoder's own weights, by their names in a saved model."""
    return {f"encoder.{name}": value.numpy() for name, value in encoder.build().state_dict().items()}


# --- rates by depth ------------------------------------------------------------------------------------------------


def rates(spec: Any, tasks: Any, decay: float) -> dict[str, float]:
    model = MultiTaskModel(spec, tasks)
    named = {id(weight): name for name, weight in model.named_parameters()}
    found = groups(model, replace(FIT, layer_decay=decay))
    return {named[id(weight)]: group["lr"] / 1e-3 for group in found for weight in group["params"]}


def test_each_layer_has_a_share_of_the_rate_of_the_layer_above(tiny: Any, tiny_tasks: Any) -> None:
    found = rates(tiny, tiny_tasks, 0.5)
    assert set(found) == {name for name, _ in MultiTaskModel(tiny, tiny_tasks).named_parameters()}
    assert {rate for name, rate in found.items() if "heads." in name or ".layer.1." in name} == {1.0}
    assert {rate for name, rate in found.items() if ".layer.0." in name} == {0.5}
    assert {rate for name, rate in found.items() if "embeddings" in name} == {0.25}
    bilstm = rates(BiLSTMSpec(tokenizer="tiny", hidden_size=5, layers=2, embedding_size=4), tiny_tasks, 0.5)
    assert set(bilstm.values()) == {1.0, 0.5, 0.25}


def test_lower_rates_below_move_lower_layers_less(fit: Callable[..., Path], start: Any) -> None:
    plain, decayed = fit("plain", FIT), fit("decayed", replace(FIT, layer_decay=0.01))
    assert moved(decayed, start, "embeddings") < 0.05 * moved(plain, start, "embeddings")
    assert moved(decayed, start, ".layer.1.") > 0.5 * moved(plain, start, ".layer.1.")


def test_an_encoder_whose_layers_are_not_known_is_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MultiTaskModel(tiny, [])
    monkeypatch.setattr(model.encoder, "layer_stack", list)
    with pytest.raises(UserError, match="layer_decay does not know the layers of encoder 'tiny'; use 1"):
        groups(model, replace(FIT, layer_decay=0.9))


# --- probing -------------------------------------------------------------------------------------------------------


def test_probing_trains_the_heads_alone_and_the_encoder_afterwards(fit: Callable[..., Path], start: Any) -> None:
    probed = fit("probed", replace(FIT, probing=0.5, max_steps=6))  # of 12: a schedule over 6 has 3 steps of probing
    only = fit("only", replace(FIT, probing=0.99))
    assert moved(only, start, "encoder.") == 0
    assert moved(probed, start, "encoder.") > 0
    assert not np.array_equal(weights(probed)["heads.pairs.weight"], weights(only)["heads.pairs.weight"])


def test_the_encoder_warms_up_when_its_turn_comes(tiny: Any, tiny_tasks: Any) -> None:
    config = replace(FIT, probing=0.4, warmup=0.2)
    optimizer = optimizer_of(config, groups(MultiTaskModel(tiny, tiny_tasks), config))
    schedule = schedule_of(config, optimizer, 10)
    seen: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(10):
        for group in optimizer.param_groups:
            seen[group["probed"]].append(group["lr"] / 1e-3)
        optimizer.step()
        schedule.step()
    third = 1 / 3
    assert seen[False] == pytest.approx([third, 2 * third, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert seen[True] == pytest.approx([0, 0, 0, 0, third, 2 * third, 1, 3 / 4, 2 / 4, 1 / 4])


# --- the pull back -------------------------------------------------------------------------------------------------


def test_the_pull_holds_the_encoder_near_where_the_fit_started(fit: Callable[..., Path], start: Any) -> None:
    far, near, held = (fit(f"pull{p}", replace(FIT, pull=p)) for p in (0.0, 100.0, 1e6))
    assert moved(near, start, "encoder.") < 0.9 * moved(far, start, "encoder.")
    assert moved(held, start, "encoder.") < 1e-3 * moved(far, start, "encoder.")


def test_the_pull_is_to_the_weights_that_the_fit_was_given(fit: Callable[..., Path], start: Any) -> None:
    first = fit("first", FIT)
    saved = {name: value for name, value in weights(first).items() if name in start}
    second = fit("second", replace(FIT, pull=1e6), init=first / "weights.safetensors")
    assert moved(second, saved, "encoder.") < 1e-3 * moved(first, start, "encoder.")


@pytest.mark.parametrize("accumulate", [2, 6])
def test_micro_batches_pull_once_a_step(fit: Callable[..., Path], accumulate: int) -> None:
    config = replace(FIT, pull=100.0, layer_decay=0.5, probing=0.2)
    whole, parts = fit("whole", config), fit("parts", config, hardware=replace(CPU, accumulate=accumulate))
    assert_same_weights(whole, parts, atol=2e-5)


# --- a rate for what auxiliary rows taught --------------------------------------------------------------------------


def test_fine_tuning_after_auxiliary_rows_has_a_rate_of_its_own(tmp_path: Path) -> None:
    config = three_tasks(tmp_path / "data")

    def rate(selection: str, *more: str) -> float | None:
        exp = compose(
            "data=files", f"data.config={config}", "primary=alpha", "encoder=tiny", f"selection={selection}",
            "encoder.finetune_learning_rate=0.25", f"paths.output={tmp_path / 'out'}", *more,
        )  # fmt: skip
        assert exp.finetune_stage.fit == exp._finetuned_from(exp.multitask_stage).fit
        return exp.finetune_stage.fit.learning_rate

    assert rate("full") == 0.25
    assert rate("full", "finetune.fit.learning_rate=0.5") == 0.5
    assert rate("none") == rate("primary_only") == 1e-3


# --- a share of the selected rows ----------------------------------------------------------------------------------


def test_epochs_read_shares_of_the_other_tasks_rows(fit: Callable[..., Path]) -> None:
    folder = fit("shares", replace(FIT, epochs=3), shares=(0.5, 0.25, 0.0))
    records = fit_file(folder)["records"]
    assert records["examples"] == 3 * 12 + 2 * (6 + 3 + 0)
    assert records["steps"] == (2 + 1 + 1) + (2 + 1 + 1) + 2


def test_fine_tuning_reads_a_falling_share_of_the_selected_rows_through_the_heads_they_trained(tmp_path: Path) -> None:
    config = three_tasks(tmp_path / "data")
    common = [
        "data=files", f"data.config={config}", "primary=alpha", "encoder=tiny", "selection=full", "data.leakage=report",
        "multitask.fit.epochs=1", "finetune.fit.epochs=2", "multitask.heads={one: [alpha, beta]}",
        f"paths.output={tmp_path / 'out'}", "protocol=paper",
        *(f"{stage}.fit.precision=fp32" for stage in ("multitask", "finetune")),
    ]  # fmt: skip
    kept, plain = compose(*common, "finetune.keep_selected=0.5"), compose(*common)
    assert kept.finetune().records["examples"] == 2 * 60 + round(0.5 * 120) + round(0.25 * 120)
    assert plain.finetune().records["examples"] == 2 * 60
    saved = load_file(kept.finetune().path / "weights.safetensors")
    assert {name.split(".")[1] for name in saved if name.startswith("heads.")} == {"alpha", "gamma"}
    assert list(kept.finetuned()[0].heads) == ["alpha"]
    alone = compose(*common, "finetune.keep_selected=0.5", "selection=none")
    assert alone.finetune_stage.key == compose(*common, "selection=none").finetune_stage.key
    assert kept.options()["finetune.keep_selected"] == 0.5
    assert kept.options()["multitask.heads"] == [["one", ["alpha", "beta"]]]
