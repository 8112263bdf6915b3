"""Every option of every command: type, default, meaning. YAML files and `key=value` may change nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING


def opt(default: Any, help: str) -> Any:
    """A dataclass field with its meaning, shown by `--help`. Lists and dicts become default factories."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


# ------------------------------------------------------------------------------------------ tracking


@dataclass
class LoggerConfig:
    wandb: Literal["online", "offline", "off"] = opt("offline", "Weights & Biases (a CSV log is always written)")
    project: str = opt("firstplay", "W&B project")
    upload: bool = opt(False, "keep the files of what was made in W&B too, not their names and sizes alone")


@dataclass
class CommandLoggerConfig(LoggerConfig):
    wandb: Literal["online", "offline", "off"] = opt("off", "Weights & Biases: what was made of what (adds seconds)")


# ---------------------------------------------------------------------------------------------- data


@dataclass
class WorldConfig:
    out: str = opt(MISSING, "folder to write (a dataset folder, see docs/data.md)")
    songs: int = opt(2000, "songs in the catalogue, new releases included")
    users: int = opt(3000, "listeners")
    seconds: float = opt(5.0, "length of each synthesised recording, seconds")
    truth_users: int = opt(1000, "users whose outcome on every cold song is written to truth.parquet")
    audio: bool = opt(True, "synthesise audio (false: text and behaviour only)")
    workers: int = opt(2, "processes that synthesise audio")
    seed: int = opt(0, "seed of the whole world")


@dataclass
class AudioConfig:
    sample_rate: int = opt(16000, "Hz; files are resampled and down-mixed to this")
    n_mels: int = opt(64, "mel bands")
    win_length: int = opt(800, "STFT window, samples")
    hop_length: int = opt(320, "STFT hop, samples (320 at 16 kHz = 50 frames a second)")
    max_seconds: float = opt(30.0, "keep at most this much of a file, from its middle")
    min_seconds: float = opt(1.0, "shorter files count as songs without audio")
    store: Literal["logmel", "samples", "files"] = opt(
        "logmel", "what is kept of a recording: log-mel frames, 16-bit samples, or nothing (decoded anew for each crop)"
    )
    cache: str | None = opt(None, "folder of decoded audio, which several catalogues may share (default: OUT_audio)")
    verify: bool = opt(False, "compare the checksums of the decoded audio that is there, not its size alone")


@dataclass
class SplitConfig:
    cutoff: str | None = opt(None, "YYYY-MM-DD: songs released on or after it are cold (default: by cold_share)")
    until: str | None = opt(None, "YYYY-MM-DD: songs released on or after it are left out (undated ones stay)")
    cold_share: float = opt(0.2, "share of songs that is cold when no cutoff and no split column is given")
    by: Literal["auto", "column", "time", "random", "artist"] = opt(
        "auto", "how songs are split; artist: whole artists"
    )
    seed: int = opt(0, "seed of a random split")


@dataclass
class PairsConfig:
    similarity: Literal["phi", "cosine", "iuf", "bm25"] = opt(
        "phi", "collaborative similarity; phi: cosine less what chance gives; iuf: cosine in which heavy users say less"
    )
    shrinkage: float = opt(0.0, "a similarity seen in n common listeners counts n / (n + this) of itself")
    top_k: int = opt(30, "neighbours kept per song")
    min_common: int = opt(2, "listeners two songs must share")
    max_history: int = opt(10_000, "songs of a user that count when pairs are mined: strongest, then latest (0: all)")
    posterior: Literal["auto", "feedback", "later_plays", "feedback_and_later_plays", "split_users", "none"] = opt(
        "auto", "how a pair is verified; auto: by what there is: a large feedback table, else times and a small one"
    )
    prior_plays: float = opt(20.0, "smoothing: a pair's rate starts as this many plays at the global rate")
    min_lift: float = opt(1.0, "keep a pair if its smoothed rate is at least this multiple of the global rate")
    keep_unobserved: bool = opt(True, "keep pairs that were never recommended (they have the global rate)")


@dataclass
class SparkConfig:
    master: str | None = opt(
        None, "engine=spark: where it runs, e.g. local[8] (default: what spark-submit or its settings say)"
    )


@dataclass
class PrepareConfig:
    source: str = opt(MISSING, "dataset folder (or the published lfm2k folder / hetrec zip, see format)")
    out: str = opt(MISSING, "catalogue folder to write")
    format: Literal["contract", "lfm2k", "hetrec"] = opt("contract", "layout of source")
    plays: str | None = opt(
        None, "Parquet file, folder or glob of plays (default: SOURCE/plays.parquet, SOURCE/plays/)"
    )
    memory_gb: float = opt(0.0, "memory for plays while they are checked and sorted, the rest on disk (0: all at once)")
    engine: Literal["local", "spark"] = opt("local", "what reads plays and mines pairs: this machine, or Apache Spark")
    spark: SparkConfig = field(default_factory=SparkConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    text_model: str = opt("minilm", "text encoder whose vocabulary the text is checked against")
    workers: int = opt(2, "processes that decode audio")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


# ------------------------------------------------------------------------------------------ training


@dataclass
class OptimConfig:
    lr: float = opt(1e-3, "peak learning rate (AdamW)")
    weight_decay: float = opt(0.01, "weight decay (none on biases, norms and scalars)")
    warmup: float = opt(0.05, "share of all steps with linear warm-up; cosine decay to zero after it")


@dataclass
class TrainerConfig:
    epochs: int = opt(20, "passes over the training data")
    devices: str = opt("auto", "devices per node, as Lightning reads it")
    nodes: int = opt(1, "machines")
    accelerator: str = opt("auto", "auto | cpu | gpu")
    strategy: str = opt(
        "auto", "auto | ddp …, as Lightning reads it; fsdp (train.py clip): weights divided among the ranks"
    )
    precision: str = opt(
        "auto", "auto: bf16-mixed on GPUs that have it, else 32-true | 32-true | bf16-mixed | 16-mixed"
    )
    accumulate: int = opt(
        1, "batches whose gradients are added (adds no negatives; for clip see objective.micro_batch)"
    )
    clip_norm: float = opt(1.0, "gradient norm limit (0: none)")
    workers: int = opt(0, "data loading processes")
    checkpoint_steps: int = opt(0, "steps between checkpoints within an epoch (0: at its end and on SIGTERM alone)")
    log_every: int = opt(10, "steps between logged values")
    progress: bool = opt(True, "progress bar")


@dataclass
class EmbedTextConfig:
    model: str = opt("minilm", "minilm (packaged all-MiniLM-L6-v2), or any Hugging Face name or folder")
    fields: list[str] = opt(
        ["title", "lyrics"], "columns of text or lists of text that make a song's text, in this order"
    )
    max_tokens: int = opt(128, "tokens of a window")
    windows: int = opt(1, "windows that a long text (lyrics) is read in, one after another; the rest is cut off")


@dataclass
class TextConfig(EmbedTextConfig):
    frozen: bool = opt(True, "keep BERT fixed (its vectors are cached); false fine-tunes it")
    last_layers: int = opt(0, "with frozen=false: train the last n layers alone (0: all)")
    lora_rank: int = opt(0, "with frozen=false: train low-rank additions alone (LoRA; 0: the weights themselves)")
    lr_scale: float = opt(0.1, "learning-rate factor of BERT when it is not frozen")
    variants: int = opt(0, "texts with part of a song's genres and tags that training alternates with the whole one")
    keep: float = opt(0.65, "chance of each genre and tag to be in a variant")


@dataclass
class AudioTowerConfig:
    model: str = opt(
        "transformer",
        "transformer: our own, trained from scratch; musicnn (packaged); or any Hugging Face audio encoder by name or "
        "folder (these need audio.store=samples)",
    )
    frozen: bool = opt(True, "keep a published encoder fixed (its vectors are cached); false fine-tunes it")
    last_layers: int = opt(0, "with frozen=false: train the last n layers alone (0: all)")
    lora_rank: int = opt(0, "with frozen=false: train low-rank additions alone (LoRA; 0: the weights themselves)")
    lr_scale: float = opt(0.1, "learning-rate factor of a published encoder that is not frozen")


@dataclass
class CorpusModelConfig:
    width: int = opt(128, "width of the BERT")
    layers: int = opt(4, "layers")
    heads: int = opt(4, "attention heads")
    dropout: float = opt(0.1, "dropout")


@dataclass
class CorpusConfig:
    corpus: str = opt(MISSING, "documents: .jsonl, .jsonl.gz or .parquet")
    out: str = opt(MISSING, "run folder to write; a run found there goes on; its model/ is a text.model")
    fields: list[str] = opt(["title", "lyrics"], "fields that make a document's text, in this order")
    max_tokens: int = opt(128, "tokens of a block, and the most that the model takes")
    min_count: int = opt(5, "characters seen less often are unknown")
    batch_size: int = opt(64, "blocks per step and device")
    seed: int = opt(0, "seed")
    model: CorpusModelConfig = field(default_factory=CorpusModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


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


@dataclass
class ClipObjectiveConfig:
    loss: Literal["infonce", "siglip"] = opt(
        "infonce", "infonce: the right one of all in the batch; siglip: pair by pair"
    )
    unpaired: int = opt(32, "songs a step and device that have only one of audio and text: further negatives")
    micro_batch: int = opt(
        0, "songs embedded at a time (0: all): the loss of a batch_size beyond memory, for a second forward pass"
    )
    temperature: float = opt(0.07, "initial temperature (learnable; its inverse is clamped at 100)")
    freq_mask: int = opt(8, "SpecAugment: widest masked band, mel bins (0: off)")
    time_mask: int = opt(20, "SpecAugment: longest masked stretch, frames (0: off)")
    gain_db: float = opt(0.0, "crops are made louder or softer by up to this (decibel; needs audio.store=samples)")
    noise_db: float = opt(
        0.0, "white noise, this to this + 40 decibel below a crop (0: off; needs audio.store=samples)"
    )


@dataclass
class ClipConfig:
    data: str = opt(MISSING, "catalogue folder (python -m pipeline.prepare)")
    out: str = opt(MISSING, "run folder to write; a run found there goes on")
    batch_size: int = opt(128, "songs per step and device")
    seed: int = opt(0, "seed")
    text: TextConfig = field(default_factory=TextConfig)
    audio: AudioTowerConfig = field(default_factory=AudioTowerConfig)
    model: ClipModelConfig = field(default_factory=ClipModelConfig)
    objective: ClipObjectiveConfig = field(default_factory=ClipObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class EmbedConfig:
    clip: str | None = opt(None, "run folder of train.py clip; none: vectors of the text encoder alone")
    data: str = opt(MISSING, "catalogue folder")
    out: str = opt(MISSING, "feature folder to write")
    text: EmbedTextConfig = field(default_factory=EmbedTextConfig)  # without clip=; a run has its own
    batch_size: int = opt(64, "songs per step and device")
    devices: str = opt("auto", "devices per node")
    accelerator: str = opt("auto", "auto | cpu | gpu")
    workers: int = opt(0, "data loading processes")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


@dataclass
class FieldsConfig:
    use: list[str] = opt([], "fields to use (empty: every feature vector, language, genres, tags, artist_id)")
    min_count: int = opt(2, "a category value seen on fewer warm songs counts as unknown")
    block: int = opt(64, "dense vectors are cut into blocks of this many numbers; each block is one feature")


@dataclass
class I2IModelConfig:
    field_dim: int = opt(32, "size of each field's embedding")
    hidden: int = opt(256, "hidden width of the encoder f (0: f is linear in the field embeddings)")
    dim: int = opt(64, "size of the song vector")
    dropout: float = opt(0.1, "dropout in f")
    input_dropout: float = opt(0.0, "dropout of single numbers of dense fields (a ridge, where songs are few)")
    field_dropout: float = opt(0.0, "chance that training hides a whole field of a song (for songs that lack some)")
    normalise: bool = opt(True, "song vectors of one length, so that popularity is no part of similarity")
    residual: bool = opt(True, "known songs add a learned residual embedding to content: what their listeners taught")


@dataclass
class I2IObjectiveConfig:
    pair_loss: Literal["bpr", "softmax", "sparsemax"] = opt("bpr", "loss on verified pairs; bpr: the article's")
    pair_weight: float = opt(1.0, "weight of the loss on verified pairs (0: off)")
    in_batch: bool = opt(False, "the other pairs' targets are negatives too (softmax: with logQ correction)")
    listening_weight: float = opt(1.0, "weight of predicting half of a user's songs from the other half (0: off)")
    listening_temperature: float = opt(0.1, "initial temperature of that part (learnable)")
    users_weight: float = opt(1.0, "in that part, weight of a song's users among all users beside a user's songs")
    users: int = opt(512, "users a step for that part, drawn uniformly")
    history: int = opt(100, "songs of a user used at a time")
    candidates: int = opt(2048, "songs drawn uniformly as candidates beside the users' own (all, if there are no more)")
    item_bias: bool = opt(True, "in that part a bias predicted from content takes popularity out of the vectors")
    bcl_weight: float = opt(0.1, "λ, weight of the contrastive part (0: CB2CF)")
    temperature: float = opt(0.1, "τ of the contrastive part")
    negatives: int = opt(512, "songs drawn uniformly per step; every pair is ranked against all of them")
    bcl_sampling: Literal["uniform", "popularity"] = opt("uniform", "how songs are drawn for the contrastive part")
    grouping: Literal["correlation", "random", "none"] = opt("correlation", "how features are split into two views")
    augment: Literal["mask", "noise", "both", "either", "embedding"] = opt(
        "either", "transformation of each view; embedding: single numbers of the embeddings are hidden"
    )
    mask_rate: float = opt(0.2, "chance that a shown feature (augment=embedding: a number of it) is hidden")
    noise_std: float = opt(0.1, "noise, as a share of the feature embedding's own spread")
    contrastive_head: bool = opt(True, "the contrastive part compares g(f(view)), not f(view)")


@dataclass
class I2IConfig:
    data: str = opt(MISSING, "catalogue folder (python -m pipeline.prepare)")
    features: str | None = opt(None, "feature folder (python -m pipeline.embed); none: the catalogue's own fields")
    out: str = opt(MISSING, "run folder to write; a run found there goes on")
    batch_size: int = opt(256, "pairs per step and device")
    bcl_batch_size: int = opt(256, "songs drawn uniformly for the contrastive part, per step and device")
    seed: int = opt(0, "seed")
    recall_k: int = opt(20, "K of the validation recall")
    recall_users: int = opt(50, "users a validation song is offered to")
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    model: I2IModelConfig = field(default_factory=I2IModelConfig)
    objective: I2IObjectiveConfig = field(default_factory=I2IObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class BoundaryModelConfig:
    history: int = opt(50, "latest plays that make a user's history")
    field_dim: int = opt(32, "size of each field's embedding")
    hidden: int = opt(256, "hidden width of the towers")
    dim: int = opt(64, "size of user, item and boundary vectors")
    dropout: float = opt(0.1, "dropout")


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
        "liked",
        "liked: favourited or completed plays are positive, other plays negative; played: every play is positive",
    )


@dataclass
class BoundaryConfig:
    data: str = opt(MISSING, "catalogue folder (python -m pipeline.prepare)")
    features: str | None = opt(None, "feature folder (python -m pipeline.embed); none: the catalogue's own fields")
    out: str = opt(MISSING, "run folder to write; a run found there goes on")
    batch_size: int = opt(512, "labelled plays per step and device")
    seed: int = opt(0, "seed")
    recall_k: int = opt(20, "K of the validation recall")
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    model: BoundaryModelConfig = field(default_factory=BoundaryModelConfig)
    objective: BoundaryObjectiveConfig = field(default_factory=BoundaryObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


# ----------------------------------------------------------------------------------- retrieval and after


@dataclass
class IndexConfig:
    run: str = opt(MISSING, "run folder of train.py i2i")
    out: str = opt(MISSING, "index folder to write")
    data: str | None = opt(None, "catalogue folder (default: the one the run was trained on)")
    features: str | None = opt(None, "feature folder (default: the one the run was trained on)")
    index: str = opt(
        "auto",
        "FAISS factory string: Flat (exact), IVF,Flat (2√N lists), IVF4096,PQ64, HNSW32 …; auto: by how many songs",
    )
    recall: float = opt(0.95, "share of the exact 100 most similar songs that an approximate index must find")
    update: bool = opt(
        False, "add, replace and remove songs of the index folder that is there (same encoder), instead of a new one"
    )
    seed: int = opt(0, "seed of the samples that an approximate index is learned from and tuned on")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


@dataclass
class TargetingConfig:
    neighbours: int = opt(100, "similar songs looked up for a new song")
    budget: int = opt(100, "users per new song")
    activity_power: float = opt(0.0, "a user's score is divided by (his plays + 1) to this power")
    popularity_power: float = opt(0.5, "a known song's listeners weigh 1 / (its plays + 1) to this power")
    similarity_power: float = opt(1.0, "sharpness of the similarity weights")
    seed_users: int = opt(20, "CAT: first listeners by I2I2U whose tastes are clustered")
    clusters: int = opt(8, "CAT: clusters of a new song's first listeners")
    song_weight: float = opt(2.0, "CAT: weight of the new song itself beside a cluster's centre (0: centres alone)")
    seed: int = opt(0, "CAT: seed of the k-means starts")
    margin: float = opt(
        0.0, "the gate: how far a song must clear a user's boundary (above 0: fewer and surer, below 0: more)"
    )
    warm_up: float = opt(5.0, "with plays=: first plays at which they say as much of a song as its content")
    users_index: str = opt(
        "Flat", "mode=boundary: FAISS index of the users; Flat is exact, IVF,Flat faster where there are millions"
    )
    songs_per_user: int = opt(20, "with boundary=: songs listed for a user in recommendations.parquet")
    per_user_cap: int = opt(0, "new songs a user may be named for in audience.parquet, over all of them (0: no limit)")
    memory_mb: float = opt(1024.0, "working memory for scores; new songs are scored so many at a time as fit in it")


@dataclass
class AudienceConfig:
    mode: Literal["i2i2u", "taste", "cat", "union", "boundary"] = opt(
        "i2i2u",
        "similar songs' listeners; users whose songs are similar on the whole; users near clusters of the first; "
        "first and last together; users above their own boundary",
    )
    out: str = opt(MISSING, "audience folder to write")
    index: str | None = opt(None, "index folder (needed)")
    boundary: str | None = opt(None, "run folder of train.py boundary (needed for mode=boundary and for gate=true)")
    gate: bool = opt(False, "keep only users whose boundary the song clears (mode=boundary does anyway)")
    exclude: str | None = opt(
        None, "Parquet file of user_id [, song_id]: users who must not be reached, or not with that song"
    )
    plays: str | None = opt(
        None,
        "Parquet file of first plays of new songs (like plays.parquet): they warm up, their listeners are left out",
    )
    split: Literal["cold", "cold_test", "cold_val"] = opt("cold_test", "which new songs; cold: all of them")
    since: str | None = opt(None, "YYYY-MM-DD: of these only the ones released on or after it")
    long_tail: int | None = opt(
        None,
        "known songs with at most this many training plays get an audience too (of users who have not played them)",
    )
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    show: str | None = opt(None, "song_id whose audience is printed as a table (default: the first)")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


@dataclass
class EvaluateConfig:
    data: str = opt(MISSING, "catalogue folder")
    out: str = opt(MISSING, "folder for metrics.json and report.html")
    index: str = opt(MISSING, "index folder of the full model")
    cb2cf: str | None = opt(None, "index folder of the model without the contrastive part")
    features: str | None = opt(None, "feature folder (audio-text retrieval, content kNN)")
    boundary: str | None = opt(None, "run folder of train.py boundary")
    truth: str | None = opt(None, "truth.parquet of the demo world: outcome of every new song for some users")
    split: Literal["cold_test", "cold_val"] = opt("cold_test", "which new songs are evaluated")
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    budgets: list[int] = opt([10, 50, 100], "audience sizes at which target users are counted")
    seed: int = opt(0, "seed of the random baseline and of the bootstrap intervals")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


@dataclass
class ZeroshotConfig:
    features: str = opt(MISSING, "feature folder of pipeline.embed with clip=")
    data: str = opt(MISSING, "catalogue folder")
    out: str = opt(MISSING, "folder to write")
    labels: list[str] = opt([], "labels to choose from")
    column: str | None = opt(
        None, "or a column of songs.parquet: its values are the labels, and the answers are checked"
    )
    prompts: list[str] = opt(["{}", "{} music", "a {} song"], "ways to write a label, {} being the label")
    top: int = opt(5, "tags a song")


@dataclass
class ProbeConfig:
    data: str = opt(MISSING, "catalogue folder")
    features: str | None = opt(None, "feature folder of pipeline.embed")
    column: str = opt("genres", "column of songs.parquet; a song's first value is its label")
    use: list[str] = opt(
        [], "vectors to probe beside mel statistics: clip_audio, clip_text, text, or own feature names"
    )
    folds: int = opt(5, "parts, each tested once by a classifier trained on the others")
    out: str | None = opt(None, "JSON file to write")
    seed: int = opt(0, "seed of the parts")


@dataclass
class ExportConfig:
    run: str = opt(MISSING, "run folder of train.py clip, i2i or boundary")
    out: str = opt(MISSING, "export folder to write")
    formats: list[Literal["onnx", "torch_export"]] = opt([], "programs beside the weights: onnx, torch_export")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


@dataclass
class ServiceConfig:
    index: str = opt(MISSING, "index folder of the song encoder")
    out: str = opt(MISSING, "service folder to write")
    boundary: str | None = opt(None, "run folder of train.py boundary: users' boundaries, recommendations")
    labels: list[str] = opt([], "tags that are guessed from a new song's sound (default: the catalogue's genres)")
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


# --------------------------------------------------------------------------------------------- serving


@dataclass
class FeedbackConfig:
    store: str = opt(MISSING, "store folder of python -m serving (which may be running)")
    out: str = opt(MISSING, "folder to write: plays, i2i_feedback and songs with their audio, for the next training")


@dataclass
class ServingConfig:
    model: str = opt(MISSING, "service folder (python -m pipeline.service); watched: a new version is taken over")
    store: str = opt(MISSING, "folder of the songs and plays that come in; made if it is not there")
    host: str = opt("127.0.0.1", "address to listen on; any but this machine's own needs a token")
    port: int = opt(8000, "port to listen on (0: any free one)")
    token: str | None = opt(None, "file whose first line is the bearer token (or the environment's FIRSTPLAY_TOKEN)")
    audio: str | None = opt(None, "folder that audio_path of the known songs is in (default: that of the dataset)")
    origins: list[str] = opt([], "web pages of other origins that may call the service (none)")
    max_upload_mb: float = opt(30.0, "largest request")
    max_minutes: float = opt(60.0, "longest recording that is accepted; its middle is heard")
    max_requests: int = opt(64, "requests in flight; more are answered 429")
    batch: int = opt(16, "songs encoded together at most")
    decoders: int = opt(2, "processes that decode audio")
    timeout: float = opt(30.0, "seconds after which a request is given up with 503")
    threads: int = opt(0, "threads of the models (0: all cores)")
    watch_seconds: float = opt(5.0, "how often the model folder is looked at; 0: only on SIGHUP")
