"""ClipModule: its training step is the loss of its objective, of the whole batch, whatever the chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules.clip import ClipModule
from objectives.contrastive import clip_loss, siglip_loss

MODEL: dict[str, Any] = {
    "front": {"n_mels": 10, "sample_rate": 16000, "win_length": 800, "hop_length": 320},
    "audio": {"model": "transformer", "dim": 0, "width": 16, "layers": 1, "heads": 2},
    "text": {"model": "minilm", "dim": 6},
    "dim": 8,
    "dropout": 0.0,
}


def module(loss: str, **options: Any) -> ClipModule:
    torch.manual_seed(0)
    made = ClipModule(MODEL | {"sigmoid": loss == "siglip"}, {}, **options)
    made.log_dict = lambda *_, **__: None  # type: ignore[assignment,method-assign]  # there is no trainer
    return made


def batch(n: int = 11) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "audio": {
            "logmel": torch.randn(n, 40, 10, generator=generator),
            "frames": torch.randint(20, 41, (n,), generator=generator),
        },
        "text": {"pooled": torch.randn(n, 6, generator=generator)},
        "id": torch.tensor([*range(n - 1), 0]),  # the last row is the first song once more
        "text_id": torch.tensor([0, 1, 2, 2, *range(4, n - 1), 0]),
        "shown_id": torch.tensor([0, 1, 2, 2, *range(4, n - 3), 4, 5, 0]),  # parts of tags may be equal by chance
        "has_audio": torch.tensor([True] * (n - 1) + [False]),
        "has_text": torch.tensor([True, False, *[True] * (n - 2)]),
    }


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_the_step_is_its_loss_without_false_negatives(loss: str) -> None:
    made, songs = module(loss), batch()
    audio = made.model.embed_audio(songs["audio"])
    text = made.model.embed_text(songs["text"])
    same = (songs["text_id"][:, None] == songs["text_id"]) | (songs["shown_id"][:, None] == songs["shown_id"])
    assert same[8, 4] and songs["text_id"][8] != songs["text_id"][4]
    present = songs["has_audio"], songs["has_text"]
    if loss == "infonce":
        expected = clip_loss(audio, text, 1 / 0.07, same, *present)
    else:
        expected = siglip_loss(audio, text, 1 / 0.07, -10.0, same, *present)
    torch.testing.assert_close(made.training_step(songs, 0), expected)
    assert ("model.bias" in made.state_dict()) == (loss == "siglip")


@pytest.mark.parametrize("loss", ["infonce", "siglip"])
def test_micro_batches_change_memory_and_nothing_else(loss: str) -> None:
    results = []
    for micro_batch in (0, 4):
        made = module(loss, micro_batch=micro_batch)
        value = made.training_step(batch(), 0)
        value.backward()
        results.append((value.detach(), {name: p.grad for name, p in made.named_parameters()}))
    (value, gradients), (other, others) = results
    torch.testing.assert_close(other, value)
    assert all(gradient is not None for gradient in gradients.values())
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-6)
