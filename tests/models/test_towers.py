import math

import pytest
import torch

from models.towers import AGES, HEADS, BoundaryModel

DENSE, VOCAB, PROFILE = {"audio": 12}, {"genres": 6}, {"type": 4, "items": 3}  # names that a ModuleDict refuses


def make(dense=DENSE, vocab=VOCAB, profile=PROFILE, n_numbers=2, seed=0, prior_plays=2.0):
    torch.manual_seed(seed)
    sizes = {"block": 8, "field_dim": 6, "hidden": 20, "dim": 10, "dropout": 0.0, "prior_plays": prior_plays}
    return BoundaryModel(dense, vocab, profile, n_numbers, **sizes).eval()


def fields(n, g):
    audio = torch.randn(n, 12, generator=g)
    audio[::4] = torch.nan
    return {"audio": audio, "genres": torch.randint(0, 6, (n, 8), generator=g)}


def user_batch():
    g = torch.Generator().manual_seed(0)
    numbers = torch.randn(7, 2, generator=g)
    numbers[1] = torch.nan
    mask = torch.rand(7, 5, generator=g) < 0.7
    mask[0] = False
    return {
        "codes": torch.randint(0, 3, (7, 2), generator=g),
        "numbers": numbers,
        "songs": fields(9, g),
        "history": torch.randint(0, 9, (7, 5), generator=g),
        "mask": mask,
        "strength": torch.randint(-1, 4, (7, 5), generator=g).float(),
    }


def rows(batch, at):
    return {k: v if k == "songs" else v[at] for k, v in batch.items()}


def test_user_and_boundary_tower_share_nothing():
    model = make()
    user, boundary = dict(model.user.named_parameters()), dict(model.boundary.named_parameters())
    assert {k: v.shape for k, v in user.items()} == {k: v.shape for k, v in boundary.items()}
    assert not {p.data_ptr() for p in user.values()} & {p.data_ptr() for p in boundary.values()}
    assert not {p.data_ptr() for p in model.item.parameters()} & {p.data_ptr() for p in user.values()}
    _, score = model.user_vectors(user_batch())
    score.sum().backward()
    assert all(p.grad is not None for p in [*user.values(), *boundary.values()])
    model.zero_grad()
    u, _ = model.user_vectors(user_batch())
    u.sum().backward()
    assert all(p.grad is None for p in boundary.values())


def test_every_parameter_takes_part():
    """Distributed training refuses parameters without gradient."""
    model = make()
    for batch in (user_batch(), rows(user_batch(), slice(0, 1))):  # also where no history holds anything
        model.zero_grad(set_to_none=True)
        batch["items"] = fields(3 * len(batch["mask"]), torch.Generator().manual_seed(9))
        batch["item"] = torch.arange(3 * len(batch["mask"])).view(-1, 3)
        item, boundary = model(batch)
        (item - boundary[:, None]).square().mean().backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {"item.item_bias.weight", "item.item_bias.bias"}


def test_scores_are_inner_products():
    model, batch = make(), user_batch()
    batch["items"] = fields(5, torch.Generator().manual_seed(1))
    batch["item"] = torch.randint(0, 5, (7, 3), generator=torch.Generator().manual_seed(2))
    item_score, boundary_score = model(batch)
    u, b, i = model.user(batch), model.boundary(batch), model.item_vectors(batch["items"])
    torch.testing.assert_close(boundary_score, torch.stack([u[n] @ b[n] for n in range(7)]))
    expected = torch.stack([torch.stack([u[n] @ i[at] for at in batch["item"][n]]) for n in range(7)])
    torch.testing.assert_close(item_score, expected)
    assert i.norm(dim=1).std() > 0.05 * i.norm(dim=1).mean(), "vectors keep their length"


@pytest.mark.parametrize("prior_plays", [0.0, 0.5, 2.0])
def test_taste_equals_a_naive_loop(prior_plays):
    model, batch = make(prior_plays=prior_plays), user_batch()
    tower = model.user
    torch.nn.init.normal_(tower.empty_D)
    expected = []
    song = tower.song(tower.embedding(batch["songs"])[0].flatten(1))
    for n in range(7):
        entries, place = [tower.empty_D], 0
        for t in range(5):
            if batch["mask"][n, t]:
                age = 0 if place == 0 else min(AGES - 1, 1 + int(math.log2(place)))
                signal = int(batch["strength"][n, t]) + 1
                x = song[batch["history"][n, t]] + tower.signal.weight[signal] + tower.age.weight[age]
                entries.append(torch.nn.functional.gelu(x))
                place += 1
        stacked = torch.stack(entries)
        weights = (stacked @ tower.attend.weight.T).softmax(dim=0)
        of_history = torch.cat([weights[:, h] @ stacked for h in range(HEADS)])
        of_nobody = torch.cat([tower.empty_D] * HEADS)
        expected.append((place * of_history + prior_plays * of_nobody) / (place + prior_plays) if place else of_nobody)
    torch.testing.assert_close(tower.taste(batch), torch.stack(expected))


def test_a_user_does_not_depend_on_the_batch():
    model, batch = make(), user_batch()
    u, score = model.user_vectors(batch)
    for n in range(7):
        alone, alone_score = model.user_vectors(rows(batch, slice(n, n + 1)))
        torch.testing.assert_close(alone[0], u[n])
        torch.testing.assert_close(alone_score[0], score[n])
    order = torch.arange(9).flip(0)  # songs listed in another order
    songs = {name: values[order] for name, values in batch["songs"].items()}
    torch.testing.assert_close(model.user_vectors(batch | {"songs": songs, "history": order[batch["history"]]})[0], u)


def test_missing_numbers_and_absent_profile():
    model, batch = make(), user_batch()
    model.standardise_numbers(torch.tensor([5.0, -2.0]), torch.tensor([3.0, 0.5]))
    at_mean = dict(batch, numbers=batch["numbers"].clone())
    at_mean["numbers"][1] = torch.tensor([5.0, -2.0])
    x_missing, x_mean = model.user.profile(batch), model.user.profile(at_mean)
    assert torch.equal(x_missing[-2][1], torch.zeros(2)) and torch.equal(x_missing[-1][1], torch.zeros(2))
    assert torch.equal(x_mean[-2][1], torch.zeros(2)) and torch.equal(x_mean[-1][1], torch.ones(2))
    bare = make(profile={}, n_numbers=0)
    empty = dict(batch, codes=torch.zeros(7, 0, dtype=torch.long), numbers=torch.zeros(7, 0))
    assert torch.isfinite(bare.user_vectors(empty)[0]).all()


@pytest.mark.parametrize(("dense", "vocab"), [(DENSE, {}), ({}, VOCAB)])
def test_one_kind_of_field_is_enough(dense, vocab):
    model, batch = make(dense=dense, vocab=vocab), user_batch()
    u, _ = model.user_vectors(batch)
    moved, _ = model.user_vectors(dict(batch, history=(batch["history"] + 1) % 9))
    assert torch.equal(u[0], moved[0]) and not torch.allclose(u[2:], moved[2:])


def test_standardisation_reaches_all_towers_and_travels_in_the_weights():
    model = make()
    model.standardise_songs("audio", torch.full((12,), 2.0), 4.0)
    model.standardise_numbers(torch.tensor([5.0, -2.0]), torch.tensor([3.0, 0.5]))
    other = make(seed=1)
    other.load_state_dict(model.state_dict())
    for tower in (other.item, other.user, other.boundary):
        assert tower.embedding.get_buffer("mean_0")[0] == 2 and tower.embedding.get_buffer("scale_0") == 4
    assert other.boundary.number_mean.tolist() == [5, -2]
    batch = user_batch()
    assert torch.equal(model.user_vectors(batch)[1], other.user_vectors(batch)[1])


def test_gradients_of_many_plays_add_up_in_bfloat16():
    """Thousands of plays of one song, of one age: in bfloat16 a sum stands still at 256 times what is added to it."""
    g = torch.Generator().manual_seed(0)
    of = {"codes": torch.zeros(2048, 2, dtype=torch.long), "numbers": torch.zeros(2048, 2), "songs": fields(3, g)}
    plays = {"history": torch.randint(0, 3, (2048, 10), generator=g), "strength": torch.ones(2048, 10)}
    of |= plays | {"mask": torch.ones(2048, 10, dtype=torch.bool)}
    gradients = []
    for half in (False, True):
        model = make()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            vector = model.user(of)
        vector.float().square().sum().backward()
        gradients.append([model.user.song.weight.grad, model.user.age.weight.grad, model.user.signal.weight.grad])
    for full, less in zip(*gradients, strict=True):
        assert (full - less).norm() < 0.05 * full.norm()


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.1), (torch.float64, 1e-5)])
def test_scores_of_weights_that_are_not_float32(dtype, near):
    """As with trainer.precision=bf16-true."""
    g = torch.Generator().manual_seed(1)
    of = user_batch() | {"items": fields(4, g), "item": torch.randint(0, 4, (7, 3), generator=g)}

    def cast(value):
        if isinstance(value, dict):
            return {name: cast(one) for name, one in value.items()}
        return value.to(dtype) if value.is_floating_point() else value

    expected, found = make()(of), make().to(dtype)(cast(of))
    for full, other in zip(expected, found, strict=True):
        assert other.dtype == dtype
        torch.testing.assert_close(other.float(), full, atol=near, rtol=near)
