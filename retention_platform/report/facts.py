"""What a report knows about one video: the marts' rows with names and types. Pure; it computes nothing.

Every figure is the mart's own value, so that a report and the API cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retention_platform.report.queries import Row, Rows, UnknownVideo

#: Fewer videos than this have no median worth comparing with.
MIN_PEERS = 5


@dataclass(frozen=True)
class Typical:
    """Medians of other videos: how many, whether they are of similar length, and each figure's median."""

    videos: int
    of_similar_length: bool
    medians: Mapping[str, float]


@dataclass(frozen=True)
class Facts:
    """One video as the marts know it. A section is None where its mart is not built, and empty where it has no rows."""

    video_id: str
    title: str | None
    category: str | None
    published_at: datetime | None
    duration_s: float | None
    duration_source: str
    chapters: Sequence[tuple[float, str]]
    summary: Mapping[str, Any]
    curve: Sequence[Row]
    dropoffs: Sequence[Row]
    typical: Typical | None
    moments: Sequence[Row] | None
    segments: Sequence[Row] | None
    quality: Sequence[Row] | None
    insights: Sequence[Row] | None

    @property
    def views(self) -> int:
        """The V of the summary's ratios; 0 as well where a refresh has not come to the summary yet."""
        return int(self.summary.get("views") or 0)

    @property
    def curve_views(self) -> int:
        """The V of the curve's ratios: another than the summary's while a refresh is between the two."""
        return int(self.curve[0]["views"]) if self.curve else 0


def facts_of(rows: Rows, video_id: str) -> Facts:
    """The facts in the rows that `queries` names; `UnknownVideo` when they hold no such video."""
    if not rows["video"]:
        raise UnknownVideo(video_id)
    video = rows["video"][0]
    return Facts(
        video_id=str(video["video_id"]),
        title=video["title"],
        category=video["category"],
        published_at=video["published_at"],
        duration_s=video["duration_s"],
        duration_source=str(video["duration_source"]),
        chapters=[(chapter["start_ms"] / 1000, str(chapter["title"])) for chapter in video["chapters"]],
        summary=rows["summary"][0] if rows["summary"] else {},
        curve=rows["curve"],
        dropoffs=rows["dropoffs"],
        typical=typical_of(rows["typical"]),
        moments=rows.get("moments"),
        segments=rows.get("segments"),
        quality=rows.get("quality"),
        insights=rows.get("insights"),
    )


def typical_of(rows: Sequence[Row]) -> Typical | None:
    """Of videos of similar length when there are enough, else of all, else nothing."""
    by_peers = {str(row["peers"]): row for row in rows}
    for peers in ("similar", "all"):
        row = by_peers.get(peers)
        if row is not None and int(row["videos"]) >= MIN_PEERS:
            figures = {name: value for name, value in row.items() if name not in ("peers", "videos")}
            # A median over nothing is not a number.
            medians = {name: v for name, v in figures.items() if v is not None and not math.isnan(v)}
            return Typical(int(row["videos"]), peers == "similar", medians)
    return None
