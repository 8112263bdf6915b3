"""Ranking losses against naive loops and closed forms, with masks, at extreme values, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.ranking import bpr_loss, listening_loss, sampled_softmax_loss

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


# ----------------------------------------------------------------------------------------------------- sampled softmax


def masked(seed: int = 1) -> Tensor:
    return torch.rand(N, M, generator=torch.Generator().manual_seed(seed)) < 0.6


def naive_softmax(
    query: Tensor, positive: Tensor, negative: Tensor, keep: Tensor, positive_q: list[float], negative_q: list[float]
) -> float:
    """Mean of −ln(e^(s₊ − ln q₊) / Σ e^(s − ln q)), pair by pair, over the positive and the kept negatives."""
    losses = []
    for i in range(len(query)):
        own = math.exp(sum(float(query[i, d]) * float(positive[i, d]) for d in range(D))) / positive_q[i]
        total = own
        for j in range(len(negative)):
            if keep[i, j]:
                total += math.exp(sum(float(query[i, d]) * float(negative[j, d]) for d in range(D))) / negative_q[j]
        losses.append(-math.log(own / total))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("correct", [False, True])
def test_softmax_against_a_naive_loop(mask: bool, correct: bool) -> None:
    keep = masked() if mask else torch.ones(N, M, dtype=torch.bool)
    rng = torch.Generator().manual_seed(2)
    q = 0.1 + torch.rand(N + M, generator=rng, dtype=torch.float64) if correct else torch.ones(N + M)
    log_q = (q[:N].log(), q[N:].log()) if correct else (None, None)
    expected = naive_softmax(*vectors(), keep, q[:N].tolist(), q[N:].tolist())
    assert float(sampled_softmax_loss(*vectors(), keep if mask else None, *log_q)) == pytest.approx(expected)


def test_an_accidental_hit_does_not_count() -> None:
    """In-batch negatives: the own target, and the same song as another pair's target, weigh nothing."""
    query, positive, _ = vectors()
    target = torch.tensor([4, 7, 4, 9, 7, 2])
    positive = positive[[0, 1, 0, 3, 1, 5]]  # equal songs have equal vectors
    keep = target != target[:, None]
    expected = 0.0
    for i in range(N):
        others = [j for j in range(N) if target[j] != target[i]]
        logits = torch.stack([query[i] @ positive[i], *(query[i] @ positive[j] for j in others)])
        expected -= float(logits.log_softmax(0)[0]) / N
    assert float(sampled_softmax_loss(query, positive, positive, keep)) == pytest.approx(expected)
    assert float(sampled_softmax_loss(query, positive, positive)) > expected + 0.1


def test_one_negative_is_bpr() -> None:
    """−ln(e^a / (e^a + e^b)) = softplus(b − a)."""
    query, positive, negative = vectors()
    one = negative[:1]
    torch.testing.assert_close(sampled_softmax_loss(query, positive, one), bpr_loss(query, positive, one))
    torch.testing.assert_close(
        sampled_softmax_loss(query, query, torch.zeros(1, D, dtype=query.dtype)),
        torch.nn.functional.softplus(-query.square().sum(dim=1)).mean(),
    )


def test_equal_scores_give_the_log_of_the_candidates() -> None:
    query, negative = torch.zeros(N, D), torch.randn(M, D, generator=torch.Generator().manual_seed(0))
    assert float(sampled_softmax_loss(query, query, negative)) == pytest.approx(math.log(M + 1))


def test_a_uniform_correction_has_no_effect_and_a_half_one_is_none() -> None:
    plain = sampled_softmax_loss(*vectors(), masked())
    same = sampled_softmax_loss(*vectors(), masked(), torch.full((N,), 1.7), torch.full((M,), 1.7))
    torch.testing.assert_close(same, plain)
    other = sampled_softmax_loss(*vectors(), masked(), torch.full((N,), 1.7), torch.full((M,), 0.7))
    assert other > plain + 0.1, "candidates that are drawn less often stand for more"
    assert torch.equal(sampled_softmax_loss(*vectors(), masked(), torch.full((N,), 1.7)), plain)


def test_weighted_draws_stand_for_the_full_softmax() -> None:
    """Draws by popularity, each divided by its expected count, add up to the softmax over the whole catalogue."""
    songs, drawn = 30, 20_000
    rng = torch.Generator().manual_seed(3)
    song_SD = torch.randn(songs, D, generator=rng, dtype=torch.float64)
    query = torch.randn(N, D, generator=rng, dtype=torch.float64)
    target = torch.arange(N)
    full = torch.nn.functional.cross_entropy(query @ song_SD.T, target)
    everything = target[:, None] != torch.arange(songs)
    torch.testing.assert_close(sampled_softmax_loss(query, song_SD[target], song_SD, everything), full)

    chance = torch.arange(1, songs + 1, dtype=torch.float64).pow(-1.0)
    chance = (chance / chance.sum())[torch.randperm(songs, generator=rng)]
    negatives = torch.multinomial(chance, drawn, replacement=True, generator=rng)
    keep = negatives != target[:, None]
    corrected = sampled_softmax_loss(
        query, song_SD[target], song_SD[negatives], keep, torch.zeros(N), (drawn * chance[negatives]).log()
    )
    plain = sampled_softmax_loss(
        query, song_SD[target], song_SD[negatives], keep, torch.zeros(N), torch.full((drawn,), drawn / songs).log()
    )
    assert float(corrected) == pytest.approx(float(full), abs=0.02)
    assert abs(float(plain) - float(full)) > 0.05, "else this test could not fail"


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_softmax_stays_finite_at_extreme_values(scale: float) -> None:
    query, positive, negative = (x.float().requires_grad_() for x in vectors(scale=scale))
    loss = sampled_softmax_loss(query, positive, negative, masked(), torch.randn(N) - 20, torch.randn(M) - 20)
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in (query, positive, negative))


def test_without_a_negative_the_softmax_is_zero() -> None:
    query, positive, negative = (x.requires_grad_() for x in vectors())
    loss = sampled_softmax_loss(query, positive, negative, torch.zeros(N, M, dtype=torch.bool))
    loss.backward()
    assert float(loss) == 0.0
    assert all((x.grad == 0).all() for x in (query, positive, negative))
    keep = masked()
    keep[2] = False  # one pair has none: it adds nothing to the mean
    rest = torch.arange(N) != 2
    expected = sampled_softmax_loss(query[rest], positive[rest], negative, keep[rest]) * (N - 1) / N
    torch.testing.assert_close(sampled_softmax_loss(query, positive, negative, keep), expected)


def test_softmax_gradient() -> None:
    inputs = tuple(x.requires_grad_() for x in vectors())
    log_q = (torch.linspace(-2, 0, N), torch.linspace(-1, 2, M))
    assert torch.autograd.gradcheck(lambda q, p, n: sampled_softmax_loss(q, p, n, masked(), *log_q), inputs)


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
    """Cross-entropy of every wanted cell along its row and along its column; a mean of means."""
    users, songs = [], []
    for b in range(len(logits)):
        mine = [s for s in range(logits.shape[1]) if wanted[b, s]]
        total = sum(math.exp(float(logits[b, s])) for s in range(logits.shape[1]) if not shown[b, s])
        if mine:
            users.append(sum(-math.log(math.exp(float(logits[b, s])) / total) for s in mine) / len(mine))
    for s in range(logits.shape[1]):
        fans = [b for b in range(len(logits)) if wanted[b, s]]
        total = sum(math.exp(float(logits[b, s])) for b in range(len(logits)) if not shown[b, s])
        if fans:
            songs.append(sum(-math.log(math.exp(float(logits[b, s])) / total) for b in fans) / len(fans))
    return sum(users) / len(users) + sum(songs) / len(songs)


@pytest.mark.parametrize("seed", range(3))
def test_listening_against_a_naive_loop(seed: int) -> None:
    assert float(listening_loss(*histories(seed))) == pytest.approx(naive_listening(*histories(seed)), rel=1e-5)


def test_shown_songs_are_no_candidates() -> None:
    logits, wanted, shown = histories()
    before = listening_loss(logits, wanted, shown)
    assert torch.equal(listening_loss(torch.where(shown, 50.0, logits), wanted, shown), before)
    assert listening_loss(torch.where(~shown & ~wanted, 50.0, logits), wanted, shown) > before + 10


def test_who_wants_nothing_does_not_count() -> None:
    """User 3 is no row of the mean over users, song 6 none of the mean over songs; they stay candidates of others."""
    logits, wanted, shown = histories()
    masked_logits = logits.masked_fill(shown, -torch.inf)
    by_user = -masked_logits.log_softmax(dim=1)
    rows = [float(by_user[b][wanted[b]].mean()) for b in range(B) if b != 3]
    by_song = -masked_logits.log_softmax(dim=0)
    columns = [float(by_song[:, s][wanted[:, s]].mean()) for s in range(S) if wanted[:, s].any()]
    assert len(rows) == B - 1 and len(columns) == S - 2
    expected = sum(rows) / len(rows) + sum(columns) / len(columns)
    assert float(listening_loss(logits, wanted, shown)) == pytest.approx(expected, rel=1e-5)


def test_nothing_wanted_is_zero_with_a_gradient() -> None:
    logits, wanted, shown = histories()
    logits.requires_grad_()
    loss = listening_loss(logits, torch.zeros_like(wanted), shown)
    loss.backward()
    assert float(loss) == 0.0 and logits.grad is not None and (logits.grad == 0).all()


def test_order_of_users_and_songs_does_not_matter() -> None:
    rng = torch.Generator().manual_seed(5)
    users, songs = torch.randperm(B, generator=rng), torch.randperm(S, generator=rng)
    mixed = (x[users][:, songs] for x in histories())
    torch.testing.assert_close(listening_loss(*mixed), listening_loss(*histories()))
    turned = (x.T for x in histories())
    torch.testing.assert_close(listening_loss(*turned), listening_loss(*histories()))


def test_listening_gradient_against_its_closed_form() -> None:
    """(softmax − wanted / count) / rows, along users and along songs; computed here in float64."""
    logits, wanted, shown = histories()
    logits.requires_grad_()
    listening_loss(logits, wanted, shown).backward()

    def one_way(logits: Tensor, wanted: Tensor, shown: Tensor) -> Tensor:
        some = wanted.any(dim=1, keepdim=True)
        chance = logits.double().masked_fill(shown, -torch.inf).softmax(dim=1)
        truth = wanted.double() / wanted.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.where(some, chance - truth, 0.0) / some.sum()

    cells = (logits.detach(), wanted, shown)
    expected = one_way(*cells) + one_way(*(x.T for x in cells)).T
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected.float(), rtol=1e-4, atol=1e-6)
    assert (logits.grad[shown] == 0).all() and logits.grad[3].abs().sum() > 0, "user 3 is a candidate of songs"


def test_half_precision_scores_are_computed_in_float32() -> None:
    logits, wanted, shown = histories()
    half = logits.to(torch.bfloat16)
    loss = listening_loss(half, wanted, shown)
    assert loss.dtype == torch.float32 and torch.equal(loss, listening_loss(half.float(), wanted, shown))


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_listening_stays_finite_at_extreme_values(scale: float) -> None:
    logits, wanted, shown = histories()
    logits = (logits * scale).requires_grad_()
    loss = listening_loss(logits, wanted, shown)
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_a_song_that_is_shown_and_wanted_is_wanted() -> None:
    logits, wanted, shown = histories()
    assert torch.equal(listening_loss(logits, wanted, shown | wanted), listening_loss(logits, wanted, shown))
