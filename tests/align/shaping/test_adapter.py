"""PRO: targets, loss, adapter; it learns a known rule from prompts to weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.shaping import adapter as pro

NAN = math.nan


def test_targets_by_hand():
    """(0.1, 0) / 0.1 = (1, 0): e / (e + 1) = 0.731059; not available: 0; with floor 0.2: 0.8 * 0.731059 + 0.1."""
    found = pro.pro_targets(torch.tensor([[0.1, 0.0, NAN]]))
    assert_close(found, torch.tensor([[0.7310586, 0.2689414, 0.0]]))
    found = pro.pro_targets(torch.tensor([[0.1, 0.0, NAN]]), entropy_floor=0.2)
    assert_close(found, torch.tensor([[0.6848469, 0.3151531, 0.0]]))


def test_contrastive_targets_ask_for_what_was_traded_off():
    """A refusal: harmlessness only 0.3, but 0.2 more than the rejected answer; helpfulness 0.5 against 0.6."""
    chosen, rejected = torch.tensor([[0.5, 0.3]]), torch.tensor([[0.6, 0.1]])
    height, traded = pro.pro_targets(chosen), pro.pro_targets(chosen, rejected=rejected)
    assert height[0, 1] < 0.5 < traded[0, 1]


def test_raw_units_decide_for_every_prompt():
    """Aesthetic, CLIP, OCR as they come: the largest unit wins. After min-max it does not."""
    raw = torch.tensor([[5.5, 0.30, 0.9], [6.0, 0.25, 0.1], [5.0, 0.35, 0.5]])
    assert (pro.pro_targets(raw)[:, 0] > 0.999).all()
    assert (pro.pro_targets(pro.normalised(raw))[:, 0] < 0.999).any()


def test_loss_by_hand():
    """KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 log 2 + 1/2 log(2/3) = 0.143841; the mean with a row of 0 is half of it."""
    weights, targets = torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    assert pro.pro_loss(weights, targets).item() == pytest.approx(0.0719205)
    assert pro.pro_loss(targets, targets).item() == 0.0
    assert pro.pro_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(math.log(2))


@given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 3))
def test_gradient_and_symmetry_of_the_loss(seed, temperature):
    """dL/dz = (w - w*) / (B T), summing to 0 over k; permuting the objectives permutes it."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(4, 3, generator=generator, requires_grad=True)
    targets = torch.randn(4, 3, generator=generator).softmax(dim=1)
    log_w = (z / temperature).log_softmax(dim=1)
    loss = pro.pro_loss_of_logs(log_w, targets)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss >= -1e-6
    assert_close(gradient, (log_w.exp() - targets) / (4 * temperature), rtol=1e-4, atol=1e-6)
    order = [2, 0, 1]
    assert_close(pro.pro_loss_of_logs(log_w[:, order], targets[:, order]), loss)
    assert_close(pro.pro_loss(log_w.exp(), targets), loss, rtol=1e-4, atol=1e-6)


def test_untrained_adapter_is_uniform_over_what_is_available():
    model = pro.PreferenceAdapter(8, 3)
    weights = model(torch.randn(2, 8), torch.tensor([[True, True, True], [True, False, True]]))
    assert_close(weights, torch.tensor([[1 / 3] * 3, [0.5, 0.0, 0.5]]))
    masked = pro.pro_targets(torch.tensor([[0.1, NAN, 0.0]]))
    log_weights = model.log_weights(torch.randn(1, 8), torch.tensor([[True, False, True]]))
    assert pro.pro_loss_of_logs(log_weights, masked).isfinite()


def test_adapter_learns_a_known_rule_and_beats_the_constant_predictor():
    torch.manual_seed(0)
    prompts = torch.randn(256, 6)
    rewards = torch.stack([prompts[:, 0], -prompts[:, 0], prompts[:, 1]], dim=1).sigmoid()
    targets = pro.pro_targets(rewards, temperature=0.5)
    model = pro.PreferenceAdapter(6, 3, hidden_size=32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        pro.pro_loss_of_logs(model.log_weights(prompts[:192]), targets[:192]).backward()
        optimiser.step()
    with torch.no_grad():
        held_out = pro.pro_loss(model(prompts[192:]), targets[192:]).item()
    assert held_out < 0.3 * pro.calibration(targets[192:])["constant_kl"]


def test_normalised_by_hand():
    raw = torch.tensor([[0.0, 5.0], [1.0, 5.0], [NAN, 5.0], [2.0, 5.0]])
    found = pro.normalised(raw, "rank")
    expected = torch.tensor([[1 / 6, 0.5], [0.5, 0.5], [NAN, 0.5], [5 / 6, 0.5]])
    assert_close(found, expected, equal_nan=True)
    expected = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [NAN, 0.0], [1.0, 0.0]])
    assert_close(pro.normalised(raw, "zscore"), expected, equal_nan=True)
    found = pro.normalised(raw)
    assert_close(found[:, 1], torch.full((4,), 0.5))
    assert found[[0, 3], 0].tolist() == [0.0, 1.0]
    assert torch.equal(pro.normalised(raw, "none").nan_to_num(-1), raw.nan_to_num(-1))


def test_anchor_and_calibration():
    weights, user = torch.tensor([[0.9, 0.1]]), torch.tensor([1.0, 3.0])
    assert pro.anchored(weights, user, 1.0).tolist() == [[0.25, 0.75]]
    assert_close(pro.anchored(weights, user, 0.5), torch.tensor([[0.575, 0.425]]))
    found = pro.calibration(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert found["entropy"] == pytest.approx(math.log(2) / 2)
    assert found["frac_one_hot"] == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pro.pro_targets(torch.ones(1, 2), temperature=0.0), "`temperature` must be above 0"),
        (lambda: pro.pro_targets(torch.ones(1, 2), entropy_floor=2.0), "`entropy_floor` must be between 0 and 1"),
        (lambda: pro.pro_targets(torch.tensor([[1.0], [NAN]])), "prompt 1 has no available objective"),
        (lambda: pro.PreferenceAdapter(0, 3), "expected sizes of at least 1"),
        (lambda: pro.anchored(torch.ones(1, 2), torch.ones(2), 2.0), "`share` must be between 0 and 1"),
        (lambda: pro.normalised(torch.ones(1, 2), "max"), "`method` must be one of none, zscore, minmax, rank|Literal"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
