"""Routes of songs: in they come, out go similar songs, audiences, margins, clusters and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Response, UploadFile
from fastapi.responses import FileResponse
from pydantic import ValidationError

from data.audio.recordings import AudioError, decode
from serving import answers, pictures, replies, schemas, shown
from serving.common import (
    FAILURES,
    NO_BOUNDARY,
    TOKEN,
    Budget,
    Count,
    Here,
    Key,
    Margin,
    Offset,
    Service,
    Text,
    check_mode,
    number_of,
)
from serving.decoding import from_flac
from serving.refusals import Refused
from serving.schemas import Id, Mode
from serving.state import State

routes = APIRouter(responses=FAILURES, **TOKEN)
SOUND: dict[int | str, dict[str, Any]] = {
    **{status: {"description": "The recording, or a part of it", "content": {"audio/*": {}}} for status in (200, 206)},
    416: {"description": "It has no such part"},
}


@routes.post("/songs", status_code=201)
def add_song(
    here: Here,
    response: Response,
    audio: Annotated[UploadFile | None, File(description="a recording")] = None,
    title: Annotated[str, Form()] = "",
    lyrics: Annotated[str, Form()] = "",
    language: Annotated[str, Form()] = "",
    artist_id: Annotated[str, Form()] = "",
    genres: Annotated[list[str] | None, Form()] = None,
    tags: Annotated[list[str] | None, Form()] = None,
    song_id: Annotated[str, Form()] = "",
    features: Annotated[str, Form(description="JSON: name → numbers")] = "{}",
    mode: Mode = "i2i2u",
    budget: Budget = 50,
    gate: bool = False,
    margin: Margin = 0.0,
    key: Key = None,
) -> replies.Song:
    """Take a new song in: its similar songs and its first listeners."""
    check_mode(here.state, mode, gate)
    words = {"title": title, "lyrics": lyrics, "language": language, "artist_id": artist_id, "song_id": song_id}
    try:
        given = schemas.NewSong(
            **{name: text or None for name, text in words.items()},  # type: ignore[arg-type]
            genres=[one for one in genres or [] if one],
            tags=[one for one in tags or [] if one],
            features=schemas.FEATURES.validate_json(features),
        )
    except ValidationError as error:
        raise Refused(422, sentence(error.errors())) from None
    recording = audio.file.read() if audio is not None else None
    made = here.incoming.song(given, recording or None, key)
    state, number = number_of(here, made)
    check_mode(state, mode, gate)  # another model may have come into use
    response.headers["location"] = f"/songs/{quote(made, safe='')}"
    song = shown.song(state, number, here.audio)
    song.similar = shown.similar(state, number, 20, here.audio)
    song.audience = shown.audience(state, number, mode, budget, gate, margin)
    return song


@routes.post("/songs/batch")
def add_songs(here: Here, given: schemas.NewSongs, key: Key = None) -> replies.BatchResults:
    """Take songs in, each judged alone."""
    made = here.incoming.songs(given.songs, key)
    return replies.BatchResults(
        results=[replies.BatchResult(song_id=one, status=status, detail=detail) for one, status, detail in made]
    )


@routes.get("/songs")
def list_songs(here: Here, query: Text = "", offset: Offset = 0, limit: Count = 50) -> replies.Songs:
    """New songs, the newest first, whose title, id, artist or genre has `query` in it."""
    state = here.state
    found = shown.matching(state, query)
    return replies.Songs(total=len(found), songs=shown.briefs(state, found[offset : offset + limit], here.audio))


@routes.delete("/songs/{song_id:path}", status_code=204)
def delete_song(here: Here, song_id: Id) -> None:
    """Forget an accepted song."""
    state, number = number_of(here, song_id)
    if number < state.model.n_songs:
        raise Refused(403, f"song {song_id!r} is of the catalogue")
    if not here.engine.delete(song_id):
        raise Refused(404, f"no song {song_id!r}")


@routes.get("/songs/{song_id:path}/similar")
def get_similar(
    here: Here, song_id: Id, k: Count = 20, among: Literal["known", "new"] = "known"
) -> replies.SimilarSongs:
    """The known songs like a song, or the other new ones."""
    state, number = number_of(here, song_id)
    return replies.SimilarSongs(song_id=song_id, similar=shown.similar(state, number, k, here.audio, among))


@routes.get("/songs/{song_id:path}/audience")
def get_audience(
    here: Here, song_id: Id, mode: Mode = "i2i2u", budget: Budget = 50, gate: bool = False, margin: Margin = 0.0
) -> replies.Audience:
    """The first listeners of a song."""
    state, number = number_of(here, song_id)
    check_mode(state, mode, gate)
    return shown.audience(state, number, mode, budget, gate, margin)


@routes.get("/songs/{song_id:path}/margins")
def get_margins(here: Here, song_id: Id) -> pictures.Margins:
    """How far a song clears users' boundaries, and whom each operating point reaches."""
    state, number = number_of(here, song_id)
    if not state.model.has_boundary:
        raise Refused(409, NO_BOUNDARY)
    return pictures.Margins(song_id=song_id, **answers.margin_curve(state, number))


@routes.get("/songs/{song_id:path}/clusters")
def get_clusters(here: Here, song_id: Id) -> pictures.Clusters:
    """The users that CAT starts from, by cluster, in two dimensions."""
    state, number = number_of(here, song_id)
    return pictures.Clusters(song_id=song_id, **answers.cluster_picture(state, number))


@routes.get("/songs/{song_id:path}/picture")
def get_picture(here: Here, song_id: Id) -> pictures.Picture:
    """Waveform and spectrogram of a song's recording."""
    state, found = recording(here, song_id)
    audio = state.model.manifest["audio"]
    rate = int(audio["sample_rate"])
    try:
        wave = from_flac(found, rate) if isinstance(found, bytes) else decode(found, rate, float(audio["max_seconds"]))
    except AudioError:
        raise Refused(404, f"the recording of song {song_id!r} cannot be read") from None
    return shown.picture(wave, audio)


@routes.get("/songs/{song_id:path}/audio", response_class=Response, responses=SOUND)
def get_audio(here: Here, song_id: Id) -> Response:
    """A song's recording; of an accepted song the part that is heard, as FLAC."""
    _, found = recording(here, song_id)
    return Response(found, media_type="audio/flac") if isinstance(found, bytes) else FileResponse(found)


# An id may have slashes: this comes after the routes above, whose ends it would take for a part of one.
@routes.get("/songs/{song_id:path}")
def get_song(here: Here, song_id: Id) -> replies.Song:
    """A song, and the tags guessed of it."""
    return shown.song(*number_of(here, song_id), here.audio)


def recording(here: Service, song_id: str) -> tuple[State, Path | bytes]:
    """A state, and the file of a song of the catalogue, or the FLAC of one that came in: also of one that is of the
    catalogue by now, if its file is not here."""
    state, number = number_of(here, song_id)
    path = shown.audio_path(state, number, here.audio) if number < state.model.n_songs else None
    found = path if path is not None and path.is_file() else here.engine.store.audio(song_id)
    if found is None:
        raise Refused(404, f"song {song_id!r} has no recording")
    return state, found


def sentence(errors: Any) -> str:
    """Pydantic's first complaint, without what was given: that may be long, or secret."""
    first = errors[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
