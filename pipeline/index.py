"""Song vectors → index of the known songs, and the vectors of all songs.

    python -m pipeline.index run=RUN out=INDEX
    python -m pipeline.index run=RUN out=INDEX data=CATALOGUE features=FEATURES update=true
    python -m pipeline.index run=RUN out=INDEX engine=milvus uri=http://milvus:19530

The index folder holds index.faiss (warm songs), vectors.npy (all songs of the catalogue), songs.parquet (ids, and which
`entry` of the index a song is) and manifest.json, which ties it to the encoder that made it. With `update=true` the
folder that is there becomes the catalogue's: songs that are new to it are added, those whose vector is another are
replaced, those that are gone are removed, and nothing is learned anew. Either way the folder is replaced as a whole;
a process that has it open goes on with the version that it opened.

With `engine=milvus` a collection of Milvus is in the place of index.faiss, with what conditions may name of each song:
in the folder (milvus-lite, one process at a time), or on a server (`uri=`), where an update changes it in its place. A
password is given as the environment variable MILVUS_TOKEN.
"""

from __future__ import annotations

from configs.load import command
from configs.targeting import IndexConfig


def main(config: IndexConfig) -> None:
    """Run the command (see the module's docstring)."""
    from inference.song_index import make_index  # here: --help and wrong options answer at once

    make_index(config)


if __name__ == "__main__":
    command(main, IndexConfig, __doc__)
