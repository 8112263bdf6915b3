"""The neural ranker: features of a (new song, user) pair, and attention from the song over the user's history.

Shapes: N pairs, G new songs, S distinct songs of a batch, R histories, T history places, F number features, C code
features, H attention heads, E width of a head, D of all, 3 outputs: played, and completed and favourited given played.

A batch is a dict: `numbers` (N, F), NaN where not known, and `codes` (N, C) of the features; `songs`, the fields of S
distinct songs, each (S, width), or the keys that were made of them (S, D); `new` (G,), places of the new songs among
them; `song` and `row` (N,), which of the new songs and which history is a pair's; `history` (R, T), places of songs,
newest first; `mask` (R, T), True where there is one; `signal` (R, T). Each new song attends to each history: candidates
of a few songs are much the same users.
Songs are known by their content alone, so that a song that nobody has played can be asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.song_encoder import FieldEmbedding
from models.towers import small_embedding

SIGNALS = 4  # of a history song: 0 none, 1 played, 2 completed, 3 favourited
HEADS_OF = ("played", "completed", "favourited")
STEPS = 16  # of integrated gradients
MOST = 4.0  # standard deviations from the mean at which a feature is cut off


class RankNetwork(nn.Module):
    """Logits that a user plays a song, and if so that they complete and that they favourite it.

    The new song and those of the history share one projection of their content, so that attention starts as the
    similarity of songs. What it pools are signals, not contents: a network that is told the new song's content, or that
    of the songs it finds, learns the few songs of its training by heart (docs/ranking.md). Beside what it pools, it is
    told each head's largest similarity.
    """

    number_mean: Tensor
    number_scale: Tensor
    worth: Tensor
    told: Tensor

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        code_sizes: Sequence[int],
        n_numbers: int,
        grades: Sequence[float],
        block: int,
        field_dim: int,
        dim: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = FieldEmbedding(dense_dims, vocab_sizes, field_dim, block)
        self.song = nn.Linear(len(self.embedding.names) * field_dim, dim)
        self.scale_H = nn.Parameter(torch.full((heads,), 4.0))
        self.signal_bias = nn.Embedding(SIGNALS, heads)  # which signals a head looks at
        nn.init.zeros_(self.signal_bias.weight)
        self.signal = small_embedding(SIGNALS, dim)
        self.empty_D = nn.Parameter(torch.zeros(dim))
        self.codes = nn.ModuleList(small_embedding(size, field_dim) for size in code_sizes)
        self.register_buffer("number_mean", torch.zeros(n_numbers))
        self.register_buffer("number_scale", torch.ones(n_numbers))
        self.register_buffer("worth", torch.tensor([one / grades[-1] for one in grades]))
        self.register_buffer("told", torch.ones(3))  # 0: no play tells whether it was completed, or favourited
        width = 2 * n_numbers + len(code_sizes) * field_dim + dim + heads
        self.trunk = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Dropout(dropout),
        )  # fmt: skip
        self.skip, self.out = nn.Linear(width, len(HEADS_OF)), nn.Linear(hidden, len(HEADS_OF))
        for layer in (self.skip, self.out):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)

    def standardise_songs(self, name: str, mean: Tensor, scale: float) -> None:
        """Fix the centre (width,) and scale of a dense song field."""
        self.embedding.standardise(name, mean, scale)

    def standardise_numbers(self, mean_F: Tensor, scale_F: Tensor) -> None:
        """Fix the centre and scale of the number features."""
        self.number_mean.copy_(mean_F)
        self.number_scale.copy_(scale_F)

    def start_at(self, rate_3: Tensor) -> None:
        """Start at the rates at which pairs were played, and plays completed and favourited; NaN: no play tells."""
        told_3 = torch.isfinite(rate_3)
        self.told.copy_(told_3)
        with torch.no_grad():
            self.out.bias.copy_(torch.logit(rate_3, 1e-4).nan_to_num(0.0))

    def features(self, batch: dict[str, Any]) -> list[Tensor]:
        """Standardised numbers, which of them are known, and embedded codes."""
        known_NF = torch.isfinite(batch["numbers"])
        number_NF = (batch["numbers"].nan_to_num(0.0, 0.0, 0.0) - self.number_mean) / self.number_scale
        codes = [table(batch["codes"][:, at]) for at, table in enumerate(self.codes)]
        return [number_NF.clamp(-MOST, MOST) * known_NF, known_NF.to(number_NF.dtype), *codes]

    def keys(self, songs: dict[str, Tensor]) -> Tensor:
        """What attention reads of songs, (S, D), by their fields."""
        key_SD: Tensor = self.song(self.embedding(songs)[0].flatten(1))
        return key_SD

    def look(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Similarities of new songs and history songs (G, H, R, T), and shares of attention (G, H, R, 1 + T)."""
        songs, mask_RT = batch["songs"], batch["mask"]
        song_SD = songs if isinstance(songs, Tensor) else self.keys(songs)
        unit_SHE = F.normalize(song_SD.unflatten(1, (self.heads, -1)), dim=2)
        own_GHE = unit_SHE[batch["new"]]
        cosine_GHRT = torch.einsum("ghe,she->ghs", own_GHE, unit_SHE)[:, :, batch["history"]]
        bias_HRT = self.signal_bias(batch["signal"]).permute(2, 0, 1)
        logit_GHRT = cosine_GHRT * self.scale_H[:, None, None] + bias_HRT.masked_fill(~mask_RT, -torch.inf)
        # one learned entry is always there: it is all that an empty history has, and the softmax stays defined
        return cosine_GHRT, F.pad(logit_GHRT, (1, 0)).softmax(dim=3)

    def attention(self, batch: dict[str, Any]) -> list[Tensor]:
        """What the song finds in the user's history: pooled signals (N, D), largest similarities (N, H)."""
        cosine_GHRT, share_GHRT = self.look(batch)
        mask_RT, row_N, new_N = batch["mask"], batch["row"], batch["song"]
        value_RTD = self.signal(batch["signal"])
        value_RTD = torch.cat([self.empty_D.expand(value_RTD.shape[0], 1, -1), value_RTD], dim=1)
        pooled_RHGE = share_GHRT.permute(2, 1, 0, 3) @ value_RTD.unflatten(2, (self.heads, -1)).transpose(1, 2)
        most_GHR = (cosine_GHRT - 2.0 * ~mask_RT).amax(dim=3).clamp(min=-1.0)
        pooled_NHE, most_NH = pooled_RHGE.transpose(1, 2)[row_N, new_N], most_GHR.permute(2, 0, 1)[row_N, new_N]
        return [pooled_NHE.flatten(1), most_NH]

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """A batch → logits (N, 3): played, completed given played, favourited given played."""
        return self.logits(torch.cat([*self.features(batch), *self.attention(batch)], dim=1))

    def logits(self, x_NX: Tensor) -> Tensor:
        """Features and what attention found → logits (N, 3)."""
        logit_N3: Tensor = self.out(self.trunk(x_NX)) + self.skip(x_NX)
        return logit_N3

    def score(self, batch: dict[str, Any]) -> Tensor:
        """A batch → log-odds of the expected grade as a share of the highest, (N,)."""
        return self.share_logit(self(batch))

    def share_logit(self, logit_N3: Tensor) -> Tensor:
        """Log-odds of the expected grade's share, (N,).

        A favourite is worth the third grade, another complete play the second, another play the first. Whether a
        listener completes the song is taken as independent of whether they favourite it.
        """
        _, completed_N, favourited_N = (logit_N3.sigmoid() * self.told).unbind(dim=1)
        played, completed, favourited = self.worth.unbind()
        other_N = completed_N * completed + (1 - completed_N) * played
        worth_N = favourited_N * favourited + (1 - favourited_N) * other_N
        log_N = (F.logsigmoid(logit_N3[:, 0]) + worth_N.log()).clamp(max=-1e-6)
        return log_N - torch.log(-torch.expm1(log_N))

    def contributions(self, batch: dict[str, Any]) -> Tensor:
        """What each feature adds to a score, numbers and then codes, and at last the history: (N, F + C + 1).

        Integrated gradients (Sundararajan et al., ICML 2017) on the way from a user who is average in every feature and
        has no history. They sum to the difference of the two scores, but for the error of STEPS midpoints.
        """
        n, codes = len(self.number_mean), [table.weight.mean(dim=0) for table in self.codes]  # type: ignore[operator]
        with torch.no_grad():
            x_NX = torch.cat([*self.features(batch), *self.attention(batch)], dim=1)
            no_song = self.empty_D, self.empty_D.new_full((self.heads,), -1.0)
            base_X = torch.cat([x_NX.new_zeros(n), x_NX.new_ones(n), *codes, *no_song])
        slope_NX = torch.zeros_like(x_NX)
        for step in range(STEPS):
            with torch.enable_grad():
                at_NX = torch.lerp(base_X.expand_as(x_NX), x_NX, (step + 0.5) / STEPS).requires_grad_()
                score = self.share_logit(self.logits(at_NX)).sum()
            slope_NX += torch.autograd.grad(score, at_NX)[0] / STEPS
        widths = [n, n, *map(len, codes), len(x_NX[0]) - 2 * n - sum(map(len, codes))]
        value_NF, known_NF, *rest = ((x_NX - base_X) * slope_NX).split(widths, dim=1)
        return torch.cat([value_NF + known_NF, *(one.sum(dim=1, keepdim=True) for one in rest)], dim=1)

    def attended(self, batch: dict[str, Any]) -> Tensor:
        """Share of attention on each song of the pairs' histories, mean over heads, (N, T)."""
        return self.look(batch)[1].mean(dim=1)[batch["song"], batch["row"], 1:]
