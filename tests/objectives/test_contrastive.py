"""Contrastive losses against naive loops, closed forms and invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.contrastive import clip_loss, info_nce, siglip_loss


def unit(rows: Tensor) -> list[list[float]]:
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.double().tolist()]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_clip(audio: Tensor, text: Tensor, scale: float, same: Tensor | None) -> float:
    a, t, n = unit(audio), unit(text), len(audio)

    def direction(left: list[list[float]], right: list[list[float]], flip: bool) -> float:
        total = 0.0
        for i in range(n):
            denominator = 0.0
            for j in range(n):
                skip = same is not None and i != j and bool(same[j, i] if flip else same[i, j])
                denominator += 0.0 if skip else math.exp(scale * dot(left[i], right[j]))
            total -= math.log(math.exp(scale * dot(left[i], right[i])) / denominator)
        return total / n

    return (direction(a, t, False) + direction(t, a, True)) / 2


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


def draw(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, n, d, generator=generator) * 3
    return first.requires_grad_(), second.requires_grad_()


@pytest.mark.parametrize("n, d, scale", [(2, 3, 1.0), (7, 4, 10.0), (5, 16, 40.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_clip_loss_equals_naive_loops(n: int, d: int, scale: float, masked: bool) -> None:
    audio, text = draw(n, d)
    same = torch.rand(n, n, generator=torch.Generator().manual_seed(1)) < 0.3 if masked else None
    assert clip_loss(audio, text, scale, same).item() == pytest.approx(naive_clip(audio, text, scale, same), rel=1e-4)


@pytest.mark.parametrize("n, d, tau", [(2, 3, 1.0), (6, 4, 0.2), (9, 8, 0.05)])
@pytest.mark.parametrize("special", [False, True])
def test_info_nce_equals_naive_loops(n: int, d: int, tau: float, special: bool) -> None:
    z1, z2 = draw(n, d)
    ids, ok = list(range(n)), [True] * n
    if special:
        ids[-1], ok[0] = ids[1], False
    loss = info_nce(z1, z2, tau, torch.tensor(ids), torch.tensor(ok))
    assert loss.item() == pytest.approx(naive_info_nce(z1, z2, tau, ids, ok), rel=1e-4)


def test_siglip_loss_equals_naive_loops_with_and_without_a_mask() -> None:
    for n, d, scale, bias in ((2, 3, 1.0, 0.0), (7, 4, 10.0, -10.0), (5, 16, 40.0, 2.5)):
        audio, text = draw(n, d)
        same = torch.rand(n, n, generator=torch.Generator().manual_seed(n)) < 0.3
        a, t = unit(audio), unit(text)
        for mask in (None, same):
            total = 0.0
            for i in range(n):
                for j in range(n):
                    if i == j or mask is None or not mask[i, j]:
                        logit = scale * dot(a[i], t[j]) + bias
                        total += math.log1p(math.exp(-logit if i == j else logit))
            loss = siglip_loss(audio, text, scale, bias, mask)
            assert loss.item() == pytest.approx(total / n, rel=1e-4)


def naive_unpaired(audio: Tensor, text: Tensor, same: Tensor, has: list[tuple[bool, bool]], loss: str) -> float:
    """Loops over what there is: songs with both ask, songs with one are asked about."""
    a, t, n = unit(audio), unit(text), len(has)
    pairs = [row for row, (one, other) in enumerate(has) if one and other]
    total = 0.0
    for i in range(n):
        for j in range(n):
            if loss == "siglip" and has[i][0] and has[j][1] and (i == j or not same[i, j]):
                logit = 5 * dot(a[i], t[j]) - 2
                total += math.log1p(math.exp(-logit if i == j else logit)) / len(pairs)
    if loss == "infonce":
        for i in pairs:
            own = math.exp(5 * dot(a[i], t[i]))
            texts = sum(math.exp(5 * dot(a[i], t[j])) for j in range(n) if has[j][1] and (j == i or not same[i, j]))
            audios = sum(math.exp(5 * dot(a[j], t[i])) for j in range(n) if has[j][0] and (j == i or not same[j, i]))
            total -= (math.log(own / texts) + math.log(own / audios)) / 2 / len(pairs)
    return total


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_songs_that_lack_audio_or_text_are_negatives_of_the_others(loss: str) -> None:
    audio, text = draw(8, 4)
    has = [(True, True), (True, False), (False, True), (False, False), *[(True, True)] * 4]
    same = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.3
    expected = naive_unpaired(audio, text, same, has, loss)
    with torch.no_grad():
        audio[2], audio[3], text[1], text[3] = torch.nan, torch.inf, torch.nan, 7.0  # whatever: it is not there
    present = torch.tensor([one for one, _ in has]), torch.tensor([other for _, other in has])
    if loss == "infonce":
        value = clip_loss(audio, text, 5.0, same, *present)
    else:
        value = siglip_loss(audio, text, 5.0, -2.0, same, *present)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    value.backward()
    for vectors, rows in ((audio, [2, 3]), (text, [1, 3])):
        assert vectors.grad is not None and torch.isfinite(vectors.grad).all() and not vectors.grad[rows].any()
    assert audio.grad is not None and audio.grad[1].any() and text.grad is not None and text.grad[2].any()


def test_siglip_of_a_bias_alone_has_the_closed_form() -> None:
    """Orthogonal vectors: every logit off the diagonal is the bias, and large ones stay finite."""
    eye = torch.eye(6, requires_grad=True)
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    assert siglip_loss(eye, eye, 2.0, -1.0).item() == pytest.approx(softplus(-1.0) + 5 * softplus(-1.0), rel=1e-5)
    far = siglip_loss(eye, -eye, 1e4, 0.0)
    far.backward()
    assert far.item() == pytest.approx(1e4 + 5 * math.log(2), rel=1e-5) and torch.isfinite(eye.grad).all()


@pytest.mark.parametrize("n", [1, 2, 10])
def test_identical_embeddings_have_the_closed_form(n: int) -> None:
    same = torch.ones(n, 4)
    assert info_nce(same, same, 0.1).item() == pytest.approx(math.log(2 * n - 1), abs=1e-5)
    assert clip_loss(same, same, 10.0).item() == pytest.approx(math.log(n), abs=1e-5)


def test_both_sides_are_equal_and_order_does_not_matter() -> None:
    z1, z2 = draw(8, 5)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([0, 1, 2, 3, 3, 5, 6, 7])
    same = ids[:, None] == ids
    for loss, swapped, shuffled in [
        (
            clip_loss(z1, z2, 5.0, same),
            clip_loss(z2, z1, 5.0, same),
            clip_loss(z1[order], z2[order], 5.0, same[order][:, order]),
        ),
        (info_nce(z1, z2, 0.3, ids), info_nce(z2, z1, 0.3, ids), info_nce(z1[order], z2[order], 0.3, ids[order])),
    ]:
        torch.testing.assert_close(loss, swapped)
        torch.testing.assert_close(loss, shuffled)


def test_scale_of_the_vectors_does_not_matter() -> None:
    z1, z2 = draw(6, 4)
    torch.testing.assert_close(info_nce(z1, z2, 0.3), info_nce(7 * z1, 0.01 * z2, 0.3))
    torch.testing.assert_close(clip_loss(z1, z2, 9.0), clip_loss(7 * z1, 0.01 * z2, 9.0))


def test_masked_rows_get_no_gradient_and_none_is_nan() -> None:
    z1, z2 = draw(5, 4)
    with torch.no_grad():
        z1[0], z2[1] = 0.0, torch.nan  # an empty view and garbage, both marked invalid
    info_nce(z1, z2, 0.01, torch.zeros(5).long(), torch.tensor([False, False, True, True, True])).backward()
    assert z1.grad is not None and z2.grad is not None
    assert torch.isfinite(z1.grad).all() and torch.isfinite(z2.grad).all()
    assert z1.grad[:2].abs().sum() == 0 and z2.grad[:2].abs().sum() == 0
    clip_loss(*draw(4, 3), 100.0, torch.ones(4, 4, dtype=torch.bool)).backward()  # nothing but the diagonal is left


def test_large_logits_stay_finite() -> None:
    z1, z2 = draw(6, 4)
    loss = info_nce(z1, -z1, 1e-3) + clip_loss(z1, z2, 1e4)
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


def test_wrong_arguments_are_refused() -> None:
    z1, z2 = draw(3, 4)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature"):
            info_nce(z1, z2, temperature)
    with pytest.raises(ValueError, match="logit_scale"):
        clip_loss(z1, z2, 0.0)
    with pytest.raises(ValueError, match="shape"):
        clip_loss(z1, z2[:2], 1.0)
    with pytest.raises(ValueError, match="shape"):
        info_nce(z1, z2[:2], 1.0)
    with pytest.raises(ValueError, match="shape"):
        siglip_loss(z1, z2[:2], 1.0, 0.0)
