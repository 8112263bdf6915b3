"""The song encoder: features, what counts as absent, and that a hidden feature cannot be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.song_encoder import LENGTH, WIDE, FieldEmbedding, SongEncoder

DENSE, VOCAB = {"audio": 10, "text": 4}, {"genres": 6, "language": 5}
NAMES = ["audio[0:4]", "audio[4:8]", "audio[8:10]", "text[0:4]", "genres", "language"]


def fields(n: int = 7) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    genres = torch.randint(1, 6, (n, 3), generator=rng)
    genres[:, 2] = 0
    return {
        "audio": torch.randn(n, 10, generator=rng),
        "text": torch.randn(n, 4, generator=rng),
        "genres": genres,
        "language": torch.randint(1, 5, (n, 1), generator=rng),
    }


def encoder(dense: dict[str, int] = DENSE, vocab: dict[str, int] = VOCAB, **options: Any) -> SongEncoder:
    torch.manual_seed(0)
    small: dict[str, Any] = {"field_dim": 8, "hidden": 16, "dim": 5, "dropout": 0.0, "block": 4}
    return SongEncoder(dense, vocab, **{**small, "normalise": True, "input_dropout": 0.0, **options})


@pytest.fixture
def model() -> SongEncoder:
    made = encoder()
    torch.nn.init.normal_(made.absent_FE)  # as after training: a hidden feature is not simply zero
    return made


def identity(dense: dict[str, int], block: int, dropout: float = 0.0) -> FieldEmbedding:
    """Shows what goes into the linear maps: all of them are the identity."""
    embedding = FieldEmbedding(dense, {"genres": 6}, block, block, dropout)
    for linear in (one for blocks in embedding.blocks for one in blocks):  # type: ignore[attr-defined]
        torch.nn.init.eye_(linear.weight), torch.nn.init.zeros_(linear.bias)
    return embedding


def audio(x_NW: Tensor, **others: Tensor) -> dict[str, Tensor]:
    return {"audio": x_NW, "genres": torch.ones(len(x_NW), 1).long(), **others}


def test_embedding_against_the_definition(model: SongEncoder) -> None:
    """Block by block: W·(x − mean)/scale + b; a category is the mean of its values' rows."""
    mean = torch.arange(10.0)
    embedding, x = model.embedding, fields()
    embedding.standardise("audio", mean, 3.0)
    e_NFE, present_NF = embedding(x)
    assert embedding.names == NAMES and embedding.field_of == [0, 0, 0, 1, 2, 3] and present_NF.all()
    for n in range(7):
        expected = []
        for at, linear in zip((0, 4, 8), embedding.blocks[0], strict=True):
            expected.append(linear.weight @ ((x["audio"][n] - mean) / 3)[at : at + 4] + linear.bias)
        expected.append(embedding.blocks[1][0](x["text"][n]))
        for name, table in zip(VOCAB, embedding.categories, strict=True):
            codes = [int(code) for code in x[name][n] if code > 0]
            expected.append(torch.stack([table.weight[code] for code in codes]).mean(dim=0))
        torch.testing.assert_close(e_NFE[n], torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("width", [WIDE, 64])
def test_a_wide_field_counts_by_its_direction_from_the_centre(width: int, scale: float) -> None:
    embedding, x = identity({"audio": width}, width), torch.randn(6, width) * torch.logspace(-2, 2, 6)[:, None]
    mean = torch.randn(width)
    embedding.standardise("audio", mean * scale, 0.7 * scale)
    e_NFE = embedding(audio((x + mean) * scale))[0][:, 0]
    torch.testing.assert_close(e_NFE.norm(dim=1), torch.full((6,), LENGTH), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(F.cosine_similarity(e_NFE, x), torch.ones(6), rtol=1e-3, atol=1e-3)


def test_a_narrow_field_keeps_its_size() -> None:
    width = WIDE - 1
    embedding, x = identity({"audio": width}, width), torch.randn(6, width) * torch.logspace(-2, 2, 6)[:, None]
    mean = torch.randn(width)
    embedding.standardise("audio", mean, 0.7)
    torch.testing.assert_close(embedding(audio(x))[0][:, 0], (x - mean) / 0.7)


def test_one_length_holds_for_a_whole_field_however_wide_not_for_its_blocks() -> None:
    x = torch.randn(5, 20)
    x[:, 8:16] = 0
    e_NFE = identity({"audio": 20, "b": 64}, 8)(audio(x, b=100 * torch.randn(5, 64)))[0]
    for of_field in (e_NFE[:, :3], e_NFE[:, 3:11]):
        length_N = of_field.square().sum(dim=(1, 2)).sqrt()
        torch.testing.assert_close(length_N, torch.full((5,), LENGTH), rtol=1e-4, atol=1e-3)
    assert (e_NFE[:, 1] == 0).all(), "an empty block stays empty"


def test_a_wide_row_at_the_centre_and_a_missing_one_stay_finite() -> None:
    """At the centre there is no direction: zero, but there; a missing row is zero and absent."""
    embedding, mean = identity({"audio": 20}, 20), torch.randn(20)
    embedding.standardise("audio", mean, 2.0)
    x = torch.stack([mean, torch.full((20,), torch.nan), torch.zeros(20)]).requires_grad_()
    e_NFE, present_NF = embedding(audio(x))
    assert present_NF[:, 0].tolist() == [True, False, True]
    assert (e_NFE[:2, 0] == 0).all() and float(e_NFE[2, 0].detach().norm()) == pytest.approx(LENGTH)
    e_NFE.square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in embedding.parameters())


def test_input_dropout_is_of_single_numbers_and_only_in_training() -> None:
    embedding, x = identity({"audio": 20}, 20, dropout=0.3), audio(torch.randn(2000, 20))
    plain = embedding.eval()(x)[0]
    torch.manual_seed(0)
    got = embedding.train()(x)[0]
    assert torch.equal(got[:, 1], plain[:, 1]), "categories are spared"
    got, plain = got[:, 0], plain[:, 0]
    hidden = got == 0
    assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.01) and (plain != 0).all()
    torch.testing.assert_close(got[~hidden], plain[~hidden] / 0.7)
    share = hidden.float().mean(dim=1)
    assert float(share.std()) == pytest.approx(math.sqrt(0.3 * 0.7 / 20), rel=0.1), "numbers, not songs or features"


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


def test_a_hidden_feature_cannot_be_seen(model: SongEncoder) -> None:
    e_NFE, present_NF = model.embedding(fields())
    for hidden in range(6):
        shown_NF = present_NF.clone()
        shown_NF[:, hidden] = False
        other = e_NFE.clone()
        other[:, hidden] += 10
        assert torch.equal(model.encode(e_NFE, shown_NF), model.encode(other, shown_NF))
        assert not torch.allclose(model.encode(e_NFE, present_NF), model.encode(other, present_NF))


@pytest.mark.parametrize("names", [("type", "forward"), ("clip.v1", "tags.of.mood"), ("", "歌 名"), ("items", "keys")])
def test_a_field_may_be_called_anything(names: tuple[str, str]) -> None:
    """Also what an attribute of a module or a key of its weights may not be; the names change no number."""
    odd, plain = (encoder({dense: 10}, {category: 6}) for dense, category in (names, ("audio", "genres")))
    x = fields()
    assert odd.embedding.names == [*(f"{names[0]}[{at}]" for at in ("0:4", "4:8", "8:10")), names[1]]
    assert torch.equal(odd({names[0]: x["audio"], names[1]: x["genres"]}), plain(x))
    plain.load_state_dict(odd.state_dict())


def test_no_value_and_an_unknown_one_start_as_zero_and_the_unknown_one_learns(model: SongEncoder) -> None:
    """A song with an unknown genre has a genre, one without has `absent`."""
    tables: list[Any] = [table.weight for table in model.embedding.categories]
    assert all((table[:2] == 0).all() and (table[2:] != 0).any(dim=1).all() for table in tables)
    x = {name: value[:1].repeat(2, *[1] * (value.ndim - 1)) for name, value in fields().items()}
    x["genres"][0], x["genres"][1], x["language"][0] = torch.tensor([1, 0, 0]), 0, 1
    assert model.embedding(x)[1][:, NAMES.index("genres")].tolist() == [True, False]
    vectors = model(x)
    vectors.sum().backward()
    assert all((table.grad[0] == 0).all() and (table.grad[1] != 0).any() for table in tables)
    x["language"][1] = 1
    assert not torch.allclose(*model(x))
    torch.nn.init.zeros_(model.absent_FE)
    torch.testing.assert_close(*model(x))


def test_vectors_have_one_learned_length_unless_it_is_switched_off(model: SongEncoder) -> None:
    vector_ND, bias_N = model.content(*model.embedding(fields()))
    assert vector_ND.shape == (7, 5) and bias_N.shape == (7,)
    torch.testing.assert_close(model(fields()), 4 * F.normalize(vector_ND, dim=1))
    (model(fields()) * torch.randn(7, 5)).sum().backward()
    assert model.scale is not None and model.scale.grad is not None and model.scale.grad != 0
    free = encoder(normalise=False)
    assert "scale" not in dict(free.named_parameters()), "a parameter without a gradient stops distributed training"
    free.load_state_dict({name: value for name, value in model.state_dict().items() if name != "scale"})
    assert torch.equal(free(fields()), vector_ND) and vector_ND.norm(dim=1).std() > 0.01


@pytest.mark.parametrize("hidden", [0, 16])
def test_content_is_a_linear_part_and_a_deep_one(hidden: int) -> None:
    model = encoder(hidden=hidden, dropout=0.5).eval()
    torch.nn.init.normal_(model.absent_FE), torch.nn.init.normal_(model.item_bias.weight)
    e_NFE, present_NF = model.embedding(fields())
    present_NF[:, 2] = False
    x_N = torch.stack(
        [torch.cat([e_NFE[n, f] if present_NF[n, f] else model.absent_FE[f] for f in range(6)]) for n in range(7)]
    )
    expected = x_N @ model.skip.weight.T + model.skip.bias
    if model.trunk is not None:
        deep = x_N @ model.trunk[0].weight.T + model.trunk[0].bias
        for layer in (model.trunk[3], model.trunk[5]):
            deep = F.gelu(deep) @ layer.weight.T + layer.bias
        expected = expected + deep
    assert (model.trunk is None) == (hidden == 0)
    vector_ND, bias_N = model.content(e_NFE, present_NF)
    torch.testing.assert_close(vector_ND, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias_N, x_N @ model.item_bias.weight[0] + model.item_bias.bias, rtol=1e-4, atol=1e-5)


def test_item_bias_is_zero_at_first_and_learns_from_content(model: SongEncoder) -> None:
    bias_N = model.content(*model.embedding(fields()))[1]
    assert (bias_N == 0).all()
    bias_N.sum().backward()
    assert model.item_bias.weight.grad is not None and (model.item_bias.weight.grad != 0).any()


def test_no_field_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one field"):
        FieldEmbedding({}, {}, 4, 4)
