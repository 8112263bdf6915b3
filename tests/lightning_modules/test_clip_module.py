"""ClipModule: its training step is the loss of its objective, of the whole batch, whatever the chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules.clip import ClipModule
from lightning_modules.optim import warmup_cosine
from objectives.contrastive import clip_loss, siglip_loss
from tests.conftest import CLIP

OPTIM = {"lr": 1e-2, "weight_decay": 0.1, "warmup": 0.1, "text_lr_scale": 0.5, "audio_lr_scale": 0.5}


def module(loss: str, micro_batch: int = 0) -> ClipModule:
    torch.manual_seed(0)
    made = ClipModule(CLIP | {"sigmoid": loss == "siglip"}, {}, micro_batch=micro_batch, **OPTIM)
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
def test_the_step_is_its_loss_without_false_negatives_whatever_the_chunk(loss: str) -> None:
    made, songs = module(loss), batch()
    vectors = made.model.embed_audio(songs["audio"]), made.model.embed_text(songs["text"])
    same = (songs["text_id"][:, None] == songs["text_id"]) | (songs["shown_id"][:, None] == songs["shown_id"])
    assert same[8, 4] and songs["text_id"][8] != songs["text_id"][4]
    given = same, songs["has_audio"], songs["has_text"]
    of_siglip = siglip_loss(*vectors, 1 / 0.07, -10.0, *given)
    expected = clip_loss(*vectors, 1 / 0.07, *given) if loss == "infonce" else of_siglip
    gradients = []
    for one in (made, module(loss, micro_batch=4)):
        value = one.training_step(songs, 0)
        torch.testing.assert_close(value, expected)
        value.backward()
        gradients.append({name: p.grad for name, p in one.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    assert ("model.bias" in made.state_dict()) == (loss == "siglip")


def test_optimizer_groups_and_schedule() -> None:
    made: Any = module("infonce")
    made._trainer = type("Trainer", (), {"estimated_stepping_batches": 100})()
    made.model.text_encoder = torch.nn.Linear(2, 2)  # one that is trained
    groups = made.configure_optimizers()["optimizer"].param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
    for group in groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    slow = [group for group in groups if group["initial_lr"] == pytest.approx(5e-3)]
    assert {id(p) for group in slow for p in group["params"]} == {id(p) for p in made.model.text_encoder.parameters()}
    factors = [warmup_cosine(step, 10, 100) for step in range(101)]
    assert factors[:11] == sorted(factors[:11]) and max(factors) == 1.0 and factors[100] == pytest.approx(0, abs=1e-9)
    assert factors[10:] == sorted(factors[10:], reverse=True)
