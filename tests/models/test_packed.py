"""The packed path computes what the Hugging Face modules compute on padded and masked rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

from fastmtl.data.collate import collate, pack
from fastmtl.errors import UserError
from fastmtl.models.encoder import Encoder, EncoderSpec, Tokenizer
from fastmtl.models.inference import Inference, forward_rows
from fastmtl.models.packed import PackedEncoder, can_pack

CPU = Inference(pad_id=0, device=torch.device("cpu"))
PLACES = np.array([7, 0, 11, 3, 4, 2, 9])


def rows_of(pool: Any) -> Any:
    return pool.split("single", "train")


@pytest.fixture(scope="module")
def make_encoder(tmp_path_factory: pytest.TempPathFactory, tiny: EncoderSpec) -> Any:
    """`make_encoder(model class, config class, pooling, **config)`: random weights from a folder."""

    def make(model: Any, config: Any, pooling: str, **more: Any) -> Encoder:
        folder = tmp_path_factory.mktemp("weights")
        words = Tokenizer(tiny).inner
        torch.manual_seed(0)
        base = {"vocab_size": len(words), "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
        model(config(**{**base, "intermediate_size": 96, "max_position_embeddings": 64, **more})).save_pretrained(
            folder
        )
        words.save_pretrained(folder)
        encoder = Encoder(EncoderSpec(str(folder), pooling=pooling, max_length=32))  # type: ignore[arg-type]
        with torch.no_grad():  # fresh weights are so small that rows hardly differ, and their biases are zero
            for parameter in encoder.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
                else:
                    parameter.mul_(8)
        return encoder.eval()

    return make


def features(encoder: Encoder, pool: Any, how: Inference = CPU) -> np.ndarray:
    return forward_rows(encoder, torch.nn.Identity(), rows_of(pool), PLACES, how, "test")


def both_ways(encoder: Encoder, pool: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features of the padded and of the packed path."""
    return features(encoder, pool, replace(CPU, pack=False)), features(encoder, pool)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_bert_gives_the_padded_features(make_encoder: Any, tiny_pool: Any, pooling: str) -> None:
    encoder = make_encoder(BertModel, BertConfig, pooling)
    assert can_pack(encoder)
    slow, fast = both_ways(encoder, tiny_pool)
    np.testing.assert_allclose(fast, slow, atol=2e-6)
    assert np.ptp(slow, axis=0).min() > 1e-3  # features that differ between rows, or nothing is tested


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_roberta_counts_positions_from_its_padding_id(make_encoder: Any, tiny_pool: Any, pooling: str) -> None:
    encoder = make_encoder(RobertaModel, RobertaConfig, pooling, pad_token_id=0, type_vocab_size=2)
    assert can_pack(encoder)
    slow, fast = both_ways(encoder, tiny_pool)
    np.testing.assert_allclose(fast, slow, atol=2e-6)


def test_segments_reach_the_packed_rows(tiny_pool: Any, tiny: EncoderSpec) -> None:
    encoder, rows = Encoder(tiny).eval(), tiny_pool.split("pairs", "train")
    places = np.argsort(rows.lengths, kind="stable")
    with torch.inference_mode():
        fast, slow = PackedEncoder(encoder)(pack(rows, places)), encoder(collate(rows, places, 0))
    torch.testing.assert_close(fast, slow, atol=2e-6, rtol=0)


def test_an_encoder_of_another_family_goes_the_padded_way(make_encoder: Any, tiny_pool: Any) -> None:
    other = make_encoder(DistilBertModel, DistilBertConfig, "cls", dim=48, hidden_dim=96, n_layers=2, n_heads=4)
    assert not can_pack(other)
    slow, fast = both_ways(other, tiny_pool)
    np.testing.assert_array_equal(slow, fast)
    with pytest.raises(UserError, match="int8 is for BERT"):
        features(other, tiny_pool, replace(CPU, precision="int8"))


def test_another_activation_is_not_packed(make_encoder: Any) -> None:
    assert not can_pack(make_encoder(BertModel, BertConfig, "cls", hidden_act="relu"))


@pytest.mark.parametrize(("precision", "closeness"), [("bf16", 0.05), ("int8", 0.15)])
def test_lower_precision_is_close_but_not_equal(
    make_encoder: Any, tiny_pool: Any, precision: Any, closeness: float
) -> None:
    encoder = make_encoder(BertModel, BertConfig, "mean")
    slow = features(encoder, tiny_pool)
    low = features(encoder, tiny_pool, replace(CPU, precision=precision))
    assert 0 < np.abs(low - slow).max() < closeness * np.abs(slow).max()
    assert spearmanr(low.ravel(), slow.ravel()).statistic > 0.99


def test_batches_cut_between_rows_and_lose_none(tiny_pool: Any) -> None:
    rows = rows_of(tiny_pool)
    places = np.argsort(rows.lengths, kind="stable")
    packed = pack(rows, places)
    for max_tokens in (1, 30, 10_000):
        batches = list(packed.batches(max_tokens))
        assert sum(map(len, batches)) == len(places)
        assert np.array_equal(np.concatenate([b.lengths for b in batches]), rows.lengths[places])
        assert torch.equal(torch.cat([b.ids for b in batches]), packed.ids)
        assert all(b.ids.numel() == b.lengths.sum() == sum(n * length for n, length in b.groups) for b in batches)
        longest = int(rows.lengths.max())
        assert all(b.ids.numel() <= max_tokens + longest for b in batches)
