"""The marts' core: how fast the curve is built, refreshed and asked for, and what of memory and disk that takes.

The data is made by `marts_data`, dbt's own models are run over it by `marts_build`, and `marts_rivals` has what they
are compared with. This module decides what is measured when, and tells it. Sizes are millions of played intervals;
BENCH_MARTS_MILLIONS=1,10 chooses others than the three of the docs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError

from benchmarks.marts_build import CURVE, Built, Dbt, Watch, labelled
from benchmarks.marts_data import EVENTS, INTERVALS, VIDEOS, Viewers
from benchmarks.marts_rivals import EXPLODED, EXPORTS, FLOORS, MART, RIVALS, compete, differences
from benchmarks.report import Report
from retention_platform.api.choice import Choice
from retention_platform.api.curves import Curve
from retention_platform.api.warehouse import Warehouse
from retention_platform.embedded.clickhouse import running
from retention_platform.errors import RetentionError
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import first_line
from retention_platform.warehouse.migrate import migrate

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from retention_platform.settings import Settings

MILLION = 1_000_000
#: Days of history that the intervals of a size are spread over.
DAYS = 30
#: The models that make the curve of views whose intervals are united; those before them make such views of events. The
#: last two of them also rank the videos, which no rival does.
FROM_VIEWS = ("int_retention_deltas", "int_retention_totals", "int_survival_places", "int_curves")
#: Intervals in one Parquet file: Polars takes one file after the other.
FILE = 10 * MILLION
#: The part of new events that are not of new sessions: 3 each of so many.
LATE = 0.03
#: What a rival does from: see `marts_rivals`.
STARTS = {"events": "from the stored events", "views": "from views, their intervals united"}
OURS, READ = "the mart", "reading the whole curve"


def run(
    report: Report,
    millions: Sequence[float] | None = None,
    rounds: int = 3,
    requests: int = 200,
    histories: Sequence[int] = (1, 3, 10),
) -> None:
    """Measure at every size; at the greatest also requests. History grows to so many times the smallest."""
    chosen = os.environ.get("BENCH_MARTS_MILLIONS", "1,10,100").split(",")
    sizes = sorted(millions or [float(size) for size in chosen])
    report.text(
        f"{VIDEOS:,} videos of 1 to 60 minutes, {INTERVALS} played intervals a session, over {DAYS} days; embedded "
        "ClickHouse. Seconds are medians of rounds in which each takes its turn; memory is the engine's own figure "
        "of the statement that took most, and of other processes the most they had resident."
    )
    for size in sizes:
        with Bench.started(round(size * MILLION), DAYS) as bench:
            title = f"{size:g} M intervals"
            once = rounds if size <= 10 else 1
            bench.fill(report, title)
            bench.builds(report, title, once)
            batches = {f"1 % of {sizes[0]:g} M": sizes[0] * MILLION / 100} if size > sizes[0] else {}
            batches["1 %"] = size * MILLION / 100
            bench.refreshes(report, title, batches, rounds)
            if size == sizes[0]:
                bench.must_be_as_if_built_whole()
            if size == sizes[-1]:
                bench.asks(report, title, requests)
    _growth(report, sizes[0], histories, rounds)


def _growth(report: Report, base: float, histories: Sequence[int], rounds: int) -> None:
    """The same news on a history of ever more days, each with as many sessions as any other."""
    rows = []
    batch = base * MILLION / 100
    with Bench.started(round(base * MILLION), 10) as bench:
        bench.fill(report, "growth")
        for times in histories:
            bench.watch_on(max(0, round(times * base * MILLION / INTERVALS) - bench.sessions))
            # Whole, because history was stored, by its own account, long before the build before this one.
            bench.dbt.build(full=True)
            found = [bench.refresh(batch) for _ in range(rounds)]
            seconds = statistics.median(refresh.built.seconds for refresh in found)
            touched = statistics.median(refresh.sessions for refresh in found)
            days = statistics.median(refresh.video_days for refresh in found)
            rows.append(
                (
                    f"{times * base:g} M intervals, {times * 10} days",
                    f"{statistics.median(refresh.events for refresh in found):,.0f}",
                    f"{touched:,.0f}",
                    f"{days:,.0f}",
                    f"{seconds:.2f}",
                    f"{seconds * 1000 / touched:.2f}",
                    f"{seconds * 1000 / days:.2f}",
                )
            )
    report.text("The same news on ever more history:")
    report.table(
        ("refresh on", "new events", "sessions", "video-days", "models, s", "ms a session", "ms a video-day"), rows
    )


@dataclass(frozen=True)
class Refresh:
    """One incremental run, and what it had to do."""

    events: int
    sessions: int
    video_days: int
    built: Built


@dataclass
class Bench:
    """A warehouse of one size, and what is measured on it."""

    folder: Path
    client: Client
    settings: Settings
    dbt: Dbt
    viewers: Viewers
    watch: Watch
    #: Sessions that there are to be at first.
    wanted: int
    #: Sessions there are.
    sessions: int = 0
    #: Seconds of all models, built whole.
    full_build: float = 0
    #: Bytes on disk of a stored event.
    disk: float = 0
    #: What was measured: seconds, a number a round, and bytes resident in a process of its own.
    taken: dict[str, list[float]] = field(default_factory=dict)
    resident: dict[str, int] = field(default_factory=dict)
    #: Why a rival has no figures.
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def started(cls, intervals: int, days: int, videos: int = VIDEOS) -> Iterator[Bench]:
        """One with a server and folder of its own, for so many intervals over so many days of so many videos."""
        with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
            folder = Path(temporary)
            server = stack.enter_context(running(folder / "clickhouse"))
            settings = load_settings(retention_home=folder, clickhouse_host="127.0.0.1", clickhouse_port=server.port)
            # Nothing is heard of a statement before it ends.
            client = clickhouse_connect.get_client(
                host="127.0.0.1", port=server.port, send_receive_timeout=3600, autogenerate_session_id=False
            )
            stack.callback(client.close)
            migrate(client)
            sessions = max(1, intervals // INTERVALS)
            yield cls(
                folder,
                client,
                settings,
                Dbt(settings, folder),
                Viewers(max(1, sessions // days), videos=videos),
                stack.enter_context(Watch(settings, server.pid)),
                sessions,
            )

    def fill(self, report: Report, title: str) -> None:
        """Make the data, and wait until the engine has merged what it merges by itself."""
        begin = time.perf_counter()
        self.viewers.describe_videos(self.client)
        self.watch_on(self.wanted)
        events, disk = self._rows("raw", "playback_events")
        report.console.print(f"{title}: {events:,} events made in {time.perf_counter() - begin:.0f} s")
        self.disk = disk / events

    def watch_on(self, sessions: int) -> None:
        """As many sessions more; returns when the engine has merged what it merges by itself."""
        self.viewers.watch(self.client, self.sessions, sessions)
        self.sessions += sessions
        while self.client.query("select count() from system.merges").result_rows[0][0]:
            time.sleep(0.2)

    def builds(self, report: Report, title: str, rounds: int) -> None:
        """Full builds and their rivals, by turns; their rows compared."""
        models: list[Built] = [self.dbt.build(full=True)]
        self._export("videos", EXPORTS["videos"], self.folder / "videos.parquet")
        files = max(1, round(self.wanted * INTERVALS / FILE))
        for start in STARTS:
            for number in range(files):
                sql = EXPORTS[start].format(part=f"sipHash64(video_id) % {files} = {number}")
                self._export(start, sql, self.folder / f"{start}-{number}.parquet")
        self._export("mart", MART, self.folder / "mart.parquet")
        turns: list[Callable[[], None]] = []
        for start in STARTS:
            turns += [partial(self._floor, start), partial(self._explode, start)]
            turns += [partial(self._compete, name, start) for name in RIVALS]
        for number in range(rounds):
            if number:
                models.append(self.dbt.build(full=True))
            self._time(READ, READ, f"select * from marts.{CURVE} format Null")
            for turn in turns if number % 2 else turns[::-1]:
                turn()
        read = statistics.median(self.taken[READ])
        by_model = {name: statistics.median(built.models[name] for built in models) for name in models[0].models}
        for file in self.folder.glob("*.parquet"):
            file.unlink()
        self._tell_models(report, title, by_model, read)
        self.full_build = sum(by_model.values())
        self._tell_rivals(report, title, "events", self.full_build + read)
        self._tell_rivals(report, title, "views", sum(by_model[name] for name in FROM_VIEWS) + read)

    def _tell_models(self, report: Report, title: str, by_model: dict[str, float], read: float) -> None:
        rows: list[tuple[str, ...]] = []
        for name, seconds in by_model.items():
            stored, disk = self._rows("staging", name)
            rows.append(
                (
                    name,
                    f"{seconds:.2f}",
                    _mebibytes(self.watch.peaks.get(name)),
                    f"{stored:,}" if stored else "a view",
                    f"{disk / (self.sessions * EVENTS):.2f}" if stored else "",
                )
            )
        rows.append((READ, f"{read:.2f}", _mebibytes(self.watch.peaks.get(READ)), "", ""))
        report.table((f"full build, {title}", "s", "memory, MiB", "rows", "bytes on disk an event"), rows)
        report.text(
            f"Models in all {sum(by_model.values()):.2f} s; most that the server had resident since its start: "
            f"{_mebibytes(self.watch.resident)} MiB; stored events take {self.disk:.1f} bytes each on disk."
        )

    def _tell_rivals(self, report: Report, title: str, start: str, ours: float) -> None:
        floor = statistics.median(self.taken[f"floor, {start}"])
        chain = [name for name in self.watch.peaks if name in FROM_VIEWS or (start == "events" and "int_" in name)]
        rows = [(OURS, f"{ours:.2f}", f"{ours / floor:.1f}", "1.00", _mebibytes(self._most([*chain, READ])), "all")]
        for name in ("floor", "exploding", *RIVALS):
            label = f"{name}, {start}"
            if label in self.failed:
                rows.append((name, "failed", "", "", "", ""))
                continue
            seconds = statistics.median(self.taken[label])
            memory = self.resident.get(label) or self.watch.peaks.get(label)
            what = {
                "floor": "GROUP BY video, second",
                "exploding": "watching, plays" if start == "events" else "watching",
            }
            rows.append(
                (
                    name,
                    f"{seconds:.2f}",
                    f"{seconds / floor:.1f}",
                    f"{seconds / ours:.2f}",
                    _mebibytes(memory),
                    what.get(name, "all"),
                )
            )
        head = (f"{title}, {STARTS[start]}", "s", "of the floor", "of the mart", "memory, MiB", "counts")
        report.table(head, rows)
        for label, reason in self.failed.items():
            if label.endswith(start):
                report.text(f"{label}: {reason}")

    def _most(self, labels: Sequence[str]) -> int:
        return max((self.watch.peaks.get(label, 0) for label in labels), default=0)

    def _time(self, key: str, label: str, sql: str) -> None:
        begin = time.perf_counter()
        self.client.command(labelled(label, sql))
        self.taken.setdefault(key, []).append(time.perf_counter() - begin)

    def _floor(self, start: str) -> None:
        self._time(f"floor, {start}", f"floor, {start}", FLOORS[start])

    def _explode(self, start: str) -> None:
        label = f"exploding, {start}"
        sql = f"create or replace table default.exploded engine = Memory as {EXPLODED[start]}"
        try:
            self._time(label, label, sql)
        except DatabaseError as error:
            # That it takes more than there is tells of a rival as well.
            self.failed[label] = first_line(error)
            return
        columns = "video_id, second, watching_views" + (", segment_plays" if start == "events" else "")
        # The mart has rows for seconds that nobody watched.
        sql = f"""
            select count() from (
                select {columns}, count() as sides from (
                    select {columns} from ({MART}) where watching_views > 0
                    union all
                    select {columns} from default.exploded
                )
                group by {columns}
                having sides != 2
            )
        """
        self._must_agree(label, int(self.client.query(sql).result_rows[0][0]))
        self.client.command("drop table default.exploded")

    def _compete(self, name: str, start: str) -> None:
        label = f"{name}, {start}"
        result = self.folder / "rival.parquet"
        try:
            done = compete(name, start, self.folder, result)
        except RetentionError as error:
            self.failed[label] = str(error)
            return
        self.taken.setdefault(label, []).append(done.seconds)
        self.resident[label] = max(self.resident.get(label, 0), done.resident)
        self._must_agree(label, differences(self.folder / "mart.parquet", result))

    def _must_agree(self, label: str, differing: int) -> None:
        if differing:
            raise RetentionError(
                f"{label}: {differing:,} rows are not those of the mart built whole: its time says nothing"
            )

    def _export(self, label: str, sql: str, file: Path) -> None:
        settings = {"output_format_parquet_string_as_string": 1, "output_format_parquet_compression_method": "lz4"}
        labelled_sql = labelled(f"export, {label}", sql)
        with (
            file.open("wb") as target,
            self.client.raw_stream(labelled_sql, fmt="Parquet", settings=settings) as stream,
        ):
            shutil.copyfileobj(stream, target, 1 << 20)

    def refreshes(self, report: Report, title: str, batches: dict[str, float], rounds: int) -> None:
        """New events, and the run that takes them in."""
        rows, slowest = [], []
        for name, intervals in batches.items():
            found = [self.refresh(intervals) for _ in range(rounds)]
            seconds = statistics.median(refresh.built.seconds for refresh in found)
            sessions = statistics.median(refresh.sessions for refresh in found)
            rows.append(
                (
                    name,
                    f"{statistics.median(refresh.events for refresh in found):,.0f}",
                    f"{sessions:,.0f}",
                    f"{statistics.median(refresh.video_days for refresh in found):,.0f}",
                    f"{seconds:.2f}",
                    f"{seconds / self.full_build:.1%}",
                    f"{seconds * 1000 / sessions:.2f}",
                    f"{statistics.median(refresh.built.wall for refresh in found):.1f}",
                )
            )
            slowest.append(f"{name}: {_models(found)}")
        head = (f"refresh, {title}", "new events", "sessions", "video-days", "models, s")
        report.table((*head, "of the full build", "ms a session", "with dbt's start, s"), rows)
        report.text(f"Seconds of each model, {'; '.join(slowest)}.")

    def must_be_as_if_built_whole(self) -> None:
        """Raises RetentionError when refreshing led to other rows than a full build."""
        refreshed, whole = self.folder / "refreshed.parquet", self.folder / "whole.parquet"
        self._export("mart", MART, refreshed)
        self.dbt.build(full=True)
        self._export("mart", MART, whole)
        self._must_agree("the refreshed curve", differences(whole, refreshed))

    def refresh(self, intervals: float) -> Refresh:
        """Have so many new intervals arrive, and build what changed."""
        late = max(1, round(intervals * LATE / 3))
        count = max(1, round((intervals - 3 * late) / INTERVALS))
        before = self._newest_generation()
        events = self.viewers.arrive(self.client, self.sessions, count, late)
        self.sessions += count
        built = self.dbt.build(full=False)
        self._time_passes()
        sql = """
            select uniqExact(video_id, session_id), uniqExact(video_id, day)
            from staging.int_views where generation > {before:UInt64}
        """
        sessions, days = self.client.query(sql, parameters={"before": before}).result_rows[0]
        return Refresh(events, int(sessions), int(days), built)

    def _time_passes(self) -> None:
        """Ten minutes, for what is stored: the next refresh does not read this one's news again, as it would while an
        insert that began before them might still come (dbt variable ``late_insert_window_seconds``).
        """
        self.client.command(
            "alter table raw.playback_events update ingested_at = ingested_at - interval 10 minute "
            "where ingested_at > now64(3, 'UTC') - interval 10 minute settings mutations_sync = 1"
        )

    def _newest_generation(self) -> int:
        return int(self.client.query("select max(generation) from staging.int_views").result_rows[0][0])

    def asks(self, report: Report, title: str, requests: int) -> None:
        """One video's curve after the other, by the query, the driver and the format of the API."""
        rows = self.client.query(f"select distinct video_id from marts.{CURVE} order by video_id").result_rows
        chosen = random.Random(1).choices(rows, k=requests)
        curves = [Curve(row[0], Choice(), live=False).points(None) for row in chosen]

        async def ask() -> list[float]:
            warehouse = Warehouse(self.settings)
            times = []
            try:
                await warehouse.raw(curves[0].sql, curves[0].parameters, "JSONEachRow", {})
                for curve in curves:
                    begin = time.perf_counter()
                    assert await warehouse.raw(curve.sql, curve.parameters, "JSONEachRow", {})
                    times.append(time.perf_counter() - begin)
            finally:
                await warehouse.close()
            return sorted(times)

        times = asyncio.run(ask())
        head = (f"one video's curve, {title}", "median", "95 of 100 within", "slowest")
        middle, high = statistics.median(times), times[int(len(times) * 0.95)]
        report.table(
            head,
            [(f"ms, {requests} requests", f"{middle * 1000:.1f}", f"{high * 1000:.1f}", f"{times[-1] * 1000:.1f}")],
        )

    def _rows(self, database: str, table: str) -> tuple[int, int]:
        """Rows and bytes on disk."""
        sql = """
            select sum(rows), sum(bytes_on_disk) from system.parts
            where active and database = {database:String} and table = {table:String}
        """
        rows = self.client.query(sql, parameters={"database": database, "table": table}).result_rows
        return int(rows[0][0]), int(rows[0][1])


def _models(found: Sequence[Refresh]) -> str:
    """The models and their seconds, the slowest first."""
    middle = {
        name: statistics.median(refresh.built.models[name] for refresh in found) for name in found[0].built.models
    }
    ordered = sorted(middle.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in ordered)


def _mebibytes(size: int | None) -> str:
    return f"{size / 2**20:,.0f}" if size else "-"
