"""Accept songs and plays from requests: decode, encode, store. Every refusal has a status and a message."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from data.arrays import FloatArray
from data.audio.recordings import AudioError
from data.contract.columns import ABOUT, DAY_OF_RELEASE
from serving.database import since_epoch
from serving.decoding import REASONS, Decoders, to_flac
from serving.encoder import Content
from serving.engine import Encoded, Engine
from serving.refusals import Refused
from serving.schemas import BatchResult, NewPlay, NewSong, PlaysTaken, Rejected, Search
from serving.search import DEAF, Asked, asked
from serving.state import State
from serving.store import FASTER, KeyReused, Play, StoredSong

log = logging.getLogger("firstplay.serving")
AHEAD = timedelta(days=1)  # tolerance for plays in the future: clocks differ
LARGEST = 1e15  # limit of a given feature's values: their squares, and sums of these, stay finite
KEYS = uuid.UUID("1f2e0b5c-6a0e-4c5c-9a7b-6f3f0d0c51aa")  # UUID namespace of ids derived from idempotency keys
LATE = "it took too long: try again"
Begun = tuple[StoredSong, bytes | None, Future[Encoded]]  # a song without features, its FLAC, its encoding


class Incoming:
    """Accepts songs and plays.

    Args:
        engine: encodes and stores them.
        decoders: sandboxed processes that decode recordings.
        timeout: seconds until a request is given up; decoding a song has a timeout of its own.
    """

    def __init__(self, engine: Engine, decoders: Decoders, timeout: float) -> None:
        self.engine, self.decoders, self.timeout = engine, decoders, timeout
        self.turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()  # by idempotency key
        self.turning = threading.Lock()

    def song(self, given: NewSong, audio: bytes | None, key: str | None) -> str:
        """Accept one song; returns its id.

        Raises:
            Refused: 409 the id or the key is taken, 422 the recording or its words cannot be used, 503 no time.
            StoreError: no room.
        """
        digest = digest_of(given.model_dump(), audio)

        def accept() -> list[str]:
            ends = self._deadline()
            song = self._encoded(self._begin(given, audio, id_of(given, key, 0), ends), ends)
            self.engine.accept([song], key, digest)
            return [song[0].song_id]

        return str(self._once(key, digest, accept)[0])

    def songs(self, given: Sequence[NewSong], key: str | None) -> list[BatchResult]:
        """Accept the valid songs of a batch in one transaction.

        Raises:
            Refused: 409 the key is taken: none was accepted.
            StoreError: no room, likewise.
        """
        digest = digest_of([song.model_dump() for song in given])
        ids = [id_of(song, key, row) for row, song in enumerate(given)]
        results: list[BatchResult] = []

        def accept() -> list[str]:
            results.extend(self._batch(given, ids, key, digest))
            return []

        done = self._once(key, digest, accept)
        if results:
            return results
        refused = BatchResult(song_id=None, status=409, detail="was not accepted under this key: send it under another")
        return [
            BatchResult(song_id=song_id, status=201) if song_id in done and song_id not in ids[:row] else refused
            for row, song_id in enumerate(ids)
        ]

    def _batch(self, given: Sequence[NewSong], ids: list[str], key: str | None, digest: str) -> list[BatchResult]:
        ends = self._deadline()
        begun: list[Begun | Refused] = []
        for row, (song, song_id) in enumerate(zip(given, ids, strict=True)):
            try:
                if song_id in ids[:row]:
                    raise Refused(409, f"an earlier song of the batch is {song_id!r}")
                begun.append(self._begin(song, decoded(song.audio), song_id, ends))
            except Refused as refusal:
                begun.append(refusal)
        results, accepted = [], []
        for one in begun:
            try:
                if isinstance(one, Refused):
                    raise one
                accepted.append(self._encoded(one, ends))
                results.append(BatchResult(song_id=one[0].song_id, status=201))
            except Refused as refusal:
                results.append(BatchResult(song_id=None, status=refusal.status, detail=refusal.detail))
        if accepted:
            self.engine.accept(accepted, key, digest)
        elif key is not None and self.engine.store.answered(key, digest) is not None:
            raise KeyReused(409, FASTER)  # the songs are there because another service took them in under this key
        return results

    def query(self, given: Search) -> tuple[State, Asked]:
        """What is searched for, and the state in which; nothing is kept.

        Raises:
            Refused: 404 no such song, 409 the models cannot do it, 422 it cannot be used, 503 no time.
        """
        if given.audio is not None:
            heard = self._heard(decoded(given.audio) or b"")
            return heard.state, Asked(heard.vector, "recording")
        if any(self.engine.state.number(song_id) is None for song_id in (*given.like, *given.dislike)):
            self.engine.follow()  # another service may have taken it in just now
        state = self.engine.state
        return state, asked(state, given)

    def _heard(self, audio: bytes) -> Encoded:
        """A recording of which nothing else is known, encoded."""
        if not self.engine.state.model.encoder.hears:
            raise Refused(409, DEAF)
        ends = time.monotonic() + self.timeout
        content = Content({}, self._decode(audio, ends), {}, self.decoders.sample_rate)
        return self._finished(self._submitted(content), ends)

    def plays(self, given: Sequence[NewPlay], key: str | None) -> PlaysTaken:
        """Accept plays of known songs.

        Raises:
            Refused: 409 the key is taken.
            StoreError: no room.
        """
        digest = digest_of([play.model_dump(mode="json") for play in given])

        def accept() -> list[tuple[int, str]]:
            rejected = dict(self._invalid(given))
            plays = [Play(**play.model_dump()) for row, play in enumerate(given) if row not in rejected]
            if plays:
                self.engine.accept_plays(plays, key, digest, list(rejected.items()))
            return list(rejected.items())

        rejected = dict(self._once(key, digest, accept))
        state, taken = self.engine.state, [one for row, one in enumerate(given) if row not in rejected]
        return PlaysTaken(
            accepted=len(taken),
            new_users=len({play.user_id for play in taken} & state.row_of.keys()),
            unknown_users=sum(state.user(play.user_id) is None for play in taken),
            rejected=[Rejected(row=row, detail=detail) for row, detail in rejected.items()],
        )

    def _invalid(self, given: Sequence[NewPlay]) -> Iterator[tuple[int, str]]:
        """Plays that cannot be accepted: (row, message)."""
        now = since_epoch(datetime.now(UTC))
        asked = {song_id for play in given for song_id in (play.song_id, play.source_song_id) if song_id}
        if any(self.engine.state.number(song_id) is None for song_id in asked):
            self.engine.follow()  # another service may have taken it in just now
        state = self.engine.state
        for row, play in enumerate(given):
            unknown = next((i for i in (play.song_id, play.source_song_id) if i and state.number(i) is None), None)
            if unknown is not None:
                yield row, f"no song {unknown!r}"
            elif play.favourited and play.disliked:
                yield row, "both favourited and disliked"
            elif play.played_at and not timedelta() <= since_epoch(play.played_at) <= now + AHEAD:
                yield row, "played_at is before 1970 or in the future"

    def _once(self, key: str | None, digest: str, accept: Callable[[], list[Any]]) -> list[Any]:
        """What a request came to, as `Store.answered`, which is what `accept` comes to unless the key was used before:
        a repeated request waits for the first. Where another service is faster meanwhile, its outcome is answered."""
        if key is None:
            return accept()
        with self.turning:
            turn = self.turns.setdefault(key, threading.Lock())
        with turn:
            done = self.engine.store.answered(key, digest)
            if done is not None:
                return done
            try:
                return accept()
            except Refused as refusal:
                done = self.engine.store.answered(key, digest) if refusal.status == 409 else None
                if done is None:
                    raise
                return done

    def _deadline(self) -> float:
        """When a song is given up; right after a start, its time begins when the text encoder is loaded."""
        self.engine.state.model.encoder.load_text()
        return time.monotonic() + self.timeout

    def _begin(self, given: NewSong, audio: bytes | None, song_id: str, ends: float) -> Begun:
        """Decode and check a song, and submit it for encoding."""
        encoder = self.engine.state.model.encoder
        about = {name: getattr(given, name) or None for name in ABOUT}
        if given.released_at is not None:
            about[DAY_OF_RELEASE] = given.released_at.isoformat()
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        vectors = {name: self._vector(name, values) for name, values in given.features.items()}
        wave = self._decode(audio, ends) if audio is not None else None
        rate = self.decoders.sample_rate  # of the first model; a reloaded one may use another
        song = StoredSong(song_id, about, None if wave is None else len(wave) / rate, now, {}, "")
        content = Content(song.described, wave, vectors, rate)
        if encoder.says_nothing(content):
            give = "audio, or words" if encoder.hears else "words"
            raise Refused(422, f"nothing to encode: give {give} and tags that the models know")
        if self.engine.state.number(song_id) is not None:
            self.engine.follow()  # another service may have deleted it just now
        if self.engine.state.number(song_id) is not None:
            raise Refused(409, f"there is a song {song_id!r} already")
        flac = None if wave is None else to_flac(wave, rate)
        return song, flac, self._submitted(content)

    def _submitted(self, content: Content) -> Future[Encoded]:
        try:
            return self.engine.encoding.submit(content)
        except RuntimeError:
            raise Refused(503, "the service is shutting down") from None

    def _decode(self, audio: bytes, ends: float) -> FloatArray:
        patience = ends - time.monotonic()
        if patience < 0:
            raise Refused(503, LATE)
        try:
            return self.decoders.decode(audio, patience)
        except TimeoutError:
            raise Refused(503, LATE) from None
        except AudioError as error:
            raise Refused(422, f"the recording cannot be used: {REASONS[error.reason]}") from None
        except RuntimeError as error:
            log.error("%s", error)
            raise Refused(503, "recordings cannot be decoded just now") from None

    def _vector(self, name: str, values: list[float]) -> FloatArray:
        width = self.engine.state.model.encoder.widths.get(name)
        if width != len(values):
            reason = "is not known to the models" if width is None else f"has {width} numbers, not {len(values)}"
            raise Refused(422, f"feature {name!r} {reason}")
        vector = np.array(values, dtype=np.float32)
        if not (np.abs(vector) <= LARGEST).all():  # also false for NaN
            raise Refused(422, f"feature {name!r} has numbers that are not finite, or beyond {LARGEST:g}")
        return vector

    def _encoded(self, begun: Begun, ends: float) -> tuple[StoredSong, bytes | None, Encoded]:
        """Wait for the encoding, and return the arguments of `Engine.accept`."""
        song, flac, encoding = begun
        return song, flac, self._finished(encoding, ends)

    def _finished(self, encoding: Future[Encoded], ends: float) -> Encoded:
        try:
            encoded = encoding.result(max(0.0, ends - time.monotonic()))
        except TimeoutError:
            encoding.cancel()  # has no effect if encoding has begun
            raise Refused(503, LATE) from None
        if not all(np.isfinite(x).all() for x in (encoded.vector, encoded.item) if x is not None):
            raise Refused(422, "the models make no finite vector of it")
        return encoded


def id_of(given: NewSong, key: str | None, row: int) -> str:
    """The given song id, or a new one, derived from the key so that a repeated request gets the same."""
    if given.song_id:
        return given.song_id
    return f"new-{(uuid.uuid4() if key is None else uuid.uuid5(KEYS, f'{row} {key}')).hex[:20]}"


def decoded(audio: str | None) -> bytes | None:
    """Decode a recording from base64.

    Raises:
        Refused: it is not base64.
    """
    try:
        return None if audio is None else base64.b64decode(audio, validate=True)
    except ValueError:
        raise Refused(422, "audio is not base64") from None


def digest_of(given: Any, audio: bytes | None = None) -> str:
    """SHA-256 of a request, to detect a different request under the same key."""
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode())
    digest.update(b"" if audio is None else hashlib.sha256(audio).digest())
    return digest.hexdigest()
