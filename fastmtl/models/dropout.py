"""Dropout for training on CPUs: the same distribution as PyTorch's, drawn in a tenth of the time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fastmtl.models.encoder import FAMILY, Encoder
from fastmtl.models.multitask import MultiTaskModel


def drop(x: Tensor, p: float) -> Tensor:
    """Dropout as on any device, from 16 random bits a value; p is rounded to them, and the mean is kept exactly.

    PyTorch's own kernel took 6 % of a training step of MiniLM on an AMD processor, and attention with dropout as much
    again; see experiments/throughput.
    """
    cut = round(p * 2**16)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = (bits[: x.numel()] >= cut - 2**15).view(x.shape)
    return x * keep.to(x.dtype).mul_(2**16 / (2**16 - cut))


class _Dropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p) if self.training and self.p else x


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    dropout: float = 0.0, scaling: float = 1.0, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention in the form that Transformers calls; its dropout is `drop`. (B, A, L, D) each, mask (B, 1, L, L)."""
    if not dropout:
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **more)
    scores_BALL = query * scaling @ key.transpose(2, 3)
    if mask is not None:
        scores_BALL = scores_BALL.masked_fill(~mask, -torch.inf)
    return (drop(scores_BALL.softmax(-1), dropout) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("cpu_dropout", _attend)
AttentionMaskInterface.register("cpu_dropout", sdpa_mask)


def use_cpu_dropout(model: MultiTaskModel) -> None:
    """Draw all dropout with `drop`; that of attention only where it is BERT's."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, _Dropout(child.p).train(child.training))
    if not isinstance(model.encoder, Encoder):
        return  # a BiLSTM does not attend
    inner = model.encoder.inner
    if inner.config.model_type in FAMILY and inner.config._attn_implementation == "sdpa":
        inner.set_attn_implementation("cpu_dropout")
