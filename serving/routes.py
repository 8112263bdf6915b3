"""The routes: songs come in, out go similar songs, audiences, margins, clusters and pictures; users, what they did, and
the service itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, iscoroutinefunction, signature
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
import polars as pl
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute

from configs.serving import ServingConfig
from data.audio.recordings import AudioError, decode
from data.conditions import LONGEST, ConditionError
from retrieval.songs import Songs
from serving import answers, outcomes, pictures, schemas, search, shown
from serving.about import ModelInfo, model_info
from serving.decoding import Decoders, from_flac
from serving.engine import Engine
from serving.form import SongForm
from serving.incoming import Incoming
from serving.refusals import Refused, no_condition
from serving.schemas import Id, Mode
from serving.state import State

SHORT, FEW = 100, 20_000  # recommendations, out of new songs, that take no longer than to hand them to a thread
NO_BOUNDARY = "this model has no boundary: make the service folder with boundary=RUN"
NO_RANKER = "this model has no ranker: make the service folder with rank=RUN"
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
Budget = Annotated[int, Query(ge=1, le=10_000)]
Offset = Annotated[int, Query(ge=0, le=10**9)]
Count = Annotated[int, Query(ge=1, le=1000)]
Margin = Annotated[  # none: the service's own
    float | None, Query(ge=-1e6, le=1e6, allow_inf_nan=False, description="default: targeting.margin of the service")
]
UsersWhere = Annotated[  # none: of all users
    str | None, Query(max_length=LONGEST, description='condition on users, e.g. country in ["CN"] and age >= 18')
]
Text = Annotated[str, Query(max_length=200)]
Shown = Annotated[int | None, Query(ge=0, le=10**9, description="users who were shown the song, if that is known")]
Where = Annotated[
    str | None,
    Query(max_length=LONGEST, description="a condition on columns of the known songs' table (songs.parquet)"),
]
FAILURES: dict[int | str, dict[str, Any]] = {
    **{status: {"model": schemas.Failure} for status in (400, 401, 403, 404, 408, 409, 413, 421, 429, 503)},
    422: {"model": schemas.Unusable},
}
SOUND: dict[int | str, dict[str, Any]] = {
    **{status: {"description": "The recording, or a part of it", "content": {"audio/*": {}}} for status in (200, 206)},
    416: {"description": "It has no such part"},
}


class Threaded(APIRoute):
    """A route whose function, unless it is a coroutine, runs in a thread; its `here` is the service.

    FastAPI would take a second thread to look at what it answers, and for the service a round of dependencies.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        given = signature(endpoint)
        named = [one for name, one in given.parameters.items() if name != "here"]
        waits, here = iscoroutinefunction(endpoint), len(named) < len(given.parameters)

        @wraps(endpoint)
        async def called(request: Request, **asked: Any) -> Any:
            if here:
                asked["here"] = request.app.state.service
            return await (endpoint(**asked) if waits else run_in_threadpool(endpoint, **asked))

        request = Parameter("request", Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
        called.__signature__ = given.replace(parameters=[request, *named])  # type: ignore[attr-defined]
        super().__init__(path, called, **options)


class Guarded(Threaded):
    """A route that needs the token, which `Limits` looks at: here it is only described."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options | {"openapi_extra": {"security": [{name: [] for name in TOKEN}]}})


TOKEN = {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
routes = APIRouter(responses=FAILURES, route_class=Guarded)
open_routes = APIRouter(responses=FAILURES, route_class=Threaded)


class Service:
    """What the routes share: the engine, who decodes, and where the catalogue's recordings are."""

    def __init__(self, engine: Engine, config: ServingConfig) -> None:
        audio = engine.state.model.manifest["audio"]
        seconds, rate = float(audio["max_seconds"]), int(audio["sample_rate"])
        self.engine, self.config = engine, config
        longest, shortest = 60 * config.max_minutes, float(audio["min_seconds"])
        self.decoders = Decoders(config.decoders, rate, seconds, longest, config.timeout, min_seconds=shortest)
        self.incoming = Incoming(engine, self.decoders, config.timeout)

    @property
    def state(self) -> State:
        """What answers now."""
        return self.engine.state

    @property
    def audio(self) -> Path | None:
        """Where the catalogue's recordings are."""
        folder = Path(self.config.audio or self.state.model.manifest["audio_root"])
        return folder if folder.is_dir() else None


@dataclass
class AudienceAsked:
    """The parameters of an audience."""

    mode: Mode = "i2i2u"
    budget: Budget = 50
    gate: bool = False
    margin: Margin = None
    users_where: UsersWhere = None

    def check(self, state: State) -> None:
        """409 for a mode, or a gate, that the model does not have."""
        check_boundary(state, self.gate or self.mode == "boundary")
        if self.mode == "rank" and not state.model.has_ranker:
            raise Refused(409, NO_RANKER)

    def answer(self, state: State, number: int, of: Songs | None = None) -> schemas.Audience:
        """The audience of a song; `of` as in `shown.audience`."""
        margin = margin_of(state, self.margin)
        return shown.audience(state, number, self.mode, self.budget, self.gate, margin, self.users_where, of)


@routes.post("/songs", status_code=201)
def add_song(
    here: Service,
    response: Response,
    form: Annotated[SongForm, Depends()],
    asked: Annotated[AudienceAsked, Depends()],
    key: Key = None,
) -> schemas.Song:
    """Take a new song in: its similar songs and its first listeners."""
    asked.check(here.state)
    answers.left_out(here.state, asked.users_where)  # refused before the song is kept
    given = form.song()
    recording = form.audio.file.read() if form.audio is not None else None
    made = here.incoming.song(given, recording or None, key)
    state, number = number_of(here, made)
    asked.check(state)  # another model may have come into use
    response.headers["location"] = f"/songs/{quote(made, safe='')}"
    song, of = shown.song(state, number, here.audio), answers.song_of(state, number, asked.users_where)
    song.similar = shown.similar(state, number, 20, here.audio, of=of)
    song.audience = asked.answer(state, number, of)
    return song


@routes.post("/songs/batch")
def add_songs(here: Service, given: schemas.NewSongs, key: Key = None) -> schemas.BatchResults:
    """Take songs in, each judged alone."""
    return schemas.BatchResults(results=here.incoming.songs(given.songs, key))


@routes.get("/songs")
def list_songs(here: Service, query: Text = "", offset: Offset = 0, limit: Count = 50) -> schemas.Songs:
    """New songs, the newest first, whose title, id, artist or genre has `query` in it."""
    state = here.state
    found = shown.matching(state, query)
    return schemas.Songs(total=len(found), songs=shown.briefs(state, found[offset : offset + limit], here.audio))


@routes.delete("/songs/{song_id:path}", status_code=204)
def delete_song(here: Service, song_id: Id) -> None:
    """Forget an accepted song."""
    state, number = number_of(here, song_id)
    if number < state.model.n_songs:
        raise Refused(403, f"song {song_id!r} is of the catalogue")
    if not here.engine.delete(song_id):
        raise Refused(404, f"no song {song_id!r}")


@routes.get("/songs/{song_id:path}/similar")
def get_similar(
    here: Service, song_id: Id, k: Count = 20, among: Literal["known", "new"] = "known", where: Where = None
) -> schemas.SimilarSongs:
    """The known songs like a song, all of them or those for which a condition holds, or the other new ones."""
    state, number = number_of(here, song_id)
    if where is not None and among == "new":
        raise Refused(422, "where= chooses among known songs: ask without among=new")
    try:
        found = shown.similar(state, number, k, here.audio, among, where=where)
    except ConditionError as error:
        raise no_condition(error) from None
    return schemas.SimilarSongs(song_id=song_id, similar=found)


@routes.get("/songs/{song_id:path}/audience")
def get_audience(here: Service, song_id: Id, asked: Annotated[AudienceAsked, Depends()]) -> schemas.Audience:
    """The first listeners of a song."""
    state, number = number_of(here, song_id)
    asked.check(state)
    return asked.answer(state, number)


@routes.get("/songs/{song_id:path}/margins")
def get_margins(here: Service, song_id: Id) -> pictures.Margins:
    """How far a song clears users' boundaries, and whom each operating point reaches."""
    state, number = number_of(here, song_id)
    check_boundary(state)
    return pictures.Margins(song_id=song_id, **answers.margin_curve(state, number))


@routes.get("/songs/{song_id:path}/clusters")
def get_clusters(here: Service, song_id: Id) -> pictures.Clusters:
    """The users that CAT starts from, by cluster, in two dimensions."""
    state, number = number_of(here, song_id)
    return pictures.Clusters(song_id=song_id, **answers.cluster_picture(state, number))


@routes.get("/songs/{song_id:path}/outcomes")
def get_outcomes(here: Service, song_id: Id, shown: Shown = None) -> outcomes.Outcomes:
    """What those who played a song did with it, beside the catalogue; and whether it is worth showing to more."""
    return outcomes.outcomes(*number_of(here, song_id), shown)


@routes.get("/songs/{song_id:path}/picture")
def get_picture(here: Service, song_id: Id) -> pictures.Picture:
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
def get_audio(here: Service, song_id: Id) -> Response:
    """A song's recording; of an accepted song the part that is heard, as FLAC."""
    _, found = recording(here, song_id)
    return Response(found, media_type="audio/flac") if isinstance(found, bytes) else FileResponse(found)


# An id may have slashes: this comes after the routes above, whose ends it would take for a part of one.
@routes.get("/songs/{song_id:path}")
def get_song(here: Service, song_id: Id) -> schemas.Song:
    """A song, and the tags guessed of it."""
    return shown.song(*number_of(here, song_id), here.audio)


@routes.post("/search")
def search_songs(here: Service, given: schemas.Search) -> schemas.FoundSongs:
    """Songs, known and new, by a text, by songs that are liked or not, or by a recording; where a condition holds."""
    state, asked = here.incoming.query(given)
    scores_1K, numbers_1K = search.nearest(state, [asked], given.k, given.among, given.where)
    return shown.found(state, asked.by, numbers_1K[0], scores_1K[0], here.audio)


@routes.get("/users")
def list_users(here: Service, query: Text = "", limit: Count = 20) -> schemas.Users:
    """Users whose id has `query` in it."""
    state = here.state
    ids = pl.concat([state.model.user_ids, pl.Series(state.joined[:], dtype=pl.String)])
    found = ids.str.contains(query, literal=True).arg_true()
    users = [shown.user(state, user) for user in found.head(limit)]
    return schemas.Users(total=len(found), users=users)


@routes.get("/users/{user_id:path}/recommendations")
async def get_recommendations(
    here: Service, user_id: Id, k: Count = 20, margin: Margin = None
) -> schemas.Recommendations:
    """New songs above a user's boundary."""
    state = here.state
    # to wake a thread and be woken by it takes longer than a short answer, unless there is a lock to wait for
    if k > SHORT or state.pool.size > FEW or not state.lock.acquire(blocking=False):
        return await run_in_threadpool(recommendations, state, user_id, k, margin)
    try:
        return recommendations(state, user_id, k, margin)
    finally:
        state.lock.release()


@routes.post("/plays")
def add_plays(here: Service, given: schemas.NewPlays, key: Key = None) -> schemas.PlaysTaken:
    """Take feedback in: histories, warm-up, and the next training's input."""
    return here.incoming.plays(given.plays, key)


@routes.post("/opt-outs")
def add_opt_outs(here: Service, given: schemas.OptOuts) -> schemas.OptOutsTaken:
    """Take in who is not to be named, or may be again: the next answer heeds it."""
    changed = here.engine.opt_out(given.user_ids, given.opted_out)
    unknown = sum(here.state.user(user_id) is None for user_id in set(given.user_ids))
    return schemas.OptOutsTaken(changed=changed, unknown_users=unknown)


@routes.get("/model")
def get_model(here: Service) -> ModelInfo:
    """What is serving."""
    return model_info(here.engine, here.config)


@open_routes.get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process answers; no thread is needed for it."""
    return {"status": "ok"}


@open_routes.get("/readyz")
def readyz(here: Service) -> schemas.Ready:
    """The model is loaded, and the store can be read. It is open to all, so of an error, which
    names folders, it says only that there is one."""
    here.engine.store.counts()
    error = here.engine.reload_error and "a newer model was not taken: /model says why"
    return schemas.Ready(ready=True, model=here.state.model.version, reload_error=error)


def number_of(service: Service, song_id: str) -> tuple[State, int]:
    """A state and the number of a song in it; 404 if there is none."""
    state = service.state
    if state.number(song_id) is None:
        service.engine.follow()  # another service may have taken it in just now
        state = service.state
    number = state.number(song_id)
    if number is None:
        raise Refused(404, f"no song {song_id!r}")
    return state, number


def recommendations(state: State, user_id: str, k: int, margin: float | None) -> schemas.Recommendations:
    """What `get_recommendations` answers."""
    user = state.user(user_id)
    if user is None:
        raise Refused(404, f"no user {user_id!r}")
    check_boundary(state)
    boundary, opted_out = float(state.model.boundary_U[user]), bool(state.is_out_U[user])
    if np.isinf(boundary):
        raise Refused(404, f"user {user_id!r} is just coming in: ask again")
    songs, considered = shown.recommended(state, user, k, margin_of(state, margin))
    about = {"user_id": user_id, "opted_out": opted_out, "boundary": boundary, "considered": considered}
    return schemas.Recommendations.model_validate(about | {"songs": songs})


def margin_of(state: State, asked: float | None) -> float:
    """Where the gate stands: as a request asks, else as the service was made."""
    return state.model.options.margin if asked is None else asked


def check_boundary(state: State, needed: bool = True) -> None:
    """409 for what needs a boundary that the model does not have."""
    if needed and not state.model.has_boundary:
        raise Refused(409, NO_BOUNDARY)


def recording(here: Service, song_id: str) -> tuple[State, Path | bytes]:
    """A state, and the file of a song of the catalogue, or the FLAC of one that came in: also of one that is of the
    catalogue by now, if its file is not here."""
    state, number = number_of(here, song_id)
    path = shown.audio_path(state, number, here.audio) if number < state.model.n_songs else None
    found = path if path is not None and path.is_file() else here.engine.store.audio(song_id)
    if found is None:
        raise Refused(404, f"song {song_id!r} has no recording")
    return state, found
