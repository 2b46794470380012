"""Tasks that cannot be worked with are named before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.pipelines.checks import check_tasks
from fastmtl.tasks import GLUE


def test_a_task_of_test_rows_alone_is_no_task_to_train_on() -> None:
    selection: Any = SimpleNamespace(name="random")
    with pytest.raises(UserError, match=r"'rte' has no train split"):
        check_tasks((GLUE["mrpc"], replace(GLUE["rte"], splits={"test": "test"})), "mrpc", selection)


def test_a_weighting_that_learns_by_adamw_is_not_stepped_otherwise(tmp_path: Path) -> None:
    cell, adadelta = ("encoder=tiny", f"paths.output={tmp_path}"), "multitask.fit.optimizer=adadelta"
    with pytest.raises(UserError, match=r"drop multitask\.fit\.optimizer=adadelta"):
        compose(*cell, "weighting=uncertainty", adadelta)
    compose(*cell, "weighting=gradnorm", adadelta)
    compose(*cell, "weighting=uncertainty")
