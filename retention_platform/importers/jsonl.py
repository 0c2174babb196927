"""The contract itself, one JSON object a line: events, and videos where a line has a title and no event type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from retention_platform.contract import parse_event, parse_video
from retention_platform.errors import ContractError
from retention_platform.importers.reading import Line, Outcome, Problem, json_object


def convert(lines: Iterable[Line]) -> Iterator[Outcome]:
    """Each line as the message it is; one that breaks the contract is a problem that names the field."""
    for line in lines:
        fields = json_object(line)
        if isinstance(fields, Problem):
            yield fields
            continue
        is_video = "title" in fields and "event_type" not in fields
        try:
            yield parse_video(line.text) if is_video else parse_event(line.text)
        except ContractError as error:
            yield Problem(line.number, str(error))
