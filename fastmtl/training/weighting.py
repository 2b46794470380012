"""How the tasks of one optimizer step are weighed: by factors of their losses, or by combining their gradients.

Shapes: m tasks in a step, T tasks in all, P numbers in the parameters concerned. A step's batch holds m parts of one
task each; for its task i there are loss_i, the mean over the task's rows, and share_i, its rows over all rows of the
step (sum 1). `Equal` is sum_i share_i * loss_i, the mean over all rows. A factor applies to head and encoder alike;
gradient surgery changes the encoder's gradient alone, and each head keeps that of its own share_i * loss_i.

On several devices every rank must pass the same losses and gradients, averaged over the ranks, to `observe` and
`combine`; both are then the same on all ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from math import inf, log
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fastmtl.errors import UserError
from fastmtl.options import Count, NonNegative, Several, Share, options
from fastmtl.tasks import TaskSpec


class Weigher(nn.Module):
    """A weighting at work in one fit; this one has fixed factors.

    Its state, if it has any, is in its buffers and parameters. With `needs_last_layer` it wants `observe` after each
    step. `learning_rate` is that of its parameters, None where it has none; give them a parameter group of their own,
    without weight decay, which would pull them to their start, and outside the clipping of the model.

    `combine(jacobian_mP, step) -> (P,)`, where there is one, gives the encoder's gradient: from the gradients of
    share_i * loss_i by all shared parameters, and the count of the optimizer's steps.
    """

    needs_last_layer: bool = False
    learning_rate: float | None = None
    combine: Callable[[Tensor, int], Tensor] | None = None

    def __init__(self, tasks: Sequence[TaskSpec], factors: Sequence[float] | None = None) -> None:
        super().__init__()
        self.index = {task.name: i for i, task in enumerate(tasks)}
        self.factors_T: Tensor
        self.register_buffer("factors_T", torch.tensor(factors or [1.0] * len(tasks), dtype=torch.float32))

    def _pick(self, values_T: Tensor, names: Sequence[str]) -> Tensor:
        """(m,) values of the tasks named; element by element, for a list of indices would be copied to the device."""
        assert len(set(names)) == len(names), f"parts of one task are to be merged: {names}"
        return torch.stack([values_T[self.index[name]] for name in names])

    def weights(self, names: Sequence[str]) -> Tensor:
        """(m,) factors of the losses of the tasks named."""
        return self._pick(self.factors_T, names)

    def penalties(self, names: Sequence[str]) -> Tensor:
        """(m,) what is added to each weighted loss, before the shares."""
        return torch.zeros_like(self.weights(names))

    def loss(self, names: Sequence[str], losses_m: Tensor, shares_m: Tensor) -> Tensor:
        """The step's loss, sum_i share_i * (w_i * loss_i + penalty_i). A sum over tasks, so parts may be added up."""
        return (shares_m * (self.weights(names) * losses_m + self.penalties(names))).sum()

    def observe(self, names: Sequence[str], losses_m: Tensor, gradients_mP: Tensor) -> None:
        """Learn from a step: its losses, unweighted, and their gradients by the last shared layer's weights."""


class Weighting(Protocol):
    """What the user chooses; a frozen dataclass, so that its fields are its identity."""

    needs: ClassVar[frozenset[str]]
    """`adamw`: what it learns is stepped by AdamW. `whole_gradients`: all gradients of a step on one device, unscaled
    and not accumulated. `unsharded`: not under FSDP. `last_layer`: the encoder has a last layer that is trained."""

    @property
    def parts(self) -> int:
        """Of how many parts of one task each a step's batch is made."""
        ...

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        """What weighs in one fit on `tasks`, of so many batches each; a function of the arguments alone."""
        ...


@options
class Equal:
    """Every row counts the same."""

    needs: ClassVar[frozenset[str]] = frozenset()
    parts: Count = 1

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        return Weigher(tasks)


@options
class LogSize:
    """Small tasks count more: factor ln(e * N_max / N_t), N being batches of the task (FastMTL's --weight_loss)."""

    needs: ClassVar[frozenset[str]] = frozenset({"unsharded"})
    parts: Count = 1

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        return Weigher(tasks, [1 + log(max(batches) / count) for count in batches])


@options
class Uncertainty:
    """Each task's noise is learned, and noisy tasks count less (Kendall et al. 2018, equations 7 and 10).

    With s = ln(variance): exp(-s) * L + s / 2 for classification, exp(-s) / 2 * L + s / 2 for regression; their minima
    in s are ln(2 L) and ln(L). `learning_rate` is that of s. It must travel by about ln of the loss, 1 to 3, and Adam
    moves it by no more than the rate a step: 0.01 takes hundreds of steps, an encoder's 2e-5 would never arrive
    (Chen et al. 2018, section 5.1, give this method 0.025 and tens of thousands of steps).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"adamw", "unsharded"})
    learning_rate: Share = 0.01
    parts: Count = 1

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        return _UncertaintyWeigher(tasks, self.learning_rate)


class _UncertaintyWeigher(Weigher):
    def __init__(self, tasks: Sequence[TaskSpec], learning_rate: float) -> None:
        super().__init__(tasks, [task.of_kind.loss_scale for task in tasks])
        self.learning_rate = learning_rate
        self.log_variances_T = nn.Parameter(torch.zeros(len(tasks)))

    def weights(self, names: Sequence[str]) -> Tensor:
        return super().weights(names) * torch.exp(-self._pick(self.log_variances_T, names))

    def penalties(self, names: Sequence[str]) -> Tensor:
        return self._pick(self.log_variances_T, names) / 2


@options
class GradNorm:
    """Tasks whose loss falls slowly get larger gradients (Chen et al. 2018, algorithm 1).

    The factor w_i follows the gradient of |w_i * n_i - mean_j(w_j * n_j) * r_i ^ alpha|, its target held constant;
    n_i is the norm of loss_i's gradient by the last shared layer, r_i = (L_i / L_i(0)) over its mean, and L_i(0) the
    first loss seen. That gradient is +-n_i, so nothing is differentiated twice. Tasks absent from a step have no part
    in its means and keep their factors; those of the step are rescaled to their former sum, so that all factors always
    sum to the number of tasks. Other than in the paper n_i is divided by the step's mean norm, which makes a move
    about `learning_rate` whatever the scale of the losses (as the paper's Adam does), and a factor stops near 0.01.
    Memory: m x P x 4 bytes for the last layer's gradients: with m = 4, 28 MB for all-MiniLM-L6, 113 MB for BERT-base.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"last_layer", "unsharded"})
    alpha: NonNegative = 1.5
    learning_rate: Share = 0.025
    parts: Several = 4

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        return _GradNormWeigher(tasks, self.alpha, self.learning_rate)


class _GradNormWeigher(Weigher):
    needs_last_layer = True

    def __init__(self, tasks: Sequence[TaskSpec], alpha: float, rate: float) -> None:
        super().__init__(tasks)
        self.alpha, self.rate = alpha, rate
        self.first_losses_T: Tensor
        self.register_buffer("first_losses_T", torch.full((len(tasks),), torch.nan))

    @torch.no_grad()
    def observe(self, names: Sequence[str], losses_m: Tensor, gradients_mP: Tensor) -> None:
        first_m = self._pick(self.first_losses_T, names)
        first_m = torch.where(first_m.isnan() & losses_m.isfinite(), losses_m, first_m)
        weights_m = self.weights(names)
        norms_m = gradients_mP.norm(dim=1)
        rates_m = losses_m / first_m
        weighted_m = weights_m * norms_m
        target_m = weighted_m.mean() * (rates_m / rates_m.mean()) ** self.alpha
        moved_m = weights_m - self.rate * (weighted_m - target_m).sign() * norms_m / norms_m.mean()
        moved_m = moved_m.clamp(min=0.01)
        moved_m = moved_m * (weights_m.sum() / moved_m.sum())
        # A step that overflowed in half precision, or in which every gradient is zero, teaches nothing.
        moved_m = torch.where(moved_m.isfinite().all(), moved_m, weights_m)
        for i, name in enumerate(names):
            self.first_losses_T[self.index[name]] = first_m[i]
            self.factors_T[self.index[name]] = moved_m[i]


@options
class Surgery(ABC):
    """What the methods that combine the tasks' encoder gradients have in common; not one of them.

    They hold m x P x 4 bytes, P counting the encoder's trained parameters: with m = 4 that is 0.36 GB for
    all-MiniLM-L6 (22.6 M) and 1.7 GB for BERT-base (108 M), beside weights, gradients and optimizer states.
    Without conflict, that is where no two gradients have a negative inner product, PCGrad and UPGrad give the plain sum
    of the rows, the gradient of `Equal`; CAGrad does in the cases it names.
    """

    packages: ClassVar[tuple[str, ...]] = ("torchjd",)
    needs: ClassVar[frozenset[str]] = frozenset({"whole_gradients", "unsharded"})
    parts: Several = 4

    def __post_init__(self) -> None:
        # Said here, for `start` comes after the stages that train the proxy and score all rows.
        for package in self.packages:
            if find_spec(package) is None:
                name = type(self).__name__.lower()
                raise UserError(f"weighting={name} needs the package {package}; run: pip install 'fastmtl[surgery]'")

    def start(self, tasks: Sequence[TaskSpec], batches: Sequence[int], seed: int) -> Weigher:
        return _SurgeryWeigher(tasks, self.solver(), seed)

    @abstractmethod
    def solver(self) -> Callable[[Tensor], Tensor]:
        """From the rows' inner products (m, m), on the CPU in float64, their trace 1, to the rows' factors (m,)."""


@options
class PCGrad(Surgery):
    """Each gradient loses its part against every other it conflicts with, in random order (Yu et al. 2020,
    algorithm 1); their sum is taken.

    The order is a function of seed and step. Memory: see `Surgery`.
    """

    def solver(self) -> Callable[[Tensor], Tensor]:
        from torchjd.aggregation import PCGradWeighting

        return PCGradWeighting()


@options
class CAGrad(Surgery):
    """The update that most helps the worst-off task, within c * |g| of the mean gradient g (Liu et al. 2021, alg. 1).

    c = 0 is `Equal`; the authors' runs have 0.4. From 1 on no task is ever harmed, below it may be. The result is
    divided by 1 + c, the authors' rescale=2, and multiplied by m: it is never longer than the sum of the rows, and
    equal to it for rows in one direction and for orthogonal rows of one length. Memory: see `Surgery`. A call takes
    about 10 ms of a CPU core, where the others take 1.
    """

    packages: ClassVar[tuple[str, ...]] = ("torchjd", "cvxpy", "clarabel")
    c: NonNegative = 0.4

    def solver(self) -> Callable[[Tensor], Tensor]:
        from torchjd.aggregation import CAGradWeighting

        mean_like = CAGradWeighting(c=self.c)
        return lambda gramian_mm: len(gramian_mm) / (1 + self.c) * mean_like(gramian_mm)


@options
class UPGrad(Surgery):
    """Each gradient is moved as little as makes it harm no task, then they are summed (Quinton & Rey 2024).

    TorchJD adds 1e-4 of the squared norm of all rows to each row's, so that it would overlook what harms a task whose
    gradient is a hundredth of the others'; it is therefore given rows of length 1, the lengths being their weights,
    which changes nothing else. Memory: see `Surgery`.
    """

    packages: ClassVar[tuple[str, ...]] = ("torchjd", "qpsolvers", "quadprog")

    def solver(self) -> Callable[[Tensor], Tensor]:
        from torchjd.aggregation import UPGradWeighting

        def solve(gramian_mm: Tensor) -> Tensor:
            norms_m = gramian_mm.diagonal().sqrt().clamp(min=1e-150)  # a zero row stays zero
            unit_mm = gramian_mm / norms_m / norms_m[:, None]
            return UPGradWeighting(pref_vector=norms_m)(unit_mm) / norms_m

        return solve


class _SurgeryWeigher(Weigher):
    def __init__(self, tasks: Sequence[TaskSpec], solver: Callable[[Tensor], Tensor], seed: int) -> None:
        super().__init__(tasks)
        self.solver, self.seed = solver, seed

    @torch.no_grad()
    def combine(self, jacobian_mP: Tensor, step: int) -> Tensor:
        # Half precision would round inner products near zero to either sign.
        with torch.autocast(jacobian_mP.device.type, enabled=False):
            gramian_mm = (jacobian_mP @ jacobian_mP.T).cpu().double()
            size = float(gramian_mm.trace())
            # Gradients that are all zero, or that overflowed and whose step will be left out.
            if len(gramian_mm) == 1 or not 0 < size < inf:
                return jacobian_mP.sum(0)
            with torch.random.fork_rng(devices=[]):
                # PCGrad draws from the CPU's global generator; torch.manual_seed would seed the GPUs' too.
                torch.default_generator.manual_seed(int(np.random.default_rng([self.seed, step]).integers(2**63)))
                # TorchJD takes a matrix with a squared norm below 1e-4 for zero: UPGrad is then the mean and CAGrad
                # nothing. No method depends on the scale, so it is taken out.
                weights_m = self.solver(gramian_mm / size)
            return weights_m.to(jacobian_mP) @ jacobian_mP


def shared_jacobian(losses: Sequence[Tensor] | Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """(m, P) the gradient of each loss by all parameters; zeros where a loss does not depend on one.

    The graphs are kept, for a backward pass of the heads. Peak memory beside them: (m + 1) x P x 4 bytes.
    """
    rows_mP = parameters[0].new_zeros(len(losses), sum(one.numel() for one in parameters))
    for loss, row_P in zip(losses, rows_mP):
        gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
        for part, gradient in zip(_slices(row_P, parameters), gradients):
            if gradient is not None:
                part.copy_(gradient)
        del gradients  # not to be held beside the next loss's
    return rows_mP


def assign(parameters: Sequence[Tensor], vector_P: Tensor) -> None:
    """Make `vector_P` the parameters' gradient in place of any other, without a copy: each `grad` is a view of it."""
    for parameter, part in zip(parameters, _slices(vector_P, parameters)):
        parameter.grad = part


def _slices(vector_P: Tensor, parameters: Sequence[Tensor]) -> Iterator[Tensor]:
    """The vector's part for each parameter, in its shape."""
    parts = vector_P.split([one.numel() for one in parameters])
    return (part.view_as(one) for part, one in zip(parts, parameters))
