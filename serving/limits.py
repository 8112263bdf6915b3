"""What a request must be before it is read: of a page that may call, with the token, not too large or one too many."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz", "/readyz", "/favicon.ico")  # and /console/: the page, which asks for the token itself
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d*)?")
LARGE = {("/songs", "multipart/form-data"), ("/songs/batch", "application/json")}  # what brings recordings
JSON_BYTES, OTHER_BYTES = 8 << 20, 1 << 20  # most of a request that brings none
AT_ONCE = 8  # of the largest requests; by their bytes, more smaller ones
SLOWEST = 100_000  # bytes a second, below which a body is not waited for
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]  # fmt: skip


class Limits:
    """Refuses requests before any of their content is looked at, and gives every answer its headers.

    Args:
        app: the service.
        token: that a request must bear; None: none, for requests to this machine's own names only.
        origins: web pages of other origins that may call; a browser names the page's in `Origin`.
        max_bytes: of a request; AT_ONCE times as many of all that are in flight.
        max_requests: in flight, which is until they are answered; those of OPEN do not count.
        timeout: seconds after which a body must have come, and one more for each SLOWEST bytes of it.
    """

    def __init__(
        self, app: App, token: str | None, origins: Sequence[str], max_bytes: int, max_requests: int, timeout: float
    ) -> None:
        self.app, self.token, self.origins, self.timeout = app, token, set(origins), timeout
        self.max_bytes, self.max_requests = max_bytes, max_requests
        self.in_flight, self.bytes_in_flight, self.closing = 0, 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        given = reversed(scope["headers"])  # of two of a name the first counts, as it does within the service
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in given}
        free = scope["path"] in OPEN or scope["path"].startswith("/console/")
        most = self._most(scope["path"], headers)
        size = headers.get("content-length", "0") if "transfer-encoding" not in headers else str(most)
        refused = self._refusal(scope["method"], free, headers, size, most)
        counted = 0 if refused or free else 1
        self.in_flight += counted
        self.bytes_in_flight += counted * int(size)

        def answered() -> None:
            nonlocal counted
            self.in_flight -= counted
            self.bytes_in_flight -= counted * int(size)
            counted = 0

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answered()  # who takes an answer slowly keeps nobody waiting
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            if refused is not None:
                await answer(with_headers, *refused, *self._readable(headers.get("origin")))
            else:
                await self.app(scope, self._bounded(receive, most), with_headers)
        finally:
            answered()

    def _refusal(
        self, method: str, free: bool, headers: dict[str, str], size: str, most: int
    ) -> tuple[Any, ...] | None:
        """(status, sentence) of a request that is not to be read; None for the others."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.token is None and not LOOPBACK.fullmatch(host.lower()):
            return 421, "without a token the service answers to this machine's own names only"
        if origin is not None and origin.partition("://")[2] != host and origin not in self.origins:
            return 403, "pages of other origins may not call this service (see origins=)"
        preflight = method == "OPTIONS" and origin in self.origins
        if not free and not preflight and self.token is not None and not self._may(headers.get("authorization", "")):
            return 401, "a bearer token is needed", (b"www-authenticate", b"Bearer")
        if not size.isdecimal() or int(size) > most:
            return 413, too_large(most)
        if not free and self.closing:
            return 503, "the service is shutting down", (b"retry-after", b"5")
        full = self.in_flight >= self.max_requests or self.bytes_in_flight + int(size) > AT_ONCE * self.max_bytes
        if not free and full:
            return 429, "too many requests in flight: try again soon", (b"retry-after", b"1")
        return None

    def _may(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), (self.token or "").encode())

    def _most(self, path: str, headers: dict[str, str]) -> int:
        """Bytes that a request may have; what is read on the event loop must be short."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (path, kind) in LARGE:
            return self.max_bytes
        return min(self.max_bytes, JSON_BYTES if kind == "application/json" else OTHER_BYTES)

    def _readable(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Headers by which a page of another origin may read a refusal."""
        if origin is None or origin not in self.origins:
            return []
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    def _bounded(self, receive: Receive, most: int) -> Receive:
        """The body as it comes, if it is neither too large (its announced size may be missing) nor too slow."""
        seen, more, began = 0, True, asyncio.get_running_loop().time()

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal seen, more
            try:
                async with asyncio.timeout_at(began + self.timeout + seen / SLOWEST if more else None):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request did not come in time", {"connection": "close"}) from None
            seen, more = seen + len(message.get("body", b"")), message.get("more_body", False)
            if seen > most:
                raise HTTPException(413, too_large(most), {"connection": "close"})
            return message

        return bounded


def too_large(most: int) -> str:
    """What is wrong with a request of more bytes."""
    return f"such a request may have {most / 2**20:g} MB"


async def answer(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """A refusal, closing the connection: the rest of the request is not read."""
    body = json.dumps({"detail": detail}).encode()
    about = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    about += [(b"connection", b"close"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": about})
    await send({"type": "http.response.body", "body": body})
