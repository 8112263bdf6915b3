"""A service folder in memory: encoder, index, and what the known listeners have played. It never changes but for the
vectors of users who play something, and what they play (`serving.state`).

Shapes: S songs of the catalogue, U users and rows for those who come, D vector size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from artifacts.folders import read_manifest, read_whole
from configs.errors import UserError
from configs.options import MADE_BY, SERVICE
from configs.targeting import TargetingConfig
from configs.waves import OUTCOMES
from data.arrays import AnyArray, FloatArray, IntArray
from data.catalogue import Catalogue, read_features
from data.condition_example import example
from data.conditions import columns_of, kinds_of
from data.contract.columns import ABOUT, DAY_OF_RELEASE
from data.profiles import read_profile
from export.model import load
from inference.filters import users_outside
from inference.milvus_songs import about_songs
from inference.ranking import DAY, check_ranker, ranker_in, read_ranker
from inference.song_index import kinds_asked, read_faiss, read_index
from inference.targeting import targeting_of
from retrieval.clusters import Tastes
from retrieval.listening import Listening
from retrieval.milvus import MilvusIndex
from retrieval.user_plays import UserPlays
from retrieval.warm_up import Level, ridged_moments
from serving.database import since_epoch
from serving.encoder import Encoder
from serving.numbers import Numbers

MILLISECOND = timedelta(milliseconds=1)
MILVUS_SECONDS = 5.0  # that an answer waits for a Milvus
CONDITIONS = 4  # on users whose answers are kept
SEEN = 20_000  # rows that tell what conditions may name
LINE = ("song_id", "title", "artist_id", "genres")  # of a song in a list
LARGE = 64 << 20  # bytes of vectors above which codes of them are in memory instead


class Model:
    """Everything of one service folder. Users' arrays (`user_UD`, `boundary_U`) may be written to, row by row.

    Raises:
        UserError: no service folder, a damaged one, or an index of another encoder.
    """

    def __init__(self, folder: str | Path, precision: str = "float32") -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, SERVICE, MADE_BY[SERVICE])
        self.index, _ = read_index(self.folder / "index")
        self._check_index()
        if isinstance(self.index.index, MilvusIndex):
            self.index.index.seconds = MILVUS_SECONDS
        self.options = TargetingConfig(**self.manifest["targeting"])
        try:
            self.encoder = Encoder(self.folder, self.manifest, precision)
            self.catalogue = Catalogue.read(self.folder / "catalogue")
            self.songs, self.user_ids = self.catalogue.songs, self.catalogue.users["user_id"].drop_nulls()
            self.n_songs, self.n_users = self.songs.height, len(self.user_ids)  # songs known and new
            self.n_rows = self.catalogue.n_users  # of users; those without an id are for users who come
            self.told = self.songs.select(name for name in (*ABOUT, DAY_OF_RELEASE) if name in self.songs.columns)
            self.song_ids, self.lines = self.songs["song_id"], self._lines()
            self._listening()
            self._vectors()
            self._ranker()
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise UserError(
                f"{folder} is damaged ({type(error).__name__}: {error}): run {MADE_BY[SERVICE]} again"
            ) from None
        self.song_of, self.user_of = Numbers(self.song_ids), Numbers(self.user_ids)
        self.new = self.catalogue.rows("cold")  # songs of the catalogue that nobody has played

    @property
    def has_boundary(self) -> bool:
        """Whether users have an interest boundary."""
        return self.encoder.item is not None

    @property
    def has_ranker(self) -> bool:
        """Whether candidates can be ranked."""
        return self.targeting.ranker is not None

    @property
    def version(self) -> str:
        """Tells one service folder from another."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def modes(self) -> list[Any]:
        """Ways to find an audience."""
        more = {"boundary": self.has_boundary, "rank": self.has_ranker}
        return ["i2i2u", "taste", "cat", "union", *(mode for mode, has in more.items() if has)]

    def _check_index(self) -> None:
        """Raise UserError if another encoder made the index."""
        made_by, encoder = self.index.manifest["encoder"], self.manifest["encoder"]
        if made_by != encoder:
            raise UserError(
                f"{self.folder / 'index'} holds the vectors of another encoder ({made_by}) than "
                f"{self.folder / 'i2i'} ({encoder}): run {MADE_BY[SERVICE]} again"
            )

    def _listening(self) -> None:
        """Who has listened to what, and how much each counts."""
        self.plays = UserPlays(read_arrays(self.folder / "plays"))
        if (self.plays.n_users, self.plays.n_songs) != (self.n_rows, self.n_songs):
            raise ValueError("plays are of another catalogue")
        by_user, by_song = (read_arrays(self.folder / "listening" / name) for name in ("by_user", "by_song"))
        self.listening_US = matrix_of(by_user, (self.n_rows, self.n_songs))
        self.listening = Listening(self.listening_US)
        self.listening.known_SU = matrix_of(by_song, (self.n_songs, self.n_rows))

    def _vectors(self) -> None:
        """Vectors of songs and users, mapped into memory: they are read when they are looked at."""
        self.targeting = targeting_of(self.index, self.listening, self.options)
        self.targeting.taste, self.targeting.cat_taste = (
            Tastes(user_UD, coded=user_UD.nbytes > LARGE) for user_UD in map(self._of_users, ("tastes", "cat_tastes"))
        )
        self.taste_moment_DD = ridged_moments(self.targeting.taste.user_UD)
        self.dense = read_features(self.folder / "features", self.n_songs)
        models = [self.encoder.song, *([self.encoder.item] if self.has_boundary else [])]
        missing = {name for model in models for name in model.embedding.dense_dims} - self.dense.keys()
        if missing:
            raise ValueError(f"features/{min(missing)}.npy is missing")
        self.words = self._words()
        if self.has_boundary:
            self._boundaries()
        _ = self.targeting.activity_U, self.targeting.popularity_S  # now, not at the first request

    def _lines(self) -> pl.DataFrame:
        """What lists say of each song, null where the table has no such column."""
        return self.songs.select(name if name in self.songs.columns else pl.lit(None).alias(name) for name in LINE)

    def _words(self) -> Any:
        """The FAISS index of what texts are compared with, by song number; None where there is none."""
        if not self.encoder.worded:
            return None
        try:
            return read_faiss(self.folder / "words", mapped=True)
        except RuntimeError:
            raise ValueError("words/index.faiss cannot be read") from None

    def _of_users(self, name: str) -> FloatArray:
        """An array of users in memory that is read from its file, and where it is written to a copy."""
        array: FloatArray = np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="c"))
        if len(array) != self.n_rows:
            raise ValueError(f"{name}.npy has not one row a user")
        return array

    def _boundaries(self) -> None:
        """Vectors of the boundary model."""
        self.item_SD: FloatArray = np.load(self.folder / "items.npy", mmap_mode="r")
        self.codes = read_arrays(self.folder / "codes")  # none in a folder of before; then they are computed
        if self.codes and (missing := self.encoder.item_codes.keys() - self.codes.keys()):
            raise ValueError(f"codes/{min(missing)}.npy is missing")
        self.user_UD, self.boundary_U = self._of_users("users"), self._of_users("boundaries")
        self.targeting.user_UD, self.targeting.boundary_U = self.user_UD, self.boundary_U
        self.user_moment_DD = ridged_moments(self.user_UD)
        self.user_level = Level.of(self.user_UD, self.user_moment_DD)
        self.profile = read_profile(self.catalogue.users, np.arange(self.n_rows), self.encoder.profile_vocabulary)

    def _ranker(self) -> None:
        """The ranker, if there is one."""
        if not self.manifest.get("ranker"):
            return
        folder, of = self.folder / "rank", self.manifest
        about = read_ranker(folder)
        check_ranker(folder, about, of["encoder"], of["boundary"], self.options)
        network: Any = None
        if about.get("model") == "network":
            network = load(folder, check=False)[0], read_features(folder, self.n_songs)["keys"]
        self.targeting.ranker = ranker_in(folder, about, self.catalogue, self.options.memory_mb, network, self.plays)

    @cached_property
    def about_users(self) -> pl.DataFrame:
        """What conditions may name of users."""
        return columns_of(self.catalogue.users)

    @cached_property
    def users_outside(self) -> Callable[[str], IntArray]:
        """`inference.filters.users_outside` of these users; the last conditions are kept, since a day's songs share
        them."""
        return lru_cache(CONDITIONS)(partial(users_outside, self.about_users))

    @cached_property
    def new_texts(self) -> pl.Series:
        """What is searched of each new song: id, title, artist and genres, a line each, in small letters."""
        lines = [pl.col("song_id", "title", "artist_id"), pl.col("genres").list.join("\n")]
        texts = self.songs[self.new].select(pl.concat_str(*lines, separator="\n", ignore_nulls=True))
        return texts.to_series().str.to_lowercase()

    @cached_property
    def said(self) -> pl.DataFrame:
        """What conditions may name of each song."""
        return about_songs(self.songs)

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What conditions may name of songs and of users, and an example of each, by the first rows of their tables."""
        songs, users = about_songs(self.songs.head(SEEN)), columns_of(self.catalogue.users.head(SEEN))
        tables = {"songs": songs.select(*kinds_asked(self.index, songs)), "users": users}
        return {name: {"columns": kinds_of(of), "example": example(of)} for name, of in tables.items()}

    def knows(self, user: int, song: int, played_at: datetime | None) -> bool:
        """Whether a play was in the training: `serving.feedback` made it part of the dataset."""
        if played_at is None:
            return False
        rows = slice(self.plays.start_U[user], self.plays.start_U[user + 1])
        day = since_epoch(played_at) // MILLISECOND / DAY
        known = self.plays.known
        return bool(((known["song_N"][rows] == song) & (known["day_N"][rows] == day)).any())

    def plays_of(self, song: int) -> tuple[IntArray, IntArray]:
        """Rows of the training plays of a song in the log, and their users, (N,) each."""
        at = np.flatnonzero(self.plays.known["song_N"] == song)
        return at, np.searchsorted(self.plays.start_U, at, side="right") - 1

    @cached_property
    def rates(self) -> dict[str, float | None]:
        """Share of the training plays in which each of `OUTCOMES` happened, among those that tell; None where none
        does, or all or none is so."""
        found: dict[str, float | None] = {}
        for name in OUTCOMES:
            no, yes = (np.count_nonzero(self.plays.known[f"{name}_N"] == value) for value in (0, 1))
            found[name] = yes / (no + yes) if no and yes else None
        return found

    def latest(self, users_N: IntArray, most: int) -> tuple[IntArray, FloatArray, IntArray]:
        """The last training plays of users: songs (N, T) and strengths (N, T), the latest first, and how many (N,)."""
        end_N, known = self.plays.start_U[users_N + 1], self.plays.known
        count_N = np.minimum(end_N - self.plays.start_U[users_N], most)
        place_T = np.arange(count_N.max(initial=0))
        at_NT = np.where(place_T < count_N[:, None], end_N[:, None] - 1 - place_T, 0)
        return known["song_N"][at_NT].astype(np.int64), known["strength_N"][at_NT].astype(np.float32), count_N

    def line(self, song: int) -> dict[str, Any]:
        """A song of the catalogue in a list."""
        return dict(zip(LINE, self.lines.row(song), strict=True))

    def about(self, song: int) -> dict[str, Any]:
        """Words, tags and day of release of a song of the catalogue."""
        found = dict.fromkeys((*ABOUT, DAY_OF_RELEASE)) | dict(zip(self.told.columns, self.told.row(song), strict=True))
        released = found[DAY_OF_RELEASE]
        return found | {DAY_OF_RELEASE: released and released.date().isoformat()}


def read_arrays(folder: Path) -> dict[str, AnyArray]:
    """The arrays of a folder by name, mapped into memory."""
    return {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in folder.glob("*.npy")}


def matrix_of(arrays: dict[str, AnyArray], shape: tuple[int, int]) -> sparse.csr_matrix:
    """A sparse matrix from its parts; they are not copied."""
    return sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)


def open_model(folder: str | Path, precision: str = "float32") -> Model:
    """The model of a service folder, all of one version: read again if the folder was replaced meanwhile.

    Raises:
        UserError: as `Model`.
    """
    return read_whole(Path(folder), lambda: Model(folder, precision))
