"""The song encoder's training step: every option gives a loss and a gradient to all that learns, and the parts add up
to what the article says."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from configs.training import I2IConfig
from datamodules.i2i import I2IDataModule
from inference.vectors import boundary_vectors, encode_songs
from lightning_modules.i2i import I2IModule
from models.views import draw_groups
from objectives.contrastive import info_nce
from objectives.ranking import bpr_loss, listening_loss, sampled_softmax_loss
from tests.conftest import module_options

SMALL = module_options(
    I2IConfig, block=4, field_dim=5, hidden=8, dim=6, dropout=0.0, input_dropout=0.0, pair_weight=1.0
)
PARTS = ("pair_weight", "listening_weight", "bcl_weight")


@pytest.fixture(scope="module")
def data(catalogue_folder: Path) -> I2IDataModule:
    sizes: dict[str, Any] = {"batch_size": 32, "bcl_batch_size": 16, "negatives": 24, "users": 12, "candidates": 20}
    return I2IDataModule(str(catalogue_folder), in_batch=True, history=6, **sizes)


def make(data: I2IDataModule, **options: Any) -> I2IModule:
    """A module as after some training: residual embeddings, item bias and `absent` are not zero any more."""
    torch.manual_seed(0)
    options = {"residual_size": data.residual_size} | SMALL | options
    module = I2IModule(data.fields.dense_dims, data.fields.vocab_sizes, **options)
    module.log = module.log_dict = lambda *a, **k: None  # type: ignore[method-assign,assignment]
    for name, (mean, scale) in data.dense_statistics().items():
        module.model.embedding.standardise(name, mean, scale)
    with torch.no_grad():
        for parameter in (module.model.absent_FE, module.model.item_bias.weight):
            torch.nn.init.normal_(parameter)
        if module.residual is not None:
            module.residual.weight[1:].normal_()
    return module


def batch_of(data: I2IDataModule) -> dict[str, Any]:
    return next(iter(data.train_dataloader()))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"pair_loss": "softmax"},
    {"in_batch": True},
    {"pair_loss": "softmax", "in_batch": True},
    *({part: 0.0} for part in PARTS),
    *({part: 0.0 for part in PARTS if part != alone} for alone in PARTS),
    {"field_dropout": 0.5},
    {"residual_size": 0},
    {"normalise": False},
    {"normalise": False, "pair_weight": 0.0, "bcl_weight": 0.0},
    {"contrastive_head": False},
    {"item_bias": False},
    {"hidden": 0},
    {"input_dropout": 0.5},
    {"views": "anchored"},
    {"cut_fields": True},
    *({"grouping": grouping} for grouping in ("none", "random")),
    *({"augment": augment} for augment in ("mask", "noise", "embedding")),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_gives_a_loss_and_a_gradient_to_all_that_learns(
    data: I2IDataModule, options: dict[str, Any]
) -> None:
    """Distributed training refuses a parameter without a gradient."""
    module = make(data, **options)
    loss = module.training_step(batch_of(data), 0)
    assert torch.isfinite(loss) and loss > 0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())
    idle = {key for key, p in module.named_parameters() if p.grad is None}
    assert idle == {key for key, p in module.named_parameters() if not p.requires_grad}
    on, expected = SMALL | options, set()
    if on["bcl_weight"] == 0 or not on["contrastive_head"]:
        expected |= {key for key, _ in module.named_parameters() if key.startswith("model.head")}
    if on["listening_weight"] == 0 or not on["item_bias"]:
        expected |= {"model.item_bias.weight", "model.item_bias.bias"}
    if on["listening_weight"] == 0:
        expected |= {"logit_scale"}
        expected |= {"residual.weight"} if on["pair_weight"] == 0 else set()
    assert idle == expected, "what learns nothing is frozen, and nothing else"


@pytest.mark.parametrize("pair_loss", ["bpr", "softmax"])
def test_one_of_everything_is_enough(catalogue_folder: Path, pair_loss: str) -> None:
    """One pair, one negative, one user, one view; also where the only negative is the pair's own song."""
    sizes: dict[str, Any] = {"batch_size": 1, "bcl_batch_size": 1, "negatives": 1, "users": 1, "candidates": 1}
    data = I2IDataModule(str(catalogue_folder), **sizes)
    module, hit = make(data, pair_loss=pair_loss), False
    for batch in itertools.islice(iter(data.train_dataloader()), 60):
        module.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.requires_grad)  # type: ignore[arg-type]
        if int(batch["negatives"]) in (int(batch["source"]), int(batch["target"])):
            hit = True
            vectors, _ = module.model.content(*module.model.embedding(batch["fields"]))
            assert float(module.pair_loss(batch, vectors).detach()) == 0.0
    assert hit


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_without_histories_and_residuals_it_is_the_articles_loss(data: I2IDataModule, weight: float) -> None:
    """BPR of f(source), f(target), f(negatives) + λ · InfoNCE of g(f(view)), by hand from the pieces."""
    options: dict[str, Any] = {"residual_size": 0, "listening_weight": 0.0, "bcl_weight": weight}
    module = make(data, **options, grouping="none", augment="noise", noise_std=0.0, temperature=0.2)
    batch = batch_of(data)
    f = lambda songs: module.model(data.fields.gather(np.asarray(songs)))  # noqa: E731
    source, target, drawn = (batch[key] for key in ("source", "target", "negatives"))
    keep = torch.tensor([[n not in (s, t) for n in drawn] for s, t in zip(source, target, strict=True)])
    expected = bpr_loss(f(source), f(target), f(drawn), keep)
    if weight:
        z_ND = module.model.head(f(batch["drawn_ids"]))  # both views see all, and no noise
        has = torch.tensor([song != 8 for song in batch["drawn_ids"].tolist()])
        expected = expected + weight * info_nce(z_ND, z_ND, 0.2, batch["drawn_ids"], has)
    torch.testing.assert_close(module.training_step(batch, 0), expected, rtol=1e-4, atol=1e-5)
    assert not keep.all(), "a drawn song is one of the pair, else this could not fail"


def test_anchored_views_are_compared_with_the_whole_song(data: I2IDataModule) -> None:
    """Each group's view with f of all features, by hand: neither masks nor noise."""
    module = make(data, views="anchored", augment="noise", noise_std=0.0, temperature=0.2)
    songs = data.warm[:12]
    fields, ids = data.fields.gather(songs), torch.from_numpy(songs)
    e_NFE, present_NF = module.model.embedding(fields)
    losses = []
    for group_G in draw_groups(module.correlation, "correlation", torch.Generator().manual_seed(7)):
        shown_NF = present_NF & group_G[module.feature_of]
        z1_ND, z2_ND = (module.model.head(module.model.encode(e_NFE, shown)) for shown in (shown_NF, present_NF))
        losses.append(info_nce(z1_ND, z2_ND, 0.2, ids, shown_NF.any(dim=1)))
    drawn = {"drawn": torch.arange(12), "drawn_ids": ids, "views_seed": 7}
    found, _ = module.contrastive_loss(drawn, e_NFE, present_NF, module.model.content(e_NFE, present_NF)[0])
    torch.testing.assert_close(found, torch.stack(losses).mean())


def with_residual(module: I2IModule, fields: dict[str, Tensor], codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f(x) + residual as found, f(x) as it asks, and the item bias."""
    content, bias = module.model.content(*module.model.embedding(fields))
    assert module.residual is not None
    return module.model.finish(content + module.residual.weight[codes]), module.model.finish(content), bias


def of_songs(data: I2IDataModule, songs: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Fields and residual codes of songs."""
    return data.fields.gather(np.asarray(songs)), torch.from_numpy(data.residual_codes[np.asarray(songs)])


@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("pair_loss", ["bpr", "softmax"])
def test_pairs_ask_by_content_and_find_by_residual(data: I2IDataModule, pair_loss: str, in_batch: bool) -> None:
    options: dict[str, Any] = {"listening_weight": 0.0, "bcl_weight": 0.0, "pair_weight": 0.5}
    module, batch = make(data, **options, pair_loss=pair_loss, in_batch=in_batch), batch_of(data)
    source, target, drawn = (batch[key].tolist() for key in ("source", "target", "negatives"))
    others = target + drawn if in_batch else drawn
    keep = torch.tensor([[n not in (s, t) for n in others] for s, t in zip(source, target, strict=True)])
    query, positive, negative = (
        with_residual(module, *of_songs(data, songs))[at] for songs, at in ((source, 1), (target, 0), (others, 0))
    )
    if pair_loss == "bpr":
        expected = bpr_loss(query, positive, negative, keep)
    else:
        log_q = dict(zip(target + drawn, batch["log_q"].tolist(), strict=True))
        corrections = (torch.tensor([log_q[song] for song in songs]) for songs in (target, others))
        expected = sampled_softmax_loss(query, positive, negative, keep, *corrections)
    torch.testing.assert_close(module.training_step(batch, 0), 0.5 * expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("item_bias", [False, True])
def test_histories_by_hand(data: I2IDataModule, item_bias: bool) -> None:
    """User by user: the heard songs' vectors, weighed by strength, against every song's content."""
    options: dict[str, Any] = {"pair_weight": 0.0, "bcl_weight": 0.0, "listening_weight": 0.7}
    module, step = make(data, **options, item_bias=item_bias, listening_temperature=0.25), batch_of(data)
    batch = step["listening"]
    fields = {name: x[batch["at"]] for name, x in step["fields"].items()}
    found, asks, bias = with_residual(module, fields, batch["residual"])
    logits = torch.empty(12, len(bias))
    for b in range(12):
        user = sum((w * v for w, v in zip(batch["heard"][b], found, strict=True)), torch.zeros(6))
        for s in range(len(bias)):
            cosine = user @ asks[s] / (user.norm() * asks[s].norm())
            logits[b, s] = cosine / 0.25 - batch["log_q"][s] + (bias[s] if item_bias else 0.0)
    expected = 0.7 * listening_loss(logits, batch["wanted"], batch["heard"] > 0, 1.0)
    torch.testing.assert_close(module.training_step(step, 0), expected, rtol=1e-4, atol=1e-5)
    assert float(bias.detach().std()) > 0.1 and float(batch["log_q"].std()) > 0.05


def test_the_parts_add_up(data: I2IDataModule) -> None:
    """With their weights, and no part changes another."""
    batch, weights = batch_of(data), {"pair_weight": 0.5, "listening_weight": 0.7, "bcl_weight": 0.3}
    views: dict[str, Any] = {"grouping": "none", "augment": "noise", "noise_std": 0.0}
    parts = []
    for name, weight in weights.items():
        module = make(data, **dict.fromkeys(weights, 0.0) | {name: weight}, **views)
        parts.append(module.training_step(batch, 0))
    torch.testing.assert_close(make(data, **weights, **views).training_step(batch, 0), torch.stack(parts).sum())


def test_residuals_are_nothing_at_first_and_nothing_for_a_song_without_a_play(data: I2IDataModule) -> None:
    torch.manual_seed(0)
    fresh = I2IModule(data.fields.dense_dims, data.fields.vocab_sizes, data.residual_size, **SMALL)
    fields, codes = of_songs(data, np.arange(60))
    batch = {"id": torch.arange(60), "fields": fields, "residual": codes}
    assert torch.equal(fresh.predict_step(batch, 0)["vector"], fresh.model(fields))
    module = make(data)
    predicted, (found, _, bias) = module.predict_step(batch, 0), with_residual(module, fields, codes)
    torch.testing.assert_close(predicted["vector"], found)
    assert torch.equal(module.validation_step(batch, 0)["vector"], predicted["vector"])
    assert torch.equal(predicted["item_bias"], bias)
    differs = (module.predict_step(batch, 0)["vector"] - module.model(fields)).abs().amax(dim=1) > 1e-4
    assert differs.tolist() == (codes > 0).tolist()
    assert module.residual is not None
    module.training_step(batch_of(data), 0).backward()
    assert module.residual.weight.grad is not None and (module.residual.weight.grad[0] == 0).all()


def test_the_temperature_learns_and_is_bounded(data: I2IDataModule) -> None:
    """exp(logit_scale) starts at 1 / temperature and is held below e^4.6 ≈ 99.5."""
    module, batch = make(data, listening_temperature=0.25), batch_of(data)
    assert float(module.logit_scale.detach().exp()) == pytest.approx(4.0)
    with torch.no_grad():
        module.logit_scale.fill_(4.6)
        content = module.model.content(*module.model.embedding(batch["fields"]))
        at_bound = module.listening_loss(batch["listening"], *content)
        module.logit_scale.fill_(9.0)
        assert torch.equal(module.listening_loss(batch["listening"], *content), at_bound)


@pytest.mark.parametrize("options", [{}, {"views": "anchored"}, {"bcl_weight": 0.0}], ids=str)
def test_a_song_is_encoded_once_a_batch(
    catalogue_folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Pairs, negatives, histories and the whole song beside its views share one pass; views have their own."""
    sizes: dict[str, Any] = {"batch_size": 8, "bcl_batch_size": 16, "negatives": 8, "users": 2, "candidates": 4}
    data = I2IDataModule(str(catalogue_folder), history=4, **sizes)
    module, batch = make(data, **options), batch_of(data)
    embedding, content, seen = module.model.embedding.forward, module.model.content, []
    embedded = []
    monkeypatch.setattr(
        module.model.embedding, "forward", lambda f: (embedded.append(len(f["content"])), embedding(f))[1]
    )
    monkeypatch.setattr(module.model, "content", lambda e, shown: (seen.append(len(e)), content(e, shown))[1])
    module.training_step(batch, 0)
    pairs = {song for key in ("source", "target", "negatives") for song in batch[key].tolist()}
    drawn = set(batch["drawn_ids"].tolist())
    assert len(pairs | drawn) <= embedded[0] == len(batch["fields"]["content"]) <= len(data.warm) and len(embedded) == 1
    whole = embedded[0] if options.get("views") == "anchored" else batch["whole"]
    assert seen == ([whole] if options.get("bcl_weight") == 0 else [whole, 16, 16]) and batch["whole"] < embedded[0]


def test_a_songs_residual_takes_larger_steps(data: I2IDataModule) -> None:
    module = make(data, lr=0.01, residual_lr_scale=5.0)
    module._trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()  # type: ignore[assignment]
    groups = module.configure_optimizers()["optimizer"].param_groups
    peak = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    assert module.residual is not None
    assert peak[id(module.residual.weight)] == pytest.approx(0.05)
    assert {rate for key, rate in peak.items() if key != id(module.residual.weight)} == {0.01}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(module.residual.weight)] == 0, "a step sees few songs; the others must not shrink meanwhile"
    assert decay[id(module.model.skip.weight)] == 0.01


def test_a_sparse_residual_has_the_loss_and_the_gradient_of_a_dense_one(data: I2IDataModule) -> None:
    dense, sparse, batch = make(data), make(data, sparse_residual=True), batch_of(data)
    losses = []
    for module in (dense, sparse):
        torch.manual_seed(1)  # of the views' noise
        losses.append(module.training_step(batch, 0))
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for (name, one), other in zip(dense.named_parameters(), sparse.parameters(), strict=True):
        if one.grad is not None and other.grad is not None:
            assert other.grad.is_sparse == (name == "residual.weight")
            torch.testing.assert_close(other.grad.to_dense(), one.grad)


def test_a_run_with_a_sparse_residual_is_read_as_any_other(train_i2i: Callable[..., Path], tmp_path: Path) -> None:
    """Its songs have their vectors; the checkpoint keeps a number a row beside the table."""
    whole = train_i2i(tmp_path / "whole", "model.sparse_residual=true")
    run, vectors = encode_songs(whole)
    residual = run.weights["residual.weight"]
    assert float(residual.abs().max()) > 1e-3 and not residual[0].any() and np.isfinite(vectors["vector"]).all()
    state = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert [len(one["sum"]) for one in state.values() if "sum" in one] == [len(residual)]
    assert json.loads((whole / "manifest.json").read_text())["best"]["val/audience"] > 0.1


def test_a_run_of_before_its_options_were_renamed_is_refused_in_one_line(
    i2i_run: Path, boundary_run: Path, tmp_path: Path
) -> None:
    for run, vectors in ((i2i_run, encode_songs), (boundary_run, lambda run: boundary_vectors(run, np.arange(3)))):
        old = Path(shutil.copytree(run, tmp_path / run.name))
        path = old / "checkpoints" / "best.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        for part in ("state_dict", "hyper_parameters"):
            checkpoint[part] = {
                key.replace("item_bias.", "appeal_of.").replace("residual", "memory"): value
                for key, value in checkpoint[part].items()
            }
        torch.save(checkpoint, path)
        with pytest.raises(
            UserError, match=r"the checkpoint cannot be used here: .*(residual_size|loading state_dict)"
        ) as caught:
            vectors(old)  # type: ignore[operator]
        assert "\n" not in str(caught.value)


def test_hidden_fields_are_hidden_in_training_alone(data: I2IDataModule) -> None:
    """A loss with hidden fields differs from one without, draws anew each time, and never touches predictions."""
    options: dict[str, Any] = {"bcl_weight": 0.0}
    plain, hiding, batch = make(data, **options), make(data, **options, field_dropout=0.5), batch_of(data)
    torch.manual_seed(1)
    losses = [hiding.training_step(batch, 0).item() for _ in range(3)]
    assert len(set(losses)) == 3 and plain.training_step(batch, 0).item() not in losses
    assert plain.training_step(batch, 0).item() == plain.training_step(batch, 0).item()
    (songs,) = data.songs_loader(np.arange(60))
    assert torch.equal(hiding.predict_step(songs, 0)["vector"], plain.predict_step(songs, 0)["vector"])
