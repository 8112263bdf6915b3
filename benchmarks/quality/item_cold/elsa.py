"""ELSA on content: item-item weights of low rank, learnt from users' histories; a cold song's from its content.

ELSA (Vančura, Alves, Kasalický, Kordík, "Scalable Linear Shallow Autoencoder for Collaborative Filtering", RecSys 2022)
has a vector of length 1 for every song, the rows of A, and reads a user's plays x as ŷ = x·(AAᵀ − I). The loss of a
user is ‖x/‖x‖ − ŷ/‖ŷ‖‖². The authors train it by NAdam (github.com/recombee/ELSA); so does this.

The paper has no new songs. "On content" is ours: ridge regression predicts the row of A of a cold song from its
content, fitted on the warm songs that have a play, and the row is scaled to length 1 as all others are.

Shapes: U users, W warm songs, C cold songs, D content features, E vector size, N users of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from benchmarks.quality.item_cold.closed_form import regression
from benchmarks.quality.item_cold.neural import seeded
from data.arrays import FloatArray
from retrieval.index import unit_rows

GRIDS: dict[str, list[dict[str, Any]]] = {
    "elsa": [{"dim": dim, "ridge": ridge} for dim in (32, 128) for ridge in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)]
}


def elsa(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    seed: int = 0,
    dim: int = 128,
    ridge: float = 10.0,
    steps: int = 200,
    kept: dict[str, Any] | None = None,
) -> FloatArray:
    """A user's score is the sum of a·a_w over the songs w that they played, a being the cold song's vector; (U, C).

    −I plays no part: it concerns played songs alone.

    Args:
        seed: of first vectors and batches.
        dim: size of the vectors.
        ridge: penalty of the regression from content to vectors.
        steps: of training.
        kept: what the last calls with the same content solved; in `kept["plays"]` what hangs on the plays alone.
    """
    kept = {} if kept is None else kept
    solved = kept.setdefault("plays", {})
    if dim not in solved:
        solved[dim] = song_vectors(plays_UW, dim, seed, steps)[0]
    a_WE = solved[dim]
    played_W = np.bincount(plays_UW.indices, minlength=plays_UW.shape[1]) > 0
    row_CE = unit_rows(x_CD @ regression(x_WD[played_W], a_WE[played_W], ridge, kept))
    return np.asarray((plays_UW @ a_WE) @ row_CE.T, dtype=np.float32)


def song_vectors(
    plays_UW: sparse.csr_matrix, dim: int, seed: int = 0, steps: int = 200, batch: int = 128, lr: float = 0.1
) -> tuple[FloatArray, list[float]]:
    """A (W, E), of rows of length 1, by NAdam over batches of users with a play; and the loss of every step."""
    heard = np.flatnonzero(np.diff(plays_UW.indptr))
    losses = []
    with seeded(seed) as device:
        raw_WE = nn.Parameter(nn.init.xavier_uniform_(torch.empty(plays_UW.shape[1], dim, device=device)))
        optimiser = torch.optim.NAdam([raw_WE], lr=lr)
        for _ in range(steps):
            users = heard[torch.randint(len(heard), (min(batch, len(heard)),)).numpy()]
            x_NW = torch.from_numpy(plays_UW[users].toarray()).to(device)
            optimiser.zero_grad()
            loss = elsa_loss(x_NW, F.normalize(raw_WE, dim=1))
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return F.normalize(raw_WE, dim=1).detach().cpu().numpy(), losses


def elsa_loss(x_NW: Tensor, a_WE: Tensor) -> Tensor:
    """Mean over users of ‖x/‖x‖ − ŷ/‖ŷ‖‖², ŷ = x·(AAᵀ − I)."""
    y_NW = (x_NW @ a_WE) @ a_WE.T - x_NW
    return (F.normalize(x_NW, dim=1) - F.normalize(y_NW, dim=1)).square().sum(dim=1).mean()
