"""The service as an ASGI application: routes, limits, metrics, the console, and what happens at start and end."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from configs.errors import UserError
from configs.serving import ServingConfig
from retrieval.milvus import MilvusError
from serving.engine import Engine
from serving.limits import Limits
from serving.metrics import Metrics
from serving.refusals import Refused, in_words
from serving.routes import TOKEN, Service, open_routes, routes
from serving.store_errors import StoreError, UnsureError

CONSOLE = Path(__file__).parent / "console"
MOST, LONGEST = 20, 100  # complaints about one request, and characters of a name in them
log = logging.getLogger("firstplay.serving")


def make_app(engine: Engine, config: ServingConfig, token: str | None) -> Limits:
    """The application that serves an engine, and closes it when it ends."""
    service = Service(engine, config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # a thread for every request in flight: most wait for the encoder or the store
        anyio.to_thread.current_default_thread_limiter().total_tokens = config.max_requests + 8
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(engine, config.watch_seconds, ended), daemon=True)
        watcher.start()
        yield
        ended.set()
        watcher.join()
        service.decoders.close()
        engine.close()

    without: dict[str, Any] = {"docs_url": None, "redoc_url": None}  # these load scripts from elsewhere
    app = FastAPI(title="FirstPlay", description="Finds the first listeners of new songs.", lifespan=lifespan,
                  redirect_slashes=False, **without)  # fmt: skip
    app.state.service = service
    app.router.routes += [*routes.routes, *open_routes.routes]  # `include_router` would search them twice a request
    app.openapi = partial(described, app)  # type: ignore[method-assign]
    metrics = Metrics(app, engine)
    app.add_api_route("/metrics", metrics.answer, include_in_schema=False)
    app.add_api_route("/", lambda: FileResponse(CONSOLE / "index.html"), include_in_schema=False)
    app.mount("/console", StaticFiles(directory=CONSOLE), name="console")
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(StoreError, store_failed)
    app.add_exception_handler(MilvusError, milvus_failed)
    app.add_exception_handler(RequestValidationError, malformed)
    if config.origins:
        app.add_middleware(CORSMiddleware, allow_origins=config.origins, allow_methods=["*"], allow_headers=["*"])
    most = int(config.max_upload_mb * 2**20), config.max_requests, config.timeout
    metrics.limits = Limits(metrics, token, config.origins, *most)
    return metrics.limits


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the token that `routes` need."""
    made = FastAPI.openapi(app)
    made["components"]["securitySchemes"] = TOKEN
    return made


def watch(engine: Engine, seconds: float, ended: threading.Event) -> None:
    """Load what an answer may wait for; then go over to a new model whenever its folder was replaced."""
    try:
        engine.state.model.encoder.load_text()
    except UserError as error:
        log.error("%s", error)
    while seconds and not ended.wait(seconds):
        if engine.changed():
            engine.reload()


async def refused(_: Request, error: Any) -> JSONResponse:
    """A refusal as an answer."""
    again = {"retry-after": "1"} if error.status in (429, 503) else None
    return JSONResponse({"detail": error.detail}, error.status, again)


async def store_failed(request: Request, error: Any) -> JSONResponse:
    """The store cannot be read or written; its path is not given."""
    log.error("%s", error)
    detail = "nothing was kept: the store is full, or cannot be written or read just now"
    if isinstance(error, UnsureError):
        detail = "the store was lost while it was written, and may have kept this: send it again with the same key"
    return await refused(request, Refused(503, detail))


async def milvus_failed(request: Request, error: Any) -> JSONResponse:
    """The Milvus that has the index cannot be asked; its address is not given. What came in was kept before."""
    log.error("%s", error)
    return await refused(request, Refused(503, "similar songs cannot be looked up just now: ask again"))


async def malformed(_: Request, error: Any) -> JSONResponse:
    """What is wrong with a request, without what was given: that may be long, or no text."""
    complaints = [
        {
            "loc": [part[:LONGEST] if isinstance(part, str) else part for part in one["loc"]],
            "msg": in_words(one),
            "type": one["type"],
        }
        for one in error.errors()[:MOST]
    ]
    return JSONResponse({"detail": complaints}, 422)
