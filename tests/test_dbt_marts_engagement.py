"""Sessions, days, segments, concurrency and data quality of odd, invented and real viewers; and what delivery did.

That arrival, batches, repetitions and full refreshes change none of them is shown in `test_dbt_marts`.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from producer.catalogue import CATALOGUE
from producer.simulator import history
from retention_platform.contract import PlaybackEvent
from retention_platform.importers import xapi
from retention_platform.importers.reading import Problem, read_lines
from retention_platform.warehouse.migrate import migrate
from tests.dbt_support import Chain
from tests.messages import EVENT
from tests.test_dbt_marts import Viewers, assert_engagement_equal, die_inside
from tests.xapi_truth import STATEMENTS, covered, lengths_s, needs_statements, watched_sessions

if TYPE_CHECKING:
    from tests.conftest import Warehouse

TEN_HOURS_MS = 36_000_000

#: Just before and at midnight, the ends of a month, of a leap February and of a year, and between two instants.
STARTS_MS = [
    1_709_250_000_000 - 5_000,
    1_709_164_800_000 - 1,
    1_767_225_600_000 - 12_345,
    1_772_323_200_000,
    1_772_323_195_001,
]


@pytest.fixture
def chain(empty_warehouse: Warehouse, tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(empty_warehouse.settings, tmp_path)
    yield chain
    chain.client.close()


@st.composite
def plays(draw: st.DrawFn, duration_ms: int) -> list[dict[str, Any]]:
    """One session: steps that play, rewatch, skip, speed up, wait, or go back in time; the player may lie."""
    position = draw(st.sampled_from([0, 0, duration_ms // 2, max(0, duration_ms - 900)]))
    clock = draw(st.sampled_from(STARTS_MS)) + draw(st.integers(0, 30_000))
    tells_duration, device = draw(st.booleans()), draw(st.sampled_from(["tv", "phone", ""]))
    events = []
    for _ in range(draw(st.integers(2, 5))):
        length = draw(st.sampled_from([min(duration_ms, 20_000), duration_ms, 0, 1, 999, 1000, 10_000, TEN_HOURS_MS]))
        rate = draw(st.sampled_from([1, 0.5, 1.25, 2, 16]))
        end = position + length
        clock += draw(st.sampled_from([round(length / rate), round(length / rate), 10_000, 0, -7_000]))
        event: dict[str, Any] = {
            "event_type": draw(st.sampled_from(["heartbeat", "pause", "seek", "rate_change", "ended"])),
            "event_time": clock,
            "position_ms": min(end, duration_ms),
            "played_from_ms": position,
            "played_to_ms": end,
            "playback_rate": rate,
        }
        if tells_duration:
            event["duration_ms"] = duration_ms
        if device:
            event["device_type"] = device
        events.append(event)
        position = draw(st.sampled_from([end, end, 0, position, position + length // 2])) % (duration_ms + 1)
    return events


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[list[dict[str, Any]]]], list[int | None], list[list[int]]]:
    """A dozen videos: the sessions of each, what the catalogue says of it if anything, and who watched."""
    lengths = [1, 1000, 1001, 31_000, TEN_HOURS_MS, *draw(st.lists(st.integers(1, 90_000), min_size=7, max_size=7))]
    sessions = [draw(st.lists(plays(length), min_size=3 * (n % 4 > 0), max_size=5)) for n, length in enumerate(lengths)]
    catalogue = [draw(st.sampled_from([None, length, max(1, length - 700)])) for length in lengths]
    viewers = [[draw(st.integers(0, 5)) for _ in its] for its in sessions]
    return sessions, catalogue, viewers


def test_odd_sessions_of_odd_videos_equal_brute_force_one_lot_on_top_of_the_other(chain: Chain) -> None:
    events: list[dict[str, Any]] = []
    videos: list[dict[str, Any]] = []
    numbers = itertools.count()

    @settings(
        max_examples=3,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(worlds())
    def a_lot_comes(world: tuple[list[list[list[dict[str, Any]]]], list[int | None], list[list[int]]]) -> None:
        lot, described = [], []
        for number, (sessions, length, viewers) in enumerate(zip(*world, strict=True)):
            video_id = f"video-{number}"
            if length is not None:
                described.append({"video_id": video_id, "title": "t", "updated_at": 1_770_000_000_000 + next(numbers)})
                described[-1]["duration_ms"] = length
            for session, viewer in zip(sessions, viewers, strict=True):
                base = {"schema_version": 1, "session_id": f"s{next(numbers)}", "viewer_id": f"v{viewer}"}
                for event in session:
                    identity = {
                        "event_id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(next(numbers)))),
                        "video_id": video_id,
                    }
                    lot.append(base | event | identity)
        chain.send_events(lot)
        chain.send_videos(described)
        events.extend(lot)
        videos.extend(described)
        chain.dbt("run")
        assert chain.client.command("select count() from raw.rejected_events") == 0, "the test broke the contract"
        assert_engagement_equal(chain, chain.marts(), events, videos)

    a_lot_comes()
    kinds = {(row["viewer_type"], row["is_implausible"]) for row in chain.mart("sessions").values()}
    assert kinds >= {("new", False), ("returning", False), (None, False)}, "the lots test too little"
    assert max(row["peak_concurrent_viewers"] for row in chain.mart("engagement_summary").values()) >= 3


@needs_statements
def test_invented_and_real_viewers_have_in_the_marts_what_is_known_of_them(chain: Chain) -> None:
    invented = list(history(7, 250, 3, datetime(2026, 3, 1, 6, tzinfo=timezone.utc)))
    messages = [json.loads(message) for session in invented for _, message in session.messages]
    real = [outcome for outcome in xapi.convert(read_lines(STATEMENTS)) if not isinstance(outcome, Problem)]
    messages += [json.loads(event.to_json()) for event in real if isinstance(event, PlaybackEvent)]
    videos = [json.loads(demo.video.to_json()) for demo in CATALOGUE]
    videos += [json.loads(video.to_json()) for video in real if not isinstance(video, PlaybackEvent)]
    chain.send_events(messages)
    chain.send_videos(videos)
    chain.dbt("run")
    rows = {row["session_id"]: row for row in chain.mart("sessions").values()}
    watching: Counter[tuple[str, int]] = Counter()
    plays: Counter[tuple[str, int]] = Counter()

    def played(video_id: str, intervals: list[tuple[int, int]]) -> None:
        instants = [s for start, end in intervals for s in range(-(-start // 1000), -(-end // 1000))]
        plays.update((video_id, instant) for instant in instants)
        watching.update((video_id, instant) for instant in set(instants))

    for session in invented:
        truth, row = json.loads(session.truth()), rows.pop(session.session_id)
        assert row["is_view"] == bool(truth["intervals"])
        assert (row["viewer_id"], row["video_id"]) == (truth["viewer_id"], truth["video_id"])
        assert (row["events"], row["intervals"]) == (truth["events"], len(truth["intervals"]))
        assert row["content_played_s"] == sum(end - start for start, end in truth["intervals"]) / 1000
        assert row["content_watched_s"] == covered(truth["intervals"]).count(1) / 1000
        played(session.video_id, truth["intervals"])

    lengths, progresses = lengths_s(), 0
    for session_id, watched in watched_sessions().items():
        row = rows.pop(session_id)
        length_ms = round(lengths[watched.video_id] * 1000)
        valid = [(a, min(b, length_ms)) for a, b in watched.segments if a < length_ms and b <= length_ms + 1000]
        assert row["viewer_id"] == watched.viewer_id
        assert row["invalid_intervals"] == len(watched.segments) - len(valid)
        assert row["content_watched_s"] == covered(valid).count(1) / 1000
        played(watched.video_id, valid)
        if watched.progress is not None and watched.length_s == lengths[watched.video_id]:
            assert row["percentage_watched"] == pytest.approx(100 * watched.progress, abs=0.2)
            progresses += 1
    assert progresses > 1000
    assert not any(row["is_view"] for row in rows.values())
    curve = chain.mart("retention_curve")
    assert {key: row["watching_views"] for key, row in curve.items() if row["watching_views"]} == watching
    assert {key: row["segment_plays"] for key, row in curve.items() if row["segment_plays"]} == plays
    assert_engagement_equal(chain, chain.marts(), messages, videos)

    # One video's rows are found by its key, in the views behind them and in what is joined to them.
    for question, tables in {
        "sessions where video_id = 'demo-01'": 2,
        "engagement_by_segment where video_id = 'demo-01' and dimension = 'country'": 2,
        "engagement_daily where video_id = 'demo-01' and day > '2026-02-27'": 1,
        "concurrent_viewers where video_id = 'demo-01' and day = '2026-02-27'": 1,
        "retention_curve where video_id = 'demo-01'": 1,  # so few videos have no peers, so ranks are empty
    }.items():
        plan = explain(chain, question)
        assert plan.count("ReadFromMergeTree") == plan.count(BY_KEY) == tables, plan
    assert BY_KEY in explain(chain, "data_quality where video_id = 'demo-01'").split("(raw.playback_events)")[1]


#: What ClickHouse says of reading one video by the primary key.
BY_KEY = "(video_id in ['demo-01', 'demo-01'])"


def explain(chain: Chain, question: str) -> str:
    return "\n".join(line for (line,) in chain.ask(f"explain indexes = 1 select * from marts.{question}"))


def test_data_quality_counts_what_came_twice_late_or_not_in_the_contract(chain: Chain) -> None:
    now = datetime.now(timezone.utc).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    soon = datetime.now(timezone.utc) + timedelta(hours=1)

    def event(number: int, at: datetime, **fields: Any) -> dict[str, Any]:
        identity = {"event_id": str(uuid.UUID(int=number)), "session_id": "s", "event_time": at.isoformat()}
        return EVENT | identity | {"video_id": "v", "position_ms": 0} | fields

    first, second, future = event(1, now), event(2, now, session_id="t"), event(3, soon)
    chain.send_events([first, second, future, first])
    chain.send_events([first, event(4, now, video_id=7), event(5, now, video_id=7), event(6, now, position_ms=-1)])
    chain.send_videos([{"title": "no id", "updated_at": 1_770_000_000_000}])
    chain.dbt("run")
    chain.client.command("optimize table raw.playback_events final")
    rows = chain.ask("select figure, day, video_id, field, found, out_of from marts.data_quality order by all")
    today = datetime.now(timezone.utc).date()
    # one session began yesterday and, by its player's clock, goes on in an hour
    expected = [
        ("duplicate_messages", now.date(), "v", "", 2, 4),
        ("duplicate_messages", soon.date(), "v", "", 0, 1),
        ("implausible_sessions", now.date(), "v", "", 0, 2),
        ("invalid_intervals", now.date(), "v", "", 0, 0),
        ("late_messages", now.date(), "v", "", 4, 4),
        ("late_messages", soon.date(), "v", "", 0, 1),
        ("rejected_messages", today, "", "position_ms", 1, None),
        ("rejected_messages", today, "", "video_id", 2, None),
        ("rejected_messages", today, "", "video_id", 1, None),
    ]
    assert sorted(rows, key=str) == sorted(expected, key=str)
    reasons = chain.ask("select found, reason from marts.data_quality where field = 'video_id' order by found")
    assert reasons == [(1, "video_id: missing"), (2, "video_id: not a string")]


def test_a_day_of_which_raw_dropped_events_tells_nothing_of_copies(chain: Chain) -> None:
    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    # Raw keeps three days: of the day three days ago the last second is there for as long as today lasts.
    times = [today - timedelta(days=3), today - timedelta(days=2, seconds=1), today - timedelta(days=2)]

    def event(number: int, at: datetime) -> dict[str, Any]:
        identity = {"event_id": str(uuid.UUID(int=number)), "session_id": f"s{number}", "event_time": at.isoformat()}
        return EVENT | identity | {"video_id": "v", "position_ms": 0}

    events = [event(number, at) for number, at in enumerate(times, 1)]
    chain.send_events([*events, events[-1]])
    chain.dbt("run")

    def copies() -> list[tuple[Any, ...]]:
        figure = "from marts.data_quality where figure = 'duplicate_messages' order by day"
        return chain.ask(f"select day, found, out_of {figure}")

    cut, whole = times[0].date(), times[2].date()
    assert copies() == [(cut, 0, 2), (whole, 1, 2)]
    migrate(chain.client, raw_ttl_days=3)
    chain.client.command("optimize table raw.playback_events final")
    assert chain.ask("select count() from raw.playback_events") == [(2,)], "the time to live took one event"
    assert copies() == [(whole, 1, 2)]


def test_a_run_that_died_while_days_or_concurrency_were_written_is_made_good_by_the_next(chain: Chain) -> None:
    events, videos = Viewers(8).small_videos(50)
    chain.send_events(events[::2])
    chain.dbt("run")
    chain.send_events(events[1::2])
    chain.send_videos(videos)
    chain.dbt("run", "--select", "int_sessions", "int_video_durations", "int_views")
    die_inside(chain, "int_engagement_days", "video_id, day")
    die_inside(chain, "int_concurrency", "video_id, clock_day, day")
    die_inside(chain, "int_concurrency_days", "video_id, clock_day")
    chain.dbt("run")
    assert_engagement_equal(chain, chain.marts(), events, videos)


def test_every_mart_states_its_grain_and_keeps_a_contract_and_is_told_who_reads_it(chain: Chain) -> None:
    marts = {node.name: node for node in chain.manifest.nodes.values() if getattr(node, "schema", "") == "marts"}
    models = {name: node for name, node in marts.items() if node.resource_type == "model"}
    functions = {name for name, node in models.items() if node.config.materialized == "parameterized_view"}
    assert functions == {"retention_curve_of", "engagement_of"}, "these have no columns before they are called"
    assert {name for name, node in models.items() if not node.contract.enforced} == functions
    assert {name for name, node in models.items() if not node.description.startswith("One row ")} == set()
    exposures = {exposure.name: exposure for exposure in chain.manifest.exposures.values()}
    assert exposures.keys() == {"rest_api", "dashboard", "report", "insights", "dagster"}
    read = {unique_id for exposure in exposures.values() for unique_id in exposure.depends_on.nodes}
    assert {node.unique_id for node in models.values()} - read == set()


def test_views_with_parameters_have_the_documented_columns(chain: Chain) -> None:
    chain.dbt("run")
    nothing = "video_id = '', first_day = today(), last_day = today(), device_types = [], countries = []"
    nothing += ", traffic_sources = [], viewer_types = []"
    for node in chain.manifest.nodes.values():
        if node.config.materialized == "parameterized_view":
            described = chain.ask(f"describe (select * from marts.{node.name}({nothing}))")
            assert [(row[0], row[1]) for row in described] == [(c.name, c.data_type) for c in node.columns.values()]
