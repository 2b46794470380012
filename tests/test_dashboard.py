"""The specification of W&B's pages, held against what a cell logs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

pytest.importorskip("wandb_workspaces")

from fastmtl.cli.compose import conf_dir
from fastmtl.errors import UserError
from fastmtl.reporting.logs import BELIEFS, TABLES, log_cell
from tests.helpers.scripts import script
from tests.reporting.test_logs import result

dashboard = script("dashboard.py")
main, pages, specification, views = dashboard.main, dashboard.pages, dashboard.specification, dashboard.views


def study(folder: Path) -> list[dict[str, Any]]:
    """Two arms of one selection and a baseline over two seeds, and another primary."""
    found = []
    for seed in (0, 1):
        for loss in ("ce", "bce"):
            found.append({"selection": "similar", "seed": seed, "config": {"selection.scorer.loss": loss}})
        found.append({"selection": "none", "budget": None, "seed": seed, "utilities": None})
    found.append({"primary": "mrpc", "selection": "none"})
    return [result(folder, **{"config": {}, **cell, "id": f"cell{i}"}) for i, cell in enumerate(found)]


class Logger:
    """Keeps the names of what it is told."""

    def __init__(self) -> None:
        self.scalars: set[str] = set()
        self.config: dict[str, Any] = {}

    def log_hyperparams(self, values: dict[str, Any]) -> None:
        self.config |= values

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.scalars |= set(values)

    def finalize(self, status: str) -> None:
        pass


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logger:
    logger = Logger()
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config"), resolve=True)
    for cell in study(tmp_path_factory.mktemp("logged")):
        log_cell(logger, cell, config)
    return logger


def found(spec: Any, *keys: str) -> list[Any]:
    """Every value under one of the keys, however deep."""
    if isinstance(spec, list):
        return [value for item in spec for value in found(item, *keys)]
    if not isinstance(spec, dict):
        return []
    return [
        value for key, item in spec.items() for value in (([item] if key in keys else []) + found(item, *keys))
    ]  # fmt: skip


def test_panels_show_only_what_cells_log(tmp_path: Path, logged: Logger) -> None:
    spec = specification(pages("us", "fastmtl", "mine", study(tmp_path)))
    panels = [one for one in found(spec, "panels") if one]
    named = [name for names in found(panels, "metrics") for name in names]
    axes = found(panels, "xAxis", "yAxis", "accessor")
    columns = [column for order in found(spec, "columnOrder") for column in order if column != "run:displayName"]
    scalars = {*named, *(name.removeprefix("summary:") for name in [*axes, *columns] if not name.startswith("config:"))}
    assert scalars - {"_step"} <= logged.scalars  # _step: W&B's own default
    for group in (
        "score",
        "rows/mnli",
        "flops/scores",
        "wall_s/proxy",
        "proxy/loss/rte",
        "finetune/step",
        "total_flops",
    ):
        assert group in scalars
    grouping = [one["name"] for keys in found(spec, "grouping") for one in keys if one["section"] == "config"]
    for key in [*grouping, *(name.removeprefix("config:") for name in axes if name.startswith("config:"))]:
        at: Any = logged.config
        for part in key.replace(".value", "", 1).split("."):
            assert part in at, key
            at = at[part]
    assert {one["key"]["name"] for one in found(spec, "filters") for one in (one if isinstance(one, list) else [])} == {
        "group", "setting",
    }  # fmt: skip
    assert "setting" in logged.config


def test_tables_and_the_beliefs_are_those_that_are_logged(tmp_path: Path) -> None:
    spec = json.dumps(specification(pages("us", "fastmtl", "mine", study(tmp_path))))
    assert set(re.findall(r'"val": "(.*?)"', spec)) == set(TABLES.values())
    assert set(re.findall(r'"mediaKeys": \["(.*?)"\]', spec)) == {BELIEFS}


def test_settings_never_share_a_view(tmp_path: Path) -> None:
    shown = list(views(study(tmp_path)))
    assert [(view.setting.split()[0], view.title.split(": ")[1]) for view in shown] == [
        ("rte", "arms"), ("rte", "cells"), ("mrpc", "arms"), ("mrpc", "cells"),
    ]  # fmt: skip
    assert shown[0].by == ("selection.name", "selection.scorer.loss", "budget")
    assert shown[2].by == ("selection.name", "budget")


def test_cells_of_an_arm_have_its_color(tmp_path: Path) -> None:
    cells = study(tmp_path)
    colors = list(views(cells))[1].colors
    assert [colors[f"cell{i}"] for i in (0, 1, 2)] == [colors[f"cell{i}"] for i in (3, 4, 5)]
    assert len({colors[f"cell{i}"] for i in (0, 1, 2)}) == 3


def test_a_dry_run_writes_the_pages_and_sends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    for cell in study(tmp_path):
        (folder / f"{cell['id']}.json").write_text(json.dumps(cell))
    main(["--study", "mine", "--output", str(tmp_path), "--dry-run"])
    assert capsys.readouterr().out == f"written to {tmp_path}/dashboards/mine.json\n"
    written = json.loads((tmp_path / "dashboards/mine.json").read_text())
    assert [page["displayName"].split(": ")[-1] for page in written] == [*["arms", "cells"] * 2, "selectors compared"]


def test_without_a_login_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse() -> None:
        raise wandb.errors.UsageError("No API key configured.\nmore")

    monkeypatch.setattr(wandb, "Api", refuse)
    (tmp_path / "studies/mine").mkdir(parents=True)
    (tmp_path / "studies/mine/1.json").write_text(json.dumps(study(tmp_path)[0]))
    with pytest.raises(UserError, match=r"^W&B: No API key configured. \(--dry-run writes the pages to a file\)$"):
        main(["--study", "mine", "--output", str(tmp_path)])
