"""Which of a video's views an answer is of: a range of days and segments, as the query string says them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from fastapi import Depends, Query

from retention_platform.api.errors import bad_parameter
from retention_platform.api.models.base import Chosen
from retention_platform.api.warehouse import Parameters
from retention_platform.contract import MAX_ID_LENGTH

#: What ClickHouse's Date can hold; a day beyond it chooses what the last one does.
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2149, 6, 6)
MAX_VALUES = 50

_Value = Annotated[str, Query(max_length=MAX_ID_LENGTH)]
_ANY_OF = "only views with one of these; give it several times for several"


@dataclass(frozen=True)
class Choice:
    """Some views of a video; an empty list and a day of None take all."""

    first_day: date | None = None
    last_day: date | None = None
    device_type: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    traffic_source: tuple[str, ...] = ()
    viewer_type: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether no view is left out."""
        return self == Choice()

    def described(self) -> Chosen:
        """The choice as answers repeat it."""
        return Chosen(
            first_day=self.first_day,
            last_day=self.last_day,
            device_type=list(self.device_type),
            country=list(self.country),
            traffic_source=list(self.traffic_source),
            viewer_type=list(self.viewer_type),
        )

    def parameters(self, video_id: str) -> Parameters:
        """What fills the places of `CALL`."""
        return {
            "video_id": video_id,
            "first_day": _storable(self.first_day or _FIRST_DAY),
            "last_day": _storable(self.last_day or _LAST_DAY),
            "device_types": self.device_type,
            "countries": self.country,
            "traffic_sources": self.traffic_source,
            "viewer_types": self.viewer_type,
        }


#: What a view with parameters is called with (dbt_project/models/marts/retention_curve_of.sql).
CALL = """(
    video_id = {video_id:String}, first_day = {first_day:Date}, last_day = {last_day:Date},
    device_types = {device_types:Array(String)}, countries = {countries:Array(String)},
    traffic_sources = {traffic_sources:Array(String)}, viewer_types = {viewer_types:Array(String)}
)"""


def _storable(day: date) -> date:
    return min(max(day, _FIRST_DAY), _LAST_DAY)


def _chosen(
    first_day: Annotated[date | None, Query(description="only views that began on this UTC day or later")] = None,
    last_day: Annotated[date | None, Query(description="only views that began on this UTC day or earlier")] = None,
    device_type: Annotated[list[_Value], Query(description=_ANY_OF, max_length=MAX_VALUES)] = [],  # noqa: B006
    country: Annotated[list[_Value], Query(description=_ANY_OF, max_length=MAX_VALUES)] = [],  # noqa: B006
    traffic_source: Annotated[list[_Value], Query(description=_ANY_OF, max_length=MAX_VALUES)] = [],  # noqa: B006
    viewer_type: Annotated[
        list[Literal["new", "returning"]],
        Query(description="new: a viewer's first view of any video; returning: every later one", max_length=2),
    ] = [],  # noqa: B006
) -> Choice:
    if first_day is not None and last_day is not None and last_day < first_day:
        raise bad_parameter("query.last_day", f"Input should not be before first_day, {first_day}")
    return Choice(
        first_day, last_day, tuple(device_type), tuple(country), tuple(traffic_source), tuple(map(str, viewer_type))
    )


TheChoice = Annotated[Choice, Depends(_chosen)]
