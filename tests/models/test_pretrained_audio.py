"""Published audio encoders: four families with tiny random weights, and musicnn with its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from models import musicnn
from models.pretrained_audio import Extractor, PretrainedAudio, audio_width

RATE = 16000
FAMILIES = ("wav2vec2", "ast", "whisper", "clap")
needs_musicnn = pytest.mark.skipif(importlib.util.find_spec("musicnn") is None, reason="make setup installs musicnn")


def small(family: str) -> tuple[Any, Any]:
    """(model, feature extractor) of a family, some thousand weights, for crops of one second."""
    heads: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "wav2vec2":
        convolutions = {"conv_dim": (8, 8, 8), "conv_stride": (5, 4, 4), "conv_kernel": (10, 8, 8)}
        sizes = heads | convolutions | {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        config: Any = hf.Wav2Vec2Config(intermediate_size=32, num_feat_extract_layers=3, **sizes)
        return hf.Wav2Vec2Model(config), hf.Wav2Vec2FeatureExtractor()
    if family == "ast":
        config = hf.ASTConfig(intermediate_size=32, max_length=128, num_mel_bins=32, **heads)
        return hf.ASTModel(config), hf.ASTFeatureExtractor(max_length=128, num_mel_bins=32)
    if family == "whisper":
        config = hf.WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1, max_source_positions=100,
        )  # fmt: skip
        return hf.WhisperModel(config), hf.WhisperFeatureExtractor(chunk_length=2)
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1] * 4, "num_attention_heads": [1, 1, 1, 2]}
    audio |= {"spec_size": 256, "window_size": 4}
    config = hf.ClapConfig(text_config={"vocab_size": 50, **heads}, audio_config=audio)
    return hf.ClapModel(config), hf.ClapFeatureExtractor(max_length_s=2, truncation="rand_trunc")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = {}
    for family in FAMILIES:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(family)
        for part in small(family):
            part.save_pretrained(folder)
        found[family] = str(folder)
    return found | {"musicnn": "musicnn"}


def noise(lengths: list[int], longest: int = RATE) -> tuple[torch.Tensor, torch.Tensor]:
    samples = torch.zeros(len(lengths), longest, dtype=torch.int16)
    generator = torch.Generator().manual_seed(0)
    for row, length in enumerate(lengths):
        samples[row, :length] = torch.randint(-9000, 9000, (length,), generator=generator).short()
    return samples, torch.tensor(lengths)


NAMES = [*FAMILIES, pytest.param("musicnn", marks=needs_musicnn)]


@pytest.mark.parametrize("name", NAMES)
def test_a_song_has_one_vector_whatever_is_beside_it(folders: dict[str, str], name: str) -> None:
    extract, encoder = Extractor(folders[name]), PretrainedAudio(folders[name])
    samples, length = noise([RATE, 9000, 0, 12000])
    with torch.inference_mode():
        vectors = encoder(extract(samples, length, RATE))
        alone = encoder(extract(samples[1:2], length[1:2], RATE))
    assert vectors.shape == (4, audio_width(folders[name])) and torch.isfinite(vectors).all()
    torch.testing.assert_close(alone[0], vectors[1], rtol=1e-3, atol=1e-4)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    assert not encoder.train().training and not any(weight.requires_grad for weight in encoder.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_training_reaches_every_weight_that_is_to_be_trained(folders: dict[str, str], name: str) -> None:
    encoder = PretrainedAudio(folders[name], frozen=False)
    encoder(Extractor(folders[name])(*noise([RATE, 9000]), RATE)).square().sum().backward()
    lacking = [name for name, weight in encoder.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not lacking, "with several devices such weights stop the training"


def test_no_layer_is_left_out_at_random(folders: dict[str, str], tmp_path: Path) -> None:
    """Each rank would leave out others, and wait for the gradients of the rest for ever."""
    for family in ("wav2vec2", "whisper"):
        model, extract = small(family)
        model.config.layerdrop = model.config.encoder_layerdrop = 0.9
        for part in (model, extract):
            part.save_pretrained(tmp_path / family)
        encoder = PretrainedAudio(str(tmp_path / family), frozen=False)
        given = Extractor(str(tmp_path / family))(*noise([RATE, 9000]), RATE)
        for _ in range(5):
            encoder.zero_grad()
            encoder(given).square().sum().backward()
            assert all(weight.grad is not None for weight in encoder.parameters() if weight.requires_grad)


@pytest.mark.parametrize("options", [{"last_layers": 1}, {"lora_rank": 2}])
def test_part_of_it_can_be_trained(folders: dict[str, str], options: dict[str, int]) -> None:
    encoder = PretrainedAudio(folders["wav2vec2"], frozen=False, **options)  # type: ignore[arg-type]
    trained = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
    assert trained and all("layers.1." in name if "last_layers" in options else "lora_" in name for name in trained)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_padding_is_not_heard(folders: dict[str, str], name: str) -> None:
    """The mean runs over what is real: a song of half the crop has a vector of its own half."""
    extract, encoder = Extractor(folders[name]), PretrainedAudio(folders[name])
    given = extract(*noise([8000]), RATE)
    tokens = encoder.encoder(**given).last_hidden_state
    n = round(float(given["attention_mask"].float().mean()) * tokens.shape[1])
    assert 0.2 < n / tokens.shape[1] < 0.55
    torch.testing.assert_close(encoder(given)[0], tokens[0, :n].mean(dim=0))


def test_other_rates_are_resampled_and_each_hears_so_much_at_once(folders: dict[str, str]) -> None:
    extract = Extractor(folders["clap"])
    heard = {name: Extractor(folders[name]).longest_seconds() for name in FAMILIES}
    assert heard == {"wav2vec2": float("inf"), "ast": pytest.approx(1.295), "whisper": 2.0, "clap": 2.0}
    assert extract.sample_rate == 48000
    time = np.arange(2 * RATE) / RATE
    tone = torch.from_numpy((8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16))[None]
    low = extract(tone, torch.tensor([2 * RATE]), RATE)["input_features"]
    fine = torch.from_numpy((8000 * np.sin(2 * np.pi * 440 * np.arange(96000) / 48000)).astype(np.int16))[None]
    high = extract(fine, torch.tensor([96000]), 48000)["input_features"]
    loud = high > high.max() - 30  # decibel
    torch.testing.assert_close(low[loud], high[loud], atol=0.5, rtol=0)


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"audio model '.*' cannot be loaded"):
        PretrainedAudio(str(tmp_path))
    with pytest.raises(ValueError, match=r"audio model '.*' cannot be loaded"):
        Extractor(str(tmp_path))


# What the authors' own code (musicnn 0.1.0 under TensorFlow 2.20) gives for `planted`: the first six of the penultimate
# layer's numbers, and their mean.
REFERENCE = [[-0.177176, 0.902387, -0.284826, -0.275121, 1.854312, 0.201908],
             [-0.177176, 3.004145, -0.284826, -0.275121, -0.109035, 2.821937]]  # fmt: skip
REFERENCE_MEAN = [0.244581, 0.404816]


@needs_musicnn
def test_musicnn_is_the_authors_network() -> None:
    time, band = np.arange(musicnn.PATCH)[:, None], np.arange(musicnn.MELS)[None]
    planted = np.stack([1 + np.sin(time / 7 + band / 11) * np.cos(band / 5), np.abs(np.sin(time * band / 300)) * 2])
    with torch.inference_mode():
        made = musicnn.load_musicnn().patches(torch.from_numpy(planted.astype(np.float32)))
    np.testing.assert_allclose(made[:, :6], REFERENCE, atol=2e-5)
    np.testing.assert_allclose(made.mean(dim=1), REFERENCE_MEAN, atol=2e-5)


def slaney(hertz: np.ndarray) -> np.ndarray:
    """Mel of Slaney's toolbox: linear up to 1 kHz, logarithmic above."""
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


@needs_musicnn
def test_musicnn_hears_librosa_s_mel() -> None:
    """Power of each bin, shared out by triangles of equal area on Slaney's scale."""
    wave = np.random.default_rng(0).normal(0, 0.1, 4000)
    padded = np.pad(wave, 256)[: 512 + 256 * 15]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    blocks = np.stack([padded[at : at + 512] * hann for at in range(256, 256 * 14, 256)])
    power = np.abs(np.fft.rfft(blocks, axis=1)) ** 2
    hertz, fine = np.arange(257) * 16000 / 512, np.linspace(0, 8000, 800001)
    edges = np.interp(np.linspace(0, slaney(np.array(8000.0)), 98), slaney(fine), fine)
    triangles = [np.interp(hertz, edges[m : m + 3], [0, 2 / (edges[m + 2] - edges[m]), 0]) for m in range(96)]
    expected = np.log10(1 + 10000 * power @ np.stack(triangles, axis=1))
    made = musicnn.load_musicnn().log_mel(torch.from_numpy(wave)[None].float())[0]
    np.testing.assert_allclose(made[1:14], expected, atol=2e-3)


@needs_musicnn
def test_musicnn_averages_whole_patches_and_repeats_short_crops() -> None:
    network = musicnn.load_musicnn()
    patch = musicnn.PATCH * musicnn.HOP
    samples, _ = noise([3 * patch], longest=3 * patch)
    wave = samples.float() / 32768
    with torch.inference_mode():
        mel = network.log_mel(wave)[0]
        three = [network.patches(mel[None, at * musicnn.PATCH : (at + 1) * musicnn.PATCH])[0] for at in range(3)]
        torch.testing.assert_close(network(wave, torch.tensor([3 * patch]))[0], torch.stack(three).mean(dim=0))
        torch.testing.assert_close(network(wave, torch.tensor([2 * patch]))[0], torch.stack(three[:2]).mean(dim=0))
        short = network(wave, torch.tensor([100 * musicnn.HOP]))[0]
        repeated = torch.cat([mel[:101], mel[: musicnn.PATCH - 101]])
        torch.testing.assert_close(short, network.patches(repeated[None])[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_in_half_precision_are_loaded_in_full(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """An encoder of such a folder hears what one of its weights in full does."""
    torch.manual_seed(0)
    model, extractor = small(family)
    found = []
    for name, saved in (("half", model.to(dtype)), ("full", model.float())):
        for part in (saved, extractor):
            part.save_pretrained(tmp_path / name)
        extract, encoder = Extractor(str(tmp_path / name)), PretrainedAudio(str(tmp_path / name))
        assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
        found.append(encoder(extract(*noise([RATE]), RATE)))
    torch.testing.assert_close(*found, rtol=0, atol=0)
