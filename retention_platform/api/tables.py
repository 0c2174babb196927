"""How an answer that is mostly a table leaves: ClickHouse writes its rows as JSON, CSV or Parquet, which pass through.

The API puts its envelope around JSON rows without reading them; the models of `models` describe the result and the
tests hold the two together. Answers carry the marts' version as their ETag: who has it already gets 304 and no rows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Annotated, Any

import orjson
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from retention_platform.api.dependencies import TheVersion, TheWarehouse
from retention_platform.api.queries import Table


class Format(str, Enum):
    """What a table can be had as."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


#: Format to media type and ClickHouse's name of it.
MEDIA_TYPES = {
    Format.JSON: "application/json",
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.PARQUET: "application/vnd.apache.parquet",
}
_CLICKHOUSE_FORMATS = {Format.JSON: "JSONEachRow", Format.CSV: "CSVWithNames", Format.PARQUET: "Parquet"}
_SETTINGS: dict[str, str | int] = {
    "output_format_json_array_of_rows": 1,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_denormals": 0,
    "date_time_output_format": "iso",
    "output_format_parquet_string_as_string": 1,
}
_ACCEPTED = {"application/json": Format.JSON, "text/csv": Format.CSV, "application/vnd.apache.parquet": Format.PARQUET}

UNCHANGED: dict[str, Any] = {"description": "The marts are those of the ETag in If-None-Match"}
#: For the OpenAPI page: the other things a path can answer with.
ALSO: dict[str, Any] = {
    "text/csv": {"schema": {"type": "string"}},
    MEDIA_TYPES[Format.PARQUET]: {"schema": {"type": "string", "format": "binary"}},
}


def _wanted(
    request: Request,
    format: Annotated[
        Format | None, Query(description="json, csv or parquet; without it the Accept header decides")
    ] = None,
) -> Format:
    return format or accepted(request.headers.get("accept", ""))


WantedFormat = Annotated[Format, Depends(_wanted)]


def accepted(header: str) -> Format:
    """The first of our formats that an Accept header names, by its weights; JSON when it names none."""
    wishes = []
    for place, part in enumerate(header.split(",")):
        media, _, options = part.strip().partition(";")
        weight = re.search(r"q\s*=\s*([01](?:\.\d{0,3})?)", options)
        if (format := _ACCEPTED.get(media.strip().lower())) is not None:
            wishes.append((-float(weight[1]) if weight else -1.0, place, format))
    return min(wishes)[2] if wishes else Format.JSON


class Tables:
    """Answers one request with a table."""

    def __init__(self, request: Request, warehouse: TheWarehouse, version: TheVersion, format: WantedFormat) -> None:
        self._warehouse = warehouse
        self._version = version
        self._format = format
        self._known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}

    async def answer(
        self, table: Table, name: str, head: Callable[[], Awaitable[BaseModel]], *, live: bool = False
    ) -> Response:
        """The rows as the member ``name`` of the object that ``head`` makes, or alone as CSV or Parquet.

        304 when the client has them of this version of the marts; ``live`` answers are never kept. What ``head``
        raises goes to the client first.
        """
        headers = {"Cache-Control": "no-store", "Vary": "Accept, Authorization, X-API-Key"}
        if not live:
            # Before the rows are read: rows newer than their version are asked for again, never kept for too long.
            tag = f'W/"{await self._version()}-{self._format.value}"'
            headers |= {"ETag": tag, "Cache-Control": "no-cache"}
            if tag in self._known:
                return Response(status_code=304, headers=headers)
        about, rows = await asyncio.gather(head(), self._rows(table), return_exceptions=True)
        for outcome in (about, rows):
            if isinstance(outcome, BaseException):
                raise outcome
        body: bytes = rows  # type: ignore[assignment]
        if self._format is Format.JSON:
            body = _around(about, name, body)  # type: ignore[arg-type]
        else:
            file = re.sub(r"[^A-Za-z0-9._-]+", "-", table.name).strip("-.") or "table"
            headers["Content-Disposition"] = f'attachment; filename="{file}.{self._format.value}"'
        return Response(body, media_type=MEDIA_TYPES[self._format], headers=headers)

    async def _rows(self, table: Table) -> bytes:
        return await self._warehouse.raw(table.sql, table.parameters, _CLICKHOUSE_FORMATS[self._format], _SETTINGS)


TheTables = Annotated[Tables, Depends()]


def _around(head: BaseModel, name: str, rows: bytes) -> bytes:
    """A JSON object of the head's members, and the rows as its last one."""
    members = head.model_dump_json().encode()[1:-1]
    return b"{" + members + (b"," if members else b"") + orjson.dumps(name) + b":" + rows.strip() + b"}"
