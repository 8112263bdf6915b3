"""What all routes share: the service of a request, the types of parameters, and what is refused where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPBearer

from configs.serving import ServingConfig
from serving import replies
from serving.decoding import Decoders
from serving.engine import Engine
from serving.incoming import Incoming
from serving.refusals import Refused
from serving.state import State

NO_BOUNDARY = "this model has no boundary: make the service folder with boundary=RUN"
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]
Budget = Annotated[int, Query(ge=1, le=10_000)]
Offset = Annotated[int, Query(ge=0, le=10**9)]
Count = Annotated[int, Query(ge=1, le=1000)]
Margin = Annotated[float, Query(ge=-1e6, le=1e6, allow_inf_nan=False)]
Text = Annotated[str, Query(max_length=200)]
FAILURES: dict[int | str, dict[str, Any]] = {
    **{status: {"model": replies.Failure} for status in (400, 401, 403, 404, 408, 409, 413, 421, 429, 503)},
    422: {"model": replies.Unusable},
}
TOKEN: dict[str, Any] = {"dependencies": [Depends(HTTPBearer(auto_error=False))]}  # as described; `Limits` looks at it


class Service:
    """What the routes share: the engine, who decodes, and where the catalogue's recordings are."""

    def __init__(self, engine: Engine, config: ServingConfig) -> None:
        audio = engine.state.model.manifest["audio"]
        seconds, rate = float(audio["max_seconds"]), int(audio["sample_rate"])
        self.engine, self.config = engine, config
        longest, least = 60 * config.max_minutes, float(audio["min_seconds"])
        self.decoders = Decoders(config.decoders, rate, seconds, longest, config.timeout, min_seconds=least)
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


def service_of(request: Request) -> Service:
    """The service of a request."""
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]


def number_of(service: Service, song_id: str) -> tuple[State, int]:
    """A state and the number of a song in it; 404 if there is none."""
    state = service.state
    number = state.number(song_id)
    if number is None:
        raise Refused(404, f"no song {song_id!r}")
    return state, number


def check_mode(state: State, mode: str, gate: bool) -> None:
    """409 for what needs a boundary that the model does not have."""
    if not state.model.has_boundary and (mode == "boundary" or gate):
        raise Refused(409, NO_BOUNDARY)
