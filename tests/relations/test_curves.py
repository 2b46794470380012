"""Curves come out of a fit's log as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmtl.errors import UserError
from fastmtl.relations.features import read_curve


def test_a_run_has_the_loss_of_the_task_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(
        "step,epoch,name,value\n10,0,loss/rte,0.7\n10,0,loss/mnli,9\n15,0,choose/loss,3\n20,1,loss/rte,0.5\n"
    )
    steps, losses = read_curve(path, "rte")
    assert (steps.tolist(), losses.tolist()) == ([10, 20], [0.7, 0.5])
    with pytest.raises(UserError, match="no training loss of 'cola'"):
        read_curve(path, "cola")


def test_the_curve_of_a_real_fit_has_features(tmp_path: Path) -> None:
    """Epochs of 25 steps end between two points: no gap."""
    from fastmtl.relations.features import curve_features

    steps = [s for s in range(1, 201) if s % 10 == 0 or s % 25 == 0]
    path = tmp_path / "curves.csv"
    path.write_text("step,epoch,name,value\n" + "".join(f"{s},{s // 26},loss/rte,{1 / s}\n" for s in steps))
    assert curve_features("rte", *read_curve(path, "rte"))["gradient_10"] < 0
