"""Feature correlation and grouping against brute force; what a view may show, and what it must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from callbacks.correlation import correlate
from models.song_encoder import SongEncoder
from models.views import draw_augment, draw_groups, group_by_correlation, hide_features, transform


def embeddings(n: int = 40, f: int = 5) -> Tensor:
    """Features that are more or less alike: each mixes one common and one own part."""
    rng = torch.Generator().manual_seed(0)
    common, own = torch.randn(n, 1, 3, generator=rng), torch.randn(n, f, 3, generator=rng)
    share = torch.linspace(0, 1, f)[None, :, None]
    return (share * common + (1 - share) * own).double()


def brute_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA over samples: Σ_nm K_nm L_nm / √(Σ K² · Σ L²) with K, L the centred kernels (equation 1 and HSIC)."""
    n = len(x)
    k = [[float(x[i] @ x[j]) for j in range(n)] for i in range(n)]
    m = [[float(y[i] @ y[j]) for j in range(n)] for i in range(n)]
    centre = np.eye(n) - 1 / n
    k, m = centre @ np.array(k) @ centre, centre @ np.array(m) @ centre
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def correlation_of(e_NFE: Tensor, present_NF: Tensor | None = None, feature_of: list[int] | None = None) -> Tensor:
    """As the callback computes it, of embeddings that are given, in two batches."""
    present_NF = torch.ones(e_NFE.shape[:2], dtype=torch.bool) if present_NF is None else present_NF

    class Given(nn.Module):
        def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            return e_NFE[rows] * present_NF[rows].unsqueeze(-1), present_NF[rows]

    batches: Any = torch.arange(len(e_NFE)).split(len(e_NFE) // 2 + 1)
    return correlate(Given(), batches, torch.tensor(feature_of or list(range(e_NFE.shape[1]))))


def test_correlation_is_cka_of_each_pair_over_the_songs_that_have_both() -> None:
    e_NFE = embeddings(n=60)
    present_NF = torch.rand(60, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    for present in (torch.ones_like(present_NF), present_NF):
        correlation = correlation_of(e_NFE, present)
        for i in range(5):
            for j in range(5):
                both = present[:, i] & present[:, j]
                expected = brute_cka(e_NFE[both, i].numpy(), e_NFE[both, j].numpy())
                assert float(correlation[i, j]) == pytest.approx(expected, abs=1e-6)


def test_the_blocks_of_a_field_are_one_feature() -> None:
    e_NFE = embeddings(n=60)
    correlation = correlation_of(e_NFE, feature_of=[0, 0, 1, 2, 2])
    sides = [e_NFE[:, blocks].flatten(1).numpy() for blocks in ([0, 1], [2], [3, 4])]
    for i in range(3):
        for j in range(3):
            assert float(correlation[i, j]) == pytest.approx(brute_cka(sides[i], sides[j]), abs=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.9])
def test_a_copy_that_misses_most_songs_is_still_a_copy(missing: float) -> None:
    """Up to a rotation, a scale and a shift, which CKA does not see."""
    e_NFE = embeddings(n=200, f=2)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    e_NFE[:, 1] = 7 * e_NFE[:, 0] @ rotation + 5
    present_NF = torch.ones(200, 2, dtype=torch.bool)
    present_NF[: int(200 * missing), 1] = False
    assert float(correlation_of(e_NFE, present_NF)[0, 1]) == pytest.approx(1.0)


def test_a_dead_feature_and_one_that_no_other_song_has_correlate_with_nothing() -> None:
    e_NFE, present_NF = embeddings(), torch.ones(40, 5, dtype=torch.bool)
    e_NFE[:, 2] = 3.0
    present_NF[:20, 3] = present_NF[20:, 4] = False
    correlation = correlation_of(e_NFE, present_NF)
    assert torch.isfinite(correlation).all() and correlation[2].tolist() == [0, 0, 1, 0, 0]
    assert correlation[3, 4] == 0 and correlation[0, 3] > 0


# ------------------------------------------------------------------------------------------ groups


def random_correlation(f: int) -> Tensor:
    half = torch.rand(f, f, generator=torch.Generator().manual_seed(0))
    return ((half + half.T) / 2).fill_diagonal_(1.0)


def brute_group(correlation: Tensor, seed: int) -> set[int]:
    others = sorted((i for i in range(len(correlation)) if i != seed), key=lambda i: -float(correlation[seed, i]))
    size = (len(correlation) + 1) // 2
    return {seed, *others[: size - 1]}


@pytest.mark.parametrize("f", [1, 2, 3, 4, 7, 8, 21])
def test_groups_against_brute_force(f: int) -> None:
    correlation = random_correlation(f)
    for seed in range(f):
        group = group_by_correlation(correlation, seed)
        assert group.dtype == torch.bool and set(group.nonzero().flatten().tolist()) == brute_group(correlation, seed)
        alike = group_by_correlation(torch.ones(f, f), seed)
        assert alike[seed] and int(alike.sum()) == (f + 1) // 2, "also where others are as close"


@pytest.mark.parametrize("grouping", ["correlation", "random"])
@pytest.mark.parametrize("f", [2, 5, 8])
def test_two_groups_are_complements_and_differ_per_draw(grouping: str, f: int) -> None:
    generator = torch.Generator().manual_seed(0)
    correlation = random_correlation(f)
    seen = set()
    for _ in range(60):
        a, b = draw_groups(correlation, grouping, generator)
        assert int(a.sum()) == (f + 1) // 2 and (a ^ b).all()
        seen.add(tuple(a.tolist()))
    possible = {tuple(group_by_correlation(correlation, seed).tolist()) for seed in range(f)}
    assert seen == possible if grouping == "correlation" else len(seen) > (1 if f == 2 else len(possible) - 1)


def test_random_groups_do_not_follow_the_correlation_and_none_show_everything_twice() -> None:
    """Every feature is as often beside feature 0 as any other."""
    generator = torch.Generator().manual_seed(0)
    correlation = torch.eye(6)
    correlation[:3, :3] = correlation[3:, 3:] = 1
    groups = [draw_groups(correlation, "random", generator)[0] for _ in range(600)]
    together = torch.stack([group == group[0] for group in groups]).float().mean(dim=0)
    assert together[1:].tolist() == pytest.approx([0.4] * 5, abs=0.08)
    assert all(group.all() for group in draw_groups(correlation, "none", generator))


# ------------------------------------------------------------------------------------------ views


def view(augment: str, n: int = 500, f: int = 6, **options: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, what is present, and a view of the even features."""
    rng = torch.Generator().manual_seed(4)
    e_NFE = torch.randn(n, f, 4, generator=rng) * torch.arange(1.0, f + 1)[:, None] + 10
    present_NF = torch.rand(n, f, generator=rng) < 0.7
    present_NF[0] = False
    e_NFE = e_NFE * present_NF.unsqueeze(-1)
    group_F = torch.arange(f) % 2 == 0
    torch.manual_seed(0)
    settings = {"mask_rate": 0.3, "noise_std": 0.1} | options
    could_NF = present_NF & group_F
    return e_NFE, could_NF, *transform(e_NFE, could_NF, augment, torch.arange(f), **settings)


@pytest.mark.parametrize("augment", ["mask", "both"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_mask_hides_at_its_rate_and_never_the_last_feature(rate: float, augment: str) -> None:
    e_NFE, could_NF, view_NFE, shown_NF = view(augment, n=4000, mask_rate=rate)
    assert torch.equal(view_NFE, e_NFE) == (augment == "mask"), "masking leaves the vectors alone"
    assert not (shown_NF & ~could_NF).any(), "shows what is absent or of the other group"
    assert torch.equal(shown_NF.any(dim=1), could_NF.any(dim=1)), "hid a song's last feature, or invented one"
    many = could_NF.sum(dim=1) == 3
    hidden = 1 - float(shown_NF[many].sum() / could_NF[many].sum())
    assert hidden == pytest.approx(rate - rate**3 / 3, abs=0.02), "three features, of which the last is kept"
    assert (shown_NF[many].sum(dim=0)[::2] > 10).all(), "any of them may be the survivor"


def test_noise_has_its_share_of_each_features_own_spread() -> None:
    """The spread over the songs that have the feature: an absent one is no song at zero."""
    e_NFE, could_NF, view_NFE, shown_NF = view("noise", n=20_000, noise_std=0.25)
    assert torch.equal(shown_NF, could_NF), "noise hides nothing"
    for f in (0, 2, 4):
        has = could_NF[:, f]
        noise = (view_NFE - e_NFE)[has, f]
        assert noise.mean().abs() < 0.05 * (f + 1) and float(noise.std()) == pytest.approx(0.25 * (f + 1), rel=0.03)


def test_embedding_hides_single_numbers_at_its_rate_and_no_feature() -> None:
    e_NFE, could_NF, view_NFE, shown_NF = view("embedding", n=4000)
    assert torch.equal(shown_NF, could_NF)
    stays = view_NFE == e_NFE
    assert torch.equal(view_NFE[~stays], torch.zeros_like(view_NFE[~stays])), "a number is hidden or as it was"
    there = e_NFE != 0
    assert float((~stays)[there].float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(view("embedding", mask_rate=0.0)[2], view("embedding", mask_rate=0.0)[0])


def test_either_tosses_a_coin() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_augment("either", generator) for _ in range(200)]
    assert set(drawn) == {"mask", "noise"} and 70 < drawn.count("mask") < 130
    assert draw_augment("both", generator) == "both"


def test_a_song_without_any_feature_of_the_group_gets_an_empty_view() -> None:
    shown_NF = torch.tensor([[True, True, False, False], [False] * 4])
    for augment in ("mask", "noise", "both", "embedding"):
        after_NF = transform(torch.randn(2, 4, 2), shown_NF, augment, torch.arange(4), 0.5, 0.1)[1]
        assert after_NF.any(dim=1).tolist() == [True, False]


@pytest.mark.parametrize("augment", ["mask", "noise", "both"])
def test_view_one_knows_nothing_of_group_b(augment: str) -> None:
    """From the song's input to the encoded view: changing or removing group B's fields changes nothing in view 1."""
    torch.manual_seed(0)
    model = SongEncoder({"audio": 8}, {"genres": 5, "tags": 5}, 4, 8, 6, 0.0, 4, True, 0.0)
    torch.nn.init.normal_(model.absent_FE)
    group_F = torch.tensor([True, False, True, False])  # audio[0:4], genres against audio[4:8], tags
    x = {"audio": torch.randn(9, 8), "genres": torch.randint(1, 5, (9, 2)), "tags": torch.randint(1, 5, (9, 2))}
    changed = {"audio": x["audio"].clone(), "genres": x["genres"], "tags": torch.zeros(9, 2, dtype=torch.long)}
    changed["audio"][:, 4:] = torch.randn(9, 4)

    def first_view(fields: dict[str, Tensor]) -> Tensor:
        e_NFE, present_NF = model.embedding(fields)
        torch.manual_seed(1)
        return model.encode(*transform(e_NFE, present_NF & group_F, augment, torch.arange(4), 0.3, 0.1))

    assert torch.equal(first_view(x), first_view(changed))
    changed["genres"] = x["genres"] % 4 + 1
    assert not torch.equal(first_view(x), first_view(changed))


FIELD_OF = torch.tensor([0, 0, 0, 1, 2])


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_fields_are_hidden_whole_and_never_the_last(rate: float) -> None:
    torch.manual_seed(0)
    shown_NF = torch.rand(4000, 5) < 0.8
    shown_NF[:10] = False  # songs with nothing stay songs with nothing
    hidden_NF = hide_features(shown_NF, FIELD_OF, rate)
    assert not (hidden_NF & ~shown_NF).any(), "nothing is shown that is not there"
    kept = []
    for before, after in zip(shown_NF.tolist(), hidden_NF.tolist(), strict=True):
        has, left = ({int(of) for s, of in zip(row, FIELD_OF, strict=True) if s} for row in (before, after))
        assert (len(left) > 0) == (len(has) > 0)
        assert after == [b and int(of) in left for b, of in zip(before, FIELD_OF, strict=True)], "all of it or none"
        kept += [len(left) / 3] * (len(has) == 3)
    # Three fields, each hidden with its chance, and one spared where all three would be.
    assert sum(kept) / len(kept) == pytest.approx(1 - rate + rate**3 / 3, abs=0.02)


def test_each_song_loses_its_own_fields() -> None:
    torch.manual_seed(0)
    everything = torch.ones(200, 5, dtype=torch.bool)
    assert len({tuple(row) for row in hide_features(everything, FIELD_OF, 0.5).tolist()}) == 7
