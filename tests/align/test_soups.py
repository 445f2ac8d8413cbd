"""Soups by hand, and against the trap of averaging factors apart."""

import pytest
import torch

from align.soups import rank_of, soup_of_adapters, soup_of_weights

A, B = "layer.lora_A.weight", "layer.lora_B.weight"


def adapter(rank, seed):
    generator = torch.Generator().manual_seed(seed)
    return {A: torch.randn(rank, 5, generator=generator), B: torch.randn(4, rank, generator=generator)}


def product(state):
    return state[B] @ state[A]


def test_products_are_averaged_whatever_the_ranks():
    first, second = adapter(2, 0), adapter(3, 1)
    mixed = soup_of_adapters([first, second], [0.3, 0.7], [2.0, 0.5])
    assert rank_of(mixed) == 5
    expected = 0.3 * 2.0 * product(first) + 0.7 * 0.5 * product(second)
    torch.testing.assert_close(product(mixed), expected)


def test_one_hot_gives_an_end_point_and_half_of_one_half_its_update():
    first, second = adapter(2, 0), adapter(2, 1)
    torch.testing.assert_close(product(soup_of_adapters([first, second], [1.0, 0.0], [1.0, 1.0])), product(first))
    torch.testing.assert_close(product(soup_of_adapters([first], [0.5], [3.0])), 1.5 * product(first))


def test_factors_averaged_apart_would_be_something_else():
    """By hand, rank 1: A = B = 1 and A = B = 3. True average of the products 1 and 9: 5; of factors: 2 * 2 = 4."""
    ones = {A: torch.ones(1, 1), B: torch.ones(1, 1)}
    threes = {A: torch.full((1, 1), 3.0), B: torch.full((1, 1), 3.0)}
    assert float(product(soup_of_adapters([ones, threes], [0.5, 0.5], [1.0, 1.0]))) == 5.0


def test_convolutions_and_heads():
    first = {
        "c.lora_A.weight": torch.ones(2, 3, 3, 3),
        "c.lora_B.weight": torch.ones(4, 2, 1, 1),
        "head.weight": torch.zeros(2),
    }
    second = {**first, "head.weight": torch.ones(2)}
    mixed = soup_of_adapters([first, second], [0.25, 0.75], [1.0, 1.0])
    assert [list(value.shape) for value in mixed.values()] == [[4, 3, 3, 3], [4, 4, 1, 1], [2]]
    assert mixed["head.weight"].tolist() == [0.75, 0.75]


def test_whole_weights():
    mixed = soup_of_weights([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}], [1.5, -0.5])
    assert mixed["w"].tolist() == [0.0]
    with pytest.raises(ValueError, match="sum 1"):
        soup_of_weights([{"w": torch.ones(1)}], [0.5])
    with pytest.raises(ValueError, match="differ"):
        soup_of_weights([{"w": torch.ones(1)}, {"v": torch.ones(1)}], [0.5, 0.5])
    with pytest.raises(ValueError, match="shapes"):
        soup_of_weights([{"w": torch.ones(1)}, {"w": torch.ones(2)}], [0.5, 0.5])


def test_adapters_on_other_layers_are_refused():
    with pytest.raises(ValueError, match="different layers"):
        soup_of_adapters([adapter(1, 0), {"x" + A: torch.ones(1, 5), B: torch.ones(4, 1)}], [0.5, 0.5], [1.0, 1.0])
    with pytest.raises(ValueError, match="one is expected"):
        rank_of({**adapter(2, 0), "other.lora_A.weight": torch.ones(3, 5)})
