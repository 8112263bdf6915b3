"""The neural ranker's loss against a loop, and what it does not count."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.conditional import conditional_loss


def samples() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    logit = torch.randn(60, 3, generator=g).double().requires_grad_()
    label = (torch.rand(60, 3, generator=g) < 0.5).double()
    label[:, 1:][torch.rand(60, 2, generator=g) < 0.3] = torch.nan
    return logit, label


def test_against_a_loop() -> None:
    logit, label = samples()
    total = 0.0
    for z, y in zip(logit.tolist(), label.tolist(), strict=True):
        for head in range(3):
            if head == 0 or (y[0] == 1 and not math.isnan(y[head])):
                p = 1 / (1 + math.exp(-z[head]))
                total -= math.log(p if y[head] == 1 else 1 - p)
    assert float(conditional_loss(logit, label)) == pytest.approx(total / 60)


def test_heads_learn_from_known_labels_of_plays_alone() -> None:
    logit, label = samples()
    conditional_loss(logit, label).backward()
    assert logit.grad is not None
    counted = torch.isfinite(label) & torch.cat([torch.ones(60, 1), label[:, :1], label[:, :1]], dim=1).bool()
    assert 0 < counted[:, 1].sum() < 60 and torch.equal(logit.grad != 0, counted)


def test_without_a_play_the_other_heads_have_no_gradient() -> None:
    logit, label = samples()
    label[:, 0] = 0
    conditional_loss(logit, label).backward()
    assert logit.grad is not None and not logit.grad[:, 1:].any() and logit.grad[:, 0].all()
