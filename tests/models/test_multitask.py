"""One encoder, a head a task: what a step touches, what is saved, what loads into what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastmtl.data.collate import collate
from fastmtl.errors import UserError
from fastmtl.models.bilstm import BiLSTMSpec
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.tasks import TaskSpec
from fastmtl.training.metrics import task_loss


@pytest.fixture(scope="module")
def batch(tiny_pool: Any) -> dict[str, torch.Tensor]:
    return collate(tiny_pool.split("pairs", "train"), np.arange(4), 0)


def gradients(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_a_step_through_one_task_touches_the_encoder_and_that_head(tiny: Any, tiny_tasks: Any, batch: Any) -> None:
    model = MultiTaskModel(tiny, tiny_tasks)
    task_loss(model(batch, "pairs"), batch["labels"], tiny_tasks[0]).backward()
    touched = gradients(model)
    assert {name for name in touched if name.startswith("heads.")} == {"heads.pairs.weight", "heads.pairs.bias"}
    layers = {f"encoder.inner.encoder.layer.{i}.output.dense.weight" for i in (0, 1)}
    assert layers | {"encoder.inner.embeddings.word_embeddings.weight"} <= touched


def test_one_pass_of_the_proxy_touches_the_head_and_the_discriminator(tiny: Any, tiny_tasks: Any, batch: Any) -> None:
    model = ProxyModel(tiny, tiny_tasks)
    logits, which = model.both(batch, "single")
    assert (logits.shape, which.shape) == ((4, 3), (4, 3))
    (logits.sum() + which.square().sum()).backward()
    heads = {name.split(".")[1] for name in gradients(model) if name.startswith("heads.")}
    assert heads == {"single"}
    assert {"discriminator.weight", "discriminator.bias"} <= gradients(model)


def test_heads_have_a_logit_a_class_or_one_value(tiny: Any, tiny_tasks: Any, batch: Any) -> None:
    model = MultiTaskModel(tiny, tiny_tasks)
    assert {name: tuple(model(batch, name).shape) for name in model.heads} == {
        "pairs": (4, 2), "single": (4, 3), "score": (4, 1),
    }  # fmt: skip


@pytest.mark.parametrize("spec", [None, BiLSTMSpec(tokenizer="tiny", hidden_size=5, layers=1)], ids=["tiny", "bilstm"])
def test_a_tagging_head_reads_states_and_the_discriminator_rows(tiny: Any, tagged_pool: Any, spec: Any) -> None:
    batch = collate(tagged_pool.split("things", "train"), np.arange(4), 0)
    length = batch["input_ids"].shape[1]
    model = ProxyModel(spec or tiny, tagged_pool.tasks).eval()
    with torch.no_grad():
        logits, which = model.both(batch, "things")
        torch.testing.assert_close(logits, model(batch, "things"))
        torch.testing.assert_close(which, model.task_logits(batch))
    assert (logits.shape, which.shape) == ((4, length, 3), (4, 2))


def test_logits_are_head_in_float32_also_under_autocast(tiny: Any, tiny_tasks: Any, batch: Any) -> None:
    model = ProxyModel(tiny, tiny_tasks).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        h_BH = model.features(batch)
        outputs = [model(batch, "pairs"), *model.both(batch, "pairs"), model.task_logits(batch)]
    assert {output.dtype for output in outputs} == {torch.float32}
    with torch.no_grad():
        exact = h_BH.float() @ model.discriminator.weight.T + model.discriminator.bias
    torch.testing.assert_close(outputs[-1], exact, atol=1e-6, rtol=1e-5)  # a bf16 product would be off by 1e-3


def test_saved_weights_load_into_the_same_outputs(tiny: Any, tiny_tasks: Any, batch: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = ProxyModel(tiny, tiny_tasks).eval()
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(1)
    loaded = ProxyModel(tiny, tiny_tasks).eval()
    with torch.inference_mode():
        assert not torch.equal(loaded.task_logits(batch), saved.task_logits(batch))
        load_weights(loaded, tmp_path / "w.safetensors")
        assert torch.equal(loaded.task_logits(batch), saved.task_logits(batch))
        assert torch.equal(loaded(batch, "single"), saved(batch, "single"))


def test_a_model_of_one_task_takes_the_encoder_and_its_head_from_a_larger_one(
    tiny: Any, tiny_tasks: Any, batch: Any, tmp_path: Path
) -> None:
    large = MultiTaskModel(tiny, tiny_tasks).eval()
    with torch.no_grad():
        large.encoder.inner.embeddings.word_embeddings.weight.add_(0.1)
    save_file(large.state_dict(), tmp_path / "w.safetensors")
    small = MultiTaskModel(tiny, tiny_tasks[:1]).eval()
    load_weights(small, tmp_path / "w.safetensors")
    with torch.inference_mode():
        assert torch.equal(small(batch, "pairs"), large(batch, "pairs"))


def test_a_head_that_was_not_saved_stays_as_it_was(tiny: Any, tiny_tasks: Any, tmp_path: Path) -> None:
    save_file(MultiTaskModel(tiny, tiny_tasks[:1]).state_dict(), tmp_path / "w.safetensors")
    large = MultiTaskModel(tiny, tiny_tasks)
    before = large.heads["single"].weight.clone()
    load_weights(large, tmp_path / "w.safetensors")
    assert torch.equal(large.heads["single"].weight, before)


def test_weights_of_another_shape_of_model_are_not_loaded_in_part(tiny: Any, tiny_tasks: Any, tmp_path: Path) -> None:
    save_file(ProxyModel(tiny, tiny_tasks).state_dict(), tmp_path / "proxy.safetensors")
    with pytest.raises(AssertionError, match="discriminator"):
        load_weights(MultiTaskModel(tiny, tiny_tasks), tmp_path / "proxy.safetensors")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v1.0", "must not be empty or hold a dot"),
        ("type", "PyTorch keeps this name"),
        ("keys", "PyTorch keeps this name"),
    ],
)
def test_a_name_that_no_head_can_have_is_refused(tiny: Any, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"task '{name}': .*{reason}"):
        MultiTaskModel(tiny, (TaskSpec(name, "regression", ("a",)),))


@pytest.mark.parametrize("name", ["my task", "a/b", "träume"])
def test_other_names_of_tasks_are_names_of_heads(tiny: Any, batch: Any, name: str) -> None:
    assert MultiTaskModel(tiny, (TaskSpec(name, "regression", ("a",)),))(batch, name).shape == (4, 1)
