"""Searches for songs: by a text, by examples, by a recording; among all songs, known and new, or those for which a
condition holds.

A text lies in the space of the songs' words and, with a CLIP model, of their sound: there it is compared with the mean
of both, each centred (`retrieval.queries`). Examples and recordings lie where similar songs are looked for: songs are
near that have listeners in common. `serving.bulk_search` asks the same functions many things at once.

Shapes: Q queries, K results, D vector size, S songs of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from configs.errors import first_of
from data.arrays import AnyArray, FloatArray, IntArray
from data.conditions import TYPES, ConditionError, condition
from data.contract.columns import ABOUT, DAY_OF_RELEASE
from inference.song_index import kinds_asked
from retrieval.index import Only, search
from retrieval.queries import best_of, example_vector
from serving.refusals import Refused, no_condition
from serving.schemas import Search
from serving.state import State
from serving.store import StoredSong

Among = Literal["all", "known", "new"]
By = Literal["text", "songs", "recording"]
NO_WORDS = "this model cannot compare songs with words: make the service folder of features with CLIP or text, anew"
WORDLESS = "this text has no word: describe the songs"
UNREAD = "the text model of this service does not know most of these words: use a language that it reads"
DEAF = "this model does not hear: it knows songs by their words and tags"
NAMED = 3  # unknown ids that are named


@dataclass(frozen=True)
class Asked:
    """A query: its vector (D,), what it was made of, and the songs that it named."""

    vector: FloatArray
    by: By
    named: tuple[int, ...] = ()


def of_texts(state: State, texts: Sequence[str]) -> list[Asked | Refused]:
    """A query of each text, or why there is none.

    Raises:
        Refused: the model has nothing that words are compared with.
    """
    if state.model.words is None:
        raise Refused(409, NO_WORDS)
    found: list[Asked | Refused] = []
    for text, vector_D in zip(texts, state.model.encoder.phrases(texts), strict=True):
        if not any(map(str.isalnum, text)):
            found.append(Refused(422, WORDLESS))
        else:
            found.append(Asked(vector_D, "text") if np.isfinite(vector_D).all() else Refused(422, UNREAD))
    return found


def asked(state: State, given: Search) -> Asked:
    """The query that a text or songs make.

    Raises:
        Refused: they make none.
    """
    if given.text is None:
        return of_songs(state, given.like, given.dislike)
    (found,) = of_texts(state, [given.text])
    if isinstance(found, Refused):
        raise found
    return found


def of_songs(state: State, like: Sequence[str], dislike: Sequence[str] = ()) -> Asked:
    """The query of songs that are liked and songs that are not, by their ids.

    Raises:
        Refused: there is no such song, or one is on both lists.
    """
    found = {song_id: state.number(song_id) for song_id in (*like, *dislike)}
    if unknown := [song_id for song_id, number in found.items() if number is None]:
        raise Refused(404, f"no song {first_of([*map(repr, unknown)], NAMED)}")
    if both := set(like) & set(dislike):
        raise Refused(422, f"{min(both)!r} is both liked and disliked")
    numbers = {song_id: number for song_id, number in found.items() if number is not None}
    vectors = {song_id: state.vectors(number)[0] for song_id, number in numbers.items()}
    liked, disliked = (np.array([vectors[one] for one in dict.fromkeys(ids)]) for ids in (like, dislike))
    return Asked(example_vector(liked, disliked), "songs", tuple(numbers.values()))


def nearest(
    state: State, asked: Sequence[Asked], k: int, among: Among = "all", where: str | None = None
) -> tuple[FloatArray, IntArray]:
    """Scores and numbers of the k songs nearest to each query, the best first, (Q, k); −1 where there are fewer.

    All queries are by a text, or none is. A query is never answered the songs that it named.

    Raises:
        Refused: the condition is none.
    """
    vectors_QD, allowed = np.stack([one.vector for one in asked]), songs_allowed(state, among, where)
    more = k + max(len(one.named) for one in asked)
    lists = in_words if asked[0].by == "text" else in_vectors
    return best_of(lists(state, vectors_QD, more, allowed), k, [one.named for one in asked])


@dataclass(frozen=True)
class Allowed:
    """Songs that may be found: of the catalogue (S,), and numbers of accepted ones."""

    of_catalogue_S: AnyArray
    accepted: IntArray
    milvus: str = ""  # the condition as Milvus reads it


def songs_allowed(state: State, among: Among, where: str | None) -> Allowed | None:
    """Known songs, new ones, or both, of which a condition holds (`data.conditions`); None: every song.

    Raises:
        Refused: it is none.
    """
    if among == "all" and where is None:
        return None
    model = state.model
    with state.lock:
        accepted = dict(state.accepted)
    holds_S, numbers, milvus = np.ones(model.n_songs, dtype=bool), np.array(list(accepted), dtype=np.int64), ""
    if where is not None:
        kinds = kinds_asked(model.index, model.said)
        try:
            read = condition(where, kinds)
        except ConditionError as error:
            raise no_condition(error) from None
        holds_S = model.said.select(read.rows).to_series().to_numpy().copy()
        told = described(list(accepted.values()), kinds)
        numbers, milvus = numbers[told.select(read.rows).to_series().to_numpy()], read.milvus
    if among == "known":
        holds_S[model.new], numbers = False, numbers[:0]
    elif among == "new":
        new_S = np.zeros(model.n_songs, dtype=bool)
        new_S[model.new] = True
        holds_S &= new_S
    return Allowed(holds_S, numbers, milvus)


def described(songs: Sequence[StoredSong], kinds: dict[str, str]) -> pl.DataFrame:
    """What conditions may name of accepted songs, as `data.conditions.columns_of` makes it of the catalogue's."""
    rows = [{"song_id": song.song_id} | song.described for song in songs]
    table = pl.DataFrame(rows, schema={"song_id": pl.String()} | ABOUT | {DAY_OF_RELEASE: pl.String()})
    table = table.with_columns(pl.col(DAY_OF_RELEASE).str.to_date("%Y-%m-%d", strict=False))
    return table.select(
        pl.col(name) if name in table.columns else pl.lit(None, dtype=TYPES[kind]).alias(name)
        for name, kind in kinds.items()
    )


def in_words(
    state: State, vectors_QD: FloatArray, k: int, allowed: Allowed | None
) -> list[tuple[FloatArray, IntArray]]:
    """Songs whose words and sound are nearest: of the catalogue, and accepted ones."""
    of_catalogue = None if allowed is None else Only(np.flatnonzero(allowed.of_catalogue_S))
    lists = [search(state.model.words, vectors_QD, k, of_catalogue)]
    with state.lock:
        if state.words is not None:
            lists.append(search(state.words, vectors_QD, k, None if allowed is None else Only(allowed.accepted)))
    return lists


def in_vectors(
    state: State, vectors_QD: FloatArray, k: int, allowed: Allowed | None
) -> list[tuple[FloatArray, IntArray]]:
    """Songs whose vectors are nearest: those with listeners, and new ones."""
    model = state.model
    known, new = model.index, None
    if allowed is not None:
        holds_S = allowed.of_catalogue_S
        entries = np.flatnonzero((known.songs >= 0) & holds_S[known.songs])
        known = replace(known, only=Only(entries, allowed.milvus))
        new = Only(np.concatenate([model.new[holds_S[model.new]], allowed.accepted]))
    lists = [known.similar(vectors_QD, k)]
    with state.lock:
        if state.new_index is not None:
            lists.append(search(state.new_index, vectors_QD, k, new))
    return lists
