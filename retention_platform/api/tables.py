"""How an answer that is mostly a table leaves: ClickHouse writes its rows as JSON, CSV or Parquet, which pass through.

The API puts its envelope around JSON rows and reads none but the first; the models of `models` describe the result and
the tests hold the two together.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from retention_platform.api.answers import TheAnswers
from retention_platform.api.dependencies import TheWarehouse
from retention_platform.api.queries import Table

Known = TypeVar("Known")
#: A row by column name.
Row = dict[str, Any]


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
    # What spreadsheets and data frames take for nothing.
    "format_csv_null_representation": "",
}
_ACCEPTED = {"application/json": Format.JSON, "text/csv": Format.CSV, "application/vnd.apache.parquet": Format.PARQUET}

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

    def __init__(self, warehouse: TheWarehouse, answers: TheAnswers, format: WantedFormat) -> None:
        self._warehouse = warehouse
        self._answers = answers
        self._format = format

    async def answer(
        self,
        table: Table,
        name: str,
        known: Callable[[], Awaitable[Known]],
        head: Callable[[Known, Row | None], BaseModel],
        *,
        live: bool = False,
    ) -> Response:
        """The rows as the member ``name`` of the object that ``head`` makes, or alone as CSV or Parquet.

        ``head`` is given what ``known`` finds out and the first row, if there is one. 304 when the client has them of
        this version of the marts; ``live`` rows are never kept. What ``known`` raises goes to the client first.
        """

        async def made() -> bytes:
            return await self._body(table, name, known, head)

        headers = {}
        if self._format is not Format.JSON:
            file = re.sub(r"[^A-Za-z0-9._-]+", "-", table.name).strip("-.") or "table"
            headers["Content-Disposition"] = f'attachment; filename="{file}.{self._format.value}"'
        if live:
            return await self._answers.of_now(made, MEDIA_TYPES[self._format], headers)
        return await self._answers.of_marts(made, self._format.value, MEDIA_TYPES[self._format], headers)

    async def _body(
        self,
        table: Table,
        name: str,
        known: Callable[[], Awaitable[Known]],
        head: Callable[[Known, Row | None], BaseModel],
    ) -> bytes:
        about, rows = await asyncio.gather(known(), self._rows(table), return_exceptions=True)
        if isinstance(about, BaseException):
            raise about
        if isinstance(rows, BaseException):
            raise rows
        return _around(head(about, first_row(rows)), name, rows) if self._format is Format.JSON else rows

    async def _rows(self, table: Table) -> bytes:
        return await self._warehouse.raw(table.sql, table.parameters, _CLICKHOUSE_FORMATS[self._format], _SETTINGS)


TheTables = Annotated[Tables, Depends()]


def first_row(rows: bytes) -> Row | None:
    """The first of rows that ClickHouse wrote as a JSON array; None when it is empty."""
    # A bracket, then a row a line with a comma between: inside a row line ends are escaped.
    lines = rows.split(b"\n", 2)
    row = lines[1].strip().rstrip(b",") if len(lines) > 1 else b""
    found: Row | None = orjson.loads(row) if row.startswith(b"{") else None
    return found


def _around(head: BaseModel, name: str, rows: bytes) -> bytes:
    """A JSON object of the head's members, and the rows as its last one."""
    members = head.model_dump_json().encode()[1:-1]
    return b"{" + members + (b"," if members else b"") + orjson.dumps(name) + b":" + rows.strip() + b"}"
