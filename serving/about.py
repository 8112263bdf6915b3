"""What the service says of itself: the answer to `GET /model`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from configs.serving import ServingConfig
from serving.engine import Engine
from serving.schemas import Mode


class Columns(BaseModel):
    """What a condition may name."""

    columns: dict[str, str] = Field(description="names of columns, and what they hold")
    example: str | None = Field(description="a condition that holds for some; none where no column tells groups apart")


class Conditions(BaseModel):
    """What conditions on songs (`where`) and on users (`users_where`) may name."""

    songs: Columns
    users: Columns


class Behind(BaseModel):
    """What other services have written to the store and this one has not taken in yet."""

    rows: int
    seconds: float = Field(description="since nothing was missing: the oldest row is not older")


class ModelInfo(BaseModel):
    """What is serving."""

    version: str
    clip: str | None
    encoder: str
    boundary: str | None
    ranker: str | None
    modes: list[Mode]
    conditions: Conditions
    margin: float = Field(description="where the gate stands unless a request says otherwise (targeting.margin)")
    users: int = Field(description="whom the training has seen")
    new_users: int = Field(description="whom it has not seen, who have come in with their plays")
    free_rows: int = Field(description="for more of these")
    opted_out_users: int = Field(description="of both, those who are not named")
    known_songs: int
    new_songs: int
    accepted_songs: int
    plays_received: int
    behind: Behind
    labels: list[str]
    audio_seconds: float
    max_upload_mb: float
    reload_error: str | None


def model_info(engine: Engine, config: ServingConfig) -> ModelInfo:
    """What is serving now."""
    state, counts = engine.state, engine.store.counts()
    model, manifest = state.model, state.model.manifest
    rows, seconds = engine.behind()
    return ModelInfo(
        version=model.version,
        **{name: manifest[name] for name in ("clip", "encoder", "boundary", "labels")},
        ranker=manifest.get("ranker"),
        modes=model.modes,
        conditions=Conditions.model_validate(model.conditions),
        margin=model.options.margin,
        users=model.n_users,
        new_users=len(state.joined),
        free_rows=model.n_rows - state.n_users,
        opted_out_users=len(state.opted_out),
        known_songs=model.n_songs - len(model.new),
        new_songs=state.pool.size,
        accepted_songs=counts["songs"],
        plays_received=counts["plays"],
        behind=Behind(rows=rows, seconds=seconds),
        audio_seconds=float(manifest["audio"]["max_seconds"]),
        max_upload_mb=config.max_upload_mb,
        reload_error=engine.reload_error,
    )
