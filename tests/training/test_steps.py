"""Steps of several one-task batches: what weighs them, what they are rewarded with, and how they are cut."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AlbertConfig, AlbertModel

from fastmtl.data.batching.online import Exp3Sampling, Online, ThompsonSampling, Ucb1Sampling
from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec, _tiny_tokenizer
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig, Hardware
from fastmtl.training.weighting import (
    CAGrad,
    Equal,
    GradNorm,
    LogSize,
    PCGrad,
    Uncertainty,
    UPGrad,
    Weigher,
    Weighting,
)
from tests.helpers.fits import CPU, ROWS, assert_same_weights, curve_points, finished, records, weights

WEIGHTINGS: list[Weighting] = [
    Equal(), Equal(parts=2), LogSize(), Uncertainty(), GradNorm(parts=2), PCGrad(parts=3), CAGrad(parts=3),
    UPGrad(parts=3),
]  # fmt: skip
"""A new weighting is one more entry here."""
ONLINE = [Exp3Sampling(), Ucb1Sampling()]


@pytest.fixture
def fit(tmp_path: Path, tiny_pool: Any, encoder: EncoderSpec) -> Callable[..., Path]:
    """`fit(name, **changes of the job)`: the folder of a finished fit over three tasks, without any dropout."""

    usual = FitConfig(epochs=3, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0)

    def run(name: str, **changes: Any) -> Path:
        return finished(tiny_pool, tmp_path / name, **{"encoder": encoder, "fit": usual, **changes})

    return run


def history(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bandit.json").read_text())


def losses(folder: Path) -> list[float]:
    return [float(point["value"]) for point in curve_points(folder)]


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
def test_every_weighting_trains_on_each_row_once_an_epoch(fit: Callable[..., Path], weighting: Weighting) -> None:
    folder = fit("one", weighting=weighting)
    assert records(folder)["examples"] == 3 * 3 * ROWS
    assert set(records(folder)["passes"].values()) == {3.0}
    assert records(folder)["steps"] == 18  # whatever it is made of, a step has six rows
    assert np.isfinite(losses(folder)).all()


@pytest.mark.parametrize("weighting", [Equal(parts=4), GradNorm(parts=4)], ids=repr)
def test_a_batch_that_its_parts_do_not_divide_is_trained_whole(fit: Callable[..., Path], weighting: Weighting) -> None:
    uneven = FitConfig(epochs=3, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0)
    told = records(fit("uneven", weighting=weighting, fit=uneven))
    assert told["examples"] == 3 * 3 * ROWS
    assert 18 <= told["steps"] <= 3 * 8  # 36 rows are six whole steps; each of three tasks may end in a part too few
    with (Path(fit("again", weighting=weighting, fit=uneven)) / "curves.csv").open() as file:
        assert max(int(point["step"]) for point in csv.DictReader(file)) == told["steps"]


@dataclass(frozen=True)
class PlainSum:
    """Gradient surgery that operates on nothing."""

    parts: int = 3

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        weigher = Weigher(tasks)
        weigher.combine = lambda jacobian_mP, step: jacobian_mP.sum(0)
        return weigher


def test_gradients_taken_apart_and_summed_are_those_of_the_mean_over_all_rows(fit: Callable[..., Path]) -> None:
    apart = fit("apart", weighting=PlainSum())
    assert_same_weights(fit("together", weighting=Equal(parts=3)), apart, atol=1e-5)


def test_conflicts_change_what_surgery_learns(fit: Callable[..., Path]) -> None:
    plain, surgery = (
        weights(fit(name, weighting=weighting))
        for name, weighting in (("plain", Equal(parts=3)), ("surgery", UPGrad(parts=3)))
    )
    assert any(np.abs(plain[name] - surgery[name]).max() > 1e-4 for name in plain)


@pytest.mark.parametrize("weighting", [Equal(parts=2), Uncertainty(parts=2), GradNorm(parts=2)], ids=repr)
def test_micro_batches_add_up_to_a_step_of_several_tasks(fit: Callable[..., Path], weighting: Weighting) -> None:
    whole = fit("whole", weighting=weighting)
    micro = fit("micro", weighting=weighting, hardware=replace(CPU, accumulate=2))
    assert_same_weights(whole, micro, atol=1e-4)


@pytest.mark.parametrize("sampling", ONLINE, ids=repr)
def test_gradient_rewards_are_cosines_of_whole_steps(fit: Callable[..., Path], sampling: Any) -> None:
    whole, again = history(fit("whole", sampling=sampling)), history(fit("again", sampling=sampling))
    assert whole == again
    assert whole["arms"] == ["single", "score"]
    assert len(whole["rounds"]) == 18
    assert all(-1 <= one["value"] == one["reward"] <= 1 for one in whole["rounds"])
    micro = history(fit("micro", sampling=sampling, hardware=replace(CPU, accumulate=2)))
    assert [one["arm"] for one in micro["rounds"]] == [one["arm"] for one in whole["rounds"]]
    assert [one["value"] for one in micro["rounds"]] == pytest.approx(
        [one["value"] for one in whole["rounds"]], abs=1e-3
    )


def albert(folder: Path) -> EncoderSpec:
    """Its layers are one module, which every token passes twice."""
    config = AlbertConfig(
        vocab_size=len(_tiny_tokenizer()), embedding_size=16, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, pad_token_id=0,
    )  # fmt: skip
    AlbertModel(config).save_pretrained(folder / "weights")
    return EncoderSpec(str(folder / "weights"), pooling="mean", max_length=32)


@pytest.mark.parametrize("choice", [{"sampling": Ucb1Sampling()}, {"weighting": GradNorm(parts=2)}], ids=str)
def test_gradients_are_compared_where_layers_are_no_modules_or_frozen_below_a_pooler(
    fit: Callable[..., Path], encoder: EncoderSpec, tmp_path: Path, choice: dict[str, Any]
) -> None:
    frozen = FitConfig(epochs=1, batch_size=6, learning_rate=2e-5, precision="fp32", freeze_layers=2)
    for folder in (
        fit("albert", encoder=albert(tmp_path), **choice),
        fit("pooler", encoder=replace(encoder, pooling="pooler"), fit=frozen, **choice),
    ):
        assert np.isfinite(losses(folder)).all()
        if "sampling" in choice:
            assert any(one["reward"] for one in history(folder)["rounds"])
    with pytest.raises(UserError, match="no trained weights"):
        fit("nothing", fit=frozen, **choice)


def test_a_bandit_is_rewarded_by_the_primarys_validation_after_every_round(fit: Callable[..., Path]) -> None:
    sampling = ThompsonSampling(batches_per_round=2, rounds=8, metric="loss", reward="not_worse_than_previous")
    folder = fit(
        "bandit", sampling=sampling, evaluated={"pairs": np.arange(6)}, keep_best=False,
        fit=FitConfig(epochs=1, batch_size=6, learning_rate=1e-3, precision="fp32", schedule="constant"),
    )  # fmt: skip
    told = history(folder)
    values = [one["value"] for one in told["rounds"]]
    assert len(values) == 8
    assert [one["reward"] for one in told["rounds"]] == [
        None, *[float(later >= earlier) for earlier, later in pairwise(values)]
    ]  # fmt: skip
    with (folder / "curves.csv").open() as file:
        measured = [(int(p["step"]), -float(p["value"])) for p in csv.DictReader(file) if p["name"] == "choose/loss"]
    assert measured == [(2 * (i + 1), pytest.approx(value)) for i, value in enumerate(values)]
    assert records(folder)["steps"] == 16
    assert set(told["utilities"]) == {"pairs", "single", "score"}


def test_between_episodes_the_model_and_its_optimizer_go_back_to_where_they_started(
    fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one task, no dropout, and the same rows in every batch, episodes are alike."""
    monkeypatch.setattr(Online, "_rows", lambda self, task, count: np.arange(6))
    sampling = ThompsonSampling(batches_per_round=2, rounds=9, warmup_rounds=2, metric="loss", episode=3.0)
    folder = fit(
        "episodes", sampling=sampling, rows={"pairs": np.arange(ROWS)}, evaluated={"pairs": np.arange(6)},
        keep_best=False,
        fit=FitConfig(epochs=1, batch_size=6, learning_rate=1e-3, precision="fp32", schedule="constant", dropout=0.0),
    )  # fmt: skip
    values = [one["value"] for one in history(folder)["rounds"]]
    assert len(set(values[:3])) == 3
    assert values[3:6] == pytest.approx(values[:3], abs=1e-6)
    assert values[6:] == pytest.approx(values[:3], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling", [*ONLINE, ThompsonSampling(batches_per_round=2, rounds=6, metric="loss")], ids=repr
)
def test_two_ranks_make_the_same_choices_as_one_device(fit: Callable[..., Path], sampling: Any) -> None:
    extra: dict[str, Any] = {"sampling": sampling, "fit": FitConfig(epochs=1, batch_size=6, learning_rate=1e-3,
                             precision="fp32", dropout=0.0, freeze_embeddings=True)}  # fmt: skip
    if isinstance(sampling, ThompsonSampling):
        extra |= {"evaluated": {"pairs": np.arange(6)}, "keep_best": False}
    one = history(fit("one", **extra))
    two = history(fit("two", hardware=Hardware(accelerator="cpu", devices=2), **extra))
    assert [r["arm"] for r in one["rounds"]] == [r["arm"] for r in two["rounds"]]
    assert len(one["rounds"]) == len(two["rounds"])


@pytest.mark.slow
@pytest.mark.parametrize("weighting", [Uncertainty(parts=2), GradNorm(parts=2)], ids=repr)
def test_two_ranks_weigh_as_one_device_does(fit: Callable[..., Path], weighting: Weighting) -> None:
    frozen = FitConfig(
        epochs=2, batch_size=6, learning_rate=1e-3, precision="fp32", dropout=0.0, freeze_embeddings=True
    )
    one = fit("one", weighting=weighting, fit=frozen)
    two = fit("two", weighting=weighting, fit=frozen, hardware=Hardware(accelerator="cpu", devices=2))
    assert_same_weights(one, two, atol=2e-4)
