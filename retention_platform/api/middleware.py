"""What happens to every request before and after its handler: an id, one line in the access log, figures, and the
doors: keys and the rate limit. It knows nothing of videos.

Outermost first: `Rooted` (the path a proxy shows it under) → `Observed` (id, log, figures) → CORS → `Guarded` (key,
rate) → the routes.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retention_platform.api.errors import problem_response
from retention_platform.api.metrics import Metrics
from retention_platform.settings import Settings

access_log = logging.getLogger("retention.access")

REQUEST_ID = "X-Request-ID"
#: An id that the client chose is kept when it is one word; anything else could forge lines of the log.
_USABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Open without a key: what the service is, whether it lives, and how to use it.
_OPEN = re.compile(r"/|/health|/openapi\.json|/docs(/.*)?|/redoc|/static-offline-docs/.*")


def install(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put them around ``app``; what is added last is outermost."""
    keys = settings.api_key_list()
    if keys or settings.api_rate_limit:
        app.add_middleware(Guarded, keys=keys, per_minute=settings.api_rate_limit)
    if origins := settings.api_cors_origin_list():
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization", "X-API-Key", "If-None-Match", REQUEST_ID],
            expose_headers=["ETag", "Retry-After", REQUEST_ID],
        )
    app.add_middleware(Observed, metrics=metrics)
    app.add_middleware(Rooted, path=settings.api_root_path)


class Rooted:
    """Tells the application under which path a proxy shows it; requests without that path are answered as well."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        await self._app({**scope, "root_path": self._path}, receive, send)


class Observed:
    """Gives each request an id, and tells log and figures how it ended."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wished = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = wished if _USABLE_ID.fullmatch(wished) else uuid.uuid4().hex
        # The faults of handlers are answered outside of here, and take the id from the scope.
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status, size = 500, 0

        async def observed(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - began
            route = scope.get("route")
            self._metrics.answered(scope["method"], getattr(route, "path", "none"), status, seconds)
            # As it came, and what is not printable escaped: nothing of a client's forges a line or moves a cursor.
            path = ascii(scope.get("raw_path", b"/").decode("latin-1"))[1:-1]
            told = {"method": scope["method"], "path": path, "status": status}
            told |= {"milliseconds": round(seconds * 1e3, 1), "bytes": size, "request_id": request_id}
            # The same twice: as a line for people, and as fields for programs.
            access_log.info("%s %s %d %.1f ms %d B id=%s", *told.values(), extra=told)


class Guarded:
    """Asks for a key where keys are configured, and lets each client ask only so often a minute."""

    def __init__(self, app: ASGIApp, keys: tuple[bytes, ...], per_minute: int) -> None:
        self._app = app
        self._keys = keys
        self._limit = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        # A browser asks without the key whether it may send one (CORS preflight): that is answered further out.
        if scope["type"] == "http" and not _OPEN.fullmatch(scope["path"].removeprefix(scope.get("root_path", ""))):
            request = Request(scope)
            answer = await self._refusal(request)
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refusal(self, request: Request) -> Callable[[Scope, Receive, Send], Awaitable[None]] | None:
        client = request.client.host if request.client else "unknown"
        if self._keys:
            given = _key_of(request)
            if not is_known(given, self._keys):
                detail = "send a key as `X-API-Key: ...` or `Authorization: Bearer ...`"
                said = "no API key was given" if given is None else "this API key is not known"
                answer = problem_response(request, 401, "unauthorized", "An API key is needed", f"{said}: {detail}")
                answer.headers["WWW-Authenticate"] = "Bearer"
                return answer
            client = f"key {given!r}"
        if self._limit is not None and not await self._limiter.hit(self._limit, client):
            until, _ = await self._limiter.get_window_stats(self._limit, client)
            seconds = max(1, math.ceil(until - time.time()))
            detail = f"at most {self._limit.amount} requests a minute: ask again in {seconds} s"
            answer = problem_response(request, 429, "too-many-requests", "Too many requests", detail)
            answer.headers["Retry-After"] = str(seconds)
            return answer
        return None


def is_known(given: bytes | None, keys: tuple[bytes, ...]) -> bool:
    """Whether ``given`` is one of the keys; takes as long for a near miss as for any other."""
    found = False
    for key in keys:
        found |= hmac.compare_digest(given or b"", key)
    return found


def _key_of(request: Request) -> bytes | None:
    if key := request.headers.get("X-API-Key"):
        return key.encode("latin-1")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else None
