"""Seeds may draw the primary's rows anew: the same for all arms, and for no other task."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmtl.cli.compose import compose
from fastmtl.errors import UserError
from fastmtl.pipelines.experiment import Experiment


def cell(folder: Path, *overrides: str) -> Experiment:
    return compose("encoder=tiny", "primary=chats", "data.rows_per_task=40", f"paths.output={folder}", *overrides)


def rows(exp: Experiment, task: str) -> list[int]:
    return exp.pool.rows_of(task).tolist()


def test_each_seed_draws_the_primary_anew_and_all_arms_share_the_draw(session_output: Path) -> None:
    first, second = (cell(session_output, "data.redraw=true", f"seed={seed}") for seed in (0, 1))
    other_arm = cell(session_output, "data.redraw=true", "seed=1", "selection=random")
    assert rows(first, "chats") != rows(second, "chats") == rows(other_arm, "chats")
    assert rows(first, "mails") == rows(second, "mails")
    assert {len(rows(exp, "chats")) for exp in (first, second)} == {40}
    assert first.primary_rows[0].origin["redraw"]


def test_without_it_all_seeds_have_the_same_rows(session_output: Path) -> None:
    first, second = (cell(session_output, f"seed={seed}") for seed in (0, 1))
    assert rows(first, "chats") == rows(second, "chats")
    assert "redraw" not in first.primary_rows[0].origin


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data.redraw=true", "data.rows_per_task=null"], r"'chats' keeps all; set data\.rows_per_task"),
        (["data.redraw=true", "data.rows_per_task={mails: 9}"], r"'chats' keeps all; set data\.rows_per_task"),
        (["data.redraw=2"], r"data\.redraw=2 does not fit; use true or false"),
    ],
)
def test_what_it_cannot_draw_is_said_in_one_line(overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        cell(tmp_path, *overrides)
