"""Ranking losses against naive loops, with masks and at extreme values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.ranking import bpr_loss, listening_loss, sampled_softmax_loss

N, M, D = 6, 9, 4


def vectors(scale: float = 1.0) -> list[Tensor]:
    """Queries, positives and negatives that want a gradient."""
    rng = torch.Generator().manual_seed(0)
    return [(scale * torch.randn(n, D, generator=rng, dtype=torch.float64)).requires_grad_() for n in (N, N, M)]


def kept(mask: bool) -> Tensor:
    """All pairs, or some: none of the third query's."""
    keep = torch.rand(N, M, generator=torch.Generator().manual_seed(1)) < (0.6 if mask else 2.0)
    keep[2] &= not mask
    return keep


def score(one: Tensor, other: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one.detach(), other.detach(), strict=True))


@pytest.mark.parametrize("mask", [False, True])
def test_bpr_against_a_naive_loop(mask: bool) -> None:
    """Mean of −ln σ(⟨q, p⟩ − ⟨q, n⟩) over the kept pairs, one by one."""
    query, positive, negative = vectors()
    keep, losses = kept(mask), []
    for i, j in keep.nonzero().tolist():
        x = score(query[i], positive[i]) - score(query[i], negative[j])
        losses.append(-math.log(1 / (1 + math.exp(-x))))
    assert bpr_loss(query, positive, negative, keep).item() == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("mask", [False, True])
def test_softmax_against_a_naive_loop(mask: bool) -> None:
    """Mean of −ln(e^(s₊ − ln q₊) / Σ e^(s − ln q)), pair by pair, over the positive and the kept negatives."""
    query, positive, negative = vectors()
    q = 0.1 + torch.rand(N + M, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    keep, expected = kept(mask), 0.0
    for i in range(N):
        own = math.exp(score(query[i], positive[i])) / float(q[i])
        others = [math.exp(score(query[i], negative[j])) / float(q[N + j]) for j in range(M) if keep[i, j]]
        expected -= math.log(own / (own + sum(others))) / N
    found = sampled_softmax_loss(query, positive, negative, keep, q[:N].log(), q[N:].log())
    assert float(found) == pytest.approx(expected)


def test_without_a_negative_both_are_zero_with_a_gradient() -> None:
    none = torch.zeros(N, M, dtype=torch.bool)
    for more in ((), (torch.zeros(N), torch.zeros(M))):
        given = vectors()
        loss = (sampled_softmax_loss if more else bpr_loss)(*given, none, *more)
        loss.backward()
        assert float(loss) == 0 and all(x.grad is not None and not x.grad.any() for x in given)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_values_stay_finite(scale: float) -> None:
    """A naive −log σ(x) is inf from x ≈ −700 on; here the loss is −x, its gradient ±1."""
    query, positive, negative = (x.detach().float().requires_grad_() for x in vectors(scale))
    loss = bpr_loss(query, positive, negative, kept(False))
    margin = query.detach() @ negative.detach().T - (query * positive).detach().sum(dim=1, keepdim=True)
    assert float(loss) == pytest.approx(float(margin.clamp(min=0).mean()), rel=1e-5)
    softmax = sampled_softmax_loss(query, positive, negative, kept(True), torch.randn(N) - 20, torch.randn(M) - 20)
    (loss + softmax).backward()
    assert torch.isfinite(softmax) and softmax > 0
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in (query, positive, negative))


def test_weighted_draws_stand_for_the_full_softmax() -> None:
    """Draws by popularity, each divided by its expected count, add up to the softmax over the whole catalogue."""
    songs, drawn = 30, 20_000
    rng = torch.Generator().manual_seed(3)
    song_SD = torch.randn(songs, D, generator=rng, dtype=torch.float64)
    query = torch.randn(N, D, generator=rng, dtype=torch.float64)
    target = torch.arange(N)
    full = torch.nn.functional.cross_entropy(query @ song_SD.T, target)
    chance = torch.arange(1, songs + 1, dtype=torch.float64).pow(-1.0)
    chance = (chance / chance.sum())[torch.randperm(songs, generator=rng)]
    negatives = torch.multinomial(chance, drawn, replacement=True, generator=rng)
    given = (query, song_SD[target], song_SD[negatives], negatives != target[:, None], torch.zeros(N))
    corrected = sampled_softmax_loss(*given, (drawn * chance[negatives]).log())
    plain = sampled_softmax_loss(*given, torch.full((drawn,), drawn / songs).log())
    assert float(corrected) == pytest.approx(float(full), abs=0.02)
    assert abs(float(plain) - float(full)) > 0.05, "else this test could not fail"


# --------------------------------------------------------------------------------------------------------- listening

B, S = 7, 11


def histories(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, wanted and shown: user 3 has nothing to find, song 6 is nobody's, song 2 is shown to all who have it."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, S, generator=rng)
    kind = torch.randint(0, 3, (B, S), generator=rng)
    wanted, shown = kind == 1, kind == 2
    wanted[3], wanted[:, 6], shown[:, 6], wanted[:, 2] = False, False, False, False
    shown[:, 2] = True
    return logits, wanted, shown


def naive_listening(logits: Tensor, wanted: Tensor, shown: Tensor) -> float:
    """Mean over rows of the mean cross-entropy of their wanted cells among those that are not shown."""
    rows = []
    for b in range(len(logits)):
        mine = [s for s in range(logits.shape[1]) if wanted[b, s]]
        total = sum(math.exp(float(logits[b, s])) for s in range(logits.shape[1]) if not shown[b, s])
        if mine:
            rows.append(sum(-math.log(math.exp(float(logits[b, s])) / total) for s in mine) / len(mine))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_listening_against_a_naive_loop(weight: float) -> None:
    logits, wanted, shown = histories()
    expected = naive_listening(logits, wanted, shown) + weight * naive_listening(logits.T, wanted.T, shown.T)
    assert float(listening_loss(logits, wanted, shown, weight)) == pytest.approx(expected, rel=1e-5)
    assert float(listening_loss(logits, wanted, shown | wanted, weight)) == pytest.approx(expected, rel=1e-5)


def test_nothing_wanted_is_zero_with_a_gradient() -> None:
    logits, wanted, shown = histories()
    logits.requires_grad_()
    loss = listening_loss(logits, torch.zeros_like(wanted), shown, 1.0)
    loss.backward()
    assert float(loss) == 0.0 and logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_listening_stays_finite_at_extreme_values(scale: float) -> None:
    logits, wanted, shown = histories()
    logits = (logits * scale).requires_grad_()
    loss = listening_loss(logits, wanted, shown, 1.0)
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_half_precision_scores_are_computed_in_float32() -> None:
    logits, wanted, shown = histories()
    half = logits.to(torch.bfloat16)
    loss = listening_loss(half, wanted, shown, 1.0)
    assert loss.dtype == torch.float32 and torch.equal(loss, listening_loss(half.float(), wanted, shown, 1.0))
