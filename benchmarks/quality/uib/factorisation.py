"""Matrix factorisation on ids, as the interest-boundary paper has it: BPR, BCE, and BPR with a boundary.

Published as *Learning Explicit User Interest Boundary for Recommendation* (Zhuo et al., WWW 2022): s(u, i) = ⟨p_u, q_i⟩
and a boundary b_u = ⟨w, p_u⟩, uniform negatives. Regularised by dropout on the vectors, as there, or by their squared
length.

Shapes: U users, I items, D vector size, B plays of a batch, M negatives of a play.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.towers import Judge
from data.arrays import IntArray

Loss = Literal["bpr", "boundary", "bce"]


@dataclass
class Settings:
    """How one row is trained: negatives weigh α (boundary, bce); `l2` weighs the vectors' squared length."""

    loss: Loss
    alpha: float = 1.0
    l2: float = 0.0
    dropout: float = 0.0
    lr: float = 5e-3
    dim: int = 32
    negatives: int = 32
    batch_size: int = 1024
    epochs: int = 300
    every: int = 5  # epochs between two looks at validation
    patience: int = 3  # looks without a better one


class MatrixFactorisation(nn.Module):
    """p_u, q_i and w."""

    def __init__(self, n_users: int, n_items: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(n_users, dim), nn.Embedding(n_items, dim)
        self.boundary = nn.Linear(dim, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.boundary.weight)

    def forward(self, user_B: Tensor, item_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, M), boundaries (B, 1), and the squared length of what they are made of, a mean over negatives."""
        p_BD, q_BMD = self.user(user_B), self.item(item_BM)
        u_BD = self.dropout(p_BD)
        length_BM = q_BMD.square().sum(dim=2)
        length = p_BD.square().sum() + length_BM[:, 0].sum() + length_BM[:, 1:].mean(dim=1).sum()
        return torch.einsum("bd,bmd->bm", u_BD, self.dropout(q_BMD)), self.boundary(u_BD), length


def loss_of(loss: Loss, alpha: float, score_BM: Tensor, boundary_B1: Tensor) -> Tensor:
    """Sum over plays; the first score is the positive's, negatives count by their mean."""
    positive_B1, negative_BM = score_BM[:, :1], score_BM[:, 1:]
    if loss == "bpr":
        return F.softplus(negative_BM - positive_B1).mean(dim=1).sum()
    at_B1 = boundary_B1 if loss == "boundary" else torch.zeros_like(boundary_B1)
    negatives_B = F.softplus(negative_BM - at_B1).mean(dim=1)
    return (F.softplus(at_B1 - positive_B1).squeeze(1) + alpha * negatives_B).sum()


def train(train_N2: IntArray, n_users: int, n_items: int, settings: Settings, judge: Judge, seed: int) -> Any:
    """Train on (user, item) rows; what `judge` kept of the epoch it valued most (`benchmarks.quality.towers`)."""
    torch.manual_seed(seed)
    model = MatrixFactorisation(n_users, n_items, settings.dim, settings.dropout)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.lr)
    plays, best, kept, since = torch.from_numpy(train_N2), -np.inf, None, 0
    for epoch in range(settings.epochs):
        model.train()
        for rows in torch.randperm(len(plays)).split(settings.batch_size):
            user_B, item_B = plays[rows].T
            drawn_BM = torch.randint(n_items, (len(rows), settings.negatives))
            score_BM, boundary_B1, length = model(user_B, torch.cat([item_B[:, None], drawn_BM], dim=1))
            loss = loss_of(settings.loss, settings.alpha, score_BM, boundary_B1) + settings.l2 * length
            optimiser.zero_grad()
            (loss / settings.batch_size).backward()
            optimiser.step()
        if (epoch + 1) % settings.every == 0:
            model.eval()
            with torch.no_grad():
                p_UD = model.user.weight
                boundary_U = model.boundary(p_UD).squeeze(1)
                value, found = judge(model.item.weight.numpy(), p_UD.numpy(), boundary_U.numpy())
            since += 1
            if value > best:
                best, kept, since = value, found, 0
            if since >= settings.patience:
                break
    return kept
