"""What the URL of a page says: which video, which days and segments, what beside it. Pure.

Every view can be linked to, so all that is chosen is in the address and nowhere else. What an address says and makes no
sense is left out: somebody may have typed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

#: The dimensions of segments, as the API names them, and as people do.
DIMENSIONS = {
    "device_type": "Device",
    "country": "Country",
    "traffic_source": "Traffic source",
    "viewer_type": "Viewers",
}
#: Values of one dimension and videos beside each other at most; the API takes no more.
MAX_VALUES, MAX_COMPARED = 50, 5


@dataclass(frozen=True)
class Selection:
    """Some views of a video, all where nothing is chosen, and the videos it is compared with."""

    video_id: str | None = None
    first_day: date | None = None
    last_day: date | None = None
    segments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    compared: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether no view of the video is left out."""
        return self.first_day is None and self.last_day is None and not any(self.segments.values())

    def api_parameters(self) -> dict[str, str | list[str]]:
        """The query parameters that choose these views of the API."""
        parameters: dict[str, str | list[str]] = {}
        if self.first_day is not None:
            parameters["first_day"] = self.first_day.isoformat()
        if self.last_day is not None:
            parameters["last_day"] = self.last_day.isoformat()
        return parameters | {name: list(values) for name, values in self.segments.items() if values}

    def query(self) -> dict[str, str | list[str]]:
        """The query parameters of the page's own address."""
        found: dict[str, str | list[str]] = {} if self.video_id is None else {"video": self.video_id}
        found |= self.api_parameters()
        if self.compared:
            found["with"] = list(self.compared)
        return found


def selection(query: Mapping[str, Sequence[str]]) -> Selection:
    """What the query parameters of an address choose."""
    first, last = _day(query.get("first_day", ())), _day(query.get("last_day", ()))
    if first is not None and last is not None and last < first:
        first = last = None
    segments = {}
    for dimension in DIMENSIONS:
        values = tuple(dict.fromkeys(query.get(dimension, ())))[:MAX_VALUES]
        if dimension == "viewer_type":
            values = tuple(value for value in values if value in ("new", "returning"))
        if values:
            segments[dimension] = values
    video = query.get("video", ())
    video_id = video[-1] if video and video[-1] else None
    compared = tuple(one for one in dict.fromkeys(query.get("with", ())) if one and one != video_id)[:MAX_COMPARED]
    return Selection(video_id, first, last, segments, compared)


def _day(values: Sequence[str]) -> date | None:
    try:
        return date.fromisoformat(values[-1]) if values else None
    except ValueError:
        return None
