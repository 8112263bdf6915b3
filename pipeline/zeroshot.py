"""Tags for songs that nobody has tagged, from their audio alone: each label is put into words and compared with it.

    python -m pipeline.zeroshot features=FEATURES data=CATALOGUE labels=[rock,jazz,classical] out=TAGS
    python -m pipeline.zeroshot features=FEATURES data=CATALOGUE column=genres out=TAGS

FEATURES come from pipeline.embed with clip=; its CLIP run embeds the labels. Each label is written in several ways
(`prompts`, {} being the label) and is the mean of their vectors. With column= the labels are the values of that column,
and the command prints how often the first tag is one of the song's own, beside the most frequent label and chance.
Writes tags.parquet: song_id, rank, label, score (cosine); songs without audio have none.
"""

from __future__ import annotations

from configs.load import command
from configs.targeting import ZeroshotConfig


def main(config: ZeroshotConfig) -> None:
    """Run the command (see the module's docstring)."""
    from inference.zeroshot import tag_songs  # here: --help and wrong options answer at once

    tag_songs(config)


if __name__ == "__main__":
    command(main, ZeroshotConfig, __doc__)
