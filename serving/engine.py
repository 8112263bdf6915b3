"""Service core, without HTTP: accept songs and plays, store them, keep the state that answers, and reload the model.

Accepted content is first stored, then added to the state, both under one lock, so the state always equals the store. A
new model's state is built from the store while the old one answers.
"""

from __future__ import annotations

import logging
import threading
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

CHUNK = 256  # stored songs added to a new state at a time
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
    """The store, the current state, and the encoding thread.

    Raises:
        UserError: the model folder or the store cannot be used.
    """

    def __init__(self, folder: str | Path, store: str | Path, batch: int, precision: str = "float32") -> None:
        self.folder, self.store, self.precision = Path(folder), Store(store), precision
        self.writing, self.switching = threading.Lock(), threading.Lock()
        self.deleted: set[str] = set()  # ids deleted while a new state is built, unless added again
        self.seen = version(self.folder)
        try:
            self.state = self._built()[0]
        except BaseException:
            self.store.close()
            raise
        self.reload_error: str | None = None
        self.encoding: Batcher[Content, Encoded] = Batcher(self._encode, batch)

    def accept(self, songs: Sequence[tuple[StoredSong, bytes | None, Encoded]], key: str | None, digest: str) -> None:
        """Store new songs, with their features, and add them to the state.

        Raises:
            Exists, KeyReused, StoreError: as `Store.add_songs`; nothing was added.
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
            self.store.add_songs(stored, key, digest)
            self.deleted.difference_update(song.song_id for song, _ in stored)
            items = [new.item for new in encoded]
            state.add_songs(
                [song for song, _ in stored],
                np.stack([new.vector for new in encoded]),
                None if items[0] is None else np.stack(items),  # type: ignore[arg-type]
            )

    def accept_plays(
        self, plays: Sequence[Play], key: str | None, digest: str, rejected: Sequence[tuple[int, str]] = ()
    ) -> None:
        """Store plays and add them to the state; raises as `Store.add_plays`. One without a time is of now."""
        now = datetime.now(UTC)
        plays = [play if play.played_at else replace(play, played_at=now) for play in plays]
        with self.writing:
            self.store.add_plays(plays, key, digest, rejected)
            self.state.add_plays(plays)

    def delete(self, song_id: str) -> bool:
        """Delete an accepted song; False if the id is unknown."""
        with self.writing:
            if not self.store.delete_song(song_id):
                return False
            self.deleted.add(song_id)
            self.state.remove_song(song_id)
            return True

    def reload(self) -> bool:
        """Switch to the folder's current model; the old one answers meanwhile, and stays if this fails."""
        with self.switching:
            self.seen = version(self.folder)
            self.deleted.clear()
            try:
                state, song, play = self._built()
                state.model.encoder.load_text()
                with self.writing:  # catch up with what was accepted meanwhile
                    self._catch_up(state, song, play)
                    for song_id in self.deleted:
                        state.remove_song(song_id)
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
        self.encoding.close()
        self.store.close()

    def _built(self) -> tuple[State, int, int]:
        """Build the state of the folder's model from the store; also the last song and play in it."""
        state = State(open_model(self.folder, self.precision))
        return (state, *self._catch_up(state, 0, 0))

    def _catch_up(self, state: State, song: int, play: int) -> tuple[int, int]:
        """Add stored songs and plays with higher numbers to a state; returns the last numbers."""
        encoder = state.model.encoder
        for chunk in chunks(self.store.songs(encoder.fingerprint, song), CHUNK):
            song = chunk[-1][0]
            songs = self._featured([stored for _, stored in chunk], encoder)
            features = {name: np.stack([stored.features[name] for stored in songs]) for name in encoder.widths}
            state.add_songs(songs, *encoder.vectors(features, [stored.described for stored in songs]))
        for plays in chunks(self.store.plays(play), PLAYS):
            play = plays[-1][0]
            state.add_plays([stored for _, stored in plays])
        return song, play

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
