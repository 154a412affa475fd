"""Orthogonalised updates: singular values near 1, directions kept, and a step that goes downhill."""

import pytest
import torch

from edgekit.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", ((8, 24), (24, 8), (16, 16), (6, 4, 3, 3)))
def test_singular_values_are_near_one_and_directions_are_kept(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    out = orthogonalise(matrix)
    assert out.shape == matrix.shape
    values = torch.linalg.svdvals(out.flatten(1))
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix.flatten(1), full_matrices=False)
    inner = (u.T @ out.flatten(1) @ v.T).diagonal()
    torch.testing.assert_close(inner.sort().values, values.sort().values, rtol=1e-2, atol=1e-2)


def test_a_zero_gradient_moves_nothing_but_decay():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))


def test_it_fits_a_linear_map():
    rng = torch.Generator().manual_seed(0)
    x, wanted = torch.randn(64, 8, generator=rng), torch.randn(4, 8, generator=rng)
    weight = torch.nn.Parameter(torch.zeros(4, 8))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimizer.zero_grad()
        ((x @ weight.T - x @ wanted.T) ** 2).mean().backward()
        optimizer.step()
    assert (weight - wanted).abs().max() < 0.05
