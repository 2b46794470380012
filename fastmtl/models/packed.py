"""BERT and RoBERTa over packed tokens, for inference: rows of one length lie side by side, nothing is padded or masked.

The arithmetic is that of the Hugging Face modules whose weights it takes; tests hold the two together. It is faster for
three reasons: no padding, one matrix product for query, key and value, and, where the pooled feature is the first
token's, a last layer for first tokens alone. N tokens, B rows, L tokens a row, H hidden units, A heads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastmtl.data.collate import PackedRows
from fastmtl.models.encoder import FAMILY, Encoder


def can_pack(encoder: nn.Module) -> bool:
    """Whether `PackedEncoder` computes what this encoder computes."""
    if not isinstance(encoder, Encoder):
        return False
    config = encoder.inner.config
    return (
        config.model_type in FAMILY
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not getattr(config, "is_decoder", False)
    )


class PackedEncoder:
    """The pooled features of an encoder for which `can_pack` holds; `dtype` is that of weights and activations.

    With `int8` weights have 8 bits, with a scale an output unit, and activations are quantized product by product; on
    CPUs only. Batches must be on the encoder's device.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype = torch.float32, int8: bool = False) -> None:
        inner: Any = encoder.inner
        self.pooling = encoder.spec.pooling
        # RoBERTa counts positions from the padding id on.
        self.first_position = 0 if inner.config.model_type == "bert" else inner.config.pad_token_id + 1
        make = _Maker(dtype, int8)
        embeddings = inner.embeddings
        self.words = make.tensor(embeddings.word_embeddings.weight)
        self.types = make.tensor(embeddings.token_type_embeddings.weight)
        self.positions = make.tensor(embeddings.position_embeddings.weight)
        self.norm = make.norm(embeddings.LayerNorm)
        heads, stack = inner.config.num_attention_heads, list(inner.encoder.layer)
        first = [False] * (len(stack) - 1) + [self.pooling != "mean"]
        self.layers = [_Layer(layer, heads, make, alone) for layer, alone in zip(stack, first)]
        self.pooler = make.linear(inner.pooler.dense) if self.pooling == "pooler" else None

    def __call__(self, batch: PackedRows) -> Tensor:
        x_NH = functional.embedding(batch.ids, self.words)
        x_NH += functional.embedding(batch.positions + self.first_position, self.positions)
        x_NH += functional.embedding(batch.types, self.types)
        x_NH = self.norm(x_NH)
        groups = batch.groups
        for layer in self.layers:
            x_NH = layer(x_NH, groups)
        if self.pooling == "mean":
            return torch.cat([part_BLH.mean(1) for part_BLH in _by_length(x_NH, groups)])
        return x_NH if self.pooler is None else torch.tanh(self.pooler(x_NH))  # the last layer gave (B, H)


class _Maker:
    """Callables from the encoder's modules, in the dtype asked for."""

    def __init__(self, dtype: torch.dtype, int8: bool) -> None:
        self.dtype, self.int8 = dtype, int8

    def tensor(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.dtype)

    def norm(self, norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
        weight, bias, eps = self.tensor(norm.weight), self.tensor(norm.bias), norm.eps
        return lambda x_NH: functional.layer_norm(x_NH, weight.shape, weight, bias, eps)

    def linear(self, *parts: nn.Linear) -> Callable[[Tensor], Tensor]:
        """One product for several linear layers of the same input, their outputs side by side."""
        weight = torch.cat([part.weight.detach() for part in parts])
        bias = torch.cat([part.bias.detach() for part in parts])
        if not self.int8:
            weight, bias = weight.to(self.dtype), bias.to(self.dtype)
            return lambda x_NH: functional.linear(x_NH, weight, bias)
        scale = weight.abs().amax(1).clamp_min(1e-12).double() / 127
        with warnings.catch_warnings():
            # Marked for removal without a successor on CPUs: torch._int_mm takes 30 times as long without VNNI.
            warnings.filterwarnings("ignore", ".*quantize_per_channel.*deprecated")
            zeros = torch.zeros(len(scale), dtype=torch.int64)
            codes = torch.quantize_per_channel(weight, scale, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(codes, bias)
        # Without VNNI, products of 8-bit pairs are added in 16 bits and overflow: activations keep 7 bits then.
        narrow = not torch.cpu.get_capabilities().get("avx512_vnni", False)
        return lambda x_NH: torch.ops.quantized.linear_dynamic(x_NH, packed, narrow)


class _Layer:
    """One post-norm transformer layer; with `first` for the first token of each row alone.

    Then its queries and all after attention are (B, H): the last layer, where the first token alone is pooled.
    """

    def __init__(self, layer: Any, heads: int, make: _Maker, first: bool = False) -> None:
        own = layer.attention.self
        self.heads, self.first = heads, first
        self.query = make.linear(own.query) if first else None
        self.projections = make.linear(own.key, own.value) if first else make.linear(own.query, own.key, own.value)
        self.output = make.linear(layer.attention.output.dense)
        self.norm1 = make.norm(layer.attention.output.LayerNorm)
        self.wide, self.narrow = make.linear(layer.intermediate.dense), make.linear(layer.output.dense)
        self.norm2 = make.norm(layer.output.LayerNorm)

    def __call__(self, x_NH: Tensor, groups: list[tuple[int, int]]) -> Tensor:
        projected = _by_length(self.projections(x_NH), groups)
        if self.query:
            x_NH = torch.cat([part_BLH[:, 0] for part_BLH in _by_length(x_NH, groups)])
            queries = self.query(x_NH).split([rows for rows, _ in groups])
            parts = [
                (*_heads(query_BH.unsqueeze(1), 1, self.heads), *_heads(part_BL2H, 2, self.heads))
                for query_BH, part_BL2H in zip(queries, projected)
            ]
        else:
            parts = [_heads(part_BL3H, 3, self.heads) for part_BL3H in projected]
        attended = [
            functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(0, 1)
            for query, key, value in parts
        ]
        attended_NAD = torch.cat(attended) if len(attended) > 1 else attended[0]
        # Sums in place: the products are fresh tensors that nothing else holds.
        x_NH = self.norm1(self.output(attended_NAD.flatten(1)).add_(x_NH))
        return self.norm2(self.narrow(torch.ops.aten.gelu_(self.wide(x_NH))).add_(x_NH))


def _by_length(x_NX: Tensor, groups: list[tuple[int, int]]) -> list[Tensor]:
    """Views (B, L, X) of the rows of each length."""
    parts = x_NX.split([rows * length for rows, length in groups])
    return [part.view(rows, length, -1) for part, (rows, length) in zip(parts, groups)]


def _heads(x_BLX: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """`parts` tensors (B, A, L, D) of `parts` x A x D columns."""
    return x_BLX.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
