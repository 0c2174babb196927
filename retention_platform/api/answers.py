"""How an answer of the marts leaves: with their version as its ETag. Who has it already gets 304 and nothing else, and
until the marts are another version the same question is answered from memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel

from retention_platform.api.dependencies import TheKeptAnswers, TheVersion

UNCHANGED: dict[str, Any] = {"description": "The marts are those of the ETag in If-None-Match"}

_VARY = {"Vary": "Accept, Authorization, X-API-Key"}


class Answers:
    """Answers one request."""

    def __init__(self, request: Request, version: TheVersion, kept: TheKeptAnswers) -> None:
        self._version = version
        self._kept = kept
        self._question = (request.scope["raw_path"], request.scope["query_string"])
        self._known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}

    async def model(self, make: Callable[[], Awaitable[BaseModel]]) -> Response:
        """What ``make`` makes of the marts, as JSON."""

        async def made() -> bytes:
            return (await make()).model_dump_json().encode()

        return await self.of_marts(made, "json", "application/json")

    async def of_marts(
        self, make: Callable[[], Awaitable[bytes]], kind: str, media_type: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """What ``make`` makes of the marts; ``kind`` tells it from other answers to the same question."""
        # Before it is made: what is newer than its version is asked for again, never kept for too long.
        version = await self._version()
        tag = f'W/"{version}-{kind}"'
        always = {**_VARY, "ETag": tag, "Cache-Control": "no-cache"}
        if tag in self._known:
            return Response(status_code=304, headers=always)
        body = await self._kept(version, (self._question, kind), make)
        return Response(body, media_type=media_type, headers={**(headers or {}), **always})

    async def of_now(
        self, make: Callable[[], Awaitable[bytes]], media_type: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """What ``make`` makes of what changes all the time; nobody keeps it."""
        always = {**_VARY, "Cache-Control": "no-store"}
        return Response(await make(), media_type=media_type, headers={**(headers or {}), **always})


TheAnswers = Annotated[Answers, Depends()]
