"""Loss weightings and gradient surgery against small cases worked out by hand."""

from __future__ import annotations

import math
import pickle
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from fastmtl.errors import UserError
from fastmtl.tasks import TaskSpec
from fastmtl.training.weighting import (
    CAGrad,
    Equal,
    GradNorm,
    LogSize,
    PCGrad,
    Surgery,
    Uncertainty,
    UPGrad,
    Weigher,
    assign,
    shared_jacobian,
)

A, B = (TaskSpec(name, "classification", ("text",), ("no", "yes")) for name in "ab")
VALUE = TaskSpec("value", "regression", ("text",))
SURGERY = [PCGrad, CAGrad, UPGrad]


def several(count: int) -> list[TaskSpec]:
    return [TaskSpec(f"t{i}", "classification", ("text",), ("no", "yes")) for i in range(count)]


def combined(method: Surgery, *rows: list[float], step: int = 0, seed: int = 0, scale: float = 1.0) -> Tensor:
    weigher = method.start(several(len(rows)), [1] * len(rows), seed)
    assert weigher.combine is not None
    return weigher.combine(torch.tensor(rows) * scale, step) / scale


# --- factors of the losses


def test_equal_is_the_mean_over_all_rows_of_the_step() -> None:
    loss = Equal().start([A, B], [1, 1], 0).loss(["b", "a"], torch.tensor([2.0, 10.0]), torch.tensor([0.75, 0.25]))
    assert float(loss) == 4.0


def test_log_size_is_that_of_fastmtl() -> None:
    weigher = LogSize().start([A, B, VALUE], [100, 50, 10], 0)
    # ln(e * 100 / 100), ln(e * 100 / 10), ln(e * 100 / 50)
    assert weigher.weights(["a", "value", "b"]).tolist() == pytest.approx([1.0, 3.302585, 1.693147])
    assert weigher.penalties(["a", "value"]).tolist() == [0.0, 0.0]
    assert not list(weigher.parameters())
    assert weigher.combine is None


def test_uncertainty_starts_from_the_losses_as_they_are_and_half_the_squared_error() -> None:
    weigher = Uncertainty().start([A, VALUE], [1, 1], 0)
    assert weigher.learning_rate == 0.01
    assert weigher.weights(["value", "a"]).tolist() == [0.5, 1.0]
    assert weigher.penalties(["value", "a"]).tolist() == [0.0, 0.0]


def test_uncertainty_learns_the_logarithm_of_twice_the_loss_or_of_the_squared_error() -> None:
    # exp(-s) L + s / 2 is least where exp(-s) L = 1 / 2; exp(-s) L / 2 + s / 2 where exp(-s) L = 1. The shares
    # change neither.
    weigher = Uncertainty().start([A, B, VALUE], [1, 1, 1], 0)
    (learned,) = weigher.parameters()
    for _ in range(300):
        loss = weigher.loss(["a", "value"], torch.tensor([0.3, 4.0]), torch.tensor([0.25, 0.75]))
        (gradient,) = torch.autograd.grad(loss, learned)
        learned.data -= gradient
    assert learned.tolist() == pytest.approx([math.log(0.6), 0.0, math.log(4.0)], abs=1e-4)
    assert weigher.weights(["a", "value"]).tolist() == pytest.approx([1 / 0.6, 0.5 / 4.0], abs=1e-3)


def watched(weigher: Weigher, names: list[str], losses: list[float], norms: list[float]) -> list[float]:
    """The factors after a step whose gradients have these lengths."""
    weigher.observe(names, torch.tensor(losses), torch.diag(torch.tensor(norms)))
    return weigher.weights(names).tolist()


def test_gradnorm_by_hand() -> None:
    weigher = GradNorm(alpha=1.0, learning_rate=0.1).start([A, B], [1, 1], 0)
    # First losses, so both rates are 1, and the target is the mean length 2: 1 is below it, 3 above. The lengths over
    # their mean are 1/2 and 3/2: the factors become 1.05 and 0.85, which sum to 1.9, and so times 2 / 1.9.
    assert watched(weigher, ["a", "b"], [1.0, 4.0], [1.0, 3.0]) == pytest.approx([1.05 / 0.95, 0.85 / 0.95])


def test_gradnorm_moves_weight_to_the_slow_task_and_leaves_equals_alone() -> None:
    weigher = GradNorm().start([A, B], [1, 1], 0)
    for _ in range(5):
        assert watched(weigher, ["a", "b"], [1.0, 1.0], [2.0, 2.0]) == [1.0, 1.0]
    for loss in (0.8, 0.6, 0.4, 0.2):  # of b, while a's does not fall
        slow, fast = watched(weigher, ["a", "b"], [1.0, loss], [2.0, 2.0])
    assert slow > 1.05
    assert fast < 0.95
    assert slow + fast == pytest.approx(2.0)


def test_gradnorm_comes_to_rest_where_the_lengths_are_as_the_rates_demand() -> None:
    weigher = GradNorm(alpha=0.0, learning_rate=0.01).start([A, B], [1, 1], 0)
    for _ in range(300):
        weights = watched(weigher, ["a", "b"], [1.0, 1.0], [1.0, 3.0])
    assert weights == pytest.approx([1.5, 0.5], abs=0.05)  # times 1 and 3 they are equally long


def test_gradnorm_keeps_the_factors_of_absent_tasks_and_the_sum_of_all() -> None:
    weigher = GradNorm(learning_rate=0.5).start([A, B, VALUE], [1, 1, 1], 0)
    watched(weigher, ["a", "b"], [1.0, 1.0], [1.0, 5.0])
    before = weigher.weights(["a", "b", "value"])
    watched(weigher, ["value", "b"], [1.0, 1.0], [5.0, 1.0])
    after = weigher.weights(["a", "b", "value"])
    assert after[0] == before[0]
    assert not torch.equal(after, before)
    assert float(after.sum()) == pytest.approx(3.0)
    assert watched(weigher, ["a"], [9.0], [9.0]) == before[:1].tolist()  # alone there is nothing to compare


def test_gradnorms_factors_stay_positive_and_an_overflow_teaches_nothing() -> None:
    weigher = GradNorm(learning_rate=0.9).start([A, B], [1, 1], 0)
    for _ in range(20):
        weights = watched(weigher, ["a", "b"], [1.0, 1.0], [1e-3, 1e3])
    assert 0 < weights[1] < weights[0]
    assert watched(weigher, ["a", "b"], [1.0, math.inf], [1.0, math.nan]) == weights
    assert watched(weigher, ["a", "b"], [1.0, 1.0], [0.0, 0.0]) == weights


def test_gradnorms_state_is_in_its_state_dict() -> None:
    one, other = (GradNorm().start([A, B], [1, 1], 0) for _ in range(2))
    watched(one, ["a", "b"], [1.0, 2.0], [1.0, 3.0])
    other.load_state_dict(one.state_dict())
    assert watched(one, ["a", "b"], [1.0, 1.0], [1.0, 3.0]) == watched(other, ["a", "b"], [1.0, 1.0], [1.0, 3.0])


# --- gradients combined


@pytest.fixture
def torchjd() -> Any:
    return pytest.importorskip("torchjd.aggregation")


def test_pcgrad_projects_each_of_two_conflicting_gradients_on_the_others_normal_plane(torchjd: Any) -> None:
    # g1 = (1, 0), g2 = (-1, 1), g1 g2 = -1: g1 + g2 / 2 = (1/2, 1/2), g2 + g1 = (0, 1)
    assert combined(PCGrad(), [1.0, 0.0], [-1.0, 1.0]).tolist() == pytest.approx([0.5, 1.5])


def test_upgrad_projects_on_the_cone_of_directions_that_harm_no_task(torchjd: Any) -> None:
    # With two rows both projections are PCGrad's: each is already orthogonal to the row it conflicts with. With a
    # third, (0, -1), what g2 leaves, (0, 1), harms it: directions that harm none of the three are (x, 0), x = 0.
    assert combined(UPGrad(), [1.0, 0.0], [-1.0, 1.0]).tolist() == pytest.approx([0.5, 1.5], abs=1e-3)
    three = combined(UPGrad(), [1.0, 0.0], [-1.0, 1.0], [0.0, -1.0])
    assert three.tolist() == pytest.approx([0.0, 0.0], abs=3e-3)


def test_upgrad_harms_no_task_also_none_with_a_thousandth_of_the_others_gradient(torchjd: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        rows = torch.randn(4, 3, generator=generator) * torch.tensor([[1.0], [1e-3], [1.0], [10.0]])
        update = combined(UPGrad(), *rows.tolist(), step=step)
        assert (rows @ update >= -2e-3 * rows.norm(dim=1) * rows.norm()).all()


def test_cagrad_by_hand(torchjd: Any) -> None:
    # g1 = (1, 1), g2 = (-1, 1), mean g0 = (0, 1): by symmetry w = (1/2, 1/2), so the update has the direction of g0,
    # its length 1 + c over the rescaling by 1 + c, and times m = 2 it is the sum.
    assert combined(CAGrad(c=0.5), [1.0, 1.0], [-1.0, 1.0]).tolist() == pytest.approx([0.0, 2.0], abs=1e-4)
    # g1 = (3, 0), g2 = (-1, 0): on a line w is all g2's, for which g0 = (1, 0) is the worse; g0 + c |g0| (-1, 0).
    assert combined(CAGrad(c=0.5), [3.0, 0.0], [-1.0, 0.0]).tolist() == pytest.approx([2 * 0.5 / 1.5, 0.0], abs=1e-4)


def test_cagrad_helps_the_worst_off_and_from_one_on_harms_no_task(torchjd: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        rows = torch.randn(3, 4, generator=generator)
        total = rows.sum(0)
        worst = [float((rows @ combined(CAGrad(c=c), *rows.tolist()) * (1 + c)).min()) for c in (0.0, 0.4, 1.0)]
        assert worst[0] == pytest.approx(float((rows @ total).min()), abs=1e-4)
        assert worst[0] <= worst[1] + 1e-4
        assert worst[1] <= worst[2] + 1e-4
        assert worst[2] >= -1e-3
        assert combined(CAGrad(), *rows.tolist()).norm() <= total.norm() * (1 + 1e-4), step


@pytest.mark.parametrize("method", SURGERY)
@pytest.mark.parametrize(
    "rows",
    [
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]],
        [[1.0, 2.0], [3.0, 6.0]],  # one direction
        [[0.5, -3.0]],  # a task alone
        [[0.0, 0.0], [0.0, 0.0]],
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_without_conflict_surgery_is_the_plain_sum_at_any_scale(
    method: type[Surgery], rows: list[list[float]], scale: float, torchjd: Any
) -> None:
    total = torch.tensor(rows).sum(0)
    assert combined(method(), *rows, scale=scale).tolist() == pytest.approx(total.tolist(), abs=2e-3)


@pytest.mark.parametrize("method", [PCGrad, UPGrad])
def test_rows_of_any_length_that_do_not_conflict_are_summed(method: type[Surgery], torchjd: Any) -> None:
    assert combined(method(), [5.0, 0.0], [0.1, 0.1], [0.0, 1.0]).tolist() == pytest.approx([5.1, 1.1], abs=1e-3)


@pytest.mark.parametrize("method", SURGERY)
def test_small_gradients_are_combined_like_large_ones(method: type[Surgery], torchjd: Any) -> None:
    # TorchJD alone takes these for zero and gives the mean (UPGrad) or nothing (CAGrad)
    rows = [[1.0, 0.3], [-1.0, 0.5]]
    small = combined(method(), *rows, scale=1e-4)
    assert small.tolist() == pytest.approx(combined(method(), *rows).tolist(), abs=1e-4)


def test_factors_are_torchjds_own(torchjd: Any) -> None:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(combined(UPGrad(), *rows.tolist()), 4 * torchjd.UPGrad()(rows), atol=1e-2)
    theirs = 4 / 1.4 * torchjd.CAGrad(c=0.4)(rows)
    assert torch.allclose(combined(CAGrad(), *rows.tolist()), theirs, atol=1e-3)


def test_pcgrads_order_is_a_function_of_seed_and_step_and_draws_nothing_from_the_global_generator(torchjd: Any) -> None:
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(4)).tolist()
    state = torch.get_rng_state()
    first = combined(PCGrad(), *rows, seed=1, step=7)
    torch.rand(3)
    assert torch.equal(combined(PCGrad(), *rows, seed=1, step=7), first)
    torch.set_rng_state(state)
    combined(PCGrad(), *rows, seed=1, step=8)
    assert torch.equal(torch.get_rng_state(), state)
    others = [combined(PCGrad(), *rows, seed=1, step=step) for step in range(5)]
    assert any(not torch.equal(one, others[0]) for one in others)
    seeds = [combined(PCGrad(), *rows, seed=seed, step=7) for seed in range(5)]
    assert any(not torch.equal(one, seeds[0]) for one in seeds)


@pytest.mark.parametrize("method", SURGERY)
def test_gradients_that_overflowed_go_through_as_they_are(method: type[Surgery], torchjd: Any) -> None:
    # the loss scaler must see them, to leave the step out
    assert not combined(method(), [1.0, math.inf], [-1.0, 1.0]).isfinite().all()


def test_surgery_is_done_in_head_in_float32_under_autocast(torchjd: Any) -> None:
    rows = [[1.0, 0.001], [-1.0, 0.002]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = combined(PCGrad(), *rows)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, combined(PCGrad(), *rows))


# --- the encoder's gradients as rows


def test_the_jacobian_holds_each_losss_gradient_and_assign_gives_it_back() -> None:
    torch.manual_seed(0)
    first, second, idle = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    shared = [*first.parameters(), *idle.parameters()]
    hidden = first(torch.randn(4, 3)).tanh()
    losses = torch.stack([second(hidden).square().mean(), hidden.square().sum()])

    rows = shared_jacobian(losses, shared)
    assert rows.shape == (2, 6 + 2 + 2 + 1)
    assert not rows[:, 8:].any()  # no loss depends on them
    assert all(one.grad is None for one in shared)

    losses.sum().backward()  # the graph is still there
    expected = [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in shared]
    assign(shared, rows.sum(0))
    for one, gradient in zip(shared, expected):
        assert one.grad is not None
        assert torch.allclose(one.grad, gradient, atol=1e-6)
    torch.nn.utils.clip_grad_norm_(shared, 1e-3)
    assert math.sqrt(sum(float(one.grad.square().sum()) for one in shared)) == pytest.approx(1e-3, rel=1e-3)


# --- options


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Equal(parts=0), "^parts=0 does not fit; use a whole number of 1 or more$"),
        (lambda: Equal(parts=True), "^parts=True does not fit"),
        (lambda: LogSize(parts=1.5), "^parts=1.5 does not fit"),  # type: ignore[arg-type]
        (lambda: GradNorm(parts=1), "^parts=1 does not fit; use a whole number of 2 or more$"),
        (lambda: PCGrad(parts=1), "^parts=1 does not fit; use a whole number of 2 or more$"),
        (lambda: Uncertainty(learning_rate=0), "^learning_rate=0 does not fit; use a number above 0 and below 1$"),
        (lambda: GradNorm(learning_rate=1.0), "^learning_rate=1.0 does not fit; use a number above 0 and below 1$"),
        (lambda: GradNorm(alpha=-1), "^alpha=-1 does not fit; use a number of 0 or more$"),
        (lambda: GradNorm(alpha="x"), "^alpha='x' does not fit"),  # type: ignore[arg-type]
        (lambda: GradNorm(alpha=math.nan), "^alpha=nan does not fit"),
    ],
)
def test_bad_values_are_said_in_one_line(build: Any, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_cagrads_constant_is_checked(torchjd: Any) -> None:
    with pytest.raises(UserError, match=r"^c=-0\.1 does not fit; use a number of 0 or more$"):
        CAGrad(c=-0.1)


@pytest.mark.parametrize(
    ("method", "package"), [(PCGrad, "torchjd"), (CAGrad, "cvxpy"), (UPGrad, "quadprog"), (UPGrad, "torchjd")]
)
def test_a_missing_package_is_asked_for(
    method: type[Surgery], package: str, monkeypatch: pytest.MonkeyPatch, torchjd: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    name = method.__name__.lower()
    with pytest.raises(UserError, match=rf"weighting={name} needs the package {package}; run: pip install 'fastmtl\["):
        method()


def test_every_option_has_the_defaults_of_its_class_and_can_be_sent_to_a_rank(root: Path, torchjd: Any) -> None:
    options = sorted((root / "conf/weighting").glob("*.yaml"))
    assert [one.stem for one in options] == [
        "cagrad", "equal", "gradnorm", "log_size", "pcgrad", "uncertainty", "upgrad",
    ]  # fmt: skip
    for option in options:
        values = yaml.safe_load(option.read_text())
        module, name = values.pop("_target_").rsplit(".", 1)
        weighting = getattr(import_module(module), name)()
        assert asdict(weighting) == values
        assert pickle.loads(pickle.dumps(weighting)) == weighting
        assert weighting.start([A, B, VALUE], [3, 2, 1], 0).weights(["a", "value"]).shape == (2,)
