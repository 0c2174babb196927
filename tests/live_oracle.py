"""What the live tables must show: the last hour recomputed plainly from the events themselves."""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

HOUR_MS = 3_600_000
#: How near to the border of the live hour an event may be, in ms, for a comparison to be fair.
BORDER_MS = 100
STOPS = {"pause", "ended", "exit", "error"}

Event = dict[str, Any]


def played(event: Event) -> tuple[int, int, Fraction] | None:
    """The valid interval of an event by its own words, clipped, and its length on the clock in milliseconds."""
    if "played_from_ms" not in event:
        return None
    start, end = event["played_from_ms"], event["played_to_ms"]
    rate = Fraction(str(event.get("playback_rate", 1)))
    duration = event.get("duration_ms", 604_800_000)
    if not 0 <= start < end or start >= duration or end > duration + 1000 or end - start > HOUR_MS * rate:
        return None
    end = min(end, duration)
    return start, end, (end - start) / rate


def concurrency(events: list[Event], now_ms: int) -> dict[tuple[int, str], int]:
    seen: dict[tuple[int, str], set[str]] = defaultdict(set)
    for event in events:
        interval = played(event)
        if interval is None or event["event_time"] < now_ms - 3 * HOUR_MS:
            continue
        tick = math.ceil((event["event_time"] - interval[2]) / 10_000)
        while tick * 10_000 < event["event_time"]:
            seen[tick * 10, event["video_id"]].add(event["session_id"])
            tick += 1
    first, last = now_ms // 1000 - 3600, now_ms // 1000
    return {(at, video): len(sessions) for (at, video), sessions in seen.items() if first < at <= last}


def curve(events: list[Event], now_ms: int) -> dict[tuple[str, int], tuple[int, int]]:
    seconds: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for event in events:
        interval = played(event)
        if interval is not None and event["event_time"] > now_ms - HOUR_MS:
            start, end, _ = interval
            seconds[event["video_id"]][event["session_id"]] |= {
                s for s in range(start // 1000, end // 1000 + 1) if start <= 1000 * s < end
            }
    found = {}
    for video, sessions in seconds.items():
        for second in range(max((max(watched, default=0) for watched in sessions.values()), default=0) + 1):
            watching = sum(second in watched for watched in sessions.values())
            found[video, second] = (len(sessions), watching)
    return found


def viewers_now(events: list[Event], now_ms: int) -> dict[str, int]:
    last: dict[tuple[str, str], Event] = {}
    for event in sorted(events, key=lambda e: (e["event_time"], uuid.UUID(e["event_id"]))):
        if event["event_time"] > now_ms - 30_000:
            last[event["video_id"], event["session_id"]] = event
    found: dict[str, int] = defaultdict(int)
    for (video, _), event in last.items():
        found[video] += event["event_type"] not in STOPS
    return {video: viewers for video, viewers in found.items() if viewers}


def assert_live(ask: Callable[[str], list[tuple[Any, ...]]], events: list[Event]) -> None:
    """The live tables that ``ask`` queries show these events of the last hour, and nothing else.

    The hour is that of the query: one that is asked seconds later than the oracle's clock differs wherever something
    happened an hour ago.
    """
    for _ in range(50):
        rows = ask(
            "select video_id, second, views, watching_views, toUnixTimestamp64Milli(now64(3)) from live.retention_curve"
        )
        now_ms = rows[0][4] if rows else int(time.time() * 1000)
        # One at the very border was counted or not by a clock that was read a moment earlier or later.
        if not any(abs(event["event_time"] - (now_ms - HOUR_MS)) < BORDER_MS for event in events):
            break
    seen: dict[Any, Any] = {(video, second): (views, watching) for video, second, views, watching, _ in rows}
    _assert_same("live.retention_curve", seen, curve(events, now_ms))
    rows = ask("select toUnixTimestamp(at), video_id, viewers, toUnixTimestamp64Milli(now64(3)) from live.concurrency")
    now_ms = rows[0][3] if rows else int(time.time() * 1000)
    # The first instant of the hour may go while it is asked, and the last may come.
    stable = range(now_ms // 1000 - 3590, now_ms // 1000 - 10)
    live = {(int(at), video): viewers for at, video, viewers, _ in rows if int(at) in stable}
    wanted = {key: viewers for key, viewers in concurrency(events, now_ms).items() if key[0] in stable}
    _assert_same("live.concurrency", live, wanted)


def _assert_same(name: str, found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> None:
    wrong = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    shown = ", ".join(f"{key}: {found.get(key)}, expected {wanted.get(key)}" for key in wrong[:3])
    assert not wrong, f"{name} differs at {len(wrong)} of {len(wanted)} places: {shown}"
