"""One shared encoder, one linear head a task, and the proxy's task discriminator.

B rows, L tokens, H hidden units, C outputs of a task, T tasks. The head of a task of words (tagging) reads each token's
state in place of the row's pooled feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastmtl.errors import UserError
from fastmtl.models.encoder import Encoder, EncoderSpec
from fastmtl.tasks import TaskSpec


class MultiTaskModel(nn.Module):
    """The MT-DNN: a step through task t touches the encoder and t's head alone (Liu et al. 2019)."""

    def __init__(self, spec: EncoderSpec, tasks: Sequence[TaskSpec], dropout: float = 0.1) -> None:
        super().__init__()
        for task in tasks:
            if hasattr(nn.ModuleDict, task.name):
                raise UserError(f"task {task.name!r}: PyTorch keeps this name for itself; rename the task")
        self.encoder = spec.build()
        self.dropout = nn.Dropout(dropout)
        self.word_tasks = {task.name for task in tasks if task.of_kind.reads == "words"}
        pooled, state = self.encoder.hidden_size, self.encoder.state_size
        widths = [state if task.name in self.word_tasks else pooled for task in tasks]
        heads = {task.name: nn.Linear(width, task.num_outputs) for task, width in zip(tasks, widths)}
        self.heads = nn.ModuleDict(heads)

    def features(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.encoder(batch)

    def forward(self, batch: Mapping[str, Tensor], task: str) -> Tensor:
        """Logits (B, C), values (B, 1) of a regression, or each token's logits (B, L, C); in float32."""
        h = self.encoder.read(batch)[1] if task in self.word_tasks else self.features(batch)
        return head_in_float32(self.heads[task], self.dropout(h))


class ProxyModel(MultiTaskModel):
    """A multi-task model with a discriminator over the same pooled feature: which task does a row come from?"""

    def __init__(self, spec: EncoderSpec, tasks: Sequence[TaskSpec], dropout: float = 0.1) -> None:
        super().__init__(spec, tasks, dropout)
        self.discriminator = nn.Linear(self.encoder.hidden_size, len(tasks))

    def both(self, batch: Mapping[str, Tensor], task: str) -> tuple[Tensor, Tensor]:
        """Task logits as of `forward`, and discriminator logits (B, T), from one pass through the encoder."""
        if task in self.word_tasks:
            h_BH, read = map(self.dropout, self.encoder.read(batch))
        else:
            read = h_BH = self.dropout(self.features(batch))
        return head_in_float32(self.heads[task], read), head_in_float32(self.discriminator, h_BH)

    def task_logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Discriminator logits (B, T) in float32."""
        return head_in_float32(self.discriminator, self.features(batch))


def head_in_float32(linear: nn.Module, h: Tensor) -> Tensor:
    """A head over (..., H) in float32 also under autocast: half-precision scores tie by the hundred, unrankable."""
    with torch.autocast(h.device.type, enabled=False):
        return linear(h.float())


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from `path`; heads that only one side has are left out, anything else must match."""
    state = load_file(path)
    own = model.state_dict()
    stray = [n for n in {*own, *state} if (n in own) != (n in state) and not n.startswith("heads.")]
    assert not stray, f"weights at {path} do not fit: {sorted(stray)[:3]}"
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in own}, strict=False)


def load_encoder(spec: EncoderSpec, path: Path) -> Encoder:
    """The encoder alone of any model saved at `path`, in eval mode on the CPU."""
    encoder, prefix = spec.build(), "encoder."
    state = {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items() if name.startswith(prefix)}
    encoder.load_state_dict(state)
    return encoder.eval()
