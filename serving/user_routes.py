"""Routes of users, of what they did, and of the service itself."""

from __future__ import annotations

import numpy as np
import polars as pl
from fastapi import APIRouter

from serving import replies, schemas, shown
from serving.common import FAILURES, NO_BOUNDARY, TOKEN, Count, Here, Key, Margin, Text
from serving.refusals import Refused
from serving.schemas import Id

routes = APIRouter(responses=FAILURES, **TOKEN)
open_routes = APIRouter(responses=FAILURES)


@routes.get("/users")
def list_users(here: Here, query: Text = "", limit: Count = 20) -> replies.Users:
    """Known users whose id has `query` in it."""
    model = here.state.model
    ids = model.catalogue.users.with_row_index("user").select("user", "user_id")
    found = ids.filter(pl.col("user_id").str.contains(query, literal=True))
    plays = np.diff(model.play_start)
    shown_users = found.head(limit).iter_rows(named=True)
    return replies.Users(
        total=found.height,
        users=[replies.User(user_id=one["user_id"], plays=int(plays[one["user"]])) for one in shown_users],
    )


@routes.get("/users/{user_id:path}/recommendations")
def get_recommendations(here: Here, user_id: Id, k: Count = 20, margin: Margin = 0.0) -> replies.Recommendations:
    """New songs above a user's boundary."""
    state = here.state
    user = state.model.user_of.get(user_id)
    if user is None:
        raise Refused(404, f"no user {user_id!r}")
    if not state.model.has_boundary:
        raise Refused(409, NO_BOUNDARY)
    songs, considered = shown.recommended(state, user, k, margin)
    boundary = float(state.model.boundary_U[user])
    return replies.Recommendations(user_id=user_id, boundary=boundary, considered=considered, songs=songs)


@routes.post("/plays")
def add_plays(here: Here, given: schemas.NewPlays, key: Key = None) -> replies.PlaysTaken:
    """Take feedback in: histories, warm-up, and the next training's input."""
    accepted, unknown, rejected = here.incoming.plays(given.plays, key)
    refused = [replies.Rejected(row=row, detail=detail) for row, detail in rejected]
    return replies.PlaysTaken(accepted=accepted, unknown_users=unknown, rejected=refused)


@routes.get("/model")
def get_model(here: Here) -> replies.ModelInfo:
    """What is serving."""
    state, counts = here.state, here.engine.store.counts()
    model, manifest = state.model, state.model.manifest
    return replies.ModelInfo(
        version=model.version,
        **{name: manifest[name] for name in ("clip", "encoder", "boundary", "labels")},
        modes=model.modes,
        users=model.n_users,
        known_songs=model.n_songs - len(model.new),
        new_songs=state.pool.size,
        accepted_songs=counts["songs"],
        plays_received=counts["plays"],
        audio_seconds=float(manifest["audio"]["max_seconds"]),
        max_upload_mb=here.config.max_upload_mb,
        reload_error=here.engine.reload_error,
    )


@open_routes.get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """The process answers; no thread is needed for it."""
    return {"status": "ok"}


@open_routes.get("/readyz")
def readyz(here: Here) -> replies.Ready:
    """The model is loaded, and the store can be read. It is open to all: of an error, which names folders, it is only
    told that there is one."""
    here.engine.store.counts()
    error = here.engine.reload_error and "a newer model was not taken: /model says why"
    return replies.Ready(ready=True, model=here.state.model.version, reload_error=error)
