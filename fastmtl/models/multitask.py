"""One shared encoder, one linear head per task or group of tasks, and the proxy's task discriminator.

B rows, L tokens, H hidden units, C outputs of a task, T tasks. The head of a task of words (tagging) reads each token's
state in place of the row's pooled feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastmtl.errors import UserError
from fastmtl.models.encoder import Encoder, EncoderSpec
from fastmtl.tasks import TaskSpec


class MultiTaskModel(nn.Module):
    """The MT-DNN: a step through task t touches the encoder and t's head alone (Liu et al. 2019).

    Args:
        spec: The encoder.
        tasks: What it answers.
        dropout: Before the heads.
        shared: Task -> the task whose head it uses in place of one of its own; see `shared_heads`.
    """

    def __init__(
        self, spec: EncoderSpec, tasks: Sequence[TaskSpec], dropout: float = 0.1,
        shared: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        for task in tasks:
            if hasattr(nn.ModuleDict, task.name):
                raise UserError(f"task {task.name!r}: PyTorch keeps this name for itself; rename the task")
        self.encoder = spec.build()
        self.dropout = nn.Dropout(dropout)
        self.word_tasks = {task.name for task in tasks if task.of_kind.reads == "words"}
        self.shared = dict(shared or {})
        self.heads = nn.ModuleDict()
        for task in tasks:
            if (name := self.shared.get(task.name, task.name)) not in self.heads:
                width = self.encoder.state_size if task.name in self.word_tasks else self.encoder.hidden_size
                self.heads[name] = nn.Linear(width, task.num_outputs)

    def head(self, task: str) -> nn.Module:
        """The head that answers for a task."""
        return self.heads[self.shared.get(task, task)]

    def features(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.encoder(batch)

    def forward(self, batch: Mapping[str, Tensor], task: str) -> Tensor:
        """Logits (B, C), values (B, 1) of a regression, or each token's logits (B, L, C); in float32."""
        h = self.encoder.read(batch)[1] if task in self.word_tasks else self.features(batch)
        return head_in_float32(self.head(task), self.dropout(h))


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
        return head_in_float32(self.head(task), read), head_in_float32(self.discriminator, h_BH)

    def task_logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Discriminator logits (B, T) in float32."""
        return head_in_float32(self.discriminator, self.features(batch))


def shared_heads(how: str | Mapping[str, Sequence[str]], tasks: Sequence[TaskSpec]) -> dict[str, str]:
    """Which of `tasks` share a head, and so one decision.

    Args:
        how: `per_task`: none do. `by_labels`: those of one kind and with the same label names in the same order do. Or
            a mapping from any name to the tasks of a group, whose labels mean the same in the same order whatever they
            are called; tasks that are not among `tasks` do not count.
        tasks: The primary first: the head of a group is that of its first task, which fine-tuning starts from.

    Returns:
        Task -> the first task of its group, for all but the first tasks.
    """
    if how == "per_task":
        return {}
    if how == "by_labels":  # tasks without label names, regressions, do not say what their values mean
        group_of = {task.name: str((task.kind, task.labels)) for task in tasks if task.labels}
    else:
        assert isinstance(how, Mapping)
        group_of = {name: group for group, names in how.items() for name in names}
    first: dict[str, str] = {}
    named = [task.name for task in tasks if task.name in group_of]
    heads = {name: first.setdefault(group_of[name], name) for name in named}
    return {name: head for name, head in heads.items() if name != head}


def check_heads(how: object, tasks: Sequence[TaskSpec]) -> None:
    """A `UserError` for a choice of heads that does not fit all tasks of the data."""
    if how in ("per_task", "by_labels"):
        return
    if not isinstance(how, Mapping) or not all(isinstance(names, list | tuple) for names in how.values()):
        raise UserError(f"multitask.heads={how!r} does not fit; use per_task, by_labels or {{group: [task, task]}}")
    known, named = {task.name: task for task in tasks}, list(chain(*how.values()))
    for name in named:
        if name not in known:
            raise UserError(f"multitask.heads names {name!r}, which is no task; choose from {', '.join(known)}")
        if named.count(name) > 1:
            raise UserError(f"multitask.heads names {name!r} more than once; give each task one group at most")
    for names in how.values():
        for task in (known[name] for name in names):
            first = known[names[0]]
            if (task.kind, task.num_outputs) != (first.kind, first.num_outputs):
                raise UserError(
                    f"multitask.heads: {task.name!r} and {first.name!r} differ in kind or number of labels and cannot "
                    "share a head; give them groups of their own"
                )
            if task.labels != first.labels and set(task.labels) == set(first.labels):
                raise UserError(
                    f"multitask.heads: {task.name!r} and {first.name!r} list the same labels in different orders; use "
                    "one order in both"
                )


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
