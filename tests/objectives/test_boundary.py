import math

import pytest
import torch

from objectives.boundary import boundary_loss


def naive(item, boundary, label, alpha, weight=None):
    """The article's formula, sample by sample."""
    total = count = 0.0
    for n in range(len(item)):
        w = 1.0 if weight is None else float(weight[n])
        p = 1 / (1 + math.exp(-(float(item[n]) - float(boundary[n]))))
        y = float(label[n])
        total += w * (y * math.log(p) + alpha * (1 - y) * math.log(1 - p))
        count += w
    return -total / count


def samples(n=50, seed=0):
    g = torch.Generator().manual_seed(seed)
    item, boundary = torch.randn(n, generator=g).double(), torch.randn(n, generator=g).double()
    return item, boundary, (torch.rand(n, generator=g) < 0.3).double(), torch.rand(n, generator=g).double()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 4.0])
def test_equals_the_formula(alpha):
    item, boundary, label, weight = samples()
    assert float(boundary_loss(item, boundary, label, alpha)) == pytest.approx(naive(item, boundary, label, alpha))
    weighted = boundary_loss(item, boundary, label, alpha, weight)
    assert float(weighted) == pytest.approx(naive(item, boundary, label, alpha, weight))


def test_closed_forms():
    zero, one = torch.zeros(4), torch.ones(4)
    assert float(boundary_loss(zero, zero, one, 3.0)) == pytest.approx(math.log(2))
    assert float(boundary_loss(zero, zero, zero, 3.0)) == pytest.approx(3 * math.log(2))
    plain = torch.nn.functional.binary_cross_entropy_with_logits
    item, boundary, label, _ = samples()
    assert float(boundary_loss(item, boundary, label, 1.0)) == pytest.approx(float(plain(item - boundary, label)))


def test_stays_finite_at_huge_margins():
    item = torch.tensor([1e4, -1e4, 1e4, -1e4], requires_grad=True)
    loss = boundary_loss(item, torch.zeros(4), torch.tensor([1.0, 0.0, 0.0, 1.0]), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(5e3)  # two right ones cost nothing, two wrong ones cost their margin
    torch.testing.assert_close(item.grad, torch.tensor([0.0, 0.0, 0.25, -0.25]))


def test_weight_zero_leaves_a_sample_out():
    item, boundary, label, _ = samples()
    keep = torch.arange(50) % 3 > 0
    part = boundary_loss(item[keep], boundary[keep], label[keep], 2.0)
    torch.testing.assert_close(boundary_loss(item, boundary, label, 2.0, keep.double()), part)
    assert float(boundary_loss(item, boundary, label, 2.0, torch.zeros(50))) == 0


def test_broadcasts_one_boundary_over_a_users_songs():
    item, boundary, label, weight = (x.view(10, 5) for x in samples())
    wide = boundary_loss(item, boundary[:, :1].expand(10, 5), label, 2.0, weight)
    torch.testing.assert_close(boundary_loss(item, boundary[:, :1], label, 2.0, weight), wide)


def test_gradient_directions_and_size():
    for y, sign in ((1.0, -1), (0.0, 1)):
        item = torch.tensor([0.4], requires_grad=True)
        boundary = torch.tensor([-0.3], requires_grad=True)
        boundary_loss(item, boundary, torch.tensor([y]), 2.5).backward()
        # a descent step goes against the gradient: a positive raises the song's score and lowers the boundary
        assert math.copysign(1, item.grad.item()) == sign
        assert item.grad.item() == pytest.approx(-boundary.grad.item())
        p = 1 / (1 + math.exp(-0.7))
        assert item.grad.item() == pytest.approx(p - 1 if y else 2.5 * p, rel=1e-5)


def test_learned_boundary_parts_positives_from_negatives():
    """Fixed song scores, one free threshold a user: each settles between that user's positives and negatives."""
    g = torch.Generator().manual_seed(3)
    true = torch.linspace(-4, 4, 9)[:, None]
    away = (0.5 + torch.rand(9, 20, generator=g)) * torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)
    item, label = true + away, (away > 0).float()
    boundary = torch.zeros(9, 1, requires_grad=True)
    optimiser = torch.optim.Adam([boundary], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        boundary_loss(item, boundary, label, 1.0).backward()
        optimiser.step()
    assert torch.equal(item > boundary, label.bool())
    assert (boundary - true).abs().max() < 0.5


def test_equilibrium_is_where_both_sides_pull_alike():
    """Equal scores, share q of positives: at the minimum p = q / (q + α(1 − q)), so α moves the boundary."""
    label = (torch.arange(100) < 30).double()
    for alpha in (0.5, 1.0, 3.0):
        boundary = torch.zeros(1, dtype=torch.double, requires_grad=True)
        optimiser = torch.optim.LBFGS([boundary], max_iter=100, line_search_fn="strong_wolfe")

        def closure(alpha=alpha, boundary=boundary, optimiser=optimiser):
            optimiser.zero_grad()
            loss = boundary_loss(torch.ones(100).double(), boundary, label, alpha)
            loss.backward()
            return loss

        optimiser.step(closure)
        assert torch.sigmoid(1 - boundary).item() == pytest.approx(0.3 / (0.3 + alpha * 0.7), abs=1e-4)
