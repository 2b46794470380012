"""An encoder without chance, also in the child processes of a multi-device fit."""

from __future__ import annotations

import pytest
import torch

from fastmtl.models.encoder import EncoderSpec, _tiny_tokenizer


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    """Two layers without dropout, so that fits can be compared weight by weight."""
    from transformers import BertConfig, BertModel

    folder = str(tmp_path_factory.mktemp("encoder"))
    config = BertConfig(
        vocab_size=len(_tiny_tokenizer()), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return EncoderSpec(folder, pooling="mean", max_length=32)
