"""The types of fields, problems, reasons, and what each answer about one video begins with."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _as_utc(value: object) -> object:
    """The driver gives UTC without saying so."""
    return value.replace(tzinfo=timezone.utc) if isinstance(value, datetime) and value.tzinfo is None else value


Utc = Annotated[datetime, BeforeValidator(_as_utc)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
VideoIdField = Annotated[str, Field(description="id of the video, as players report it", examples=["intro-to-sql"])]


class Answer(BaseModel):
    """What every answer is: read-only."""

    model_config = ConfigDict(frozen=True)


class ProblemDetails(BaseModel):
    """A failure as RFC 9457 describes it. Problems of parameters carry ``errors`` as well."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="the kind of problem, for programs", examples=["urn:retention:problem:unknown-video"])
    title: str = Field(description="the kind of problem, for people", examples=["No such video"])
    status: int = Field(description="the HTTP status", examples=[404])
    detail: str = Field(description="what is wrong this time, and what to do")
    instance: str = Field(description="the path asked for", examples=["/video/nope/retention_curve"])


#: How much so many views can tell (METRICS 5): below 30 the curve is mostly chance, below 100 no moment is told from
#: chance, below 300 every moment is tentative.
Sufficiency = Literal["no_views", "insufficient", "curve_only", "tentative", "full"]


class Reason(Answer):
    """Why an answer is empty though the request was right."""

    code: Literal["no_views", "too_few_views", "video_too_short", "none_significant", "nobody", "away", "no_runs"] = (
        Field(description="for programs", examples=["too_few_views"])
    )
    text: str = Field(description="for people", examples=["12 views: dropoffs are tested from 100 views on"])


class Chosen(Answer):
    """Which views the figures are of; all null or empty where they are of all."""

    first_day: date | None = Field(description="UTC day of a view's first event, from here on", examples=["2026-03-01"])
    last_day: date | None = Field(description="up to this day, included", examples=["2026-03-31"])
    device_type: list[str] = Field(description="any of these", examples=[["mobile"]])
    country: list[str] = Field(description="any of these", examples=[["DE", "AT"]])
    traffic_source: list[str] = Field(description="any of these", examples=[["search"]])
    viewer_type: list[str] = Field(description="new, returning or both", examples=[["new"]])


class OneVideo(Answer):
    """What every answer about one video begins with."""

    video_id: VideoIdField
    title: str | None = Field(
        description="null when the catalogue does not know the video; untrusted text", examples=["SQL, from scratch"]
    )
    duration_s: Seconds | None = Field(description="seconds of content; null when nobody told", examples=[754.0])
    views: Count = Field(description="the V that all ratios are of", examples=[1_820])
    is_sufficient: bool = Field(description="whether there are at least 30 views")
    sufficiency: Sufficiency = Field(
        description="what so many views can tell: insufficient below 30 (the curve is mostly chance), curve_only below "
        "100 (no moment is told from chance), tentative below 300, else full",
        examples=["full"],
    )
    fresh_as_of: Utc | None = Field(description="when the newest event that the figures contain was stored")
