"""What benchmarks.speed.serve_load asks of a service, over HTTP and, the same, of its parts in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

from artifacts.folders import read_manifest
from configs.options import MADE_BY, SERVICE
from data.catalogue import Catalogue, read_features
from serving import answers, shown
from serving.routes import Service, number_of, search_songs
from serving.schemas import NewPlay, NewSong, Search

WORDS, SOUND = "song by words and features", "song by 10 s of audio"
MODES = ("i2i2u", "taste", "cat", "union", "boundary", "rank")
SONGS = (f"{WORDS}, i2i2u", f"{WORDS}, boundary", f"{SOUND}, i2i2u")
PLAY = "play of a new song"
WRITES = (*SONGS, PLAY)
BY_TEXT, BY_SONGS = "search by a text", "search by two songs"
KINDS = (*WRITES, "recommendations", BY_TEXT, BY_SONGS, *(f"audience, {mode}" for mode in MODES))
RANKED = KINDS[-1]
BUDGET, SIMILAR = 50, 20
SECONDS, RATE, RECORDINGS = 10, 44_100, 8
FIELDS = ("title", "lyrics", "language", "artist_id", "genres", "tags")
OF_WORDS = ("clip_text", "text")  # features that the service makes of words itself

Ask = Callable[[str, np.random.Generator], int]  # a kind of request, what chooses its content → status
Side = Callable[[], AbstractContextManager[Ask]]  # a client


class Material:
    """What requests are made of: the new songs of a service folder sent again, its users, and recordings.

    `kinds` are the kinds of request that its model answers: of a ranked audience with a ranker alone, by a text where
    it has what texts are compared with.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        ranker = read_manifest(folder, SERVICE, MADE_BY[SERVICE]).get("ranker")
        has = {RANKED: bool(ranker), BY_TEXT: (folder / "words").exists()}
        self.kinds = [kind for kind in KINDS if has.get(kind, True)]
        catalogue = Catalogue.read(folder / "catalogue")
        self.rows = catalogue.rows("cold")
        self.new = catalogue.songs[self.rows].to_dicts()
        self.users = catalogue.users["user_id"].drop_nulls()  # other rows are free, for users who come
        self.features = {
            name: values for name, values in read_features(folder / "features", catalogue.n_songs).items()
            if name not in OF_WORDS
        }  # fmt: skip
        rng = np.random.default_rng(seed)
        self.recordings = [recording(rng) for _ in range(RECORDINGS)]

    def song(self, kind: str, rng: np.random.Generator) -> tuple[dict[str, Any], bytes | None]:
        """Words, tags and features of a new song as they are posted, or a recording."""
        if kind.startswith(SOUND):
            return {}, self.recordings[rng.integers(RECORDINGS)]
        at = int(rng.integers(len(self.new)))
        about = {name: self.new[at].get(name) for name in FIELDS}
        vectors = {
            name: (values[self.rows[at]] + rng.normal(0, 0.01, values.shape[1])).astype(np.float32)
            for name, values in self.features.items()
        }
        features = {name: vector.tolist() for name, vector in vectors.items() if np.isfinite(vector).all()}
        return {name: value for name, value in about.items() if value} | {"features": features}, None

    def play(self, rng: np.random.Generator) -> dict[str, Any]:
        """Some user has completed some new song of the catalogue."""
        user, song = self.users[int(rng.integers(len(self.users)))], self.new[rng.integers(len(self.new))]["song_id"]
        return {"user_id": user, "song_id": song, "completed": True}

    def search(self, kind: str, rng: np.random.Generator) -> dict[str, Any]:
        """A search by genres and tags of some new song, as a text, or by two new songs that are liked."""
        one, other = (self.new[at] for at in rng.integers(len(self.new), size=2))
        if kind == BY_SONGS:
            return {"like": [one["song_id"], other["song_id"]], "k": SIMILAR}
        labels = [label for name in ("genres", "tags") for label in one.get(name) or []]
        return {"text": " ".join(filter(None, labels)) or "calm piano at night", "k": SIMILAR}


def over_http(material: Material, url: str, token: str) -> Side:
    """Clients that ask a running service; a status of 0 is no answer."""

    @contextmanager
    def one() -> Iterator[Ask]:
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60, verify=False) as client:
            yield lambda kind, rng: send(material, client, kind, rng)

    return one


def send(material: Material, client: httpx.Client, kind: str, rng: np.random.Generator) -> int:
    """One request; its status."""
    try:
        return answer(material, client, kind, rng).status_code
    except httpx.HTTPError:
        return 0


def answer(
    material: Material,
    client: httpx.Client,
    kind: str,
    rng: np.random.Generator,
    song_id: str = "",
    users_where: str | None = None,
) -> httpx.Response:
    """The answer to one request; a song that is posted has this id, or one that the service gives it."""
    asked: dict[str, Any] = {"mode": kind.rpartition(", ")[2], "budget": BUDGET}
    if users_where is not None:
        asked["users_where"] = users_where
    play = material.play(rng)
    if kind in SONGS:
        given, audio = material.song(kind, rng)
        words = {name: json.dumps(value) if name == "features" else value for name, value in given.items()}
        files = {"audio": ("song.mp3", audio)} if audio else None
        return client.post("/songs", data=words | ({"song_id": song_id} if song_id else {}), files=files, params=asked)
    if kind == PLAY:
        return client.post("/plays", json={"plays": [play]})
    if kind in (BY_TEXT, BY_SONGS):
        return client.post("/search", json=material.search(kind, rng))
    if kind == "recommendations":
        return client.get(f"/users/{play['user_id']}/recommendations")
    return client.get(f"/songs/{play['song_id']}/audience", params=asked)


def in_process(material: Material, service: Service) -> Side:
    """Callers of what the routes call."""
    return lambda: nullcontext(lambda kind, rng: call(material, service, kind, rng))


def call(material: Material, service: Service, kind: str, rng: np.random.Generator) -> int:
    """What `send` asks for; the status that the service would answer with."""
    mode: Any = kind.rpartition(", ")[2]
    state, play = service.state, material.play(rng)
    if kind in SONGS:
        given, audio = material.song(kind, rng)
        state, number = number_of(service, service.incoming.song(NewSong(**given), audio, None))
        shown.song(state, number, service.audio)
        of = answers.song_of(state, number)
        shown.similar(state, number, SIMILAR, service.audio, of=of)
        shown.audience(state, number, mode, BUDGET, False, 0.0, of=of)
        return 201
    if kind == PLAY:
        service.incoming.plays([NewPlay(**play)], None)
    elif kind in (BY_TEXT, BY_SONGS):
        search_songs(service, Search(**material.search(kind, rng)))
    elif kind == "recommendations":
        shown.recommended(state, state.model.user_of[play["user_id"]], SIMILAR, 0.0)
    else:
        shown.audience(*number_of(service, play["song_id"]), mode, BUDGET, False, 0.0)
    return 200


def recording(rng: np.random.Generator) -> bytes:
    """Ten seconds of stereo as people upload it: notes that fade, over noise, as MP3."""
    at = np.arange(SECONDS * RATE) / RATE
    pitch = 220 * 2 ** (rng.integers(0, 24, 40) / 12)
    step = (at * 4).astype(int)
    notes = np.sin(2 * np.pi * pitch[step] * at) * np.exp(-6 * (at % 0.25))
    wave = 0.4 * notes[:, None] + 0.02 * rng.standard_normal((len(at), 2))
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="MP3")
    return file.getvalue()
