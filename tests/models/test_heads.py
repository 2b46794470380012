"""Heads that tasks share: which do, what is refused, and that fine-tuning starts from what all of a group taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastmtl.cli.compose import compose
from fastmtl.data.collate import collate
from fastmtl.errors import UserError
from fastmtl.models.encoder import Tokenizer
from fastmtl.models.multitask import MultiTaskModel, check_heads, shared_heads
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig
from tests.helpers.files import three_tasks
from tests.helpers.fits import finished, weights
from tests.helpers.toy import ToySource, make_pool

A, B, C = (TaskSpec(name, "classification", ("text",), ("no", "yes")) for name in "abc")
OTHER = TaskSpec("other", "classification", ("text",), ("yes", "no"))
THREE = TaskSpec("three", "classification", ("text",), ("no", "maybe", "yes"))
SCORE, PRICE = (TaskSpec(name, "regression", ("text",)) for name in ("score", "price"))
MOODS = TaskSpec("moods", "classification", ("text",), ("sad", "glad"))


def test_by_labels_tasks_of_one_kind_with_the_same_names_in_the_same_order_share() -> None:
    tasks = [A, OTHER, B, SCORE, THREE, C, PRICE]
    assert shared_heads("per_task", tasks) == {}
    assert shared_heads("by_labels", tasks) == {"b": "a", "c": "a"}
    assert shared_heads("by_labels", [B, A]) == {"a": "b"}  # the primary comes first, and its head has its name


def test_a_mapping_names_groups_whose_labels_may_have_other_names() -> None:
    groups = {"mood": ["moods", "c", "a"], "amount": ["price", "score"]}
    check_heads(groups, [A, B, C, MOODS, SCORE, PRICE])
    assert shared_heads(groups, [A, SCORE, C, MOODS, PRICE]) == {"c": "a", "moods": "a", "price": "score"}
    assert shared_heads(groups, [B, C]) == {}


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("nonsense", "does not fit; use per_task, by_labels or"),
        ({"x": "a"}, "does not fit; use"),
        ({"x": ["a", "nobody"]}, "'nobody', which is no task; choose from a,"),
        ({"x": ["a", "b"], "y": ["a"]}, "'a' more than once"),
        ({"x": ["a", "three"]}, "'three' and 'a' differ in kind or number of labels"),
        ({"x": ["score", "a"]}, "'a' and 'score' differ in kind"),
        ({"x": ["a", "other"]}, "'other' and 'a' list the same labels in different orders"),
    ],
)
def test_what_cannot_share_is_refused_in_one_line(how: object, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        check_heads(how, [A, B, OTHER, THREE, SCORE])
    assert "\n" not in str(refused.value)


def test_a_group_answers_through_one_head(tiny: Any, tiny_tasks: Any, tiny_pool: Any) -> None:
    pairs, single, score = tiny_tasks
    twin = replace(pairs, name="twin")
    model = MultiTaskModel(tiny, [pairs, single, score, twin], shared={"twin": "pairs"}).eval()
    assert list(model.heads) == ["pairs", "single", "score"]
    batch = collate(tiny_pool.split("pairs", "train"), np.arange(4), 0)
    with torch.inference_mode():
        assert torch.equal(model(batch, "twin"), model(batch, "pairs"))


def test_without_groups_heads_start_as_they_did(tiny: Any, tiny_pool: Any) -> None:
    """Initial weights are drawn in the order of tasks, whether or not heads could be shared."""
    torch.manual_seed(3)
    model = MultiTaskModel(tiny, tiny_pool.tasks)
    torch.manual_seed(3)
    tiny.build()
    for task in tiny_pool.tasks:
        drawn = torch.nn.Linear(model.encoder.hidden_size, task.num_outputs)
        assert torch.equal(model.heads[task.name].weight, drawn.weight)


@pytest.mark.parametrize("heads", ["per_task", "by_labels", "{decision: [beta, alpha]}"])
def test_fine_tuning_starts_from_the_head_that_all_of_the_group_trained(heads: str, tmp_path: Path) -> None:
    config = three_tasks(tmp_path / "data")
    exp = compose(
        "data=files", f"data.config={config}", "primary=alpha", "encoder=tiny", "selection=full", "data.leakage=report",
        "multitask.fit.epochs=2", "finetune.fit.epochs=1", "finetune.fit.learning_rate=1e-12",
        f"multitask.heads={heads}", f"paths.output={tmp_path / 'out'}",
        *(f"{stage}.fit.precision=fp32" for stage in ("multitask", "finetune")),
    )  # fmt: skip
    saved = load_file(exp.multitask().path / "weights.safetensors")
    shared = {"per_task": [], "by_labels": ["beta", "gamma"]}.get(heads, ["beta"])
    found = {name.split(".")[1] for name in saved if name.startswith("heads.")}
    assert found == {"alpha", "beta", "gamma"} - set(shared)
    last = load_file(exp.finetune().path / "weights.safetensors")
    for name in ("heads.alpha.weight", "heads.alpha.bias", "encoder.inner.embeddings.word_embeddings.weight"):
        torch.testing.assert_close(last[name], saved[name], rtol=0, atol=1e-6)
    model, _ = exp.finetuned()
    assert list(model.heads) == ["alpha"]
    assert exp.test() is not None
    reread = exp.predicted(exp.reported_rows).read("metrics.json")["test"]
    assert reread["accuracy"] == pytest.approx(exp.finetune().read("metrics.json")["validation"]["accuracy"])


def test_rows_of_the_group_train_the_head_of_its_first_task(tiny: Any, tiny_tasks: Any, tmp_path: Path) -> None:
    """A primary row and many rows of its twin: only a shared head sees both."""
    pairs = tiny_tasks[0]
    tasks = (pairs, replace(pairs, name="twin"))
    rows = {"a": ["the cook", "a waiter"] * 6, "b": ["bowls"] * 12, "label": ["no", "yes"] * 6}
    source = ToySource(tasks, {task.name: {"train": rows} for task in tasks})
    pool = make_pool(tmp_path / "pool", source, Tokenizer(tiny))
    fit = FitConfig(epochs=1, batch_size=2, learning_rate=1e-2, precision="fp32", dropout=0.0)
    moved = {}
    for name, heads in (("own", {}), ("one", {"twin": "pairs"})):
        some = {"pairs": np.arange(2), "twin": np.arange(12)}
        saved = weights(finished(pool, tmp_path / name, encoder=tiny, fit=fit, rows=some, heads=heads))
        assert ("heads.twin.bias" in saved) is (name == "own")
        moved[name] = saved["heads.pairs.bias"]
    assert not np.allclose(moved["own"], moved["one"], atol=1e-3)
