"""The trained cold-start methods: losses against loops, sparsemax against brute force, and what any method owes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from benchmarks.quality.item_cold import neural
from benchmarks.quality.item_cold.neural import (
    GRIDS,
    common_listening,
    seeded,
    sparsemax,
    sparsemax_loss,
)

torch.set_num_threads(1)
SMALL: dict[str, dict[str, Any]] = {
    "dropoutnet": {"dim": 8, "steps": 60, "batch": 256},
    "clcrec": {"dim": 8, "steps": 300, "batch": 64},
    "semco": {"dim": 8, "steps": 20, "batch": 16},
}
METHODS = sorted(SMALL)


def world(users: int = 50, warm: int = 40, cold: int = 20, seed: int = 0) -> tuple[Any, ...]:
    """Two tastes: users mostly play songs of theirs, content tells the taste through noise; truth (U, C) bool."""
    rng = np.random.default_rng(seed)
    of_user, of_song = np.arange(users) % 2, np.arange(warm + cold) % 2
    own = of_user[:, None] == of_song
    heard = rng.random(own.shape) < np.where(own, 0.4, 0.05)
    x = rng.standard_normal((2, 16))[of_song] + 0.4 * rng.standard_normal((warm + cold, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return sparse.csr_matrix(heard[:, :warm].astype(np.float32)), x[:warm], x[warm:], own[:, warm:]


def method(name: str) -> Callable[..., np.ndarray]:
    return lambda *data, **options: getattr(neural, name)(*data, **(SMALL[name] | options))


def brute_sparsemax(score: np.ndarray) -> np.ndarray:
    """The nearest point of every face of the simplex, and the nearest of those that lie in it."""
    best, distance = np.zeros_like(score), math.inf
    for size in range(1, len(score) + 1):
        for face in combinations(range(len(score)), size):
            point = np.zeros_like(score)
            point[list(face)] = score[list(face)] - (score[list(face)].sum() - 1) / size
            if (point >= -1e-12).all() and ((point - score) ** 2).sum() < distance:
                best, distance = point, ((point - score) ** 2).sum()
    return best


@pytest.mark.parametrize("spread", [0.1, 1.0, 20.0])
def test_sparsemax_is_the_nearest_point_of_the_simplex(spread: float) -> None:
    score = spread * np.random.default_rng(0).standard_normal((20, 7))
    score[0], score[1, :3] = 2.0, score[1].max() + 1  # ties: all, and at the top
    expected = np.stack([brute_sparsemax(row) for row in score])
    np.testing.assert_allclose(sparsemax(torch.from_numpy(score)).numpy(), expected, atol=1e-9)


def test_sparsemax_of_many_far_apart_scores_still_sums_to_one() -> None:
    score = 300 * torch.randn(4, 30_000, generator=torch.Generator().manual_seed(0)) + 1e4
    score[3, :100] = 2e4
    score[:, 5] = -torch.inf
    weight = sparsemax(score)
    torch.testing.assert_close(weight.sum(dim=1), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(weight[3, 6:100], torch.full((94,), 1 / 99), atol=1e-5, rtol=0)
    assert (weight >= 0).all() and (weight[:, 5] == 0).all()


def distributions(rows: int = 6, songs: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    target = rng.random((rows, songs)) * (rng.random((rows, songs)) < 0.6)
    target[:, 0] += 0.1
    return torch.from_numpy(2 * rng.standard_normal((rows, songs))), torch.from_numpy(target / target.sum(1)[:, None])


def test_sparsemax_loss_is_the_loop() -> None:
    """Ω*(s) + Ω(t) − s·t with Ω = ½‖·‖² on the simplex; Ω* is a maximum, here by brute force."""
    score, target = distributions()
    total = 0.0
    for s, t in zip(score.numpy(), target.numpy(), strict=True):
        p = brute_sparsemax(s)
        total += (s @ p - 0.5 * p @ p) + 0.5 * t @ t - s @ t
    assert float(sparsemax_loss(score, target)) == pytest.approx(total / len(score))
    assert float(sparsemax_loss(score, sparsemax(score))) == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_sparsemax_loss_is_fitted_minus_target() -> None:
    """And the slope of the loss itself."""
    score, target = distributions()
    score.requires_grad_()
    sparsemax_loss(score, target).backward()
    torch.testing.assert_close(score.grad, (sparsemax(score.detach()) - target) / len(score))
    assert torch.autograd.gradcheck(lambda s: sparsemax_loss(s, target), (score,))


def test_common_listening_is_the_loop() -> None:
    heard = np.random.default_rng(4).random((20, 8)) < 0.3
    heard[:, 2] = False
    heard[:, 5], heard[0] = False, [0, 0, 0, 0, 0, 1, 0, 0]  # song 5 has one listener, who heard nothing else
    rows = np.array([7, 2, 5, 0])
    expected = np.zeros((4, 8))
    for at, song in enumerate(rows):
        for other in set(range(8)) - {int(song)}:
            expected[at, other] = (heard[:, song] & heard[:, other]).sum()
    known = expected.sum(axis=1) > 0
    expected[known] /= expected[known].sum(axis=1, keepdims=True)
    target, found = common_listening(sparse.csr_matrix(heard.T.astype(np.float32)), rows)
    np.testing.assert_allclose(target, expected, rtol=1e-6)
    assert found.tolist() == known.tolist() == [True, False, False, True]


def test_seeding_leaves_the_callers_draws_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with seeded(1):
        inside = torch.rand(3)
    torch.testing.assert_close(torch.rand(3), expected)
    with seeded(1):
        torch.testing.assert_close(torch.rand(3), inside)


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_scores(name: str) -> None:
    *data, _ = world()
    first = method(name)(*data, seed=3)
    np.testing.assert_array_equal(first, method(name)(*data, seed=3))
    assert (first != method(name)(*data, seed=4)).mean() > 0.5
    assert first.shape == (50, 20) and first.dtype == np.float32


@pytest.mark.parametrize("name", METHODS)
def test_a_cold_song_changes_its_own_column_alone(name: str) -> None:
    plays, x_w, x_c, _ = world()
    other = x_c.copy()
    other[4] = -other[4]
    before, after = method(name)(plays, x_w, x_c), method(name)(plays, x_w, other)
    rest = np.arange(20) != 4
    np.testing.assert_allclose(before[:, rest], after[:, rest], rtol=1e-6)
    assert np.abs(before[:, 4] - after[:, 4]).max() > 1e-3


def auc(score: np.ndarray, truth: np.ndarray) -> float:
    own, other = score[truth][:, None], score[~truth][None, :]
    return float(((own > other) + 0.5 * (own == other)).mean())


@pytest.mark.parametrize(
    ("name", "options"),
    [("dropoutnet", {}), ("clcrec", {}), ("semco", {}), ("semco", {"normaliser": "sparsemax", "temperature": 1.0})],
)
def test_finds_the_planted_tastes(name: str, options: dict[str, Any]) -> None:
    """Users → songs and songs → users; not where the content is shuffled among the songs."""
    plays, x_w, x_c, truth = world()
    score = method(name)(plays, x_w, x_c, **options)
    assert np.mean([auc(row, own) for row, own in zip(score, truth, strict=True)]) > 0.9
    assert np.mean([auc(row, own) for row, own in zip(score.T, truth.T, strict=True)]) > 0.9
    shuffled = method(name)(plays, x_w, np.random.default_rng(1).permutation(x_c), **options)
    assert auc(shuffled, truth) < 0.8


def test_content_standing_in_for_songs_alone_teaches_the_encoder() -> None:
    """Without the loss between embedding and content, all that the encoder learns comes through the stand-ins."""
    *data, truth = world()
    assert auc(method("clcrec")(*data, weight=0.0), truth) > 0.85
    assert auc(method("clcrec")(*data, weight=0.0, replaced=0.0), truth) < 0.75


def test_withheld_latents_teach_the_network_to_do_without() -> None:
    """The draws are the same: only what the network is shown differs."""
    *data, truth = world()
    never, always = (method("dropoutnet")(*data, drop=drop) for drop in (0.0, 1.0))
    assert np.abs(never - always).max() > 0.01
    assert auc(always, truth) > auc(never, truth)


def test_a_song_is_no_candidate_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of a training step, as they reach the loss function: the own column has no weight in any row."""
    seen: list[torch.Tensor] = []
    weights, loss = neural.NORMALISERS["softmax"]
    watched = (weights, lambda score, target: (seen.append(score.detach()), loss(score, target))[1])
    monkeypatch.setitem(neural.NORMALISERS, "watched", watched)
    method("semco")(*world()[:3], normaliser="watched", steps=1)
    weight = seen[0].softmax(dim=1)
    assert ((weight == 0).sum(dim=1) == 1).all(), "one column of each row, and a different one in each"
    assert len(set(weight.argmin(dim=1).tolist())) == len(weight)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_the_grid_gives_finite_scores(name: str) -> None:
    """With songs without content, warm songs without a play, and a user who played nothing."""
    plays, x_w, x_c, _ = world()
    x_w[3], x_c[1] = 0, 0
    dense = plays.toarray()
    dense[:, 6], dense[5] = 0, 0
    for options in GRIDS[name]:
        score = method(name)(sparse.csr_matrix(dense), x_w, x_c, **(options | {"steps": 3}))
        assert score.shape == (50, 20) and np.isfinite(score).all()
