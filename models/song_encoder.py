"""The song encoder f: feature fields of a song → one vector; and the head g used by the contrastive part alone.

Shapes: N songs, F features (blocks of dense fields, and category fields), E field embedding, D song vector.
The article feeds "all features together to one encoder" and compares songs by inner product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.views import hide_features

Fields = dict[str, Tensor]
WIDE = 16  # numbers from which on a dense field counts as an embedding, with its meaning in the direction
LENGTH = 18.0  # of every wide field, however wide: each modality has the same say at first


class FieldEmbedding(nn.Module):
    """Embeds every feature of a song on its own: e_NFE and which features the song has.

    A dense field of width W becomes ⌈W / block⌉ features, so that a group of features can be a part of a vector. A
    category field (codes, 0 = none) becomes the mean of its values' embeddings.

    A dense field is centred. If it is wide, every song's vector then gets the same length: what a pretrained encoder
    says is in the direction. The few numbers of a narrow one keep their size, as a multiple of the field's spread. In
    training `dropout` hides single numbers, which holds a linear map of few songs like a ridge does (docs/results/).
    """

    def __init__(
        self, dense_dims: dict[str, int], vocab_sizes: dict[str, int], dim: int, block: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not dense_dims and not vocab_sizes:
            raise ValueError("a song encoder needs at least one field")
        self.dense_dims, self.vocab_sizes = dict(dense_dims), dict(vocab_sizes)
        self.dim, self.block = dim, block
        # Lists, not dicts by field name: a field may be called anything, also what a module may not be.
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Linear(min(block, width - at), dim) for at in range(0, width, block))
            for width in dense_dims.values()
        )
        self.categories = nn.ModuleList(nn.Embedding(size, dim, padding_idx=0) for size in vocab_sizes.values())
        for table in self.categories:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=1 / math.sqrt(3))  # as large as a dense feature's embedding at first
            nn.init.zeros_(table.weight[:2].data)  # no value; an unknown value, which training may never meet
        for i, width in enumerate(dense_dims.values()):
            self.register_buffer(f"mean_{i}", torch.zeros(width))
            self.register_buffer(f"scale_{i}", torch.ones(1))
        self.dropout = nn.Dropout(dropout)

    @property
    def field_of(self) -> list[int]:
        """Number of the field that each feature belongs to: the blocks of one dense field share it."""
        blocks = [len(blocks) for blocks in self.blocks if isinstance(blocks, nn.ModuleList)]
        sizes = blocks + [1] * len(self.vocab_sizes)
        return [field for field, size in enumerate(sizes) for _ in range(size)]

    @property
    def field_names(self) -> list[str]:
        """Names of the fields, in the order of `field_of`."""
        return [*self.dense_dims, *self.vocab_sizes]

    @property
    def names(self) -> list[str]:
        """Names of the blocks in order, e.g. "clip_audio[0:64]", "language"."""
        dense = [
            f"{name}[{at}:{min(at + self.block, width)}]"
            for name, width in self.dense_dims.items()
            for at in range(0, width, self.block)
        ]
        return dense + list(self.vocab_sizes)

    def standardise(self, name: str, mean: Tensor, scale: float) -> None:
        """Fix the centre (width,) and the overall scale of a dense field, measured on training songs."""
        i = list(self.dense_dims).index(name)
        self.get_buffer(f"mean_{i}").copy_(mean)
        self.get_buffer(f"scale_{i}").fill_(scale)

    def forward(self, fields: Fields) -> tuple[Tensor, Tensor]:
        """Fields of N songs → (e_NFE, present_NF); an absent feature's embedding is zero."""
        embedded, present = [], []
        for i, (name, blocks) in enumerate(zip(self.dense_dims, self.blocks, strict=True)):
            assert isinstance(blocks, nn.ModuleList)
            x_NW = fields[name]
            has_N = x_NW.sum(dim=1).isfinite()  # one pass: any number that is not finite makes the sum so
            mean_W, scale = self.get_buffer(f"mean_{i}"), self.get_buffer(f"scale_{i}")
            centred_NW = torch.where(has_N[:, None], x_NW - mean_W, 0.0) / scale
            if x_NW.shape[1] >= WIDE:
                centred_NW = F.normalize(centred_NW, dim=1) * LENGTH
            centred_NW = self.dropout(centred_NW)
            for linear, part in zip(blocks, centred_NW.split(self.block, dim=1), strict=True):
                embedded.append(linear(part))
                present.append(has_N)
        for name, table in zip(self.vocab_sizes, self.categories, strict=True):
            codes_NL = fields[name]
            count_N1 = (codes_NL > 0).sum(dim=1, keepdim=True)
            embedded.append(table(codes_NL).sum(dim=1) / count_N1.clamp(min=1))
            present.append(count_N1.squeeze(1) > 0)
        present_NF = torch.stack(present, dim=1)
        return torch.stack(embedded, dim=1) * present_NF.unsqueeze(-1), present_NF


class SongEncoder(nn.Module):
    """f and g of the article (Q2): f makes the song vector, g is put on it for the contrastive loss only.

    With `normalise` all song vectors have one learned length: otherwise BPR writes a song's popularity into its length
    and popular songs become everybody's neighbours (measured: docs/results/).
    """

    def __init__(
        self,
        dense_dims: dict[str, int],
        vocab_sizes: dict[str, int],
        field_dim: int,
        hidden: int,
        dim: int,
        dropout: float,
        block: int,
        normalise: bool,
        input_dropout: float,
    ) -> None:
        super().__init__()
        # length of a normalised vector; inner products then reach scale²
        self.scale = nn.Parameter(torch.tensor(4.0)) if normalise else None
        self.embedding = FieldEmbedding(dense_dims, vocab_sizes, field_dim, block, input_dropout)
        self.absent_FE = nn.Parameter(torch.zeros(len(self.embedding.names), field_dim))
        width = self.absent_FE.numel()
        self.skip, self.trunk = nn.Linear(width, dim), None
        if hidden:
            inner = (nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.GELU())
            self.trunk = nn.Sequential(*inner, nn.Linear(hidden, dim))
        self.item_bias = nn.Linear(width, 1)
        nn.init.zeros_(self.item_bias.weight), nn.init.zeros_(self.item_bias.bias)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def hide_fields(self, shown_NF: Tensor, rate: float) -> Tensor:
        """Hide whole fields of songs with chance `rate`, but never a song's last one."""
        if rate == 0:
            return shown_NF
        return hide_features(shown_NF, torch.tensor(self.embedding.field_of).to(shown_NF.device), rate)

    def content(self, e_NFE: Tensor, shown_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of free length (N, D) and item biases (N,) from those features' embeddings that are `shown`.

        A hidden feature is replaced by `absent`. An item bias is the log of how often anybody listens, as far as
        content tells: it takes popularity out of the vectors where whole histories train them (`objectives.ranking`).
        """
        x_N = torch.where(shown_NF.unsqueeze(-1), e_NFE, self.absent_FE).flatten(1)
        first = [self.skip, self.item_bias] if self.trunk is None else [self.skip, self.item_bias, self.trunk[0]]
        weight, bias = (torch.cat([getattr(layer, name) for layer in first]) for name in ("weight", "bias"))
        # all layers that read x in one product, which is several times as fast as one each
        vector_ND, bias_N1, *hidden = F.linear(x_N, weight, bias).split([layer.out_features for layer in first], dim=1)
        if self.trunk is not None:
            vector_ND = vector_ND + self.trunk[1:](hidden[0])
        return vector_ND, bias_N1.squeeze(1)

    def finish(self, vector_ND: Tensor) -> Tensor:
        """Scale vectors to the learned length, if `normalise` is on: the last step of `encode`."""
        return vector_ND if self.scale is None else F.normalize(vector_ND, dim=1) * self.scale

    def encode(self, e_NFE: Tensor, shown_NF: Tensor) -> Tensor:
        """Song vectors from field embeddings of which only `shown` features are seen."""
        return self.finish(self.content(e_NFE, shown_NF)[0])

    def forward(self, fields: Fields) -> Tensor:
        """Fields of N songs → song vectors (N, D); compare them by inner product."""
        return self.encode(*self.embedding(fields))
