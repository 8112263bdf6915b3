"""The interest-boundary model: item, user and boundary towers (the article's U2I part, Q4 and Q5).

Shapes: N users of a batch, T history places, S distinct songs of the histories, M songs scored for each user,
F song features, E field embedding, D tower output, H attention heads, C profile categories, K profile numbers.

A user batch is a dict: `codes` (N, C) and `numbers` (N, K) of the profile; `songs`, the fields of S distinct songs,
each (S, width); `history` (N, T), positions into them, latest first; `mask` (N, T), True where there is a play;
`strength` (N, T), the signal of each play. Songs are shared: each is embedded once, however many users played it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.song_encoder import FieldEmbedding, Fields, SongEncoder

HEADS = 4  # queries of the attention pooling: tastes that one history may hold
SIGNALS = 5  # strengths −1 (disliked), 0, 1 (played), 2 (completed), 3 (favourited)
AGES = 12  # recency in plays: 0, 1, 2–3, 4–7, … and 1024 or more


class UserTower(nn.Module):
    """Profile and listening history → one vector (N, D). The user tower and the boundary tower are one each."""

    age_starts: Tensor

    def __init__(
        self,
        songs: FieldEmbedding,
        profile_sizes: dict[str, int],
        n_numbers: int,
        hidden: int,
        dim: int,
        dropout: float,
        prior_plays: float,
    ) -> None:
        super().__init__()
        self.prior_plays = prior_plays
        self.embedding, field_dim = songs, songs.dim
        self.song = nn.Linear(len(self.embedding.names) * field_dim, dim)
        self.signal = small_embedding(SIGNALS, dim)
        self.age = small_embedding(AGES, dim)
        self.empty_D = nn.Parameter(torch.zeros(dim))
        self.attend = nn.Linear(dim, HEADS, bias=False)  # a head's bias would not change its softmax
        # a list, not a ModuleDict: a profile column may be called anything, also what a module may not be
        self.categories = nn.ModuleList(small_embedding(size, field_dim) for size in profile_sizes.values())
        self.register_buffer("number_mean", torch.zeros(n_numbers))
        self.register_buffer("number_scale", torch.ones(n_numbers))
        self.register_buffer("age_starts", 2 ** torch.arange(AGES - 1), persistent=False)
        width = HEADS * dim + len(profile_sizes) * field_dim + 2 * n_numbers
        self.trunk = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.skip = nn.Linear(width, dim)
        self.out = nn.Linear(hidden, dim)

    def taste(self, batch: dict[str, Any]) -> Tensor:
        """Attention-pooled history, (N, H·D), shrunk to that of a user without plays where there are few."""
        e_SFE, _ = self.embedding(batch["songs"])
        song_SD = self.song(e_SFE.flatten(1))
        mask_NT = batch["mask"]
        signal_NT = (batch["strength"].round().long() + 1).clamp(0, SIGNALS - 1)
        # counted over real plays only, so that neither padding nor a left-out target shows
        place_NT = (mask_NT.cumsum(dim=1) - 1).clamp(min=0)
        age_NT = torch.bucketize(place_NT, self.age_starts, right=True)
        # one table of both: half the look-ups and gradients
        told_PD = (self.signal.weight[:, None] + self.age.weight).flatten(0, 1)
        told_NTD = F.embedding(signal_NT * AGES + age_NT, told_PD)
        # looked up in float32, for the gradients of thousands of plays add up there; autocast may go on with half of it
        play_NTD = F.gelu((song_SD.float()[batch["history"]] + told_NTD).to(song_SD))
        # one learned entry is always there: it is all that an empty history has, and the softmax stays defined
        empty_N1H = self.attend(self.empty_D).expand(mask_NT.shape[0], 1, -1)  # len() would fix N where it is exported
        logit_NTH = self.attend(play_NTD).masked_fill(~mask_NT.unsqueeze(-1), -torch.inf)
        empty_N1H, weight_NTH = torch.cat([empty_N1H, logit_NTH], dim=1).softmax(dim=1).split([1, mask_NT.shape[1]], 1)
        taste_NHD = torch.einsum("nth,ntd->nhd", weight_NTH, play_NTD) + empty_N1H.transpose(1, 2) * self.empty_D
        # weights sum to one, for one play as for fifty: what one play says of its user would be as loud
        plays_N11 = mask_NT.sum(dim=1)[:, None, None]
        share_N11 = (plays_N11 / (plays_N11 + self.prior_plays).clamp(min=1)).to(taste_NHD)
        return (share_N11 * taste_NHD + (1 - share_N11) * self.empty_D).flatten(1)

    def profile(self, batch: dict[str, Any]) -> list[Tensor]:
        """Embedded categories (unknown ones too), standardised numbers, and which numbers are known."""
        codes_NC, numbers_NK = batch["codes"], batch["numbers"]
        known_NK = torch.isfinite(numbers_NK)
        value_NK = (numbers_NK.nan_to_num(0.0, 0.0, 0.0) - self.number_mean) / self.number_scale
        embedded = [table(codes_NC[:, c]) for c, table in enumerate(self.categories)]
        return [*embedded, value_NK * known_NK, known_NK.to(value_NK.dtype)]

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """A user batch → vectors (N, D)."""
        x_N = torch.cat([self.taste(batch), *self.profile(batch)], dim=1)
        return self.out(self.trunk(x_N)) + self.skip(x_N)


class BoundaryModel(nn.Module):
    """Scores songs for users and gives each user a threshold: recommend a song only if ⟨u, i⟩ > ⟨u, b⟩.

    The item tower sees content only, so that it can score a song nobody has played; its vectors keep their length, so
    that a song may score high or low with everybody. User tower and boundary tower have the same inputs and structure
    and share no parameter.
    """

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        profile_sizes: dict[str, int],
        n_numbers: int,
        block: int,
        field_dim: int,
        hidden: int,
        dim: int,
        dropout: float,
        prior_plays: float = 0.0,  # as in what earlier versions have exported
    ) -> None:
        super().__init__()
        self.item = SongEncoder(dense_dims, vocab_sizes, field_dim, hidden, dim, dropout, block, False, 0.0)
        self.item.head = nn.Identity()  # type: ignore[assignment]  # the contrastive head has no part in this loss
        self.item.item_bias.requires_grad_(False)  # nor has a bias: a song's length says it here
        songs = dense_dims, vocab_sizes, field_dim, block
        shape = profile_sizes, n_numbers, hidden, dim, dropout, prior_plays
        self.user = UserTower(FieldEmbedding(*songs), *shape)
        self.boundary = UserTower(FieldEmbedding(*songs), *shape)

    def item_vectors(self, fields: Fields) -> Tensor:
        """Fields of songs → item vectors i, (songs, D)."""
        vectors: Tensor = self.item(fields)
        return vectors

    def user_vectors(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """A user batch → user vectors u (N, D) and boundary scores ⟨u, b⟩ (N,)."""
        user_ND = self.user(batch)
        return user_ND, (user_ND * self.boundary(batch)).sum(dim=1)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """A user batch with `items`, fields of distinct songs, and `item` (N, M) → ⟨u, i⟩ (N, M) and ⟨u, b⟩ (N,)."""
        user_ND, boundary_N = self.user_vectors(batch)
        item_NMD = self.item_vectors(batch["items"]).float()[batch["item"]].to(user_ND)
        return torch.einsum("nd,nmd->nm", user_ND, item_NMD), boundary_N

    def standardise_songs(self, name: str, mean: Tensor, scale: float) -> None:
        """Fix the centre (width,) and scale of a dense song field, in all three towers."""
        for tower in (self.item, self.user, self.boundary):
            tower.embedding.standardise(name, mean, scale)

    def standardise_numbers(self, mean_K: Tensor, scale_K: Tensor) -> None:
        """Fix the centre and scale of the profile's numbers."""
        for tower in (self.user, self.boundary):
            tower.get_buffer("number_mean").copy_(mean_K)
            tower.get_buffer("number_scale").copy_(scale_K)


def small_embedding(size: int, dim: int) -> nn.Embedding:
    """An embedding whose vectors start with length about 1, so that a sum of several is led by none."""
    table = nn.Embedding(size, dim)
    nn.init.normal_(table.weight, std=1 / math.sqrt(dim))
    return table
