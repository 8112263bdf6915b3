"""From samples to frames: the stored formula, whatever else is in the batch, and what training changes."""

from __future__ import annotations

import numpy as np
import torch

from data.audio.recordings import as_int16, log_mel
from models.audio_front import AudioFront, augment_wave
from models.log_mel import LogMel

FRONT = {"sample_rate": 16000, "n_mels": 64, "win_length": 800, "hop_length": 320}


def crops(lengths: list[int], longest: int = 16000) -> dict[str, torch.Tensor]:
    """Noise of different lengths, zero after them."""
    rng = np.random.default_rng(0)
    samples = np.zeros((len(lengths), longest), dtype=np.int16)
    for row, length in enumerate(lengths):
        samples[row, :length] = as_int16(rng.normal(0, 0.1, length).astype(np.float32))
    return {"samples": torch.from_numpy(samples), "length": torch.tensor(lengths)}


def test_samples_become_the_frames_that_are_stored() -> None:
    """A crop of samples is heard as log-mel frames from disk would be, but for its ends."""
    given = crops([16000, 9600, 0])
    frames, count = AudioFront(**FRONT).eval()(given)
    assert frames.shape == (3, 51, 64) and count.tolist() == [51, 31, 0]
    for row, length in enumerate([16000, 9600]):
        wave = given["samples"][row, :length].numpy().astype(np.float32) / 32768
        expected = log_mel(wave, *FRONT.values())
        inside = len(expected) - 2  # the last windows reach beyond the end: reflected there, padding here
        np.testing.assert_allclose(frames[row, :inside], expected[:inside], atol=1e-4)


def test_frames_do_not_depend_on_the_batch_nor_on_padding() -> None:
    front, given = AudioFront(**FRONT, gain_db=6, noise_db=10, freq_mask=8, time_mask=20).eval(), crops([8000, 12000])
    whole, _ = front(given)
    alone, _ = front({name: values[:1] for name, values in given.items()})
    shorter, count = front({"samples": given["samples"][:1, :10000], "length": given["length"][:1]})
    assert torch.equal(front(given)[0], whole), "nothing is augmented in evaluation"
    torch.testing.assert_close(alone[0], whole[0])
    torch.testing.assert_close(shorter[0, : count[0]], whole[0, : count[0]])


def test_log_mel_keeps_full_precision_under_autocast_and_out_of_checkpoints() -> None:
    made, wave = LogMel(**FRONT), torch.randn(2, 4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(wave), LogMel(**FRONT)(wave)) and made(wave).dtype == torch.float32
    assert not made.state_dict()


def test_gain_and_noise_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    wave = torch.cat([torch.randn(400, 2000), torch.zeros(400, 1000)], dim=1)
    length = torch.full((400,), 2000)
    louder = augment_wave(wave, length, gain_db=6.0, noise_db=0.0)
    gain = 20 * torch.log10(louder[:, :2000].norm(dim=1) / wave[:, :2000].norm(dim=1))
    assert -6 <= gain.min() < -5.5 and 5.5 < gain.max() <= 6 and abs(gain.mean()) < 0.6
    torch.testing.assert_close(louder, wave * 10 ** (gain[:, None] / 20))
    noisy = augment_wave(wave, length, gain_db=0.0, noise_db=10.0)
    below = 20 * torch.log10(wave.norm(dim=1) / (noisy - wave).norm(dim=1))
    assert 9.5 < below.min() < 11.5 and 48.5 < below.max() < 50.5
    assert not noisy[:, 2000:].any() and not louder[:, 2000:].any(), "padding stays silent"
    assert torch.equal(augment_wave(wave, length, 0.0, 0.0), wave)


def test_training_augments() -> None:
    torch.manual_seed(0)
    given = crops([16000, 16000])
    plain, _ = AudioFront(**FRONT).train()(given)
    assert torch.equal(plain, AudioFront(**FRONT).eval()(given)[0])
    for options in ({"gain_db": 6.0}, {"noise_db": 10.0}, {"freq_mask": 8}):
        changed, count = AudioFront(**FRONT, **options).train()(given)  # type: ignore[arg-type]
        assert not torch.allclose(changed, plain, atol=1e-3) and count.tolist() == [51, 51]
