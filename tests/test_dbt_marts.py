"""The marts equal the brute-force oracle, whatever the order, the batches and the accidents by which events came."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import oracle, oracle_engagement
from tests.dbt_support import KEYS, Chain

if TYPE_CHECKING:
    from tests.conftest import Warehouse

#: 2026-03-14 23:50 UTC: sessions go over midnight, and over a month's end for those that start 17 days later.
START_MS = 1_773_532_200_000
DAY_MS = 86_400_000

#: Every second's place among similar videos.
RANKS = "select relative_retention_performance as rank from marts.retention_curve where rank is not null"


@pytest.fixture
def chain(empty_warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(empty_warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


class Viewers:
    """Seeded nonsense that still is the contract: every accident players are known for."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def event_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def session(self, video_id: str, duration_ms: int) -> list[dict[str, Any]]:
        rng = self.random
        session_id, viewer_id = f"s{rng.getrandbits(60)}", f"v{rng.randrange(40)}"
        clock = START_MS + rng.randrange(0, 1_200_000) + rng.choice([0, 0, DAY_MS, 17 * DAY_MS])
        reports_duration = rng.random() < 0.6
        position, rate, events = rng.choice([0, 0, 0, rng.randrange(duration_ms)]), 1.0, []
        for _ in range(rng.randrange(1, 9)):
            kind = rng.choice(["play", "heartbeat", "heartbeat", "heartbeat", "pause", "seek", "rate_change", "exit"])
            event: dict[str, Any] = {"event_type": kind, "position_ms": max(0, min(position, 604_800_000))}
            if kind != "play":
                length = rng.choice([0, 1, 400, 999, 1000, 1001, 5000, 10_000, rng.randrange(1, 20_000)])
                start, end = position, position + length
                clock += round(length / rate) if rng.random() < 0.9 else 0
                position = end
                if rng.random() < 0.08:
                    start, end = rng.choice(
                        [
                            (-5, 700),
                            (end, start),
                            (start, duration_ms + 1001),
                            (start, duration_ms + 1000),
                            (duration_ms, duration_ms + 10),
                            (0, 10**12),
                            (-(10**12), -1),
                            (0, duration_ms),
                        ]
                    )
                event |= {"played_from_ms": start, "played_to_ms": end, "position_ms": max(0, min(end, duration_ms))}
            if rate != 1 or rng.random() < 0.2:
                event["playback_rate"] = rate
            if kind == "seek":
                event["seek_from_ms"] = min(position, 604_800_000)
                position = rng.randrange(duration_ms + 500)
            if kind == "rate_change":
                rate = rng.choice([0.25, 0.5, 1, 1.1, 1.25, 1.5, 1.75, 2, 16])
            if reports_duration and rng.random() < 0.7:
                event["duration_ms"] = max(1, duration_ms + rng.choice([0, 0, 0, -200, 300]))
            clock += rng.choice([0, 0, 7, 20_000, -3000 if rng.random() < 0.2 else 0])
            events.append(event | {"event_time": clock})
        base = {"schema_version": 1, "session_id": session_id, "viewer_id": viewer_id, "video_id": video_id}
        said = random.Random(session_id)
        return [base | event | self.attributes(said) | {"event_id": self.event_id()} for event in events]

    def attributes(self, rng: random.Random) -> dict[str, Any]:
        """What players say of themselves: not in every event, and not always the same."""
        said = {
            "device_type": rng.choice(["tv", "phone", "desktop"]),
            "country": rng.choice(["DE", "FR"]),
            "traffic_source": rng.choice(["search", "mail"]),
            "os": "Linux",
            "is_live": False,
        }
        return {name: value for name, value in said.items() if rng.random() < 0.3}

    def small_videos(self, count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Events and catalogue of many short videos, some without sessions, some without a description."""
        rng, events, videos = self.random, [], []
        for number in range(count):
            video_id = f"small-{number}"
            duration_ms = rng.choice([1, 999, 1000, 1001, 30_000, 31_500, rng.randrange(1, 60_000)])
            if rng.random() < 0.7:
                videos += self.descriptions(video_id, duration_ms)
            for _ in range(rng.choice([0, 1, 2, 5, 12])):
                events += self.session(video_id, duration_ms)
        return events, videos

    def descriptions(self, video_id: str, duration_ms: int) -> list[dict[str, Any]]:
        """One to three descriptions, now and then two of the same time."""
        rng = self.random
        return [
            {
                "video_id": video_id,
                "title": f"Title {rng.randrange(9)}",
                "updated_at": START_MS + rng.randrange(3),
                "chapters": [
                    {"start_ms": start, "title": f"Chapter at {start}"}
                    for start in rng.sample(range(0, duration_ms + 1), min(2, duration_ms))
                ],
            }
            | ({"category": "talks"} if rng.random() < 0.5 else {})
            | ({"duration_ms": max(1, duration_ms - rng.choice([0, 0, 1500]))} if rng.random() < 0.7 else {})
            for _ in range(rng.choice([1, 1, 2, 3]))
        ]

    def cliff(self, video_id: str, views: int, seconds: int, drops: dict[int, float]) -> list[dict[str, Any]]:
        """Views that leave at a steady small rate, and many at once after each second of ``drops``."""
        rng, events = self.random, []
        for number in range(views):
            end = next(
                (s for s in range(1, seconds) if rng.random() < drops.get(s, 0.002)),
                seconds,
            )
            first = rng.choice([0, 0, 0, rng.randrange(end)])
            clock = START_MS + rng.randrange(3_600_000)
            for start in range(first, end, 10):
                stop = min(end, start + 10)
                clock += 1000 * (stop - start)
                events.append(
                    {
                        "schema_version": 1,
                        "event_id": self.event_id(),
                        "event_type": "heartbeat",
                        "event_time": clock,
                        "session_id": f"{video_id}-{number}",
                        "viewer_id": f"v{number // 2}",
                        "video_id": video_id,
                        "position_ms": 1000 * stop,
                        "played_from_ms": 1000 * start,
                        "played_to_ms": 1000 * stop,
                        "duration_ms": 1000 * seconds,
                    }
                )
        return events

    def everything(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        events, videos = self.small_videos(150)
        events += self.cliff("cliff-99", 99, 120, {60: 0.3})
        events += self.cliff("cliff-140", 140, 250, {100: 0.3, 180: 0.2})
        events += self.cliff("cliff-320", 320, 101, {40: 0.15, 42: 0.15, 60: 0.08})
        events += self.cliff("cliff-short", 150, 12, {6: 0.4})
        videos += self.descriptions("cliff-320", 101_000)
        return events, videos


def assert_equal_to_oracle(chain: Chain, events: list[dict[str, Any]], videos: list[dict[str, Any]]) -> None:
    assert chain.client.command("select count() from raw.rejected_events") == 0, "the test broke the contract"
    expected = oracle.marts(events, videos)
    found = chain.marts()
    for row in found["videos"].values():
        row["chapters"] = json.dumps([(c["start_ms"], c["title"]) for c in row["chapters"]])
    for name in ("videos", "retention_curve", "engagement_summary", "dropoff_points"):
        assert_equal(name, found[name], getattr(expected, name))
    assert_engagement_equal(chain, found, events, videos)
    assert_segments_equal(found["retention_curve_by_segment"], events, videos)


def assert_segments_equal(found: dict[Any, Any], events: list[dict[str, Any]], videos: list[dict[str, Any]]) -> None:
    """The curves of every segment of every third video, each the curve of its views alone."""
    chosen = set(sorted({event["video_id"] for event in events})[::3])
    segments: dict[tuple[str, str, str], list[oracle_engagement.Session]] = defaultdict(list)
    for session in oracle_engagement.sessions(events, videos):
        if session.video_id in chosen and session.view.counts:
            for dimension in ("device_type", "country", "traffic_source", "viewer_type"):
                value = session.viewer_type if dimension == "viewer_type" else session.said(dimension)
                segments[session.video_id, dimension, value or ""].append(session)
    wanted = {
        (*segment, second): row
        for segment, sessions in segments.items()
        for second, row in enumerate(oracle.curve([s.view for s in sessions], sessions[0].duration_ms))
    }
    rows = {key: row for key, row in found.items() if key[0] in chosen}
    assert_equal("retention_curve_by_segment", rows, wanted)


def assert_engagement_equal(
    chain: Chain, found: dict[str, dict[Any, Any]], events: list[dict[str, Any]], videos: list[dict[str, Any]]
) -> None:
    """The marts of `oracle_engagement`; what they say of delivery has tests of its own."""
    expected = oracle_engagement.expected(events, videos)
    by_clock = {
        "concurrent_viewers": {
            (video_id, round(at.timestamp())): row for (video_id, at), row in found["concurrent_viewers"].items()
        },
        "concurrent_viewers_total": {
            round(at.timestamp()): row for at, row in found["concurrent_viewers_total"].items()
        },
        "data_quality": {
            key[:3]: row
            for key, row in found["data_quality"].items()
            if key[0] in ("implausible_sessions", "invalid_intervals")
        },
        "engagement_summary": {
            video_id: row for video_id, row in found["engagement_summary"].items() if row["sessions"]
        },
    }
    for name, rows in expected.items():
        assert_equal(name, by_clock.get(name, found[name]), rows)
    sessions = oracle_engagement.sessions(events, videos)
    wanted = oracle_engagement.relative_performance(
        oracle_engagement.watching(sessions), oracle_engagement.durations(sessions)
    )
    for key, row in found["retention_curve"].items():
        rank, value = row["relative_retention_performance"], wanted[key[0]][key[1]]
        assert same("relative_retention_performance", rank, value), f"{key}: {rank!r}, expected {value!r}"


#: Choices of views of one video: its place in the order of ids, days, and values of dimensions.
CHOICES: list[tuple[int, date, date, dict[str, list[str]]]] = [
    (0, date(1970, 1, 1), date(2100, 1, 1), {}),
    (1, date(2026, 3, 14), date(2026, 3, 14), {}),
    (1, date(2026, 3, 15), date(2026, 4, 30), {}),
    (2, date(1970, 1, 1), date(2100, 1, 1), {"device_type": ["tv", ""]}),
    (2, date(1970, 1, 1), date(2100, 1, 1), {"country": ["DE"], "traffic_source": ["search", "mail"]}),
    (3, date(1970, 1, 1), date(2100, 1, 1), {"viewer_type": ["new"]}),
    (3, date(2026, 3, 15), date(2026, 3, 16), {"viewer_type": ["returning"], "device_type": ["phone", "desktop"]}),
    (4, date(1970, 1, 1), date(2100, 1, 1), {"device_type": ["no such device"]}),
]


def assert_choices_equal(chain: Chain, events: list[dict[str, Any]], videos: list[dict[str, Any]]) -> None:
    """The views with parameters, of several choices among the videos with most views."""
    sessions = oracle_engagement.sessions(events, videos)
    ids = [v for v, _ in Counter(s.video_id for s in sessions if s.view.counts).most_common()]
    empty = 0
    for place, first_day, last_day, segments in CHOICES:
        chosen = [
            s
            for s in sessions
            if s.video_id == ids[place]
            and s.view.counts
            and first_day <= s.day <= last_day
            and all(
                (s.viewer_type if dimension == "viewer_type" else s.said(dimension)) in values
                for dimension, values in segments.items()
            )
        ]
        empty += not chosen
        lists = "device_types = {}, countries = {}, traffic_sources = {}, viewer_types = {}".format(
            *(segments.get(name, []) for name in ("device_type", "country", "traffic_source", "viewer_type"))
        )
        call = f"(video_id = '{ids[place]}', first_day = '{first_day}', last_day = '{last_day}', {lists})"
        curve = chain.client.query(f"select * from marts.retention_curve_of{call} order by second").named_results()
        wanted = oracle.curve([s.view for s in chosen], chosen[0].duration_ms if chosen else None)
        assert_equal(call, {row["second"]: row for row in curve}, dict(enumerate(wanted)))
        figures = chain.client.query(f"select * from marts.engagement_of{call}").named_results()
        found = oracle_engagement.engagement(chosen)
        assert_equal(call, dict(enumerate(figures)), {0: found} if chosen else {})
    assert 0 < empty < len(CHOICES) - 4, "the choices test too little"


def assert_equal(name: str, rows: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    assert rows.keys() == wanted.keys(), f"{name}: {sorted(rows.keys() ^ wanted.keys(), key=str)[:5]}"
    for key, row in rows.items():
        for column, value in wanted[key].items():
            assert same(column, row[column], value), f"{name} {key} {column}: {row[column]!r}, expected {value!r}"


def same(column: str, found: Any, expected: Any) -> bool:
    if isinstance(found, datetime):
        found = round(found.timestamp() * 1000)
    if isinstance(expected, Fraction | float):
        # wall time is kept in whole microseconds an interval; everything else is exact until one division
        rounding = 1e-5 if column in ("watch_time_s", "average_view_duration_s") else 0
        return found is not None and found == pytest.approx(float(expected), rel=1e-6, abs=rounding)
    return bool(found == expected)


@pytest.mark.parametrize("seed", [1, 2])
def test_marts_of_random_sessions_equal_brute_force(chain: Chain, seed: int) -> None:
    events, videos = Viewers(seed).everything()
    chain.send_events(events)
    chain.send_videos(videos)
    chain.build()
    assert_equal_to_oracle(chain, events, videos)
    assert_choices_equal(chain, events, videos)
    summary = chain.mart("engagement_summary").values()
    assert sum(row["invalid_intervals"] for row in summary) > 100, "the seed tests too little"
    assert sum(row["implausible_sessions"] for row in summary) > 0, "the seed tests too little"
    assert len(chain.mart("dropoff_points")) >= 3, "the seed tests too little"
    assert len({value for (value,) in chain.ask(RANKS)}) > 20, "the seed tests too little"


def last_writes(chain: Chain) -> dict[str, int]:
    """The number of the last insert into each incremental table; merges leave it as it is."""
    tables = {
        node.name
        for node in chain.manifest.nodes.values()
        if node.resource_type == "model" and node.config.materialized == "incremental"
    }
    blocks = (
        "select table, max(max_block_number) from system.parts where database = 'staging' and active group by table"
    )
    found = {table: number for table, number in chain.ask(blocks) if table in tables}
    assert found.keys() == tables
    return found


def test_events_split_shuffled_repeated_and_late_give_the_same_marts(chain: Chain) -> None:
    viewers = Viewers(3)
    events, videos = viewers.everything()
    repeated = events + viewers.random.sample(events, len(events) // 10)
    viewers.random.shuffle(repeated)
    cuts = [0, 1, len(repeated) // 3, 2 * len(repeated) // 3, len(repeated)]
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        if number == 2:
            chain.send_videos(videos[::2])
        chain.send_events(repeated[start:end])
        chain.build()
    # the catalogue comes last: durations change under sessions that nobody touches again
    chain.send_videos(videos)
    chain.build()
    assert_equal_to_oracle(chain, events, videos)
    in_pieces = chain.marts()

    written = last_writes(chain)
    chain.build()
    assert chain.marts() == in_pieces, "a run without news changed the marts"
    assert last_writes(chain) == written, "a run without news wrote rows"

    chain.send_events(repeated[:200])
    chain.build()
    assert chain.marts() == in_pieces, "events sent again changed the marts"

    chain.build("--full-refresh")
    assert chain.marts() == in_pieces, "a full refresh differs from the runs in pieces"

    slices = count_slices(chain, lambda: chain.build("--full-refresh", "--vars", "{slice_events: 100}"))
    assert slices > 3
    assert chain.marts() == in_pieces, "a full refresh in slices of videos differs"


def count_slices(chain: Chain, build: Callable[[], None]) -> int:
    """How many statements filled int_sessions."""
    count = """
        select count() from system.query_log
        where type = 'QueryFinish' and query_kind = 'Insert'
        and query like '%int_sessions%' and query like '%fingerprinted%'
    """
    chain.client.command("system flush logs")
    before = chain.ask(count)[0][0]
    build()
    chain.client.command("system flush logs")
    return int(chain.ask(count)[0][0]) - int(before)


def test_a_slice_may_begin_with_any_video(chain: Chain) -> None:
    names = ["it's", "back\\slash", "\\", "'", "\\'", "tab\there", "ünïcode", '"', "%s {{ x }}", "plain"]
    viewers = Viewers(8)
    events = []
    for name in names:
        events += [event for _ in range(3) for event in viewers.session(name, 60_000)]
    chain.send_events(events)
    chain.build()
    whole = chain.marts()
    assert whole["videos"].keys() >= set(names)
    assert count_slices(chain, lambda: chain.build("--full-refresh", "--vars", "{slice_events: 1}")) == len(names)
    assert chain.marts() == whole


def die_inside(chain: Chain, model: str, hash_of: str) -> None:
    """Run a model and leave what its death within the insert would: half the rows, and nothing marked done."""
    done = "select name, mark from staging.marks final where name like '%/done'"
    before = dict(chain.ask(done))
    known = int(str(chain.client.command(f"select max(generation) from staging.{model}")))
    chain.dbt("run", "--select", model)
    written = f"generation > {known} and cityHash64('{model}', {hash_of}) % 2 = 0"
    assert int(str(chain.client.command(f"select count() from staging.{model} where {written}"))) > 0
    chain.client.command(f"delete from staging.{model} where {written}")
    chain.client.command("delete from staging.marks where name like '%/done'")
    chain.client.insert("staging.marks", list(before.items()), column_names=["name", "mark"])


def test_a_run_that_died_between_or_within_models_is_made_good_by_the_next(chain: Chain) -> None:
    viewers = Viewers(4)
    events, videos = viewers.small_videos(60)
    half = len(events) // 2
    chain.send_events(events[:half])
    chain.send_videos(videos[: len(videos) // 2])
    chain.build()
    chain.send_events(events[half:])
    chain.send_videos(videos)
    die_inside(chain, "int_sessions", "session_id")
    # without what was lost the next models go on, and this one dies as well
    chain.dbt("run", "--select", "int_video_durations")
    die_inside(chain, "int_views", "session_id")
    chain.dbt("run", "--select", "int_sessions")
    die_inside(chain, "int_video_durations", "video_id")
    die_inside(chain, "int_views", "session_id")
    die_inside(chain, "int_retention_deltas", "video_id, day")
    die_inside(chain, "int_retention_totals", "video_id")
    chain.build()
    assert_equal_to_oracle(chain, events, videos)


def test_a_session_that_moves_to_the_day_before_is_on_one_day_only(chain: Chain) -> None:
    midnight = 20_000 * DAY_MS

    def event(number: int, at_ms: int, start: int) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "event_id": str(uuid.UUID(int=number)),
            "event_type": "heartbeat",
            "event_time": at_ms,
            "session_id": "over midnight",
            "viewer_id": "v",
            "video_id": "film",
            "position_ms": start + 5000,
            "played_from_ms": start,
            "played_to_ms": start + 5000,
            "duration_ms": 60_000,
        }

    events = [event(1, midnight + 3000, 5000), event(2, midnight - 2000, 0), event(3, midnight - DAY_MS - 1000, 20_000)]
    for number in range(1, 4):
        chain.send_events(events[number - 1 : number])
        chain.build()
        assert_equal_to_oracle(chain, events[:number], [])
        days = chain.ask("select day, views from staging.int_retention_deltas final where views > 0")
        assert [(day.toordinal() - 719_163, views) for day, views in days] == [(20_000 - number + 1, 1)]
        assert len(chain.ask("select 1 from staging.int_views final")) == 1


def test_an_insert_that_became_visible_late_is_found_within_the_window(chain: Chain) -> None:
    viewers = Viewers(5)
    events, videos = viewers.small_videos(20)
    chain.send_videos(videos)
    early, late, lost = events[::3], events[1::3], events[2::3]
    chain.send_events(early)
    chain.build()

    def appear(some: list[dict[str, Any]], seconds_ago: int) -> None:
        before = chain.client.command("select now64(3, 'UTC')")
        chain.send_events(some)
        chain.client.command(
            "alter table raw.playback_events update ingested_at = ingested_at - toIntervalSecond"
            f"({seconds_ago}) where ingested_at >= '{before}' settings mutations_sync = 2"
        )

    appear(late, 250)
    chain.build()
    assert_equal_to_oracle(chain, [*early, *late], videos)

    appear(lost, 7200)
    chain.build("--full-refresh")
    assert_equal_to_oracle(chain, events, videos)


def test_a_clock_that_was_an_hour_ahead_and_is_set_back_hides_no_events(chain: Chain) -> None:
    events, videos = Viewers(6).small_videos(20)
    chain.send_videos(videos)
    chain.send_events(events[::3])
    chain.build()
    # What a run by a clock that is an hour ahead leaves behind: the lower bits of the mark are milliseconds.
    ahead = "insert into staging.marks select name, max(mark) + 3600000 from staging.marks"
    chain.client.command(f"{ahead} where name like 'int_sessions/%' group by name")
    marked = "select max(mark) % pow(2, 42) / 1000 - toUnixTimestamp(now()) from staging.marks"
    marked += " where name = 'int_sessions/done'"
    assert chain.ask(marked)[0][0] > 3000
    for number in (1, 2):
        chain.send_events(events[number::3])
        chain.build()
        assert chain.ask(marked)[0][0] <= 1, "the mark goes back with the clock"
    assert_equal_to_oracle(chain, events, videos)


def test_a_video_that_loses_its_views_loses_its_curve(chain: Chain) -> None:
    events = Viewers(6).cliff("v", 120, 60, {30: 0.4})
    long, short = (
        {"title": "t", "video_id": "v", "duration_ms": 60_000},
        {"title": "t", "video_id": "v", "duration_ms": 1},
    )
    chain.send_events([e for e in events if e["played_from_ms"] >= 10_000])
    chain.send_videos([long | {"updated_at": 1_773_532_200_000}])
    chain.build()
    assert len(chain.mart("retention_curve")) == 60
    assert chain.mart("dropoff_points")
    chain.send_videos([short | {"updated_at": 1_773_532_200_001}])
    chain.build()
    assert chain.mart("retention_curve") == {}
    assert chain.mart("dropoff_points") == {}
    summary = chain.mart("engagement_summary")["v"]
    assert (summary["views"], summary["completion_rate"]) == (0, None)
    assert summary["invalid_intervals"] == sum(e["played_from_ms"] >= 10_000 for e in events)


def test_no_messages_at_all_build_empty_marts(chain: Chain) -> None:
    chain.build()
    chain.build()
    assert chain.marts() == {name: {} for name in KEYS}
