"""Options of the export, of the service, and of exporting the songs and plays that the service has received."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import UserError
from configs.options import INDEX, REQUIRED, SERVICE, CommandLoggerConfig, above, at_least, opt
from configs.targeting import TargetingConfig

MOST_MB = 256  # a quarter of a decoder's memory


@dataclass
class ExportConfig:
    run: str = opt(REQUIRED, "run folder of train.py clip, i2i, boundary, or rank with model=network", "run")
    out: str = opt(REQUIRED, "export folder to write")
    formats: list[Literal["onnx", "torch_export"]] = opt([], "programs beside the weights: onnx, torch_export")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)


@dataclass
class ServiceConfig:
    index: str = opt(REQUIRED, "index folder of the song encoder", INDEX)
    out: str = opt(REQUIRED, "service folder to write")
    boundary: str | None = opt(
        None, "run folder of train.py boundary: users' boundaries, recommendations", "boundary run"
    )
    rank: str | None = opt(None, "run folder of train.py rank: mode=rank, which orders candidates", "rank run")
    labels: list[str] = opt([], "tags that are guessed from a new song's sound (default: the catalogue's genres)")
    new_users: int = opt(
        10_000, "users whom the training has not seen that the service takes in, by their plays; more wait for the next"
    )
    targeting: TargetingConfig = field(default_factory=TargetingConfig)
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        at_least(self, 0, "new_users")


@dataclass
class SearchConfig:
    model: str = opt(REQUIRED, "service folder (python -m pipeline.service)", SERVICE)
    queries: str = opt(
        REQUIRED,
        "file of queries, one a line, as JSON with the fields of POST /search (docs/serving.md); audio: a path",
        "file; wanted: a query a line, as JSON",
    )
    out: str = opt(REQUIRED, "folder to write")


@dataclass
class FeedbackConfig:
    store: str = opt(REQUIRED, "store of python -m serving (which may be running): a folder or postgresql://…", "store")
    out: str = opt(REQUIRED, "folder to write: plays, i2i_feedback and songs with their audio, for the next training")


@dataclass
class ServingConfig:
    model: str = opt(
        REQUIRED,
        "service folder (python -m pipeline.service), or its address s3://…; watched: a new version is taken over",
        SERVICE,
    )
    cache: str = opt("~/.cache/firstplay", "folder that a model=s3://… is brought to")
    store: str = opt(
        REQUIRED,
        "where songs and plays that come in are kept: a folder, made if it is not there, or postgresql://USER@HOST/DATABASE",
    )
    host: str = opt("127.0.0.1", "address to listen on; any but this machine's own needs a token")
    port: int = opt(8000, "port to listen on (0: any free one)")
    token: str | None = opt(None, "file whose first line is the bearer token (or the environment's FIRSTPLAY_TOKEN)")
    audio: str | None = opt(None, "folder that audio_path of the known songs is in (default: that of the dataset)")
    origins: list[str] = opt([], "web pages of other origins that may call the service (none)")
    max_upload_mb: float = opt(30.0, "largest request")
    max_minutes: float = opt(60.0, "longest recording that is accepted; its middle is heard")
    max_requests: int = opt(64, "requests in flight; more are answered 429")
    batch: int = opt(16, "songs encoded together at most")
    precision: Literal["float32", "bfloat16"] = opt(
        "float32", "of a BERT text model's products; bfloat16 takes two thirds of the time, and changes lists a little"
    )
    decoders: int = opt(2, "processes that decode audio")
    timeout: float = opt(30.0, "seconds for a body to arrive (else 408), a decoding (422), waiting and encoding (503)")
    threads: int = opt(0, "threads of the models (0: all cores)")
    watch_seconds: float = opt(5.0, "how often the model folder is looked at; 0: only on SIGHUP")
    follow: float = opt(0.5, "seconds between two looks at what other services have written to store=postgresql://…")

    def __post_init__(self) -> None:
        above(
            self, 0, "max_upload_mb", "max_minutes", "timeout", "max_requests", "batch", "decoders", "follow", below=1e6
        )
        at_least(self, 0, "threads", "watch_seconds")
        at_least(self, 0, "port", below=65536)
        if self.max_upload_mb > MOST_MB:
            raise UserError(f"max_upload_mb={self.max_upload_mb:g}: decoders take at most {MOST_MB:g}")
