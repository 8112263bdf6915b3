"""What Spark's workers do for `inference.spark_audience`: `Targeting` of one part of the users.

Apart from the driver's half, so that a worker's process imports arrays alone.

Shapes: C new songs, S songs, U users of the part, N rows, B budget, D vector size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from retrieval.audience import Excluded
from retrieval.boundary import NO_EXCLUSIONS
from retrieval.clusters import user_vectors
from retrieval.listening import Listening, once_each
from retrieval.songs import Songs
from retrieval.targeting import Mode, Targeting, TargetingOptions

Array = NDArray[Any]
ROWS = 10_000  # users sent at a time


@dataclass(frozen=True)
class Reach:
    """Who of a song's users may be reached: not those excluded and, with a gate, those whose boundary it clears."""

    gate: bool = False
    margin: float = 0.0


@dataclass(frozen=True)
class Search:
    """A list of users for every song: by which mode, how long, and of whom; None: of everybody."""

    mode: Mode
    budget: int
    reach: Reach | None = None


@dataclass(frozen=True)
class Shared:
    """What every task gets: the new songs, all songs' vectors and factors, and how audiences are found."""

    songs: Songs
    song_SD: Array
    popularity_S: Array
    options: TargetingOptions


def packed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Pack one part's plays (user, song, strength) into a row for each user: songs, ascending, and strongest signals.

    What is looked for in a part is looked for in these rows, so that plays are sent to Python and sorted once.
    """
    if not (batches := list(batches)):
        return
    table = pa.Table.from_batches(batches)
    user, song, strength = (table[name].to_numpy() for name in ("user", "song", "strength"))
    user, song, strength = once_each(user, song, strength, int(song.max(initial=0)) + 1)
    start = np.flatnonzero(np.diff(user, prepend=np.iinfo(np.int64).min))
    ends = pa.array(np.append(start, len(user)).astype(np.int32))
    lists = {"song": song.astype(np.int32), "strength": strength}
    columns = {name: pa.ListArray.from_arrays(ends, pa.array(values)) for name, values in lists.items()}
    rows = pa.record_batch({"user": pa.array(user[start].astype(np.int32))} | columns)
    yield from (rows.slice(at, ROWS) for at in range(0, len(rows), ROWS))


def listened(table: pa.Table, users: Array, n_songs: int) -> sparse.csr_matrix:
    """What some users, ascending, listened to, (U, S), by packed rows, each of one of them."""
    place = np.searchsorted(users, table["user"].to_numpy())
    order = np.argsort(place)
    songs, strengths = (table[name].combine_chunks().take(pa.array(order)) for name in ("song", "strength"))
    indptr = np.zeros(len(users) + 1, dtype=np.int64)
    indptr[place + 1] = table["song"].combine_chunks().value_lengths().to_numpy()
    parts = strengths.flatten().to_numpy(), songs.flatten().to_numpy(), indptr.cumsum()
    return sparse.csr_matrix(parts, shape=(len(users), n_songs))


def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Count the listeners of each song in one part; beside it the first and the last user of the part."""
    if not (batches := list(batches)):
        return
    table = pa.Table.from_batches(batches)
    user, listeners_S = table["user"].to_numpy(), np.bincount(table["song"].combine_chunks().flatten().to_numpy())
    song = np.flatnonzero(listeners_S)
    bounds = {name: np.full(len(song), of, dtype=np.int32) for name, of in (("low", user.min()), ("high", user.max()))}
    yield pa.record_batch({"song": song.astype(np.int32), "listeners": listeners_S[song]} | bounds)


def part_of(batches: Iterable[pa.RecordBatch], shared: Shared) -> tuple[Array, Targeting, Songs] | None:
    """A part of the users: their numbers, ascending, what is known of them, and the songs; None without a row.

    A row is what a user listened to, or else their vector.
    """
    table = pa.Table.from_batches(batches) if (batches := list(batches)) else None
    if not table:
        return None
    users, place_N = np.unique(table["user"].to_numpy(), return_inverse=True)
    played_N = table["song"].is_valid().to_numpy()
    heard = listened(table.filter(pa.array(played_N)), users, len(shared.song_SD))
    user_UD = boundary_U = None
    if shared.songs.item_CD is not None:
        vectors = table.filter(pa.array(~played_N))
        user_UD = np.zeros((len(users), shared.songs.item_CD.shape[1]), dtype=np.float32)
        boundary_U = np.full(len(users), np.inf, dtype=np.float32)  # whom the model does not know wants no song
        of_row = vectors["vector"].combine_chunks().flatten().to_numpy().reshape(-1, user_UD.shape[1])
        user_UD[place_N[~played_N]], boundary_U[place_N[~played_N]] = of_row, vectors["boundary"].to_numpy()
    targeting = Targeting(Listening(heard), shared.song_SD, no_search, shared.options, user_UD, boundary_U)
    targeting.popularity_S = shared.popularity_S  # by the listeners of all parts
    return users, targeting, replace(shared.songs, excluded=among(shared.songs.excluded, users))


def moments(batches: Iterable[pa.RecordBatch], song_SD: Any) -> Iterator[pa.RecordBatch]:
    """Σ u uᵀ over the tastes u of the users of one part, by what they listened to; `song_SD` is a broadcast."""
    if not (batches := list(batches)):
        return
    vectors, table = song_SD.value, pa.Table.from_batches(batches)
    users = np.sort(table["user"].to_numpy())
    user_UD = user_vectors(listened(table, users, len(vectors)), vectors, np.ones(len(vectors)))
    sum_DD = (user_UD.T @ user_UD).astype(np.float64)
    yield pa.record_batch({"part": users[:1].astype(np.int32), "moment": [sum_DD.ravel()]})


def no_search(*_: Any) -> NoReturn:
    """Similar songs are looked up before the users are divided."""
    raise RuntimeError("a part of the users has no index of songs")


def among(excluded: Excluded, users: Array) -> Excluded:
    """The exclusions that are of some users, ascending, by their places."""
    at = np.minimum(np.searchsorted(users, excluded.user), len(users) - 1)
    here = users[at] == excluded.user
    return Excluded(np.flatnonzero(np.isin(users, excluded.users)), excluded.song[here], at[here])


def named_users(batches: Iterable[pa.RecordBatch], shared: Any, searches: list[Search]) -> Iterator[pa.RecordBatch]:
    """Find the best users of one part for every song, in some lists; `shared` is a broadcast."""
    if (part := part_of(batches, shared.value)) is None:
        return
    users, targeting, songs = part
    for at, search in enumerate(searches):
        reach, asked = search.reach or Reach(), songs if search.reach else replace(songs, excluded=NO_EXCLUSIONS)
        found = targeting.audience(asked, search.mode, search.budget, reach.gate, reach.margin)
        song, rank = np.nonzero(found.users_CB >= 0)
        columns = {"list": np.full(len(song), at), "song": song, "user": users[found.users_CB[song, rank]]}
        arrays = {name: value.astype(np.int32) for name, value in columns.items()}
        yield pa.record_batch(arrays | {"score": found.scores_CB[song, rank].astype(np.float32)})


def named_songs(batches: Iterable[pa.RecordBatch], shared: Any, k: int, margin: float) -> Iterator[pa.RecordBatch]:
    """The songs of each user of one part that clear their boundary furthest."""
    if (part := part_of(batches, shared.value)) is None:
        return
    users, targeting, songs = part
    assert songs.item_CD is not None
    found = targeting.songs_of_users(songs.item_CD, k, margin, songs.excluded)
    user, rank = np.nonzero(found.users_CB >= 0)
    columns = {"user": users[user], "song": found.users_CB[user, rank], "rank": rank + 1}
    arrays = {name: value.astype(np.int32) for name, value in columns.items()}
    yield pa.record_batch(arrays | {"margin": found.scores_CB[user, rank].astype(np.float32)})
