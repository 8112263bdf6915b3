"""Cold-start methods that train a content encoder, each small and from its paper's equations.

Every method is `method(plays_UW, x_WD, x_CD, seed=…, **options) -> score_UC`: float32, higher is better. Content of the
cold songs is read once training is over, each row for itself; none of their plays is ever seen. Same seed, same result
on a CPU; a GPU is used where there is one, and adds up in no fixed order.

`seed` is that of weights and draws; further `options` are those of `Training`.

Shapes: U users, W warm songs, C cold songs, D content features, N rows of a batch, K songs beside a play,
E vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from data.arrays import FloatArray

HIDDEN = 256  # units of the one hidden layer of every network
NEGATIVES = 32  # of a play, in `clcrec`

GRIDS: dict[str, list[dict[str, Any]]] = {
    "dropoutnet": [{"drop": drop, "alpha": alpha} for drop in (0.5, 0.9) for alpha in (10.0, 30.0)],
    "clcrec": [{"weight": weight, "temperature": t} for weight in (0.1, 0.5) for t in (1.0, 2.0)],
    "semco": [
        *({"normaliser": "softmax", "temperature": t} for t in (0.05, 0.1, 0.2)),
        *({"normaliser": "sparsemax", "temperature": t} for t in (4.0, 8.0, 16.0)),
    ],
}


@dataclass(frozen=True)
class Training:
    """Options of every method: `dim` of vectors; Adam's rate, decay and steps over batches of plays or songs."""

    dim: int = 64
    steps: int = 300
    batch: int = 256
    lr: float = 1e-3
    decay: float = 1e-4


def dropoutnet(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    seed: int = 0,
    drop: float = 0.9,
    alpha: float = 10.0,
    **options: Any,
) -> FloatArray:
    """DropoutNet (Volkovs, Yu, Poutanen, NIPS 2017): the latents of a factorisation, often withheld; (U, C).

    A weighted factorisation of the warm plays gives u and v. Two networks are fitted to (u·v − f_U(u)·f_V(v, content))²
    over pairs, half of them plays and half drawn at random, while v is zeroed with probability `drop`. A cold
    song's v is zero. `alpha` is the weight of a play in the factorisation, against 1 of a missing one.
    """
    given = Training(**{"batch": 1024} | options)
    factors = factorise(plays_UW, given.dim, alpha, seed)
    with seeded(seed) as device:
        u_UE, v_WE, x = (torch.from_numpy(array).to(device) for array in (*factors, x_WD))
        users, songs = (torch.from_numpy(index).to(device) for index in plays_UW.nonzero())
        of_user, of_song = (
            network(width, given.dim, nn.Tanh()).to(device) for width in (given.dim, given.dim + x.shape[1])
        )

        def loss() -> Tensor:
            plays = torch.randint(len(users), (given.batch // 2,), device=device)
            user = torch.cat([users[plays], torch.randint(len(u_UE), (given.batch // 2,), device=device)])
            song = torch.cat([songs[plays], torch.randint(len(v_WE), (given.batch // 2,), device=device)])
            kept = (torch.rand(len(song), 1, device=device) >= drop).float()
            f_song = of_song(torch.cat([v_WE[song] * kept, x[song]], dim=1))
            error = (u_UE[user] * v_WE[song]).sum(dim=1) - (of_user(u_UE[user]) * f_song).sum(dim=1)
            return error.square().mean()

        fit([*of_user.parameters(), *of_song.parameters()], loss, given.steps, given.lr, given.decay)
        cold = torch.from_numpy(x_CD).to(device)
        return products(of_user(u_UE), of_song(torch.cat([cold.new_zeros(len(cold), given.dim), cold], dim=1)))


def clcrec(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    seed: int = 0,
    weight: float = 0.5,
    temperature: float = 1.0,
    replaced: float = 0.5,
    **options: Any,
) -> FloatArray:
    """CLCRec (Wei et al., MM 2021): a song's content is to say what its listeners say; (U, C).

    `weight` · InfoNCE(song's embedding, its content's) + (1 − `weight`) · InfoNCE(user, song), where content stands in
    for the share `replaced` of the songs' embeddings; each play against NEGATIVES drawn songs. A cold song has its
    content's embedding alone. `decay` is the weight of the embeddings' squared length.
    """
    given = Training(**{"lr": 5e-3} | options)
    with seeded(seed) as device:
        x = torch.from_numpy(x_WD).to(device)
        users, songs = (torch.from_numpy(index).to(device) for index in plays_UW.nonzero())
        user_UE, song_WE = (nn.Parameter(0.1 * torch.randn(n, given.dim, device=device)) for n in plays_UW.shape)
        encoder = network(x.shape[1], given.dim, nn.LeakyReLU()).to(device)

        def loss() -> Tensor:
            plays = torch.randint(len(users), (given.batch,), device=device)
            drawn = torch.randint(len(x), (given.batch, NEGATIVES), device=device)
            rows = torch.cat([songs[plays, None], drawn], dim=1)
            once, at = rows.unique(return_inverse=True)  # a song drawn twice is encoded once
            content, user, song = encoder(x[once])[at], user_UE[users[plays]], song_WE[rows]
            stands_in = torch.rand(rows.shape, device=device) < replaced
            agree = info_nce(F.normalize(song[:, 0], dim=-1), F.normalize(content, dim=-1), temperature)
            rank = info_nce(user, torch.where(stands_in[..., None], content, song), temperature)
            length = user.square().sum(dim=-1).mean() + song.square().sum(dim=-1).mean()
            return weight * agree + (1 - weight) * rank + given.decay * length

        fit([user_UE, song_WE, *encoder.parameters()], loss, given.steps, given.lr)
        return products(user_UE, encoder(torch.from_numpy(x_CD).to(device)))


def semco(
    plays_UW: sparse.csr_matrix,
    x_WD: FloatArray,
    x_CD: FloatArray,
    seed: int = 0,
    normaliser: str = "softmax",
    temperature: float = 0.1,
    **options: Any,
) -> FloatArray:
    """Content is to say which warm songs a song shares its listeners with; (U, C).

    The softmax or sparsemax (`normaliser`) of cosine / `temperature` over all other warm songs is fitted, by its
    Fenchel-Young loss, to the song's common listeners, normalised to sum to 1. A user scores the sum of the cold
    song's weights over what they played. Queries and keys share one linear encoder: it starts out close to the
    neighbours by content, where two networks with hidden layers fell well short of them on validation.
    """
    given = Training(**{"dim": 128, "steps": 60} | options)
    weights_of, loss_of = NORMALISERS[normaliser]
    by_song = sparse.csr_matrix(plays_UW.T)
    with seeded(seed) as device:
        x = torch.from_numpy(x_WD).to(device)
        encoder = nn.Linear(x.shape[1], given.dim).to(device)
        unit = x.shape[1] ** 0.5  # features of about unit size, beside which the bias starts out small

        def scores(x_ND: Tensor) -> Tensor:
            return F.normalize(encoder(unit * x_ND), dim=1) @ F.normalize(encoder(unit * x), dim=1).T / temperature

        def loss() -> Tensor:
            rows = torch.randperm(len(x))[: given.batch]
            target_NW, known_N = (torch.from_numpy(array) for array in common_listening(by_song, rows.numpy()))
            rows = rows[known_N].to(device)
            score_NW = scores(x[rows]).scatter(1, rows[:, None], -1e4)  # finite, for 0 · −∞ is no number
            return loss_of(score_NW, target_NW[known_N].to(device))

        fit(encoder.parameters(), loss, given.steps, given.lr, given.decay)
        with torch.no_grad():
            weight_CW = weights_of(scores(torch.from_numpy(x_CD).to(device))).cpu().numpy()
    return np.asarray(plays_UW @ weight_CW.T, dtype=np.float32)


def info_nce(anchor_NE: Tensor, candidate_NKE: Tensor, temperature: float) -> Tensor:
    """Mean of −log softmax(anchor · candidate / temperature) at the first candidate of each row."""
    score_NK = torch.einsum("ne,nke->nk", anchor_NE, candidate_NKE) / temperature
    return -F.log_softmax(score_NK, dim=1)[:, 0].mean()


def softmax_loss(score_NW: Tensor, target_NW: Tensor) -> Tensor:
    """Fenchel-Young loss of softmax: the mean of KL(target ‖ softmax(score)); rows of the target sum to 1."""
    return F.kl_div(score_NW.log_softmax(dim=1), target_NW, reduction="batchmean")


def sparsemax(score_NC: Tensor) -> Tensor:
    """The point of the simplex nearest to each row (Martins & Astudillo, ICML 2016, algorithm 1)."""
    # Nothing that lies 1 or more below the highest score has weight; cut off there, long sums stay exact.
    below = (score_NC - score_NC.amax(dim=1, keepdim=True)).clamp(min=-1)
    sorted_NC = below.sort(dim=1, descending=True).values
    rank = torch.arange(1, below.shape[1] + 1, device=below.device)
    total = sorted_NC.cumsum(dim=1) - 1
    support_N1 = (rank * sorted_NC > total).sum(dim=1, keepdim=True)
    return (below - total.gather(1, support_N1 - 1) / support_N1).clamp(min=0)


def sparsemax_loss(score_NC: Tensor, target_NC: Tensor) -> Tensor:
    """Fenchel-Young loss of sparsemax (Blondel et al., JMLR 2020): ½‖t‖² − ½‖p‖² + (p − t)·z, p = sparsemax(z).

    Its gradient is p − t. p counts as a constant, being the maximiser in its own definition.
    """
    weight_NC = sparsemax(score_NC.detach())
    squares_N = target_NC.square().sum(dim=1) - weight_NC.square().sum(dim=1)
    return (0.5 * squares_N + ((weight_NC - target_NC) * score_NC).sum(dim=1)).mean()


NORMALISERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "softmax": (lambda score_NW: score_NW.softmax(dim=1), softmax_loss),
    "sparsemax": (sparsemax, sparsemax_loss),
}


def common_listening(by_song_WU: sparse.csr_matrix, rows: Any) -> tuple[FloatArray, Any]:
    """Listeners that the songs `rows` share with every other song, each row divided by its sum, (N, W).

    Also a mask (N,): False where a song shares no listener with any other; its row is all 0.
    """
    common_NW = (by_song_WU[rows] @ by_song_WU.T).toarray().astype(np.float32)
    common_NW[np.arange(len(rows)), rows] = 0
    total_N1 = common_NW.sum(axis=1, keepdims=True)
    return common_NW / np.maximum(total_N1, 1), total_N1[:, 0] > 0


def factorise(
    plays_UW: sparse.csr_matrix, dim: int, alpha: float, seed: int, regularisation: float = 0.1
) -> tuple[FloatArray, FloatArray]:
    """Latents of users (U, E) and songs (W, E) by weighted matrix factorisation (Hu, Koren, Volinsky, ICDM 2008)."""
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpool_limits(1, "blas"):  # `implicit` asks for it: its threads and those of BLAS hinder each other
        model = AlternatingLeastSquares(dim, regularization=regularisation, alpha=alpha, random_state=seed)
        model.fit(plays_UW, show_progress=False)
    return model.user_factors, model.item_factors


def network(width: int, dim: int, activation: nn.Module) -> nn.Sequential:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(width, HIDDEN), activation, nn.Linear(HIDDEN, dim))


@contextmanager
def seeded(seed: int) -> Iterator[torch.device]:
    """Torch's draws within follow from `seed`, those after as if nothing had been; gives the device to train on."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(parameters: Iterable[Tensor], loss: Callable[[], Tensor], steps: int, lr: float, decay: float = 0.0) -> None:
    """Adam with decoupled weight decay; `loss` draws its own batch."""
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def products(user_UE: Tensor, song_CE: Tensor) -> FloatArray:
    """user · song of every pair, (U, C)."""
    return np.asarray((user_UE @ song_CE.T).detach().cpu().numpy())
