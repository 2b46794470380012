"""A trained model as a class of Transformers, so that `from_pretrained` alone gives its logits.

Classes of words read every token's state, as our heads do. Classes of rows read tanh(W h + b) of the first token's
state h, in which our three poolings are found again:

    pooler  the encoder's own: W and b as they are
    cls     W = 2^-40 I, for tanh(x) = x at that scale, and a head times 2^40: powers of two round nothing
    mean    as cls, after one more layer that puts the mean of all states into the first token, see `_average`

C outputs, H hidden units.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from fastmtl.errors import UserError
from fastmtl.models.encoder import FAMILY, Encoder
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.tasks import TaskSpec

TANH_HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "albert": ("albert.pooler", "classifier"),
    "deberta-v2": ("pooler.dense", "classifier"),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), ("classifier.dense", "classifier.out_proj")),
}
"""Model type -> the two linear layers of its class of rows, between which there is a tanh."""

PROBLEMS = {
    "classification": "single_label_classification",
    "regression": "regression",
    "tagging": None,
}
"""Kind of task -> what Transformers calls it."""

TINY = 2.0**-40
"""States times this are so small that tanh leaves every bit as it is, and so large that float32 holds them all."""


def stock_model(model: MultiTaskModel, task: TaskSpec) -> PreTrainedModel:
    """The model of Transformers, in eval mode, that gives `model(batch, task.name)`.

    Bit for bit with the same batch in float32, but for mean pooling, whose sums are in another order: these agree to
    about seven digits.

    Raises:
        UserError: No class of Transformers computes what this model computes.
    """
    encoder, words = model.encoder, task.of_kind.reads == "words"
    if task.kind not in PROBLEMS:
        raise UserError(f"task {task.name!r}: kind={task.kind!r} has no class in Transformers; use fastmtl predict")
    averages = _check(encoder, words)
    config = copy.deepcopy(encoder.inner.config)
    config.num_hidden_layers += averages
    config.id2label = dict(enumerate(task.labels or [task.name]))
    config.label2id = {name: code for code, name in config.id2label.items()}
    config.problem_type, config.name_or_path = PROBLEMS[task.kind], ""
    if hasattr(config, "pooler_hidden_act"):  # of DeBERTa, which asks
        config.pooler_hidden_act = "tanh"
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and all of them replaced
        stock = (AutoModelForTokenClassification if words else AutoModelForSequenceClassification).from_config(config)
    base = getattr(stock, stock.base_model_prefix)
    missing, stray = base.load_state_dict(encoder.inner.state_dict(), strict=False)
    made = ("pooler.", f"encoder.layer.{config.num_hidden_layers - 1}." if averages else "pooler.")
    if any(not name.startswith(made) for name in [*missing, *stray]):
        raise _refusal(encoder)
    head = model.heads[task.name]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        if words:
            _copy(head, stock.classifier)
        else:
            dense, out = map(stock.get_submodule, TANH_HEADS[config.model_type])
            _pool(encoder, head, base, dense, out)
    return stock.eval()


def _check(encoder: nn.Module, words: bool) -> bool:
    """Whether a layer is added that averages; a `UserError` where there is no class for this encoder."""
    if not isinstance(encoder, Encoder):
        raise _refusal(encoder)
    kind, averages = encoder.inner.config.model_type, encoder.spec.pooling == "mean" and not words
    if kind not in (FAMILY if averages else [*TANH_HEADS, *["electra", "distilbert"] * words]):
        raise _refusal(encoder)
    return averages


def _refusal(encoder: Any) -> UserError:
    return UserError(
        f"encoder {encoder.spec.name!r} cannot be exported, for Transformers has no class with its pooled feature; of "
        f"type {', '.join(TANH_HEADS)} it could, with encoder.pooling=mean {', '.join(FAMILY)}; use fastmtl predict"
    )


def _pool(encoder: Encoder, head: nn.Linear, base: Any, dense: Any, out: Any) -> None:
    """Fill the two layers of a class of rows."""
    if encoder.spec.pooling == "pooler":
        _copy(getattr(encoder.inner.pooler, "dense", encoder.inner.pooler), dense)
        _copy(head, out)
        return
    dense.bias.zero_()
    out.bias.copy_(head.bias)
    if encoder.spec.pooling == "cls":
        dense.weight.copy_(TINY * torch.eye(encoder.hidden_size))
        out.weight.copy_(head.weight / TINY)
        return
    _average(base.encoder.layer[-1], head)
    outputs = head.out_features
    half_CC = TINY / 2 * torch.eye(outputs)
    dense.weight.zero_()
    dense.weight[:outputs, : 2 * outputs] = torch.cat([half_CC, -half_CC], 1)
    out.weight.zero_()
    out.weight[:, :outputs] = torch.eye(outputs) / TINY


def _average(layer: Any, head: nn.Linear) -> None:
    """Make of a BERT layer one that gives W m in the first C units and -W m in the next, W the head's, m the mean.

    Queries and keys of zero attend to all tokens alike, so attention gives m. Two things stand between it and the
    output: the sum with the layer's input, against which W m is multiplied by 2^30, and a normalisation by mean and
    standard deviation, which constants of +-2^50 in a quarter of the units fix, whatever W m is. What the mean of the
    units has in rounding errors is the same in both halves: their difference is free of it.
    """
    hidden, outputs = head.in_features, head.out_features
    constants = hidden // 8 * 2
    if 2 * outputs + constants > hidden:
        raise UserError(f"encoder.pooling=mean with {outputs} labels cannot be exported; {hidden} units are too few")
    large, larger, share = 2.0**30, 2.0**50, math.sqrt(constants / hidden)
    signs = torch.tensor([1.0, -1.0]).repeat(constants // 2)
    for weights in layer.parameters():
        weights.zero_()
    mixed, (first, last) = layer.attention.output, (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    layer.attention.self.value.weight.copy_(torch.eye(hidden))
    mixed.dense.weight[: 2 * outputs] = large * torch.cat([head.weight, -head.weight])
    mixed.dense.bias[-constants:] = larger * signs  # standard deviation: larger * share
    first.weight[: 2 * outputs] = larger / large * share
    first.weight[-constants:] = 2.0**20  # the same again, for the normalisation at the layer's end
    last.weight[: 2 * outputs] = 2.0**20


def _copy(source: Any, target: Any) -> None:
    target.weight.copy_(source.weight)
    target.bias.copy_(source.bias)
