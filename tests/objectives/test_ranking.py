"""BPR against a naive loop, with masks, at extreme values, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.ranking import bpr_loss

N, M, D = 6, 9, 4


def vectors(seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(n, D, generator=rng, dtype=torch.float64) for n in (N, N, M))  # type: ignore[return-value]


def naive(query: Tensor, positive: Tensor, negative: Tensor, keep: Tensor) -> float:
    """Mean of −ln σ(⟨q, p⟩ − ⟨q, n⟩) over the kept pairs, one by one."""
    losses = []
    for i in range(len(query)):
        for j in range(len(negative)):
            if keep[i, j]:
                x = sum(float(query[i, d]) * (float(positive[i, d]) - float(negative[j, d])) for d in range(D))
                losses.append(-math.log(1 / (1 + math.exp(-x))))
    return sum(losses) / len(losses)


def test_against_a_naive_loop() -> None:
    assert float(bpr_loss(*vectors())) == pytest.approx(naive(*vectors(), torch.ones(N, M)))


def test_masked_pairs_do_not_count() -> None:
    keep = torch.rand(N, M, generator=torch.Generator().manual_seed(1)) < 0.6
    keep[2] = False
    query, positive, negative = vectors()
    expected = naive(query, positive, negative, keep)
    assert float(bpr_loss(query, positive, negative, keep)) == pytest.approx(expected)
    negative = torch.where(keep.any(dim=0)[:, None], negative, 99.0)
    assert float(bpr_loss(query, positive, negative, keep)) == pytest.approx(expected)


def test_nothing_kept_is_zero_with_a_gradient() -> None:
    query, positive, negative = (x.requires_grad_() for x in vectors())
    loss = bpr_loss(query, positive, negative, torch.zeros(N, M, dtype=torch.bool))
    loss.backward()
    assert float(loss) == 0 and not query.grad.any()  # type: ignore[union-attr]


def test_known_values() -> None:
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    assert float(bpr_loss(one, one, one)) == pytest.approx(math.log(2))
    assert float(bpr_loss(one, 2 * one, zero)) == pytest.approx(math.log1p(math.exp(-2)))


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_values_stay_finite(scale: float) -> None:
    """A naive −log σ(x) is inf from x ≈ −700 on; here the loss is −x, its gradient ±1."""
    query, positive, negative = (x.float().requires_grad_() for x in vectors(scale=scale))
    loss = bpr_loss(query, positive, negative)
    loss.backward()
    margin = query.detach() @ negative.detach().T - (query * positive).detach().sum(dim=1, keepdim=True)
    assert float(loss) == pytest.approx(float(margin.clamp(min=0).mean()), rel=1e-5)
    assert all(torch.isfinite(x.grad).all() for x in (query, positive, negative))  # type: ignore[arg-type]


def test_gradient() -> None:
    inputs = tuple(x.requires_grad_() for x in vectors())
    keep = torch.rand(N, M, generator=torch.Generator().manual_seed(1)) < 0.6
    assert torch.autograd.gradcheck(lambda q, p, n: bpr_loss(q, p, n, keep), inputs)


def test_a_step_downhill_brings_the_positive_nearer() -> None:
    query, positive, negative = (x.requires_grad_() for x in vectors())
    bpr_loss(query, positive, negative).backward()
    step = positive.detach() - 0.1 * positive.grad  # type: ignore[operator]
    assert ((query * step).sum(dim=1) > (query * positive).sum(dim=1)).all()
