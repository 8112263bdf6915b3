"""Audio tower, text tower and CLIP model: masking, determinism, temperature, text model resolution."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models import packaged
from models.audio_encoder import AudioEncoder, spec_augment, standardise
from models.clip import ClipModel
from models.packaged import resolve_model
from models.text_encoder import TextEncoder, load_tokenizer, text_width
from tests.conftest import CLIP


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(n_mels=10, width=16, layers=2, heads=2, dropout=0.1).eval()


@pytest.mark.parametrize("frames", [1, 3, 17, 40])
def test_padding_changes_nothing(encoder: AudioEncoder, frames: int) -> None:
    x = torch.randn(1, frames, 10)
    padded = torch.cat([x, torch.full((1, 23, 10), 1e3)], dim=1)
    length = torch.tensor([frames])
    torch.testing.assert_close(encoder(padded, length), encoder(x, length), rtol=1e-4, atol=1e-5)


def test_songs_of_a_batch_do_not_touch_each_other(encoder: AudioEncoder) -> None:
    x, frames = torch.randn(3, 40, 10), torch.tensor([40, 8, 0])
    changed = x.clone()
    changed[1:] = 0.0
    torch.testing.assert_close(encoder(changed, frames)[0], encoder(x, frames)[0])
    assert torch.isfinite(encoder(x, frames)).all()  # no frame at all included


def test_standardise_has_zero_mean_and_unit_spread_over_real_frames() -> None:
    x = standardise(torch.randn(2, 30, 5) * 4 + 9, torch.tensor([30, 11]))
    for row, frames in enumerate((30, 11)):
        real = x[row, :frames]
        assert abs(real.mean().item()) < 1e-5 and real.std(correction=0).item() == pytest.approx(1, abs=1e-4)
        assert x[row, frames:].abs().sum() == 0


def test_spec_augment_hides_at_most_what_it_may() -> None:
    torch.manual_seed(0)
    x, frames = torch.randn(200, 50, 12), torch.full((200,), 50)
    out = spec_augment(x, frames, freq_mask=3, time_mask=10)
    changed = out != x
    bands, stretch = changed.all(dim=1).sum(dim=1), changed.all(dim=2).sum(dim=1)
    assert bands.max() == 3 and stretch.max() == 10 and bands.min() == 0
    assert torch.equal(spec_augment(x, frames, 0, 0), x)
    # hidden cells hold the example's mean
    torch.testing.assert_close(out[changed], x.mean(dim=(1, 2), keepdim=True).expand_as(x)[changed])


@pytest.fixture
def clip() -> ClipModel:
    torch.manual_seed(0)
    return ClipModel(**CLIP)


def test_vectors_are_unit_and_both_towers_learn(clip: ClipModel) -> None:
    audio = clip.embed_audio({"logmel": torch.randn(4, 20, 10), "frames": torch.full((4,), 20)})
    text = clip.embed_text({"pooled": torch.randn(4, 6)})
    torch.testing.assert_close(audio.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(4))
    (clip.logit_scale() * audio @ text.T)[0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in clip.parameters())


def test_temperature_is_clamped_and_can_come_back(clip: ClipModel) -> None:
    assert clip.logit_scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        clip.log_scale.fill_(9.0)
    scale = clip.logit_scale()
    scale.backward()
    assert scale.item() == pytest.approx(100, rel=1e-5) and clip.log_scale.grad is not None and clip.log_scale.grad > 0


def test_frozen_bert_is_not_in_the_checkpoint(clip: ClipModel) -> None:
    assert not any("text_encoder" in name for name in clip.state_dict())
    with pytest.raises(ValueError, match="frozen"):
        clip.embed_text({"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.ones(1, 2).long()})


def test_minilm_is_found_checked_and_pools_by_masked_mean() -> None:
    folder = Path(resolve_model("minilm"))
    assert folder.name == "model" and text_width("minilm") == 384
    encoder, tokenizer = TextEncoder("minilm"), load_tokenizer("minilm")
    assert not encoder.train().training and not any(p.requires_grad for p in encoder.parameters())
    texts = ["a sad song about rain", "melancholy music, grey sky", "invoice for office chairs"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    pooled = encoder(batch["input_ids"], batch["attention_mask"])
    alone = tokenizer(texts[:1], return_tensors="pt")
    hidden = encoder.bert(**alone).last_hidden_state
    torch.testing.assert_close(pooled[0], hidden[0].mean(dim=0), rtol=1e-4, atol=1e-5)
    near, far = torch.cosine_similarity(pooled[:1], pooled[1:])
    assert near > far + 0.2


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, lambda name: True),
        ({"last_layers": 2}, lambda name: "layer.4." in name or "layer.5." in name),
        ({"lora_rank": 4}, lambda name: "lora_" in name),
    ],
)
def test_what_of_bert_is_trained(options: dict[str, int], trained: Callable[[str], bool]) -> None:
    """At first every way of training gives the frozen model's vectors; then only what is trained changes."""
    frozen, encoder = TextEncoder("minilm"), TextEncoder("minilm", frozen=False, **options).eval()
    names = {name for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert names == {name for name, _ in encoder.named_parameters() if trained(name)} and names
    ids, mask = torch.tensor([[101, 2182, 102, 0], [101, 102, 0, 0]]), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    torch.testing.assert_close(encoder(ids, mask), frozen(ids, mask), rtol=1e-4, atol=1e-5)
    encoder(ids, mask).square().sum().backward()
    assert all((weight.grad is not None) == (name in names) for name, weight in encoder.named_parameters())
    torch.optim.SGD([weight for weight in encoder.parameters() if weight.requires_grad], lr=0.1).step()
    assert not torch.allclose(encoder(ids, mask), frozen(ids, mask), atol=1e-3)


def test_impossible_models_are_refused() -> None:
    with pytest.raises(ValueError, match="width"):
        ClipModel(**CLIP | {"audio": CLIP["audio"] | {"heads": 3}})
    with pytest.raises(ValueError, match="'minilm' has 6"):
        TextEncoder("minilm", frozen=False, last_layers=7)


def test_damaged_minilm_and_unknown_models_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "damaged_minilm"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    minilm = packaged.PACKAGED["minilm"]
    monkeypatch.setitem(packaged.PACKAGED, "minilm", minilm._replace(package="damaged_minilm"))
    resolve_model.cache_clear()
    try:
        with pytest.raises(ValueError, match="sha256"):
            resolve_model("minilm")
        monkeypatch.setitem(packaged.PACKAGED, "minilm", minilm._replace(package="no_such_package_here"))
        with pytest.raises(ValueError, match="make setup"):
            resolve_model("minilm")
    finally:
        resolve_model.cache_clear()
    shutil.rmtree(package / "model")
    with pytest.raises(ValueError, match="cannot be loaded"):
        TextEncoder(str(package))
