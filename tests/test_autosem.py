"""AutoSeM end to end on toy sizes: both stages, what they keep, what they share, and what a killed search loses."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastmtl.stages.fitting
from fastmtl.cli.compose import compose
from fastmtl.data.batching.planned import Ratio
from fastmtl.pipelines.experiment import Experiment
from fastmtl.stages.utilities import Bandit
from tests.helpers.cli import QUIET, run_cli, start_cli
from tests.helpers.waiting import wait_for

SMALL = [
    "debug=smoke", "bandit.rounds=6", "bandit.policy.batches_per_round=1", "bandit.policy.warmup_rounds=1",
    "bandit.fit.batch_size=8", "multitask.fit.batch_size=8",
]  # fmt: skip
AUTOSEM = ("selection=autosem", "mixing=autosem_mixing")


def small(root: Path, *overrides: str) -> Experiment:
    return compose(*SMALL, f"paths.output={root}", *overrides)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts that the tests share."""
    return tmp_path_factory.mktemp("autosem")


@pytest.fixture(scope="module")
def autosem(root: Path) -> Experiment:
    exp = small(root, *AUTOSEM, "mixing.trials=3")
    exp.artifacts()
    return exp


def built(exp: Experiment) -> list[str]:
    return [artifact.kind for artifact in exp.artifacts() if not artifact.hit]


def test_the_bandit_values_every_task_and_its_history_is_kept(autosem: Experiment) -> None:
    utilities = autosem.utilities()
    assert utilities is not None
    told = utilities.read("bandit.json")
    assert told["arms"][0] == "chats"
    assert set(told["arms"]) == set(autosem.pool.names) == set(told["utilities"])
    assert len(told["rounds"]) == 6
    assert not (utilities.path / "weights.safetensors").exists()  # nobody reads the model
    for one in told["rounds"]:
        assert len(one["alpha"]) == len(one["beta"]) == 9
    last = told["rounds"][-1]
    means = np.array(last["alpha"]) / (np.array(last["alpha"]) + np.array(last["beta"]))
    assert list(told["utilities"].values()) == pytest.approx(means.tolist())


def test_half_of_the_primary_rewards_the_bandit_which_trains_on_the_rest(root: Path) -> None:
    def split(*overrides: str) -> tuple[np.ndarray, np.ndarray, Experiment]:
        exp = small(root, "selection=autosem", *overrides)
        bandit = exp.utilities_stage
        assert isinstance(bandit, Bandit)
        assert (list(bandit.rewarded), bandit.rewarded.split) == (["chats"], "train")
        assert next(iter(bandit.rows)) == "chats"
        trained, rewarding = bandit.rows["chats"], bandit.rewarded["chats"]
        assert not set(trained) & set(rewarding)
        return trained, rewarding, exp

    trained, rewarding, exp = split()
    kept, held = (rows["chats"] for rows in exp.primary_rows)
    total = len(kept) + len(held)
    assert len(rewarding) == total // 2
    assert set(held) < set(rewarding)
    assert set(trained) | set(rewarding) == set(kept) | set(held)

    trained, rewarding, _ = split("bandit.policy.validation_rows=3")
    assert len(rewarding) == 3
    assert set(rewarding) < set(held)
    np.testing.assert_array_equal(trained, kept)  # no row chooses the epoch and trains the bandit

    trained, rewarding, _ = split("bandit.holdout=0.99")
    assert len(trained) == total - int(0.99 * total)


def test_under_the_papers_protocol_the_validation_split_rewards_the_bandit(root: Path) -> None:
    exp = small(root, "selection=autosem", "protocol=paper")
    bandit = exp.utilities_stage
    assert isinstance(bandit, Bandit)
    assert bandit.rewarded.split == "validation"
    np.testing.assert_array_equal(bandit.rows["chats"], exp.primary_rows[0]["chats"])


@pytest.mark.parametrize(
    ("useful", "chosen"),
    [
        ({"mails": 0.3, "diary": 0.2}, {"mails", "diary"}),  # the two best, however bad
        ({"mails": 0.9, "diary": 0.8, "bot": 0.6, "floors": 0.5}, {"mails", "diary", "bot"}),  # all above 0.5
    ],
)
def test_the_rows_are_those_of_the_best_tasks(
    autosem: Experiment, tmp_path: Path, useful: dict[str, float], chosen: set[str]
) -> None:
    """As the bandit's file says, here another one than it wrote."""
    shutil.copytree(autosem.store.root, tmp_path / "artifacts", ignore=shutil.ignore_patterns("selection"))
    exp = small(tmp_path, *AUTOSEM, "mixing.trials=3", "budget=64")
    path = exp.utilities().path / "bandit.json"
    bandit = json.loads(path.read_text())
    bandit["utilities"] = {name: useful.get(name, 0.1) for name in bandit["utilities"]} | {"chats": 1.0}
    path.write_text(json.dumps(bandit))
    counts = exp.selection().read("counts.json")
    assert {name for name, count in counts.items() if count} == chosen
    assert sum(counts.values()) == 64


def test_the_best_trial_is_the_result_and_nothing_is_trained_twice(autosem: Experiment) -> None:
    mixing = autosem.mixing().read("mixing.json")
    best = max(mixing["trials"], key=lambda trial: trial["value"])
    assert mixing["ratio"] == best["ratio"]
    assert autosem.multitask_stage.sampling == Ratio(tuple(best["ratio"]), hold="passes")
    assert [["multitask", autosem.multitask().key], ["finetune", autosem.finetune().key]] == best["stages"]
    assert autosem.multitask().manifest["made"] <= autosem.mixing().manifest["made"]
    fit = autosem.finetune().read("fit.json")
    assert best["value"] == fit["epochs"][fit["best_epoch"]]["accuracy"]


def test_every_trial_passes_the_primary_as_often(autosem: Experiment) -> None:
    """All rows but those that are held out, once per epoch."""
    for trial in autosem.mixing().read("mixing.json")["trials"]:
        kind, key = trial["stages"][0]
        passes = json.loads((autosem.store.root / kind / key / "manifest.json").read_text())["records"]["passes"]
        assert passes["chats"] == autosem.multitask_fit.epochs


def test_what_the_search_built_a_moment_ago_is_not_said_to_be_found(autosem: Experiment) -> None:
    assert built(autosem)[-3:] == ["mixing", "multitask", "finetune"]


def test_the_cost_of_the_search_is_that_of_all_other_trials(autosem: Experiment) -> None:
    records, told = autosem.mixing().records, autosem.mixing().read("mixing.json")
    others = [trial for trial in told["trials"] if trial["ratio"] != told["ratio"]]
    assert records["trials"] == 3
    assert records["flops"] == pytest.approx(sum(trial["flops"] for trial in others))
    assert records["wall_s"] >= sum(trial["wall_s"] for trial in others)


@pytest.mark.slow
def test_without_weights_a_search_is_found_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastmtl")
    first = small(tmp_path, *AUTOSEM, "mixing.trials=2")
    first.artifacts()
    said = caplog.text
    assert "28 rows of chats reward the bandit, few for a reliable choice" in said
    assert "6 rows of chats choose the ratio, few for a reliable choice; raise protocol.holdout" in said
    first.drop_weights()
    assert not list(tmp_path.glob("artifacts/multitask/*/weights.safetensors"))
    assert built(small(tmp_path, *AUTOSEM, "mixing.trials=2")) == []
    assert "mixing" in built(small(tmp_path, *AUTOSEM, "mixing.trials=3"))


def test_repeated_it_finds_everything_and_a_longer_search_reuses_the_trials(root: Path, autosem: Experiment) -> None:
    assert built(small(root, *AUTOSEM, "mixing.trials=3")) == []
    longer = small(root, *AUTOSEM, "mixing.trials=4")
    before = {path.name for path in (root / "artifacts" / "finetune").iterdir()}
    assert "mixing" in built(longer)
    after = {path.name for path in (root / "artifacts" / "finetune").iterdir() if not path.name.startswith(".")}
    assert len(after - before) == 1
    assert longer.mixing().read("mixing.json")["trials"][:3] == [
        {**trial, "ask_s": pytest.approx(trial["ask_s"], abs=10)}
        for trial in autosem.mixing().read("mixing.json")["trials"]
    ]


def test_a_dropped_task_is_as_if_it_had_not_been_selected(root: Path, autosem: Experiment) -> None:
    names = [name for name, count in autosem.selection().read("counts.json").items() if count]
    zero = small(root, "selection=autosem", "sampling=ratio",
                 f"sampling.ratios={[2, 1] + [0] * (len(names) - 1)}")  # fmt: skip
    stage = zero.multitask_stage
    assert list(stage.rows) == ["chats", names[0]]
    assert stage.sampling == Ratio((2, 1))


def test_the_ablations_are_one_choice_each(root: Path, autosem: Experiment) -> None:
    without_stage_2 = small(root, "selection=autosem", "mixing=none")
    assert without_stage_2.mixing() is None
    assert without_stage_2.selection().key == autosem.selection().key
    equal = small(root, "selection=autosem", "mixing=autosem_equal")
    assert set(equal.mixing().read("mixing.json")["ratio"]) == {1}
    assert built(equal) == ["mixing"]  # the first trial of every search
    without_stage_1 = small(root, "selection=random", "mixing=autosem_grid", "mixing.trials=1")
    assert without_stage_1.utilities() is None
    assert without_stage_1.mixing().read("mixing.json")["tasks"][0] == "chats"
    picked = small(root, "selection=hand_picked", "selection.selector.tasks=[diary,mails]")
    assert {name for name, n in picked.selection().read("counts.json").items() if n} == {"mails", "diary"}


def test_rows_of_the_chosen_tasks_may_be_ranked_by_feature_similarity(root: Path, autosem: Experiment) -> None:
    both = small(root, "selection=autosem_feature_similarity", "stage=selection", "budget=8")
    assert both.utilities().key == autosem.utilities().key
    chosen, scores = both.selected(), both.all_scores()[0]
    tasks = {name for name, n in autosem.selection().read("counts.json").items() if n}
    rows = both.candidate_ids()
    names = np.array(both.pool.names)[both.pool.task_of(rows)]
    within = rows[np.isin(names, list(tasks))]
    assert set(chosen.tolist()) == set(within[np.argsort(-scores[within])[:8]].tolist())


def test_fewer_rows_than_the_budget_are_taken_whole(root: Path) -> None:
    picked = small(root, "selection=hand_picked", "selection.selector.tasks=[diary]", "budget=200")
    assert len(picked.selected()) == 64 - 16  # rows_per_task less the proxy's sample


def test_a_search_that_was_stopped_goes_on_at_the_trial_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fits = fastmtl.stages.fitting.run_fit, []

    def run_fit(job: Any) -> dict[str, Any]:
        if len(fits) == 4:  # the bandit, the first trial's two fits, and one of the second
            raise KeyboardInterrupt
        fits.append(job.title)
        return real(job)

    monkeypatch.setattr(fastmtl.stages.fitting, "run_fit", run_fit)
    arguments = (*AUTOSEM, "mixing.trials=3")
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, *arguments).artifacts()
    assert fits == ["bandit", "multitask", "finetune", "multitask"]
    monkeypatch.setattr(fastmtl.stages.fitting, "run_fit", lambda job: fits.append(job.title) or real(job))
    small(tmp_path, *arguments).artifacts()
    assert fits[4:] == ["finetune", "multitask", "finetune"]


@pytest.mark.slow
def test_a_killed_search_loses_at_most_the_running_trial(tmp_path: Path) -> None:
    arguments = [*SMALL, *AUTOSEM, "mixing.trials=4"]
    done = tmp_path / "killed" / "artifacts"
    for trials in (1, 2):  # between two trials or inside one, whichever it is by then
        process = start_cli(tmp_path, *arguments, "paths.output=killed", **QUIET)
        wait_for(lambda: len(list(done.glob("finetune/[!.]*/manifest.json"))) >= trials, process=process)  # noqa: B023
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = {path.parent.name for path in done.glob("*/[!.]*/manifest.json")}  # drafts are hidden
    for output in ("killed", "whole"):
        ran = run_cli(tmp_path, *arguments, f"paths.output={output}")
        assert ran.returncode == 0, ran.stderr
    whole = {path.parent.name for path in (tmp_path / "whole" / "artifacts").glob("*/*/manifest.json")}
    assert {path.parent.name for path in done.glob("*/*/manifest.json")} == whole
    assert kept < whole
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*/runs/*/*/result.json"))]
    assert results[0]["metrics"] == results[1]["metrics"]
