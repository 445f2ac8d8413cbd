"""HAPO's temperature: by hand, and that it meets the loss side in the same scale."""

import pytest
import torch
from torch.testing import assert_close

from align.allocation import EntropyScale, hapo_temperature
from align.allocation.hapo import scaled_entropy
from align.objectives import entropy_positions

SCALE = EntropyScale(pivot=0.0, deviation=2.0, high_scale=0.5, low_scale=1.0)


def test_by_hand():
    """Logs 0.5, 0, -1, -9: h = 0.25, 0, -0.5, -4.5; hhat = 0.5, 0, -0.5, -1; T = 2 (1 + 0.05 hhat)."""
    entropies = torch.tensor([0.5, 0.0, -1.0, -9.0]).exp()
    found = hapo_temperature(entropies, SCALE, temperature=2.0)
    assert_close(found, torch.tensor([2.05, 2.0, 1.95, 1.9]))
    released = hapo_temperature(entropies, SCALE, temperature=2.0, negative_side="released")
    assert_close(released, torch.tensor([2.05, 2.0, 2.05, 2.1]))


def test_the_first_step_is_plain_and_no_step_moves_more_than_the_strength():
    entropies = torch.tensor([0.0, 1e-9, 1.0, 50.0])
    assert hapo_temperature(entropies, None, temperature=0.7).tolist() == pytest.approx([0.7] * 4)
    found = hapo_temperature(entropies, SCALE)
    assert ((found >= 0.95) & (found <= 1.05)).all()
    flat = EntropyScale(pivot=0.0, deviation=1.0, high_scale=0.0, low_scale=0.0)
    assert hapo_temperature(entropies, flat).tolist() == [1.0] * 4


def test_tokens_of_the_batch_itself_get_the_positions_of_the_loss():
    torch.manual_seed(0)
    entropies, mask = torch.rand(4, 9) + 0.05, torch.rand(4, 9) > 0.3
    positions = entropy_positions(entropies, mask)
    scale = EntropyScale.of(positions)
    assert_close(scaled_entropy(entropies, scale)[mask], positions.positions[mask].float())
    assert EntropyScale(**scale.state_dict()) == scale


def test_mistakes():
    with pytest.raises(ValueError, match="expected a temperature above 0"):
        hapo_temperature(torch.ones(1), SCALE, temperature=0.0)
