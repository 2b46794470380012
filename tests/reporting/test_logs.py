"""One cell in three loggers, and the W&B run as it is on disk."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fastmtl.cli.cell import cell_logger
from fastmtl.cli.compose import conf_dir
from fastmtl.errors import UserError
from fastmtl.reporting.logs import COLUMNS, log_cell, scalars
from fastmtl.reporting.result import selected_rows

STEPS = ((10, 0.7), (20, 0.5))


def result(folder: Path, **more: Any) -> dict[str, Any]:
    """Two proxies, a scoring pass in two shards, multitask and finetune, with the curves of what was trained."""
    stages = [
        {"stage": stage, "key": str(i), "hit": False, "path": str(folder / str(i)), "wall_s": 2.0, "flops": 1e9}
        for i, stage in enumerate(["pool", "proxy", "proxy", "scores", "scores", "selection", "multitask", "finetune"])
    ]
    for stage in stages:
        if stage["stage"] in ("proxy", "multitask", "finetune"):
            Path(stage["path"]).mkdir(parents=True, exist_ok=True)
            lines = [f"{step},0,loss/rte,{value}\n" for step, value in STEPS]
            Path(stage["path"], "curves.csv").write_text("step,epoch,name,value\n" + "".join(lines))
    return {
        "id": "0123456789abcdef", "study": "mine", "primary": "rte", "selection": "autosem", "budget": 60, "seed": 3,
        "protocol": "strict", "encoder": "tiny", "pool": "0123", "metric": "accuracy", "validation_rows": 277,
        "auxiliary_rows": 60, "headline": 0.6, "metrics": {"validation": {"accuracy": 0.6, "loss": 0.7}}, "audit": None,
        "counts": {"mnli": 60, "qqp": 0},
        "candidates": {"mnli": 90, "qqp": 90}, "precision_at_budget": 0.5, "relevant_share": None, "best_epoch": 1,
        "stages": stages, "total": {"wall_s": 14.0, "flops": 7e9}, "utilities": {"rte": 0.6, "mnli": 0.7},
        "mixing": {"tasks": ["rte", "mnli"], "ratio": [3, 1], "trials": []}, "config": {}, "command": "fastmtl seed=3",
        **more,
    }  # fmt: skip


ROWS = [
    {
        "end": end,
        "rank": rank,
        "task": "mnli",
        "row": 7,
        "score": -rank / 2,
        "label": "yes",
        "text_a": "a",
        "text_b": "",
    }
    for rank, end in enumerate(["top", "top", "bottom"], 1)
]
ENDS = {
    "score": 0.6, "best_epoch": 1, "aux_rows": 60, "budget": 60, "seed": 3, "validation_rows": 277,
    "precision_at_budget": 0.5, "total_flops": 7e9, "total_wall_s": 14.0, "validation/accuracy": 0.6,
    "validation/loss": 0.7, "rows/mnli": 60, "rows/qqp": 0, "utility/rte": 0.6, "utility/mnli": 0.7,
    "ratio/rte": 3, "ratio/mnli": 1, "wall_s/scores": 4.0, "flops/scores": 2e9,
}  # fmt: skip
CURVES = {f"{stage}/{name}" for stage in ("proxy", "multitask", "finetune") for name in ("loss/rte", "step")}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same cell in every logger, told twice to those that keep one run of it."""
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("logs")
    figure = folder / "posteriors.png"
    pytest.importorskip("PIL.Image").new("RGB", (2, 2)).save(figure)
    with mock.patch.dict(os.environ):
        for name in ("WANDB_MODE", "WANDB_SILENT"):
            os.environ.pop(name, None)
        for option in ("csv", "tensorboard", "tensorboard", "wandb", "wandb"):
            GlobalHydra.instance().clear()
            with initialize_config_dir(conf_dir(), version_base="1.3"):
                cfg = compose("config", [f"logger={option}", f"paths.output={folder}", "study=mine", "primary=chats"])
            config: Any = OmegaConf.to_container(cfg, resolve=True)
            told = result(folder / "artifacts")
            log_cell(cell_logger(cfg, folder, told), told, config, ROWS, figure)
        wandb.teardown()  # its service is a process
    return folder


def records(folder: Path) -> Iterator[Any]:
    """What a W&B run wrote: protobuf messages in LevelDB's log format, blocks of 32 KiB after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    data, place, whole = path.read_bytes(), 7, b""
    while place < len(data):
        if (room := 32768 - place % 32768) < 7:
            place += room
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


def items(updates: Any) -> dict[str, Any]:
    """Values by key, those of a dictionary by both keys with a slash between."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


@pytest.fixture(scope="module")
def wandb_run(logged: Path) -> SimpleNamespace:
    (folder,) = logged.glob("wandb/offline-run-*")  # the second replaced the first
    found = list(records(folder))
    runs = [record.run for record in found if record.HasField("run")]
    configs = [runs[0].config, *(record.config for record in found if record.HasField("config"))]
    return SimpleNamespace(
        folder=folder,
        run=runs[0],
        config={k: v for config in configs for k, v in items(config.update).items()},
        history=[items(record.history.item) for record in found if record.HasField("history")],
        summary={k: v for r in found if r.HasField("summary") for k, v in items(r.summary.update).items()},
        axes={r.metric.glob_name: r.metric.step_metric for r in found if r.HasField("metric") and r.metric.glob_name},
    )


def test_a_cell_is_one_wandb_run_however_often_it_is_repeated(wandb_run: SimpleNamespace) -> None:
    run = wandb_run.run
    assert (run.run_id, run.run_group, run.job_type, run.project) == ("0123456789abcdef", "mine", "autosem", "fastmtl")
    assert run.display_name == "rte-autosem-60-3"
    assert set(run.tags) == {"rte", "autosem", "budget 60", "protocol strict"}


def test_wandb_has_the_configuration_and_what_to_filter_by(wandb_run: SimpleNamespace) -> None:
    config = wandb_run.config
    assert (config["budget"], config["id"], config["command"]) == (60, "0123456789abcdef", "fastmtl seed=3")
    assert config["setting"] == "rte accuracy strict tiny 0123"
    assert config["finetune"]["fit"]["epochs"] == 5


def test_the_curves_of_a_stage_have_its_steps_for_their_axis(wandb_run: SimpleNamespace) -> None:
    assert {
        f"{stage}/*": f"{stage}/step" for stage in ("proxy", "multitask", "finetune")
    }.items() <= wandb_run.axes.items()
    steps = {
        stage: [row[f"{stage}/step"] for row in wandb_run.history if f"{stage}/loss/rte" in row]
        for stage in ("proxy", "finetune")
    }
    assert steps == {"proxy": [10, 20, 31, 41], "finetune": [10, 20]}  # the second proxy follows the first


def test_the_summary_of_a_run_is_its_result(wandb_run: SimpleNamespace) -> None:
    assert ENDS.items() <= wandb_run.history[-1].items()
    assert ENDS.items() <= wandb_run.summary.items()


def test_top_and_bottom_rows_are_tables_and_the_beliefs_an_image(wandb_run: SimpleNamespace) -> None:
    files, told = wandb_run.folder / "files", wandb_run.summary
    for end, ranks in (("top", [1, 2]), ("bottom", [3])):
        table = json.loads((files / told[f"selected/{end}/path"]).read_text())
        assert tuple(table["columns"]) == COLUMNS
        assert [row[0] for row in table["data"]] == ranks
    assert (files / told["posteriors/filenames"][0]).exists()


def test_all_loggers_carry_the_same_scalars(logged: Path, wandb_run: SimpleNamespace) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with (logged / "csv/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    (folder,) = (logged / "tensorboard/chats").iterdir()
    board = EventAccumulator(str(folder)).Reload()
    keys = {key for row in wandb_run.history for key in row}
    numbers = {key for key in keys if not key.startswith(("_", "trainer/", "selected/", "posteriors/"))}
    assert numbers == set(rows[0]) - {"step"} == set(board.Tags()["scalars"])
    assert numbers >= set(ENDS) | CURVES
    assert [point.step for point in board.Scalars("finetune/loss/rte")] == [10, 20]  # once, though told twice
    assert [float(row["score"]) for row in rows if row["score"]] == [0.6]


class Run:
    """A W&B run that a server has told us about."""

    def __init__(self, summary: dict[str, float], folder: Path) -> None:
        self.resumed, self.summary, self.dir, self.id = True, summary, str(folder / "run" / "files"), "x"
        self.config = SimpleNamespace(update=lambda values, allow_val_change: None)
        self.told: set[str] = set()
        self.finished = False

    def define_metric(self, name: str, **how: Any) -> None:
        pass

    def log(self, values: dict[str, float]) -> None:
        self.told |= set(values)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own process, which a faked run does not need."""
    monkeypatch.setattr(pytest.importorskip("wandb"), "setup", lambda: None)


@pytest.mark.usefixtures("no_service")
@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_the_server_has_to_its_end_gets_no_second_curves(tmp_path: Path, whole: bool) -> None:
    logger = pytest.importorskip("pytorch_lightning.loggers").WandbLogger
    run = Run({"score": 0.6} if whole else {}, tmp_path)
    log_cell(logger(experiment=run), result(tmp_path), {})
    assert ("proxy/loss/rte" in run.told) is not whole
    assert "score" in run.told
    assert run.finished


@pytest.mark.usefixtures("no_service")
def test_a_run_is_finished_whatever_happens(tmp_path: Path) -> None:
    logger = pytest.importorskip("pytorch_lightning.loggers").WandbLogger
    run = Run({}, tmp_path)
    with pytest.raises(AttributeError):
        log_cell(logger(experiment=run), result(tmp_path, utilities=[0.6]), {})
    assert run.finished


def test_a_server_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    logger = pytest.importorskip("pytorch_lightning.loggers").WandbLogger

    def refuse() -> None:
        raise wandb.Error("No API key configured.\nmore")

    monkeypatch.setattr(wandb, "setup", refuse)
    with pytest.raises(UserError, match=r"^W&B: No API key configured. \(logger.offline=true sends nothing\)$"):
        log_cell(logger(experiment=Run({}, tmp_path)), result(tmp_path), {})


def test_what_a_cell_does_without_is_no_scalar(tmp_path: Path) -> None:
    named = scalars(result(tmp_path, utilities=None, mixing=None, budget=None, precision_at_budget=None))
    assert not {"budget", "precision_at_budget"} & set(named)
    assert not [name for name in named if name.startswith(("utility/", "ratio/"))]


def finished(pool: Any, selection: Path) -> Any:
    """What `selected_rows` asks of an experiment."""
    return SimpleNamespace(pool=pool, selection=lambda: SimpleNamespace(path=selection))


@pytest.mark.parametrize(("n", "expected"), [(2, "top 1, top 2, bottom 5, bottom 6"), (4, "top 1, top 2, top 3, top 4, "
                         "bottom 5, bottom 6"), (9, "top 1, top 2, top 3, top 4, top 5, top 6")])  # fmt: skip
def test_selected_rows_are_those_at_the_ends(tiny_pool: Any, tmp_path: Path, n: int, expected: str) -> None:
    chosen = {"task": ["single", "pairs", "score"] * 2, "row": [3, 1, 4, 0, 11, 2]}
    pa.parquet.write_table(
        pa.table({**chosen, "score": np.float32([6, 5, 4, 3, 2, np.nan])}), tmp_path / "selection.parquet"
    )
    rows = selected_rows(finished(tiny_pool, tmp_path), n)
    assert ", ".join(f"{row['end']} {row['rank']}" for row in rows) == expected
    first, last = rows[0], rows[-1]
    assert (first["task"], first["row"], first["score"], first["label"], first["text_b"]) == ("single", 3, 6, "red", "")
    assert (last["score"], last["label"]) == (None, "0.5")
    assert rows[1]["text_a"] == tiny_pool.texts(np.array([1]))[0]["a"]
    assert rows[1]["text_b"] == tiny_pool.texts(np.array([1]))[0]["b"]


def test_nothing_selected_is_no_row(tiny_pool: Any, tmp_path: Path) -> None:
    columns = {"task": pa.array([], pa.string()), "row": pa.array([], pa.int64()), "score": pa.array([], pa.float32())}
    pa.parquet.write_table(pa.table(columns), tmp_path / "selection.parquet")
    assert selected_rows(finished(tiny_pool, tmp_path)) == []
