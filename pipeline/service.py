"""Trained runs → one folder with all that the service needs: models, index, listeners, vectors.

    python -m pipeline.service index=INDEX boundary=RUN rank=RANKER out=SERVICE
    python -m serving model=SERVICE store=STORE

The index names its song encoder, its catalogue and its features; these name the CLIP run. Without boundary= nobody has
a boundary, and without rank= there is no mode=rank; with features that no CLIP run made, new songs are known by their
words and tags alone. The folder needs no other, and is replaced as a whole: a running service then goes over to the new
one.

    clip/ i2i/ boundary/   weights and config.json, as pipeline.export writes them
    rank/                  the ranker
    index/                 known songs for FAISS, vectors of all songs
    catalogue/             songs, users
    plays/ listening/      plays by user; who listened to what, by user and by song
    words/                 what texts are compared with, of all songs, for FAISS
    features/              dense fields of all songs; the text model if it is fitted to them (text.model=tfidf)
    tastes.npy cat_tastes.npy    what users like, as taste and CAT take it
    items.npy users.npy boundaries.npy    vectors of the towers      labels.npy    vectors of the tags to guess
"""

from __future__ import annotations

from configs.load import command
from configs.serving import ServiceConfig


def main(config: ServiceConfig) -> None:
    """Run the command (see the module's docstring)."""
    from export.service import export_service  # here: --help and wrong options answer at once

    export_service(config)


if __name__ == "__main__":
    command(main, ServiceConfig, __doc__)
