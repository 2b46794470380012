"""When a fit ends, and the callbacks that a user adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec
from fastmtl.training.config import FitConfig, Hardware
from tests.helpers.fits import CPU, ROWS, assert_same_weights, curve_points, finished, fit_file

FIT = FitConfig(epochs=2, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0)  # six steps per epoch
CHOOSE = {"evaluated": {"single": np.arange(ROWS)}}


@pytest.fixture
def fit(tmp_path: Path, tiny_pool: Any, encoder: EncoderSpec) -> Callable[..., Path]:
    """`fit(name, config, hardware, **changes of the job)`: the folder of a finished fit over three tasks."""

    def run(name: str, config: FitConfig, hardware: Hardware = CPU, **changes: Any) -> Path:
        return finished(tiny_pool, tmp_path / name, encoder=encoder, fit=config, hardware=hardware, **changes)

    return run


def last_point(folder: Path, name: str) -> int:
    return max(int(point["step"]) for point in curve_points(folder) if point["name"].startswith(name))


# --- max_steps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_ends_after_so_many_steps_and_the_epoch_that_was_cut_short_may_be_chosen(
    fit: Callable[..., Path], accumulate: int
) -> None:
    folder = fit("short", replace(FIT, epochs=5, max_steps=8), replace(CPU, accumulate=accumulate), **CHOOSE)
    told = fit_file(folder)
    assert told["records"]["steps"] == 8
    assert told["records"]["examples"] == 3 * ROWS + 2 * 6
    passes = told["records"]["passes"]
    assert sum(passes.values()) * ROWS == pytest.approx(told["records"]["examples"], abs=0.01)
    assert max(passes.values()) > 1
    assert len(told["epochs"]) == 2
    assert last_point(folder, "choose/loss") == last_point(folder, "loss/") == 8
    assert told["epochs"][1]["loss"] != told["epochs"][0]["loss"]


def test_a_fit_within_its_first_epoch_has_the_weights_of_its_last_step(fit: Callable[..., Path]) -> None:
    chosen, last = fit("chosen", replace(FIT, max_steps=4), **CHOOSE), fit("last", replace(FIT, max_steps=4))
    assert fit_file(chosen)["best_epoch"] == 0
    assert_same_weights(chosen, last, atol=0)


def test_the_learning_rate_falls_to_zero_over_the_steps_that_are_made(fit: Callable[..., Path]) -> None:
    assert_same_weights(
        fit("steps", replace(FIT, epochs=9, max_steps=6)), fit("epochs", replace(FIT, epochs=1)), atol=0
    )


def test_more_steps_than_the_epochs_have_change_nothing(fit: Callable[..., Path]) -> None:
    one, other = fit("one", replace(FIT, max_steps=1000), **CHOOSE), fit("other", FIT, **CHOOSE)
    assert_same_weights(one, other, atol=0)
    assert fit_file(one)["epochs"] == fit_file(other)["epochs"]
    assert fit_file(one)["records"]["steps"] == 12


# --- early stopping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 3])
def test_a_fit_that_finds_nothing_better_ends_after_so_many_epochs(fit: Callable[..., Path], patience: int) -> None:
    still = replace(FIT, epochs=8, learning_rate=1e-30, early_stopping=patience)  # no weight moves
    told = fit_file(fit("still", still, **CHOOSE))
    assert told["best_epoch"] == 0
    assert len(told["epochs"]) == 1 + patience
    assert told["records"]["steps"] == 6 * (1 + patience)


def test_a_fit_goes_on_while_epochs_are_better_and_then_ends(fit: Callable[..., Path]) -> None:
    config = replace(FIT, epochs=12, learning_rate=3e-3, schedule="constant")
    whole, stopped = fit("whole", config, **CHOOSE), fit("stopped", replace(config, early_stopping=2), **CHOOSE)
    every, seen = fit_file(whole)["epochs"], fit_file(stopped)
    best, best_score = 0, (-1.0, 0.0)
    for ends, epoch in enumerate(every):
        if (score := (epoch["accuracy"], -epoch["loss"])) > best_score:
            best, best_score = ends, score
        if ends - best >= 2:
            break
    assert 3 < ends < 11, "the fit must both improve and stop, or nothing is tested"
    assert seen["epochs"] == every[: ends + 1]
    assert seen["best_epoch"] == best


@pytest.mark.parametrize("part", ["proxy", "multitask", "bandit", "relations"])
def test_early_stopping_is_refused_where_no_rows_choose_the_epoch(tmp_path: Path, part: str) -> None:
    with pytest.raises(UserError, match=rf"^{part}\.fit\.early_stopping=2: no rows .*finetune\.fit\.early_stopping$"):
        compose("encoder=tiny", f"{part}.fit.early_stopping=2", f"paths.output={tmp_path}")


# --- callbacks -----------------------------------------------------------------------------------------------------


class Note(pl.Callback):
    """Appends the count of steps to a file."""

    def __init__(self, path: str, every: int = 1) -> None:
        self.path, self.every = Path(path), every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            with self.path.open("a") as file:
                file.write(f"{trainer.global_step} ")


NOTE = f"{__name__}.Note"


def test_a_callback_made_from_plain_values_is_called_and_changes_no_weight(
    fit: Callable[..., Path], tmp_path: Path
) -> None:
    values = {"mine": {"_target_": NOTE, "path": str(tmp_path / "note"), "every": 4}}
    with_it = fit("with", replace(FIT, callbacks=values))
    assert (tmp_path / "note").read_text() == "4 8 12 "
    assert_same_weights(with_it, fit("without", FIT), atol=0)


def test_a_callback_of_the_command_line_reaches_every_fit(tmp_path: Path) -> None:
    exp = compose(
        "data=sample", "data.rows_per_task=40", "encoder=tiny", "selection=random", "budget=10", "trainer=cpu",
        *(f"{part}.fit.{value}" for part in ("multitask", "finetune") for value in ("epochs=1", "precision=fp32")),
        f"+callbacks.mine={{_target_: {NOTE}, path: {tmp_path}/note}}", f"paths.output={tmp_path}",
    )  # fmt: skip
    exp.finetune()
    steps = [artifact.records["steps"] for artifact in (exp.multitask(), exp.finetune()) if artifact is not None]
    assert len(steps) == 2
    assert (tmp_path / "note").read_text().split() == [str(n + 1) for count in steps for n in range(count)]
    assert exp.options()["finetune.fit.callbacks.mine._target_"] == NOTE


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"_target_": "tests.nowhere.Note"}, "nowhere"),
        ({"_target_": f"{__name__}.Nothing"}, "Nothing"),
        ({"_target_": "Note"}, "give _target_"),
        ({"path": "x"}, "give _target_"),
        ({"_target_": NOTE}, "'path'"),
        ({"_target_": NOTE, "path": "x", "often": 1}, "'often'"),
        ({"_target_": "builtins.dict"}, "dict is no Lightning callback"),
        ({"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "x", "mode": "y"}, "got y"),
    ],
)
def test_a_callback_that_cannot_be_made_is_named_in_one_line(
    fit: Callable[..., Path], devices: int, values: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError) as refused:
        fit("wrong", replace(FIT, callbacks={"mine": values}), replace(CPU, devices=devices))
    message = str(refused.value)
    assert message.startswith(f"callbacks.mine={values!r} cannot be made (")
    assert named in message
    assert "\n" not in message


def test_callbacks_are_a_mapping_of_mappings() -> None:
    for wrong in (3, ["x"], {"mine": 3}):
        with pytest.raises(UserError, match=r"^callbacks=.* does not fit; use a mapping"):
            FitConfig(callbacks=wrong)  # type: ignore[arg-type]
