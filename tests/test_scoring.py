"""Shards, cascades, small proxies and added data, through the whole chain up to the selection."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.pipelines.experiment import Experiment
from fastmtl.plans import CascadeLevel, SelectionPlan
from fastmtl.reporting.report import comparison
from fastmtl.reporting.result import summarize
from fastmtl.scoring.base import Needs, ScoringInputs
from fastmtl.selection.rows import TopK
from tests.helpers.cells import SMALL
from tests.helpers.cli import QUIET, start_cli
from tests.helpers.waiting import wait_for

CELL = [*SMALL, "budget=60", "data.leakage=report"]
"""All rows stay, so that they can be counted."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


def cell(folder: Path, *overrides: str) -> Experiment:
    return compose(*CELL, f"paths.output={folder}", *overrides)


def test_artifacts_say_built_also_when_the_pool_was_looked_at_first(tmp_path: Path) -> None:
    exp = cell(tmp_path)
    assert len(exp.pool.tasks) == 9
    assert not any(artifact.hit for artifact in exp.token_ids())
    assert all(artifact.hit for artifact in cell(tmp_path).token_ids())


def built(experiment: Experiment) -> dict[str, int]:
    """How many artifacts up to the selection were not found, by stage."""
    made = [artifact.kind for artifact in experiment.artifacts("selection") if not artifact.hit]
    return {stage: made.count(stage) for stage in made}


def tokens(experiment: Experiment, row_ids: np.ndarray) -> np.ndarray:
    """(n,) lengths of rows."""
    pool = experiment.pool
    rows = zip(pool.task_of(row_ids), pool.local(row_ids))
    return np.array([pool.split(pool.names[t], "train").lengths[place] for t, place in rows])


def test_one_proxy_scores_every_row_but_those_it_was_trained_on(shared: Path) -> None:
    exp = cell(shared)
    scores_TN = exp.all_scores()
    assert scores_TN.shape == (9, len(exp.pool))
    rows = np.concatenate([exp.pool.rows_of(name) for name in exp.pool.names])
    expected = np.setdiff1d(rows, exp.pool.sample(40, seed=0))
    for column in scores_TN:
        assert np.flatnonzero(np.isfinite(column)).tolist() == expected.tolist()


def test_the_size_of_shards_changes_neither_scores_nor_selection(shared: Path) -> None:
    whole, cut = cell(shared), cell(shared, "scoring.shard_rows=33")
    assert len(cut.scores()) > len(whole.scores()) == 9
    np.testing.assert_allclose(cut.all_scores(), whole.all_scores(), atol=1e-5)
    assert np.array_equal(cut.selected(), whole.selected())


def test_int8_is_another_artifact_and_chooses_nearly_the_same_rows(shared: Path) -> None:
    exact, rough = cell(shared), cell(shared, "scoring.precision=int8")
    exact.artifacts("selection")
    assert built(rough) == {"scores": 9, "selection": 1}
    assert len(np.intersect1d(exact.selected(), rough.selected())) >= 54  # of 60


def test_a_cascade_reads_all_rows_with_its_first_level_and_the_best_with_its_last(shared: Path) -> None:
    cascade = ("scoring.cascade=[small,large]", "scoring.levels.small.layers=1", "scoring.keep=0.3", "scoring.audit=30")
    exp, full = cell(shared, *cascade), cell(shared)
    full.selection()
    made = built(exp)
    assert 9 < made.pop("scores") <= 17  # small: 9 tasks; large: the auxiliary ones of which rows reach it
    assert made == {"proxy": 1, "selection": 1}
    read = [[shard.rows.count for shard in level] for level in exp.levels[0]]
    assert sum(read[0]) == 28 + 488  # of the primary and of the others, less the proxy's
    assert sum(read[1]) == round(0.3 * 488) + 30
    audit = exp.selection().records["audit"]
    assert (audit["rejected"], audit["audited"]) == (342, 30)
    assert 0 <= audit["low"] <= audit["overlap_at_least"] <= 1
    # Its rows carry the scores that the large proxy gives alone, and it lost no more than the audit allows for.
    chosen = exp.selected()
    assert len(chosen) == 60
    rank = np.argsort(-full.all_scores()[0][chosen], kind="stable")
    assert np.array_equal(rank, np.arange(60))
    assert len(np.intersect1d(chosen, full.selected())) / 60 >= audit["low"]
    # Another budget within what it keeps reads nothing anew.
    assert built(cell(shared, *cascade, "budget=100")) == {"selection": 1}


def test_the_table_says_what_a_cascade_lost(shared: Path) -> None:
    exp = cell(shared, "scoring.cascade=[small,large]", "scoring.levels.small.layers=1", "multitask.fit.epochs=1",
               "finetune.fit.epochs=1")  # fmt: skip
    result = {**summarize(exp), "study": None, "command": "fastmtl"}
    text = comparison([result])
    assert "feature_similarity, budget 60: of the rows that its last level alone would choose" in text
    assert f"{result['audit']['better']} of 366 audited rows" in text
    assert "audited" not in comparison([{**result, "audit": None}])


def test_a_cascade_that_keeps_all_rows_with_one_level_twice_chooses_as_without(shared: Path) -> None:
    exp = cell(shared, "scoring.cascade=[large,large]", "scoring.keep=0.99", "budget=200")
    assert np.array_equal(exp.selected(), cell(shared, "budget=200").selected())
    assert exp.selection().records["audit"]["overlap_at_least"] == 1.0


def test_another_encoder_can_score_for_the_main_one(shared: Path) -> None:
    exp = cell(shared, "+encoder@proxy.encoder=tiny", "proxy.encoder.layers=1")
    assert (exp.passes[0].encoder.layers, exp.encoder.layers) == (1, None)
    assert len(exp.selected()) == 60
    assert exp.proxy()[0].records["flops"] < cell(shared).proxy()[0].records["flops"]


@dataclass(frozen=True)
class Shortest:
    """A scorer without a proxy: the shorter a row, the better."""

    needs: ClassVar[Needs] = "nothing"
    per_primary: ClassVar[bool] = True

    def score(self, inputs: ScoringInputs, state: Path | None, task: str, positions: np.ndarray) -> np.ndarray:
        assert inputs.model is None
        assert state is None
        return -inputs.pool.split(task, "train").lengths[positions].astype(np.float32)[None]


def test_a_scorer_without_a_proxy_trains_none_and_takes_part_in_cascades(shared: Path) -> None:
    plan = SelectionPlan("shortest", TopK(), Shortest())
    exp = replace(cell(shared), selection_plan=plan)
    assert "proxy" not in built(exp)
    lengths = exp.pool.split("mails", "train").lengths
    assert exp.all_scores()[0, exp.pool.rows_of("mails")[0]] == -lengths[exp.pool.local(exp.pool.rows_of("mails"))[0]]
    # Short rows first, and of those the ones that the discriminator likes.
    levels = {"short": CascadeLevel(scorer=Shortest()), "large": CascadeLevel()}
    scoring = replace(exp.scoring, cascade=("short", "large"), keep=0.5, levels=levels)
    both = replace(cell(shared), scoring=scoring)
    assert len(both.proxy()) == 1
    assert tokens(both, both.selected()).max() <= np.median(tokens(both, both.candidate_ids()))


def test_an_added_task_is_scored_without_training_or_scoring_anything_else_anew(tmp_path: Path) -> None:
    def tasks(names: list[str]) -> str:
        for name in names:
            lines = [f"the {name} cook bought {i} apples\t{i % 2}" for i in range(12)]
            (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
        entries = [
            f"- {{name: {name}, kind: classification, text: text, label: label, labels: [0, 1], "
            f"splits: {{train: {name}.tsv, validation: {name}.tsv}}}}"
            for name in names
        ]
        path = tmp_path / f"{len(names)}.yaml"
        path.write_text("tasks:\n" + "\n".join(entries) + "\n")
        return str(path)

    def experiment(names: list[str]) -> Experiment:
        return compose(
            "data=files", f"data.config={tasks(names)}", "primary=one", "encoder=tiny", "budget=4",
            "proxy.tasks=[one,two]", "proxy.examples_per_task=4", "proxy.fit.epochs=1", f"paths.output={tmp_path}",
        )  # fmt: skip

    before = experiment(["one", "two"])
    assert built(before) == {"pool": 2, "leakage": 1, "proxy": 1, "scores": 2, "selection": 1}
    after = experiment(["one", "two", "three"])
    assert built(after) == {"pool": 1, "leakage": 1, "scores": 1, "selection": 1}
    assert after.candidates().count == 8 + 12
    assert np.isfinite(after.all_scores()[:, 24:]).all()


def shards(exp: Experiment, rows: int) -> int:
    """How many shards of at most so many rows the tasks have, less what the proxy was trained on."""
    scored = (np.setdiff1d(exp.pool.rows_of(name), exp.samples[0]) for name in exp.pool.names)
    return sum(math.ceil(len(row_ids) / rows) for row_ids in scored)


@pytest.mark.slow
def test_two_processes_share_the_shards_and_give_the_same_scores(shared: Path) -> None:
    one = cell(shared, "scoring.shard_rows=50")
    shard_rows = ("scoring.shard_rows=51", "trainer=ddp_cpu")
    one.artifacts("proxy")  # the same proxy for both
    two = cell(shared, *shard_rows)
    assert built(two) == {"scores": shards(two, 51), "selection": 1}
    np.testing.assert_allclose(two.all_scores(), one.all_scores(), atol=1e-5)
    assert not list((shared / "artifacts").glob(".job-*"))


@pytest.mark.slow
def test_a_killed_scoring_pass_goes_on_at_the_shard_where_it_was(tmp_path: Path) -> None:
    command = [*CELL, "scoring.shard_rows=2", "stage=selection", f"paths.output={tmp_path}"]
    process = start_cli(tmp_path, *command, **QUIET)
    done = tmp_path / "artifacts/scores"
    wait_for(lambda: len(list(done.glob("[!.]*/manifest.json"))) >= 20, process=process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in done.glob("[!.]*/manifest.json")}
    exp = cell(tmp_path, "scoring.shard_rows=2")
    assert 20 <= len(before) < shards(exp, 2)
    assert built(exp) == {"scores": shards(exp, 2) - len(before), "selection": 1}
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scoring.precision=fp8", r"scoring.precision='fp8' does not fit; use one of auto or one of fp32, bf16"),
        ("scoring.keep=1.5", r"scoring.keep=1.5 does not fit; use a number above 0 and below 1"),
        ("scoring.audit=-1", r"scoring.audit=-1 does not fit; use a whole number of 0 or more"),
        ("scoring.shard_rows=0", r"scoring.shard_rows=0 does not fit; use a whole number of 1 or more"),
        ("scoring.cascade=[tiny,large]", r"names 'tiny', which is no level; choose from small, large"),
        ("scoring.cascade=[large]", r"give two or more of small, large"),
        ("proxy.tasks=[chats]", r"give two or more task names"),
        ("proxy.tasks=[mails,callz]", r"proxy.tasks names 'callz', which is no task"),
        ("encoder.layers=7", r"encoder.layers=7 is out of range; 'tiny' has 1 to 2"),
        ("encoder.layers=two", r"encoder.layers='two' does not fit; use a whole number of 1 or more or null"),
    ],
)
def test_bad_values_are_named_with_what_to_use_instead(shared: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cell(shared, override).proxy()


def test_a_primary_outside_the_proxy_tasks_and_an_oversized_budget_are_said_before_anything_trains(
    tmp_path: Path,
) -> None:
    names = [name for name in cell(tmp_path).pool.names if name != "chats"]
    with pytest.raises(UserError, match=r"proxy\.tasks lacks the primary 'chats'; add it"):
        cell(tmp_path, f"proxy.tasks=[{','.join(names)}]")
    with pytest.raises(UserError, match=r"more than the 122 rows that the cascade keeps; raise scoring\.keep"):
        cell(tmp_path, "scoring.cascade=[small,large]", "budget=200").artifacts("selection")
    with pytest.raises(UserError, match=r"in_task_control draws from all candidates.*use scoring.cascade=\[\]"):
        cell(tmp_path, "scoring.cascade=[small,large]", "selection=in_task_control")
    assert not (tmp_path / "artifacts/proxy").exists()
