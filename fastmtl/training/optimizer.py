"""The optimizer of a fit, its rates by depth and over time, and the pull to the weights where the fit starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastmtl.errors import UserError
from fastmtl.models.multitask import MultiTaskModel
from fastmtl.training.config import FitConfig


def depths(model: MultiTaskModel) -> dict[int, int]:
    """Id of each weight of the encoder's layers and embeddings -> layers above it; weights without any are left out.

    Raises:
        UserError: The encoder does not say what its layers are.
    """
    stack, embeddings = model.encoder.layer_stack(), model.encoder.embedding_module()
    if not stack or embeddings is None:
        raise UserError(f"fit.layer_decay does not know the layers of encoder {model.encoder.spec.name!r}; use 1")
    below = [embeddings, *stack][:-1]
    return {id(weight): i for i, part in enumerate(reversed(below), 1) for weight in part.parameters()}


def groups(model: MultiTaskModel, fit: FitConfig) -> list[dict[str, Any]]:
    """Parameter groups of the weights that are trained: one, or one for each rate.

    `probed` groups wait until the heads alone have been trained.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    depth = depths(model) if fit.layer_decay != 1 else {}
    encoder = {id(weight) for weight in model.encoder.parameters()} if fit.probing else set()
    assert fit.learning_rate is not None  # resolved
    found: dict[tuple[int, bool], dict[str, Any]] = {}
    for weight in trained:
        above, waits = depth.get(id(weight), 0), id(weight) in encoder
        rate = fit.learning_rate * fit.layer_decay**above
        group = {"params": [], "lr": rate, "weight_decay": fit.weight_decay, "probed": waits}
        found.setdefault((above, waits), group)["params"].append(weight)
    return list(found.values())


def optimizer_of(fit: FitConfig, parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer over groups of parameters."""
    if fit.optimizer == "adadelta":
        return torch.optim.Adadelta(parameters, rho=0.95, eps=1e-6)
    # The fused step undoes fp16's loss scale by itself, and so after gradients were clipped.
    return torch.optim.AdamW(parameters, eps=1e-8, fused=fit.precision != "fp16")


def schedule_of(fit: FitConfig, optimizer: torch.optim.Optimizer, total_steps: int) -> Any:
    """Linear warm-up and, unless constant, linear decay to zero over `total_steps`; later by the steps of probing for
    the groups that wait."""
    probed, warm = round(fit.probing * total_steps), round(fit.warmup * total_steps)

    def factor(wait: int, step: int) -> float:
        step, total = step - wait, total_steps - wait
        if step < 0:
            return 0.0
        if step < warm:
            return (step + 1) / (warm + 1)
        return 1.0 if fit.schedule == "constant" else max(0.0, (total - step) / max(1, total - warm))

    waits = [probed if group.get("probed") else 0 for group in optimizer.param_groups]
    factors: list[Callable[[int], float]] = [partial(factor, wait) for wait in waits]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


class Pull:
    """After each step it moves the encoder's weights back to where they were, by the share rate x `strength`.

    The pull of L2-SP towards the starting point (Li et al. 2018), decoupled from the gradient as AdamW's weight decay
    is: in the loss, Adam would scale it away. Memory: a copy of the encoder.
    """

    def __init__(self, model: MultiTaskModel, strength: float) -> None:
        self.strength = strength
        weights = [weight for weight in model.encoder.parameters() if weight.requires_grad]
        self.start = {id(weight): weight.detach().clone() for weight in weights}

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            share = min(1.0, group["lr"] * self.strength)
            for weight in group["params"]:
                if (start := self._of(weight)) is not None:
                    weight.lerp_(start, share)

    def _of(self, weight: Tensor) -> Tensor | None:
        """Where the weight started, on the device that it has been moved to since."""
        if (start := self.start.get(id(weight))) is not None and start.device != weight.device:
            start = self.start[id(weight)] = start.to(weight.device)
        return start
