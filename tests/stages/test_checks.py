"""Tasks that cannot be worked with are named before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fastmtl.errors import UserError
from fastmtl.stages.checks import check_optimizer, check_tasks
from fastmtl.tasks import GLUE
from fastmtl.training.config import FitConfig
from fastmtl.training.weighting import GradNorm, Uncertainty


def test_a_task_of_test_rows_alone_is_no_task_to_train_on() -> None:
    selection: Any = SimpleNamespace(name="random")
    with pytest.raises(UserError, match=r"'rte' has no train split"):
        check_tasks((GLUE["mrpc"], replace(GLUE["rte"], splits={"test": "test"})), "mrpc", selection)


def test_a_weighting_that_learns_by_adamw_is_not_stepped_otherwise() -> None:
    with pytest.raises(UserError, match=r"drop multitask\.fit\.optimizer=adadelta"):
        check_optimizer(Uncertainty(), FitConfig(optimizer="adadelta"))
    check_optimizer(GradNorm(), FitConfig(optimizer="adadelta"))
    check_optimizer(Uncertainty(), FitConfig())
