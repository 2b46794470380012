"""What the proxy's features show of the tasks, with and without its discriminator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from fastmtl.cli.compose import compose
from fastmtl.data.collate import collate
from fastmtl.data.rows import RowSet
from fastmtl.errors import UserError
from fastmtl.models.multitask import ProxyModel, load_weights
from fastmtl.pipelines.experiment import Experiment
from fastmtl.pipelines.relations import TaskRelations
from fastmtl.store import Artifact
from tests.helpers.scripts import script

study = script("tsne/projection.py")
Projection, projections, separation, tsne = study.Projection, study.projections, study.separation, study.tsne

SMALL = ("encoder=tiny", "data.rows_per_task=60", "budget=60", "proxy.examples_per_task=20", "proxy.fit.epochs=1",
         "scoring.precision=fp32", "data.leakage=report")  # fmt: skip


@pytest.fixture(scope="module")
def exp(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return compose(*SMALL, f"paths.output={tmp_path_factory.mktemp('projection')}")


@pytest.fixture(scope="module")
def made(exp: Experiment) -> dict[str, Artifact]:
    return projections(TaskRelations(exp), rows_per_task=10)


def test_both_draw_the_same_rows_and_no_proxy_was_trained_on_them(exp: Experiment, made: dict[str, Artifact]) -> None:
    drawn = [pyarrow.parquet.read_table(one.path / "projection.parquet").to_pydict() for one in made.values()]
    assert drawn[0]["task"] == drawn[1]["task"] == [name for name in exp.pool.names for _ in range(10)]
    assert drawn[0]["row"] == drawn[1]["row"]
    assert drawn[0]["x"] != drawn[1]["x"]
    starts = np.array([exp.pool.starts[exp.pool.index(task)] for task in drawn[0]["task"]])
    row_ids = starts + drawn[0]["row"]
    assert len(np.unique(row_ids)) == 10 * len(exp.pool.names)
    assert not np.isin(row_ids, exp.samples[0]).any()
    other = TaskRelations(compose(*SMALL, "seed=1", f"paths.output={exp.store.root.parent}")).unused_rows(10)
    assert other["chats"].tolist() != drawn[0]["row"][:10]


def parts(folder: Path) -> dict[str, Any]:
    """Field -> plain value of the stage that made the artifact."""
    return dict(json.loads((folder / "manifest.json").read_text())["identity"][-1])


def test_the_two_proxies_differ_in_the_discriminator_alone(exp: Experiment, made: dict[str, Artifact]) -> None:
    keys = {kind: parts(one.path)["proxy"] for kind, one in made.items()}
    assert keys["with"] == exp.proxy()[0].key
    folders = {kind: exp.store.root / "proxy" / key for kind, key in keys.items()}
    said = {kind: parts(path) for kind, path in folders.items()}
    assert said["without"].pop("discriminator") is None
    assert said["with"].pop("discriminator") == "ce"
    assert said["with"] == said["without"]
    weights = {kind: set(load_file(path / "weights.safetensors")) for kind, path in folders.items()}
    assert weights["with"] - weights["without"] == {"discriminator.weight", "discriminator.bias"}


def test_another_primary_reads_the_same_artifacts(exp: Experiment, made: dict[str, Artifact]) -> None:
    again = projections(
        TaskRelations(compose(*SMALL, "primary=mails", f"paths.output={exp.store.root.parent}")), rows_per_task=10
    )
    assert [one.key for one in again.values()] == [one.key for one in made.values()]
    assert all(one.hit for one in again.values())


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("bf16", 2e-2)])  # of bf16's eight bits
def test_a_feature_is_that_of_its_own_row(exp: Experiment, precision: Any, error: float) -> None:
    rows = RowSet.of(exp.tasks, {"diary": np.array([7, 40]), "chats": np.array([31])})
    ((proxy,),) = exp.proxy_stages
    features_NH, costs = Projection(proxy, rows, precision)._features(exp.context)
    model = ProxyModel(proxy.encoder, exp.pool.tasks).eval()
    load_weights(model, exp.context.get(proxy).path / "weights.safetensors")
    for got, (task, place) in zip(features_NH, [("diary", 7), ("diary", 40), ("chats", 31)]):
        with torch.inference_mode():
            alone = model.features(collate(exp.pool.split(task, "train"), np.array([place]), 0))[0]
        assert np.linalg.norm(got - alone.numpy()) < error * np.linalg.norm(alone)
    assert costs["examples"] == 3
    assert costs["flops"] > 0


def clusters(rng: np.random.Generator, *centres: float) -> tuple[np.ndarray, list[str]]:
    """40 rows a task around a centre each, a, b, c ..."""
    features = np.concatenate([rng.normal(centre, 1, size=(40, 8)) for centre in centres]).astype(np.float32)
    return features, [name for name in "abcdef"[: len(centres)] for _ in range(40)]


def test_tasks_at_one_place_are_neighbours_and_far_ones_are_not() -> None:
    told = separation(*clusters(np.random.default_rng(0), 0, 0, 50), k=5)
    assert told["rows"] == {"a": 40, "b": 40, "c": 40}
    assert told["near"]["a"] == {"b": 1.0, "c": 0.0}
    assert sum(told["near"]["c"].values()) == pytest.approx(1)
    assert told["own"]["c"] == told["probe"]["tasks"]["c"] == 1.0
    assert 0.3 < told["own"]["a"] < 0.7
    assert 0.5 < told["probe"]["all"] < 0.9


def test_rows_in_the_middle_are_not_everyones_neighbours() -> None:
    features = np.random.default_rng(2).normal(size=(120, 32)).astype(np.float32)
    features[40:80] *= 0.2  # b lies in all directions as c does, but short: by Euclid it is nearest to all
    nearest = np.argmin(np.linalg.norm(features[:40, None] - features[None, 40:], axis=2), axis=1)
    assert np.mean(nearest < 40) > 0.9
    near = separation(features, ["a"] * 40 + ["b"] * 40 + ["c"] * 40, k=5)["near"]
    assert near["a"]["b"] == pytest.approx(0.5, abs=0.2)


def test_few_rows_are_enough_and_coordinates_repeat() -> None:
    features, tasks = clusters(np.random.default_rng(1), 0, 3)
    few = separation(features[::8], tasks[::8], k=15)  # 5 rows a task
    assert few["near"] == {"a": {"b": 1.0}, "b": {"a": 1.0}}
    assert tsne(features[::8], 30.0).shape == (10, 2)
    assert np.array_equal(tsne(features, 10.0), tsne(features, 10.0))


def test_what_cannot_be_projected_is_said_in_one_line(tmp_path: Path, exp: Experiment) -> None:
    with pytest.raises(
        UserError, match="selection=random trains no task discriminator; use selection=feature_similarity"
    ):
        projections(TaskRelations(compose(*SMALL, "selection=random", f"paths.output={tmp_path}")))
    with pytest.raises(UserError, match="rows_per_task=3 is not a whole number of 10 or more"):
        projections(TaskRelations(exp), rows_per_task=3)
