"""What an answer looks like: its headers, its media type, an error in the middle of it. Pure."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import asdict

from retention_platform.embedded.clickhouse.engine import Counts

#: What a browser is told that asks by OPTIONS what other pages may do: what a server's own configuration says.
PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": (
        "origin, x-requested-with, x-clickhouse-format, x-clickhouse-user, x-clickhouse-key, Authorization"
    ),
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS",
    "Access-Control-Max-Age": "86400",
    "Connection": "close",
}
_TAG_LETTERS = string.ascii_lowercase + string.digits
#: Bytes of an exception's text that follow a result already begun, as the server's limit.
_MAX_TEXT = 16 * 1024


def summary_of(counts: Counts) -> str:
    """``X-ClickHouse-Summary``: every number a string, as the server writes them."""
    return json.dumps({name: str(value) for name, value in asdict(counts).items()})


def media_type(name: str) -> str:
    """The Content-Type of a result in a format."""
    if name.startswith("JSON"):
        # One object a line is not one JSON document.
        kind = "application/x-ndjson" if "EachRow" in name or name == "JSONLines" else "application/json"
        return f"{kind}; charset=UTF-8"
    if name.startswith("CSV"):
        header = "present" if "WithNames" in name else "absent"
        return f"text/csv; charset=UTF-8; header={header}"
    if name.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    if name.startswith(("Native", "RowBinary", "Arrow", "Parquet", "ORC", "Avro", "MsgPack", "Protobuf", "BSON")):
        return "application/octet-stream"
    if name == "XML":
        return "application/xml; charset=UTF-8"
    return "text/plain; charset=UTF-8"


def new_tag() -> str:
    """What marks an exception in the middle of one result, so that no data can be taken for it."""
    return "".join(secrets.choice(_TAG_LETTERS) for _ in range(16))


def exception_block(text: str, tag: str) -> bytes:
    """An exception behind the part of a result that is sent already, as servers since 25.11 mark it."""
    message = text.encode("utf-8", "surrogateescape")[:_MAX_TEXT] + b"\n"
    mark = tag.encode()
    return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (mark, message, len(message), mark)
