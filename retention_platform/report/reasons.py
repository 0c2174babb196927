"""Why a part of a report or an answer is empty, and how much so many views can tell. Pure decisions.

So that "nothing found" is never taken for "nothing known".
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

#: The same figures as the variables of dbt_project.yml, which decide; tests hold the two together.
SUFFICIENT_VIEWS = 30
MOMENTS_MIN_VIEWS = 100
TENTATIVE_BELOW_VIEWS = 300
DROPOFF_BUCKETS = 100
DROPOFF_EDGE_BUCKETS = 5
SIMILAR_LENGTH_PERCENT = 25

NO_VIEWS = "no session of this video has a valid played interval yet, so there is nothing to measure"


class Reason(NamedTuple):
    """For programs, and for people."""

    code: str
    text: str


def sufficiency(views: int) -> Literal["no_views", "insufficient", "curve_only", "tentative", "full"]:
    """How much so many views can tell (docs/metrics.md, section 5)."""
    if views == 0:
        return "no_views"
    if views < SUFFICIENT_VIEWS:
        return "insufficient"
    if views < MOMENTS_MIN_VIEWS:
        return "curve_only"
    return "tentative" if views < TENTATIVE_BELOW_VIEWS else "full"


def without_moments(views: int) -> Reason:
    """Why no key moment is reported for a video of so many views."""
    if views == 0:
        return Reason("no_views", NO_VIEWS)
    text = f"{views} views: too few to tell a moment from chance; they are looked for from {MOMENTS_MIN_VIEWS} on"
    return Reason("too_few_views", text)


def without_views(views: int) -> Reason | None:
    """Why there are no figures; None when there are views."""
    return Reason("no_views", NO_VIEWS) if views == 0 else None


def without_dropoffs(views: int, duration_s: float | None) -> Reason:
    """Why no dropoff is reported for a video of so many views and seconds."""
    if views == 0:
        return Reason("no_views", NO_VIEWS)
    if views < MOMENTS_MIN_VIEWS:
        text = f"{views} views: too few to tell a dropoff from chance; they are tested from {MOMENTS_MIN_VIEWS} on"
        return Reason("too_few_views", text)
    buckets = min(DROPOFF_BUCKETS, math.ceil(duration_s or 0))
    if buckets <= 2 * DROPOFF_EDGE_BUCKETS:
        text = (
            f"the video has {buckets} buckets, and the {DROPOFF_EDGE_BUCKETS} at either end, "
            "where every video loses viewers, are not tested"
        )
        return Reason("video_too_short", text)
    text = "tested, and nowhere do significantly more views end than the neighbouring stretches predict"
    return Reason("none_significant", text)
