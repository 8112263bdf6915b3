"""Prometheus metrics of a running service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.engine import Engine
from serving.limits import Limits

METHODS = ("GET", "POST", "DELETE")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Middleware: counts and durations of requests by route and status; and gauges of the engine."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app = app
        self.registry = CollectorRegistry()
        self.limits: Limits | None = None
        at: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("firstplay_requests", "Answers", ["method", "route", "status"], **at)
        self.seconds = Histogram(
            "firstplay_request_seconds", "From request to answer", ["method", "route"], buckets=SECONDS, **at
        )
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "firstplay_requests_in_flight": ("Now", lambda: self.limits.in_flight if self.limits else 0),
            "firstplay_songs_waiting_for_encoding": ("Now", lambda: engine.encoding.waiting.qsize()),
            "firstplay_accepted_songs": ("In the store", lambda: engine.store.counts()["songs"]),
            "firstplay_received_plays": ("In the store", lambda: engine.store.counts()["plays"]),
            "firstplay_new_songs": ("That can be recommended", lambda: engine.state.pool.size),
            "firstplay_new_users": ("Whom the training has not seen", lambda: len(engine.state.joined)),
            "firstplay_free_rows": ("For more of them", lambda: engine.state.model.n_rows - engine.state.n_users),
            "firstplay_rows_behind": ("Of the store, not taken in yet", lambda: engine.behind()[0]),
            "firstplay_seconds_behind": ("Since nothing was missing", lambda: engine.behind()[1]),
            "firstplay_model_refused": ("1: a new model could not be taken", lambda: bool(engine.reload_error)),
        }
        for name, (about, value) in gauges.items():
            Gauge(name, about, registry=self.registry).set_function(value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, and measure it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), 500  # until an answer says another one

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path_format", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"  # clients can send any method
            self.requests.labels(method, route, str(status)).inc()
            self.seconds.labels(method, route).observe(time.perf_counter() - began)

    def answer(self) -> Response:
        """Response with all metrics."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
