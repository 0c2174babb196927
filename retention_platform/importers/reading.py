"""Lines of a log file, and what the importers make of them: contract messages or problems with a line number."""

from __future__ import annotations

import gzip
import json
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retention_platform.contract import PlaybackEvent, Video
from retention_platform.errors import RetentionError

#: The namespace of event ids made from what a source says: the same source gives the same ids.
EVENT_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:retention:imported-event")


@dataclass(frozen=True)
class Line:
    """One line of the source, counted from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Problem:
    """What could not be used, and where it stands."""

    line: int
    reason: str


Outcome = PlaybackEvent | Video | Problem
Importer = Callable[[Iterable[Line]], Iterator[Outcome]]


def event_id(*identity: object) -> str:
    """A UUID that the same identity always gives."""
    return str(uuid.uuid5(EVENT_IDS, json.dumps([str(part) for part in identity])))


def read_lines(path: Path) -> Iterator[Line]:
    """The file's lines that are not blank; ``.gz`` is read as is. Raises RetentionError in one line.

    Bytes that are not UTF-8 are replaced, so that their line fails alone.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                text = raw.decode("utf-8", "replace").strip().removeprefix("\ufeff")
                if text:
                    yield Line(number, text)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise RetentionError(
            f"{path} is not a whole gzip file: copy it again, or unpack it to see what is in it"
        ) from None
    except OSError as error:
        raise RetentionError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def json_object(line: Line) -> dict[str, Any] | Problem:
    """The JSON object on a line, or what is wrong with it."""
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return Problem(line.number, f"not JSON ({str(error)[:80]})")
    if not isinstance(value, dict):
        return Problem(line.number, "not a JSON object")
    return value
