"""What scorers and selectors promise, held by every one of the package and of a package outside it; and that package's
parts in whole cells, without a line in fastmtl that knows of them."""

from __future__ import annotations

import inspect
import json
import pickle
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plugins
import pytest
import torch
from plugins.confidence import Confidence
from plugins.largest_tasks import LargestTasks
from plugins.multilabel import MultiLabel
from plugins.quota import Quota
from plugins.vocabulary import Vocabulary
from sklearn.metrics import f1_score

import fastmtl
import fastmtl.scoring
import fastmtl.selection
from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.identity import digest
from fastmtl.models.multitask import MultiTaskModel, ProxyModel
from fastmtl.pipelines.experiment import Experiment
from fastmtl.reporting.row_noise import row_noise
from fastmtl.scoring.base import ScoringInputs
from fastmtl.scoring.discriminator import Discriminator
from fastmtl.scoring.embedding import Embedding
from fastmtl.scoring.ngram_importance import NgramImportance
from fastmtl.selection.candidates import Candidates
from fastmtl.selection.rows import Full, MatchedRandom, NoAuxiliary, Random, TopK
from fastmtl.selection.tasks import BestTasks, PickedTasks
from fastmtl.tasks import TaskSpec
from fastmtl.tasks.kinds import kind_of
from fastmtl.training.finetuned import load_finetuned
from fastmtl.training.metrics import measure
from tests.helpers.cells import SMALL
from tests.helpers.cli import run_cli
from tests.scoring.worlds import HOW

CONF = Path(plugins.__file__).parent / "conf"
SCORERS: list[Any] = [
    Discriminator(), Discriminator("bce"), NgramImportance(), NgramImportance(per_ngram=False, gumbel=True),
    Embedding("centroid"), Embedding("nearest"), Vocabulary(), Confidence(),
]  # fmt: skip
TASKS = ("red", "green", "blue")
SELECTORS: list[Any] = [
    TopK(), Random(), MatchedRandom(), Full(), NoAuxiliary(), Quota(3), Quota(99), BestTasks(top=1, rows=TopK()),
    BestTasks(top=2, threshold=None, rows=Full()), BestTasks(top=1, threshold=None, rows=Quota(4)),
    PickedTasks(("blue", "red")), PickedTasks(("green", "red"), rows=Quota(2)), LargestTasks(top=1),
    LargestTasks(top=2, rows=TopK()),
]  # fmt: skip
"""A new scorer or selector is one more entry; the next test misses one that is left out."""

each_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=repr)
each_selector = pytest.mark.parametrize("selector", SELECTORS, ids=repr)


@pytest.mark.parametrize(("method", "package", "listed"), [
    ("score", fastmtl.scoring, SCORERS), ("select", fastmtl.selection, SELECTORS), ("score", plugins, SCORERS),
    ("select", plugins, SELECTORS),
])  # fmt: skip
def test_every_scorer_and_selector_is_held_to_the_contract(method: str, package: Any, listed: list[Any]) -> None:
    modules = [import_module(f"{package.__name__}.{one.name}") for one in pkgutil.iter_modules(package.__path__)]
    found = {
        cls for module in modules for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and hasattr(cls, method) and hasattr(cls, "__dataclass_fields__")
    }  # fmt: skip
    assert found
    assert found <= {type(one) for one in listed}


# scorers


@pytest.fixture(scope="module")
def models(tiny: Any, tiny_tasks: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    heads, discriminator = MultiTaskModel(tiny, tiny_tasks), ProxyModel(tiny, tiny_tasks)
    made = {"encoder": tiny.build(), "heads": heads, "discriminator": discriminator}
    return {"nothing": None, **{name: model.eval() for name, model in made.items()}}


def inputs_for(scorer: Any, models: dict[str, Any], pool: Any, order: str = "single score") -> ScoringInputs:
    """Of the primary `pairs`, as the stage gives them; arrays cannot be written to."""
    rows = {"single": np.array([0, 3, 4, 7, 11]), "score": np.array([2, 4, 9])}
    if not scorer.per_primary:
        rows["pairs"] = np.array([0, 2])
    rows = {name: rows[name] for name in [*order.split(), *({*rows} - {*order.split()})]}
    target = np.array([1, 4, 5, 10])
    for array in (*rows.values(), target):
        array.flags.writeable = False
    known = pool.names if scorer.needs in ("heads", "discriminator") else ()
    primary, target = ("pairs", target) if scorer.per_primary else ("", np.empty(0, dtype=np.int64))
    return ScoringInputs(known, primary, pool, target, rows, models[scorer.needs], HOW, seed=5)


def scored(scorer: Any, inputs: ScoringInputs, folder: Path, shard: int = 99) -> dict[str, np.ndarray]:
    """Task -> (T, n) or (1, n)."""
    state = None
    if hasattr(scorer, "prepare"):
        folder.mkdir()
        json.dumps(scorer.prepare(inputs, folder) or {})  # records
        state = folder
    found = {}
    for task, rows in inputs.rows.items():
        parts = np.split(rows, range(shard, len(rows), shard))
        found[task] = np.concatenate([scorer.score(inputs, state, task, part) for part in parts], axis=1)
    return found


@each_scorer
def test_scores_are_finite_numbers_for_every_row_and_primary(
    scorer: Any, models: dict[str, Any], tiny_pool: Any, tmp_path: Path
) -> None:
    inputs = inputs_for(scorer, models, tiny_pool)
    for task, scores in scored(scorer, inputs, tmp_path / "state").items():
        assert scores.shape == (1 if scorer.per_primary else 3, len(inputs.rows[task]))
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
    lengths = tiny_pool.split("single", "train").lengths
    assert getattr(scorer, "flops", lambda *_: 0.0)(inputs, lengths) >= 0


@each_scorer
def test_scores_repeat_and_depend_on_no_shard_and_no_order(
    scorer: Any, models: dict[str, Any], tiny_pool: Any, tmp_path: Path
) -> None:
    inputs = inputs_for(scorer, models, tiny_pool)
    whole, again = (scored(scorer, inputs, tmp_path / name) for name in ("whole", "again"))
    cut = scored(scorer, inputs, tmp_path / "cut", shard=2)
    turned = scored(scorer, inputs_for(scorer, models, tiny_pool, "score single"), tmp_path / "turned")
    for task, scores in whole.items():
        assert np.array_equal(scores, again[task])
        np.testing.assert_allclose(cut[task], scores, atol=1e-5)
        np.testing.assert_allclose(turned[task], scores, atol=1e-5)


@each_scorer
def test_a_scorer_says_what_it_reads_and_whom_it_serves(scorer: Any) -> None:
    assert scorer.needs in ("nothing", "encoder", "heads", "discriminator")
    assert type(scorer.per_primary) is bool
    assert scorer.per_primary or scorer.needs in ("heads", "discriminator")  # else nothing tells primaries apart


@pytest.mark.parametrize("part", [*SCORERS, *SELECTORS], ids=repr)
def test_options_are_the_key_and_travel_to_other_processes(part: Any) -> None:
    assert pickle.loads(pickle.dumps(part)) == part
    assert digest(pickle.loads(pickle.dumps(part))) == digest(part)
    with pytest.raises(AttributeError):
        part.anything = 1


def test_all_keys_differ() -> None:
    parts = [*SCORERS, *SELECTORS]
    assert len({digest(part) for part in parts}) == len(parts)


# selectors


def candidates(order: np.ndarray | None = None, tied: bool = False) -> Candidates:
    """40 rows of three tasks in some storage order; arrays cannot be written to."""
    rng = np.random.default_rng(3)
    order = np.arange(40) if order is None else order
    row_ids, task_ids = np.sort(rng.choice(1000, 40, replace=False)), np.repeat([0, 1, 2], [9, 11, 20])
    scores = np.zeros(40, dtype=np.float32) if tied else rng.normal(size=40).astype(np.float32)
    found = Candidates(row_ids[order], task_ids[order], scores[order], TASKS, np.array([0.9, 0.2, 0.6]))
    for array in (found.row_ids, found.task_ids, found.scores, found.utilities):
        assert array is not None
        array.flags.writeable = False
    return found


def picks(selector: Any, given: Candidates, budget: int = 7, seed: int = 0) -> np.ndarray:
    k = selector.size(given, budget, np.random.default_rng(seed))
    chosen = selector.select(given, k, np.random.default_rng(seed))
    assert len(chosen) == k
    return chosen


@each_selector
@pytest.mark.parametrize("budget", [1, 7, 40, 0.25])
def test_exactly_as_many_rows_as_its_size_each_once(selector: Any, budget: int | float) -> None:
    given = candidates()
    chosen = picks(selector, given, budget)
    assert chosen.dtype.kind == "i"
    assert len(np.unique(chosen)) == len(chosen)
    assert not len(chosen) or (chosen.min() >= 0 and chosen.max() < 40)
    if selector.uses_budget and "utilities" not in selector.needs and not hasattr(selector, "rows"):
        assert len(chosen) == (10 if budget == 0.25 else budget)


@each_selector
def test_its_size_is_known_roughly_before_anything_is_trained(selector: Any) -> None:
    given = candidates()
    bare = Candidates(given.row_ids, given.task_ids, None, TASKS)
    early = selector.size(bare, 7, np.random.default_rng(0))
    assert early >= len(picks(selector, given))
    if selector.uses_budget:
        with pytest.raises(UserError, match="budget=41 is more than the 40 candidate rows"):
            selector.size(bare, 41, np.random.default_rng(0))


@each_selector
def test_the_same_seed_is_the_same_rows_and_the_candidates_stay_as_they_were(selector: Any) -> None:
    given, untouched = candidates(), candidates()
    first, again = (picks(selector, given, seed=4).tolist() for _ in range(2))
    assert first == again
    for name in ("row_ids", "task_ids", "scores", "utilities"):
        assert np.array_equal(getattr(given, name), getattr(untouched, name))


RANKING = [s for s in SELECTORS if "scores" in s.needs and not getattr(s, "needs_all_scores", False)]
"""Those that take the best rows; the others draw."""


@pytest.mark.parametrize("selector", RANKING, ids=repr)
@pytest.mark.parametrize("tied", [True, False])
def test_storage_order_decides_nothing_also_between_ties(selector: Any, tied: bool) -> None:
    stored = candidates(tied=tied)
    wanted = {int(row) for row in stored.row_ids[picks(selector, stored)]}
    for order in (np.arange(40)[::-1], np.random.default_rng(1).permutation(40)):
        given = candidates(order, tied)
        assert {int(row) for row in given.row_ids[picks(selector, given)]} == wanted
    seeds = {tuple(sorted(picks(selector, stored, seed=seed).tolist())) for seed in range(8)}
    everything = len(wanted) == 40
    assert len(seeds) == 1 if everything or not tied else len(seeds) > 1


def test_a_quota_is_one_of_each_task() -> None:
    given = candidates()
    assert given.scores is not None
    chosen = picks(Quota(3), given)
    assert np.bincount(given.task_ids[chosen]).tolist() == [3, 3, 3]
    for task in range(3):
        mine = np.flatnonzero(given.task_ids == task)
        assert {*chosen} >= {*mine[np.argsort(-given.scores[mine])[:3]]}
    assert np.all(np.diff(given.scores[chosen]) < 0)  # best first
    assert {TASKS[t] for t in given.task_ids[picks(LargestTasks(top=1), given)]} == {"blue"}


# whole cells


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plugins")


def cell(output: Path, *overrides: str) -> Experiment:
    """As `fastmtl --config-dir tests/plugins/conf OVERRIDES`."""
    return compose(f"hydra.searchpath=[file://{CONF}]", *SMALL, f"paths.output={output}", *overrides)


def recorded(output: Path, *overrides: str) -> tuple[Experiment, dict[str, Any]]:
    exp = cell(output, "budget=20", *overrides)
    result = fastmtl.record(exp, study="plugins", output=output)
    written = output / "studies" / "plugins" / f"{result['id']}.json"
    assert json.loads(written.read_text()) == json.loads(json.dumps(result))
    return exp, result


def kinds(result: dict[str, Any]) -> set[str]:
    return {stage["stage"] for stage in result["stages"]}


def test_a_scorer_without_a_proxy_that_prepares_a_state(output: Path) -> None:
    exp, result = recorded(output, "selection=vocabulary")
    assert result["selection"] == "vocabulary"
    assert {"prepared", "scores", "multitask", "finetune"} <= kinds(result)
    assert "proxy" not in kinds(result)
    assert result["auxiliary_rows"] == 20
    assert (result["config"]["scores.scorer"], result["config"]["scores.scorer.fewest"]) == ("plugins.Vocabulary", 1)
    scores, chosen = exp.all_scores()[0], exp.selected()
    assert scores[chosen].min() >= scores[np.setdiff1d(exp.candidate_ids(), chosen)].max()


def test_a_scorer_on_a_proxy_with_heads_alone(output: Path) -> None:
    overrides = ["selection=confidence", "data.leakage=report"]
    exp, result = recorded(output, *overrides)
    ((proxy,),) = exp.proxy_stages
    assert proxy.discriminator is None
    assert {"proxy", "scores", "multitask", "finetune"} <= kinds(result)
    assert exp.all_scores().shape == (9, len(exp.pool))
    other = cell(output, "budget=20", *overrides, "primary=mails", "protocol=paper")
    assert {shard.key for shard in other.scores()} == {shard.key for shard in exp.scores()}  # they serve every primary


def test_a_selector_that_sets_its_own_size(output: Path) -> None:
    exp, result = recorded(output, "selection=quota")
    assert result["budget"] is None
    assert result["counts"] == dict.fromkeys(result["counts"], 5)
    assert result["auxiliary_rows"] == 5 * 8 == len(exp.selected())
    assert result["config"]["selection.selector.per_task"] == 5
    assert np.isin(exp.selected(), exp.candidate_ids()).all()


def test_a_selector_of_tasks(output: Path) -> None:
    _, result = recorded(output, "selection=largest_tasks", "data.rows_per_task={mails: 150, diary: 60}")
    largest = max(result["candidates"], key=lambda task: result["candidates"][task])
    assert {task for task, count in result["counts"].items() if count} == {largest}
    assert result["auxiliary_rows"] == 20
    assert "scores" not in kinds(result)


def test_a_source(output: Path) -> None:
    overrides = ["data=shop", "selection=random", "data.rows_per_task=null"]
    exp, result = recorded(output, *overrides)
    assert (result["primary"], result["metric"], result["validation_rows"]) == ("mood", "accuracy", 15)
    assert result["counts"] == {"thing": 20}
    row = exp.pool.texts(exp.pool.rows_of("thing")[:1])[0]
    assert row["text"].startswith("the ")
    assert row["label"] in ("long", "short")
    reseeded = cell(output, "budget=20", *overrides, "data.source.seed=1")
    assert reseeded.finetune_stage.key != exp.finetune_stage.key


@pytest.fixture(scope="module")
def tagged_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label task in files of one's own, whose test labels are hidden, beside tasks of a source of one's own."""
    folder = tmp_path_factory.mktemp("tags")
    rng = np.random.default_rng(0)
    words = {"red": "ruby", "round": "ball", "soft": "wool"}
    for split, rows in {"train": 120, "validation": 40, "test": 9}.items():
        lines = ["text\ttags"]
        for _ in range(rows):
            tags = [tag for tag in words if rng.random() < 0.5]
            others = rng.choice("this that thing with some more words of no use at all".split(), 6)
            text = " ".join(rng.permutation([*(words[tag] for tag in tags), *others]))
            said = [tag for tag in words if (tag in tags) != (rng.random() < 0.1)]  # a tenth of the labels is wrong
            lines.append(f"{text}\t{'' if split == 'test' else '|'.join(said) or '-'}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "tasks.yaml").write_text("""
tasks:
  - {name: objects, kind: plugins.multilabel.MultiLabel, text: text, label: tags, labels: [red, round, soft],
     metrics: [f1_micro, f1_macro], splits: {train: train.tsv, validation: validation.tsv, test: test.tsv}}
  - {source: plugins.shop.shop_tasks, rows: 40}
""")
    return folder / "tasks.yaml"


def test_a_kind_of_task_as_the_primary(output: Path, tagged_yaml: Path) -> None:
    overrides = ["data=files", f"data.config={tagged_yaml}", "primary=objects", "selection=feature_similarity",
                 "finetune.fit.epochs=12", "finetune.fit.learning_rate=2e-3", "finetune.fit.precision=fp32",
                 "data.rows_per_task=null"]  # fmt: skip
    exp, result = recorded(output, *overrides)
    metrics = result["metrics"]["validation"]
    assert [*metrics] == ["f1_micro", "f1_macro", "loss"]
    assert 0.75 < metrics["f1_micro"] == result["headline"] < 1
    table = pd.read_parquet(exp.finetune().path / "validation.parquet")
    assert {"label", "prediction", "p_red", "p_round", "p_soft"} <= {*table.columns}
    label, prediction, _ = MultiLabel().coded(table, exp.task)
    for average in ("micro", "macro"):
        scored = f1_score(label.reshape(-1, 3), prediction.reshape(-1, 3), average=average)
        assert metrics[f"f1_{average}"] == pytest.approx(scored, abs=1e-6)
    test = exp.test()
    assert test is not None
    assert pd.read_parquet(test.path / "test.parquet")["label"].isna().all()
    assert test.read("metrics.json") == {"test": None}
    model, task = load_finetuned(exp.finetune().path)
    assert model.heads["objects"].out_features == 3
    assert task.of_kind.label_text(np.array([1, 0, 1]), task) == "red|soft"
    text = exp.pool.texts(exp.pool.rows_of("objects")[:1])[0]["label"]
    assert text == "-" or {*text.split("|")} <= {"red", "round", "soft"}
    cells = pd.DataFrame([{"id": result["id"], "finetune": str(exp.finetune().path), "metric": "f1_micro"}])
    noise = row_noise(cells)
    assert noise.rows == 40
    assert 0 < noise.covariance[0, 0] ** 0.5 < 0.2


def test_a_kind_of_task_as_an_auxiliary_one(output: Path, tagged_yaml: Path) -> None:
    overrides = ["data=files", f"data.config={tagged_yaml}", "primary=mood", "selection=full", "sampling=uniform"]
    _, result = recorded(output, *overrides)
    assert result["counts"] == {"objects": 120, "thing": 40}


def test_metrics_of_the_kind_are_those_of_scikit_learn_and_of_resampled_rows() -> None:
    task = TaskSpec("t", "plugins.multilabel.MultiLabel", ("text",), ("a", "b"), ("f1_micro", "f1_macro"))
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 2)).astype(np.float32), rng.integers(2, size=(50, 2)).astype(np.float32)
    found = measure(torch.from_numpy(logits), torch.from_numpy(labels), task)
    for average in ("micro", "macro"):
        assert found[f"f1_{average}"] == pytest.approx(f1_score(labels, logits > 0, average=average))
    expected = np.mean(np.log1p(np.exp(-logits * (2 * labels - 1))))
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)
    coded = task.of_kind.coded(pd.DataFrame(task.of_kind.table(logits, labels, task)), task)
    score = task.of_kind.weighted_score("f1_micro")
    assert score is not None
    assert score(coded[0], coded[1], np.ones((1, 100)))[0] == pytest.approx(found["f1_micro"])
    assert coded[2].max() == 49


@pytest.mark.parametrize("kind", ["os.abort", "os.nothing", "nowhere.Kind", "plugins.quota.Quota", "multilabel"])
def test_what_is_no_kind_is_refused_and_never_called(kind: str) -> None:
    with pytest.raises(UserError, match="is unknown; use one of classification, regression, tagging"):
        kind_of(kind, "t")


def test_the_command_line_takes_them_from_a_folder_of_options(tmp_path: Path) -> None:
    ran = run_cli(
        tmp_path, "--config-dir", str(CONF), "selection=vocabulary", "data=shop", "data.source.rows=40", "encoder=tiny",
        "budget=10", "multitask.fit.epochs=1", "finetune.fit.epochs=1", path=CONF.parents[1],
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (result,) = tmp_path.glob("outputs/runs/*/*/result.json")
    found = json.loads(result.read_text())
    assert (found["selection"], found["primary"], found["counts"]) == ("vocabulary", "mood", {"thing": 10})
