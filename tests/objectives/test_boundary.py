import math

import pytest
import torch

from objectives.boundary import boundary_loss


def naive(item, boundary, label, alpha, weight):
    """The article's formula, sample by sample."""
    total = 0.0
    for n in range(len(item)):
        p = 1 / (1 + math.exp(-(float(item[n]) - float(boundary[n]))))
        y = float(label[n])
        total += float(weight[n]) * (y * math.log(p) + alpha * (1 - y) * math.log(1 - p))
    return -total / float(weight.sum())


def samples():
    g = torch.Generator().manual_seed(0)
    item, boundary = torch.randn(50, generator=g).double(), torch.randn(50, generator=g).double()
    return item, boundary, (torch.rand(50, generator=g) < 0.3).double(), torch.rand(50, generator=g).double()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 4.0])
def test_equals_the_formula(alpha):
    item, boundary, label, weight = samples()
    weight[::3] = 0  # left out
    found = boundary_loss(item, boundary, label, alpha, weight)
    assert float(found) == pytest.approx(naive(item, boundary, label, alpha, weight))
    assert float(boundary_loss(item, boundary, label, alpha, torch.zeros(50))) == 0


def test_stays_finite_at_huge_margins():
    item = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    loss = boundary_loss(item, torch.zeros(4), torch.tensor([1.0, 0.0, 0.0, 1.0]), 1.0, torch.ones(4))
    loss.backward()
    assert loss.item() == pytest.approx(5e3)  # two right ones cost nothing, two wrong ones cost their margin
    torch.testing.assert_close(item.grad, torch.tensor([0.0, 0.0, 0.25, -0.25]))


def test_broadcasts_one_boundary_over_a_users_songs():
    item, boundary, label, weight = (x.view(10, 5) for x in samples())
    wide = boundary_loss(item, boundary[:, :1].expand(10, 5), label, 2.0, weight)
    torch.testing.assert_close(boundary_loss(item, boundary[:, :1], label, 2.0, weight), wide)


def test_margins_are_taken_in_full_precision():
    """Of large scores bfloat16 keeps quarters: their difference, taken there, would be one of four values."""
    score, boundary = torch.tensor([50.0, 50.25, 50.5]).bfloat16(), torch.tensor([50.0]).bfloat16()
    found = boundary_loss(score, boundary, torch.ones(3), 1.0, torch.ones(3))
    torch.testing.assert_close(found, torch.nn.functional.softplus(-torch.tensor([0.0, 0.25, 0.5])).mean())


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_equilibrium_is_where_both_sides_pull_alike(alpha):
    """Equal scores, share q of positives: at the minimum p = q / (q + α(1 − q)), so α moves the boundary."""
    label = (torch.arange(100) < 30).double()
    boundary = torch.zeros(1, dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([boundary], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = boundary_loss(torch.ones(100).double(), boundary, label, alpha, torch.ones(100))
        loss.backward()
        return loss

    optimiser.step(closure)
    assert torch.sigmoid(1 - boundary).item() == pytest.approx(0.3 / (0.3 + alpha * 0.7), abs=1e-4)
