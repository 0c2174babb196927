"""The curve by other means: in the engine by exploding each second, and by DuckDB and Polars from Parquet files.

Each does the whole job from one of two starts, and its rows must equal the mart's:
`events`, the played intervals as they were stored (rivals unite a session's intervals themselves), and
`views`, what the mart's last two models start from (every view's intervals are united already).
DuckDB and Polars run in processes of their own, so that their memory can be told from ours.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import polars as pl

from retention_platform.errors import RetentionError

#: What the engine may take for itself as well.
MEMORY_LIMIT = "8GiB"

#: Seconds after which a rival has failed: what takes that long needs no exact figure.
LONGEST = 600

#: The curve's counts; every other column of the mart is a quotient of two of them.
COUNTS = (
    "views",
    "watching_views",
    "segment_plays",
    "started_watching",
    "stopped_watching",
    "at_risk",
    "reached_views",
)

#: The mart's own counts, as the rivals give them.
MART = """
select
    video_id, toInt64(second) as second, toInt64(views) as views, toInt64(watching_views) as watching_views,
    toInt64(segment_plays) as segment_plays, toInt64(started_watching) as started_watching,
    toInt64(stopped_watching) as stopped_watching, toInt64(at_risk) as at_risk,
    toInt64(round(reach_ratio * views)) as reached_views
from marts.retention_curve
"""

#: The least that any of them must do: read the table and group as many rows as it has intervals.
FLOORS = {
    "events": """
        select video_id, intDiv(played_from_ms, 1000) as second, count()
        from raw.playback_events where isNotNull(played_from_ms) group by video_id, second format Null
    """,
    "views": """
        select video_id, r.start as second, count()
        from staging.int_views array join watched_seconds as r group by video_id, second format Null
    """,
}

# Only how many watch and how often a second is played: not who started, stopped or got how far. From events, each
# session's seconds are sorted, so that the first of equals counts as watching and all as plays: of the ways tried
# (distinct rows of session and second, aggregation in the table's order) the fastest, by 2 to 12 times. The small
# blocks keep the arrays of few sessions in memory at a time.
EXPLODED = {
    "events": f"""
        select
            video_id, tupleElement(played, 1) as second, toInt64(sum(tupleElement(played, 2))) as watching_views,
            toInt64(count()) as segment_plays
        from (
            with
                isNotNull(played_from_ms)
                and played_from_ms >= 0
                and played_from_ms < played_to_ms
                and played_from_ms < videos.duration_ms
                and played_to_ms <= videos.duration_ms + 1000 as is_valid,
                assumeNotNull(played_from_ms) as from_ms,
                assumeNotNull(least(played_to_ms, videos.duration_ms)) as to_ms
            select
                video_id,
                session_id,
                arraySort(
                    groupArrayArrayIf(
                        range(toUInt32(intDiv(from_ms + 999, 1000)), toUInt32(intDiv(to_ms + 999, 1000))), is_valid
                    )
                ) as seconds,
                arrayJoin(
                    arrayZip(
                        seconds,
                        arrayMap((now, before) -> now != before, seconds, arrayShiftRight(seconds, 1, 4294967295))
                    )
                ) as played
            from raw.playback_events as events final
            inner join raw.videos as videos on events.video_id = videos.video_id
            group by video_id, session_id
            having
                sumIf(to_ms - from_ms, is_valid)
                <= 16 * (toUnixTimestamp64Milli(max(event_time)) - toUnixTimestamp64Milli(min(event_time))) + 30000
        )
        group by video_id, second
        settings max_block_size = 4096, max_execution_time = {LONGEST}
    """,
    "views": f"""
        select video_id, second, toInt64(count()) as watching_views
        from staging.int_views final
        array join watched_seconds as r
        array join range(toUInt32(r.start), toUInt32(r.stop)) as second
        where is_view
        group by video_id, second
        settings max_execution_time = {LONGEST}
    """,
}

#: What the rivals read, as Parquet.
EXPORTS = {
    "videos": "select video_id, duration_ms from raw.videos",
    "events": """
        select
            video_id, session_id, toUInt64(reinterpret(event_id, 'UInt128')) as event_low,
            toUInt64(bitShiftRight(reinterpret(event_id, 'UInt128'), 64)) as event_high,
            toUnixTimestamp64Milli(event_time) as event_ms, played_from_ms as from_ms, played_to_ms as to_ms
        from raw.playback_events
        where {part}
    """,
    "views": """
        select
            video_id, watched_seconds.start as starts, watched_seconds.stop as stops,
            played_edges.at as places, played_edges.weight as weights,
            started_second, exit_second, entered_second, furthest_ms
        from staging.int_views final
        where is_view and {part}
    """,
}

# A view's edges of six kinds; their sums by video and second; running sums over every second there is. Sums of integers
# are 128 bits wide in DuckDB, and running over those takes it twice as long as over floats, which are exact up to 2^53.
_DUCKDB_TAIL = """
summed as (
    select
        video_id, second, sum(watching)::double as watching, sum(plays)::double as plays,
        sum(started)::double as started, sum(stopped)::double as stopped, sum(entered)::double as entered,
        sum(furthest)::double as furthest
    from edges group by all
),
totals as (select video_id, sum(started) as views from summed group by video_id),
grid as (
    select video_id, views, unnest(range((duration_ms + 999) // 1000)) as second
    from videos join totals using (video_id)
)
select
    video_id, second::bigint as second, views::bigint as views,
    coalesce(sum(watching) over seconds, 0)::bigint as watching_views,
    coalesce(sum(plays) over seconds, 0)::bigint as segment_plays,
    coalesce(started, 0)::bigint as started_watching,
    coalesce(stopped, 0)::bigint as stopped_watching,
    (coalesce(sum(entered) over seconds, 0) - coalesce(sum(stopped) over seconds, 0) + coalesce(stopped, 0))::bigint
        as at_risk,
    (views - coalesce(sum(furthest) over seconds, 0) + coalesce(furthest, 0))::bigint as reached_views
from grid left join summed using (video_id, second)
window seconds as (partition by video_id order by second rows unbounded preceding)
"""

_DUCKDB = {
    "events": """
with
sent as (
    select
        any_value(video_id) as video_id, any_value(session_id) as session_id, any_value(event_ms) as event_ms,
        any_value(from_ms) as from_ms, any_value(to_ms) as to_ms
    from events group by event_low, event_high
),
valid as (
    select video_id, session_id, event_ms, from_ms, least(to_ms, duration_ms) as to_ms
    from sent join videos using (video_id)
    where from_ms >= 0 and from_ms < to_ms and from_ms < duration_ms and to_ms <= duration_ms + 1000
),
spans as (
    select video_id, session_id, max(event_ms) - min(event_ms) as span_ms from sent group by video_id, session_id
),
views as (
    select
        video_id, session_id, arg_min(from_ms, event_ms) // 1000 as started,
        (arg_max(to_ms, event_ms) + 999) // 1000 - 1 as stopped,
        min(from_ms) // 1000 as entered, (max(to_ms) + 999) // 1000 - 1 as furthest
    from valid join spans using (video_id, session_id)
    group by video_id, session_id
    having sum(to_ms - from_ms) <= 16 * any_value(span_ms) + 30000
),
played as (
    select video_id, session_id, (from_ms + 999) // 1000 as start, (to_ms + 999) // 1000 as stop
    from valid semi join views using (video_id, session_id)
),
reached as (
    select
        video_id, start, stop,
        coalesce(max(stop) over (
            partition by video_id, session_id order by start, stop rows between unbounded preceding and 1 preceding
        ), 0) as before
    from played
),
edges as (
    select video_id, greatest(start, before) as second, count(*) as watching, 0 as plays, 0 as started, 0 as stopped,
        0 as entered, 0 as furthest from reached where stop > before group by all
    union all
    select video_id, stop, -count(*), 0, 0, 0, 0, 0 from reached where stop > before group by all
    union all
    select video_id, start, 0, count(*), 0, 0, 0, 0 from played group by all
    union all
    select video_id, stop, 0, -count(*), 0, 0, 0, 0 from played group by all
    union all
    select video_id, started, 0, 0, count(*), 0, 0, 0 from views group by all
    union all
    select video_id, stopped, 0, 0, 0, count(*), 0, 0 from views group by all
    union all
    select video_id, entered, 0, 0, 0, 0, count(*), 0 from views group by all
    union all
    select video_id, furthest, 0, 0, 0, 0, 0, count(*) from views group by all
),
""",
    "views": """
with
ranges as (select video_id, unnest(starts) as start, unnest(stops) as stop from views),
played as (select video_id, unnest(places) as second, unnest(weights) as weight from views),
edges as (
    select video_id, start as second, count(*) as watching, 0 as plays, 0 as started, 0 as stopped, 0 as entered,
        0 as furthest from ranges group by all
    union all
    select video_id, stop, -count(*), 0, 0, 0, 0, 0 from ranges group by all
    union all
    select video_id, second, 0, sum(weight), 0, 0, 0, 0 from played group by all
    union all
    select video_id, started_second, 0, 0, count(*), 0, 0, 0 from views group by all
    union all
    select video_id, exit_second, 0, 0, 0, count(*), 0, 0 from views group by all
    union all
    select video_id, entered_second, 0, 0, 0, 0, count(*), 0 from views group by all
    union all
    select video_id, (furthest_ms + 999) // 1000 - 1, 0, 0, 0, 0, 0, count(*) from views group by all
),
""",
}


@dataclass(frozen=True)
class Done:
    """What a rival took."""

    #: From opening the files to having the rows; its start and imports apart.
    seconds: float
    #: The most resident memory its process had, in bytes.
    resident: int


def by_duckdb(start: str, folder: Path, result: Path) -> float:
    """The curve's counts by DuckDB into the Parquet file ``result``; seconds."""
    begin = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        connection.execute(f"set temp_directory = '{folder / 'duckdb'}'")
        connection.execute("set preserve_insertion_order = false")
        connection.execute("set enable_progress_bar = false")
        connection.execute(f"create view videos as select * from read_parquet('{folder / 'videos.parquet'}')")
        connection.execute(f"create view {start} as select * from read_parquet('{folder / start}-*.parquet')")
        connection.execute(f"create temp table curve as {_DUCKDB[start]}{_DUCKDB_TAIL}")
        taken = time.perf_counter() - begin
        connection.execute(f"copy curve to '{result}' (format parquet)")
    return taken


def by_polars(start: str, folder: Path, result: Path) -> float:
    """The curve's counts by Polars into the Parquet file ``result``; seconds. One file of videos after the other."""
    begin = time.perf_counter()
    # Numbers in the place of texts make keys cheap.
    videos = pl.read_parquet(folder / "videos.parquet").with_row_index("video").cast({"video": pl.Int64})
    curves = []
    for file in sorted(folder.glob(f"{start}-*.parquet")):
        rows = pl.scan_parquet(file).join(videos.lazy(), on="video_id")
        edges = _polars_events(rows) if start == "events" else _polars_views(rows)
        curves.append(_polars_curve(edges, videos))
    curve = pl.concat(curves)
    taken = time.perf_counter() - begin
    curve.write_parquet(result)
    return taken


_KINDS = ("watching", "plays", "started", "stopped", "entered", "furthest")


def _edges(rows: pl.LazyFrame, kind: str, second: pl.Expr, weight: pl.Expr) -> pl.LazyFrame:
    """What ``weight`` sums to at each second."""
    sums = rows.group_by("video", second.cast(pl.Int64).alias("second")).agg(weight.cast(pl.Int64).alias("weight"))
    return sums.with_columns(pl.lit(kind).alias("kind"))


def _polars_events(rows: pl.LazyFrame) -> pl.DataFrame:
    col, one, less = pl.col, pl.len().cast(pl.Int64), -pl.len().cast(pl.Int64)
    key = ["video", "session"]
    sent = (
        rows.unique(["event_low", "event_high"], keep="any")
        .select(
            "video",
            col("session_id").hash().alias("session"),
            "event_ms",
            "from_ms",
            pl.min_horizontal("to_ms", "duration_ms").alias("clipped_ms"),
            (
                (col("from_ms") >= 0)
                & (col("from_ms") < col("to_ms"))
                & (col("from_ms") < col("duration_ms"))
                & (col("to_ms") <= col("duration_ms") + 1000)
            )
            .fill_null(False)
            .alias("is_valid"),
        )
        .rename({"clipped_ms": "to_ms"})
        .collect(engine="streaming")
    )
    spans = sent.lazy().group_by(key).agg((col("event_ms").max() - col("event_ms").min()).alias("span_ms"))
    valid = sent.lazy().filter("is_valid").drop("is_valid")
    sessions = (
        valid.group_by(key)
        .agg(
            (col("from_ms").sort_by("event_ms").first() // 1000).alias("started"),
            ((col("to_ms").sort_by("event_ms").last() + 999) // 1000 - 1).alias("stopped"),
            (col("from_ms").min() // 1000).alias("entered"),
            ((col("to_ms").max() + 999) // 1000 - 1).alias("furthest"),
            (col("to_ms") - col("from_ms")).sum().alias("played_ms"),
        )
        .join(spans, on=key)
        .with_columns((col("played_ms") > 16 * col("span_ms") + 30000).alias("is_implausible"))
        .collect(engine="streaming")
    )
    views = sessions.filter(~col("is_implausible"))
    implausible = sessions.filter("is_implausible").select(key)
    start, stop = (col("from_ms") + 999) // 1000, (col("to_ms") + 999) // 1000
    played = (
        valid.join(implausible.lazy(), on=key, how="anti")
        .select(*key, start.alias("start"), stop.alias("stop"))
        .collect(engine="streaming")
    )
    # The greatest stop before, of the same session: with the session's number above it, a running maximum starts anew.
    ordered = (
        played.lazy()
        .sort("video", "session", "start", "stop")
        .with_columns(pl.struct("video", "session").rle_id().cast(pl.Int64).alias("number"))
        .with_columns((col("number") * 2**24 + col("stop")).cum_max().shift(1, fill_value=0).alias("furthest"))
        .with_columns(
            pl.when(col("furthest") // 2**24 == col("number"))
            .then(col("furthest") % 2**24)
            .otherwise(0)
            .alias("before")
        )
        .filter(col("stop") > col("before"))
        .select("video", pl.max_horizontal("start", "before").alias("start"), "stop")
    ).collect()
    ranges, all_ranges, one_view = ordered.lazy(), played.lazy(), views.lazy()
    return pl.concat(
        pl.collect_all(
            [
                _edges(ranges, "watching", col("start"), one),
                _edges(ranges, "watching", col("stop"), less),
                _edges(all_ranges, "plays", col("start"), one),
                _edges(all_ranges, "plays", col("stop"), less),
                *(_edges(one_view, kind, col(kind), one) for kind in _KINDS[2:]),
            ]
        )
    )


def _polars_views(rows: pl.LazyFrame) -> pl.DataFrame:
    col, one, less = pl.col, pl.len().cast(pl.Int64), -pl.len().cast(pl.Int64)
    ranges = rows.select("video", "starts", "stops").explode("starts", "stops").drop_nulls()
    played = rows.select("video", "places", "weights").explode("places", "weights").drop_nulls()
    return pl.concat(
        pl.collect_all(
            [
                _edges(ranges, "watching", col("starts"), one),
                _edges(ranges, "watching", col("stops"), less),
                _edges(played, "plays", col("places"), col("weights").cast(pl.Int64).sum()),
                _edges(rows, "started", col("started_second"), one),
                _edges(rows, "stopped", col("exit_second"), one),
                _edges(rows, "entered", col("entered_second"), one),
                _edges(rows, "furthest", (col("furthest_ms") + 999) // 1000 - 1, one),
            ],
            engine="streaming",
        )
    )


def _polars_curve(edges: pl.DataFrame, videos: pl.DataFrame) -> pl.DataFrame:
    col = pl.col
    summed = (
        edges.lazy()
        .group_by("video", "second")
        .agg(col("weight").filter(col("kind") == kind).sum().alias(kind) for kind in _KINDS)
    )
    totals = summed.group_by("video").agg(col("started").sum().alias("views"))
    grid = (
        videos.lazy()
        .join(totals, on="video")
        .with_columns(pl.int_ranges(0, (col("duration_ms") + 999) // 1000).alias("second"))
        .explode("second")
    )
    running = {kind: col(kind).cum_sum().over("video", order_by="second") for kind in _KINDS}
    return (
        grid.join(summed, on=["video", "second"], how="left")
        .with_columns(pl.col(_KINDS).fill_null(0))
        .select(
            "video_id",
            "second",
            "views",
            running["watching"].alias("watching_views"),
            running["plays"].alias("segment_plays"),
            col("started").alias("started_watching"),
            col("stopped").alias("stopped_watching"),
            (running["entered"] - running["stopped"] + col("stopped")).alias("at_risk"),
            (col("views") - running["furthest"] + col("furthest")).alias("reached_views"),
        )
        .collect()
    )


RIVALS: dict[str, Callable[[str, Path, Path], float]] = {"DuckDB": by_duckdb, "Polars": by_polars}


def compete(name: str, start: str, folder: Path, result: Path) -> Done:
    """Have one of `RIVALS` do it in a process of its own.

    Raises RetentionError when it fails, dies, or takes more than `LONGEST` seconds.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(name, start, folder, result, theirs), daemon=True)
    child.start()
    theirs.close()
    answer: Done | str = f"not done in {LONGEST} s"
    try:
        if ours.poll(LONGEST):
            answer = ours.recv()
        else:
            child.kill()
    except EOFError:
        answer = "its process died"
    finally:
        child.join()
    if not isinstance(answer, Done):
        raise RetentionError(f"{name} from {start} failed: {answer}")
    return answer


def _child(name: str, start: str, folder: Path, result: Path, pipe: Connection) -> None:
    try:
        taken = RIVALS[name](start, folder, result)
        # Not getrusage, whose peak begins with what the parent had.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        pipe.send(Done(taken, int(found[1]) * 1024 if found else 0))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def differences(ours: Path, theirs: Path, columns: tuple[str, ...] = COUNTS) -> int:
    """How many rows of two curves, each a Parquet file, are not in the other one as well."""
    wanted = ", ".join(("video_id", "second", *columns))
    one, other = (f"select {wanted} from read_parquet('{file}')" for file in (ours, theirs))
    sql = f"select count(*) from (({one} except all {other}) union all ({other} except all {one}))"
    with duckdb.connect() as connection:
        return int(connection.execute(sql).fetchall()[0][0])
