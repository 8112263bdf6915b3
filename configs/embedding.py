"""Options of the features that an encoder makes of songs."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.errors import UserError
from configs.options import CATALOGUE, FEATURES, REQUIRED, CommandLoggerConfig, at_least, opt

TFIDF = "tfidf"  # of text.model: of characters, fitted to the catalogue's known songs
MULTILINGUAL = "use-multilingual"  # of text.model: the packaged Universal Sentence Encoder


@dataclass
class EmbedTextConfig:
    model: str = opt(
        "minilm",
        f"minilm (packaged all-MiniLM-L6-v2, English), {MULTILINGUAL} (packaged, 15 languages), any Hugging Face name "
        f"or folder, or {TFIDF} (of characters)",
    )
    fields: list[str] = opt(["title", "lyrics"], "columns of text, or lists of it, that make a song's text, in order")
    max_tokens: int = opt(128, "tokens of a window")
    windows: int = opt(1, "windows that a long text (lyrics) is read in, one after another; the rest is cut off")

    def __post_init__(self) -> None:
        at_least(self, 3, "text.max_tokens")
        at_least(self, 1, "text.windows")


@dataclass
class EmbedConfig:
    clip: str | None = opt(None, "run folder of train.py clip; none: vectors of the text encoder alone", "clip run")
    data: str = opt(REQUIRED, "catalogue folder", CATALOGUE)
    out: str = opt(REQUIRED, "feature folder to write")
    earlier: str | None = opt(
        None,
        "features of an earlier catalogue: a song whose text and recording are as they were keeps theirs",
        FEATURES,
    )
    text: EmbedTextConfig = field(default_factory=EmbedTextConfig)  # without clip=; a run has its own
    batch_size: int = opt(64, "songs per step and device")
    devices: str = opt("auto", "devices per node")
    nodes: int = opt(1, "machines (configs/cluster/torchrun.sh)")
    accelerator: str = opt("auto", "auto | cpu | gpu")
    workers: int = opt(0, "data loading processes")
    logger: CommandLoggerConfig = field(default_factory=CommandLoggerConfig)

    def __post_init__(self) -> None:
        """Check the ranges, and that a run's text options are left to it."""
        at_least(self, 1, "batch_size", "nodes")
        if self.clip is not None and self.text != EmbedTextConfig():
            raise UserError(f"text.* are those of the run {self.clip}: leave them out, or leave clip= out")
        if self.earlier is not None and self.text.model == TFIDF:
            raise UserError(f"text.model={TFIDF} is fitted to each catalogue anew: leave earlier= out")
