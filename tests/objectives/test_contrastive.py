"""Contrastive losses against naive loops, closed forms and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.contrastive import clip_loss, info_nce, siglip_loss

BOTH = (True, True)


def unit(rows: Tensor) -> list[list[float]]:
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.double().tolist()]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_pairs(
    loss: str, audio: Tensor, text: Tensor, scale: float, same: Tensor, has: list[tuple[bool, bool]]
) -> float:
    """Loops over what there is: songs with both ask, songs with one are asked about. SigLIP's bias is −2."""
    a, t, n = unit(audio), unit(text), len(has)
    pairs = [row for row, (one, other) in enumerate(has) if one and other]
    total = 0.0
    for i in range(n) if loss == "siglip" else ():
        for j in range(n):
            if has[i][0] and has[j][1] and (i == j or not same[i, j]):
                logit = scale * dot(a[i], t[j]) - 2
                total += math.log1p(math.exp(-logit if i == j else logit)) / len(pairs)
    for i in pairs if loss == "infonce" else ():
        own = math.exp(scale * dot(a[i], t[i]))
        texts = sum(math.exp(scale * dot(a[i], t[j])) for j in range(n) if has[j][1] and (j == i or not same[i, j]))
        audios = sum(math.exp(scale * dot(a[j], t[i])) for j in range(n) if has[j][0] and (j == i or not same[j, i]))
        total -= (math.log(own / texts) + math.log(own / audios)) / 2 / len(pairs)
    return total


def naive_info_nce(z1: Tensor, z2: Tensor, tau: float, ids: list[int], ok: list[bool]) -> float:
    n = len(z1)
    views, losses = unit(z1) + unit(z2), []
    for i in range(2 * n):
        if not ok[i % n]:
            continue
        positive = (i + n) % (2 * n)
        denominator = math.exp(dot(views[i], views[positive]) / tau)
        for j in range(2 * n):
            if ids[j % n] != ids[i % n] and ok[j % n]:
                denominator += math.exp(dot(views[i], views[j]) / tau)
        losses.append(-math.log(math.exp(dot(views[i], views[positive]) / tau) / denominator))
    return sum(losses) / len(losses)


def draw(n: int, d: int) -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, n, d, generator=torch.Generator().manual_seed(0)) * 3
    return first.requires_grad_(), second.requires_grad_()


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
@pytest.mark.parametrize("n, d, scale", [(2, 3, 1.0), (7, 4, 10.0), (5, 16, 40.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_losses_of_pairs_equal_naive_loops(loss: str, n: int, d: int, scale: float, masked: bool) -> None:
    audio, text = draw(n, d)
    same = torch.rand(n, n, generator=torch.Generator().manual_seed(1)) < 0.3 * masked
    given = same if masked else None
    found = clip_loss(audio, text, scale, given) if loss == "infonce" else siglip_loss(audio, text, scale, -2.0, given)
    assert found.item() == pytest.approx(naive_pairs(loss, audio, text, scale, same, [BOTH] * n), rel=1e-4)
    larger = (7 * audio, 0.01 * text, scale)
    other = clip_loss(*larger, given) if loss == "infonce" else siglip_loss(*larger, -2.0, given)
    torch.testing.assert_close(other, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_songs_that_lack_audio_or_text_are_negatives_of_the_others(loss: str) -> None:
    audio, text = draw(8, 4)
    has = [BOTH, (True, False), (False, True), (False, False), *[BOTH] * 4]
    same = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.3
    expected = naive_pairs(loss, audio, text, 5, same, has)
    with torch.no_grad():
        audio[2], audio[3], text[1], text[3] = torch.nan, torch.inf, torch.nan, 7.0  # whatever: it is not there
    given = (same, torch.tensor([one for one, _ in has]), torch.tensor([other for _, other in has]))
    value = clip_loss(audio, text, 5.0, *given) if loss == "infonce" else siglip_loss(audio, text, 5.0, -2.0, *given)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    for vectors, rows in ((audio, [2, 3]), (text, [1, 3])):
        assert vectors.grad is not None and torch.isfinite(vectors.grad).all() and not vectors.grad[rows].any()
    assert audio.grad is not None and audio.grad[1].any() and text.grad is not None and text.grad[2].any()


@pytest.mark.parametrize("n, d, tau", [(2, 3, 1.0), (6, 4, 0.2), (9, 8, 0.05)])
@pytest.mark.parametrize("special", [False, True])
def test_info_nce_equals_naive_loops(n: int, d: int, tau: float, special: bool) -> None:
    z1, z2 = draw(n, d)
    ids, ok = list(range(n)), [True] * n
    if special:
        ids[-1], ok[0] = ids[1], False
    given = (torch.tensor(ids), torch.tensor(ok)) if special else ()
    assert info_nce(z1, z2, tau, *given).item() == pytest.approx(naive_info_nce(z1, z2, tau, ids, ok), rel=1e-4)
    torch.testing.assert_close(info_nce(7 * z1, 0.01 * z2, tau, *given), info_nce(z1, z2, tau, *given))


def test_masked_rows_get_no_gradient_and_none_is_nan() -> None:
    z1, z2 = draw(5, 4)
    with torch.no_grad():
        z1[0], z2[1] = 0.0, torch.nan  # an empty view and garbage, both marked invalid
    info_nce(z1, z2, 0.01, torch.zeros(5).long(), torch.tensor([False, False, True, True, True])).backward()
    assert z1.grad is not None and z2.grad is not None
    assert torch.isfinite(z1.grad).all() and torch.isfinite(z2.grad).all()
    assert z1.grad[:2].abs().sum() == 0 and z2.grad[:2].abs().sum() == 0


def test_large_logits_stay_finite() -> None:
    z1, z2 = draw(6, 4)
    alone = torch.ones(6, 6, dtype=torch.bool)  # nothing but the diagonal is left
    loss = (
        info_nce(z1, -z1, 1e-3) + clip_loss(z1, z2, 1e4) + siglip_loss(z1, z2, 1e4, 0.0) + clip_loss(z1, z2, 1, alone)
    )
    loss.backward()
    assert torch.isfinite(loss) and z1.grad is not None and torch.isfinite(z1.grad).all()


def test_no_valid_song_gives_zero_with_a_graph() -> None:
    z1, z2 = draw(3, 4)
    loss = info_nce(z1, z2, 0.1, valid_N=torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and z1.grad is not None and z1.grad.abs().sum() == 0


def test_bfloat16_autocast_does_not_touch_the_loss() -> None:
    z1, z2 = draw(6, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(z1, z2, 0.01), clip_loss(z1, z2, 100.0), siglip_loss(z1, z2, 100.0, -10.0)
    outside = info_nce(z1, z2, 0.01), clip_loss(z1, z2, 100.0), siglip_loss(z1, z2, 100.0, -10.0)
    torch.testing.assert_close(inside, outside)
