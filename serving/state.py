"""What has come in since the model was made: new songs and plays, on top of it.

A play changes at once whom it concerns: its user's taste, history, vector and boundary, and, where the song is new, the
song's vectors (`retrieval.warm_up`). Nothing is learned here: that is the next training's part (`serving.feedback`).

A user whom the training has not seen comes in with their first play. They get the next free row of the model's arrays
(`export.service.with_room`), with all that a known user has, of an unknown profile and what they play. Until then it is
nobody's: without a taste, and with a boundary that no song clears.

A song's number is its row in the catalogue, and for an accepted song `model.n_songs` and more. An id keeps its number
when its song is deleted, and what was played of it: a song that comes again under the id finds its listeners there,
and a state is the same whether all of this happened one by one or is replayed at a start. A search that runs while
a user's row is written may see half of it: that user's score is then between the old one and the new one, once.

Shapes: N new songs, U users, D vector size.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np

from configs.waves import OUTCOMES
from data.arrays import FloatArray, IntArray
from data.play_tables import strength
from inference.ranking import DAY
from retrieval.index import add, build_index, remove, search
from retrieval.listening import Strengths, strength_rows
from retrieval.user_plays import UserPlays
from retrieval.warm_up import warm_vectors
from serving.database import since_epoch
from serving.histories import tower_vectors
from serving.model import LINE, MILLISECOND, Model
from serving.pool import Pool
from serving.refusals import Refused
from serving.store import Play, StoredSong

CHUNK = 256  # users or songs whose vectors are computed at a time


class Gone(Refused):
    """A song was deleted after it was found."""


class State:
    """A model, and what has come in since."""

    def __init__(self, model: Model) -> None:
        self.model, self.lock = model, threading.RLock()
        self.change = self.play = self.opt_out = 0  # last numbers of the store's logs in it (`serving.engine`)
        self.joined: list[str] = []  # users whom the training has not seen, in the order of their rows
        self.row_of: dict[str, int] = {}  # the same by id
        self.absent: set[str] = set()  # who has opted out and has no row
        self.is_out_U = np.zeros(model.n_rows, dtype=bool)
        self.opted_out: IntArray = np.zeros(0, dtype=np.int64)  # the same as numbers, ascending; replaced as a whole
        self.accepted: dict[int, StoredSong] = {}
        self.number_of: dict[str, int] = {}  # of songs that came in; some are deleted, or only known by plays
        items = np.array(model.item_SD[model.new]) if model.has_boundary else None
        self.pool = Pool(model.new.copy(), np.array(model.index.vectors[model.new]), items, len(model.new))
        self.pool.row_of = dict(zip(model.new.tolist(), range(len(model.new)), strict=True))
        self.content: dict[int, tuple[FloatArray, FloatArray | None]] = {}  # vectors before any play, of warm songs
        self.new_index: Any = None  # FAISS index of the pool, by song number
        self.words: Any = None  # the same of accepted songs alone, by what texts are compared with
        if len(model.new):
            self._index(model.new, self.pool.vector)
        self.liked_by: Strengths = defaultdict(dict)  # new song → user → strength, where they like it
        self.warms: dict[int, set[int]] = defaultdict(set)  # user → new songs that they like
        self.met: dict[int, dict[int, int]] = defaultdict(dict)  # song → who has met it → what came of it (`marks`)
        self.played: dict[int, list[tuple[int, float]]] = defaultdict(list)  # user → (song, strength), latest last

    @property
    def n_users(self) -> int:
        """How many users there are, known and come in: the first rows."""
        return self.model.n_users + len(self.joined)

    def user(self, user_id: str) -> int | None:
        """The row of a user; None if there is no such user."""
        return self.model.user_of.get(user_id, self.row_of.get(user_id))

    def user_id(self, user: int) -> str:
        """The id of a user."""
        known = self.model.n_users
        return str(self.model.user_ids[user]) if user < known else self.joined[user - known]

    def number(self, song_id: str) -> int | None:
        """The number of a song; None if there is no such song."""
        number = self.model.song_of.get(song_id, self.number_of.get(song_id))
        return number if number is not None and self.there(number) else None

    def stored(self, number: int) -> StoredSong | None:
        """An accepted song; None for one of the catalogue. Here and below: Gone if it was deleted meanwhile."""
        if number < self.model.n_songs:
            return None
        try:
            return self.accepted[number]
        except KeyError:
            raise Gone(404, "the song was deleted") from None

    def song_id(self, number: int) -> str:
        """The id of a song."""
        stored = self.stored(number)
        return stored.song_id if stored else str(self.model.song_ids[number])

    def about(self, number: int) -> dict[str, Any]:
        """Words and tags of a song."""
        stored = self.stored(number)
        return stored.about if stored else self.model.about(number)

    def title(self, number: int) -> str | None:
        """The title of a song."""
        found: str | None = self.line(number)["title"]
        return found

    def line(self, number: int) -> dict[str, Any]:
        """A song in a list: LINE."""
        stored = self.stored(number)
        if stored is None:
            return self.model.line(number)
        return {name: stored.about.get(name) for name in LINE} | {"song_id": stored.song_id}

    def vectors(self, number: int) -> tuple[FloatArray, FloatArray | None]:
        """Song vector and item vector as they are now."""
        with self.lock:
            row = self.pool.row_of.get(number)
            if row is not None:
                return self.pool.vector[row].copy(), None if self.pool.item is None else self.pool.item[row].copy()
            self.stored(number)
        model = self.model
        return np.array(model.index.vectors[number]), np.array(model.item_SD[number]) if model.has_boundary else None

    def similar_new(self, vector: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Scores and numbers of the k new songs most similar to a vector, each (k,); −1 where there are fewer."""
        with self.lock:
            if self.new_index is None:
                return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64)
            scores_1K, numbers_1K = search(self.new_index, vector[None], k)
        return scores_1K[0], numbers_1K[0]

    def add_songs(self, songs: Sequence[StoredSong], vectors: FloatArray, items: FloatArray | None) -> None:
        """Take songs in. A song that the model's catalogue has is that one from now on; one whose id is there already
        comes in the place of that, which was deleted meanwhile."""
        with self.lock:
            last = {song.song_id: at for at, song in enumerate(songs)}
            new = [at for song_id, at in last.items() if song_id not in self.model.song_of]
            songs, vectors, items = [songs[at] for at in new], vectors[new], None if items is None else items[new]
            for song in songs:
                self.remove_song(song.song_id)
            numbers = [self._number_for(song.song_id) for song in songs]
            for at, (number, song) in enumerate(zip(numbers, songs, strict=True)):
                self.accepted[number] = song
                self.pool.append(number, vectors[at], None if items is None else items[at])
                for user in self.liked_by.get(number, ()):
                    self.warms[user].add(number)
            if songs:
                self._index(np.array(numbers), vectors)
                self._index_words(numbers)
        self._settle(set().union(*(self.met.get(number, ()) for number in numbers)))

    def remove_song(self, song_id: str) -> None:
        """Forget an accepted song; what its listeners did stays, here and in the store, for when it comes again."""
        with self.lock:
            number = self.number_of.get(song_id)
            if number not in self.accepted:
                return
            if self._words_of([number])[0].size:
                remove(self.words, np.array([number]))
            del self.accepted[number]
            self.pool.remove(number)
            self.content.pop(number, None)
            remove(self.new_index, np.array([number]))
            for user in self.liked_by.get(number, ()):
                self.warms[user].discard(number)
        self._settle(self.met.get(number, ()))

    def add_plays(self, plays: Iterable[Play]) -> None:
        """Take plays in, in order; those of unknown users say nothing once no row is free."""
        plays, users = [told.settled for told in plays], set[int]()
        with self.lock:
            self._join(play.user_id for play in plays)
            for play in plays:
                user = self.user(play.user_id)
                if user is None:
                    continue
                song = self._number_for(play.song_id)
                if self.model.knows(user, song, play.played_at):
                    continue
                users.add(user)
                self.met[song][user] = self.met[song].get(user, 0) | marks(play)
                self.played[user].append((song, strength(play)))
                if self.model.has_ranker and song < self.model.n_songs and song not in self.pool.row_of:
                    log_play(self.model.plays, user, song, play)
                if liking(play) <= 0:
                    continue
                if song < self.model.n_songs and song not in self.pool.row_of:
                    self.model.targeting.listening.add(user, song, strength(play))
                elif strength(play) > self.liked_by[song].get(user, 0.0):
                    self.liked_by[song][user] = strength(play)
                    if song in self.pool.row_of:
                        self.warms[user].add(song)
        self._settle(users)

    def set_opt_outs(self, opt_outs: Iterable[tuple[str, bool]]) -> None:
        """Take in who has opted out of being named, or in again, in order; of unknown users, for when they come."""
        with self.lock:
            for user_id, opted_out in opt_outs:
                user = self.user(user_id)
                if user is not None:
                    self.is_out_U[user] = opted_out
                elif opted_out:
                    self.absent.add(user_id)
                else:
                    self.absent.discard(user_id)
            self.opted_out = np.flatnonzero(self.is_out_U)

    def there(self, number: int) -> bool:
        """Whether there is a song of this number now."""
        return number < self.model.n_songs or number in self.accepted

    def first_plays(self, number: int) -> int:
        """How many users have met a new song."""
        return len(self.met.get(number, ()))

    def _join(self, user_ids: Iterable[str]) -> None:
        """Give unknown users the rows that are free, in order."""
        before = len(self.joined)
        for user_id in user_ids:
            if self.user(user_id) is None and self.n_users < self.model.n_rows:
                self.row_of[user_id] = self.n_users
                self.joined.append(user_id)
        if out := self.absent.intersection(self.joined[before:]):
            self.absent -= out
            self.set_opt_outs((user_id, True) for user_id in out)

    def _number_for(self, song_id: str) -> int:
        """The number of a song, also of one that is not there."""
        if song_id in self.model.song_of:
            return self.model.song_of[song_id]
        return self.number_of.setdefault(song_id, self.model.n_songs + len(self.number_of))

    def _settle(self, users: Collection[int]) -> None:
        """Compute anew what hangs on users' plays: their vectors, and those of the new songs that they like.

        In parts, so that answers need not wait for a song with a hundred thousand listeners.
        """
        for part in parts(sorted(users)):
            with self.lock:
                self._follow(np.array(part))
        # a song follows its listeners' taste: so it is where it is in whatever parts the plays came
        for part in parts(sorted(set().union(*(self.warms[user] for user in users if user in self.warms)))):
            with self.lock:
                self._warm(part)

    def _follow(self, users: IntArray) -> None:
        """Compute users' vectors anew from all that they have played."""
        model = self.model
        model.targeting.follow(users)
        if model.has_boundary:
            most = model.encoder.history
            played = (reversed(self.played[user]) for user in users.tolist())
            fresh = [list(islice((one for one in plays if self.there(one[0])), most)) for plays in played]
            model.user_UD[users], model.boundary_U[users] = tower_vectors(model, self.accepted, users, fresh)

    def _warm(self, songs: Sequence[int]) -> None:
        """Move new songs' vectors from their content towards their listeners."""
        model, pool = self.model, self.pool
        rows = np.array([pool.row_of[song] for song in songs])
        for song, row in zip(songs, rows.tolist(), strict=True):
            if song not in self.content:
                item = None if pool.item is None else pool.item[row].copy()
                self.content[song] = pool.vector[row].copy(), item
        users = np.unique([user for song in songs for user in self.liked_by[song]])
        liked = strength_rows(self.liked_by, songs, model.n_rows)[:, users]
        prior, taste_UD = model.options.warm_up, model.targeting.taste.user_UD
        content = np.stack([self.content[song][0] for song in songs])
        pool.vector[rows] = warm_vectors(content, liked, taste_UD[users], prior, model.taste_moment_DD)
        if pool.item is not None:
            items = np.stack([item for song in songs if (item := self.content[song][1]) is not None])
            warm = warm_vectors(items, liked, model.user_UD[users], prior, model.user_moment_DD)
            pool.item[rows] = model.user_level.kept(warm, items)
        remove(self.new_index, np.array(songs))
        self._index(np.array(songs), pool.vector[rows])

    def _index(self, numbers: IntArray, vectors: FloatArray) -> None:
        """Put new songs into their index."""
        self.new_index = added(self.new_index, vectors, numbers)

    def _index_words(self, numbers: Sequence[int]) -> None:
        """Put accepted songs into the index of what texts are compared with."""
        which, vectors = self._words_of(numbers)
        if which.size:
            self.words = added(self.words, vectors, which)

    def _words_of(self, numbers: Sequence[int]) -> tuple[IntArray, FloatArray]:
        """Those of accepted songs that texts are compared with, and their vectors."""
        if self.model.words is None:
            return np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32)
        vectors = self.model.encoder.words_of([self.accepted[number].features for number in numbers])
        has = np.isfinite(vectors).all(axis=1)
        return np.array(numbers, dtype=np.int64)[has], vectors[has]


def added(index: Any, vectors: FloatArray, numbers: IntArray) -> Any:
    """The index with these vectors; a new one where there was none."""
    if index is None:
        return build_index(vectors, "Flat", numbers, devices=())
    add(index, vectors, numbers)
    return index


def liking(play: Play) -> float:
    """The strength of a play; none if it was skipped and not favourited."""
    return 0.0 if play.skipped and not play.favourited else strength(play)


def marks(play: Play) -> int:
    """What a play tells of `OUTCOMES`, two bits each: whether it does, and whether the user did so. Those of several
    plays are joined by `|`."""
    bits = 0
    for at, name in enumerate(OUTCOMES):
        did = getattr(play, name)
        bits |= (int(did is not None) | int(bool(did)) << 1) << 2 * at
    return bits


def told(marks_P: IntArray) -> FloatArray:
    """What `marks` hold of each user, (P, 2): 1, 0, or NaN where they do not tell."""
    bits_PO = marks_P[:, None] >> 2 * np.arange(len(OUTCOMES))
    return np.where(bits_PO & 1, bits_PO >> 1 & 1, np.nan)


def log_play(plays: UserPlays, user: int, song: int, play: Play) -> None:
    """Take a play of a known song into the ranker's log."""
    marks = play.completed, play.favourited, play.disliked
    day = since_epoch(play.played_at or datetime.now(UTC)) // MILLISECOND / DAY  # as precise as a catalogue's
    completed, favourited, disliked = (math.nan if mark is None else float(mark) for mark in marks)
    plays.add(user, song, day, liking(play), (completed, favourited, disliked))


def parts(numbers: list[int]) -> Iterator[list[int]]:
    """CHUNK of them at a time; between two, whoever waits for a lock gets it."""
    for at in range(0, len(numbers), CHUNK):
        if at:
            time.sleep(0.001)
        yield numbers[at : at + CHUNK]
