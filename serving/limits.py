"""What a request must be before it is read: of a page that may call, with the token, not too large or one too many."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz", "/readyz", "/favicon.ico")  # and /console/: the page, which asks for the token itself
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]  # fmt: skip


class TooLarge(Exception):  # noqa: N818
    """More bytes came than a request may have."""


class Limits:
    """Refuses requests before any of their content is looked at, and gives every answer its headers.

    Args:
        app: the service.
        token: that a request must bear; None: none, for requests to this machine's own names only.
        origins: web pages of other origins that may call; a browser names the page's in `Origin`.
        max_bytes: of a request.
        max_requests: in flight; those of OPEN do not count.
    """

    def __init__(self, app: App, token: str | None, origins: Sequence[str], max_bytes: int, max_requests: int) -> None:
        self.app, self.token, self.origins = app, token, set(origins)
        self.max_bytes, self.max_requests = max_bytes, max_requests
        self.in_flight, self.closing = 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started = False

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        free = scope["path"] in OPEN or scope["path"].startswith("/console/")
        refused = self._refusal(scope, free)
        if refused is not None:
            return await answer(with_headers, *refused)
        self.in_flight += not free
        try:
            await self.app(scope, self._counted(receive), with_headers)
        except TooLarge:
            if not started:
                await answer(with_headers, 413, self._too_large())
        finally:
            self.in_flight -= not free

    def _refusal(self, scope: Scope, free: bool) -> tuple[Any, ...] | None:
        """(status, sentence) of a request that is not to be read; None for the others."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.token is None and host.rpartition(":")[0] not in LOOPBACK and host not in LOOPBACK:
            return 421, "without a token the service answers to this machine's own names only"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host and origin not in self.origins:
            return 403, "pages of other origins may not call this service (see origins=)"
        preflight = scope["method"] == "OPTIONS" and origin in self.origins
        if not free and not preflight and self.token is not None and not self._may(headers.get("authorization", "")):
            return 401, "a bearer token is needed", (b"www-authenticate", b"Bearer")
        size = headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > self.max_bytes:
            return 413, self._too_large()
        if not free and self.closing:
            return 503, "the service is shutting down", (b"retry-after", b"5")
        if not free and self.in_flight >= self.max_requests:
            return 429, "too many requests in flight: try again soon", (b"retry-after", b"1")
        return None

    def _may(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), (self.token or "").encode())

    def _too_large(self) -> str:
        return f"a request may have {self.max_bytes / 2**20:g} MB"

    def _counted(self, receive: Receive) -> Receive:
        """The body as it comes, as long as it is not too large: its announced size may be wrong, or missing."""
        seen = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise TooLarge
            return message

        return counted


async def answer(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """A refusal, closing the connection: the rest of the request is not read."""
    body = json.dumps({"detail": detail}).encode()
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    about += [(b"connection", b"close"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})
