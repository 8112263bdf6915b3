"""Song features of a catalogue: audio, text and BERT vectors from a trained CLIP model, or BERT's vectors alone.

    python -m pipeline.embed clip=RUN data=CATALOGUE out=FEATURES
    python -m pipeline.embed data=CATALOGUE out=FEATURES text.fields=[title,tags]
    python -m pipeline.embed clip=RUN data=TODAY out=FEATURES earlier=YESTERDAYS_FEATURES

With clip= writes clip_audio.npy and clip_text.npy, unit vectors, float32 (songs, dim), and text.npy, BERT's own
vectors, when the run keeps BERT frozen. Without clip= writes text.npy alone, of the columns text.fields. A row of NaN:
the song lacks the modality. song_ids.parquet names the rows. With earlier= a song whose text and recording are as they
were in the catalogue of those features keeps its vectors. Devices and machines share the work in shards of songs; run
again after a kill, it goes on with the shards that are left.
"""

from __future__ import annotations

from configs.embedding import EmbedConfig
from configs.load import command


def main(config: EmbedConfig) -> None:
    """Run the command (see the module's docstring)."""
    from inference.embedding import embed  # here: --help and wrong options answer at once

    embed(config)


if __name__ == "__main__":
    command(main, EmbedConfig, __doc__)
