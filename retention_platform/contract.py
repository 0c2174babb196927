"""The data contract, version 1: what a player's event and a video are, for all that make or read them.

This module owns the field names, types and bounds. It does no I/O. `warehouse/sql` holds the same rules for
ClickHouse, which judges every message on the stream; `tests/test_contract_sql.py` holds the two together.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Literal, TypeVar, get_args

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from retention_platform.errors import ContractError

SCHEMA_VERSION = 1
EVENTS_TOPIC = "playback_events"
VIDEOS_TOPIC = "videos"

MAX_MESSAGE_BYTES = 64 * 1024
MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 1000
MAX_CHAPTERS = 1000
#: Longest position or duration, in milliseconds of content: seven days.
MAX_MEDIA_MS = 7 * 24 * 3600 * 1000
#: Bound of a reported interval end. Wider than any video, so that nonsense is counted as an invalid interval.
MAX_INTERVAL_MS = 10**12
#: The fastest that real players go.
MAX_PLAYBACK_RATE = 16.0
MIN_EVENT_TIME = datetime(2000, 1, 1, tzinfo=timezone.utc)
MAX_EVENT_TIME = datetime(2100, 1, 1, tzinfo=timezone.utc)
#: How far ahead of the broker's timestamp a player's clock may run.
MAX_CLOCK_AHEAD = timedelta(hours=24)

EventType = Literal[
    "play",
    "pause",
    "seek",
    "heartbeat",
    "rate_change",
    "buffer_start",
    "buffer_end",
    "ended",
    "exit",
    "error",
]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)

_ISO_8601 = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def parse_time(value: object) -> datetime:
    """A time of the contract as UTC, cut to milliseconds.

    Takes ISO 8601 with ``T`` (no offset means UTC), epoch milliseconds, or an aware datetime.
    Raises PydanticCustomError, which names no field: the model does.
    """
    value = _parse_integer(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        moment = value.astimezone(timezone.utc)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_EVENT_TIME.timestamp() * 1000:
            raise PydanticCustomError("time", "out of range 2000-01-01 to 2100-01-01")
        moment = _EPOCH + timedelta(milliseconds=value)
    elif isinstance(value, str) and _ISO_8601.fullmatch(value):
        moment = _parse_iso(value)
    else:
        raise PydanticCustomError("time", "not an ISO 8601 time or epoch milliseconds")
    if not MIN_EVENT_TIME <= moment < MAX_EVENT_TIME:
        raise PydanticCustomError("time", "out of range 2000-01-01 to 2100-01-01")
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _parse_iso(text: str) -> datetime:
    """An ISO 8601 text of the right shape; fromisoformat of Python 3.10 takes neither Z nor odd fractions."""
    seconds, rest = text[:19], text[19:]
    fraction = ""
    if rest.startswith("."):
        digits = re.match(r"\.([0-9]+)", rest)
        assert digits is not None
        fraction, rest = digits.group(1), rest[digits.end() :]
    try:
        moment = datetime.fromisoformat(seconds + (rest.replace("Z", "+00:00") or "+00:00"))
        return moment.astimezone(timezone.utc) + timedelta(milliseconds=int(fraction[:3].ljust(3, "0")))
    except (ValueError, OverflowError) as error:
        raise PydanticCustomError("time", "no such date") from error


def format_time(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z, as messages carry it."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse_integer(value: object) -> object:
    """JSON has one kind of number: 1.0 is the integer 1. True is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _parse_version(value: object) -> object:
    if isinstance(value, bool) or _parse_integer(value) != SCHEMA_VERSION:
        raise PydanticCustomError("version", "must be 1")
    return SCHEMA_VERSION


def _parse_uuid(value: object) -> str:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise PydanticCustomError("uuid", "not a UUID")
    return value.lower()


Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH, strict=True)]
Label = Annotated[str, StringConstraints(max_length=MAX_ID_LENGTH, strict=True)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_LENGTH, strict=True)]
MediaMs = Annotated[int, BeforeValidator(_parse_integer), Field(strict=True, ge=0, le=MAX_MEDIA_MS)]
IntervalMs = Annotated[
    int, BeforeValidator(_parse_integer), Field(strict=True, ge=-MAX_INTERVAL_MS, le=MAX_INTERVAL_MS)
]
DurationMs = Annotated[int, BeforeValidator(_parse_integer), Field(strict=True, ge=1, le=MAX_MEDIA_MS)]
Version = Annotated[Literal[1], BeforeValidator(_parse_version)]
Rate = Annotated[float, Field(strict=True, gt=0, le=MAX_PLAYBACK_RATE, allow_inf_nan=False)]
Time = Annotated[datetime, BeforeValidator(parse_time)]
Uuid = Annotated[str, BeforeValidator(_parse_uuid)]


M = TypeVar("M", bound="_Message")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> bytes:
        """The message as it travels: compact UTF-8 JSON, absent fields left out, times as `format_time`."""
        values: dict[str, Any] = {}
        for name, value in self:
            if isinstance(value, datetime):
                values[name] = format_time(value)
            elif isinstance(value, tuple):
                values[name] = [model.model_dump() for model in value]
            elif value is not None:
                values[name] = value
        return orjson.dumps(values)


class PlaybackEvent(_Message):
    """One event of one playback. All ``*_ms`` are content milliseconds; times are UTC with milliseconds."""

    schema_version: Version = 1
    event_id: Uuid
    event_type: EventType
    event_time: Time
    session_id: Id
    viewer_id: Id
    video_id: Id
    position_ms: MediaMs
    played_from_ms: IntervalMs | None = None
    played_to_ms: IntervalMs | None = None
    seek_from_ms: MediaMs | None = None
    duration_ms: DurationMs | None = None
    playback_rate: Rate | None = None
    device_type: Label | None = None
    os: Label | None = None
    browser: Label | None = None
    country: Label | None = None
    traffic_source: Label | None = None
    player: Label | None = None
    is_live: Annotated[bool, Field(strict=True)] | None = None
    sent_at: Time | None = None

    @model_validator(mode="after")
    def _interval_is_whole(self) -> PlaybackEvent:
        if self.played_from_ms is None and self.played_to_ms is not None:
            raise ContractError("played_from_ms", "missing while played_to_ms is given")
        if self.played_to_ms is None and self.played_from_ms is not None:
            raise ContractError("played_to_ms", "missing while played_from_ms is given")
        return self

    @property
    def key(self) -> str:
        """The message key: events of one session stay in order."""
        return self.session_id


class Chapter(BaseModel):
    """Where a chapter starts, in content milliseconds, and what it is called."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    start_ms: MediaMs
    title: Text


class Video(_Message):
    """A video of the catalogue; of several messages about one the newest ``updated_at`` wins."""

    video_id: Id
    title: Text
    updated_at: Time
    duration_ms: DurationMs | None = None
    category: Label | None = None
    published_at: Time | None = None
    chapters: Annotated[tuple[Chapter, ...], Field(max_length=MAX_CHAPTERS)] = ()

    @property
    def key(self) -> str:
        """The message key: all messages about one video stay in order."""
        return self.video_id


def parse_event(payload: bytes | str, received_at: datetime | None = None) -> PlaybackEvent:
    """The event in a message; with ``received_at`` also refuses clocks more than 24 h ahead of it.

    Raises ContractError, whose text starts with the field.
    """
    fields = _object(payload)
    # A message without a version is no message of this contract, though our own constructor fills it in.
    fields.setdefault("schema_version", None)
    event = _validate(PlaybackEvent, fields)
    if received_at is not None and event.event_time > received_at + MAX_CLOCK_AHEAD:
        raise ContractError("event_time", "more than 24 h ahead of the broker's clock")
    return event


def parse_video(payload: bytes | str) -> Video:
    """The video in a message. Raises ContractError, whose text starts with the field."""
    fields = _object(payload)
    if fields.get("chapters") is None:
        fields.pop("chapters", None)
    elif isinstance(fields["chapters"], list):
        fields["chapters"] = tuple(fields["chapters"])
    return _validate(Video, fields)


def _object(payload: bytes | str) -> dict[str, Any]:
    raw = payload.encode() if isinstance(payload, str) else payload
    if not raw:
        raise ContractError("message", "empty")
    if len(raw) > MAX_MESSAGE_BYTES:
        raise ContractError("message", "over 64 KiB")
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ContractError("message", "not JSON") from None
    if not isinstance(fields, dict):
        raise ContractError("message", "not a JSON object")
    return fields


def _validate(model: type[M], fields: dict[str, Any]) -> M:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "message"
        value = fields.get(field)
        reason = "missing" if value is None else first["msg"]
        raise ContractError(field, reason) from None
