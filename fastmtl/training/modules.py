"""The two LightningModules: the proxy with its task discriminator, and the MT-DNN. They own losses and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torchmetrics import MeanMetric

from fastmtl.errors import UserError
from fastmtl.models.dropout import use_cpu_dropout
from fastmtl.models.multitask import MultiTaskModel, ProxyModel
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig
from fastmtl.training.metrics import (
    build_metrics,
    positive_weights,
    predicted_and_true,
    task_loss,
    task_similarity_loss,
)
from fastmtl.training.optimizer import Pull, groups, optimizer_of, schedule_of
from fastmtl.training.weighting import Weigher, assign, shared_jacobian


def encoder_layers(model: MultiTaskModel) -> list[nn.Module]:
    """The encoder's layers, lowest first; none where each is not a module of its own (ALBERT)."""
    return model.encoder.layer_stack()


def freeze(model: MultiTaskModel, fit: FitConfig) -> None:
    """Take the parts that `fit` freezes out of training; autograd then keeps nothing of their forward pass."""
    layers, embeddings = encoder_layers(model), model.encoder.embedding_module()
    name = model.encoder.spec.name
    if fit.freeze_layers > len(layers):
        raise UserError(f"fit.freeze_layers={fit.freeze_layers}, but encoder {name!r} has {len(layers)}; use fewer")
    if not fit.freeze_layers and not fit.freeze_embeddings:
        return
    if embeddings is None:
        raise UserError(f"fit.freeze_layers and fit.freeze_embeddings do not know encoder {name!r}; use 0 and false")
    for part in (embeddings, *layers[: fit.freeze_layers]):
        part.requires_grad_(False)


def last_shared(model: MultiTaskModel) -> list[nn.Parameter]:
    """Trained parameters of the last layer, or where that has none, or is not known, of all above the embeddings.

    Raises:
        UserError: Nothing that the tasks share is trained.
    """
    encoder = model.encoder
    found = [weight for layer in encoder.layer_stack()[-1:] for weight in layer.parameters() if weight.requires_grad]
    if not found:
        embeddings = encoder.embedding_module()
        below = {id(weight) for weight in embeddings.parameters()} if embeddings is not None else set()
        found = [weight for weight in encoder.parameters() if weight.requires_grad and id(weight) not in below]
    if not found:
        raise UserError(
            f"encoder {encoder.spec.name!r} has no trained weights in which this weighting or sampling could compare "
            "gradients; lower multitask.fit.freeze_layers"
        )
    return found


def training_flops(model: MultiTaskModel, fit: FitConfig, lengths: np.ndarray) -> float:
    """Model FLOPs of training once on rows of `lengths` tokens.

    A trained layer takes three forward passes (its own, and two products backward), a frozen one its own alone.
    """
    encoder = model.encoder
    return 3.0 * encoder.forward_flops(lengths) - 2.0 * encoder.forward_flops(lengths, fit.freeze_layers)


@dataclass(frozen=True)
class Watched:
    """What a step showed of its m tasks: mean losses (m,), and their gradients (m, P) in the last shared layer."""

    names: list[str]
    losses_m: Tensor
    gradients_mP: Tensor


class _TaskModule(pl.LightningModule):
    """Optimizer, schedule and per-task losses, common to both modules."""

    model: MultiTaskModel

    def __init__(self, tasks: tuple[TaskSpec, ...], fit: FitConfig, total_steps: int) -> None:
        super().__init__()
        self.tasks = {task.name: task for task in tasks}
        self.fit_config = fit
        self.total_steps = total_steps
        self.pull: Pull | None = None

    def configure_optimizers(self) -> Any:
        """See `fastmtl.training.optimizer`."""
        fit = self.fit_config
        optimizer = optimizer_of(fit, [*groups(self.model, fit), *self.other_parameters()])
        schedule = schedule_of(fit, optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """A step, and with `fit.pull` a little of the way back."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.pull is not None:
            self.pull(optimizer)

    def other_parameters(self) -> list[dict[str, Any]]:
        """Groups of the optimizer beside the model's."""
        return []

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """By the norm over all devices; Lightning's own refuses a fused optimizer under bf16, which needs no scale."""
        if gradient_clip_val:
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            nn.utils.clip_grad_norm_(trained, gradient_clip_val)

    def on_fit_start(self) -> None:
        """On a CPU, draw dropout the cheap way."""
        if self.device.type == "cpu":
            use_cpu_dropout(self.model)

    def configure_model(self) -> None:
        """Under `strategy: fsdp`, shard the weights over all ranks, layer by layer; remember them for `fit.pull`."""
        if self.device_mesh is not None:
            self._shard()
        if self.fit_config.pull:
            self.pull = Pull(self.model, self.fit_config.pull)

    def _shard(self) -> None:
        assert self.device_mesh is not None
        mesh = self.device_mesh["data_parallel"]
        for part in (*encoder_layers(self.model), self.model):
            # gloo, which CPUs use, cannot average
            fully_shard(part, mesh=mesh).set_force_sum_reduction_for_comms(mesh.device_type == "cpu")
        if isinstance(self.model, ProxyModel):
            register_fsdp_forward_method(self.model, "both")


class ProxyModule(_TaskModule):
    """Trains task heads and discriminator together: loss = L_task + L_discriminator, unweighted (FastMTL, stage TD)."""

    def __init__(
        self, model: ProxyModel, tasks: tuple[TaskSpec, ...], fit: FitConfig, total_steps: int,
        loss: Literal["ce", "bce"], counts: list[int],
    ) -> None:  # fmt: skip
        super().__init__(tasks, fit, total_steps)
        self.model: ProxyModel = model
        self.discriminator_loss = loss
        self.task_index = {task.name: i for i, task in enumerate(tasks)}
        self.register_buffer("weights", positive_weights(counts), persistent=False)

    def training_step(self, step: list[dict[str, Any]], _: int) -> dict[str, Any]:
        """One batch of one task; `curves` are the values that `Curves` records, with the weight of each."""
        (batch,) = step
        name, weight = batch["task"], batch["weight"]
        task_logits, logits_BT = self.model.both(batch, name)
        task = task_loss(task_logits, batch["labels"], self.tasks[name])
        weights = self.weights if isinstance(self.weights, Tensor) else None
        which = task_similarity_loss(logits_BT, self.task_index[name], self.discriminator_loss, weights)
        curves = {f"loss/{name}": (task.detach(), weight), f"discriminator_loss/{name}": (which.detach(), weight)}
        return {"loss": (task + which) * weight, "curves": curves}


class MultiTaskModule(_TaskModule):
    """Trains the MT-DNN on steps of one-task batches; with one task it is the single-task fine-tuning.

    A step's loss is the sum over its batches of share x weight x mean loss: `share` of the step's rows, `weight` from
    `weigher`, which may instead combine the gradients over the encoder itself. `evaluated`, if given, is measured on
    the validation batches. With `watch` the gradients of each batch in the last shared layer are kept for whoever
    `take`s them after the step.
    """

    def __init__(
        self, model: MultiTaskModel, tasks: tuple[TaskSpec, ...], fit: FitConfig, total_steps: int,
        evaluated: TaskSpec | None = None, weigher: Weigher | None = None, watch: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(tasks, fit, total_steps)
        self.model: MultiTaskModel = model
        self.evaluated = evaluated
        self.weigher = weigher or Weigher(tasks)
        self.watched: Watched | None = None
        self._watched = last_shared(model) if watch or self.weigher.needs_last_layer else []
        if evaluated is not None:
            self.metrics = build_metrics(evaluated)
            self.mean_loss = MeanMetric()
            self.mean_probability = MeanMetric()

    def other_parameters(self) -> list[dict[str, Any]]:
        """What the weighting learns."""
        rate = self.weigher.learning_rate
        return [] if rate is None else [{"params": list(self.weigher.parameters()), "lr": rate, "weight_decay": 0.0}]

    def training_step(self, step: list[dict[str, Any]], _: int) -> dict[str, Any]:
        """A batch of each of some tasks; `curves` are the values that `Curves` records, with the weight of each."""
        names = [batch["task"] for batch in step]
        losses_m = torch.stack([task_loss(self.model(b, b["task"]), b["labels"], self.tasks[b["task"]]) for b in step])
        weight_m, share_m = (torch.stack([batch[key] for batch in step]) for key in ("weight", "share"))
        curves = {f"loss/{name}": (loss.detach(), w) for name, loss, w in zip(names, losses_m, weight_m)}
        losses_m = losses_m * weight_m
        if self._watched:
            self._look(names, losses_m)
        if self.weigher.combine is not None:
            self._parts_m = share_m * losses_m
        return {"loss": self.weigher.loss(names, losses_m, share_m), "curves": curves}

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As ever, unless the weigher combines the batches' gradients over the encoder; heads keep their own."""
        if self.weigher.combine is None:
            super().backward(loss, *args, **kwargs)
            return
        shared = [weight for weight in self.model.encoder.parameters() if weight.requires_grad]
        combined_P = self.weigher.combine(shared_jacobian(self._parts_m, shared), self.trainer.global_step)
        self._parts_m.sum().backward(inputs=list(self.model.heads.parameters()))
        assign(shared, combined_P)
        del self._parts_m  # it holds the encoder's activations

    def _look(self, names: list[str], losses_m: Tensor) -> None:
        """Add this micro-batch's losses and gradients in the last shared layer to the step's."""
        gradients_mP = shared_jacobian(losses_m, self._watched)
        if self.watched is not None:
            losses_m, gradients_mP = losses_m + self.watched.losses_m, gradients_mP + self.watched.gradients_mP
        self.watched = Watched(names, losses_m.detach(), gradients_mP)

    def take(self) -> Watched:
        """What was watched during the step just made: mean losses and gradients over all ranks and micro-batches."""
        assert self.watched is not None
        seen, self.watched = self.watched, None
        count, reduce = self.trainer.accumulate_grad_batches, self.trainer.strategy.reduce
        return Watched(
            seen.names, reduce(seen.losses_m / count, reduce_op="mean"),
            reduce(seen.gradients_mP / count, reduce_op="mean"),
        )  # fmt: skip

    def validation_step(self, step: list[dict[str, Any]], _: int) -> None:
        """Collects one batch of the evaluated task."""
        assert self.evaluated is not None
        (batch,) = step
        kind, all_logits = self.evaluated.of_kind, self.model(batch, self.evaluated.name)
        logits, labels = kind.answered(all_logits, batch["labels"])
        right = kind.probability(logits, labels)
        self._has_probability = right is not None  # also on a rank without a row: all ranks must reduce the same values
        if batch["repeats"]:
            return
        self.metrics.update(*predicted_and_true(all_logits, batch["labels"], self.evaluated))
        self.mean_loss.update(kind.loss(logits, labels), len(labels))
        if right is not None:
            self.mean_probability.update(right)

    def on_validation_epoch_end(self) -> None:
        """Metrics, mean loss and mean probability of the right class over all ranks' rows, or their words."""
        assert self.evaluated is not None
        values = {**self.metrics.compute(), "loss": self.mean_loss.compute()}
        if self._has_probability:
            values["probability"] = self.mean_probability.compute()
        self.log_dict({f"choose/{name}": value for name, value in values.items()})
        for measured in (self.metrics, self.mean_loss, self.mean_probability):
            measured.reset()
