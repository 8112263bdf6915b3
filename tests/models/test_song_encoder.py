"""The song encoder: features, what counts as absent, and that a hidden feature cannot be seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.song_encoder import FieldEmbedding, SongEncoder

DENSE, VOCAB = {"audio": 10, "text": 4}, {"genres": 6, "language": 5}
NAMES = ["audio[0:4]", "audio[4:8]", "audio[8:10]", "text[0:4]", "genres", "language"]


def fields(n: int = 7, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    genres = torch.randint(1, 6, (n, 3), generator=rng)
    genres[:, 2] = 0
    return {
        "audio": torch.randn(n, 10, generator=rng),
        "text": torch.randn(n, 4, generator=rng),
        "genres": genres,
        "language": torch.randint(1, 5, (n, 1), generator=rng),
    }


@pytest.fixture
def model() -> SongEncoder:
    torch.manual_seed(0)
    model = SongEncoder(DENSE, VOCAB, field_dim=8, hidden=16, dim=5, dropout=0.0, block=4)
    torch.nn.init.normal_(model.absent_FE)  # as after training: a hidden feature is not simply zero
    torch.nn.init.normal_(model.embedding.shift_FE)
    return model


def test_dense_vectors_are_cut_into_blocks(model: SongEncoder) -> None:
    assert model.embedding.names == NAMES
    e_NFE, present_NF = model.embedding(fields())
    assert e_NFE.shape == (7, 6, 8) and present_NF.all()
    assert model(fields()).shape == (7, 5)


def test_embedding_against_the_definition(model: SongEncoder) -> None:
    """Block by block: LayerNorm(W·(x − mean)/scale + b)·gain + shift; a category is the mean of its values' rows."""
    mean = torch.arange(10.0)
    embedding = model.embedding
    embedding.standardise("audio", mean, 3.0)
    torch.nn.init.normal_(embedding.gain_FE)
    x = fields()
    e_NFE, _ = embedding(x)
    norm = lambda v: (v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt()  # noqa: E731
    for n in range(7):
        raw = []
        for at, linear in zip((0, 4, 8), embedding.blocks[0], strict=True):
            raw.append(linear.weight @ ((x["audio"][n] - mean) / 3)[at : at + 4] + linear.bias)
        raw.append(embedding.blocks[1][0](x["text"][n]))
        for name, table in zip(VOCAB, embedding.categories, strict=True):
            codes = [int(code) for code in x[name][n] if code > 0]
            raw.append(torch.stack([table.weight[code] for code in codes]).mean(dim=0))
        expected = torch.stack([norm(v) for v in raw]) * embedding.gain_FE + embedding.shift_FE
        torch.testing.assert_close(e_NFE[n], expected, rtol=1e-4, atol=1e-5)


def test_a_change_stays_in_its_own_block(model: SongEncoder) -> None:
    x, y = fields(), fields()
    y["audio"][:, 5] += 1
    changed = (model.embedding(x)[0] != model.embedding(y)[0]).any(dim=2).all(dim=0)
    assert [name for name, one in zip(NAMES, changed, strict=True) if one] == ["audio[4:8]"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_absent_features_are_flagged_and_zero(model: SongEncoder, bad: float) -> None:
    x = fields()
    x["audio"][2, 9] = bad  # one broken number: the whole vector is absent
    x["genres"][3] = 0
    for name, value in x.items():
        value[4] = 0 if name in VOCAB else bad
    e_NFE, present_NF = model.embedding(x)
    absent = {(n, f) for n in range(7) for f in range(6) if not present_NF[n, f]}
    assert absent == {(2, 0), (2, 1), (2, 2), (3, 4)} | {(4, f) for f in range(6)}
    assert all((e_NFE[n, f] == 0).all() for n, f in absent) and torch.isfinite(e_NFE).all()
    vectors = model(x)
    assert torch.isfinite(vectors).all(), "a song with nothing still has a vector"
    vectors.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_absent_vector_does_not_depend_on_what_stands_in_its_place(model: SongEncoder) -> None:
    x, y = fields(), fields(seed=1)
    y = {name: y[name] if name == "audio" else value for name, value in x.items()}
    x["audio"][:, 0] = y["audio"][:, 0] = float("nan")
    assert torch.equal(model(x), model(y))


def test_padding_code_changes_nothing_and_stays_zero(model: SongEncoder) -> None:
    x, longer = fields(), fields()
    longer["genres"] = torch.nn.functional.pad(longer["genres"], (0, 4))
    torch.testing.assert_close(model(x), model(longer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    table = model.embedding.categories[list(VOCAB).index("genres")].weight
    assert (table[0] == 0).all() and (table[2] != 0).any()


@pytest.mark.parametrize("hidden", range(6))
def test_a_hidden_feature_cannot_be_seen(model: SongEncoder, hidden: int) -> None:
    e_NFE, present_NF = model.embedding(fields())
    shown_NF = present_NF.clone()
    shown_NF[:, hidden] = False
    other = e_NFE.clone()
    other[:, hidden] += 10
    assert torch.equal(model.encode(e_NFE, shown_NF), model.encode(other, shown_NF))
    assert not torch.allclose(model.encode(e_NFE, present_NF), model.encode(other, present_NF))


def test_same_song_same_vector_whatever_stands_beside_it(model: SongEncoder) -> None:
    x = fields(32)
    alone = torch.cat([model({name: value[n : n + 1] for name, value in x.items()}) for n in range(32)])
    torch.testing.assert_close(model(x), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dense", "vocab"), [({"audio": 3}, {}), ({}, {"genres": 4})])
def test_one_field_is_enough(dense: dict[str, int], vocab: dict[str, int]) -> None:
    model = SongEncoder(dense, vocab, field_dim=4, hidden=8, dim=3, block=64)
    x = {"audio": torch.randn(2, 3), "genres": torch.ones(2, 1, dtype=torch.long)}
    assert model({name: x[name] for name in [*dense, *vocab]}).shape == (2, 3)


@pytest.mark.parametrize("names", [("type", "forward"), ("clip.v1", "tags.of.mood"), ("", "歌 名"), ("items", "keys")])
def test_a_field_may_be_called_anything(names: tuple[str, str]) -> None:
    """Also what an attribute of a module or a key of its weights may not be; the names change no number."""
    models = []
    for dense, category in (names, ("audio", "genres")):
        torch.manual_seed(0)
        models.append(SongEncoder({dense: 10}, {category: 6}, field_dim=8, hidden=16, dim=5, dropout=0.0, block=4))
        models[-1].embedding.standardise(dense, torch.arange(10.0), 3.0)
    x = fields()
    odd, plain = models
    assert odd.embedding.names == [*(f"{names[0]}[{at}]" for at in ("0:4", "4:8", "8:10")), names[1]]
    assert torch.equal(odd({names[0]: x["audio"], names[1]: x["genres"]}), plain(x))
    plain.load_state_dict(odd.state_dict())


def test_no_value_and_unknown_value_start_as_zero_and_the_unknown_one_learns(model: SongEncoder) -> None:
    tables = [table.weight for table in model.embedding.categories]
    assert all((table[:2] == 0).all() and (table[2:] != 0).any(dim=1).all() for table in tables)
    x = fields()
    x["genres"][0, 0] = x["language"][0] = 1
    model(x).sum().backward()
    gradients = [table.grad for table in tables]
    assert all((grad[0] == 0).all() and (grad[1] != 0).any() for grad in gradients if grad is not None)
    assert all(grad is not None for grad in gradients)


def test_vectors_have_one_learned_length_unless_it_is_switched_off(model: SongEncoder) -> None:
    length_N = model(fields()).norm(dim=1)
    torch.testing.assert_close(length_N, torch.full((7,), 4.0))
    (model(fields()) * torch.randn(7, 5)).sum().backward()
    assert model.scale is not None and model.scale.grad is not None and model.scale.grad != 0
    torch.manual_seed(0)
    free = SongEncoder(DENSE, VOCAB, field_dim=8, hidden=16, dim=5, dropout=0.0, block=4, normalise=False)
    assert "scale" not in dict(free.named_parameters()), "a parameter without a gradient stops distributed training"
    free.load_state_dict({name: value for name, value in model.state_dict().items() if name != "scale"})
    assert free(fields()).norm(dim=1).std() > 0.05
    torch.testing.assert_close(torch.nn.functional.normalize(free(fields()), dim=1) * 4, model(fields()))


def test_no_field_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one field"):
        FieldEmbedding({}, {}, 4, 4)


def test_statistics_travel_in_the_weights(model: SongEncoder) -> None:
    model.embedding.standardise("audio", torch.arange(10.0), 3.0)
    other = SongEncoder(DENSE, VOCAB, field_dim=8, hidden=16, dim=5, dropout=0.0, block=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(fields()), model(fields()))
