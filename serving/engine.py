"""Service core, without HTTP: accept songs and plays, store them, keep the state that answers, and reload the model.

Accepted content is first stored, then added to the state, both under one lock, so the state always equals the store. In
a store that other services write too, it is added by following the store's log, which all of them do at intervals. A
new model's state is built from the store while the old one answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from artifacts.folders import version
from data.arrays import FloatArray
from data.audio.recordings import AudioError
from serving.batching import Batcher
from serving.decoding import from_flac
from serving.encoder import Content, Encoder, Features
from serving.model import open_model
from serving.state import State
from serving.store import Play, Store, StoredSong
from serving.store_errors import StoreError, UnsureError

PLAYS = 10_000  # stored plays added at a time
T = TypeVar("T")
log = logging.getLogger("firstplay.serving")


@dataclass
class Encoded:
    """A song's features and vectors by the encoder of `state`."""

    content: Content
    state: State
    features: Features
    vector: FloatArray
    item: FloatArray | None


class Engine:
    """The store, the current state, the encoding thread, and, where other services write the store too, a thread that
    looks every `follow` seconds for what they have written.

    Raises:
        UserError: the model folder or the store cannot be used.
    """

    def __init__(
        self, folder: str | Path, store: str | Path, batch: int, precision: str = "float32", follow: float = 0.5
    ) -> None:
        self.folder, self.store, self.precision = Path(folder), Store(store), precision
        self.writing, self.switching = threading.Lock(), threading.Lock()
        self.seen = version(self.folder)
        try:
            self.state = self._built()
        except BaseException:
            self.store.close()
            raise
        self.reload_error: str | None = None
        self.encoding: Batcher[Content, Encoded] = Batcher(self._encode, batch)
        self.followed, self.closing = time.monotonic(), threading.Event()  # when the state was last the whole store
        self.follower = threading.Thread(target=self._follow_on, args=(follow,), daemon=True)
        if self.store.shared:
            self.follower.start()

    def accept(self, songs: Sequence[tuple[StoredSong, bytes | None, Encoded]], key: str | None, digest: str) -> None:
        """Store new songs, with their features, and add them to the state.

        Raises:
            Exists, KeyReused, StoreError: as `Store.add_songs`; nothing was added, unless it is an `UnsureError`.
        """
        with self.writing:
            state = self.state
            # songs encoded by an earlier model are encoded again
            encoded = [song if song.state is state else self._encode([song.content])[0] for _, _, song in songs]
            made_by = state.model.encoder.fingerprint
            stored = [
                (replace(song, features=new.features, made_by=made_by), flac)
                for (song, flac, _), new in zip(songs, encoded, strict=True)
            ]
            first = self.store.add_songs(stored, key, digest)
            if first != state.change + 1:
                return self._catch_up_with_own()
            items = [new.item for new in encoded]
            state.add_songs(
                [song for song, _ in stored],
                np.stack([new.vector for new in encoded]),
                None if items[0] is None else np.stack(items),  # type: ignore[arg-type]
            )
            state.change += len(stored)

    def accept_plays(
        self, plays: Sequence[Play], key: str | None, digest: str, rejected: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Store plays and add them to the state; raises as `Store.add_plays`. One without a time is of now."""
        now = datetime.now(UTC)
        plays = [play if play.played_at else replace(play, played_at=now) for play in plays]
        with self.writing:
            if self.store.add_plays(plays, key, digest, rejected) != self.state.play + 1:
                return self._catch_up_with_own()
            self.state.add_plays(plays)
            self.state.play += len(plays)

    def opt_out(self, user_ids: Sequence[str], opted_out: bool) -> int:
        """Store that users have opted out of being named, or in again, and add it to the state: the next answer heeds
        it. For how many that is a change; raises as `Store.set_opt_outs`, and `UnsureError`."""
        with self.writing:
            changed = self.store.set_opt_outs(user_ids, opted_out)
            self._catch_up_with_own()
            return changed

    def delete(self, song_id: str) -> bool:
        """Delete an accepted song; False if the id is unknown."""
        with self.writing:
            number = self.store.delete_song(song_id)
            if number is None:
                return False
            if number == self.state.change + 1:
                self.state.remove_song(song_id)
                self.state.change = number
            else:
                self._catch_up_with_own()
            return True

    def follow(self) -> None:
        """Take in what other services have written."""
        if self.store.shared:
            with self.writing:
                began = time.monotonic()
                self._catch_up(self.state)
                self.followed = began

    def behind(self) -> tuple[int, float]:
        """How many rows other services have written that are not taken in yet, and an upper bound of the age of the
        oldest in seconds: since when the state was last the whole store."""
        if not self.store.shared:
            return 0, 0.0
        state, last = self.state, self.store.last()
        there = state.change, state.play, state.opt_out
        rows = sum(max(number - taken, 0) for number, taken in zip(last, there, strict=True))
        return rows, time.monotonic() - self.followed if rows else 0.0

    def reload(self) -> bool:
        """Switch to the folder's current model; the old one answers meanwhile, and stays if this fails."""
        with self.switching:
            self.seen = version(self.folder)
            try:
                state = self._built()
                state.model.encoder.load_text()
                with self.writing:  # catch up with what was accepted meanwhile
                    self._catch_up(state)
                    self.state = state
            except Exception as error:
                self.reload_error = str(error)
                log.error("the new model is not taken: %s", error)
                return False
            self.reload_error = None
            log.info("model %s is in use", state.model.manifest["encoder"])
            return True

    def changed(self) -> bool:
        """Whether the model folder has changed since it was last read."""
        now = version(self.folder)
        return now is not None and now != self.seen

    def close(self) -> None:
        """Finish pending encodings, and close the store."""
        self.closing.set()
        if self.follower.is_alive():
            self.follower.join()
        self.encoding.close()
        self.store.close()

    def _built(self) -> State:
        """Build the state of the folder's model from the store."""
        state = State(open_model(self.folder, self.precision))
        self._catch_up(state)
        return state

    def _catch_up(self, state: State) -> None:
        """Take the rows of the store that follow the last ones in a state into it; it is right after each page."""
        encoder = state.model.encoder
        for opt_outs in chunks(self.store.opt_outs(state.opt_out), PLAYS):  # first: songs may have to be encoded
            state.set_opt_outs([(user_id, opted_out) for _, user_id, opted_out in opt_outs])
            state.opt_out = opt_outs[-1][0]
        for last, deleted, added in self.store.changes(encoder.fingerprint, state.change):
            for song_id in deleted:
                state.remove_song(song_id)
            if added:
                songs = self._featured(added, encoder)
                features = {name: np.stack([stored.features[name] for stored in songs]) for name in encoder.widths}
                state.add_songs(songs, *encoder.vectors(features, [stored.described for stored in songs]))
            state.change = last
        for plays in chunks(self.store.plays(state.play), PLAYS):
            state.add_plays([stored for _, stored in plays])
            state.play = plays[-1][0]

    def _catch_up_with_own(self) -> None:
        """Take in what was just stored, and what others have stored before it.

        Raises:
            UnsureError: it cannot be read now: it is taken in later.
        """
        try:
            self._catch_up(self.state)
        except StoreError as error:
            raise UnsureError(str(error)) from error

    def _follow_on(self, seconds: float) -> None:
        """Follow the store until the end; what goes wrong is told once, until it is good again."""
        told = ""
        while not self.closing.wait(seconds):
            try:
                self.follow()
                if told:
                    log.info("the store is followed again")
                told = ""
            except Exception as error:  # whatever it is, the next rows may come through
                if str(error) != told and not self.closing.is_set():
                    log.error("the store cannot be followed: %s", error)
                told = str(error)

    def _featured(self, songs: Sequence[StoredSong], encoder: Encoder) -> list[StoredSong]:
        """Songs with features by this encoder; those by another encoder are recomputed and stored."""
        others = [song for song in songs if song.made_by != encoder.fingerprint]
        if not others:
            return list(songs)
        contents = []
        for song in others:
            flac = self.store.audio(song.song_id) if encoder.hears else None
            try:
                wave = None if flac is None else from_flac(flac, int(encoder.audio["sample_rate"]))
            except AudioError as error:  # one damaged recording must not prevent a reload
                log.error("song %r goes without its recording, which is damaged: %s", song.song_id, error)
                wave = None
            contents.append(Content(song.described, wave))
        made = encoder.features(contents)
        rows = {song.song_id: {name: made[name][at] for name in made} for at, song in enumerate(others)}
        for song in others:  # features that the client gave cannot be recomputed
            for name, vector in song.features.items():
                fits = name in rows[song.song_id] and rows[song.song_id][name].shape == vector.shape
                if fits and not np.isfinite(rows[song.song_id][name]).all():
                    rows[song.song_id][name] = vector
        self.store.put_features(encoder.fingerprint, rows)
        return [replace(song, features=rows.get(song.song_id, song.features)) for song in songs]

    def _encode(self, contents: Sequence[Content]) -> list[Encoded]:
        state = self.state
        encoder = state.model.encoder
        features = encoder.features(contents)
        vectors, items = encoder.vectors(features, [content.about for content in contents])
        return [
            Encoded(content, state, {name: features[name][at] for name in features}, vectors[at],
                    None if items is None else items[at])
            for at, content in enumerate(contents)
        ]  # fmt: skip


def chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Split an iterator into lists of up to `size` items."""
    while chunk := list(islice(items, size)):
        yield chunk
