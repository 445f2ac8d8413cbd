from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from align.config.shared import OptimizerConfig
from align.engine.optim import Optimizer, clip_gradients, schedule_factor
from align.errors import AlignError


def make(config: OptimizerConfig, *, total: int = 10, scaler: object = None) -> tuple[torch.nn.Parameter, Optimizer]:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    return weight, Optimizer({"w": weight}, config, total_updates=total, scaler=scaler)


def test_schedule_by_hand():
    """Warm-up over 3 of 11 updates: 1/4, 2/4, 3/4, then 1; eight updates are left, so update 7 is half-way."""
    rising = [schedule_factor("linear", update, 3, 11) for update in range(4)]
    assert rising == [0.25, 0.5, 0.75, 1.0]
    assert schedule_factor("linear", 7, 3, 11) == 0.5
    assert schedule_factor("cosine", 7, 3, 11) == pytest.approx(0.5)
    assert schedule_factor("cosine", 5, 3, 11) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule_factor("constant", 10, 3, 11) == 1.0


@given(schedule=sampled_from(["constant", "linear", "cosine"]), warmup=integers(0, 20), total=integers(1, 40))
def test_the_rate_stays_between_0_and_the_peak_and_never_rises_after_the_warmup(schedule: str, warmup: int, total: int):
    factors = [schedule_factor(schedule, update, warmup, total) for update in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    after = factors[warmup:]
    assert after == sorted(after, reverse=True)


def test_adamw_by_hand():
    """First AdamW step: m/(1-b1) = g and sqrt(v/(1-b2)) = |g|, so w <- w (1 - lr wd) - lr g/(|g| + eps).

    lr 0.1, wd 0.5: 1 * 0.95 - 0.1 = 0.85 and -2 * 0.95 + 0.1 = -1.8.
    """
    weight, optimizer = make(OptimizerConfig(learning_rate=0.1, weight_decay=0.5, max_grad_norm=None))
    weight.grad = torch.tensor([3.0, -4.0])
    report = optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([0.85, -1.8]))
    assert report.grad_norm == 5.0
    assert report.learning_rate == 0.1
    assert report.applied
    assert weight.grad is None


def test_moments_are_there_before_the_first_update_and_change_none():
    """Bit for bit the weights of an AdamW that makes its state at its first update."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    plain = torch.nn.Parameter(weight.detach().clone())
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.01, max_grad_norm=None)
    ours = Optimizer({"w": weight}, config, total_updates=3)
    state = ours.state_dict()
    assert float(state["step/w"]) == 0
    assert all(torch.equal(state[f"{name}/w"], torch.zeros(3)) for name in ("exp_avg", "exp_avg_sq"))
    theirs = torch.optim.AdamW(
        [plain], lr=0.1, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )
    for update in range(3):
        weight.grad = torch.tensor([0.5, -1.0, update])
        plain.grad = weight.grad.clone()
        ours.step()
        theirs.step()
        assert torch.equal(weight, plain)


def test_clipping_by_hand():
    """Norm of (3, 4) and (12) together is 13; clipped to 6.5 everything halves. Without a limit nothing changes."""
    weights = [torch.nn.Parameter(torch.zeros(size)) for size in (2, 1, 1)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    assert clip_gradients(weights, None) == 13.0
    assert weights[0].grad.tolist() == [3.0, 4.0]
    assert clip_gradients(weights, 6.5) == 13.0
    torch.testing.assert_close(weights[0].grad, torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([6.0]))
    assert clip_gradients(weights, 100.0) == pytest.approx(6.5)
    assert clip_gradients([torch.nn.Parameter(torch.zeros(1))], 1.0) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_left_out(bad: float):
    weight, optimizer = make(OptimizerConfig())
    before = weight.detach().clone()
    weight.grad = torch.tensor([bad, 1.0])
    report = optimizer.step()
    assert not report.applied
    assert torch.equal(weight.data, before)
    weight.grad = torch.tensor([1.0, 1.0])
    assert optimizer.step().applied
    assert torch.isfinite(weight).all()
    assert optimizer.updates == 2


def test_five_in_a_row_stop_with_a_way_out():
    weight, optimizer = make(OptimizerConfig())
    for update in range(9):  # a good one in between begins the count again: four before it and four after
        weight.grad = torch.tensor([1.0 if update == 4 else math.nan, 1.0])
        optimizer.step()
    weight.grad = torch.tensor([math.nan, 1.0])
    with pytest.raises(AlignError, match=r"5 updates in a row[\s\S]*learning_rate"):
        optimizer.step()


def test_state_round_trip_goes_on_bit_for_bit():
    config = OptimizerConfig(learning_rate=0.05, schedule="cosine", warmup_updates=2)

    def advance(weight: torch.nn.Parameter, optimizer: Optimizer, updates: range) -> None:
        for update in updates:
            weight.grad = torch.tensor([math.sin(update + 1), 0.3 * update])
            optimizer.step()

    straight, optimizer = make(config)
    advance(straight, optimizer, range(8))
    first, optimizer = make(config)
    advance(first, optimizer, range(4))
    state = {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in optimizer.state_dict().items()}
    second, optimizer = make(config)
    second.data.copy_(first.data)
    optimizer.load_state_dict(state)
    advance(second, optimizer, range(4, 8))
    assert torch.equal(second.data, straight.data)


def test_loss_scaling_state_travels_and_skips_shrink_the_scale():
    """fp16's scaler halves its scale where a gradient is not finite, and many skips in a row are its normal start."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    weight, optimizer = make(OptimizerConfig(max_grad_norm=None), scaler=scaler)
    scaler.scale((weight * torch.tensor([3.0, 4.0])).sum()).backward()
    assert optimizer.step().grad_norm == pytest.approx(5.0)  # unscaled
    for _ in range(7):
        scaler.scale((weight * math.inf).sum()).backward()
        assert not optimizer.step().applied
    assert scaler.get_scale() == 8.0

    fresh = torch.amp.GradScaler("cpu", init_scale=1024.0)
    _, other = make(OptimizerConfig(), scaler=fresh)
    other.load_state_dict(optimizer.state_dict())
    assert fresh.state_dict() == scaler.state_dict()
    assert other.updates == 8
