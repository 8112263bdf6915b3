"""Options of the trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from configs.embedding import MULTILINGUAL, TFIDF, EmbedTextConfig
from configs.errors import UserError
from configs.options import CATALOGUE, FEATURES, REQUIRED, LoggerConfig, above, at_least, opt

OWN_AUDIO, MUSICNN = "transformer", "musicnn"  # of audio.model: the one trained from scratch, the packaged one
SEARCH = "trainings of a search over options that are not given: runs in out/search, the best becomes out (0: none)"
START = "finished run to train on from: its weights, and what is new in data= (docs/scaling.md, Training on)"
NO_FEATURES = "feature folder (python -m pipeline.embed); none: the catalogue's own fields"


@dataclass
class OptimConfig:
    lr: float = opt(1e-3, "peak learning rate (AdamW)")
    weight_decay: float = opt(0.01, "weight decay (none on biases, norms and scalars)")
    warmup: float = opt(0.05, "share of all steps with linear warm-up; cosine decay to zero after it")

    def __post_init__(self) -> None:
        at_least(self, 0, "optim.lr", "optim.weight_decay")
        at_least(self, 0, "optim.warmup", below=1)


@dataclass
class TrainerConfig:
    epochs: int = opt(20, "passes over the training data")
    devices: str = opt("auto", "devices per node, as Lightning reads it")
    nodes: int = opt(1, "machines")
    accelerator: str = opt("auto", "auto | cpu | gpu")
    strategy: str = opt("auto", "auto | ddp …, as Lightning reads it; fsdp (train.py clip): ranks divide the weights")
    precision: str = opt(
        "auto",
        "auto: bf16-mixed on GPUs that have it, else 32-true | fast: also on CPUs | 32-true | bf16-mixed | 16-mixed",
    )
    accumulate: int = opt(1, "batches whose gradients are added (no further negatives: see objective.micro_batch)")
    clip_norm: float = opt(1.0, "gradient norm limit (0: none)")
    workers: int = opt(0, "data loading processes")
    checkpoint_steps: int = opt(0, "steps between checkpoints within an epoch (0: at its end and on SIGTERM alone)")
    log_every: int = opt(10, "steps between logged values")
    progress: bool = opt(True, "progress bar")

    def __post_init__(self) -> None:
        at_least(self, 1, "trainer.epochs", "trainer.nodes", "trainer.accumulate")
        at_least(self, 0, *(f"trainer.{name}" for name in ("clip_norm", "workers", "checkpoint_steps", "log_every")))


@dataclass
class TextConfig(EmbedTextConfig):
    frozen: bool = opt(True, "keep BERT fixed (its vectors are cached); false fine-tunes it")
    last_layers: int = opt(0, "with frozen=false: train the last n layers alone (0: all)")
    lora_rank: int = opt(0, "with frozen=false: train low-rank additions alone (LoRA; 0: the weights themselves)")
    lr_scale: float = opt(0.1, "learning-rate factor of BERT when it is not frozen")
    variants: int = opt(0, "texts with part of a song's genres and tags that training alternates with the whole one")
    keep: float = opt(0.65, "chance of each genre and tag to be in a variant")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "text.variants")
        check_tuning("text", self)
        if self.model == TFIDF:
            raise UserError(f"text.model={TFIDF} is for pipeline.embed without clip=: CLIP reads tokens")
        if self.model == MULTILINGUAL and not self.frozen:
            raise UserError(f"text.frozen=false: {MULTILINGUAL} is not trained further; choose another text.model")
        if not 0 < self.keep <= 1:
            raise UserError(f"text.keep={self.keep:g}: must be above 0 and at most 1")


@dataclass
class AudioTowerConfig:
    model: str = opt(
        OWN_AUDIO,
        "transformer: our own, trained from scratch; musicnn (packaged); or any Hugging Face audio encoder by name or "
        "folder (these need audio.store=samples)",
    )
    frozen: bool = opt(True, "keep a published encoder fixed (its vectors are cached); false fine-tunes it")
    last_layers: int = opt(0, "with frozen=false: train the last n layers alone (0: all)")
    lora_rank: int = opt(0, "with frozen=false: train low-rank additions alone (LoRA; 0: the weights themselves)")
    lr_scale: float = opt(0.1, "learning-rate factor of a published encoder that is not frozen")

    def __post_init__(self) -> None:
        """Check that options of published encoders are not given to our own, nor those of parts to musicnn."""
        if self.model == OWN_AUDIO and (not self.frozen or self.last_layers or self.lora_rank):
            raise UserError(
                f"audio.frozen, last_layers, lora_rank are of published encoders: audio.model={OWN_AUDIO} is trained"
            )
        if self.model == MUSICNN and (self.last_layers or self.lora_rank):
            raise UserError("audio.last_layers, audio.lora_rank: musicnn is trained whole or not")
        check_tuning("audio", self)


def check_tuning(group: str, options: TextConfig | AudioTowerConfig) -> None:
    """Refuse to train part of a frozen encoder, or parts of two kinds."""
    at_least(options, 0, *(f"{group}.{name}" for name in ("last_layers", "lora_rank", "lr_scale")))
    if (options.last_layers or options.lora_rank) and options.frozen:
        raise UserError(f"{group}.last_layers, {group}.lora_rank: a frozen '{options.model}' is not trained")
    if options.last_layers and options.lora_rank:
        raise UserError(f"{group}.last_layers, {group}.lora_rank: give one of them")


def no_fsdp(trainer: TrainerConfig) -> None:
    """Refuse to divide the weights of a model that fits any GPU."""
    if trainer.strategy == "fsdp":
        raise UserError("trainer.strategy=fsdp is for train.py clip alone: the other models fit any GPU")


@dataclass
class CorpusModelConfig:
    width: int = opt(128, "width of the BERT")
    layers: int = opt(4, "layers")
    heads: int = opt(4, "attention heads")
    dropout: float = opt(0.1, "dropout")


@dataclass
class CorpusConfig:
    corpus: str = opt(REQUIRED, "documents: .jsonl, .jsonl.gz or .parquet", "file (.jsonl, .jsonl.gz or .parquet)")
    out: str = opt(REQUIRED, "run folder to write; a run found there goes on; its model/ is a text.model")
    fields: list[str] = opt(["title", "lyrics"], "fields that make a document's text, in this order")
    max_tokens: int = opt(128, "tokens of a block, and the most that the model takes")
    min_count: int = opt(5, "characters seen less often are unknown")
    batch_size: int = opt(64, "blocks per step and device")
    seed: int = opt(0, "seed")
    model: CorpusModelConfig = field(default_factory=CorpusModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        at_least(self, 8, "max_tokens")
        at_least(self, 1, "batch_size")
        no_fsdp(self.trainer)


@dataclass
class ClipModelConfig:
    dim: int = opt(128, "size of the shared audio-text space")
    width: int = opt(128, "audio Transformer width")
    layers: int = opt(4, "audio Transformer layers")
    heads: int = opt(4, "attention heads")
    dropout: float = opt(0.1, "dropout")
    recompute: bool = opt(False, "activations are computed again in the backward pass: less memory, a third more time")
    compile: bool = opt(False, "torch.compile the encoders' blocks: slow to start, faster on GPUs")
    crop_seconds: float = opt(4.0, "length of the random training crop and of the fixed inference crops")
    crops: int = opt(3, "evenly spaced crops averaged at inference")

    def __post_init__(self) -> None:
        above(self, 0, "model.crop_seconds")
        at_least(self, 1, "model.crops")


@dataclass
class ClipObjectiveConfig:
    loss: Literal["infonce", "siglip"] = opt("infonce", "infonce: one of all in the batch; siglip: pair by pair")
    unpaired: int = opt(32, "songs a step and device that have only one of audio and text: further negatives")
    micro_batch: int = opt(0, "songs embedded at a time (0: all): a larger batch_size for a second forward pass")
    temperature: float = opt(0.07, "initial temperature (learnable; its inverse is clamped at 100)")
    freq_mask: int = opt(8, "SpecAugment: widest masked band, mel bins (0: off)")
    time_mask: int = opt(20, "SpecAugment: longest masked stretch, frames (0: off)")
    gain_db: float = opt(0.0, "crops are made louder or softer by up to this (decibel; needs audio.store=samples)")
    noise_db: float = opt(0.0, "white noise, this to this + 40 decibel below a crop (0: off; for audio.store=samples)")

    def __post_init__(self) -> None:
        at_least(self, 0, *(f"objective.{name}" for name in ("unpaired", "micro_batch", "gain_db", "noise_db")))
        above(self, 0, "objective.temperature")


@dataclass
class ClipConfig:
    data: str = opt(REQUIRED, "catalogue folder (python -m pipeline.prepare)", CATALOGUE)
    out: str = opt(REQUIRED, "run folder to write; a run found there goes on")
    start: str | None = opt(None, START, "clip run")
    batch_size: int = opt(128, "songs per step and device")
    seed: int = opt(0, "seed")
    text: TextConfig = field(default_factory=TextConfig)
    audio: AudioTowerConfig = field(default_factory=AudioTowerConfig)
    model: ClipModelConfig = field(default_factory=ClipModelConfig)
    objective: ClipObjectiveConfig = field(default_factory=ClipObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        """Check the ranges, and that the options go together."""
        at_least(self, 1, "batch_size")
        if self.audio.model != OWN_AUDIO and (self.objective.gain_db or self.objective.noise_db):
            raise UserError(
                f"objective.gain_db and noise_db are of audio.model={OWN_AUDIO}: others make their own input"
            )


@dataclass
class FieldsConfig:
    use: list[str] = opt(
        [], "fields to use (empty: every vector and category that tells songs apart, see docs/data.md)"
    )
    min_count: int = opt(2, "a category value seen on fewer warm songs counts as unknown")
    block: int = opt(64, "dense vectors are embedded in blocks of this many numbers")


@dataclass
class I2IModelConfig:
    field_dim: int = opt(64, "size of each field's embedding")
    hidden: int = opt(256, "hidden width of the encoder f (0: f is linear in the field embeddings)")
    dim: int = opt(256, "size of the song vector")
    dropout: float = opt(0.3, "dropout in f")
    input_dropout: float = opt(0.3, "dropout of single numbers of dense fields (a ridge, where songs are few)")
    field_dropout: float = opt(0.0, "chance that training hides a whole field of a song (for songs that lack some)")
    normalise: bool = opt(True, "song vectors of one length, so that popularity is no part of similarity")
    residual: bool = opt(True, "known songs add a learned residual embedding to content: what their listeners taught")
    sparse_residual: bool = opt(False, "for tens of millions of songs: row-wise Adagrad for residuals, ¼ the memory")


@dataclass
class I2IObjectiveConfig:
    pair_loss: Literal["bpr", "softmax"] = opt("bpr", "loss on verified pairs; bpr: the article's")
    pair_weight: float = opt(0.3, "weight of the loss on verified pairs (0: off)")
    in_batch: bool = opt(False, "pair loss: the other pairs' targets are negatives too (softmax: with logQ correction)")
    listening_weight: float = opt(1.0, "weight of the listening loss: half a user's songs predict the rest (0: off)")
    listening_temperature: float = opt(0.1, "listening loss: initial temperature (learnable)")
    users_weight: float = opt(1.0, "listening loss: weight of a song's users among all users (a user's songs: 1)")
    users: int = opt(512, "listening loss: users a step, drawn uniformly")
    history: int = opt(40, "listening loss: songs of a user used at a time")
    candidates: int = opt(1024, "listening loss: songs drawn uniformly as candidates beside the users' own")
    item_bias: bool = opt(True, "listening loss: a bias predicted from content takes popularity out of the vectors")
    bcl_weight: float = opt(0.1, "λ, weight of the contrastive part (0: CB2CF)")
    temperature: float = opt(0.1, "τ of the contrastive part")
    negatives: int = opt(256, "pair loss: songs drawn uniformly per step as negatives of every pair")
    draws: float = opt(
        0.0, "times an epoch that the contrastive part draws each song, on average (0: bcl_batch_size songs a step)"
    )
    artist_negatives: bool = opt(True, "in the contrastive part songs of one artist are negatives of each other")
    bcl_sampling: Literal["uniform", "popularity"] = opt("uniform", "how songs are drawn for the contrastive part")
    views: Literal["complementary", "anchored"] = opt(
        "complementary", "complementary: the view of one group against that of the other; anchored: each and the song"
    )
    cut_fields: bool = opt(False, "each block of a long vector is a feature of the views, not the field as a whole")
    grouping: Literal["correlation", "random", "none"] = opt("correlation", "how features are split into two views")
    augment: Literal["mask", "noise", "both", "either", "embedding"] = opt(
        "either",
        "what changes each view; mask: features are hidden; noise: noise is added; both; either: mask or noise, by "
        "chance for each view and batch; embedding: single numbers of the embeddings are hidden",
    )
    mask_rate: float = opt(0.2, "chance that a shown feature (augment=embedding: a number of it) is hidden")
    noise_std: float = opt(0.1, "noise, as a share of the feature embedding's own spread")
    contrastive_head: bool = opt(True, "the contrastive part compares g(f(view)), not f(view)")

    def __post_init__(self) -> None:
        """Check the ranges, and that anything is learnt."""
        at_least(self, 1, "objective.negatives", "objective.users", "objective.candidates")
        at_least(self, 0, "objective.draws", below=1e6)
        above(self, 0, "objective.temperature", "objective.listening_temperature")
        if max(self.pair_weight, self.listening_weight, self.bcl_weight) <= 0:
            raise UserError(
                "objective.pair_weight, listening_weight, bcl_weight: nothing is learnt unless one is above 0"
            )
        if self.listening_weight > 0 and self.history < 2:
            raise UserError(
                f"objective.history={self.history}: half of a user's songs cannot predict the other "
                "(objective.listening_weight=0)"
            )


@dataclass
class I2IOptimConfig(OptimConfig):
    lr: float = opt(2e-3, "peak learning rate (AdamW)")


@dataclass
class I2ITrainerConfig(TrainerConfig):
    epochs: int = opt(8, "passes over the pairs")


@dataclass
class I2IConfig:
    data: str = opt(REQUIRED, "catalogue folder (python -m pipeline.prepare)", CATALOGUE)
    features: str | None = opt(None, NO_FEATURES, FEATURES)
    out: str = opt(REQUIRED, "run folder to write; a run found there goes on")
    start: str | None = opt(None, START, "i2i run")
    batch_size: int = opt(0, "pairs per step and device (0: 2048, or fewer, so that an epoch has 32 steps)")
    bcl_batch_size: int = opt(256, "contrastive part: songs drawn per step and device (if objective.draws=0)")
    seed: int = opt(0, "seed")
    search: int = opt(0, SEARCH)
    recall_k: int = opt(20, "K of the validation recall")
    recall_users: int = opt(50, "users a validation song is offered to")
    recall_mode: Literal["i2i2u", "taste"] = opt("i2i2u", "mode of targeting by which the checkpoint is chosen")
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    model: I2IModelConfig = field(default_factory=I2IModelConfig)
    objective: I2IObjectiveConfig = field(default_factory=I2IObjectiveConfig)
    optim: I2IOptimConfig = field(default_factory=I2IOptimConfig)
    trainer: I2ITrainerConfig = field(default_factory=I2ITrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        at_least(self, 1, "bcl_batch_size", "recall_k", "recall_users")
        at_least(self, 0, "batch_size", "search")
        no_fsdp(self.trainer)


@dataclass
class BoundaryModelConfig:
    history: int = opt(50, "latest plays that make a user's history")
    field_dim: int = opt(32, "size of each field's embedding")
    hidden: int = opt(256, "hidden width of the towers")
    dim: int = opt(64, "size of user, item and boundary vectors")
    dropout: float = opt(0.1, "dropout")
    prior_plays: float = opt(4.0, "plays that the taste of a user without any is worth, where a user has few")


@dataclass
class BoundaryObjectiveConfig:
    alpha: float = opt(0.25, "α, weight of a negative; 1 / negatives balances the two sides")
    negatives: int = opt(4, "negatives drawn for each positive")
    sampling: Literal["uniform", "popularity", "batch", "mixed"] = opt(
        "uniform",
        "negatives are drawn over the whole catalogue, by plays, from the batch's other plays (the cheapest), or half "
        "from the batch, half over the catalogue; the score is corrected for it, so that it means the same",
    )
    strengths: list[float] = opt([1.0, 1.0, 1.0], "weight of a positive that was only played, completed, favourited")
    positives: Literal["liked", "played"] = opt(
        "liked", "liked: favourited or completed plays are positive, others negative; played: every play is positive"
    )
    profile_dropout: float = opt(0.25, "chance that training hides a user's profile (users who come later have none)")

    def __post_init__(self) -> None:
        at_least(self, 1, "objective.negatives")
        at_least(self, 0, "objective.profile_dropout", below=1)
        if len(self.strengths) != 3 or not all(0 < one < math.inf for one in self.strengths):
            raise UserError(f"objective.strengths={self.strengths}: name three above 0 (played, completed, favourited)")


@dataclass
class BoundaryConfig:
    data: str = opt(REQUIRED, "catalogue folder (python -m pipeline.prepare)", CATALOGUE)
    features: str | None = opt(None, NO_FEATURES, FEATURES)
    out: str = opt(REQUIRED, "run folder to write; a run found there goes on")
    start: str | None = opt(None, START, "boundary run")
    batch_size: int = opt(512, "labelled plays per step and device")
    seed: int = opt(0, "seed")
    search: int = opt(0, SEARCH)
    monitor: Literal["bce", "margin_auc", "recall"] = opt(
        "bce",
        "what chooses the best checkpoint, on cold validation songs: the loss, or the AUC, of margins of listeners and "
        "of other users; or a user's recall of songs, which ignores the boundary",
    )
    recall_k: int = opt(20, "K of the validation recall")
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    model: BoundaryModelConfig = field(default_factory=BoundaryModelConfig)
    objective: BoundaryObjectiveConfig = field(default_factory=BoundaryObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size", "recall_k")
        at_least(self, 0, "search")
        at_least(self.model, 0, "model.prior_plays")
        no_fsdp(self.trainer)
