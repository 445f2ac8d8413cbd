"""Muon in float32: singular values about 1, directions kept, a step by hand."""

import pytest
import torch

from preference.tiny.muon import COEFFICIENTS, Muon, orthogonalised


def test_one_iteration_of_a_diagonal_matrix_by_hand() -> None:
    """diag(3, 4) / 5 = diag(0.6, 0.8); each goes to a x + b x^3 + c x^5."""
    a, b, c = COEFFICIENTS
    expected = [a * x + b * x**3 + c * x**5 for x in (0.6, 0.8)]
    found = orthogonalised(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), steps=1)
    assert found.diagonal().tolist() == pytest.approx(expected, rel=1e-5)
    assert found[0, 1] == found[1, 0] == 0


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_singular_values_are_near_one_and_vectors_stay(shape) -> None:
    """Against the singular value decomposition in float64: same vectors, values within what the quintic reaches."""
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    in_vectors = left.T @ orthogonalised(matrix, steps=6) @ right.T
    assert (in_vectors - torch.diag(in_vectors.diagonal())).abs().max() < 1e-9
    assert in_vectors.diagonal().min() > 0.5
    assert in_vectors.diagonal().max() < 1.3
    assert values.max() / values.min() > 1.5


def test_a_step_moves_by_the_learning_rate() -> None:
    """A 1 x 4 gradient is its own only direction: the update is lr * 0.2 * 2 * s, s the value that 1 goes to."""
    weight = torch.nn.Parameter(torch.zeros(1, 4))
    weight.grad = torch.tensor([[3.0, 0.0, 4.0, 0.0]])
    unmoved = torch.nn.Parameter(torch.ones(2, 2))
    Muon([weight, unmoved], lr=0.1).step()
    size = orthogonalised(torch.tensor([[1.0]])).item()
    assert weight.detach()[0].tolist() == pytest.approx([-0.04 * size * x for x in (0.6, 0.0, 0.8, 0.0)], rel=1e-4)
    assert torch.equal(unmoved.detach(), torch.ones(2, 2))
