"""What a user can get wrong: one line that names the value and what to do, exit code 2, nothing half-made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.selection.base import PoolExhausted
from tests.conftest import has_cuda
from tests.helpers.cli import start_cli


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as error:
        compose(*overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("primary=nope", ["'nope'", "chats"]),
        ("data=nope", ["data=nope", "glue_local"]),
        ("selection=nope", ["selection=nope", "feature_similarity"]),
        ("encoder=nope", ["encoder=nope", "minilm"]),
        ("protocol=nope", ["protocol=nope", "strict"]),
        ("budget=-5", ["budget=-5", "whole number"]),
        ("budget=0", ["budget=0", "whole number"]),
        ("budget=nan", ["budget=nan", "whole number"]),
        ("budget=abc", ["budget='abc'", "whole number"]),
        ("budget=null", ["budget=None", "whole number"]),
        ("seed=-1", ["seed=-1", "whole number"]),
        ("bugdet=3", ["'bugdet'", "did you mean 'budget'"]),
        ("proxy.fit.epoch=3", ["'proxy.fit.epoch'", "did you mean 'proxy.fit.epochs'"]),
        ("sampling.temperature=3", ["is not a key of the selected options; sampling=temperature has it"]),
        ("selection.selector.top=3", ["selection=autosem, ", "study=NAME"]),
        ("selection.predictor=file", ["selection=predicted_gain has it"]),
        ("mixing.trial=3", ["'mixing.trial'", "did you mean"]),
        ("proxy.fit.epochs=0", ["fit.epochs=0", "1 or more"]),
        ("finetune.fit.batch_size=1.5", ["fit.batch_size=1.5", "whole number"]),
        ("multitask.fit.learning_rate=abc", ["fit.learning_rate='abc'", "number"]),
        ("finetune.fit.precision=int8", ["'int8'", "bf16"]),
        ("proxy.examples_per_task=0", ["proxy.examples_per_task=0", "1 or more"]),
        ("proxy.examples_per_task=1.5", ["proxy.examples_per_task=1.5"]),
        ("proxy.examples_per_task=nan", ["proxy.examples_per_task=nan"]),
        ("proxy.examples_per_task=abc", ["proxy.examples_per_task=", "abc"]),
        ("proxy.cross_fit=maybe", ["proxy.cross_fit=", "maybe", "true"]),
        ("protocol.holdout=1", ["protocol.holdout=1", "above 0 and below 1"]),
        ("protocol.holdout=abc", ["protocol.holdout=", "abc"]),
        ("selection.scorer.loss=hinge", ["selection.scorer.loss='hinge'", "one of ce, bce"]),
        ("encoder.pooling=max", ["'max'", "mean"]),
        ("encoder.max_length=2", ["encoder.max_length=2", "4 or more"]),
        ("encoder.max_length=abc", ["max_length=", "abc"]),
        ("encoder=auto", ["encoder.name", "pass encoder.name="]),
        ("sampling.length_bucket_batches=0", ["sampling.length_bucket_batches=0"]),
        ("sampling.length_bucket_batches=abc", ["sampling.length_bucket_batches='abc'", "1 or more"]),
        ("trainer.devices=0", ["trainer.devices=0"]),
        ("trainer.devices=abc", ["trainer.devices=", "abc"]),
        ("trainer.accelerator=tpu", ["trainer.accelerator=", "tpu", "cpu"]),
        ("data.rows_per_task=1", ["data.rows_per_task=1", "2 or more"]),
        ("data.rows_per_task=2.5", ["data.rows_per_task=2.5"]),
        ("data.rows_per_task=abc", ["data.rows_per_task=", "abc"]),
        ("data.rows_per_task={nope: 5}", ["'nope'", "chats"]),
        ("data.rows_per_task={mails: abc}", ["data.rows_per_task", "abc"]),
        ("encoder=tiny,minilm", ["encoder=tiny,minilm", "-m"]),
        ("bandit.rounds=0", ["bandit.rounds=0", "1 or more"]),
        ("bandit.holdout=1", ["bandit.holdout=1", "above 0 and below 1"]),
        ("bandit.policy.decay=2", ["bandit.policy.decay=2", "0 or more and below 1"]),
        ("bandit.policy.reward=luck", ["bandit.policy.reward='luck'", "not_worse_than_previous"]),
        ("bandit.policy.metric=f1", ["bandit.policy.metric='f1'", "one of headline, loss, probability"]),
        ("proxy.fit.schedule=cosine", ["proxy.fit.schedule='cosine'", "one of linear, constant"]),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_before_anything_is_computed(override: str, named: list[str]) -> None:
    message = refusal(override)
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["sampling=ratio", "sampling.ratios=[0,0,0]"], ["[0, 0, 0] gives the primary no batch", "1 or more"]),
        (["sampling=ratio", "sampling.ratios=[0,5,1]"], ["[0, 5, 1] gives the primary no batch", "the first"]),
        (["selection=hand_picked"], ["selection.selector.tasks", "pass selection.selector.tasks="]),
        (["selection=hand_picked", "selection.selector.tasks=[mails,barn]"], ["'barn'", "mails, calls"]),
        (["selection=hand_picked", "selection.selector.tasks=[chats]"], ["'chats'", "no auxiliary task"]),
        (["selection=hand_picked", "selection.selector.tasks=mails"], ["tasks='mails'", "[a,b]"]),
        (["selection=autosem", "selection.selector.top=9"], ["top=9", "8 auxiliary tasks"]),
        (["selection=autosem", "selection.selector.top=0", "selection.selector.threshold=null"], ["takes no task"]),
        (["mixing=autosem_mixing", "sampling=uniform"], ["sampling=Uniform", "mixing=none"]),
        (["mixing=autosem_mixing", "mixing.trials=0"], ["mixing.trials=0", "1 or more"]),
        (["sampling=bandit", "weighting=upgrad"], ["UPGrad", "one task per step", "weighting=equal"]),
        (["sampling=bandit", "sampling.episode=1"], ["sampling.episode=1", "use null"]),
        (["trainer=ddp_cpu", "weighting=pcgrad"], ["weighting=pcgrad works on one device"]),
        (["trainer.accumulate=2", "weighting=cagrad"], ["weighting=cagrad works on one device"]),
        (["multitask.fit.precision=fp16", "weighting=pcgrad"], ["weighting=pcgrad", "fp16"]),
        (["weighting=gradnorm", "weighting.parts=1"], ["weighting.parts=1", "2 or more"]),
        (["trainer=ddp_cpu", "trainer.strategy=fsdp", "sampling=exp3"], ["trainer.strategy=fsdp", "use ddp"]),
        (["weighting=pcgrad", "multitask.fit.batch_size=3"], ["multitask.fit.batch_size=3", "weighting.parts=4"]),
        (["weighting.parts=5", "multitask.fit.batch_size=4"], ["multitask.fit.batch_size=4", "weighting.parts=5"]),
        (["sampling=exp3", "multitask.fit.batch_size=1"], ["multitask.fit.batch_size=1", "use 2"]),
        *(
            (["encoder=tiny", "multitask.fit.freeze_layers=2", choice], ["no trained weights", "freeze_layers"])
            for choice in ("sampling=exp3", "sampling=ucb1", "weighting=gradnorm", "weighting=pcgrad")
        ),
        (["logger=[csv,wandb]"], ["logger=[csv,wandb] names several options of logger", "name one"]),
        (["+encoder@proxy.encoder=[tiny,minilm]"], ["several options of encoder"]),
        (["data.rows_per_task={größe: 3}"], ["größe", "cannot be read", "YAML file"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_choices_that_do_not_go_together_are_refused(overrides: list[str], named: list[str]) -> None:
    message = refusal(*overrides)
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["data=glue", "data.tasks=[rte,squad]"], ["'squad'", "mnli"]),
        (["data=glue", "data.tasks=[rte]"], ["'rte'", "selection=none"]),
        (["data=glue", "primary=chats"], ["'chats'", "mnli, rte"]),
        (["data=glue_local"], ["data.root is not set", "pass data.root="]),
        (["data=glue_local", "data.root=nowhere"], ["data.root='nowhere'", "folder"]),
        (["data=files", "data.config=tasks.yaml"], ["primary is not set", "pass primary="]),
        (["data=files", "primary=tickets"], ["data.config=FILE.yaml"]),
        (["data=files", "primary=tickets", "data.config=nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_data_that_cannot_be_had_is_refused_with_the_key_to_set(overrides: list[str], named: list[str]) -> None:
    message = refusal(*overrides)
    for part in named:
        assert part in message


def test_a_primary_without_a_validation_split_is_refused(tmp_path: Path) -> None:
    spec = "{name: %s, kind: regression, text: a, splits: {train: a.csv}}"
    (tmp_path / "tasks.yaml").write_text(f"tasks: [{spec % 'one'}, {spec % 'two'}]")
    for selection in ("random", "autosem"):  # which has nothing to be rewarded on
        message = refusal(
            "data=files", f"data.config={tmp_path}/tasks.yaml", "data.primary=one", f"selection={selection}"
        )
        assert "'one' has no validation split" in message


def test_a_gpu_that_is_not_there_is_refused_with_what_to_use() -> None:
    if has_cuda():
        pytest.skip("this machine has a GPU")
    message = refusal("trainer=gpu")
    assert "no CUDA device" in message
    assert "trainer=cpu" in message


@pytest.mark.parametrize("selection", ["feature_similarity", "random"])
def test_a_budget_above_the_candidates_fails_before_a_proxy_is_trained(
    tmp_path_factory: pytest.TempPathFactory, selection: str
) -> None:
    artifacts = tmp_path_factory.getbasetemp() / "bad_budget"  # the second case finds the first one's tokens
    exp = compose("encoder=tiny", "budget=1000000", f"selection={selection}", f"paths.artifacts={artifacts}")
    with pytest.raises(PoolExhausted, match=r"budget=1000000 .*candidate rows.*selection=full"):
        exp.artifacts("selection")
    assert {path.name for path in artifacts.iterdir()} == {"pool", "leakage"}


def test_an_unknown_stage_is_named_with_those_there_are(tmp_path: Path) -> None:
    exp = compose("encoder=tiny", f"paths.artifacts={tmp_path / 'artifacts'}")
    with pytest.raises(UserError, match=r"stage='nope'.*pool, leakage, proxy"):
        exp.artifacts("nope")
    assert not (tmp_path / "artifacts").exists()


# --- the command itself: slow, so a few cases, started together ------------------------------------------------------

COMMANDS = {
    "a misspelt key": (["bugdet=3"], "did you mean 'budget'?"),
    "an unknown option": (["selection=nope"], "selection=nope is not an option; choose from"),
    "a bad value": (["budget=0"], "budget=0 is out of range"),
    "two loggers": (["logger=[csv,wandb]"], "logger=[csv,wandb] names several options of logger"),
    "a key that is not ASCII": (["größe=3"], "'größe=3' cannot be read; put quotes"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, subprocess.Popen[str]]]]:
    started = {}
    for case, (arguments, _) in COMMANDS.items():
        folder = tmp_path_factory.mktemp("run")
        started[case] = (folder, start_cli(folder, *arguments, stderr=subprocess.PIPE))
    yield started
    for _, process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_says_one_line_and_exits_with_2(
    case: str, runs: dict[str, tuple[Path, subprocess.Popen[str]]]
) -> None:
    folder, process = runs[case]
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith("fastmtl: ")
    assert err.count("\n") == 1
    assert COMMANDS[case][1] in err
    assert "Traceback" not in out + err
    assert not (folder / "outputs" / "artifacts").exists()
