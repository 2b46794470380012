"""All stages: permuted tasks and other primaries give either the same bits or another key.

Three worlds hold the same rows. The second lists its tasks in another order, the third has another primary. Each is
built from nothing in a store of its own. In one store the second and third would find what an earlier world had built
under the same kind and key, so wherever keys are equal the files must be too.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastmtl.stages
from fastmtl.cli.compose import compose
from fastmtl.pipelines.experiment import Experiment
from fastmtl.pipelines.relations import TaskRelations
from fastmtl.relations.predictor import GainPredictor
from fastmtl.stages.base import Stage
from fastmtl.store import Store

SMALL = [
    "encoder=tiny", "data=files", "budget=20", "proxy.examples_per_task=10", "protocol.holdout=0.2",
    *(f"{stage}.fit.{option}" for stage in ("proxy", "bandit", "multitask", "finetune", "relations")
      for option in ("batch_size=8", "precision=fp32")),
    *(f"{stage}.fit.epochs=1" for stage in ("proxy", "multitask", "finetune")),
    "scoring.precision=fp32", "relations.batches=100", "relations.fit.batch_size=2",
    "bandit.rounds=4", "bandit.policy.batches_per_round=2", "bandit.policy.warmup_rounds=1",
]  # fmt: skip
WORLDS = {"first": ("abc", "a"), "tasks in another order": ("bca", "a"), "another primary": ("abc", "b")}
pytestmark = pytest.mark.timeout(300)  # all worlds are built for the first test
ORDERS = {
    "ratio": ["sampling=ratio", "sampling.ratios=[3,1,2]"], "exp3": ["sampling=exp3"], "ucb1": ["sampling=ucb1"],
    "thompson": ["sampling=bandit", "sampling.rounds=4", "sampling.batches_per_round=2"],
}  # fmt: skip


def write_tasks(folder: Path) -> None:
    """Three tasks of 48 rows and a YAML for each of their orders; no two rows say the same."""
    rng = np.random.default_rng(0)
    words = "cook farm boat tense bowls apples sea field waiter rope barn soup sail hen oven tide plough pan".split()
    kinds = {
        "a": ("classification", ["no", "yes"]), "b": ("classification", ["x", "y", "z"]), "c": ("regression", []),
    }  # fmt: skip
    entries = {}
    for place, (name, (kind, labels)) in enumerate(kinds.items()):
        splits = {}
        for split, rows in {"train": 48, "validation": 12, "test": 8}.items():
            texts = [" ".join(rng.choice(words[3 * place : 3 * place + 12], size=9)) for _ in range(rows)]
            found = [labels[i % len(labels)] if labels else i / rows for i in range(rows)]
            lines = [f"{text}\t{label}" for text, label in zip(texts, found)]
            splits[split] = f"{name}_{split}.tsv"
            (folder / splits[split]).write_text("\n".join(["text\tlabel", *lines]) + "\n")
        entries[name] = {"name": name, "kind": kind, "text": "text", "labels": labels, "splits": splits}
    for order in ("abc", "bca"):  # JSON is YAML
        (folder / f"{order}.yaml").write_text(json.dumps({"tasks": [entries[name] for name in order]}))


def cell(folder: Path, order: str, primary: str, output: Path, *overrides: str) -> Experiment:
    config = f"data.config={folder / f'{order}.yaml'}"
    return compose(*SMALL, config, f"primary={primary}", f"paths.output={output}", *overrides)


def cells(folder: Path) -> dict[str, Experiment]:
    """Experiments of the first world that have, all together, every kind of stage."""

    def one(*overrides: str) -> Experiment:
        return cell(folder, "abc", "a", folder, *overrides)

    return {
        "similar": one("selection=feature_similarity"),
        "ngrams": one("selection=ngram_importance"),
        "bandit": one("selection=autosem", "mixing=autosem_equal"),
        "predicted": one("selection=predicted_gain", f"selection.predictor={folder / 'predictor.json'}"),
        **{order: one("selection=full", *overrides) for order, overrides in ORDERS.items()},
    }


def build_everything(made: dict[str, Experiment]) -> None:
    """Artifacts of every kind of stage."""
    made["similar"].artifacts("report")
    made["ngrams"].selection()
    made["bandit"].finetune()
    made["predicted"].selection()
    for order in ORDERS:
        made[order].multitask()
    relations = TaskRelations(made["similar"])
    relations.joint("b", "c")
    relations.affinities(rows_per_task=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows, and a predictor of gains; they are at one place, so that no world is another by its paths."""
    made = tmp_path_factory.mktemp("tasks")
    write_tasks(made)
    GainPredictor(("main/size", "aux/oov", "aux/gradient_10"), (0, 0, -1), (9, 9, 2), (1, -1, 3), 0.2).save(
        made / "predictor.json"
    )
    return made


@pytest.fixture(scope="module")
def worlds(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[tuple[str, str], Path]]:
    """World -> (kind, key) -> folder."""
    found, composed = {}, cells(folder)
    for world, (order, primary) in WORLDS.items():
        store = Store(tmp_path_factory.mktemp("world"))
        named = {task.name: task for task in composed["similar"].tasks}
        changed: dict[str, Any] = {"tasks": tuple(named[name] for name in order), "primary": primary, "store": store}
        build_everything({name: replace(one, **changed) for name, one in composed.items()})
        manifests = store.root.glob("*/*/manifest.json")
        found[world] = {(path.parent.parent.name, path.parent.name): path.parent for path in manifests}
    return found


def contents(artifact: Path) -> dict[str, bytes]:
    """File -> its bytes, less what says how long it took."""
    files = {path.relative_to(artifact).as_posix(): path for path in artifact.rglob("*") if path.is_file()}
    return {
        name: repr(timeless(json.loads(path.read_text()))).encode() if path.suffix == ".json" else path.read_bytes()
        for name, path in files.items()
        if name != "manifest.json"
    }  # fmt: skip


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key != "records" and not key.endswith("_s")}
    return [timeless(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("pair", list(combinations(WORLDS, 2)), ids=" and ".join)
def test_equal_keys_are_equal_bits(worlds: dict[str, dict[tuple[str, str], Path]], pair: tuple[str, str]) -> None:
    one, other = (worlds[world] for world in pair)
    for name in one.keys() & other.keys():
        first, second = contents(one[name]), contents(other[name])
        assert first, f"{name} has no files"
        assert first.keys() == second.keys(), name
        assert not [file for file in first if first[file] != second[file]], name


def test_every_kind_of_stage_is_there(worlds: dict[str, dict[tuple[str, str], Path]]) -> None:
    for module in pkgutil.iter_modules(fastmtl.stages.__path__):
        import_module(f"fastmtl.stages.{module.name}")
    ours = [stage for stage in below(Stage) if stage.__module__.startswith("fastmtl.")]
    wanted = {stage.kind for stage in ours if hasattr(stage, "kind")}
    for found in worlds.values():
        assert {kind for kind, _ in found} == wanted
        utilities = {path.name for (kind, _), one in found.items() if kind == "utilities" for path in one.iterdir()}
        assert {"bandit.json", "utilities.json"} <= utilities
        sampled = [json.dumps(parts(one)["sampling"]) for (kind, _), one in found.items() if kind == "multitask"]
        for name in ("Proportional", "Ratio", "Exp3Sampling", "Ucb1Sampling", "ThompsonSampling"):
            assert any(f'"{name}"' in one for one in sampled), name


def below(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from below(sub)


def parts(artifact: Path) -> dict[str, Any]:
    """Field -> plain value of the stage that made it."""
    return dict(json.loads((artifact / "manifest.json").read_text())["identity"][-1])


def test_what_does_not_depend_on_order_or_primary_is_shared(
    worlds: dict[str, dict[tuple[str, str], Path]],
) -> None:
    """So the comparison is not of nothing, and a key holds no more than it must."""
    first, permuted, other = ({*found} for found in worlds.values())
    # In the second world the auxiliary tasks follow each other as in the first: b, c.
    assert kinds(first & permuted) == {
        "pool", "leakage", "prepared", "scores", "utilities", "mixing", "multitask", "finetune", "joint", "features",
    }  # fmt: skip
    assert kinds(first & other) == {"pool", "proxy", "scores", "joint", "features", "affinities"}
    for shared in (permuted, other):
        assert kinds(first) == kinds(shared)
        assert not kinds(first & shared) & {"selection", "test"}


def kinds(artifacts: set[tuple[str, str]]) -> set[str]:
    return {kind for kind, _ in artifacts}


def test_permuted_tasks_select_in_one_store_the_rows_of_a_fresh_one(tmp_path: Path) -> None:
    """The case that was seen: mrpc, rte, wnli and then rte, wnli, mrpc gave other rows under one key."""
    rng = np.random.default_rng(1)
    words = np.array("the a cook farmer sold bought washed lost some apples bowls boats nets hens soup".split())
    for place, task in enumerate(("mrpc", "rte", "wnli")):
        (tmp_path / task).mkdir()
        for split in ("train", "validation"):
            texts = [[" ".join(rng.choice(words[2 * place : 2 * place + 10], 8)) for _ in range(60)] for _ in range(2)]
            columns = dict(zip(("sentence1", "sentence2"), texts))
            pq.write_table(pa.table({**columns, "label": [0, 1] * 30}), tmp_path / task / f"{split}.parquet")

    def chosen(output: str, tasks: str) -> tuple[str, list[tuple[str, int, float]]]:
        exp = compose(
            "data=glue_local", f"data.root={tmp_path}", f"data.tasks=[{tasks}]", "primary=rte", "encoder=tiny",
            "proxy.examples_per_task=20", "proxy.fit.precision=fp32", "proxy.fit.epochs=3", "scoring.precision=fp32",
            "budget=30", f"paths.output={tmp_path / output}",
        )  # fmt: skip
        rows = pq.read_table(exp.selection().path / "selection.parquet").to_pydict()
        return exp.selection().key, list(zip(*rows.values()))

    before = chosen("one", "mrpc,rte,wnli")
    after, fresh = chosen("one", "rte,wnli,mrpc"), chosen("fresh", "rte,wnli,mrpc")
    assert after == fresh
    assert after[0] != before[0]
    assert len(after[1]) == 30


def test_the_order_of_tasks_as_python_values_counts_as_that_of_a_file(folder: Path, tmp_path: Path) -> None:
    exp = cell(folder, "abc", "a", tmp_path, "selection=random")
    b, c, a = (next(task for task in exp.tasks if task.name == name) for name in "bca")
    permuted = replace(exp, tasks=(b, c, a))
    read = cell(folder, "bca", "a", tmp_path, "selection=random")
    assert permuted.selection_stage.key == read.selection_stage.key != exp.selection_stage.key
