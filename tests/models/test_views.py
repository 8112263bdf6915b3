"""Feature correlation and grouping against brute force; what a view may show, and what it must not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.song_encoder import SongEncoder
from models.views import draw_group, feature_correlation, group_by_correlation, hide_fields, make_view


def embeddings() -> Tensor:
    """Features that are more or less alike: each mixes one common and one own part."""
    rng = torch.Generator().manual_seed(0)
    common, own = torch.randn(40, 1, 3, generator=rng), torch.randn(40, 5, 3, generator=rng)
    share = torch.linspace(0, 1, 5)[None, :, None]
    return (share * common + (1 - share) * own).double()


def brute_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA over samples: Σ_nm K_nm L_nm / √(Σ K² · Σ L²) with K, L the centred kernels (equation 1 and HSIC)."""
    n = len(x)
    k = [[float(x[i] @ x[j]) for j in range(n)] for i in range(n)]
    m = [[float(y[i] @ y[j]) for j in range(n)] for i in range(n)]
    centre = np.eye(n) - 1 / n
    k, m = centre @ np.array(k) @ centre, centre @ np.array(m) @ centre
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def gram(e_NFE: Tensor) -> Tensor:
    centred = e_NFE - e_NFE.mean(dim=0)
    return torch.einsum("nfa,ngb->fagb", centred, centred)


def test_feature_correlation_against_brute_force_cka() -> None:
    e_NFE = embeddings()
    correlation = feature_correlation(gram(e_NFE))
    for i in range(5):
        for j in range(5):
            expected = brute_cka(e_NFE[:, i].numpy(), e_NFE[:, j].numpy())
            assert float(correlation[i, j]) == pytest.approx(expected, abs=1e-9)
    assert torch.equal(correlation.diagonal(), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(correlation, correlation.T)


def test_a_dead_feature_correlates_with_nothing() -> None:
    e_NFE = embeddings()
    e_NFE[:, 2] = 3.0
    correlation = feature_correlation(gram(e_NFE))
    assert torch.isfinite(correlation).all()
    assert correlation[2].tolist() == pytest.approx([0, 0, 1, 0, 0])


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
    torch.manual_seed(0)
    correlation = random_correlation(f)
    seen = set()
    for _ in range(60):
        a, b = draw_group(correlation, grouping)
        assert int(a.sum()) == (f + 1) // 2 and (a ^ b).all()
        seen.add(tuple(a.tolist()))
    possible = {tuple(group_by_correlation(correlation, seed).tolist()) for seed in range(f)}
    assert seen == possible if grouping == "correlation" else len(seen) > (1 if f == 2 else len(possible) - 1)


def test_random_groups_do_not_follow_the_correlation_and_none_show_everything_twice() -> None:
    """Every feature is as often beside feature 0 as any other."""
    torch.manual_seed(0)
    correlation = torch.eye(6)
    correlation[:3, :3] = correlation[3:, 3:] = 1
    groups = [draw_group(correlation, "random")[0] for _ in range(600)]
    together = torch.stack([group == group[0] for group in groups]).float().mean(dim=0)
    assert together[1:].tolist() == pytest.approx([0.4] * 5, abs=0.08)
    assert all(group.all() for group in draw_group(correlation, "none"))


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
    return e_NFE, present_NF & group_F, *make_view(e_NFE, present_NF, group_F, augment, **settings)


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
    e_NFE, present_NF, group_F = torch.randn(50, 6, 4), torch.ones(50, 6, dtype=torch.bool), torch.arange(6) < 3
    torch.manual_seed(0)
    kinds = []
    for _ in range(200):
        view_NFE, shown_NF = make_view(e_NFE, present_NF, group_F, "either", 0.3, 0.1)
        kinds.append(not torch.equal(shown_NF, present_NF & group_F))
        assert kinds[-1] == torch.equal(view_NFE, e_NFE), "masked or noisy, not both, not none"
    assert 70 < sum(kinds) < 130


def test_a_song_without_any_feature_of_the_group_gets_an_empty_view() -> None:
    present_NF = torch.tensor([[True, True, False, False], [True, False, True, False], [False] * 4])
    group_F = torch.tensor([True, True, False, False])
    e_NFE = torch.randn(3, 4, 2) * present_NF.unsqueeze(-1)
    for augment in ("mask", "noise", "both", "either"):
        shown = [make_view(e_NFE, present_NF, g, augment, 0.5, 0.1)[1].any(dim=1).tolist() for g in (group_F, ~group_F)]
        assert shown == [[True, True, False], [False, True, False]]


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
        return model.encode(*make_view(e_NFE, present_NF, group_F, augment, 0.3, 0.1))

    assert torch.equal(first_view(x), first_view(changed))
    changed["genres"] = x["genres"] % 4 + 1
    assert not torch.equal(first_view(x), first_view(changed))


FIELD_OF = torch.tensor([0, 0, 0, 1, 2])


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_fields_are_hidden_whole_and_never_the_last(rate: float) -> None:
    torch.manual_seed(0)
    shown_NF = torch.rand(4000, 5) < 0.8
    shown_NF[:10] = False  # songs with nothing stay songs with nothing
    hidden_NF = hide_fields(shown_NF, FIELD_OF, rate)
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
    assert len({tuple(row) for row in hide_fields(everything, FIELD_OF, 0.5).tolist()}) == 7
