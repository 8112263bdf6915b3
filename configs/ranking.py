"""Options of the ranker: candidates, features, folds and the model that orders candidates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import UserError
from configs.options import CATALOGUE, REQUIRED, CommandLoggerConfig, above, at_least, opt
from configs.targeting import TargetingConfig

MOST_OF_A_SONG = 10_000  # candidates: LightGBM's limit of a query
MOST_LEAVES = 131_072  # LightGBM's limit
GRADES = (1.0, 2.0, 5.0)


@dataclass
class TreesConfig:
    objective: Literal["cross_entropy", "lambdarank"] = opt(
        "cross_entropy", "cross_entropy: of a pair's grade, as a share of the highest; lambdarank: LambdaMART"
    )
    leaves: int = opt(7, "leaves of a tree")
    min_leaf: int = opt(200, "(song, user) pairs in a leaf at least")
    lr: float = opt(0.05, "learning rate")
    rounds: int = opt(500, "trees at most; early stopping on songs left out takes fewer")
    patience: int = opt(30, "trees without a better ranking of the songs left out, after which no more are added")
    parts: int = opt(5, "parts of the songs, each left out once to find the number of trees")
    truncation: int = opt(100, "lambdarank: places of a list whose order counts")
    columns: float = opt(0.5, "share of the features that a tree sees")
    l2: float = opt(5.0, "L2 penalty of leaves")

    def __post_init__(self) -> None:
        at_least(self, 2, "trees.leaves", "trees.parts")
        at_least(self, 1, *(f"trees.{name}" for name in ("min_leaf", "rounds", "patience", "truncation")))
        above(self, 0, "trees.lr")
        at_least(self, 0, "trees.l2")
        if not 0 < self.columns <= 1:
            raise UserError(f"trees.columns={self.columns:g} must be above 0 and at most 1")
        if self.leaves > MOST_LEAVES:
            raise UserError(f"trees.leaves={self.leaves}: at most {MOST_LEAVES}")


@dataclass
class NetworkConfig:
    history: int = opt(50, "songs of a user's history that are read, the newest ones")
    field_dim: int = opt(16, "size of the embedding of a song's field, and of a category feature")
    block: int = opt(64, "dense vectors of songs are embedded in blocks of this many numbers")
    dim: int = opt(32, "size of what attention reads of a song, all heads together")
    heads: int = opt(4, "attention heads; divides network.dim")
    hidden: int = opt(64, "size of the hidden layers")
    dropout: float = opt(0.2, "dropout in the hidden layers")
    lr: float = opt(1e-3, "peak learning rate (AdamW)")
    weight_decay: float = opt(0.05, "weight decay (none on biases, norms and scalars)")
    warmup: float = opt(0.05, "share of all steps with linear warm-up; cosine decay to zero after it")
    batch_size: int = opt(8, "songs per step, each with all its candidates")
    epochs: int = opt(20, "passes over the songs at most; early stopping on songs left out takes fewer")
    patience: int = opt(4, "passes without a smaller loss on the songs left out, after which training stops")
    parts: int = opt(3, "parts of the songs, each left out once to find the number of passes")

    def __post_init__(self) -> None:
        at_least(self, 2, "network.parts")
        whole = ("history", "field_dim", "block", "dim", "heads", "hidden", "batch_size", "epochs", "patience")
        at_least(self, 1, *(f"network.{name}" for name in whole))
        above(self, 0, "network.lr")
        at_least(self, 0, "network.weight_decay")
        at_least(self, 0, "network.dropout", "network.warmup", below=1)
        if self.dim % self.heads:
            raise UserError(f"network.dim={self.dim} is not divisible by network.heads={self.heads}")


@dataclass
class RankConfig:
    data: str = opt(REQUIRED, "catalogue folder (python -m pipeline.prepare)", CATALOGUE)
    i2i: str = opt(REQUIRED, "run folder of train.py i2i, trained on this catalogue", "i2i run")
    boundary: str | None = opt(None, "run folder of train.py boundary: a further channel, and features", "boundary run")
    out: str = opt(REQUIRED, "run folder to write; what is finished in it is kept")
    folds: int = opt(
        0, "0: fit on the cold validation songs (cheap); K: known songs as new ones, in K folds, encoders trained anew"
    )
    fold_share: float = opt(0.03, "folds by release date: share of the known songs in a fold")
    label_days: int = opt(30, "folds by release date: plays so many days from the release on are labels (0: all)")
    depth: int = opt(200, "users of each channel who are candidates for a song")
    new_days: int = opt(30, "days from its release on that a song counts as new (a user's openness)")
    seed: int = opt(0, "seed of folds and model")
    grades: list[float] = opt(
        [*GRADES], "what it is worth to find a listener who played, completed, favourited the song"
    )
    model: Literal["trees", "network"] = opt("trees", "trees: boosted trees; network: attention over histories too")
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    trees: TreesConfig = field(default_factory=TreesConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        at_least(self, 0, "folds", "label_days", "seed")
        at_least(self, 1, "depth", "new_days")
        above(self, 0, "fold_share", below=0.5)
        if self.folds == 1:
            raise UserError("folds=1 leaves no other fold to compare with: give 0 or at least 2")
        if len(self.grades) != 3 or not 0 < self.grades[0] <= self.grades[1] <= self.grades[2]:
            raise UserError(f"grades={self.grades}: three numbers above 0, ascending: played, completed, favourited")
        channels = 4 if self.boundary else 3
        if self.model == "trees" and self.trees.objective == "lambdarank" and self.depth * channels > MOST_OF_A_SONG:
            raise UserError(
                f"depth={self.depth}: LambdaMART takes up to {MOST_OF_A_SONG:,} candidates of a song, and {channels} "
                f"channels may name more: give depth={MOST_OF_A_SONG // channels} at most"
            )
