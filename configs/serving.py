"""Options of the export, of the service and of what it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from omegaconf import MISSING

from configs.options import CommandLoggerConfig, opt
from configs.targeting import TargetingConfig


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
