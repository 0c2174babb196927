"""The weekly digest: all videos over one week, Monday to Sunday (UTC), beside the week before.

Owns its SQL and its document. A session belongs to the week of its first event, as in marts.engagement_daily.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from retention_platform.errors import RetentionError
from retention_platform.report import moments, words
from retention_platform.report.model import (
    Bars,
    Block,
    Bullets,
    Document,
    Heading,
    Inline,
    Number,
    Paragraph,
    Strong,
    Table,
    Text,
    Untrusted,
    number,
)
from retention_platform.report.queries import Ask, Row, Rows, marts_there, require
from retention_platform.report.reasons import SUFFICIENT_VIEWS

WEEK = timedelta(days=7)
#: Videos, movers and dropoffs told.
MOST_VIEWED, MOVERS, DROPOFFS = 10, 5, 10

_SESSIONS = """
    select *, day >= toDate({monday:String}) as is_this_week
    from marts.sessions
    where is_view and day >= toDate({monday:String}) - 7 and day < toDate({monday:String}) + 7
"""
_TOTALS = f"""
select
    is_this_week,
    count() as views,
    uniqExact(viewer_id) as unique_viewers,
    uniqExact(video_id) as videos,
    sum(watch_time_s) as watch_time_s,
    avg(percentage_watched) as average_view_percentage,
    avg(is_completed) as completion_rate
from ({_SESSIONS})
group by is_this_week
"""
_DAYS = """
select day, sum(views) as views
from marts.engagement_daily
where day >= toDate({monday:String}) and day < toDate({monday:String}) + 7
group by day
order by day
"""
# What is told of a video is told when it is among the most viewed, or moved most and is not too small for it.
_VIDEOS = f"""
with
    weeks as (
        select
            video_id,
            countIf(is_this_week) as views,
            countIf(not is_this_week) as views_before,
            sumIf(watch_time_s, is_this_week) as watch_time_s,
            if(views > 0, avgIf(percentage_watched, is_this_week), null) as average_view_percentage,
            if(views > 0, avgIf(is_completed, is_this_week), null) as completion_rate,
            toInt64(views) - toInt64(views_before) as change,
            greatest(views, views_before) >= {SUFFICIENT_VIEWS} as may_move
        from ({_SESSIONS})
        group by video_id
    ),

    ranked as (
        select
            *,
            row_number() over (order by views desc, video_id) as by_views,
            row_number() over (order by may_move desc, change desc, video_id) as by_gain,
            row_number() over (order by may_move desc, change, video_id) as by_loss
        from weeks
    )

select ranked.*, videos.title as title
from ranked
left join marts.videos as videos on ranked.video_id = videos.video_id
where by_views <= {MOST_VIEWED} or (may_move and (by_gain <= {MOVERS} or by_loss <= {MOVERS}))
order by by_views
"""
_DROPOFFS = f"""
select dropoffs.*, videos.title as title
from marts.dropoff_points as dropoffs
left join marts.videos as videos on dropoffs.video_id = videos.video_id
where dropoffs.video_id in (select video_id from marts.engagement_daily
    where day >= toDate({{monday:String}}) and day < toDate({{monday:String}}) + 7 and views > 0)
order by excess_points desc, video_id, start_second
limit {DROPOFFS}
"""
_PUBLISHED = """
select video_id, title
from marts.videos
where published_at >= toDate({monday:String}) and published_at < toDate({monday:String}) + 7
order by published_at, video_id
limit 50
"""
# Named one by one: duplicate_messages of all videos reads every raw event.
_QUALITY = """
select figure, sum(found) as found, sum(out_of) as out_of
from marts.data_quality
where figure in ('implausible_sessions', 'invalid_intervals', 'rejected_messages')
    and day >= toDate({monday:String}) and day < toDate({monday:String}) + 7
group by figure
order by figure
"""
_QUERIES = {
    "totals": _TOTALS,
    "days": _DAYS,
    "videos": _VIDEOS,
    "dropoffs": _DROPOFFS,
    "published": _PUBLISHED,
}
_QUALITY_NAMES = {
    "implausible_sessions": ("sessions played faster than any player can, left out", "sessions"),
    "invalid_intervals": ("played intervals impossible for their video, left out", "intervals"),
    "rejected_messages": ("messages that were not the contract; retention rejects lists them", ""),
}


def monday_of(day: date) -> date:
    """The Monday of a day's week."""
    return day - timedelta(days=day.weekday())


def day_of(text: str) -> date:
    """The day that a text names. Raises RetentionError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RetentionError(f"{text!r} is no day of a week: give one as 2026-03-18") from None


def last_week(now: datetime) -> date:
    """The Monday of the last week that is over at ``now``."""
    return monday_of(words.utc(now).date()) - WEEK


def week_name(monday: date) -> str:
    """The week as ISO 8601 names it: 2026-W12."""
    year, week, _ = monday.isocalendar()
    return f"{year}-W{week:02}"


def read(ask: Ask, monday: date) -> Rows:
    """The rows of a week. Raises ServiceError when the marts are not built."""
    there = marts_there(ask)
    require(there, "videos", "sessions", "engagement_daily", "dropoff_points")
    parameters = {"monday": monday.isoformat()}
    rows: dict[str, Sequence[Row]] = {name: ask(sql, parameters) for name, sql in _QUERIES.items()}
    if "data_quality" in there:
        rows["quality"] = ask(_QUALITY, parameters)
    return rows


def document(rows: Rows, monday: date, made_at: datetime) -> Document:
    """The digest of the week that begins at ``monday``."""
    totals = {bool(row["is_this_week"]): row for row in rows["totals"]}
    this, before = totals.get(True), totals.get(False)
    sunday = monday + WEEK - timedelta(days=1)
    blocks: list[Block] = [Paragraph((f"Monday {monday} to Sunday {sunday}, UTC.",))]
    if made_at < words.utc(datetime(monday.year, monday.month, monday.day)) + WEEK:
        blocks.append(Paragraph((Strong("This week is not over"), ": figures are of what was seen so far."), note=True))
    if this is None:
        before_that = f" The week before had {words.plural(int(before['views']), 'view')}." if before else ""
        blocks.append(Paragraph((f"Nobody watched anything this week.{before_that}",)))
    else:
        blocks += [
            *_totals(this, before or {}),
            Heading("Views a day"),
            _bars(rows["days"], monday),
            *_videos(rows["videos"]),
        ]
        blocks += _dropoffs(rows["dropoffs"])
    blocks += [*_published(rows["published"]), *_quality(rows.get("quality", ()))]
    blocks += [
        Heading("How this was made"),
        Bullets(
            [
                ("A session belongs to the week of its first event. Late events still change the figures of a week.",),
                ("Dropoffs are those of the videos watched this week, over all their views so far.",),
                (f"Read from the marts: {words.when(made_at)}",),
            ]
        ),
    ]
    return Document((f"Retention digest: week {week_name(monday)}",), blocks)


def _totals(this: Mapping[str, Any], before: Mapping[str, Any]) -> list[Block]:
    figures = (
        ("Views", "views", words.count),
        ("Viewers", "unique_viewers", words.count),
        ("Videos watched", "videos", words.count),
        ("Watch time", "watch_time_s", words.length),
        ("Average percentage viewed", "average_view_percentage", words.percentage),
        ("Came to the end", "completion_rate", words.share),
    )
    # A week without rows is a measured zero; its ratios have nothing to be of.
    zeros = dict.fromkeys(("views", "unique_viewers", "videos", "watch_time_s"), 0)
    earlier = {**zeros, **before}
    rows = [((name,), (number(this[key], say),), (number(earlier.get(key), say),)) for name, key, say in figures]
    return [Heading("In short"), Table(("Figure", "This week", "The week before"), rows)]


def _bars(days: Sequence[Row], monday: date) -> Bars:
    views = {row["day"]: int(row["views"]) for row in days}
    week = [monday + timedelta(days=number) for number in range(7)]
    return Bars([f"{day:%a} {day.day}" for day in week], [views.get(day, 0) for day in week], "Views a day")


def _named(row: Row) -> Untrusted:
    return Untrusted(str(row["title"] or row["video_id"]))


def _videos(videos: Sequence[Row]) -> list[Block]:
    top: list[Sequence[Text]] = [
        (
            (_named(row),),
            (number(row["views"], words.count),),
            (number(row["views_before"], words.count),),
            (number(row["watch_time_s"], words.length),),
            (number(row["average_view_percentage"], words.percentage),),
            (number(row["completion_rate"], words.share),),
        )
        for row in videos
        if row["by_views"] <= MOST_VIEWED and row["views"]
    ]
    columns = ("Video", "Views", "The week before", "Watch time", "Average viewed", "Came to the end")
    blocks: list[Block] = [Heading("Most viewed"), Table(columns, top)]
    gained = [row for row in videos if row["may_move"] and row["change"] > 0 and row["by_gain"] <= MOVERS]
    lost = [row for row in videos if row["may_move"] and row["change"] < 0 and row["by_loss"] <= MOVERS]
    if gained or lost:
        moved = [*sorted(gained, key=lambda row: row["by_gain"]), *sorted(lost, key=lambda row: row["by_loss"])]
        blocks += [Heading("Moved most"), Bullets([_moved(row) for row in moved])]
    return blocks


def _moved(row: Row) -> Text:
    change = int(row["change"])
    return (
        _named(row),
        ": ",
        Number(change, f"{change:+,}"),
        f" views, from {int(row['views_before']):,} to {int(row['views']):,}",
    )


def _dropoffs(rows: Sequence[Row]) -> list[Block]:
    blocks: list[Block] = [Heading("Strongest dropoffs")]
    if not rows:
        return [*blocks, Paragraph(("No significant dropoff in any of these videos.",))]
    items: list[Text] = []
    for row in rows:
        excess: Inline = number(row["excess_points"], words.decimal)
        ending = " points of all views more than expected" + (" (tentative)" if row["tentative"] else "")
        items.append((_named(row), ", ", *moments.stretch(row), ": ", excess, ending))
    return [*blocks, Bullets(items)]


def _published(rows: Sequence[Row]) -> list[Block]:
    return [Heading("Published this week"), Bullets([(_named(row),) for row in rows])] if rows else []


def _quality(rows: Sequence[Row]) -> list[Block]:
    items: list[Text] = []
    for row in rows:
        meaning, whole = _QUALITY_NAMES[str(row["figure"])]
        of = f" of {int(row['out_of']):,} {whole}" if row["out_of"] else ""
        items.append((number(int(row["found"]), words.count), f"{of}: {meaning}"))
    return [Heading("How good the data is"), Bullets(items)] if items else []
