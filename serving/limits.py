"""Check requests before their content is read: origin, token, size, number in flight, and speed."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/", "/healthz", "/readyz", "/favicon.ico")  # public, as is /console/: the page itself asks for the token
LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d*)?")
# requests with recordings
LARGE = {("/songs", "multipart/form-data"), ("/songs/batch", "application/json"), ("/search", "application/json")}
JSON_BYTES, OTHER_BYTES = 8 << 20, 1 << 20  # size limits of requests without recordings
AT_ONCE = 8  # requests of the largest size in flight; limited by total bytes, so more of smaller ones
SLOWEST = 100_000  # bytes per second: minimum speed of a body
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]  # fmt: skip


class Limits:
    """Middleware that refuses requests before their content is read, and adds security headers to every answer.

    Args:
        app: the service.
        token: required bearer token; None: none, and only requests to this machine's own names are accepted.
        origins: other origins whose web pages may call (header `Origin`).
        max_bytes: of a request; AT_ONCE times this for all requests in flight.
        max_requests: in flight, that is until answered; those of OPEN are not counted.
        timeout: seconds until a body must be complete, plus one for each SLOWEST bytes of it.
    """

    def __init__(
        self, app: ASGIApp, token: str | None, origins: Sequence[str], max_bytes: int, max_requests: int, timeout: float
    ) -> None:
        self.app, self.token, self.origins, self.timeout = app, token, set(origins), timeout
        self.max_bytes, self.max_requests = max_bytes, max_requests
        self.in_flight, self.bytes_in_flight, self.closing = 0, 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        free = scope["path"] in OPEN or scope["path"].startswith("/console/")
        limit = self._size_limit(scope["path"], headers)
        size = headers.get("content-length", "0") if "transfer-encoding" not in headers else str(limit)
        refused = self._refusal(scope["method"], free, headers, size, limit)
        counted = 0 if refused or free else 1
        self.in_flight += counted
        self.bytes_in_flight += counted * int(size)

        def answered() -> None:
            nonlocal counted
            self.in_flight -= counted
            self.bytes_in_flight -= counted * int(size)
            counted = 0

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered()  # a slow reader of an answer does not occupy a place
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            if refused is not None:  # the rest of the request is not read
                status, detail, more = refused
                more |= {"connection": "close"} | self._readable(headers.get("origin"))
                await JSONResponse({"detail": detail}, status, more)(scope, receive, with_headers)
            else:
                await self.app(scope, self._bounded(receive, limit), with_headers)
        finally:
            answered()

    def _refusal(
        self, method: str, free: bool, headers: Headers, size: str, limit: int
    ) -> tuple[int, str, dict[str, str]] | None:
        """Status, message and headers if a request is to be refused, else None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.token is None and not LOOPBACK.fullmatch(host.lower()):
            return 421, "without a token the service answers to this machine's own names only", {}
        if origin is not None and origin.partition("://")[2] != host and origin not in self.origins:
            return 403, "pages of other origins may not call this service (see origins=)", {}
        preflight = method == "OPTIONS" and origin in self.origins
        if not free and not preflight and self.token is not None and not self._may(headers.get("authorization", "")):
            return 401, "a bearer token is needed", {"www-authenticate": "Bearer"}
        if not size.isdecimal() or int(size) > limit:
            return 413, too_large(limit), {}
        if not free and self.closing:
            return 503, "the service is shutting down", {"retry-after": "5"}
        full = self.in_flight >= self.max_requests or self.bytes_in_flight + int(size) > AT_ONCE * self.max_bytes
        if not free and full:
            return 429, "too many requests in flight: try again soon", {"retry-after": "1"}
        return None

    def _may(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), (self.token or "").encode())

    def _size_limit(self, path: str, headers: Headers) -> int:
        """Size limit of a request, bytes; content that is parsed on the event loop must be small."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (path, kind) in LARGE:
            return self.max_bytes
        return min(self.max_bytes, JSON_BYTES if kind == "application/json" else OTHER_BYTES)

    def _readable(self, origin: str | None) -> dict[str, str]:
        """CORS headers, so that a page of an allowed origin can read a refusal."""
        if origin is None or origin not in self.origins:
            return {}
        return {"access-control-allow-origin": origin, "vary": "Origin"}

    def _bounded(self, receive: Receive, limit: int) -> Receive:
        """Receive a body, refusing it when too large (its declared size may be missing) or too slow."""
        seen, more, began = 0, True, asyncio.get_running_loop().time()

        async def bounded() -> Message:
            nonlocal seen, more
            try:
                async with asyncio.timeout_at(began + self.timeout + seen / SLOWEST if more else None):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request did not come in time", {"connection": "close"}) from None
            seen, more = seen + len(message.get("body", b"")), message.get("more_body", False)
            if seen > limit:
                raise HTTPException(413, too_large(limit), {"connection": "close"})
            return message

        return bounded


def too_large(limit: int) -> str:
    """Message for a request above the size limit."""
    return f"such a request may have {limit / 2**20:g} MB"
