"""The song encoder: features, what counts as absent, and that a hidden feature cannot be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from models.song_encoder import LENGTH, WIDE, FieldEmbedding, SongEncoder

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
    return model


def test_dense_vectors_are_cut_into_blocks(model: SongEncoder) -> None:
    assert model.embedding.names == NAMES
    e_NFE, present_NF = model.embedding(fields())
    assert e_NFE.shape == (7, 6, 8) and present_NF.all()
    assert model(fields()).shape == (7, 5)


def test_embedding_against_the_definition(model: SongEncoder) -> None:
    """Block by block: W·(x − mean)/scale + b; a category is the mean of its values' rows."""
    mean = torch.arange(10.0)
    embedding = model.embedding
    embedding.standardise("audio", mean, 3.0)
    x = fields()
    e_NFE, _ = embedding(x)
    for n in range(7):
        expected = []
        for at, linear in zip((0, 4, 8), embedding.blocks[0], strict=True):
            expected.append(linear.weight @ ((x["audio"][n] - mean) / 3)[at : at + 4] + linear.bias)
        expected.append(embedding.blocks[1][0](x["text"][n]))
        for name, table in zip(VOCAB, embedding.categories, strict=True):
            codes = [int(code) for code in x[name][n] if code > 0]
            expected.append(torch.stack([table.weight[code] for code in codes]).mean(dim=0))
        torch.testing.assert_close(e_NFE[n], torch.stack(expected), rtol=1e-4, atol=1e-5)


def identity(width: int, dropout: float = 0.0) -> FieldEmbedding:
    """Shows what goes into the linear map: one dense field, one block, and the map is the identity."""
    embedding = FieldEmbedding({"audio": width}, {}, width, width, dropout)
    linear: Any = embedding.blocks[0][0]  # type: ignore[index]
    torch.nn.init.eye_(linear.weight), torch.nn.init.zeros_(linear.bias)
    return embedding


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("width", [WIDE, 20, 64])
def test_a_wide_field_counts_by_its_direction_from_the_centre(width: int, scale: float) -> None:
    embedding, x = identity(width), torch.randn(6, width) * torch.logspace(-2, 2, 6)[:, None]
    mean = torch.randn(width)
    embedding.standardise("audio", mean * scale, 0.7 * scale)
    e_NFE, _ = embedding({"audio": (x + mean) * scale})
    torch.testing.assert_close(e_NFE.norm(dim=2), torch.full((6, 1), LENGTH), rtol=1e-4, atol=1e-4)
    turned = torch.nn.functional.cosine_similarity(e_NFE[:, 0], x)
    torch.testing.assert_close(turned, torch.ones(6), rtol=1e-3, atol=1e-3)


def test_a_narrow_field_keeps_its_size() -> None:
    embedding, x = identity(WIDE - 1), torch.randn(6, WIDE - 1) * torch.logspace(-2, 2, 6)[:, None]
    mean = torch.randn(WIDE - 1)
    embedding.standardise("audio", mean, 0.7)
    torch.testing.assert_close(embedding({"audio": x})[0][:, 0], (x - mean) / 0.7)


def test_one_length_holds_for_the_whole_field_not_for_its_blocks() -> None:
    torch.manual_seed(0)
    embedding = FieldEmbedding({"audio": 20}, {}, 8, 8)
    for linear in embedding.blocks[0]:  # type: ignore[union-attr]
        torch.nn.init.eye_(linear.weight), torch.nn.init.zeros_(linear.bias)
    x = torch.randn(5, 20)
    x[:, 8:16] = 0
    e_NFE, _ = embedding({"audio": x})
    torch.testing.assert_close(e_NFE.square().sum(dim=(1, 2)), torch.full((5,), LENGTH**2), rtol=1e-4, atol=1e-3)
    assert (e_NFE[:, 1] == 0).all(), "an empty block stays empty"


def test_a_wide_row_at_the_centre_and_a_missing_one_stay_finite() -> None:
    """At the centre there is no direction: zero, but there; a missing row is zero and absent."""
    embedding, mean = identity(20), torch.randn(20)
    embedding.standardise("audio", mean, 2.0)
    x = torch.stack([mean, torch.full((20,), torch.nan), torch.zeros(20)]).requires_grad_()
    e_NFE, present_NF = embedding({"audio": x})
    assert present_NF[:, 0].tolist() == [True, False, True]
    assert (e_NFE[:2] == 0).all() and float(e_NFE[2].detach().norm()) == pytest.approx(LENGTH)
    e_NFE.square().sum().backward()
    linear: Any = embedding.blocks[0][0]  # type: ignore[index]
    assert torch.isfinite(linear.weight.grad).all()


def test_input_dropout_is_of_single_numbers_and_only_in_training() -> None:
    embedding, x = identity(20, dropout=0.3), torch.randn(2000, 20)
    plain = embedding.eval()({"audio": x})[0][:, 0]
    assert torch.equal(plain, identity(20)({"audio": x})[0][:, 0]), "none when it predicts"
    torch.manual_seed(0)
    got = embedding.train()({"audio": x})[0][:, 0]
    hidden = got == 0
    assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(got[~hidden], plain[~hidden] / 0.7)
    share = hidden.float().mean(dim=1)
    assert float(share.std()) == pytest.approx(math.sqrt(0.3 * 0.7 / 20), rel=0.1), "numbers, not songs or features"
    none = SongEncoder({"audio": 20}, {}, field_dim=4, hidden=8, dim=3, dropout=0.0).train()
    assert torch.equal(none({"audio": x}), none({"audio": x})), "off by default"


def test_dropout_spares_categories() -> None:
    embedding = FieldEmbedding({"audio": 10}, {"genres": 6}, 8, 4, dropout=0.9).train()
    x = fields()
    assert torch.equal(embedding(x)[0][:, -1], embedding.eval()(x)[0][:, -1])


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


def test_encode_is_content_and_finish(model: SongEncoder) -> None:
    e_NFE, present_NF = model.embedding(fields())
    vector_ND, bias_N = model.content(e_NFE, present_NF)
    assert vector_ND.shape == (7, 5) and bias_N.shape == (7,)
    assert float(vector_ND.detach().norm(dim=1).std()) > 0.01, "content has a free length"
    assert torch.equal(model.encode(e_NFE, present_NF), model.finish(vector_ND))
    assert torch.equal(model(fields()), model.finish(vector_ND))
    torch.testing.assert_close(
        model.finish(vector_ND), 4 * vector_ND / vector_ND.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6
    )
    free = SongEncoder(DENSE, VOCAB, field_dim=8, hidden=16, dim=5, dropout=0.0, block=4, normalise=False)
    assert torch.equal(free.finish(vector_ND), vector_ND)


def test_content_is_a_linear_part_and_a_deep_one(model: SongEncoder) -> None:
    e_NFE, present_NF = model.embedding(fields())
    present_NF[:, 2] = False
    x_N = torch.stack(
        [torch.cat([e_NFE[n, f] if present_NF[n, f] else model.absent_FE[f] for f in range(6)]) for n in range(7)]
    )
    assert model.trunk is not None
    deep = x_N @ model.trunk[0].weight.T + model.trunk[0].bias
    for layer in (model.trunk[3], model.trunk[5]):
        deep = torch.nn.functional.gelu(deep) @ layer.weight.T + layer.bias
    expected = x_N @ model.skip.weight.T + model.skip.bias + deep
    torch.testing.assert_close(model.content(e_NFE, present_NF)[0], expected, rtol=1e-4, atol=1e-5)


def test_without_hidden_layers_f_is_linear_up_to_its_length() -> None:
    """f(a + b) + f(0) = f(a) + f(b) before `finish`; with a trunk it is not."""
    shown, a, b = torch.ones(9, 6, dtype=torch.bool), torch.randn(9, 6, 8), torch.randn(9, 6, 8)
    for hidden, linear in ((0, True), (16, False)):
        torch.manual_seed(0)
        model = SongEncoder(DENSE, VOCAB, field_dim=8, hidden=hidden, dim=5, dropout=0.5, block=4).eval()
        one, two, both, none = (model.content(e, shown)[0] for e in (a, b, a + b, torch.zeros_like(a)))
        assert torch.allclose(both + none, one + two, rtol=1e-4, atol=1e-5) is linear
    assert SongEncoder(DENSE, VOCAB, hidden=0).trunk is None


def test_item_bias_is_zero_at_first_and_learns_from_content(model: SongEncoder) -> None:
    e_NFE, present_NF = model.embedding(fields())
    bias_N = model.content(e_NFE, present_NF)[1]
    assert (bias_N == 0).all()
    bias_N.sum().backward()
    assert model.item_bias.weight.grad is not None and (model.item_bias.weight.grad != 0).any()
    torch.nn.init.normal_(model.item_bias.weight)
    hidden = present_NF.clone()
    hidden[:, 3] = False
    assert not torch.allclose(model.content(e_NFE, present_NF)[1], model.content(e_NFE, hidden)[1])
    before = model(fields())
    torch.nn.init.normal_(model.item_bias.weight)
    assert torch.equal(model(fields()), before), "the item bias is no part of the vector"


def test_an_unknown_value_is_not_no_value(model: SongEncoder) -> None:
    """Both embed as zero at first; but a song with an unknown genre has a genre, one without has `absent`."""
    x = fields()
    x["genres"][0], x["genres"][1] = torch.tensor([1, 0, 0]), 0
    e_NFE, present_NF = model.embedding(x)
    genres = model.embedding.names.index("genres")
    assert (e_NFE[:2, genres] == 0).all() and present_NF[:2, genres].tolist() == [True, False]
    for value in x.values():
        value[1] = value[0]
    x["genres"][1] = 0
    known, none = model(x)[:2]
    assert not torch.allclose(known, none)
    torch.nn.init.zeros_(model.absent_FE)
    torch.testing.assert_close(*model(x)[:2])


def test_no_field_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one field"):
        FieldEmbedding({}, {}, 4, 4)


def test_statistics_travel_in_the_weights(model: SongEncoder) -> None:
    model.embedding.standardise("audio", torch.arange(10.0), 3.0)
    other = SongEncoder(DENSE, VOCAB, field_dim=8, hidden=16, dim=5, dropout=0.0, block=4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(fields()), model(fields()))


def test_every_wide_field_has_the_same_length_however_wide() -> None:
    embedding = FieldEmbedding({"a": 20, "b": 64}, {}, 64, 64)
    for blocks in embedding.blocks:
        torch.nn.init.eye_(blocks[0].weight), torch.nn.init.zeros_(blocks[0].bias)  # type: ignore[index]
    e_NFE, _ = embedding({"a": torch.randn(5, 20), "b": 100 * torch.randn(5, 64)})
    torch.testing.assert_close(e_NFE.norm(dim=2), torch.full((5, 2), LENGTH))


def test_blocks_of_one_field_share_its_number() -> None:
    embedding = FieldEmbedding({"a": 20, "b": 5, "c": 8}, {"genres": 4, "language": 3}, 6, 8)
    assert embedding.field_of == [0, 0, 0, 1, 2, 3, 4] and len(embedding.names) == 7
