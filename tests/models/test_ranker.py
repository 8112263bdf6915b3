"""The neural ranker against a loop over pairs, and what its scores mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.ranker import MOST, RankNetwork

N, G, S, R, T, HEADS = 7, 3, 9, 4, 5, 2
GRADES = (1.0, 2.0, 10.0)


def network(seed: int = 0) -> RankNetwork:
    """A network all of whose numbers are drawn."""
    torch.manual_seed(seed)
    made = RankNetwork({"text": 20, "mood": 3}, {"genres": 6}, [4, 5], 6, GRADES, 16, 4, 8, HEADS, 12, 0.3)
    for name, value in made.state_dict().items():
        if value.is_floating_point() and name not in ("worth", "told"):
            value.copy_(torch.randn_like(value) * 0.5 + ("scale" in name))
    return made.eval()


def drawn(seed: int = 0) -> dict[str, Any]:
    """Pairs of which one has no history, with values missing."""
    torch.manual_seed(seed)
    numbers = torch.randn(N, 6) * 3
    numbers[torch.rand(N, 6) < 0.3] = torch.nan
    mask = torch.rand(R, T) < 0.7
    mask[1] = False
    text = torch.randn(S, 20)
    text[2] = torch.nan
    songs = {"text": text, "mood": torch.randn(S, 3), "genres": torch.randint(0, 6, (S, 3))}
    return {
        "numbers": numbers,
        "codes": torch.stack([torch.randint(0, 4, (N,)), torch.randint(0, 5, (N,))], dim=1),
        "songs": songs,
        "new": torch.randperm(S)[:G],
        "song": torch.randint(0, G, (N,)),
        "row": torch.tensor([0, 1, 2, 3, 0, 2, 1]),
        "history": torch.randint(0, S, (R, T)),
        "mask": mask,
        "signal": torch.randint(1, 4, (R, T)),
    }


def by_loop(of: RankNetwork, batch: dict[str, Any], n: int) -> Tensor:
    """Logits of one pair, from its own history alone."""
    inputs = []
    for value, mean, scale in zip(batch["numbers"][n], of.number_mean, of.number_scale, strict=True):  # type: ignore[call-overload]
        inputs.append(torch.zeros(()) if value.isnan() else ((value - mean) / scale).clamp(-MOST, MOST))
    inputs += [(~value.isnan()).float() for value in batch["numbers"][n]]
    x = torch.cat([torch.stack(inputs), *(table.weight[batch["codes"][n, at]] for at, table in enumerate(of.codes))])  # type: ignore[union-attr]

    def song(at: int) -> Tensor:
        one: Tensor = of.song(
            of.embedding({name: value[at : at + 1] for name, value in batch["songs"].items()})[0][0].flatten()
        )
        return one

    own, row, half = song(batch["new"][batch["song"][n]]), batch["row"][n], 8 // HEADS
    places = [t for t in range(T) if batch["mask"][row, t]]
    pooled, most = [], []
    for head in range(HEADS):
        part = slice(head * half, (head + 1) * half)
        values, logits, cosines = [of.empty_D[part]], [0.0], [-1.0]
        for t in places:
            other, signal = song(batch["history"][row, t]), batch["signal"][row, t]
            cosine = torch.cosine_similarity(own[part], other[part], dim=0)
            cosines.append(float(cosine))
            logits.append(float(cosine * of.scale_H[head] + of.signal_bias.weight[signal, head]))
            values.append(of.signal.weight[signal][part])
        weights = [math.exp(one) for one in logits]
        pooled.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        most.append(max(cosines))
    x = torch.cat([x, torch.cat(pooled), torch.tensor(most)])
    logit: Tensor = of.out(of.trunk(x)) + of.skip(x)
    return logit


def test_logits_against_a_loop_over_pairs() -> None:
    made, batch = network(), drawn()
    with torch.no_grad():
        found, expected = made(batch), torch.stack([by_loop(made, batch, n) for n in range(N)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_padding_and_the_songs_behind_it_change_nothing() -> None:
    made, batch = network(), drawn()
    other = dict(batch, history=torch.where(batch["mask"], batch["history"], 0))
    other = other | {name: torch.nn.functional.pad(other[name], (0, 3)) for name in ("history", "mask", "signal")}
    with torch.no_grad():
        torch.testing.assert_close(made(other), made(batch))
        seen = dict(batch, mask=torch.ones_like(batch["mask"]))
        assert not torch.allclose(made(seen), made(batch))


def test_keys_stand_for_contents() -> None:
    made, batch = network(), drawn()
    with torch.no_grad():
        torch.testing.assert_close(made(batch | {"songs": made.keys(batch["songs"])}), made(batch))


def test_contributions_sum_to_the_score_less_that_of_an_average_user() -> None:
    """Against many more steps; exactly where the score is a linear function of a feature or does not know it."""
    made, batch = network(), drawn()
    batch["numbers"] = batch["numbers"].nan_to_num(0.5)
    nobody = {
        "numbers": made.number_mean.expand(N, 6),
        "mask": torch.zeros_like(batch["mask"]),
    }
    codes = [table.weight.mean(dim=0) for table in made.codes]  # type: ignore[operator]
    with torch.no_grad():
        asked, average = made.features(batch | nobody), made.attention(batch | nobody)
        base = torch.cat([*asked[:2], *(one.expand(N, -1) for one in codes), *average], dim=1)
        difference_N = made.score(batch) - made.share_logit(made.logits(base))
        found = made.contributions(batch)
    assert found.shape == (N, 6 + 2 + 1) and difference_N.std() > 0.1
    torch.testing.assert_close(found.sum(dim=1), difference_N, rtol=0.02, atol=0.02)
    with torch.no_grad():  # a feature that no weight reads adds nothing
        for layer in (made.skip, made.trunk[0]):
            layer.weight[:, [2, 6 + 2]] = 0  # type: ignore[index]
    assert (made.contributions(batch)[:, 2] == 0).all() and (made.contributions(batch)[:, 3] != 0).any()


def test_attention_is_shared_out() -> None:
    made, batch = network(), drawn()
    with torch.no_grad():
        share_NT = made.attended(batch)
        weights, whole = made.look(batch)[1], share_NT.sum(dim=1)
    for n, (song, row) in enumerate(zip(batch["song"], batch["row"], strict=True)):
        expected = sum(weights[song, head, row, 1:] for head in range(HEADS)) / HEADS
        torch.testing.assert_close(share_NT[n], expected)
        assert (share_NT[n][~batch["mask"][row]] == 0).all() and whole[n] < 1


@pytest.mark.parametrize("told", [(1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_score_is_the_log_odds_of_the_expected_grade(told: tuple[int, int, int]) -> None:
    made, logit_N3 = network(), torch.randn(40, 3) * 4
    made.start_at(torch.where(torch.tensor(told) > 0, 0.3, torch.nan))
    for logit, found in zip(logit_N3.tolist(), made.share_logit(logit_N3).tolist(), strict=True):
        played, completed, favourited = (t / (1 + math.exp(-z)) for z, t in zip(logit, told, strict=True))
        expected = 0.0
        for is_c in (0, 1):
            for is_f in (0, 1):
                chance = played * (completed if is_c else 1 - completed) * (favourited if is_f else 1 - favourited)
                expected += chance * (GRADES[2] if is_f else GRADES[1] if is_c else GRADES[0]) / GRADES[2]
        assert 1 / (1 + math.exp(-found)) == pytest.approx(expected, rel=1e-4)


def test_scores_stay_finite_where_logits_are_large() -> None:
    made, large = network(), torch.tensor([[300.0, 300.0, 300.0], [-300.0, -300.0, -300.0]])
    large.requires_grad_()
    found = made.share_logit(large)
    found.sum().backward()
    assert found.isfinite().all() and large.grad is not None and large.grad.isfinite().all() and found[0] > found[1]


def test_it_starts_at_the_rates() -> None:
    made = RankNetwork({"mood": 3}, {}, [], 6, GRADES, 16, 4, 8, HEADS, 12, 0.3).eval()
    made.start_at(torch.tensor([0.05, 0.7, torch.nan]))
    batch = drawn() | {"codes": torch.zeros(N, 0, dtype=torch.int64), "songs": {"mood": torch.randn(S, 3)}}
    torch.testing.assert_close(made(batch).sigmoid()[:, :2], torch.tensor([[0.05, 0.7]]).expand(N, 2))
    torch.testing.assert_close(made.score(batch).sigmoid(), torch.full((N,), 0.05 * (0.7 * 0.2 + 0.3 * 0.1)))
