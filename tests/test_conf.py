"""Every option composes and instantiates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from fastmtl.cli.cell import cell_logger
from fastmtl.cli.compose import compose, conf_dir, values
from fastmtl.data.sources.generated import sample_tasks
from fastmtl.errors import UserError
from fastmtl.relations.predictor import GainPredictor
from tests.conftest import has_cuda

GROUPS = {
    group.name: sorted(option.stem for option in group.glob("*.yaml"))
    for group in sorted(Path(conf_dir()).iterdir())
    if group.is_dir() and group.name != "hydra"
}
DEFAULTS = re.findall(r"^  - (\w+): (\w+)", (Path(conf_dir()) / "config.yaml").read_text(), flags=re.MULTILINE)
CHOICES = [
    f"{group}={option}"
    for group, options in GROUPS.items()
    for option in options
    if group not in ("fit", "logger") and (group, option) not in DEFAULTS
]

TASKS_YAML = """
tasks:
- {name: tickets, kind: classification, text: body, labels: [no, yes], splits: {train: t.csv, validation: t.csv}}
- {name: prices, kind: regression, text: body, splits: {train: t.csv}}
"""


@pytest.fixture
def needed(tmp_path: Path) -> dict[str, list[str]]:
    """What an option needs beside itself."""
    (tmp_path / "tasks.yaml").write_text(TASKS_YAML)
    GainPredictor(("main/size",), (0.0,), (1.0,), (1.0,), 0.0).save(tmp_path / "predictor.json")
    for name in ("sst2", "cola"):  # a pile counts the rows that there are
        (tmp_path / name).mkdir()
        pyarrow.parquet.write_table(pa.table({"sentence": list("abcdefgh")}), tmp_path / name / "train.parquet")
    few = ["data.source.unrelated=[cola]", "data.source.rows=2", "data.source.size=8", "data.source.share=0.5"]
    return {
        "data=files": [f"data.config={tmp_path / 'tasks.yaml'}", "primary=tickets"],
        "data=glue_local": [f"data.root={tmp_path}"],
        "data=pile": [f"data.root={tmp_path}", *few],
        "encoder=auto": ["encoder.name=any/encoder"],
        "sampling=ratio": ["sampling.ratios=[5,1]"],
        "selection=hand_picked": ["selection.selector.tasks=[mails]"],
        "selection=predicted_gain": [f"selection.predictor={tmp_path / 'predictor.json'}"],
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_an_option_composes_into_an_experiment(choice: str, needed: dict[str, list[str]]) -> None:
    if choice in ("trainer=gpu", "trainer=ddp", "trainer=fsdp", "trainer=slurm") and not has_cuda():
        with pytest.raises(UserError, match="CUDA"):
            compose(choice)
    else:
        assert compose(choice, *needed.get(choice, [])).primary


LOGGERS = {"none": "NoneType", "csv": "CSVLogger", "wandb": "WandbLogger", "tensorboard": "TensorBoardLogger"}


def logger_of(option: str, folder: Path) -> Any:
    cell = {"id": "0123456789abcdef", "primary": "rte", "selection": "none", "budget": None, "seed": 0}
    return cell_logger(values(f"logger={option}", f"paths.output={folder}"), folder, cell | {"protocol": "strict"})


@pytest.mark.usefixtures("own_environment")
@pytest.mark.parametrize("option", GROUPS["logger"])
def test_a_logger_is_built(option: str, tmp_path: Path) -> None:
    if option in ("wandb", "tensorboard"):
        pytest.importorskip(option)
    assert type(logger_of(option, tmp_path)).__name__ == LOGGERS[option]


@pytest.mark.usefixtures("own_environment")
def test_a_logger_without_its_package_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(UserError, match=r"logger WandbLogger cannot be set up \(.*wandb.*\); install its package"):
        logger_of("wandb", tmp_path)


def test_every_optional_group_has_an_option_none() -> None:
    for group in ("experiment", "debug", "logger", "selection"):
        assert "none" in GROUPS[group]


def test_the_defaults_are_options() -> None:
    assert {group for group, _ in DEFAULTS} == set(GROUPS) - {"fit"}
    assert all(option in GROUPS[group] for group, option in DEFAULTS)


def test_the_default_is_the_generated_sample_on_minilm_with_the_strict_protocol() -> None:
    exp = compose()
    assert exp.tasks == sample_tasks()
    assert exp.primary == "chats"
    assert exp.encoder.name == "minilm"
    assert exp.selection_plan.name == "feature_similarity"
    assert exp.protocol.name == "strict"
    assert exp.seed == 0


def test_quickstart_is_the_default_by_name() -> None:
    def plain(*overrides: str) -> dict[str, Any]:
        values = vars(compose(*overrides)).items()
        return {name: value for name, value in values if name not in ("store", "context")}

    assert plain("experiment=quickstart") == plain()


def test_the_papers_experiment_has_the_papers_numbers() -> None:
    exp = compose("experiment=fastmtl_paper")
    fits = (exp.proxy_plan.fit, exp.multitask_fit, exp.finetune_fit)
    assert exp.encoder.name == "google-bert/bert-base-cased"
    assert [task.name for task in exp.tasks] == ["mnli", "rte", "qqp", "qnli", "mrpc", "sst2", "cola", "stsb"]
    assert [fit.epochs for fit in fits] == [5, 3, 5]
    assert {(fit.batch_size, fit.resolved(exp.hardware, exp.encoder).learning_rate) for fit in fits} == {(32, 2e-5)}
    assert (exp.budget, exp.proxy_plan.examples_per_task, exp.protocol.name) == (500, 500, "paper")
    assert exp.selection_plan.scorer.loss == "ce"


def test_the_experiment_on_task_relations_has_the_papers_numbers() -> None:
    exp = compose("experiment=relations_paper", "data=sample", "primary=mails")
    assert (exp.encoder.hidden_size, exp.encoder.layers, exp.encoder.max_length) == (100, 1, 30)
    assert (exp.encoder.embedding_size, exp.encoder.dropout) == (100, 0)
    assert type(exp.sampling).__name__ == "Uniform"
    for fit in (exp.multitask_fit, exp.finetune_fit, exp.relations_plan.fit):
        assert (fit.optimizer, fit.learning_rate, fit.batch_size, fit.schedule) == ("adadelta", 0.1, 32, "constant")
        assert (fit.dropout, fit.max_grad_norm) == (0, 0)


def test_a_preset_may_be_changed_on_the_command_line() -> None:
    exp = compose("experiment=fastmtl_paper", "primary=mrpc", "budget=7", "encoder=tiny", "finetune.fit.epochs=2")
    assert (exp.primary, exp.budget, exp.encoder.name) == ("mrpc", 7, "tiny")
    assert (exp.proxy_plan.fit.epochs, exp.finetune_fit.epochs) == (5, 2)


def test_every_fit_takes_the_encoders_learning_rate_unless_it_sets_its_own() -> None:
    exp = compose("encoder=tiny", "multitask.fit.learning_rate=0.5")
    fits = (exp.proxy_plan.fit, exp.multitask_fit, exp.finetune_fit, exp.bandit_plan.fit, exp.relations_plan.fit)
    rates = [fit.resolved(exp.hardware, exp.encoder).learning_rate for fit in fits]
    assert rates == [1e-3, 0.5, 1e-3, 1e-3, 1e-3]


def test_one_fit_is_changed_without_the_others() -> None:
    exp = compose("proxy.fit.epochs=9", "multitask.fit.batch_size=8")
    assert [fit.epochs for fit in (exp.proxy_plan.fit, exp.multitask_fit, exp.finetune_fit)] == [9, 3, 5]
    assert [fit.batch_size for fit in (exp.proxy_plan.fit, exp.multitask_fit, exp.finetune_fit)] == [32, 8, 32]


def test_rows_per_task_may_be_one_number_or_one_a_task() -> None:
    assert compose("data.rows_per_task=64").rows_per_task == 64
    assert compose("data.rows_per_task={mails: 10}").rows_per_task == {"mails": 10}
    assert compose().rows_per_task is None


def test_composing_leaves_a_host_programs_hydra_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("answer: 42\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        assert compose("encoder=tiny").primary == "chats"
        with pytest.raises(UserError):
            compose("bugdet=3")
        assert GlobalHydra.instance().hydra is before
        assert hydra_compose("mine").answer == 42
    GlobalHydra.instance().clear()
    compose("encoder=tiny")
    assert not GlobalHydra.instance().is_initialized()
