"""Test data of the marts' benchmark: seeded events written by the engine itself, straight into the raw table.

A session is a number; everything about it is a hash of that number and the seed, so that any stretch of sessions can be
made at any time, by any number of statements, always the same. Sessions follow each other in time. Of two neighbours
one has as many played intervals as the other lacks, so that the intervals are exactly `INTERVALS` a session. As in
life, some sessions are sent twice, some intervals are invalid and some sessions implausible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

VIDEOS = 1_000
#: Played intervals a session: 1 to 39, in the mean these; each of 10 s of content, or what is left of the video.
INTERVALS = 20
#: A session's events besides those with an interval: its play.
EVENTS = INTERVALS + 1
#: 2026-01-01 00:00 UTC in epoch milliseconds: when the first session starts.
ORIGIN_MS = 1_767_225_600_000
DAY_MS = 86_400_000
#: One session of so many is sent twice, one interval of so many runs backwards, and one session of so many has a clock
#: that makes it a hundred times too fast.
TWICE, INVALID, IMPLAUSIBLE = 100, 500, 500
#: Sessions made by one statement: some 500 MiB while it runs.
CHUNK = 100_000

_VIDEOS = """
insert into raw.videos
    (video_id, title, duration_ms, category, published_at, chapters, updated_at, topic, ingested_at)
select
    format('video-{}', leftPad(toString(number), 4, '0')),
    format('Video {}', toString(number)),
    toInt64(%(duration)s),
    'benchmark',
    fromUnixTimestamp64Milli(toInt64(%(origin)s)),
    [],
    fromUnixTimestamp64Milli(toInt64(%(origin)s)),
    'videos',
    fromUnixTimestamp64Milli(toInt64(%(origin)s))
from (select number, number as video from numbers(%(videos)s))
"""

#: From 1 to 60 minutes, short ones more often.
_DURATION = "round(60000 * pow(60, (sipHash64(video, {seed}) % 100000) / 100000))"

# `h` is the session's hash; each property reads other bits or another hash of it. Players report every 10 s and up to
# half a second late. Positions run on from the start, with one jump in four of ten sessions, and begin again at the
# video's end.
_EVENTS = """
insert into raw.playback_events
    (
        event_id, event_type, event_time, session_id, viewer_id, video_id, position_ms, played_from_ms, played_to_ms,
        seek_from_ms, duration_ms, playback_rate, device_type, os, browser, country, traffic_source, player, is_live,
        sent_at, log_id, topic, partition, offset, ingested_at
    )
with
    sessions as (
        select
            number as session,
            sipHash64(session, {seed}) as h,
            cityHash64(h, 'second') as g,
            20 + if(session % 2 = 0, 1, -1) * (toInt64(sipHash64(intDiv(session, 2), {seed}, 'length') % 39) - 19)
                as intervals,
            toUInt64(pow((h % 65536) / 65536, 2) * {videos}) as video,
            toInt64({duration}) as duration,
            toInt64({origin} + session * {day} / {a_day}) as start,
            if(h % 10 < 7, 0, toInt64(g % duration)) as first,
            if(bitShiftRight(h, 16) % 10 < 4, toInt64(bitShiftRight(g, 20) % duration), 0) as jump,
            1 + bitShiftRight(h, 24) % 39 as jump_at,
            [1., 1., 1., 1., 1., 1., 1., 1., 1.5, 2.][1 + bitShiftRight(h, 32) % 10] as rate,
            if(bitShiftRight(g, 40) % {implausible} = 0, 100, 1) as too_fast
        from numbers({begin}, {count})
        {where}
    ),
    numbered as (select *, arrayJoin({which}) as event from sessions),
    placed as (
        select
            *,
            event > 0 as has_interval,
            if(event = 0, 0, 10000 * event + toInt64(cityHash64(h, event) % 500)) as reported,
            if(event < 2, 0, 10000 * (event - 1) + toInt64(cityHash64(h, event - 1) % 500)) as reported_before,
            (first + reported_before + if(event >= jump_at, jump, 0)) % duration as from_ms,
            least(from_ms + reported - reported_before, duration) as to_ms,
            start + toInt64(reported / rate / too_fast) as at,
            cityHash64(g, event) % {invalid} = 0 as is_invalid,
            fromUnixTimestamp64Milli(at, 'UTC') as event_time
        from numbered
    )
select
    reinterpret(
        bitOr(
            bitShiftLeft(toUInt128(bitOr(bitShiftRight(cityHash64(h, event), 2), bitShiftLeft(toUInt64(2), 62))), 64),
            toUInt128(bitOr(bitShiftLeft(toUInt64(at), 16), 28672 + cityHash64(event, h) % 4096))
        ),
        'UUID'
    ),
    multiIf(event = 0, 'play', event = intervals, 'exit', 'heartbeat'),
    event_time,
    concat(hex(h), hex(g)),
    hex(sipHash64(g % {viewers}, {seed})),
    format('video-{{}}', leftPad(toString(video), 4, '0')),
    to_ms,
    if(has_interval, if(is_invalid, to_ms, from_ms), null),
    if(has_interval, if(is_invalid, from_ms, to_ms), null),
    null,
    duration,
    rate,
    ['desktop', 'mobile', 'tablet', 'tv'][1 + bitShiftRight(h, 36) % 4],
    ['Windows', 'Android', 'iOS', 'macOS', 'Linux'][1 + bitShiftRight(h, 38) % 5],
    ['Chrome', 'Safari', 'Firefox', 'Edge'][1 + bitShiftRight(h, 41) % 4],
    ['DE', 'US', 'IN', 'BR', 'FR', 'GB', 'JP', 'NG'][1 + bitShiftRight(h, 43) % 8],
    ['search', 'suggested', 'external', 'direct'][1 + bitShiftRight(h, 46) % 4],
    'benchmark',
    false,
    event_time + interval 1 second,
    'benchmark',
    'playback_events',
    toInt32(h % 4),
    session * 64 + event,
    {ingested_at}
from placed
"""


@dataclass(frozen=True)
class Viewers:
    """Whoever watches: their sessions, so many a day, from `ORIGIN_MS` on."""

    sessions_a_day: int
    seed: int = 1
    videos: int = VIDEOS

    def describe_videos(self, client: Client) -> None:
        """Fill the catalogue."""
        duration = _DURATION.format(seed=self.seed)
        client.command(_VIDEOS % {"duration": duration, "origin": ORIGIN_MS, "videos": self.videos})

    def watch(self, client: Client, begin: int, count: int) -> None:
        """Sessions from number ``begin`` on, whole, stored a second after they happened."""
        in_time = "event_time + interval 1 second"
        for first in range(begin, begin + count, CHUNK):
            chunk = min(CHUNK, begin + count - first)
            client.command(self._events(first, chunk, ingested_at=in_time))
            again = f"where session % {TWICE} = 0"
            client.command(self._events(first, chunk, ingested_at=in_time, where=again))

    def arrive(self, client: Client, begin: int, count: int, late: int) -> int:
        """What a refresh finds as new: whole sessions from number ``begin`` on, and three further intervals of each of
        ``late`` sessions of the seven days before, all stored now; how many events that is.
        """
        now = "now64(3, 'UTC')"
        week = min(begin, 7 * self.sessions_a_day)
        every = max(1, week // max(1, late))
        news = self._events(begin, count, ingested_at=now)
        more = self._events(
            begin - week,
            min(week, late * every),
            ingested_at=now,
            where=f"where session % {every} = 0",
            which="range(intervals + 1, intervals + 4)",
        )
        return sum(int(client.query(statement).summary["written_rows"]) for statement in (news, more))

    def _events(
        self, begin: int, count: int, *, ingested_at: str, where: str = "", which: str = "range(0, intervals + 1)"
    ) -> str:
        return _EVENTS.format(
            seed=self.seed,
            videos=self.videos,
            duration=_DURATION.format(seed=self.seed),
            origin=ORIGIN_MS,
            day=DAY_MS,
            a_day=self.sessions_a_day,
            # Everybody comes five times.
            viewers=max(1, self.sessions_a_day * 6),
            begin=begin,
            count=count,
            where=where,
            which=which,
            ingested_at=ingested_at,
            invalid=INVALID,
            implausible=IMPLAUSIBLE,
        )
