from __future__ import annotations

import torch
from hypothesis import given
from hypothesis.strategies import floats, integers

from align.config.shared import EmaConfig
from align.engine.ema import Ema, effective_decay


def test_decay_by_hand():
    """(1 + 0) / 10 = 0.1; (1 + 8) / 18 = 0.5; the cap 0.9 holds from (10 * 0.9 - 1) / (1 - 0.9) = 80 on."""
    assert effective_decay(0, 0.9) == 0.1
    assert effective_decay(8, 0.9) == 0.5
    assert effective_decay(79, 0.9) < 0.9
    assert effective_decay(80, 0.9) == 0.9
    assert effective_decay(5, 0.0) == 0.0


def test_average_by_hand():
    """Start 0; weight 10 after update 0: 0 + 0.9 * 10 = 9; weight 20 after update 1: 9 + (1 - 2/11) * 11 = 18."""
    ema = Ema({"w": torch.zeros(1, dtype=torch.float64)}, EmaConfig(decay=0.999))
    ema.update({"w": torch.tensor([10.0], dtype=torch.float64)}, 0)
    torch.testing.assert_close(ema.weights["w"].item(), 9.0)
    ema.update({"w": torch.tensor([20.0], dtype=torch.float64)}, 1)
    torch.testing.assert_close(ema.weights["w"].item(), 18.0)


def test_every_third_update_counts():
    ema = Ema({"w": torch.zeros(1)}, EmaConfig(decay=0.0, every=3))
    seen = []
    for update in range(7):
        ema.update({"w": torch.tensor([update + 1.0])}, update)
        seen.append(ema.weights["w"].item())
    assert seen == [0, 0, 3, 3, 3, 6, 6]


@given(value=floats(-100, 100, width=32), update=integers(0, 500))
def test_equal_weights_are_a_fixed_point(value: float, update: int):
    ema = Ema({"w": torch.tensor([value])}, EmaConfig(decay=0.9))
    ema.update({"w": torch.tensor([value])}, update)
    assert ema.weights["w"].item() == torch.tensor(value).item()


def test_it_starts_as_a_copy_and_takes_states_as_copies():
    weight = torch.ones(2)
    ema = Ema({"w": weight}, EmaConfig())
    weight += 1
    assert ema.weights["w"].tolist() == [1, 1]
    state = {"w": torch.tensor([5.0, 6.0])}
    ema.load_state_dict(state)
    ema.update({"w": torch.zeros(2)}, 0)
    assert state["w"].tolist() == [5, 6]
