"""Presets with other choices than their own, from composing to the result."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmtl.cli.compose import compose, values
from fastmtl.errors import UserError
from fastmtl.mixing import MixingSearch

SMALL = [
    "experiment=autosem_paper", "data=sample", "primary=chats", "data.rows_per_task=24", "encoder.tokenizer=tiny",
    "encoder.hidden_size=4", "encoder.embedding_size=4", "encoder.layers=1", "budget=12", "mixing.trials=2",
    "mixing.random_starts=1", "proxy.examples_per_task=8",
    *(f"{fit}.fit.precision=fp32" for fit in ("proxy", "multitask", "finetune", "bandit")),
    *(f"{fit}.fit.epochs=1" for fit in ("proxy", "multitask", "finetune")), "bandit.rounds=3",
    "bandit.policy.batches_per_round=1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        (["selection=none"], 0),
        (["selection=random"], 12),
        (["selection=feature_similarity"], 12),
        (["selection=hand_picked", "selection.selector.tasks=[mails,diary]"], 12),
        ([], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_autosem_preset_runs_with_any_selection(
    selection: list[str], rows: int | None, session_output: Path
) -> None:
    exp = compose(*SMALL, *selection, f"paths.output={session_output}")
    assert type(exp.encoder).__name__ == "BiLSTMSpec"
    assert isinstance(exp.mixing_search, MixingSearch)
    exp.artifacts("report")
    found = len(exp.selected())
    assert found == rows if rows is not None else found % 24 == 0  # whole tasks
    mixing = exp.mixing()
    assert (mixing is None) is (rows == 0)
    if mixing is not None:
        assert len(mixing.read("mixing.json")["trials"]) == 2
    assert set(exp.finetune().read("metrics.json")["validation"]) >= {"accuracy", "loss"}


def test_the_papers_presets_choose_as_the_papers_do(tmp_path: Path) -> None:
    place = ("data=sample", f"paths.output={tmp_path}", "primary=chats")
    assert compose("experiment=fastmtl_paper", "encoder=tiny", *place).protocol.choose_by == "product"
    autosem = compose("experiment=autosem_paper", "encoder.tokenizer=tiny", *place)
    assert autosem.protocol.choose_by == "accuracy"
    assert autosem.mixing_search is not None
    assert autosem.mixing_search.hold == "steps"
    with pytest.raises(UserError, match=r"protocol\.choose_by='bleu' does not fit; use one of headline, product, acc"):
        compose(*place, "encoder=tiny", "protocol.choose_by=bleu")


@pytest.mark.parametrize("preset", ["fastmtl_paper", "autosem_paper", "relations_paper"])
def test_the_papers_have_a_head_per_task_and_one_rate_in_all_stages(preset: str) -> None:
    cfg = values(f"experiment={preset}")
    assert cfg.multitask.heads == "per_task"
    assert cfg.finetune.keep_selected == 0
    assert cfg.encoder.finetune_learning_rate is None
    assert cfg.multitask.fit.learning_rate == cfg.finetune.fit.learning_rate
    for stage in (cfg.multitask, cfg.finetune):
        assert (stage.fit.layer_decay, stage.fit.probing, stage.fit.pull) == (1, 0, 0)
